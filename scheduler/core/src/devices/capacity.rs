//! Consumable capacity: what a request takes of a device that several claims share.
//!
//! As upstream: a request that says nothing takes the default or everything; with a policy it is rounded up to what the
//! policy allows. What cannot be computed, or is negative, ends the allocation with an error; what does not fit only skips
//! the device. (Kubernetes' fractional ranges are off by default and are not used.)

use super::facts::{Amounts, Capacity, CapacityPolicy, CapacityRange, DeviceInfo};
use flowforge_scheduler_cel::Quantity;
use smol_str::SmolStr;

/// What a request takes of each capacity of a device.
///
/// # Errors
/// When an amount cannot be represented.
pub(super) fn consumed(device: &DeviceInfo, asked: &Amounts) -> Result<Amounts, String> {
    let of = |(name, capacity): (&SmolStr, &Capacity)| {
        let amount = take(capacity, asked.get(name).copied()).map_err(|what| format!("capacity \"{name}\": {what}"))?;
        Ok((name.clone(), amount))
    };
    device.capacity.iter().map(of).collect()
}

/// Whether a request fits into what is left of a device.
///
/// # Errors
/// When an amount cannot be represented, or is negative.
pub(super) fn fits<'a>(
    device: &DeviceInfo,
    asked: &Amounts,
    used: impl Fn(&str) -> Quantity + 'a,
) -> Result<bool, String> {
    if asked.keys().any(|name| !device.capacity.contains_key(name)) {
        return Ok(false);
    }
    let consumed = consumed(device, asked)?;
    if let Some((name, _)) = consumed.iter().find(|(_, amount)| amount.sign() < 0) {
        return Err(format!("capacity \"{name}\": capacity value is negative"));
    }
    let fits = |(name, capacity): (&SmolStr, &Capacity)| {
        let amount = consumed.get(name).copied().unwrap_or_default();
        !capacity.policy.as_ref().is_some_and(|policy| violates(amount, policy))
            && used(name).plus(amount) <= capacity.value
    };
    Ok(device.capacity.iter().all(fits))
}

fn take(capacity: &Capacity, asked: Option<Quantity>) -> Result<Quantity, String> {
    let policy = capacity.policy.as_ref();
    let Some(asked) = asked else {
        return Ok(policy.and_then(|policy| policy.default).unwrap_or(capacity.value));
    };
    let Some(policy) = policy else { return Ok(asked) };
    match (&policy.range, &policy.values) {
        (Some(range @ CapacityRange { min: Some(min), .. }), _) => round_up(asked, *min, range.step),
        (_, Some(values)) => Ok(values.iter().copied().find(|value| asked <= *value).unwrap_or(asked)),
        _ => Ok(asked),
    }
}

fn round_up(asked: Quantity, min: Quantity, step: Option<Quantity>) -> Result<Quantity, String> {
    const TOO_LARGE: &str = "capacity request cannot be represented in the device's range arithmetic";
    if asked < min {
        return Ok(min);
    }
    let Some(step) = step else { return Ok(asked) };
    if asked > Quantity::whole(i64::MAX) {
        return Err(format!("{TOO_LARGE}: request {asked} exceeds the largest integer"));
    }
    let (asked, step, min) = (asked.ceil(), step.ceil(), min.ceil());
    if step <= 0 {
        return Err("the step of the range is not positive".into());
    }
    let added = asked.saturating_sub(min);
    let steps = added / step + i64::from(added % step != 0);
    let up = steps.checked_mul(step).and_then(|up| up.checked_add(min));
    up.map(Quantity::whole)
        .ok_or_else(|| format!("{TOO_LARGE}: rounding request {asked} up passes the largest integer"))
}

fn violates(amount: Quantity, policy: &CapacityPolicy) -> bool {
    if policy.default == Some(amount) {
        return false;
    }
    match (&policy.range, &policy.values) {
        (Some(range), _) => {
            let off_step = |step: Quantity| {
                let from = amount.ceil().saturating_sub(range.min.unwrap_or_default().ceil());
                step.ceil() != 0 && from % step.ceil() != 0
            };
            range.max.is_some_and(|max| amount > max) || range.step.is_some_and(off_step)
        }
        (None, Some(values)) if !values.is_empty() => !values.contains(&amount),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(text: &str) -> Quantity {
        Quantity::parse(text).unwrap()
    }

    fn device(policy: Option<CapacityPolicy>) -> DeviceInfo {
        let capacity = [("memory".into(), Capacity { value: q("80Gi"), policy })].into();
        DeviceInfo { capacity, ..DeviceInfo::default() }
    }

    fn takes(policy: Option<CapacityPolicy>, asked: Option<&str>) -> Result<Quantity, String> {
        let asked = asked.map(|text| (SmolStr::from("memory"), q(text))).into_iter().collect();
        consumed(&device(policy), &asked).map(|all| all["memory"])
    }

    #[test]
    fn a_request_is_rounded_up_to_what_the_policy_allows() {
        let values =
            || Some(CapacityPolicy { default: Some(q("10Gi")), values: Some(vec![q("10Gi"), q("20Gi")]), range: None });
        let range = |step: &str| {
            let range = CapacityRange { min: Some(q("4Gi")), max: Some(q("32Gi")), step: Some(q(step)) };
            Some(CapacityPolicy { default: Some(q("4Gi")), values: None, range: Some(range) })
        };
        assert_eq!([takes(None, None), takes(None, Some("3Gi"))], [Ok(q("80Gi")), Ok(q("3Gi"))]);
        assert_eq!([takes(values(), None), takes(values(), Some("11Gi"))], [Ok(q("10Gi")), Ok(q("20Gi"))]);
        assert_eq!([takes(range("2Gi"), Some("5Gi")), takes(range("2Gi"), Some("1"))], [Ok(q("6Gi")), Ok(q("4Gi"))]);
        assert!(takes(range("2Gi"), Some("100E")).is_err() && takes(range("0"), Some("5Gi")).is_err());
    }

    #[test]
    fn what_is_left_and_what_is_allowed_decide() {
        let fits = |asked: &[(&str, &str)], used: &str| {
            let asked = asked.iter().map(|(name, amount)| (SmolStr::from(*name), q(amount))).collect();
            fits(&device(None), &asked, |_| q(used))
        };
        assert_eq!([fits(&[("memory", "40Gi")], "40Gi"), fits(&[("memory", "41Gi")], "40Gi")], [Ok(true), Ok(false)]);
        assert_eq!(fits(&[("cores", "1")], "0"), Ok(false));
        assert!(fits(&[("memory", "-1")], "0").is_err());
    }
}

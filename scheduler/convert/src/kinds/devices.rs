//! The kinds that say what devices there are and who holds them. The engine takes them as they are.
//!
//! All of them may be absent: `resource.k8s.io/v1` is served from Kubernetes 1.34 on, DeviceTaintRules from 1.37 on.

use super::plain;
use crate::{device_types as api, devices as convert};
use flowforge_scheduler_core::devices::{DeviceFact, DeviceList};
use flowforge_scheduler_core::event::{Event, RelistedKind};
use smol_str::SmolStr;

/// A kind of `resource.k8s.io/v1`: what an object is, what one is that is gone, and a list.
macro_rules! device_kind {
    ($(#[$doc:meta])* $name:ident, $object:ty, $plural:literal, $fact:expr, $gone:expr, $listed:expr) => {
        plain!(
            $(#[$doc])*
            $name: $object, $plural, concat!("/apis/resource.k8s.io/v1/", $plural), optional true,
            upsert |object| Event::Device(Box::new($fact(object))),
            gone |namespace, name| Event::Device(Box::new($gone(namespace, name))),
            listed |names| RelistedKind::Devices($listed(names))
        );
    };
}

device_kind!(
    /// ResourceSlices.
    Slices, api::ResourceSlice, "resourceslices",
    |slice| DeviceFact::Slice(convert::slice(slice)),
    |_, name| DeviceFact::SliceGone(name),
    |all| DeviceList::Slices(names(all))
);
device_kind!(
    /// DeviceClasses.
    Classes, api::DeviceClass, "deviceclasses",
    |class| DeviceFact::Class(convert::class(class)),
    |_, name| DeviceFact::ClassGone(name),
    |all| DeviceList::Classes(names(all))
);
device_kind!(
    /// DeviceTaintRules.
    TaintRules, api::DeviceTaintRule, "devicetaintrules",
    |rule| DeviceFact::Rule(convert::taint_rule(rule)),
    |_, name| DeviceFact::RuleGone(name),
    |all| DeviceList::Rules(names(all))
);
device_kind!(
    /// ResourceClaims.
    Claims, api::ResourceClaim, "resourceclaims",
    |claim| DeviceFact::Claim(convert::claim(claim)),
    DeviceFact::ClaimGone,
    DeviceList::Claims
);

/// Objects without a namespace have only names.
fn names(all: Vec<(SmolStr, SmolStr)>) -> Vec<SmolStr> {
    all.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Plain as _;
    use serde_json::json;

    fn fact(event: Event) -> DeviceFact {
        let Event::Device(fact) = event else { panic!("{event:?}") };
        *fact
    }

    #[test]
    fn each_kind_becomes_a_fact_of_its_kind() {
        let slice =
            serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {"driver": "d"}})).expect("a slice");
        assert!(matches!(fact(Slices::upsert(&slice)), DeviceFact::Slice(slice) if slice.driver == "d"));
        let class = serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {}})).expect("a class");
        assert!(matches!(fact(Classes::upsert(&class)), DeviceFact::Class(class) if class.name == "c"));
        let taint = json!({"key": "k", "effect": "NoSchedule"});
        let rule = json!({"metadata": {"name": "r"}, "spec": {"taint": taint}});
        let rule = serde_json::from_value(rule).expect("a rule");
        assert!(matches!(fact(TaintRules::upsert(&rule)), DeviceFact::Rule(rule) if rule.taint.key == "k"));
        let claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": {}});
        let claim = serde_json::from_value(claim).expect("a claim");
        assert!(matches!(fact(Claims::upsert(&claim)), DeviceFact::Claim(claim) if claim.uid == "u"));
    }

    #[test]
    fn what_goes_away_is_named() {
        assert_eq!(fact(Claims::gone("n".into(), "c".into())), DeviceFact::ClaimGone("n".into(), "c".into()));
        assert_eq!(Slices::listed(Vec::new()), RelistedKind::Devices(DeviceList::Slices(Vec::new())));
    }
}

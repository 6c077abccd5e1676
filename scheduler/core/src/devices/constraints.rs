//! Constraints over the devices of a claim, while they are chosen one by one.

use super::facts::{Constraint, DeviceInfo};
use flowforge_scheduler_cel::Attribute;
use smol_str::SmolStr;

/// A constraint and the values of the devices chosen so far that it is about.
#[derive(Clone, Debug)]
pub(super) struct Watch<'a> {
    requests: &'a [SmolStr],
    attribute: &'a SmolStr,
    distinct: bool,
    values: Vec<&'a Attribute>,
}

impl<'a> Watch<'a> {
    /// None: not a constraint that is known here.
    pub(super) fn new(of: &'a Constraint) -> Option<Self> {
        let (requests, attribute, distinct) = match of {
            Constraint::Match(requests, attribute) => (requests, attribute, false),
            Constraint::Distinct(requests, attribute) => (requests, attribute, true),
            Constraint::Unknown => return None,
        };
        Some(Self { requests, attribute, distinct, values: Vec::new() })
    }

    /// Whether it is about a request, or one of its alternatives.
    fn applies(&self, request: &str, alternative: Option<&SmolStr>) -> bool {
        self.requests.is_empty()
            || self.requests.iter().any(|name| {
                name == request
                    || alternative.is_some_and(|inner| {
                        name.strip_prefix(request).and_then(|rest| rest.strip_prefix('/')) == Some(inner.as_str())
                    })
            })
    }

    /// Takes a device in, where it may be.
    pub(super) fn add(
        &mut self,
        request: &str,
        alternative: Option<&SmolStr>,
        driver: &str,
        device: &'a DeviceInfo,
    ) -> bool {
        if !self.applies(request, alternative) {
            return true;
        }
        let Some(value) = lookup(device, driver, self.attribute) else { return false };
        let known = !matches!(value, Attribute::List(_) | Attribute::Unknown);
        let first = self.values.is_empty();
        let may = if self.distinct {
            first || (known && !self.values.contains(&value))
        } else {
            first || (known && self.values[0] == value)
        };
        if may {
            self.values.push(value);
        }
        may
    }

    /// Takes all devices out again.
    pub(super) fn clear(&mut self) {
        self.values.clear();
    }

    /// Takes the device that came last out again.
    pub(super) fn remove(&mut self, request: &str, alternative: Option<&SmolStr>) {
        if self.applies(request, alternative) {
            self.values.pop();
        }
    }
}

/// An attribute by its full name; what the driver names without a domain is in its own.
fn lookup<'a>(device: &'a DeviceInfo, driver: &str, name: &str) -> Option<&'a Attribute> {
    if let Some(value) = device.attributes.get(name) {
        return Some(value);
    }
    let (domain, id) = name.split_once('/')?;
    if domain == driver { device.attributes.get(id) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(value: Attribute) -> DeviceInfo {
        DeviceInfo { attributes: [("model".into(), value)].into(), ..DeviceInfo::default() }
    }

    #[test]
    fn values_match_or_differ_and_leave_again() {
        let (a, b) = (device(Attribute::String("a".into())), device(Attribute::String("b".into())));
        let same = Constraint::Match(Vec::new(), "gpu.example/model".into());
        let mut watch = Watch::new(&same).unwrap();
        assert_eq!([&a, &b, &a].map(|d| watch.add("r", None, "gpu.example", d)), [true, false, true]);
        watch.remove("r", None);
        watch.remove("r", None);
        assert!(watch.add("r", None, "gpu.example", &b) && !watch.add("r", None, "other.example", &b));
        let differ = Constraint::Distinct(Vec::new(), "gpu.example/model".into());
        let mut watch = Watch::new(&differ).unwrap();
        assert_eq!([&a, &a, &b].map(|d| watch.add("r", None, "gpu.example", d)), [true, false, true]);
    }

    #[test]
    fn only_the_requests_that_it_names_count() {
        let none = DeviceInfo::default();
        let of = Constraint::Match(vec!["r/big".into()], "gpu.example/model".into());
        let mut watch = Watch::new(&of).unwrap();
        assert!(watch.add("r", Some(&"small".into()), "gpu.example", &none));
        assert!(!watch.add("r", Some(&"big".into()), "gpu.example", &none));
    }

    #[test]
    fn a_value_of_an_unknown_kind_stands_alone() {
        let list = device(Attribute::List(vec![]));
        let of = Constraint::Match(Vec::new(), "gpu.example/model".into());
        let mut watch = Watch::new(&of).unwrap();
        assert_eq!([&list, &list].map(|d| watch.add("r", None, "gpu.example", d)), [true, false]);
    }
}

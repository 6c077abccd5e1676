//! VolumeZone: zone and region labels of a bound volume must have the node's values, the beta names as well as those that
//! replaced them. A label may list several zones (`a__b`). A node with none of the labels takes any volume. Unresolvable by
//! preemption.
//!
//! A claim that is bound to a volume that does not exist refuses the pod before any node is looked at, and so does one that
//! does not exist, or has no volume and does not wait for the pod, where VolumeBinding has not said so before; generic
//! ephemeral volumes are left to VolumeBinding.

use super::Cures;
use crate::labels::Labels;
use smol_str::SmolStr;
use std::fmt;

/// kube-scheduler's name.
pub const NAME: &str = "VolumeZone";
/// Reason text.
pub const REASON: &str = "node(s) had no available volume zone";
/// What cures it.
pub const CURED_BY: Cures =
    Cures::STORAGE_CLASSES.and(Cures::NODE_ADDED).and(Cures::NODE_LABELS).and(Cures::CLAIMS).and(Cures::VOLUMES);

/// The labels, and the name that a node may have instead.
const KEYS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];
/// Between the zones of a label.
const DELIMITER: &str = "__";

/// A label of a volume: the place in [`KEYS`], and the values that are right.
pub type Zone = (usize, Vec<SmolStr>);

/// Reason text of a volume that does not exist.
#[must_use]
pub fn reason_missing(volume: &str) -> String {
    not_found("persistentvolume", volume)
}

/// As an API server and its clients say it.
#[must_use]
pub fn not_found(kind: &str, name: &str) -> String {
    format!("{kind} {name:?} not found")
}

/// Why nobody knows the zone of a claim.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ZoneUnknown {
    /// The claim of this name does not exist.
    ClaimMissing(SmolStr),
    /// It has neither a volume nor a class.
    NoClass,
    /// It has no volume, and its class of this name does not exist.
    ClassMissing(SmolStr),
    /// It has no volume, and its class does not wait for the pod.
    Unbound,
}

impl fmt::Display for ZoneUnknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClaimMissing(claim) => f.write_str(&not_found("persistentvolumeclaim", claim)),
            Self::NoClass => f.write_str("PersistentVolumeClaim had no pv name and storageClass name"),
            Self::ClassMissing(class) => f.write_str(&not_found("storageclass.storage.k8s.io", class)),
            Self::Unbound => f.write_str("PersistentVolume had no name"),
        }
    }
}

/// The zones of a volume with these labels; a label with an empty zone says nothing.
#[must_use]
pub fn zones(labels: &Labels) -> Vec<Zone> {
    let zone = |(at, (key, _)): (usize, &(&str, &str))| {
        let values: Vec<SmolStr> = labels.get(*key)?.split(DELIMITER).map(|zone| zone.trim().into()).collect();
        (!values.iter().any(SmolStr::is_empty)).then_some((at, values))
    };
    KEYS.iter().enumerate().filter_map(zone).collect()
}

/// Whether a node with these labels is in the zones of a pod's volumes.
#[must_use]
pub fn fits(zones: &[Zone], labels: &Labels) -> bool {
    let holds = |(at, values): &Zone| {
        let (key, instead) = KEYS[*at];
        labels.get(key).or_else(|| labels.get(instead)).is_some_and(|value| values.contains(value))
    };
    zones.is_empty() || !KEYS.iter().any(|(key, _)| labels.contains_key(*key)) || zones.iter().all(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn a_volume_of_several_zones_is_in_each_of_them() {
        let volume = zones(&labels(&[("topology.kubernetes.io/zone", "a__b")]));
        let node = |zone| labels(&[("topology.kubernetes.io/zone", zone)]);
        assert_eq!(
            [fits(&volume, &node("a")), fits(&volume, &node("b")), fits(&volume, &node("c"))],
            [true, true, false]
        );
        assert!(fits(&volume, &labels(&[("pool", "x")])), "a node without zones takes any");
        assert!(!fits(&volume, &labels(&[("topology.kubernetes.io/region", "r")])), "a zone is missing there");
        assert_eq!(zones(&labels(&[("topology.kubernetes.io/zone", "a__")])), []);
    }

    #[test]
    fn a_beta_label_is_compared_with_the_beta_value_first() {
        let volume = zones(&labels(&[("failure-domain.beta.kubernetes.io/zone", "a")]));
        assert!(fits(&volume, &labels(&[("topology.kubernetes.io/zone", "a")])));
        let both = [("topology.kubernetes.io/zone", "a"), ("failure-domain.beta.kubernetes.io/zone", "b")];
        assert!(!fits(&volume, &labels(&both)));
    }
}

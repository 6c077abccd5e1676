//! VolumeBinding: bound volumes must be reachable from the node; claims that wait for their first consumer need a volume
//! that is there and free, or one that can be made for the node. Unresolvable by preemption.
//!
//! A pod is refused before any node is looked at when a claim of it is missing, lost, being deleted, somebody else's, or
//! unbound although its class does not wait. Claims that are bound by hand get the smallest volume that will do, those that
//! ask for least first; what finds none is provisioned, where the class allows the node and, for drivers that publish it,
//! enough storage is free. A node's score comes from the share in use of the chosen volumes, or of the published capacity:
//! what the profile's line says of it, the share that is left free where it has none, averaged over the classes
//! (StorageCapacityScoring, on by default in 1.37); weight 1, not normalised.

use super::node_resources_fit::on_line;
use super::{Cures, MAX_NODE_SCORE};
use crate::labels::Labels;
use crate::volumes::{ClaimInfo, StorageSize, TopologyTerm, VolumeInfo};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// kube-scheduler's name.
pub const NAME: &str = "VolumeBinding";
/// Reason text of unbound claims whose class does not wait.
pub const REASON_UNBOUND: &str = "pod has unbound immediate PersistentVolumeClaims";
/// Reason text where a bound volume cannot be reached.
pub const REASON_AFFINITY: &str = "node(s) didn't match PersistentVolume's node affinity";
/// Reason text where no volume is free and none can be made.
pub const REASON_NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";
/// Reason text where too little storage is free.
pub const REASON_NO_SPACE: &str = "node(s) did not have enough free storage";
/// Reason text of a claim that is bound to a volume that does not exist.
pub const REASON_NO_SUCH_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
/// What cures it. A pod that gives up its place gives back the volume that was kept for it.
pub const CURED_BY: Cures = Cures::CLAIMS
    .and(Cures::VOLUMES)
    .and(Cures::STORAGE_CLASSES)
    .and(Cures::STORAGE_CAPACITY)
    .and(Cures::CSI_NODES)
    .and(Cures::NODE_ADDED)
    .and(Cures::NODE_LABELS)
    .and(Cures::POD_GONE);
/// Weight of the score.
pub const WEIGHT: i64 = 1;
/// The default line through points of (utilization in percent, score): the share that is left free.
pub const LINE: [(i64, i64); 2] = [(0, MAX_NODE_SCORE), (100, 0)];
/// The provisioner of classes whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Reason text of the claim of a generic ephemeral volume that does not exist yet.
#[must_use]
pub fn reason_ephemeral_missing(claim: &str) -> String {
    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {claim:?}")
}

/// Reason text of a claim whose volume is gone.
#[must_use]
pub fn reason_lost(claim: &str, volume: &str) -> String {
    format!("persistentvolumeclaim {claim:?} bound to non-existent persistentvolume {volume:?}")
}

/// Reason text of a claim that is being deleted.
#[must_use]
pub fn reason_deleting(claim: &str) -> String {
    format!("persistentvolumeclaim {claim:?} is being deleted")
}

/// Reason text of a claim that has the name of a pod's ephemeral volume and was not made for it.
#[must_use]
pub fn reason_not_owned(namespace: &str, claim: &str, pod: &str) -> String {
    format!("PVC {namespace}/{claim} was not created for pod {namespace}/{pod} (pod is not owner)")
}

/// Whether a volume could serve a claim, free or kept for it, wherever the pod stands.
#[must_use]
pub fn could_serve(volume: &VolumeInfo, claim: &ClaimInfo) -> bool {
    volume.capacity >= claim.request.unwrap_or_default()
        && volume.block == claim.block
        && volume.attributes_class == claim.attributes_class
        && !volume.deleting
}

/// Whether a volume that is kept for nobody may be bound to a claim that it could serve.
#[must_use]
pub fn may_be_bound(volume: &VolumeInfo, claim: &ClaimInfo) -> bool {
    volume.available
        && volume.class == claim.class
        && claim.selector.as_ref().is_none_or(|selector| selector.matches(&volume.labels))
        && claim.modes.iter().all(|mode| volume.modes.contains(mode))
}

/// Whether a class makes volumes for a node with these labels.
#[must_use]
pub fn is_in_topology(terms: &[TopologyTerm], labels: &Labels) -> bool {
    let holds = |(key, values): &(SmolStr, Vec<SmolStr>)| labels.get(key).is_some_and(|value| values.contains(value));
    terms.is_empty() || terms.iter().any(|term| !term.is_empty() && term.iter().all(holds))
}

/// Score of a node: what its volumes ask for and have, in bytes, by class; `line` as [`LINE`], ascending.
#[must_use]
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "as upstream: scores of 0 to 100")]
pub fn score(classes: &BTreeMap<SmolStr, (i64, i64)>, line: &[(i64, i64)]) -> i64 {
    if classes.is_empty() {
        return 0;
    }
    let sum: i64 =
        classes.values().map(|(requested, capacity)| on_line(line, used_percent(*requested, *capacity))).sum();
    (sum as f64 / classes.len() as f64).round() as i64
}

fn used_percent(requested: i64, capacity: i64) -> i64 {
    if capacity == 0 || requested > capacity {
        return 100;
    }
    i64::try_from(i128::from(requested) * 100 / i128::from(capacity)).unwrap_or(100)
}

/// Whether this much is free.
#[must_use]
pub fn has_space(limit: Option<i64>, request: StorageSize) -> bool {
    limit.is_some_and(|limit| limit >= request.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gigabytes(amount: i128) -> StorageSize {
        StorageSize(amount << 30)
    }

    #[test]
    fn a_volume_serves_what_is_not_larger_and_of_its_mode() {
        let volume =
            VolumeInfo { capacity: gigabytes(5), modes: vec!["ReadWriteOnce".into()], ..VolumeInfo::default() };
        let claim = |amount| ClaimInfo { request: Some(gigabytes(amount)), ..ClaimInfo::default() };
        assert!(could_serve(&volume, &claim(5)) && !could_serve(&volume, &claim(6)));
        assert!(!could_serve(&volume, &ClaimInfo { block: true, ..claim(1) }));
        assert!(!could_serve(&VolumeInfo { deleting: true, ..volume.clone() }, &claim(1)));
        assert!(!may_be_bound(&volume, &claim(1)), "it is not available");
        let free = VolumeInfo { available: true, ..volume };
        assert!(may_be_bound(&free, &claim(1)));
        assert!(!may_be_bound(&free, &ClaimInfo { modes: vec!["ReadWriteMany".into()], ..claim(1) }));
        assert!(!may_be_bound(&free, &ClaimInfo { class: "other".into(), ..claim(1) }));
    }

    #[test]
    fn no_terms_are_everywhere_and_an_empty_term_is_nowhere() {
        let zone: Labels = [("zone".into(), "a".into())].into();
        let term = |values: &[&str]| vec![("zone".into(), values.iter().map(|v| (*v).into()).collect())];
        assert!(is_in_topology(&[], &zone) && !is_in_topology(&[vec![]], &zone));
        assert!(is_in_topology(&[vec![], term(&["b", "a"])], &zone) && !is_in_topology(&[term(&["b"])], &zone));
    }

    #[test]
    fn a_score_is_the_share_that_stays_free() {
        let of = |all: &[(&str, (i64, i64))]| score(&all.iter().map(|(k, v)| (SmolStr::from(*k), *v)).collect(), &LINE);
        assert_eq!([of(&[]), of(&[("a", (1, 4))]), of(&[("a", (5, 4))]), of(&[("a", (0, 0))])], [0, 75, 0, 0]);
        assert_eq!(of(&[("a", (1, 4)), ("b", (1, 2))]), 63);
    }

    #[test]
    fn a_profile_may_score_full_volumes_higher() {
        let of = |requested, capacity| score(&[("a".into(), (requested, capacity))].into(), &[(20, 0), (60, 100)]);
        assert_eq!([of(1, 10), of(4, 10), of(9, 10), of(5, 4)], [0, 50, 100, 100]);
    }
}

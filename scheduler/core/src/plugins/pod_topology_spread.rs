//! PodTopologySpread: hard constraints limit by how many matching pods a place may exceed the one with the fewest; soft ones
//! prefer places with few. Weight 2. Pods without constraints of their own are spread softly over hosts and zones when a
//! Service or a controller selects them.
//!
//! As upstream: only nodes with all keys of the pod's hard (or soft) constraints count, and those that the constraint's
//! inclusion policies take; terminating pods and pods of other namespaces do not; an empty selector counts nobody.
//! A node without a key is unresolvable by preemption.

use super::{Cures, MAX_NODE_SCORE};
use crate::labels::LabelSelector;
use crate::relations::SpreadConstraint;
use flowforge_topology_core::HOSTNAME;
use smol_str::SmolStr;

/// kube-scheduler's name.
pub const NAME: &str = "PodTopologySpread";
/// Reason text: the place has too many matching pods.
pub const REASON: &str = "node(s) didn't match pod topology spread constraints";
/// Reason text: the node is in no place.
pub const REASON_NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
/// What cures it.
pub const CURED_BY: Cures = Cures::NODE_ADDED
    .and(Cures::NODE_LABELS)
    .and(Cures::NODE_TAINTS)
    .and(Cures::NODE_GONE)
    .and(Cures::POD_GONE)
    .and(Cures::POD_ADDED)
    .and(Cures::PEER_LABELS)
    .and(Cures::POD_CHANGED);
/// Weight of the score.
pub const WEIGHT: i64 = 2;

const ZONE: &str = "topology.kubernetes.io/zone";

/// The constraints of a pod that has none, where something selects it: softly over hosts and zones.
#[must_use]
pub fn system_defaults(selector: &LabelSelector) -> [SpreadConstraint; 2] {
    [(HOSTNAME, 3), (ZONE, 5)].map(|(key, max_skew)| SpreadConstraint {
        max_skew,
        topology_key: SmolStr::new_static(key),
        hard: false,
        selector: Some(selector.clone()),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    })
}

/// Whether a place with `count` matching pods takes one more, where the fewest of any place are `fewest`.
#[must_use]
pub fn fits(count: i64, matches_itself: bool, fewest: i64, max_skew: u32) -> bool {
    count + i64::from(matches_itself) - fewest <= i64::from(max_skew)
}

/// The weight of a constraint over so many places: small topologies are not watered down by large ones.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "as upstream; numbers of places are small")]
pub fn weight(places: usize) -> f64 {
    ((places + 2) as f64).ln()
}

/// A node's share of the raw score for one constraint: fewer is better.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "as upstream; numbers of pods are small")]
pub fn share(count: u64, max_skew: u32, weight: f64) -> f64 {
    count as f64 * weight + (f64::from(max_skew) - 1.0)
}

/// Scaled to 0..=100 over the scored nodes; None: the node lacks a key and gets nothing.
#[must_use]
pub fn normalize(raw: Option<i64>, least: i64, most: i64) -> i64 {
    match raw {
        None => 0,
        Some(_) if most == 0 => MAX_NODE_SCORE,
        Some(raw) => MAX_NODE_SCORE * (most + least - raw) / most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_skew_counts_the_pod_itself_where_it_matches() {
        assert!(fits(1, false, 0, 1) && !fits(1, true, 0, 1));
        assert!(fits(3, true, 3, 1) && !fits(5, true, 3, 2));
    }

    #[test]
    fn fewer_pods_score_higher_and_nodes_without_a_key_get_nothing() {
        assert_eq!([normalize(Some(2), 2, 10), normalize(Some(10), 2, 10), normalize(None, 2, 10)], [100, 20, 0]);
        assert_eq!(normalize(Some(0), 0, 0), 100);
        assert!(weight(1) < weight(100));
        assert_eq!(share(0, 1, 3.0), 0.0);
        assert_eq!(share(2, 5, 1.5), 7.0);
    }
}

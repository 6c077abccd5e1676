//! When work is expected to leave its node.
//!
//! Its start and what it declares to run at most. Who outlives that is expected to go on for as long as it has outlived it
//! already (the older it gets, the longer it may still take), so that a job that is late moves a promise and breaks nothing.
//! Who declares nothing never ends, as far as anybody knows.

use crate::model::Millis;
use crate::snapshot::{Cluster, PodId};

/// Whoever is late is given so long at least.
const LATE_MS: Millis = 10_000;
/// How long a pod that is being deleted may take to go: the grace that Kubernetes gives by default.
const GRACE_MS: Millis = 30_000;

impl Cluster {
    /// When a pod that stands on a node is expected to leave it; None where nobody knows.
    pub(crate) fn expected_end(&self, id: PodId, now: Millis) -> Option<Millis> {
        let pod = self.pod(id)?;
        let standing = pod.standing;
        if standing.deleting {
            return Some(now.saturating_add(GRACE_MS));
        }
        // Who has not begun to run begins as soon as it was placed, as far as anybody knows.
        let began = standing.started_at_ms.unwrap_or(if pod.placed_at_ms == 0 { now } else { pod.placed_at_ms });
        let end = began.saturating_add(standing.run_ms?);
        Some(if end > now { end } else { now.saturating_add((now - end).max(LATE_MS)) })
    }

    /// Whether a pod of ours is work that ends some day, though nobody knows when: services and what runs on every node do not.
    pub(crate) fn ends_some_day(&self, id: PodId) -> bool {
        const NEVER: [&str; 5] = ["DaemonSet", "Node", "ReplicaSet", "ReplicationController", "StatefulSet"];
        self.info(id).is_some_and(|pod| pod.owner.as_ref().is_none_or(|owner| !NEVER.contains(&owner.kind.as_str())))
    }
}

//! What those who might evict a pod see of it: how important it is, since when it runs, whether it is going already.

use super::cluster::Cluster;
use super::footprint::Footprint;
use super::node::NodeId;
use super::pod::PodId;
use crate::model::{Millis, PodInfo};

/// The standing of a pod, of ours or foreign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// `spec.priority`.
    pub(crate) priority: i32,
    /// Start, in milliseconds since the epoch; None has not started.
    pub(crate) started_at_ms: Option<Millis>,
    /// Whether it is being deleted.
    pub(crate) deleting: bool,
    /// Whether a scheduler has marked it for eviction.
    pub(crate) preempted: bool,
}

impl Standing {
    /// The standing of a pod.
    pub(crate) fn of(pod: &PodInfo) -> Self {
        let PodInfo { priority, started_at_ms, deleting, preempted, .. } = *pod;
        Self { priority, started_at_ms, deleting, preempted }
    }
}

impl Cluster {
    /// Changes the standing of a pod.
    pub(crate) fn set_standing(&mut self, id: PodId, standing: Standing) {
        let Some(pod) = self.pods.get_mut(id) else { return };
        let old = std::mem::replace(&mut pod.standing, standing);
        if old.priority != standing.priority && pod.place.node().is_some() {
            self.priorities.entry(old.priority).and_modify(|pods| *pods -= 1);
            *self.priorities.entry(standing.priority).or_default() += 1;
        }
    }

    /// What a pod takes of its node.
    pub(crate) fn footprint_of(&self, id: PodId) -> Option<&Footprint> {
        self.footprints.get(self.pods.get(id)?.footprint).map(|footprint| &**footprint)
    }

    /// What a node has of a resource; 0 where no node has any.
    pub(crate) fn allocatable(&self, node: NodeId, resource: &str) -> i64 {
        self.lanes.find(resource).map_or(0, |lane| self.lanes.allocatable(lane, node.index()))
    }

    /// Whether some pod on a node has a lower priority. `O(priorities)`.
    pub(crate) fn any_below(&self, priority: i32) -> bool {
        self.priorities.range(..priority).any(|(_, pods)| *pods > 0)
    }
}

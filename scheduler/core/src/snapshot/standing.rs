//! What those who might evict a pod see of it: how important it is, since when it runs, whether it is going already.

use super::cluster::Cluster;
use super::footprint::Footprint;
use super::lanes::{CPU_LANE, EPHEMERAL_STORAGE_LANE, MEMORY_LANE};
use super::node::NodeId;
use super::pod::PodId;
use crate::model::{Millis, PodInfo};
use crate::profile::Lane;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// The standing of a pod, of ours or foreign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// `spec.priority`.
    pub(crate) priority: i32,
    /// Start, in milliseconds since the epoch; None has not started.
    pub(crate) started_at_ms: Option<Millis>,
    /// How long it runs at most, as it declares.
    pub(crate) run_ms: Option<Millis>,
    /// Whether it is being deleted.
    pub(crate) deleting: bool,
    /// Whether a scheduler has marked it for eviction.
    pub(crate) preempted: bool,
}

impl Standing {
    /// The standing of a pod.
    pub(crate) fn of(pod: &PodInfo) -> Self {
        let PodInfo { priority, started_at_ms, deleting, preempted, .. } = *pod;
        let run_ms = pod.expected.as_ref().and_then(|declared| declared.as_ref().ok().copied());
        Self { priority, started_at_ms, run_ms, deleting, preempted }
    }
}

impl Cluster {
    /// Changes the standing of a pod.
    pub(crate) fn set_standing(&mut self, id: PodId, standing: Standing) {
        let Some(pod) = self.pods.get_mut(id) else { return };
        let old = std::mem::replace(&mut pod.standing, standing);
        if old.priority != standing.priority && pod.place.node().is_some() {
            count_down(&mut self.priorities, old.priority);
            count_up(&mut self.priorities, standing.priority);
        }
    }

    /// What a pod takes of its node.
    pub(crate) fn footprint_of(&self, id: PodId) -> Option<&Footprint> {
        self.footprints.get(self.pods.get(id)?.footprint).map(|footprint| &**footprint)
    }

    /// Resources that count whole devices.
    pub(crate) fn device_resources(&self) -> &[SmolStr] {
        &self.device_resources
    }

    /// How many whole devices a pod has.
    pub(crate) fn devices_of(&self, id: PodId) -> u64 {
        let Some(footprint) = self.footprint_of(id) else { return 0 };
        self.device_resources.iter().map(|name| u64::try_from(footprint.request(name)).unwrap_or(0)).sum()
    }

    /// Devices of a node that nobody asks for; those that a DeviceClass has are not counted.
    pub(crate) fn free_devices(&self, node: NodeId) -> u64 {
        let free = |name: &SmolStr| self.lanes.find(name).map_or(0, |lane| self.lanes.free(lane, node.index()));
        self.device_resources.iter().map(|name| u64::try_from(free(name)).unwrap_or(0)).sum()
    }

    /// Free amount of a resource on a node by name; None where no node has such a resource. What a DeviceClass stands for
    /// is not counted on nodes that do not offer it themselves: devices are looked for then.
    #[must_use]
    pub fn free(&self, node: NodeId, resource: &str) -> Option<i64> {
        if self.devices.class_for(resource).is_some() && self.allocatable(node, resource) == 0 {
            return Some(i64::MAX);
        }
        self.lanes.find(resource).map(|lane| self.lanes.free(lane, node.index()))
    }

    /// What a node has of a resource; 0 where no node has any.
    pub(crate) fn allocatable(&self, node: NodeId, resource: &str) -> i64 {
        self.lanes.find(resource).map_or(0, |lane| self.lanes.allocatable(lane, node.index()))
    }

    /// What is in use and allocatable of a scored resource; None where the node has none of it. CPU and memory count with
    /// the defaults for scoring unless `real`.
    pub(crate) fn scored(&self, row: usize, lane: Lane, real: bool) -> Option<(i64, i64)> {
        let at = match lane {
            Lane::Cpu => CPU_LANE,
            Lane::Memory => MEMORY_LANE,
            Lane::EphemeralStorage => EPHEMERAL_STORAGE_LANE,
            Lane::Extended(at) => self.lanes.watched(at)?,
            Lane::Nowhere => return None,
        };
        let used = match lane {
            Lane::Cpu if !real => self.lanes.scored(row)[0],
            Lane::Memory if !real => self.lanes.scored(row)[1],
            _ => self.lanes.used(at, row),
        };
        let allocatable = self.lanes.allocatable(at, row);
        (allocatable > 0).then_some((used, allocatable))
    }

    /// Whether some pod on a node has a lower priority. `O(log priorities)`.
    pub(crate) fn any_below(&self, priority: i32) -> bool {
        self.priorities.range(..priority).next().is_some()
    }
}

/// One pod more of this priority stands on a node.
pub(super) fn count_up(priorities: &mut BTreeMap<i32, usize>, priority: i32) {
    *priorities.entry(priority).or_default() += 1;
}

/// One pod less; a priority that nobody has is not kept.
pub(super) fn count_down(priorities: &mut BTreeMap<i32, usize>, priority: i32) {
    let Some(pods) = priorities.get_mut(&priority) else { return };
    *pods -= 1;
    if *pods == 0 {
        priorities.remove(&priority);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::fixture::{PodChain, node, pod};
    use crate::model::PodInfo;
    use crate::snapshot::Snapshot;

    #[test]
    fn a_priority_is_known_as_long_as_a_pod_of_it_stands_on_a_node() {
        let mut s = Snapshot::new(&Config::default());
        s.upsert_node(node("n"));
        let of = |priority| PodInfo { priority, ..pod("p").on("n") };
        let id = s.upsert_pod(of(5)).expect("a pod").id;
        assert!(s.cluster().any_below(6) && !s.cluster().any_below(5));
        s.upsert_pod(of(7));
        assert!(!s.cluster().any_below(6) && s.cluster().any_below(8));
        s.delete_pod(id);
        assert!(s.cluster().priorities.is_empty(), "{:?}", s.cluster().priorities);
    }
}

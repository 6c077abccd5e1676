//! Our own decisions never put more on a node than it has. Nodes that hold a pod of someone else's choice, or of a leader
//! whose term was over, are not counted: nothing in Kubernetes prevents those. Source: ARCHITECTURE.md, and the kubelet,
//! which would refuse the pod with OutOf*.

use super::Invariant;
use crate::tend::is_live;
use crate::toy::SLOTS_PER_NODE;
use crate::world::World;
use flowforge_scheduler_core::model::PodInfo;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug)]
pub(super) struct NoOvercommit;

impl Invariant for NoOvercommit {
    fn name(&self) -> &'static str {
        "no_overcommit"
    }

    fn landed(&mut self, world: &World, landed: &crate::api::Landed) -> Result<(), String> {
        let crate::api::Landed::Bind { node, .. } = landed else { return Ok(()) };
        let mut taken: BTreeMap<&SmolStr, i64> = BTreeMap::new();
        let holds = |pod: &&PodInfo| is_live(pod) || pod.deleting && !pod.phase.is_terminal();
        for node in world.api.pods.values().filter(holds).filter_map(|pod| pod.node_name.as_ref()) {
            *taken.entry(node).or_default() += 1;
        }
        let taken = taken.get(node).copied().unwrap_or(0);
        if taken > SLOTS_PER_NODE && !world.api.disputed.contains(node) {
            return Err(format!("{node} holds {taken} pods and has room for {SLOTS_PER_NODE}"));
        }
        Ok(())
    }
}

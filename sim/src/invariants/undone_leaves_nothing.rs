//! When the journal forgets an intent, nothing is left that was prepared for a member that it did not bind: no reservation,
//! and no wish for a node that no provisioner has answered. Nor does anything come later: at rest no pod that is not bound
//! holds a reservation. Source: ARCHITECTURE.md (a place is given up when nothing prepared for it is left).

use super::Invariant;
use crate::api::Landed;
use crate::claims::claim_of;
use crate::world::World;
use flowforge_scheduler_core::model::PodInfo;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct UndoneLeavesNothing {
    /// UIDs and names of members with preparations, by slot and intent.
    prepared: BTreeMap<(usize, SmolStr), BTreeMap<SmolStr, SmolStr>>,
}

impl Invariant for UndoneLeavesNothing {
    fn name(&self) -> &'static str {
        "undone_leaves_nothing"
    }

    fn landed(&mut self, world: &World, landed: &Landed) -> Result<(), String> {
        let Landed::Journal { slot, .. } = landed else { return Ok(()) };
        let parts = &world.api.slots[*slot].slot.parts;
        let forgotten = |(at, id): &(usize, SmolStr)| at == slot && !parts.iter().any(|part| part.id == *id);
        let gone: Vec<_> = self.prepared.keys().filter(|key| forgotten(key)).cloned().collect();
        for key in gone {
            for (uid, name) in self.prepared.remove(&key).unwrap_or_default() {
                let pod = world.api.pods.get(&name).filter(|pod| pod.key.uid == uid);
                if let Some(left) = pod.filter(|pod| pod.node_name.is_none()).and_then(|pod| left_of(world, pod)) {
                    return Err(format!("intent {} is forgotten, and {left}", key.1));
                }
            }
        }
        for part in parts {
            let members = part.members.iter().filter(|member| !member.c.is_empty());
            let members = members.map(|member| (member.u.clone(), member.p.clone()));
            self.prepared.entry((*slot, part.id.clone())).or_default().extend(members);
        }
        Ok(())
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let unbound = world.api.pods.values().filter(|pod| pod.node_name.is_none());
        let open = |pod: &&PodInfo| world.api.recorded(&pod.key.uid).next().is_some();
        unbound.filter(|pod| !open(pod)).find_map(|pod| left_of(world, pod)).map_or(Ok(()), Err)
    }
}

/// What is left for a pod that is not bound.
fn left_of(world: &World, pod: &PodInfo) -> Option<String> {
    let name = claim_of(pod)?;
    let claim = world.api.claims.get(name)?;
    if claim.reserved_for.contains(&pod.key.uid) {
        return Some(format!("claim {name} is still reserved for {}", pod.key.name));
    }
    let unanswered = claim.selected_node.as_ref().filter(|_| !claim.bound)?;
    Some(format!("claim {name} of {} still asks for a volume on {unanswered}", pod.key.name))
}

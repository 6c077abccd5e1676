//! A pod is bound at most once in its life, and only to the node that the journal holds for it at that moment; an intent
//! that never was in the journal binds a single pod. Source: the binding protocol (no Binding without its node and UID in
//! the journal, a plan of one pod skips it), and `BindingREST`.

use super::Invariant;
use crate::api::Landed;
use crate::world::World;
use flowforge_scheduler_core::protocol::journal::{MemberRecord, Part};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct NoDoubleBind {
    bound: BTreeMap<SmolStr, SmolStr>,
    journaled: BTreeSet<SmolStr>,
    alone: BTreeMap<SmolStr, SmolStr>,
}

impl Invariant for NoDoubleBind {
    fn name(&self) -> &'static str {
        "no_double_bind"
    }

    fn landed(&mut self, world: &World, landed: &Landed) -> Result<(), String> {
        let (pod, node, intent) = match landed {
            Landed::Bind { pod, node, intent } => (pod, node, intent),
            Landed::Journal { slot, .. } => {
                let parts = &world.api.slots[*slot].slot.parts;
                self.journaled.extend(parts.iter().map(|part| part.id.clone()));
                return Ok(());
            }
            Landed::Delete { .. } => return Ok(()),
        };
        if let Some(before) = self.bound.insert(pod.uid.clone(), node.clone()) {
            return Err(format!("{} was bound to {before} and then to {node}", pod.name));
        }
        if self.journaled.contains(intent) {
            return on_plan(world, pod.uid.as_str(), node, intent);
        }
        match self.alone.insert(intent.clone(), pod.uid.clone()) {
            Some(other) if other != pod.uid => Err(format!("{intent} bound {other} and {}, unjournaled", pod.uid)),
            _ => Ok(()),
        }
    }
}

fn on_plan(world: &World, uid: &str, node: &SmolStr, intent: &SmolStr) -> Result<(), String> {
    let planned = |(part, member): &(&Part, &MemberRecord)| {
        let place = member.n.and_then(|index| part.nodes.get(index as usize));
        part.id == *intent && place == Some(node)
    };
    if world.api.recorded(uid).any(|record| planned(&record)) {
        return Ok(());
    }
    let held: Vec<_> = world.api.recorded(uid).map(|(part, member)| (&part.id, &part.nodes, member)).collect();
    Err(format!("{uid} was bound to {node} by {intent}, but the journal holds {held:?}"))
}

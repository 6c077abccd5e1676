//! A pod is bound by us only when its volume is there, or its devices are reserved for it. Source: ARCHITECTURE.md, and the
//! PreBind of kube-scheduler, after which alone a pod is bound.

use super::Invariant;
use crate::api::Landed;
use crate::claims::claim_of;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub(super) struct NothingUnpreparedIsBound;

impl Invariant for NothingUnpreparedIsBound {
    fn name(&self) -> &'static str {
        "nothing_unprepared_is_bound"
    }

    fn landed(&mut self, world: &World, landed: &Landed) -> Result<(), String> {
        let Landed::Bind { pod, node, .. } = landed else { return Ok(()) };
        match world.api.pods.get(&pod.name).filter(|found| found.key == *pod) {
            Some(found) if !world.api.is_prepared(found, node) => {
                Err(format!("{} was bound to {node} before its claim {:?} was prepared", pod.name, claim_of(found)))
            }
            _ => Ok(()),
        }
    }
}

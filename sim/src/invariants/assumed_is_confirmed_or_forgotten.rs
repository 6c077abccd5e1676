//! Every assumed pod has an open intent that will confirm or release it. Source: kube-scheduler `backend/cache/interface.go`
//! (a pod is assumed, then confirmed or forgotten), and the protocol's effects.

use super::Invariant;
use crate::process::Brain;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub(super) struct AssumedIsConfirmedOrForgotten;

impl Invariant for AssumedIsConfirmedOrForgotten {
    fn name(&self) -> &'static str {
        "assumed_is_confirmed_or_forgotten"
    }

    fn step(&mut self, world: &World) -> Result<(), String> {
        for (index, process) in world.processes.iter().enumerate() {
            let Brain::Toy(toy) = &process.brain else { continue };
            if let Some(uid) = toy.orphaned_assumptions().next() {
                return Err(format!("p{index} assumes {uid}, and no open intent answers for it"));
            }
        }
        Ok(())
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        for (index, process) in world.processes.iter().enumerate() {
            if let Brain::Engine(engine) = &process.brain
                && engine.stats().assumed > 0
            {
                return Err(format!("p{index} still assumes {} pods", engine.stats().assumed));
            }
        }
        Ok(())
    }
}

//! While the server answers and someone leads, no gang is partially live (bound and not deleting) longer than a bounded
//! time, except gangs whose owner does not tolerate a rollback, and gangs that were whole and lost a member later.
//! Source: ARCHITECTURE.md, the promise of the binding protocol.

use super::Invariant;
use crate::tend::is_live;
use crate::world::World;
use flowforge_scheduler_core::model::{Millis, PodInfo};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// The repair deadline of 5 s, and twenty times the client's timeout for everything that is lost, late or taken over meanwhile.
const BOUND_MS: Millis = 5_000 + 20 * 2_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct GangAllOrNothing {
    partial_ms: BTreeMap<SmolStr, Millis>,
    last_step_ms: Millis,
}

impl Invariant for GangAllOrNothing {
    fn name(&self) -> &'static str {
        "gang_all_or_nothing"
    }

    fn step(&mut self, world: &World) -> Result<(), String> {
        let passed = world.now - self.last_step_ms;
        if passed < 50 {
            return Ok(());
        }
        self.last_step_ms = world.now;
        let led = world.processes.iter().any(|process| process.is_up() && process.epoch == Some(world.epoch));
        for (name, workload) in &world.workloads {
            let pods = world.pods_of(workload);
            let live = pods.iter().filter(|pod| is_live(pod)).count();
            let done = pods.iter().filter(|pod: &&&PodInfo| pod.phase.is_terminal()).count();
            let partial = live > 0 && live + done < workload.size as usize;
            if !partial || workload.may_be_partial() {
                self.partial_ms.remove(name);
                continue;
            }
            let for_ms = self.partial_ms.entry(name.clone()).or_default();
            if led && !world.outage {
                *for_ms += passed;
            }
            if *for_ms > BOUND_MS {
                return Err(format!("{name} has {live} of {} members live for {for_ms} ms", workload.size));
            }
        }
        self.partial_ms.retain(|name, _| world.workloads.contains_key(name));
        Ok(())
    }
}

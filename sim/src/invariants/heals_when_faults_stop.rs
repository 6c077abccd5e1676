//! When the faults stop and there is room, every gang becomes whole (or is gone, where nobody recreates what was rolled
//! back), every pod on its own is bound, the journal is empty and nothing is awaited. Source: ARCHITECTURE.md.

use super::Invariant;
use crate::owners::{OwnerKind, Workload};
use crate::process::Brain;
use crate::tend::is_live;
use crate::world::World;
use flowforge_scheduler_core::model::PodPhase;

/// See the module.
#[derive(Debug)]
pub(super) struct HealsWhenFaultsStop;

impl Invariant for HealsWhenFaultsStop {
    fn name(&self) -> &'static str {
        "heals_when_faults_stop"
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let mut beyond_repair = false;
        for workload in world.workloads.values() {
            let pods = world.pods_of(workload);
            let live = pods.iter().filter(|pod| is_live(pod) || pod.phase == PodPhase::Succeeded).count();
            let size = workload.size.max(1) as usize;
            if live == size || nobody_completes(workload, live, pods.len()) {
                beyond_repair |= live != size;
                continue;
            }
            let pods: Vec<_> =
                pods.iter().map(|pod| (&pod.key.name, &pod.node_name, pod.deleting, pod.phase)).collect();
            return Err(format!(
                "{} ({:?}) has {live} of {size} members live: {pods:?}",
                workload.name, workload.owner
            ));
        }
        let open: usize = world.api.slots.iter().map(|stored| stored.slot.parts.len()).sum();
        if open > 0 && !beyond_repair {
            return Err(format!("{open} parts of intents are left in the journal"));
        }
        let idle = world.processes.iter().all(|process| match &process.brain {
            Brain::Toy(toy) => toy.is_idle(),
            Brain::Engine(engine) => engine.stats().open_intents == 0,
        });
        if !idle && !beyond_repair { Err("something is still open or awaited".to_owned()) } else { Ok(()) }
    }
}

/// A gang of bare pods that lost one: whole once it stays partial, otherwise it must be gone or wait incomplete.
fn nobody_completes(workload: &Workload, live: usize, pods: usize) -> bool {
    let incomplete = workload.size > 0 && pods < workload.size as usize;
    workload.owner == OwnerKind::Bare && incomplete && (workload.was_whole || live == 0)
}

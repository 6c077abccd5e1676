//! Replays a trace of jobs on a cluster in virtual time: what users would have waited, under one policy or another.
//!
//! ```text
//!   trace ──submit──> policy ──starts──> jobs run ──end──> policy
//!                       │ FlowForge: the engine that schedules real clusters, without a server between
//!                       └ others: the orders of the field, in a few lines each
//! ```
//! Every job runs for as long as the trace says from the moment when all of its pods stand; nothing fails. A replay is determined by its
//! arguments.

mod flowforge;
mod greedy;
mod report;
pub mod trace;

pub use report::{Report, SizeClass};

use flowforge::Live;
use flowforge_scheduler_core::model::Millis;
use greedy::{Greedy, Order};
use std::collections::BTreeMap;
use trace::Job;

/// GPUs of a node.
pub const GPUS_PER_NODE: u32 = 8;

/// Who has not started so long after the last job ended will not start.
const PATIENCE_MS: Millis = 600_000;

/// Nodes in racks in blocks, as wide as a fabric's first two switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machines {
    /// Nodes of eight GPUs.
    pub nodes: u32,
    /// Nodes of a rack.
    pub per_rack: u32,
    /// Racks of a block.
    pub per_block: u32,
}

impl Machines {
    /// 2,048 GPUs: 16 racks of 16 nodes, 4 in a block.
    pub const LARGE: Self = Self { nodes: 256, per_rack: 16, per_block: 4 };

    fn rack(self, node: u32) -> u32 {
        node / self.per_rack.max(1)
    }

    fn block(self, node: u32) -> u32 {
        self.rack(node) / self.per_block.max(1)
    }
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Jobs in the order of their arrival, each whole, on the first nodes that have room; who finds none is passed.
    FirstFit,
    /// The same on the fullest nodes that have room.
    BestFit,
    /// Pods one by one in the order of their arrival on the emptiest nodes, as kube-scheduler does without gangs: a part of a
    /// job holds what it has and waits for the rest.
    PodByPod,
    /// FlowForge without reservations.
    FlowForge,
    /// FlowForge as it is.
    FlowForgeBackfill,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::FirstFit, Self::BestFit, Self::PodByPod, Self::FlowForge, Self::FlowForgeBackfill];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstFit => "fifo-first-fit",
            Self::BestFit => "best-fit",
            Self::PodByPod => "kube-order",
            Self::FlowForge => "flowforge",
            Self::FlowForgeBackfill => "flowforge+backfill",
        }
    }
}

/// Where a job's pods stand, by the number of the node.
pub(crate) struct Start {
    job: usize,
    nodes: Vec<u32>,
}

/// A policy at work.
trait Scheduler {
    /// A job arrives.
    fn submit(&mut self, job: usize, now: Millis);
    /// A job ends.
    fn end(&mut self, job: usize, now: Millis);
    /// The jobs of which all pods stand from now on.
    fn decide(&mut self, now: Millis) -> Vec<Start>;
    /// When it wants to decide even if nothing happens.
    fn wakeup(&self) -> Option<Millis>;
    /// Promises of a start: how many were made, and how many of those jobs started later.
    fn promises(&self) -> (usize, usize) {
        (0, 0)
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Submit(usize),
    End(usize),
}

/// Replays a trace. `declared`: what jobs declare, in hundredths of how long they run; None: nothing.
#[must_use]
pub fn replay(jobs: &[Job], machines: Machines, policy: Policy, declared: Option<u64>) -> Report {
    let mut scheduler: Box<dyn Scheduler + '_> = match policy {
        Policy::FirstFit => Box::new(Greedy::new(jobs, machines, Order::First)),
        Policy::BestFit => Box::new(Greedy::new(jobs, machines, Order::Fullest)),
        Policy::PodByPod => Box::new(Greedy::new(jobs, machines, Order::Emptiest)),
        Policy::FlowForge => Box::new(Live::new(jobs, machines, 0, declared)),
        Policy::FlowForgeBackfill => Box::new(Live::new(jobs, machines, 8, declared)),
    };
    let mut agenda: BTreeMap<(Millis, usize), What> =
        jobs.iter().enumerate().map(|(at, job)| ((job.submit_ms, at), What::Submit(at))).collect();
    let mut starts: Vec<Option<(Millis, Vec<u32>)>> = vec![None; jobs.len()];
    let mut last = 0;
    loop {
        let next = agenda.first_key_value().map(|((at, _), _)| *at);
        let wakeup = scheduler.wakeup().filter(|at| next.is_some() || *at <= last + PATIENCE_MS);
        let Some(now) = next.into_iter().chain(wakeup).min() else { break };
        last = next.map_or(last, |_| now);
        while let Some(entry) = agenda.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                What::Submit(job) => scheduler.submit(job, now),
                What::End(job) => scheduler.end(job, now),
            }
        }
        for Start { job, nodes } in scheduler.decide(now) {
            agenda.insert((now + jobs[job].run_ms, jobs.len() + job), What::End(job));
            starts[job] = Some((now, nodes));
        }
    }
    Report::of(jobs, machines, policy, &starts, scheduler.promises())
}

/// GPUs of each pod of a job: full nodes, then the rest.
fn pods_of(job: &Job) -> Vec<u32> {
    let full = job.gpus / GPUS_PER_NODE;
    let rest = job.gpus % GPUS_PER_NODE;
    (0..full).map(|_| GPUS_PER_NODE).chain((rest > 0).then_some(rest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Machines = Machines { nodes: 8, per_rack: 4, per_block: 2 };

    #[test]
    fn with_honest_run_times_no_promised_gang_starts_later_than_it_was_promised_first() {
        let mut promised = 0;
        for seed in 0..40 {
            let jobs = trace::generated(seed, 120, SMALL.nodes * GPUS_PER_NODE);
            let report = replay(&jobs, SMALL, Policy::FlowForgeBackfill, Some(100));
            assert_eq!((report.started, report.late), (jobs.len(), 0), "seed {seed}: {report}");
            promised += report.promised;
        }
        assert!(promised > 200, "only {promised} promises in all");
    }

    #[test]
    fn every_policy_starts_what_can_start_and_no_node_is_overcommitted() {
        for seed in 0..10 {
            let jobs = trace::generated(seed, 80, SMALL.nodes * GPUS_PER_NODE);
            for policy in [Policy::FirstFit, Policy::BestFit, Policy::FlowForge, Policy::FlowForgeBackfill] {
                let report = replay(&jobs, SMALL, policy, Some(150));
                assert_eq!((report.started, report.overcommitted), (jobs.len(), 0), "seed {seed}: {report}");
            }
        }
    }

    #[test]
    fn the_wide_wait_less_with_reservations_than_where_everyone_passes_them() {
        let wait = |policy| {
            let of = |seed| {
                let jobs = trace::generated(seed, 150, SMALL.nodes * GPUS_PER_NODE);
                replay(&jobs, SMALL, policy, Some(100)).class(SizeClass::Wide).wait_p99_ms
            };
            (0..20).map(of).sum::<Millis>()
        };
        let (first_fit, backfill) = (wait(Policy::FirstFit), wait(Policy::FlowForgeBackfill));
        assert!(backfill * 4 <= first_fit * 3, "{backfill} ms against {first_fit} ms");
    }

    #[test]
    fn the_same_arguments_give_the_same_report() {
        let jobs = trace::generated(7, 100, SMALL.nodes * GPUS_PER_NODE);
        let once = replay(&jobs, SMALL, Policy::FlowForgeBackfill, None).to_string();
        assert_eq!(once, replay(&jobs, SMALL, Policy::FlowForgeBackfill, None).to_string());
    }
}

//! The orders of the field, for comparison: who arrived first is tried first, and who finds no room is passed.

use super::{GPUS_PER_NODE, Machines, Scheduler, Start, pods_of};
use crate::replay::trace::Job;
use flowforge_scheduler_core::model::Millis;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Which node that has room a pod takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The first; jobs start whole.
    First,
    /// The fullest; jobs start whole.
    Fullest,
    /// The emptiest; pods start one by one.
    Emptiest,
}

/// A greedy policy.
pub(super) struct Greedy<'a> {
    jobs: &'a [Job],
    order: Order,
    free: Vec<u32>,
    /// Jobs that wait for (more of) their places, in the order of their arrival, with the places they have.
    waiting: BTreeMap<usize, Vec<u32>>,
    running: BTreeMap<usize, Vec<u32>>,
    /// Whether anything came or went since it was decided last.
    changed: bool,
}

impl<'a> Greedy<'a> {
    pub(super) fn new(jobs: &'a [Job], machines: Machines, order: Order) -> Self {
        let free = vec![GPUS_PER_NODE; machines.nodes as usize];
        Self { jobs, order, free, waiting: BTreeMap::new(), running: BTreeMap::new(), changed: false }
    }

    /// A node for a pod; among equals the first.
    fn node(&self, gpus: u32) -> Option<usize> {
        let room = self.free.iter().enumerate().filter(|(_, free)| **free >= gpus);
        match self.order {
            Order::First => room.map(|(node, _)| node).next(),
            Order::Fullest => room.min_by_key(|(node, free)| (**free, *node)).map(|(node, _)| node),
            Order::Emptiest => room.min_by_key(|(node, free)| (Reverse(**free), *node)).map(|(node, _)| node),
        }
    }

    /// Gives a job the places that it can have; a whole one all or none.
    fn place(&mut self, job: usize, mut places: Vec<u32>) -> Vec<u32> {
        let pods = pods_of(&self.jobs[job]);
        let had = places.len();
        for gpus in &pods[had..] {
            let Some(node) = self.node(*gpus) else { break };
            self.free[node] -= gpus;
            places.push(u32::try_from(node).unwrap_or(u32::MAX));
        }
        if places.len() < pods.len() && self.order != Order::Emptiest {
            for (node, gpus) in places.drain(had..).zip(&pods[had..]) {
                self.free[node as usize] += gpus;
            }
        }
        places
    }
}

impl Scheduler for Greedy<'_> {
    fn submit(&mut self, job: usize, _now: Millis) {
        self.waiting.insert(job, Vec::new());
        self.changed = true;
    }

    fn end(&mut self, job: usize, _now: Millis) {
        for (node, gpus) in self.running.remove(&job).into_iter().flatten().zip(pods_of(&self.jobs[job])) {
            self.free[node as usize] += gpus;
        }
        self.changed = true;
    }

    fn decide(&mut self, _now: Millis) -> Vec<Start> {
        let mut starts = Vec::new();
        if !std::mem::take(&mut self.changed) {
            return starts;
        }
        let waiting: Vec<usize> = self.waiting.keys().copied().collect();
        for job in waiting {
            if self.free.iter().all(|free| *free == 0) {
                break;
            }
            let places = self.waiting.remove(&job).unwrap_or_default();
            let places = self.place(job, places);
            if places.len() == pods_of(&self.jobs[job]).len() {
                starts.push(Start { job, nodes: places.clone() });
                self.running.insert(job, places);
            } else {
                self.waiting.insert(job, places);
            }
        }
        starts
    }

    fn wakeup(&self) -> Option<Millis> {
        None
    }
}

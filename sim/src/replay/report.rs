//! What a replay came to: use of the GPUs while jobs arrive, and waits by the width of jobs.

use super::{GPUS_PER_NODE, Machines, Policy, pods_of};
use crate::replay::trace::Job;
use flowforge_scheduler_core::model::Millis;
use std::collections::BTreeMap;
use std::fmt;

/// Jobs by their width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SizeClass {
    /// A part of a node, or one.
    Narrow,
    /// Several nodes.
    Gang,
    /// 64 GPUs and more; half of the cluster, where that is less.
    Wide,
}

impl SizeClass {
    fn of(gpus: u32, machines: Machines) -> Self {
        let wide = 64.min(machines.nodes * GPUS_PER_NODE / 2);
        match gpus {
            _ if gpus >= wide => Self::Wide,
            _ if gpus > GPUS_PER_NODE => Self::Gang,
            _ => Self::Narrow,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Narrow => "up to a node",
            Self::Gang => "several nodes",
            Self::Wide => "wide (64 GPUs)",
        }
    }
}

/// The waits of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Jobs that started.
    pub jobs: usize,
    /// Median.
    pub wait_p50_ms: Millis,
    /// What 99 of 100 do not exceed.
    pub wait_p99_ms: Millis,
    /// The longest.
    pub longest_ms: Millis,
    /// Gangs that stand in one rack.
    pub in_one_rack: usize,
}

/// What a replay came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Who decided.
    pub policy: Policy,
    /// Jobs that started.
    pub started: usize,
    /// Share of the GPUs' time that jobs ran in, until the last one arrived.
    pub utilisation: f64,
    /// From the first submission to the last end.
    pub makespan_ms: Millis,
    /// Gangs that were promised a start.
    pub promised: usize,
    /// Those of them that started later than they were promised first.
    pub late: usize,
    /// Moments at which a node had more to do than it has GPUs.
    pub overcommitted: usize,
    classes: BTreeMap<SizeClass, Waits>,
}

impl Report {
    pub(super) fn of(
        jobs: &[Job],
        machines: Machines,
        policy: Policy,
        starts: &[Option<(Millis, Vec<u32>)>],
        (promised, late): (usize, usize),
    ) -> Self {
        let started = || jobs.iter().zip(starts).filter_map(|(job, start)| Some((job, start.as_ref()?)));
        let until = jobs.iter().map(|job| job.submit_ms).max().unwrap_or(0);
        let busy: u128 = started()
            .map(|(job, (at, _))| {
                let ran = (at + job.run_ms).min(until).saturating_sub((*at).min(until));
                u128::from(ran) * u128::from(job.gpus)
            })
            .sum();
        let all = u128::from(until) * u128::from(machines.nodes * GPUS_PER_NODE);
        let mut waits: BTreeMap<SizeClass, (Vec<Millis>, usize)> = BTreeMap::new();
        for (job, (at, nodes)) in started() {
            let class = waits.entry(SizeClass::of(job.gpus, machines)).or_default();
            class.0.push(at.saturating_sub(job.submit_ms));
            let first = nodes.first().map(|node| machines.rack(*node));
            class.1 += usize::from(nodes.iter().all(|node| Some(machines.rack(*node)) == first));
        }
        Self {
            policy,
            started: started().count(),
            utilisation: share(busy, all),
            makespan_ms: started().map(|(job, (at, _))| at + job.run_ms).max().unwrap_or(0),
            promised,
            late,
            overcommitted: overcommitted(jobs, machines, starts),
            classes: waits.into_iter().map(|(class, (waits, racks))| (class, summary(waits, racks))).collect(),
        }
    }

    /// The waits of a class.
    #[must_use]
    pub fn class(&self, class: SizeClass) -> Waits {
        self.classes.get(&class).copied().unwrap_or_default()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn share(part: u128, all: u128) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

fn summary(mut waits: Vec<Millis>, in_one_rack: usize) -> Waits {
    waits.sort_unstable();
    // Nearest rank: the smallest wait that so many hundredths do not exceed.
    let rank =
        |percent: usize| waits.get((waits.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0);
    Waits {
        jobs: waits.len(),
        wait_p50_ms: rank(50),
        wait_p99_ms: rank(99),
        longest_ms: waits.last().copied().unwrap_or(0),
        in_one_rack,
    }
}

/// How often a node had more to do than it can: the check that the replay itself is sound. `O(pods · log pods)`.
fn overcommitted(jobs: &[Job], machines: Machines, starts: &[Option<(Millis, Vec<u32>)>]) -> usize {
    // By node and time; ends come before starts.
    let mut changes: BTreeMap<(u32, Millis, bool), i64> = BTreeMap::new();
    for (job, start) in jobs.iter().zip(starts) {
        let Some((at, nodes)) = start else { continue };
        for (node, gpus) in nodes.iter().zip(pods_of(job)) {
            *changes.entry((*node, *at, true)).or_default() += i64::from(gpus);
            *changes.entry((*node, at + job.run_ms, false)).or_default() -= i64::from(gpus);
        }
    }
    let (mut node, mut used, mut found) = (None, 0, 0);
    for ((of, _, starts), change) in changes {
        if node != Some(of) {
            (node, used) = (Some(of), 0);
        }
        used += change;
        found += usize::from(starts && used > i64::from(GPUS_PER_NODE));
    }
    found + starts.iter().flatten().flat_map(|(_, nodes)| nodes).filter(|node| **node >= machines.nodes).count()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} jobs started, {:.1} % of the GPUs in use while jobs arrived, all done after {}; {} gangs were promised a start, {} of them started later",
            self.policy.name(),
            self.started,
            100.0 * self.utilisation,
            hours(self.makespan_ms),
            self.promised,
            self.late
        )?;
        for (class, waits) in &self.classes {
            writeln!(
                f,
                "  {:<15} {:>6} jobs  wait p50 {:>9}  p99 {:>9}  longest {:>9}  in one rack {:>5.1} %",
                class.name(),
                waits.jobs,
                hours(waits.wait_p50_ms),
                hours(waits.wait_p99_ms),
                hours(waits.longest_ms),
                100.0 * share(waits.in_one_rack as u128, waits.jobs as u128)
            )?;
        }
        Ok(())
    }
}

/// Hours with two places.
fn hours(ms: Millis) -> String {
    let hundredths = ms / 36_000;
    format!("{}.{:02} h", hundredths / 100, hundredths % 100)
}

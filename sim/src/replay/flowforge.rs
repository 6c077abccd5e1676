//! FlowForge in a replay: its engine, told what a server would tell it.

use super::{GPUS_PER_NODE, Machines, Scheduler, Start, pods_of};
use crate::replay::trace::Job;
use flowforge_scheduler_core::command::{Command, EventKind};
use flowforge_scheduler_core::config::Config;
use flowforge_scheduler_core::engine::Engine;
use flowforge_scheduler_core::event::Event;
use flowforge_scheduler_core::model::{GangMembership, Millis, NodeInfo, PodInfo, PodKey, PodPhase};
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeMap;

/// The resource that jobs ask for.
const GPU: SmolStr = SmolStr::new_static("nvidia.com/gpu");
const NAMESPACE: SmolStr = SmolStr::new_static("replay");
/// Virtual time begins there, for 0 means unknown to nobody.
const EPOCH_MS: Millis = 1_000;

/// The engine at work.
pub(super) struct Live<'a> {
    jobs: &'a [Job],
    engine: Engine,
    /// What is declared, in hundredths of how long jobs run.
    declared: Option<u64>,
    /// Pods by job as they stand; those that wait have no node.
    pods: BTreeMap<usize, Vec<PodInfo>>,
    /// By job: pods without a place.
    missing: BTreeMap<usize, usize>,
    /// By gang: when it was promised to start first.
    promised: BTreeMap<SmolStr, Millis>,
    made: usize,
    late: usize,
}

impl<'a> Live<'a> {
    pub(super) fn new(jobs: &'a [Job], machines: Machines, reservations: usize, declared: Option<u64>) -> Self {
        let mut engine = Engine::new(Config { bind: false, reservations, ..Config::default() });
        let mut out = Vec::new();
        for at in 0..machines.nodes {
            engine.apply(Event::NodeUpsert(Box::new(node(machines, at))), EPOCH_MS, &mut out);
        }
        engine.apply(Event::Synced, EPOCH_MS, &mut out);
        let (pods, missing, promised) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { jobs, engine, declared, pods, missing, promised, made: 0, late: 0 }
    }

    fn tell(&mut self, event: Event, now: Millis) {
        // Only what is decided in a run matters here.
        self.engine.apply(event, now, &mut Vec::new());
    }

    /// A pod stands on its node and runs from now on; the job starts with the last.
    fn stands(&mut self, pod: &PodKey, now: Millis) -> Option<usize> {
        let (job, rank) = of_name(&pod.name)?;
        let cluster = self.engine.snapshot().cluster();
        let node = cluster.pod(cluster.find_pod(&pod.uid)?)?.place.node()?;
        let name = cluster.node_name(node);
        let info = self.pods.get_mut(&job)?.get_mut(rank)?;
        (info.node_name, info.started_at_ms, info.phase) = (Some(name), Some(now), PodPhase::Running);
        let news = Event::PodUpsert(Box::new(info.clone()));
        self.tell(news, now);
        let missing = self.missing.get_mut(&job)?;
        *missing -= 1;
        (*missing == 0).then_some(job)
    }

    fn note_promises(&mut self) {
        for reservation in self.engine.reservations() {
            if !self.promised.contains_key(&reservation.name) {
                self.promised.insert(reservation.name.clone(), reservation.first_until_ms);
                self.made += 1;
            }
        }
    }
}

impl Scheduler for Live<'_> {
    fn submit(&mut self, job: usize, now: Millis) {
        let now = now + EPOCH_MS;
        let sizes = pods_of(&self.jobs[job]);
        let expected = self.declared.map(|percent| Ok((self.jobs[job].run_ms * percent / 100).max(1)));
        let size = sizes.len();
        let made = |(rank, gpus): (usize, &u32)| PodInfo { expected: expected.clone(), ..pod(job, rank, size, *gpus) };
        let pods: Vec<PodInfo> = sizes.iter().enumerate().map(made).collect();
        for pod in &pods {
            self.tell(Event::PodUpsert(Box::new(pod.clone())), now);
        }
        self.pods.insert(job, pods);
        self.missing.insert(job, size);
    }

    fn end(&mut self, job: usize, now: Millis) {
        self.missing.remove(&job);
        for pod in self.pods.remove(&job).into_iter().flatten() {
            self.tell(Event::PodDelete(pod.key), now + EPOCH_MS);
        }
    }

    fn decide(&mut self, now: Millis) -> Vec<Start> {
        let now = now + EPOCH_MS;
        let mut starts = Vec::new();
        loop {
            let mut out = Vec::new();
            self.engine.run(now, &mut out);
            for command in out {
                let Command::PodEvent { pod, kind: EventKind::Scheduled, .. } = command else { continue };
                let Some(job) = self.stands(&pod, now) else { continue };
                if self.promised.remove(&format_smolstr!("j{job}")).is_some_and(|promised| now > promised) {
                    self.late += 1;
                }
                let node = |pod: &PodInfo| pod.node_name.as_ref()?.strip_prefix('n')?.parse().ok();
                starts.push(Start { job, nodes: self.pods[&job].iter().filter_map(node).collect() });
            }
            self.note_promises();
            if self.engine.next_wakeup().is_none_or(|at| at > now) {
                return starts;
            }
        }
    }

    fn wakeup(&self) -> Option<Millis> {
        self.engine.next_wakeup().map(|at| at.saturating_sub(EPOCH_MS))
    }

    fn promises(&self) -> (usize, usize) {
        (self.made, self.late)
    }
}

fn node(machines: Machines, at: u32) -> NodeInfo {
    let label = |key: &'static str, value: SmolStr| (SmolStr::new_static(key), value);
    let name = format_smolstr!("n{at}");
    NodeInfo {
        uid: format_smolstr!("uid-{name}"),
        labels: [
            label("kubernetes.io/hostname", name.clone()),
            label("fabric.topograph.run/tier-0", format_smolstr!("r{}", machines.rack(at))),
            label("fabric.topograph.run/tier-1", format_smolstr!("b{}", machines.block(at))),
        ]
        .into(),
        name,
        allocatable: [
            ("cpu".into(), 128_000),
            ("memory".into(), 2 << 40),
            ("pods".into(), 110),
            (GPU, i64::from(GPUS_PER_NODE)),
        ]
        .into(),
        ..NodeInfo::default()
    }
}

/// A pod of a job; several are a gang.
fn pod(job: usize, rank: usize, size: usize, gpus: u32) -> PodInfo {
    let whole = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let membership = GangMembership {
        name: format_smolstr!("j{job}"),
        uid: None,
        size: Some(Ok(whole(size))),
        role: "worker".into(),
        rank: Some(whole(rank)),
        topology_required: None,
        topology_preferred: Vec::new(),
    };
    let name = format_smolstr!("j{job}-{rank}");
    PodInfo {
        key: PodKey { namespace: NAMESPACE, uid: format_smolstr!("uid-{name}"), name },
        ours: true,
        scheduler_name: "flowforge".into(),
        requests: [(GPU, i64::from(gpus)), ("cpu".into(), i64::from(gpus) * 12_000)].into(),
        scoring_requests: (i64::from(gpus) * 12_000, 200 << 20),
        gang: (size > 1).then_some(membership),
        ..PodInfo::default()
    }
}

/// Job and rank of a pod by its name.
fn of_name(name: &str) -> Option<(usize, usize)> {
    let (job, rank) = name.strip_prefix('j')?.split_once('-')?;
    Some((job.parse().ok()?, rank.parse().ok()?))
}

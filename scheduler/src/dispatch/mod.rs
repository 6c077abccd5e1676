//! Dispatch: the only code that writes to the API server.
//!
//! ```text
//!   engine's thread ──Outbox──> journal lane ──┐
//!                        ├────> pod lane ──────┼──Gate (lease, timeout, 429)──> API server ──outcome──> engine
//!                        └────> reports (latest per object wins) ──────────────> API server
//! ```
//! Invariants: every lane is bounded, and what finds no room stays in the outbox, during which the engine plans nothing;
//! journal writes never wait behind bindings; no report about a pod overtakes its Binding.

mod events;
mod gate;
mod groups;
mod journal;
mod latest;
mod pods;
mod prepare;
mod reports;
mod topology;

use crate::convert::types;
use crate::input::Input;
use crate::metrics::Metrics;
use flowforge_runtime::{Leadership, Pressure};
use flowforge_scheduler_core::command::{Command, OpId};
use flowforge_scheduler_core::engine::Unsaid;
use flowforge_scheduler_core::event::{JournalSlotRead, Outcome};
use flowforge_scheduler_core::model::PodKey;
use flowforge_scheduler_core::preparation::PrepareWrite;
use gate::{Failure, Gate};
pub(crate) use journal::Journal;
use prometheus::IntGauge;
use reports::{ConditionWrite, GangWrite, Reports};
use smol_str::SmolStr;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
pub(crate) use topology::TopologyWrite;

/// Commands that each lane holds besides those in flight.
const LANE_CAPACITY: usize = 16_384;
/// Journal requests in flight at once: one for each slot of the default journal.
const JOURNAL_PARALLEL: usize = 8;

/// What dispatch needs for one term.
pub(crate) struct Settings {
    /// The client.
    pub(crate) client: kube::Client,
    /// The right to write.
    pub(crate) leadership: Leadership,
    /// The server's load.
    pub(crate) pressure: Pressure,
    /// Longest time for one request.
    pub(crate) request_timeout: Duration,
    /// Protocol requests in flight at once.
    pub(crate) parallel_requests: usize,
    /// Reports in flight at once.
    pub(crate) parallel_reports: usize,
    /// The journal.
    pub(crate) journal: Journal,
    /// Metrics.
    pub(crate) metrics: Metrics,
}

/// What became of a command, before conversion.
pub(crate) enum Report {
    /// An outcome as the engine takes it.
    Outcome(Outcome),
    /// A pod that was read.
    PodRead {
        /// The command.
        op: OpId,
        /// The pod.
        pod: Box<types::Pod>,
    },
}

struct Job {
    command: Command,
    /// `schedulerName` of the pod that it is about, where it is about one.
    profile: SmolStr,
    queued: Instant,
}

/// Facts about a pod that its condition and Events need.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodFacts {
    /// `metadata.generation`.
    pub(crate) generation: i64,
    /// Whether its `PodScheduled` condition is False already.
    pub(crate) conditioned: bool,
    /// Its `schedulerName`.
    pub(crate) profile: SmolStr,
}

/// The engine's side of dispatch. Never blocks.
pub(crate) struct Outbox {
    journal: mpsc::Sender<Job>,
    pods: mpsc::Sender<Job>,
    reports: Arc<Reports>,
    topologies: watch::Sender<Vec<TopologyWrite>>,
    backlog: VecDeque<Job>,
    metrics: Metrics,
}

/// Dispatch of one term; dropping it aborts what is in flight.
pub(crate) struct Dispatch {
    lanes: JoinSet<()>,
}

struct Worker {
    gate: Gate,
    journal: Journal,
    reports: Arc<Reports>,
    input: mpsc::Sender<Input>,
    metrics: Metrics,
}

impl Dispatch {
    /// Starts the lanes of a term.
    pub(crate) fn start(settings: Settings, input: mpsc::Sender<Input>) -> (Self, Outbox) {
        let Settings { client, leadership, pressure, request_timeout, journal, metrics, .. } = settings;
        let gate = Gate::new(client, leadership, pressure, request_timeout);
        let reports = Arc::new(Reports::new(metrics.clone(), journal.holder.clone()));
        let worker = Arc::new(Worker { gate, journal, reports: reports.clone(), input, metrics: metrics.clone() });
        let (journal_sender, journal_jobs) = mpsc::channel(LANE_CAPACITY);
        let (pod_sender, pod_jobs) = mpsc::channel(LANE_CAPACITY);
        let mut lanes = JoinSet::new();
        lanes.spawn(lane("journal", journal_jobs, JOURNAL_PARALLEL, worker.clone()));
        lanes.spawn(lane("pods", pod_jobs, settings.parallel_requests, worker.clone()));
        for _ in 0..settings.parallel_reports {
            let worker = worker.clone();
            lanes.spawn(async move {
                loop {
                    let write = worker.reports.next().await;
                    worker.reports.write(&worker.gate, write).await;
                }
            });
        }
        let (topologies, batches) = watch::channel(Vec::new());
        lanes.spawn(topology::write_all(worker.gate.clone(), batches, metrics.clone()));
        let backlog = VecDeque::new();
        (Self { lanes }, Outbox { journal: journal_sender, pods: pod_sender, reports, topologies, backlog, metrics })
    }

    /// Stops everything and waits until nothing is in flight.
    pub(crate) async fn stop(mut self) {
        self.lanes.shutdown().await;
    }
}

impl Outbox {
    /// Takes a command; `facts` are of the pod that it is about, `now_ms` is the engine's clock. Answers what could not be
    /// taken and must be said again some time.
    pub(crate) fn push(&mut self, command: Command, facts: &PodFacts, now_ms: u64) -> Option<Unsaid> {
        match command {
            Command::PodCondition { pod, reason, message } => {
                let PodFacts { generation, conditioned, .. } = *facts;
                let uid = pod.uid.clone();
                let write = ConditionWrite { pod, reason, message, generation, transitioned: conditioned };
                return (!self.reports.condition(write)).then_some(Unsaid::Condition { uid });
            }
            Command::PodEvent { pod, kind, note } => {
                self.reports.event(pod, kind, note, facts.profile.clone(), now_ms);
            }
            Command::GangStatus { namespace, name, uid, status } => {
                let unsaid = Unsaid::GangStatus { namespace: namespace.clone(), name: name.clone() };
                return (!self.reports.gang(GangWrite { namespace, name, uid, status })).then_some(unsaid);
            }
            Command::Observe(_) => {}
            command => {
                // Should the pod be refused again after all, then the condition has to be said again.
                let unsaid = match &command {
                    Command::Bind { pod, .. } if self.reports.forget_condition(&pod.uid) => {
                        Some(Unsaid::Condition { uid: pod.uid.clone() })
                    }
                    _ => None,
                };
                self.send(Job { command, profile: facts.profile.clone(), queued: Instant::now() });
                return unsaid;
            }
        }
        None
    }

    /// Moves on what found no room before; true when nothing is left.
    pub(crate) fn flush(&mut self) -> bool {
        for job in std::mem::take(&mut self.backlog) {
            self.send(job);
        }
        self.backlog.is_empty()
    }

    /// Whether commands wait for room in a lane.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Takes the statuses of ClusterTopologies that are not as they should be; what waits of a former batch is dropped.
    pub(crate) fn write_topologies(&self, batch: Vec<TopologyWrite>) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        self.metrics.queue_items.with_label_values(&[topology::QUEUE, "in"]).inc_by(count);
        self.topologies.send_replace(batch);
    }

    /// Takes the status of an object of others; false when there is no room for it.
    pub(crate) fn write_group(&self, write: crate::convert::gangs::GroupWrite) -> bool {
        self.reports.group(write)
    }

    /// A gang object is gone.
    pub(crate) fn forget_gang(&self, uid: &SmolStr) {
        self.reports.forget_gang(uid);
    }

    /// Only these gang objects are left.
    pub(crate) fn retain_gangs(&self, uids: &[SmolStr]) {
        self.reports.retain_gangs(&uids.iter().collect());
    }

    /// A pod is gone.
    pub(crate) fn forget_pod(&self, uid: &SmolStr) {
        self.reports.forget_condition(uid);
    }

    fn send(&mut self, job: Job) {
        let (lane, name) = match job.command {
            Command::WriteJournal { .. } | Command::ReadJournal { .. } => (&self.journal, "journal"),
            _ => (&self.pods, "pods"),
        };
        match lane.try_send(job) {
            Ok(()) => self.metrics.queue_items.with_label_values(&[name, "in"]).inc(),
            // The lanes end with the term; what is left then is no longer ours to do.
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.metrics.queue_items.with_label_values(&[name, "dropped"]).inc();
            }
            Err(mpsc::error::TrySendError::Full(job)) => self.backlog.push_back(job),
        }
    }
}

/// Works on the jobs of a lane, at most `limit` at once, in the order they came.
async fn lane(name: &'static str, mut jobs: mpsc::Receiver<Job>, limit: usize, worker: Arc<Worker>) {
    let mut tasks = JoinSet::new();
    while let Some(job) = jobs.recv().await {
        while tasks.len() >= limit {
            tasks.join_next().await;
        }
        while tasks.try_join_next().is_some() {}
        let depth = i64::try_from(jobs.len()).unwrap_or(i64::MAX);
        worker.metrics.queue_depth.with_label_values(&[name]).set(depth);
        let worker = worker.clone();
        tasks.spawn(async move {
            worker.run(job).await;
            worker.metrics.queue_items.with_label_values(&[name, "out"]).inc();
        });
    }
}

impl Worker {
    async fn run(&self, job: Job) {
        if let Command::Bind { pod, .. } = &job.command {
            self.reports.condition_settled(&pod.uid).await;
        }
        let started = Instant::now();
        let bind = Binding::of(&job.command, &self.metrics);
        let report = match &job.command {
            command @ (Command::WriteJournal { .. } | Command::ReadJournal { .. }) => {
                self.journal.execute(&self.gate, command, job.queued).await.map(Report::Outcome)
            }
            command @ (Command::ReadPrepared { .. } | Command::Prepare { .. }) => {
                prepare::execute(&self.gate, command, job.queued).await
            }
            command => pods::execute(&self.gate, command, job.queued).await,
        };
        let Some(report) = report else { return };
        let labels = [command_label(&job.command), outcome_label(&report)];
        self.metrics.requests.with_label_values(&labels).observe(started.elapsed().as_secs_f64());
        if bind.is_some() {
            self.metrics.framework.bound(&job.profile, labels[1] == "ok", started.elapsed());
        }
        drop(bind);
        // A closed channel means that the term is over.
        let _ = self.input.send(Input::Report(report)).await;
    }
}

/// A Binding under way, for as long as this lives.
struct Binding(IntGauge);

impl Binding {
    fn of(command: &Command, metrics: &Metrics) -> Option<Self> {
        matches!(command, Command::Bind { .. }).then(|| {
            let under_way = metrics.framework.binding();
            under_way.inc();
            Self(under_way)
        })
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Reads every slot of the journal, those too that a configuration with more of them left, and makes absent ones; answers
/// them and the highest epoch found.
pub(crate) async fn read_journal(settings: &Settings, slots: u32) -> Result<(u64, Vec<JournalSlotRead>), String> {
    let gate = Gate::new(
        settings.client.clone(),
        settings.leadership.clone(),
        settings.pressure.clone(),
        settings.request_timeout,
    );
    let unreadable = |failure: Failure| {
        format!("cannot read the placement journal in {}: {}", settings.journal.namespace, failure.why())
    };
    let count = settings.journal.count(&gate, slots, Instant::now()).await.map_err(unreadable)?;
    if count > slots {
        tracing::info!(found = count, slots, "the journal has slots of a former configuration: they are emptied");
    }
    let read = (0..count).map(|slot| settings.journal.read(&gate, slot, Instant::now()));
    let read = futures::future::try_join_all(read).await.map_err(unreadable)?;
    let epoch = read.iter().map(|(epoch, _)| *epoch).max().unwrap_or_default();
    Ok((u64::try_from(epoch).unwrap_or_default(), read.into_iter().map(|(_, slot)| slot).collect()))
}

/// The pod that a command is about.
pub(crate) fn subject(command: &Command) -> Option<&PodKey> {
    match command {
        Command::PodCondition { pod, .. } | Command::PodEvent { pod, .. } => Some(pod),
        _ => None,
    }
}

fn command_label(command: &Command) -> &'static str {
    match command {
        Command::WriteJournal { .. } => "write_journal",
        Command::ReadJournal { .. } => "read_journal",
        Command::Bind { .. } => "bind",
        Command::ReadPod { .. } => "read_pod",
        Command::ReadPrepared { .. } => "read_prepared",
        Command::Prepare { write, .. } => prepare_label(write),
        Command::FencePod { .. } => "fence_pod",
        Command::MarkRollback { .. } => "mark_rollback",
        Command::DeletePod { .. } => "delete_pod",
        Command::Evict { .. } => "evict",
        Command::Nominate { .. } => "nominate",
        Command::PodCondition { .. } => "pod_condition",
        Command::PodEvent { .. } => "pod_event",
        Command::GangStatus { .. } => "gang_status",
        Command::Observe(_) => "observe",
    }
}

fn prepare_label(write: &PrepareWrite) -> &'static str {
    match write {
        PrepareWrite::ClaimVolume { .. } => "claim_volume",
        PrepareWrite::SelectNode { .. } => "select_node",
        PrepareWrite::FinalizeClaim { .. } => "finalize_claim",
        PrepareWrite::ReserveClaim { .. } => "reserve_claim",
        PrepareWrite::UnreserveClaim { .. } => "unreserve_claim",
        PrepareWrite::CreateClaim { .. } => "create_claim",
        PrepareWrite::NameClaim { .. } => "name_claim",
        PrepareWrite::ReleaseClaim { .. } => "release_claim",
        PrepareWrite::DeleteClaim { .. } => "delete_claim",
        PrepareWrite::FenceClaim { .. } => "fence_claim",
    }
}

fn outcome_label(report: &Report) -> &'static str {
    use flowforge_scheduler_core::event::{BindResult, JournalReadResult, PrepareReadResult, ReadResult, WriteResult};
    let write = |result: &WriteResult| match result {
        WriteResult::Ok(_) => "ok",
        WriteResult::Conflict => "conflict",
        WriteResult::NotFound => "not_found",
        WriteResult::Refused(_) => "refused",
        WriteResult::Unknown(_) => "unknown",
    };
    match report {
        Report::PodRead { .. } => "ok",
        Report::Outcome(outcome) => match outcome {
            Outcome::Journal { result, .. }
            | Outcome::Fence { result, .. }
            | Outcome::Prepare { result, .. }
            | Outcome::Mark { result, .. }
            | Outcome::Delete { result, .. }
            | Outcome::Evict { result, .. } => write(result),
            Outcome::JournalRead { result: JournalReadResult::Found { .. }, .. } => "ok",
            Outcome::JournalRead { result: JournalReadResult::Unknown(_), .. } => "unknown",
            Outcome::PreparedRead { result: PrepareReadResult::Found(_), .. } => "ok",
            Outcome::PreparedRead { result: PrepareReadResult::NotFound, .. } => "not_found",
            Outcome::PreparedRead { result: PrepareReadResult::Unknown(_), .. } => "unknown",
            Outcome::Read { result: ReadResult::Found(_), .. } => "ok",
            Outcome::Read { result: ReadResult::NotFound, .. } => "not_found",
            Outcome::Read { result: ReadResult::Unknown(_), .. } => "unknown",
            Outcome::Bind { result, .. } => match result {
                BindResult::Ok => "ok",
                BindResult::Conflict(_) => "conflict",
                BindResult::NotFound => "not_found",
                BindResult::Refused(_) => "refused",
                BindResult::Unknown(_) => "unknown",
            },
        },
    }
}

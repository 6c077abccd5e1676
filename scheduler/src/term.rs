//! One term of leadership, from consistent reads to the last command.
//!
//! ```text
//!   journal (consistent) ──> lists (consistent) ──> Begin ──> plan and bind ──> lost or shutdown ──> all of it stops
//! ```
//! Invariants: a term begins with an empty engine and ends with nothing in flight, so that nothing of one term reaches
//! the next; the journal is read before the lists, so that every intent in it is older than what the lists show.

use crate::as_is::AsIs;
use crate::clock::Clock;
use crate::config::Config;
use crate::convert::Ours;
use crate::convert::gangs as theirs;
use crate::convert::kinds::{budgets, devices, hardware, selecting, storing};
use crate::dispatch::{Dispatch, Journal, Settings, read_journal};
use crate::gangs::{Beside, Objects};
use crate::input::{CAPACITY, Input};
use crate::metrics::Metrics;
use crate::thread::{EnginePanicked, EngineThread};
use crate::topology::ClusterTopologies;
use crate::watch::{Gangs, Nodes, Pods, Watched, Watcher};
use crate::writer::{Pulse, Writer};
use flowforge_runtime::{Leadership, LeaseTiming, Pressure};
use flowforge_scheduler_core::engine::Engine;
use flowforge_scheduler_core::event::JournalSlotRead;
use flowforge_scheduler_core::protocol::journal::epoch_to_lead;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Pause between tries to read the journal.
const JOURNAL_PAUSE: Duration = Duration::from_secs(1);
/// A thread that did not go round for so long is stuck.
const STUCK_MS: u64 = 60_000;
/// How long `/debug/state` waits for the engine's thread.
const INSPECT_LIMIT: Duration = Duration::from_secs(5);

/// What every term needs.
#[derive(Clone)]
pub struct Scheduler {
    inner: Arc<Inner>,
}

struct Inner {
    client: kube::Client,
    pressure: Pressure,
    config: Config,
    timing: LeaseTiming,
    namespace: String,
    holder: String,
    metrics: Metrics,
    clock: Clock,
    pulse: Arc<Pulse>,
    progress: Mutex<Progress>,
}

/// Where a term stands, for `/readyz` and `/debug/state`.
#[derive(Clone, Default)]
enum Progress {
    /// Another process leads, or nobody yet.
    #[default]
    Follower,
    /// Something must happen before planning begins.
    Starting(String),
    /// Planning.
    Leading(mpsc::Sender<Input>),
}

impl Scheduler {
    /// A scheduler that waits for its first term.
    #[must_use]
    pub fn new(
        client: kube::Client,
        pressure: Pressure,
        config: Config,
        timing: LeaseTiming,
        namespace: String,
        holder: String,
        metrics: Metrics,
    ) -> Self {
        let inner = Inner {
            client,
            pressure,
            config,
            timing,
            namespace,
            holder,
            metrics,
            clock: Clock::start(),
            pulse: Arc::default(),
            progress: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Works until the leadership is lost or the process shuts down, then stops everything.
    ///
    /// # Errors
    /// When the engine panicked: what is wrong with it would be wrong again in the next term.
    pub async fn serve(&self, leadership: &Leadership) -> Result<(), EnginePanicked> {
        let inner = &self.inner;
        let ours = Ours::new(inner.config.names());
        let Some(slots) = self.read_journal(leadership).await else {
            self.followed();
            return Ok(());
        };
        let (input, inputs) = mpsc::channel(CAPACITY);
        let (dispatch, outbox) = Dispatch::start(self.settings(leadership), input.clone());
        let parameters = inner.config.core(self.request_timeout());
        inner.metrics.framework.set_profiles(&parameters.profiles);
        let engine = Engine::new(parameters);
        let writer =
            Writer::new(engine, outbox, inputs, inner.clock, inner.metrics.clone(), inner.pulse.clone(), ours.clone())
                .showing_snapshot(inner.config.debug_snapshot);
        let gave_up = writer.gave_up();
        let stop = leadership.lost_token();
        let runtime = Handle::current();
        let mut thread = match EngineThread::start(move || writer.run(&runtime, &stop)) {
            Ok(thread) => thread,
            Err(error) => {
                tracing::error!(%error, "cannot start the engine's thread");
                self.followed();
                return Ok(());
            }
        };
        let mut watches = JoinSet::new();
        let lists = self.start_watches(&mut watches, &input, ours);
        tokio::select! {
            () = leadership.lost() => {}
            () = self.work(lists, &input, leadership, slots, &gave_up) => leadership.give_up(),
            () = thread.ended() => leadership.give_up(),
        }
        self.followed();
        watches.shutdown().await;
        dispatch.stop().await;
        drop(input);
        thread.join().await.inspect_err(|why| tracing::error!(%why, "the term is over"))
    }

    fn request_timeout(&self) -> Duration {
        let wanted = Duration::from_millis(self.inner.config.binding.request_timeout_ms);
        self.inner.timing.request_timeout(wanted)
    }

    fn settings(&self, leadership: &Leadership) -> Settings {
        let inner = &self.inner;
        Settings {
            client: inner.client.clone(),
            leadership: leadership.clone(),
            pressure: inner.pressure.clone(),
            request_timeout: self.request_timeout(),
            parallel_requests: inner.config.binding.parallel_requests,
            parallel_reports: inner.config.binding.parallel_reports,
            journal: Journal { namespace: inner.namespace.clone(), holder: inner.holder.clone() },
            metrics: inner.metrics.clone(),
        }
    }

    /// Reads the journal until it answers; None when the leadership ended first. Raises the epoch where the journal, or a
    /// fence that ended a former term, knows a higher one than the Lease, which then was deleted and made again.
    async fn read_journal(&self, leadership: &Leadership) -> Option<Vec<JournalSlotRead>> {
        let settings = self.settings(leadership);
        loop {
            self.starting("the placement journal is not read yet");
            match read_journal(&settings, self.inner.config.binding.journal_slots).await {
                Ok((found, slots)) => {
                    let lease = u64::try_from(leadership.epoch()).unwrap_or_default();
                    let known = found.max(self.inner.pulse.fenced_by.load(Ordering::Acquire));
                    let epoch = epoch_to_lead(lease, known, epoch_gap(&self.inner.holder), &slots);
                    if epoch > lease {
                        tracing::warn!(
                            lease,
                            epoch,
                            "the journal knows later epochs than the lease: it was made again"
                        );
                        let raised = leadership.raise_epoch(i64::try_from(epoch).unwrap_or(i64::MAX)).await;
                        return raised.then_some(slots);
                    }
                    return Some(slots);
                }
                Err(why) => {
                    tracing::warn!(why, "waiting for the journal");
                    self.starting(&why);
                }
            }
            tokio::select! {
                () = leadership.lost() => return None,
                () = tokio::time::sleep(JOURNAL_PAUSE) => {}
            }
        }
    }

    fn start_watches(
        &self,
        tasks: &mut JoinSet<()>,
        input: &mpsc::Sender<Input>,
        ours: Ours,
    ) -> Vec<(&'static str, watch::Receiver<bool>)> {
        vec![
            self.start_watch(tasks, AsIs(selecting::Namespaces), input),
            self.start_watch(tasks, AsIs(selecting::Service), input),
            self.start_watch(tasks, AsIs(selecting::ReplicationController), input),
            self.start_watch(tasks, AsIs(selecting::ReplicaSet), input),
            self.start_watch(tasks, AsIs(selecting::StatefulSet), input),
            self.start_watch(tasks, AsIs(budgets::Budgets), input),
            self.start_watch(tasks, AsIs(storing::Claims), input),
            self.start_watch(tasks, AsIs(storing::Volumes), input),
            self.start_watch(tasks, AsIs(storing::Classes), input),
            self.start_watch(tasks, AsIs(storing::CsiNodes), input),
            self.start_watch(tasks, AsIs(storing::CsiDrivers), input),
            self.start_watch(tasks, AsIs(storing::Capacities), input),
            self.start_watch(tasks, AsIs(storing::Attachments), input),
            self.start_watch(tasks, AsIs(devices::Slices), input),
            self.start_watch(tasks, AsIs(devices::Classes), input),
            self.start_watch(tasks, AsIs(devices::TaintRules), input),
            self.start_watch(tasks, AsIs(devices::Claims), input),
            self.start_watch(tasks, AsIs(hardware::NodeResourceTopologies), input),
            self.start_watch(tasks, Nodes, input),
            self.start_watch(tasks, Gangs, input),
            self.start_watch(tasks, ClusterTopologies, input),
            self.start_watch(tasks, Objects::<theirs::NativePodGroup>::default(), input),
            self.start_watch(tasks, Objects::<theirs::CoschedulingPodGroup>::default(), input),
            self.start_watch(tasks, Objects::<theirs::VolcanoPodGroup>::default(), input),
            self.start_watch(tasks, Objects::<theirs::KaiPodGroup>::default(), input),
            self.start_watch(tasks, Objects::<theirs::JobSet>::default(), input),
            self.start_watch(tasks, Beside::<theirs::VolcanoQueue>::default(), input),
            self.start_watch(tasks, Beside::<theirs::VolcanoJob>::default(), input),
            self.start_watch(tasks, Beside::<theirs::HyperNode>::default(), input),
            self.start_watch(tasks, Pods(ours), input),
        ]
    }

    fn start_watch<W: Watched>(
        &self,
        tasks: &mut JoinSet<()>,
        kind: W,
        input: &mpsc::Sender<Input>,
    ) -> (&'static str, watch::Receiver<bool>) {
        let inner = &self.inner;
        let (watcher, listed) =
            Watcher::new(kind, inner.client.clone(), input.clone(), inner.clock, inner.metrics.clone());
        tasks.spawn(watcher.run());
        (W::KIND, listed)
    }

    /// Begins, and ends only when the engine cannot do its work.
    async fn work(
        &self,
        lists: Vec<(&'static str, watch::Receiver<bool>)>,
        input: &mpsc::Sender<Input>,
        leadership: &Leadership,
        slots: Vec<JournalSlotRead>,
        gave_up: &CancellationToken,
    ) {
        self.begin(lists, input, leadership, slots).await;
        gave_up.cancelled().await;
        tracing::warn!("fenced by a later epoch, or nothing could be planned for too long: giving up the leadership");
    }

    /// Waits for the first lists, then lets the engine begin.
    async fn begin(
        &self,
        lists: Vec<(&'static str, watch::Receiver<bool>)>,
        input: &mpsc::Sender<Input>,
        leadership: &Leadership,
        slots: Vec<JournalSlotRead>,
    ) {
        for (kind, mut listed) in lists {
            self.starting(&format!("{kind} are not listed yet"));
            if listed.wait_for(|listed| *listed).await.is_err() {
                tracing::error!(kind, "the watch ended");
                return;
            }
        }
        let epoch = u64::try_from(leadership.epoch()).unwrap_or_default();
        if input.send(Input::Begin { epoch, slots }).await.is_ok() {
            tracing::info!(epoch, "everything is listed: planning begins");
            *self.inner.progress.lock() = Progress::Leading(input.clone());
        }
    }

    fn starting(&self, why: &str) {
        *self.inner.progress.lock() = Progress::Starting(why.to_owned());
    }

    fn followed(&self) {
        *self.inner.progress.lock() = Progress::Follower;
    }

    /// Whether this process can do its work now: a follower can always take over.
    ///
    /// # Errors
    /// What is missing.
    pub fn ready(&self) -> Result<(), String> {
        match &*self.inner.progress.lock() {
            Progress::Follower => Ok(()),
            Progress::Starting(why) => Err(why.clone()),
            Progress::Leading(_) => self.inner.pulse.ready(),
        }
    }

    /// Whether the engine's thread goes round.
    ///
    /// # Errors
    /// For how long it has not.
    pub fn alive(&self) -> Result<(), String> {
        let beat_ms = self.inner.pulse.beat_ms.load(Ordering::Acquire);
        let silent_ms = self.inner.clock.now_ms().saturating_sub(beat_ms);
        if beat_ms != 0 && silent_ms > STUCK_MS {
            return Err(format!("the engine has not gone round for {silent_ms} ms"));
        }
        Ok(())
    }

    /// A look inside, for people.
    pub async fn inspect(&self) -> Value {
        let progress = self.inner.progress.lock().clone();
        let mut state = match progress {
            Progress::Follower => json!({"role": "follower"}),
            Progress::Starting(why) => json!({"role": "leader", "waitingFor": why}),
            Progress::Leading(input) => match ask(&input).await {
                Some(mut state) => {
                    state["role"] = Value::from("leader");
                    state
                }
                None => json!({"role": "leader", "waitingFor": "the engine's thread did not answer"}),
            },
        };
        state["identity"] = Value::from(self.inner.holder.as_str());
        state["schedulerNames"] = json!(self.inner.config.names());
        state
    }
}

/// How far above all known epochs this process goes on when the Lease has forgotten them; see `epoch_to_lead`.
fn epoch_gap(holder: &str) -> u64 {
    const TERMS: u64 = 1_000;
    const SPREAD: u64 = 1_000_000;
    let hash = holder.bytes().fold(0_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    TERMS + hash % SPREAD
}

async fn ask(input: &mpsc::Sender<Input>) -> Option<Value> {
    let (question, answer) = oneshot::channel();
    let asked = async {
        input.send(Input::Inspect(question)).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(INSPECT_LIMIT, asked).await.ok().flatten()
}

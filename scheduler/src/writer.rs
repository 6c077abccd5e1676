//! The one thread that owns the engine: takes inputs in batches, lets the engine decide, and hands commands to dispatch.
//!
//! Invariants: nothing here waits for anything but the next input or the engine's next wakeup; while dispatch has no room,
//! facts and outcomes are still taken in, but nothing new is planned.

use crate::clock::Clock;
use crate::convert::Ours;
use crate::dispatch::{Outbox, PodFacts, Report, subject};
use crate::gangs;
use crate::input::{Fact, Input, PodFact};
use crate::metrics::Metrics;
use crate::topology::TopologyDesk;
use crate::watch::pod_fact;
use flowforge_scheduler_core::command::{Command, Observation};
use flowforge_scheduler_core::engine::{Engine, Stats, Waiting};
use flowforge_scheduler_core::event::{Event, Outcome, ReadResult, RelistedKind};
use flowforge_scheduler_core::model::{GangInfo, PodInfo};
use parking_lot::Mutex;
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Inputs taken in before the engine plans.
const BATCH: usize = 2_048;
/// Longest sleep, so that gauges and the heartbeat stay fresh.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);
/// Sleep while dispatch has no room, unless an input comes.
const BLOCKED_SLEEP: Duration = Duration::from_millis(5);
/// Gauges are set at most this often.
const GAUGE_PERIOD: Duration = Duration::from_millis(200);
/// A term in which nothing can be planned for so long is given up, so that the next one reads everything anew.
const FENCED_LIMIT_MS: u64 = 30_000;
/// Waiting entities shown by `/debug/state`.
const INSPECTED: usize = 1_000;

/// What others see of the thread, term after term.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// When it last went round, on the engine's clock; 0 while it does not run.
    pub(crate) beat_ms: AtomicU64,
    /// Whether the engine plans: it was told to begin, and the journal is fenced.
    pub(crate) planning: AtomicBool,
    /// Why the server refuses to write the journal, where it does.
    pub(crate) journal_refusal: Mutex<Option<String>>,
    /// The latest epoch that fenced a term of this process.
    pub(crate) fenced_by: AtomicU64,
}

impl Pulse {
    /// Whether plans are made and can be bound.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn ready(&self) -> Result<(), String> {
        if let Some(why) = self.journal_refusal.lock().as_deref() {
            return Err(format!("the API server refuses to write the placement journal: {why}"));
        }
        if self.planning.load(Ordering::Acquire) { Ok(()) } else { Err("the journal is not fenced yet".to_owned()) }
    }

    fn set_journal_refusal(&self, refusal: Option<&str>) {
        let mut held = self.journal_refusal.lock();
        if held.as_deref() != refusal {
            *held = refusal.map(str::to_owned);
        }
    }
}

/// The thread's state.
pub(crate) struct Writer {
    engine: Engine,
    outbox: Outbox,
    input: mpsc::Receiver<Input>,
    clock: Clock,
    metrics: Metrics,
    pulse: Arc<Pulse>,
    gave_up: CancellationToken,
    profile: SmolStr,
    ours: Ours,
    /// Whether a look inside shows every node and pod.
    shows_snapshot: bool,
    facts: BTreeMap<SmolStr, PodFacts>,
    topology: TopologyDesk,
    groups: gangs::Desk,
    commands: Vec<Command>,
    /// Since when the engine should plan but does not.
    idle_since_ms: Option<u64>,
    gauges_at: Option<Instant>,
}

impl Writer {
    /// A writer that has not begun.
    pub(crate) fn new(
        engine: Engine,
        outbox: Outbox,
        input: mpsc::Receiver<Input>,
        clock: Clock,
        metrics: Metrics,
        pulse: Arc<Pulse>,
        ours: Ours,
    ) -> Self {
        let profile = ours.first().cloned().unwrap_or_default();
        let topology = TopologyDesk::new(engine.snapshot().cluster().tree().levels().clone());
        let groups = gangs::Desk::new(ours.clone());
        Self {
            engine,
            outbox,
            input,
            clock,
            metrics,
            pulse,
            gave_up: CancellationToken::new(),
            profile,
            ours,
            shows_snapshot: false,
            facts: BTreeMap::new(),
            topology,
            groups,
            commands: Vec::new(),
            idle_since_ms: None,
            gauges_at: None,
        }
    }

    /// The same, with every node and pod in a look inside, or without.
    pub(crate) fn showing_snapshot(self, shows_snapshot: bool) -> Self {
        Self { shows_snapshot, ..self }
    }

    /// Cancelled when the engine was fenced, or has not come to planning for too long, as with a journal that cannot be
    /// written. It is this term's alone: what the last round of a term finds must not end the next.
    pub(crate) fn gave_up(&self) -> CancellationToken {
        self.gave_up.clone()
    }

    /// Works until `stop` is cancelled. Runs on a thread of its own.
    pub(crate) fn run(mut self, runtime: &Handle, stop: &CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        while !stop.is_cancelled() {
            let sleep = self.sleep();
            let input = &mut self.input;
            runtime.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(sleep) => {}
                    _ = input.recv_many(&mut batch, BATCH) => {}
                }
            });
            self.turn(&mut batch);
        }
        self.pulse.planning.store(false, Ordering::Release);
        self.pulse.set_journal_refusal(None);
        self.pulse.beat_ms.store(0, Ordering::Release);
        self.metrics.clear_gauges();
    }

    /// Takes in a batch, plans, and hands on the commands.
    fn turn(&mut self, batch: &mut Vec<Input>) {
        self.metrics.queue_items.with_label_values(&["input", "out"]).inc_by(batch.len() as u64);
        self.metrics.queue_depth.with_label_values(&["input"]).set(i64::try_from(self.input.len()).unwrap_or(i64::MAX));
        for input in batch.drain(..) {
            self.take(input);
        }
        self.hand_on(Duration::ZERO);
        if self.outbox.flush() {
            self.plan();
        }
        self.topology.tell(&self.engine, &self.outbox, &self.metrics);
        self.groups.answer(&self.engine, &self.outbox);
        self.set_gauges();
        self.beat();
    }

    fn beat(&mut self) {
        let now_ms = self.clock.now_ms();
        let planning = self.engine.is_planning();
        self.pulse.beat_ms.store(now_ms, Ordering::Release);
        self.pulse.planning.store(planning, Ordering::Release);
        self.pulse.set_journal_refusal(self.engine.journal_refusal());
        if let Some(epoch) = self.engine.fenced_by() {
            self.pulse.fenced_by.fetch_max(epoch, Ordering::AcqRel);
            self.gave_up.cancel();
        }
        match &mut self.idle_since_ms {
            Some(since_ms) if planning => *since_ms = now_ms,
            Some(since_ms) if now_ms.saturating_sub(*since_ms) > FENCED_LIMIT_MS => self.gave_up.cancel(),
            _ => {}
        }
    }

    fn sleep(&self) -> Duration {
        if self.outbox.is_blocked() {
            return BLOCKED_SLEEP;
        }
        let Some(at_ms) = self.engine.next_wakeup() else { return LONGEST_SLEEP };
        Duration::from_millis(at_ms.saturating_sub(self.clock.now_ms())).min(LONGEST_SLEEP)
    }

    fn plan(&mut self) {
        let started = Instant::now();
        self.engine.run(self.clock.now_ms(), &mut self.commands);
        let took = started.elapsed();
        let is_planned = |command: &&Command| matches!(command, Command::Observe(Observation::GangPlanned));
        let planned = self.commands.iter().filter(is_planned).count();
        self.metrics.ran(took, u32::try_from(planned).unwrap_or(u32::MAX));
        self.hand_on(took);
    }

    /// Counts observations, which are spread over the attempts of a run that took so long, and hands on the rest.
    fn hand_on(&mut self, took: Duration) {
        let is_attempt = |command: &&Command| matches!(command, Command::Observe(Observation::Attempt { .. }));
        let attempts = self.commands.iter().filter(is_attempt).count();
        let share = took / u32::try_from(attempts.max(1)).unwrap_or(u32::MAX);
        let now_ms = self.clock.now_ms();
        let unknown = PodFacts { profile: self.profile.clone(), ..PodFacts::default() };
        for command in self.commands.drain(..) {
            if let Command::Observe(observation) = &command {
                log(observation);
                self.metrics.observe(observation, share);
                continue;
            }
            tracing::trace!(now_ms, ?command, "command");
            let command = match command {
                Command::GangStatus { namespace, name, uid, status } if GangInfo::is_of_others(&name) => {
                    self.groups.tell(namespace, name, &uid, status);
                    continue;
                }
                command => command,
            };
            let facts = subject(&command).and_then(|pod| self.facts.get(&pod.uid)).unwrap_or(&unknown);
            if let Some(unsaid) = self.outbox.push(command, facts, now_ms) {
                self.engine.unsaid(&unsaid);
            }
        }
    }

    fn set_gauges(&mut self) {
        if self.gauges_at.is_none_or(|at| at.elapsed() >= GAUGE_PERIOD) {
            self.metrics.set_gauges(&self.engine.stats(), self.clock.now_ms());
            self.metrics.framework.entered(&self.engine.take_incoming());
            self.gauges_at = Some(Instant::now());
        }
    }

    fn apply(&mut self, event: Event, at_ms: u64) {
        tracing::trace!(at_ms, ?event, "event");
        self.engine.apply(event, at_ms, &mut self.commands);
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Fact { fact, at_ms } => {
                let lag = Duration::from_millis(self.clock.now_ms().saturating_sub(at_ms));
                self.metrics.event_lag.observe(lag.as_secs_f64());
                self.take_fact(fact, at_ms);
            }
            Input::Report(Report::Outcome(outcome)) => {
                let now_ms = self.clock.now_ms();
                self.apply(Event::Outcome(outcome), now_ms);
            }
            Input::Report(Report::PodRead { op, pod }) => {
                let fact = pod_fact(&pod, &self.ours);
                let info = self.note(fact);
                let now_ms = self.clock.now_ms();
                let result = ReadResult::Found(Box::new(info));
                self.apply(Event::Outcome(Outcome::Read { op, result }), now_ms);
            }
            Input::Begin { epoch, slots } => {
                let now_ms = self.clock.now_ms();
                self.apply(Event::Synced, now_ms);
                self.apply(Event::Lead { epoch, slots }, now_ms);
                self.idle_since_ms = Some(now_ms);
            }
            Input::Inspect(answer) => {
                // Whoever asked may have left.
                let _ = answer.send(self.inspect());
            }
        }
    }

    fn take_fact(&mut self, fact: Fact, at_ms: u64) {
        let event = match fact {
            Fact::Pod(fact) => {
                let pod = self.note(*fact);
                let declared = self.groups.see_pod(&pod);
                declared.into_iter().for_each(|event| self.apply(event, at_ms));
                Event::PodUpsert(Box::new(pod))
            }
            Fact::PodGone(key) => {
                self.facts.remove(&key.uid);
                self.groups.forget_pod(&key.uid);
                self.outbox.forget_pod(&key.uid);
                Event::PodDelete(key)
            }
            Fact::PodsListed(uids) => {
                let listed: BTreeSet<&SmolStr> = uids.iter().collect();
                self.facts.retain(|uid, _| listed.contains(uid));
                self.groups.retain_pods(&listed);
                Event::Relisted(RelistedKind::Pods(uids))
            }
            Fact::Node(node) => Event::NodeUpsert(node),
            Fact::NodeGone(name) => Event::NodeDelete { name },
            Fact::NodesListed(names) => Event::Relisted(RelistedKind::Nodes(names)),
            Fact::Gang(gang) => Event::GangUpsert(gang),
            Fact::GangGone { namespace, name, uid } => {
                self.outbox.forget_gang(&uid);
                Event::GangDelete { namespace, name, uid }
            }
            Fact::GangsListed(mut uids) => {
                self.outbox.retain_gangs(&uids);
                // What others declare comes from lists of its own.
                uids.extend(self.groups.known().cloned());
                Event::Relisted(RelistedKind::Gangs(uids))
            }
            Fact::Topology(fact) => {
                let Some(levels) = self.topology.take(fact) else { return };
                self.metrics.topology_changes.inc();
                Event::Topology(levels)
            }
            Fact::Group(fact) => {
                let declared = self.groups.take(fact);
                return declared.into_iter().for_each(|event| self.apply(event, at_ms));
            }
            Fact::Plain(event) => *event,
        };
        self.apply(event, at_ms);
    }

    /// Remembers what the shell needs of a pod.
    fn note(&mut self, fact: PodFact) -> PodInfo {
        let PodFact { info, facts } = fact;
        let uid = info.key.uid.clone();
        if info.ours && !info.phase.is_terminal() {
            self.facts.insert(uid, facts);
        } else {
            self.facts.remove(&uid);
        }
        info
    }

    fn inspect(&self) -> Value {
        let stats = self.engine.stats();
        let waiting = |entry: Waiting| {
            json!({
                "namespace": entry.namespace, "name": entry.name, "gang": entry.gang,
                "queue": entry.queue, "message": entry.message,
            })
        };
        let dump = self.shows_snapshot.then(|| self.engine.snapshot().cluster().dump());
        json!({
            "dump": dump,
            "queues": {
                "active": stats.active, "backoff": stats.backoff, "unschedulable": stats.unschedulable,
                "gated": stats.gated, "incomplete": stats.incomplete, "pending": stats.pending,
            },
            "unschedulableByPlugin": by_plugin(&stats),
            "openIntents": stats.open_intents,
            "gangsHeldPartial": stats.gangs_held_partial,
            "snapshot": {
                "nodes": stats.nodes, "pods": stats.pods, "assumed": stats.assumed, "gangs": stats.gangs,
                "nodeClasses": stats.classes, "podShapes": stats.shapes, "podShapeBytes": stats.shape_bytes,
            },
            "topology": self.topology.inspect(),
            "waiting": self.engine.waiting(INSPECTED).into_iter().map(waiting).collect::<Vec<_>>(),
        })
    }
}

/// Unschedulable pods of all profiles.
fn by_plugin(stats: &Stats) -> BTreeMap<&'static str, usize> {
    let mut all = BTreeMap::new();
    for ((plugin, _), pods) in &stats.unschedulable_by_plugin {
        *all.entry(*plugin).or_default() += pods;
    }
    all
}

/// What an administrator must see although no pod or gang can tell it.
fn log(observation: &Observation) {
    match observation {
        Observation::JournalRefused(why) => {
            tracing::error!(why, "the API server refuses to write the placement journal: no gang is bound meanwhile");
        }
        Observation::JournalUnreadable(what) => {
            tracing::error!(what, "a placement journal slot cannot be decoded and is taken over empty");
        }
        _ => {}
    }
}

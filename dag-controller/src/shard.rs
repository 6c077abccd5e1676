//! A shard: the workflows whose names hash to it, one event at a time.
//!
//! ```text
//!   inbox (bounded) ─┐
//!   jobs that ended ─┼─> event ─> core ─> commands ─> Runner ─> jobs
//!   timers ──────────┘                                   └─> milestones ─> announcer
//! ```
//! Until every list is in, inputs are only collected (`boot`); then each workflow's state is rebuilt from what was found.
//! Nothing scans all workflows, apart from the end of a list after a broken watch.
//!
//! What must hold: nothing is sent before every list is in; when the lease is lost the shard and all of its state end.

use flowforge_api::Workflow;
use flowforge_dag_controller_core::engine::{State, apply};
use flowforge_dag_controller_core::{AttemptKey, Command, Event, MemberKey, Reason};
use flowforge_runtime::Leadership;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::announce::Announcer;
use crate::boot::{Boot, Built, Found, build};
use crate::config::Config;
use crate::convert::{has_finalizer, ms, place};
use crate::exec::{self, Outcome, PodRef};
use crate::flow::{Body, Flow, Refused, Sight};
use crate::inputs::{Departed, FlowKey, Inbox, Input, Kind};
use crate::metrics::{Metrics, Queue};
use crate::run::{Alarm, Ended, Jobs, Left, Runner};
use crate::storage;
use crate::watch::{Nodes, StorageTable};
use crate::watched::WatchedPod;
use crate::writer::Writer;

/// What every shard shares.
#[derive(Clone)]
pub struct Shared {
    /// Sends.
    pub writer: Writer,
    /// Claims and classes.
    pub storage: Arc<StorageTable>,
    /// Usable nodes.
    pub nodes: Nodes,
    /// Events for people.
    pub announcer: Announcer,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What the controller was told.
    pub config: Arc<Config>,
}

/// See the module.
pub struct Shard {
    shared: Shared,
    flows: BTreeMap<FlowKey, Flow>,
    boot: Option<Boot>,
    alarms: BTreeSet<(u64, FlowKey, Alarm)>,
    jobs: Jobs,
    /// Workflows that have, or had, pods on a node.
    by_node: BTreeMap<String, BTreeSet<FlowKey>>,
    /// Workflows that name a claim, by namespace and claim.
    by_claim: BTreeMap<(Arc<str>, String), BTreeSet<FlowKey>>,
    /// Objects seen since their kind's list began; only between `ListBegins` and `ListEnds` after the start.
    relisted: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Shard {
    /// A shard that waits for its lists.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self {
            shared,
            flows: BTreeMap::new(),
            boot: Some(Boot::default()),
            alarms: BTreeSet::new(),
            jobs: Jobs::new(),
            by_node: BTreeMap::new(),
            by_claim: BTreeMap::new(),
            relisted: BTreeMap::new(),
        }
    }

    /// Runs until the lease is lost or the watches end.
    pub async fn run(mut self, mut inbox: Inbox, leadership: Leadership) {
        loop {
            let due = self.alarms.first().map(|(at, _, _)| Duration::from_millis(at.saturating_sub(now_ms())));
            tokio::select! {
                () = leadership.lost() => break,
                Some(ended) = self.jobs.join_next(), if !self.jobs.is_empty() => {
                    self.shared.metrics.queue_out.with(Queue::Jobs).inc();
                    if let Ok(ended) = ended {
                        self.on_ended(ended);
                    }
                }
                input = inbox.recv() => {
                    let Some((arrived, input)) = input else { break };
                    self.shared.metrics.queue_out.with(Queue::Shard).inc();
                    self.on_input(input, arrived);
                }
                () = tokio::time::sleep(due.unwrap_or(Duration::MAX)), if due.is_some() => self.on_time(),
            }
        }
        let left = u64::try_from(self.jobs.len()).unwrap_or(0);
        self.shared.metrics.queue_dropped.with(Queue::Jobs).inc_by(left);
        self.jobs.shutdown().await;
        self.shared.metrics.workflows.sub(i64::try_from(self.flows.len()).unwrap_or(0));
    }

    fn on_input(&mut self, input: Input, arrived: Instant) {
        if let Some(boot) = &mut self.boot {
            if let Some(built) = boot.take_in(input) {
                self.boot = None;
                for (key, found) in built {
                    let flow = build(&key, found, &self.shared, now_ms());
                    self.admit(flow, arrived);
                }
            }
            return;
        }
        match input {
            Input::ListsIn => {}
            Input::ListBegins(kind) => {
                self.relisted.insert(tag(kind), BTreeSet::new());
            }
            Input::ListEnds(kind) => self.on_list_end(kind, arrived),
            Input::Workflow(workflow) => self.on_workflow(*workflow, arrived),
            Input::WorkflowGone(key, uid) => self.on_workflow_gone(&key, &uid),
            Input::Gang(key, gang) => {
                self.seen(Kind::Gang, gang.uid());
                self.sight(&key, arrived, |flow| flow.on_gang(&gang));
            }
            Input::GangGone(key, gone) => {
                self.sight(&key, arrived, |flow| flow.on_gang_gone(&gone.place, &gone.uid));
            }
            Input::Pod(key, pod) => {
                self.seen(Kind::Pod, pod.metadata.uid.clone());
                self.on_pod(&key, &pod, arrived);
            }
            Input::PodGone(key, Departed { place, uid }) => {
                self.sight(&key, arrived, |flow| flow.on_pod_gone(&place, &uid));
            }
            Input::Service(key, service) => {
                self.seen(Kind::Service, service.metadata.uid.clone());
                self.sight(&key, arrived, |flow| flow.on_service(&service));
            }
            Input::ServiceGone(key, gone) => {
                self.sight(&key, arrived, |flow| flow.on_service_gone(&gone.place, &gone.uid));
            }
            Input::Node(node, gone) => self.on_node(&node, gone, arrived),
            Input::Claim(namespace, claim) => {
                let keys = self.by_claim.get(&(namespace, claim.to_string())).cloned().unwrap_or_default();
                self.judge_storage(keys, arrived);
            }
            Input::Classes => {
                let keys = self.flows.iter().filter(|(_, f)| waits_for_storage(f)).map(|(k, _)| k.clone()).collect();
                self.judge_storage(keys, arrived);
            }
        }
    }

    /// Notes that an object was in the list that is being read, if one is.
    fn seen(&mut self, kind: Kind, uid: Option<String>) {
        if let (Some(seen), Some(uid)) = (self.relisted.get_mut(tag(kind)), uid) {
            seen.insert(uid);
        }
    }

    fn on_workflow(&mut self, workflow: Workflow, arrived: Instant) {
        self.seen(Kind::Workflow, workflow.uid());
        let key = FlowKey::new(&workflow.namespace().unwrap_or_default(), &workflow.name_any());
        let uid = workflow.uid().unwrap_or_default();
        if self.flows.get(&key).is_some_and(|f| f.uid != uid) {
            self.forget(&key);
        }
        let Some(flow) = self.flows.get_mut(&key) else {
            let built = build(&key, Found::new_workflow(workflow), &self.shared, now_ms());
            self.admit(built, arrived);
            return;
        };
        flow.note(&workflow.metadata);
        let events = flow.on_wishes(&workflow);
        self.set_expiry(&key);
        self.drive(&key, events, arrived);
    }

    /// Takes a flow that was just built.
    fn admit(&mut self, built: Option<Built>, arrived: Instant) {
        let Some(Built { flow, commands, orphans }) = built else { return };
        for orphan in orphans {
            self.strip_orphan(orphan);
        }
        let Some(flow) = flow else { return };
        let key = flow.key.clone();
        for storage in &flow.spec.storage {
            let claim = (Arc::clone(&key.namespace), storage.claim_ref.clone());
            self.by_claim.entry(claim).or_default().insert(key.clone());
        }
        for node in nodes_of(&flow) {
            self.by_node.entry(node).or_default().insert(key.clone());
        }
        let refused = matches!(flow.body, Body::Refused(_));
        self.flows.insert(key.clone(), flow);
        self.shared.metrics.workflows.inc();
        if refused {
            self.refuse(&key, arrived);
        } else {
            self.carry_out(&key, commands, arrived);
        }
    }

    /// Tells the user that a workflow can not run, unless that was told before.
    fn refuse(&mut self, key: &FlowKey, arrived: Instant) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let told = flow.lane.sent.is_some();
        self.set_expiry(key);
        if told {
            return;
        }
        let Some(flow) = self.flows.get_mut(key) else { return };
        self.shared.announcer.refused(flow);
        self.with_runner(key, arrived, |runner, flow| {
            flow.lane.dirty = true;
            runner.write_status(flow);
        });
    }

    /// Sets when a workflow that can not run shall be deleted; an alarm for another time rings in vain.
    fn set_expiry(&mut self, key: &FlowKey) {
        let Some(flow) = self.flows.get_mut(key).filter(|f| f.state().is_none()) else { return };
        let at = flow.refused_until_ms();
        if flow.wake_at_ms != at {
            flow.wake_at_ms = at;
            self.set(key, at.map(|at| (at, Alarm::Expired)));
        }
    }

    fn on_workflow_gone(&mut self, key: &FlowKey, uid: &str) {
        if self.flows.get(key).is_some_and(|f| f.uid == uid) {
            self.forget(key);
        }
    }

    /// Drops a workflow that does not exist any more. Its Gangs go with it, and their pods with them; pods that wait for
    /// their finalizer are let go now, as their results have no place any more.
    fn forget(&mut self, key: &FlowKey) {
        let Some(flow) = self.flows.remove(key) else { return };
        for storage in &flow.spec.storage {
            drop_from(&mut self.by_claim, &(Arc::clone(&key.namespace), storage.claim_ref.clone()), key);
        }
        self.leave_nodes(key);
        for (attempt_key, attempt) in &flow.attempts {
            let gang = flow.gang_name(*attempt_key);
            for (&(rank, incarnation), record) in &attempt.pods {
                let leaves = record.facts.deletion_requested_at_ms.is_some();
                if record.facts.finalizer && !record.gone && leaves {
                    let name = flowforge_dag_controller_core::names::pod(&gang, rank, incarnation).into();
                    let namespace = key.namespace.to_string();
                    self.strip_orphan(PodRef { namespace, name, uid: record.uid.clone() });
                }
            }
        }
        self.shared.metrics.workflows.dec();
    }

    /// A workflow has no pods left. O(nodes), once or twice a workflow.
    fn leave_nodes(&mut self, key: &FlowKey) {
        self.by_node.retain(|_, flows| {
            flows.remove(key);
            !flows.is_empty()
        });
    }

    fn on_pod(&mut self, key: &FlowKey, pod: &WatchedPod, arrived: Instant) {
        let node = pod.spec.node_name.clone().filter(|n| !n.is_empty());
        let sight = self.sight(key, arrived, |flow| flow.on_pod(pod, |_| false));
        if matches!(sight, Some(Sight::Stranger) | None) {
            let leaves = pod.metadata.deletion_timestamp.is_some();
            if leaves && has_finalizer(&pod.metadata) {
                self.strip_orphan(PodRef::of(pod));
            }
            return;
        }
        if let Some(node) = node {
            self.by_node.entry(node).or_default().insert(key.clone());
        }
        if let Some(member) = self.flows.get(key).and_then(|f| member_of(f, pod)) {
            self.with_runner(key, arrived, |runner, flow| runner.delete_late(flow, member));
        }
    }

    /// Shows an object to its flow and tells the core what is new.
    fn sight(&mut self, key: &FlowKey, arrived: Instant, look: impl FnOnce(&mut Flow) -> Sight) -> Option<Sight> {
        let sight = look(self.flows.get_mut(key)?);
        match sight {
            Sight::News(event) => {
                self.drive(key, vec![*event], arrived);
                Some(Sight::Old)
            }
            Sight::Stranger => {
                self.shared.metrics.strangers.inc();
                Some(Sight::Stranger)
            }
            Sight::Old => Some(Sight::Old),
        }
    }

    fn on_node(&mut self, node: &str, gone: bool, arrived: Instant) {
        let Some(keys) = self.by_node.get(node).cloned() else { return };
        for key in keys {
            let events = self.flows.get_mut(&key).map(|f| f.on_node(node, gone)).unwrap_or_default();
            if events.is_empty() {
                drop_from(&mut self.by_node, node, &key);
            }
            self.drive(&key, events, arrived);
        }
    }

    fn judge_storage(&mut self, keys: BTreeSet<FlowKey>, arrived: Instant) {
        for key in keys {
            let Some(flow) = self.flows.get_mut(&key) else { continue };
            let Some(state) = flow.state().filter(|s| !s.phase().is_over()) else { continue };
            let started = state.started_at_ms().is_some();
            let cause = judge(flow, &self.shared.storage);
            match cause {
                Some(cause) if cause.reason == Reason::ClaimNotShared && !started => {
                    flow.body = Body::Refused(Box::new(Refused { cause, at_ms: now_ms() }));
                    flow.lane.sent = None;
                    self.refuse(&key, arrived);
                }
                cause => self.drive(&key, vec![Event::Hold(cause.map(Box::new))], arrived),
            }
        }
    }

    /// A list after a broken watch is complete: what it did not hold is looked for. O(objects of the kind), but only
    /// after a watch broke for longer than the API server keeps its history.
    fn on_list_end(&mut self, kind: Kind, arrived: Instant) {
        let Some(seen) = self.relisted.remove(tag(kind)) else { return };
        let keys: Vec<FlowKey> = self.flows.keys().cloned().collect();
        for key in keys {
            self.with_runner(&key, arrived, |runner, flow| runner.look_for(flow, kind, &seen));
        }
    }

    fn on_time(&mut self) {
        let now = now_ms();
        let arrived = Instant::now();
        while let Some((at, key, alarm)) = self.alarms.first().cloned() {
            if at > now {
                return;
            }
            self.alarms.pop_first();
            match alarm {
                Alarm::Core => {
                    let Some(flow) = self.flows.get_mut(&key) else { continue };
                    if flow.wake_at_ms == Some(at) {
                        flow.wake_at_ms = None;
                        self.drive(&key, vec![Event::Timer], arrived);
                    }
                }
                Alarm::Expired => self.with_runner(&key, arrived, |runner, flow| {
                    if flow.wake_at_ms == Some(at) {
                        runner.delete_workflow(flow);
                    }
                }),
                Alarm::Status => self.with_runner(&key, arrived, |runner, flow| runner.write_status(flow)),
                Alarm::Gang(attempt) => self.with_runner(&key, arrived, |runner, flow| {
                    if let Some(attempt) = flow.attempts.get_mut(&attempt) {
                        attempt.lane.scheduled = false;
                    }
                    runner.write_gang(flow, attempt);
                }),
            }
        }
    }

    fn on_ended(&mut self, ended: Ended) {
        let arrived = Instant::now();
        let key = ended.flow;
        if self.flows.get(&key).is_none_or(|f| f.uid != ended.uid) {
            return;
        }
        let events = match ended.outcome {
            Outcome::Gang(attempt, gang) => {
                self.note_release(&key, attempt);
                self.sight(&key, arrived, |flow| flow.on_gang(&gang));
                Vec::new()
            }
            Outcome::GangOver(attempt, gang) => {
                self.sight(&key, arrived, |flow| flow.on_gang(&gang));
                self.lane_done(&key, attempt, None, arrived)
            }
            Outcome::GangAbsent(attempt) => {
                let mut events = self.lane_done(&key, attempt, None, arrived);
                events.push(Event::GangGone(attempt));
                events
            }
            Outcome::GangWritten(attempt, version) => self.lane_done(&key, attempt, Some(version), arrived),
            Outcome::Service(attempt) => vec![Event::Service(attempt, true)],
            Outcome::Pod(member, pod) => {
                self.on_pod(&key, &pod, arrived);
                self.with_runner(&key, arrived, |runner, flow| runner.delete_late(flow, member));
                Vec::new()
            }
            Outcome::PodAbsent(member, uid) => {
                self.sight(&key, arrived, |flow| flow.on_member_gone(member, &uid));
                Vec::new()
            }
            Outcome::Refused(object, refusal) => vec![Event::Refused(object, refusal)],
            Outcome::StatusWritten(version) => self.status_done(&key, Some(version), arrived),
            Outcome::StatusRefused => self.status_done(&key, None, arrived),
            Outcome::GangRefused(attempt) => self.lane_refused(&key, attempt, arrived),
            Outcome::ServiceAbsent(attempt, uid) => {
                self.sight(&key, arrived, |flow| flow.on_attempt_service_gone(attempt, &uid));
                Vec::new()
            }
            Outcome::WorkflowAbsent => {
                self.forget(&key);
                Vec::new()
            }
            Outcome::Judged(node, answer) => {
                self.flows.get_mut(&key).map(|flow| flow.on_answer(node, *answer)).into_iter().collect()
            }
            Outcome::Nothing | Outcome::Withheld => Vec::new(),
        };
        self.drive(&key, events, arrived);
    }

    /// A Gang's status write has ended; without a version because the Gang turned out to have ended, or to be gone.
    fn lane_done(
        &mut self,
        key: &FlowKey,
        attempt: AttemptKey,
        version: Option<String>,
        arrived: Instant,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        self.with_runner(key, arrived, |runner, flow| {
            let in_flight = flow.attempts.get(&attempt).is_some_and(|a| a.lane.in_flight.is_some());
            match version {
                Some(version) => events = runner.gang_written(flow, attempt, Ok(version)).0,
                None if in_flight => events = flow.superseded(attempt),
                None => {}
            }
        });
        events
    }

    fn lane_refused(&mut self, key: &FlowKey, attempt: AttemptKey, arrived: Instant) -> Vec<Event> {
        let mut alarm = None;
        self.with_runner(key, arrived, |runner, flow| alarm = runner.gang_written(flow, attempt, Err(())).1);
        self.set(key, alarm);
        Vec::new()
    }

    fn status_done(&mut self, key: &FlowKey, version: Option<String>, arrived: Instant) -> Vec<Event> {
        let (mut alarm, mut emptied) = (None, false);
        self.with_runner(key, arrived, |runner, flow| {
            alarm = runner.status_written(flow, version);
            emptied = flow.compact();
        });
        if emptied {
            self.leave_nodes(key);
        }
        self.set(key, alarm);
        Vec::new()
    }

    /// Gives events to the core until no event follows at once.
    fn drive(&mut self, key: &FlowKey, events: Vec<Event>, arrived: Instant) {
        let mut events = events;
        while !events.is_empty() {
            let Some(flow) = self.flows.get_mut(key) else { return };
            let Body::State(state) = &mut flow.body else { return };
            let mut commands = Vec::new();
            let started = Instant::now();
            for event in std::mem::take(&mut events) {
                apply(state, event, now_ms(), &mut commands);
            }
            self.shared.metrics.apply.observe(started.elapsed().as_secs_f64());
            events = self.run_commands(key, commands, arrived);
        }
    }

    fn carry_out(&mut self, key: &FlowKey, commands: Vec<Command>, arrived: Instant) {
        let events = self.run_commands(key, commands, arrived);
        self.drive(key, events, arrived);
    }

    fn run_commands(&mut self, key: &FlowKey, commands: Vec<Command>, arrived: Instant) -> Vec<Event> {
        let mut left = Left::default();
        self.with_runner(key, arrived, |runner, flow| left = runner.run(flow, commands));
        self.set(key, left.alarms);
        if let Some(flow) = self.flows.get(key) {
            for milestone in left.milestones {
                if let Some(state) = flow.state() {
                    self.shared.metrics.reached(state, milestone);
                }
                self.shared.announcer.announce(flow, milestone);
            }
        }
        left.events
    }

    fn set(&mut self, key: &FlowKey, alarms: impl IntoIterator<Item = (u64, Alarm)>) {
        self.alarms.extend(alarms.into_iter().map(|(at, alarm)| (at, key.clone(), alarm)));
    }

    fn with_runner(&mut self, key: &FlowKey, arrived: Instant, act: impl FnOnce(&mut Runner<'_>, &mut Flow)) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let mut runner = Runner {
            writer: &self.shared.writer,
            jobs: &mut self.jobs,
            metrics: &self.shared.metrics,
            now_ms: now_ms(),
            arrived,
        };
        act(&mut runner, flow);
    }

    fn note_release(&mut self, key: &FlowKey, attempt: AttemptKey) {
        let asked = self.flows.get_mut(key).and_then(|f| f.attempts.get_mut(&attempt)?.asked_at.take());
        if let Some(asked) = asked {
            self.shared.metrics.releases.inc();
            self.shared.metrics.release_latency.observe(asked.elapsed().as_secs_f64());
        }
    }

    fn strip_orphan(&mut self, pod: PodRef) {
        let writer = self.shared.writer.clone();
        let flow = FlowKey::new(&pod.namespace, "");
        self.shared.metrics.queue_in.with(Queue::Jobs).inc();
        self.jobs.spawn(async move {
            let outcome = exec::strip_orphan(&writer, pod).await;
            Ended { flow, uid: String::new(), outcome }
        });
    }
}

/// Takes a workflow from an index, and its last entry with it.
fn drop_from<K: Ord + ?Sized, Q: Ord + std::borrow::Borrow<K>>(
    index: &mut BTreeMap<Q, BTreeSet<FlowKey>>,
    at: &K,
    key: &FlowKey,
) {
    if let Some(flows) = index.get_mut(at) {
        flows.remove(key);
        if flows.is_empty() {
            index.remove(at);
        }
    }
}

/// Why a workflow must not start, by its claims.
pub(crate) fn judge(flow: &Flow, table: &StorageTable) -> Option<flowforge_dag_controller_core::Cause> {
    if flow.spec.storage.is_empty() {
        return None;
    }
    let claims = table.claims.read();
    let classes = table.classes.read();
    let find = |name: &str| claims.get(&(Arc::clone(&flow.key.namespace), Arc::from(name)));
    storage::judge(&flow.spec, find, &classes)
}

fn waits_for_storage(flow: &Flow) -> bool {
    flow.state().and_then(State::cause).is_some_and(|c| c.reason == Reason::ClaimPending)
}

fn nodes_of(flow: &Flow) -> Vec<String> {
    let pods = flow.attempts.values().flat_map(|a| a.pods.values());
    pods.filter_map(|p| p.facts.node.as_ref().map(ToString::to_string)).collect()
}

fn member_of(flow: &Flow, pod: &WatchedPod) -> Option<MemberKey> {
    let place = place(&pod.metadata)?;
    let AttemptKey { node, attempt } = flow.attempt_key(&place)?;
    Some(MemberKey { node, attempt, rank: place.rank?, incarnation: place.incarnation })
}

fn tag(kind: Kind) -> &'static str {
    match kind {
        Kind::Workflow => "workflows",
        Kind::Gang => "gangs",
        Kind::Pod => "pods",
        Kind::Service => "services",
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> u64 {
    ms(jiff::Timestamp::now())
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;

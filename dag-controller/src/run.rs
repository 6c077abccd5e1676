//! From the core's commands to jobs: what can be sent is sent at once, statuses go through lanes.
//!
//! ```text
//!   CreateGang, CreateService, CreatePod, DeletePod, RemoveFinalizer ─────────────> job
//!   RecordResult, FinishGang ──> lane of the Gang ──one write at a time──> job ──> Recorded, ended
//!   UpdateGang ──> the same lane, a moment later
//!   WriteStatus ──> lane of the Workflow ──at most one a second, at once when urgent──> job
//! ```

use flowforge_dag_controller_core::command::MemberEnd;
use flowforge_dag_controller_core::event::{GangFacts, Object, Refusal, RefusalKind};
use flowforge_dag_controller_core::names as core_names;
use flowforge_dag_controller_core::retry::Plan;
use flowforge_dag_controller_core::{AttemptKey, Command, Event, GangEnd, MemberKey, NodeIx};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::task::JoinSet;

use crate::data::{Answer, Question};
use crate::exec::{self, Child, GangWrite, Outcome, PodRef, WorkflowRef};
use crate::flow::{Attempt, Body, Flow, GangLoad, StatusLane};
use crate::inputs::{FlowKey, Kind};
use crate::ledger::GangView;
use crate::metrics::{Metrics, Queue};
use crate::objects;
use crate::status;
use crate::writer::Writer;

/// Pause between two status writes of one workflow.
pub const STATUS_INTERVAL_MS: u64 = 1000;
/// How long a mere change of a gang waits for the next one.
pub const GANG_DELAY_MS: u64 = 500;
/// How long a refused status write waits.
pub const REFUSED_DELAY_MS: u64 = 5000;

/// Grace of a pod whose workflow is terminated. None at all would take the object away while the containers may still run.
const LEAST_GRACE_S: u32 = 1;

/// A job's end.
#[derive(Debug)]
pub struct Ended {
    /// Its workflow.
    pub flow: FlowKey,
    /// UID of its workflow.
    pub uid: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// Jobs of a shard.
pub type Jobs = JoinSet<Ended>;

/// What a timer of a workflow is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Alarm {
    /// The core wants to be woken.
    Core,
    /// The workflow's status may be written again.
    Status,
    /// A gang's changes are to be written.
    Gang(AttemptKey),
    /// A workflow that could not run has lived long enough.
    Expired,
}

/// What carrying out commands leaves to the shard.
#[derive(Debug, Default)]
pub struct Left {
    /// Facts that are known at once.
    pub events: Vec<Event>,
    /// Timers to set: at this time, for that.
    pub alarms: Vec<(u64, Alarm)>,
    /// Milestones to announce.
    pub milestones: Vec<flowforge_dag_controller_core::Milestone>,
}

/// Carries out the commands of one workflow.
pub struct Runner<'a> {
    /// Sends.
    pub writer: &'a Writer,
    /// Jobs under way.
    pub jobs: &'a mut Jobs,
    /// Metrics.
    pub metrics: &'a Metrics,
    /// Now.
    pub now_ms: u64,
    /// When the event arrived that led to these commands.
    pub arrived: Instant,
}

impl Runner<'_> {
    /// Carries out `commands`.
    pub fn run(&mut self, flow: &mut Flow, commands: Vec<Command>) -> Left {
        let mut left = Left::default();
        for command in commands {
            match command {
                Command::CreateGang(key, plan) => self.create_gang(flow, key, plan.as_deref()),
                Command::CreateService(key) => self.create_service(flow, key),
                Command::CreatePod(key) => left.events.extend(self.create_pod(flow, key)),
                Command::DeletePod(key) => self.delete_pod(flow, key),
                Command::RemoveFinalizer(key) => self.strip(flow, key),
                Command::RecordResult(key, end) => left.events.extend(self.record(flow, key, &end)),
                Command::FinishGang(key, end) => self.finish(flow, key, *end),
                Command::DropCreates(key) => Self::drop_creates(flow, key),
                Command::UpdateGang(key) => left.alarms.extend(self.update(flow, key)),
                Command::WriteStatus { urgent } => left.alarms.extend(self.status(flow, urgent)),
                Command::Judge(node) => self.judge(flow, node),
                Command::Announce(milestone) => left.milestones.push(milestone),
                Command::WakeAt { at_ms } => {
                    flow.wake_at_ms = Some(at_ms);
                    left.alarms.push((at_ms, Alarm::Core));
                }
                Command::DeleteWorkflow => self.delete_workflow(flow),
            }
        }
        left
    }

    fn spawn<F>(&mut self, flow: &Flow, job: impl FnOnce(Writer) -> F)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (key, uid, job) = (flow.key.clone(), flow.uid.clone(), job(self.writer.clone()));
        self.metrics.queue_in.with(Queue::Jobs).inc();
        self.jobs.spawn(async move { Ended { flow: key, uid, outcome: job.await } });
    }

    /// Asks whether a node runs, on a thread that may take its time.
    fn judge(&mut self, flow: &Flow, node: NodeIx) {
        let Some(question) = Question::about(flow, node) else { return };
        self.spawn(flow, |_| async move {
            match tokio::task::spawn_blocking(move || question.answer()).await {
                Ok(answer) => Outcome::Judged(node, Box::new(answer)),
                // It would panic again: a node that waits for an answer that never comes would hold the workflow for ever.
                Err(error) if error.is_panic() => Outcome::Judged(node, Box::new(Answer::broken())),
                // The process ends.
                Err(_) => Outcome::Withheld,
            }
        });
    }

    /// Deletes a workflow that has lived long enough.
    pub fn delete_workflow(&mut self, flow: &Flow) {
        let workflow = workflow_ref(flow);
        self.spawn(flow, |writer| async move { exec::delete_workflow(&writer, workflow).await });
    }

    fn create_gang(&mut self, flow: &mut Flow, key: AttemptKey, plan: Option<&Plan>) {
        let Some(node) = flow.node(key.node) else { return };
        let (name, namespace, uid) = (flow.gang_name(key), flow.key.namespace.to_string(), flow.uid.clone());
        let mut gang = objects::gang(&uid, &namespace, &flow.key.name, &flow.spec, node, &name, key.attempt);
        if let Some(plan) = plan {
            let before = AttemptKey { attempt: key.attempt - 1, ..key };
            objects::follow(&mut gang, plan, flow.attempts.get(&before).and_then(|a| a.uid.clone()));
        }
        let attempt = flow.attempts.entry(key).or_default();
        attempt.asked_at = Some(self.arrived);
        let ending = Arc::clone(&attempt.ending);
        self.spawn(flow, |writer| async move {
            let child = Child { namespace: &namespace, name: &name, owner_uid: &uid, ending: &ending };
            exec::create_gang(&writer, key, &child, &gang).await
        });
    }

    fn create_service(&mut self, flow: &Flow, key: AttemptKey) {
        let (Some(attempt), Some(node)) = (flow.attempt_ref(key), flow.node(key.node)) else { return };
        let service = objects::service(&attempt, &node.id, &attempt.gang);
        let ending = flow.ending(key);
        self.spawn(flow, |writer| async move {
            let (name, owner_uid) = (attempt.gang.as_str(), attempt.gang_uid.as_str());
            let child = Child { namespace: &attempt.namespace, name, owner_uid, ending: &ending };
            exec::create_service(&writer, key, &child, &service).await
        });
    }

    fn create_pod(&mut self, flow: &mut Flow, key: MemberKey) -> Option<Event> {
        let template = match flow.template(key.attempt_key()) {
            Ok(Some(template)) => template,
            Ok(None) => return Some(refused(key, RefusalKind::Dropped, "the Gang is not known")),
            Err(error) => return Some(refused(key, RefusalKind::Invalid, &error.to_string())),
        };
        let attempt = flow.attempt_ref(key.attempt_key())?;
        let ending = flow.ending(key.attempt_key());
        self.spawn(flow, |writer| async move {
            let name = core_names::pod(&attempt.gang, key.rank, key.incarnation);
            let (namespace, owner_uid) = (attempt.namespace.as_str(), attempt.gang_uid.as_str());
            let child = Child { namespace, name: &name, owner_uid, ending: &ending };
            exec::create_pod(&writer, key, &child, || template.member(key.rank, key.incarnation)).await
        });
        None
    }

    fn drop_creates(flow: &Flow, key: AttemptKey) {
        if let Some(attempt) = flow.attempts.get(&key) {
            attempt.ending.store(true, Ordering::Relaxed);
        }
    }

    fn pod_ref(flow: &Flow, key: MemberKey) -> Option<PodRef> {
        let record = flow.attempts.get(&key.attempt_key())?.pods.get(&(key.rank, key.incarnation))?;
        let gang = flow.gang_name(key.attempt_key());
        let name = core_names::pod(&gang, key.rank, key.incarnation).into();
        (!record.gone).then(|| PodRef { namespace: flow.key.namespace.to_string(), name, uid: record.uid.clone() })
    }

    fn delete_pod(&mut self, flow: &mut Flow, key: MemberKey) {
        match Self::pod_ref(flow, key) {
            Some(pod) => {
                let grace_s = flow.terminate.then_some(LEAST_GRACE_S);
                self.spawn(flow, |writer| async move { exec::delete_pod(&writer, key, pod, grace_s).await });
            }
            None => {
                let attempt = flow.attempts.entry(key.attempt_key()).or_default();
                attempt.delete_when_seen.insert((key.rank, key.incarnation));
            }
        }
    }

    /// Deletes a pod that was to be deleted before it was seen.
    pub fn delete_late(&mut self, flow: &mut Flow, key: MemberKey) {
        let attempt = flow.attempts.get_mut(&key.attempt_key());
        if attempt.is_some_and(|a| a.delete_when_seen.remove(&(key.rank, key.incarnation))) {
            self.delete_pod(flow, key);
        }
    }

    fn strip(&mut self, flow: &Flow, key: MemberKey) {
        if let Some(pod) = Self::pod_ref(flow, key) {
            self.spawn(flow, |writer| async move { exec::strip_finalizer(&writer, key, pod).await });
        }
    }

    /// Enters a result; durable with the next write of its Gang's status.
    fn record(&mut self, flow: &mut Flow, key: MemberKey, end: &MemberEnd) -> Option<Event> {
        let attempt = flow.attempts.entry(key.attempt_key()).or_default();
        if attempt.lane.ended {
            // The gang's end is durable: there is nothing that this result could change.
            return Some(Event::Recorded(vec![key]));
        }
        let uid = attempt.pods.get(&(key.rank, key.incarnation)).map(|p| p.uid.clone()).unwrap_or_default();
        attempt.ledger.enter(key.rank, key.incarnation, &uid, end);
        attempt.lane.recording.push(key);
        self.write_gang(flow, key.attempt_key());
        None
    }

    fn finish(&mut self, flow: &mut Flow, key: AttemptKey, end: GangEnd) {
        let attempt = flow.attempts.entry(key).or_default();
        attempt.ledger.conclude(&end.outputs);
        attempt.lane.finish = Some(end);
        self.write_gang(flow, key);
    }

    fn update(&mut self, flow: &mut Flow, key: AttemptKey) -> Option<(u64, Alarm)> {
        let lane = &mut flow.attempts.entry(key).or_default().lane;
        lane.dirty = true;
        let schedule = !std::mem::replace(&mut lane.scheduled, true);
        schedule.then_some((self.now_ms + GANG_DELAY_MS, Alarm::Gang(key)))
    }

    /// Writes whatever the lane of a Gang holds, unless a write is under way.
    pub fn write_gang(&mut self, flow: &mut Flow, key: AttemptKey) {
        let name = flow.gang_name(key);
        let Body::State(state) = &flow.body else { return };
        let Some(attempt) = flow.attempts.get_mut(&key) else { return };
        let lane = &mut attempt.lane;
        let idle = lane.recording.is_empty() && lane.finish.is_none() && !lane.dirty;
        let (Some(uid), false) = (&attempt.uid, idle || lane.in_flight.is_some() || lane.ended) else { return };
        let load = GangLoad { recording: std::mem::take(&mut lane.recording), finish: lane.finish.take() };
        lane.dirty = false;
        let view = GangView::from(state.node(key.node));
        let write = GangWrite {
            namespace: flow.key.namespace.to_string(),
            name,
            uid: uid.clone(),
            resource_version: attempt.resource_version.clone(),
            status: attempt.ledger.status(&view, load.finish.as_ref(), 1),
        };
        lane.in_flight = Some(load);
        self.spawn(flow, |writer| async move { exec::write_gang(&writer, key, write).await });
    }

    /// A Gang's status write has ended. `Ok` holds the new resourceVersion; `Err` says that it was not made.
    pub fn gang_written(
        &mut self,
        flow: &mut Flow,
        key: AttemptKey,
        written: Result<String, ()>,
    ) -> (Vec<Event>, Option<(u64, Alarm)>) {
        let Some(attempt) = flow.attempts.get_mut(&key) else { return (Vec::new(), None) };
        let lane = &mut attempt.lane;
        let load = lane.in_flight.take().unwrap_or_default();
        let mut events = Vec::new();
        match written {
            Ok(version) => {
                if version.parse::<u64>().unwrap_or(0) > attempt.resource_version.parse().unwrap_or(0) {
                    attempt.resource_version = version;
                }
                if !load.recording.is_empty() {
                    events.push(Event::Recorded(load.recording));
                }
                if let Some(end) = load.finish {
                    lane.ended = true;
                    events.push(Event::Gang(key, GangFacts { ended: Some(end), ..GangFacts::default() }));
                }
                self.write_gang(flow, key);
                (events, None)
            }
            Err(()) => {
                lane.recording.extend(load.recording);
                lane.finish = lane.finish.take().or(load.finish);
                lane.dirty = true;
                lane.scheduled = true;
                (events, Some((self.now_ms + REFUSED_DELAY_MS, Alarm::Gang(key))))
            }
        }
    }

    fn status(&mut self, flow: &mut Flow, urgent: bool) -> Option<(u64, Alarm)> {
        flow.lane.dirty = true;
        let due = flow.lane.last_at_ms + STATUS_INTERVAL_MS;
        if urgent || due <= self.now_ms {
            self.write_status(flow);
            return None;
        }
        Some((due, Alarm::Status))
    }

    /// Writes the workflow's status as it is now, when it differs from what was written last.
    pub fn write_status(&mut self, flow: &mut Flow) {
        if !flow.lane.dirty || flow.lane.in_flight {
            return;
        }
        flow.lane.dirty = false;
        let cx = status::Context {
            generation: flow.generation,
            conditions: &flow.conditions,
            now_ms: self.now_ms,
            room: status::room(flow.spec_bytes + flow.metadata_bytes),
        };
        let composed = match &flow.body {
            Body::State(state) => status::compose(state, &cx),
            Body::Refused(refused) => status::refused(refused, &flow.spec, &cx),
        };
        let patch = status::merge_patch(&composed);
        if flow.lane.sent.as_ref() == Some(&patch) {
            return;
        }
        flow.conditions = composed.conditions;
        flow.lane = StatusLane { in_flight: true, sent: Some(patch.clone()), ..std::mem::take(&mut flow.lane) };
        let workflow = workflow_ref(flow);
        self.spawn(flow, |writer| async move { exec::write_status(&writer, workflow, patch).await });
    }

    /// A status write of the workflow has ended.
    pub fn status_written(&mut self, flow: &mut Flow, written: Option<String>) -> Option<(u64, Alarm)> {
        flow.lane.in_flight = false;
        flow.lane.last_at_ms = self.now_ms;
        let delay = match written {
            Some(version) => {
                if version.parse::<u64>().unwrap_or(0) > flow.resource_version.parse().unwrap_or(0) {
                    flow.resource_version = version;
                }
                STATUS_INTERVAL_MS
            }
            None => {
                flow.lane.sent = None;
                flow.lane.dirty = true;
                REFUSED_DELAY_MS
            }
        };
        let over = flow.state().is_some_and(|s| s.phase().is_over());
        if flow.lane.dirty && over && delay == STATUS_INTERVAL_MS {
            self.write_status(flow);
            return None;
        }
        flow.lane.dirty.then_some((self.now_ms + delay, Alarm::Status))
    }

    /// Looks for what a list did not hold: it may be gone, or newer than the list.
    pub fn look_for(&mut self, flow: &Flow, kind: Kind, seen: &BTreeSet<String>) {
        let absent = |uid: &String| !seen.contains(uid);
        if kind == Kind::Workflow && absent(&flow.uid) {
            let workflow = workflow_ref(flow);
            self.spawn(flow, |writer| async move { exec::look_for_workflow(&writer, workflow).await });
        }
        for (&key, attempt) in &flow.attempts {
            let (namespace, name) = (flow.key.namespace.to_string(), flow.gang_name(key));
            match kind {
                Kind::Workflow => return,
                Kind::Gang => {
                    if let Some(uid) = attempt.uid.clone().filter(absent) {
                        self.spawn(flow, |w| async move { exec::look_for_gang(&w, key, namespace, name, uid).await });
                    }
                }
                Kind::Service => {
                    if let Some(uid) = attempt.service_uid.clone().filter(absent) {
                        self.spawn(
                            flow,
                            |w| async move { exec::look_for_service(&w, key, namespace, name, uid).await },
                        );
                    }
                }
                Kind::Pod => self.look_for_pods(flow, key, attempt, seen),
            }
        }
    }

    fn look_for_pods(&mut self, flow: &Flow, key: AttemptKey, attempt: &Attempt, seen: &BTreeSet<String>) {
        for (&(rank, incarnation), record) in &attempt.pods {
            let member = MemberKey { node: key.node, attempt: key.attempt, rank, incarnation };
            if let Some(pod) = Self::pod_ref(flow, member).filter(|_| !seen.contains(&record.uid)) {
                self.spawn(flow, |writer| async move { exec::look_for_pod(&writer, member, pod).await });
            }
        }
    }
}

fn workflow_ref(flow: &Flow) -> WorkflowRef {
    WorkflowRef {
        namespace: flow.key.namespace.to_string(),
        name: flow.key.name.to_string(),
        uid: flow.uid.clone(),
        resource_version: flow.resource_version.clone(),
    }
}

fn refused(key: MemberKey, kind: RefusalKind, message: &str) -> Event {
    Event::Refused(Object::Pod(key), Refusal { kind, message: message.into() })
}

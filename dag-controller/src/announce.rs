//! Events for people, on Workflows and Gangs, sent from a bounded queue. Each says something once: what repeats (a wait) is
//! spaced by the core's growing pauses.
//!
//! A full queue drops the newest: an Event is a courtesy, and the statuses say the same.

use flowforge_api::{Gang, Workflow};
use flowforge_dag_controller_core::{AttemptKey, Milestone, NodeIx, NodePhase, WorkflowPhase};
use flowforge_runtime::Leadership;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, Resource};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

use crate::flow::{Body, Flow};
use crate::metrics::{Metrics, Outcome, Queue, Write};
use flowforge_api::names::field_manager;

const QUEUE: usize = 1024;
const LONGEST_NOTE: usize = 1024;

struct Notice {
    object: ObjectReference,
    kind: EventType,
    reason: String,
    note: String,
}

/// `type` of an Event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum EventType {
    Normal,
    Warning,
}

/// Where milestones are announced; clones share the queue.
#[derive(Clone)]
pub struct Announcer {
    queue: mpsc::Sender<Notice>,
    metrics: Arc<Metrics>,
}

impl Announcer {
    /// An announcer and the task that sends for it, which ends with the term.
    pub fn new(
        client: Client,
        leadership: Leadership,
        timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, inbox) = mpsc::channel(QUEUE);
        let task = send(inbox, client, leadership, timeout, Arc::clone(&metrics));
        (Self { queue, metrics }, task)
    }

    /// Announces a milestone of a workflow.
    pub fn announce(&self, flow: &Flow, milestone: Milestone) {
        match milestone {
            Milestone::WorkflowStarted => {
                let nodes = flow.state().map_or(0, |s| s.progress().1);
                self.on_workflow(flow, "Started", EventType::Normal, format!("{nodes} nodes"));
            }
            Milestone::WorkflowEnded => self.workflow_ended(flow),
            Milestone::Released(node) => self.on_node(flow, node, "Released", EventType::Normal),
            Milestone::Scheduled(node) => self.on_node(flow, node, "Scheduled", EventType::Normal),
            Milestone::Running(node) => self.on_node(flow, node, "Running", EventType::Normal),
            Milestone::Waiting(node) => self.on_node(flow, node, "Waiting", EventType::Warning),
            Milestone::Replaced(node) => self.on_node(flow, node, "MemberReplaced", EventType::Warning),
            Milestone::TriedAgain(node) => self.on_node(flow, node, "TriedAgain", EventType::Warning),
            Milestone::NodeEnded(node) => self.node_ended(flow, node),
        }
    }

    /// Announces that a workflow can not run.
    pub fn refused(&self, flow: &Flow) {
        if let Body::Refused(refused) = &flow.body {
            let cause = &refused.cause;
            self.on_workflow(flow, cause.reason.as_str(), EventType::Warning, cause.message());
        }
    }

    fn workflow_ended(&self, flow: &Flow) {
        let Some(state) = flow.state() else { return };
        let (ended, all) = state.progress();
        let note = match state.cause().map(|c| (c.reason, c.message())) {
            None => format!("{ended} of {all} nodes"),
            Some((reason, message)) if message.is_empty() => reason.to_string(),
            Some((reason, message)) => format!("{reason}: {message}"),
        };
        match state.phase() {
            WorkflowPhase::Succeeded => self.on_workflow(flow, "Succeeded", EventType::Normal, note),
            WorkflowPhase::Canceled => self.on_workflow(flow, "Canceled", EventType::Normal, note),
            _ => self.on_workflow(flow, "Failed", EventType::Warning, note),
        }
    }

    fn node_ended(&self, flow: &Flow, node: NodeIx) {
        let phase = flow.state().map(|s| s.node(node).phase);
        match phase {
            Some(NodePhase::Succeeded) => self.on_node(flow, node, "NodeSucceeded", EventType::Normal),
            Some(NodePhase::Skipped) => self.on_node(flow, node, "NodeSkipped", EventType::Normal),
            _ => self.on_node(flow, node, "NodeFailed", EventType::Warning),
        }
    }

    /// On the Workflow what a person who follows it wants to read, on the Gang how it fares; failures on both.
    fn on_node(&self, flow: &Flow, node: NodeIx, reason: &str, kind: EventType) {
        let Some(state) = flow.state() else { return };
        let view = state.node(node);
        let id = &state.dag().node(node).id;
        let cause = view.cause.map(|c| format!(": {} {}", c.reason, c.message())).unwrap_or_default();
        let note = format!("node {id}, attempt {}{cause}", view.attempt);
        let key = AttemptKey { node, attempt: view.attempt };
        let uid = flow.attempts.get(&key).and_then(|a| a.uid.clone());
        if uid.is_none() || kind == EventType::Warning {
            self.on_workflow(flow, reason, kind, note.clone());
        }
        if let Some(uid) = uid {
            let gang = reference::<Gang>(&flow.key.namespace, &flow.gang_name(key), &uid);
            self.put(gang, reason, kind, note);
        }
    }

    fn on_workflow(&self, flow: &Flow, reason: &str, kind: EventType, note: String) {
        let workflow = reference::<Workflow>(&flow.key.namespace, &flow.key.name, &flow.uid);
        self.put(workflow, reason, kind, note);
    }

    fn put(&self, object: ObjectReference, reason: &str, kind: EventType, note: String) {
        let notice = Notice { object, kind, reason: reason.to_owned(), note: shortened(note) };
        let counter = match self.queue.try_send(notice) {
            Ok(()) => &self.metrics.queue_in,
            Err(_) => &self.metrics.queue_dropped,
        };
        counter.with(Queue::Events).inc();
    }
}

async fn send(
    mut inbox: mpsc::Receiver<Notice>,
    client: Client,
    leadership: Leadership,
    timeout: Duration,
    metrics: Arc<Metrics>,
) {
    let mut number = 0u32;
    loop {
        let notice = tokio::select! {
            () = leadership.lost() => return,
            notice = inbox.recv() => notice,
        };
        let Some(notice) = notice else { return };
        metrics.queue_out.with(Queue::Events).inc();
        if !leadership.permits(timeout) {
            metrics.wrote(Write::Event, Outcome::Withheld);
            continue;
        }
        number = number.wrapping_add(1);
        let event = event(notice, number);
        let api: Api<Event> = Api::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or_default());
        let outcome = match tokio::time::timeout(timeout, api.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => Outcome::Done,
            Ok(Err(kube::Error::Api(status))) => {
                tracing::debug!(message = %status.message, "event refused");
                Outcome::Refused
            }
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        };
        metrics.wrote(Write::Event, outcome);
    }
}

fn event(notice: Notice, number: u32) -> Event {
    let now = jiff::Timestamp::now();
    let name = notice.object.name.clone().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}.{number:x}", now.as_nanosecond())),
            namespace: notice.object.namespace.clone(),
            ..ObjectMeta::default()
        },
        action: Some("Reconcile".to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(notice.note).filter(|n| !n.is_empty()),
        reason: Some(notice.reason),
        regarding: Some(notice.object),
        reporting_controller: Some(field_manager::CONTROLLER.to_owned()),
        reporting_instance: Some(field_manager::CONTROLLER.to_owned()),
        type_: Some(match notice.kind {
            EventType::Normal => "Normal".to_owned(),
            EventType::Warning => "Warning".to_owned(),
        }),
        ..Event::default()
    }
}

fn reference<K: Resource<DynamicType = ()>>(namespace: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

fn shortened(mut note: String) -> String {
    const MARK: &str = " ...";
    if note.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE - MARK.len()).rev().find(|&i| note.is_char_boundary(i)).unwrap_or(0);
        note.truncate(end);
        note.push_str(MARK);
    }
    note
}

//! One workflow as the shell holds it: the core's state beside the identities that the core does not know.
//!
//! ```text
//!   object of a watch or of an answer ──owner UID, resourceVersion──> Event ──> core ──> commands (`run`)
//!                                     └─ not ours, or older than what is known: dropped
//! ```
//! What must hold: an object speaks for an attempt only when its controller is the Gang (or the Workflow) of our UID;
//! facts of one object reach the core in the order of its resourceVersions, whichever way they came. The spec is that of
//! the first sight, and a policy in the API server keeps it so; only `cancel` and `ttlSecondsAfterFinished` are read again.

use flowforge_api::gang::Gang;
use flowforge_api::workflow::{Approval, Workflow, WorkflowNode, WorkflowSpec};
use flowforge_dag_controller_core::engine::State;
use flowforge_dag_controller_core::frontend::json_len;
use flowforge_dag_controller_core::{AttemptKey, Cause, Decision, Event, GangEnd, MemberKey, NodeIx, PodFacts, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::ResourceExt;
use serde_json::Value;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::convert::{Place, controller_uid, gang_facts, place, pod_facts, termination_message};
use crate::data::Data;
use crate::inputs::FlowKey;
use crate::ledger::Ledger;
use crate::pods::{AttemptRef, MemberTemplate, TemplateError, main_container};
use crate::watched::{MetadataOf, WatchedPod};

/// One workflow.
pub struct Flow {
    /// Namespace and name.
    pub key: FlowKey,
    /// UID.
    pub uid: String,
    /// resourceVersion last seen.
    pub resource_version: String,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// The spec of the first sight, with templates and parameters put in.
    pub spec: Arc<WorkflowSpec>,
    /// Length of the spec as it is stored.
    pub spec_bytes: usize,
    /// Length of the metadata as last seen.
    pub metadata_bytes: usize,
    /// `spec.ttlSecondsAfterFinished` as it is now, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Approval nodes of which the core knows the decision.
    pub decided: BTreeSet<NodeIx>,
    /// `spec.terminate`: pods are deleted with the least grace.
    pub terminate: bool,
    /// `spec.parallelism` and whether `spec.suspend` is there, as they are now.
    pub wishes: (Option<u32>, bool),
    /// What it is.
    pub body: Body,
    /// Attempts whose Gang was asked for or seen.
    pub attempts: BTreeMap<AttemptKey, Attempt>,
    /// Writing of its status.
    pub lane: StatusLane,
    /// Conditions as last written or seen.
    pub conditions: Vec<Condition>,
    /// When the core wants to be woken.
    pub wake_at_ms: Option<u64>,
    /// What its nodes may read.
    pub data: Data,
}

/// What a workflow is to the shell.
pub enum Body {
    /// It runs or ran.
    State(Box<State>),
    /// It can not run.
    Refused(Box<Refused>),
}

/// A workflow that can not run: it has ended when it began.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub cause: Cause,
    /// Since when.
    pub at_ms: u64,
}

/// Writing of a workflow's status.
#[derive(Debug, Default)]
pub struct StatusLane {
    /// There is something to write.
    pub dirty: bool,
    /// A write is under way.
    pub in_flight: bool,
    /// When the last one ended.
    pub last_at_ms: u64,
    /// What was written last.
    pub sent: Option<Value>,
}

/// One attempt of a node.
#[derive(Debug, Default)]
pub struct Attempt {
    /// UID of its Gang, once known.
    pub uid: Option<String>,
    /// resourceVersion of its Gang.
    pub resource_version: String,
    /// Results.
    pub ledger: Ledger,
    /// Writing of the Gang's status.
    pub lane: GangLane,
    /// Its pods' template.
    pub template: Option<Arc<MemberTemplate>>,
    /// UID of its Service.
    pub service_uid: Option<String>,
    /// Pods by rank and incarnation.
    pub pods: BTreeMap<(u32, u32), PodRecord>,
    /// It ends: creates that were not sent yet are dropped.
    pub ending: Arc<AtomicBool>,
    /// Pods to be deleted as soon as their UID is known.
    pub delete_when_seen: BTreeSet<(u32, u32)>,
    /// Machines that its pods avoid.
    pub avoid: Vec<String>,
    /// When the event that released it arrived.
    pub asked_at: Option<std::time::Instant>,
}

/// Writing of a Gang's status.
#[derive(Debug, Default)]
pub struct GangLane {
    /// Phase or counts changed.
    pub dirty: bool,
    /// Results to be made durable.
    pub recording: Vec<MemberKey>,
    /// The end to be written.
    pub finish: Option<GangEnd>,
    /// What is being written.
    pub in_flight: Option<GangLoad>,
    /// Its end is durable: nothing is written any more.
    pub ended: bool,
    /// A write of mere changes is scheduled.
    pub scheduled: bool,
}

/// What one status write makes durable.
#[derive(Debug, Default)]
pub struct GangLoad {
    /// Results.
    pub recording: Vec<MemberKey>,
    /// End.
    pub finish: Option<GangEnd>,
}

/// A pod that was seen.
#[derive(Clone, Debug)]
pub struct PodRecord {
    /// UID.
    pub uid: String,
    /// resourceVersion.
    pub version: u64,
    /// What the core was told last.
    pub facts: PodFacts,
    /// It does not exist any more.
    pub gone: bool,
}

/// What an object turned out to be.
#[derive(Debug)]
pub enum Sight {
    /// News for the core.
    News(Box<Event>),
    /// Ours, but nothing new.
    Old,
    /// Not ours.
    Stranger,
}

impl Sight {
    fn news(event: Event) -> Self {
        Self::News(Box::new(event))
    }
}

impl Flow {
    /// A flow as first seen; `body` is filled by the caller.
    #[must_use]
    pub fn new(key: FlowKey, workflow: &Workflow, spec: Arc<WorkflowSpec>, body: Body) -> Self {
        let conditions = workflow.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        let mut flow = Self {
            key,
            uid: workflow.uid().unwrap_or_default(),
            resource_version: String::new(),
            generation: None,
            spec_bytes: json_len(&workflow.spec),
            metadata_bytes: 0,
            spec,
            ttl_ms: ttl_ms(&workflow.spec),
            decided: BTreeSet::new(),
            terminate: workflow.spec.terminate,
            wishes: (parallelism(&workflow.spec), workflow.spec.suspend.is_some()),
            body,
            attempts: BTreeMap::new(),
            lane: StatusLane::default(),
            conditions,
            wake_at_ms: None,
            data: Data::default(),
        };
        flow.note(&workflow.metadata);
        flow
    }

    /// The core's state, when it can run.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        match &self.body {
            Body::State(state) => Some(state),
            Body::Refused(_) => None,
        }
    }

    /// The node of the spec.
    #[must_use]
    pub fn node(&self, at: NodeIx) -> Option<&WorkflowNode> {
        self.spec.nodes.get(at.at())
    }

    /// Takes note of the Workflow's metadata.
    pub fn note(&mut self, meta: &ObjectMeta) {
        if version(meta) >= self.resource_version.parse().unwrap_or(0) {
            self.resource_version = meta.resource_version.clone().unwrap_or_default();
            self.generation = meta.generation;
            self.metadata_bytes = json_len(meta);
        }
    }

    /// Takes note of the Workflow's wishes; what they mean to the core.
    pub fn on_wishes(&mut self, workflow: &Workflow) -> Vec<Event> {
        let mut events = Vec::new();
        let ttl_ms = ttl_ms(&workflow.spec);
        if self.ttl_ms != ttl_ms {
            self.ttl_ms = ttl_ms;
            events.push(Event::Ttl(ttl_ms));
        }
        let wishes = (parallelism(&workflow.spec), workflow.spec.suspend.is_some());
        if self.wishes != wishes {
            self.wishes = wishes;
            events.extend([Event::Parallelism(wishes.0), Event::Suspend(wishes.1)]);
        }
        for (node, decision) in self.decisions(&workflow.spec) {
            if self.decided.insert(node) {
                events.push(Event::Decided(node, decision));
            }
        }
        self.terminate |= workflow.spec.terminate;
        if workflow.spec.terminate {
            events.push(Event::Terminate);
        }
        if workflow.spec.cancel {
            events.push(Event::Cancel);
        }
        if workflow.metadata.deletion_timestamp.is_some() {
            events.push(Event::Delete);
        }
        events
    }

    /// What persons have said about approval nodes.
    #[must_use]
    pub fn decisions(&self, spec: &WorkflowSpec) -> Vec<(NodeIx, Decision)> {
        let Some(dag) = self.state().map(State::dag) else { return Vec::new() };
        let decision = |approval: &Approval| {
            let at = approval.at.as_ref().map(|at| format!(" at {}", at.0)).unwrap_or_default();
            let by = SmolStr::from(format!("by {}{at}", approval.by));
            Some((dag.find(&approval.node)?, Decision { approved: approval.approved, by }))
        };
        spec.approvals.iter().filter_map(decision).collect()
    }

    /// When a workflow that can not run shall be deleted.
    #[must_use]
    pub fn refused_until_ms(&self) -> Option<u64> {
        match &self.body {
            Body::Refused(refused) => Some(refused.at_ms.saturating_add(self.ttl_ms?)),
            Body::State(_) => None,
        }
    }

    /// The attempt that an object claims to belong to.
    #[must_use]
    pub fn attempt_key(&self, place: &Place) -> Option<AttemptKey> {
        let node = self.state()?.dag().find(&place.node)?;
        (place.attempt > 0).then_some(AttemptKey { node, attempt: place.attempt })
    }

    fn member_key(&self, place: &Place) -> Option<MemberKey> {
        let AttemptKey { node, attempt } = self.attempt_key(place)?;
        Some(MemberKey { node, attempt, rank: place.rank?, incarnation: place.incarnation })
    }

    /// Takes in a Gang as it is.
    pub fn on_gang(&mut self, gang: &Gang) -> Sight {
        let Some(key) = place(&gang.metadata).and_then(|p| self.attempt_key(&p)) else { return Sight::Stranger };
        if controller_uid(&gang.metadata) != Some(self.uid.as_str()) || self.gang_name(key) != gang.name_any() {
            return Sight::Stranger;
        }
        let uid = gang.uid().unwrap_or_default();
        let attempt = self.attempts.entry(key).or_default();
        if attempt.uid.as_deref() != Some(uid.as_str()) {
            if attempt.uid.is_none() {
                attempt.ledger = Ledger::read(gang);
            }
            attempt.uid.get_or_insert(uid.clone());
        }
        if attempt.uid.as_deref() != Some(uid.as_str()) {
            // Another object under the name of an attempt that was claimed before: it does not run twice.
            return Sight::Stranger;
        }
        if version(&gang.metadata) <= attempt.resource_version.parse().unwrap_or(0) {
            return Sight::Old;
        }
        attempt.resource_version = gang.metadata.resource_version.clone().unwrap_or_default();
        let facts = gang_facts(gang);
        attempt.avoid = facts.plan.iter().flat_map(|plan| &plan.avoid).map(ToString::to_string).collect();
        attempt.lane.ended |= facts.ended.is_some();
        Sight::news(Event::Gang(key, facts))
    }

    /// Takes in that a Gang went away.
    pub fn on_gang_gone(&mut self, place: &Place, uid: &str) -> Sight {
        match self.attempt_key(place) {
            Some(key) if self.attempts.get(&key).is_some_and(|a| a.uid.as_deref() == Some(uid)) => {
                Sight::news(Event::GangGone(key))
            }
            _ => Sight::Stranger,
        }
    }

    /// Takes in a pod as it is; `node_lost` says whether its node is known to be gone.
    pub fn on_pod(&mut self, pod: &WatchedPod, node_lost: impl Fn(&str) -> bool) -> Sight {
        let Some(key) = place(&pod.metadata).and_then(|p| self.member_key(&p)) else { return Sight::Stranger };
        let Some(main) = self.node(key.node).map(main_container) else { return Sight::Stranger };
        let main = main.to_owned();
        let outputs = self.state().and_then(|state| state.dag().node(key.node).outputs.clone());
        let Some(attempt) = self.attempts.get_mut(&key.attempt_key()) else { return Sight::Stranger };
        if attempt.uid.is_none() || controller_uid(&pod.metadata) != attempt.uid.as_deref() {
            return Sight::Stranger;
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let version = version(&pod.metadata);
        let slot = (key.rank, key.incarnation);
        let known = attempt.pods.get(&slot);
        if known.is_some_and(|k| version <= k.version || (k.gone && k.uid == uid)) {
            return Sight::Old;
        }
        let was_lost = |node: &str| known.is_some_and(|k| k.facts.node_gone && k.facts.node.as_deref() == Some(node));
        let node = pod.spec.node_name.as_deref();
        let lost = node.is_some_and(|n| was_lost(n) || node_lost(n));
        let mut facts = pod_facts(pod, &main, lost);
        if outputs.is_some_and(|outputs| outputs.asks(key.rank)) {
            facts.message = termination_message(pod, &main).into();
        }
        attempt.pods.insert(slot, PodRecord { uid, version, facts: facts.clone(), gone: false });
        Sight::news(Event::Pod(key, facts))
    }

    /// Takes in that a pod went away.
    pub fn on_pod_gone(&mut self, place: &Place, uid: &str) -> Sight {
        match self.member_key(place) {
            Some(key) => self.on_member_gone(key, uid),
            None => Sight::Stranger,
        }
    }

    /// Takes in that a member's pod went away.
    pub fn on_member_gone(&mut self, key: MemberKey, uid: &str) -> Sight {
        let attempt = self.attempts.get_mut(&key.attempt_key());
        match attempt.and_then(|a| a.pods.get_mut(&(key.rank, key.incarnation))) {
            Some(record) if record.uid == uid && !record.gone => {
                record.gone = true;
                Sight::news(Event::PodGone(key))
            }
            Some(record) if record.uid == uid => Sight::Old,
            _ => Sight::Stranger,
        }
    }

    /// Takes in a Service.
    pub fn on_service(&mut self, service: &MetadataOf) -> Sight {
        let key = place(&service.metadata).and_then(|p| self.attempt_key(&p));
        let Some(attempt) = key.and_then(|k| self.attempts.get_mut(&k)) else { return Sight::Stranger };
        if attempt.uid.is_none() || controller_uid(&service.metadata) != attempt.uid.as_deref() {
            return Sight::Stranger;
        }
        let uid = service.metadata.uid.clone();
        match (key, std::mem::replace(&mut attempt.service_uid, uid.clone()) == uid) {
            (Some(key), false) => Sight::news(Event::Service(key, true)),
            _ => Sight::Old,
        }
    }

    /// Takes in that a Service went away.
    pub fn on_service_gone(&mut self, place: &Place, uid: &str) -> Sight {
        match self.attempt_key(place) {
            Some(key) => self.on_attempt_service_gone(key, uid),
            None => Sight::Stranger,
        }
    }

    /// Takes in that the Service of an attempt went away.
    pub fn on_attempt_service_gone(&mut self, key: AttemptKey, uid: &str) -> Sight {
        match self.attempts.get_mut(&key) {
            Some(attempt) if attempt.service_uid.as_deref() == Some(uid) => {
                attempt.service_uid = None;
                Sight::news(Event::Service(key, false))
            }
            _ => Sight::Stranger,
        }
    }

    /// Pods on a node that went away or came back, as news. O(pods of open attempts).
    pub fn on_node(&mut self, node: &str, gone: bool) -> Vec<Event> {
        let mut events = Vec::new();
        for (key, attempt) in &mut self.attempts {
            for (&(rank, incarnation), record) in &mut attempt.pods {
                if !record.gone && record.facts.node.as_deref() == Some(node) && record.facts.node_gone != gone {
                    record.facts.node_gone = gone;
                    let member = MemberKey { node: key.node, attempt: key.attempt, rank, incarnation };
                    events.push(Event::Pod(member, record.facts.clone()));
                }
            }
        }
        events
    }

    /// What a status write that met an ended or vanished Gang leaves: there is nothing it could still change.
    pub fn superseded(&mut self, key: AttemptKey) -> Vec<Event> {
        let Some(attempt) = self.attempts.get_mut(&key) else { return Vec::new() };
        attempt.lane.ended = true;
        let load = attempt.lane.in_flight.take().unwrap_or_default();
        let mut keys = load.recording;
        keys.append(&mut attempt.lane.recording);
        if keys.is_empty() { Vec::new() } else { vec![Event::Recorded(keys)] }
    }

    /// Name of an attempt's Gang and Service.
    #[must_use]
    pub fn gang_name(&self, key: AttemptKey) -> String {
        let node = self.node(key.node).map_or("", |n| n.id.as_str());
        names::gang(&self.key.name, node, key.attempt).into()
    }

    /// The attempt as its pods see it; none before its Gang's UID is known.
    #[must_use]
    pub fn attempt_ref(&self, key: AttemptKey) -> Option<AttemptRef> {
        let gang = self.gang_name(key);
        let members = self.node(key.node)?.members();
        let known = self.attempts.get(&key)?;
        Some(AttemptRef {
            avoid: known.avoid.clone(),
            namespace: self.key.namespace.to_string(),
            workflow: self.key.name.to_string(),
            gang_uid: known.uid.clone()?,
            service: (members > 1).then(|| gang.clone()),
            gang,
            attempt: key.attempt,
        })
    }

    /// The flag that an attempt ends, for its creates.
    #[must_use]
    pub fn ending(&self, key: AttemptKey) -> Arc<AtomicBool> {
        self.attempts.get(&key).map(|a| Arc::clone(&a.ending)).unwrap_or_default()
    }

    /// The template of an attempt's pods, made at its first use.
    ///
    /// # Errors
    /// When the node has no valid template.
    pub fn template(&mut self, key: AttemptKey) -> Result<Option<Arc<MemberTemplate>>, TemplateError> {
        if let Some(template) = self.attempts.get(&key).and_then(|a| a.template.clone()) {
            return Ok(Some(template));
        }
        let made = self.made(key.node).map_err(TemplateError::Text)?;
        let (Some(attempt), Some(node)) = (self.attempt_ref(key), self.node(key.node)) else { return Ok(None) };
        let template = Arc::new(MemberTemplate::new(&self.spec, made.as_deref().unwrap_or(node), attempt)?);
        if let Some(attempt) = self.attempts.get_mut(&key) {
            attempt.template = Some(Arc::clone(&template));
        }
        Ok(Some(template))
    }

    /// Drops what an ended workflow does not need any more; true when that was the last of its attempts. O(attempts).
    pub fn compact(&mut self) -> bool {
        let before = self.attempts.len();
        if self.state().is_some_and(|s| s.phase().is_over()) {
            self.data.made.clear();
            self.attempts.retain(|_, a| !a.lane.ended || a.pods.values().any(|p| p.facts.finalizer && !p.gone));
        }
        before > 0 && self.attempts.is_empty()
    }
}

/// `spec.ttlSecondsAfterFinished` in milliseconds.
#[must_use]
pub fn ttl_ms(spec: &WorkflowSpec) -> Option<u64> {
    let seconds = u64::try_from(spec.ttl_seconds_after_finished?).ok()?;
    Some(seconds.saturating_mul(1000))
}

/// `spec.timeoutSeconds` in milliseconds.
#[must_use]
pub fn timeout_ms(spec: &WorkflowSpec) -> Option<u64> {
    u64::try_from(spec.timeout_seconds?).ok().map(|seconds| seconds.saturating_mul(1000))
}

/// `spec.parallelism`.
#[must_use]
pub fn parallelism(spec: &WorkflowSpec) -> Option<u32> {
    spec.parallelism.and_then(|most| u32::try_from(most).ok())
}

/// The resourceVersion as a number; 0 where it is none.
#[must_use]
pub fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;

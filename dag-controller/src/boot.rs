//! The start of a term: what the lists find, collected by workflow, and the state that follows from it.
//!
//! Everything is derived from the API server: Workflows, Gangs with their recorded results, pods and Services. What does
//! not belong to the Workflow's UID, or to the UID of one of its Gangs, is no evidence.

use flowforge_api::Workflow;
use flowforge_api::gang::{Gang, GangPhase};
use flowforge_api::workflow::{WorkflowPhase, WorkflowSpec};
use flowforge_dag_controller_core::engine::{Observed, ObservedGang, Recorded, rebuild};
use flowforge_dag_controller_core::frontend::{self, FieldError};
use flowforge_dag_controller_core::{Cause, Command, Event, NodeIx, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::convert::{has_finalizer, ms, place};
use crate::data::Data;
use crate::exec::PodRef;
use crate::flow::{Body, Flow, Refused, Sight};
use crate::inputs::{FlowKey, Input, Kind, seed_of};
use crate::ledger::core_phase;
use crate::shard::{Shared, judge};
use crate::status;
use crate::watched::{MetadataOf, WatchedPod};

/// What was found of one workflow.
#[derive(Debug, Default)]
pub struct Found {
    /// The Workflow; none for leftovers of one that is gone.
    workflow: Option<Box<Workflow>>,
    gangs: BTreeMap<String, Box<Gang>>,
    pods: BTreeMap<String, Box<WatchedPod>>,
    services: BTreeMap<String, Box<MetadataOf>>,
}

/// Collects until every list is in.
#[derive(Debug, Default)]
pub struct Boot {
    found: BTreeMap<FlowKey, Found>,
}

impl Found {
    /// A Workflow that nothing belongs to yet.
    #[must_use]
    pub fn new_workflow(workflow: Workflow) -> Self {
        Self { workflow: Some(Box::new(workflow)), ..Self::default() }
    }
}

impl Boot {
    /// Takes in an input; everything that was found, once the lists are in.
    pub fn take_in(&mut self, input: Input) -> Option<BTreeMap<FlowKey, Found>> {
        match input {
            Input::ListsIn => return Some(std::mem::take(&mut self.found)),
            Input::ListBegins(kind) => self.clear(kind),
            Input::Workflow(workflow) => {
                let key = FlowKey::new(&workflow.namespace().unwrap_or_default(), &workflow.name_any());
                self.found.entry(key).or_default().workflow = Some(workflow);
            }
            Input::WorkflowGone(key, _) => self.found.entry(key).or_default().workflow = None,
            Input::Gang(key, gang) => {
                self.found.entry(key).or_default().gangs.insert(gang.name_any(), gang);
            }
            Input::GangGone(key, gone) => {
                let found = self.found.entry(key).or_default();
                found.gangs.retain(|_, g| g.metadata.uid.as_deref() != Some(gone.uid.as_str()));
            }
            Input::Pod(key, pod) => {
                self.found.entry(key).or_default().pods.insert(pod.name_any(), pod);
            }
            Input::PodGone(key, gone) => {
                let found = self.found.entry(key).or_default();
                found.pods.retain(|_, p| p.metadata.uid.as_deref() != Some(gone.uid.as_str()));
            }
            Input::Service(key, service) => {
                self.found.entry(key).or_default().services.insert(service.name_any(), service);
            }
            Input::ServiceGone(key, gone) => {
                let found = self.found.entry(key).or_default();
                found.services.retain(|_, s| s.metadata.uid.as_deref() != Some(gone.uid.as_str()));
            }
            // Read from the shared tables when the flows are built.
            Input::ListEnds(_) | Input::Node(..) | Input::Claim(..) | Input::Classes => {}
        }
        None
    }

    fn clear(&mut self, kind: Kind) {
        for found in self.found.values_mut() {
            match kind {
                Kind::Workflow => found.workflow = None,
                Kind::Gang => found.gangs.clear(),
                Kind::Pod => found.pods.clear(),
                Kind::Service => found.services.clear(),
            }
        }
    }
}

/// A flow with what is to be done first.
pub struct Built {
    /// The flow; none when its Workflow is gone.
    pub flow: Option<Flow>,
    /// The core's first commands.
    pub commands: Vec<Command>,
    /// Leaving pods that wait for a finalizer which nobody else will remove.
    pub orphans: Vec<PodRef>,
}

/// The flow of what was found.
#[must_use]
pub fn build(key: &FlowKey, mut found: Found, shared: &Shared, now_ms: u64) -> Option<Built> {
    let Some(workflow) = found.workflow.take() else {
        return Some(Built {
            flow: None,
            commands: Vec::new(),
            orphans: orphans(found.pods.values().map(AsRef::as_ref)),
        });
    };
    let spec = Arc::new(workflow.spec.clone());
    if let Some(refused) = recorded_refusal(&workflow, now_ms) {
        let mut flow = Flow::new(key.clone(), &workflow, spec, Body::Refused(Box::new(refused)));
        flow.lane.sent = sent(&workflow);
        return Some(Built {
            flow: Some(flow),
            commands: Vec::new(),
            orphans: orphans(found.pods.values().map(AsRef::as_ref)),
        });
    }
    let document = serde_json::to_value(&*workflow).unwrap_or_default();
    // A level's name was checked when the workflow was made; a configuration that changed since must not end its run.
    let options = frontend::Options { levels: frontend::Levels::Any, ..Default::default() };
    let compiled = match frontend::compile(&document, options) {
        Ok(compiled) => compiled,
        Err(errors) => return Some(unfit(key, &workflow, spec, invalid(&errors), &found, now_ms)),
    };
    // Templates and parameters are put in once more at every start: all of it stands in the spec, which is frozen.
    let (params, unfinished) = (Arc::new(compiled.params), compiled.unfinished);
    let by_first = |(id, at): (String, Range<u32>)| (!at.is_empty()).then_some((NodeIx(at.start), (id, at)));
    let groups = compiled.groups.into_iter().filter_map(by_first).collect();
    let plain = compiled.spec.map(serde_json::from_value).transpose();
    let spec = match plain {
        Ok(plain) => plain.map_or(spec, Arc::new),
        Err(error) => {
            let cause = Cause::of(Reason::InvalidSpec).with_detail(error.to_string());
            return Some(unfit(key, &workflow, spec, cause, &found, now_ms));
        }
    };
    let dag = Arc::new(compiled.dag);
    let seed = seed_of(&workflow.uid().unwrap_or_default());
    let config = shared.config.core(seed, &spec);
    // A state without facts gives the flow its names; the real one follows from what it recognises.
    let blank = rebuild(
        Arc::clone(&dag),
        config.clone(),
        Observed::default(),
        &Recorded { nodes: Vec::new(), ..status::recorded(&workflow, &dag) },
        now_ms,
        &mut Vec::new(),
    );
    let mut flow = Flow::new(key.clone(), &workflow, spec, Body::State(Box::new(blank)));
    flow.data = Data { params, unfinished, groups, ..Data::default() };
    flow.lane.sent = sent(&workflow);
    let (mut observed, orphans) = observe(&mut flow, &found, shared);
    let hold = judge(&flow, &shared.storage);
    let unstarted = observed.gangs.is_empty() && workflow.status.as_ref().is_none_or(|s| s.started_at.is_none());
    if let Some(cause) = hold.as_ref().filter(|c| c.reason == Reason::ClaimNotShared && unstarted) {
        flow.body = Body::Refused(Box::new(Refused { cause: cause.clone(), at_ms: now_ms }));
        flow.lane.sent = None;
        return Some(Built { flow: Some(flow), commands: Vec::new(), orphans });
    }
    observed.hold = hold.map(Box::new);
    observed.cancel = workflow.spec.cancel;
    observed.decisions = flow.decisions(&workflow.spec);
    flow.decided.extend(observed.decisions.iter().map(|(node, _)| *node));
    observed.terminate = workflow.spec.terminate;
    observed.suspend = workflow.spec.suspend.is_some();
    observed.delete = workflow.metadata.deletion_timestamp.is_some();
    let recorded = status::recorded(&workflow, &dag);
    let mut commands = Vec::new();
    let state = rebuild(Arc::clone(&dag), config, observed, &recorded, now_ms, &mut commands);
    flow.body = Body::State(Box::new(state));
    Some(Built { flow: Some(flow), commands, orphans })
}

/// A workflow whose spec cannot run.
fn unfit(
    key: &FlowKey,
    workflow: &Workflow,
    spec: Arc<WorkflowSpec>,
    cause: Cause,
    found: &Found,
    now_ms: u64,
) -> Built {
    let body = Body::Refused(Box::new(Refused { cause, at_ms: now_ms }));
    let flow = Flow::new(key.clone(), workflow, spec, body);
    let orphans = orphans(found.pods.values().map(AsRef::as_ref));
    Built { flow: Some(flow), commands: Vec::new(), orphans }
}

/// What of the findings belongs to the flow, as facts for the core.
fn observe(flow: &mut Flow, found: &Found, shared: &Shared) -> (Observed, Vec<PodRef>) {
    let mut observed = Observed::default();
    let at = |t: &Option<Time>| t.as_ref().map(|t| ms(t.0));
    for gang in found.gangs.values() {
        let Sight::News(event) = flow.on_gang(gang) else { continue };
        let Event::Gang(key, facts) = *event else { continue };
        let status = gang.status.clone().unwrap_or_default();
        let results = flow.attempts.get(&key).map(|a| a.ledger.recorded()).unwrap_or_default();
        observed.gangs.push(ObservedGang {
            key,
            facts,
            service: false,
            phase: core_phase(status.phase.unwrap_or(GangPhase::Pending)),
            scheduled_at_ms: at(&status.scheduled_at),
            started_at_ms: at(&status.started_at),
            results,
        });
    }
    for service in found.services.values() {
        if let Sight::News(event) = flow.on_service(service)
            && let Event::Service(key, true) = *event
        {
            observed.gangs.iter_mut().filter(|g| g.key == key).for_each(|g| g.service = true);
        }
    }
    let nodes = shared.nodes.read();
    let mut strangers = Vec::new();
    for pod in found.pods.values() {
        match flow.on_pod(pod, |node| !nodes.contains(node)) {
            Sight::News(event) => {
                if let Event::Pod(key, facts) = *event {
                    observed.pods.push((key, facts));
                }
            }
            Sight::Stranger => strangers.push(pod),
            Sight::Old => {}
        }
    }
    (observed, orphans(strangers.into_iter().map(AsRef::as_ref)))
}

fn orphans<'a>(pods: impl Iterator<Item = &'a WatchedPod>) -> Vec<PodRef> {
    let leaves = |p: &&WatchedPod| {
        p.metadata.deletion_timestamp.is_some() && has_finalizer(&p.metadata) && place(&p.metadata).is_some()
    };
    pods.filter(leaves).map(PodRef::of).collect()
}

/// A refusal that a former term wrote down is final.
fn recorded_refusal(workflow: &Workflow, now_ms: u64) -> Option<Refused> {
    let status = workflow.status.as_ref().filter(|s| s.phase == Some(WorkflowPhase::Failed))?;
    let reason = Reason::parse(status.reason.as_deref()?);
    let refused = matches!(reason, Reason::InvalidSpec | Reason::ClaimNotShared) && status.started_at.is_none();
    let cause = || Cause::of(reason).with_detail(status.message.as_deref().unwrap_or_default());
    let at_ms = status.finished_at.as_ref().map_or(now_ms, |t| ms(t.0));
    refused.then(|| Refused { cause: cause(), at_ms })
}

/// The status as a write of ours that has been made: what is already so is not written again.
fn sent(workflow: &Workflow) -> Option<Value> {
    workflow.status.as_ref().map(status::merge_patch)
}

fn invalid(errors: &[FieldError]) -> Cause {
    const SHOWN: usize = 5;
    let mut text: Vec<String> = errors.iter().take(SHOWN).map(ToString::to_string).collect();
    if errors.len() > SHOWN {
        text.push(format!("and {} more", errors.len() - SHOWN));
    }
    Cause::of(Reason::InvalidSpec).with_detail(text.join("; "))
}

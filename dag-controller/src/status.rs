//! A Workflow's status: composed from the core's state, and read back at the start.

use flowforge_api::names::condition;
use flowforge_api::workflow::{NodePhase, NodeStatus, Workflow, WorkflowPhase, WorkflowSpec, WorkflowStatus};
use flowforge_dag_controller_core::engine::{Recorded, RecordedNode, State};
use flowforge_dag_controller_core::ranks::pack;
use flowforge_dag_controller_core::{
    Cause, Dag, NodeIx, NodePhase as CoreNode, NodeView, Reason, WorkflowPhase as CorePhase,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;

use crate::convert::{ms, time};
use crate::flow::Refused;
use crate::ledger::{core_phase, counts, gang_phase};

mod packed;

pub use packed::room;

/// Fields that a merge patch must remove when they are absent.
const OPTIONAL: [&str; 6] = ["reason", "message", "startedAt", "finishedAt", "nodes", "packed"];
/// The same inside `packed`.
const PACKED: [&str; 7] = ["scheduling", "running", "succeeded", "failed", "skipped", "bypassed", "unsatisfiable"];
/// Longest message kept.
const LONGEST_MESSAGE: usize = 1024;

/// What stands in a status beside the core's state.
pub struct Context<'a> {
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// Conditions as they are, for their transition times.
    pub conditions: &'a [Condition],
    /// Now.
    pub now_ms: u64,
    /// Bytes that the status may have, as [`room`] says.
    pub room: usize,
}

/// The status of a workflow that runs or ran.
#[must_use]
pub fn compose(state: &State, cx: &Context<'_>) -> WorkflowStatus {
    let phase = phase_of(state.phase());
    let cause = state.cause();
    let (ended, all) = state.progress();
    let (nodes, packed) = packed::nodes(state, cx.room, |view| node_status(state, view));
    let mut status = WorkflowStatus {
        phase: Some(phase),
        reason: cause.map(|c| c.reason.as_str().to_owned()),
        message: cause.and_then(|c| message(&with_wait(c.message(), &waits_to_stop(state)))),
        progress: Some(format!("{ended}/{all}")),
        observed_generation: cx.generation,
        started_at: state.started_at_ms().and_then(time),
        finished_at: state.finished_at_ms().and_then(time),
        nodes,
        packed,
        conditions: Vec::new(),
    };
    let waits = cause.filter(|c| is_storage(c.reason) && !state.phase().is_over()).map(Why::of);
    let end = cause.map_or_else(|| Why { reason: format!("{phase:?}"), message: String::new() }, Why::of);
    status.conditions = conditions(phase, waits.as_ref(), &end, cx);
    status.conditions.extend(degraded(state, cx));
    status
}

/// That a failure was to be no matter; absent while there is none.
fn degraded(state: &State, cx: &Context<'_>) -> Option<Condition> {
    let at = state.tolerated()?;
    let cause = state.node(at).cause.map(Cause::message).unwrap_or_default();
    let text = format!("node {} failed, and its onFailure lets the others go on: {cause}", state.dag().node(at).id);
    let why = Why { reason: Reason::NodeFailed.as_str().to_owned(), message: message(&text).unwrap_or_default() };
    condition(condition::DEGRADED, true, &why, cx)
}

/// The status of a workflow that cannot run.
#[must_use]
pub fn refused(refused: &Refused, spec: &WorkflowSpec, cx: &Context<'_>) -> WorkflowStatus {
    let cause = &refused.cause;
    let (nodes, packed) = packed::skipped(spec, cx.room);
    let mut status = WorkflowStatus {
        phase: Some(WorkflowPhase::Failed),
        reason: Some(cause.reason.as_str().to_owned()),
        message: message(&cause.message()),
        progress: Some(format!("0/{}", spec.nodes.len())),
        observed_generation: cx.generation,
        finished_at: time(refused.at_ms),
        nodes,
        packed,
        ..WorkflowStatus::default()
    };
    let why = Why::of(cause);
    status.conditions = conditions(WorkflowPhase::Failed, Some(&why), &why, cx);
    status
}

/// Reason and message of a condition.
struct Why {
    reason: String,
    message: String,
}

impl Why {
    fn of(cause: &Cause) -> Self {
        Self { reason: cause.reason.as_str().to_owned(), message: message(&cause.message()).unwrap_or_default() }
    }
}

/// The merge patch that makes the status so: absent fields are removed.
#[must_use]
pub fn merge_patch(status: &WorkflowStatus) -> Value {
    let mut patch = serde_json::to_value(status).unwrap_or_default();
    if let Value::Object(fields) = &mut patch {
        for name in OPTIONAL {
            fields.entry(name).or_insert(Value::Null);
        }
        if let Some(Value::Object(sets)) = fields.get_mut("packed") {
            for name in PACKED {
                sets.entry(name).or_insert(Value::Null);
            }
        }
    }
    patch
}

fn node_status(state: &State, view: &NodeView<'_>) -> NodeStatus {
    NodeStatus {
        id: state.dag().node(view.node).id.to_string(),
        phase: node_phase(view.phase),
        attempt: i32::try_from(view.attempt).unwrap_or(i32::MAX),
        reason: view.cause.map(|c| c.reason.as_str().to_owned()),
        message: view.cause.and_then(|c| message(&with_wait(c.message(), &members_to_stop(state, view.node)))),
        gang: view.gang.map(gang_phase),
        members: (view.attempt > 0).then(|| counts(&view.members)),
        released_at: view.released_at_ms.and_then(time),
        scheduled_at: view.scheduled_at_ms.and_then(time),
        started_at: view.started_at_ms.and_then(time),
        finished_at: view.finished_at_ms.and_then(time),
    }
}

/// What the end of a node waits for: a machine that does not answer can make that long.
fn members_to_stop(state: &State, node: NodeIx) -> String {
    let ranks = state.still_stopping(node);
    match ranks.len() {
        0 => String::new(),
        1 => format!("waits for member {} to stop", pack(&ranks)),
        _ => format!("waits for members {} to stop", pack(&ranks)),
    }
}

/// The same for a workflow: the nodes whose members are to stop.
fn waits_to_stop(state: &State) -> String {
    const NAMED: usize = 5;
    let stopping = state.nodes().filter(|view| !state.still_stopping(view.node).is_empty());
    let nodes: Vec<&str> = stopping.map(|view| state.dag().node(view.node).id.as_str()).collect();
    match nodes.len() {
        0 => String::new(),
        1..=NAMED => format!("waits for members of {} to stop", nodes.join(", ")),
        more => format!("waits for members of {} and {} more to stop", nodes[..NAMED].join(", "), more - NAMED),
    }
}

fn with_wait(cause: String, wait: &str) -> String {
    match (cause.is_empty(), wait.is_empty()) {
        (_, true) => cause,
        (true, false) => wait.to_owned(),
        (false, false) => format!("{cause}; {wait}"),
    }
}

/// The conditions, as `kubectl wait --for=condition=…` reads them.
///
/// | phase            | Accepted        | Complete         | Succeeded        | Failed          |
/// |------------------|-----------------|------------------|------------------|-----------------|
/// | Pending, Running | True, or False: | False            | False            | False           |
/// | Succeeded        | the reason it   | True             | True             | False           |
/// | Failed           | waits for or    | True: why        | False: why       | True: why       |
/// | Canceled         | was refused for | True: why        | False: why       | False           |
///
/// A message stands only where the cell says so; elsewhere the reason is the phase. Degraded is there only when it holds.
fn conditions(phase: WorkflowPhase, refusal: Option<&Why>, end: &Why, cx: &Context<'_>) -> Vec<Condition> {
    use WorkflowPhase::{Canceled, Failed, Succeeded};
    let plain = Why { reason: format!("{phase:?}"), message: String::new() };
    let why = |applies: bool| if applies { end } else { &plain };
    let complete =
        Why { reason: plain.reason.clone(), message: why(matches!(phase, Failed | Canceled)).message.clone() };
    let accepted = Why { reason: condition::ACCEPTED.to_owned(), message: String::new() };
    let entries = [
        (condition::ACCEPTED, refusal.is_none(), refusal.unwrap_or(&accepted)),
        (condition::COMPLETE, matches!(phase, Succeeded | Failed | Canceled), &complete),
        (condition::SUCCEEDED, phase == Succeeded, why(matches!(phase, Failed | Canceled))),
        (condition::FAILED, phase == Failed, why(phase == Failed)),
    ];
    entries.into_iter().filter_map(|(kind, holds, why)| condition(kind, holds, why, cx)).collect()
}

fn condition(kind: &str, holds: bool, why: &Why, cx: &Context<'_>) -> Option<Condition> {
    let status = if holds { "True" } else { "False" };
    let kept = cx.conditions.iter().find(|c| c.type_ == kind && c.status == status);
    let last_transition_time = kept.map(|c| c.last_transition_time.clone()).or_else(|| time(cx.now_ms))?;
    Some(Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: why.reason.clone(),
        message: why.message.clone(),
        last_transition_time,
        observed_generation: cx.generation,
    })
}

/// What the core wants back of a Workflow's own status.
#[must_use]
pub fn recorded(workflow: &Workflow, dag: &Dag) -> Recorded {
    let Some(status) = &workflow.status else { return Recorded::default() };
    let at = |t: &Option<Time>| t.as_ref().map(|t| ms(t.0));
    let node = |n: &NodeStatus| {
        let counted = n.members.as_ref();
        let count = |n: Option<i32>| u32::try_from(n.unwrap_or(0)).unwrap_or(0);
        Some(RecordedNode {
            node: dag.find(&n.id)?,
            phase: core_node(n.phase),
            attempt: u32::try_from(n.attempt).unwrap_or(0),
            gang: n.gang.map(core_phase),
            cause: n
                .reason
                .as_deref()
                .map(|reason| Cause::of(Reason::parse(reason)).with_detail(n.message.as_deref().unwrap_or_default())),
            tally: (count(counted.map(|m| m.succeeded)), count(counted.map(|m| m.failed))),
            released_at_ms: at(&n.released_at),
            scheduled_at_ms: at(&n.scheduled_at),
            started_at_ms: at(&n.started_at),
            finished_at_ms: at(&n.finished_at),
        })
    };
    Recorded {
        phase: core_workflow(status.phase.unwrap_or_default()),
        started_at_ms: at(&status.started_at),
        finished_at_ms: at(&status.finished_at),
        // Those that say most come first: the restart takes the workflow's own cause from them.
        nodes: status.nodes.iter().filter_map(node).chain(packed::recorded(workflow, dag)).collect(),
    }
}

/// Reasons for which a workflow waits before it is accepted.
fn is_storage(reason: Reason) -> bool {
    matches!(reason, Reason::ClaimMissing | Reason::ClaimPending | Reason::ClaimNotShared)
}

fn message(text: &str) -> Option<String> {
    let end = text.char_indices().nth(LONGEST_MESSAGE).map_or(text.len(), |(i, _)| i);
    (!text.is_empty()).then(|| text.get(..end).unwrap_or_default().to_owned())
}

fn phase_of(phase: CorePhase) -> WorkflowPhase {
    match phase {
        CorePhase::Pending => WorkflowPhase::Pending,
        CorePhase::Running => WorkflowPhase::Running,
        CorePhase::Succeeded => WorkflowPhase::Succeeded,
        CorePhase::Failed => WorkflowPhase::Failed,
        CorePhase::Canceled => WorkflowPhase::Canceled,
    }
}

fn core_workflow(phase: WorkflowPhase) -> CorePhase {
    match phase {
        WorkflowPhase::Pending => CorePhase::Pending,
        WorkflowPhase::Running => CorePhase::Running,
        WorkflowPhase::Succeeded => CorePhase::Succeeded,
        WorkflowPhase::Failed => CorePhase::Failed,
        WorkflowPhase::Canceled => CorePhase::Canceled,
    }
}

fn node_phase(phase: CoreNode) -> NodePhase {
    match phase {
        CoreNode::Pending => NodePhase::Pending,
        CoreNode::Scheduling => NodePhase::Scheduling,
        CoreNode::Running => NodePhase::Running,
        CoreNode::Succeeded => NodePhase::Succeeded,
        CoreNode::Failed => NodePhase::Failed,
        CoreNode::Skipped => NodePhase::Skipped,
    }
}

fn core_node(phase: NodePhase) -> CoreNode {
    match phase {
        NodePhase::Pending => CoreNode::Pending,
        NodePhase::Scheduling => CoreNode::Scheduling,
        NodePhase::Running => CoreNode::Running,
        NodePhase::Succeeded => CoreNode::Succeeded,
        NodePhase::Failed => CoreNode::Failed,
        NodePhase::Skipped => CoreNode::Skipped,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;

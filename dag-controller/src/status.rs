//! A Workflow's status: composed from the core's state, and read back at the start.

use flowforge_api::names::condition;
use flowforge_api::workflow::{NodePhase, NodeStatus, Workflow, WorkflowPhase, WorkflowStatus};
use flowforge_dag_controller_core::engine::{Recorded, RecordedNode, State};
use flowforge_dag_controller_core::ranks::pack;
use flowforge_dag_controller_core::{
    Cause, NodeIx, NodePhase as CoreNode, NodeView, Reason, WorkflowPhase as CorePhase,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;

use crate::convert::{ms, time};
use crate::ledger::{core_phase, counts, gang_phase};

/// Fields that a merge patch must remove when they are absent.
const OPTIONAL: [&str; 4] = ["reason", "message", "startedAt", "finishedAt"];
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
}

/// The status of a workflow that runs or ran.
#[must_use]
pub fn compose(state: &State, cx: &Context<'_>) -> WorkflowStatus {
    let phase = phase_of(state.phase());
    let cause = state.cause();
    let (ended, all) = state.progress();
    let mut status = WorkflowStatus {
        phase: Some(phase),
        reason: cause.map(|c| c.reason.as_str().to_owned()),
        message: cause.and_then(|c| message(&with_wait(c.message(), &waits_to_stop(state)))),
        progress: Some(format!("{ended}/{all}")),
        observed_generation: cx.generation,
        started_at: state.started_at_ms().and_then(time),
        finished_at: state.finished_at_ms().and_then(time),
        nodes: state.nodes().map(|view| node_status(state, &view)).collect(),
        conditions: Vec::new(),
    };
    let waits = cause.filter(|c| is_storage(c.reason) && !state.phase().is_over());
    status.conditions = conditions(phase, waits.is_none(), &status, cx);
    status
}

/// The status of a workflow that cannot run.
#[must_use]
pub fn refused(cause: &Cause, nodes: usize, cx: &Context<'_>) -> WorkflowStatus {
    let mut status = WorkflowStatus {
        phase: Some(WorkflowPhase::Failed),
        reason: Some(cause.reason.as_str().to_owned()),
        message: message(&cause.message()),
        progress: Some(format!("0/{nodes}")),
        observed_generation: cx.generation,
        finished_at: time(cx.now_ms),
        ..WorkflowStatus::default()
    };
    status.conditions = conditions(WorkflowPhase::Failed, false, &status, cx);
    status
}

/// The merge patch that makes the status so: absent fields are removed.
#[must_use]
pub fn merge_patch(status: &WorkflowStatus) -> Value {
    let mut patch = serde_json::to_value(status).unwrap_or_default();
    if let Value::Object(fields) = &mut patch {
        for name in OPTIONAL {
            fields.entry(name).or_insert(Value::Null);
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

fn conditions(phase: WorkflowPhase, accepted: bool, status: &WorkflowStatus, cx: &Context<'_>) -> Vec<Condition> {
    let over = matches!(phase, WorkflowPhase::Succeeded | WorkflowPhase::Failed | WorkflowPhase::Canceled);
    let reason = status.reason.clone().unwrap_or_default();
    let text = status.message.clone().unwrap_or_default();
    let phase_name = format!("{phase:?}");
    let end_reason = if reason.is_empty() { phase_name.clone() } else { reason.clone() };
    let going = if over { phase_name } else { "Running".to_owned() };
    let entries = [
        (condition::ACCEPTED, accepted, if accepted { "Accepted".to_owned() } else { reason }, &text),
        (condition::COMPLETE, over, going.clone(), &text),
        (
            condition::SUCCEEDED,
            phase == WorkflowPhase::Succeeded,
            if over { end_reason.clone() } else { going.clone() },
            &text,
        ),
        (condition::FAILED, phase == WorkflowPhase::Failed, if over { end_reason } else { going }, &text),
    ];
    entries.into_iter().filter_map(|(kind, holds, reason, text)| condition(kind, holds, reason, text, cx)).collect()
}

fn condition(kind: &str, holds: bool, reason: String, text: &str, cx: &Context<'_>) -> Option<Condition> {
    let status = if holds { "True" } else { "False" };
    let kept = cx.conditions.iter().find(|c| c.type_ == kind && c.status == status);
    let last_transition_time = kept.map(|c| c.last_transition_time.clone()).or_else(|| time(cx.now_ms))?;
    Some(Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason,
        message: if holds || kind == condition::ACCEPTED { text.to_owned() } else { String::new() },
        last_transition_time,
        observed_generation: cx.generation,
    })
}

/// What the core wants back of a Workflow's own status.
#[must_use]
pub fn recorded(workflow: &Workflow, find: impl Fn(&str) -> Option<NodeIx>) -> Recorded {
    let Some(status) = &workflow.status else { return Recorded::default() };
    let at = |t: &Option<Time>| t.as_ref().map(|t| ms(t.0));
    let node = |n: &NodeStatus| {
        let counted = n.members.as_ref();
        let count = |n: Option<i32>| u32::try_from(n.unwrap_or(0)).unwrap_or(0);
        Some(RecordedNode {
            node: find(&n.id)?,
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
        nodes: status.nodes.iter().filter_map(node).collect(),
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

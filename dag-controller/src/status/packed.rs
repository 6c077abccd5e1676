//! The nodes in a Workflow's status: all of them where they fit, else their phases as packed sets and those that say most.
//!
//! ```text
//!   etcd's limit = the object without its status + what is kept free + conditions and the like + nodes
//! ```
//! What must hold: a status never outgrows the object limit, and whether it is packed does not change while a workflow runs,
//! but for one whose messages alone make it too long. What the sets leave out (times, counts, reasons) stands in the Gangs.

use flowforge_api::workflow::{NodeStatus, PackedNodes, Workflow, WorkflowSpec};
use flowforge_dag_controller_core::engine::{RecordedNode, State};
use flowforge_dag_controller_core::frontend::json_len;
use flowforge_dag_controller_core::ranks::{pack, unpack};
use flowforge_dag_controller_core::{Cause, Class, Dag, GangPhase, NodeIx, NodePhase, NodeView, Reason};
use std::collections::{BTreeMap, BTreeSet};

use super::core_node;

/// What etcd takes in one request: the default of its `--max-request-bytes`.
const OBJECT_LIMIT: usize = 1536 * 1024;
/// Kept free for what stands around the object in that request, and for metadata that others add meanwhile.
const KEPT_FREE: usize = 16 * 1024;
/// Longest status without nodes: four messages of 1,024 characters, each up to six bytes as JSON, and more.
const HEAD: usize = 28 * 1024;
/// Longest node without its id and message.
const NODE: usize = 320;
/// Most nodes that are told in full beside the packed sets.
const MOST_TOLD: usize = 500;

/// Bytes left for the status of an object that has so many without it.
#[must_use]
pub const fn room(object: usize) -> usize {
    OBJECT_LIMIT.saturating_sub(KEPT_FREE + object)
}

/// The nodes of a workflow that runs or ran.
pub(super) fn nodes(
    state: &State,
    room: usize,
    tell: impl Fn(&NodeView<'_>) -> NodeStatus,
) -> (Vec<NodeStatus>, Option<PackedNodes>) {
    let room = room.saturating_sub(HEAD);
    let longest: usize = state.dag().ids().map(|at| NODE + state.dag().node(at).id.len()).sum();
    if longest <= room {
        let nodes: Vec<NodeStatus> = state.nodes().map(|view| tell(&view)).collect();
        if json_len(&nodes) <= room {
            return (nodes, None);
        }
    }
    let packed = pack_state(state);
    let mut left = room.saturating_sub(json_len(&packed));
    let mut told = Vec::new();
    for at in most_telling(state) {
        let node = tell(&state.node(at));
        let len = json_len(&node) + 1;
        if len > left {
            break;
        }
        left -= len;
        told.push((at, node));
    }
    told.sort_by_key(|(at, _)| *at);
    (told.into_iter().map(|(_, node)| node).collect(), Some(packed))
}

/// The nodes of a workflow that cannot run.
pub(super) fn skipped(spec: &WorkflowSpec, room: usize) -> (Vec<NodeStatus>, Option<PackedNodes>) {
    let phase = flowforge_api::workflow::NodePhase::Skipped;
    let node = |id: &String| NodeStatus { id: id.clone(), phase, ..NodeStatus::default() };
    let nodes: Vec<NodeStatus> = spec.nodes.iter().map(|n| node(&n.id)).collect();
    if json_len(&nodes) <= room.saturating_sub(HEAD) {
        return (nodes, None);
    }
    let all = (0..u32::try_from(nodes.len()).unwrap_or(u32::MAX)).collect();
    (Vec::new(), Some(PackedNodes { skipped: pack(&all), ..PackedNodes::default() }))
}

fn pack_state(state: &State) -> PackedNodes {
    let set = |wanted: &dyn Fn(&NodeView<'_>) -> bool| {
        let nodes: BTreeSet<u32> = state.nodes().filter(|view| wanted(view)).map(|view| view.node.0).collect();
        pack(&nodes)
    };
    let phase = |phase: NodePhase| set(&|view| view.phase == phase);
    let skipped = |kind: Skip| set(&|view| view.phase == NodePhase::Skipped && skip_of(view) == kind);
    PackedNodes {
        // A node whose Gang does not exist yet is not claimed, and a restart must not take it for one that lost its Gang.
        scheduling: set(&|view| view.phase == NodePhase::Scheduling && view.gang.is_some()),
        running: phase(NodePhase::Running),
        succeeded: phase(NodePhase::Succeeded),
        failed: phase(NodePhase::Failed),
        skipped: skipped(Skip::Stopped),
        bypassed: skipped(Skip::Bypassed),
        unsatisfiable: skipped(Skip::Unsatisfiable),
    }
}

/// Why a node never ran, as far as others go by it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Skip {
    Stopped,
    Bypassed,
    Unsatisfiable,
}

fn skip_of(view: &NodeView<'_>) -> Skip {
    match view.cause.map(|cause| cause.reason) {
        Some(reason) if reason.is_bypass() => Skip::Bypassed,
        Some(reason) if reason.class() == Class::Skipped => Skip::Unsatisfiable,
        _ => Skip::Stopped,
    }
}

/// Nodes worth telling, the most important first: the one whose failure stopped the workflow and one that was skipped for
/// it (which is how a restart learns of a stop), other failures, what waits for a reason, what runs, and what was stopped.
fn most_telling(state: &State) -> Vec<NodeIx> {
    let stopped = |view: &NodeView<'_>| view.cause.is_some() && skip_of(view) == Skip::Stopped;
    let skipped = state.nodes().find(|view| view.phase == NodePhase::Skipped && stopped(view)).map(|v| v.node);
    let rank = |view: &NodeView<'_>| match (view.phase, view.cause) {
        _ if [state.culprit(), skipped].contains(&Some(view.node)) => Some(0),
        (NodePhase::Failed, Some(cause)) if cause.reason.class() != Class::Stopped => Some(1),
        (NodePhase::Scheduling | NodePhase::Running, Some(_)) => Some(2),
        (NodePhase::Scheduling | NodePhase::Running, None) => Some(3),
        (NodePhase::Failed, _) => Some(4),
        _ => None,
    };
    let mut nodes: Vec<(u8, NodeIx)> = state.nodes().filter_map(|view| Some((rank(&view)?, view.node))).collect();
    nodes.sort_unstable();
    nodes.truncate(MOST_TOLD);
    nodes.into_iter().map(|(_, at)| at).collect()
}

/// What the packed sets say of nodes that are not told in full.
pub(super) fn recorded(workflow: &Workflow, dag: &Dag) -> Vec<RecordedNode> {
    let Some(status) = &workflow.status else { return Vec::new() };
    let Some(packed) = &status.packed else { return Vec::new() };
    let count = u32::try_from(dag.len()).unwrap_or(u32::MAX);
    let told: BTreeSet<&str> = status.nodes.iter().map(|n| n.id.as_str()).collect();
    let skips = [(&packed.bypassed, Reason::UpstreamSkipped), (&packed.unsatisfiable, Reason::Unsatisfiable)];
    let by_condition: BTreeMap<u32, Reason> =
        skips.into_iter().flat_map(|(set, reason)| unpack(set, count).into_iter().map(move |n| (n, reason))).collect();
    let mut nodes = Vec::new();
    for (phase, places) in packed.sets() {
        for place in unpack(places, count) {
            if told.contains(dag.node(NodeIx(place)).id.as_str()) {
                continue;
            }
            let cause = by_condition.get(&place).copied().map(Cause::of);
            nodes.push(RecordedNode { cause, ..of_phase(NodeIx(place), core_node(phase)) });
        }
    }
    nodes
}

/// A node of which only the phase was written. Its Gang knows the rest.
fn of_phase(node: NodeIx, phase: NodePhase) -> RecordedNode {
    RecordedNode {
        node,
        phase,
        attempt: u32::from(phase != NodePhase::Skipped),
        gang: match phase {
            NodePhase::Pending | NodePhase::Skipped => None,
            NodePhase::Scheduling => Some(GangPhase::Pending),
            NodePhase::Running => Some(GangPhase::Running),
            NodePhase::Succeeded => Some(GangPhase::Succeeded),
            NodePhase::Failed => Some(GangPhase::Failed),
        },
        cause: None,
        tally: (0, 0),
        released_at_ms: None,
        scheduled_at_ms: None,
        started_at_ms: None,
        finished_at_ms: None,
    }
}

//! Why a workflow waits: each of its nodes that could move, and what holds it.

use std::collections::BTreeMap;

use flowforge_api::workflow::{Dependency, DependsOn, NodePhase, WorkflowPhase};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{Explanation, Refusal, of_gang};
use crate::render::duration;
use crate::render::style::printable;
use crate::render::tree::{View, is_ended};

const CONTROLLER_CURE: &str =
    "check that it runs: kubectl -n flowforge-system get pods -l app.kubernetes.io/name=flowforge-dag-controller";
/// Nodes that wait for other nodes are named up to this number; the rest is counted.
const NAMED_WAITING: usize = 20;

/// Explains a workflow; `pods` are the live pods of each gang, by the gang's name.
pub(crate) fn of_workflow(view: &View, pods: &BTreeMap<String, Vec<Pod>>, now: Timestamp) -> Explanation {
    let workflow = &view.workflow;
    let status = workflow.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let age = workflow.creation_timestamp().map_or(String::new(), |time| duration::between(time.0, now));
    let mut explanation = Explanation {
        kind: "workflow",
        namespace: workflow.namespace().unwrap_or_default(),
        name: workflow.name_any(),
        phase: if phase == WorkflowPhase::Pending { format!("Pending for {age}") } else { format!("{phase:?}") },
        ..Explanation::default()
    };
    if let Some(reason) = status.reason.as_deref().filter(|r| !r.is_empty()) {
        explanation.refusals.push(Refusal::new(reason, status.message.as_deref().unwrap_or_default()));
    } else if status.observed_generation.is_none() && status.phase.is_none() {
        explanation.refusals.push(Refusal::silence("the DAG controller", CONTROLLER_CURE));
    }
    if matches!(phase, WorkflowPhase::Pending | WorkflowPhase::Running) {
        nodes(view, pods, now, &mut explanation);
    } else {
        failed(view, &mut explanation);
    }
    explanation
}

fn nodes(view: &View, pods: &BTreeMap<String, Vec<Pod>>, now: Timestamp, explanation: &mut Explanation) {
    let nodes = view.nodes();
    let phases: BTreeMap<&str, NodePhase> = nodes.iter().map(|(node, s)| (node.id.as_str(), s.phase)).collect();
    let namespace = view.workflow.namespace().unwrap_or_default();
    let ended = nodes.iter().filter(|(_, status)| is_ended(status.phase)).count();
    explanation.facts.push(format!("{ended} of {} nodes have ended", nodes.len()));
    let held = !explanation.refusals.is_empty();
    let mut unnamed = 0_usize;
    for (node, status) in &nodes {
        let mut part = Explanation {
            kind: "node",
            name: node.id.clone(),
            phase: format!("{:?}", status.phase),
            ..Explanation::default()
        };
        match status.phase {
            NodePhase::Pending => {
                let waits = waits_for(&node.depends_on, &phases);
                if !waits.is_empty() && explanation.parts.len() >= NAMED_WAITING {
                    unnamed += 1;
                    continue;
                }
                part.facts.push(if !waits.is_empty() {
                    format!("waits for {}", waits.join(", "))
                } else if held {
                    "waits for the workflow, see above".into()
                } else {
                    "nothing it depends on is open; the controller releases it next".into()
                });
            }
            NodePhase::Scheduling | NodePhase::Running => {
                if let Some(gang) = view.gang_of(&node.id) {
                    let name = gang.name_any();
                    let members = pods.get(&name).map(Vec::as_slice).unwrap_or_default();
                    part.parts.push(of_gang(&namespace, &name, Some(gang), members, now));
                }
            }
            NodePhase::Succeeded | NodePhase::Failed | NodePhase::Skipped => continue,
        }
        if let Some(reason) = status.reason.as_deref().filter(|r| !r.is_empty()) {
            part.refusals.push(Refusal::new(reason, status.message.as_deref().unwrap_or_default()));
        }
        explanation.parts.push(part);
    }
    if unnamed > 0 {
        explanation.facts.push(format!("{unnamed} more nodes wait for other nodes"));
    }
}

fn waits_for(depends_on: &[Dependency], phases: &BTreeMap<&str, NodePhase>) -> Vec<String> {
    let phase = |id: &str| phases.get(id).copied().unwrap_or_default();
    let open = depends_on.iter().filter(|d| d.is_open(phase(d.node())));
    open.map(|d| match d.on() {
        DependsOn::Succeeded => format!("{} ({:?})", d.node(), phase(d.node())),
        on => format!("{} to be {on:?} ({:?})", d.node(), phase(d.node())),
    })
    .collect()
}

fn failed(view: &View, explanation: &mut Explanation) {
    for (node, status) in view.nodes().into_iter().filter(|(_, status)| status.phase == NodePhase::Failed) {
        let reason = status.reason.as_deref().unwrap_or("Failed");
        let message = status.message.as_deref().unwrap_or_default();
        explanation.facts.push(printable(&format!("node {} failed: {reason}: {message}", node.id)));
    }
}

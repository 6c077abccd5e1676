//! Why a pod waits: for the scheduler, for its gang, or for its containers.

use flowforge_api::names::label;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;

use super::gang::refusal_of;
use super::{Explanation, Refusal};
use crate::render::duration;
use crate::render::style::printable;

/// What cures a container's waiting reason.
const WAITING_CURES: &[(&str, &str)] = &[
    ("ErrImagePull", "check the image's name and the pull secrets"),
    ("ImagePullBackOff", "check the image's name and the pull secrets"),
    ("InvalidImageName", "correct the image's name"),
    ("ErrImageNeverPull", "load the image onto the node, or allow pulling (imagePullPolicy)"),
    ("CreateContainerConfigError", "create the ConfigMap or Secret that the message names"),
    ("CreateContainerError", "correct the container as the message says"),
    ("CrashLoopBackOff", "read the container's log: kubectl logs POD --previous"),
];

/// Explains a pod.
pub(crate) fn of_pod(pod: &Pod, now: Timestamp) -> Explanation {
    let status = pod.status.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let age = pod.creation_timestamp().map_or(String::new(), |time| duration::between(time.0, now));
    let phase = status.phase.clone().unwrap_or_else(|| "Pending".into());
    let mut explanation = Explanation {
        kind: "pod",
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        phase: if phase == "Pending" { format!("Pending for {age}") } else { phase.clone() },
        ..Explanation::default()
    };
    if let Some(gang) = pod.labels().get(label::GANG) {
        let rank = pod.labels().get(label::RANK).map_or(String::new(), |rank| format!(" (rank {rank})"));
        explanation.facts.push(format!("a member of gang {gang}{rank}; see `flowforge explain gang {gang}`"));
    }
    match spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        Some(node) => explanation.facts.push(format!("bound to node {node}")),
        None if phase == "Pending" => match refusal_of(pod) {
            Some(c) => explanation
                .refusals
                .push(Refusal::new(c.reason.as_deref().unwrap_or("-"), c.message.as_deref().unwrap_or_default())),
            None => {
                let scheduler = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
                let cure = format!("check that a scheduler serves schedulerName {scheduler}");
                explanation.refusals.push(Refusal::silence(&format!("scheduler {scheduler}"), &cure));
            }
        },
        None => {}
    }
    for container in status.init_container_statuses.iter().chain(&status.container_statuses).flatten() {
        container_state(container, &mut explanation);
    }
    if let Some(reason) = status.reason.as_deref() {
        let message = status.message.as_deref().unwrap_or_default();
        explanation.facts.push(printable(&format!("{reason}: {message}")));
    }
    explanation
}

fn container_state(container: &ContainerStatus, explanation: &mut Explanation) {
    let Some(state) = &container.state else { return };
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        if matches!(reason, "ContainerCreating" | "PodInitializing") {
            explanation.facts.push(format!("container {}: {reason}", container.name));
            return;
        }
        let message = format!("container {}: {}", container.name, waiting.message.as_deref().unwrap_or_default());
        let cure = WAITING_CURES.iter().find(|(known, _)| *known == reason).map(|(_, cure)| (*cure).to_owned());
        explanation.refusals.push(Refusal { cure, ..Refusal::new(reason, &message) });
    }
    if let Some(ended) = &state.terminated {
        let reason = ended.reason.as_deref().unwrap_or("ended");
        let message = ended.message.as_deref().map_or(String::new(), |m| format!(": {}", printable(m)));
        explanation
            .facts
            .push(format!("container {}: {reason}, exit code {}{message}", container.name, ended.exit_code));
    }
}

//! From watched objects to the core's facts. The only place that knows both.

use flowforge_api::gang::{Gang, GangPhase, MemberOutcome};
use flowforge_api::names::{annotation, finalizer, label};
use flowforge_dag_controller_core::event::{Disruption, MainContainer, PodPhase, Starting};
use flowforge_dag_controller_core::retry::Plan;
use flowforge_dag_controller_core::{Cause, GangEnd, GangFacts, PodFacts, Reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use smol_str::SmolStr;
use std::collections::BTreeMap;

use crate::watched::{ContainerStatus, PodCondition, WatchedPod};

const DISRUPTION_TARGET: &str = "DisruptionTarget";
const SIDECAR: &str = "Always";

/// What the labels and annotations of an object of ours say about its place; unverified until the UIDs agree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// Name of the workflow.
    pub workflow: String,
    /// Id of the node.
    pub node: String,
    /// Attempt, from 1.
    pub attempt: u32,
    /// Rank, for a pod.
    pub rank: Option<u32>,
    /// Incarnation, for a pod.
    pub incarnation: u32,
}

/// The place an object claims; none where it is not one of ours.
#[must_use]
pub fn place(meta: &ObjectMeta) -> Option<Place> {
    let labels = meta.labels.as_ref()?;
    let annotations = meta.annotations.as_ref();
    Some(Place {
        workflow: labels.get(label::WORKFLOW)?.clone(),
        node: labels.get(label::NODE)?.clone(),
        attempt: labels.get(label::ATTEMPT)?.parse().ok()?,
        rank: labels.get(label::RANK).and_then(|r| r.parse().ok()),
        incarnation: annotations.and_then(|a| a.get(annotation::INCARNATION)?.parse().ok()).unwrap_or(0),
    })
}

/// UID of the controlling owner.
#[must_use]
pub fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|o| o.controller == Some(true)).map(|o| o.uid.as_str())
}

/// Whether a pod still carries our finalizer.
#[must_use]
pub fn has_finalizer(meta: &ObjectMeta) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == finalizer::RESULT)
}

/// The facts of a pod whose main container is `main`.
#[must_use]
pub fn pod_facts(pod: &WatchedPod, main: &str, node_gone: bool) -> PodFacts {
    let status = &pod.status;
    let sidecar = |name: &str| {
        pod.spec.init_containers.iter().any(|c| c.name == name && c.restart_policy.as_deref() == Some(SIDECAR))
    };
    let failed_init = |c: &ContainerStatus| {
        let code = c.state.terminated.as_ref()?.exit_code;
        (code != 0 && !sidecar(&c.name)).then_some(code)
    };
    let disruption = status.conditions.iter().find(|c| c.kind == DISRUPTION_TARGET && c.status == "True");
    PodFacts {
        node: pod.spec.node_name.as_deref().filter(|n| !n.is_empty()).map(SmolStr::from),
        phase: match status.phase.as_str() {
            "Running" => PodPhase::Running,
            "Succeeded" => PodPhase::Succeeded,
            "Failed" => PodPhase::Failed,
            _ => PodPhase::Pending,
        },
        reason: SmolStr::from(status.reason.as_str()),
        main: status.container_statuses.iter().find(|c| c.name == main).map_or(MainContainer::Waiting, main_container),
        starting: starting(pod),
        init_exit_code: status.init_container_statuses.iter().find_map(failed_init),
        others_running: status.container_statuses.iter().any(|c| c.name != main && c.state.running.is_some()),
        disruption: disruption.map(|c| Disruption::from_reason(&c.reason)),
        deletion_requested_at_ms: deletion_requested_at(&pod.metadata),
        node_gone,
        finalizer: has_finalizer(&pod.metadata),
        message: SmolStr::default(),
    }
}

/// What a pod's main container said when it ended.
#[must_use]
pub fn termination_message<'a>(pod: &'a WatchedPod, main: &str) -> &'a str {
    let status = pod.status.container_statuses.iter().find(|c| c.name == main);
    status.and_then(|status| status.state.terminated.as_ref()).map_or("", |ended| ended.message.as_str())
}

/// What the start of a bound pod waits for, by what the kubelet says of its containers.
fn starting(pod: &WatchedPod) -> Starting {
    const LONGEST: usize = 300;
    let status = &pod.status;
    if pod.spec.node_name.as_deref().unwrap_or_default().is_empty() || status.phase != "Pending" {
        return Starting::Unknown;
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses);
    for waiting in containers.filter_map(|c| c.state.waiting.as_ref()) {
        let text: String = format!("{}: {}", waiting.reason, waiting.message).chars().take(LONGEST).collect();
        match waiting.reason.as_str() {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed" => return Starting::Image(text.into()),
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                return Starting::Config(text.into());
            }
            _ => {}
        }
    }
    let unready = |c: &PodCondition| c.kind == "PodReadyToStartContainers" && c.status == "False";
    match status.conditions.iter().any(unready) {
        true if pod.spec.volumes.iter().any(|v| v.persistent_volume_claim.is_some()) => Starting::Volumes,
        true => Starting::Sandbox,
        false => Starting::Unknown,
    }
}

fn main_container(status: &ContainerStatus) -> MainContainer {
    match (&status.state.terminated, &status.state.running) {
        (Some(ended), _) => MainContainer::Ended {
            exit_code: ended.exit_code,
            reason: SmolStr::from(ended.reason.as_str()),
            finished_at_ms: ended.finished_at.map_or(0, ms),
        },
        (None, Some(_)) => MainContainer::Running,
        (None, None) => MainContainer::Waiting,
    }
}

fn deletion_requested_at(meta: &ObjectMeta) -> Option<u64> {
    let at = ms(meta.deletion_timestamp.as_ref()?.0);
    let grace = u64::try_from(meta.deletion_grace_period_seconds.unwrap_or(0)).unwrap_or(0);
    Some(at.saturating_sub(grace.saturating_mul(1000)))
}

/// The facts of a Gang.
#[must_use]
pub fn gang_facts(gang: &Gang) -> GangFacts {
    let deleting = gang.metadata.deletion_timestamp.is_some();
    GangFacts { ended: gang_end(gang), deleting, plan: plan(&gang.metadata).map(Box::new) }
}

/// What an attempt that is not the first was made with.
fn plan(meta: &ObjectMeta) -> Option<Plan> {
    let annotations = meta.annotations.as_ref()?;
    let number = |key: &str| annotations.get(key).and_then(|text| text.parse().ok());
    let (user, infrastructure) = annotations.get(annotation::CHARGED)?.split_once('+')?;
    let avoid = annotations.get(annotation::AVOIDS).map(|text| text.split(',').map(SmolStr::from).collect());
    Some(Plan {
        user: user.parse().ok()?,
        infrastructure: infrastructure.parse().ok()?,
        not_before_ms: number(annotation::NOT_BEFORE).unwrap_or(0),
        avoid: avoid.unwrap_or_default(),
    })
}

/// The annotations that say so.
#[must_use]
pub fn plan_annotations(plan: &Plan) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([
        (annotation::CHARGED.to_owned(), format!("{}+{}", plan.user, plan.infrastructure)),
        (annotation::NOT_BEFORE.to_owned(), plan.not_before_ms.to_string()),
    ]);
    if !plan.avoid.is_empty() {
        annotations.insert(annotation::AVOIDS.to_owned(), plan.avoid.join(","));
    }
    annotations
}

/// The recorded end of a Gang.
#[must_use]
pub fn gang_end(gang: &Gang) -> Option<GangEnd> {
    let status = gang.status.as_ref()?;
    let succeeded = match status.phase? {
        GangPhase::Succeeded => true,
        GangPhase::Failed => false,
        GangPhase::Pending | GangPhase::Scheduled | GangPhase::Running => return None,
    };
    let reason = Reason::parse(status.reason.as_deref().unwrap_or_default());
    let at = |t: &Option<Time>| t.as_ref().map(|t| ms(t.0));
    // The message names the member; its exit code is what a retry may ask for. Others may have been left out before.
    let message = status.message.as_deref().unwrap_or_default();
    let failed = || status.results.iter().filter(|r| r.outcome == MemberOutcome::Failed);
    let named = failed().find(|r| message.starts_with(&format!("member {} ", r.rank)));
    Some(GangEnd {
        succeeded,
        cause: Cause {
            exit_code: named.or_else(|| failed().next()).and_then(|r| r.exit_code),
            ..Cause::of(reason).with_detail(message)
        },
        scheduled_at_ms: at(&status.scheduled_at),
        started_at_ms: at(&status.started_at),
        finished_at_ms: at(&status.finished_at).unwrap_or(0),
        outputs: status.outputs.as_ref().map(|outputs| outputs.to_string().into()).unwrap_or_default(),
    })
}

/// Milliseconds since the epoch; 0 before it.
#[must_use]
pub fn ms(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

/// The time of an API object, in whole seconds as the API keeps it.
#[must_use]
pub fn time(ms: u64) -> Option<Time> {
    let seconds = i64::try_from(ms / 1000).ok()?;
    Timestamp::from_second(seconds).ok().map(Time)
}

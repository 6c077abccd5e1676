//! The only place that knows Kubernetes types: API objects in, the core's plain facts out.
//!
//! ```text
//!   pod, node, Gang ─────────────> here ──────────> PodInfo, NodeInfo, GangInfo
//!   what gangs others declare ───> [`gangs`] ─────> GangMembership, GangInfo, and the answer in their objects
//!   all that needs no other look > [`kinds`] ─────> Event
//! ```
//! Pure: no network. The scheduler reads a live cluster through it, the command line a cluster as it was written down.

pub mod device_types;
pub mod devices;
pub mod duration;
mod features;
pub mod gangs;
pub mod kinds;
mod layout;
mod migration;
mod ours;
pub mod quantity;
mod relations;
pub mod requests;
mod run_time;
pub mod types;
pub mod volumes;

pub use ours::Ours;
pub use relations::{budget, selecting_labels, selecting_pods};

use flowforge_api::gang::GangPhase;
use flowforge_api::names::{annotation, label};
use flowforge_scheduler_core::model::{
    GangInfo, GangMembership, GangRoleInfo, HostPort, NodeInfo, NodeOperator, NodeRequirement, NodeSelectorTerm, Owner,
    PodInfo, PodKey, PodPhase, Taint, TaintEffect, Terms, Toleration,
};
use flowforge_scheduler_core::plugins::image_locality;
use smol_str::SmolStr;

/// The role of a member that names none.
const DEFAULT_ROLE: SmolStr = SmolStr::new_static("worker");

/// Identity of a pod.
#[must_use]
pub fn pod_key(meta: &types::Meta) -> PodKey {
    PodKey { namespace: meta.namespace.clone(), name: meta.name.clone(), uid: meta.uid.clone() }
}

/// Converts a pod. `ours` says whether a scheduler name is served by this process.
#[must_use]
pub fn pod(pod: &types::Pod, ours: impl Fn(&str) -> bool) -> PodInfo {
    let requests = requests::pod_requests(pod);
    let spec = &pod.spec;
    let created_at_ms = pod.metadata.creation_timestamp.map_or(0, |at| at.as_millisecond());
    let ours = ours(&spec.scheduler_name);
    PodInfo {
        key: pod_key(&pod.metadata),
        resource_version: pod.metadata.resource_version.clone(),
        ours,
        scheduler_name: spec.scheduler_name.clone(),
        priority: spec.priority,
        never_preempts: spec.preemption_policy == "Never",
        nominated_node: some(&pod.status.nominated_node_name),
        started_at_ms: pod.status.start_time.map(|at| u64::try_from(at.as_millisecond()).unwrap_or_default()),
        preempted: preempted(&pod.status),
        created_at_ms: u64::try_from(created_at_ms).unwrap_or_default(),
        node_name: some(&spec.node_name),
        phase: phase(&pod.status.phase),
        deleting: pod.metadata.deletion_timestamp,
        gated: !spec.scheduling_gates.is_empty(),
        labels: pod.metadata.labels.clone(),
        asking_requests: (requests.asking != requests.scored).then_some(requests.asking),
        scoring_requests: requests.scored,
        asking_huge_pages: requests.asking_huge_pages,
        requests: requests.resources,
        node_selector: spec.node_selector.clone(),
        required_node_affinity: spec
            .affinity
            .node_affinity
            .required
            .as_ref()
            .map(|required| required.node_selector_terms.iter().map(term).collect()),
        preferred_node_affinity: spec
            .affinity
            .node_affinity
            .preferred
            .iter()
            .map(|preferred| (preferred.weight, term(&preferred.preference)))
            .collect(),
        affinity: relations::affinity(pod),
        spread: spec.topology_spread_constraints.iter().map(|c| relations::spread(c, &pod.metadata.labels)).collect(),
        images: images(spec),
        tolerations: spec.tolerations.iter().map(toleration).collect(),
        required_features: features::required(spec),
        host_ports: host_ports(spec),
        gang: membership(&pod.metadata).or_else(|| ours.then(|| gangs::declares(pod)).flatten()),
        owner: owner(&pod.metadata),
        intent: own_annotation(&pod.metadata, annotation::INTENT),
        fence: own_annotation(&pod.metadata, annotation::FENCE),
        scheduled_condition: scheduled_condition(&pod.status),
        resource_claims: devices::pod_claims(spec, &pod.status),
        containers: devices::container_asks(spec),
        volumes: volumes::mounted(pod),
        expected: run_time::declared(pod),
    }
}

/// Converts a node.
#[must_use]
pub fn node(node: &types::Node) -> NodeInfo {
    NodeInfo {
        name: node.metadata.name.clone(),
        uid: node.metadata.uid.clone(),
        labels: node.metadata.labels.clone(),
        taints: node.spec.taints.iter().filter_map(taint).collect(),
        unschedulable: node.spec.unschedulable,
        allocatable: requests::to_resources(&node.status.allocatable),
        without: requests::of_nothing(&node.status.allocatable),
        images: node_images(&node.status),
        declared_features: node.status.declared_features.clone(),
    }
}

/// Converts a gang; None for one that another controller manages, which is not ours to schedule.
#[must_use]
pub fn gang(gang: &types::Gang) -> Option<GangInfo> {
    let spec = &gang.spec;
    if spec.managed_by.is_some() {
        return None;
    }
    let count = |value: i32| u32::try_from(value).unwrap_or_default();
    let role = |role: &flowforge_api::gang::GangRole| GangRoleInfo {
        name: role.name.as_str().into(),
        replicas: count(role.replicas),
        min: count(role.min.unwrap_or(role.replicas)),
    };
    let ended = matches!(gang.status.phase, Some(GangPhase::Succeeded | GangPhase::Failed));
    let topology = spec.topology.clone().unwrap_or_default();
    Some(GangInfo {
        namespace: gang.metadata.namespace.clone(),
        name: gang.metadata.name.clone(),
        uid: gang.metadata.uid.clone(),
        min_member: count(spec.min_member),
        roles: spec.roles.iter().map(role).collect(),
        layout: layout::of(spec),
        topology_required: topology.required.map(SmolStr::from),
        topology_preferred: topology.preferred.into_iter().map(SmolStr::from).collect(),
        closed: ended || gang.metadata.deletion_timestamp,
        replaces: spec.replaces.as_deref().map(SmolStr::from),
        hold_ms: u64::from(count(spec.hold_seconds.unwrap_or_default())) * 1_000,
        terms: Terms::default(),
    })
}

fn images(spec: &types::PodSpec) -> Vec<SmolStr> {
    let containers = spec.init_containers.iter().chain(&spec.containers).map(|container| &container.image);
    let volumes = spec.volumes.iter().filter_map(|volume| volume.image.as_ref()).map(|image| &image.reference);
    containers.chain(volumes).map(image_locality::normalized).collect()
}

fn node_images(status: &types::NodeStatus) -> Vec<(SmolStr, i64)> {
    let named = |image: &types::NodeImage| {
        let bytes = image.size_bytes;
        image.names.iter().map(move |name| (name.clone(), bytes)).collect::<Vec<_>>()
    };
    status.images.iter().flat_map(named).collect()
}

fn some(text: &SmolStr) -> Option<SmolStr> {
    (!text.is_empty()).then(|| text.clone())
}

fn phase(phase: &str) -> PodPhase {
    match phase {
        "Running" => PodPhase::Running,
        "Succeeded" => PodPhase::Succeeded,
        "Failed" => PodPhase::Failed,
        "Unknown" => PodPhase::Unknown,
        _ => PodPhase::Pending,
    }
}

fn term(term: &types::SelectorTerm) -> NodeSelectorTerm {
    NodeSelectorTerm {
        match_expressions: term.match_expressions.iter().map(requirement).collect(),
        match_fields: term.match_fields.iter().map(requirement).collect(),
    }
}

/// The operator of this name; None where this build does not know it.
#[must_use]
pub fn node_operator(name: &str) -> Option<NodeOperator> {
    match name {
        "In" => Some(NodeOperator::In),
        "NotIn" => Some(NodeOperator::NotIn),
        "Exists" => Some(NodeOperator::Exists),
        "DoesNotExist" => Some(NodeOperator::DoesNotExist),
        "Gt" => Some(NodeOperator::Gt),
        "Lt" => Some(NodeOperator::Lt),
        _ => None,
    }
}

/// An operator that this build does not know matches nothing: it becomes `In` with no values.
fn requirement(requirement: &types::Requirement) -> NodeRequirement {
    let operator = node_operator(&requirement.operator);
    NodeRequirement {
        key: requirement.key.clone(),
        operator: operator.unwrap_or(NodeOperator::In),
        values: operator.map(|_| requirement.values.clone()).unwrap_or_default(),
    }
}

fn effect(effect: &str) -> Option<TaintEffect> {
    match effect {
        "NoSchedule" => Some(TaintEffect::NoSchedule),
        "PreferNoSchedule" => Some(TaintEffect::PreferNoSchedule),
        "NoExecute" => Some(TaintEffect::NoExecute),
        _ => None,
    }
}

fn taint(taint: &types::Taint) -> Option<Taint> {
    effect(&taint.effect).map(|effect| Taint { key: taint.key.clone(), value: taint.value.clone(), effect })
}

fn toleration(toleration: &types::Toleration) -> Toleration {
    Toleration {
        key: toleration.key.clone(),
        exists: toleration.operator == "Exists",
        value: toleration.value.clone(),
        effect: effect(&toleration.effect),
    }
}

/// Host ports of containers and sidecars; other init containers have ended before they could collide.
fn host_ports(spec: &types::PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().filter(|container| container.restart_policy == "Always");
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    let used = ports.filter(|port| port.host_port != 0);
    used.map(|port| HostPort { ip: port.host_ip.clone(), protocol: port.protocol.clone(), port: port.host_port })
        .collect()
}

fn membership(meta: &types::Meta) -> Option<GangMembership> {
    let name = some(meta.labels.get(label::GANG)?)?;
    let size = meta.annotations.get(annotation::GANG_SIZE).map(|text| match text.trim().parse::<u32>() {
        Ok(size) if size >= 1 => Ok(size),
        _ => Err(text.chars().take(63).collect::<SmolStr>()),
    });
    let preferred = meta.annotations.get(annotation::TOPOLOGY_PREFERRED).map(String::as_str).unwrap_or_default();
    Some(GangMembership {
        name,
        uid: own_annotation(meta, annotation::GANG_UID),
        size,
        role: meta.labels.get(label::ROLE).and_then(some).unwrap_or(DEFAULT_ROLE),
        rank: meta.labels.get(label::RANK).and_then(|rank| rank.parse().ok()),
        topology_required: own_annotation(meta, annotation::TOPOLOGY_REQUIRED),
        topology_preferred: preferred.split(',').map(str::trim).filter(|l| !l.is_empty()).map(SmolStr::from).collect(),
    })
}

fn own_annotation(meta: &types::Meta, key: &str) -> Option<SmolStr> {
    meta.annotations.get(key).map(|value| SmolStr::from(value.trim())).filter(|value| !value.is_empty())
}

fn owner(meta: &types::Meta) -> Option<Owner> {
    let owner = meta.owner_references.iter().find(|owner| owner.controller)?;
    Some(Owner {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    })
}

fn scheduled_condition(status: &types::PodStatus) -> Option<(SmolStr, String)> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
    (condition.status == "False").then(|| (condition.reason.clone(), condition.message.clone()))
}

/// Whether a scheduler has marked the pod for eviction.
fn preempted(status: &types::PodStatus) -> bool {
    let target = status.conditions.iter().find(|condition| condition.type_ == "DisruptionTarget");
    target.is_some_and(|target| target.status == "True" && target.reason == "PreemptionByScheduler")
}

#[cfg(test)]
mod tests;

//! Kubernetes' own `PodGroup` (`scheduling.k8s.io/v1beta1`, from 1.37 on, feature `GenericWorkload`).
//!
//! Pods name it in `spec.schedulingGroup.podGroupName`. The condition `PodGroupInitiallyScheduled` is written as
//! kube-scheduler writes it (`pkg/scheduler/schedule_one_podgroup.go`): reasons `Scheduled`, `Unschedulable` and
//! `SchedulerError`, once True for ever True, and nothing while members are still missing. A group of policy `basic` asks
//! for nothing but its topology: its pods are placed as they come. As kube-scheduler does, a member whose priority is not
//! the group's is refused.

use super::beside::Surroundings;
use super::{Convention, Declaration, Declared, GroupWrite, Standing, at_least, gang_name, member_of_job};
use crate::types::{Meta, Pod};
use flowforge_scheduler_core::model::{GangInfo, GangMembership};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use smol_str::SmolStr;

const CONDITION: &str = "PodGroupInitiallyScheduled";

/// The convention.
pub(super) struct Native;

impl Convention for Native {
    fn declares(&self, pod: &Pod) -> Option<GangMembership> {
        let name = &pod.spec.scheduling_group.pod_group_name;
        (!name.is_empty()).then(|| member_of_job(PodGroup::KIND, name, pod))
    }
}

/// The object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodGroup {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    scheduling_policy: Policy,
    scheduling_constraints: Constraints,
    disruption_mode: DisruptionMode,
    priority: Option<i32>,
    resource_claims: Vec<IgnoredAny>,
    parent_composite_pod_group_name: Option<SmolStr>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Policy {
    gang: Option<GangPolicy>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GangPolicy {
    min_count: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Constraints {
    topology: Vec<TopologyConstraint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TopologyConstraint {
    key: SmolStr,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DisruptionMode {
    all: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(rename = "type")]
    type_: SmolStr,
    status: SmolStr,
    reason: SmolStr,
    message: String,
    last_transition_time: String,
}

impl PodGroup {
    /// What of it cannot be done.
    fn unsupported(&self) -> Option<String> {
        let spec = &self.spec;
        if spec.parent_composite_pod_group_name.is_some() {
            let what = "spec.parentCompositePodGroupName: groups of groups are not supported; leave the field out";
            return Some(what.to_owned());
        }
        if !spec.resource_claims.is_empty() {
            let what = "spec.resourceClaims: claims of a group are not supported; give each pod claims of its own";
            return Some(what.to_owned());
        }
        (spec.scheduling_constraints.topology.len() > 1)
            .then(|| "spec.schedulingConstraints.topology has more than one key; name one".to_owned())
    }
}

/// Status, reason and message of the condition; None while there is nothing to say. That the group stands is seen from its
/// pods as well: the leader that bound them may not have come to write it.
fn verdict(standing: &Standing<'_>) -> Option<(&'static str, &'static str, String)> {
    let placed = standing.pods.bound + standing.pods.succeeded;
    if let Some(told) = standing.told.filter(|told| told.scheduled) {
        return Some(("True", "Scheduled", told.message.clone()));
    }
    if placed >= standing.gang.min_member {
        return Some(("True", "Scheduled", format!("{placed} members are bound")));
    }
    let told = standing.told?;
    match told.reason.as_str() {
        "Unschedulable" => Some(("False", "Unschedulable", told.message.clone())),
        "InvalidGang" | "SchedulerError" => Some(("False", "SchedulerError", told.message.clone())),
        _ => None,
    }
}

impl Declaration for PodGroup {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    fn name(&self) -> SmolStr {
        gang_name(Self::KIND, &self.metadata.name)
    }

    fn gang(&self, _around: &Surroundings) -> GangInfo {
        let spec = &self.spec;
        let minimum = spec.scheduling_policy.gang.as_ref().map_or(1, |gang| gang.min_count);
        let mut gang = at_least(&self.metadata, self.name(), minimum);
        gang.topology_required = spec.scheduling_constraints.topology.first().map(|constraint| constraint.key.clone());
        gang.terms.parts_singly = spec.disruption_mode.all.is_none();
        gang.terms.priority = spec.priority;
        gang.terms.invalid = self.unsupported();
        gang
    }

    fn answer(&self, standing: &Standing<'_>) -> Option<GroupWrite> {
        let (status, reason, message) = verdict(standing)?;
        let have = self.status.conditions.iter().find(|condition| condition.type_ == CONDITION);
        let is_so = |have: &Condition| have.status == status && have.reason == reason && have.message == message;
        if have.is_some_and(|have| have.status == "True" || is_so(have)) {
            return None;
        }
        let since = have.filter(|have| have.status == status).map(|have| have.last_transition_time.clone());
        let condition = json!({
            "type": CONDITION, "status": status, "reason": reason, "message": message,
            "observedGeneration": self.metadata.generation,
            "lastTransitionTime": since.unwrap_or_else(|| crate::gangs::seconds(standing.now)),
        });
        let body = json!({
            "apiVersion": "scheduling.k8s.io/v1beta1", "kind": "PodGroup",
            "metadata": {"name": self.metadata.name, "namespace": self.metadata.namespace, "uid": self.metadata.uid},
            "status": {"conditions": [condition]},
        });
        Some(GroupWrite::apply_status(&self.metadata, Self::PATH, body))
    }
}

impl Declared for PodGroup {
    const KIND: &'static str = "podgroup.scheduling.k8s.io";
    const PLURAL: &'static str = "podgroups.scheduling.k8s.io";
    const PATH: &'static str = "/apis/scheduling.k8s.io/v1beta1/podgroups";
}

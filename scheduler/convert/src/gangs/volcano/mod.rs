//! Volcano's `PodGroup` (`scheduling.volcano.sh/v1beta1`): of Volcano Jobs, and of the many operators that make one.
//!
//! Pods name it with annotation `scheduling.k8s.io/group-name`, and their task with `volcano.sh/task-spec`. Minima of tasks
//! count where `minMember` is not below their sum, as in Volcano. A tier of `networkTopology` is one of our levels: by the
//! name that the HyperNodes of that tier give it, or as a level is named; a tier that nothing has is a refusal.
//! [`status`] has what is written, [`beside`] the objects that are read besides.

mod beside;
mod status;

pub use beside::{HyperNode, Job, Queue};

use super::beside::Surroundings;
use super::{
    Convention, Declaration, Declared, GroupWrite, Standing, annotated, at_least, gang_name, label, member, number,
    role,
};
use crate::quantity::QuantityMap;
use crate::types::{Meta, Pod};
use flowforge_scheduler_core::model::{GangInfo, GangMembership};
use serde::Deserialize;
use serde::de::IgnoredAny;
use smol_str::SmolStr;
use std::collections::BTreeMap;

pub(super) const GROUP_NAME: &str = "scheduling.k8s.io/group-name";
pub(super) const TASK_SPEC: &str = "volcano.sh/task-spec";
pub(super) const TASK_INDEX: &str = "volcano.sh/task-index";
/// Label of the training operator, which has no task index.
const REPLICA_INDEX: &str = "training.kubeflow.org/replica-index";

/// The convention.
pub(super) struct Volcano;

impl Convention for Volcano {
    fn declares(&self, pod: &Pod) -> Option<GangMembership> {
        let mut member = member(PodGroup::KIND, annotated(pod, GROUP_NAME)?);
        let said = |key: &str| annotated(pod, key).map(SmolStr::from).or_else(|| label(pod, key).cloned());
        if let Some(task) = said(TASK_SPEC) {
            member.role = task;
            member.rank = number(said(TASK_INDEX).as_ref().or_else(|| label(pod, REPLICA_INDEX)));
        }
        Some(member)
    }
}

/// The object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodGroup {
    metadata: Meta,
    spec: Spec,
    status: status::Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    min_member: i32,
    min_task_member: BTreeMap<SmolStr, i32>,
    queue: SmolStr,
    min_resources: QuantityMap,
    network_topology: Option<NetworkTopology>,
    sub_group_policy: Vec<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NetworkTopology {
    mode: SmolStr,
    highest_tier_allowed: Option<u32>,
    highest_tier_name: SmolStr,
}

impl NetworkTopology {
    /// The level of the highest tier; None where no tier is named.
    fn level(&self, around: &Surroundings) -> Result<Option<SmolStr>, String> {
        let asked = match (self.highest_tier_allowed, self.highest_tier_name.as_str()) {
            (None, "") => return Ok(None),
            (Some(tier), "") => format!("{tier}"),
            (_, name) => name.to_owned(),
        };
        match beside::tier_name(around, &asked) {
            Ok(name) => Ok(Some(name)),
            // Where there are no HyperNodes, the name may be that of a level: the planner knows.
            Err(_) if self.highest_tier_allowed.is_none() && !beside::any_tier(around) => Ok(Some(asked.into())),
            Err(why) => {
                let field = if self.highest_tier_allowed.is_some() { "highestTierAllowed" } else { "highestTierName" };
                Err(format!("spec.networkTopology.{field}: {why}"))
            }
        }
    }
}

impl PodGroup {
    /// The queue that it waits in.
    fn queue(&self) -> &str {
        if self.spec.queue.is_empty() { "default" } else { &self.spec.queue }
    }

    fn set_topology(&self, gang: &mut GangInfo, around: &Surroundings) {
        let Some(topology) = &self.spec.network_topology else { return };
        match topology.level(around) {
            Ok(level) if topology.mode == "soft" => gang.topology_preferred = level.into_iter().collect(),
            Ok(level) => gang.topology_required = level,
            Err(why) => gang.terms.invalid = Some(why),
        }
    }
}

impl Declaration for PodGroup {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    fn name(&self) -> SmolStr {
        gang_name(Self::KIND, &self.metadata.name)
    }

    fn gang(&self, around: &Surroundings) -> GangInfo {
        let spec = &self.spec;
        let mut gang = at_least(&self.metadata, self.name(), spec.min_member);
        let of_tasks = spec.min_task_member.values().fold(0_i32, |sum, min| sum.saturating_add(*min));
        if of_tasks <= spec.min_member {
            let count = |min: i32| u32::try_from(min).unwrap_or_default();
            gang.roles.splice(..0, spec.min_task_member.iter().map(|(task, min)| role(task, count(*min))));
        }
        self.set_topology(&mut gang, around);
        if !spec.sub_group_policy.is_empty() {
            let what = "spec.subGroupPolicy is not supported; leave it out, or make a PodGroup of each subgroup";
            gang.terms.invalid = Some(what.to_owned());
        }
        gang.terms.held = beside::queue_holds(around, self.queue());
        gang
    }

    /// Volcano's own Job makes no pod before its group is in the queue: only the Job says then who is to schedule it.
    fn has_our_owner(&self, around: &Surroundings) -> bool {
        let owners = self.metadata.owner_references.iter();
        let jobs = owners.filter(|owner| owner.kind == "Job" && owner.api_version.starts_with("batch.volcano.sh/"));
        jobs.into_iter().any(|job| beside::job_is_ours(around, &self.metadata.namespace, &job.name))
    }

    fn answer(&self, standing: &Standing<'_>) -> Option<GroupWrite> {
        let status = self.wanted(standing);
        (status != self.status).then(|| GroupWrite::merge_whole(&self.metadata, Self::PATH, &status.written()))
    }
}

impl Declared for PodGroup {
    const KIND: &'static str = "podgroup.scheduling.volcano.sh";
    const PLURAL: &'static str = "podgroups.scheduling.volcano.sh";
    const PATH: &'static str = "/apis/scheduling.volcano.sh/v1beta1/podgroups";
}

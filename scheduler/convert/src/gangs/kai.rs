//! KAI-Scheduler's `PodGroup` (`scheduling.run.ai/v2alpha2`): pods name it with annotation `pod-group-name`, and their
//! subgroup with label `kai.scheduler/subgroup-name`.
//!
//! Topology levels are node labels. Subgroups are roles with a minimum of their own; a subgroup with subgroups or with a
//! topology of its own is refused. Nothing is written: KAI's controllers count the pods, and its scheduling conditions name
//! node pools that we do not know.

use super::beside::Surroundings;
use super::{Convention, Declaration, Declared, annotated, at_least, gang_name, label, member_of_job, role};
use crate::types::{Meta, Pod};
use flowforge_scheduler_core::model::{GangInfo, GangMembership};
use serde::Deserialize;
use smol_str::SmolStr;

pub(super) const GROUP_NAME: &str = "pod-group-name";
const SUBGROUP: &str = "kai.scheduler/subgroup-name";

/// The convention.
pub(super) struct Kai;

impl Convention for Kai {
    fn declares(&self, pod: &Pod) -> Option<GangMembership> {
        let mut member = member_of_job(PodGroup::KIND, annotated(pod, GROUP_NAME)?, pod);
        if let Some(subgroup) = label(pod, SUBGROUP) {
            // Subgroups may span Jobs, whose indices then say nothing.
            (member.role, member.rank) = (subgroup.clone(), None);
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
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    min_member: Option<i32>,
    topology_constraint: Topology,
    sub_groups: Vec<SubGroup>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct Topology {
    required_topology_level: SmolStr,
    preferred_topology_level: SmolStr,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SubGroup {
    name: SmolStr,
    min_member: Option<i32>,
    parent: Option<SmolStr>,
    topology_constraint: Option<Topology>,
}

impl PodGroup {
    fn unsupported(&self) -> Option<String> {
        let bad = self.spec.sub_groups.iter().find(|sub| {
            sub.parent.as_ref().is_some_and(|parent| !parent.is_empty())
                || sub.topology_constraint.as_ref().is_some_and(|own| *own != Topology::default())
        })?;
        Some(format!(
            "spec.subGroups: {} has a parent or a topologyConstraint, which is not supported; leave both out",
            bad.name
        ))
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
        let mut gang = at_least(&self.metadata, self.name(), spec.min_member.unwrap_or(1));
        let minimum = |sub: &SubGroup| u32::try_from(sub.min_member.unwrap_or(1)).unwrap_or_default();
        let named = spec.sub_groups.iter().filter(|sub| !sub.name.is_empty());
        gang.roles.splice(..0, named.map(|sub| role(&sub.name, minimum(sub))));
        let some = |level: &SmolStr| (!level.is_empty()).then(|| level.clone());
        gang.topology_required = some(&spec.topology_constraint.required_topology_level);
        gang.topology_preferred = some(&spec.topology_constraint.preferred_topology_level).into_iter().collect();
        gang.terms.invalid = self.unsupported();
        gang
    }
}

impl Declared for PodGroup {
    const KIND: &'static str = "podgroup.scheduling.run.ai";
    const PLURAL: &'static str = "podgroups.scheduling.run.ai";
    const PATH: &'static str = "/apis/scheduling.run.ai/v2alpha2/podgroups";
}

//! Profiles: how the pods of one `schedulerName` are scheduled. Which filters refuse, how much each score weighs, and the
//! arguments of the plugins, as `KubeSchedulerConfiguration` names them.
//!
//! ```text
//!   configuration file ──shell──> Profiles ──by schedulerName──> ProfileRef in each pod's shape ──> filters, scores
//! ```
//! A shape holds its profile, so that pods of two profiles never share an answer, and everything about a profile is looked
//! up once per shape. The default is kube-scheduler's default profile.

mod resources;
#[cfg(test)]
mod tests;

pub use resources::{Lane, Scored, is_extended, is_scalar};

use crate::model::NodeSelectorTerm;
use crate::plugins::node_resources_fit::Strategy;
use crate::plugins::{
    dynamic_resources, image_locality, inter_pod_affinity, node_affinity, node_declared_features, node_name,
    node_ports, node_resources_balanced_allocation, node_resources_fit, node_unschedulable, node_volume_limits,
    pod_topology_spread, taint_toleration, volume_binding, volume_restrictions, volume_zone,
};
use crate::protocol::Patience;
use crate::relations::SpreadConstraint;
use smol_str::SmolStr;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A filter that a profile may leave out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Filter {
    /// `NodeName`.
    NodeName,
    /// `NodeUnschedulable`.
    NodeUnschedulable,
    /// `TaintToleration`.
    TaintToleration,
    /// `NodeAffinity`.
    NodeAffinity,
    /// `NodePorts`.
    NodePorts,
    /// `NodeResourcesFit`.
    NodeResourcesFit,
    /// `VolumeRestrictions`.
    VolumeRestrictions,
    /// `NodeVolumeLimits`.
    NodeVolumeLimits,
    /// `VolumeBinding`.
    VolumeBinding,
    /// `VolumeZone`.
    VolumeZone,
    /// `PodTopologySpread`.
    PodTopologySpread,
    /// `InterPodAffinity`.
    InterPodAffinity,
    /// `DynamicResources`.
    DynamicResources,
    /// `NodeDeclaredFeatures`.
    NodeDeclaredFeatures,
}

impl Filter {
    /// All of them, in the order of the default profile, with kube-scheduler's names.
    pub const ALL: [(Self, &'static str); 14] = [
        (Self::NodeName, node_name::NAME),
        (Self::NodeUnschedulable, node_unschedulable::NAME),
        (Self::TaintToleration, taint_toleration::NAME),
        (Self::NodeAffinity, node_affinity::NAME),
        (Self::NodePorts, node_ports::NAME),
        (Self::NodeResourcesFit, node_resources_fit::NAME),
        (Self::VolumeRestrictions, volume_restrictions::NAME),
        (Self::NodeVolumeLimits, node_volume_limits::NAME),
        (Self::VolumeBinding, volume_binding::NAME),
        (Self::VolumeZone, volume_zone::NAME),
        (Self::PodTopologySpread, pod_topology_spread::NAME),
        (Self::InterPodAffinity, inter_pod_affinity::NAME),
        (Self::DynamicResources, dynamic_resources::NAME),
        (Self::NodeDeclaredFeatures, node_declared_features::NAME),
    ];
}

/// A set of filters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Filters(u16);

impl Filters {
    /// Every filter.
    pub const ALL: Self = Self((1 << Filter::ALL.len()) - 1);

    /// Whether this one is in the set.
    #[must_use]
    pub const fn has(self, filter: Filter) -> bool {
        self.0 & (1 << filter as u8) != 0
    }

    /// The set without this one.
    #[must_use]
    pub const fn without(self, filter: Filter) -> Self {
        Self(self.0 & !(1 << filter as u8))
    }
}

/// How much each score weighs; 0: the score is off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Weights {
    /// `TaintToleration`.
    pub taint_toleration: i64,
    /// `NodeAffinity`.
    pub node_affinity: i64,
    /// `NodeResourcesFit`.
    pub node_resources_fit: i64,
    /// `NodeResourcesBalancedAllocation`.
    pub balanced_allocation: i64,
    /// `ImageLocality`.
    pub image_locality: i64,
    /// `PodTopologySpread`.
    pub pod_topology_spread: i64,
    /// `InterPodAffinity`.
    pub inter_pod_affinity: i64,
    /// `DynamicResources`.
    pub dynamic_resources: i64,
    /// `VolumeBinding`.
    pub volume_binding: i64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            taint_toleration: taint_toleration::WEIGHT,
            node_affinity: node_affinity::WEIGHT,
            node_resources_fit: node_resources_fit::WEIGHT,
            balanced_allocation: node_resources_balanced_allocation::WEIGHT,
            image_locality: image_locality::WEIGHT,
            pod_topology_spread: pod_topology_spread::WEIGHT,
            inter_pod_affinity: inter_pod_affinity::WEIGHT,
            dynamic_resources: dynamic_resources::WEIGHT,
            volume_binding: volume_binding::WEIGHT,
        }
    }
}

impl Weights {
    /// The weight that `weight` says for each score, by kube-scheduler's name.
    #[must_use]
    pub fn of(weight: impl Fn(&str) -> i64) -> Self {
        let mut weights = Self::default();
        for (name, slot) in weights.slots() {
            *slot = weight(name);
        }
        weights
    }

    /// What each score weighs, by kube-scheduler's name.
    #[must_use]
    pub fn by_name(mut self) -> [(&'static str, i64); 9] {
        self.slots().map(|(name, weight)| (name, *weight))
    }

    /// The one place that says which weight belongs to which plugin.
    fn slots(&mut self) -> [(&'static str, &mut i64); 9] {
        [
            (taint_toleration::NAME, &mut self.taint_toleration),
            (node_affinity::NAME, &mut self.node_affinity),
            (node_resources_fit::NAME, &mut self.node_resources_fit),
            (node_resources_balanced_allocation::NAME, &mut self.balanced_allocation),
            (image_locality::NAME, &mut self.image_locality),
            (pod_topology_spread::NAME, &mut self.pod_topology_spread),
            (inter_pod_affinity::NAME, &mut self.inter_pod_affinity),
            (dynamic_resources::NAME, &mut self.dynamic_resources),
            (volume_binding::NAME, &mut self.volume_binding),
        ]
    }
}

/// Arguments of NodeResourcesFit.
#[derive(Clone, Debug, PartialEq)]
pub struct FitArgs {
    /// How use becomes a score.
    pub strategy: Strategy,
    /// The resources that are scored.
    pub resources: Vec<Scored>,
    /// Extended resources that the filter does not look at.
    pub ignored: BTreeSet<SmolStr>,
    /// The same, by what stands before the slash.
    pub ignored_groups: BTreeSet<SmolStr>,
}

impl Default for FitArgs {
    fn default() -> Self {
        Self {
            strategy: Strategy::LeastAllocated,
            resources: Scored::cpu_and_memory(),
            ignored: BTreeSet::new(),
            ignored_groups: BTreeSet::new(),
        }
    }
}

impl FitArgs {
    /// Whether the filter looks past a resource: only extended ones can be ignored.
    #[must_use]
    pub fn ignores(&self, resource: &str) -> bool {
        let group = || resource.split('/').next().unwrap_or_default();
        is_extended(resource) && (self.ignored.contains(resource) || self.ignored_groups.contains(group()))
    }
}

/// Node affinity that all pods of a profile have beside their own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AddedAffinity {
    /// Required: ORed terms; None: every node will do.
    pub required: Option<Vec<NodeSelectorTerm>>,
    /// Preferred: weight and term.
    pub preferred: Vec<(i32, NodeSelectorTerm)>,
}

/// The spread constraints of pods that have none of their own and that something selects.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SpreadDefaults {
    /// Softly over hosts and zones.
    #[default]
    System,
    /// These, whose selectors come from what selects the pod.
    List(Vec<SpreadConstraint>),
}

impl SpreadDefaults {
    /// Whether they can refuse a node.
    #[must_use]
    pub fn refuse(&self) -> bool {
        matches!(self, Self::List(all) if all.iter().any(|constraint| constraint.hard))
    }
}

/// Arguments of DefaultPreemption.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PreemptionArgs {
    /// Least share of the nodes that is looked at for victims, in percent.
    pub candidates_percent: u32,
    /// Least number of nodes that is looked at for victims.
    pub candidates_absolute: u32,
}

impl PreemptionArgs {
    /// With how many candidates the search may end, of so many nodes that may be one.
    pub(crate) fn candidates(self, nodes: usize) -> usize {
        let share = nodes.saturating_mul(self.candidates_percent as usize) / 100;
        share.max(self.candidates_absolute as usize)
    }
}

impl Default for PreemptionArgs {
    fn default() -> Self {
        Self { candidates_percent: 10, candidates_absolute: 100 }
    }
}

/// How the pods of one `schedulerName` are scheduled.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The `schedulerName`.
    pub name: SmolStr,
    /// The filters that refuse.
    pub filters: Filters,
    /// How much each score weighs.
    pub weights: Weights,
    /// Arguments of NodeResourcesFit.
    pub fit: FitArgs,
    /// The resources whose use NodeResourcesBalancedAllocation balances.
    pub balanced: Vec<Scored>,
    /// Node affinity that all pods have beside their own.
    pub added_affinity: AddedAffinity,
    /// Spread of pods that have no constraints.
    pub spread_defaults: SpreadDefaults,
    /// What the required affinity term of a pod that is there adds to the score of its place.
    pub hard_pod_affinity_weight: i64,
    /// Whether the terms of pods that are there are not scored for pods without preferred terms of their own.
    pub ignore_preferred_of_existing: bool,
    /// Arguments of DefaultPreemption; None: pods of the profile preempt nobody.
    pub preemption: Option<PreemptionArgs>,
    /// The line that VolumeBinding's score follows: ascending points of (utilization in percent, score 0..=100).
    pub volume_line: Vec<(i64, i64)>,
    /// How long volumes (VolumeBinding's bindTimeoutSeconds) and devices may take.
    pub patience: Patience,
    id: u16,
}

impl Default for Profile {
    fn default() -> Self {
        Self::named("flowforge")
    }
}

impl Profile {
    /// kube-scheduler's default profile under this name.
    #[must_use]
    pub fn named(name: impl Into<SmolStr>) -> Self {
        Self {
            name: name.into(),
            filters: Filters::ALL,
            weights: Weights::default(),
            fit: FitArgs::default(),
            balanced: Scored::cpu_and_memory(),
            added_affinity: AddedAffinity::default(),
            spread_defaults: SpreadDefaults::System,
            hard_pod_affinity_weight: inter_pod_affinity::HARD_WEIGHT,
            ignore_preferred_of_existing: false,
            preemption: Some(PreemptionArgs::default()),
            volume_line: volume_binding::LINE.to_vec(),
            patience: Patience::default(),
            id: 0,
        }
    }

    /// Position among the profiles of the process.
    #[must_use]
    pub fn id(&self) -> usize {
        usize::from(self.id)
    }
}

/// A profile as shapes hold it; equal when it is the same one of the process.
#[derive(Clone, Debug, Default)]
pub struct ProfileRef(Arc<Profile>);

impl Deref for ProfileRef {
    type Target = Profile;

    fn deref(&self) -> &Profile {
        &self.0
    }
}

impl PartialEq for ProfileRef {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for ProfileRef {}

impl Hash for ProfileRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// The profiles of a process; at least one.
#[derive(Clone, Debug)]
pub struct Profiles {
    all: Vec<ProfileRef>,
    extended: Vec<SmolStr>,
}

impl Default for Profiles {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl PartialEq for Profiles {
    fn eq(&self, other: &Self) -> bool {
        self.all.len() == other.all.len() && self.iter().zip(other.iter()).all(|(a, b)| a == b)
    }
}

impl Profiles {
    /// These profiles, or the default one where there are none.
    #[must_use]
    pub fn new(profiles: Vec<Profile>) -> Self {
        let given = if profiles.is_empty() { vec![Profile::default()] } else { profiles };
        let mut extended = Vec::new();
        let mut all = Vec::new();
        for (id, mut profile) in (0..u16::MAX).zip(given) {
            profile.id = id;
            for scored in profile.fit.resources.iter_mut().chain(&mut profile.balanced) {
                scored.resolve(&mut extended);
            }
            all.push(ProfileRef(Arc::new(profile)));
        }
        Self { all, extended }
    }

    /// The profile of a `schedulerName`; the first one where there is none of this name. `O(profiles)`.
    #[must_use]
    pub fn of(&self, scheduler_name: &str) -> ProfileRef {
        let found = self.all.iter().find(|profile| profile.name == scheduler_name);
        found.or(self.all.first()).cloned().unwrap_or_default()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.all.iter().map(|profile| &**profile)
    }

    /// Names of the extended resources that are scored; [`Lane::Extended`] is a position in it.
    #[must_use]
    pub fn extended(&self) -> &[SmolStr] {
        &self.extended
    }
}

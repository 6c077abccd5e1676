//! The closed list of reasons.

use super::{VolumeReason, rfc3339};
use crate::devices::may_be_devices;
use crate::model::Millis;
use crate::plugins::{
    Cures, dynamic_resources, inter_pod_affinity, node_affinity, node_declared_features, node_name, node_ports,
    node_resources_fit, node_unschedulable, pod_topology_spread, scheduling_gates, taint_toleration,
};
use crate::preempt;
use smol_str::SmolStr;
use std::fmt;

/// Plugin label of reasons that only gangs have.
const GANG_PLUGIN: &str = "FlowForgeGang";

/// Why a node, a pod or a gang was refused.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// The pod names another node.
    NodeName,
    /// The node is cordoned.
    NodeUnschedulable,
    /// The node has a taint that the pod does not tolerate.
    UntoleratedTaint,
    /// The node does not match the pod's selector or affinity.
    NodeAffinity,
    /// The node does not match the affinity that the pod's profile adds.
    AddedAffinity,
    /// The pod's terms name nodes that contradict each other.
    AffinityConflict,
    /// The pod's terms name other nodes.
    NotNamed,
    /// A host port is taken.
    NodePorts,
    /// The node's pod count is reached.
    TooManyPods,
    /// The node has too little left of a resource.
    Insufficient(SmolStr),
    /// The place has too many matching pods already.
    Spread,
    /// The node is in no place of a spread constraint.
    SpreadLabel,
    /// No pod that a required term asks for is there.
    PodAffinity,
    /// A pod that an anti-term forbids is there.
    PodAntiAffinity,
    /// A pod that is there forbids this one.
    ExistingAntiAffinity,
    /// The node does not declare a feature that the pod needs.
    DeclaredFeatures,
    /// Its volumes, or what the node has of storage.
    Volume(VolumeReason),
    /// A claim of the pod, or a class that it names, is not there or cannot be used; its words.
    Claim(String),
    /// The node has no devices for the pod's claims.
    Devices,
    /// A claim of the pod is allocated for other nodes, or its devices failed.
    ClaimElsewhere,
    /// The node has no devices for the pod's claims, and some of its pools contradict themselves.
    InvalidPools,
    /// A special claim of the pod for extended resources is left over from an attempt that failed.
    LeftoverClaim,
    /// The node has nothing of an extended resource that no DeviceClass stands for.
    NoSuchResource,
    /// A claim, a class or a selector is wrong; its words.
    DeviceError(String),
    /// The cluster has no node.
    NoNodes,
    /// The node is outside the domain (`level/name`) that the gang is tied to.
    OutsideDomain(String),
    /// The pod would delay a gang that room on the node is reserved for.
    Reserved {
        /// `namespace/name` of the gang.
        gang: String,
        /// Who ends by then does not delay it, in milliseconds since the epoch.
        until_ms: Millis,
        /// Whether the gang has waited so long that the node is kept for it until it starts.
        kept: bool,
        /// Whether the run time that the pod declares is no duration.
        misdeclared: bool,
    },
    /// A field of the gang asks for a topology level that is not configured: field, level, the configured ones.
    UnknownLevel(SmolStr, SmolStr, String),
    /// No domain of this level can hold the gang.
    NoDomain(SmolStr),
    /// Members bound already stand in several domains of the level that the gang requires.
    SplitDomain(SmolStr),
    /// The search gave up before it found a place or proved that there is none.
    SearchLimit(u32),
    /// Nobody on the node is less important than the pod.
    NoVictims,
    /// No eviction would make the node take the pod.
    EvictionUseless,
    /// Fewer members than needed exist (ungated): have, need, and how many exist but are gated.
    Incomplete(u32, u32, u32),
    /// Enough members exist, but too few of a role: the role, have, need, and how many members exist but are gated.
    RoleIncomplete(SmolStr, u32, u32, u32),
    /// All needed members exist; more are expected for a moment.
    Settling,
    /// Members contradict each other about the size.
    SizeConflict(u32, u32),
    /// The size is not a number of at least 1.
    SizeInvalid(SmolStr),
    /// No member says the size and no Gang object of that name exists.
    SizeMissing,
    /// The object of somebody else that should declare the gang does not exist.
    Undeclared(SmolStr),
    /// The declaration of the gang cannot be used; what to change.
    Misdeclared(String),
    /// The gang's declaration says to wait; why.
    Held(String),
    /// A member has another priority than its gang: the member's, the gang's.
    PriorityConflict(i32, i32),
    /// The member's role is not one of the gang's.
    UnknownRole(SmolStr),
    /// More pods than the gang has replicas.
    Surplus(u32),
    /// Another pod of the gang has this rank.
    RankTaken(u32),
    /// The Gang that the pod was made for is unknown or another one has its name.
    UnknownGang,
    /// The gang ended.
    GangEnded,
    /// The API server refuses the binding; its words.
    BindRefused(String),
    /// The binding was undone; why.
    Undone(String),
}

impl Reason {
    /// The plugin that speaks, as the metric label; kube-scheduler's name where it has one.
    #[must_use]
    pub fn plugin(&self) -> &'static str {
        match self {
            Self::NodeName => node_name::NAME,
            Self::NodeUnschedulable => node_unschedulable::NAME,
            Self::UntoleratedTaint => taint_toleration::NAME,
            Self::NodeAffinity | Self::AddedAffinity | Self::AffinityConflict | Self::NotNamed => node_affinity::NAME,
            Self::NodePorts => node_ports::NAME,
            Self::TooManyPods | Self::Insufficient(_) => node_resources_fit::NAME,
            Self::Spread | Self::SpreadLabel => pod_topology_spread::NAME,
            Self::PodAffinity | Self::PodAntiAffinity | Self::ExistingAntiAffinity => inter_pod_affinity::NAME,
            Self::DeclaredFeatures => node_declared_features::NAME,
            Self::Volume(reason) => reason.plugin(),
            Self::Claim(_)
            | Self::Devices
            | Self::ClaimElsewhere
            | Self::InvalidPools
            | Self::LeftoverClaim
            | Self::NoSuchResource
            | Self::DeviceError(_) => dynamic_resources::NAME,
            Self::NoNodes => "NoNodes",
            Self::NoVictims | Self::EvictionUseless => preempt::NAME,
            Self::OutsideDomain(_) | Self::NoDomain(_) | Self::SplitDomain(_) | Self::UnknownLevel(..) => {
                "FlowForgeTopology"
            }
            Self::Reserved { .. } => "FlowForgeReservation",
            Self::SearchLimit(_) => "FlowForgeSearchLimit",
            Self::BindRefused(_) | Self::Undone(_) => "FlowForgeBind",
            _ => GANG_PLUGIN,
        }
    }

    /// Whether it may end when pods leave the node, so that it is worth to look for some to evict; what kube-scheduler calls
    /// Unschedulable, as opposed to UnschedulableAndUnresolvable. Of a short resource it says so only where the node has
    /// enough of it, which is the caller's to check.
    #[must_use]
    pub fn ends_by_eviction(&self) -> bool {
        if let Self::Volume(reason) = self {
            return reason.ends_by_eviction();
        }
        matches!(
            self,
            Self::NodePorts
                | Self::TooManyPods
                | Self::Insufficient(_)
                | Self::Spread
                | Self::PodAntiAffinity
                | Self::ExistingAntiAffinity
        )
    }

    /// The events that can cure it.
    #[must_use]
    pub fn cures(&self) -> Cures {
        match self {
            Self::NodeName => node_name::CURED_BY,
            Self::NodeUnschedulable => node_unschedulable::CURED_BY,
            Self::UntoleratedTaint => taint_toleration::CURED_BY,
            Self::NodeAffinity | Self::AddedAffinity | Self::AffinityConflict => node_affinity::CURED_BY,
            Self::NodePorts => node_ports::CURED_BY,
            Self::Insufficient(name) if may_be_devices(name) => node_resources_fit::CURED_BY_CLASSES,
            Self::TooManyPods | Self::Insufficient(_) => node_resources_fit::CURED_BY,
            Self::Spread | Self::SpreadLabel => pod_topology_spread::CURED_BY,
            Self::PodAffinity | Self::PodAntiAffinity | Self::ExistingAntiAffinity => inter_pod_affinity::CURED_BY,
            Self::DeclaredFeatures => node_declared_features::CURED_BY,
            Self::Volume(reason) => reason.cures(),
            Self::Claim(_) => dynamic_resources::CLAIM_CURED_BY,
            Self::Devices
            | Self::ClaimElsewhere
            | Self::InvalidPools
            | Self::LeftoverClaim
            | Self::NoSuchResource
            | Self::DeviceError(_) => dynamic_resources::CURED_BY,
            Self::NotNamed | Self::NoNodes => Cures::NODE_ADDED,
            Self::OutsideDomain(_) | Self::NoDomain(_) | Self::Reserved { .. } => Cures::NODE.and(Cures::POD_GONE),
            Self::SplitDomain(_) => Cures::POD_GONE.and(Cures::NODE_LABELS),
            Self::SearchLimit(_) => Cures::NODE.and(Cures::POD_GONE).and(Cures::GANG_CHANGED),
            Self::NoVictims | Self::EvictionUseless => Cures::NODE.and(Cures::POD_GONE),
            Self::UnknownLevel(..)
            | Self::Incomplete(..)
            | Self::RoleIncomplete(..)
            | Self::Settling
            | Self::SizeConflict(..)
            | Self::SizeInvalid(_)
            | Self::SizeMissing
            | Self::Undeclared(_)
            | Self::Misdeclared(_)
            | Self::Held(_)
            | Self::PriorityConflict(..)
            | Self::UnknownRole(_)
            | Self::Surplus(_)
            | Self::RankTaken(_)
            | Self::UnknownGang
            | Self::GangEnded => Cures::GANG_CHANGED.and(scheduling_gates::CURED_BY),
            Self::BindRefused(_) | Self::Undone(_) => Cures::POD_CHANGED,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeName => f.write_str(node_name::REASON),
            Self::NodeUnschedulable => f.write_str(node_unschedulable::REASON),
            Self::UntoleratedTaint => f.write_str(taint_toleration::REASON),
            Self::NodeAffinity => f.write_str(node_affinity::REASON),
            Self::AddedAffinity => f.write_str(node_affinity::REASON_ADDED),
            Self::AffinityConflict => f.write_str(node_affinity::REASON_CONFLICT),
            Self::NotNamed => f.write_str(node_affinity::REASON_NOT_NAMED),
            Self::NodePorts => f.write_str(node_ports::REASON),
            Self::TooManyPods => f.write_str(node_resources_fit::TOO_MANY_PODS),
            Self::Insufficient(name) => f.write_str(&node_resources_fit::reason(name)),
            Self::Spread => f.write_str(pod_topology_spread::REASON),
            Self::SpreadLabel => f.write_str(pod_topology_spread::REASON_NO_LABEL),
            Self::PodAffinity => f.write_str(inter_pod_affinity::REASON),
            Self::PodAntiAffinity => f.write_str(inter_pod_affinity::REASON_ANTI),
            Self::ExistingAntiAffinity => f.write_str(inter_pod_affinity::REASON_EXISTING),
            Self::DeclaredFeatures => f.write_str(node_declared_features::REASON),
            Self::Volume(reason) => reason.fmt(f),
            Self::Devices => f.write_str(dynamic_resources::REASON_NONE),
            Self::ClaimElsewhere => f.write_str(dynamic_resources::REASON_ELSEWHERE),
            Self::InvalidPools => f.write_str(dynamic_resources::REASON_INVALID),
            Self::LeftoverClaim => f.write_str(dynamic_resources::REASON_LEFTOVER),
            Self::NoSuchResource => f.write_str(dynamic_resources::REASON_NO_RESOURCE),
            Self::Claim(what) | Self::DeviceError(what) => f.write_str(what),
            Self::NoNodes => f.write_str("no nodes available to schedule pods"),
            Self::NoVictims => f.write_str(preempt::NO_VICTIMS),
            Self::EvictionUseless => f.write_str(preempt::NOT_HELPFUL),
            Self::OutsideDomain(domain) => write!(f, "node(s) were outside {domain}"),
            Self::Reserved { gang, until_ms, kept, misdeclared } => reserved(f, gang, *until_ms, *kept, *misdeclared),
            Self::UnknownLevel(field, level, known) => {
                write!(f, "{field}: topology level \"{level}\" is not configured; the levels are {known}")
            }
            Self::NoDomain(level) => write!(f, "no {level} can hold it"),
            Self::SplitDomain(level) => {
                write!(f, "its bound members stand in several domains of level {level}, which must hold all of them")
            }
            Self::SearchLimit(steps) => {
                write!(f, "the search for a place gave up after {steps} steps; it will be tried again")
            }
            Self::Incomplete(have, need, 0) => write!(f, "{have} of {need} members exist"),
            Self::Incomplete(have, need, gated) => {
                write!(f, "{have} of {need} members are ready, {gated} more are gated")
            }
            Self::RoleIncomplete(role, have, need, gated) => role_incomplete(f, role, *have, *need, *gated),
            Self::Settling => f.write_str("waiting a moment for further members"),
            Self::SizeConflict(a, b) => {
                write!(f, "members contradict each other about the size ({a} and {b}); give all the same gang-size")
            }
            Self::SizeInvalid(text) => write!(f, "gang-size \"{text}\" is not a whole number of at least 1"),
            Self::SizeMissing => {
                f.write_str("no member has annotation flowforge.dev/gang-size and no Gang of this name exists")
            }
            Self::Undeclared(name) => write!(f, "{name} does not exist, and no member says how many there are"),
            Self::Misdeclared(what) | Self::Held(what) => f.write_str(what),
            Self::PriorityConflict(member, gang) => {
                write!(f, "a member has priority {member} and its group {gang}; give both the same priorityClassName")
            }
            Self::UnknownRole(role) => write!(f, "role \"{role}\" is not one of the gang's roles"),
            Self::Surplus(size) => {
                write!(f, "the gang has its {size} members already; this one waits for a free place in it")
            }
            Self::RankTaken(rank) => {
                write!(f, "another pod of the gang has rank {rank}; each rank is placed once")
            }
            Self::UnknownGang => f.write_str("the Gang that this pod was made for does not exist"),
            Self::GangEnded => f.write_str("the gang has ended; its pods are no longer placed"),
            Self::BindRefused(text) => write!(f, "the API server refuses the binding: {text}"),
            Self::Undone(text) => write!(f, "the binding was undone: {text}"),
        }
    }
}

fn reserved(f: &mut fmt::Formatter<'_>, gang: &str, until: Millis, kept: bool, misdeclared: bool) -> fmt::Result {
    let until = rfc3339(until);
    match kept {
        false => write!(f, "node(s) were reserved for gang {gang} until {until}")?,
        true => write!(f, "node(s) were kept for gang {gang} until it starts, but for work that ends by {until}")?,
    }
    if misdeclared {
        f.write_str(" (annotation flowforge.dev/expected-duration is no duration such as 90m or 1h30m)")?;
    }
    Ok(())
}

fn role_incomplete(f: &mut fmt::Formatter<'_>, role: &str, have: u32, need: u32, gated: u32) -> fmt::Result {
    match gated {
        0 => write!(f, "{have} of {need} members of role {role} exist"),
        _ => write!(f, "{have} of {need} members of role {role} are ready, {gated} more are gated"),
    }
}

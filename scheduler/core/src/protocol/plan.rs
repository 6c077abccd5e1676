//! What the engine hands in: a planned gang, a partial gang that it found, the answer to a request for new places.

use crate::model::{Millis, Owner, PodInfo, PodKey};
use crate::preparation::Preparation;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::fmt;

/// Identity of what is bound together.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd, Serialize, Deserialize)]
pub enum GangKey {
    /// A pod on its own.
    Pod(PodKey),
    /// A gang.
    Gang {
        /// Namespace.
        namespace: SmolStr,
        /// Name.
        name: SmolStr,
        /// UID of the `Gang` object; None in the plain form.
        uid: Option<SmolStr>,
    },
}

impl GangKey {
    /// The gang that a pod says it belongs to, or the pod itself.
    #[must_use]
    pub fn of(pod: &PodInfo) -> Self {
        match &pod.gang {
            Some(gang) => {
                Self::Gang { namespace: pod.key.namespace.clone(), name: gang.name.clone(), uid: gang.uid.clone() }
            }
            None => Self::Pod(pod.key.clone()),
        }
    }

    /// Namespace of all members.
    #[must_use]
    pub fn namespace(&self) -> &SmolStr {
        match self {
            Self::Pod(pod) => &pod.namespace,
            Self::Gang { namespace, .. } => namespace,
        }
    }
}

impl fmt::Display for GangKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => write!(f, "pod {}/{}", pod.namespace, pod.name),
            Self::Gang { namespace, name, .. } => write!(f, "gang {namespace}/{name}"),
        }
    }
}

/// How many of an intent's own members must be bound for the gang to be live, besides those bound before it.
///
/// The engine subtracts what is already bound; an intent for replacements of a live gang has an empty quorum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// Of all members.
    pub total: u32,
    /// Of the members of a role.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<SmolStr, u32>,
}

impl Quorum {
    /// All of so many members.
    #[must_use]
    pub fn all(members: u32) -> Self {
        Self { total: members, roles: BTreeMap::new() }
    }
}

/// A member and the node that was planned for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The pod.
    pub pod: PodKey,
    /// Its resourceVersion when it was planned; the Binding's precondition.
    pub resource_version: SmolStr,
    /// The planned node; None asks for a place by [`super::Effect::Replan`] (only in [`PartialGang`]).
    pub node: Option<SmolStr>,
    /// Whether the pod is already bound there (only in [`PartialGang`]).
    pub bound: bool,
    /// Role.
    pub role: SmolStr,
    /// Rank, where known.
    pub rank: Option<u32>,
    /// What a replacement must look like; see [`shape_of`].
    pub shape: u64,
    /// Its controller.
    pub owner: Option<Owner>,
    /// What must be done for it before it is bound there.
    pub preparations: Vec<Preparation>,
    /// How long that may take.
    pub patience: Patience,
}

impl Placement {
    /// A pending pod, planned on a node.
    #[must_use]
    pub fn new(pod: &PodInfo, node: impl Into<SmolStr>) -> Self {
        Self { node: Some(node.into()), bound: false, ..Self::found(pod) }
    }

    /// A pod of a partial gang as it is: bound to its node, or unbound and without a place.
    #[must_use]
    pub fn found(pod: &PodInfo) -> Self {
        Self {
            pod: pod.key.clone(),
            resource_version: pod.resource_version.clone(),
            node: pod.node_name.clone(),
            bound: pod.node_name.is_some(),
            role: role_of(pod),
            rank: pod.gang.as_ref().and_then(|gang| gang.rank),
            shape: shape_of(pod),
            owner: pod.owner.clone(),
            preparations: Vec::new(),
            patience: Patience::default(),
        }
    }
}

/// How long what is prepared may take, where the pod's profile says so; else it is as [`super::ProtocolConfig`] says, and for
/// what a former leader began too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// Volumes.
    pub volumes_ms: Option<Millis>,
    /// Devices.
    pub devices_ms: Option<Millis>,
}

/// A gang whose members all have a place and are assumed there by the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The gang.
    pub gang: GangKey,
    /// Its members, in rank order.
    pub members: Vec<Placement>,
    /// How many of them make the gang live.
    pub quorum: Quorum,
    /// When the last needed member was seen ungated.
    pub ready_at_ms: Millis,
    /// When the plan was made.
    pub planned_at_ms: Millis,
}

/// A gang found partially bound (0 < live bound < minimum) with no open intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialGang {
    /// The gang.
    pub gang: GangKey,
    /// Its live members, bound or not ([`Placement::found`]).
    pub members: Vec<Placement>,
    /// Slots without a pod: role, rank and, where known, shape.
    pub vacant: Vec<(SmolStr, Option<u32>, Option<u64>)>,
    /// How many of `members` and `vacant` make the gang live.
    pub quorum: Quorum,
    /// Whether it may be rolled back; false for a gang that was whole once: losing a member later is its policy's matter.
    pub may_roll_back: bool,
}

/// Answer to [`super::Effect::Replan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replanned {
    /// New places, assumed by the engine; members of the request that are not named stay without a place.
    Placed(Vec<NewPlace>),
    /// There is no place now; it is asked again until the repair deadline.
    Refused(String),
}

/// A new place for a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPlace {
    /// The pod.
    pub pod: PodKey,
    /// Its node.
    pub node: SmolStr,
    /// What must be done for it before it is bound there.
    pub preparations: Vec<Preparation>,
    /// How long that may take.
    pub patience: Patience,
}

/// Why an intent was not begun. The caller releases what it assumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// This process does not lead, or has not yet fenced the journal.
    #[error("not leading, or the journal is not fenced yet")]
    NotReady,
    /// The gang, or one of the pods, has an open intent.
    #[error("an intent is open already")]
    AlreadyOpen,
    /// The journal has no room; retry when an intent closes.
    #[error("the journal is full")]
    JournalFull,
    /// The plan has no members, or a member without a node.
    #[error("the plan is incomplete")]
    Incomplete,
}

/// Role of a pod in its gang.
pub(crate) fn role_of(pod: &PodInfo) -> SmolStr {
    pod.gang.as_ref().map_or(SmolStr::new_static("worker"), |gang| gang.role.clone())
}

/// What scheduling sees of a pod, as a stable number: equal shapes can take each other's place in an open intent.
#[must_use]
pub fn shape_of(pod: &PodInfo) -> u64 {
    let seen = (
        &pod.requests,
        &pod.node_selector,
        &pod.required_node_affinity,
        &pod.tolerations,
        &pod.host_ports,
        &pod.scheduler_name,
    );
    fnv1a(serde_json::to_string(&seen).unwrap_or_default().as_bytes())
}

/// FNV-1a, 64 bits: stable over processes and releases, which std's hashers are not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GangMembership;

    #[test]
    fn shape_ignores_identity_and_sees_requests() {
        let mut one = PodInfo { requests: [("cpu".into(), 1000)].into(), ..PodInfo::default() };
        let shape = shape_of(&one);
        one.key.name = "other".into();
        one.labels.insert("a".into(), "b".into());
        assert_eq!(shape_of(&one), shape);
        one.requests.insert("cpu".into(), 1001);
        assert_ne!(shape_of(&one), shape);
    }

    #[test]
    fn the_gang_of_a_pod_is_its_membership_or_itself() {
        let mut pod =
            PodInfo { key: PodKey { namespace: "n".into(), name: "p".into(), uid: "u".into() }, ..PodInfo::default() };
        assert_eq!(GangKey::of(&pod).to_string(), "pod n/p");
        pod.gang = Some(GangMembership {
            name: "g".into(),
            uid: None,
            size: None,
            role: "worker".into(),
            rank: None,
            topology_required: None,
            topology_preferred: Vec::new(),
        });
        assert_eq!(GangKey::of(&pod).to_string(), "gang n/g");
    }
}

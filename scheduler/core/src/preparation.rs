//! What must be done for a pod before it may be bound, as plain facts: volumes and devices that were decided with its node.
//!
//! The plugins decide these together with the node; [`crate::protocol`] carries them out between the intent in the journal
//! and the first Binding. Every write carries the UID and the resourceVersion of what it changes, so that a late one is
//! harmless. Source: the PreBind of kube-scheduler's `volumebinding` and `dynamicresources`.

use crate::model::PodKey;
use serde_json::Value;
use smol_str::SmolStr;
use std::sync::Arc;

/// Identity of a PersistentVolumeClaim or a ResourceClaim.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimName {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// UID; a claim made again under the same name is another claim.
    pub uid: SmolStr,
}

/// One thing to be done for a pod before it is bound. resourceVersions are those of the facts that the decision rests on;
/// an empty one means that the object is read first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// Give the claim this volume, and wait until the volume controller has bound them.
    BindVolume {
        /// The PersistentVolumeClaim.
        claim: ClaimName,
        /// Name of the PersistentVolume.
        volume: SmolStr,
        /// UID of the volume.
        volume_uid: SmolStr,
        /// resourceVersion of the volume.
        volume_resource_version: SmolStr,
    },
    /// Have a volume provisioned for the claim where the node can reach it, and wait until it is bound.
    Provision {
        /// The PersistentVolumeClaim.
        claim: ClaimName,
        /// resourceVersion of the claim.
        claim_resource_version: SmolStr,
        /// Name of the node.
        node: SmolStr,
    },
    /// Allocate the claim as decided and reserve it for the pod. Pods planned together that share a claim each carry the
    /// same allocation: the first writes it, the last to give it up takes it back.
    AllocateClaim {
        /// The ResourceClaim.
        claim: ClaimName,
        /// resourceVersion of the claim.
        resource_version: SmolStr,
        /// Whether the claim has the finalizer that keeps an allocated claim.
        finalized: bool,
        /// `status.allocation`; null when only a former leader knew it.
        allocation: Arc<Value>,
    },
    /// Reserve a claim that is allocated already for the pod.
    ReserveClaim {
        /// The ResourceClaim.
        claim: ClaimName,
        /// resourceVersion of the claim.
        resource_version: SmolStr,
    },
    /// Make the special claim of the pod's extended resources, allocate it and reserve it for the pod, and name it in the
    /// pod's status. To take it back means to delete it.
    CreateClaim {
        /// The claim by its name; its UID stands for what it has on no server yet.
        claim: ClaimName,
        /// The ResourceClaim to create. It and what follows are null when only a former leader knew them.
        manifest: Arc<Value>,
        /// `status.allocation`.
        allocation: Arc<Value>,
        /// `status.extendedResourceClaimStatus.requestMappings` of the pod.
        mappings: Arc<Value>,
    },
}

impl Preparation {
    /// The claim that it is about.
    #[must_use]
    pub fn claim(&self) -> &ClaimName {
        match self {
            Self::BindVolume { claim, .. }
            | Self::Provision { claim, .. }
            | Self::AllocateClaim { claim, .. }
            | Self::ReserveClaim { claim, .. }
            | Self::CreateClaim { claim, .. } => claim,
        }
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> PreparationKind {
        match self {
            Self::BindVolume { .. } => PreparationKind::BindVolume,
            Self::Provision { .. } => PreparationKind::Provision,
            Self::AllocateClaim { .. } => PreparationKind::AllocateClaim,
            Self::ReserveClaim { .. } => PreparationKind::ReserveClaim,
            Self::CreateClaim { .. } => PreparationKind::CreateClaim,
        }
    }
}

/// Kind of a preparation, for metrics and the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreparationKind {
    /// [`Preparation::BindVolume`].
    BindVolume,
    /// [`Preparation::Provision`].
    Provision,
    /// [`Preparation::AllocateClaim`].
    AllocateClaim,
    /// [`Preparation::ReserveClaim`].
    ReserveClaim,
    /// [`Preparation::CreateClaim`].
    CreateClaim,
}

impl PreparationKind {
    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::BindVolume => "bind_volume",
            Self::Provision => "provision",
            Self::AllocateClaim => "allocate_claim",
            Self::ReserveClaim => "reserve_claim",
            Self::CreateClaim => "create_claim",
        }
    }

    /// Whether it is about a volume, not about devices.
    #[must_use]
    pub fn is_volume(self) -> bool {
        matches!(self, Self::BindVolume | Self::Provision)
    }
}

/// An object that a preparation reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreparedObject {
    /// A PersistentVolume.
    Volume {
        /// Its name.
        name: SmolStr,
    },
    /// A PersistentVolumeClaim.
    VolumeClaim {
        /// Its namespace.
        namespace: SmolStr,
        /// Its name.
        name: SmolStr,
    },
    /// A ResourceClaim.
    ResourceClaim {
        /// Its namespace.
        namespace: SmolStr,
        /// Its name.
        name: SmolStr,
    },
    /// The pod itself, for what its status says of its special claim.
    Pod {
        /// Its namespace.
        namespace: SmolStr,
        /// Its name.
        name: SmolStr,
    },
}

/// What a consistent read of such an object found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectFacts {
    /// A PersistentVolume.
    Volume(VolumeFacts),
    /// A PersistentVolumeClaim.
    VolumeClaim(VolumeClaimFacts),
    /// A ResourceClaim.
    ResourceClaim(ResourceClaimFacts),
    /// The pod.
    Pod(PodFacts),
}

impl ObjectFacts {
    /// UID, resourceVersion and fence.
    pub(crate) fn identity(&self) -> (&SmolStr, &SmolStr, Option<&SmolStr>) {
        match self {
            Self::Volume(facts) => (&facts.uid, &facts.resource_version, None),
            Self::VolumeClaim(facts) => (&facts.key.uid, &facts.resource_version, facts.fence.as_ref()),
            Self::ResourceClaim(facts) => (&facts.uid, &facts.resource_version, facts.fence.as_ref()),
            Self::Pod(facts) => (&facts.uid, &facts.resource_version, facts.fence.as_ref()),
        }
    }
}

/// What a preparation wants to know of a PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeFacts {
    /// UID.
    pub uid: SmolStr,
    /// resourceVersion.
    pub resource_version: SmolStr,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `spec.claimRef`; its UID is empty where the volume was kept for a claim by name.
    pub claim: Option<ClaimName>,
}

/// What a preparation wants to know of a PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeClaimFacts {
    /// Identity.
    pub key: ClaimName,
    /// resourceVersion.
    pub resource_version: SmolStr,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether its volume is lost (phase Lost).
    pub lost: bool,
    /// `spec.volumeName`.
    pub volume: Option<SmolStr>,
    /// Whether the binding to that volume is complete.
    pub bound: bool,
    /// Annotation `volume.kubernetes.io/selected-node`.
    pub selected_node: Option<SmolStr>,
    /// Annotation `flowforge.dev/fence`.
    pub fence: Option<SmolStr>,
}

/// What a preparation wants to know of a ResourceClaim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceClaimFacts {
    /// UID.
    pub uid: SmolStr,
    /// resourceVersion.
    pub resource_version: SmolStr,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it has the finalizer that keeps an allocated claim.
    pub finalized: bool,
    /// `status.allocation`.
    pub allocation: Option<Value>,
    /// UIDs in `status.reservedFor`.
    pub reserved_for: Vec<SmolStr>,
    /// How the binding conditions of its devices stand.
    pub standing: Standing,
    /// UID of the pod for whose extended resources it was made.
    pub special_for: Option<SmolStr>,
    /// `spec.devices.requests`.
    pub requests: Value,
    /// Annotation `flowforge.dev/fence`.
    pub fence: Option<SmolStr>,
}

/// What a preparation wants to know of its pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// UID.
    pub uid: SmolStr,
    /// resourceVersion.
    pub resource_version: SmolStr,
    /// `status.extendedResourceClaimStatus.resourceClaimName`.
    pub special_claim: Option<SmolStr>,
    /// Annotation `flowforge.dev/fence`.
    pub fence: Option<SmolStr>,
}

/// How the binding conditions of a claim's devices stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// All are true, or there are none.
    #[default]
    Ready,
    /// At least one is not true yet.
    Pending,
    /// A failure condition is true; why.
    Failed(String),
}

/// A change that a preparation, or its undoing, makes to an object. Preconditions, where nothing else is said: UID and
/// resourceVersion; a claim without a UID is known by its name and resourceVersion alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrepareWrite {
    /// Set `spec.claimRef` of a volume.
    ClaimVolume {
        /// Name of the volume.
        volume: SmolStr,
        /// UID of the volume.
        uid: SmolStr,
        /// resourceVersion of the volume.
        resource_version: SmolStr,
        /// The claim that it is for.
        claim: ClaimName,
    },
    /// Set annotation `volume.kubernetes.io/selected-node` of a volume claim; None removes it.
    SelectNode {
        /// The claim.
        claim: ClaimName,
        /// resourceVersion of the claim.
        resource_version: SmolStr,
        /// The node.
        node: Option<SmolStr>,
    },
    /// Add the finalizer that keeps an allocated ResourceClaim.
    FinalizeClaim {
        /// The claim.
        claim: ClaimName,
        /// resourceVersion of the claim.
        resource_version: SmolStr,
    },
    /// Add the pod to `status.reservedFor`, and the allocation where there is one to write, at once.
    ReserveClaim {
        /// The claim.
        claim: ClaimName,
        /// resourceVersion of the claim.
        resource_version: SmolStr,
        /// `status.allocation` to write.
        allocation: Option<Arc<Value>>,
        /// The pod.
        pod: PodKey,
    },
    /// Remove the pod from `status.reservedFor`, and the allocation where nobody else reserves.
    UnreserveClaim {
        /// The claim.
        claim: ClaimName,
        /// resourceVersion of the claim.
        resource_version: SmolStr,
        /// The pod.
        pod: PodKey,
        /// Whether the allocation goes too.
        deallocate: bool,
    },
    /// Create a special claim, with the finalizer that keeps it. Precondition: there is none of its name.
    CreateClaim {
        /// Its namespace and name.
        claim: ClaimName,
        /// The object.
        manifest: Arc<Value>,
    },
    /// Name its special claim in a pod's status. Precondition: the pod's UID.
    NameClaim {
        /// The pod.
        pod: PodKey,
        /// Name of the claim.
        claim: SmolStr,
        /// Which container's resource comes from which request.
        mappings: Arc<Value>,
    },
    /// Remove the finalizer that keeps a special claim, so that it can be deleted.
    ReleaseClaim {
        /// The claim.
        claim: ClaimName,
        /// resourceVersion of the claim.
        resource_version: SmolStr,
    },
    /// Delete a special claim.
    DeleteClaim {
        /// The claim.
        claim: ClaimName,
        /// resourceVersion of the claim.
        resource_version: SmolStr,
    },
    /// Set annotation `flowforge.dev/fence`, so that writes under the present resourceVersion can no longer land.
    FenceClaim {
        /// The object: a volume claim or a ResourceClaim.
        object: PreparedObject,
        /// UID of the object.
        uid: SmolStr,
        /// resourceVersion of the object.
        resource_version: SmolStr,
        /// Value of the annotation.
        fence: SmolStr,
    },
}

/// Whether any device of an allocation has binding conditions to wait for.
#[must_use]
pub fn has_binding_conditions(allocation: &Value) -> bool {
    let conditions = |result: &Value| result["bindingConditions"].as_array().is_some_and(|list| !list.is_empty());
    results(allocation).iter().any(conditions)
}

/// Whether two allocations hand out the same devices; what the server fills in by itself does not matter.
#[must_use]
pub fn same_devices(one: &Value, other: &Value) -> bool {
    devices(one) == devices(other)
}

/// Whether two lists of requests ask for the same devices; what the server fills in by itself does not matter.
#[must_use]
pub fn same_requests(one: &Value, other: &Value) -> bool {
    let asked = |requests: &Value| -> Vec<[Value; 3]> {
        let all = requests.as_array().map(Vec::as_slice).unwrap_or_default();
        let ask =
            |of: &Value| [&of["name"], &of["exactly"]["deviceClassName"], &of["exactly"]["count"]].map(Value::clone);
        all.iter().map(ask).collect()
    };
    asked(one) == asked(other)
}

/// Request, driver, pool, device and share of every result, in order.
fn devices(allocation: &Value) -> Vec<[&str; 5]> {
    let mut devices: Vec<[&str; 5]> = results(allocation)
        .iter()
        .map(|result| ["request", "driver", "pool", "device", "shareID"].map(|key| result[key].as_str().unwrap_or("")))
        .collect();
    devices.sort_unstable();
    devices
}

fn results(allocation: &Value) -> &[Value] {
    allocation["devices"]["results"].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn allocations_are_equal_by_their_devices_alone() {
        let device = |name: &str| json!({"request": "gpu", "driver": "d", "pool": "p", "device": name});
        let one = json!({"devices": {"results": [device("0"), device("1")]}});
        let same =
            json!({"allocationTimestamp": "t", "devices": {"results": [device("1"), device("0")], "config": []}});
        assert!(same_devices(&one, &same));
        assert!(!same_devices(&one, &json!({"devices": {"results": [device("0"), device("2")]}})));
        assert!(same_devices(&json!({}), &Value::Null));
    }

    #[test]
    fn conditions_are_waited_for_where_a_device_has_them() {
        let with = |conditions: Value| json!({"devices": {"results": [{}, {"bindingConditions": conditions}]}});
        assert!(has_binding_conditions(&with(json!(["attached"]))));
        assert!(!has_binding_conditions(&with(json!([]))));
        assert!(!has_binding_conditions(&Value::Null));
    }
}

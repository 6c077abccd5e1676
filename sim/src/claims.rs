//! Claims of pods, as far as preparing them can tell: a volume that a provisioner makes where it was asked to, and devices that
//! a scheduler allocates and reserves. Beside them stand the provisioner and the controller that clears what dead pods reserve.
//!
//! Semantics: every write is a compare-and-swap on the claim's UID and resourceVersion; reservations merge by UID, as the
//! strategic patch of `reservedFor` does; a provisioner that cannot serve a node removes the annotation.

use crate::api::Api;
use crate::world::World;
use flowforge_scheduler_core::event::{PrepareReadResult, WriteResult};
use flowforge_scheduler_core::model::{PodInfo, PodKey};
use flowforge_scheduler_core::preparation::{
    ClaimName, ObjectFacts, Preparation, PrepareWrite, PreparedObject, ResourceClaimFacts, VolumeClaimFacts,
};
use serde_json::{Value, json};
use smol_str::{SmolStr, ToSmolStr};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Label of a pod that names its claim.
const CLAIM_LABEL: &str = "claim";
/// Prefix of claims for devices; the others are for volumes.
const DEVICES: &str = "devices-";

/// A claim as it is stored.
#[derive(Clone, Debug, Default)]
pub struct StoredClaim {
    /// UID.
    pub uid: SmolStr,
    version: u64,
    /// The node that a volume was asked for.
    pub selected_node: Option<SmolStr>,
    /// Whether it has its volume.
    pub bound: bool,
    finalized: bool,
    allocation: Option<Value>,
    fence: Option<SmolStr>,
    /// UIDs of the pods that it is reserved for.
    pub reserved_for: BTreeSet<SmolStr>,
}

/// The claim of a pod, if it has one.
#[must_use]
pub fn claim_of(pod: &PodInfo) -> Option<&SmolStr> {
    pod.labels.get(CLAIM_LABEL)
}

/// Gives a pod of a workload its claim: a volume of its own, or devices that the whole workload shares.
pub(crate) fn attach(pod: &mut PodInfo, workload: &SmolStr, devices: bool) {
    let claim = if devices { format!("{DEVICES}{workload}") } else { format!("volume-{}", pod.key.name) };
    pod.labels.insert(CLAIM_LABEL.into(), claim.into());
}

/// What a scheduler has to prepare for a pod on a node; it has read nothing before.
#[must_use]
pub fn preparations(pod: &PodInfo, node: &SmolStr) -> Vec<Preparation> {
    let Some(name) = claim_of(pod) else { return Vec::new() };
    let claim = ClaimName { namespace: "sim".into(), name: name.clone(), uid: uid_of(name) };
    let unread = SmolStr::default;
    vec![if name.starts_with(DEVICES) {
        let allocation = Arc::new(json!({"devices": {"results": [{"device": name}]}}));
        Preparation::AllocateClaim { claim, resource_version: unread(), finalized: false, allocation }
    } else {
        Preparation::Provision { claim, claim_resource_version: unread(), node: node.clone() }
    }]
}

fn uid_of(claim: &SmolStr) -> SmolStr {
    format!("{claim}-uid").into()
}

impl Api {
    /// Creates the claim of a pod where it is not there yet.
    pub(crate) fn create_claim(&mut self, pod: &PodInfo) {
        let Some(name) = claim_of(pod) else { return };
        let version = self.next_version();
        let fresh = || StoredClaim { uid: uid_of(name), version, ..StoredClaim::default() };
        self.claims.entry(name.clone()).or_insert_with(fresh);
    }

    /// Whether all that the pod needs is there.
    #[must_use]
    pub fn is_prepared(&self, pod: &PodInfo) -> bool {
        claim_of(pod).is_none_or(|name| {
            self.claims.get(name).is_some_and(|claim| claim.bound || claim.reserved_for.contains(&pod.key.uid))
        })
    }

    /// A consistent read of a claim.
    pub(crate) fn read_claim(&self, object: &PreparedObject) -> PrepareReadResult {
        let (PreparedObject::VolumeClaim { name, .. } | PreparedObject::ResourceClaim { name, .. }) = object else {
            return PrepareReadResult::NotFound;
        };
        let Some(claim) = self.claims.get(name) else { return PrepareReadResult::NotFound };
        let (uid, resource_version) = (claim.uid.clone(), claim.version.to_smolstr());
        let facts = if name.starts_with(DEVICES) {
            ObjectFacts::ResourceClaim(ResourceClaimFacts {
                uid,
                resource_version,
                finalized: claim.finalized,
                allocation: claim.allocation.clone(),
                reserved_for: claim.reserved_for.iter().cloned().collect(),
                fence: claim.fence.clone(),
                ..ResourceClaimFacts::default()
            })
        } else {
            ObjectFacts::VolumeClaim(VolumeClaimFacts {
                key: ClaimName { namespace: "sim".into(), name: name.clone(), uid },
                resource_version,
                volume: claim.bound.then(|| name.clone()),
                bound: claim.bound,
                selected_node: claim.selected_node.clone(),
                fence: claim.fence.clone(),
                ..VolumeClaimFacts::default()
            })
        };
        PrepareReadResult::Found(Box::new(facts))
    }

    /// A write of a preparation.
    pub(crate) fn write_claim(&mut self, write: &PrepareWrite) -> WriteResult {
        let next = self.next_version();
        let (name, uid, version) = match write {
            PrepareWrite::SelectNode { claim, resource_version, .. }
            | PrepareWrite::FinalizeClaim { claim, resource_version }
            | PrepareWrite::ReserveClaim { claim, resource_version, .. }
            | PrepareWrite::UnreserveClaim { claim, resource_version, .. } => {
                (&claim.name, &claim.uid, resource_version)
            }
            PrepareWrite::FenceClaim {
                object: PreparedObject::VolumeClaim { name, .. } | PreparedObject::ResourceClaim { name, .. },
                uid,
                resource_version,
                ..
            } => (name, uid, resource_version),
            PrepareWrite::FenceClaim { .. } | PrepareWrite::ClaimVolume { .. } => return WriteResult::NotFound,
        };
        let Some(claim) = self.claims.get_mut(name) else { return WriteResult::NotFound };
        if claim.uid != *uid || claim.version.to_smolstr() != *version {
            return WriteResult::Conflict;
        }
        claim.version = next;
        match write {
            PrepareWrite::SelectNode { node, .. } => claim.selected_node.clone_from(node),
            PrepareWrite::FinalizeClaim { .. } => claim.finalized = true,
            PrepareWrite::ReserveClaim { allocation, pod, .. } => {
                if let Some(allocation) = allocation {
                    claim.allocation = Some(allocation.as_ref().clone());
                }
                claim.reserved_for.insert(pod.uid.clone());
            }
            PrepareWrite::UnreserveClaim { pod, deallocate, .. } => {
                claim.unreserve(pod, *deallocate);
            }
            PrepareWrite::FenceClaim { fence, .. } => claim.fence = Some(fence.clone()),
            PrepareWrite::ClaimVolume { .. } => {}
        }
        WriteResult::Ok(next.to_smolstr())
    }
}

impl StoredClaim {
    fn unreserve(&mut self, pod: &PodKey, deallocate: bool) {
        self.reserved_for.remove(&pod.uid);
        if deallocate {
            self.allocation = None;
        }
    }
}

impl World {
    /// The provisioner and the claim controller look around.
    pub(crate) fn tend_claims(&mut self) {
        let faulty = self.faults.blow_every_ms > 0;
        for name in self.api.claims.keys().cloned().collect::<Vec<_>>() {
            let users: BTreeSet<SmolStr> = self.users_of(&name);
            if users.is_empty() {
                self.api.claims.remove(&name);
                continue;
            }
            let next = self.api.next_version();
            let Some(claim) = self.api.claims.get_mut(&name) else { continue };
            let before = claim.reserved_for.len();
            claim.reserved_for.retain(|uid| users.contains(uid));
            let mut changed = claim.reserved_for.len() != before;
            if changed && claim.reserved_for.is_empty() {
                claim.allocation = None;
            }
            if claim.selected_node.is_some() && !claim.bound && self.storage.per_mille(300) {
                if faulty && self.storage.per_mille(300) {
                    claim.selected_node = None;
                } else {
                    claim.bound = true;
                }
                changed = true;
            }
            // A write by someone else: the resourceVersion moves.
            changed |= faulty && self.storage.per_mille(20);
            if changed {
                claim.version = next;
            }
        }
    }

    fn users_of(&self, claim: &SmolStr) -> BTreeSet<SmolStr> {
        let uses = |pod: &&PodInfo| claim_of(pod) == Some(claim);
        self.api.pods.values().filter(uses).map(|pod| pod.key.uid.clone()).collect()
    }
}

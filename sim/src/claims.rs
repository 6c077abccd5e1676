//! Claims of pods, as far as preparing them can tell: a volume that a provisioner makes where it was asked to, and devices that
//! a scheduler allocates and reserves. Beside them stand the provisioner and the controller that clears what dead pods reserve.
//! The real engine hears of volumes by watches of their own; the protocol's own engine looks at the pod alone.
//!
//! Semantics: every write is a compare-and-swap on the claim's UID and resourceVersion; reservations merge by UID, as the
//! strategic patch of `reservedFor` does; a provisioner that cannot serve a node removes the annotation. A volume can be
//! reached from the nodes of one zone; while faults are on it may be made in another one than asked for.

use crate::api::{Api, Change};
use crate::world::{Subject, World};
use flowforge_scheduler_core::event::{Event, PrepareReadResult, RelistedKind, WriteResult};
use flowforge_scheduler_core::model::{NodeOperator, NodeRequirement, NodeSelectorTerm, PodInfo, PodKey};
use flowforge_scheduler_core::preparation::{
    ClaimName, ObjectFacts, Preparation, PrepareWrite, PreparedObject, ResourceClaimFacts, VolumeClaimFacts,
};
use flowforge_scheduler_core::volumes::{
    ClaimInfo, ClaimRef, ClassInfo, PodVolume, StorageFact, StorageKind, VolumeInfo,
};
use serde_json::{Value, json};
use smol_str::{SmolStr, ToSmolStr};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Label of a pod that names its claim.
const CLAIM_LABEL: &str = "claim";
/// Label of a node that names its zone.
pub(crate) const ZONE_LABEL: &str = "zone";
const CLASS: &str = "sim";
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
    /// The zone that its volume can be reached from; None: anywhere.
    zone: Option<SmolStr>,
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
    let claim = SmolStr::from(claim);
    if !devices {
        pod.volumes.push(PodVolume::Claim(claim.clone()));
    }
    pod.labels.insert(CLAIM_LABEL.into(), claim);
}

/// The zone of a node.
#[must_use]
pub fn zone_of(node: &str) -> SmolStr {
    let odd = node.bytes().last().is_some_and(|digit| digit % 2 == 1);
    SmolStr::new_static(if odd { "odd" } else { "even" })
}

/// The class of all volumes.
fn class() -> StorageFact {
    let (name, provisioner) = (CLASS.into(), "sim".into());
    StorageFact::Class(ClassInfo { name, provisioner, waits: true, topologies: Vec::new() })
}

impl StoredClaim {
    /// What watches show of a claim for a volume.
    fn info(&self, name: &SmolStr) -> StorageFact {
        StorageFact::Claim(ClaimInfo {
            namespace: "sim".into(),
            name: name.clone(),
            uid: self.uid.clone(),
            resource_version: self.version.to_smolstr(),
            volume: self.bound.then(|| name.clone()),
            bind_completed: self.bound,
            class: CLASS.into(),
            selected_node: self.selected_node.clone(),
            ..ClaimInfo::default()
        })
    }

    /// What watches show of its volume, where it has one.
    fn volume(&self, name: &SmolStr) -> Option<StorageFact> {
        let in_zone = |zone: &SmolStr| {
            let required =
                NodeRequirement { key: ZONE_LABEL.into(), operator: NodeOperator::In, values: vec![zone.clone()] };
            vec![NodeSelectorTerm { match_expressions: vec![required], match_fields: Vec::new() }]
        };
        self.bound.then(|| {
            StorageFact::Volume(VolumeInfo {
                name: name.clone(),
                uid: format!("{name}-volume").into(),
                class: CLASS.into(),
                claim: Some(ClaimRef { namespace: "sim".into(), name: name.clone(), uid: self.uid.clone() }),
                affinity: self.zone.as_ref().map(in_zone),
                ..VolumeInfo::default()
            })
        })
    }
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
        self.claim_changed(name);
    }

    /// Whether all that the pod needs is there, and within reach of its node.
    #[must_use]
    pub fn is_prepared(&self, pod: &PodInfo, node: &str) -> bool {
        claim_of(pod).is_none_or(|name| {
            self.claims.get(name).is_some_and(|claim| {
                let in_reach = claim.zone.as_ref().is_none_or(|zone| *zone == zone_of(node));
                (claim.bound && in_reach) || claim.reserved_for.contains(&pod.key.uid)
            })
        })
    }

    /// Watches are told of a claim and its volume, the volume first.
    fn claim_changed(&mut self, name: &SmolStr) {
        if name.starts_with(DEVICES) {
            return;
        }
        let Some(claim) = self.claims.get(name) else {
            for kind in [StorageKind::Claim, StorageKind::Volume] {
                self.changes.push(Change::StorageGone(kind, name.clone()));
            }
            return;
        };
        let facts = claim.volume(name).into_iter().chain([claim.info(name)]);
        self.changes.extend(facts.map(|fact| Change::Storage(Box::new(fact))));
    }

    /// All about storage, as a consistent list.
    pub(crate) fn list_storage(&self) -> Vec<Event> {
        let volumes = || self.claims.iter().filter(|(name, _)| !name.starts_with(DEVICES));
        let facts = volumes().flat_map(|(name, claim)| claim.volume(name).into_iter().chain([claim.info(name)]));
        let upsert = |fact| Event::StorageUpsert(Box::new(fact));
        let names = |namespace: &'static str, bound: bool| {
            let listed = volumes().filter(move |(_, claim)| claim.bound || !bound);
            listed.map(|(name, _)| (SmolStr::new_static(namespace), name.clone())).collect()
        };
        let relisted = [
            RelistedKind::Storage(StorageKind::Claim, names("sim", false)),
            RelistedKind::Storage(StorageKind::Volume, names("", true)),
        ];
        let relisted = relisted.into_iter().map(Event::Relisted);
        std::iter::once(class()).chain(facts).map(upsert).chain(relisted).collect()
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
            // Neither volumes nor special claims are stored here.
            PrepareWrite::FenceClaim { .. }
            | PrepareWrite::ClaimVolume { .. }
            | PrepareWrite::CreateClaim { .. }
            | PrepareWrite::NameClaim { .. }
            | PrepareWrite::ReleaseClaim { .. }
            | PrepareWrite::DeleteClaim { .. } => return WriteResult::NotFound,
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
            PrepareWrite::ClaimVolume { .. }
            | PrepareWrite::CreateClaim { .. }
            | PrepareWrite::NameClaim { .. }
            | PrepareWrite::ReleaseClaim { .. }
            | PrepareWrite::DeleteClaim { .. } => {}
        }
        self.claim_changed(name);
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
        // The protocol's own engine knows no zones.
        let in_zones = self.scenario.subject == Subject::Engine;
        for name in self.api.claims.keys().cloned().collect::<Vec<_>>() {
            let users: BTreeSet<SmolStr> = self.users_of(&name);
            if users.is_empty() {
                self.api.claims.remove(&name);
                self.api.claim_changed(&name);
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
            if let Some(node) = claim.selected_node.clone().filter(|_| !claim.bound)
                && self.storage.per_mille(300)
            {
                if faulty && self.storage.per_mille(300) {
                    claim.selected_node = None;
                } else {
                    claim.bound = true;
                    claim.zone = in_zones.then(|| zone_of(&node));
                    if in_zones && faulty && self.storage.per_mille(200) {
                        claim.zone = self.storage.pick(&["odd", "even"]).map(|zone| SmolStr::new_static(zone));
                    }
                }
                changed = true;
            }
            // A write by someone else: the resourceVersion moves.
            changed |= faulty && self.storage.per_mille(20);
            if changed {
                claim.version = next;
                self.api.claim_changed(&name);
            }
        }
    }

    fn users_of(&self, claim: &SmolStr) -> BTreeSet<SmolStr> {
        let uses = |pod: &&PodInfo| claim_of(pod) == Some(claim);
        self.api.pods.values().filter(uses).map(|pod| pod.key.uid.clone()).collect()
    }
}

//! The facts, who uses them, and the choices for pods that have a place.

use super::attached::NodeVolumes;
use super::choose::Choice;
use super::facts::{
    AttachmentInfo, CapacityInfo, ClaimInfo, ClassInfo, CsiDriverInfo, CsiHandle, CsiNodeInfo, ObjectName, PodVolume,
    StorageFact, StorageKind, VolumeInfo,
};
use crate::model::PodInfo;
use crate::plugins::Cures;
use crate::preparation::ClaimName;
use crate::snapshot::PodId;
use hashbrown::HashMap;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// What a pod mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounts {
    pub(super) namespace: SmolStr,
    pub(super) uid: SmolStr,
    pub(super) volumes: Vec<PodVolume>,
}

impl Mounts {
    pub(super) fn claims(&self) -> impl Iterator<Item = (ObjectName, bool)> {
        self.volumes.iter().filter_map(|volume| {
            let (name, owned) = volume.claim()?;
            Some(((self.namespace.clone(), name.clone()), owned))
        })
    }
}

/// What a storage object's news changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// What it can cure for any pod.
    pub(crate) cures: Cures,
    /// Pods that use it; for them it can cure [`Cures::CLAIMS`].
    pub(crate) users: Vec<PodId>,
    /// Pods and nodes by name whose attached volumes it can change.
    pub(crate) moved: Vec<PodId>,
    pub(crate) nodes: Vec<SmolStr>,
}

/// Everything that is known about storage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volumes {
    pub(super) claims: Map<ObjectName, Arc<ClaimInfo>>,
    pub(super) volumes: Map<SmolStr, Arc<VolumeInfo>>,
    /// Volumes by class, in the order of their names.
    pub(super) by_class: Map<SmolStr, BTreeMap<SmolStr, Arc<VolumeInfo>>>,
    /// Claims by the volume that they name.
    naming: Map<SmolStr, BTreeSet<ObjectName>>,
    pub(super) classes: Map<SmolStr, Arc<ClassInfo>>,
    pub(super) csi_nodes: Map<SmolStr, Arc<CsiNodeInfo>>,
    /// How many CSINodes limit the volumes of a driver.
    limits: Map<SmolStr, usize>,
    pub(super) drivers: Map<SmolStr, CsiDriverInfo>,
    pub(super) capacities: BTreeMap<ObjectName, CapacityInfo>,
    attachments: Map<SmolStr, AttachmentInfo>,
    /// Attachments by node, and by volume.
    on_node: Map<SmolStr, BTreeSet<SmolStr>>,
    of_volume: Map<SmolStr, BTreeSet<SmolStr>>,
    /// Pods that mount anything, and claims by who mounts them.
    pub(super) mounts: Map<PodId, Mounts>,
    users: Map<ObjectName, BTreeSet<PodId>>,
    pub(super) choices: Map<PodId, Choice>,
    /// Volumes that are kept for a claim, and for how many pods.
    pub(super) kept: Map<SmolStr, (Arc<ClaimInfo>, u32)>,
    /// Nodes that are selected for claims of a UID, and by how many pods.
    pub(super) selected: Map<ObjectName, (SmolStr, SmolStr, u32)>,
    /// By node.
    pub(super) nodes: Vec<NodeVolumes>,
    /// Changes with every class, which attached volumes may depend on.
    pub(super) epoch: u64,
}

impl Volumes {
    /// A storage object was added or changed. `O(pods that use it)`.
    pub(crate) fn set(&mut self, fact: StorageFact) -> Changed {
        match fact {
            StorageFact::Claim(claim) => self.set_claim(claim),
            StorageFact::Volume(volume) => self.set_volume(volume),
            StorageFact::Class(class) => {
                let before = self.classes.get(&class.name).cloned();
                if before.as_deref() == Some(&class) {
                    return Changed::default();
                }
                self.epoch += 1;
                self.classes.insert(class.name.clone(), Arc::new(class));
                Changed { cures: Cures::STORAGE_CLASSES, ..Changed::default() }
            }
            StorageFact::CsiNode(node) => self.set_csi_node(node),
            StorageFact::Driver(driver) => {
                let name = driver.name.clone();
                let former = self.drivers.insert(name.clone(), driver);
                let changed = former.as_ref() != self.drivers.get(&name);
                Changed {
                    cures: if changed { Cures::STORAGE_CAPACITY.and(Cures::CSI_NODES) } else { Cures::NONE },
                    ..Changed::default()
                }
            }
            StorageFact::Capacity(capacity) => {
                let key = (capacity.namespace.clone(), capacity.name.clone());
                let before = self.capacities.get(&key).map(|former| former.limit);
                let grew = before.is_none_or(|before| capacity.limit > before);
                self.capacities.insert(key, capacity);
                Changed { cures: if grew { Cures::STORAGE_CAPACITY } else { Cures::NONE }, ..Changed::default() }
            }
            StorageFact::Attachment(attachment) => self.set_attachment(attachment),
        }
    }

    /// A storage object is gone. `O(pods that use it)`.
    pub(crate) fn remove(&mut self, kind: StorageKind, namespace: &SmolStr, name: &SmolStr) -> Changed {
        let key = || (namespace.clone(), name.clone());
        match kind {
            StorageKind::Claim => {
                let Some(gone) = self.claims.remove(&key()) else { return Changed::default() };
                self.unname(&gone);
                // A refusal may have to say something else now.
                let users = self.users_of(&key());
                Changed { moved: users.clone(), users, ..Changed::default() }
            }
            StorageKind::Volume => {
                let Some(gone) = self.volumes.remove(name) else { return Changed::default() };
                self.unlist(&gone);
                self.around_volume(name, Cures::NONE)
            }
            StorageKind::Class => {
                self.epoch += u64::from(self.classes.remove(name).is_some());
                Changed::default()
            }
            StorageKind::CsiNode => {
                if let Some(gone) = self.csi_nodes.remove(name) {
                    self.count_limits(&gone, false);
                }
                Changed { cures: Cures::CSI_NODES, nodes: vec![name.clone()], ..Changed::default() }
            }
            StorageKind::Driver => {
                let gone = self.drivers.remove(name).is_some();
                let cures = if gone { Cures::STORAGE_CAPACITY.and(Cures::CSI_NODES) } else { Cures::NONE };
                Changed { cures, ..Changed::default() }
            }
            StorageKind::Capacity => {
                self.capacities.remove(&key());
                Changed::default()
            }
            StorageKind::Attachment => {
                let Some(gone) = self.attachments.remove(name) else { return Changed::default() };
                self.detach(&gone);
                Changed { cures: Cures::VOLUME_DETACHED, nodes: vec![gone.node], ..Changed::default() }
            }
        }
    }

    /// Objects of a kind that are known and that a list does not name.
    pub(crate) fn absent_from(&self, kind: StorageKind, listed: &BTreeSet<ObjectName>) -> Vec<ObjectName> {
        let bare = |name: &SmolStr| (SmolStr::default(), name.clone());
        let mut known: Vec<ObjectName> = match kind {
            StorageKind::Claim => self.claims.keys().cloned().collect(),
            StorageKind::Volume => self.volumes.keys().map(bare).collect(),
            StorageKind::Class => self.classes.keys().map(bare).collect(),
            StorageKind::CsiNode => self.csi_nodes.keys().map(bare).collect(),
            StorageKind::Driver => self.drivers.keys().map(bare).collect(),
            StorageKind::Capacity => self.capacities.keys().cloned().collect(),
            StorageKind::Attachment => self.attachments.keys().map(bare).collect(),
        };
        known.retain(|name| !listed.contains(name));
        known.sort_unstable();
        known
    }

    fn set_claim(&mut self, claim: ClaimInfo) -> Changed {
        let key = claim.key();
        let former = self.claims.get(&key).cloned();
        if former.as_deref() == Some(&claim) {
            return Changed::default();
        }
        if let Some(former) = former {
            self.unname(&former);
        }
        if let Some(volume) = &claim.volume {
            self.naming.entry(volume.clone()).or_default().insert(key.clone());
        }
        self.claims.insert(key.clone(), Arc::new(claim));
        let users = self.users_of(&key);
        Changed { moved: users.clone(), users, ..Changed::default() }
    }

    fn unname(&mut self, claim: &ClaimInfo) {
        if let Some(volume) = &claim.volume
            && let Some(naming) = self.naming.get_mut(volume)
        {
            naming.remove(&claim.key());
            if naming.is_empty() {
                self.naming.remove(volume);
            }
        }
    }

    fn set_volume(&mut self, volume: VolumeInfo) -> Changed {
        let former = self.volumes.get(&volume.name).cloned();
        if former.as_deref() == Some(&volume) {
            return Changed::default();
        }
        if let Some(former) = &former {
            self.unlist(former);
        }
        let same_source = former.is_some_and(|former| former.source == volume.source);
        let (name, class) = (volume.name.clone(), volume.class.clone());
        let volume = Arc::new(volume);
        self.by_class.entry(class).or_default().insert(name.clone(), Arc::clone(&volume));
        self.volumes.insert(name.clone(), volume);
        if same_source {
            Changed { cures: Cures::VOLUMES, ..Changed::default() }
        } else {
            self.around_volume(&name, Cures::VOLUMES)
        }
    }

    fn unlist(&mut self, volume: &VolumeInfo) {
        if let Some(listed) = self.by_class.get_mut(&volume.class) {
            listed.remove(&volume.name);
            if listed.is_empty() {
                self.by_class.remove(&volume.class);
            }
        }
    }

    /// Whose attached volumes depend on a volume.
    fn around_volume(&self, name: &SmolStr, cures: Cures) -> Changed {
        let claims = self.naming.get(name).into_iter().flatten();
        let moved = claims.flat_map(|claim| self.users_of(claim)).collect();
        let attachments = self.of_volume.get(name).into_iter().flatten();
        let nodes = attachments.filter_map(|a| self.attachments.get(a)).map(|a| a.node.clone()).collect();
        Changed { cures, users: Vec::new(), moved, nodes }
    }

    fn set_csi_node(&mut self, node: CsiNodeInfo) -> Changed {
        let name = node.name.clone();
        if self.csi_nodes.get(&name).map(Arc::as_ref) == Some(&node) {
            return Changed::default();
        }
        self.count_limits(&node, true);
        if let Some(former) = self.csi_nodes.insert(name.clone(), Arc::new(node)) {
            self.count_limits(&former, false);
        }
        Changed { cures: Cures::CSI_NODES, nodes: vec![name], ..Changed::default() }
    }

    fn count_limits(&mut self, node: &CsiNodeInfo, comes: bool) {
        for (driver, _) in node.drivers.iter().filter(|(_, limit)| limit.is_some()) {
            let count = self.limits.entry(driver.clone()).or_default();
            *count = if comes { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.limits.remove(driver);
            }
        }
    }

    /// Those of drivers that a node may refuse.
    pub(super) fn limited(&self, mut handles: BTreeSet<CsiHandle>) -> BTreeSet<CsiHandle> {
        let needed = |driver: &SmolStr| self.drivers.get(driver).is_some_and(|driver| driver.needed_on_node);
        handles.retain(|handle| self.limits.contains_key(&handle.driver) || needed(&handle.driver));
        handles
    }

    fn set_attachment(&mut self, attachment: AttachmentInfo) -> Changed {
        let former = self.attachments.get(&attachment.name).cloned();
        if former.as_ref() == Some(&attachment) {
            return Changed::default();
        }
        let mut nodes = vec![attachment.node.clone()];
        if let Some(former) = former {
            self.detach(&former);
            nodes.push(former.node);
        }
        self.on_node.entry(attachment.node.clone()).or_default().insert(attachment.name.clone());
        if let Some(volume) = &attachment.volume {
            self.of_volume.entry(volume.clone()).or_default().insert(attachment.name.clone());
        }
        self.attachments.insert(attachment.name.clone(), attachment);
        Changed { nodes, ..Changed::default() }
    }

    fn detach(&mut self, gone: &AttachmentInfo) {
        let leave = |index: &mut Map<SmolStr, BTreeSet<SmolStr>>, key: &SmolStr| {
            if let Some(names) = index.get_mut(key) {
                names.remove(&gone.name);
                if names.is_empty() {
                    index.remove(key);
                }
            }
        };
        leave(&mut self.on_node, &gone.node);
        if let Some(volume) = &gone.volume {
            leave(&mut self.of_volume, volume);
        }
    }

    /// Attachments of a node.
    pub(super) fn attachments_on(&self, node: &str) -> impl Iterator<Item = &AttachmentInfo> {
        self.on_node.get(node).into_iter().flatten().filter_map(|name| self.attachments.get(name))
    }

    /// Pods that mount a claim, placed or not.
    pub(crate) fn users_of(&self, claim: &ObjectName) -> Vec<PodId> {
        self.users.get(claim).into_iter().flatten().copied().collect()
    }

    /// Claims that name a volume.
    pub(crate) fn claims_of(&self, volume: &SmolStr) -> Vec<ClaimName> {
        let naming = self.naming.get(volume).into_iter().flatten();
        naming.filter_map(|claim| self.claim(claim)).collect()
    }

    /// Identity of a claim.
    pub(crate) fn claim(&self, claim: &ObjectName) -> Option<ClaimName> {
        self.claims.get(claim).map(|claim| claim.claim_name())
    }

    /// Claims by `namespace/name`, and volumes by name.
    pub(crate) fn dump(&self) -> (BTreeMap<String, ClaimInfo>, BTreeMap<SmolStr, VolumeInfo>) {
        let claims =
            self.claims.iter().map(|((namespace, name), claim)| (format!("{namespace}/{name}"), (**claim).clone()));
        let volumes = self.volumes.iter().map(|(name, volume)| (name.clone(), (**volume).clone()));
        (claims.collect(), volumes.collect())
    }

    /// Notes what a pod mounts; it never changes.
    pub(crate) fn enter(&mut self, id: PodId, pod: &PodInfo) {
        if pod.volumes.is_empty() {
            return;
        }
        let mounts =
            Mounts { namespace: pod.key.namespace.clone(), uid: pod.key.uid.clone(), volumes: pod.volumes.clone() };
        for (claim, _) in mounts.claims() {
            self.users.entry(claim).or_default().insert(id);
        }
        self.mounts.insert(id, mounts);
    }

    /// A pod is gone; it is on no node any more.
    pub(crate) fn leave(&mut self, id: PodId) {
        let Some(mounts) = self.mounts.remove(&id) else { return };
        for (claim, _) in mounts.claims() {
            if let Some(users) = self.users.get_mut(&claim) {
                users.remove(&id);
                if users.is_empty() {
                    self.users.remove(&claim);
                }
            }
        }
    }

    /// Whether a pod mounts anything.
    pub(crate) fn is_known(&self, id: PodId) -> bool {
        self.mounts.contains_key(&id)
    }
}

//! Volumes of CSI drivers on a node: those of its pods, and those that are attached.

use super::facts::{ClaimInfo, CsiHandle, CsiNodeInfo, PodVolume, VolumeSource};
use super::store::{Mounts, Volumes};
use crate::explain::VolumeReason;
use crate::model::PodKey;
use crate::plugins::node_volume_limits;
use crate::snapshot::{NodeId, NodeRecord};
use smol_str::{SmolStr, format_smolstr};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is known of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeVolumes {
    /// Its CSINode.
    pub(super) csi: Option<Arc<CsiNodeInfo>>,
    /// What its pods have attached, and when that was found.
    attached: Option<(u64, u64, Attached)>,
}

/// Volumes of CSI drivers on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attached {
    /// Those of pods.
    pub(super) mounted: BTreeSet<CsiHandle>,
    /// How many there are by driver, with those that are attached and that no pod mounts.
    pub(super) counts: BTreeMap<SmolStr, usize>,
}

impl NodeVolumes {
    /// Whether the node takes only so many volumes of any driver.
    pub(super) fn has_limits(&self) -> bool {
        self.csi.as_ref().is_some_and(|csi| csi.drivers.values().any(Option::is_some))
    }

    /// What is attached, as it was found last; None: nothing was asked.
    pub(super) fn attached(&self) -> Option<&Attached> {
        self.attached.as_ref().map(|(_, _, attached)| attached)
    }
}

impl Volumes {
    /// A node has this name now, or is gone.
    pub(crate) fn set_node(&mut self, node: NodeId, name: Option<&SmolStr>) {
        let at = node.index();
        if self.nodes.len() <= at {
            if name.is_none() {
                return;
            }
            self.nodes.resize_with(at + 1, NodeVolumes::default);
        }
        self.nodes[at] = NodeVolumes { csi: name.and_then(|name| self.csi_nodes.get(name)).cloned(), attached: None };
    }

    /// What was found attached to a node was so on trial only.
    pub(crate) fn forget_attached(&mut self, node: NodeId) {
        if let Some(known) = self.nodes.get_mut(node.index()) {
            known.attached = None;
        }
    }

    /// Finds anew what is attached to a node where anything about it changed since. `O(its pods)` then.
    pub(crate) fn refresh(&mut self, id: NodeId, node: &NodeRecord) {
        let found = (node.generation, self.epoch);
        let Some(known) = self.nodes.get(id.index()).filter(|known| known.has_limits()) else { return };
        if known.attached.as_ref().is_some_and(|(generation, epoch, _)| (*generation, *epoch) == found) {
            return;
        }
        let attached = self.find_attached(node);
        if let Some(known) = self.nodes.get_mut(id.index()) {
            known.attached = Some((found.0, found.1, attached));
        }
    }

    fn find_attached(&self, node: &NodeRecord) -> Attached {
        let mut attached = Attached::default();
        for mounts in node.pods.iter().filter_map(|pod| self.mounts.get(pod)) {
            attached.mounted.extend(self.handles(mounts, true));
        }
        for handle in &attached.mounted {
            *attached.counts.entry(handle.driver.clone()).or_default() += 1;
        }
        let mut others = BTreeSet::new();
        for attachment in self.attachments_on(&node.info.name).filter(|a| !a.attacher.is_empty()) {
            let volume = attachment.volume.as_ref().and_then(|name| self.volumes.get(name));
            if let Some(VolumeSource::Csi(csi)) = volume.map(|volume| &volume.source) {
                others.insert(CsiHandle { driver: attachment.attacher.clone(), handle: csi.handle.clone() });
            }
        }
        for handle in others.difference(&attached.mounted) {
            *attached.counts.entry(handle.driver.clone()).or_default() += 1;
        }
        attached
    }

    /// The volumes of CSI drivers that a pod mounts, as they count on a node with a CSINode or without one. Claims that do
    /// not exist or are not the pod's count nothing.
    pub(super) fn handles(&self, mounts: &Mounts, has_csi_node: bool) -> BTreeSet<CsiHandle> {
        let handle = |volume: &PodVolume| match volume {
            PodVolume::Disk(disk) => disk.migrated.clone().filter(|_| has_csi_node),
            PodVolume::Claim(name) | PodVolume::Ephemeral(name) => {
                let claim = self.claims.get(&(mounts.namespace.clone(), name.clone()))?;
                let owned = matches!(volume, PodVolume::Ephemeral(_));
                let is_its_own = claim.owner.as_ref() == Some(&mounts.uid);
                if owned && !is_its_own { None } else { self.handle_of(claim, has_csi_node) }
            }
        };
        mounts.volumes.iter().filter_map(handle).filter(|h| !h.driver.is_empty() && !h.handle.is_empty()).collect()
    }

    /// The first claim of a pod whose volume cannot be counted: it is not there, or is not the pod's.
    pub(super) fn uncounted(&self, mounts: &Mounts, pod: &PodKey) -> Option<VolumeReason> {
        mounts.claims().find_map(|(key, owned)| {
            let (namespace, name) = key.clone();
            match self.claims.get(&key) {
                None => Some(VolumeReason::LimitClaimMissing(namespace, name)),
                Some(claim) if owned && claim.owner.as_ref() != Some(&pod.uid) => {
                    Some(VolumeReason::LimitClaimNotOwned(namespace, name, pod.name.clone()))
                }
                Some(_) => None,
            }
        })
    }

    fn handle_of(&self, claim: &ClaimInfo, has_csi_node: bool) -> Option<CsiHandle> {
        let Some(volume) = claim.volume.as_ref().and_then(|name| self.volumes.get(name)) else {
            let class = self.classes.get(&claim.class).filter(|_| !claim.class.is_empty())?;
            let driver = node_volume_limits::driver_of(&class.provisioner, has_csi_node)?;
            // No driver calls a volume so.
            let handle = format_smolstr!("unbound claim {}/{}", claim.namespace, claim.name);
            return Some(CsiHandle { driver: driver.into(), handle });
        };
        match &volume.source {
            VolumeSource::Csi(csi) => Some(csi.clone()),
            VolumeSource::InTree(disk) => disk.csi.clone().filter(|_| has_csi_node),
            VolumeSource::Other => None,
        }
    }
}

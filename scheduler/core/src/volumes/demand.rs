//! What a pod's volumes ask of a node. Made when the pod asks, and used at once.

use super::attached::NodeVolumes;
use super::facts::{
    ClaimInfo, CsiHandle, CsiNodeInfo, ExclusiveDisk, ObjectName, PodVolume, READ_WRITE_ONCE_POD, VolumeInfo,
    VolumeSource,
};
use super::store::{Mounts, Volumes};
use super::waiting::{Fit, Waiting};
use crate::explain::VolumeReason;
use crate::labels::Labels;
use crate::model::PodKey;
use crate::plugins::volume_zone::{self, Zone, ZoneUnknown};
use crate::plugins::{node_affinity, node_volume_limits, volume_binding, volume_restrictions};
use crate::profile::{Filter, Profile};
use crate::snapshot::{Cluster, NodeId, NodeRecord, PodId};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a pod's volumes ask of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct VolumeDemand {
    /// Another pod uses a claim that serves only one.
    in_use: bool,
    /// Disks that others of the node may not mount.
    disks: Vec<ExclusiveDisk>,
    /// A claim whose volume cannot be counted.
    uncounted: Option<VolumeReason>,
    /// Volumes of CSI drivers, on a node without a CSINode and with one.
    handles: [BTreeSet<CsiHandle>; 2],
    /// Volumes of bound claims; None where there is no such volume.
    bound: Vec<Option<Arc<VolumeInfo>>>,
    /// Claims that wait for their first consumer.
    waiting: Vec<Waiting>,
    /// Zones of bound volumes.
    zones: Vec<Zone>,
    /// Weight of VolumeBinding's score.
    weight: i64,
    /// The line that the score follows.
    line: Vec<(i64, i64)>,
}

impl Volumes {
    /// What a pod's volumes ask for; None where it mounts nothing. See [`VolumeDemand::of`].
    pub(crate) fn demand(
        &self,
        id: PodId,
        pod: &PodKey,
        profile: &Profile,
        in_use: impl Fn(&ObjectName) -> bool,
    ) -> Option<Result<VolumeDemand, VolumeReason>> {
        Some(VolumeDemand::of(self, self.mounts.get(&id)?, pod, profile, in_use))
    }
}

/// The claims of a pod, in the order of its volumes.
struct Found {
    bound: Vec<SmolStr>,
    waiting: Vec<Waiting>,
}

impl VolumeDemand {
    /// What a pod's volumes ask for. `in_use`: whether a pod on a known node uses a claim.
    /// `O(its volumes + volumes of the classes of waiting claims)`.
    ///
    /// # Errors
    /// What refuses it whatever the nodes have: the first filter in profile order, its first volume.
    fn of(
        volumes: &Volumes,
        mounts: &Mounts,
        pod: &PodKey,
        profile: &Profile,
        in_use: impl Fn(&ObjectName) -> bool,
    ) -> Result<Self, VolumeReason> {
        let (weight, line) = (profile.weights.volume_binding, profile.volume_line.clone());
        let mut demand = Self { weight, line, ..Self::default() };
        if profile.filters.has(Filter::VolumeRestrictions) {
            let disk = |volume: &PodVolume| match volume {
                PodVolume::Disk(disk) => disk.exclusive.clone(),
                PodVolume::Claim(_) | PodVolume::Ephemeral(_) => None,
            };
            demand.in_use = needed_alone(volumes, mounts)?.iter().any(in_use);
            demand.disks = mounts.volumes.iter().filter_map(disk).collect();
        }
        if profile.filters.has(Filter::NodeVolumeLimits) {
            demand.uncounted = volumes.uncounted(mounts, pod);
            let handles = |has_csi_node| volumes.limited(volumes.handles(mounts, has_csi_node));
            demand.handles = [false, true].map(handles);
        }
        if profile.filters.has(Filter::VolumeBinding) {
            let Found { bound, waiting } = claims(volumes, mounts, pod)?;
            demand.bound = bound.iter().map(|name| volumes.volumes.get(name).cloned()).collect();
            demand.waiting = waiting;
        }
        if profile.filters.has(Filter::VolumeZone) {
            demand.zones = zones(volumes, mounts)?;
        }
        Ok(demand)
    }

    /// Whether it refuses no node, and every node is as good as any other for it.
    pub(crate) fn is_free(&self) -> bool {
        let anywhere =
            |volume: &Option<Arc<VolumeInfo>>| volume.as_ref().is_some_and(|v| affinities(v).all(|a| a.is_none()));
        !self.in_use
            && self.disks.is_empty()
            && self.uncounted.is_none()
            && self.handles.iter().all(BTreeSet::is_empty)
            && self.zones.is_empty()
            && self.bound.iter().all(anywhere)
            && self.waiting.iter().all(Waiting::is_free)
    }

    /// Whether it scores nodes.
    pub(crate) fn ranks(&self) -> bool {
        self.weight != 0 && !self.waiting.is_empty()
    }

    /// Whether the number of volumes on a node counts.
    pub(crate) fn counts_volumes(&self) -> bool {
        self.handles.iter().any(|handles| !handles.is_empty())
    }

    /// A claim by position.
    pub(super) fn claim(&self, at: usize) -> Arc<ClaimInfo> {
        Arc::clone(&self.waiting[at].claim)
    }

    /// How its claims would be served on a node.
    pub(super) fn fit(&self, name: &str, labels: &Labels, csi: Option<&CsiNodeInfo>) -> Fit {
        let mut fit = super::waiting::fit(&self.waiting, name, labels);
        match self.unreachable(labels, csi) {
            Some(reason) => {
                fit.conflicts.insert(0, reason);
                fit
            }
            None => fit,
        }
    }

    /// The first bound volume that a node cannot have.
    fn unreachable(&self, labels: &Labels, csi: Option<&CsiNodeInfo>) -> Option<VolumeReason> {
        self.bound.iter().find_map(|volume| match volume {
            None => Some(VolumeReason::NoSuchVolume),
            Some(volume) => (!is_reachable(volume, labels, csi)).then_some(VolumeReason::Affinity),
        })
    }
}

/// Claims that serve one pod only.
fn needed_alone(volumes: &Volumes, mounts: &Mounts) -> Result<Vec<ObjectName>, VolumeReason> {
    let mut alone = Vec::new();
    for (key, owned) in mounts.claims().filter(|(_, owned)| !owned) {
        let claim = volumes.claims.get(&key).ok_or_else(|| VolumeReason::ClaimMissing(key.1.clone()))?;
        if !owned && claim.modes.iter().any(|mode| mode == READ_WRITE_ONCE_POD) {
            alone.push(key);
        }
    }
    Ok(alone)
}

fn claims(volumes: &Volumes, mounts: &Mounts, pod: &PodKey) -> Result<Found, VolumeReason> {
    let mut all = Vec::new();
    for (key, owned) in mounts.claims() {
        let name = || key.1.clone();
        let Some(claim) = volumes.claims.get(&key) else {
            return Err(if owned {
                VolumeReason::EphemeralClaimMissing(name())
            } else {
                VolumeReason::BindingClaimMissing(name())
            });
        };
        if claim.lost {
            return Err(VolumeReason::ClaimLost(name(), claim.volume.clone().unwrap_or_default()));
        }
        if claim.deleting {
            return Err(VolumeReason::ClaimDeleting(name()));
        }
        if owned && claim.owner.as_ref() != Some(&pod.uid) {
            return Err(VolumeReason::ClaimNotOwned(pod.namespace.clone(), name(), pod.name.clone()));
        }
        all.push(claim);
    }
    let mut found = Found { bound: Vec::new(), waiting: Vec::new() };
    for claim in all {
        let class = volumes.classes.get(&claim.class).filter(|class| class.waits && !claim.class.is_empty());
        match (&claim.volume, class) {
            (Some(volume), _) if claim.bind_completed => found.bound.push(volume.clone()),
            (None, Some(class)) => found.waiting.push(Waiting::new(volumes, claim, class)),
            _ => return Err(VolumeReason::UnboundClaims),
        }
    }
    Ok(found)
}

/// Zones of the volumes of claims that the pod names.
fn zones(volumes: &Volumes, mounts: &Mounts) -> Result<Vec<Zone>, VolumeReason> {
    let mut all = Vec::new();
    for (key, _) in mounts.claims().filter(|(_, owned)| !owned) {
        let claim = volumes.claims.get(&key).ok_or_else(|| ZoneUnknown::ClaimMissing(key.1.clone()));
        let claim = claim.map_err(VolumeReason::ZoneUnknown)?;
        let Some(name) = &claim.volume else {
            waits(volumes, &claim.class).map_err(VolumeReason::ZoneUnknown)?;
            continue;
        };
        let volume = volumes.volumes.get(name).ok_or_else(|| VolumeReason::VolumeMissing(name.clone()))?;
        all.extend(volume_zone::zones(&volume.labels));
    }
    Ok(all)
}

/// Whether claims of a class have no volume before their pod has a node.
fn waits(volumes: &Volumes, class: &SmolStr) -> Result<(), ZoneUnknown> {
    if class.is_empty() {
        return Err(ZoneUnknown::NoClass);
    }
    match volumes.classes.get(class) {
        None => Err(ZoneUnknown::ClassMissing(class.clone())),
        Some(class) if class.waits => Ok(()),
        Some(_) => Err(ZoneUnknown::Unbound),
    }
}

/// Node affinities that may count for a volume.
fn affinities(volume: &VolumeInfo) -> impl Iterator<Item = &Option<Vec<crate::model::NodeSelectorTerm>>> {
    let in_tree = match &volume.source {
        VolumeSource::InTree(disk) => Some(&disk.affinity),
        VolumeSource::Csi(_) | VolumeSource::Other => None,
    };
    std::iter::once(&volume.affinity).chain(in_tree)
}

/// Whether a node can have a bound volume.
pub(super) fn is_reachable(volume: &VolumeInfo, labels: &Labels, csi: Option<&CsiNodeInfo>) -> bool {
    let terms = match &volume.source {
        VolumeSource::InTree(disk) if csi.is_some_and(|csi| csi.migrated.contains(&disk.plugin)) => &disk.affinity,
        _ => &volume.affinity,
    };
    matches(terms.as_deref(), labels)
}

/// Whether a node with these labels is among those of a volume's terms. As upstream, they do not see the node's name, and
/// what they say of it does not count.
pub(super) fn matches(terms: Option<&[crate::model::NodeSelectorTerm]>, labels: &Labels) -> bool {
    node_affinity::fits(&BTreeMap::new(), terms, "", labels)
}

/// The volumes of one pod against the nodes of one moment.
pub(crate) struct VolumeView<'a> {
    demand: &'a VolumeDemand,
    cluster: &'a Cluster,
}

impl<'a> VolumeView<'a> {
    /// The demand, asked of these nodes.
    pub(crate) fn new(demand: &'a VolumeDemand, cluster: &'a Cluster) -> Self {
        Self { demand, cluster }
    }

    fn known(&self, id: NodeId) -> Option<(&'a NodeRecord, Option<&'a NodeVolumes>)> {
        Some((self.cluster.node(id)?, self.cluster.volumes.nodes.get(id.index())))
    }

    /// Why the pod may not stand on a node, the first in profile order. `O(its volumes)`; with disks `O(pods of the node)`.
    pub(crate) fn refuse(&self, id: NodeId) -> Option<VolumeReason> {
        let (node, volumes) = self.known(id)?;
        if self.meets_a_disk(node) {
            return Some(VolumeReason::DiskConflict);
        }
        if self.demand.in_use {
            return Some(VolumeReason::ReadWriteOncePod);
        }
        let csi = volumes.and_then(|volumes| volumes.csi.as_deref());
        self.demand
            .uncounted
            .clone()
            .or_else(|| self.beyond_limits(volumes))
            .or_else(|| self.demand.fit(&node.info.name, &node.info.labels, csi).conflicts.into_iter().next())
            .or_else(|| (!volume_zone::fits(&self.demand.zones, &node.info.labels)).then_some(VolumeReason::Zone))
    }

    /// Everything that the filter has against a node which refuses it first for this reason.
    pub(crate) fn reasons(&self, id: NodeId, first: VolumeReason) -> Vec<VolumeReason> {
        match self.known(id) {
            Some((node, volumes)) if first.plugin() == volume_binding::NAME => {
                let csi = volumes.and_then(|volumes| volumes.csi.as_deref());
                self.demand.fit(&node.info.name, &node.info.labels, csi).conflicts
            }
            _ => vec![first],
        }
    }

    /// Weighted score of a node that may take the pod.
    pub(crate) fn score(&self, dense: u32) -> i64 {
        let Some((id, node)) = self.cluster.nodes.at(dense) else { return 0 };
        let csi = self.cluster.volumes.nodes.get(id.index()).and_then(|volumes| volumes.csi.as_deref());
        let fit = self.demand.fit(&node.info.name, &node.info.labels, csi);
        self.demand.weight * volume_binding::score(&fit.classes(&self.demand.waiting), &self.demand.line)
    }

    fn meets_a_disk(&self, node: &NodeRecord) -> bool {
        if self.demand.disks.is_empty() {
            return false;
        }
        let mounts = node.pods.iter().filter_map(|pod| self.cluster.volumes.mounts.get(pod));
        let mut others = mounts.flat_map(|mounts| &mounts.volumes).filter_map(|volume| match volume {
            PodVolume::Disk(disk) => disk.exclusive.as_ref(),
            PodVolume::Claim(_) | PodVolume::Ephemeral(_) => None,
        });
        others.any(|other| self.demand.disks.iter().any(|disk| volume_restrictions::conflict(disk, other)))
    }

    fn beyond_limits(&self, volumes: Option<&NodeVolumes>) -> Option<VolumeReason> {
        let csi = volumes.and_then(|volumes| volumes.csi.as_deref());
        let handles = &self.demand.handles[usize::from(csi.is_some())];
        let drivers: BTreeSet<&SmolStr> = handles.iter().map(|handle| &handle.driver).collect();
        let is_needed = |driver: &&&SmolStr| {
            let known = self.cluster.volumes.drivers.get(**driver);
            known.is_some_and(|known| known.needed_on_node)
                && !csi.is_some_and(|csi| csi.drivers.contains_key(**driver))
        };
        if let Some(missing) = drivers.iter().find(is_needed) {
            return Some(VolumeReason::DriverMissing((*missing).clone()));
        }
        let attached = volumes.and_then(NodeVolumes::attached)?;
        let fits = |driver: &&SmolStr| {
            let limit = csi.and_then(|csi| csi.drivers.get(*driver).copied().flatten());
            let fresh = |handle: &&CsiHandle| handle.driver == **driver && !attached.mounted.contains(*handle);
            let more = handles.iter().filter(fresh).count();
            more == 0 || node_volume_limits::fits(limit, attached.counts.get(*driver).copied().unwrap_or(0), more)
        };
        (!drivers.iter().all(fits)).then_some(VolumeReason::Limit)
    }
}

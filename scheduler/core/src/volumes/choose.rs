//! Choices for pods that have a place: which volumes are kept for their claims, and which claims have their node selected;
//! and whether what was prepared of it is what was chosen.

use super::demand::{VolumeDemand, is_reachable};
use super::facts::{ClaimInfo, VolumeInfo};
use super::store::Volumes;
use crate::explain::VolumeReason;
use crate::preparation::{ClaimName, Preparation};
use crate::protocol::Check;
use crate::snapshot::{NodeRecord, PodId};
use smol_str::SmolStr;
use std::sync::Arc;

/// What was chosen for a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    node: SmolStr,
    /// Claims, and the volumes that they get.
    bind: Vec<(Arc<ClaimInfo>, Arc<VolumeInfo>)>,
    /// Claims that a volume is made for.
    provision: Vec<Arc<ClaimInfo>>,
    /// Why the node cannot serve them: the pod must not be bound there.
    conflict: Option<VolumeReason>,
}

#[cfg(test)]
impl Choice {
    /// How many claims are bound, and made volumes for.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.bind.len(), self.provision.len())
    }
}

impl Volumes {
    /// A pod has a place: its waiting claims get what the node can give them. Nothing where all are bound; where the node
    /// cannot serve them, that is remembered.
    pub(crate) fn choose(&mut self, id: PodId, demand: Result<&VolumeDemand, VolumeReason>, node: &NodeRecord) {
        let csi = self.csi_nodes.get(&node.info.name).map(Arc::as_ref);
        let refused = |conflict| Choice {
            node: node.info.name.clone(),
            bind: Vec::new(),
            provision: Vec::new(),
            conflict: Some(conflict),
        };
        let choice = match demand {
            Ok(demand) => {
                demand.choose(&node.info.name, &node.info.labels, csi).unwrap_or_else(|why| Some(refused(why)))
            }
            Err(why) => Some(refused(why)),
        };
        let Some(choice) = choice else { return };
        for (claim, volume) in &choice.bind {
            let kept = self.kept.entry(volume.name.clone()).or_insert_with(|| (Arc::clone(claim), 0));
            kept.1 += 1;
        }
        for claim in &choice.provision {
            let fresh = || (choice.node.clone(), claim.uid.clone(), 0);
            self.selected.entry(claim.key()).or_insert_with(fresh).2 += 1;
        }
        self.choices.insert(id, choice);
    }

    /// A pod has no place any more, or is bound: what was chosen for it is free. Returns whether anything was.
    pub(crate) fn give_back(&mut self, id: PodId) -> bool {
        let Some(choice) = self.choices.remove(&id) else { return false };
        for (_, volume) in &choice.bind {
            if let Some(kept) = self.kept.get_mut(&volume.name) {
                kept.1 -= 1;
                if kept.1 == 0 {
                    self.kept.remove(&volume.name);
                }
            }
        }
        for claim in &choice.provision {
            if let Some(selected) = self.selected.get_mut(&claim.key()) {
                selected.2 -= 1;
                if selected.2 == 0 {
                    self.selected.remove(&claim.key());
                }
            }
        }
        true
    }

    /// What has to be done before a pod may be bound to its place, in the order of its volumes; claims that are bound by now
    /// need nothing.
    ///
    /// # Errors
    /// Why its place cannot serve its claims, so that it must not be bound there.
    pub(crate) fn preparations(&self, id: PodId) -> Result<Vec<Preparation>, VolumeReason> {
        let Some(choice) = self.choices.get(&id) else { return Ok(Vec::new()) };
        if let Some(conflict) = &choice.conflict {
            return Err(conflict.clone());
        }
        let mut all: Vec<Preparation> = Vec::new();
        for (claim, volume) in &choice.bind {
            if let Some(claim) = self.unbound(claim) {
                let volume = self.volumes.get(&volume.name).unwrap_or(volume);
                all.push(Preparation::BindVolume {
                    claim: claim.claim_name(),
                    volume: volume.name.clone(),
                    volume_uid: volume.uid.clone(),
                    volume_resource_version: volume.resource_version.clone(),
                });
            }
        }
        for claim in &choice.provision {
            if let Some(claim) = self.unbound(claim) {
                all.push(Preparation::Provision {
                    claim: claim.claim_name(),
                    claim_resource_version: claim.resource_version.clone(),
                    node: choice.node.clone(),
                });
            }
        }
        // A claim that a pod mounts twice is prepared once.
        let mut seen = Vec::new();
        all.retain(|one| {
            let fresh = !seen.contains(one.claim());
            seen.push(one.claim().clone());
            fresh
        });
        Ok(all)
    }

    /// A claim as it is now, where it is not bound yet. Where it is gone, whoever prepares it finds out.
    fn unbound<'a>(&'a self, claim: &'a Arc<ClaimInfo>) -> Option<&'a ClaimInfo> {
        let known = self.claims.get(&claim.key()).filter(|known| known.uid == claim.uid).unwrap_or(claim);
        (!known.is_bound()).then_some(known)
    }

    /// Whether all claims of a pod are bound to volumes that a node can reach: a volume may have been provisioned elsewhere
    /// than asked for. Source: `checkBindings` of kube-scheduler's volume binder.
    pub(crate) fn check(&self, id: PodId, node: &NodeRecord) -> Check {
        let csi = self.csi_nodes.get(&node.info.name).map(Arc::as_ref);
        let mut check = Check::Sound;
        for (key, _) in self.mounts.get(&id).into_iter().flat_map(|mounts| mounts.claims()) {
            let Some(claim) = self.claims.get(&key) else {
                return Check::Broken(format!("PersistentVolumeClaim {}/{} is gone", key.0, key.1));
            };
            let volume = claim.volume.as_ref().filter(|_| claim.bind_completed).and_then(|name| self.volumes.get(name));
            match volume {
                None => check = Check::NotYet,
                Some(volume) if is_reachable(volume, &node.info.labels, csi) => {}
                Some(volume) => {
                    let (volume, node) = (&volume.name, &node.info.name);
                    let claim = format!("PersistentVolumeClaim {}/{}", key.0, key.1);
                    return Check::Broken(format!(
                        "PersistentVolume {volume} of {claim} cannot be reached from node {node}"
                    ));
                }
            }
        }
        check
    }
}

impl ClaimInfo {
    /// Identity.
    #[must_use]
    pub fn claim_name(&self) -> ClaimName {
        ClaimName { namespace: self.namespace.clone(), name: self.name.clone(), uid: self.uid.clone() }
    }
}

impl VolumeDemand {
    /// What the claims get on a node; None where there is nothing to choose.
    fn choose(
        &self,
        name: &SmolStr,
        labels: &crate::labels::Labels,
        csi: Option<&super::facts::CsiNodeInfo>,
    ) -> Result<Option<Choice>, VolumeReason> {
        let fit = self.fit(name, labels, csi);
        if let Some(conflict) = fit.conflicts.into_iter().next() {
            return Err(conflict);
        }
        let bind: Vec<_> = fit.bind.into_iter().map(|(at, volume)| (self.claim(at), volume)).collect();
        let provision: Vec<_> = fit.provision.into_iter().map(|(at, _)| self.claim(at)).collect();
        let any = !bind.is_empty() || !provision.is_empty();
        Ok(any.then(|| Choice { node: name.clone(), bind, provision, conflict: None }))
    }
}

//! Choices for pods that have a place: which volumes are kept for their claims, and which claims have their node selected.

use super::demand::VolumeDemand;
use super::facts::{ClaimInfo, VolumeInfo};
use super::store::Volumes;
use crate::model::{ClaimName, Preparation};
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
}

#[cfg(test)]
impl Choice {
    /// How many claims are bound, and made volumes for.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.bind.len(), self.provision.len())
    }
}

impl Volumes {
    /// A pod has a place: its waiting claims get what the node can give them. Nothing where all are bound, or where the
    /// node can not serve them.
    pub(crate) fn choose(&mut self, id: PodId, demand: &VolumeDemand, node: &NodeRecord) {
        let csi = self.csi_nodes.get(&node.info.name).map(Arc::as_ref);
        let Some(choice) = demand.choose(&node.info.name, &node.info.labels, csi) else { return };
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
    pub(crate) fn preparations(&self, id: PodId) -> Vec<Preparation> {
        let Some(choice) = self.choices.get(&id) else { return Vec::new() };
        let open = |claim: &ClaimInfo| {
            let known = self.claims.get(&claim.key()).filter(|known| known.uid == claim.uid);
            let name = |known: &Arc<ClaimInfo>| ClaimName {
                namespace: known.namespace.clone(),
                name: known.name.clone(),
                uid: known.uid.clone(),
            };
            match known {
                Some(known) if known.is_bound() => None,
                Some(known) => Some((name(known), known.resource_version.clone())),
                // Gone: whoever prepares finds out.
                None => Some((
                    ClaimName { namespace: claim.namespace.clone(), name: claim.name.clone(), uid: claim.uid.clone() },
                    claim.resource_version.clone(),
                )),
            }
        };
        let mut all: Vec<Preparation> = Vec::new();
        for (claim, volume) in &choice.bind {
            let Some((claim, claim_resource_version)) = open(claim) else { continue };
            let volume = self.volumes.get(&volume.name).unwrap_or(volume);
            all.push(Preparation::BindVolume {
                claim,
                claim_resource_version,
                volume: volume.name.clone(),
                volume_uid: volume.uid.clone(),
                volume_resource_version: volume.resource_version.clone(),
            });
        }
        for claim in &choice.provision {
            let Some((claim, claim_resource_version)) = open(claim) else { continue };
            all.push(Preparation::Provision { claim, claim_resource_version, node: choice.node.clone() });
        }
        // A claim that a pod mounts twice is prepared once.
        let mut seen = Vec::new();
        all.retain(|one| {
            let fresh = !seen.contains(one.claim());
            seen.push(one.claim().clone());
            fresh
        });
        all
    }
}

impl VolumeDemand {
    fn choose(
        &self,
        name: &SmolStr,
        labels: &crate::labels::Labels,
        csi: Option<&super::facts::CsiNodeInfo>,
    ) -> Option<Choice> {
        let fit = self.fit(name, labels, csi);
        if !fit.conflicts.is_empty() {
            return None;
        }
        let bind: Vec<_> = fit.bind.into_iter().map(|(at, volume)| (self.claim(at), volume)).collect();
        let provision: Vec<_> = fit.provision.into_iter().map(|(at, _)| self.claim(at)).collect();
        (!bind.is_empty() || !provision.is_empty()).then(|| Choice { node: name.clone(), bind, provision })
    }
}

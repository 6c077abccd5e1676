//! Storage, kept with the cluster: what pods mount, and what is chosen for them when they come to a node.

use super::cluster::Cluster;
use super::node::NodeId;
use super::pod::{Place, PodId};
use crate::explain::VolumeReason;
use crate::plugins::Cures;
use crate::preparation::{ClaimName, Preparation};
use crate::profile::Profile;
use crate::protocol::Check;
use crate::volumes::{Changed, ObjectName, StorageFact, StorageKind, VolumeDemand};
use smol_str::SmolStr;
use std::collections::BTreeSet;

/// What news of a storage object can cure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageNews {
    /// For any pod.
    pub cures: Cures,
    /// Pods that use it, for which it can cure [`Cures::CLAIMS`].
    pub users: Vec<PodId>,
}

impl Cluster {
    /// A storage object was added or changed. `O(pods that use it)`.
    pub(crate) fn set_storage(&mut self, fact: StorageFact) -> StorageNews {
        let changed = self.volumes.set(fact);
        self.storage_changed(changed)
    }

    /// A storage object is gone. `O(pods that use it)`.
    pub(crate) fn remove_storage(&mut self, kind: StorageKind, namespace: &SmolStr, name: &SmolStr) -> StorageNews {
        let changed = self.volumes.remove(kind, namespace, name);
        self.storage_changed(changed)
    }

    /// A list of a kind came: what it does not name is gone.
    pub(crate) fn retain_storage(&mut self, kind: StorageKind, listed: &BTreeSet<ObjectName>) -> StorageNews {
        let mut news = StorageNews::default();
        for (namespace, name) in self.volumes.absent_from(kind, listed) {
            let one = self.remove_storage(kind, &namespace, &name);
            news.cures = news.cures.and(one.cures);
            news.users.extend(one.users);
        }
        news
    }

    /// Notes the nodes where something else is attached now.
    fn storage_changed(&mut self, changed: Changed) -> StorageNews {
        for name in &changed.nodes {
            if let Some(id) = self.find_node(name) {
                let known = self.node(id).is_some_and(|node| !node.placeholder);
                self.volumes.set_node(id, known.then_some(name));
                self.touch(id);
            }
        }
        for node in changed.moved.iter().filter_map(|pod| self.pod(*pod)?.place.node()).collect::<BTreeSet<NodeId>>() {
            self.touch(node);
        }
        StorageNews { cures: changed.cures, users: changed.users }
    }

    /// What a pod's volumes ask of a node; None where every node is as good as any other.
    pub(crate) fn volume_demand(&mut self, id: PodId, profile: &Profile) -> Result<Option<VolumeDemand>, VolumeReason> {
        let Some(demand) = self.volumes_asked(id, profile).transpose()?.filter(|demand| !demand.is_free()) else {
            return Ok(None);
        };
        if demand.counts_volumes() {
            for (node, record) in self.nodes.iter() {
                self.volumes.refresh(node, record);
            }
        }
        Ok(Some(demand))
    }

    /// What refuses a pod for its volumes whatever the nodes have.
    pub(crate) fn volumes_refuse(&self, id: PodId, profile: &Profile) -> Option<VolumeReason> {
        self.volumes_asked(id, profile)?.err()
    }

    fn volumes_asked(&self, id: PodId, profile: &Profile) -> Option<Result<VolumeDemand, VolumeReason>> {
        let key = &self.pod(id)?.key;
        let on_known_node = |pod: &PodId| {
            let node = self.pod(*pod).and_then(|pod| self.node(pod.place.node()?));
            *pod != id && node.is_some_and(|node| !node.placeholder)
        };
        self.volumes.demand(id, key, profile, |claim| self.volumes.users_of(claim).iter().any(on_known_node))
    }

    /// A pod went from one state to the other: what was chosen for it follows.
    pub(super) fn volumes_follow(&mut self, id: PodId, place: Place) {
        if !self.volumes.is_known(id) {
            return;
        }
        self.volumes.give_back(id);
        if let Place::Assumed(node) = place
            && let Some(demand) = self.volumes_asked(id, &Profile::default())
            && let Some(record) = self.nodes.get(node)
        {
            self.volumes.choose(id, demand.as_ref().map_err(Clone::clone), record);
        }
    }

    /// What has to be done for its volumes before an assumed pod may be bound.
    ///
    /// # Errors
    /// Why its node cannot serve its claims.
    pub(crate) fn volume_preparations(&self, id: PodId) -> Result<Vec<Preparation>, VolumeReason> {
        self.volumes.preparations(id)
    }

    /// Whether the volumes that were prepared for a pod are those that it can have on a node.
    pub(crate) fn check_volumes(&self, id: PodId, node: NodeId) -> Check {
        self.nodes.get(node).map_or(Check::NotYet, |node| self.volumes.check(id, node))
    }

    /// Claims that say they have this volume.
    pub(crate) fn claims_of_volume(&self, volume: &SmolStr) -> Vec<ClaimName> {
        self.volumes.claims_of(volume)
    }

    /// Identity of a claim.
    pub(crate) fn volume_claim(&self, namespace: &SmolStr, name: &SmolStr) -> Option<ClaimName> {
        self.volumes.claim(&(namespace.clone(), name.clone()))
    }
}

//! ResourceClaims of pods: what they ask for, and the devices that are held while a pod is assumed.

use super::cluster::Cluster;
use super::node::NodeId;
use super::pod::{Place, PodId};
use crate::devices::{DeviceDemand, DeviceId};
use crate::explain::Reason;
use crate::model::PodInfo;
use crate::preparation::{ClaimName, Preparation};
use crate::protocol::Check;
use smol_str::SmolStr;

impl Cluster {
    /// What the claims of a pod of ours ask for; None where it has none.
    ///
    /// # Errors
    /// What refuses it whatever the nodes have.
    pub(crate) fn device_demand(&self, id: PodId) -> Result<Option<DeviceDemand>, Reason> {
        let Some(info) = self.info(id).filter(|info| self.may_claim(info)) else { return Ok(None) };
        // What members of one gang allocate together they may share.
        let gang = |pod: PodId| {
            let info = self.info(pod)?;
            info.gang.as_ref().map(|gang| (info.key.namespace.clone(), gang.name.clone()))
        };
        let own = gang(id);
        self.devices.demand(info, |other| other == id || (own.is_some() && gang(other) == own))
    }

    /// Whether a pod has claims, or asks for resources that a class stands for.
    pub(crate) fn may_claim(&self, info: &PodInfo) -> bool {
        !info.resource_claims.is_empty() || self.devices.stands_for_any(info)
    }

    /// Identities of a claim.
    pub(crate) fn device_claim(&self, namespace: &SmolStr, name: &SmolStr) -> Vec<ClaimName> {
        self.devices.claim(namespace, name).map(|claim| claim.identities()).unwrap_or_default()
    }

    /// What has to be done for its claims before an assumed pod may be bound.
    ///
    /// # Errors
    /// Why its node cannot serve its claims.
    pub(crate) fn claim_preparations(&self, id: PodId) -> Result<Vec<Preparation>, Reason> {
        let node = self.pod(id).and_then(|pod| pod.place.node()).and_then(|node| self.node(node));
        match (self.info(id), node) {
            (Some(info), Some(node)) => self.devices.preparations(id, info, &node.info),
            _ => Ok(Vec::new()),
        }
    }

    /// Whether the claims of a pod are allocated for a node, as far as is seen by now.
    pub(crate) fn check_claims(&self, id: PodId, node: NodeId) -> Check {
        match (self.info(id), self.node(node)) {
            (Some(pod), Some(node)) => self.devices.check(pod, &node.info),
            _ => Check::NotYet,
        }
    }

    /// Allocates the claims of a pod that is assumed on a node: the best devices there beside those of its gang. One that was
    /// taken off the node on trial gets what it had.
    pub(super) fn hold_devices(&mut self, id: PodId, place: Place) {
        let Some(node) = place.node() else { return };
        if self.devices.return_lent(id, node) || !matches!(place, Place::Assumed(_)) {
            return;
        }
        let Ok(Some(demand)) = self.device_demand(id) else { return };
        let Some(info) = self.node(node).map(|node| &node.info) else { return };
        let mates = self.devices_of_mates(id, node);
        if let Ok(offer) = demand.choose(&self.devices, info, &mates) {
            self.devices.assume(id, offer);
        }
    }

    /// Devices that others of a pod's gang have on a node. `O(pods on the node)`.
    fn devices_of_mates(&self, id: PodId, node: NodeId) -> Vec<DeviceId> {
        let gang = |pod: PodId| {
            let info = self.info(pod)?;
            Some((&info.key.namespace, &info.gang.as_ref()?.name))
        };
        let Some(own) = gang(id) else { return Vec::new() };
        let on_node = self.node(node).into_iter().flat_map(|record| record.pods());
        let mates = on_node.filter(|pod| **pod != id && gang(**pod) == Some(own));
        mates.filter_map(|pod| Some(self.devices.devices_of(*pod, self.info(*pod)?))).flatten().collect()
    }
}

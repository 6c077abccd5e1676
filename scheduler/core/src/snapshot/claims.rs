//! ResourceClaims of pods: what they ask for, and the devices that are held while a pod is assumed.

use super::cluster::Cluster;
use super::node::NodeId;
use super::pod::PodId;
use crate::devices::DeviceDemand;
use crate::explain::Reason;
use crate::preparation::{ClaimName, Preparation};
use crate::protocol::Check;
use smol_str::SmolStr;

impl Cluster {
    /// What the claims of a pod of ours ask for; None where it has none.
    ///
    /// # Errors
    /// What refuses it whatever the nodes have.
    pub(crate) fn device_demand(&self, id: PodId) -> Result<Option<DeviceDemand>, Reason> {
        let Some(info) = self.info(id).filter(|info| !info.resource_claims.is_empty()) else { return Ok(None) };
        // What members of one gang allocate together they may share.
        let gang = |pod: PodId| {
            let info = self.info(pod)?;
            info.gang.as_ref().map(|gang| (info.key.namespace.clone(), gang.name.clone()))
        };
        let own = gang(id);
        self.devices.demand(info, |other| other == id || (own.is_some() && gang(other) == own))
    }

    /// Identity of a claim.
    pub(crate) fn device_claim(&self, namespace: &SmolStr, name: &SmolStr) -> Option<ClaimName> {
        self.devices.claim(namespace, name).map(|claim| claim.claim_name())
    }

    /// What has to be done for its claims before an assumed pod may be bound.
    ///
    /// # Errors
    /// Why its node cannot serve its claims.
    pub(crate) fn claim_preparations(&self, id: PodId) -> Result<Vec<Preparation>, Reason> {
        self.info(id).map_or(Ok(Vec::new()), |info| self.devices.preparations(id, info))
    }

    /// Whether the claims of a pod are allocated for a node, as far as is seen by now.
    pub(crate) fn check_claims(&self, id: PodId, node: NodeId) -> Check {
        match (self.info(id), self.node(node)) {
            (Some(pod), Some(node)) => self.devices.check(pod, &node.info),
            _ => Check::NotYet,
        }
    }

    /// Allocates the claims of a pod that is assumed on a node: the devices are those that it was offered there.
    pub(super) fn hold_devices(&mut self, id: PodId, node: NodeId) {
        let Ok(Some(demand)) = self.device_demand(id) else { return };
        let Some(info) = self.node(node).map(|node| &node.info) else { return };
        if let Ok(offer) = demand.offer(&self.devices, info) {
            self.devices.assume(id, offer.allocations);
        }
    }
}

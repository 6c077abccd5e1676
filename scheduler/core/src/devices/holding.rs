//! What is held for assumed pods: it follows their places, also on trial.
//!
//! A pod that is taken off its node on trial and comes back holds what it held, not what would be chosen for it by then: its claims
//! may be on their way to the server.

use super::demand::Offer;
use super::inside::DeviceId;
use super::store::{Devices, Pending};
use crate::model::PodInfo;
use crate::snapshot::{NodeId, PodId};
use smol_str::SmolStr;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a pod holds on a node, by claim.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lent {
    node: NodeId,
    claims: Vec<(SmolStr, Pending)>,
}

impl Devices {
    /// Holds the devices of claims that a pod is assumed to allocate.
    pub(crate) fn assume(&mut self, pod: PodId, offer: Offer) {
        let Offer { allocations: claims, special, .. } = offer;
        let mut uids = Vec::with_capacity(claims.len());
        for (uid, allocation) in claims {
            if !self.pending.contains_key(&uid) {
                self.usage.add(&allocation);
            }
            let special = special.clone().filter(|special| special.claim.uid == uid);
            let fresh = || Pending { allocation: Arc::new(allocation), pods: Vec::new(), special };
            self.pending.entry(uid.clone()).or_insert_with(fresh).pods.push(pod);
            uids.push(uid);
        }
        if !uids.is_empty() {
            self.assumed.insert(pod, uids);
        }
    }

    /// Gives back what a pod is assumed to allocate, where no other pod shares it and the claim has not got it for certain.
    pub(crate) fn forget(&mut self, pod: PodId, written: bool) {
        for uid in self.assumed.remove(&pod).unwrap_or_default() {
            let Some(pending) = self.pending.get_mut(&uid) else { continue };
            pending.pods.retain(|other| *other != pod);
            if pending.pods.is_empty() && !written {
                self.drop_pending(&uid);
            }
        }
    }

    /// Keeps in mind what a pod holds that is about to be taken off its node on trial.
    pub(crate) fn lend(&mut self, pod: PodId, node: NodeId) {
        let uids = self.assumed.get(&pod).into_iter().flatten();
        let claims: Vec<_> = uids.filter_map(|uid| Some((uid.clone(), self.pending.get(uid)?.clone()))).collect();
        if !claims.is_empty() {
            self.lent.insert(pod, Lent { node, claims });
        }
    }

    /// Gives a pod back what it held, where it comes back to its node; false where nothing is kept for it.
    pub(crate) fn return_lent(&mut self, pod: PodId, node: NodeId) -> bool {
        let Some(lent) = self.lent.remove(&pod).filter(|lent| lent.node == node) else { return false };
        let mut uids = Vec::with_capacity(lent.claims.len());
        for (uid, held) in lent.claims {
            let fresh = || Pending { pods: Vec::new(), ..held.clone() };
            if !self.pending.contains_key(&uid) {
                self.usage.add(&held.allocation);
            }
            let pending = self.pending.entry(uid.clone()).or_insert_with(fresh);
            pending.pods.push(pod);
            // In the order in which they came.
            pending.pods.sort_by_key(|other| held.pods.iter().position(|known| known == other));
            uids.push(uid);
        }
        self.assumed.insert(pod, uids);
        true
    }

    /// The devices that a pod has, or is assumed to get.
    pub(crate) fn devices_of(&self, id: PodId, pod: &PodInfo) -> BTreeSet<DeviceId> {
        let uids = self.assumed.get(&id).into_iter().flatten();
        let assumed = uids.filter_map(|uid| self.pending.get(uid)).map(|pending| &*pending.allocation);
        let claims = pod.resource_claims.iter().filter_map(|of| self.claim_of(pod, of).ok().flatten());
        let special = self.special_of(&pod.key.uid).cloned();
        let known: Vec<_> = claims.chain(special).collect();
        let known = known.iter().filter_map(|claim| claim.allocation.as_ref());
        known.chain(assumed).flat_map(|allocation| &allocation.results).map(|result| result.id.clone()).collect()
    }
}

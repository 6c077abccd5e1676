//! Claims that could be given up for a pod that no node takes: PostFilter of DynamicResources.
//!
//! A claim of the pod that is allocated, and cannot be used on some node that would do otherwise, loses its allocation where
//! nobody but the pod reserves it: then its devices are chosen anew. As upstream one claim at a time, and whether or not
//! another node could use it; upstream takes any, here it is the first of the pod's.

use super::demand::{DeviceDemand, is_available};
use super::facts::ClaimInfo;
use crate::model::NodeInfo;
use smol_str::SmolStr;
use std::sync::Arc;

impl DeviceDemand {
    /// The allocated claims that nobody but the pod reserves, in the pod's order.
    pub(crate) fn idle(&self, pod: &SmolStr) -> Vec<Arc<ClaimInfo>> {
        let idle = |claim: &ClaimInfo| claim.allocation.is_some() && claim.reserved_for.iter().all(|uid| uid == pod);
        self.claims.iter().map(|(claim, _)| claim).filter(|claim| idle(claim)).cloned().collect()
    }
}

impl ClaimInfo {
    /// Whether a node cannot use what the claim has.
    pub(crate) fn is_unusable_on(&self, node: &NodeInfo) -> bool {
        !is_available(self, None, node)
    }
}

//! What a pod's claims ask of a node: the part of DynamicResources that sees nodes, and what refuses the pod before any.

use super::allocator::{MAX_STEPS, Stop, allocate, choose};
use super::extended::{Special, Wanted, special_name, special_uid};
use super::facts::{Allocation, ClaimInfo, ClaimSource, PodClaim, RequestKind};
use super::inside::DeviceId;
use super::result;
use super::store::Devices;
use crate::explain::Reason;
use crate::model::{NodeInfo, PodInfo};
use crate::plugins::{dynamic_resources, node_affinity};
use crate::preparation::{ClaimName, Preparation};
use crate::protocol::Check;
use crate::snapshot::PodId;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Scores of the alternatives of a request start here (`FirstAvailableDeviceRequestMaxSize`).
const ALTERNATIVES: i64 = 8;

/// The claims of a pod, with what is assumed of them by others of its gang.
#[derive(Clone, Debug)]
pub(crate) struct DeviceDemand {
    pub(super) claims: Vec<(Arc<ClaimInfo>, Option<Arc<Allocation>>)>,
    /// Extended resources that classes stand for.
    pub(super) extended: Option<Wanted>,
}

/// What a node offers for the claims.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offer {
    /// For each claim that is allocated now, by its UID.
    pub(crate) allocations: Vec<(SmolStr, Allocation)>,
    /// The special claim that one of them is for.
    pub(crate) special: Option<Arc<Special>>,
    /// Raw score.
    pub(crate) score: i64,
}

impl Devices {
    /// What a pod's claims ask for; None where it has none. `O(claims · requests)`.
    ///
    /// # Errors
    /// What refuses it whatever the nodes have.
    pub(crate) fn demand(
        &self,
        pod: &PodInfo,
        may_share: impl Fn(PodId) -> bool,
    ) -> Result<Option<DeviceDemand>, Reason> {
        let mut claims = Vec::new();
        for claim in &pod.resource_claims {
            claims.extend(self.claim_of(pod, claim)?);
        }
        let extended = self.wanted(pod);
        if claims.is_empty() && extended.is_none() {
            return Ok(None);
        }
        let mut all = Vec::with_capacity(claims.len());
        for claim in claims {
            if claim.allocation.is_some() && !claim.may_reserve(&pod.key.uid) {
                return Err(Reason::Claim(dynamic_resources::IN_USE.to_owned()));
            }
            let pending = self.pending.get(&claim.uid).filter(|_| claim.allocation.is_none());
            if let Some(pending) = pending {
                if !pending.is_shared(&may_share) {
                    let what = format!("resource claim {} is in the process of being allocated", claim.key());
                    return Err(Reason::Claim(what));
                }
            } else if claim.allocation.is_none() {
                self.check_classes(&claim)?;
            }
            let pending = pending.map(|pending| pending.allocation.clone());
            all.push((claim, pending));
        }
        Ok(Some(DeviceDemand { claims: all, extended }))
    }

    /// What has to be done for the claims of an assumed pod before it may be bound.
    ///
    /// # Errors
    /// Why its place cannot serve a claim.
    pub(crate) fn preparations(&self, id: PodId, pod: &PodInfo, node: &NodeInfo) -> Result<Vec<Preparation>, Reason> {
        let mut all = Vec::new();
        for of in &pod.resource_claims {
            let Some(claim) = self.claim_of(pod, of)? else { continue };
            let (name, resource_version) = (claim.claim_name(), claim.resource_version.clone());
            if claim.allocation.is_some() {
                if !claim.is_reserved_for(&pod.key.uid) {
                    all.push(Preparation::ReserveClaim { claim: name, resource_version });
                }
                continue;
            }
            let Some(pending) = self.pending.get(&claim.uid).filter(|pending| pending.pods.contains(&id)) else {
                return Err(Reason::Devices);
            };
            all.push(Preparation::AllocateClaim {
                claim: name,
                resource_version,
                finalized: claim.finalized,
                allocation: Arc::new(pending.allocation.to_json()),
            });
        }
        all.extend(self.special_preparation(id, pod, node)?);
        Ok(all)
    }

    /// The special claim is made, allocated and reserved, and named in the pod's status; None where the node needs none.
    fn special_preparation(&self, id: PodId, pod: &PodInfo, node: &NodeInfo) -> Result<Option<Preparation>, Reason> {
        let Some(wanted) = self.wanted(pod) else { return Ok(None) };
        if wanted.on(node)?.is_none() {
            return Ok(None);
        }
        let uid = special_uid(&pod.key.uid);
        let pending = self.pending.get(&uid).filter(|pending| pending.pods.contains(&id)).ok_or(Reason::Devices)?;
        let special = pending.special.as_ref().ok_or(Reason::Devices)?;
        let name = special_name(&pod.key.name, &pod.key.uid);
        Ok(Some(Preparation::CreateClaim {
            claim: ClaimName { namespace: pod.key.namespace.clone(), name, uid },
            manifest: Arc::new(special.manifest(pod)),
            allocation: Arc::new(pending.allocation.to_json()),
            mappings: Arc::new(special.mappings()),
        }))
    }

    /// Whether the claims of a pod are allocated for a node, as far as is seen by now.
    pub(crate) fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Check {
        for of in &pod.resource_claims {
            match self.claim_of(pod, of) {
                Ok(Some(claim)) if !is_available(&claim, None, node) => {
                    let what = format!("ResourceClaim {} is allocated for other nodes, or failed", claim.key());
                    return Check::Broken(what);
                }
                Ok(_) => {}
                Err(reason) => return Check::Broken(reason.to_string()),
            }
        }
        Check::Sound
    }

    pub(super) fn claim_of(&self, pod: &PodInfo, of: &PodClaim) -> Result<Option<Arc<ClaimInfo>>, Reason> {
        let owner = || format!("pod \"{}/{}\"", pod.key.namespace, pod.key.name);
        let (name, generated) = match &of.source {
            ClaimSource::Named(name) => (name, false),
            ClaimSource::Template(Some(Some(name))) => (name, true),
            ClaimSource::Template(Some(None)) => return Ok(None),
            ClaimSource::Template(None) => {
                return Err(Reason::Claim(format!("{}: {}", owner(), dynamic_resources::NOT_CREATED)));
            }
            ClaimSource::Unknown => {
                return Err(Reason::Claim(format!(
                    "{}, spec.resourceClaim {:?}: {}",
                    owner(),
                    of.name,
                    dynamic_resources::UNSUPPORTED
                )));
            }
        };
        let Some(claim) = self.claim(&pod.key.namespace, name) else {
            return Err(Reason::Claim(dynamic_resources::not_found(&pod.key.namespace, name)));
        };
        if claim.deleting {
            return Err(Reason::Claim(format!("resourceclaim {:?} is being deleted", claim.name)));
        }
        if generated && claim.controller.as_ref() != Some(&pod.key.uid) {
            let what = format!(
                "ResourceClaim {} was not created for Pod {}/{} (Pod is not owner)",
                claim.key(),
                pod.key.namespace,
                pod.key.name
            );
            return Err(Reason::Claim(what));
        }
        Ok(Some(claim.clone()))
    }

    fn check_classes(&self, claim: &ClaimInfo) -> Result<(), Reason> {
        for request in &claim.requests {
            let asks: Vec<(String, &SmolStr)> = match &request.kind {
                RequestKind::Exactly(ask) => vec![(request.name.to_string(), &ask.class)],
                RequestKind::FirstAvailable(all) => {
                    all.iter().map(|(name, ask)| (format!("{}/{name}", request.name), &ask.class)).collect()
                }
                RequestKind::Unknown => {
                    let what =
                        format!("resource claim {}, request {}: unknown request type", claim.key(), request.name);
                    return Err(Reason::Claim(what));
                }
            };
            for (name, class) in asks {
                if class.is_empty() {
                    return Err(Reason::DeviceError(format!("request {name}: unsupported request type")));
                }
                if self.class(class).is_none() {
                    return Err(Reason::Claim(format!("request {name}: device class {class} does not exist")));
                }
            }
        }
        Ok(())
    }
}

impl DeviceDemand {
    /// Whether nodes differ in score.
    pub(crate) fn scores(&self) -> bool {
        let alternatives =
            |claim: &ClaimInfo| claim.requests.iter().any(|r| matches!(r.kind, RequestKind::FirstAvailable(_)));
        self.allocates() && self.claims.iter().any(|(claim, _)| alternatives(claim))
    }

    fn allocates(&self) -> bool {
        self.extended.is_some() || self.claims.iter().any(|(claim, _)| claim.allocation.is_none())
    }

    /// The special claim of an attempt that failed, which keeps the pod from every node.
    pub(crate) fn leftover(&self) -> Option<&Arc<ClaimInfo>> {
        match &self.extended {
            Some(Wanted::Leftover(claim)) => Some(claim),
            _ => None,
        }
    }

    /// What a node offers: the first devices that will do.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn offer(&self, devices: &Devices, node: &NodeInfo) -> Result<Offer, Reason> {
        self.offer_of(devices, node, None)
    }

    /// What is taken of a node: the best devices, where [`Self::offer`] finds any. `mates` are those that others of the pod's
    /// gang have there.
    ///
    /// # Errors
    /// As [`Self::offer`].
    pub(crate) fn choose(&self, devices: &Devices, node: &NodeInfo, mates: &[DeviceId]) -> Result<Offer, Reason> {
        self.offer_of(devices, node, Some(mates))
    }

    fn offer_of(&self, devices: &Devices, node: &NodeInfo, mates: Option<&[DeviceId]>) -> Result<Offer, Reason> {
        let special = self.extended.as_ref().map_or(Ok(None), |wanted| wanted.on(node))?.map(Arc::new);
        let mut offer = Offer::default();
        if self.claims.is_empty() && special.is_none() {
            return Ok(offer);
        }
        if self.allocates() {
            let special_claim = special.as_ref().map(|special| &special.claim);
            let open: Vec<&ClaimInfo> = self.open().map(Arc::as_ref).chain(special_claim).collect();
            let found = match mates {
                None => allocate(devices, node, &open, MAX_STEPS),
                Some(mates) => choose(devices, node, &open, MAX_STEPS, mates),
            };
            let found = found.map_err(|stop| match stop {
                Stop::Nothing => Reason::Devices,
                Stop::InvalidPools => Reason::InvalidPools,
                Stop::Error(what) => Reason::DeviceError(what),
                Stop::Limit => Reason::SearchLimit(MAX_STEPS),
            })?;
            for (claim, pending) in &self.claims {
                offer.allocations.extend(pending.as_ref().map(|shared| (claim.uid.clone(), shared.as_ref().clone())));
            }
            for (claim, found) in open.iter().zip(&found) {
                offer.allocations.push((claim.uid.clone(), result::allocation(claim, found, &node.name)));
            }
        }
        if !self.claims.iter().all(|(claim, pending)| is_available(claim, pending.as_deref(), node)) {
            return Err(Reason::ClaimElsewhere);
        }
        offer.special = special;
        if self.scores() {
            offer.score = self.score(&offer.allocations);
        }
        Ok(offer)
    }

    /// Claims that nobody has allocated yet.
    fn open(&self) -> impl Iterator<Item = &Arc<ClaimInfo>> {
        self.claims
            .iter()
            .filter(|(claim, pending)| claim.allocation.is_none() && pending.is_none())
            .map(|(claim, _)| claim)
    }

    /// The earlier an alternative stands, the more it is worth.
    fn score(&self, allocated: &[(SmolStr, Allocation)]) -> i64 {
        let allocated: BTreeMap<&SmolStr, &Allocation> =
            allocated.iter().map(|(uid, allocation)| (uid, allocation)).collect();
        let mut score = 0;
        for (claim, pending) in &self.claims {
            let of = claim.allocation.as_ref().or(pending.as_deref()).or_else(|| allocated.get(&claim.uid).copied());
            let Some(of) = of else { continue };
            for request in &claim.requests {
                let RequestKind::FirstAvailable(all) = &request.kind else { continue };
                for (at, (name, _)) in (0..).zip(all) {
                    let full = format!("{}/{name}", request.name);
                    if of.results.iter().any(|result| result.request == full) {
                        score += ALTERNATIVES - at;
                    }
                }
            }
        }
        score
    }
}

/// Whether an allocated claim can be used on a node, and its devices did not fail to become ready.
pub(super) fn is_available(claim: &ClaimInfo, pending: Option<&Allocation>, node: &NodeInfo) -> bool {
    let Some(allocation) = claim.allocation.as_ref().or(pending) else { return true };
    let reached = allocation
        .node_selector
        .as_ref()
        .is_none_or(|terms| node_affinity::fits(&BTreeMap::new(), Some(terms), &node.name, &node.labels));
    reached && (claim.allocation.is_none() || !has_failed(claim, allocation))
}

fn has_failed(claim: &ClaimInfo, allocation: &Allocation) -> bool {
    for result in allocation.results.iter().filter(|result| !result.binding_conditions.is_empty()) {
        let Some(met) = claim.conditions.get(&result.id) else { return false };
        if result.binding_failure_conditions.iter().any(|condition| met.contains(condition)) {
            return true;
        }
        if !result.binding_conditions.iter().all(|condition| met.contains(condition)) {
            return false;
        }
    }
    false
}

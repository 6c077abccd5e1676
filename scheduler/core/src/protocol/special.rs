//! The special claim of a pod's extended resources: made, allocated, reserved and named for one pod, and deleted on the way back.
//!
//! ```text
//!   not there ──POST──> there ──PATCH status──> reserved ──PATCH pod status──> named ──> Done, or Waiting for conditions
//!      └─ 409: GET ─┬─ ours, for the same requests ──^          └─ a former leader's: GET pod ──^
//!                   └─ else: the member is replanned
//!
//!   back:  GET ─┬─ not there, or another's ──> clean
//!               └─ ours ──remove finalizer──> ──DELETE──> clean
//! ```
//! Its name is the same for every attempt, so that a POST whose fate is unknown may be sent again. One that lands after all
//! was taken back leaves a claim that holds nothing: it is found and deleted when its pod is tried again, or goes with it.

use super::task::{Known, Stage, Task, shown_devices};
use crate::model::PodKey;
use crate::preparation::{
    ClaimName, ObjectFacts, PodFacts, Preparation, PrepareWrite, ResourceClaimFacts, Standing, has_binding_conditions,
    same_devices, same_requests,
};
use serde_json::Value;
use smol_str::SmolStr;
use std::sync::Arc;

/// The next write ahead; `given` are manifest, allocation and mappings.
pub(super) fn write(known: &Known, claim: ClaimName, given: [&Arc<Value>; 3], pod: &PodKey) -> PrepareWrite {
    let [manifest, allocation, mappings] = given.map(Arc::clone);
    let resource_version = known.version.clone();
    if resource_version.is_empty() {
        return PrepareWrite::CreateClaim { claim, manifest };
    }
    if known.reserved {
        return PrepareWrite::NameClaim { pod: pod.clone(), claim: claim.name, mappings };
    }
    // What the server calls it is not known; the resourceVersion is its alone.
    let claim = ClaimName { uid: SmolStr::default(), ..claim };
    if !known.finalized {
        return PrepareWrite::FinalizeClaim { claim, resource_version };
    }
    let allocation = (!known.allocated).then_some(allocation);
    PrepareWrite::ReserveClaim { claim, resource_version, allocation, pod: pod.clone() }
}

/// Where a write that landed under this resourceVersion leads.
pub(super) fn landed(known: &Known, version: SmolStr, allocation: &Value) -> Stage {
    if known.reserved {
        return if known.waits { Stage::Waiting } else { Stage::Done };
    }
    let reserves = !known.version.is_empty() && known.finalized;
    let waits = has_binding_conditions(allocation);
    let known =
        if reserves { Known { allocated: true, reserved: true, waits, ..known.clone() } } else { known.clone() };
    Stage::Todo(Some(Known { version, finalized: true, ..known }))
}

impl Task {
    /// Whether it is about a special claim, and whether all of that is known here.
    fn special(&self) -> Option<bool> {
        match &self.what {
            Preparation::CreateClaim { manifest, .. } => Some(!manifest.is_null()),
            _ => None,
        }
    }

    /// Whether only the pod can tell if its status names the claim: a former leader knew what to write there.
    pub(super) fn asks_pod(&self, known: &Known) -> bool {
        known.reserved && self.special() == Some(false)
    }

    /// Whether its next write changes the pod.
    pub(super) fn names_claim(&self) -> bool {
        let reserved = matches!(&self.stage, Stage::Todo(Some(known)) if known.reserved);
        reserved && self.special().is_some()
    }

    /// Nothing of that name is there: it is made. False: that is not for this task to do.
    pub(super) fn begin_again(&mut self) -> bool {
        let begins = self.special() == Some(true);
        if begins {
            self.failures = self.failures.saturating_add(1);
            self.stage = Stage::Todo(Some(Known::default()));
        }
        begins
    }

    /// Whether facts are about the object of this task, and not about another of the same name.
    pub(super) fn is_about(&self, facts: &ObjectFacts) -> bool {
        match (&self.what, facts) {
            (Preparation::CreateClaim { .. }, ObjectFacts::ResourceClaim(facts)) => facts.special_for.is_some(),
            _ => *facts.identity().0 == self.what.claim().uid,
        }
    }

    /// What a read of the claim says on the way to Done; None: it is not about a special claim.
    pub(super) fn learn_special_claim(
        &self,
        facts: &ResourceClaimFacts,
        pod: &PodKey,
    ) -> Option<Result<Stage, String>> {
        let Preparation::CreateClaim { claim, manifest, allocation, .. } = &self.what else { return None };
        Some(self.learn_special(facts, pod, claim, manifest, allocation))
    }

    fn learn_special(
        &self,
        facts: &ResourceClaimFacts,
        pod: &PodKey,
        claim: &ClaimName,
        manifest: &Value,
        allocation: &Value,
    ) -> Result<Stage, String> {
        if facts.special_for.as_ref() != Some(&pod.uid) || facts.deleting {
            return Err(format!("{} is another pod's, or is being deleted", shown_devices(claim)));
        }
        let known = self.special() == Some(true);
        if known && !same_requests(&facts.requests, &manifest["spec"]["devices"]["requests"]) {
            return Err(format!("{} was made for another node", shown_devices(claim)));
        }
        let version = facts.resource_version.clone();
        let fresh = Known { version, finalized: facts.finalized, ..Known::default() };
        match &facts.allocation {
            None if known && self.stage != Stage::Waiting => Ok(Stage::Todo(Some(fresh))),
            None => Err(format!("the allocation of {} is gone", shown_devices(claim))),
            Some(found) if known && !same_devices(found, allocation) => {
                Err(format!("{} was allocated by someone else meanwhile", shown_devices(claim)))
            }
            Some(_) if !facts.reserved_for.contains(&pod.uid) => {
                Ok(Stage::Todo(Some(Known { allocated: true, ..fresh })))
            }
            Some(_) => match &facts.standing {
                Standing::Failed(why) => Err(format!("a device of {} is not ready: {why}", shown_devices(claim))),
                Standing::Ready if self.stage == Stage::Waiting => Ok(Stage::Done),
                Standing::Pending if self.stage == Stage::Waiting => Ok(Stage::Waiting),
                standing => {
                    let waits = *standing == Standing::Pending;
                    Ok(Stage::Todo(Some(Known { allocated: true, reserved: true, waits, ..fresh })))
                }
            },
        }
    }

    /// What a read of the pod says of a former leader's claim.
    pub(super) fn learn_pod(&self, facts: &PodFacts, pod: &PodKey) -> Result<Stage, String> {
        let claim = self.what.claim();
        let waits = matches!(&self.stage, Stage::Todo(Some(known)) if known.waits);
        if facts.uid != pod.uid || facts.special_claim.as_ref() != Some(&claim.name) {
            return Err(format!("what {} is for ended with the former leader", shown_devices(claim)));
        }
        Ok(if waits { Stage::Waiting } else { Stage::Done })
    }

    /// A special claim of the pod is deleted, as soon as nothing keeps it.
    pub(super) fn undo_create(&self, facts: &ResourceClaimFacts, pod: &PodKey) -> Option<PrepareWrite> {
        let Preparation::CreateClaim { claim, .. } = &self.what else { return None };
        if facts.special_for.as_ref() != Some(&pod.uid) {
            return None;
        }
        let claim = ClaimName { uid: facts.uid.clone(), ..claim.clone() };
        let resource_version = facts.resource_version.clone();
        Some(if facts.finalized {
            PrepareWrite::ReleaseClaim { claim, resource_version }
        } else {
            PrepareWrite::DeleteClaim { claim, resource_version }
        })
    }

    /// The finalizer is off under this resourceVersion: the claim is deleted next. False: it was something else that landed.
    pub(super) fn released(&mut self, version: &SmolStr) -> bool {
        let Stage::Back(Some(PrepareWrite::ReleaseClaim { claim, .. })) = &self.stage else { return false };
        let (claim, resource_version) = (claim.clone(), version.clone());
        self.stage = Stage::Back(Some(PrepareWrite::DeleteClaim { claim, resource_version }));
        true
    }
}

//! Claims that are given up so that refused pods find a place: one for each such pod at a time.
//!
//! ```text
//!   refused ──a claim of its own is stuck──> deallocate ──┬─ ok ──> the watch shows the claim free or gone: the pod is woken
//!      └───────a special claim is left over──> delete ─────┴─ else ──> the pod is tried again after a backoff
//! ```
//! A write rests on the resourceVersion that showed the claim idle: whoever reserves it first keeps it. What an open intent
//! prepares is left alone. Source: `PostFilter` and `PodGroupPostFilter` of kube-scheduler's `dynamicresources`.

use super::Engine;
use crate::command::{Command, OpId};
use crate::demand::stuck_claim;
use crate::devices::{ClaimInfo, special_uid};
use crate::event::WriteResult;
use crate::model::Millis;
use crate::preparation::{ClaimName, PrepareWrite};
use crate::queue::Entity;
use crate::snapshot::PodId;
use std::collections::BTreeMap;

/// Identities of these writes begin here; those of the protocol never get so far, and evictions begin at twice as much.
const FIRST_OP: u64 = 1 << 62;
/// A write without an outcome for so long is given up.
const OUTCOME_TIMEOUT_MS: Millis = 60_000;

/// Writes that are on their way.
#[derive(Debug, Default)]
pub(super) struct Freeing {
    ops: BTreeMap<OpId, Awaited>,
    last_op: u64,
}

/// A request whose outcome is awaited.
#[derive(Debug)]
struct Awaited {
    entity: Entity,
    until: Millis,
    /// The claim that is deleted when this is done.
    then_delete: Option<ClaimName>,
}

impl Freeing {
    /// This process leads no more: what it sent may or may not happen.
    pub(super) fn end_term(&mut self) {
        self.ops.clear();
    }

    fn send(&mut self, entity: Entity, write: PrepareWrite, now: Millis) -> Command {
        self.last_op += 1;
        let op = OpId(FIRST_OP + self.last_op);
        let then_delete = match &write {
            PrepareWrite::ReleaseClaim { claim, .. } => Some(claim.clone()),
            _ => None,
        };
        self.ops.insert(op, Awaited { entity, until: now.saturating_add(OUTCOME_TIMEOUT_MS), then_delete });
        Command::Prepare { op, write }
    }
}

/// Whether a request is one of these.
pub(super) fn is_of_freeing(op: OpId) -> bool {
    (FIRST_OP..FIRST_OP * 2).contains(&op.0)
}

impl Engine {
    /// Has claims given up that keep refused pods from every node.
    pub(super) fn free_claims(&mut self, entity: Entity, pods: &[PodId], now: Millis, out: &mut Vec<Command>) {
        self.freeing.ops.retain(|_, awaited| awaited.until > now);
        if self.freeing.ops.values().any(|awaited| awaited.entity == entity) {
            return;
        }
        let mut done = Vec::new();
        for &id in pods {
            let Some(write) = self.write_that_frees(id).filter(|write| !done.contains(write)) else { continue };
            out.push(self.freeing.send(entity, write.clone(), now));
            done.push(write);
        }
    }

    fn write_that_frees(&mut self, id: PodId) -> Option<PrepareWrite> {
        let cluster = self.snapshot.cluster();
        let info = cluster.info(id).filter(|info| cluster.may_claim(info))?;
        let pod = info.key.clone();
        let shape = self.snapshot.cluster().pod(id)?.shape?;
        let demand = self.snapshot.demand(id).ok()?;
        if let Some(leftover) = demand.devices.as_ref().and_then(|(_, devices)| devices.leftover()) {
            return (!self.protocol.prepares(&special_uid(&pod.uid))).then(|| deletion(leftover));
        }
        let claim = stuck_claim(&mut self.snapshot, shape, &demand, &pod.uid)?;
        if self.protocol.prepares(&claim.uid) {
            return None;
        }
        let resource_version = claim.resource_version.clone();
        Some(PrepareWrite::UnreserveClaim { claim: claim.claim_name(), resource_version, pod, deallocate: true })
    }

    /// What came of it; success is seen by the watch.
    pub(super) fn on_freed(&mut self, op: OpId, result: &WriteResult, now: Millis, out: &mut Vec<Command>) {
        let Some(Awaited { entity, then_delete, .. }) = self.freeing.ops.remove(&op) else { return };
        match (result, then_delete) {
            (WriteResult::Ok(version), Some(claim)) => {
                let write = PrepareWrite::DeleteClaim { claim, resource_version: version.clone() };
                out.push(self.freeing.send(entity, write, now));
            }
            (WriteResult::Ok(_), None) => {}
            _ if self.lies(entity) => self.queue.fail(entity, None, now),
            _ => {}
        }
    }
}

/// The first step towards the end of a special claim.
fn deletion(of: &ClaimInfo) -> PrepareWrite {
    let (claim, resource_version) = (of.claim_name(), of.resource_version.clone());
    if of.finalized {
        PrepareWrite::ReleaseClaim { claim, resource_version }
    } else {
        PrepareWrite::DeleteClaim { claim, resource_version }
    }
}

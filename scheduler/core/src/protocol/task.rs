//! One preparation of a member: the next request from what is known, and what the answers teach. Pure tables.
//!
//! ```text
//!             ┌────────────── conflict, unknown: GET ──────────────┐
//!   ahead:  Todo ──write──> (finalizer ──write──>) Waiting ──watch or GET──> Done
//!             └── taken by another, refused by the provisioner, conditions failed ──> the member is replanned
//!
//!   a special claim:  create ──> allocate and reserve ──> name it in the pod's status ──> as above     back: delete it
//!
//!   a former leader's:  GET ──fence──> GET, then as below: what that leader reads now makes it follow
//!
//!   back:   never written ──> clean
//!           else GET ─┬─ ours ──> take back ──> clean          (a bound claim, or a volume given to it, stays)
//!                     ├─ not there, a write may still land ──> fence ──> clean
//!                     └─ not there ──> clean
//! ```
//! Invariants: a write carries the resourceVersion that its decision rests on; what is taken back was ours; nothing is called
//! clean while a write of ours may land.

use super::special;
use crate::command::OpId;
use crate::model::{Millis, PodKey};
use crate::preparation::{
    ClaimName, ObjectFacts, Preparation, PrepareWrite, PreparedObject, ResourceClaimFacts, Standing, VolumeClaimFacts,
    VolumeFacts, has_binding_conditions, same_devices,
};
use serde_json::Value;
use smol_str::SmolStr;
use std::sync::Arc;

/// A preparation on its way.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) what: Preparation,
    pub(super) stage: Stage,
    /// Request whose outcome is awaited.
    pub(super) op: Option<OpId>,
    /// No request before this time.
    pub(super) not_before: Millis,
    /// Failures in a row, or fruitless looks, for the backoff.
    pub(super) failures: u32,
    /// A watch showed the claim bound while a request was under way: it is read as soon as that is answered.
    pub(super) answered: bool,
    /// Something may have been written.
    pub(super) touched: bool,
    /// resourceVersion under which a write of ours may still land.
    exposed: Option<SmolStr>,
    /// A former leader's writes may still land, and it may still take it back, until the claim is fenced in this epoch.
    pub(super) inherited: bool,
}

/// How far a preparation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// To be written on what is known; None: to be read first.
    Todo(Option<Known>),
    /// Written; others have to answer.
    Waiting,
    /// There.
    Done,
    /// To be fenced against a former leader by this write.
    Fence(PrepareWrite),
    /// To be taken back by this write; None: to be read first.
    Back(Option<PrepareWrite>),
}

/// What the next write of a preparation needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Empty: there is no such claim yet.
    pub(super) version: SmolStr,
    pub(super) finalized: bool,
    /// The claim is allocated as wanted: only the reservation is missing.
    pub(super) allocated: bool,
    /// A special claim is reserved: only the pod's status does not name it.
    pub(super) reserved: bool,
    /// Its devices have conditions to wait for then.
    pub(super) waits: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Nothing,
    Read(PreparedObject),
    Write(PrepareWrite),
    /// It is taken back, or never was.
    Clean,
}

/// What an answer means for the member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lesson {
    /// Go on.
    GoOn,
    /// It cannot be done on this node as it was planned; why.
    Failed(String),
}

impl Task {
    /// As it was planned.
    pub(super) fn new(what: Preparation) -> Self {
        let known = |version: &SmolStr, finalized, allocated| {
            let version = version.clone();
            (!version.is_empty()).then(|| Known { version, finalized, allocated, ..Known::default() })
        };
        let todo = match &what {
            Preparation::BindVolume { volume_resource_version: version, .. }
            | Preparation::Provision { claim_resource_version: version, .. } => known(version, false, false),
            Preparation::AllocateClaim { resource_version, finalized, .. } => {
                known(resource_version, *finalized, false)
            }
            Preparation::ReserveClaim { resource_version, .. } => known(resource_version, true, true),
            Preparation::CreateClaim { .. } => Some(Known::default()),
        };
        let stage = Stage::Todo(todo);
        Self {
            what,
            stage,
            op: None,
            not_before: 0,
            failures: 0,
            answered: false,
            touched: false,
            exposed: None,
            inherited: false,
        }
    }

    /// As a former leader left it. A volume needs no fence: nobody takes it back, and whoever gives it to the claim does no
    /// harm.
    pub(super) fn inherited(what: Preparation) -> Self {
        let inherited = !matches!(what, Preparation::BindVolume { .. });
        Self { stage: Stage::Todo(None), touched: true, inherited, ..Self::new(what) }
    }

    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// The next request on the way to Done.
    pub(super) fn ahead(&self, pod: &PodKey) -> Move {
        match &self.stage {
            Stage::Done => Move::Nothing,
            Stage::Waiting => Move::Read(self.awaited_object()),
            Stage::Todo(None) | Stage::Back(_) => Move::Read(self.written_object()),
            Stage::Fence(write) => Move::Write(write.clone()),
            Stage::Todo(Some(known)) if self.asks_pod(known) => {
                Move::Read(PreparedObject::Pod { namespace: pod.namespace.clone(), name: pod.name.clone() })
            }
            Stage::Todo(Some(known)) => Move::Write(self.write(known, pod)),
        }
    }

    /// The next request on the way back.
    pub(super) fn back(&self) -> Move {
        let nothing_to_take = matches!(self.what, Preparation::BindVolume { .. });
        match &self.stage {
            _ if !self.touched || nothing_to_take => Move::Clean,
            Stage::Back(Some(write)) | Stage::Fence(write) => Move::Write(write.clone()),
            _ => Move::Read(self.claim_object()),
        }
    }

    /// The object that is written.
    fn written_object(&self) -> PreparedObject {
        match &self.what {
            Preparation::BindVolume { volume, .. } => PreparedObject::Volume { name: volume.clone() },
            _ => self.claim_object(),
        }
    }

    /// The object that tells whether others have answered: the claim; every second time the volume that it should get.
    fn awaited_object(&self) -> PreparedObject {
        if self.failures % 2 == 1 { self.written_object() } else { self.claim_object() }
    }

    pub(super) fn claim_object(&self) -> PreparedObject {
        let ClaimName { namespace, name, .. } = self.what.claim().clone();
        if self.what.kind().is_volume() {
            PreparedObject::VolumeClaim { namespace, name }
        } else {
            PreparedObject::ResourceClaim { namespace, name }
        }
    }

    fn write(&self, known: &Known, pod: &PodKey) -> PrepareWrite {
        let (claim, resource_version) = (self.what.claim().clone(), known.version.clone());
        match &self.what {
            Preparation::BindVolume { volume, volume_uid, .. } => {
                PrepareWrite::ClaimVolume { volume: volume.clone(), uid: volume_uid.clone(), resource_version, claim }
            }
            Preparation::Provision { node, .. } => {
                PrepareWrite::SelectNode { claim, resource_version, node: Some(node.clone()) }
            }
            Preparation::AllocateClaim { .. } if !known.finalized => {
                PrepareWrite::FinalizeClaim { claim, resource_version }
            }
            Preparation::AllocateClaim { allocation, .. } => {
                let allocation = (!known.allocated).then(|| Arc::clone(allocation));
                PrepareWrite::ReserveClaim { claim, resource_version, allocation, pod: pod.clone() }
            }
            Preparation::ReserveClaim { .. } => {
                PrepareWrite::ReserveClaim { claim, resource_version, allocation: None, pod: pod.clone() }
            }
            Preparation::CreateClaim { manifest, allocation, mappings, .. } => {
                special::write(known, claim, [manifest, allocation, mappings], pod)
            }
        }
    }

    /// A write is sent.
    pub(super) fn sent(&mut self, write: &PrepareWrite) {
        self.touched = true;
        let back = matches!(
            write,
            PrepareWrite::FenceClaim { .. }
                | PrepareWrite::UnreserveClaim { .. }
                | PrepareWrite::ReleaseClaim { .. }
                | PrepareWrite::DeleteClaim { .. }
        );
        if !back {
            self.exposed = version_of(write).cloned();
        }
    }

    /// A write ahead landed under this new resourceVersion: no older one can land any more.
    pub(super) fn landed(&mut self, version: SmolStr) {
        self.failures = 0;
        self.exposed = None;
        if matches!(self.stage, Stage::Fence(_)) {
            self.inherited = false;
            self.stage = Stage::Todo(None);
        }
        let Stage::Todo(Some(known)) = &self.stage else { return };
        self.stage = match &self.what {
            Preparation::AllocateClaim { .. } if !known.finalized => {
                Stage::Todo(Some(Known { version, finalized: true, ..known.clone() }))
            }
            Preparation::CreateClaim { allocation, .. } => special::landed(known, version, allocation),
            Preparation::AllocateClaim { allocation, .. } if !has_binding_conditions(allocation) => Stage::Done,
            _ => Stage::Waiting,
        };
    }

    /// Nothing of it is left.
    pub(super) fn taken_back(&mut self) {
        self.touched = false;
        self.exposed = None;
        self.stage = Stage::Back(None);
    }

    /// The last request's fate, or the object, is unknown: it is read next.
    pub(super) fn unsure(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.stage = match self.stage {
            Stage::Back(_) => Stage::Back(None),
            Stage::Waiting => Stage::Waiting,
            _ => Stage::Todo(None),
        };
    }

    /// A read of what a former leader left: it is fenced first, whichever way it goes then. False: there is no need.
    pub(super) fn fence_first(&mut self, facts: &ObjectFacts, fence: &SmolStr) -> bool {
        let (uid, version, _) = facts.identity();
        if !self.inherited || !self.is_about(facts) {
            return false;
        }
        self.stage = Stage::Fence(self.fence(uid, version, fence));
        true
    }

    pub(super) fn fence(&self, uid: &SmolStr, version: &SmolStr, fence: &SmolStr) -> PrepareWrite {
        PrepareWrite::FenceClaim {
            object: self.claim_object(),
            uid: uid.clone(),
            resource_version: version.clone(),
            fence: fence.clone(),
        }
    }

    /// What a consistent read, or a watch, says on the way to Done.
    pub(super) fn learn(&mut self, facts: &ObjectFacts, pod: &PodKey) -> Lesson {
        let before = self.stage.clone();
        let learned = match facts {
            ObjectFacts::Volume(volume) => self.learn_volume(volume),
            ObjectFacts::VolumeClaim(claim) => self.learn_volume_claim(claim),
            ObjectFacts::ResourceClaim(claim) => match self.learn_special_claim(claim, pod) {
                Some(learned) => learned,
                None => self.learn_resource_claim(claim, pod),
            },
            ObjectFacts::Pod(facts) => self.learn_pod(facts, pod),
        };
        match learned {
            Ok(stage) => {
                let looks = before == Stage::Waiting && stage == Stage::Waiting;
                self.failures = if looks { self.failures.saturating_add(1) } else { 0 };
                self.stage = stage;
                Lesson::GoOn
            }
            Err(why) => Lesson::Failed(why),
        }
    }

    fn learn_volume(&self, facts: &VolumeFacts) -> Result<Stage, String> {
        let Preparation::BindVolume { claim, volume, volume_uid, .. } = &self.what else {
            return Ok(Stage::Todo(None));
        };
        if facts.uid != *volume_uid || facts.deleting {
            return Err(format!("PersistentVolume {volume} is gone"));
        }
        match &facts.claim {
            Some(holder) if holder.uid == claim.uid => Ok(Stage::Waiting),
            // Kept for this claim by name alone.
            Some(holder)
                if holder.uid.is_empty() && holder.name == claim.name && holder.namespace == claim.namespace =>
            {
                Ok(Stage::todo(&facts.resource_version))
            }
            Some(holder) => {
                Err(format!("PersistentVolume {volume} is taken by claim {}/{}", holder.namespace, holder.name))
            }
            None if self.stage == Stage::Waiting => {
                Err(format!("PersistentVolume {volume} was taken from {}", shown(claim)))
            }
            None => Ok(Stage::todo(&facts.resource_version)),
        }
    }

    fn learn_volume_claim(&self, facts: &VolumeClaimFacts) -> Result<Stage, String> {
        let claim = self.what.claim();
        if facts.key.uid != claim.uid || facts.deleting {
            return Err(format!("{} is gone", shown(claim)));
        }
        if facts.lost {
            return Err(format!("the volume of {} is lost", shown(claim)));
        }
        match (&self.what, &facts.volume) {
            (Preparation::BindVolume { volume, .. }, Some(other)) if other != volume => {
                Err(format!("{} was bound to PersistentVolume {other} meanwhile", shown(claim)))
            }
            (_, Some(_)) if facts.bound => Ok(Stage::Done),
            (_, Some(_)) | (Preparation::BindVolume { .. }, None) => Ok(Stage::Waiting),
            (Preparation::Provision { node, .. }, None) => match &facts.selected_node {
                Some(selected) if selected == node => Ok(Stage::Waiting),
                Some(other) => Err(format!("{} was asked for on node {other} meanwhile", shown(claim))),
                None if self.stage == Stage::Waiting => {
                    Err(format!("the provisioner has no volume for {} on node {node}", shown(claim)))
                }
                None => Ok(Stage::todo(&facts.resource_version)),
            },
            (_, None) => Ok(Stage::Todo(None)),
        }
    }

    fn learn_resource_claim(&self, facts: &ResourceClaimFacts, pod: &PodKey) -> Result<Stage, String> {
        let claim = self.what.claim();
        if facts.uid != claim.uid || facts.deleting {
            return Err(format!("{} is gone", shown_devices(claim)));
        }
        let reserved = facts.reserved_for.contains(&pod.uid);
        let wanted = match &self.what {
            Preparation::AllocateClaim { allocation, .. } => Some(allocation.as_ref()),
            _ => None,
        };
        match (&facts.allocation, wanted) {
            (Some(_), _) if reserved => match &facts.standing {
                Standing::Ready => Ok(Stage::Done),
                Standing::Pending => Ok(Stage::Waiting),
                Standing::Failed(why) => Err(format!("a device of {} is not ready: {why}", shown_devices(claim))),
            },
            (_, _) if self.stage == Stage::Waiting => {
                Err(format!("{} was taken from the pod meanwhile", shown_devices(claim)))
            }
            (Some(found), Some(wanted)) if !same_devices(found, wanted) => {
                Err(format!("{} was allocated by someone else meanwhile", shown_devices(claim)))
            }
            (Some(_), _) => Ok(Stage::known(&facts.resource_version, facts.finalized, true)),
            (None, Some(Value::Null)) => {
                Err(format!("the allocation of {} ended with the former leader", shown_devices(claim)))
            }
            (None, Some(_)) => Ok(Stage::known(&facts.resource_version, facts.finalized, false)),
            (None, None) => Err(format!("{} was deallocated meanwhile", shown_devices(claim))),
        }
    }

    /// What a consistent read says on the way back; true: there is nothing of ours, and nothing can come.
    pub(super) fn learn_back(&mut self, facts: &ObjectFacts, pod: &PodKey, fence: &SmolStr) -> bool {
        let (uid, version, _) = facts.identity();
        let taken = match facts {
            ObjectFacts::Volume(_) | ObjectFacts::Pod(_) => return false,
            ObjectFacts::VolumeClaim(facts) => self.undo_provision(facts),
            ObjectFacts::ResourceClaim(facts) => self.undo_create(facts, pod).or_else(|| self.undo_reserve(facts, pod)),
        };
        if !self.is_about(facts) {
            return true;
        }
        let may_land = self.exposed.as_ref() == Some(version);
        let write = taken.or_else(|| may_land.then(|| self.fence(uid, version, fence)));
        self.failures = 0;
        self.stage = Stage::Back(write.clone());
        write.is_none()
    }

    /// An annotation of ours that was not answered is removed; a claim that has its volume keeps it.
    fn undo_provision(&self, facts: &VolumeClaimFacts) -> Option<PrepareWrite> {
        let Preparation::Provision { node, .. } = &self.what else { return None };
        let unanswered = facts.volume.is_none() && facts.selected_node.as_ref() == Some(node);
        unanswered.then(|| PrepareWrite::SelectNode {
            claim: self.what.claim().clone(),
            resource_version: facts.resource_version.clone(),
            node: None,
        })
    }

    /// The pod's reservation goes; the allocation too where it was made for this plan and nobody else reserves.
    fn undo_reserve(&self, facts: &ResourceClaimFacts, pod: &PodKey) -> Option<PrepareWrite> {
        if matches!(self.what, Preparation::CreateClaim { .. }) {
            return None;
        }
        let alone = facts.reserved_for.iter().all(|uid| *uid == pod.uid);
        facts.reserved_for.contains(&pod.uid).then(|| PrepareWrite::UnreserveClaim {
            claim: self.what.claim().clone(),
            resource_version: facts.resource_version.clone(),
            pod: pod.clone(),
            deallocate: alone && matches!(self.what, Preparation::AllocateClaim { .. }),
        })
    }

    /// What the member waits for, for people.
    pub(super) fn pending(&self) -> String {
        let claim = self.what.claim();
        match &self.what {
            Preparation::BindVolume { volume, .. } => {
                format!("{} is not bound to PersistentVolume {volume}", shown(claim))
            }
            Preparation::Provision { node, .. } => format!("{} has no volume on node {node}", shown(claim)),
            Preparation::AllocateClaim { .. } | Preparation::ReserveClaim { .. } | Preparation::CreateClaim { .. } => {
                format!("the devices of {} are not ready", shown_devices(claim))
            }
        }
    }
}

impl Stage {
    fn todo(version: &SmolStr) -> Self {
        Self::known(version, false, false)
    }

    fn known(version: &SmolStr, finalized: bool, allocated: bool) -> Self {
        Self::Todo(Some(Known { version: version.clone(), finalized, allocated, ..Known::default() }))
    }
}

/// The resourceVersion that a write rests on.
fn version_of(write: &PrepareWrite) -> Option<&SmolStr> {
    match write {
        PrepareWrite::ClaimVolume { resource_version, .. }
        | PrepareWrite::SelectNode { resource_version, .. }
        | PrepareWrite::FinalizeClaim { resource_version, .. }
        | PrepareWrite::ReserveClaim { resource_version, .. }
        | PrepareWrite::UnreserveClaim { resource_version, .. }
        | PrepareWrite::ReleaseClaim { resource_version, .. }
        | PrepareWrite::DeleteClaim { resource_version, .. }
        | PrepareWrite::FenceClaim { resource_version, .. } => Some(resource_version),
        PrepareWrite::CreateClaim { .. } | PrepareWrite::NameClaim { .. } => None,
    }
}

fn shown(claim: &ClaimName) -> String {
    format!("PersistentVolumeClaim {}/{}", claim.namespace, claim.name)
}

pub(super) fn shown_devices(claim: &ClaimName) -> String {
    format!("ResourceClaim {}/{}", claim.namespace, claim.name)
}

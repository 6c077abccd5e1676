//! Gangs that others declare: an adapter for each convention, all of which end in the core's one gang record.
//!
//! ```text
//!   pod ─────────Convention::declares──> GangMembership ───────┐
//!   their object ──Declaration::gang───> GangInfo ──> Desk ────┴──> core: GangRecord, as of a Gang or a label of ours
//!   their object <── dispatch <──Declaration::answer── Desk <── what the core says of the gang, its pods' phases
//! ```
//! Invariants: a pod belongs to such a gang only when it asks for this scheduler; an object is taken up, and its status
//! written, only when one of its pods does, its owner does, or an annotation says so (the shell's desk); every write carries the
//! object's UID or resourceVersion, so that it never undoes what another writer wrote; what a convention asks for and we
//! cannot give is a refusal that names the field, never dropped. `docs/gangs-of-others.md` has what is read and written.

mod answer;
pub mod beside;
mod coscheduling;
mod job_set;
mod kai;
mod kueue;
mod leader_worker_set;
pub mod members;
mod native;
mod volcano;

pub use answer::{GroupWrite, seconds};
pub use job_set::JobSet;
pub use kai::PodGroup as KaiPodGroup;
pub use native::PodGroup as NativePodGroup;
pub use {coscheduling::PodGroup as CoschedulingPodGroup, volcano::PodGroup as VolcanoPodGroup};
pub use {volcano::HyperNode, volcano::Job as VolcanoJob, volcano::Queue as VolcanoQueue};

use crate::types::{Meta, Pod};
use beside::Surroundings;
use flowforge_api::names::annotation;
use flowforge_scheduler_core::command::GangSchedulingStatus;
use flowforge_scheduler_core::model::{GangInfo, GangMembership, GangRoleInfo, LayoutInfo, Terms};
use jiff::Timestamp;
use members::Tally;
use serde::de::DeserializeOwned;
use smol_str::{SmolStr, format_smolstr};
use std::fmt;

/// Annotations of others that say to which gang a pod belongs; all others are skipped when a pod is decoded.
pub const ANNOTATIONS: [&str; 6] = [
    volcano::GROUP_NAME,
    volcano::TASK_SPEC,
    volcano::TASK_INDEX,
    kueue::TOTAL_COUNT,
    leader_worker_set::SIZE,
    kai::GROUP_NAME,
];

/// The role of a member where the convention knows none.
const DEFAULT_ROLE: SmolStr = SmolStr::new_static("worker");

/// A way in which others say that pods belong together.
pub trait Convention: Sync {
    /// The gang that a pod belongs to, where it says so in this way.
    fn declares(&self, pod: &Pod) -> Option<GangMembership>;
}

/// Who is asked first: what names a group's object says more than labels that a controller puts on every pod.
const CONVENTIONS: [&dyn Convention; 7] = [
    &native::Native,
    &coscheduling::Coscheduling,
    &volcano::Volcano,
    &kai::Kai,
    &kueue::Kueue,
    &leader_worker_set::LeaderWorkerSet,
    &job_set::JobSets,
];

/// The gang that a pod of ours belongs to by somebody else's convention.
pub fn declares(pod: &Pod) -> Option<GangMembership> {
    if pod.metadata.annotations.get(annotation::ADOPT).is_some_and(|adopt| adopt.trim() == "false") {
        return None;
    }
    CONVENTIONS.iter().find_map(|convention| convention.declares(pod))
}

/// An object by which somebody declares a gang.
pub trait Declaration: fmt::Debug + Send {
    /// Its metadata.
    fn meta(&self) -> &Meta;
    /// Name of the gang that it declares.
    fn name(&self) -> SmolStr;
    /// What it asks for.
    fn gang(&self, around: &Surroundings) -> GangInfo;
    /// Whether its owner asks for this scheduler, whatever its pods say.
    fn has_our_owner(&self, _around: &Surroundings) -> bool {
        false
    }
    /// Its status as its owner expects it from a scheduler; None where it is so already, or is not the scheduler's to write.
    fn answer(&self, _standing: &Standing<'_>) -> Option<GroupWrite> {
        None
    }
}

/// The same as a kind that can be watched.
pub trait Declared: Declaration + DeserializeOwned + Clone + Sync + 'static {
    /// `kind.group` as kubectl prints it before the slash.
    const KIND: &'static str;
    /// `plural.group`, the label of its metrics.
    const PLURAL: &'static str;
    /// Path of the collection over all namespaces.
    const PATH: &'static str;
}

/// What there is to say about a gang.
pub struct Standing<'a> {
    /// What the core said last.
    pub told: Option<&'a GangSchedulingStatus>,
    /// Its pods.
    pub pods: Tally,
    /// What it asks for.
    pub gang: &'a GangInfo,
    /// How much of a resource all nodes have together. `O(nodes)`.
    pub capacity: &'a dyn Fn(&str) -> i64,
    /// Now.
    pub now: Timestamp,
}

/// A gang of so many members at least, of which nobody says how many come, nor what their roles are.
fn at_least(meta: &Meta, name: SmolStr, min_member: i32) -> GangInfo {
    GangInfo {
        namespace: meta.namespace.clone(),
        name,
        uid: meta.uid.clone(),
        // One is the least that can be placed.
        min_member: u32::try_from(min_member).unwrap_or_default().max(1),
        roles: vec![role("", 0)],
        layout: LayoutInfo::default(),
        topology_required: None,
        topology_preferred: Vec::new(),
        closed: meta.deletion_timestamp,
        replaces: None,
        hold_ms: 0,
        terms: Terms::default(),
    }
}

/// A role of at least so many.
fn role(name: &str, min: u32) -> GangRoleInfo {
    GangRoleInfo { name: name.into(), replicas: GangRoleInfo::UNLIMITED, min }
}

/// A member of the gang that an object of this kind and name declares.
fn member(kind: &str, name: &str) -> GangMembership {
    GangMembership {
        name: gang_name(kind, name),
        uid: None,
        size: None,
        role: DEFAULT_ROLE,
        rank: None,
        topology_required: None,
        topology_preferred: Vec::new(),
    }
}

/// The same with rank and role from the labels of an indexed Job: an index is unique in its Job only.
fn member_of_job(kind: &str, name: &str, pod: &Pod) -> GangMembership {
    let mut member = member(kind, name);
    if let Some(job) = label(pod, "batch.kubernetes.io/job-name") {
        member.role = job.clone();
        member.rank = number(label(pod, COMPLETION_INDEX));
    }
    member
}

/// Label that the Job controller sets on pods of indexed Jobs.
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Name of the gang that an object of this kind and name declares.
#[must_use]
pub fn gang_name(kind: &str, name: &str) -> SmolStr {
    format_smolstr!("{kind}/{name}")
}

fn label<'a>(pod: &'a Pod, key: &str) -> Option<&'a SmolStr> {
    pod.metadata.labels.get(key).filter(|value| !value.is_empty())
}

fn annotated<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
}

fn number(text: Option<&SmolStr>) -> Option<u32> {
    text?.parse().ok()
}

/// A size that members say themselves.
fn size(text: &str) -> Result<u32, SmolStr> {
    text.parse::<u32>().ok().filter(|size| *size >= 1).ok_or_else(|| text.chars().take(63).collect())
}

#[cfg(test)]
mod tests;

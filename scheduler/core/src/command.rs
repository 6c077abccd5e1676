//! What the engine wants done. Only `dispatch` executes these; every one with an [`OpId`] is answered by an outcome.

use crate::model::{Millis, PodKey};
use crate::preparation::{PreparationKind, PrepareWrite, PreparedObject};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Identity of a command whose outcome is awaited; unique in one process.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct OpId(pub u64);

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// PUT a journal slot with its resourceVersion.
    WriteJournal {
        /// Identity.
        op: OpId,
        /// Number of the slot.
        slot: u32,
        /// Precondition.
        resource_version: SmolStr,
        /// Epoch of the writer.
        epoch: u64,
        /// Open intents in the payload, for people.
        open: u32,
        /// New payload.
        payload: String,
    },
    /// GET a journal slot without a cache (consistent read), after a write whose fate is unknown. A slot that does not
    /// exist is created empty by dispatch, so that there is always one to write.
    ReadJournal {
        /// Identity.
        op: OpId,
        /// Number of the slot.
        slot: u32,
    },
    /// POST a Binding with UID and resourceVersion as preconditions and annotation `flowforge.dev/intent`.
    Bind {
        /// Identity.
        op: OpId,
        /// The pod.
        pod: PodKey,
        /// Precondition.
        resource_version: SmolStr,
        /// The node.
        node: SmolStr,
        /// Id of the intent.
        intent: SmolStr,
    },
    /// GET a pod without a cache (consistent read).
    ReadPod {
        /// Identity.
        op: OpId,
        /// The pod; the answer may carry another UID.
        pod: PodKey,
    },
    /// Patch annotation `flowforge.dev/fence`, UID and resourceVersion as preconditions, so that older Bindings cannot land.
    FencePod {
        /// Identity.
        op: OpId,
        /// The pod.
        pod: PodKey,
        /// Precondition; None only checks the UID.
        resource_version: Option<SmolStr>,
        /// Value of the annotation.
        fence: SmolStr,
    },
    /// GET what is prepared for a pod without a cache (consistent read).
    ReadPrepared {
        /// Identity.
        op: OpId,
        /// The object.
        object: PreparedObject,
    },
    /// Change what is prepared for a pod, UID and resourceVersion as preconditions.
    Prepare {
        /// Identity.
        op: OpId,
        /// The change.
        write: PrepareWrite,
    },
    /// Set condition DisruptionTarget=True with reason GangRollback.
    MarkRollback {
        /// Identity.
        op: OpId,
        /// The pod.
        pod: PodKey,
        /// Why, for people.
        message: String,
    },
    /// DELETE a pod with its UID as precondition.
    DeletePod {
        /// Identity.
        op: OpId,
        /// The pod.
        pod: PodKey,
    },
    /// Evict a pod, of ours or foreign: set condition DisruptionTarget=True with reason PreemptionByScheduler, then DELETE it
    /// with its UID as precondition.
    Evict {
        /// Identity.
        op: OpId,
        /// The pod.
        pod: PodKey,
        /// Message of the condition.
        message: String,
    },
    /// Write `status.nominatedNodeName`, with the UID as precondition; None clears it.
    Nominate {
        /// The pod.
        pod: PodKey,
        /// The node.
        node: Option<SmolStr>,
    },
    /// Write the `PodScheduled=False` condition; the latest one per pod wins, unchanged ones are not written.
    PodCondition {
        /// The pod.
        pod: PodKey,
        /// `Unschedulable`, `SchedulerError` or `SchedulingGated`, or a FlowForge reason while a gang is incomplete.
        reason: SmolStr,
        /// Message, not truncated.
        message: String,
    },
    /// Record an Event on a pod; merged and bounded by dispatch.
    PodEvent {
        /// The pod.
        pod: PodKey,
        /// What kind of event.
        kind: EventKind,
        /// Note; dispatch truncates to 1024 bytes.
        note: String,
    },
    /// Write condition `Scheduled` and the placement summary of a Gang by server-side apply; the latest per gang wins.
    GangStatus {
        /// Namespace.
        namespace: SmolStr,
        /// Name.
        name: SmolStr,
        /// UID, the precondition.
        uid: SmolStr,
        /// The condition and summary.
        status: GangSchedulingStatus,
    },
    /// Count and time something; dispatch feeds the metrics.
    Observe(Observation),
}

/// Kind of an Event on a pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EventKind {
    /// Normal `Scheduled`, action `Binding`.
    Scheduled,
    /// Warning `FailedScheduling`, action `Scheduling`.
    FailedScheduling,
    /// Warning `GangRollback`, action `Binding`.
    GangRollback,
    /// Normal `Preempted`, action `Preempting`.
    Preempted,
}

/// Condition `Scheduled` of a Gang and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GangSchedulingStatus {
    /// Status of the condition.
    pub scheduled: bool,
    /// Reason of the condition.
    pub reason: SmolStr,
    /// Message of the condition.
    pub message: String,
    /// Members bound.
    pub bound: u32,
    /// Narrowest domain that holds all members, as `level/name`.
    pub domain: Option<String>,
    /// Node of each member in rank order.
    pub nodes: Vec<SmolStr>,
}

/// Something to count or time. Durations are in milliseconds of the engine's clock, except `*_us`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// One scheduling attempt of a pod (kube-scheduler's meaning); each member of a gang counts.
    Attempt {
        /// Profile (schedulerName).
        profile: SmolStr,
        /// `scheduled`, `unschedulable` or `error`.
        result: AttemptResult,
    },
    /// A pod was bound: time since its first attempt could be made.
    PodScheduled {
        /// Attempts it took.
        attempts: u32,
        /// Milliseconds since the pod was first seen ungated.
        sli_ms: Millis,
    },
    /// It was looked for pods to evict.
    Preemption {
        /// How many are evicted, where some were found.
        victims: Option<u32>,
    },
    /// So many pods were evicted for a gang that then could not be placed or went away.
    WastedEvictions(u32),
    /// So many pods were placed where room is reserved for a gang that they do not delay.
    Backfilled(u32),
    /// A reserved start moved to a later time than was promised, or cannot be promised any more.
    ReservationDelayed,
    /// A gang was planned, and its binding begins.
    GangPlanned,
    /// A gang was wholly bound; each span in milliseconds.
    GangPlaced {
        /// Members.
        members: u32,
        /// Last needed member seen ungated -> begin of the run that planned the gang.
        queue_ms: Millis,
        /// Begin of that run -> first Binding sent: planning, journal write and preparation.
        prepare_ms: Millis,
        /// First Binding sent -> last Binding acknowledged, repairs included.
        bind_ms: Millis,
        /// Last needed member seen ungated -> last Binding acknowledged.
        total_ms: Millis,
    },
    /// A preparation is done.
    Prepared {
        /// Its kind.
        kind: PreparationKind,
        /// Milliseconds since the journal held the intent.
        took_ms: Millis,
    },
    /// The preparation of an intent failed, and it is undone.
    PrepareFailed,
    /// The volumes of so many pods could not be bound or made for their nodes.
    VolumesFailed(u32),
    /// A repair began.
    Repair,
    /// A rollback began.
    Rollback,
    /// A pod was bound to another node than planned by someone else.
    ForeignBind,
    /// A bounded search gave up.
    SearchLimit,
    /// The server refuses to write the journal, and says why; it is tried again.
    JournalRefused(String),
    /// A journal slot could not be decoded and was taken over empty: what is wrong with it.
    JournalUnreadable(String),
}

/// Result of an attempt, with kube-scheduler's words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AttemptResult {
    /// `scheduled`.
    Scheduled,
    /// `unschedulable`.
    Unschedulable,
    /// `error`.
    Error,
}

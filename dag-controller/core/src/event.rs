//! What the engine is told: facts about objects, the outcome of its commands, and wishes of the user.
//!
//! Facts are *levels*, not edges: each is the whole of what is known about one object now. They may come twice, late,
//! or out of order between objects; what the engine has already concluded from a newer fact it does not take back.
//! The shell must give the facts of ONE object in the order of its resourceVersions, and never invent one.

use crate::ids::{AttemptKey, MemberKey, NodeIx};
use crate::reason::{Cause, Reason};
use crate::retry::Plan;
use smol_str::SmolStr;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The Gang of an attempt exists: seen by a watch, or the answer to [`crate::Command::CreateGang`],
    /// [`crate::Command::UpdateGang`] or [`crate::Command::FinishGang`].
    Gang(AttemptKey, GangFacts),
    /// The Gang of an attempt does not exist any more. Also the answer to a write that met NotFound.
    GangGone(AttemptKey),
    /// The Service of an attempt exists (`true`) or went away (`false`).
    Service(AttemptKey, bool),
    /// A member pod exists: seen by a watch, or the answer to [`crate::Command::CreatePod`].
    Pod(MemberKey, PodFacts),
    /// A member pod does not exist any more. Also the answer to a delete or patch that met NotFound.
    PodGone(MemberKey),
    /// A create was refused for good or for now. Timeouts, 429 and 5xx are no refusals: the shell repeats the POST, and
    /// the name tells whether it had landed.
    Refused(Object, Refusal),
    /// The results of these members are durable in their Gang's status: the answer to
    /// [`crate::Command::RecordResult`], as many together as one status write held.
    Recorded(Vec<MemberKey>),
    /// The answer to [`crate::Command::Judge`]: what the node's `when` says. Any but the first answer is ignored.
    Judged(NodeIx, Judgement),
    /// No node is released while there is a reason to wait (a claim is missing, …); `None` lets the workflow go on.
    Hold(Option<Box<Cause>>),
    /// `spec.ttlSecondsAfterFinished`, in milliseconds; `None` keeps the ended workflow.
    Ttl(Option<u64>),
    /// A person has decided about a node that waits for that. Any but the first decision is ignored.
    Decided(NodeIx, Decision),
    /// `spec.parallelism`: most nodes whose gangs are open at once.
    Parallelism(Option<u32>),
    /// `spec.suspend`: nothing is released while it is true.
    Suspend(bool),
    /// `spec.cancel` is true.
    Cancel,
    /// `spec.terminate` is true: canceled, with the least grace, and without `finally` nodes.
    Terminate,
    /// The workflow has a deletionTimestamp.
    Delete,
    /// The time of the last [`crate::Command::WakeAt`] has come. Harmless at any other time.
    Timer,
}

/// What a person says about a node that waits for that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    /// It may go on.
    pub approved: bool,
    /// Who says so, and when: shown.
    pub by: SmolStr,
}

/// What a node's `when` says.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// It runs.
    Run,
    /// It is passed over.
    Skip,
    /// The expression can not be evaluated: the node fails.
    Fail(Box<Cause>),
}

/// An object that the engine asked to create.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Object {
    /// The Gang of an attempt.
    Gang(AttemptKey),
    /// The headless Service of an attempt.
    Service(AttemptKey),
    /// A member pod.
    Pod(MemberKey),
}

/// Why the API server will not have an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// What kind of refusal.
    pub kind: RefusalKind,
    /// The server's message, shown to the user.
    pub message: SmolStr,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RefusalKind {
    /// 403 because a ResourceQuota has no room: tried again later, without the half that exists.
    Quota,
    /// 409 AlreadyExists, and the object's owner UID is not ours: tried again later.
    NameTaken,
    /// Any other 403: tried again for a while, because what is missing (a ServiceAccount, a class, a Role) may have been
    /// applied in the same breath; then the attempt fails with [`Reason::CreateForbidden`].
    Forbidden,
    /// 400 or 422: the attempt fails with [`Reason::CreateInvalid`].
    Invalid,
    /// The shell did not send it, because its attempt was already ending ([`crate::Command::DropCreates`]), or not yet
    /// known. Never an error.
    Dropped,
}

/// What is known about a Gang.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GangFacts {
    /// Its recorded end, once `status.phase` is Succeeded or Failed. It is the truth about the attempt, whoever wrote it.
    pub ended: Option<GangEnd>,
    /// It has a deletionTimestamp.
    pub deleting: bool,
    /// What it was made with, where it is not a first attempt.
    pub plan: Option<Box<Plan>>,
}

/// How an attempt ended; what is written into, and read from, the Gang's status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GangEnd {
    /// `status.phase` is Succeeded, not Failed.
    pub succeeded: bool,
    /// Root cause: `status.reason`, with [`Cause::message`] as `status.message`.
    pub cause: Cause,
    /// `status.scheduledAt`, milliseconds since the epoch.
    pub scheduled_at_ms: Option<u64>,
    /// `status.startedAt`.
    pub started_at_ms: Option<u64>,
    /// `status.finishedAt`.
    pub finished_at_ms: u64,
    /// The outputs of the node as a JSON object; empty when it has none, or did not end well.
    pub outputs: SmolStr,
}

/// What is known about a member pod. All of it comes from one version of the object (and, for `node_gone`, its Node).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodFacts {
    /// `spec.nodeName`; a pod is bound when it has one.
    pub node: Option<SmolStr>,
    /// `status.phase`.
    pub phase: PodPhase,
    /// `status.reason` (`Evicted`, `OutOfcpu`, `UnexpectedAdmissionError`, `NodeShutdown`, …); empty when absent.
    pub reason: SmolStr,
    /// The main container.
    pub main: MainContainer,
    /// What its start waits for, once it is bound.
    pub starting: Starting,
    /// Exit code of an init container (not a sidecar) that ended non-zero.
    pub init_exit_code: Option<i32>,
    /// Another container than the main one still runs (native sidecars, which the kubelet stops itself, not counted).
    pub others_running: bool,
    /// Condition DisruptionTarget=True.
    pub disruption: Option<Disruption>,
    /// `deletionTimestamp - deletionGracePeriodSeconds`, milliseconds since the epoch: when its deletion was asked for.
    pub deletion_requested_at_ms: Option<u64>,
    /// Its Node object is deleted or tainted out-of-service: nothing of it can run any more.
    pub node_gone: bool,
    /// It carries the finalizer `flowforge.dev/result`.
    pub finalizer: bool,
    /// Termination message of the main container, where the node's outputs ask this member; else empty.
    pub message: SmolStr,
}

/// `status.phase` of a pod.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum PodPhase {
    /// Not all containers were started (also for the phase `Unknown`, which says nothing).
    #[default]
    Pending,
    /// Containers run.
    Running,
    /// All containers ended with 0.
    Succeeded,
    /// All containers ended, or never will start.
    Failed,
}

/// What the start of a bound pod waits for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Starting {
    /// Nothing that is known.
    #[default]
    Unknown,
    /// An image: the kubelet's reason and message.
    Image(SmolStr),
    /// A container's configuration (a ConfigMap, a Secret, a command): the kubelet's reason and message.
    Config(SmolStr),
    /// It has no sandbox, and mounts claims.
    Volumes,
    /// It has no sandbox.
    Sandbox,
}

/// State of a pod's main container.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum MainContainer {
    /// It was not started.
    #[default]
    Waiting,
    /// It runs.
    Running,
    /// It ended.
    Ended {
        /// Exit code.
        exit_code: i32,
        /// `reason` of its state (`Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`, …).
        reason: SmolStr,
        /// `finishedAt`, milliseconds since the epoch; 0 when not given.
        finished_at_ms: u64,
    },
}

/// Who disrupts a pod: the reason of its condition DisruptionTarget.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Disruption {
    /// Our scheduler took its gang back before it was whole.
    GangRollback,
    /// `PreemptionByScheduler`.
    Preemption,
    /// `DeletionByTaintManager` or `DeletionByPodGC`: its node is lost.
    NodeLost,
    /// `EvictionByEvictionAPI`.
    Eviction,
    /// `TerminationByKubelet`: node pressure, graceful shutdown, or a critical pod's admission.
    Kubelet,
    /// Any other reason.
    Other,
}

impl Disruption {
    /// The disruption with this condition reason.
    #[must_use]
    pub fn from_reason(reason: &str) -> Self {
        match reason {
            "GangRollback" => Self::GangRollback,
            "PreemptionByScheduler" => Self::Preemption,
            "DeletionByTaintManager" | "DeletionByPodGC" => Self::NodeLost,
            "EvictionByEvictionAPI" => Self::Eviction,
            "TerminationByKubelet" => Self::Kubelet,
            _ => Self::Other,
        }
    }

    /// Why a member that ends by it was lost.
    #[must_use]
    pub const fn lost_reason(self) -> Reason {
        match self {
            Self::GangRollback => Reason::GangRollback,
            Self::Preemption => Reason::Preempted,
            Self::NodeLost => Reason::NodeLost,
            Self::Eviction | Self::Kubelet => Reason::Evicted,
            Self::Other => Reason::MemberLost,
        }
    }
}

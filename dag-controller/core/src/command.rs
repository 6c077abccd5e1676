//! What the engine wants done. The shell executes; it decides nothing.
//!
//! Every command is idempotent, and names its object: executing one twice, or one whose time has passed, does no harm as
//! long as the shell keeps the precondition stated with it. Creates are POSTs. Commands of one `apply` may run
//! concurrently, except that for one object their order holds.
//!
//! | Command | Must be answered by |
//! |---|---|
//! | CreateGang, CreateService, CreatePod | the object's facts, or `Refused` |
//! | FinishGang | `Gang` with `ended`, or `GangGone` |
//! | RecordResult | `Recorded` |
//! | DeletePod, RemoveFinalizer | later facts, or `PodGone` |
//! | Judge | `Judged` |
//! | the others | nothing |

use crate::event::GangEnd;
use crate::ids::{AttemptKey, MemberKey, NodeIx};
use crate::retry::Plan;
use smol_str::SmolStr;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Create the Gang: the claim on the attempt, with the plan of one that is not the first. AlreadyExists with our owner
    /// UID is adopted, with the plan that it has.
    CreateGang(AttemptKey, Option<Box<Plan>>),
    /// Create the headless Service.
    CreateService(AttemptKey),
    /// Create a pod, with the result finalizer. Only under the UID of the claimed Gang.
    CreatePod(MemberKey),
    /// Delete a pod with its own grace period, or the least one after [`crate::Event::Terminate`]; precondition: the UID last seen under this key.
    DeletePod(MemberKey),
    /// Write a member's result into its Gang's status; any number may share one write.
    RecordResult(MemberKey, Box<MemberEnd>),
    /// Take the result finalizer off a pod. Its result, where it has one, is durable.
    RemoveFinalizer(MemberKey),
    /// The attempt ends: creates of it that were not sent yet are not wanted any more and are answered with
    /// [`crate::event::RefusalKind::Dropped`]. One that may have been sent is answered as ever. May be ignored.
    DropCreates(AttemptKey),
    /// Write the Gang's phase, reason and counts as `State::node` shows them when the write is made;
    /// coalescible. Never over a terminal phase.
    UpdateGang(AttemptKey),
    /// Write the end into the Gang's status, together with the results not yet written. Never over a terminal phase:
    /// then the recorded end is the answer.
    FinishGang(AttemptKey, Box<GangEnd>),
    /// Write the workflow's status as `State` shows it when the write is made; coalescible.
    WriteStatus {
        /// The workflow ended: write at once.
        urgent: bool,
    },
    /// Evaluate the `when` of a node whose edges are satisfied. What it may read has ended, and does not change any more,
    /// but for nodes that are waited for with [`crate::dag::On::Running`] or that [`crate::dag::Mode::Any`] passed by.
    Judge(NodeIx),
    /// Something a person wants to read about in an Event; the state says the rest.
    Announce(Milestone),
    /// Apply [`crate::Event::Timer`] at this time; replaces the last one.
    WakeAt {
        /// Milliseconds since the epoch.
        at_ms: u64,
    },
    /// `ttlSecondsAfterFinished` has passed: delete the workflow; precondition: its UID.
    DeleteWorkflow,
}

/// How one member ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemberEnd {
    /// What it means for the gang.
    pub outcome: MemberOutcome,
    /// Exit code of the main container.
    pub exit_code: Option<i32>,
    /// `Completed`, the container's own reason (`Error`, `OOMKilled`, …) or the text of a [`crate::Reason`].
    pub reason: SmolStr,
    /// Node it ran on; empty when never bound.
    pub node: SmolStr,
    /// What it said of the node's outputs, as [`crate::outputs::Outputs::pick`] leaves it; empty when nothing.
    pub said: SmolStr,
}

/// What a member's end means for its gang.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum MemberOutcome {
    /// Its main container exited with 0.
    Succeeded,
    /// It fails its gang, or is left out: the policy of its role decides, by the counts.
    Failed,
    /// It was lost and is made again (policy ReplaceMember): no verdict on the gang.
    Lost,
    /// We stopped it: collateral.
    Stopped,
}

/// What a person wants to read about.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Milestone {
    /// The workflow left Pending.
    WorkflowStarted,
    /// The workflow ended; `State::phase` says how.
    WorkflowEnded,
    /// A node's attempt was claimed.
    Released(NodeIx),
    /// All members of a node's gang are bound.
    Scheduled(NodeIx),
    /// All members of a node's gang run or ran.
    Running(NodeIx),
    /// A node's gang waits for a reason that is in its status.
    Waiting(NodeIx),
    /// A member was lost and is made again.
    Replaced(NodeIx),
    /// An attempt of a node failed and is followed by another one.
    TriedAgain(NodeIx),
    /// A node ended; its phase says how.
    NodeEnded(NodeIx),
}

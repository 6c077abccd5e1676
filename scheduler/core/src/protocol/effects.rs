//! What the protocol answers with: commands for dispatch, and facts for the engine's snapshot.

use super::plan::GangKey;
use crate::command::Command;
use crate::model::{Millis, PodKey};
use smol_str::SmolStr;

/// Everything one call of the protocol asks for, in order.
#[derive(Debug, Default)]
pub struct Effects {
    /// For dispatch.
    pub commands: Vec<Command>,
    /// For the engine. It must handle each one, then may call the protocol again.
    pub effects: Vec<Effect>,
}

/// One thing that the engine has to map on its snapshot or queue.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The journal is fenced and every open intent of it was announced by [`Effect::Recovered`]: plans are welcome.
    Ready,
    /// Another leader with this epoch wrote the journal: this process follows from now on and must drop its assumptions.
    Fenced {
        /// Epoch of the other leader.
        by_epoch: u64,
    },
    /// An intent of a former leader is open: assume every member on its node (where it is not seen bound elsewhere),
    /// do not plan the gang, call `abort` where it has ended and `on_node_gone` for nodes that no longer exist, and then
    /// answer by `recovered`; nothing is commanded for its members before.
    Recovered {
        /// The gang.
        gang: GangKey,
        /// Its members with their planned nodes; None has no place yet.
        members: Vec<(PodKey, Option<SmolStr>)>,
    },
    /// The pod is bound to the node that was planned: assumed becomes confirmed.
    Confirm {
        /// The pod.
        pod: PodKey,
        /// Its node.
        node: SmolStr,
    },
    /// Everything that the pod needs is there: look whether it is what was planned (a volume may have been provisioned
    /// elsewhere), and answer by `checked`; the pod is not bound before.
    Prepared {
        /// The pod.
        pod: PodKey,
        /// Its planned node.
        node: SmolStr,
    },
    /// The pod is not bound and can no longer be by this intent, or it is gone: forget the assumption, if there is one.
    Release {
        /// The pod.
        pod: PodKey,
    },
    /// Someone bound the pod to another node than planned: move the assumption. It counts as a bound member; where the
    /// gang's constraints no longer hold, call `abort`.
    ForeignBound {
        /// The gang.
        gang: GangKey,
        /// The pod.
        pod: PodKey,
        /// Where it is.
        node: SmolStr,
    },
    /// These members are certainly unbound and need a place. Keep or move their assumption and answer by `replanned`.
    Replan {
        /// The gang.
        gang: GangKey,
        /// Who needs a place.
        members: Vec<ReplanMember>,
    },
    /// A member's pod is gone (or failed) while the intent is open. The slot stays: keep its reservation when it never was
    /// bound (until `Replan` passes it on or `Release` ends it), and offer the gang's other pods by `on_pod`,
    /// bound ones too: a replacement may be there already.
    MemberLost {
        /// The gang.
        gang: GangKey,
        /// The lost pod.
        pod: PodKey,
        /// Role of the slot.
        role: SmolStr,
        /// Rank of the slot.
        rank: Option<u32>,
    },
    /// A gang stays partially live because an owner does not tolerate a rollback; it is still moved forward.
    HeldPartial {
        /// The gang.
        gang: GangKey,
        /// Members that are bound and live.
        bound: u32,
        /// Members that are not.
        missing: u32,
        /// Why it could not be completed, and why it is not rolled back.
        message: String,
    },
    /// The server refuses a write of the protocol itself (403, 422); it is tried again. A refused journal write is told for
    /// the journal and for every gang that waits for it.
    WriteRefused {
        /// The gang; None for the journal.
        gang: Option<GangKey>,
        /// What the server said.
        message: String,
    },
    /// A journal slot could not be read: its intents are lost, and are repaired from the pods alone.
    JournalUnreadable {
        /// Number of the slot.
        slot: u32,
        /// What is wrong with it.
        message: String,
    },
    /// The intent is closed and out of the journal: the gang may be planned again.
    Closed {
        /// The gang.
        gang: GangKey,
        /// How it ended.
        outcome: Ending,
        /// Members whose pod is gone or going, whatever the watch still shows of them.
        gone: Vec<PodKey>,
        /// When what happened.
        timings: Timings,
    },
}

/// A member that needs a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplanMember {
    /// The pod.
    pub pod: PodKey,
    /// Where it was planned before; free to be used again unless the node is gone.
    pub prior: Option<SmolStr>,
    /// The lost pod, never bound, whose slot and reservation it takes.
    pub takes_slot_of: Option<PodKey>,
}

/// How an intent ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The gang is live. Members that could not be placed within the deadline are left out (released, to be planned alone).
    Bound {
        /// Members left out; empty for a whole gang.
        left_out: Vec<PodKey>,
    },
    /// No member is live: each is unbound, deleting or gone.
    Undone {
        /// Why.
        cause: Cause,
    },
}

/// Why an intent was undone.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Cause {
    /// Members could not be placed or replaced until the repair deadline.
    NoPlace(String),
    /// The server refuses the Binding (403, 422); it is not the node's fault.
    Refused(String),
    /// Claims of a member could not be bound, provisioned, allocated or reserved on its node, or not in time.
    Unprepared(String),
    /// The engine asked for it: gang deleted or ended, or a foreign bind broke its constraints.
    Aborted(String),
    /// The pod of a gang of one changed after it was planned, or its node went away: plan it again.
    Changed(String),
}

impl Cause {
    /// The text for people.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::NoPlace(text)
            | Self::Refused(text)
            | Self::Unprepared(text)
            | Self::Aborted(text)
            | Self::Changed(text) => text,
        }
    }
}

/// Milestones of an intent on the engine's clock; a recovered intent starts when this leader found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Last needed member seen ungated.
    pub ready_at_ms: Millis,
    /// Planned.
    pub planned_at_ms: Millis,
    /// First Binding commanded, which is when the journal held the intent; None when there was none.
    pub first_bind_at_ms: Option<Millis>,
    /// Last Binding known to be acknowledged; None when no member was bound.
    pub last_ack_at_ms: Option<Millis>,
    /// Members.
    pub members: u32,
    /// Whether it needed a repair.
    pub repaired: bool,
    /// Whether a former leader had begun it.
    pub recovered: bool,
}

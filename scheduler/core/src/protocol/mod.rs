//! The gang binding protocol: all-or-nothing over an API server that binds one pod at a time.
//!
//! Kubernetes binds pods one by one, so a gang can be caught half bound by a crash, a refusal or a lost node. The protocol
//! makes that state short and always recoverable: what is going to be bound is journaled first, and whoever leads later
//! finishes it or takes it back. The engine hands in a plan ([`Protocol::begin`]), facts and outcomes; the protocol answers
//! with commands for dispatch and effects for the engine's snapshot ([`Effects`]). It holds no pods but its members.
//!
//! ```text
//!  begin ──> Recording ──journal──> Preparing ──all prepared──> Open ──all bound──> Closing ──journal──> Closed (Bound)
//!            (intent)                   │                      │ ^                  ^   ^
//!                 lost, refused, late   │                      │ │ hold: an owner   │   │
//!                 ┌─────────────────────┘  pod lost, node lost,│ │ does not         │   │
//!                 │                        404, refused: repair│ │ tolerate it      │   │
//!                 │                        forward in Open     v │                  │   │
//!                 └────────────────────────────────────> Withdrawing ── live without the rest,
//!                                                              │        or nothing bound, nothing left prepared
//!                                                              v                        │
//!                              (irreversible)          RollingBack ──journal──> mark, read, delete ──> Closed (Undone)
//! ```
//! | step | where |
//! |---|---|
//! | journal: slots, compare-and-swap, group commit, split of large gangs | `journal` |
//! | intent: phases, members, open and close | `intent` |
//! | prepare: claims and volumes before the first Binding, and taking them back | `prepare`, `task` |
//! | bind: one member's next command, and what answers teach | `bind` |
//! | repair forward: replan, replacements, lost nodes, deadline | `repair` |
//! | roll back, withdraw, hold | `rollback` |
//! | recover: fence the journal, inherit intents | `recover` |
//!
//! A plan of one pod with nothing to prepare skips the journal: there is no half of it.
//!
//! What the engine does for each effect, and in which order effects come, is said at [`Effect`]. Between two effects of one
//! call the engine must not call the protocol; after the call it may.
//!
//! Invariants
//! - No Binding without its node and UID in the journal (a single pod with nothing to prepare excepted), and none before
//!   everything that the pod needs is there.
//! - No other node for a pod, and no `Release`, while a Binding that was sent may land: it is re-versioned before.
//! - Nothing bound is deleted unless the journal says so (`RollingBack`, or evicted), the owner tolerates it, and its
//!   membership was read again; deletes carry the UID.
//! - After [`Protocol::follow`] nothing is commanded, and outcomes of earlier commands are ignored.
//! - A gang has at most one open intent, a pod is a member of at most one.
//!
//! Costs: O(log n) per outcome and pod event, O(members) per phase change, O(payload) per journal write.

mod bind;
mod config;
mod effects;
mod intent;
pub mod journal;
mod plan;
mod prepare;
mod recover;
mod repair;
mod rollback;
mod special;
mod task;
#[cfg(test)]
mod tests;

pub use config::{ProtocolConfig, Tolerance, TolerantOwner};
pub use effects::{Cause, Effect, Effects, Ending, ReplanMember, Timings};
pub use plan::{BeginError, GangKey, NewPlace, PartialGang, Patience, Placement, Plan, Quorum, Replanned, shape_of};
pub use prepare::Check;

use crate::command::OpId;
use crate::event::{
    BindResult, JournalReadResult, JournalSlotRead, Outcome, PrepareReadResult, ReadResult, WriteResult,
};
use crate::model::{Millis, PodInfo, PodKey};
use crate::preparation::{ClaimName, VolumeClaimFacts};
use intent::{Intent, Member, Phase};
use journal::SlotState;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// The state machine of all open intents of one leader.
#[derive(Debug)]
pub struct Protocol {
    config: ProtocolConfig,
    /// Identity of the last command; never starts over, so that outcomes of a former term are strangers.
    last_op: u64,
    leading: bool,
    /// The journal is fenced and inherited.
    ready: bool,
    epoch: u64,
    next_intent: u64,
    slots: Vec<SlotState>,
    intents: BTreeMap<u64, Intent>,
    by_gang: BTreeMap<GangKey, u64>,
    /// UID of each member -> (intent, index).
    by_uid: BTreeMap<SmolStr, (u64, usize)>,
    /// UID of each claim that is prepared -> members that it is prepared for.
    by_claim: BTreeMap<SmolStr, BTreeSet<(u64, usize)>>,
    /// Commands whose outcome is awaited, and until when.
    awaited: BTreeMap<OpId, (Awaited, Millis)>,
    timers: BTreeSet<(Millis, Timer)>,
    /// Members to be driven, and intents to be judged, before the present call returns.
    queue: BTreeSet<(u64, usize)>,
    changed: BTreeSet<u64>,
}

/// The time of a call, and where its effects go.
struct Cx<'a> {
    now: Millis,
    fx: &'a mut Effects,
}

/// What an outcome belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// A journal slot.
    Slot(usize, SlotRequest),
    /// A member of an intent.
    Member(u64, usize, MemberRequest),
    /// A preparation of a member of an intent.
    Task(u64, usize, usize, TaskRequest),
}

/// A request about what is prepared for a member; `back`: about taking it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TaskRequest {
    Read { back: bool },
    Write { back: bool },
}

/// A request about a journal slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotRequest {
    Write,
    Read,
}

/// A request about a member's pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemberRequest {
    Bind,
    Read,
    Fence,
    Mark,
    Delete,
}

/// What is due at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// An outcome that did not come.
    Op(OpId),
    /// A slot may be requested again.
    Slot(usize),
    /// A member may be driven again.
    Member(u64, usize),
    /// Places are asked for again.
    Ask(u64),
    /// Preparations may be late.
    Prepare(u64),
    /// The repair deadline.
    Deadline(u64),
}

/// Gauges of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtocolStats {
    /// Open intents that the journal holds (or is about to).
    pub open_intents: usize,
    /// Pods on their own that are being bound.
    pub open_singles: usize,
    /// Intents being rolled back.
    pub rolling_back: usize,
    /// Intents whose claims and volumes are being prepared.
    pub preparing: usize,
    /// Gangs held partial.
    pub held_partial: usize,
    /// Commands whose outcome is awaited.
    pub awaited: usize,
}

impl Protocol {
    /// A follower.
    #[must_use]
    pub fn new(config: ProtocolConfig) -> Self {
        Self {
            config,
            last_op: 0,
            leading: false,
            ready: false,
            epoch: 0,
            next_intent: 0,
            slots: Vec::new(),
            intents: BTreeMap::new(),
            by_gang: BTreeMap::new(),
            by_uid: BTreeMap::new(),
            by_claim: BTreeMap::new(),
            awaited: BTreeMap::new(),
            timers: BTreeSet::new(),
            queue: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    /// This process leads with this epoch: fences every slot, then recovers what is open. Answered by
    /// [`Effect::Recovered`] per open intent and then [`Effect::Ready`]; or by [`Effect::Fenced`].
    pub fn lead(&mut self, epoch: u64, slots: Vec<JournalSlotRead>, now: Millis, fx: &mut Effects) {
        self.follow();
        self.enter(now, fx, |protocol, cx| {
            protocol.take_over(epoch, slots, cx);
            if protocol.leading && protocol.slots.is_empty() {
                protocol.inherit_intents(cx);
            }
        });
    }

    /// This process no longer leads: everything is dropped, nothing more is commanded, late outcomes are ignored. The
    /// caller drops its assumptions.
    pub fn follow(&mut self) {
        let last_op = self.last_op;
        *self = Self { last_op, ..Self::new(self.config.clone()) };
    }

    /// Whether plans are welcome: leading, and the journal is fenced.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether the gang has an open intent; it must not be planned then.
    #[must_use]
    pub fn is_open(&self, gang: &GangKey) -> bool {
        self.by_gang.contains_key(gang)
    }

    /// Whether the pod is a member of an open intent.
    #[must_use]
    pub fn is_member(&self, pod: &PodKey) -> bool {
        self.by_uid.contains_key(&pod.uid)
    }

    /// Begins to bind a plan whose members the engine has assumed. Several calls in a row share one journal write when
    /// [`Self::flush`] follows the last of them; nothing happens before it.
    ///
    /// # Errors
    /// See [`BeginError`]; nothing was begun then, and the caller releases what it assumed.
    pub fn begin(&mut self, plan: Plan, now: Millis, fx: &mut Effects) -> Result<(), BeginError> {
        self.open_plan(plan, &mut Cx { now, fx })
    }

    /// Opens a repair for a gang that was found partially bound without an open intent; like [`Self::begin`].
    ///
    /// # Errors
    /// See [`BeginError`].
    pub fn adopt(&mut self, gang: PartialGang, now: Millis, fx: &mut Effects) -> Result<(), BeginError> {
        self.open_repair(gang, &mut Cx { now, fx })
    }

    /// Emits what was begun since; every other call does so by itself.
    pub fn flush(&mut self, now: Millis, fx: &mut Effects) {
        self.enter(now, fx, |_, _| {});
    }

    /// The engine's answer to [`Effect::Recovered`]: the gang's pods as the lists of this term show them. Members that are
    /// not among them are read. Nothing is commanded for the members before; unknown gangs are ignored.
    pub fn recovered(&mut self, gang: &GangKey, pods: &[&PodInfo], now: Millis, fx: &mut Effects) {
        self.enter(now, fx, |protocol, cx| protocol.resume(gang, pods, cx));
    }

    /// The engine's answer to [`Effect::Replan`]; unknown gangs are ignored.
    pub fn replanned(&mut self, gang: &GangKey, answer: Replanned, now: Millis, fx: &mut Effects) {
        self.enter(now, fx, |protocol, _| protocol.take_places(gang, answer));
    }

    /// The engine's answer to [`Effect::Prepared`]; unknown pods are ignored.
    pub fn checked(&mut self, pod: &PodKey, check: Check, now: Millis, fx: &mut Effects) {
        self.enter(now, fx, |protocol, cx| protocol.take_check(pod, check, cx));
    }

    /// A PersistentVolumeClaim was seen by watch. O(members that wait for it). Stale news do no harm: only a binding is
    /// believed, which is never taken back.
    pub fn on_volume_claim(&mut self, facts: &VolumeClaimFacts, now: Millis, fx: &mut Effects) {
        if self.prepares(&facts.key.uid) {
            self.enter(now, fx, |protocol, cx| protocol.see_volume_claim(facts, cx));
        }
    }

    /// Whether a claim of this UID is prepared for a member.
    #[must_use]
    pub fn prepares(&self, claim: &str) -> bool {
        self.by_claim.contains_key(claim)
    }

    /// The volume of a PersistentVolumeClaim was seen by watch: a check that came too early is made again.
    pub fn on_volume(&mut self, claim: &ClaimName, now: Millis, fx: &mut Effects) {
        if self.prepares(&claim.uid) {
            self.enter(now, fx, |protocol, _| protocol.check_again(claim));
        }
    }

    /// A ResourceClaim changed, or a claim is gone: whoever waits for it reads it at once.
    pub fn on_claim(&mut self, claim: &ClaimName, now: Millis, fx: &mut Effects) {
        if self.prepares(&claim.uid) {
            self.enter(now, fx, |protocol, _| protocol.see_claim(claim));
        }
    }

    /// The gang must not live (deleted, ended, constraints broken): rolls its open intent back, or holds it.
    pub fn abort(&mut self, gang: &GangKey, why: &str, now: Millis, fx: &mut Effects) {
        let Some(seq) = self.by_gang.get(gang).copied() else { return };
        self.enter(now, fx, |protocol, cx| protocol.undo(seq, Cause::Aborted(why.to_owned()), cx));
    }

    /// What became of a command. Outcomes of unknown commands are ignored.
    pub fn on_outcome(&mut self, outcome: Outcome, now: Millis, fx: &mut Effects) {
        self.enter(now, fx, |protocol, cx| protocol.take_outcome(outcome, cx));
    }

    /// A pod was seen by watch: a member of an open intent, or a replacement for a lost one. Stale news do no harm: only
    /// what can never be taken back is believed.
    pub fn on_pod(&mut self, pod: &PodInfo, now: Millis, fx: &mut Effects) {
        if self.intents.is_empty() {
            return;
        }
        match self.by_uid.get(&pod.key.uid).copied() {
            Some((seq, index)) => self.enter(now, fx, |protocol, cx| {
                protocol.learn_final(seq, index, pod, cx);
            }),
            None if self.by_gang.contains_key(&GangKey::of(pod)) => {
                self.enter(now, fx, |protocol, cx| protocol.offer(pod, cx));
            }
            None => {}
        }
    }

    /// A pod object is gone.
    pub fn on_pod_gone(&mut self, pod: &PodKey, now: Millis, fx: &mut Effects) {
        if let Some((seq, index)) = self.by_uid.get(&pod.uid).copied() {
            self.enter(now, fx, |protocol, cx| protocol.learn_gone(seq, index, cx));
        }
    }

    /// A node is gone: members planned there need another place.
    pub fn on_node_gone(&mut self, node: &str, now: Millis, fx: &mut Effects) {
        self.enter(now, fx, |protocol, _| protocol.lose_node(node));
    }

    /// Time passed: retries, timeouts and deadlines that are due.
    pub fn tick(&mut self, now: Millis, fx: &mut Effects) {
        self.enter(now, fx, |protocol, cx| {
            while let Some((_, timer)) = protocol.timers.first().copied().filter(|(at, _)| *at <= now) {
                protocol.timers.pop_first();
                protocol.fire(timer, cx);
            }
        });
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The gauges. O(open intents).
    #[must_use]
    pub fn stats(&self) -> ProtocolStats {
        let mut stats = ProtocolStats { awaited: self.awaited.len(), ..ProtocolStats::default() };
        for intent in self.intents.values() {
            stats.open_intents += usize::from(!intent.slots.is_empty());
            stats.open_singles += usize::from(intent.slots.is_empty());
            stats.rolling_back += usize::from(matches!(intent.phase, Phase::RollingBack { .. }));
            stats.preparing += usize::from(intent.phase == Phase::Preparing);
            stats.held_partial += usize::from(intent.held && intent.tally.live > 0);
        }
        stats
    }

    /// One call from outside: do it, drive what it touched to rest, then write the journal once.
    fn enter(&mut self, now: Millis, fx: &mut Effects, call: impl FnOnce(&mut Self, &mut Cx<'_>)) {
        let cx = &mut Cx { now, fx };
        call(self, cx);
        loop {
            if let Some((seq, index)) = self.queue.pop_first() {
                self.drive(seq, index, cx);
            } else if let Some(seq) = self.changed.pop_first() {
                self.judge(seq, cx);
            } else {
                break;
            }
        }
        self.write_journal(cx);
    }

    fn fire(&mut self, timer: Timer, cx: &mut Cx<'_>) {
        match timer {
            Timer::Op(op) => {
                if let Some((awaited, _)) = self.awaited.get(&op).copied() {
                    self.take_outcome(unknown(awaited, op), cx);
                }
            }
            Timer::Member(seq, index) => {
                self.queue.insert((seq, index));
            }
            Timer::Ask(seq) => {
                self.changed.insert(seq);
            }
            Timer::Prepare(seq) => self.on_prepare_deadline(seq, cx),
            Timer::Deadline(seq) => self.on_deadline(seq, cx),
            Timer::Slot(_) => {}
        }
    }

    fn take_outcome(&mut self, outcome: Outcome, cx: &mut Cx<'_>) {
        let op = outcome.op();
        let Some(awaited) = self.forget_op(op) else { return };
        match (awaited, outcome) {
            (Awaited::Slot(slot, SlotRequest::Write), Outcome::Journal { result, .. }) => {
                self.on_journal_written(slot, result, cx);
            }
            (Awaited::Slot(slot, SlotRequest::Read), Outcome::JournalRead { result, .. }) => {
                self.on_journal_read(slot, result, cx);
            }
            (Awaited::Member(seq, index, _), outcome) if self.answered(op, seq, index) => match outcome {
                Outcome::Bind { result, .. } => self.on_bind(seq, index, result, cx),
                Outcome::Read { result, .. } => self.on_read(seq, index, result, cx),
                Outcome::Fence { result, .. } => self.on_fenced(seq, index, result, cx),
                Outcome::Mark { result, .. } => self.on_marked(seq, index, result, cx),
                Outcome::Delete { result, .. } => self.on_deleted(seq, index, result, cx),
                _ => {}
            },
            (Awaited::Task(seq, index, task, request), outcome) => {
                self.take_task_outcome(op, (seq, index, task), request, outcome, cx);
            }
            _ => {}
        }
    }

    fn take_task_outcome(
        &mut self,
        op: OpId,
        at: (u64, usize, usize),
        request: TaskRequest,
        outcome: Outcome,
        cx: &mut Cx<'_>,
    ) {
        if !self.task_answered(op, at) {
            return;
        }
        match (request, outcome) {
            (TaskRequest::Read { back }, Outcome::PreparedRead { result, .. }) => {
                self.on_prepare_read(at, back, result, cx);
            }
            (TaskRequest::Write { back }, Outcome::Prepare { result, .. }) => {
                self.on_prepare_written(at, back, result, cx);
            }
            _ => {}
        }
    }

    /// A new command whose outcome is awaited.
    fn await_op(&mut self, awaited: Awaited, now: Millis) -> OpId {
        self.last_op += 1;
        let op = OpId(self.last_op);
        let until = now + self.config.outcome_timeout_ms;
        self.awaited.insert(op, (awaited, until));
        self.timers.insert((until, Timer::Op(op)));
        op
    }

    fn forget_op(&mut self, op: OpId) -> Option<Awaited> {
        let (awaited, until) = self.awaited.remove(&op)?;
        self.timers.remove(&(until, Timer::Op(op)));
        Some(awaited)
    }

    fn member(&self, seq: u64, index: usize) -> Option<&Member> {
        self.intents.get(&seq)?.members.get(index)
    }

    /// Changes a member; it is driven and its intent judged before the present call returns.
    fn update(&mut self, seq: u64, index: usize, change: impl FnOnce(&mut Member)) {
        if let Some(intent) = self.intents.get_mut(&seq) {
            intent.update(index, change);
            self.queue.insert((seq, index));
            self.changed.insert(seq);
        }
    }

    /// Whether a rollback may delete the member's pod.
    fn tolerant(&self, member: &Member) -> bool {
        self.config.tolerance.allows(member.owner.as_ref())
    }
}

/// The outcome of a command that was never answered.
fn unknown(awaited: Awaited, op: OpId) -> Outcome {
    let text = "no outcome in time".to_owned();
    match awaited {
        Awaited::Slot(_, SlotRequest::Write) => Outcome::Journal { op, result: WriteResult::Unknown(text) },
        Awaited::Slot(_, SlotRequest::Read) => Outcome::JournalRead { op, result: JournalReadResult::Unknown(text) },
        Awaited::Task(.., TaskRequest::Read { .. }) => {
            Outcome::PreparedRead { op, result: PrepareReadResult::Unknown(text) }
        }
        Awaited::Task(.., TaskRequest::Write { .. }) => Outcome::Prepare { op, result: WriteResult::Unknown(text) },
        Awaited::Member(_, _, request) => match request {
            MemberRequest::Bind => Outcome::Bind { op, result: BindResult::Unknown(text) },
            MemberRequest::Read => Outcome::Read { op, result: ReadResult::Unknown(text) },
            MemberRequest::Fence => Outcome::Fence { op, result: WriteResult::Unknown(text) },
            MemberRequest::Mark => Outcome::Mark { op, result: WriteResult::Unknown(text) },
            MemberRequest::Delete => Outcome::Delete { op, result: WriteResult::Unknown(text) },
        },
    }
}

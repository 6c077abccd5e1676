//! An intent: one gang on its way to being bound, from the first journal write to the last.
//!
//! A member is described by what is known of its pod ([`Fact`]) and by what is wanted of it ([`Goal`]); the next command
//! follows from the two alone (`bind::drive`), so that no answer, late answer or missing answer can lead astray. An intent
//! goes through its [`Phase`]s by counting members (`Tally`), which is kept by [`Intent::update`], O(1) per change.

use super::effects::{Cause, Effect, Ending, Timings};
use super::journal::{Head, MemberRecord, Waiter, bytes_of};
use super::plan::{BeginError, GangKey, PartialGang, Patience, Placement, Plan, Quorum};
use super::task::Task;
use super::{Cx, Protocol, Timer};
use crate::command::OpId;
use crate::model::{Millis, Owner, PodKey};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// What is known of a member's pod. Bound, Done and Gone are final: no later news can take them back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// Only a consistent read tells.
    Unsure,
    /// Not bound when it had the resourceVersion that is recorded.
    Unbound,
    /// Bound and live, on the member's node.
    Bound,
    /// Bound, and ended well.
    Done,
    /// This UID is gone, being deleted, failed, or no longer of the gang; or the slot is vacant.
    Gone,
}

/// What is wanted of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// To be bound to its node.
    Bind,
    /// To be made safe (re-versioned) and given another node.
    Place,
    /// To be deleted because its node is lost, so that a replacement can take the slot; irreversible once recorded.
    Evict,
    /// To be unbound and safe, or deleted.
    Undo,
}

/// Where an intent stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The journal does not hold it yet: first the tails, then (`head`) the head.
    Recording {
        /// Whether the head may be written.
        head: bool,
    },
    /// In force, and nothing is bound before all that the members need is there.
    Preparing,
    /// Members are bound and repaired.
    Open,
    /// Unbound members are made safe; then it is closed, rolled back, or held.
    Withdrawing {
        /// Why; None: the gang is live, the rest is left out.
        cause: Option<Cause>,
    },
    /// Irreversibly: bound members are deleted, unbound ones made safe.
    RollingBack {
        /// Why.
        cause: Cause,
        /// Whether the journal says so; nothing is deleted before.
        recorded: bool,
    },
    /// Waits for the journal to forget it.
    Closing {
        /// How it ended.
        ending: Ending,
    },
}

/// A member of an intent.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) pod: PodKey,
    pub(super) resource_version: SmolStr,
    pub(super) owner: Option<Owner>,
    pub(super) role: SmolStr,
    pub(super) rank: Option<u32>,
    pub(super) shape: Option<u64>,
    /// Planned node; for a bound member the node it is bound to. None: no place.
    pub(super) node: Option<SmolStr>,
    /// Part of the intent that records it.
    pub(super) part: u32,
    pub(super) fact: Fact,
    pub(super) goal: Goal,
    /// Change of its slot that must be durable before it is bound or evicted.
    pub(super) change: u64,
    /// Command whose outcome is awaited.
    pub(super) op: Option<OpId>,
    /// No command before this time.
    pub(super) not_before: Millis,
    /// No Binding before this time: the server refused one.
    pub(super) refused_until: Millis,
    /// Failures in a row, for the backoff.
    pub(super) failures: u32,
    /// Definite refusals in a row (409).
    pub(super) conflicts: u32,
    /// resourceVersion under which a Binding of ours may still land: it was given up, or not answered by success.
    pub(super) exposed: Option<SmolStr>,
    /// A former leader's Binding may still land, whatever the resourceVersion, until it is fenced in this epoch.
    pub(super) inherited: bool,
    /// DisruptionTarget is set.
    pub(super) marked: bool,
    /// Bound, and to be read again before it is deleted.
    pub(super) recheck: bool,
    /// No longer of the gang by its own labels; gone for us as soon as no Binding can land.
    pub(super) left: bool,
    /// The journal claims no place for it, as of `change`; only then another is asked for.
    pub(super) vacated: bool,
    /// A place was asked for.
    pub(super) asked: bool,
    /// The planned node that is known to be lost.
    pub(super) lost_node: Option<SmolStr>,
    /// Bound by someone else while it was undone, and not ours to delete: gone for the intent alone.
    pub(super) spared: bool,
    /// It was bound once: what it holds is no assumption any more.
    pub(super) was_bound: bool,
    /// The pod whose slot it took, until a place was asked for.
    pub(super) replaces: Option<PodKey>,
    /// What is prepared for it on its node, until it is bound or all is taken back.
    pub(super) tasks: Vec<Task>,
    /// How long that may take.
    pub(super) patience: Patience,
    /// All of it is there, and is what was planned.
    pub(super) checked: bool,
    /// The engine was asked whether it is, and when it is asked again.
    pub(super) checking: bool,
    pub(super) check_at: Millis,
}

impl Member {
    pub(super) fn new(placement: Placement, part: u32) -> Self {
        Self {
            pod: placement.pod,
            resource_version: placement.resource_version,
            owner: placement.owner,
            role: placement.role,
            rank: placement.rank,
            shape: Some(placement.shape),
            fact: if placement.bound { Fact::Bound } else { Fact::Unbound },
            was_bound: placement.bound,
            goal: if placement.node.is_some() { Goal::Bind } else { Goal::Place },
            vacated: placement.node.is_none(),
            node: placement.node,
            tasks: placement.preparations.into_iter().map(Task::new).collect(),
            patience: placement.patience,
            part,
            ..Self::vacant(SmolStr::default(), None, None, part)
        }
    }

    /// A slot without a pod.
    pub(super) fn vacant(role: SmolStr, rank: Option<u32>, shape: Option<u64>, part: u32) -> Self {
        Self {
            pod: PodKey::default(),
            resource_version: SmolStr::default(),
            owner: None,
            role,
            rank,
            shape,
            node: None,
            part,
            fact: Fact::Gone,
            goal: Goal::Place,
            change: 0,
            op: None,
            not_before: 0,
            refused_until: 0,
            failures: 0,
            conflicts: 0,
            exposed: None,
            inherited: false,
            marked: false,
            recheck: false,
            left: false,
            vacated: true,
            asked: false,
            lost_node: None,
            spared: false,
            was_bound: false,
            replaces: None,
            tasks: Vec::new(),
            patience: Patience::default(),
            checked: false,
            checking: false,
            check_at: 0,
        }
    }

    /// Whether a Binding that was sent before may still land.
    pub(super) fn may_land(&self) -> bool {
        self.inherited || self.exposed.as_ref().is_some_and(|exposed| *exposed == self.resource_version)
    }

    /// A Binding was sent under the present resourceVersion and may still land.
    pub(super) fn expose(&mut self) {
        self.exposed = Some(self.resource_version.clone());
    }

    /// Unbound, and no Binding can land any more.
    pub(super) fn is_safe(&self) -> bool {
        self.fact == Fact::Unbound && !self.may_land() && self.op.is_none()
    }

    fn tally(&self) -> Tally {
        let live = matches!(self.fact, Fact::Bound | Fact::Done);
        let evicting = self.goal == Goal::Evict && self.fact == Fact::Bound;
        let homeless = self.goal == Goal::Place && !live;
        Tally {
            bound: u32::from(live && !evicting),
            live: u32::from(self.fact == Fact::Bound),
            trouble: u32::from(!live && (homeless || self.fact == Fact::Gone || self.conflicts >= STUCK) || evicting),
            doubt: u32::from(self.fact == Fact::Unsure || self.fact == Fact::Unbound && !self.is_safe()),
            homeless: u32::from(homeless && self.is_safe() && self.tasks.is_empty()),
            asked: u32::from(homeless && self.asked),
            unready: u32::from(!live && !self.is_prepared()),
            unclean: u32::from(self.gives_back()),
        }
    }
}

/// So many definite refusals in a row (a pod that stays gated, say) are trouble and start the repair clock.
pub(super) const STUCK: u32 = 3;

/// How many members are in a condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Bound or done, and to stay so.
    pub(super) bound: u32,
    /// Bound and not ended: what a rollback would have to delete.
    pub(super) live: u32,
    /// Need a repair.
    pub(super) trouble: u32,
    /// May be bound or not.
    pub(super) doubt: u32,
    /// Safe and without a place.
    pub(super) homeless: u32,
    /// Of these, asked for.
    pub(super) asked: u32,
    /// Not bound, and something that they need is not there yet.
    pub(super) unready: u32,
    /// Something that was prepared for them is to be taken back.
    pub(super) unclean: u32,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.bound += other.bound;
        self.live += other.live;
        self.trouble += other.trouble;
        self.doubt += other.doubt;
        self.homeless += other.homeless;
        self.asked += other.asked;
        self.unready += other.unready;
        self.unclean += other.unclean;
    }

    fn remove(&mut self, other: Self) {
        self.bound -= other.bound;
        self.live -= other.live;
        self.trouble -= other.trouble;
        self.doubt -= other.doubt;
        self.homeless -= other.homeless;
        self.asked -= other.asked;
        self.unready -= other.unready;
        self.unclean -= other.unclean;
    }
}

/// One gang on its way.
#[derive(Debug)]
pub(super) struct Intent {
    pub(super) id: SmolStr,
    pub(super) gang: GangKey,
    pub(super) phase: Phase,
    pub(super) members: Vec<Member>,
    pub(super) quorum: Quorum,
    pub(super) may_roll_back: bool,
    /// Slot of each part; empty for one pod with nothing to prepare, which skips the journal.
    pub(super) slots: Vec<usize>,
    pub(super) tally: Tally,
    pub(super) timings: Timings,
    /// Repair began, and ends: the deadline.
    pub(super) deadline: Option<Millis>,
    /// The deadline passed.
    pub(super) overdue: bool,
    /// Reported as held partial.
    pub(super) held: bool,
    /// When places are asked for again.
    pub(super) ask_again_at: Millis,
    /// Why there was no place last time.
    pub(super) refusal: Option<String>,
    /// Changes that a phase waits for, by slot.
    pub(super) awaits: BTreeMap<usize, u64>,
    /// Since when it prepares, and when its preparations are looked at for being late.
    pub(super) preparing_since: Millis,
    pub(super) prepare_deadline: Option<Millis>,
    /// The journal held it as a whole once: Bindings may have been sent.
    pub(super) in_force: bool,
    /// Inherited, and the engine has not said yet what it knows of the members: nothing is commanded for them.
    pub(super) dormant: bool,
}

impl Intent {
    /// Changes a member and keeps the tally.
    pub(super) fn update(&mut self, index: usize, change: impl FnOnce(&mut Member)) {
        let Some(member) = self.members.get_mut(index) else { return };
        self.tally.remove(member.tally());
        change(member);
        self.tally.add(member.tally());
    }

    /// The tally, counted anew; what `tally` must always be.
    #[cfg(test)]
    pub(super) fn counted(&self) -> Tally {
        let mut tally = Tally::default();
        self.members.iter().for_each(|member| tally.add(member.tally()));
        tally
    }

    /// Number of members and vacant slots.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// The head as the journal should hold it.
    pub(super) fn head(&self) -> Head {
        let rollback = match &self.phase {
            Phase::RollingBack { cause, .. } => Some(cause.clone()),
            _ => None,
        };
        Head {
            gang: self.gang.clone(),
            rollback,
            parts: u32::try_from(self.slots.len()).unwrap_or(u32::MAX),
            quorum: self.quorum.clone(),
            may_roll_back: self.may_roll_back,
        }
    }

    /// Whether enough members are bound for the gang to be live. O(members).
    pub(super) fn is_live(&self) -> bool {
        let is_bound = |member: &&Member| matches!(member.fact, Fact::Bound | Fact::Done) && member.goal != Goal::Evict;
        let bound = self.members.iter().filter(is_bound);
        let of_role =
            |role: &SmolStr| self.members.iter().filter(is_bound).filter(|member| member.role == *role).count();
        bound.count() >= self.quorum.total as usize
            && self.quorum.roles.iter().all(|(role, needed)| of_role(role) >= *needed as usize)
    }

    /// What the engine is told of a vacant slot.
    pub(super) fn lost(&self, member: &Member) -> Effect {
        Effect::MemberLost {
            gang: self.gang.clone(),
            pod: member.pod.clone(),
            role: member.role.clone(),
            rank: member.rank,
        }
    }

    /// Whether the phase lets members be prepared, bound, moved and replaced.
    pub(super) fn moves_forward(&self) -> bool {
        matches!(self.phase, Phase::Recording { .. } | Phase::Preparing | Phase::Open)
    }

    /// One pod, of which there is no half to hold: where it fails, the queue plans it again.
    pub(super) fn is_alone(&self) -> bool {
        self.slots.is_empty() || matches!(self.gang, GangKey::Pod(_))
    }
}

impl Protocol {
    /// Opens an intent for a plan. O(members).
    pub(super) fn open_plan(&mut self, plan: Plan, cx: &mut Cx<'_>) -> Result<(), BeginError> {
        if plan.members.is_empty() || plan.members.iter().any(|member| member.node.is_none() || member.bound) {
            return Err(BeginError::Incomplete);
        }
        let timings =
            Timings { ready_at_ms: plan.ready_at_ms, planned_at_ms: plan.planned_at_ms, ..Timings::default() };
        let members = plan.members.into_iter().map(|placement| Member::new(placement, 0)).collect();
        self.open_intent(plan.gang, members, plan.quorum, true, timings, cx)
    }

    /// Opens a repair for a partial gang: its unbound members are fenced, for nobody knows who tried to bind them.
    pub(super) fn open_repair(&mut self, gang: PartialGang, cx: &mut Cx<'_>) -> Result<(), BeginError> {
        let timings = Timings { ready_at_ms: cx.now, planned_at_ms: cx.now, repaired: true, ..Timings::default() };
        let found = gang.members.into_iter().map(|placement| {
            let mut member = Member::new(placement, 0);
            member.inherited = member.fact == Fact::Unbound;
            member
        });
        let vacant = gang.vacant.into_iter().map(|(role, rank, shape)| Member::vacant(role, rank, shape, 0));
        let members: Vec<_> = found.chain(vacant).collect();
        if members.is_empty() {
            return Err(BeginError::Incomplete);
        }
        self.open_intent(gang.gang, members, gang.quorum, gang.may_roll_back, timings, cx)
    }

    fn open_intent(
        &mut self,
        gang: GangKey,
        members: Vec<Member>,
        quorum: Quorum,
        may_roll_back: bool,
        timings: Timings,
        cx: &mut Cx<'_>,
    ) -> Result<(), BeginError> {
        if !self.ready {
            return Err(BeginError::NotReady);
        }
        if self.by_gang.contains_key(&gang) || members.iter().any(|member| self.by_uid.contains_key(&member.pod.uid)) {
            return Err(BeginError::AlreadyOpen);
        }
        self.next_intent += 1;
        let seq = self.next_intent;
        let mut intent = Intent {
            id: SmolStr::from(format!("{}-{seq}", self.epoch)),
            gang,
            phase: Phase::Open,
            members,
            quorum,
            may_roll_back,
            slots: Vec::new(),
            tally: Tally::default(),
            timings: Timings { members: 0, ..timings },
            deadline: None,
            overdue: false,
            held: false,
            ask_again_at: 0,
            refusal: None,
            awaits: BTreeMap::new(),
            preparing_since: 0,
            prepare_deadline: None,
            in_force: false,
            dormant: false,
        };
        intent.timings.members = intent.len();
        let journaled = intent.members.len() > 1 || intent.members.iter().any(|member| !member.tasks.is_empty());
        if journaled {
            self.place_parts(seq, &mut intent)?;
        }
        self.insert_intent(seq, intent);
        if journaled {
            self.record_tails(seq, cx);
        }
        Ok(())
    }

    /// Gives each part of a new intent a slot.
    fn place_parts(&mut self, seq: u64, intent: &mut Intent) -> Result<(), BeginError> {
        let member_bytes: Vec<usize> = intent.members.iter().map(bytes_of_member).collect();
        let head_bytes = bytes_of(&intent.head()) + intent.id.len() + PART_OVERHEAD_BYTES;
        let parts = self.find_room(head_bytes, &member_bytes).ok_or(BeginError::JournalFull)?;
        let mut first = 0;
        for (part, (slot, taken)) in (0..).zip(parts) {
            let members = first..first + taken;
            intent.members[members.clone()].iter_mut().for_each(|member| member.part = part);
            let bytes = head_bytes + member_bytes[members].iter().sum::<usize>();
            self.put_part(slot, seq, part, bytes);
            intent.slots.push(slot);
            first += taken;
        }
        Ok(())
    }

    /// Takes an intent in; its members are driven when its phase lets them.
    pub(super) fn insert_intent(&mut self, seq: u64, mut intent: Intent) {
        intent.tally = Tally::default();
        for (index, member) in intent.members.iter().enumerate() {
            intent.tally.add(member.tally());
            if !member.pod.uid.is_empty() {
                self.by_uid.insert(member.pod.uid.clone(), (seq, index));
            }
            for task in &member.tasks {
                self.by_claim.entry(task.what.claim().uid.clone()).or_default().insert((seq, index));
            }
            self.queue.insert((seq, index));
        }
        self.by_gang.insert(intent.gang.clone(), seq);
        self.changed.insert(seq);
        self.intents.insert(seq, intent);
    }

    /// Writes the tails of an intent, or its head where there are none.
    pub(super) fn record_tails(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        intent.phase = Phase::Recording { head: false };
        let tails: Vec<usize> = intent.slots.iter().skip(1).copied().collect();
        for slot in tails {
            let change = self.touch(slot, Some(Waiter::Intent(seq)));
            self.await_change(seq, slot, change);
        }
        self.on_recorded(seq, cx);
    }

    /// Writes the head, and waits for it.
    pub(super) fn record_head(&mut self, seq: u64) {
        let Some(slot) = self.intents.get(&seq).and_then(|intent| intent.slots.first().copied()) else { return };
        let change = self.touch(slot, Some(Waiter::Intent(seq)));
        self.await_change(seq, slot, change);
    }

    /// The same with the next write of the slot, but no later than `by`.
    fn record_head_later(&mut self, seq: u64, by: Millis) {
        let Some(slot) = self.intents.get(&seq).and_then(|intent| intent.slots.first().copied()) else { return };
        let change = self.touch_later(slot, Waiter::Intent(seq), by);
        self.await_change(seq, slot, change);
    }

    fn await_change(&mut self, seq: u64, slot: usize, change: u64) {
        if let Some(intent) = self.intents.get_mut(&seq) {
            intent.awaits.insert(slot, change);
        }
    }

    /// The journal holds something that the intent may have waited for.
    pub(super) fn on_recorded(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        intent.awaits.retain(|slot, change| self.slots[*slot].durable < *change);
        if !intent.awaits.is_empty() {
            return;
        }
        match &mut intent.phase {
            Phase::Recording { head: head @ false } => {
                *head = true;
                self.record_head(seq);
            }
            Phase::Recording { head: true } => self.go_into_force(seq, cx),
            Phase::RollingBack { recorded, .. } => {
                *recorded = true;
                self.drive_all(seq);
            }
            Phase::Closing { .. } => self.finish(seq, cx),
            Phase::Preparing | Phase::Open | Phase::Withdrawing { .. } => {}
        }
    }

    /// Lets every member take its next step.
    pub(super) fn drive_all(&mut self, seq: u64) {
        let Some(intent) = self.intents.get(&seq) else { return };
        self.queue.extend((0..intent.members.len()).map(|index| (seq, index)));
        self.changed.insert(seq);
    }

    /// Ends an intent: its head leaves the journal.
    pub(super) fn close(&mut self, seq: u64, ending: Ending, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        // Its place and what was prepared are the pod's; of a gang, its status waits for the end.
        let patient = intent.is_alone() && matches!(ending, Ending::Bound { .. });
        intent.phase = Phase::Closing { ending };
        intent.awaits.clear();
        let journaled = !intent.slots.is_empty();
        if let Some(deadline) = intent.deadline {
            self.timers.remove(&(deadline, Timer::Deadline(seq)));
        }
        match (journaled, patient) {
            (false, _) => self.finish(seq, cx),
            (true, false) => self.record_head(seq),
            (true, true) => self.record_head_later(seq, cx.now + self.config.close_delay_ms),
        }
    }

    /// The journal has forgotten the intent: what is unbound is released (not earlier, or a successor could still bind it
    /// to a place that was given away), and the gang may be planned again. O(members).
    fn finish(&mut self, seq: u64, cx: &mut Cx<'_>) {
        for index in 0..self.intents.get(&seq).map_or(0, |intent| intent.members.len()) {
            self.clear_tasks(seq, index);
        }
        let Some(intent) = self.intents.remove(&seq) else { return };
        let gone = |member: &&Member| member.fact == Fact::Gone && !member.spared && !member.left;
        let gone = intent.members.iter().filter(gone).map(|member| member.pod.clone()).collect();
        for member in intent.members.iter().filter(|member| !member.pod.uid.is_empty()) {
            self.by_uid.remove(&member.pod.uid);
            if member.fact == Fact::Unbound || member.fact == Fact::Gone && !member.was_bound {
                cx.fx.effects.push(Effect::Release { pod: member.pod.clone() });
            }
            let replaced = member.replaces.iter().map(|pod| Effect::Release { pod: pod.clone() });
            cx.fx.effects.extend(replaced);
        }
        for (part, slot) in (0..).zip(&intent.slots) {
            self.drop_part(*slot, seq, part);
            if part > 0 {
                self.touch(*slot, None);
            }
        }
        self.by_gang.remove(&intent.gang);
        if let Phase::Closing { ending } = intent.phase {
            let (gang, timings) = (intent.gang, intent.timings);
            cx.fx.effects.push(Effect::Closed { gang, outcome: ending, gone, timings });
        }
    }
}

/// Bytes of a part that are neither head nor members.
const PART_OVERHEAD_BYTES: usize = 64;

/// Upper bound of what a member takes in the journal: its node counts as if nobody shared it and its index were the largest,
/// and it counts as being evicted.
fn bytes_of_member(member: &Member) -> usize {
    let record = MemberRecord { e: true, ..MemberRecord::of(member, Some(u32::MAX)) };
    bytes_of(&record) + member.node.as_ref().map_or(0, bytes_of)
}

//! The journal: a few fixed slots, each a JSON payload written by compare-and-swap.
//!
//! ```text
//!   slot 0: { epoch, write, parts: [ head of A, tail 1 of B ] }      one gang = one head, and tails when it is large
//!   slot 1: { epoch, write, parts: [ head of B ] }
//!
//!   touch ──> change 7 ─┐
//!   touch ──> change 8 ─┴─ PUT (group commit) ── ok ──> durable 8 ──> everything that waited for <= 8 goes on
//!                              └─ 409 or unknown ──> GET ─┬─ ours: durable
//!                                                         ├─ a larger epoch: fenced, follow
//!                                                         └─ else: PUT again on what was read
//! ```
//! A pod of its own that is bound leaves the journal with the next write of its slot, or after `close_delay_ms`: nobody waits
//! for that, and a leader that inherits it finds it bound.
//!
//! Invariants: an intent exists if and only if its head is in a slot (tails are written before the head and removed after
//! it, so a tail without a head means nothing); a slot has at most one request in flight; every write carries the
//! resourceVersion that was read or returned last, so a former leader's write cannot land after ours.

use super::effects::{Cause, Effect};
use super::intent::{Fact, Goal, Intent, Member, Phase};
use super::plan::{GangKey, Quorum};
use super::task::Task;
use super::{Awaited, Cx, Protocol, SlotRequest, Timer};
use crate::command::{Command, OpId};
use crate::event::{JournalReadResult, JournalSlotRead, WriteResult};
use crate::model::Millis;
use crate::preparation::{ClaimName, Preparation, PreparationKind};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Version of the payload's format.
const FORMAT: u32 = 1;
/// The same where a member has preparations, which a leader that does not know them must not bind.
const FORMAT_WITH_TASKS: u32 = 2;
/// The same where one of them is to make a claim.
const FORMAT_WITH_CREATION: u32 = 3;

/// Bytes of a slot that are not parts.
pub(super) const SLOT_OVERHEAD_BYTES: usize = 128;

/// Payload of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Format: 1, or 2 where members have preparations, or 3 where a claim is to be made.
    pub v: u32,
    /// Epoch of the writer.
    pub epoch: u64,
    /// Number of the write in that epoch, by which a writer recognises its own.
    pub write: u64,
    /// Parts of intents.
    pub parts: Vec<Part>,
}

/// The epoch to lead with: that of the lease, unless the journal (or something else that is known) holds one that is not
/// smaller. Then the Lease was deleted and made again, and the epoch starts well above what is known, for a leader or two
/// may have had a later one and not yet written it. `gap` is how far: more terms than can have ended unrecorded, and another
/// number for every process, because a Lease can be deleted twice. The caller stores the epoch in the Lease before it leads.
#[must_use]
pub fn epoch_to_lead(lease: u64, known: u64, gap: u64, slots: &[JournalSlotRead]) -> u64 {
    let written = slots.iter().filter_map(|slot| Slot::decode(&slot.payload).ok()).map(|slot| slot.epoch);
    let largest = written.fold(known, u64::max);
    if lease > largest { lease } else { largest.saturating_add(gap.max(1)) }
}

/// Part of an intent. Field names are short: 8,192 members have to fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Intent.
    pub id: SmolStr,
    /// Number of the part; 0 is the head.
    pub part: u32,
    /// Only in the head, which is written last: with it the intent is final and in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// Node table.
    pub nodes: Vec<SmolStr>,
    /// Members.
    pub members: Vec<MemberRecord>,
}

/// What is true of an intent as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The gang.
    pub gang: GangKey,
    /// Some: it is being rolled back, irreversibly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Cause>,
    /// Number of parts.
    pub parts: u32,
    /// Members that make the gang live.
    pub quorum: Quorum,
    /// Whether it may be rolled back at all.
    pub may_roll_back: bool,
}

/// A member in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Name of the pod; empty for a vacant slot.
    pub p: SmolStr,
    /// UID of the pod.
    pub u: SmolStr,
    /// Index of its node in the table; None while it has no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// Role.
    pub o: SmolStr,
    /// Rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r: Option<u32>,
    /// Shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s: Option<u64>,
    /// Being evicted from a lost node, irreversibly.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub e: bool,
    /// What is prepared for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub c: Vec<TaskRecord>,
}

/// A preparation in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// `b` give a volume, `p` provision, `a` allocate, `r` reserve, `x` make a special claim.
    pub k: SmolStr,
    /// Name of the claim.
    pub c: SmolStr,
    /// UID of the claim.
    pub u: SmolStr,
    /// Name of the volume that it is given.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub v: SmolStr,
    /// UID of that volume.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    pub w: SmolStr,
}

impl Slot {
    /// Reads a payload; an empty one is a fresh slot.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(payload: &str) -> Result<Self, String> {
        if payload.is_empty() {
            return Ok(Self { v: FORMAT, ..Self::default() });
        }
        let slot: Self = serde_json::from_str(payload).map_err(|error| error.to_string())?;
        if (FORMAT..=FORMAT_WITH_CREATION).contains(&slot.v) {
            Ok(slot)
        } else {
            Err(format!("format {} is not known", slot.v))
        }
    }

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> String {
        // A struct of strings and numbers cannot fail to serialise; an empty payload would read as a fresh slot.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Intents whose head is here.
    #[must_use]
    pub fn open(&self) -> u32 {
        u32::try_from(self.parts.iter().filter(|part| part.head.is_some()).count()).unwrap_or(u32::MAX)
    }
}

impl MemberRecord {
    /// A member as it stands now, with the index of its node.
    pub(super) fn of(member: &Member, n: Option<u32>) -> Self {
        let vacant = member.fact == Fact::Gone && member.pod.uid.is_empty();
        Self {
            p: if vacant { SmolStr::default() } else { member.pod.name.clone() },
            u: member.pod.uid.clone(),
            n,
            o: member.role.clone(),
            r: member.rank,
            s: member.shape,
            e: member.goal == Goal::Evict,
            c: member.tasks.iter().map(|task| TaskRecord::of(&task.what)).collect(),
        }
    }
}

impl TaskRecord {
    fn of(what: &Preparation) -> Self {
        let (v, w) = match what {
            Preparation::BindVolume { volume, volume_uid, .. } => (volume.clone(), volume_uid.clone()),
            _ => Default::default(),
        };
        let k = match what.kind() {
            PreparationKind::BindVolume => "b",
            PreparationKind::Provision => "p",
            PreparationKind::AllocateClaim => "a",
            PreparationKind::ReserveClaim => "r",
            PreparationKind::CreateClaim => "x",
        };
        let claim = what.claim();
        Self { k: SmolStr::new_static(k), c: claim.name.clone(), u: claim.uid.clone(), v, w }
    }

    /// The preparation as a new leader goes on with it: nothing is known of the objects yet. None where the record is of
    /// no kind that is known.
    pub(super) fn restore(&self, namespace: &SmolStr, node: Option<&SmolStr>) -> Option<Task> {
        let claim = ClaimName { namespace: namespace.clone(), name: self.c.clone(), uid: self.u.clone() };
        let unread = SmolStr::default;
        let what = match self.k.as_str() {
            "b" => Preparation::BindVolume {
                claim,
                volume: self.v.clone(),
                volume_uid: self.w.clone(),
                volume_resource_version: unread(),
            },
            "p" => {
                let node = node.cloned().unwrap_or_default();
                Preparation::Provision { claim, claim_resource_version: unread(), node }
            }
            "a" => Preparation::AllocateClaim {
                claim,
                resource_version: unread(),
                finalized: false,
                allocation: Arc::default(),
            },
            "r" => Preparation::ReserveClaim { claim, resource_version: unread() },
            "x" => Preparation::CreateClaim {
                claim,
                manifest: Arc::default(),
                allocation: Arc::default(),
                mappings: Arc::default(),
            },
            _ => return None,
        };
        Some(Task::inherited(what))
    }
}

impl Part {
    /// One part of an intent as it stands now.
    pub(super) fn of(intent: &Intent, part: u32) -> Self {
        let mut nodes: Vec<SmolStr> = Vec::new();
        let mut index: BTreeMap<&SmolStr, u32> = BTreeMap::new();
        let mut members = Vec::new();
        for member in intent.members.iter().filter(|member| member.part == part) {
            // A member that gave its place up claims none: it may go to someone else meanwhile. One whose node is lost claims it
            // until then: a Binding to it may still land, and the node may come back.
            let place = member.node.as_ref().or(member.lost_node.as_ref());
            let n = place.filter(|_| !member.vacated).map(|node| {
                *index.entry(node).or_insert_with(|| {
                    nodes.push(node.clone());
                    u32::try_from(nodes.len() - 1).unwrap_or(u32::MAX)
                })
            });
            members.push(MemberRecord::of(member, n));
        }
        let head = (part == 0).then(|| intent.head());
        Self { id: intent.id.clone(), part, head, nodes, members }
    }
}

/// The oldest format that can hold these.
fn format_of(parts: &[Part]) -> u32 {
    let formats = parts.iter().flat_map(|part| &part.members).flat_map(|member| &member.c);
    formats.map(|task| if task.k == "x" { FORMAT_WITH_CREATION } else { FORMAT_WITH_TASKS }).max().unwrap_or(FORMAT)
}

/// How much of a slot a record takes, about.
pub(super) fn bytes_of<T: Serialize>(record: &T) -> usize {
    serde_json::to_vec(record).map_or(0, |json| json.len() + 1)
}

/// A slot as this leader knows it.
#[derive(Debug)]
pub(super) struct SlotState {
    /// Precondition of the next write.
    pub(super) resource_version: SmolStr,
    /// What a former leader left, until the whole journal is fenced and its intents are ours.
    pub(super) inherited: Option<Vec<Part>>,
    /// Number of the last change to what the slot should hold.
    pub(super) change: u64,
    /// The last change that something waits for; later ones only make the slot smaller.
    urgent: u64,
    /// When later ones are written, if nothing urgent takes them along before.
    due: Millis,
    /// The last change that the server holds.
    pub(super) durable: u64,
    /// Who goes on when a change is durable, in order of changes.
    pub(super) waiting: Vec<(u64, Waiter)>,
    /// Parts here and their size: (intent, part) -> bytes.
    pub(super) parts: BTreeMap<(u64, u32), usize>,
    /// Sum of the sizes.
    pub(super) bytes: usize,
    /// The request in flight.
    request: Option<OpId>,
    /// The last write sent: (its number, the change it holds).
    sent: (u64, u64),
    /// No request before this time.
    not_before: Millis,
    /// Failures in a row.
    failures: u32,
    /// The next request is a read.
    read_first: bool,
    /// Why the server refused the last write.
    refusal: Option<String>,
}

/// Who waits for a change to become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    /// An intent in phase Recording, RollingBack or Closing.
    Intent(u64),
    /// A member with a new place or UID.
    Member(u64, usize),
}

impl Waiter {
    fn intent(self) -> u64 {
        match self {
            Self::Intent(seq) | Self::Member(seq, _) => seq,
        }
    }
}

impl SlotState {
    pub(super) fn new(resource_version: SmolStr, inherited: Option<Vec<Part>>, write: u64) -> Self {
        Self {
            resource_version,
            inherited,
            change: 1,
            urgent: 1,
            due: 0,
            durable: 0,
            waiting: Vec::new(),
            parts: BTreeMap::new(),
            bytes: 0,
            request: None,
            sent: (write, 0),
            not_before: 0,
            failures: 0,
            read_first: false,
            refusal: None,
        }
    }

    fn mark(&mut self, waiter: Option<Waiter>) -> u64 {
        self.change += 1;
        if let Some(waiter) = waiter {
            self.waiting.push((self.change, waiter));
        }
        self.change
    }

    /// When the next request may start; None: one is in flight, or there is nothing to ask.
    fn next_request(&self) -> Option<Millis> {
        if self.request.is_some() || (self.durable >= self.change && !self.read_first) {
            return None;
        }
        let urgent = self.read_first || self.durable < self.urgent;
        Some(if urgent { self.not_before } else { self.not_before.max(self.due) })
    }
}

impl Protocol {
    /// Marks a slot as changed; what it should hold is built when it is written.
    pub(super) fn touch(&mut self, slot: usize, waiter: Option<Waiter>) -> u64 {
        let Some(state) = self.slots.get_mut(slot) else { return 0 };
        state.urgent = state.change + 1;
        state.mark(waiter)
    }

    /// The same for a change that can wait until `by` for a write that has to be made anyway.
    pub(super) fn touch_later(&mut self, slot: usize, waiter: Waiter, by: Millis) -> u64 {
        let Some(state) = self.slots.get_mut(slot) else { return 0 };
        // What a write has taken along no longer counts.
        state.due = if state.sent.1 < state.change { state.due.min(by) } else { by };
        state.mark(Some(waiter))
    }

    /// Sends the writes and reads that are due: at most one request per slot. O(slots), plus the payloads.
    pub(super) fn write_journal(&mut self, cx: &mut Cx<'_>) {
        for slot in 0..self.slots.len() {
            let state = &self.slots[slot];
            let Some(due) = state.next_request() else { continue };
            if cx.now < due {
                self.timers.insert((due, Timer::Slot(slot)));
                continue;
            }
            if state.read_first {
                let op = self.await_op(Awaited::Slot(slot, SlotRequest::Read), cx.now);
                self.slots[slot].request = Some(op);
                cx.fx.commands.push(Command::ReadJournal { op, slot: number(slot) });
            } else {
                self.write_slot(slot, cx);
            }
        }
    }

    fn write_slot(&mut self, slot: usize, cx: &mut Cx<'_>) {
        let op = self.await_op(Awaited::Slot(slot, SlotRequest::Write), cx.now);
        let state = &self.slots[slot];
        let parts = match &state.inherited {
            Some(parts) => parts.clone(),
            None => self.parts_in(state),
        };
        let v = format_of(&parts);
        let payload = Slot { v, epoch: self.epoch, write: state.sent.0 + 1, parts };
        cx.fx.commands.push(Command::WriteJournal {
            op,
            slot: number(slot),
            resource_version: state.resource_version.clone(),
            epoch: self.epoch,
            open: payload.open(),
            payload: payload.encode(),
        });
        let state = &mut self.slots[slot];
        state.sent = (payload.write, state.change);
        state.request = Some(op);
    }

    /// What the slot should hold: tails as soon as they exist, heads unless the intent waits for its tails or closes.
    fn parts_in(&self, state: &SlotState) -> Vec<Part> {
        let visible = |intent: &Intent, part: u32| match intent.phase {
            Phase::Recording { head } => head || part > 0,
            Phase::Closing { .. } => part > 0,
            Phase::Preparing | Phase::Open | Phase::Withdrawing { .. } | Phase::RollingBack { .. } => {
                intent.in_force || part > 0
            }
        };
        let parts = state.parts.keys().filter_map(|(seq, part)| {
            let intent = self.intents.get(seq)?;
            visible(intent, *part).then(|| Part::of(intent, *part))
        });
        parts.collect()
    }

    /// Outcome of a write.
    pub(super) fn on_journal_written(&mut self, slot: usize, result: WriteResult, cx: &mut Cx<'_>) {
        let Some(state) = self.slots.get_mut(slot) else { return };
        state.request = None;
        match result {
            WriteResult::Ok(resource_version) => {
                state.resource_version = resource_version;
                self.journal_durable(slot, cx);
            }
            WriteResult::Refused(message) => {
                state.not_before = cx.now + self.config.refused_retry_ms;
                state.refusal = Some(message.clone());
                self.report_refused_write(slot, message, cx);
            }
            // A late write of ours, or another leader: only the slot itself tells.
            WriteResult::Conflict | WriteResult::NotFound => state.read_first = true,
            WriteResult::Unknown(_) => self.read_slot_later(slot, cx.now),
        }
    }

    /// Tells that a slot cannot be written, for itself and for every gang that cannot go on before it is.
    fn report_refused_write(&self, slot: usize, message: String, cx: &mut Cx<'_>) {
        let why = format!("the placement journal cannot be written: {message}");
        cx.fx.effects.push(Effect::WriteRefused { gang: None, message });
        let waiters = self.slots.get(slot).map(|state| state.waiting.as_slice()).unwrap_or_default();
        let waiting: BTreeSet<u64> = waiters.iter().map(|(_, waiter)| waiter.intent()).collect();
        for intent in waiting.iter().filter_map(|seq| self.intents.get(seq)) {
            let gang = Some(intent.gang.clone());
            cx.fx.effects.push(Effect::WriteRefused { gang, message: why.clone() });
        }
    }

    /// Why the server refuses to write the journal, where it does.
    #[must_use]
    pub fn journal_refusal(&self) -> Option<&str> {
        self.slots.iter().find_map(|state| state.refusal.as_deref())
    }

    /// Outcome of a read after a write whose fate is unknown.
    pub(super) fn on_journal_read(&mut self, slot: usize, result: JournalReadResult, cx: &mut Cx<'_>) {
        let Some(state) = self.slots.get_mut(slot) else { return };
        state.request = None;
        let JournalReadResult::Found { resource_version, payload } = result else {
            self.read_slot_later(slot, cx.now);
            return;
        };
        state.read_first = false;
        state.failures = 0;
        state.resource_version = resource_version;
        let found = Slot::decode(&payload).unwrap_or_else(|message| {
            cx.fx.effects.push(Effect::JournalUnreadable { slot: number(slot), message });
            Slot::default()
        });
        if found.epoch > self.epoch {
            cx.fx.effects.push(Effect::Fenced { by_epoch: found.epoch });
            self.follow();
        } else if found.epoch == self.epoch && found.write == self.slots[slot].sent.0 {
            self.journal_durable(slot, cx);
        } else if found.epoch < self.epoch && self.slots[slot].inherited.is_some() {
            // A former leader's write landed after we read the slot and before we fenced it: that is the truth.
            let write = self.slots[slot].sent.0.max(found.write);
            self.slots[slot].sent.0 = write;
            self.slots[slot].inherited = Some(found.parts);
        }
        // Otherwise our write has not landed; it is sent again on the resourceVersion just read.
    }

    fn read_slot_later(&mut self, slot: usize, now: Millis) {
        let delay = self.config.backoff(self.slots[slot].failures);
        let state = &mut self.slots[slot];
        state.failures += 1;
        state.read_first = true;
        state.not_before = now + delay;
    }

    fn journal_durable(&mut self, slot: usize, cx: &mut Cx<'_>) {
        let state = &mut self.slots[slot];
        state.durable = state.sent.1;
        state.failures = 0;
        state.refusal = None;
        let due = state.waiting.iter().take_while(|(change, _)| *change <= state.durable).count();
        let waiters: Vec<_> = state.waiting.drain(..due).collect();
        for (_, waiter) in waiters {
            match waiter {
                Waiter::Intent(seq) => self.on_recorded(seq, cx),
                Waiter::Member(seq, index) => {
                    self.queue.insert((seq, index));
                    self.changed.insert(seq);
                }
            }
        }
        if !self.ready && self.slots.iter().all(|state| state.durable >= 1) {
            self.inherit_intents(cx);
        }
    }

    /// Finds room for a new intent: (slot, number of members) per part, the head's first; None when the journal is full.
    ///
    /// An idle slot is preferred to one with a write in flight, then the emptier one. A gang that fits nowhere whole is
    /// split over the slots with the most room.
    pub(super) fn find_room(&self, head_bytes: usize, member_bytes: &[usize]) -> Option<Vec<(usize, usize)>> {
        let usable = self.slots.len().min(self.config.journal_slots);
        let room = |state: &SlotState| self.config.slot_limit_bytes.saturating_sub(state.bytes + SLOT_OVERHEAD_BYTES);
        let total = head_bytes + member_bytes.iter().sum::<usize>();
        let whole = (0..usable)
            .filter(|slot| room(&self.slots[*slot]) >= total)
            .min_by_key(|slot| (self.slots[*slot].request.is_some(), self.slots[*slot].bytes, *slot));
        if let Some(slot) = whole {
            return Some(vec![(slot, member_bytes.len())]);
        }
        let mut by_room: Vec<usize> = (0..usable).collect();
        by_room.sort_by_key(|slot| (self.slots[*slot].bytes, *slot));
        let mut rest = member_bytes;
        let mut parts = Vec::new();
        for slot in by_room {
            let mut left = room(&self.slots[slot]).checked_sub(head_bytes);
            let mut taken = 0;
            while let (Some(bytes), Some(free)) = (rest.get(taken), left) {
                left = free.checked_sub(*bytes);
                taken += usize::from(left.is_some());
            }
            if taken > 0 {
                parts.push((slot, taken));
                rest = &rest[taken..];
            }
        }
        rest.is_empty().then_some(parts)
    }

    /// Accounts for a part in a slot.
    pub(super) fn put_part(&mut self, slot: usize, seq: u64, part: u32, bytes: usize) {
        let state = &mut self.slots[slot];
        state.parts.insert((seq, part), bytes);
        state.bytes += bytes;
    }

    /// Forgets a part; the slot must be touched for the server to forget it too.
    pub(super) fn drop_part(&mut self, slot: usize, seq: u64, part: u32) {
        let state = &mut self.slots[slot];
        if let Some(bytes) = state.parts.remove(&(seq, part)) {
            state.bytes -= bytes;
        }
    }
}

/// Slots are numbered from 0.
fn number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

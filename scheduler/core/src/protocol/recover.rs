//! Taking over: the journal is fenced, then what a former leader left open is finished or rolled back.
//!
//! ```text
//!   Lead ──> every slot: PUT what was read, with our epoch ─┬─ ok ─────────────┐
//!                 ^                                         └─ 409: GET again ─┤ (a former leader's last write counts)
//!                 └────────────────────────────────────────────────────────────┘
//!   all slots ours ──> Recovered per intent, Ready ──> `recovered`: members as listed; who is not in the list: GET
//!                                                        │
//!                     bound ──> kept                     ├─ unbound, to stay where the journal has it ──> bind
//!                     gone  ──> vacant                   └─ unbound, to be moved or undone ──> fence ──> elsewhere, or free
//! ```
//! Who stays where the journal has it needs no fence: a former leader bound nobody to a place that the journal did not hold,
//! and moved nobody without a fence, so that whatever of its Bindings still lands puts the pod where ours would. A list that
//! is older than the pod is found out by the resourceVersion that the Binding or the fence carries.
//!
//! Invariants: nothing is commanded but journal requests until every slot carries our epoch, after which a former leader can
//! record nothing; no Binding to another place than the inherited one is sent for an inherited member, and its place is not
//! given away, before it was re-versioned, after which no Binding of a former leader can land; an inherited `RollingBack` is
//! continued, never turned.

use super::effects::{Effect, Timings};
use super::intent::{Fact, Goal, Intent, Member, Phase, Tally};
use super::journal::{Part, Slot, SlotState, bytes_of};
use super::plan::GangKey;
use super::{Cx, Protocol};
use crate::event::JournalSlotRead;
use crate::model::{PodInfo, PodKey};
use smol_str::SmolStr;
use std::collections::BTreeMap;

impl Protocol {
    /// Starts to fence the journal.
    pub(super) fn take_over(&mut self, epoch: u64, mut slots: Vec<JournalSlotRead>, cx: &mut Cx<'_>) {
        self.epoch = epoch;
        self.leading = true;
        slots.sort_by_key(|slot| slot.slot);
        for read in slots {
            let slot = Slot::decode(&read.payload).unwrap_or_else(|message| {
                cx.fx.effects.push(Effect::JournalUnreadable { slot: read.slot, message });
                Slot::default()
            });
            if slot.epoch > epoch {
                cx.fx.effects.push(Effect::Fenced { by_epoch: slot.epoch });
                return self.follow();
            }
            self.slots.push(SlotState::new(read.resource_version, Some(slot.parts), slot.write));
        }
    }

    /// Every slot is ours: turns what they hold into intents. O(members in the journal).
    pub(super) fn inherit_intents(&mut self, cx: &mut Cx<'_>) {
        self.ready = true;
        let mut found: BTreeMap<SmolStr, Vec<(usize, Part)>> = BTreeMap::new();
        for (slot, state) in self.slots.iter_mut().enumerate() {
            for part in state.inherited.take().unwrap_or_default() {
                found.entry(part.id.clone()).or_default().push((slot, part));
            }
        }
        let mut opened = Vec::new();
        for (id, mut parts) in found {
            parts.sort_by_key(|(_, part)| part.part);
            if let Some(seq) = self.inherit_intent(id, &parts, cx) {
                opened.push(seq);
                continue;
            }
            // Tails whose head was not written yet, or is removed already: nothing was bound by them.
            for (slot, _) in parts {
                self.touch(slot, None);
            }
        }
        cx.fx.effects.push(Effect::Ready);
        for seq in opened {
            self.report_vacant(seq, cx);
        }
    }

    fn inherit_intent(&mut self, id: SmolStr, parts: &[(usize, Part)], cx: &mut Cx<'_>) -> Option<u64> {
        let head = parts.first()?.1.head.clone()?;
        if self.by_gang.contains_key(&head.gang) {
            return None;
        }
        self.next_intent += 1;
        let seq = self.next_intent;
        let namespace = head.gang.namespace().clone();
        let prepares = parts.iter().flat_map(|(_, part)| &part.members).any(|member| !member.c.is_empty());
        let phase = match head.rollback {
            Some(cause) => Phase::RollingBack { cause, recorded: true },
            None if prepares => Phase::Preparing,
            None => Phase::Open,
        };
        let undone = matches!(phase, Phase::RollingBack { .. });
        let mut members: Vec<Member> = Vec::new();
        for (number, (_, part)) in (0..).zip(parts) {
            members.extend(inherit_members(&namespace, part, number, undone));
        }
        // A slot that was lost by hand took members along: keep their places open, so that the gang is not called whole.
        while members.len() < head.quorum.total as usize {
            members.push(Member::vacant(SmolStr::new_static("worker"), None, None, 0));
        }
        let timings = Timings { ready_at_ms: cx.now, planned_at_ms: cx.now, recovered: true, ..Timings::default() };
        let mut intent = Intent {
            id,
            gang: head.gang,
            phase,
            members,
            quorum: head.quorum,
            may_roll_back: head.may_roll_back,
            slots: parts.iter().map(|(slot, _)| *slot).collect(),
            tally: Tally::default(),
            timings,
            deadline: None,
            overdue: false,
            held: false,
            ask_again_at: 0,
            refusal: None,
            awaits: BTreeMap::new(),
            preparing_since: cx.now,
            prepare_deadline: None,
            in_force: true,
            dormant: true,
        };
        intent.timings.members = intent.len();
        let places = intent.members.iter().filter(|member| member.fact != Fact::Gone);
        let places = places.map(|member| (member.pod.clone(), member.node.clone())).collect();
        cx.fx.effects.push(Effect::Recovered { gang: intent.gang.clone(), members: places });
        for (number, (slot, part)) in (0..).zip(parts) {
            self.put_part(*slot, seq, number, bytes_of(part));
        }
        self.insert_intent(seq, intent);
        Some(seq)
    }

    /// The members of an inherited intent as they are listed: it wakes.
    pub(super) fn resume(&mut self, gang: &GangKey, pods: &[&PodInfo], cx: &mut Cx<'_>) {
        let Some(seq) = self.by_gang.get(gang).copied() else { return };
        let Some(intent) = self.intents.get_mut(&seq).filter(|intent| intent.dormant) else { return };
        intent.dormant = false;
        let prepares = intent.phase == Phase::Preparing;
        for pod in pods {
            let member = self.by_uid.get(&pod.key.uid).copied().filter(|(owner, _)| *owner == seq);
            if let Some((_, index)) = member {
                self.learn_listed(seq, index, pod, cx);
            }
        }
        if prepares {
            self.start_preparing(seq, cx.now);
        }
        self.drive_all(seq);
    }
}

/// The members of a part, of which nothing is known yet.
fn inherit_members<'a>(
    namespace: &'a SmolStr,
    part: &'a Part,
    number: u32,
    undone: bool,
) -> impl Iterator<Item = Member> + 'a {
    part.members.iter().map(move |record| {
        let vacant = Member::vacant(record.o.clone(), record.r, record.s, number);
        if record.u.is_empty() {
            return vacant;
        }
        let node = record.n.and_then(|index| part.nodes.get(index as usize).cloned());
        let goal = match (&node, undone) {
            (_, true) => Goal::Undo,
            _ if record.e => Goal::Evict,
            (Some(_), false) => Goal::Bind,
            (None, false) => Goal::Place,
        };
        Member {
            pod: PodKey { namespace: namespace.clone(), name: record.p.clone(), uid: record.u.clone() },
            fact: Fact::Unsure,
            goal,
            vacated: node.is_none(),
            tasks: record.c.iter().filter_map(|task| task.restore(namespace, node.as_ref())).collect(),
            node,
            inherited: true,
            ..vacant
        }
    })
}

//! Repair forward first: the bound members and the reservation are held, the rest is placed anew, until the deadline.
//!
//! ```text
//!   node lost, other shape ──> Place ──fence──> safe ──undo what was prepared, journal──> vacated ──Replan──> new node ──journal──> Bind
//!   pod gone ──> Gone (vacant) ──same-shape pod of the gang takes the slot──> Place
//!   bound to a lost node ──> Evict ──journal──> mark, read, delete ──> Gone
//!
//!   deadline ──> live without the rest? leave it out : every owner tolerates it? roll back : hold and go on
//! ```
//! Invariants: a place is given up only when the journal no longer claims it, or a successor could bind to it what is there
//! no longer; a member is tried elsewhere only after it was re-versioned and the journal holds its new node; a replacement
//! is bound only after the journal holds its UID; nothing that is bound is deleted from here but by `Evict`.

use super::effects::{Cause, Effect, Ending, ReplanMember};
use super::intent::{Fact, Goal, Intent, Member, Phase};
use super::journal::Waiter;
use super::plan::{GangKey, NewPlace, Replanned, role_of, shape_of};
use super::task::Task;
use super::{Cx, Protocol, Timer};
use crate::command::{Command, Observation};
use crate::model::{PodInfo, PodPhase};
use std::collections::BTreeMap;

impl Protocol {
    /// Draws the conclusion from an intent's tally, whatever changed it.
    pub(super) fn judge(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&seq).filter(|intent| !intent.dormant) else { return };
        match intent.phase {
            Phase::Preparing => self.judge_preparing(seq, cx),
            Phase::Open => self.judge_open(seq, cx),
            Phase::Withdrawing { .. } => self.judge_withdrawal(seq, cx),
            Phase::RollingBack { .. } => self.judge_rollback(seq, cx),
            Phase::Recording { .. } | Phase::Closing { .. } => {}
        }
    }

    fn judge_open(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&seq) else { return };
        let tally = intent.tally;
        if tally.bound == intent.len() {
            return self.close(seq, Ending::Bound { left_out: Vec::new() }, cx);
        }
        if tally.trouble == 0 && !(intent.overdue && tally.unready > 0) {
            return;
        }
        if intent.is_alone() {
            // Alone there is nothing to hold: the queue plans it again.
            let cause = Cause::Changed("the pod changed or its node went away while it was being bound".to_owned());
            return self.withdraw(seq, Some(cause), cx);
        }
        self.start_repair_clock(seq, cx);
        let Some(intent) = self.intents.get(&seq) else { return };
        if intent.overdue && !intent.held {
            return self.give_up(seq, cx);
        }
        if tally.homeless > tally.asked {
            self.vacate(seq);
        }
        self.ask_for_places(seq, cx);
        let Some(intent) = self.intents.get(&seq) else { return };
        let answered = intent.tally.asked == intent.tally.homeless && intent.refusal.is_some();
        let hopeless = intent.tally.homeless == 0 || answered;
        let quiet = tally.doubt == 0 && tally.unclean == 0;
        let idle = tally.bound == 0 && tally.live == 0 && quiet && tally.trouble == intent.len();
        if idle && hopeless {
            // Nothing is bound and nothing may be: the plan costs less to repeat than to repair.
            self.give_up(seq, cx);
        } else if intent.overdue {
            self.give_up(seq, cx);
        }
    }

    fn start_repair_clock(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        if intent.deadline.is_some() || intent.overdue {
            return;
        }
        let deadline = cx.now + self.config.repair_deadline_ms;
        intent.deadline = Some(deadline);
        intent.timings.repaired = true;
        self.timers.insert((deadline, Timer::Deadline(seq)));
        cx.fx.commands.push(Command::Observe(Observation::Repair));
    }

    /// The deadline passed; a held gang is looked at again from time to time.
    pub(super) fn on_deadline(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        let again = cx.now + self.config.refused_retry_ms;
        intent.overdue = true;
        intent.deadline = Some(again);
        self.timers.insert((again, Timer::Deadline(seq)));
        self.changed.insert(seq);
    }

    /// The repair failed: leave the rest out, undo all, or hold.
    fn give_up(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&seq) else { return };
        if intent.tally.bound > 0 && intent.is_live() {
            return self.withdraw(seq, None, cx);
        }
        let missing = intent.len() - intent.tally.bound;
        let why = intent.refusal.clone().unwrap_or_else(|| "members were lost and not replaced in time".to_owned());
        let cause = Cause::NoPlace(format!("{missing} of {} members could not be bound: {why}", intent.len()));
        self.undo(seq, cause, cx);
    }

    /// Asks the engine for places for every safe member without one, once the journal no longer claims its former place,
    /// which the engine may give away from then on. O(members), only when there is one.
    fn ask_for_places(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let interval = self.config.replan_interval_ms;
        let durable: Vec<u64> = self.slots.iter().map(|slot| slot.durable).collect();
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        let again = intent.tally.asked > 0 && cx.now >= intent.ask_again_at;
        if intent.tally.homeless == 0 || (intent.tally.homeless == intent.tally.asked && !again) {
            return;
        }
        let recorded = |member: &Member| {
            let slot = intent.slots.get(member.part as usize);
            slot.and_then(|slot| durable.get(*slot)).is_none_or(|durable| *durable >= member.change)
        };
        let wants = |member: &Member| {
            let ready = member.goal == Goal::Place && member.is_safe() && member.vacated && recorded(member);
            ready && (again || !member.asked)
        };
        let asking: Vec<usize> = (0..intent.members.len()).filter(|index| wants(&intent.members[*index])).collect();
        if asking.is_empty() {
            return;
        }
        let members = asking.iter().map(|index| &intent.members[*index]).map(|member| ReplanMember {
            pod: member.pod.clone(),
            prior: member.node.clone(),
            takes_slot_of: member.replaces.clone(),
        });
        cx.fx.effects.push(Effect::Replan { gang: intent.gang.clone(), members: members.collect() });
        for index in asking {
            intent.update(index, |member| {
                member.asked = true;
                member.replaces = None;
            });
        }
        intent.refusal = None;
        intent.ask_again_at = cx.now + interval;
        self.timers.insert((intent.ask_again_at, Timer::Ask(seq)));
    }

    /// The engine's answer to a request for places.
    pub(super) fn take_places(&mut self, gang: &GangKey, answer: Replanned) {
        let Some(seq) = self.by_gang.get(gang).copied() else { return };
        let Some(intent) = self.intents.get_mut(&seq).filter(|intent| intent.moves_forward()) else { return };
        match answer {
            Replanned::Refused(message) => {
                intent.refusal = Some(message);
                self.changed.insert(seq);
            }
            Replanned::Placed(places) => {
                for place in places {
                    self.take_place(seq, place);
                }
            }
        }
    }

    fn take_place(&mut self, seq: u64, place: NewPlace) {
        let Some((_, index)) = self.by_uid.get(&place.pod.uid).copied().filter(|(owner, _)| *owner == seq) else {
            return;
        };
        let asked = |member: &&Member| member.asked && member.goal == Goal::Place && member.is_safe();
        if self.member(seq, index).filter(asked).is_none() {
            return;
        }
        self.set_tasks(seq, index, place.preparations.into_iter().map(Task::new).collect());
        let change = self.touch_member(seq, index);
        self.update(seq, index, |member| {
            member.node = Some(place.node);
            member.patience = place.patience;
            member.lost_node = None;
            member.goal = Goal::Bind;
            member.vacated = false;
            member.asked = false;
            member.change = change;
        });
    }

    /// A pod of the gang that is no member: it takes a vacant slot of its role, rank and shape.
    pub(super) fn offer(&mut self, pod: &PodInfo, cx: &mut Cx<'_>) {
        let Some(seq) = self.by_gang.get(&GangKey::of(pod)).copied() else { return };
        let Some(intent) = self.intents.get(&seq).filter(|intent| intent.moves_forward()) else { return };
        let usable = pod.ours && !pod.gated && !pod.deleting && pod.phase != PodPhase::Failed;
        let Some((index, rank)) = vacant_slot(intent, pod).filter(|_| usable) else { return };
        let lost = intent.members[index].pod.clone();
        if let Some(pod) = intent.members[index].replaces.clone() {
            cx.fx.effects.push(Effect::Release { pod });
        }
        let was_bound = intent.members[index].was_bound;
        let change = self.touch_member(seq, index);
        self.by_uid.remove(&lost.uid);
        self.by_uid.insert(pod.key.uid.clone(), (seq, index));
        self.update(seq, index, |member| {
            *member = Member {
                pod: pod.key.clone(),
                resource_version: pod.resource_version.clone(),
                owner: pod.owner.clone(),
                rank: rank.or(pod.gang.as_ref().and_then(|gang| gang.rank)),
                node: member.node.clone(),
                fact: Fact::Unbound,
                change,
                replaces: (!lost.uid.is_empty() && !was_bound).then_some(lost),
                ..Member::vacant(member.role.clone(), None, Some(shape_of(pod)), member.part)
            };
        });
        self.learn_final(seq, index, pod, cx);
    }

    /// A node is gone. O(open members).
    pub(super) fn lose_node(&mut self, node: &str) {
        let on_node = |member: &Member| member.node.as_deref() == Some(node) && member.fact != Fact::Gone;
        let mut hit = Vec::new();
        for (seq, intent) in self.intents.iter().filter(|(_, intent)| intent.moves_forward()) {
            let members = intent.members.iter().enumerate().filter(|(_, member)| on_node(member));
            hit.extend(members.map(|(index, _)| (*seq, index)));
        }
        for (seq, index) in hit {
            match self.member(seq, index).map(|member| member.fact) {
                Some(Fact::Bound) => self.evict(seq, index),
                Some(Fact::Unbound | Fact::Unsure) => self.move_away(seq, index),
                Some(Fact::Done | Fact::Gone) | None => {}
            }
        }
    }

    /// The planned node will not do: make the member safe, then ask for another.
    fn move_away(&mut self, seq: u64, index: usize) {
        self.abandon_bind(seq, index);
        self.unplace(seq, index);
        self.update(seq, index, |member| member.lost_node = member.node.take());
    }

    /// Wants another place for a member: it is made safe, then the journal gives its place up, then the engine is asked.
    pub(super) fn unplace(&mut self, seq: u64, index: usize) {
        self.update(seq, index, |member| {
            member.goal = Goal::Place;
            member.asked = false;
        });
    }

    /// Lets the journal give up the places of members that are safe and want another. O(members), only when there is one.
    fn vacate(&mut self, seq: u64) {
        let Some(intent) = self.intents.get(&seq) else { return };
        let wants = |member: &Member| {
            member.goal == Goal::Place && member.is_safe() && !member.vacated && member.tasks.is_empty()
        };
        let vacating: Vec<_> = (0..intent.members.len()).filter(|index| wants(&intent.members[*index])).collect();
        for index in vacating {
            let change = self.touch_member(seq, index);
            self.update(seq, index, |member| {
                member.vacated = true;
                member.change = change;
            });
        }
    }

    /// The member is bound to a lost node: only a replacement can complete the gang, so it is deleted where its owner
    /// tolerates that. Otherwise its owner and the pod garbage collector decide.
    pub(super) fn evict(&mut self, seq: u64, index: usize) {
        let Some(intent) = self.intents.get(&seq).filter(|intent| intent.moves_forward()) else { return };
        let member = &intent.members[index];
        if intent.is_alone() || !intent.may_roll_back || !self.tolerant(member) {
            return;
        }
        self.update(seq, index, |member| member.goal = Goal::Evict);
        let change = self.touch_member(seq, index);
        self.update(seq, index, |member| member.change = change);
    }

    /// Marks the member's part as changed; the member goes on when that is durable.
    pub(super) fn touch_member(&mut self, seq: u64, index: usize) -> u64 {
        let slot = self.intents.get(&seq).and_then(|intent| {
            let part = intent.members.get(index)?.part;
            intent.slots.get(part as usize).copied()
        });
        slot.map_or(0, |slot| self.touch(slot, Some(Waiter::Member(seq, index))))
    }
}

/// The vacant slot that a pod may take, and the rank that the slot stands for: of the pod's role and shape, and of its rank
/// where both are known. A slot of unknown rank is not for a pod whose rank has a slot of its own, which is about to be
/// vacant. O(members · log members).
fn vacant_slot(intent: &Intent, pod: &PodInfo) -> Option<(usize, Option<u32>)> {
    let rank = pod.gang.as_ref().and_then(|gang| gang.rank);
    let (role, shape) = (role_of(pod), shape_of(pod));
    let owners = slots_of_ranks(intent, &role);
    let has_own = rank.is_some_and(|rank| owners.contains_key(&rank));
    let stands_for =
        |index: usize| intent.members[index].rank.filter(|rank| owners.get(rank).is_some_and(|owner| *owner == index));
    let fits = |(index, member): &(usize, &Member)| {
        let vacant = member.fact == Fact::Gone && member.role == role && member.tasks.is_empty();
        let shapes_agree = member.shape.is_none_or(|wanted| wanted == shape);
        let slot = stands_for(*index);
        let ranks_agree = if has_own { slot == rank } else { slot.is_none() || rank.is_none() };
        vacant && shapes_agree && ranks_agree
    };
    intent.members.iter().enumerate().find(fits).map(|(index, _)| (index, stands_for(index)))
}

/// The slot of each rank of a role. A pod on its way out and its successor may both have been taken in under one rank: the
/// slot of the live one is the rank's, the other is for whatever rank has none.
fn slots_of_ranks(intent: &Intent, role: &str) -> BTreeMap<u32, usize> {
    let mut owners: BTreeMap<u32, usize> = BTreeMap::new();
    for (index, member) in intent.members.iter().enumerate().filter(|(_, member)| member.role == role) {
        let Some(rank) = member.rank else { continue };
        let owner = owners.entry(rank).or_insert(index);
        if intent.members[*owner].fact == Fact::Gone && member.fact != Fact::Gone {
            *owner = index;
        }
    }
    owners
}

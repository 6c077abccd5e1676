//! Undoing: withdraw what is unbound, delete what is bound, where the owners tolerate it; hold where they do not.
//!
//! ```text
//!                 ┌─ something bound, every owner tolerant ──> RollingBack ─journal─> mark, read again, delete ──> close
//!   undo(cause) ──┤
//!                 └─ else ──> Withdrawing: fence what is unbound ──┬─ all bound after all, or live ──> close (Bound)
//!                                                                  ├─ nothing bound, preparations taken back ──> close (Undone)
//!                                                                  ├─ now every owner tolerant ──> RollingBack
//!                                                                  └─ else hold: back to Open, reported, moved forward
//! ```
//! Invariants: `RollingBack` is in the journal before anything is deleted and is never left but by closing; only members
//! whose owner tolerates it are deleted, by UID, after their membership was read again; an intent closes as undone only when
//! each member is gone, deleting, ended, or unbound with no Binding that can still land.

use super::effects::{Cause, Effect, Ending};
use super::intent::{Fact, Goal, Intent, Member, Phase};
use super::plan::GangKey;
use super::{Cx, Protocol};
use crate::command::{Command, EventKind, Observation};
use crate::event::WriteResult;

/// Bound members of a gang that is rolled back which get an event each; the condition is on all of them.
const EVENTS_PER_ROLLBACK: usize = 8;

/// What the members of a gang that is rolled back are told.
pub(super) fn rolled_back(gang: &GangKey, cause: &Cause) -> String {
    format!("{gang} is rolled back: {}", cause.message())
}

impl Protocol {
    /// Undoes an intent: rolls it back, withdraws it, or holds it.
    pub(super) fn undo(&mut self, seq: u64, cause: Cause, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&seq) else { return };
        if !intent.moves_forward() {
            return;
        }
        if intent.tally.live > 0 && self.tolerates_rollback(intent) {
            self.roll_back(seq, cause, cx);
        } else if intent.tally.doubt == 0 && self.tolerance_forbids(intent) {
            self.hold(seq, &cause, cx);
        } else {
            self.withdraw(seq, Some(cause), cx);
        }
    }

    /// Whether whatever is or may be bound has a tolerant owner.
    fn tolerates_rollback(&self, intent: &Intent) -> bool {
        let safe = |fact: Fact| matches!(fact, Fact::Gone | Fact::Done);
        let tolerant =
            intent.members.iter().all(|member| safe(member.fact) || member.is_safe() || self.tolerant(member));
        intent.may_roll_back && tolerant && !intent.is_alone()
    }

    /// Whether something is bound that must not be deleted.
    fn tolerance_forbids(&self, intent: &Intent) -> bool {
        let mut bound = intent.members.iter().filter(|member| member.fact == Fact::Bound);
        bound.any(|member| !intent.may_roll_back || !self.tolerant(member))
    }

    /// Makes every unbound member safe; what follows is decided when that is done.
    pub(super) fn withdraw(&mut self, seq: u64, cause: Option<Cause>, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        intent.phase = Phase::Withdrawing { cause };
        self.retreat(seq);
        self.judge_withdrawal(seq, cx);
    }

    /// Wants every member that is not bound undone.
    fn retreat(&mut self, seq: u64) {
        let count = self.intents.get(&seq).map_or(0, |intent| intent.members.len());
        for index in 0..count {
            self.abandon_bind(seq, index);
            self.update(seq, index, |member| {
                member.asked = false;
                if !matches!(member.fact, Fact::Bound | Fact::Done) {
                    member.goal = Goal::Undo;
                }
            });
        }
    }

    /// Every unbound member is safe: close, roll back or hold.
    pub(super) fn judge_withdrawal(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&seq) else { return };
        let Phase::Withdrawing { cause } = &intent.phase else { return };
        if intent.tally.doubt > 0 {
            return;
        }
        let aborted = matches!(cause, Some(Cause::Aborted(_)));
        let cause = cause.clone();
        let live = intent.tally.bound > 0 && intent.is_live();
        let clean = intent.tally.unclean == 0;
        if live && !aborted || intent.tally.bound == intent.len() && self.tolerance_forbids(intent) {
            if !clean {
                return;
            }
            let left_out = intent.members.iter().filter(|member| member.fact == Fact::Unbound);
            let left_out = left_out.map(|member| member.pod.clone()).collect();
            return self.close(seq, Ending::Bound { left_out }, cx);
        }
        let Some(cause) = cause else { return self.reopen(seq, cx) };
        if intent.tally.live == 0 {
            if clean {
                self.close(seq, Ending::Undone { cause }, cx);
            }
        } else if self.tolerates_rollback(intent) {
            self.roll_back(seq, cause, cx);
        } else {
            self.hold(seq, &cause, cx);
        }
    }

    /// Goes on binding after a withdrawal that had to be given up, or a preparation that failed beside a bound member.
    fn reopen(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        intent.phase = Phase::Open;
        let in_force = intent.in_force;
        let undone = |member: &Member| member.goal == Goal::Undo;
        let undone: Vec<_> = (0..intent.members.len()).filter(|index| undone(&intent.members[*index])).collect();
        for index in undone {
            if self.member(seq, index).is_some_and(|member| member.fact == Fact::Bound) {
                self.update(seq, index, |member| member.goal = Goal::Bind);
            } else {
                self.unplace(seq, index);
            }
        }
        self.report_vacant(seq, cx);
        if !in_force {
            self.record_tails(seq, cx);
        }
        self.drive_all(seq);
    }

    /// Tells the engine of every vacant slot, for pods that may have come while none was wanted.
    pub(super) fn report_vacant(&self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&seq) else { return };
        for member in intent.members.iter().filter(|member| member.fact == Fact::Gone) {
            cx.fx.effects.push(intent.lost(member));
        }
    }

    /// A partial gang stays, because an owner does not tolerate a rollback: report it, and keep moving it forward.
    fn hold(&mut self, seq: u64, cause: &Cause, cx: &mut Cx<'_>) {
        if self
            .intents
            .get(&seq)
            .is_some_and(|intent| matches!(intent.phase, Phase::Preparing | Phase::Withdrawing { .. }))
        {
            self.reopen(seq, cx);
        }
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        if intent.held {
            return;
        }
        intent.held = true;
        let bound = intent.tally.bound;
        let why = if intent.may_roll_back {
            "the owner of a bound member does not tolerate a rollback"
        } else {
            "the gang was whole before"
        };
        cx.fx.effects.push(Effect::HeldPartial {
            gang: intent.gang.clone(),
            bound,
            missing: intent.len() - bound,
            message: format!("{}; it is held, not rolled back: {why}", cause.message()),
        });
    }

    /// Writes `RollingBack` into the journal; from there on there is no way back.
    pub(super) fn roll_back(&mut self, seq: u64, cause: Cause, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        let note = rolled_back(&intent.gang, &cause);
        let bound = intent.members.iter().filter(|member| member.fact == Fact::Bound).take(EVENTS_PER_ROLLBACK);
        let event = |member: &Member| Command::PodEvent {
            pod: member.pod.clone(),
            kind: EventKind::GangRollback,
            note: note.clone(),
        };
        cx.fx.commands.extend(bound.map(event));
        cx.fx.commands.push(Command::Observe(Observation::Rollback));
        intent.phase = Phase::RollingBack { cause, recorded: false };
        intent.in_force = true;
        self.retreat(seq);
        self.record_head(seq);
    }

    /// Nothing of the gang is live or may become so: the intent closes.
    pub(super) fn judge_rollback(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&seq) else { return };
        let Phase::RollingBack { cause, recorded: true } = &intent.phase else { return };
        if intent.tally.live == 0 && intent.tally.doubt == 0 && intent.tally.unclean == 0 {
            let ending = Ending::Undone { cause: cause.clone() };
            self.close(seq, ending, cx);
        }
    }

    /// The server refuses a Binding for good: not the node's fault, so another node will not help.
    pub(super) fn on_bind_refused(&mut self, seq: u64, index: usize, message: String, cx: &mut Cx<'_>) {
        let refused_until = cx.now + self.config.refused_retry_ms;
        self.update(seq, index, |member| {
            member.refused_until = refused_until;
            member.conflicts = member.conflicts.max(super::intent::STUCK);
        });
        self.undo(seq, Cause::Refused(message), cx);
    }

    /// Outcome of setting DisruptionTarget.
    pub(super) fn on_marked(&mut self, seq: u64, index: usize, result: WriteResult, cx: &mut Cx<'_>) {
        match result {
            WriteResult::Ok(_) => self.update(seq, index, |member| {
                member.marked = true;
                member.recheck = true;
            }),
            WriteResult::NotFound => self.learn_gone(seq, index, cx),
            WriteResult::Conflict => {
                self.learn_unsure(seq, index, true, cx);
                self.update(seq, index, |member| member.recheck = true);
            }
            WriteResult::Unknown(_) => self.learn_unsure(seq, index, true, cx),
            WriteResult::Refused(message) => self.refused_later(seq, index, message, cx),
        }
    }

    /// Outcome of a delete; its UID is the precondition, so a conflict means that this pod is gone.
    pub(super) fn on_deleted(&mut self, seq: u64, index: usize, result: WriteResult, cx: &mut Cx<'_>) {
        match result {
            WriteResult::Ok(_) | WriteResult::NotFound | WriteResult::Conflict => self.learn_gone(seq, index, cx),
            WriteResult::Unknown(_) => self.learn_unsure(seq, index, true, cx),
            WriteResult::Refused(message) => self.refused_later(seq, index, message, cx),
        }
    }
}

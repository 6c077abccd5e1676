//! An attempt among others: whether another one may follow, who is to blame for its end, and what becomes of pods that do not
//! stop. The rules of budgets and pauses are those of [`crate::retry`].

use crate::command::{Command, MemberOutcome};
use crate::event::{GangEnd, PodFacts};
use crate::reason::{Cause, Class, Reason};
use crate::retry::{Plan, Retry, Scope};
use crate::role::Failure;
use crate::state::Config;
use smol_str::SmolStr;

use super::gang::{Cx, Ending, Gang};
use super::member::{Member, Stage, flag, infrastructure_sign};
use super::timers::spread;
use super::verdict::member_end;

impl Gang {
    /// `scope: Member`, or a role with `failurePolicy: ReplaceMember`: a member that failed is made again in the same attempt,
    /// up to the limit.
    pub(super) fn makes_again(&self, rank: u32, reason: Reason, facts: &PodFacts) -> bool {
        let by_role = self.roles.failure(rank) == Failure::ReplaceMember;
        let replaces = |r: &&Retry| self.ending.is_none() && (by_role || r.scope == Scope::Member);
        let Some(retry) = self.retry.as_deref().filter(replaces) else { return false };
        let exit_code = member_end(MemberOutcome::Failed, Some(reason), facts).exit_code;
        let made = self.member(rank).map_or(0, |m| m.incarnation);
        made < retry.limit && retry.covers(&Cause { exit_code, ..Cause::of(reason) })
    }

    /// A sign that the infrastructure was to blame for what looked like the user's failure, while it is not recorded yet.
    pub(super) fn reclassify(&mut self, rank: u32, facts: &PodFacts) {
        let (Some(_), false, Some(reason)) = (self.grace_until_ms, self.finishing, infrastructure_sign(facts)) else {
            return;
        };
        let Some(ending) = self.ending.as_deref_mut() else { return };
        let first = ending.cause.message();
        let machine = facts.node.clone().unwrap_or_default();
        let detail = SmolStr::from(format!("{reason} on {machine}, after {first}"));
        ending.cause = Cause { reason, rank: Some(rank), exit_code: None, detail };
        (self.machine, self.grace_until_ms, self.dirty) = (machine, None, true);
    }

    /// Whether another attempt may follow an end for this cause.
    pub(super) fn may_follow(&self, cause: &Cause) -> bool {
        let forgiven = |r: &Retry| cause.reason.class() == Class::User && r.forgives_infrastructure(&self.plan);
        self.retry.as_deref().is_some_and(|r| forgiven(r) || r.next(&self.plan, cause, 0, 0, 0).is_some())
    }

    /// The plan of the attempt that follows this one, where one does.
    pub(super) fn next_plan(&self, end: &GangEnd, config: &Config) -> Option<Plan> {
        let retry = self.retry.as_deref()?;
        let graced = end.cause.reason.class() == Class::User && retry.forgives_infrastructure(&self.plan);
        let waited_ms = if graced { config.infra_grace_ms } else { 0 };
        let random = spread(config.seed ^ 0xA77E, self.key.node, self.key.attempt);
        let plan = retry.next(&self.plan, &end.cause, end.finished_at_ms, waited_ms, random)?;
        Some(plan.avoiding(self.machine.clone()))
    }

    /// Its failure has stopped others, for good: that stands, whatever else a later leader finds of it.
    pub(super) fn stays_failed(&mut self) {
        if let Some(ending) = self.ending.as_deref_mut().filter(|ending| ending.succeeded) {
            *ending = Ending { succeeded: false, cause: Cause::of(Reason::Unrecorded) };
            self.dirty = true;
        }
    }

    /// Nothing will follow: its end waits for no sign any more.
    pub(super) const fn hurry(&mut self) {
        self.grace_until_ms = None;
    }

    /// The pods that do not stop are given up: their machine does not answer, and the user wants to go on without them.
    pub(super) fn give_up(&mut self, cx: &mut Cx<'_>) {
        if self.ending.is_none() || self.force_at_ms.is_none_or(|at_ms| at_ms > cx.now_ms) {
            return;
        }
        for rank in 0..self.replicas() {
            let Some(m) = self.member(rank).filter(|m| m.stage == Stage::Live && !m.has(flag::STOPPED)) else {
                continue;
            };
            self.edit(rank, |m| m.set(flag::STOPPED | flag::RELEASED, true));
            cx.trailing.abandon(self.key_of(rank));
            if m.outcome.is_none() {
                self.conclude(rank, MemberOutcome::Stopped, Some(Reason::NodeLost), &PodFacts::default(), cx);
            }
        }
    }

    /// Asks again for the deletion of members that were asked to stop, and did not yet.
    pub(crate) fn hasten(&mut self, cx: &mut Cx<'_>) {
        for rank in 0..self.replicas() {
            let leaving = |m: &Member| m.stage == Stage::Live && m.has(flag::KILLED) && !m.has(flag::STOPPED);
            if self.member(rank).as_ref().is_some_and(leaving) {
                cx.out.push(Command::DeletePod(self.key_of(rank)));
            }
        }
    }
}

//! Creating a gang's objects, and what happens when the API server refuses them.
//!
//! ```text
//!   all at once ──quota refuses──> one probe a pause, then 1, 2, 4, … while they pass
//!                                   └─ held too long ──> unbound pods withdrawn ──> pause, doubled ──> one probe …
//! ```
//! Other refusals that may pass: pauses, doubled each time; what is forbidden, only for so long.
//!
//! Two gangs that each fit the quota alone can each hold half of it; the one whose (seeded) patience ends first lets go,
//! and the other's next probe finds room. A gang that was bound as a whole never lets go of a member.

use crate::command::{Command, Milestone};
use crate::event::{Refusal, RefusalKind};
use crate::ids::MemberKey;
use crate::reason::{Cause, Reason};
use crate::state::GangPhase;

use super::gang::{Claim, Cx, Gang};
use super::member::{Member, Stage, flag};
use super::timers::{Wake, backoff_ms, quota_hold_ms};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Service {
    NotNeeded,
    Absent,
    Asked,
    Exists,
}

/// The creating side of a gang.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Supply {
    service: Service,
    /// Why it is not going on; shown in the status.
    wait: Option<Box<Cause>>,
    /// Nothing is created before.
    hold_until_ms: u64,
    /// When quota's patience ends.
    let_go_at_ms: Option<u64>,
    /// Since when creates are forbidden, without one that was not.
    forbidden_since_ms: Option<u64>,
    /// Unbound pods are unwanted until the next try.
    withdrawing: bool,
    /// Tries since the last success.
    round: u32,
    /// Creates that may be unanswered at once.
    batch: u32,
    /// Members made again since the gang was last whole.
    vanished: u32,
}

impl Supply {
    pub(crate) const fn new(with_service: bool) -> Self {
        Self {
            service: if with_service { Service::Absent } else { Service::NotNeeded },
            wait: None,
            hold_until_ms: 0,
            let_go_at_ms: None,
            forbidden_since_ms: None,
            withdrawing: false,
            round: 0,
            batch: u32::MAX,
            vanished: 0,
        }
    }

    pub(crate) fn wait(&self) -> Option<&Cause> {
        self.wait.as_deref()
    }

    /// A create went well: what made others wait has passed, or is told anew.
    pub(crate) fn clear_wait(&mut self) {
        self.wait = None;
        self.forbidden_since_ms = None;
    }

    pub(crate) const fn withdraws(&self) -> bool {
        self.withdrawing
    }

    /// Everything exists, or is bound: all refusals are forgotten.
    pub(crate) fn on_whole(&mut self) {
        *self = Self { service: self.service, ..Self::new(false) };
    }
}

impl Gang {
    /// Commands the claim, when its time has come.
    pub(crate) fn ask_claim(&mut self, cx: &mut Cx<'_>) {
        if cx.booting || self.claim != Claim::Wanted || self.ending.is_some() || self.is_held(cx) {
            return;
        }
        self.claim = Claim::Asked;
        self.set_deadline(cx);
        let plan = (self.key.attempt > 1).then(|| Box::new(self.plan.clone()));
        cx.out.push(Command::CreateGang(self.key, plan));
    }

    /// Creates what is missing, as far as the pause and the batch allow. O(members) when something is missing.
    pub(crate) fn supply_all(&mut self, cx: &mut Cx<'_>) {
        if !self.may_create(cx) || self.is_withdrawing() || self.waits_for_its_turn(cx) {
            return;
        }
        self.supply.withdrawing = false;
        self.ask_service(cx);
        let mut room = self.supply.batch.saturating_sub(self.tally.creating);
        for rank in 0..self.replicas() {
            if room == 0 || self.tally.absent == 0 {
                break;
            }
            if self.member(rank).is_some_and(|m| m.stage == Stage::Absent) {
                self.create(rank, cx);
                room -= 1;
            }
        }
    }

    fn ask_service(&mut self, cx: &mut Cx<'_>) {
        if self.supply.service == Service::Absent {
            self.supply.service = Service::Asked;
            cx.out.push(Command::CreateService(self.key));
        }
    }

    fn create(&mut self, rank: u32, cx: &mut Cx<'_>) {
        self.edit(rank, |m| m.stage = Stage::Creating);
        cx.out.push(Command::CreatePod(self.key_of(rank)));
    }

    /// An attempt that is not the first starts after its pause, and when nothing of the one before may still run.
    fn waits_for_its_turn(&mut self, cx: &mut Cx<'_>) -> bool {
        let reason = if self.plan.not_before_ms > cx.now_ms {
            cx.timers.set(self.plan.not_before_ms, Wake::Gang(self.key.node));
            Some(Reason::BackOff)
        } else if self.key.attempt > 1 && cx.trailing.is_stopping_before(self.key) {
            Some(Reason::PredecessorUnreachable)
        } else {
            None
        };
        let shown = self.supply.wait().map(|wait| wait.reason);
        let ours = |reason| matches!(reason, Some(Reason::BackOff | Reason::PredecessorUnreachable));
        if shown != reason && (reason.is_some() || ours(shown)) {
            let seconds = self.plan.not_before_ms.saturating_sub(cx.now_ms).div_ceil(1_000);
            self.supply.wait = reason.map(|reason| {
                Box::new(match reason {
                    Reason::BackOff => Cause::of(reason).with_detail(format!("starts in {seconds} s")),
                    _ => Cause::of(reason).with_detail("pods of the attempt before may still run"),
                })
            });
            self.dirty = true;
        }
        reason.is_some()
    }

    fn may_create(&self, cx: &mut Cx<'_>) -> bool {
        !cx.booting && self.claim == Claim::Held && self.ending.is_none() && !self.is_held(cx)
    }

    /// A withdrawn pod is not gone yet. Made whole again with it, the gang would be bound, and then lose it.
    fn is_withdrawing(&self) -> bool {
        let on_its_way = |m: &Member| m.stage == Stage::Live && m.has(flag::KILLED) && m.outcome.is_none();
        self.supply.withdrawing && self.members.iter().any(on_its_way)
    }

    fn is_held(&self, cx: &mut Cx<'_>) -> bool {
        let held = self.supply.hold_until_ms > cx.now_ms;
        if held {
            cx.timers.set(self.supply.hold_until_ms, Wake::Gang(self.key.node));
        }
        held
    }

    /// The pod of a slot is over and done with: the slot's next incarnation follows.
    pub(super) fn replace(&mut self, rank: u32, cx: &mut Cx<'_>) {
        self.let_go(rank, cx);
        self.edit(rank, |m| *m = m.next());
        if self.ending.is_some() {
            return;
        }
        if !self.supply.withdrawing {
            self.supply.vanished = self.supply.vanished.saturating_add(1);
            let rounds = self.supply.vanished / self.replicas().max(1);
            if rounds > 3 && self.supply.hold_until_ms <= cx.now_ms {
                self.pause(Cause::of(Reason::MembersVanish), backoff_ms(cx.config, self.key.node, rounds - 4), cx);
            }
        }
        if self.supply.batch == u32::MAX && self.may_create(cx) && !self.waits_for_its_turn(cx) {
            self.create(rank, cx);
        } else if self.tally.creating == 0 {
            self.supply_all(cx);
        }
    }

    /// A create was answered well.
    pub(super) fn on_answered(&mut self, cx: &mut Cx<'_>) {
        self.supply.forbidden_since_ms = None;
        if self.tally.creating > 0 || self.ending.is_some() || self.claim != Claim::Held {
            return;
        }
        if self.tally.absent == 0 {
            self.on_all_exist();
        } else if self.supply.batch < u32::MAX {
            self.supply.batch = self.supply.batch.saturating_mul(2);
            self.supply_all(cx);
        }
    }

    /// Every pod exists; with the Service nothing is left to wait for.
    fn on_all_exist(&mut self) {
        if matches!(self.supply.service, Service::NotNeeded | Service::Exists) {
            self.dirty |= self.supply.wait.is_some();
            let vanished = self.supply.vanished;
            self.supply.on_whole();
            self.supply.vanished = vanished;
        } else {
            self.supply.batch = u32::MAX;
            self.supply.let_go_at_ms = None;
        }
    }

    /// The Service exists, or went away.
    pub(crate) fn on_service(&mut self, exists: bool, cx: &mut Cx<'_>) {
        if self.supply.service == Service::NotNeeded {
            return;
        }
        self.supply.service = if exists { Service::Exists } else { Service::Absent };
        if exists {
            self.on_answered(cx);
        } else if self.may_create(cx) {
            self.ask_service(cx);
        }
    }

    /// The claim was refused.
    pub(crate) fn on_claim_refused(&mut self, refusal: &Refusal, cx: &mut Cx<'_>) {
        if self.claim == Claim::Asked {
            self.claim = Claim::Wanted;
            self.on_refused(refusal, None, cx);
        }
    }

    /// The Service was refused.
    pub(crate) fn on_service_refused(&mut self, refusal: &Refusal, cx: &mut Cx<'_>) {
        if self.supply.service == Service::Asked {
            self.supply.service = Service::Absent;
            self.on_refused(refusal, None, cx);
        }
    }

    /// A pod was refused.
    pub(crate) fn on_pod_refused(&mut self, key: MemberKey, refusal: &Refusal, cx: &mut Cx<'_>) {
        if self.member(key.rank).is_some_and(|m| m.stage == Stage::Creating && m.incarnation == key.incarnation) {
            self.edit(key.rank, |m| m.stage = Stage::Absent);
            self.on_refused(refusal, Some(key.rank), cx);
        }
    }

    fn on_refused(&mut self, refusal: &Refusal, rank: Option<u32>, cx: &mut Cx<'_>) {
        if self.ending.is_some() {
            return;
        }
        let cause = |reason| Cause { rank, ..Cause::of(reason).with_detail(refusal.message.clone()) };
        match refusal.kind {
            RefusalKind::Forbidden => self.on_forbidden(cause(Reason::CreateForbidden), cx),
            RefusalKind::Invalid => self.end(false, cause(Reason::CreateInvalid), cx),
            RefusalKind::Quota => self.on_quota(cause(Reason::QuotaExceeded), cx),
            RefusalKind::NameTaken | RefusalKind::Dropped if self.supply.hold_until_ms > cx.now_ms => {}
            RefusalKind::NameTaken => {
                let pause = self.next_pause_ms(cx);
                self.pause(cause(Reason::NameTaken), pause, cx);
            }
            RefusalKind::Dropped => {
                self.supply.hold_until_ms = cx.now_ms + self.next_pause_ms(cx);
                cx.timers.set(self.supply.hold_until_ms, Wake::Gang(self.key.node));
            }
        }
    }

    /// What is missing may have been applied in the same breath as the workflow: it is waited for, with the reason to be
    /// seen, up to the bound.
    fn on_forbidden(&mut self, cause: Cause, cx: &mut Cx<'_>) {
        self.supply.batch = 1;
        let since_ms = *self.supply.forbidden_since_ms.get_or_insert(cx.now_ms);
        let left_ms = since_ms.saturating_add(cx.config.forbidden_hold_ms).saturating_sub(cx.now_ms);
        if left_ms == 0 {
            self.end(false, cause, cx);
        } else if self.supply.hold_until_ms <= cx.now_ms || self.supply.wait.is_none() {
            // The last try comes at the bound.
            let pause = self.next_pause_ms(cx).min(left_ms);
            self.pause(cause, pause, cx);
        }
    }

    fn on_quota(&mut self, cause: Cause, cx: &mut Cx<'_>) {
        self.supply.batch = 1;
        if self.supply.hold_until_ms > cx.now_ms && self.supply.wait.is_some() {
            return;
        }
        let holds_some = self.phase == GangPhase::Pending && self.claim == Claim::Held;
        if holds_some && self.supply.let_go_at_ms.is_none() {
            let at_ms = cx.now_ms + quota_hold_ms(cx.config, self.key.node, self.supply.round);
            self.supply.let_go_at_ms = Some(at_ms);
            cx.timers.set(at_ms, Wake::Gang(self.key.node));
        }
        let pause = if holds_some { cx.config.retry_base_ms } else { self.next_pause_ms(cx) };
        self.pause(cause, pause, cx);
    }

    fn next_pause_ms(&mut self, cx: &Cx<'_>) -> u64 {
        let pause = backoff_ms(cx.config, self.key.node, self.supply.round);
        self.supply.round = self.supply.round.saturating_add(1);
        pause
    }

    /// Nothing is created for a while, and the status says why.
    fn pause(&mut self, cause: Cause, pause_ms: u64, cx: &mut Cx<'_>) {
        if self.supply.wait().is_none_or(|old| old.reason != cause.reason) {
            self.dirty = true;
            self.supply.wait = Some(Box::new(cause));
            cx.out.push(Command::Announce(Milestone::Waiting(self.key.node)));
        }
        self.supply.hold_until_ms = cx.now_ms + pause_ms;
        cx.timers.set(self.supply.hold_until_ms, Wake::Gang(self.key.node));
    }

    /// A deadline of this gang may have come.
    pub(crate) fn on_timer(&mut self, cx: &mut Cx<'_>) {
        self.give_up(cx);
        self.check_deadline(cx);
        if self.ending.is_some() {
            return;
        }
        if self.supply.let_go_at_ms.is_some_and(|at_ms| at_ms <= cx.now_ms) {
            if self.tally.creating == 0 {
                self.withdraw(cx);
            } else {
                // An unanswered create may have made the gang whole, and a whole gang may be bound.
                cx.timers.set(cx.now_ms + cx.config.retry_base_ms, Wake::Gang(self.key.node));
            }
        }
        self.ask_claim(cx);
        self.supply_all(cx);
    }

    /// Lets go of what is not bound, so that somebody else can be whole.
    fn withdraw(&mut self, cx: &mut Cx<'_>) {
        self.supply.let_go_at_ms = None;
        self.supply.withdrawing = true;
        self.supply.hold_until_ms = cx.now_ms + self.next_pause_ms(cx).saturating_add(cx.config.quota_hold_ms / 2);
        for rank in 0..self.replicas() {
            if self.member(rank).is_some_and(|m| !m.has(flag::BOUND)) {
                self.progress(rank, cx);
            }
        }
    }
}

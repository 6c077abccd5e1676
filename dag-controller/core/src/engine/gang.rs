//! One open attempt of a node: its members, its phase, its end.
//!
//! ```text
//!   Wanted ──CreateGang──> Asked ──seen──> Held ──────────────> members created, bound, run, end
//!                                           └──object deleted──> Gone: fails, members are stopped
//!   phase   Pending ──all needed bound──> Scheduled ──all needed ran──> Running
//!   ending  set once: by the success that was wanted, a failure that counts (verdict.rs), or a stop from above
//!           ──> members stopped ──> results recorded ──> FinishGang ──> seen ended: the node ends
//! ```
//! A failure of the user's waits for `infra_grace` before it is recorded, where the infrastructure has a budget of its own: a
//! dying machine makes its peers exit first, and its sign comes later.
//!
//! Invariants: after `ending` is set nothing is created; FinishGang is commanded once, when every slot is settled;
//! every pod that may still run is a live slot, an unanswered create, or in [`Trailing`].

use crate::command::{Command, MemberOutcome, Milestone};
use crate::dag::{Limits, NodeSpec};
use crate::event::{GangEnd, PodFacts};
use crate::ids::{AttemptKey, MemberKey};
use crate::reason::{Cause, Class, Reason};
use crate::retry::{Plan, Retry};
use crate::state::{Config, Counts, GangPhase};
use smol_str::SmolStr;
use std::cmp::Ordering;
use std::sync::Arc;

use super::member::{Member, Stage, flag};
use super::roles::Roles;
use super::supply::Supply;
use super::timers::{Timers, Wake};
use super::trailing::Trailing;
use super::verdict::Saying;

/// What the parts of the engine share during one event.
pub(crate) struct Cx<'a> {
    pub(crate) now_ms: u64,
    /// Facts are being read back: nothing is created or finished before all of them are in.
    pub(crate) booting: bool,
    pub(crate) config: &'a Config,
    pub(crate) out: &'a mut Vec<Command>,
    pub(crate) trailing: &'a mut Trailing,
    pub(crate) timers: &'a mut Timers,
}

/// The Gang object, as far as we know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Claim {
    /// To be created.
    Wanted,
    /// CreateGang was commanded.
    Asked,
    /// It exists.
    Held,
    /// It was deleted under us.
    Gone,
}

/// What is left to do for a gang's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Finish {
    /// Something is still to come.
    Wait,
    /// The end is to be written into the Gang.
    Record,
    /// There is no Gang to write into: the node ends now.
    Over,
}

/// A decided end that waits for the members to stop.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ending {
    pub(crate) succeeded: bool,
    pub(crate) cause: Cause,
}

/// Members by what they are; kept by [`Gang::edit`] alone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tally {
    pub(crate) absent: u32,
    pub(crate) creating: u32,
    live: u32,
    bound: u32,
    running: u32,
    succeeded: u32,
    ended_badly: u32,
    unsettled: u32,
}

impl Tally {
    fn add(&mut self, m: Member) {
        self.each(m, |count, one| *count += u32::from(one));
    }

    fn take(&mut self, m: Member) {
        self.each(m, |count, one| *count -= u32::from(one));
    }

    fn each(&mut self, m: Member, change: impl Fn(&mut u32, bool)) {
        change(&mut self.absent, m.stage == Stage::Absent);
        change(&mut self.creating, m.stage == Stage::Creating);
        change(&mut self.live, m.stage == Stage::Live);
        change(&mut self.bound, m.has(flag::BOUND));
        change(&mut self.running, m.has(flag::RAN) && m.outcome.is_none() && !m.has(flag::STOPPED));
        change(&mut self.succeeded, m.outcome == Some(MemberOutcome::Succeeded));
        change(&mut self.ended_badly, matches!(m.outcome, Some(MemberOutcome::Failed | MemberOutcome::Stopped)));
        change(&mut self.unsettled, !m.is_settled());
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gang {
    pub(crate) key: AttemptKey,
    pub(crate) phase: GangPhase,
    pub(crate) claim: Claim,
    pub(crate) ending: Option<Box<Ending>>,
    pub(crate) scheduled_at_ms: Option<u64>,
    pub(crate) started_at_ms: Option<u64>,
    pub(super) supply: Supply,
    pub(super) members: Vec<Member>,
    pub(super) tally: Tally,
    /// The same by role.
    pub(super) roles: Roles,
    /// Its status is worth a write.
    pub(crate) dirty: bool,
    /// Since when it runs with fewer members than it is to have.
    pub(crate) degraded_since_ms: Option<u64>,
    pub(super) finishing: bool,
    pub(super) retry: Option<Arc<Retry>>,
    /// What it was made with.
    pub(super) plan: Plan,
    /// Until when a sign of the infrastructure changes who is to blame.
    pub(super) grace_until_ms: Option<u64>,
    /// When pods that do not stop are given up.
    pub(super) force_at_ms: Option<u64>,
    pub(super) limits: Limits,
    /// Since when it may wait for its place.
    pub(super) queued_at_ms: u64,
    /// A bound member that does not start, and what for.
    pub(super) slow: Option<(u32, Reason, SmolStr)>,
    /// The machine of the member it began with.
    pub(super) machine: SmolStr,
    /// What members are to say when they end well; none when nothing is asked.
    pub(super) saying: Option<Box<Saying>>,
}

impl Gang {
    pub(crate) fn new(key: AttemptKey, spec: &NodeSpec, plan: Plan, queued_at_ms: u64) -> Self {
        let replicas = spec.replicas;
        Self {
            key,
            phase: GangPhase::Pending,
            claim: Claim::Wanted,
            ending: None,
            scheduled_at_ms: None,
            started_at_ms: None,
            supply: Supply::new(replicas > 1),
            members: vec![Member::default(); replicas as usize],
            tally: Tally { absent: replicas, ..Tally::default() },
            roles: Roles::new(spec),
            dirty: false,
            degraded_since_ms: None,
            finishing: false,
            retry: spec.retry.clone(),
            plan,
            grace_until_ms: None,
            force_at_ms: None,
            limits: spec.limits,
            queued_at_ms,
            slow: None,
            machine: SmolStr::default(),
            saying: spec.outputs.as_ref().map(Saying::new),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            desired: u32::try_from(self.members.len()).unwrap_or(u32::MAX),
            created: self.tally.live,
            bound: self.tally.bound,
            running: self.tally.running,
            succeeded: self.tally.succeeded,
            failed: self.tally.ended_badly,
        }
    }

    pub(crate) fn replicas(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// A member by rank, if there is one.
    pub(crate) fn member(&self, rank: u32) -> Option<Member> {
        self.members.get(rank as usize).copied()
    }

    pub(super) fn key_of(&self, rank: u32) -> MemberKey {
        let AttemptKey { node, attempt } = self.key;
        let incarnation = self.member(rank).map_or(0, |m| m.incarnation);
        MemberKey { node, attempt, rank, incarnation }
    }

    /// The only way to change a slot: keeps the tally.
    pub(super) fn edit(&mut self, rank: u32, change: impl FnOnce(&mut Member)) {
        if let Some(slot) = self.members.get_mut(rank as usize) {
            self.tally.take(*slot);
            self.roles.take(rank, *slot);
            change(slot);
            self.tally.add(*slot);
            self.roles.add(rank, *slot);
        }
    }

    /// The Gang object exists, made with this plan.
    pub(crate) fn on_held(&mut self, plan: Option<Box<Plan>>, cx: &mut Cx<'_>) {
        if matches!(self.claim, Claim::Wanted | Claim::Asked) {
            self.claim = Claim::Held;
            self.plan = plan.map_or_else(|| std::mem::take(&mut self.plan), |plan| *plan);
            self.supply.clear_wait();
            self.supply_all(cx);
        }
    }

    /// The Gang object was deleted, or is being deleted.
    pub(crate) fn on_deleted(&mut self, gone: bool, cx: &mut Cx<'_>) {
        if gone && self.claim != Claim::Gone {
            self.claim = Claim::Gone;
            // A success that was not recorded in time is not durable, and nothing may rest on it.
            if self.ending.as_ref().is_some_and(|ending| ending.succeeded) {
                self.ending = None;
            }
            // Nothing can be recorded any more, so nothing waits for a record.
            for rank in 0..self.replicas() {
                self.edit(rank, |m| m.set(flag::RECORDED, m.outcome.is_some()));
                self.progress(rank, cx);
            }
        }
        self.end(false, Cause::of(Reason::GangDeleted), cx);
    }

    /// Facts about a member's pod. The rank is below the number of members.
    pub(crate) fn on_pod(&mut self, key: MemberKey, facts: &PodFacts, cx: &mut Cx<'_>) {
        let Some(before) = self.member(key.rank) else { return };
        self.reclassify(key.rank, facts);
        let decided = before.outcome.is_some_and(|outcome| outcome != MemberOutcome::Lost);
        let once_more = match key.incarnation.cmp(&before.incarnation) {
            Ordering::Less => true,
            Ordering::Equal => before.has(flag::RELEASED),
            Ordering::Greater => decided,
        };
        if once_more {
            // An older pod; or one of a rank that is done with, made by a leader that is no more.
            cx.trailing.observe(key, facts, cx.out);
            return;
        }
        if key.incarnation > before.incarnation {
            self.supersede(key, cx);
        }
        let known = self.member(key.rank).unwrap_or_default();
        self.edit(key.rank, |m| m.observe(facts));
        if !facts.finalizer {
            cx.trailing.forget(key);
        }
        self.note_start(key.rank, facts);
        self.advance(cx);
        self.judge(key.rank, facts, known, cx);
        self.progress(key.rank, cx);
        if before.stage == Stage::Creating {
            self.on_answered(cx);
        }
    }

    /// A newer pod of this rank exists than we knew of, made by a former leader: the older one trails.
    fn supersede(&mut self, key: MemberKey, cx: &mut Cx<'_>) {
        let old = self.key_of(key.rank);
        if let Some(m) = self.member(key.rank)
            && m.stage == Stage::Live
        {
            if m.has(flag::STOPPED) {
                self.let_go(key.rank, cx);
            } else {
                cx.trailing.stop(old, cx.out);
            }
        }
        self.edit(key.rank, |m| *m = Member { incarnation: key.incarnation, ..Member::default() });
    }

    /// The pod of a slot does not exist any more.
    pub(crate) fn on_pod_gone(&mut self, key: MemberKey, cx: &mut Cx<'_>) {
        let Some(m) = self.member(key.rank) else { return };
        if m.incarnation != key.incarnation || m.stage == Stage::Absent {
            return;
        }
        let was_creating = m.stage == Stage::Creating;
        self.edit(key.rank, |m| {
            m.stage = Stage::Live;
            m.flags = m.flags & !flag::FINALIZER | flag::STOPPED | flag::RELEASED;
        });
        if m.outcome.is_none() && !m.has(flag::UNDONE) {
            let ours = m.has(flag::KILLED) || self.ending.is_some();
            match (m.has(flag::RAN), ours) {
                (false, _) => self.edit(key.rank, |m| m.set(flag::UNDONE, true)),
                (true, true) if self.ending.is_none() => self.edit(key.rank, |m| m.set(flag::UNDONE, true)),
                (true, true) => self.conclude(key.rank, MemberOutcome::Stopped, None, &PodFacts::default(), cx),
                (true, false) => self.lose(key.rank, Reason::MemberDeleted, &PodFacts::default(), cx),
            }
        }
        self.progress(key.rank, cx);
        if was_creating {
            self.on_answered(cx);
        }
    }

    /// A member's result is durable.
    pub(crate) fn on_recorded(&mut self, key: MemberKey, cx: &mut Cx<'_>) {
        if self.member(key.rank).is_some_and(|m| m.incarnation == key.incarnation && m.outcome.is_some()) {
            self.edit(key.rank, |m| m.set(flag::RECORDED, true));
            self.progress(key.rank, cx);
        }
    }

    /// Decides the end, once, and stops whatever still runs.
    pub(crate) fn end(&mut self, succeeded: bool, cause: Cause, cx: &mut Cx<'_>) {
        if self.ending.is_some() {
            return;
        }
        if let Some(retry) = self.retry.as_deref().filter(|_| !succeeded) {
            let graced = cause.reason.class() == Class::User && retry.forgives_infrastructure(&self.plan);
            self.grace_until_ms = graced.then(|| cx.now_ms.saturating_add(cx.config.infra_grace_ms));
        }
        let force_after_ms = self.retry.as_deref().and_then(|retry| retry.force_after_ms);
        self.force_at_ms = force_after_ms.map(|after_ms| cx.now_ms.saturating_add(after_ms));
        for at_ms in [self.grace_until_ms, self.force_at_ms].into_iter().flatten() {
            cx.timers.set(at_ms, Wake::Gang(self.key.node));
        }
        self.ending = Some(Box::new(Ending { succeeded, cause }));
        self.supply.clear_wait();
        self.dirty = true;
        if self.claim == Claim::Asked || self.tally.creating > 0 {
            cx.out.push(Command::DropCreates(self.key));
        }
        for rank in 0..self.replicas() {
            self.progress(rank, cx);
        }
    }

    /// Moves a slot on by what is known of it: kill, release, replace.
    pub(super) fn progress(&mut self, rank: u32, cx: &mut Cx<'_>) {
        let Some(m) = self.member(rank) else { return };
        if m.stage != Stage::Live {
            return;
        }
        let stopped = m.has(flag::STOPPED);
        let unwanted = self.ending.is_some() || (self.supply.withdraws() && !m.has(flag::BOUND));
        match m.outcome {
            None if m.has(flag::UNDONE) && stopped => self.replace(rank, cx),
            None if unwanted && !stopped => self.kill(rank, cx),
            None => {}
            // The record comes first: a pod that is told to stop must not look, to a later leader, as if cut short.
            Some(_) if !m.has(flag::RECORDED) => {}
            // The kubelet tells a main container's end before the pod's: a deletion now would take its logs away.
            Some(_) if !stopped && m.has(flag::OTHERS) => self.kill(rank, cx),
            Some(_) if !stopped => {}
            Some(MemberOutcome::Lost) => self.replace(rank, cx),
            Some(_) => self.let_go(rank, cx),
        }
    }

    fn kill(&mut self, rank: u32, cx: &mut Cx<'_>) {
        let Some(m) = self.member(rank) else { return };
        if !m.has(flag::KILLED) && !m.has(flag::DELETING) {
            cx.out.push(Command::DeletePod(self.key_of(rank)));
        }
        self.edit(rank, |m| m.set(flag::KILLED, true));
    }

    /// Takes the finalizer off the slot's pod.
    pub(super) fn let_go(&mut self, rank: u32, cx: &mut Cx<'_>) {
        let Some(m) = self.member(rank) else { return };
        if m.has(flag::FINALIZER) && !m.has(flag::RELEASED) {
            cx.trailing.release(self.key_of(rank), cx.out);
        }
        self.edit(rank, |m| m.set(flag::RELEASED, true));
    }

    /// All that are needed bound, all that are needed ran: the phase follows.
    pub(super) fn advance(&mut self, cx: &mut Cx<'_>) {
        // Members that still come to run when others have done the work of all: the phase is that of the counts.
        if self.ending.is_some() && !self.has_succeeded() {
            return;
        }
        if self.phase == GangPhase::Pending && self.roles.are_bound() {
            self.phase = GangPhase::Scheduled;
            self.scheduled_at_ms.get_or_insert(cx.now_ms);
            self.supply.on_whole();
            self.dirty = true;
            cx.out.push(Command::Announce(Milestone::Scheduled(self.key.node)));
            self.set_deadline(cx);
        }
        if self.phase == GangPhase::Scheduled && self.roles.have_run() {
            self.phase = GangPhase::Running;
            self.started_at_ms.get_or_insert(cx.now_ms);
            self.dirty = true;
            cx.out.push(Command::Announce(Milestone::Running(self.key.node)));
            self.set_deadline(cx);
        }
    }

    /// Takes note whether it runs with all of its members.
    pub(crate) fn note_degraded(&mut self, cx: &Cx<'_>) {
        let whole = self.tally.running + self.tally.succeeded >= self.replicas();
        let degraded = self.phase == GangPhase::Running && self.ending.is_none() && !whole;
        if !cx.booting && degraded != self.degraded_since_ms.is_some() {
            self.degraded_since_ms = degraded.then_some(cx.now_ms);
            self.dirty = true;
        }
    }

    /// What is left to do for the end. Says [`Finish::Record`] once.
    pub(crate) fn finish(&mut self, now_ms: u64) -> Finish {
        if self.ending.is_none() || self.tally.unsettled > 0 {
            return Finish::Wait;
        }
        match self.claim {
            Claim::Asked => Finish::Wait,
            Claim::Wanted | Claim::Gone => Finish::Over,
            Claim::Held if self.finishing || self.grace_until_ms.is_some_and(|at_ms| at_ms > now_ms) => Finish::Wait,
            Claim::Held => {
                self.finishing = true;
                Finish::Record
            }
        }
    }

    /// The end as it is to be recorded.
    pub(crate) fn record(&self, now_ms: u64) -> GangEnd {
        let (succeeded, cause) = match self.ending.as_deref() {
            Some(ending) => (ending.succeeded, ending.cause.clone()),
            None => (false, Cause::of(Reason::Unrecorded)),
        };
        let outputs = self.saying.as_deref().filter(|_| succeeded).map(|saying| saying.outputs.clone());
        GangEnd {
            succeeded,
            cause,
            outputs: outputs.unwrap_or_default(),
            scheduled_at_ms: self.scheduled_at_ms,
            started_at_ms: self.started_at_ms,
            finished_at_ms: now_ms,
        }
    }

    /// The attempt is over by its record: what still exists trails.
    pub(crate) fn close(mut self, cx: &mut Cx<'_>) {
        for rank in 0..self.replicas() {
            let Some(m) = self.member(rank) else { continue };
            match (m.stage, m.has(flag::STOPPED)) {
                (Stage::Live, true) => self.let_go(rank, cx),
                (Stage::Live, false) => {
                    cx.trailing.stop(self.key_of(rank), cx.out);
                }
                _ => {}
            }
        }
    }
}

//! Prepare: all claims of all members are reserved or allocated and all volumes bound before the first Binding is sent.
//!
//! ```text
//!   Recording ──journal──> Preparing ──every member prepared and checked──> Open
//!                             │
//!      lost, refused, taken by another, deadline ──> undo: members made safe, then their preparations taken back
//!
//!   a member that is replanned in Open:  safe ──> taken back ──> place given up ──journal──> new place ──> prepared ──> Bind
//! ```
//! Nothing is bound while an intent prepares, so that a failure costs no repair: the whole of it is withdrawn and planned
//! again with what is known then. A volume that was provisioned, or given to a claim, stays and constrains the next plan;
//! reservations, allocations and unanswered wishes for a node are taken back.
//!
//! The journal holds, with each member, the kind and the claim of what is prepared for it (and the volume that a claim is
//! given), until it is bound or all is taken back. That is all that a new leader needs: the preparations are level-triggered,
//! so that it fences and reads each claim and goes on from what it finds. Only an allocation is too large for the journal; one that the
//! former leader had not written yet has failed, and its pod is planned again.
//!
//! Invariants
//! - No Binding before all preparations of its pod, and the first of an intent not before those of all its members.
//! - A preparation is taken back only when no Binding of its pod can land; never from a pod that is bound.
//! - A place is given up, and an intent closed, only when nothing prepared for it is left and no late write can bring it back.

use super::bind::epoch_of;
use super::effects::{Cause, Effect};
use super::intent::{Fact, Goal, Member, Phase};
use super::task::{Lesson, Move, Stage, Task};
use super::{Awaited, Cx, Protocol, TaskRequest, Timer};
use crate::command::{Command, Observation, OpId};
use crate::event::{PrepareReadResult, WriteResult};
use crate::model::{Millis, PodKey};
use crate::preparation::{ClaimName, ObjectFacts, Preparation, VolumeClaimFacts};
use smol_str::SmolStr;

/// The engine's answer to [`Effect::Prepared`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// What was prepared stands as it was planned: the pod may be bound.
    Sound,
    /// The facts are not in yet; it is asked again.
    NotYet,
    /// It does not fit the node; why.
    Broken(String),
}

/// Which way a member's preparations go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Ahead,
    Back,
}

impl Member {
    /// Whether nothing that it needs is missing.
    pub(super) fn is_prepared(&self) -> bool {
        self.tasks.is_empty() || self.checked
    }

    /// Whether its preparations are to be taken back: it will not be bound where they were made for.
    pub(super) fn gives_back(&self) -> bool {
        let homeless = self.is_safe() && self.goal != Goal::Bind;
        !self.tasks.is_empty() && (self.fact == Fact::Gone || homeless)
    }

    fn has_all(&self) -> bool {
        !self.tasks.is_empty() && self.tasks.iter().all(Task::is_done)
    }
}

impl Protocol {
    /// An intent is in force: its members are prepared, or bound at once where there is nothing to prepare.
    pub(super) fn go_into_force(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        intent.in_force = true;
        let prepares = intent.members.iter().any(|member| !member.tasks.is_empty());
        intent.phase = if prepares { Phase::Preparing } else { Phase::Open };
        if prepares {
            self.start_preparing(seq, cx.now);
        }
        self.drive_all(seq);
    }

    /// Starts the clock of an intent that prepares.
    pub(super) fn start_preparing(&mut self, seq: u64, now: Millis) {
        let config = &self.config;
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        let timeouts = |member: &Member| {
            let timeout = |task: &Task| config.prepare_timeout(&task.what, member.patience);
            member.tasks.iter().map(timeout).min()
        };
        let Some(least) = intent.members.iter().filter_map(timeouts).min() else { return };
        intent.preparing_since = now;
        intent.prepare_deadline = Some(now + least);
        self.timers.insert((now + least, Timer::Prepare(seq)));
    }

    fn stop_preparing(&mut self, seq: u64) {
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        if let Some(at) = intent.prepare_deadline.take() {
            self.timers.remove(&(at, Timer::Prepare(seq)));
        }
    }

    /// The clock of an intent that prepares has run: whoever is late fails it.
    pub(super) fn on_prepare_deadline(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        intent.prepare_deadline = None;
        if intent.phase != Phase::Preparing {
            return;
        }
        let since = intent.preparing_since;
        let mut next: Option<Millis> = None;
        let mut late = None;
        for member in intent.members.iter().filter(|member| !member.is_prepared()) {
            // What is done and not seen by the check is late too.
            let unseen = member.has_all();
            for task in &member.tasks {
                let timeout = self.config.prepare_timeout(&task.what, member.patience);
                if since + timeout > cx.now {
                    next = Some(next.map_or(since + timeout, |at| at.min(since + timeout)));
                } else if unseen || !task.is_done() {
                    late = late.or_else(|| Some(format!("{} within {} s", task.pending(), timeout / 1000)));
                }
            }
        }
        if let Some(why) = late {
            return self.fail_preparing(seq, Cause::Unprepared(why), cx);
        }
        if let Some(at) = next {
            intent.prepare_deadline = Some(at);
            self.timers.insert((at, Timer::Prepare(seq)));
        }
    }

    /// Nothing is bound yet: the whole is undone, to be planned again with what is known then.
    fn fail_preparing(&mut self, seq: u64, cause: Cause, cx: &mut Cx<'_>) {
        self.observe_failed_volumes(seq, |_| true, cx);
        self.stop_preparing(seq);
        cx.fx.commands.push(Command::Observe(Observation::PrepareFailed));
        self.undo(seq, cause, cx);
    }

    /// Counts the members that will not get their volumes where they are, as kube-scheduler counts pods.
    fn observe_failed_volumes(&self, seq: u64, of: impl Fn(usize) -> bool, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&seq) else { return };
        let fails =
            |member: &Member| !member.is_prepared() && member.tasks.iter().any(|task| task.what.kind().is_volume());
        let members = intent.members.iter().enumerate();
        let failed = members.filter(|(index, member)| of(*index) && fails(member)).count();
        if failed > 0 {
            let pods = u32::try_from(failed).unwrap_or(u32::MAX);
            cx.fx.commands.push(Command::Observe(Observation::VolumesFailed(pods)));
        }
    }

    /// Draws the conclusion while members are prepared: all are, or one is lost.
    pub(super) fn judge_preparing(&mut self, seq: u64, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        if intent.tally.trouble > 0 {
            let why = "a member or its node was lost while its claims were prepared".to_owned();
            return self.fail_preparing(seq, Cause::Changed(why), cx);
        }
        if intent.tally.unready == 0 {
            intent.phase = Phase::Open;
            self.stop_preparing(seq);
            self.drive_all(seq);
        }
    }

    /// Gives a member's preparations their next requests, ahead or back.
    pub(super) fn drive_tasks(&mut self, seq: u64, index: usize, recorded: bool, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&seq) else { return };
        let Some(member) = intent.members.get(index) else { return };
        let Some(way) = way(&intent.phase, member, recorded) else { return };
        for number in 0..member.tasks.len() {
            self.drive_task(seq, index, number, way, cx);
        }
        match way {
            Way::Ahead => self.ask_to_check(seq, index, cx),
            Way::Back => self.come_clean(seq, index, cx),
        }
    }

    fn drive_task(&mut self, seq: u64, index: usize, number: usize, way: Way, cx: &mut Cx<'_>) {
        let Some(member) = self.member(seq, index) else { return };
        let Some(task) = member.tasks.get(number).filter(|task| task.op.is_none()) else { return };
        let next = match way {
            Way::Ahead => task.ahead(&member.pod),
            Way::Back => task.back(),
        };
        let is_request = matches!(next, Move::Read(_) | Move::Write(_));
        // What others were waited for is of no interest on the way back.
        let waited = way == Way::Back && task.stage == Stage::Waiting;
        if is_request && !waited && cx.now < task.not_before {
            self.timers.insert((task.not_before, Timer::Member(seq, index)));
            return;
        }
        let back = way == Way::Back;
        match next {
            Move::Nothing | Move::Clean => {}
            Move::Read(object) => {
                let op = self.await_op(Awaited::Task(seq, index, number, TaskRequest::Read { back }), cx.now);
                self.change_task(seq, index, number, |task| task.op = Some(op));
                cx.fx.commands.push(Command::ReadPrepared { op, object });
            }
            Move::Write(write) => {
                let op = self.await_op(Awaited::Task(seq, index, number, TaskRequest::Write { back }), cx.now);
                self.change_task(seq, index, number, |task| {
                    task.sent(&write);
                    task.op = Some(op);
                });
                cx.fx.commands.push(Command::Prepare { op, write });
            }
        }
    }

    /// Everything is there: the engine looks whether it is what was planned.
    fn ask_to_check(&mut self, seq: u64, index: usize, cx: &mut Cx<'_>) {
        let Some(member) = self.member(seq, index) else { return };
        if member.checked || member.checking || !member.has_all() {
            return;
        }
        if cx.now < member.check_at {
            self.timers.insert((member.check_at, Timer::Member(seq, index)));
            return;
        }
        let Some(node) = member.node.clone() else { return };
        let pod = member.pod.clone();
        self.update(seq, index, |member| member.checking = true);
        cx.fx.effects.push(Effect::Prepared { pod, node });
    }

    /// The engine's answer to [`Effect::Prepared`].
    pub(super) fn take_check(&mut self, pod: &PodKey, check: Check, cx: &mut Cx<'_>) {
        let Some((seq, index)) = self.by_uid.get(&pod.uid).copied() else { return };
        if self.member(seq, index).is_none_or(|member| !member.checking) {
            return;
        }
        let again = cx.now + self.config.replan_interval_ms;
        self.update(seq, index, |member| {
            member.checking = false;
            member.checked = check == Check::Sound;
            member.check_at = again;
        });
        if let Check::Broken(why) = check {
            self.fail_member(seq, index, why, cx);
        }
    }

    /// A member cannot be prepared on its node: while nothing is bound all is undone, else it gets another place.
    fn fail_member(&mut self, seq: u64, index: usize, why: String, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&seq) else { return };
        match intent.phase {
            Phase::Preparing => self.fail_preparing(seq, Cause::Unprepared(why), cx),
            Phase::Open => {
                self.observe_failed_volumes(seq, |of| of == index, cx);
                self.unplace(seq, index);
            }
            _ => {}
        }
    }

    /// Outcome of a consistent read of what is prepared.
    pub(super) fn on_prepare_read(
        &mut self,
        at: (u64, usize, usize),
        back: bool,
        result: PrepareReadResult,
        cx: &mut Cx<'_>,
    ) {
        let (seq, index, number) = at;
        match result {
            PrepareReadResult::Unknown(_) => self.unsure_task(at, cx.now),
            PrepareReadResult::NotFound if back => self.drop_task(at),
            PrepareReadResult::NotFound if self.begins_again(at) => {}
            PrepareReadResult::NotFound => {
                let gone = self.task(at).map(|task| format!("{}: it is gone", task.pending()));
                self.fail_member(seq, index, gone.unwrap_or_default(), cx);
            }
            PrepareReadResult::Found(facts) if self.is_later(&facts) => {
                // A later leader fenced the claim. The resourceVersion just read would get past that fence: stop here.
                let by_epoch = epoch_of(facts.identity().2).unwrap_or_default();
                cx.fx.effects.push(Effect::Fenced { by_epoch });
                self.follow();
            }
            PrepareReadResult::Found(facts) if self.fences_first(at, &facts) => {}
            PrepareReadResult::Found(facts) if back => {
                let fence = self.fence_value();
                let Some(pod) = self.member(seq, index).map(|member| member.pod.clone()) else { return };
                let mut clean = false;
                self.change_task(seq, index, number, |task| {
                    task.not_before = 0;
                    clean = task.learn_back(&facts, &pod, &fence);
                });
                if clean {
                    self.drop_task(at);
                }
            }
            PrepareReadResult::Found(facts) => self.learn_task(at, &facts, cx),
        }
    }

    /// Whether a leader of a later epoch fenced the claim.
    fn is_later(&self, facts: &ObjectFacts) -> bool {
        epoch_of(facts.identity().2).is_some_and(|epoch| epoch > self.epoch)
    }

    fn fence_value(&self) -> SmolStr {
        SmolStr::from(format!("{}.{}", self.epoch, self.last_op))
    }

    fn fences_first(&mut self, at: (u64, usize, usize), facts: &ObjectFacts) -> bool {
        let fence = self.fence_value();
        let mut fences = false;
        self.change_task(at.0, at.1, at.2, |task| {
            task.not_before = 0;
            fences = task.fence_first(facts, &fence);
        });
        fences
    }

    /// A claim that is not there is made.
    fn begins_again(&mut self, at: (u64, usize, usize)) -> bool {
        let mut begins = false;
        self.change_task(at.0, at.1, at.2, |task| begins = task.begin_again());
        begins
    }

    /// A claim may be deleted now.
    fn is_released(&mut self, at: (u64, usize, usize), version: &SmolStr) -> bool {
        let mut released = false;
        self.change_task(at.0, at.1, at.2, |task| released = task.released(version));
        released
    }

    fn is_fencing(&self, at: (u64, usize, usize)) -> bool {
        self.task(at).is_some_and(|task| matches!(task.stage, Stage::Fence(_)))
    }

    /// What a read or a watch shows on the way ahead.
    fn learn_task(&mut self, at: (u64, usize, usize), facts: &ObjectFacts, cx: &mut Cx<'_>) {
        let (seq, index, number) = at;
        let interval = self.config.prepare_read_interval_ms;
        let Some(pod) = self.member(seq, index).map(|member| member.pod.clone()) else { return };
        let mut lesson = Lesson::GoOn;
        self.change_task(seq, index, number, |task| {
            lesson = task.learn(facts, &pod);
            let waits = task.stage == Stage::Waiting && !std::mem::take(&mut task.answered);
            task.not_before = if waits { cx.now + (interval << task.failures.min(3)) } else { 0 };
        });
        match lesson {
            Lesson::GoOn => self.observe_done(at, cx),
            Lesson::Failed(why) => self.fail_member(seq, index, why, cx),
        }
    }

    fn observe_done(&self, at: (u64, usize, usize), cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&at.0).filter(|intent| intent.phase == Phase::Preparing) else { return };
        let Some(task) = self.task(at).filter(|task| task.is_done()) else { return };
        let took_ms = cx.now.saturating_sub(intent.preparing_since);
        cx.fx.commands.push(Command::Observe(Observation::Prepared { kind: task.what.kind(), took_ms }));
    }

    /// Outcome of a write of a preparation, or of its undoing.
    pub(super) fn on_prepare_written(
        &mut self,
        at: (u64, usize, usize),
        back: bool,
        result: WriteResult,
        cx: &mut Cx<'_>,
    ) {
        let (seq, index, number) = at;
        match result {
            WriteResult::NotFound if back => self.drop_task(at),
            WriteResult::Ok(version) if back && self.is_released(at, &version) => {}
            WriteResult::Ok(_) if back && !self.is_fencing(at) => self.drop_task(at),
            WriteResult::Ok(version) => {
                let later = cx.now + self.config.prepare_read_interval_ms;
                if self.task(at).is_some_and(Task::names_claim) {
                    // It was the pod that was written.
                    self.update(seq, index, |member| member.resource_version.clone_from(&version));
                }
                self.change_task(seq, index, number, |task| {
                    task.landed(version);
                    // Whether a claim that was allocated before has conditions to wait for, only the claim itself tells.
                    let answers = !matches!(task.what, Preparation::ReserveClaim { .. });
                    let waits = task.stage == Stage::Waiting && answers && !std::mem::take(&mut task.answered);
                    task.not_before = if waits { later } else { 0 };
                });
                self.observe_done(at, cx);
            }
            WriteResult::Conflict => self.change_task(seq, index, number, Task::unsure),
            WriteResult::NotFound => {
                let gone = self.task(at).map(|task| format!("{}: it is gone", task.pending()));
                self.fail_member(seq, index, gone.unwrap_or_default(), cx);
            }
            WriteResult::Unknown(_) => self.unsure_task(at, cx.now),
            WriteResult::Refused(message) if back => self.refuse_undo(at, message, cx),
            WriteResult::Refused(message) => {
                let preparing = self.intents.get(&seq).is_some_and(|intent| intent.phase == Phase::Preparing);
                if preparing {
                    return self.fail_preparing(seq, Cause::Refused(message), cx);
                }
                self.fail_member(seq, index, message, cx);
            }
        }
    }

    /// Taking back is refused: it is told, and tried again much later.
    fn refuse_undo(&mut self, at: (u64, usize, usize), message: String, cx: &mut Cx<'_>) {
        let later = cx.now + self.config.refused_retry_ms;
        self.change_task(at.0, at.1, at.2, |task| {
            task.unsure();
            task.not_before = later;
        });
        let gang = self.intents.get(&at.0).map(|intent| intent.gang.clone());
        cx.fx.effects.push(Effect::WriteRefused { gang, message });
    }

    fn unsure_task(&mut self, at: (u64, usize, usize), now: Millis) {
        let delay = self.task(at).map_or(0, |task| self.config.backoff(task.failures));
        self.change_task(at.0, at.1, at.2, |task| {
            task.unsure();
            task.not_before = now + delay;
        });
    }

    /// A volume claim was seen by watch. What it shows as bound is believed; anything else that matters is read.
    pub(super) fn see_volume_claim(&mut self, facts: &VolumeClaimFacts, cx: &mut Cx<'_>) {
        for (seq, index) in self.waiters_of(&facts.key) {
            for number in 0..self.member(seq, index).map_or(0, |member| member.tasks.len()) {
                let at = (seq, index, number);
                let Some(task) = self.task(at).filter(|task| *task.what.claim() == facts.key) else { continue };
                if task.stage != Stage::Waiting || task.op.is_some() {
                    // A request is under way; what it tells may be older.
                    let answered = facts.volume.is_some() && facts.bound;
                    self.change_task(seq, index, number, |task| task.answered |= answered);
                    continue;
                }
                let still = matches!(&task.what, Preparation::Provision { node, .. }
                    if facts.selected_node.as_ref() == Some(node) && !facts.deleting && !facts.lost);
                if facts.volume.is_some() && facts.bound {
                    self.learn_task(at, &ObjectFacts::VolumeClaim(facts.clone()), cx);
                } else if !still && matches!(task.what, Preparation::Provision { .. }) {
                    self.change_task(seq, index, number, |task| task.not_before = 0);
                }
            }
        }
    }

    /// Something about a claim changed: who waits for it reads it.
    pub(super) fn see_claim(&mut self, claim: &ClaimName) {
        for (seq, index) in self.waiters_of(claim) {
            for number in 0..self.member(seq, index).map_or(0, |member| member.tasks.len()) {
                let waits = self.task((seq, index, number)).is_some_and(|task| task.stage == Stage::Waiting);
                if waits {
                    self.change_task(seq, index, number, |task| task.not_before = 0);
                }
            }
        }
    }

    /// What a check found missing has come.
    pub(super) fn check_again(&mut self, claim: &ClaimName) {
        for (seq, index) in self.waiters_of(claim) {
            self.update(seq, index, |member| member.check_at = 0);
        }
    }

    fn waiters_of(&self, claim: &ClaimName) -> Vec<(u64, usize)> {
        self.by_claim.get(&claim.uid).map(|waiters| waiters.iter().copied().collect()).unwrap_or_default()
    }

    /// Gives a member what is to be prepared for its place, instead of what there was.
    pub(super) fn set_tasks(&mut self, seq: u64, index: usize, tasks: Vec<Task>) {
        self.clear_tasks(seq, index);
        if tasks.is_empty() {
            return;
        }
        for task in &tasks {
            self.by_claim.entry(task.what.claim().uid.clone()).or_default().insert((seq, index));
        }
        self.update(seq, index, |member| member.tasks = tasks);
    }

    /// A member's preparations are no longer ours: it is bound, or all is taken back.
    pub(super) fn clear_tasks(&mut self, seq: u64, index: usize) {
        let Some(member) = self.member(seq, index).filter(|member| !member.tasks.is_empty()) else { return };
        for task in member.tasks.clone() {
            self.forget_waiter(&task.what, seq, index);
            if let Some(op) = task.op {
                self.forget_op(op);
            }
        }
        self.update(seq, index, |member| {
            member.tasks.clear();
            member.checked = false;
            member.checking = false;
            member.check_at = 0;
        });
    }

    fn forget_waiter(&mut self, what: &Preparation, seq: u64, index: usize) {
        if let Some(waiters) = self.by_claim.get_mut(&what.claim().uid) {
            waiters.remove(&(seq, index));
            if waiters.is_empty() {
                self.by_claim.remove(&what.claim().uid);
            }
        }
    }

    /// Nothing prepared is left of a member: its slot, or another place, may be given.
    fn come_clean(&mut self, seq: u64, index: usize, cx: &mut Cx<'_>) {
        let is_clean = |task: &Task| task.op.is_none() && task.back() == Move::Clean;
        let Some(intent) = self.intents.get(&seq) else { return };
        let Some(member) = intent.members.get(index) else { return };
        if member.tasks.is_empty() || !member.tasks.iter().all(is_clean) {
            return;
        }
        if member.fact == Fact::Gone && intent.moves_forward() {
            // A replacement that came before was not taken in.
            cx.fx.effects.push(intent.lost(member));
        }
        let (homeless, asks) = (member.fact != Fact::Gone, member.goal == Goal::Place);
        self.clear_tasks(seq, index);
        if homeless {
            // The journal must not hold its place without what was prepared for it, or a successor would bind it unprepared.
            self.update(seq, index, |member| member.vacated = true);
            let change = if asks { Some(self.touch_member(seq, index)) } else { None };
            self.update(seq, index, |member| member.change = change.unwrap_or(member.change));
        }
    }

    fn drop_task(&mut self, at: (u64, usize, usize)) {
        self.change_task(at.0, at.1, at.2, Task::taken_back);
    }

    fn task(&self, at: (u64, usize, usize)) -> Option<&Task> {
        self.member(at.0, at.1)?.tasks.get(at.2)
    }

    fn change_task(&mut self, seq: u64, index: usize, number: usize, change: impl FnOnce(&mut Task)) {
        self.update(seq, index, |member| {
            if let Some(task) = member.tasks.get_mut(number) {
                change(task);
            }
        });
    }

    /// Clears the request that was answered; false when it is not awaited (any more).
    pub(super) fn task_answered(&mut self, op: OpId, at: (u64, usize, usize)) -> bool {
        if self.task(at).is_none_or(|task| task.op != Some(op)) {
            return false;
        }
        self.change_task(at.0, at.1, at.2, |task| task.op = None);
        true
    }
}

/// Which way a member's preparations go in a phase; None: nothing is done about them now.
fn way(phase: &Phase, member: &Member, recorded: bool) -> Option<Way> {
    if member.tasks.is_empty() || matches!(phase, Phase::Recording { .. } | Phase::Closing { .. }) {
        return None;
    }
    if matches!(phase, Phase::RollingBack { recorded: false, .. }) {
        return None;
    }
    if member.gives_back() {
        return Some(Way::Back);
    }
    let waits = matches!(member.fact, Fact::Unbound | Fact::Unsure) && member.goal == Goal::Bind;
    let forward = matches!(phase, Phase::Preparing | Phase::Open) && recorded && waits;
    forward.then_some(Way::Ahead)
}

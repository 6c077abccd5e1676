//! The workflow above its gangs: which node is released when, what a node's end means, when all is over.
//!
//! A node is released when its edges and its `when` let it run (`depends.rs`), there is no reason to hold, and nothing has
//! stopped the workflow. A failed node stops the workflow at once unless its policy says otherwise. `finally` nodes are
//! released when all others have ended and stopped, and no stop but a deletion reaches them.
//!
//! The end of the workflow does not depend on the order in which its reasons were seen. It is Succeeded when every node
//! ended *well*, else Canceled when that (or the deletion) was asked for, else Failed. Well are: succeeded; failed with
//! `onFailure: Continue`; skipped by its own conditions.

use crate::command::{Command, Milestone};
use crate::dag::OnFailure;
use crate::event::GangEnd;
use crate::ids::{AttemptKey, NodeIx};
use crate::reason::{Cause, Class, Reason};
use crate::retry::Plan;
use crate::state::{GangPhase, NodePhase, WorkflowPhase};

use super::State;
use super::depends::End;
use super::gang::{Claim, Cx, Finish, Gang};
use super::timers::Wake;

impl State {
    /// After every event: release what may be released, end what is over, tell the shell.
    pub(super) fn conclude(&mut self, now_ms: u64, out: &mut Vec<Command>) {
        if self.booting {
            return;
        }
        loop {
            self.skip_doomed(now_ms);
            self.begin_closing(now_ms);
            let over = self.over;
            self.release(now_ms, out);
            // An approval that was given or denied before its turn ends with its release, which may end or release others.
            if self.over == over {
                break;
            }
        }
        self.end_workflow(now_ms, out);
        if self.dirty {
            out.push(Command::WriteStatus { urgent: self.urgent });
            (self.dirty, self.urgent) = (false, false);
        }
        self.timers.ask(out);
    }

    /// Every ordinary node has ended and no pod of theirs runs: the turn of the `finally` nodes. O(nodes), once.
    fn begin_closing(&mut self, now_ms: u64) {
        if self.closing || self.ordinary_left > 0 || self.trailing.stopping() > 0 && !self.has_begun_closing() {
            return;
        }
        self.closing = true;
        // What was stopped while it waited for its claim has left nothing behind, and could not run now either.
        let in_vain = self.hold.is_some() && self.started_at_ms.is_none();
        for at in self.dag.ids() {
            if !self.dag.node(at).finally || self.nodes[at.at()].phase != NodePhase::Pending {
                continue;
            }
            if in_vain {
                self.nodes[at.at()].finished_at_ms = Some(now_ms);
                self.settle(at, NodePhase::Skipped);
            } else if self.dag.upstream_count(at) == 0 {
                self.ready.insert(at);
            }
        }
    }

    /// A former leader has released a `finally` node: a pod that turned up since takes that back no more than the others did.
    fn has_begun_closing(&self) -> bool {
        self.resumed.iter().chain(&self.open).any(|&at| self.dag.node(at).finally)
    }

    /// Whether a stop reaches `finally` nodes too.
    fn stops_all(&self) -> bool {
        self.delete || self.terminate || self.phase.is_over()
    }

    /// Whether a stop reaches this node.
    fn is_stopped(&self, at: NodeIx) -> bool {
        self.stops_all() || !self.dag.node(at).finally
    }

    /// Claims the next attempt of every ready node.
    fn release(&mut self, now_ms: u64, out: &mut Vec<Command>) {
        if self.suspended && self.stop.is_none()
            || self.hold.is_some()
            || self.stop.is_some() && (!self.closing || self.stops_all())
        {
            return;
        }
        let most = self.config.parallelism.map_or(usize::MAX, |most| most as usize);
        while let Some(node) = self.next_ready(most) {
            if !self.pass_gate(node, out) {
                continue;
            }
            if self.dag.node(node).approval {
                self.ask_person(node, now_ms, out);
                continue;
            }
            let key = AttemptKey { node, attempt: 1 };
            self.open(key, Plan::default(), now_ms);
            out.push(Command::Announce(Milestone::Released(node)));
            self.with_gang(key, now_ms, out, Gang::ask_claim);
        }
        if self.phase == WorkflowPhase::Pending && !self.open.is_empty() {
            self.phase = WorkflowPhase::Running;
            self.started_at_ms.get_or_insert(now_ms);
            self.set_timeout();
            self.dirty = true;
            out.push(Command::Announce(Milestone::WorkflowStarted));
        }
    }

    /// The next node to be released, as far as the limit allows.
    fn next_ready(&mut self, most: usize) -> Option<NodeIx> {
        let resumed = self.resumed.pop_first();
        resumed.or_else(|| if self.open.len() < most { self.ready.pop_first() } else { None })
    }

    /// Opens the gang of an attempt; its node leaves Pending.
    pub(super) fn open(&mut self, key: AttemptKey, plan: Plan, now_ms: u64) {
        let node = &mut self.nodes[key.node.at()];
        let released_at_ms = *node.released_at_ms.get_or_insert(now_ms);
        let queued_at_ms = if key.attempt > 1 { plan.not_before_ms } else { released_at_ms };
        let mut gang = Gang::new(key, self.dag.node(key.node), plan, queued_at_ms);
        // Set only by a status that was read back; the phase that it showed is not taken back.
        let phase = match (node.scheduled_at_ms, node.started_at_ms) {
            (_, Some(_)) => GangPhase::Running,
            (Some(_), None) => GangPhase::Scheduled,
            (None, None) => GangPhase::Pending,
        };
        gang.restore_phase(phase, node.scheduled_at_ms, node.started_at_ms);
        node.phase = if phase == GangPhase::Running { NodePhase::Running } else { NodePhase::Scheduling };
        node.attempt = key.attempt;
        node.gang = Some(Box::new(gang));
        self.open.insert(key.node);
        self.ready.remove(&key.node);
        self.resumed.remove(&key.node);
        self.doomed.remove(&key.node);
        self.dirty = true;
        if phase == GangPhase::Running {
            self.reach(key.node);
        }
    }

    /// Draws a node's conclusions from its gang.
    pub(super) fn after_gang(&mut self, at: NodeIx, now_ms: u64, out: &mut Vec<Command>) {
        if let Some(cause) = self.follow_gang(at) {
            // Stops the others, and comes back to this very node; what is left of it is finished below.
            self.blame(at, &cause, now_ms, out);
        }
        let booting = self.booting;
        let Some(gang) = self.nodes[at.at()].gang.as_deref_mut().filter(|_| !booting) else { return };
        let dirty = gang.claim == Claim::Held && std::mem::take(&mut gang.dirty);
        match gang.finish(now_ms) {
            Finish::Record => out.push(Command::FinishGang(gang.key, Box::new(gang.record(now_ms)))),
            Finish::Over => {
                let end = gang.record(now_ms);
                self.end_node(at, &end, now_ms, out);
            }
            Finish::Wait if dirty => out.push(Command::UpdateGang(gang.key)),
            Finish::Wait => {}
        }
    }

    /// Takes phase, times and cause over from the gang; returns the cause of a failure that is news.
    fn follow_gang(&mut self, at: NodeIx) -> Option<Cause> {
        if self.nodes[at.at()].gang.as_deref()?.phase == GangPhase::Running {
            self.reach(at);
        }
        let node = &mut self.nodes[at.at()];
        let gang = node.gang.as_deref()?;
        if gang.phase == GangPhase::Running && node.phase == NodePhase::Scheduling {
            node.phase = NodePhase::Running;
        }
        (node.scheduled_at_ms, node.started_at_ms) = (gang.scheduled_at_ms, gang.started_at_ms);
        let Some(ending) = gang.ending.as_deref() else {
            node.cause = None;
            return None;
        };
        if node.cause.as_deref() == Some(&ending.cause) {
            return None;
        }
        node.cause = Some(Box::new(ending.cause.clone()));
        let cause = (!ending.succeeded).then(|| ending.cause.clone())?;
        // What may be tried again is nobody's failure before that is decided.
        let (stopped, again) = (self.stop.is_some() && self.is_stopped(at), |gang: &Gang| gang.may_follow(&cause));
        let again = !stopped && self.nodes[at.at()].gang.as_deref().is_some_and(again);
        (!again).then_some(cause)
    }

    /// The gang's end is durable, or there is no Gang that could hold it: the node ends.
    pub(super) fn end_node(&mut self, at: NodeIx, end: &GangEnd, now_ms: u64, out: &mut Vec<Command>) {
        let unwanted = matches!(end.cause.reason.class(), Class::Stopped | Class::Skipped);
        let phase = match end.succeeded {
            true => NodePhase::Succeeded,
            false if unwanted && end.started_at_ms.is_none() && self.nodes[at.at()].attempt <= 1 => NodePhase::Skipped,
            false => NodePhase::Failed,
        };
        let stopped = self.stop.is_some() && self.is_stopped(at);
        let node = &mut self.nodes[at.at()];
        let mut next = None;
        if let Some(gang) = node.gang.take() {
            next = gang.next_plan(end, &self.config).filter(|_| phase == NodePhase::Failed && !stopped);
            let counts = gang.counts();
            node.tally = (counts.succeeded, counts.failed);
            let mut cx = Cx {
                now_ms,
                booting: self.booting,
                config: &self.config,
                out: &mut *out,
                trailing: &mut self.trailing,
                timers: &mut self.timers,
            };
            gang.close(&mut cx);
        }
        if let Some(plan) = next {
            return self.try_again(at, plan, now_ms, out);
        }
        let node = &mut self.nodes[at.at()];
        node.scheduled_at_ms = end.scheduled_at_ms.or(node.scheduled_at_ms);
        node.started_at_ms = end.started_at_ms.or(node.started_at_ms);
        node.finished_at_ms = Some(end.finished_at_ms);
        node.cause = Some(Box::new(end.cause.clone()));
        if end.succeeded && self.dag.node(at).roles.is_none() {
            node.tally = (self.dag.node(at).replicas, 0);
        }
        self.settle(at, phase);
        out.push(Command::Announce(Milestone::NodeEnded(at)));
        if phase == NodePhase::Failed {
            self.blame(at, &end.cause, now_ms, out);
        }
    }

    /// The next attempt of a node is claimed at once; its pods wait for its pause.
    fn try_again(&mut self, at: NodeIx, plan: Plan, now_ms: u64, out: &mut Vec<Command>) {
        let node = &mut self.nodes[at.at()];
        let key = AttemptKey { node: at, attempt: node.attempt.saturating_add(1) };
        (node.scheduled_at_ms, node.started_at_ms, node.cause) = (None, None, None);
        self.open(key, plan, now_ms);
        if !self.booting {
            out.push(Command::Announce(Milestone::TriedAgain(at)));
        }
        self.with_gang(key, now_ms, out, Gang::ask_claim);
    }

    /// A node ends, once: what waits for it learns of it. Its cause and times are set before. O(out-degree).
    pub(super) fn settle(&mut self, at: NodeIx, phase: NodePhase) {
        self.nodes[at.at()].phase = phase;
        self.open.remove(&at);
        self.ready.remove(&at);
        self.resumed.remove(&at);
        self.doomed.remove(&at);
        self.over += 1;
        self.ordinary_left -= u32::from(!self.dag.node(at).finally);
        self.dirty = true;
        let end = self.end_of(at);
        let by_condition =
            self.nodes[at.at()].cause.as_ref().is_some_and(|cause| cause.reason.class() == Class::Skipped);
        self.well += u32::from(match end {
            End::Succeeded | End::Tolerated | End::Bypassed => true,
            End::Skipped => by_condition,
            End::Failed => false,
        });
        if end == End::Tolerated {
            self.tolerated.get_or_insert(at);
        }
        self.tell_end(at, end);
    }

    /// A node fails by its own fault: what that means to the workflow is the node's policy.
    pub(super) fn blame(&mut self, at: NodeIx, cause: &Cause, now_ms: u64, out: &mut Vec<Command>) {
        let policy = self.dag.node(at).on_failure;
        if cause.reason.class() == Class::Stopped || policy == OnFailure::Continue {
            return;
        }
        self.culprit.get_or_insert(at);
        if policy == OnFailure::Fail && !self.dag.node(at).finally {
            self.stopper.get_or_insert(at);
            let cause = Cause::of(Reason::NodeFailed).with_detail(self.dag.node(at).id.clone());
            self.stop(cause, now_ms, out);
        }
    }

    pub(super) fn on_hold(&mut self, cause: Option<Box<Cause>>) {
        self.dirty |= self.hold != cause;
        self.hold = cause;
    }

    pub(super) fn on_suspend(&mut self, suspended: bool) {
        self.dirty |= self.suspended != suspended;
        self.suspended = suspended;
    }

    pub(super) const fn on_parallelism(&mut self, most: Option<u32>) {
        self.config.parallelism = most;
    }

    pub(super) fn on_cancel(&mut self, now_ms: u64, out: &mut Vec<Command>) {
        if !self.cancel && !self.phase.is_over() {
            self.cancel = true;
            self.stop(Cause::of(Reason::Canceled), now_ms, out);
        }
    }

    /// Canceled, also what runs last; what was asked to stop with its own grace is asked again with the least.
    pub(super) fn on_terminate(&mut self, now_ms: u64, out: &mut Vec<Command>) {
        if self.terminate || self.phase.is_over() {
            return;
        }
        (self.cancel, self.terminate) = (true, true);
        let open: Vec<NodeIx> = self.open.iter().copied().collect();
        for node in open {
            let attempt = self.nodes[node.at()].attempt;
            self.with_gang(AttemptKey { node, attempt }, now_ms, out, |gang, cx| gang.hasten(cx));
        }
        self.trailing.hasten(out);
        self.stop(Cause::of(Reason::Terminated), now_ms, out);
    }

    pub(super) fn on_delete(&mut self, now_ms: u64, out: &mut Vec<Command>) {
        if !self.delete {
            self.delete = true;
            self.stop(Cause::of(Reason::Deleted), now_ms, out);
        }
    }

    /// Stops everything that runs and skips what never ran; the first reason stays.
    pub(super) fn stop(&mut self, cause: Cause, now_ms: u64, out: &mut Vec<Command>) {
        self.dirty = true;
        if self.stop.is_none() {
            self.stop = Some(Box::new(cause));
        }
        self.carry_out_stop(now_ms, out);
    }

    /// The stop's sweep: over open gangs, and once over all nodes. While facts are read back, nodes stay as they are,
    /// because a claim on them may still be found.
    pub(super) fn carry_out_stop(&mut self, now_ms: u64, out: &mut Vec<Command>) {
        let Some(cause) = self.stop.as_deref().cloned() else { return };
        let open: Vec<NodeIx> = self.open.iter().copied().filter(|&at| self.is_stopped(at)).collect();
        for node in open {
            let cause = match self.stopper == Some(node) {
                // It will speak for itself; if not, what it did was lost with a former leader.
                true if self.booting => continue,
                true => Cause::of(Reason::Unrecorded),
                false => cause.clone(),
            };
            let attempt = self.nodes[node.at()].attempt;
            let failed = self.stopper == Some(node);
            self.with_gang(AttemptKey { node, attempt }, now_ms, out, |gang, cx| {
                gang.end(false, cause, cx);
                if failed {
                    gang.stays_failed();
                }
                gang.hurry();
            });
        }
        let swept = (true, self.stops_all());
        if self.booting || self.swept == swept {
            return;
        }
        self.swept = swept;
        for at in self.dag.ids() {
            if self.nodes[at.at()].phase == NodePhase::Pending && self.is_stopped(at) {
                self.nodes[at.at()].finished_at_ms = Some(now_ms);
                // Whose failure has stopped the others has failed, also where what it did was lost with a former leader.
                let failed = self.stopper == Some(at);
                if failed {
                    self.nodes[at.at()].cause = Some(Box::new(Cause::of(Reason::Unrecorded)));
                }
                self.settle(at, if failed { NodePhase::Failed } else { NodePhase::Skipped });
            }
        }
    }

    /// All nodes ended and no pod runs: the workflow ends.
    fn end_workflow(&mut self, now_ms: u64, out: &mut Vec<Command>) {
        if self.phase.is_over() || (self.over as usize) < self.nodes.len() || self.trailing.stopping() > 0 {
            return;
        }
        self.phase = match (self.well == self.over, self.cancel || self.delete) {
            (true, _) => WorkflowPhase::Succeeded,
            (false, true) => WorkflowPhase::Canceled,
            (false, false) => WorkflowPhase::Failed,
        };
        self.finished_at_ms = Some(now_ms);
        (self.dirty, self.urgent) = (true, true);
        self.set_ttl();
        out.push(Command::Announce(Milestone::WorkflowEnded));
    }

    pub(super) fn on_ttl(&mut self, ttl_ms: Option<u64>) {
        if self.config.ttl_ms != ttl_ms {
            self.config.ttl_ms = ttl_ms;
            self.set_ttl();
        }
    }

    /// Sets the deadline of an ended workflow that shall be deleted.
    pub(super) fn set_ttl(&mut self) {
        if let Some(at_ms) = self.ttl_at_ms() {
            self.timers.set(at_ms, Wake::Ttl);
        }
    }

    /// When the ended workflow shall be deleted.
    pub(super) fn ttl_at_ms(&self) -> Option<u64> {
        let finished_at_ms = self.finished_at_ms.filter(|_| self.phase.is_over())?;
        Some(finished_at_ms.saturating_add(self.config.ttl_ms?))
    }
}

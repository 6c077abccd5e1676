//! The state from what one consistent list finds: after a start, a change of leader, or a watch that was lost.
//!
//! ```text
//!   recorded status ─> Gangs ─> results in Gangs ─> pods (those that nobody deletes first) ─> what is missing ─> go on
//! ```
//! It is a replay: the same facts go through the same functions as live events, in an order that needs no history, and
//! nothing is created or finished until all of them are in. Evidence beats absence: a node is taken for claimed when its
//! Gang, one of its pods, or a recorded gang phase says so, and for succeeded when a node that waits for its success was
//! claimed. A node of which all evidence was deleted behind our back fails; it never runs a second time. (What may have
//! been passed over by a `when` leaves no evidence either, so that there nothing follows from its absence.)

use crate::command::{Command, MemberEnd, MemberOutcome};
use crate::dag::{Dag, Mode, On};
use crate::event::{Decision, GangEnd, GangFacts, PodFacts};
use crate::ids::{AttemptKey, MemberKey, NodeIx};
use crate::reason::{Cause, Class, Reason};
use crate::retry::Plan;
use crate::state::{Config, GangPhase, NodePhase, WorkflowPhase};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::State;
use super::depends::Gate;
use super::gang::{Claim, Cx, Gang};
use super::member::Member;

/// What the lists found, apart from the Workflow's own status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Gangs that this workflow owns, in any order.
    pub gangs: Vec<ObservedGang>,
    /// Pods that carry the labels of this workflow and belong to its Gangs, in any order.
    pub pods: Vec<(MemberKey, PodFacts)>,
    /// Why nothing may be released for now.
    pub hold: Option<Box<Cause>>,
    /// `spec.cancel`.
    pub cancel: bool,
    /// What persons have said about nodes that wait for that.
    pub decisions: Vec<(NodeIx, Decision)>,
    /// `spec.terminate`.
    pub terminate: bool,
    /// `spec.suspend`.
    pub suspend: bool,
    /// The workflow has a deletionTimestamp.
    pub delete: bool,
}

/// A Gang as a list found it.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedGang {
    /// Its attempt.
    pub key: AttemptKey,
    /// As in an event.
    pub facts: GangFacts,
    /// Its Service exists.
    pub service: bool,
    /// `status.phase`.
    pub phase: GangPhase,
    /// `status.scheduledAt`, milliseconds since the epoch.
    pub scheduled_at_ms: Option<u64>,
    /// `status.startedAt`.
    pub started_at_ms: Option<u64>,
    /// The members recorded in its status.
    pub results: Vec<RecordedMember>,
}

/// A member's result as its Gang's status records it.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedMember {
    /// Its rank.
    pub rank: u32,
    /// Its incarnation; `None` (the packed rank sets do not tell) stands for the newest.
    pub incarnation: Option<u32>,
    /// How it ended.
    pub end: MemberEnd,
}

/// The Workflow's own status, which may be a second old.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recorded {
    /// `status.phase`.
    pub phase: WorkflowPhase,
    /// `status.startedAt`, milliseconds since the epoch.
    pub started_at_ms: Option<u64>,
    /// `status.finishedAt`.
    pub finished_at_ms: Option<u64>,
    /// `status.nodes`.
    pub nodes: Vec<RecordedNode>,
}

/// A node's part of the Workflow's status.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedNode {
    /// The node.
    pub node: NodeIx,
    /// Its phase.
    pub phase: NodePhase,
    /// Its attempt.
    pub attempt: u32,
    /// Phase of its gang, which it shows once the Gang exists.
    pub gang: Option<GangPhase>,
    /// Its reason.
    pub cause: Option<Cause>,
    /// Members that succeeded and that ended badly.
    pub tally: (u32, u32),
    /// When it was released, milliseconds since the epoch.
    pub released_at_ms: Option<u64>,
    /// When its members were bound.
    pub scheduled_at_ms: Option<u64>,
    /// When its members ran.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub finished_at_ms: Option<u64>,
}

/// The state of a workflow from what was found, and the commands that go on from there.
///
/// For a new workflow everything is empty, and the commands release its first nodes. O(nodes + edges + members).
#[must_use]
pub fn rebuild(
    dag: Arc<Dag>,
    config: Config,
    mut observed: Observed,
    recorded: &Recorded,
    now_ms: u64,
    out: &mut Vec<Command>,
) -> State {
    let mut state = State::new(dag, config);
    state.hold = observed.hold.take();
    state.suspended = observed.suspend;
    for (node, decision) in std::mem::take(&mut observed.decisions) {
        state.decisions.entry(node).or_insert(decision);
    }
    state.terminate = observed.terminate;
    state.restore_workflow(recorded, observed.cancel || observed.terminate, observed.delete);
    observed.gangs.sort_by_key(|g| (g.facts.ended.is_none(), g.key.node, u32::MAX - g.key.attempt));
    let newest = newest_attempts(&observed.gangs);
    let ends: BTreeMap<NodeIx, (u32, &GangEnd)> = observed
        .gangs
        .iter()
        .filter(|g| newest.get(&g.key.node) == Some(&g.key.attempt))
        .filter_map(|g| Some((g.key.node, (g.key.attempt, g.facts.ended.as_ref()?))))
        .collect();
    for node in &recorded.nodes {
        state.restore_node(node, ends.get(&node.node).copied(), now_ms, out);
    }
    state.take_over(now_ms);
    // What waits for a node to run is content with an earlier attempt.
    for gang in &observed.gangs {
        let ended = gang.facts.ended.as_ref().and_then(|end| end.started_at_ms);
        if gang.started_at_ms.or(ended).is_some() && gang.key.node.at() < state.nodes.len() {
            state.reach(gang.key.node);
        }
    }
    // The newest attempt of a node speaks for it, also where only the status knows of it.
    let lost = lost_attempts(&recorded.nodes, &newest);
    observed.gangs.retain(|g| newest.get(&g.key.node) == Some(&g.key.attempt) && !lost.contains_key(&g.key.node));
    state.restore_gangs(&observed.gangs, now_ms, out);
    let seen = seen(&observed);
    state.restore_results(&observed.gangs, &seen, now_ms, out);
    state.restore_pods(observed.pods, &observed.gangs, now_ms, out);
    state.infer_ends(now_ms, out);
    state.fail_lost_gangs(&lost, now_ms, out);
    state.go_on(now_ms, out);
    state
}

impl State {
    fn restore_workflow(&mut self, recorded: &Recorded, cancel: bool, delete: bool) {
        self.phase = recorded.phase;
        self.started_at_ms = recorded.started_at_ms;
        self.finished_at_ms = recorded.finished_at_ms;
        self.cancel = cancel && !recorded.phase.is_over() || recorded.phase == WorkflowPhase::Canceled;
        self.delete = delete;
        let stop = match (delete, self.cancel, recorded.phase.is_over()) {
            (_, true, _) if self.terminate => Some(Reason::Terminated),
            (_, true, _) => Some(Reason::Canceled),
            (true, false, _) => Some(Reason::Deleted),
            (false, false, true) => Some(Reason::NodeFailed),
            _ => None,
        };
        self.stop = stop.map(|reason| Box::new(Cause::of(reason)));
    }

    /// A node as the status has it; what a packed status leaves out of its end stands in its Gang (`end`).
    fn restore_node(
        &mut self,
        recorded: &RecordedNode,
        end: Option<(u32, &GangEnd)>,
        now_ms: u64,
        out: &mut Vec<Command>,
    ) {
        let Some(node) = self.nodes.get_mut(recorded.node.at()) else { return };
        node.released_at_ms = recorded.released_at_ms;
        node.recorded_attempt = recorded.attempt;
        // A packed status tells the phase alone, and a phase is not taken back; the Gang may know the time better.
        let ran_at_ms = (recorded.phase == NodePhase::Running).then_some(now_ms);
        node.scheduled_at_ms = recorded.scheduled_at_ms.or(ran_at_ms);
        node.started_at_ms = recorded.started_at_ms.or(ran_at_ms);
        node.finished_at_ms = recorded.finished_at_ms;
        if matches!(recorded.phase, NodePhase::Scheduling | NodePhase::Running) {
            node.gate = Gate::Open;
            node.waits.set_released();
            self.resumed.insert(recorded.node);
        }
        if recorded.phase == NodePhase::Running {
            self.reach(recorded.node);
        }
        let node = &mut self.nodes[recorded.node.at()];
        if !recorded.phase.is_over() || node.phase.is_over() {
            return;
        }
        let runs = !self.dag.node(recorded.node).approval && !self.dag.node(recorded.node).taken_over;
        node.attempt = if runs { recorded.attempt } else { 0 };
        node.tally = match recorded.phase {
            _ if !runs => (0, 0),
            NodePhase::Succeeded if self.dag.node(recorded.node).roles.is_none() => {
                (self.dag.node(recorded.node).replicas, 0)
            }
            _ => recorded.tally,
        };
        node.cause = recorded.cause.clone().map(Box::new);
        if let Some((attempt, end)) = end.filter(|_| node.finished_at_ms.is_none()) {
            node.attempt = node.attempt.max(attempt);
            (node.scheduled_at_ms, node.started_at_ms) = (end.scheduled_at_ms, end.started_at_ms);
            node.finished_at_ms = Some(end.finished_at_ms);
            node.cause = Some(Box::new(end.cause.clone()));
        }
        if recorded.phase == NodePhase::Failed && node.cause.is_none() {
            node.cause = Some(Box::new(Cause::of(Reason::Unrecorded)));
        }
        let cause = node.cause.as_deref().cloned();
        self.settle(recorded.node, recorded.phase);
        match (recorded.phase, cause) {
            (NodePhase::Skipped, cause) => self.infer_stop(cause),
            (NodePhase::Failed, Some(cause)) => self.blame(recorded.node, &cause, now_ms, out),
            _ => {}
        }
    }

    /// What had succeeded in the workflow that this one runs again has succeeded in it from the start. O(nodes).
    fn take_over(&mut self, now_ms: u64) {
        for at in self.dag.ids() {
            let node = &mut self.nodes[at.at()];
            if self.dag.node(at).taken_over && node.phase == NodePhase::Pending {
                node.cause = Some(Box::new(Cause::of(Reason::TakenOver)));
                node.finished_at_ms = Some(now_ms);
                self.settle(at, NodePhase::Succeeded);
            }
        }
    }

    /// A node was skipped. Unless by its own conditions, somebody decided to stop; the decision stands, whatever became of
    /// its reason.
    fn infer_stop(&mut self, cause: Option<Cause>) {
        let stop = self.stop.as_deref().filter(|stop| !stop.detail.is_empty() || stop.reason != Reason::NodeFailed);
        match cause {
            Some(cause) if cause.reason.class() == Class::Skipped => {}
            Some(cause) if stop.is_none() => {
                self.stopper = self.dag.find(&cause.detail).filter(|_| cause.reason == Reason::NodeFailed);
                self.culprit = self.culprit.or(self.stopper);
                self.stop = Some(Box::new(cause));
            }
            None if self.stop.is_none() => self.stop = Some(Box::new(Cause::of(Reason::NodeFailed))),
            _ => {}
        }
    }

    /// Recorded ends come first, so that a stop is known before it is applied.
    fn restore_gangs(&mut self, gangs: &[ObservedGang], now_ms: u64, out: &mut Vec<Command>) {
        for gang in gangs {
            self.forget_other_attempt(gang.key);
            self.on_gang(gang.key, gang.facts.clone(), now_ms, out);
            self.with_gang(gang.key, now_ms, out, |open, cx| {
                open.restore_phase(gang.phase, gang.scheduled_at_ms, gang.started_at_ms);
                open.on_service(gang.service, cx);
                // Its members are being stopped because its time is over: nobody else deletes them.
                open.check_deadline(cx);
            });
        }
        self.carry_out_stop(now_ms, out);
    }

    /// Times in the status that belong to another attempt than the one that is there say nothing about it.
    fn forget_other_attempt(&mut self, key: AttemptKey) {
        let Some(node) = self.nodes.get_mut(key.node.at()).filter(|n| !n.phase.is_over()) else { return };
        if node.recorded_attempt != key.attempt {
            (node.scheduled_at_ms, node.started_at_ms) = (None, None);
        }
    }

    /// The recorded members. A pod that is there outweighs the record of an older incarnation.
    fn restore_results(&mut self, gangs: &[ObservedGang], seen: &Seen, now_ms: u64, out: &mut Vec<Command>) {
        for (&(key, rank), newest) in seen {
            if let Some(incarnation) = newest.pod {
                self.with_gang(key, now_ms, out, |open, _| open.expect(rank, incarnation));
            }
        }
        // Failures come first: whoever recorded one had not seen the gang succeed. What was lost and made again comes last: it
        // speaks for its rank only where nothing newer does.
        let turn = |outcome| match outcome {
            MemberOutcome::Failed => 0,
            MemberOutcome::Succeeded | MemberOutcome::Stopped => 1,
            MemberOutcome::Lost => 2,
        };
        for now in 0..=2 {
            for gang in gangs {
                for result in gang.results.iter().filter(|r| turn(r.end.outcome) == now) {
                    let AttemptKey { node, attempt } = gang.key;
                    let newest = seen.get(&(gang.key, result.rank)).copied().unwrap_or_default();
                    if result.end.outcome == MemberOutcome::Lost && result.incarnation < newest.lost {
                        continue;
                    }
                    let incarnation = result.incarnation.unwrap_or_else(|| newest.of_packed());
                    let key = MemberKey { node, attempt, rank: result.rank, incarnation };
                    self.with_gang(gang.key, now_ms, out, |open, cx| open.restore(key, &result.end, cx));
                }
            }
        }
    }

    fn restore_pods(
        &mut self,
        mut pods: Vec<(MemberKey, PodFacts)>,
        gangs: &[ObservedGang],
        now_ms: u64,
        out: &mut Vec<Command>,
    ) {
        // A failure stops its siblings: whoever failed by himself comes before whoever is being deleted.
        pods.sort_by_key(|(key, facts)| (facts.deletion_requested_at_ms.is_some(), *key));
        for (key, facts) in &pods {
            self.on_pod(*key, facts, now_ms, out);
        }
        let there: BTreeSet<MemberKey> = pods.into_iter().map(|(key, _)| key).collect();
        for gang in gangs {
            for result in &gang.results {
                self.with_gang(gang.key, now_ms, out, |open, cx| open.without_pod(result.rank, &there, cx));
            }
        }
    }

    /// A node without evidence of its own whose end, or run, a claimed node waited for has had it: an end that nothing
    /// speaks against was good.
    fn infer_ends(&mut self, now_ms: u64, out: &mut Vec<Command>) {
        let dag = Arc::clone(&self.dag);
        for &at in dag.order().iter().rev() {
            let node = &self.nodes[at.at()];
            let held = node.gang.as_ref().is_some_and(|g| g.claim == Claim::Held);
            if node.phase.is_over() || held || dag.is_passable(at) || dag.node(at).approval {
                continue;
            }
            let claimed = |down: NodeIx| self.nodes[down.at()].attempt > 0 && dag.node(down).mode == Mode::All;
            let waited: Vec<On> = dag.edges_from(at).filter(|e| claimed(e.down)).map(|e| e.on).collect();
            if waited.contains(&On::Succeeded) {
                let cause = Cause::of(Reason::Completed);
                let finished_at_ms = self.nodes[at.at()].finished_at_ms.unwrap_or(now_ms);
                let (scheduled_at_ms, started_at_ms) = (None, None);
                self.nodes[at.at()].attempt = self.nodes[at.at()].attempt.max(1);
                let end = GangEnd {
                    succeeded: true,
                    cause,
                    scheduled_at_ms,
                    started_at_ms,
                    finished_at_ms,
                    outputs: "".into(),
                };
                self.end_node(at, &end, now_ms, out);
            } else if waited.iter().any(|on| *on != On::Skipped) && node.phase == NodePhase::Pending {
                // Its Gang is not there any more; the next step says so.
                self.open(AttemptKey { node: at, attempt: 1 }, Plan::default(), now_ms);
            }
        }
    }

    /// A claimed node whose Gang is not there any more.
    fn fail_lost_gangs(&mut self, lost: &BTreeMap<NodeIx, u32>, now_ms: u64, out: &mut Vec<Command>) {
        for (&node, &attempt) in lost {
            if self.nodes.get(node.at()).is_some_and(|n| n.phase == NodePhase::Pending) {
                self.open(AttemptKey { node, attempt }, Plan::default(), now_ms);
            }
        }
        let open: Vec<NodeIx> = self.open.iter().copied().collect();
        for node in open {
            let attempt = self.nodes[node.at()].attempt;
            self.with_gang(AttemptKey { node, attempt }, now_ms, out, |gang, cx| {
                if gang.claim != Claim::Held && !gang.is_untouched() {
                    gang.on_deleted(true, cx);
                }
            });
        }
    }

    /// All facts are in: stop, create and finish what they leave to do.
    fn go_on(&mut self, now_ms: u64, out: &mut Vec<Command>) {
        self.booting = false;
        self.carry_out_stop(now_ms, out);
        let open: Vec<NodeIx> = self.open.iter().copied().collect();
        for node in open {
            let attempt = self.nodes[node.at()].attempt;
            self.with_gang(AttemptKey { node, attempt }, now_ms, out, Gang::go_on);
        }
        self.set_ttl_if_over();
        self.set_timeout();
        self.dirty = true;
        self.conclude(now_ms, out);
    }

    fn set_ttl_if_over(&mut self) {
        if self.phase.is_over() {
            self.set_ttl();
        }
    }
}

/// What is known of a rank's incarnations.
#[derive(Clone, Copy, Debug, Default)]
struct Newest {
    /// The highest whose pod is there.
    pod: Option<u32>,
    /// The highest that was recorded as lost and made again.
    lost: Option<u32>,
}

impl Newest {
    /// The incarnation that a packed record speaks of.
    fn of_packed(self) -> u32 {
        self.pod.unwrap_or(0).max(self.lost.map_or(0, |lost| lost.saturating_add(1)))
    }
}

type Seen = BTreeMap<(AttemptKey, u32), Newest>;

fn seen(observed: &Observed) -> Seen {
    let mut seen = Seen::new();
    for (key, _) in &observed.pods {
        let newest = seen.entry((key.attempt_key(), key.rank)).or_default();
        newest.pod = newest.pod.max(Some(key.incarnation));
    }
    for gang in &observed.gangs {
        for result in gang.results.iter().filter(|r| r.end.outcome == MemberOutcome::Lost) {
            let newest = seen.entry((gang.key, result.rank)).or_default();
            newest.lost = newest.lost.max(result.incarnation);
        }
    }
    seen
}

/// The newest attempt of each node of which there is a Gang.
fn newest_attempts(gangs: &[ObservedGang]) -> BTreeMap<NodeIx, u32> {
    let mut newest = BTreeMap::new();
    for gang in gangs {
        let known = newest.entry(gang.key.node).or_default();
        *known = gang.key.attempt.max(*known);
    }
    newest
}

/// Attempts whose Gang the status has seen and no list has found, nor one of a later attempt.
fn lost_attempts(recorded: &[RecordedNode], newest: &BTreeMap<NodeIx, u32>) -> BTreeMap<NodeIx, u32> {
    let seen = recorded.iter().filter(|n| n.gang.is_some() && n.attempt > 0 && !n.phase.is_over());
    let lost = seen.filter(|n| newest.get(&n.node).is_none_or(|newest| *newest < n.attempt));
    lost.map(|n| (n.node, n.attempt)).collect()
}

impl Gang {
    /// An attempt that follows another one, and of which nothing exists: it was decided on just now, from its predecessor's
    /// end.
    fn is_untouched(&self) -> bool {
        self.key.attempt > 1 && self.claim == Claim::Wanted && self.tally.absent == self.replicas()
    }

    /// What the status had said already is not taken back.
    pub(super) fn restore_phase(&mut self, phase: GangPhase, scheduled_at_ms: Option<u64>, started_at_ms: Option<u64>) {
        self.phase = self.phase.max(phase.min(GangPhase::Running));
        self.scheduled_at_ms = scheduled_at_ms.or(self.scheduled_at_ms);
        self.started_at_ms = started_at_ms.or(self.started_at_ms);
    }

    /// All facts are in. A member that a former leader stopped cannot run again: where the reason was lost with that
    /// leader, the gang ends all the same.
    fn go_on(&mut self, cx: &mut Cx<'_>) {
        if self.members.iter().any(|m| m.outcome == Some(MemberOutcome::Stopped)) {
            self.end(false, Cause::of(Reason::Unrecorded), cx);
        }
        self.advance(cx);
        self.set_deadline(cx);
        self.ask_claim(cx);
        self.supply_all(cx);
    }

    /// A slot whose pod is known to be of this incarnation.
    fn expect(&mut self, rank: u32, incarnation: u32) {
        if self.member(rank).is_some_and(|m| m.incarnation < incarnation) {
            self.edit(rank, |m| *m = Member { incarnation, ..Member::default() });
        }
    }

    /// A recorded member whose pod no list has found is gone.
    fn without_pod(&mut self, rank: u32, there: &BTreeSet<MemberKey>, cx: &mut Cx<'_>) {
        let key = self.key_of(rank);
        if !there.contains(&key) {
            self.on_pod_gone(key, cx);
        }
    }
}

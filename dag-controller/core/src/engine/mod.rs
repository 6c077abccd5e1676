//! The engine: `apply` one event, get the commands.
//!
//! ```text
//!   Event ─> State (workflow.rs: release, stop, end)  ─> gang.rs: one open attempt ─> member.rs: one pod's fate
//!                          └ depends.rs: edges, `when`        └ supply.rs: creating, quota   trailing.rs, timers.rs
//!                                                               └ verdict.rs, roles.rs: what a member's end means
//!                                                               └ attempt.rs, deadlines.rs: who is to blame, how long
//!   rebuild.rs: the same state from what a list finds       view.rs: what the statuses show
//! ```

mod attempt;
mod deadlines;
mod depends;
mod gang;
mod member;
mod rebuild;
mod roles;
mod supply;
mod timers;
mod trailing;
mod verdict;
mod view;
mod workflow;

pub use rebuild::{Observed, ObservedGang, Recorded, RecordedMember, RecordedNode, rebuild};

use crate::command::Command;
use crate::dag::Dag;
use crate::event::{Decision, Event, GangEnd, GangFacts, Object, PodFacts, Refusal};
use crate::ids::{AttemptKey, MemberKey, NodeIx};
use crate::reason::{Cause, Reason};
use crate::retry::Plan;
use crate::state::{Config, NodePhase, WorkflowPhase};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use depends::{Gate, Waits};
use gang::{Cx, Gang};
use timers::{Timers, Wake};
use trailing::Trailing;

/// Everything the engine remembers about one workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    dag: Arc<Dag>,
    config: Config,
    phase: WorkflowPhase,
    nodes: Vec<Node>,
    /// Nodes whose gang is open.
    open: BTreeSet<NodeIx>,
    /// Nodes whose edges let them run, not yet released.
    ready: BTreeSet<NodeIx>,
    /// Those of them that a former leader has released: they come first, and are within the limit that it kept.
    resumed: BTreeSet<NodeIx>,
    /// Nodes that can not run any more and are not skipped yet: the node that says so, and what it means.
    doomed: BTreeMap<NodeIx, (NodeIx, Reason)>,
    over: u32,
    /// Nodes that are not `finally` and have not ended.
    ordinary_left: u32,
    /// All of those have ended, and nothing of them runs: the `finally` nodes have their turn.
    closing: bool,
    /// Ended nodes that leave the workflow a success.
    well: u32,
    /// The first node whose failure was no matter.
    tolerated: Option<NodeIx>,
    /// Why nothing is released for now.
    hold: Option<Box<Cause>>,
    /// What persons have said about nodes that wait for that.
    decisions: BTreeMap<NodeIx, Decision>,
    /// Nothing is released before somebody lets it go on.
    suspended: bool,
    /// Why nothing is released ever again.
    stop: Option<Box<Cause>>,
    /// The first node whose failure fails the workflow, if not at once.
    culprit: Option<NodeIx>,
    /// The node whose failure stopped the workflow.
    stopper: Option<NodeIx>,
    /// What never ran was skipped for the stop: of the ordinary nodes, of all.
    swept: (bool, bool),
    cancel: bool,
    terminate: bool,
    delete: bool,
    trailing: Trailing,
    timers: Timers,
    started_at_ms: Option<u64>,
    finished_at_ms: Option<u64>,
    booting: bool,
    dirty: bool,
    urgent: bool,
}

/// What is kept of every node; an open gang is a box of its own.
#[derive(Clone, Debug, Default, PartialEq)]
struct Node {
    phase: NodePhase,
    attempt: u32,
    /// The attempt that a status which was read back speaks of.
    recorded_attempt: u32,
    waits: Waits,
    gate: Gate,
    /// What waits for it to run was told that it does.
    reached: bool,
    /// What waits for it was told how it ended.
    told_end: bool,
    /// Members by outcome, kept after the gang is closed.
    tally: (u32, u32),
    gang: Option<Box<Gang>>,
    cause: Option<Box<Cause>>,
    released_at_ms: Option<u64>,
    scheduled_at_ms: Option<u64>,
    started_at_ms: Option<u64>,
    finished_at_ms: Option<u64>,
}

/// Takes in one event and adds what is to be done to `out`.
///
/// Never fails and never panics: an event about a node, rank or attempt that does not exist is ignored. Costs O(1), but
/// for the end of a node (its out-degree) and for a gang that starts or stops (its members).
pub fn apply(state: &mut State, event: Event, now_ms: u64, out: &mut Vec<Command>) {
    match event {
        Event::Gang(key, facts) => state.on_gang(key, facts, now_ms, out),
        Event::GangGone(key) => state.on_gang_gone(key, now_ms, out),
        Event::Service(key, exists) => state.with_gang(key, now_ms, out, |gang, cx| gang.on_service(exists, cx)),
        Event::Pod(key, facts) => state.on_pod(key, &facts, now_ms, out),
        Event::PodGone(key) => state.on_pod_gone(key, now_ms, out),
        Event::Refused(object, refusal) => state.on_refused(object, &refusal, now_ms, out),
        Event::Recorded(keys) => {
            for key in keys {
                state.with_gang(key.attempt_key(), now_ms, out, |gang, cx| gang.on_recorded(key, cx));
            }
        }
        Event::Judged(node, judgement) => state.on_judged(node, judgement, now_ms, out),
        Event::Hold(cause) => state.on_hold(cause),
        Event::Ttl(ttl_ms) => state.on_ttl(ttl_ms),
        Event::Decided(node, decision) => state.on_decided(node, decision, now_ms, out),
        Event::Parallelism(most) => state.on_parallelism(most),
        Event::Suspend(suspended) => state.on_suspend(suspended),
        Event::Cancel => state.on_cancel(now_ms, out),
        Event::Terminate => state.on_terminate(now_ms, out),
        Event::Delete => state.on_delete(now_ms, out),
        Event::Timer => state.on_timer(now_ms, out),
    }
    state.conclude(now_ms, out);
}

impl State {
    fn new(dag: Arc<Dag>, config: Config) -> Self {
        let gate = |n| if dag.node(n).gated { Gate::Closed } else { Gate::Open };
        let node = |n| Node { waits: Waits::new(dag.upstream_count(n)), gate: gate(n), ..Node::default() };
        let nodes = dag.ids().map(node).collect();
        let ready = dag.ids().filter(|&n| dag.upstream_count(n) == 0 && !dag.node(n).finally).collect();
        let ordinary = dag.ids().filter(|&n| !dag.node(n).finally).count();
        Self {
            dag,
            config,
            phase: WorkflowPhase::Pending,
            nodes,
            open: BTreeSet::new(),
            ready,
            resumed: BTreeSet::new(),
            doomed: BTreeMap::new(),
            over: 0,
            ordinary_left: u32::try_from(ordinary).unwrap_or(u32::MAX),
            closing: false,
            well: 0,
            tolerated: None,
            hold: None,
            decisions: BTreeMap::new(),
            suspended: false,
            stop: None,
            culprit: None,
            stopper: None,
            swept: (false, false),
            cancel: false,
            terminate: false,
            delete: false,
            trailing: Trailing::default(),
            timers: Timers::default(),
            started_at_ms: None,
            finished_at_ms: None,
            booting: true,
            dirty: false,
            urgent: false,
        }
    }

    /// Lends a node's open gang to `act`, then draws the conclusions for the node and the workflow. No-op when there is
    /// no open gang of this attempt.
    fn with_gang(
        &mut self,
        key: AttemptKey,
        now_ms: u64,
        out: &mut Vec<Command>,
        act: impl FnOnce(&mut Gang, &mut Cx<'_>),
    ) {
        let Some(mut gang) = self.nodes.get_mut(key.node.at()).and_then(|n| n.gang.take()) else { return };
        if gang.key == key {
            let mut cx = Cx {
                now_ms,
                booting: self.booting,
                config: &self.config,
                out: &mut *out,
                trailing: &mut self.trailing,
                timers: &mut self.timers,
            };
            act(&mut gang, &mut cx);
            gang.note_degraded(&cx);
            self.dirty = true;
        }
        self.nodes[key.node.at()].gang = Some(gang);
        self.after_gang(key.node, now_ms, out);
    }

    fn on_gang(&mut self, key: AttemptKey, facts: GangFacts, now_ms: u64, out: &mut Vec<Command>) {
        let Some(node) = self.nodes.get(key.node.at()) else { return };
        if node.phase == NodePhase::Pending && node.gang.is_none() && key.attempt > 0 {
            // A former leader's claim that we did not see at first.
            self.open(key, facts.plan.as_deref().cloned().unwrap_or_default(), now_ms);
        }
        let node = &self.nodes[key.node.at()];
        if node.phase.is_over() {
            if node.attempt < key.attempt && facts.ended.is_none() {
                out.push(Command::FinishGang(key, Box::new(self.late_claim_end(key.node, now_ms))));
            }
            return;
        }
        if node.attempt != key.attempt {
            return;
        }
        match facts {
            GangFacts { ended: Some(end), .. } => self.end_node(key.node, &end, now_ms, out),
            GangFacts { deleting, plan, .. } => self.with_gang(key, now_ms, out, |gang, cx| {
                gang.on_held(plan, cx);
                if deleting {
                    gang.on_deleted(false, cx);
                }
            }),
        }
    }

    /// The end of a Gang that was claimed for a node that had been skipped meanwhile.
    fn late_claim_end(&self, at: NodeIx, now_ms: u64) -> GangEnd {
        let cause = self.nodes[at.at()].cause.as_deref().or(self.stop.as_deref()).cloned();
        let cause = cause.unwrap_or_else(|| Cause::of(Reason::Unsatisfiable));
        GangEnd {
            succeeded: false,
            cause,
            scheduled_at_ms: None,
            started_at_ms: None,
            finished_at_ms: now_ms,
            outputs: "".into(),
        }
    }

    fn on_gang_gone(&mut self, key: AttemptKey, now_ms: u64, out: &mut Vec<Command>) {
        self.with_gang(key, now_ms, out, |gang, cx| gang.on_deleted(true, cx));
    }

    fn on_pod(&mut self, key: MemberKey, facts: &PodFacts, now_ms: u64, out: &mut Vec<Command>) {
        let Some(node) = self.nodes.get(key.node.at()) else { return };
        if node.phase == NodePhase::Pending && node.gang.is_none() && key.attempt > 0 {
            self.open(key.attempt_key(), Plan::default(), now_ms);
        }
        if self.is_current(key) {
            self.with_gang(key.attempt_key(), now_ms, out, |gang, cx| gang.on_pod(key, facts, cx));
        } else {
            self.trailing.observe(key, facts, out);
            self.resume(key, now_ms, out);
        }
    }

    /// A pod of an earlier attempt may have stopped: the next one may have waited for that.
    fn resume(&mut self, key: MemberKey, now_ms: u64, out: &mut Vec<Command>) {
        let open = self.nodes.get(key.node.at()).and_then(|n| n.gang.as_ref()).map(|g| g.key);
        if let Some(open) = open.filter(|open| open.attempt > key.attempt) {
            self.with_gang(open, now_ms, out, Gang::supply_all);
        }
    }

    /// The pod belongs to the open gang of its node.
    fn is_current(&self, key: MemberKey) -> bool {
        let gang = self.nodes.get(key.node.at()).and_then(|n| n.gang.as_deref());
        gang.is_some_and(|g| g.key == key.attempt_key() && key.rank < g.replicas())
    }

    fn on_pod_gone(&mut self, key: MemberKey, now_ms: u64, out: &mut Vec<Command>) {
        self.trailing.forget(key);
        if self.is_current(key) {
            self.with_gang(key.attempt_key(), now_ms, out, |gang, cx| gang.on_pod_gone(key, cx));
        } else {
            self.resume(key, now_ms, out);
        }
    }

    fn on_refused(&mut self, object: Object, refusal: &Refusal, now_ms: u64, out: &mut Vec<Command>) {
        match object {
            Object::Gang(key) => self.with_gang(key, now_ms, out, |gang, cx| gang.on_claim_refused(refusal, cx)),
            Object::Service(key) => self.with_gang(key, now_ms, out, |gang, cx| gang.on_service_refused(refusal, cx)),
            Object::Pod(key) => {
                self.with_gang(key.attempt_key(), now_ms, out, |gang, cx| gang.on_pod_refused(key, refusal, cx));
            }
        }
    }

    fn on_timer(&mut self, now_ms: u64, out: &mut Vec<Command>) {
        self.timers.rang();
        while let Some(wake) = self.timers.pop(now_ms) {
            match wake {
                Wake::Gang(node) => {
                    let attempt = self.nodes.get(node.at()).map_or(0, |n| n.attempt);
                    self.with_gang(AttemptKey { node, attempt }, now_ms, out, Gang::on_timer);
                }
                Wake::Workflow => self.check_timeout(now_ms, out),
                // A deadline from before a longer time to live was wished for is not ours any more.
                Wake::Ttl if !self.delete && self.ttl_at_ms().is_some_and(|at_ms| at_ms <= now_ms) => {
                    out.push(Command::DeleteWorkflow);
                }
                Wake::Ttl => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_node_and_of_a_member_is_small() {
        assert!(size_of::<Node>() <= 128, "{} bytes a node", size_of::<Node>());
        assert_eq!(size_of::<member::Member>(), 8, "bytes a member");
    }
}

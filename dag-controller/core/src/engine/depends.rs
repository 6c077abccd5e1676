//! When a node's edges let it run, and when they never will.
//!
//! An edge is open until its upstream node says *yes*, *never* or *neutral*; then it is closed for good: what happened
//! stays true while the upstream node is tried again.
//!
//! | The edge waits for | Succeeded | Failed | Failed, `onFailure: Continue` | passed over | skipped else |
//! |---|---|---|---|---|---|
//! | Succeeded | yes | never | yes | neutral | never |
//! | Failed | never | yes | yes | never | never |
//! | Completed | yes | yes | yes | neutral | never |
//! | Running | yes | yes if it once ran, else never | as Failed | neutral | never |
//! | Skipped | never | never | never | yes | yes |
//!
//! Running is told as soon as all members run, everything else when it is durable. *Passed over* is a node whose own `when`
//! is false, or all of whose edges are neutral: a branch that is passed over does not hold up the join behind it.
//!
//! | The node waits for | it runs | it is passed over | it is Skipped, Unsatisfiable |
//! |---|---|---|---|
//! | all | no edge is open, one said yes, none never | all are neutral | at the first never |
//! | any | at the first yes | all are neutral | no edge is open, none said yes |

use crate::command::{Command, Milestone};
use crate::dag::{Mode, On, OnFailure};
use crate::event::{Decision, Judgement};
use crate::ids::NodeIx;
use crate::reason::{Cause, Class, Reason};
use crate::state::NodePhase;

use super::State;

/// How a node ended, as its edges see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Succeeded,
    Failed,
    /// It failed, and that is to be no matter.
    Tolerated,
    /// Passed over.
    Bypassed,
    Skipped,
}

/// What an upstream node says to an edge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    Yes,
    Neutral,
    Never,
}

/// What a node's edges say together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Run,
    Bypass,
    Unsatisfiable,
}

/// The edges of a node, counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Waits {
    open: u32,
    yes: bool,
    never: bool,
    /// The node was released already: nothing that is still to be heard takes that back.
    released: bool,
}

/// Whether a node's `when` lets it run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Gate {
    /// It has none, or it is true.
    #[default]
    Open,
    /// Nobody has asked.
    Closed,
    /// The answer is to come.
    Asked,
    /// It waits for a person.
    Person,
}

/// The first table of the module; `reached`: all members ran once.
pub(super) const fn answer(on: On, end: End, reached: bool) -> Answer {
    match (on, end) {
        (On::Succeeded | On::Completed, End::Succeeded | End::Tolerated)
        | (On::Failed | On::Completed, End::Failed)
        | (On::Failed, End::Tolerated)
        | (On::Running, End::Succeeded)
        | (On::Skipped, End::Bypassed | End::Skipped) => Answer::Yes,
        (On::Running, End::Failed | End::Tolerated) if reached => Answer::Yes,
        (On::Succeeded | On::Completed | On::Running, End::Bypassed) => Answer::Neutral,
        _ => Answer::Never,
    }
}

impl Waits {
    pub(super) const fn new(edges: u32) -> Self {
        Self { open: edges, yes: false, never: false, released: false }
    }

    /// The node was released, as a former leader has written down.
    pub(super) const fn set_released(&mut self) {
        self.released = true;
    }

    /// Closes one edge; the second table of the module.
    fn close(&mut self, answer: Answer, mode: Mode) -> Option<Verdict> {
        self.open = self.open.saturating_sub(1);
        self.yes |= answer == Answer::Yes;
        self.never |= answer == Answer::Never;
        match (mode, self.yes, self.never) {
            _ if self.released => None,
            (Mode::All, _, true) => Some(Verdict::Unsatisfiable),
            (Mode::Any, true, _) => Some(Verdict::Run),
            _ if self.open > 0 => None,
            (Mode::All, true, false) => Some(Verdict::Run),
            (Mode::Any, false, true) => Some(Verdict::Unsatisfiable),
            (_, false, false) => Some(Verdict::Bypass),
        }
    }
}

impl State {
    /// All members of a node ran: what waits for that learns of it. O(out-degree), once a node.
    pub(super) fn reach(&mut self, at: NodeIx) {
        let node = &mut self.nodes[at.at()];
        if !node.told_end && !std::mem::replace(&mut node.reached, true) {
            self.close_edges(at, |on| (on == On::Running).then_some(Answer::Yes));
        }
    }

    /// A node has ended: what waits for it learns of it. O(out-degree), once a node.
    pub(super) fn tell_end(&mut self, at: NodeIx, end: End) {
        let told = self.nodes[at.at()].reached;
        self.nodes[at.at()].told_end = true;
        let reached = told || self.nodes[at.at()].started_at_ms.is_some();
        self.close_edges(at, |on| (on != On::Running || !told).then(|| answer(on, end, reached)));
    }

    fn close_edges(&mut self, at: NodeIx, say: impl Fn(On) -> Option<Answer>) {
        for edge in self.dag.edges_from(at) {
            let Some(answer) = say(edge.on) else { continue };
            let node = &mut self.nodes[edge.down.at()];
            let verdict = node.waits.close(answer, self.dag.node(edge.down).mode);
            if node.phase != NodePhase::Pending || matches!(node.gate, Gate::Asked | Gate::Person) {
                continue;
            }
            match verdict {
                Some(Verdict::Run) => _ = self.ready.insert(edge.down),
                Some(Verdict::Bypass) => _ = self.doomed.entry(edge.down).or_insert((at, Reason::UpstreamSkipped)),
                Some(Verdict::Unsatisfiable) => _ = self.doomed.entry(edge.down).or_insert((at, Reason::Unsatisfiable)),
                None => {}
            }
        }
    }

    /// How an ended node looks to its edges.
    pub(super) fn end_of(&self, at: NodeIx) -> End {
        let node = &self.nodes[at.at()];
        let reason = node.cause.as_deref().map(|cause| cause.reason);
        let stopped = reason.is_some_and(|reason| reason.class() == Class::Stopped);
        match node.phase {
            NodePhase::Succeeded => End::Succeeded,
            NodePhase::Failed if self.dag.node(at).on_failure == OnFailure::Continue && !stopped => End::Tolerated,
            NodePhase::Skipped if reason.is_some_and(Reason::is_bypass) => End::Bypassed,
            NodePhase::Skipped => End::Skipped,
            _ => End::Failed,
        }
    }

    /// Skips what can not run any more, and what can not run because of that. O(nodes + edges) in all.
    pub(super) fn skip_doomed(&mut self, now_ms: u64) {
        while let Some((node, (by, reason))) = self.doomed.pop_first() {
            let cause = Cause::of(reason).with_detail(self.dag.node(by).id.clone());
            self.skip(node, cause, now_ms);
        }
    }

    fn skip(&mut self, at: NodeIx, cause: Cause, now_ms: u64) {
        let node = &mut self.nodes[at.at()];
        node.cause = Some(Box::new(cause));
        node.finished_at_ms = Some(now_ms);
        self.settle(at, NodePhase::Skipped);
    }

    /// A node's edges let it run. Whether its `when` does: false where that is still to be asked.
    pub(super) fn pass_gate(&mut self, at: NodeIx, out: &mut Vec<Command>) -> bool {
        let gate = &mut self.nodes[at.at()].gate;
        if *gate == Gate::Closed {
            *gate = Gate::Asked;
            out.push(Command::Judge(at));
        }
        *gate == Gate::Open
    }

    /// A node that makes no pods: it ends by what a person has said, or waits for that.
    pub(super) fn ask_person(&mut self, at: NodeIx, now_ms: u64, out: &mut Vec<Command>) {
        let node = &mut self.nodes[at.at()];
        node.gate = Gate::Person;
        node.released_at_ms.get_or_insert(now_ms);
        if self.decisions.contains_key(&at) {
            return self.carry_out_decision(at, now_ms, out);
        }
        node.cause = Some(Box::new(Cause::of(Reason::WaitingForApproval)));
        self.dirty = true;
        out.push(Command::Announce(Milestone::Waiting(at)));
    }

    pub(super) fn on_decided(&mut self, at: NodeIx, decision: Decision, now_ms: u64, out: &mut Vec<Command>) {
        if self.nodes.get(at.at()).is_some() && self.dag.node(at).approval {
            self.decisions.entry(at).or_insert(decision);
            self.carry_out_decision(at, now_ms, out);
        }
    }

    fn carry_out_decision(&mut self, at: NodeIx, now_ms: u64, out: &mut Vec<Command>) {
        let node = &mut self.nodes[at.at()];
        let Some(Decision { approved, by }) = self.decisions.get(&at) else { return };
        if node.phase != NodePhase::Pending || node.gate != Gate::Person {
            return;
        }
        let (phase, reason) = match approved {
            true => (NodePhase::Succeeded, Reason::Approved),
            false => (NodePhase::Failed, Reason::Denied),
        };
        let cause = Cause::of(reason).with_detail(by.clone());
        node.cause = Some(Box::new(cause.clone()));
        node.finished_at_ms = Some(now_ms);
        self.settle(at, phase);
        out.push(Command::Announce(Milestone::NodeEnded(at)));
        if phase == NodePhase::Failed {
            self.blame(at, &cause, now_ms, out);
        }
    }

    pub(super) fn on_judged(&mut self, at: NodeIx, judgement: Judgement, now_ms: u64, out: &mut Vec<Command>) {
        let Some(node) = self.nodes.get_mut(at.at()) else { return };
        if node.phase != NodePhase::Pending || node.gate != Gate::Asked {
            return;
        }
        node.gate = Gate::Open;
        match judgement {
            Judgement::Run => _ = self.ready.insert(at),
            Judgement::Skip => {
                self.skip(at, Cause::of(Reason::WhenFalse), now_ms);
                out.push(Command::Announce(Milestone::NodeEnded(at)));
            }
            Judgement::Fail(cause) => {
                node.cause = Some(cause.clone());
                node.finished_at_ms = Some(now_ms);
                self.settle(at, NodePhase::Failed);
                out.push(Command::Announce(Milestone::NodeEnded(at)));
                self.blame(at, &cause, now_ms, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: [End; 5] = [End::Succeeded, End::Failed, End::Tolerated, End::Bypassed, End::Skipped];

    /// Rows of the module's first table, for a node that never ran.
    #[test]
    fn what_an_end_says_to_an_edge() {
        for (on, expected) in [
            (On::Succeeded, "yes never yes neutral never"),
            (On::Failed, "never yes yes never never"),
            (On::Completed, "yes yes yes neutral never"),
            (On::Running, "yes never never neutral never"),
            (On::Skipped, "never never never yes yes"),
        ] {
            let said = ENDS.map(|end| format!("{:?}", answer(on, end, false)).to_lowercase());
            assert_eq!(said.join(" "), expected, "{on:?}");
        }
        assert_eq!(answer(On::Running, End::Failed, true), Answer::Yes, "it had run before it failed");
    }

    #[test]
    fn what_the_edges_say_together() {
        use Answer::{Neutral, Never, Yes};
        let last = |mode, answers: &[Answer]| {
            let mut waits = Waits::new(u32::try_from(answers.len()).unwrap());
            answers.iter().map(|a| waits.close(*a, mode)).find(Option::is_some).flatten()
        };
        for (answers, all, any) in [
            (&[Yes, Yes][..], Some(Verdict::Run), Some(Verdict::Run)),
            (&[Yes, Neutral], Some(Verdict::Run), Some(Verdict::Run)),
            (&[Neutral, Yes], Some(Verdict::Run), Some(Verdict::Run)),
            (&[Neutral, Neutral], Some(Verdict::Bypass), Some(Verdict::Bypass)),
            (&[Neutral, Never], Some(Verdict::Unsatisfiable), Some(Verdict::Unsatisfiable)),
            (&[Never, Yes], Some(Verdict::Unsatisfiable), Some(Verdict::Run)),
        ] {
            assert_eq!((last(Mode::All, answers), last(Mode::Any, answers)), (all, any), "{answers:?}");
        }
        let mut open = Waits::new(2);
        assert_eq!(open.close(Yes, Mode::All), None, "an edge is open");
        assert_eq!(Waits::new(2).close(Never, Mode::All), Some(Verdict::Unsatisfiable), "at once");
    }
}

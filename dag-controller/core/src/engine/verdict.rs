//! From what became of a member to what that means for its gang: replaced, left out, the end.
//!
//! ```text
//!   facts ─fate─> judge ──> conclude: outcome, to be recorded ──> weigh: by the counts of its role (roles.rs) ──> end
//!   a former leader's record ─────> restore ─────────────────────┘
//! ```
//! What must hold: an outcome that is recorded as Failed counts the same for whoever reads it back, so that after a success is
//! decided nobody is recorded so any more.

use crate::command::{Command, MemberEnd, MemberOutcome, Milestone};
use crate::event::{MainContainer, PodFacts};
use crate::ids::MemberKey;
use crate::outputs::Outputs;
use crate::reason::{Cause, Class, Reason};
use crate::role::Failure;
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::gang::{Claim, Cx, Gang};
use super::member::{Fate, Member, Stage, fate, flag};

/// The outputs of a gang as they come in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Saying {
    declared: Arc<Outputs>,
    /// By rank, as [`Outputs::pick`] leaves it.
    said: BTreeMap<u32, SmolStr>,
    /// The outputs of the node, once all have ended well.
    pub(super) outputs: SmolStr,
}

impl Saying {
    pub(super) fn new(declared: &Arc<Outputs>) -> Box<Self> {
        Box::new(Self { declared: Arc::clone(declared), said: BTreeMap::new(), outputs: SmolStr::default() })
    }
}

impl Gang {
    /// Turns facts into the member's outcome, once.
    pub(super) fn judge(&mut self, rank: u32, facts: &PodFacts, before: Member, cx: &mut Cx<'_>) {
        let Some(m) = self.member(rank) else { return };
        if m.outcome.is_some() || m.has(flag::UNDONE) {
            return;
        }
        let ours = m.has(flag::KILLED) || self.ending.is_some();
        match fate(facts, ours, before) {
            Fate::Alive => {}
            Fate::Undone => self.edit(rank, |m| m.set(flag::UNDONE, true)),
            Fate::Succeeded => self.conclude(rank, MemberOutcome::Succeeded, None, facts, cx),
            // Withdrawn for want of quota, and started in the same moment: it is made again.
            Fate::Collateral if self.ending.is_none() => self.edit(rank, |m| m.set(flag::UNDONE, true)),
            Fate::Collateral => self.conclude(rank, MemberOutcome::Stopped, None, facts, cx),
            Fate::Failed(reason) if self.makes_again(rank, reason, facts) => {
                cx.out.push(Command::Announce(Milestone::Replaced(self.key.node)));
                self.conclude(rank, MemberOutcome::Lost, Some(reason), facts, cx);
            }
            // The gang has done its work without it.
            Fate::Failed(_) if self.has_succeeded() => self.conclude(rank, MemberOutcome::Stopped, None, facts, cx),
            Fate::Failed(reason) => self.conclude(rank, MemberOutcome::Failed, Some(reason), facts, cx),
            Fate::Lost(reason) => self.lose(rank, reason, facts, cx),
        }
    }

    /// A member was taken by the infrastructure: the policy decides what that means.
    pub(super) fn lose(&mut self, rank: u32, reason: Reason, facts: &PodFacts, cx: &mut Cx<'_>) {
        let outcome = match (self.ending.is_some(), self.roles.failure(rank)) {
            (true, _) => MemberOutcome::Stopped,
            (false, Failure::ReplaceLost | Failure::ReplaceMember) => MemberOutcome::Lost,
            (false, Failure::FailGang | Failure::Ignore) => MemberOutcome::Failed,
        };
        if outcome == MemberOutcome::Lost {
            cx.out.push(Command::Announce(Milestone::Replaced(self.key.node)));
        }
        self.conclude(rank, outcome, Some(reason), facts, cx);
    }

    /// A member ended: its result is to be recorded, and the gang may end by it.
    pub(super) fn conclude(
        &mut self,
        rank: u32,
        outcome: MemberOutcome,
        reason: Option<Reason>,
        facts: &PodFacts,
        cx: &mut Cx<'_>,
    ) {
        self.edit(rank, |m| m.outcome = Some(outcome));
        let mut end = member_end(outcome, reason, facts);
        if outcome == MemberOutcome::Failed
            && self.ending.as_ref().is_none_or(|e| e.cause.reason.class() == Class::Stopped)
        {
            self.machine = end.node.clone();
        }
        if let Some(saying) = self.saying.as_deref_mut().filter(|_| outcome == MemberOutcome::Succeeded) {
            end.said = saying.declared.pick(rank, &facts.message);
            saying.said.insert(rank, end.said.clone());
        }
        let cause = Cause {
            reason: reason.unwrap_or(Reason::Completed),
            rank: Some(rank),
            exit_code: end.exit_code,
            detail: detail(&end, &facts.reason),
        };
        if self.claim == Claim::Gone {
            self.edit(rank, |m| m.set(flag::RECORDED, true));
        } else {
            cx.out.push(Command::RecordResult(self.key_of(rank), Box::new(end)));
        }
        self.weigh(rank, outcome, cause, cx);
    }

    /// What a member's outcome means for the gang.
    fn weigh(&mut self, rank: u32, outcome: MemberOutcome, mut cause: Cause, cx: &mut Cx<'_>) {
        // Who failed by himself is not excused by a stop that came in the same moment, and a stop that came too late does not
        // undo what was achieved.
        let stopped = self.ending.as_ref().is_some_and(|e| e.cause.reason.class() == Class::Stopped);
        let undecided = self.ending.is_none() || stopped && !self.finishing;
        let failed = outcome == MemberOutcome::Failed && self.roles.fail_without(rank);
        let succeeded =
            matches!(outcome, MemberOutcome::Succeeded | MemberOutcome::Failed) && self.roles.have_succeeded();
        if !undecided || !failed && !succeeded {
            return;
        }
        self.ending = None;
        if failed {
            let shortfall = self.roles.shortfall(rank);
            if !shortfall.is_empty() {
                cause.detail = format_smolstr!("{}; {shortfall}", cause.detail);
            }
            return self.end(false, cause, cx);
        }
        self.advance(cx);
        match self.collect() {
            Ok(()) => self.end(true, Cause::of(Reason::Completed), cx),
            Err(cause) => self.end(false, cause, cx),
        }
    }

    /// Its success is decided.
    pub(super) fn has_succeeded(&self) -> bool {
        self.ending.as_deref().is_some_and(|ending| ending.succeeded)
    }

    /// The gang has done its work: what its members said becomes the outputs.
    fn collect(&mut self) -> Result<(), Cause> {
        if let Some(saying) = self.saying.as_deref_mut() {
            let outputs = saying.declared.collect(&saying.said)?;
            saying.outputs = serde_json::Value::Object(outputs).to_string().into();
        }
        Ok(())
    }

    /// A result that a former leader recorded.
    pub(crate) fn restore(&mut self, key: MemberKey, end: &MemberEnd, cx: &mut Cx<'_>) {
        let Some(m) = self.member(key.rank) else { return };
        let reason = match Reason::parse(&end.reason) {
            Reason::Unrecorded if end.outcome == MemberOutcome::Failed => Reason::MemberFailed,
            known => known,
        };
        let cause = Cause { reason, rank: Some(key.rank), exit_code: end.exit_code, detail: detail(end, "") };
        if end.outcome == MemberOutcome::Failed && self.machine.is_empty() {
            self.machine = end.node.clone();
        }
        let failed = end.outcome == MemberOutcome::Failed;
        // A member that was left out stays so: a newer pod of its rank is none of the gang's.
        let left_out = failed && matches!(self.roles.failure(key.rank), Failure::ReplaceMember | Failure::Ignore);
        if key.incarnation < m.incarnation && !left_out || m.outcome.is_some() {
            if failed {
                // The verdict is durable: no pod that turned up later takes it back.
                self.weigh(key.rank, end.outcome, cause, cx);
            }
            return;
        }
        if let Some(saying) = self.saying.as_deref_mut().filter(|_| end.outcome == MemberOutcome::Succeeded) {
            saying.said.insert(key.rank, end.said.clone());
        }
        self.edit(key.rank, |m| {
            let flags = flag::RECORDED
                | match end.outcome {
                    MemberOutcome::Succeeded | MemberOutcome::Stopped => flag::BOUND | flag::RAN,
                    // Its kubelet may have refused it before it ran.
                    MemberOutcome::Failed => flag::BOUND,
                    // It is no member any more.
                    MemberOutcome::Lost => 0,
                };
            *m = Member { incarnation: key.incarnation, flags, stage: Stage::Live, outcome: Some(end.outcome) };
        });
        self.weigh(key.rank, end.outcome, cause, cx);
    }
}

/// What is known beside reason and exit code: where it was, and the kubelet's own word where ours is coarser.
fn detail(end: &MemberEnd, kubelet: &str) -> SmolStr {
    let mut text = end.reason.to_string();
    if !kubelet.is_empty() && end.reason != kubelet {
        let _ = write!(text, " ({kubelet})");
    }
    if !end.node.is_empty() {
        let _ = write!(text, " on {}", end.node);
    }
    SmolStr::from(text)
}

pub(super) fn member_end(outcome: MemberOutcome, reason: Option<Reason>, facts: &PodFacts) -> MemberEnd {
    let (exit_code, said) = match &facts.main {
        MainContainer::Ended { exit_code, reason, .. } => (Some(*exit_code), reason.clone()),
        _ => (facts.init_exit_code, SmolStr::default()),
    };
    let text = match (outcome, reason) {
        (MemberOutcome::Succeeded, _) => SmolStr::new_static("Completed"),
        (MemberOutcome::Stopped, _) => SmolStr::new_static("Stopped"),
        (_, Some(reason)) if reason.class() == Class::Infrastructure || said.is_empty() => {
            SmolStr::new_static(reason.as_str())
        }
        _ => said,
    };
    let node = facts.node.clone().unwrap_or_default();
    MemberEnd { outcome, exit_code, reason: text, node, said: SmolStr::default() }
}

//! One member of a gang: what its pod's facts mean.
//!
//! ```text
//!   Absent ──CreatePod──> Creating ──facts──> Live ──fate──> outcome ──Recorded──> finalizer off
//!      ^                     │ refused          │ undone: never ran, or rolled back            │ lost, policy Replace
//!      └─────────────────────┴──────────────────┴────────── next incarnation ──────────────────┘
//! ```
//! [`fate`] is the one place where a pod's status becomes a verdict. Its rules, first match wins:
//!
//! | The pod | It is |
//! |---|---|
//! | main container ended with 0, before any deletion was seen or asked for, and its kubelet did not evict or refuse it | Succeeded |
//! | ended after our own stop | Collateral if it ever ran, else Undone |
//! | carries DisruptionTarget reason GangRollback and is deleting or ended | Undone |
//! | ended with a kubelet's reason (`Evicted`, `OutOf…`, …) | Lost |
//! | is deleting, or its node is gone, and it never ran | Undone |
//! | is deleting, or ended after its deletion was asked for, or its node is gone | Lost |
//! | ended with DisruptionTarget | Lost |
//! | main container or an init container ended non-zero | Failed |
//! | phase Failed without any of these | Lost |
//!
//! An exit with 0 after somebody asked for the deletion is no success: a SIGTERM handler that exits cleanly would
//! otherwise end a node whose work was cut short.

use crate::command::MemberOutcome;
use crate::event::{Disruption, MainContainer, PodFacts, PodPhase};
use crate::reason::Reason;

/// Where a slot stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Stage {
    /// No pod of the current incarnation is known or on its way.
    #[default]
    Absent,
    /// CreatePod was commanded; no answer yet.
    Creating,
    /// The pod exists, or existed until its end was settled.
    Live,
}

/// Facts that stay true once seen, but for [`flag::FINALIZER`].
pub(crate) mod flag {
    /// It has a node.
    pub(crate) const BOUND: u16 = 1;
    /// Its main container was started.
    pub(crate) const RAN: u16 = 1 << 1;
    /// We asked for its deletion.
    pub(crate) const KILLED: u16 = 1 << 2;
    /// It has a deletionTimestamp.
    pub(crate) const DELETING: u16 = 1 << 3;
    /// Nothing of it runs or will run.
    pub(crate) const STOPPED: u16 = 1 << 4;
    /// Its result is durable.
    pub(crate) const RECORDED: u16 = 1 << 5;
    /// It carries our finalizer.
    pub(crate) const FINALIZER: u16 = 1 << 6;
    /// RemoveFinalizer was commanded, or is not needed.
    pub(crate) const RELEASED: u16 = 1 << 7;
    /// Containers besides the main one ran on after its end.
    pub(crate) const OTHERS: u16 = 1 << 8;
    /// It ended without a verdict and is made again once stopped.
    pub(crate) const UNDONE: u16 = 1 << 9;
}

/// One slot of a gang: eight bytes a member.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Member {
    /// How often this rank was made again.
    pub(crate) incarnation: u32,
    /// See [`flag`].
    pub(crate) flags: u16,
    /// Where it stands.
    pub(crate) stage: Stage,
    /// How it ended.
    pub(crate) outcome: Option<MemberOutcome>,
}

impl Member {
    /// Whether all of these flags are set.
    pub(crate) const fn has(self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    /// Nothing more is to come from this slot unless somebody asks for it.
    pub(crate) const fn is_settled(self) -> bool {
        match self.stage {
            Stage::Absent => true,
            Stage::Creating => false,
            Stage::Live => self.outcome.is_some() && self.has(flag::STOPPED | flag::RECORDED),
        }
    }

    /// The slot of the next incarnation.
    pub(crate) const fn next(self) -> Self {
        Self { incarnation: self.incarnation.saturating_add(1), flags: 0, stage: Stage::Absent, outcome: None }
    }

    /// Takes in what the facts say about the pod itself; verdicts are [`fate`]'s.
    pub(crate) fn observe(&mut self, facts: &PodFacts) {
        self.stage = Stage::Live;
        self.flags &= !flag::FINALIZER;
        self.set(flag::RAN, has_run(facts));
        self.set(flag::BOUND, facts.node.is_some() || self.has(flag::RAN));
        self.set(flag::DELETING, facts.deletion_requested_at_ms.is_some());
        self.set(flag::STOPPED, is_stopped(facts));
        self.set(flag::OTHERS, facts.others_running && matches!(facts.main, MainContainer::Ended { .. }));
        self.set(flag::FINALIZER, facts.finalizer);
    }

    /// Sets flags when `on`; never clears.
    pub(crate) const fn set(&mut self, flags: u16, on: bool) {
        if on {
            self.flags |= flags;
        }
    }
}

/// What became of a pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// It has not ended, or is on its way out by our own stop.
    Alive,
    /// It did its work.
    Succeeded,
    /// Its program failed.
    Failed(Reason),
    /// The infrastructure took it while it ran.
    Lost(Reason),
    /// It ended before it ran, or was rolled back: no verdict, made again.
    Undone,
    /// It ended by our own stop after it had run.
    Collateral,
}

/// Nothing of the pod runs or will run. A pod without a node that is deleting cannot be bound any more.
pub(crate) fn is_stopped(facts: &PodFacts) -> bool {
    matches!(facts.phase, PodPhase::Succeeded | PodPhase::Failed)
        || facts.node_gone
        || (facts.deletion_requested_at_ms.is_some() && facts.node.is_none())
}

fn has_run(facts: &PodFacts) -> bool {
    facts.main != MainContainer::Waiting || facts.phase == PodPhase::Succeeded
}

/// The verdict on a pod. `ours`: its deletion is our doing; `before`: what was seen of it until now.
///
/// An exit that is first seen after the deletion was cut short, whatever the clocks say: the time of an exit is its
/// kubelet's, that of a deletion the API server's, and both are whole seconds. Only where both are first seen together
/// (after a restart) do the times decide.
pub(crate) fn fate(facts: &PodFacts, ours: bool, before: Member) -> Fate {
    let ran = before.has(flag::RAN);
    let ran = ran || has_run(facts);
    let (exit, cut_short) = match &facts.main {
        MainContainer::Ended { exit_code, finished_at_ms, .. } => (
            Some(*exit_code),
            before.has(flag::DELETING)
                || facts.deletion_requested_at_ms.is_some_and(|at| *finished_at_ms == 0 || *finished_at_ms >= at),
        ),
        _ => (None, false),
    };
    let done = exit == Some(0) || (exit.is_none() && facts.phase == PodPhase::Succeeded);
    if done && !cut_short && kubelet_reason(&facts.reason).is_none() {
        return Fate::Succeeded;
    }
    let ended = exit.is_some() || facts.phase == PodPhase::Failed;
    let leaving = facts.deletion_requested_at_ms.is_some() || facts.node_gone;
    if ours && leaving && (exit.is_none() || cut_short) {
        return match (is_stopped(facts), ran) {
            (false, _) => Fate::Alive,
            (true, true) => Fate::Collateral,
            (true, false) => Fate::Undone,
        };
    }
    if facts.disruption == Some(Disruption::GangRollback) && (leaving || ended) {
        return Fate::Undone;
    }
    if let Some(reason) = kubelet_reason(&facts.reason).filter(|_| ended) {
        // Whatever happened to the pod after: the verdict must not depend on when we look.
        return Fate::Lost(reason);
    }
    if leaving && !ran {
        return Fate::Undone;
    }
    if cut_short || (leaving && exit.is_none()) {
        return Fate::Lost(lost_reason(facts).unwrap_or(Reason::MemberDeleted));
    }
    if !ended {
        return Fate::Alive;
    }
    lost_reason(facts).map_or_else(|| failed(facts, exit), Fate::Lost)
}

/// An end that nobody but the pod itself can be blamed for.
fn failed(facts: &PodFacts, exit: Option<i32>) -> Fate {
    match &facts.main {
        MainContainer::Ended { reason, .. } if reason == "OOMKilled" => Fate::Failed(Reason::OomKilled),
        _ if exit.is_some() => Fate::Failed(Reason::MemberFailed),
        _ if facts.init_exit_code.is_some() => Fate::Failed(Reason::InitFailed),
        _ => Fate::Lost(Reason::MemberLost),
    }
}

/// What of a pod says that its machine, or the cluster, was in trouble, whatever became of the pod itself.
pub(crate) fn infrastructure_sign(facts: &PodFacts) -> Option<Reason> {
    match facts.disruption {
        Some(Disruption::GangRollback | Disruption::Other) => None,
        _ => lost_reason(facts),
    }
}

fn lost_reason(facts: &PodFacts) -> Option<Reason> {
    kubelet_reason(&facts.reason)
        .or_else(|| facts.disruption.map(Disruption::lost_reason))
        .or_else(|| facts.node_gone.then_some(Reason::NodeLost))
}

/// What a kubelet means by the `status.reason` it gives a pod that it ends or refuses: the names in Kubernetes'
/// `pkg/kubelet/{eviction,lifecycle,nodeshutdown,preemption}`.
fn kubelet_reason(reason: &str) -> Option<Reason> {
    match reason {
        "Evicted" => Some(Reason::Evicted),
        "Preempting" => Some(Reason::Preempted),
        "NodeLost" => Some(Reason::NodeLost),
        "NodeShutdown" | "Shutdown" | "Terminated" => Some(Reason::NodeShutdown),
        "UnexpectedAdmissionError"
        | "NodeAffinity"
        | "NodeName"
        | "NodePorts"
        | "TaintToleration"
        | "TopologyAffinityError"
        | "InvalidNodeInfo"
        | "AdmissionFailed"
        | "PodFeatureUnsupported"
        | "PodOSNotSupported"
        | "PodOSSelectorNodeLabelDoesNotMatch" => Some(Reason::KubeletRefused),
        other if other.starts_with("OutOf") => Some(Reason::KubeletRefused),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> PodFacts {
        PodFacts {
            node: Some("n1".into()),
            phase: PodPhase::Running,
            main: MainContainer::Running,
            finalizer: true,
            ..PodFacts::default()
        }
    }

    fn exited(exit_code: i32, finished_at_ms: u64) -> PodFacts {
        let phase = if exit_code == 0 { PodPhase::Succeeded } else { PodPhase::Failed };
        PodFacts { phase, main: MainContainer::Ended { exit_code, reason: "".into(), finished_at_ms }, ..running() }
    }

    fn check(name: &str, facts: &PodFacts, ours: bool, expected: Fate) {
        assert_eq!(fate(facts, ours, Member::default()), expected, "{name}: {facts:?}");
    }

    #[test]
    fn the_main_container_decides() {
        check("running", &running(), false, Fate::Alive);
        check("exit 0", &exited(0, 5), false, Fate::Succeeded);
        check(
            "exit 0, a sidecar goes on",
            &PodFacts { phase: PodPhase::Running, ..exited(0, 5) },
            false,
            Fate::Succeeded,
        );
        check(
            "exit 0, a sidecar failed",
            &PodFacts { phase: PodPhase::Failed, ..exited(0, 5) },
            false,
            Fate::Succeeded,
        );
        check("exit 3", &exited(3, 5), false, Fate::Failed(Reason::MemberFailed));
        let mut oom = exited(137, 5);
        oom.main = MainContainer::Ended { exit_code: 137, reason: "OOMKilled".into(), finished_at_ms: 5 };
        check("oom", &oom, false, Fate::Failed(Reason::OomKilled));
        let init =
            PodFacts { phase: PodPhase::Failed, main: MainContainer::Waiting, init_exit_code: Some(1), ..running() };
        check("init failed", &init, false, Fate::Failed(Reason::InitFailed));
    }

    #[test]
    fn a_deletion_from_outside_is_a_loss_only_once_it_ran() {
        let deleting = |facts: PodFacts| PodFacts { deletion_requested_at_ms: Some(1_000), ..facts };
        let waiting = PodFacts { phase: PodPhase::Pending, main: MainContainer::Waiting, ..running() };
        check("before it ran", &deleting(waiting.clone()), false, Fate::Undone);
        check("while it runs", &deleting(running()), false, Fate::Lost(Reason::MemberDeleted));
        check("clean exit on SIGTERM", &deleting(exited(0, 1_000)), false, Fate::Lost(Reason::MemberDeleted));
        check("clean exit before", &deleting(exited(0, 999)), false, Fate::Succeeded);
        check("failed before", &deleting(exited(1, 999)), false, Fate::Failed(Reason::MemberFailed));
        let taint = PodFacts { disruption: Some(Disruption::NodeLost), ..deleting(running()) };
        check("taint manager", &taint, false, Fate::Lost(Reason::NodeLost));
        let preempted = PodFacts { disruption: Some(Disruption::Preemption), ..deleting(running()) };
        check("preempted", &preempted, false, Fate::Lost(Reason::Preempted));
        check("node object gone", &PodFacts { node_gone: true, ..running() }, false, Fate::Lost(Reason::NodeLost));
        check("node object gone before it ran", &PodFacts { node_gone: true, ..waiting }, false, Fate::Undone);
    }

    #[test]
    fn an_exit_that_is_seen_after_the_deletion_was_cut_short_whatever_the_clocks_say() {
        let before = Member { flags: flag::BOUND | flag::RAN | flag::DELETING, ..Member::default() };
        let deleting = |facts: PodFacts| PodFacts { deletion_requested_at_ms: Some(60_000), ..facts };
        // The kubelet's clock is a minute late: a clean exit on SIGTERM looks as if it came before the deletion.
        assert_eq!(fate(&deleting(exited(0, 1_000)), false, before), Fate::Lost(Reason::MemberDeleted));
        assert_eq!(fate(&deleting(exited(143, 1_000)), false, before), Fate::Lost(Reason::MemberDeleted));
        assert_eq!(fate(&deleting(exited(0, 1_000)), true, before), Fate::Collateral);
        // Seen before it was deleted, it stands.
        let before = Member { flags: flag::BOUND | flag::RAN, ..Member::default() };
        assert_eq!(fate(&deleting(exited(0, 1_000)), false, before), Fate::Succeeded);
    }

    #[test]
    fn the_kubelets_reasons_are_losses_whatever_the_exit_code() {
        for (reason, expected) in [
            ("Evicted", Reason::Evicted),
            ("OutOfcpu", Reason::KubeletRefused),
            ("OutOfnvidia.com/gpu", Reason::KubeletRefused),
            ("UnexpectedAdmissionError", Reason::KubeletRefused),
            ("Terminated", Reason::NodeShutdown),
            ("", Reason::MemberLost),
        ] {
            let refused =
                PodFacts { phase: PodPhase::Failed, main: MainContainer::Waiting, reason: reason.into(), ..running() };
            check(reason, &refused, false, Fate::Lost(expected));
        }
        check(
            "evicted, exit 0",
            &PodFacts { reason: "Evicted".into(), ..exited(0, 5) },
            false,
            Fate::Lost(Reason::Evicted),
        );
        check(
            "evicted, exit 137",
            &PodFacts { reason: "Evicted".into(), ..exited(137, 5) },
            false,
            Fate::Lost(Reason::Evicted),
        );
    }

    #[test]
    fn a_rolled_back_member_is_no_failure() {
        let marked = |facts: PodFacts| PodFacts { disruption: Some(Disruption::GangRollback), ..facts };
        check("marked only", &marked(running()), false, Fate::Alive);
        let deleting = PodFacts { deletion_requested_at_ms: Some(1_000), ..running() };
        check("running", &marked(deleting), false, Fate::Undone);
        check(
            "killed",
            &marked(PodFacts { deletion_requested_at_ms: Some(1_000), ..exited(137, 2_000) }),
            false,
            Fate::Undone,
        );
        check(
            "done before",
            &marked(PodFacts { deletion_requested_at_ms: Some(1_000), ..exited(0, 500) }),
            false,
            Fate::Succeeded,
        );
    }

    #[test]
    fn exits_after_our_own_stop_are_collateral() {
        let deleting = |facts: PodFacts| PodFacts { deletion_requested_at_ms: Some(1_000), ..facts };
        check("on its way", &deleting(running()), true, Fate::Alive);
        check("exit 143", &deleting(exited(143, 2_000)), true, Fate::Collateral);
        check("clean exit", &deleting(exited(0, 2_000)), true, Fate::Collateral);
        check("failed before", &deleting(exited(1, 500)), true, Fate::Failed(Reason::MemberFailed));
        check("done before", &deleting(exited(0, 500)), true, Fate::Succeeded);
        let unbound = PodFacts { finalizer: true, deletion_requested_at_ms: Some(1_000), ..PodFacts::default() };
        check("never bound", &unbound, true, Fate::Undone);
    }
}

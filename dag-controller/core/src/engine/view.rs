//! What the statuses show. Reading only.

use crate::dag::Dag;
use crate::ids::NodeIx;
use crate::reason::{Cause, Reason};
use crate::state::{Counts, GangPhase, NodePhase, NodeView, WorkflowPhase};

use std::collections::BTreeSet;

use super::State;
use super::gang::Claim;
use super::member::{Member, Stage, flag};

static SUSPENDED: Cause = Cause::of(Reason::Suspended);
static DEGRADED: Cause = Cause::of(Reason::Degraded);

impl State {
    /// The graph.
    #[must_use]
    pub fn dag(&self) -> &Dag {
        &self.dag
    }

    /// Phase of the workflow.
    #[must_use]
    pub const fn phase(&self) -> WorkflowPhase {
        self.phase
    }

    /// Why the workflow ended, is ending or waits: the root cause of its first failed node, the stop, or the hold.
    #[must_use]
    pub fn cause(&self) -> Option<&Cause> {
        if self.phase == WorkflowPhase::Succeeded {
            return None;
        }
        // A cancel wins over a failure in the workflow's phase, so it does here.
        let canceled = self.cancel || self.delete;
        let culprit = self.culprit.filter(|_| !canceled).and_then(|n| self.nodes[n.at()].cause.as_deref());
        let suspended = (self.suspended && !self.phase.is_over()).then_some(&SUSPENDED);
        culprit.or(self.stop.as_deref()).or(self.hold.as_deref()).or(suspended)
    }

    /// Why nothing is released ever again, where that is so.
    #[must_use]
    pub fn stopped_by(&self) -> Option<&Cause> {
        self.stop.as_deref()
    }

    /// The first node whose failure fails the workflow.
    #[must_use]
    pub const fn culprit(&self) -> Option<NodeIx> {
        self.culprit
    }

    /// The first node whose failure is no matter (`onFailure: Continue`): the workflow goes on, degraded.
    #[must_use]
    pub const fn tolerated(&self) -> Option<NodeIx> {
        self.tolerated
    }

    /// Whether all members of a node run, or did once, in whichever attempt.
    #[must_use]
    pub fn has_run(&self, at: NodeIx) -> bool {
        self.nodes[at.at()].reached || self.nodes[at.at()].started_at_ms.is_some()
    }

    /// Ended nodes and all nodes.
    #[must_use]
    pub fn progress(&self) -> (u32, u32) {
        (self.over, u32::try_from(self.nodes.len()).unwrap_or(u32::MAX))
    }

    /// When the first node was released, milliseconds since the epoch.
    #[must_use]
    pub const fn started_at_ms(&self) -> Option<u64> {
        self.started_at_ms
    }

    /// When the workflow ended.
    #[must_use]
    pub const fn finished_at_ms(&self) -> Option<u64> {
        self.finished_at_ms
    }

    /// One node; its index must be one of [`Dag::ids`].
    #[must_use]
    pub fn node(&self, at: NodeIx) -> NodeView<'_> {
        let node = &self.nodes[at.at()];
        let gang = node.gang.as_deref();
        let cause = match (node.phase, gang) {
            (NodePhase::Skipped, _) => node.cause.as_deref().or(self.stop.as_deref()),
            // All members did their work; until that is durable there is nothing to tell.
            (_, Some(gang)) if gang.ending.as_deref().is_some_and(|ending| ending.succeeded) => None,
            (_, Some(gang)) => {
                let degraded = gang.degraded_since_ms.map(|_| &DEGRADED);
                node.cause.as_deref().or_else(|| gang.supply.wait()).or(degraded)
            }
            _ => node.cause.as_deref(),
        };
        NodeView {
            node: at,
            phase: node.phase,
            attempt: node.attempt,
            cause,
            gang: gang.map_or_else(
                || ended_gang(node.phase, node.attempt),
                |g| (g.claim != Claim::Wanted && g.claim != Claim::Asked).then_some(g.phase),
            ),
            members: gang.map_or_else(|| self.ended_counts(at), |g| g.counts()),
            degraded_since_ms: gang.and_then(|g| g.degraded_since_ms),
            released_at_ms: node.released_at_ms,
            scheduled_at_ms: node.scheduled_at_ms,
            started_at_ms: node.started_at_ms,
            finished_at_ms: node.finished_at_ms,
        }
    }

    /// Ranks that may still run of an attempt whose end is decided: what the node's end waits for. A machine that does not
    /// answer can make that long. O(members) while the node ends, else O(1).
    #[must_use]
    pub fn still_stopping(&self, at: NodeIx) -> BTreeSet<u32> {
        let ending = self.nodes[at.at()].gang.as_deref().filter(|gang| gang.ending.is_some());
        let members = ending.map(|gang| gang.members.as_slice()).unwrap_or_default();
        let may_run = |m: &Member| m.stage == Stage::Live && !m.has(flag::STOPPED);
        (0..).zip(members).filter(|(_, m)| may_run(m)).map(|(rank, _)| rank).collect()
    }

    /// All nodes, in the order of the spec.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeView<'_>> {
        self.dag.ids().map(|at| self.node(at))
    }

    fn ended_counts(&self, at: NodeIx) -> Counts {
        let (succeeded, failed) = self.nodes[at.at()].tally;
        let ended = succeeded + failed;
        let desired = self.dag.node(at).replicas;
        Counts { desired, created: ended, bound: ended, running: 0, succeeded, failed }
    }
}

fn ended_gang(phase: NodePhase, attempt: u32) -> Option<GangPhase> {
    match phase {
        NodePhase::Succeeded if attempt > 0 => Some(GangPhase::Succeeded),
        NodePhase::Failed | NodePhase::Skipped if attempt > 0 => Some(GangPhase::Failed),
        _ => None,
    }
}

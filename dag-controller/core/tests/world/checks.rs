//! What must hold at rest and at the end.

use super::{World, record, runs};
use flowforge_dag_controller_core::{MemberKey, NodeIx, NodePhase, PodFacts, WorkflowPhase};
use std::collections::{BTreeMap, BTreeSet};

impl World {
    /// How the ended world looks to a reader who knows only the graph and the Gangs: by the rules, without the engine.
    pub(crate) fn check_end(&self) {
        assert!(self.state.phase().is_over(), "heals_when_faults_stop: it never ends\n{:?}", self.state);
        assert_eq!(self.written.phase, self.state.phase(), "the last status is written");
        let all_succeeded = self.dag.ids().all(|n| self.state.node(n).phase == NodePhase::Succeeded);
        for node in self.dag.ids() {
            let phase = self.state.node(node).phase;
            let end = self.gang_of(node).and_then(|g| g.ended.as_ref());
            match phase {
                NodePhase::Succeeded => assert!(self.has_succeeded(node), "{node} succeeded without a record"),
                NodePhase::Failed => assert!(end.is_none_or(|e| !e.succeeded), "{node} failed, its Gang did not"),
                NodePhase::Skipped => assert!(end.is_none_or(|e| !e.succeeded && e.started_at_ms.is_none())),
                other => unreachable!("{node} is {other:?} at the end"),
            }
            let upstream_done = self
                .dag
                .ids()
                .filter(|up| self.dag.downstream(*up).contains(&node))
                .all(|up| self.state.node(up).phase == NodePhase::Succeeded);
            assert!(upstream_done || self.state.node(node).attempt == 0, "{node} was claimed before its upstream");
        }
        let failed = self.dag.ids().any(|n| self.state.node(n).phase == NodePhase::Failed);
        let expected = match (all_succeeded, self.cancel || self.delete) {
            (true, _) => WorkflowPhase::Succeeded,
            (false, true) => self.state.phase(),
            (false, false) => WorkflowPhase::Failed,
        };
        assert_eq!(self.state.phase(), expected);
        assert!(self.state.phase() != WorkflowPhase::Failed || failed, "a failed workflow has a failed node");
        assert!(self.state.phase() != WorkflowPhase::Canceled || self.cancel || self.delete);
        let left: Vec<_> = self.pods.iter().filter(|(_, f)| runs(f) || f.finalizer).collect();
        assert!(left.is_empty(), "pods are left: {left:#?}");
    }

    /// rebuild equals the state reached by events. Only meaningful at rest.
    pub(crate) fn check_rebuild(&self) {
        let mut out = Vec::new();
        let rebuilt = self.rebuilt(&mut out);
        assert_eq!(record(&rebuilt).phase, self.state.phase());
        for node in self.dag.ids() {
            let (a, b) = (rebuilt.node(node), self.state.node(node));
            assert_eq!(
                (a.phase, a.attempt, a.gang, a.members),
                (b.phase, b.attempt, b.gang, b.members),
                "rebuild differs at {node}\nrebuilt {a:#?}\nevents {b:#?}\npods {:#?}\ngang {:#?}",
                self.pods.iter().filter(|(k, _)| k.node == node).collect::<Vec<_>>(),
                self.gang_of(node),
            );
        }
    }

    /// The claimed nodes are exactly those that a naive reader of the Gangs would claim. Only at rest.
    pub(crate) fn check_released(&self) {
        let stopped = self.cancel || self.delete || self.state.cause().is_some();
        for node in self.dag.ids() {
            let ready =
                self.dag.ids().filter(|up| self.dag.downstream(*up).contains(&node)).all(|up| self.has_succeeded(up));
            let claimed = self.state.node(node).attempt > 0;
            assert!(!claimed || ready, "{node} is claimed before its upstream");
            assert!(claimed || !ready || stopped, "{node} is ready, and nobody claims it");
        }
    }

    /// Nodes whose plan is to fail.
    pub(crate) fn failing(&self) -> &BTreeSet<NodeIx> {
        &self.failing
    }

    pub(crate) fn pods(&self) -> &BTreeMap<MemberKey, PodFacts> {
        &self.pods
    }
}

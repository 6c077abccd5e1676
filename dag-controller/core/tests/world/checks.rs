//! What must hold at rest and at the end.

use super::reference::{Fate, tale};
use super::{World, record, runs};
use flowforge_dag_controller_core::{
    Class, MemberKey, MemberOutcome, NodeIx, NodePhase, PodFacts, Reason, WorkflowPhase,
};
use std::collections::{BTreeMap, BTreeSet};

impl World {
    /// How the ended world looks to a reader who knows only the graph and the Gangs: by the rules, without the engine.
    pub(crate) fn check_end(&self) {
        assert!(self.state.phase().is_over(), "heals_when_faults_stop: it never ends\n{:?}", self.state);
        assert_eq!(self.written.phase, self.state.phase(), "the last status is written");
        let (fates, ever) = (self.fates_as_seen(), self.fates());
        let stopped = self.cancel || self.delete || self.state.stopped_by().is_some();
        let mut all_well = true;
        for node in self.dag.ids() {
            self.check_roles(node);
            let phase = self.state.node(node).phase;
            let end = self.gang_of(node).and_then(|g| g.ended.as_ref());
            match phase {
                NodePhase::Succeeded => {
                    assert!(self.has_succeeded(node), "{node} succeeded without a record");
                    self.check_outputs(node);
                }
                NodePhase::Failed => {
                    all_well &= fates[node.at()] == Fate::Tolerated;
                    assert!(end.is_none_or(|e| !e.succeeded), "{node} failed, its Gang did not");
                }
                NodePhase::Skipped => {
                    all_well &= self.check_skip(node, [fates[node.at()], ever[node.at()]]);
                    assert!(end.is_none_or(|e| !e.succeeded && e.started_at_ms.is_none()));
                }
                other => unreachable!("{node} is {other:?} at the end"),
            }
            let unclaimed = self.state.node(node).attempt == 0;
            let excused = if self.dag.node(node).finally { self.delete } else { stopped };
            assert!(
                !unclaimed || fates[node.at()] != Fate::Runs || excused,
                "{node} was to run, and nobody claimed it"
            );
        }
        let failed = self.dag.ids().any(|n| self.state.node(n).phase == NodePhase::Failed);
        let expected = match (all_well, self.cancel || self.delete) {
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

    /// A gang with roles has ended as the ends of its members say.
    fn check_roles(&self, node: NodeIx) {
        let Some(roles) = self.dag.node(node).roles.as_deref() else { return };
        for (key, gang) in self.gangs_of(node) {
            let Some(end) = &gang.ended else { continue };
            let mut last: BTreeMap<u32, MemberOutcome> = BTreeMap::new();
            for (member, end) in &gang.results {
                last.insert(member.rank, end.outcome);
            }
            let tale = tale(roles, &last);
            if end.succeeded {
                assert!(tale.done && !tale.broken, "{key:?} has succeeded: {tale:?} {roles:#?} {last:?}");
            } else if matches!(end.cause.reason, Reason::MemberFailed | Reason::MemberDeleted) {
                assert!(tale.broken, "{key:?} has failed, and could go on: {tale:?} {roles:#?} {last:?}");
            }
        }
    }

    /// The outputs of a node are what its members said, each rank once, whatever crashed in between.
    fn check_outputs(&self, node: NodeIx) {
        let spec = self.dag.node(node);
        let Some(end) = self.gang_of(node).and_then(|g| g.ended.as_ref()) else { return };
        if spec.outputs.is_none() {
            assert_eq!(end.outputs, "", "{node} declares none");
            return;
        }
        let outputs: serde_json::Value = serde_json::from_str(&end.outputs).unwrap_or_default();
        let ranks: Vec<u32> = (0..spec.replicas).collect();
        assert_eq!(outputs["rank"], serde_json::json!(ranks), "{node}");
        let again = outputs["incarnation"].as_u64().unwrap_or(u64::MAX);
        assert!(again < 1_000, "{node}: rank 0 said nothing");
        assert_eq!(outputs["silent"], serde_json::Value::Null, "{node}");
    }

    /// A skipped node was stopped, or is one that the reference skips for the same reason; whether the latter. A run that was seen
    /// may have been forgotten since: then it is skipped by what was seen.
    fn check_skip(&self, node: NodeIx, fates: [Fate; 2]) -> bool {
        let reason = self.state.node(node).cause.map_or(Reason::NodeFailed, |cause| cause.reason);
        if reason.class() != Class::Skipped {
            return false;
        }
        let expected = if reason.is_bypass() { Fate::Passed } else { Fate::Never };
        assert!(fates.contains(&expected), "{node} is skipped for {reason}, not {fates:?}");
        true
    }

    /// rebuild equals the state reached by events. Only meaningful at rest.
    pub(crate) fn check_rebuild(&self) {
        let mut out = Vec::new();
        let rebuilt = self.rebuilt(&mut out);
        assert_eq!(record(&rebuilt).phase, self.state.phase());
        for node in self.dag.ids() {
            let (a, b) = (rebuilt.node(node), self.state.node(node));
            assert_eq!(
                a.degraded_since_ms.is_some(),
                b.degraded_since_ms.is_some(),
                "{node} is degraded, or not\n{a:#?}\n{b:#?}"
            );
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
        let stopped = self.cancel || self.delete || self.state.stopped_by().is_some();
        let (fates, ever) = (self.fates_as_seen(), self.fates());
        for node in self.dag.ids() {
            let (view, fate) = (self.state.node(node), fates[node.at()]);
            let claimed = view.attempt > 0;
            let excused = match self.dag.node(node).finally {
                true => self.delete || self.pods.values().any(runs),
                false => stopped,
            };
            assert!(
                claimed || fate != Fate::Runs || excused || self.dag.node(node).approval,
                "{node} is ready, and nobody claims it: {view:?} {:?} {fates:?} {:?}",
                self.dag.node(node),
                self.state.stopped_by()
            );
            // An earlier attempt of what it waits for may have run.
            assert!(!claimed || fate != Fate::Waits || ever[node.at()] != Fate::Waits, "{node} is claimed too early");
            let skipped = view.phase == NodePhase::Skipped;
            assert_eq!(skipped, matches!(fate, Fate::Passed | Fate::Never), "{node} is {:?}, not {fate:?}", view.phase);
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

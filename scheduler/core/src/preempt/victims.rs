//! The victims on one node: the fewest and least important, as kube-scheduler finds them, who must leave so that a pod fits.
//!
//! All units below the pod's priority leave; when the pod fits then, they come back one by one, those first whose eviction
//! would break a budget, the most important first, and stay where the pod still fits. Where only requests and the pod count
//! matter, that is counted; else it is tried out.

use super::unit::{Unit, units_below, with_those_above};
use super::{Candidate, Rank};
use crate::demand::{Demand, Ground};
use crate::explain::Reason;
use crate::gang::Gangs;
use crate::plugins::{node_declared_features, node_resources_fit};
use crate::shape::{ShapeSpec, Verdict};
use crate::snapshot::{Cluster, NodeId, PodId, Snapshot, Trial, beside};
use std::sync::Arc;

/// What is the same for every node.
pub(super) struct Search<'a> {
    pod: PodId,
    priority: i32,
    spec: Arc<ShapeSpec>,
    ground: &'a Ground,
    gangs: &'a Gangs,
    /// Other pods do not matter to this one beyond what they ask of a node.
    plain: bool,
}

/// A node without some of its pods.
trait Scene {
    fn leave(&mut self, unit: &Unit);
    fn come_back(&mut self, unit: &Unit);
    /// Why the pod does not fit; empty where it does.
    fn refusals(&mut self) -> Vec<Reason>;
}

impl<'a> Search<'a> {
    /// A search for a pod; None where it is not known.
    pub(super) fn new(
        snapshot: &Snapshot,
        pod: PodId,
        spec: &Arc<ShapeSpec>,
        demand: &Demand,
        ground: &'a Ground,
        gangs: &'a Gangs,
    ) -> Option<Self> {
        let priority = snapshot.cluster().info(pod)?.priority;
        let plain = !demand.refuses() && spec.footprint.ports.is_empty() && spec.is_plain();
        Some(Self { pod, priority, spec: Arc::clone(spec), ground, gangs, plain })
    }

    /// The victims on a node.
    ///
    /// # Errors
    /// Why no eviction helps there.
    pub(super) fn victims(&self, snapshot: &mut Snapshot, node: NodeId) -> Result<Candidate, Vec<Reason>> {
        let cluster = snapshot.cluster();
        let units = units_below(cluster, self.gangs, [node], self.priority);
        if units.is_empty() {
            return Err(vec![Reason::NoVictims]);
        }
        let promised = cluster.promised(&cluster.node_name(node), self.pod, self.priority);
        let chosen = if self.plain && promised.iter().all(|pod| cluster.is_plain(*pod)) {
            self.choose(snapshot, units, |snapshot| self.counted(snapshot.cluster(), node, &promised))
        } else {
            self.try_out(snapshot, units, node, &promised)
        };
        let (victims, violations) = chosen?;
        if victims.is_empty() {
            return Err(vec![Reason::EvictionUseless]);
        }
        let rank = Rank::of(snapshot.cluster(), &victims, violations);
        Ok(Candidate { node, victims, rank })
    }

    /// As [`Self::victims`], whether or not counting would do.
    pub(super) fn try_out(
        &self,
        snapshot: &mut Snapshot,
        units: Vec<Unit>,
        node: NodeId,
        promised: &[PodId],
    ) -> Result<(Vec<PodId>, u32), Vec<Reason>> {
        let plan = Plan::new(snapshot, units);
        snapshot.try_out(|trial| plan.choose(&mut Moved { search: self, trial, node, promised }))
    }

    fn choose<'s>(
        &self,
        snapshot: &'s Snapshot,
        units: Vec<Unit>,
        scene: impl FnOnce(&'s Snapshot) -> Counted<'s>,
    ) -> Result<(Vec<PodId>, u32), Vec<Reason>> {
        Plan::new(snapshot, units).choose(&mut scene(snapshot))
    }

    fn counted<'s>(&self, cluster: &'s Cluster, node: NodeId, promised: &[PodId]) -> Counted<'s> {
        let free = |name: &str| cluster.free(node, name).unwrap_or(0);
        let lanes = self.spec.footprint.requests.iter().map(|(name, _)| free(name)).collect();
        let features = cluster
            .node(node)
            .is_some_and(|n| node_declared_features::fits(&self.spec.required_features, &n.info.declared_features));
        let spec = Arc::clone(&self.spec);
        let mut counted = Counted { cluster, node, spec, features, lanes, places: cluster.free_pods(node.index()) };
        promised.iter().for_each(|pod| counted.count(*pod, -1));
        counted
    }
}

/// Units in the order in which they come back.
struct Plan {
    units: Vec<Unit>,
    /// Pods of each whose eviction breaks a budget.
    violations: Vec<u32>,
}

impl Plan {
    fn new(snapshot: &Snapshot, mut units: Vec<Unit>) -> Self {
        units.sort_by_cached_key(Unit::importance);
        let mut spending = snapshot.budgets().spend();
        let violations: Vec<u32> =
            units.iter().map(|unit| unit.violations(snapshot.cluster(), &mut spending)).collect();
        Self { units, violations }
    }

    fn choose(&self, scene: &mut impl Scene) -> Result<(Vec<PodId>, u32), Vec<Reason>> {
        self.units.iter().for_each(|unit| scene.leave(unit));
        let refused = scene.refusals();
        if !refused.is_empty() {
            return Err(refused);
        }
        let breaking = |breaks: bool| (0..self.units.len()).filter(move |at| (self.violations[*at] > 0) == breaks);
        let mut victims = Vec::new();
        for at in breaking(true).chain(breaking(false)) {
            scene.come_back(&self.units[at]);
            if !scene.refusals().is_empty() {
                scene.leave(&self.units[at]);
                victims.push(at);
            }
        }
        let victims = with_those_above(|at| &self.units[at], self.units.len(), &victims);
        let violations = victims.iter().map(|at| self.violations[*at]).sum();
        let pods = victims.iter().flat_map(|at| self.units[*at].pods.iter().map(|(pod, _)| *pod));
        Ok((pods.collect(), violations))
    }
}

/// Pods are moved in a trial, and the filters asked.
struct Moved<'t, 's> {
    search: &'t Search<'t>,
    trial: &'t mut Trial<'s>,
    node: NodeId,
    promised: &'t [PodId],
}

impl Scene for Moved<'_, '_> {
    fn leave(&mut self, unit: &Unit) {
        unit.pods.iter().for_each(|(pod, _)| self.trial.take_off(*pod));
    }

    fn come_back(&mut self, unit: &Unit) {
        unit.pods.iter().for_each(|(pod, node)| self.trial.put_on(*pod, *node));
    }

    fn refusals(&mut self) -> Vec<Reason> {
        let Search { pod, spec, ground, .. } = self.search;
        if !self.promised.is_empty() {
            let refused = beside(self.trial, *pod, self.node, spec, ground, self.promised);
            self.promised.iter().for_each(|other| self.trial.take_off(*other));
            if !refused.is_empty() {
                return refused;
            }
        }
        beside(self.trial, *pod, self.node, spec, ground, &[])
    }
}

/// What is free is counted.
struct Counted<'s> {
    cluster: &'s Cluster,
    node: NodeId,
    spec: Arc<ShapeSpec>,
    features: bool,
    /// Free amounts in the order of the shape's requests.
    lanes: Vec<i64>,
    places: i64,
}

impl Counted<'_> {
    fn count(&mut self, pod: PodId, sign: i64) {
        let Some(footprint) = self.cluster.footprint_of(pod) else { return };
        for ((name, _), free) in self.spec.footprint.requests.iter().zip(&mut self.lanes) {
            *free = free.saturating_add(sign.saturating_mul(footprint.request(name)));
        }
        self.places += sign;
    }
}

impl Scene for Counted<'_> {
    fn leave(&mut self, unit: &Unit) {
        unit.on(self.node).for_each(|pod| self.count(pod, 1));
    }

    fn come_back(&mut self, unit: &Unit) {
        unit.on(self.node).for_each(|pod| self.count(pod, -1));
    }

    fn refusals(&mut self) -> Vec<Reason> {
        let wanted = self.spec.footprint.requests.iter().map(|(_, wanted)| *wanted).zip(self.lanes.iter().copied());
        let short = Verdict::fit(node_resources_fit::short(self.places, wanted));
        if short.is_feasible() && !self.features {
            return Verdict::FEATURES.reasons(&self.spec);
        }
        short.reasons(&self.spec)
    }
}

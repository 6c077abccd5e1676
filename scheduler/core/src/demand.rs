//! What a pod asks of a node beyond its shape, and the look at every node for a pod that asks so: `O(nodes · rules)`, where
//! the demand only refuses nodes `O(changed nodes · rules)`.
//!
//! Pods of one shape share what the cache of the shape knows. What tells them apart is made when one of them asks: the pods
//! that matter to it. A node's reason is that of the first failing filter in the order of [`crate::profile::Filter::ALL`],
//! so NodeDeclaredFeatures, which the shape knows and which comes last, speaks only where nothing here does.

use crate::cycle::named_nodes;
use crate::devices::{ClaimInfo, DeviceDemand, DeviceView};
use crate::explain::{Reason, Refusal, Seen};
use crate::relations::{Inclusion, Ranking, Relation, Tallies, View};
use crate::shape::{Extremes, NodeEval, RawScore, ShapeId, ShapeSpec, Verdict, evaluation, total, verdict};
use crate::snapshot::{Cluster, NodeId, Snapshot};
use crate::volumes::{VolumeDemand, VolumeView};
use smol_str::SmolStr;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What there is to say about one node.
#[derive(Clone, Debug)]
pub(crate) struct Considered {
    pub(crate) node: NodeId,
    pub(crate) eval: NodeEval,
    /// Why the demand refuses it: what the first filter has against it.
    pub(crate) refused: Vec<Reason>,
    /// Why it refuses the pod beside those that it was promised to; these come first.
    pub(crate) reserved: Vec<Reason>,
}

impl Considered {
    pub(crate) fn is_feasible(&self) -> bool {
        self.eval.verdict.is_feasible() && self.refused.is_empty() && self.reserved.is_empty()
    }

    /// Why the pod may not stand there, in the order of the profile.
    pub(crate) fn reasons(&self, spec: &ShapeSpec) -> Vec<Reason> {
        if !self.reserved.is_empty() {
            return self.reserved.clone();
        }
        if self.refused.is_empty() { self.eval.verdict.reasons(spec) } else { self.refused.clone() }
    }
}

/// What tells a pod from others of its shape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demand {
    /// What its volumes ask for.
    pub(crate) volumes: Option<VolumeDemand>,
    /// The rules that other pods give it.
    pub(crate) relation: Option<Relation>,
    /// Nodes that are promised to pods of at least its priority, beside which it does not fit; and why.
    pub(crate) reserved: BTreeMap<u32, Vec<Reason>>,
    /// The weight of their score, and its ResourceClaims.
    pub(crate) devices: Option<(i64, DeviceDemand)>,
}

impl Demand {
    /// Whether it asks for anything at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.volumes.is_none() && self.relation.is_none() && self.devices.is_none() && self.reserved.is_empty()
    }

    /// Whether it can refuse a node that the shape does not: then the pod's answer is its own. Reservations are not meant:
    /// they refuse all pods of a shape and priority alike.
    pub(crate) fn refuses(&self) -> bool {
        self.volumes.is_some() || self.devices.is_some() || self.relation.as_ref().is_some_and(Relation::refuses)
    }

    /// Whether it scores nodes too.
    pub(crate) fn ranks(&self) -> bool {
        self.volumes.as_ref().is_some_and(VolumeDemand::ranks)
            || self.devices.as_ref().is_some_and(|(weight, demand)| *weight > 0 && demand.scores())
            || self.relation.as_ref().is_some_and(Relation::ranks)
    }

    /// The sums of its relation over these nodes, from scratch.
    fn tallies(&self, cluster: &Cluster, known: &[u32], inclusion: impl Fn(u32) -> Inclusion) -> Tallies {
        let sums = |relation| Tallies::of(relation, &cluster.relations, known.iter().copied(), inclusion);
        self.relation.as_ref().map(sums).unwrap_or_default()
    }

    /// What it says about nodes as they are now, with the sums of its relation.
    pub(crate) fn view<'a>(&'a self, cluster: &'a Cluster, tallies: Cow<'a, Tallies>) -> DemandView<'a> {
        let relation = self.relation.as_ref().map(|r| View::new(r, &cluster.relations, tallies));
        let devices = self.devices.as_ref().map(|(weight, demand)| DeviceView::new(*weight, demand, cluster));
        DemandView {
            volumes: self.volumes.as_ref().map(|volumes| VolumeView::new(volumes, cluster)),
            relation,
            devices,
        }
    }
}

/// A demand against the nodes of one moment.
pub(crate) struct DemandView<'a> {
    volumes: Option<VolumeView<'a>>,
    relation: Option<View<'a>>,
    devices: Option<DeviceView<'a>>,
}

impl DemandView<'_> {
    /// Why a node is refused that the shape's filters before NodeDeclaredFeatures let pass; the first in profile order.
    pub(crate) fn refuse(&self, node: NodeId) -> Option<Reason> {
        let volumes = self.volumes.as_ref().and_then(|view| view.refuse(node)).map(Reason::Volume);
        let related = || self.relation.as_ref().and_then(|view| view.refuse(node.dense()));
        volumes.or_else(related).or_else(|| self.devices.as_ref().and_then(|view| view.refuse(node)))
    }

    /// Everything that the first failing filter has against a node.
    fn reasons(&self, node: NodeId) -> Vec<Reason> {
        match (self.refuse(node), &self.volumes) {
            (Some(Reason::Volume(first)), Some(volumes)) => {
                volumes.reasons(node, first).into_iter().map(Reason::Volume).collect()
            }
            (first, _) => first.into_iter().collect(),
        }
    }

    /// Scores of the feasible nodes, in their order.
    pub(crate) fn rank(&self, feasible: &[u32], known: &[u32], inclusion: impl Fn(u32) -> Inclusion) -> Ranking {
        let ranking = self.relation.as_ref().map(|view| view.rank(feasible, known, inclusion)).unwrap_or_default();
        let volumes = self.volumes.as_ref().map(|view| feasible.iter().map(|node| view.score(*node)).collect());
        let devices = self.devices.as_ref().and_then(|view| view.rank(feasible));
        Ranking { volumes, devices, ..ranking }
    }
}

/// What is needed to look at one node for a pod of a shape, and that no pod on a node changes.
#[derive(Debug)]
pub(crate) struct Ground {
    known: Vec<u32>,
    inclusion: Vec<Inclusion>,
}

impl Ground {
    /// For a shape. `O(nodes)`.
    pub(crate) fn of(snapshot: &mut Snapshot, shape: ShapeId, spec: &ShapeSpec) -> Self {
        if spec.pinned().is_none()
            && let Some((cache, _, cluster)) = snapshot.view_with_cluster(shape)
        {
            let all = 0..u32::try_from(cluster.nodes.bound()).unwrap_or(u32::MAX);
            return Self { known: cache.known(), inclusion: all.map(|node| cache.node(node).inclusion).collect() };
        }
        let cluster = snapshot.cluster();
        let mut ground = Self { known: Vec::new(), inclusion: vec![Inclusion::default(); cluster.nodes.bound()] };
        for (id, _) in cluster.nodes.iter().filter(|(_, node)| !node.placeholder) {
            ground.known.push(id.dense());
            ground.inclusion[id.index()] = evaluation(id, spec, cluster).inclusion;
        }
        ground
    }
}

/// Why a pod may not stand on a node, evaluated from scratch; empty where it may. Reservations are not looked at.
/// `O(lanes)`, and `O(nodes · rules)` where other pods matter.
pub(crate) fn refusals(
    cluster: &Cluster,
    node: NodeId,
    spec: &ShapeSpec,
    demand: &Demand,
    ground: &Ground,
) -> Vec<Reason> {
    let verdict = verdict(node, spec, cluster);
    if demand.refuses() && (verdict.is_feasible() || verdict == Verdict::FEATURES) {
        let inclusion = |node: u32| ground.inclusion.get(node as usize).copied().unwrap_or_default();
        let tallies = Cow::Owned(demand.tallies(cluster, &ground.known, inclusion));
        let refused = demand.view(cluster, tallies).reasons(node);
        if !refused.is_empty() {
            return refused;
        }
    }
    verdict.reasons(spec)
}

/// Whether a node takes a pod with this demand.
pub(crate) fn takes(snapshot: &mut Snapshot, shape: ShapeId, spec: &ShapeSpec, demand: &Demand, node: NodeId) -> bool {
    if demand.reserved.contains_key(&node.dense()) {
        return false;
    }
    let ground = Ground::of(snapshot, shape, spec);
    refusals(snapshot.cluster(), node, spec, demand, &ground).is_empty()
}

/// Every node that is looked at for a pod, in id order, and the scores of the feasible ones in the same order.
pub(crate) fn consider(
    snapshot: &mut Snapshot,
    shape: ShapeId,
    spec: &ShapeSpec,
    demand: &Demand,
) -> (Vec<Considered>, Ranking) {
    if spec.pinned().is_some() {
        let cluster = snapshot.cluster();
        let mut nodes = named_nodes(spec, cluster);
        nodes.sort_unstable();
        let evaluated = nodes.into_iter().map(|id| (id, evaluation(id, spec, cluster))).collect();
        let inclusion = |node: u32| {
            cluster.nodes.at(node).map(|(id, _)| evaluation(id, spec, cluster).inclusion).unwrap_or_default()
        };
        let known: Vec<u32> =
            cluster.nodes.iter().filter(|(_, node)| !node.placeholder).map(|(id, _)| id.dense()).collect();
        return judge(cluster, &known, evaluated, demand, inclusion);
    }
    let Some((cache, _, cluster)) = snapshot.view_with_cluster(shape) else { return Default::default() };
    let known = cache.known();
    let id = |node: &u32| cluster.nodes.at(*node).map(|(id, _)| (id, cache.node(*node)));
    let evaluated = known.iter().filter_map(id).collect();
    judge(cluster, &known, evaluated, demand, |node| cache.node(node).inclusion)
}

fn judge(
    cluster: &Cluster,
    known: &[u32],
    evaluated: Vec<(NodeId, NodeEval)>,
    demand: &Demand,
    inclusion: impl Fn(u32) -> Inclusion,
) -> (Vec<Considered>, Ranking) {
    let view = demand.view(cluster, Cow::Owned(demand.tallies(cluster, known, &inclusion)));
    let reserved = |node: NodeId| demand.reserved.get(&node.dense()).cloned().unwrap_or_default();
    let refuse = |node: NodeId, verdict: Verdict| {
        let asked = verdict.is_feasible() || verdict == Verdict::FEATURES;
        if asked { view.reasons(node) } else { Vec::new() }
    };
    let considered: Vec<Considered> = evaluated
        .into_iter()
        .map(|(node, eval)| Considered { node, eval, refused: refuse(node, eval.verdict), reserved: reserved(node) })
        .collect();
    let feasible: Vec<u32> = considered.iter().filter(|c| c.is_feasible()).map(|c| c.node.dense()).collect();
    let ranking = view.rank(&feasible, known, &inclusion);
    (considered, ranking)
}

/// The best node for a pod with this demand, as upstream scores it; among equals the lowest index.
///
/// # Errors
/// The refusal, when no node takes it.
pub(crate) fn find(
    snapshot: &mut Snapshot,
    shape: ShapeId,
    spec: &ShapeSpec,
    demand: &Demand,
) -> Result<NodeId, Box<Refusal>> {
    if spec.pinned().is_none()
        && let Some(node) = best(snapshot, shape, spec, demand)
    {
        return Ok(node);
    }
    look_at_all(snapshot, shape, spec, demand)
}

/// The same by a look at every node.
pub(crate) fn look_at_all(
    snapshot: &mut Snapshot,
    shape: ShapeId,
    spec: &ShapeSpec,
    demand: &Demand,
) -> Result<NodeId, Box<Refusal>> {
    let (considered, ranking) = consider(snapshot, shape, spec, demand);
    let feasible = || considered.iter().filter(|c| c.is_feasible());
    let extremes = Extremes::of(feasible().map(|c| &c.eval.raw));
    let scored = feasible().enumerate().map(|(at, c)| (total(c.eval.raw, extremes, spec) + ranking.total(at), c.node));
    let best = scored.max_by_key(|(score, node)| (*score, std::cmp::Reverse(*node)));
    best.map(|(_, node)| node).ok_or_else(|| Box::new(Refusal::Nodes(seen(&considered, spec, snapshot.cluster()))))
}

/// The same from the cache alone, without a word about the nodes that are refused. `O(changed nodes · rules)` and the nodes
/// that are refused before one is not; a demand that scores nodes costs `O(nodes · rules)`.
fn best(snapshot: &mut Snapshot, shape: ShapeId, spec: &ShapeSpec, demand: &Demand) -> Option<NodeId> {
    let (cache, tallies, cluster) = snapshot.view_related(shape, demand.relation.as_ref(), false)?;
    let view = demand.view(cluster, Cow::Borrowed(tallies));
    let id = |node: u32| cluster.nodes.at(node).map(|(id, _)| id);
    let refused = |id: NodeId| demand.reserved.contains_key(&id.dense()) || view.refuse(id).is_some();
    let takes = |node: u32| id(node).is_some_and(|id| !refused(id));
    if !demand.ranks() {
        return cache.best_where(spec, takes).and_then(id);
    }
    let known = cache.known();
    let inclusion = |node| cache.node(node).inclusion;
    let feasible = known.iter().copied().filter(|node| cache.node(*node).verdict.is_feasible() && takes(*node));
    let feasible: Vec<u32> = feasible.collect();
    let ranking = view.rank(&feasible, &known, inclusion);
    let raws: Vec<RawScore> = feasible.iter().map(|node| cache.node(*node).raw).collect();
    let extremes = Extremes::of(raws.iter());
    let scored = raws.iter().zip(&feasible).enumerate();
    let totals = scored.map(|(at, (raw, node))| (total(*raw, extremes, spec) + ranking.total(at), *node));
    let (_, node) = totals.max_by_key(|(score, node)| (*score, std::cmp::Reverse(*node)))?;
    id(node)
}

/// The counted reasons; nodes that were not looked at are those that the pod does not name.
pub(crate) fn seen(considered: &[Considered], spec: &ShapeSpec, cluster: &Cluster) -> Seen {
    let total = cluster.node_count();
    let mut seen = Seen { total, ..Seen::default() };
    for reason in considered.iter().flat_map(|c| c.reasons(spec)) {
        seen.add(reason, 1);
    }
    seen.add(Reason::NotNamed, u32::try_from(total.saturating_sub(considered.len())).unwrap_or(u32::MAX));
    seen
}

/// The claim of a refused pod that is to be given up: the first that is idle and that some node, which would do otherwise,
/// cannot use. `O(nodes · rules)` where there is an idle one.
pub(crate) fn stuck_claim(
    snapshot: &mut Snapshot,
    shape: ShapeId,
    demand: &Demand,
    pod: &SmolStr,
) -> Option<Arc<ClaimInfo>> {
    let idle = demand.devices.as_ref().map(|(_, devices)| devices.idle(pod)).filter(|idle| !idle.is_empty())?;
    let spec = snapshot.shape(shape)?.spec.clone();
    let (considered, _) = consider(snapshot, shape, &spec, demand);
    let cluster = snapshot.cluster();
    let elsewhere = |c: &&Considered| c.reserved.is_empty() && c.refused.contains(&Reason::ClaimElsewhere);
    let nodes: Vec<_> = considered.iter().filter(elsewhere).filter_map(|c| cluster.node(c.node)).collect();
    idle.into_iter().find(|claim| nodes.iter().any(|node| claim.is_unusable_on(&node.info)))
}

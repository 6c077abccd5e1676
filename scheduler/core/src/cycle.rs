//! One pod on its own: the best feasible node, or why there is none.

use crate::demand::{self, Demand};
use crate::explain::{Reason, Refusal, Seen};
use crate::shape::{Shape, ShapeCache, ShapeId, ShapeSpec, Verdict, best_of, verdict};
use crate::snapshot::{Cluster, NodeId, PodId, Snapshot};
use std::collections::BTreeMap;

/// Finds a place for a pod: see [`find_for`].
///
/// # Errors
/// The refusal, when no node takes it.
pub fn find(snapshot: &mut Snapshot, pod: PodId) -> Result<NodeId, Box<Refusal>> {
    let shape = snapshot.cluster().pod(pod).and_then(|p| p.shape);
    let demand = snapshot.demand(pod);
    shape.map_or_else(|| Err(Box::new(Refusal::Nodes(Seen::default()))), |shape| find_for(snapshot, shape, &demand))
}

/// Finds a place for a pod of this shape. `O(changes since the shape was last looked at + buckets)`; a pod that names its
/// nodes costs `O(named nodes)` and keeps no cache; one that asks for more than its shape costs `O(nodes)`.
///
/// # Errors
/// The refusal, when no node takes it.
pub(crate) fn find_for(
    snapshot: &mut Snapshot,
    shape: ShapeId,
    demand: &Result<Demand, Reason>,
) -> Result<NodeId, Box<Refusal>> {
    let Some(spec) = snapshot.shape(shape).map(|s| s.spec.clone()) else {
        return Err(Box::new(Refusal::Nodes(Seen::default())));
    };
    let total = snapshot.cluster().node_count();
    if total == 0 {
        return Err(Box::new(Refusal::Nodes(Seen::default())));
    }
    let demand = match demand {
        _ if let Some(reason) = spec.refused_anyway() => return Err(Box::new(Refusal::PreFilter { total, reason })),
        Err(reason) => return Err(Box::new(Refusal::PreFilter { total, reason: reason.clone() })),
        Ok(demand) => demand,
    };
    if !demand.is_empty() {
        return demand::find(snapshot, shape, &spec, demand);
    }
    if spec.pinned().is_some() {
        let nodes = named_nodes(&spec, snapshot.cluster());
        return best_of(&nodes, &spec, snapshot.cluster())
            .ok_or_else(|| Box::new(refuse_named(&nodes, &spec, snapshot.cluster())));
    }
    match snapshot.best(shape).and_then(|index| snapshot.cluster().nodes.at(index)) {
        Some((node, _)) => Ok(node),
        None => Err(Box::new(Refusal::Nodes(seen(snapshot, shape)))),
    }
}

/// How many nodes could take a pod of this shape now; what is asked before refused pods are tried again.
#[must_use]
pub fn feasible(snapshot: &mut Snapshot, shape: ShapeId) -> usize {
    let Some(spec) = snapshot.shape(shape).map(|s| s.spec.clone()) else { return 0 };
    if spec.refused_anyway().is_some() {
        return 0;
    }
    if spec.pinned().is_none() {
        return snapshot.view(shape).map_or(0, ShapeCache::feasible);
    }
    let nodes = named_nodes(&spec, snapshot.cluster());
    nodes.iter().filter(|n| verdict(**n, &spec, snapshot.cluster()).is_feasible()).count()
}

/// The same without the nodes that are promised to others, or reserved, that this pod must stand back for.
pub(crate) fn feasible_for(snapshot: &mut Snapshot, pod: PodId, shape: ShapeId) -> usize {
    let all = feasible(snapshot, shape);
    if all == 0 || !(snapshot.any_nominated() || snapshot.reservations().in_force()) {
        return all;
    }
    let Ok(demand) = snapshot.demand(pod) else { return 0 };
    let Some(spec) = snapshot.shape(shape).map(|s| s.spec.clone()) else { return 0 };
    let cluster = snapshot.cluster();
    let would_take =
        |index: &&u32| cluster.nodes.at(**index).is_some_and(|(id, _)| verdict(id, &spec, cluster).is_feasible());
    all.saturating_sub(demand.reserved.keys().filter(would_take).count())
}

/// The node that the pod was promised, where it takes the pod now: it is not searched any further then.
pub(crate) fn nominated(
    snapshot: &mut Snapshot,
    pod: PodId,
    shape: ShapeId,
    demand: &Result<Demand, Reason>,
) -> Option<NodeId> {
    let node = snapshot.nominated_node(pod)?;
    let spec = snapshot.shape(shape)?.spec.clone();
    let demand = demand.as_ref().ok().filter(|_| spec.refused_anyway().is_none())?;
    demand::takes(snapshot, shape, &spec, demand, node).then_some(node)
}

pub(crate) fn named_nodes(spec: &ShapeSpec, cluster: &Cluster) -> Vec<NodeId> {
    let named = spec.pinned().unwrap_or_default();
    let known = |id: &NodeId| cluster.node(*id).is_some_and(|n| !n.placeholder);
    named.iter().filter_map(|name| cluster.find_node(name)).filter(known).collect()
}

fn refuse_named(nodes: &[NodeId], spec: &ShapeSpec, cluster: &Cluster) -> Refusal {
    let total = cluster.node_count();
    let mut seen = Seen { total, ..Seen::default() };
    for node in nodes {
        for reason in verdict(*node, spec, cluster).reasons(spec) {
            seen.add(reason, 1);
        }
    }
    seen.add(Reason::NotNamed, u32::try_from(total - nodes.len()).unwrap_or(u32::MAX));
    Refusal::Nodes(seen)
}

/// The counted reasons of all nodes for a shape.
pub(crate) fn seen(snapshot: &mut Snapshot, shape: ShapeId) -> Seen {
    let total = snapshot.cluster().node_count();
    let mut seen = Seen { total, ..Seen::default() };
    if snapshot.view(shape).is_none() {
        return seen;
    }
    if let Some((cache, shape)) = snapshot.shape(shape).and_then(|s: &Shape| Some((s.cache()?, s))) {
        count(cache.histogram(), &shape.spec, &mut seen);
    }
    seen
}

/// Counts the reasons of a histogram.
pub(crate) fn count(histogram: &BTreeMap<Verdict, u32>, spec: &ShapeSpec, seen: &mut Seen) {
    for (verdict, nodes) in histogram {
        for reason in verdict.reasons(spec) {
            seen.add(reason, *nodes);
        }
    }
}

/// The counted reasons of all nodes for a shape, where nodes outside a domain count as that. `O(nodes)`.
pub(crate) fn seen_within(
    cache: &ShapeCache,
    shape: &Shape,
    cluster: &Cluster,
    domain: flowforge_topology_core::DomainId,
) -> Seen {
    let mut seen = Seen { total: cluster.node_count(), ..Seen::default() };
    let mut histogram = BTreeMap::new();
    let mut outside = 0;
    for (id, _) in cluster.nodes.iter().filter(|(_, n)| !n.placeholder) {
        let verdict = cache.node(id.dense()).verdict;
        let inside = cluster.leaf(id).is_some_and(|leaf| cluster.tree().contains(domain, leaf));
        if inside || !verdict.is_feasible() {
            *histogram.entry(verdict).or_default() += 1;
        } else {
            outside += 1;
        }
    }
    count(&histogram, &shape.spec, &mut seen);
    seen.add(Reason::OutsideDomain(cluster.tree().describe(domain)), outside);
    seen
}

//! A pod that other pods matter to: every node is looked at with its relations, `O(nodes · rules)`.

use crate::cycle::named_nodes;
use crate::explain::{Reason, Refusal, Seen};
use crate::relations::{Inclusion, Ranking, Relation, View};
use crate::shape::{Extremes, NodeEval, RawScore, ShapeId, ShapeSpec, Verdict, evaluation, total};
use crate::snapshot::{Cluster, NodeId, Snapshot};

/// What there is to say about one node.
#[derive(Clone, Debug)]
pub(crate) struct Considered {
    pub(crate) node: NodeId,
    pub(crate) eval: NodeEval,
    /// Why the relations refuse it.
    pub(crate) refused: Option<Reason>,
}

impl Considered {
    pub(crate) fn is_feasible(&self) -> bool {
        self.eval.verdict.is_feasible() && self.refused.is_none()
    }

    /// Why the pod may not stand there, in the order of the profile.
    pub(crate) fn reasons(&self, spec: &ShapeSpec) -> Vec<Reason> {
        self.refused.clone().map_or_else(|| self.eval.verdict.reasons(spec), |reason| vec![reason])
    }
}

/// Every node that is looked at for a pod, in id order, and the scores of the feasible ones in the same order.
pub(crate) fn consider(
    snapshot: &mut Snapshot,
    shape: ShapeId,
    spec: &ShapeSpec,
    relation: Option<&Relation>,
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
        return judge(cluster, &known, evaluated, relation, inclusion);
    }
    let Some((cache, _, cluster)) = snapshot.view_with_cluster(shape) else { return Default::default() };
    let known = cache.known();
    let id = |node: &u32| cluster.nodes.at(*node).map(|(id, _)| (id, cache.node(*node)));
    let evaluated = known.iter().filter_map(id).collect();
    judge(cluster, &known, evaluated, relation, |node| cache.node(node).inclusion)
}

fn judge(
    cluster: &Cluster,
    known: &[u32],
    evaluated: Vec<(NodeId, NodeEval)>,
    relation: Option<&Relation>,
    inclusion: impl Fn(u32) -> Inclusion,
) -> (Vec<Considered>, Ranking) {
    let view = relation.map(|relation| View::new(relation, &cluster.relations, known, &inclusion));
    let refuse = |node: NodeId, verdict: Verdict| {
        let asked = verdict.is_feasible() || verdict == Verdict::FEATURES;
        view.as_ref().filter(|_| asked).and_then(|view| view.refuse(node.dense()))
    };
    let considered: Vec<Considered> = evaluated
        .into_iter()
        .map(|(node, eval)| Considered { node, eval, refused: refuse(node, eval.verdict) })
        .collect();
    let feasible: Vec<u32> = considered.iter().filter(|c| c.is_feasible()).map(|c| c.node.dense()).collect();
    let ranking = view.map(|view| view.rank(&feasible, known, &inclusion)).unwrap_or_default();
    (considered, ranking)
}

/// The best node for a pod with these relations, as upstream scores it; among equals the lowest index.
///
/// # Errors
/// The refusal, when no node takes it.
pub(crate) fn find(
    snapshot: &mut Snapshot,
    shape: ShapeId,
    spec: &ShapeSpec,
    relation: &Relation,
) -> Result<NodeId, Box<Refusal>> {
    if spec.pinned().is_none()
        && let Some(node) = best(snapshot, shape, spec, relation)
    {
        return Ok(node);
    }
    let (considered, ranking) = consider(snapshot, shape, spec, Some(relation));
    let feasible = || considered.iter().filter(|c| c.is_feasible());
    let extremes = Extremes::of(feasible().map(|c| &c.eval.raw));
    let scored = feasible().enumerate().map(|(at, c)| (total(c.eval.raw, extremes, spec) + ranking.total(at), c.node));
    let best = scored.max_by_key(|(score, node)| (*score, std::cmp::Reverse(*node)));
    best.map(|(_, node)| node).ok_or_else(|| Box::new(Refusal::Nodes(seen(&considered, spec, snapshot.cluster()))))
}

/// The same from the cache alone, without a word about the nodes that are refused.
fn best(snapshot: &mut Snapshot, shape: ShapeId, spec: &ShapeSpec, relation: &Relation) -> Option<NodeId> {
    let (cache, _, cluster) = snapshot.view_with_cluster(shape)?;
    let known = cache.known();
    let inclusion = |node| cache.node(node).inclusion;
    let view = View::new(relation, &cluster.relations, &known, inclusion);
    let takes = |node: &u32| cache.node(*node).verdict.is_feasible() && view.refuse(*node).is_none();
    let feasible: Vec<u32> = known.iter().copied().filter(takes).collect();
    let ranking = view.rank(&feasible, &known, inclusion);
    let raws: Vec<RawScore> = feasible.iter().map(|node| cache.node(*node).raw).collect();
    let extremes = Extremes::of(raws.iter());
    let scored = raws.iter().zip(&feasible).enumerate();
    let totals = scored.map(|(at, (raw, node))| (total(*raw, extremes, spec) + ranking.total(at), *node));
    let (_, node) = totals.max_by_key(|(score, node)| (*score, std::cmp::Reverse(*node)))?;
    cluster.nodes.at(node).map(|(id, _)| id)
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

//! What the rules say about every node for one pod, as the cycle sees it: refusals with their reasons, and scores per
//! rule. `O(nodes)`; for people who ask and for the comparison with kube-scheduler, not for the hot path.

use crate::cycle::named_nodes;
use crate::explain::Reason;
use crate::shape::{Extremes, NodeEval, ShapeId, ShapeSpec, evaluation, scores};
use crate::snapshot::{Cluster, NodeId, Snapshot};
use smol_str::SmolStr;

/// What the rules say about one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// Name of the node.
    pub node: SmolStr,
    /// Why not; empty where the pod may stand.
    pub reasons: Vec<Reason>,
    /// Weighted scores by rule, normalised over the feasible nodes; rules that have nothing to say about the pod are left
    /// out. Empty where the pod may not stand.
    pub scores: Vec<(&'static str, i64)>,
}

/// The opinion on every node, in no particular order. Empty when the shape ended.
#[must_use]
pub fn opinions(snapshot: &mut Snapshot, shape: ShapeId) -> Vec<Opinion> {
    let Some(spec) = snapshot.shape(shape).map(|s| s.spec.clone()) else { return Vec::new() };
    let before_nodes = if spec.unbound_claims {
        Some(Reason::UnboundClaims)
    } else if spec.pinned().is_some_and(|named| named.is_empty()) {
        Some(Reason::AffinityConflict)
    } else {
        None
    };
    let evaluated = if before_nodes.is_some() { Vec::new() } else { evaluate(snapshot, shape, &spec) };
    let cluster = snapshot.cluster();
    let extremes =
        Extremes::of(evaluated.iter().map(|(_, eval)| eval).filter(|e| e.verdict.is_feasible()).map(|e| &e.raw));
    let of = |id: NodeId, name: &SmolStr| {
        let eval = evaluated.binary_search_by_key(&id, |(node, _)| *node).ok().map(|at| evaluated[at].1);
        let (reasons, scores) = match (eval, &before_nodes) {
            (_, Some(reason)) => (vec![reason.clone()], Vec::new()),
            (None, None) => (vec![Reason::NotNamed], Vec::new()),
            (Some(eval), None) if eval.verdict.is_feasible() => {
                (Vec::new(), scores(id, eval.raw, extremes, &spec, cluster))
            }
            (Some(eval), None) => (eval.verdict.reasons(&spec), Vec::new()),
        };
        Opinion { node: name.clone(), reasons, scores }
    };
    cluster.nodes.iter().filter(|(_, n)| !n.placeholder).map(|(id, n)| of(id, &n.info.name)).collect()
}

/// The nodes that are looked at, sorted by id: as the cycle does, from the cache or, for a pod that names nodes, anew.
fn evaluate(snapshot: &mut Snapshot, shape: ShapeId, spec: &ShapeSpec) -> Vec<(NodeId, NodeEval)> {
    let mut evaluated: Vec<(NodeId, NodeEval)> = if spec.pinned().is_some() {
        let cluster: &Cluster = snapshot.cluster();
        named_nodes(spec, cluster).into_iter().map(|id| (id, evaluation(id, spec, cluster))).collect()
    } else {
        let Some((cache, _, cluster)) = snapshot.view_with_cluster(shape) else { return Vec::new() };
        let known = cluster.nodes.iter().filter(|(_, n)| !n.placeholder);
        known.map(|(id, _)| (id, cache.node(id.dense()))).collect()
    };
    evaluated.sort_unstable_by_key(|(id, _)| *id);
    evaluated
}

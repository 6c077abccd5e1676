//! What the rules say about every node for one pod, as the cycle sees it: refusals with their reasons, and scores per
//! rule. `O(nodes)`; for people who ask and for the comparison with kube-scheduler, not for the hot path.

use crate::demand::{Considered, consider};
use crate::explain::Reason;
use crate::plugins::{dynamic_resources, inter_pod_affinity, pod_topology_spread, volume_binding};
use crate::relations::Ranking;
use crate::shape::{Extremes, scores};
use crate::snapshot::{PodId, Snapshot};
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

/// The opinion on every node, in no particular order. Empty when the pod does not wait for a place.
#[must_use]
pub fn opinions(snapshot: &mut Snapshot, pod: PodId) -> Vec<Opinion> {
    let Some(shape) = snapshot.cluster().pod(pod).and_then(|p| p.shape) else { return Vec::new() };
    let Some(spec) = snapshot.shape(shape).map(|s| s.spec.clone()) else { return Vec::new() };
    let demand = snapshot.demand(pod);
    let before_nodes = spec.refused_anyway().or_else(|| demand.as_ref().err().cloned());
    let (considered, ranking) = match (&before_nodes, &demand) {
        (None, Ok(demand)) => consider(snapshot, shape, &spec, demand),
        _ => (Vec::new(), Ranking::default()),
    };
    let cluster = snapshot.cluster();
    let feasible: Vec<&Considered> = considered.iter().filter(|c| c.is_feasible()).collect();
    let extremes = Extremes::of(feasible.iter().map(|c| &c.eval.raw));
    let of = |id, name: &SmolStr| {
        let found = considered.binary_search_by_key(&id, |c| c.node).ok().map(|at| &considered[at]);
        let (reasons, scores) = match (found, &before_nodes) {
            (_, Some(reason)) => (vec![reason.clone()], Vec::new()),
            (None, None) => (vec![Reason::NotNamed], Vec::new()),
            (Some(found), None) => match feasible.binary_search_by_key(&id, |c| c.node) {
                Ok(at) => {
                    let mut all = scores(id, found.eval.raw, extremes, &spec, cluster);
                    all.extend(relational(&ranking, at));
                    // Upstream scores every pod by it.
                    if spec.profile.weights.volume_binding != 0 {
                        all.push((volume_binding::NAME, ranking.volumes.as_ref().map_or(0, |scores| scores[at])));
                    }
                    if spec.profile.weights.dynamic_resources > 0 {
                        all.push((dynamic_resources::NAME, ranking.devices_total(at)));
                    }
                    (Vec::new(), all)
                }
                Err(_) => (found.reasons(&spec), Vec::new()),
            },
        };
        Opinion { node: name.clone(), reasons, scores }
    };
    cluster.nodes.iter().filter(|(_, n)| !n.placeholder).map(|(id, n)| of(id, &n.info.name)).collect()
}

fn relational(ranking: &Ranking, at: usize) -> impl Iterator<Item = (&'static str, i64)> {
    let spread = ranking.spread.as_ref().map(|s| (pod_topology_spread::NAME, ranking.weights[0] * s[at]));
    let affinity = ranking.affinity.as_ref().map(|s| (inter_pod_affinity::NAME, ranking.weights[1] * s[at]));
    spread.into_iter().chain(affinity)
}

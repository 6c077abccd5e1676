//! From raw facts to weighted scores, by the weights and arguments of the shape's profile.

use super::ShapeSpec;
use super::cache::RawScore;
use crate::plugins::{
    image_locality, node_affinity, node_resources_balanced_allocation, node_resources_fit, normalize, taint_toleration,
};
use crate::profile::{Lane, Scored};
use crate::snapshot::{Cluster, NodeId};

/// Largest raw scores of the feasible nodes, which normalisation depends on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extremes {
    taints: i64,
    affinity: i64,
}

impl Extremes {
    /// The extremes of these.
    pub(crate) fn of<'a>(raws: impl Iterator<Item = &'a RawScore>) -> Self {
        raws.fold(Self::default(), |max, raw| Self {
            taints: max.taints.max(i64::from(raw.taints)),
            affinity: max.affinity.max(raw.affinity),
        })
    }
}

fn taint_score(raw: RawScore, extremes: Extremes, spec: &ShapeSpec) -> i64 {
    spec.profile.weights.taint_toleration * normalize(i64::from(raw.taints), extremes.taints, true)
}

/// Only pods with preferred terms, of their own or of their profile, are scored by them.
fn affinity_score(raw: RawScore, extremes: Extremes, spec: &ShapeSpec) -> Option<i64> {
    let scored = !spec.preferred.is_empty() || !spec.profile.added_affinity.preferred.is_empty();
    scored.then(|| spec.profile.weights.node_affinity * normalize(raw.affinity, extremes.affinity, false))
}

/// Weighted sum of the normalised scores.
pub(crate) fn total(raw: RawScore, extremes: Extremes, spec: &ShapeSpec) -> i64 {
    taint_score(raw, extremes, spec) + affinity_score(raw, extremes, spec).unwrap_or(0) + raw.resources
}

/// The addends of a node's total by rule; a rule that has nothing to say about the pod, or no weight, is left out.
pub(crate) fn scores(
    id: NodeId,
    raw: RawScore,
    extremes: Extremes,
    spec: &ShapeSpec,
    cluster: &Cluster,
) -> Vec<(&'static str, i64)> {
    let weights = spec.profile.weights;
    let all = [
        (taint_toleration::NAME, weights.taint_toleration, Some(taint_score(raw, extremes, spec))),
        (node_affinity::NAME, weights.node_affinity, affinity_score(raw, extremes, spec)),
        (node_resources_fit::NAME, weights.node_resources_fit, Some(fit_score(id, spec, cluster))),
        (node_resources_balanced_allocation::NAME, weights.balanced_allocation, balanced_score(id, spec, cluster)),
        (image_locality::NAME, weights.image_locality, Some(image_score(id, spec, cluster))),
    ];
    all.into_iter().filter(|(_, weight, _)| *weight > 0).filter_map(|(name, _, score)| Some((name, score?))).collect()
}

/// The scores that need no normalisation: resources and images.
pub(super) fn resource_score(id: NodeId, spec: &ShapeSpec, cluster: &Cluster) -> i64 {
    let weights = spec.profile.weights;
    let mut sum = 0;
    if weights.node_resources_fit > 0 {
        sum += fit_score(id, spec, cluster);
    }
    if weights.balanced_allocation > 0 {
        sum += balanced_score(id, spec, cluster).unwrap_or(0);
    }
    if weights.image_locality > 0 {
        sum += image_score(id, spec, cluster);
    }
    sum
}

pub(super) fn image_score(id: NodeId, spec: &ShapeSpec, cluster: &Cluster) -> i64 {
    let worth = cluster.node(id).map_or(0, |node| cluster.images_worth(node, &spec.images));
    spec.profile.weights.image_locality * image_locality::score(worth, spec.images.len())
}

fn fit_score(id: NodeId, spec: &ShapeSpec, cluster: &Cluster) -> i64 {
    let resources = scored(id, &spec.profile.fit.resources, &spec.scoring, cluster, false);
    let after = resources.map(|(weight, used, request, all)| (weight, used.saturating_add(request), all));
    spec.profile.weights.node_resources_fit * spec.profile.fit.strategy.score(after)
}

/// None for pods that ask for none of the resources.
fn balanced_score(id: NodeId, spec: &ShapeSpec, cluster: &Cluster) -> Option<i64> {
    if spec.balanced.iter().all(|request| *request == 0) {
        return None;
    }
    let resources = scored(id, &spec.profile.balanced, &spec.balanced, cluster, true);
    let around = resources.map(|(_, used, request, all)| (used, used.saturating_add(request), all));
    Some(spec.profile.weights.balanced_allocation * node_resources_balanced_allocation::score(around))
}

/// (weight, in use, request, allocatable) of the resources that count on a node for a pod with these requests.
fn scored<'a>(
    id: NodeId,
    resources: &'a [Scored],
    requests: &'a [i64],
    cluster: &'a Cluster,
    real: bool,
) -> impl Iterator<Item = (i64, i64, i64, i64)> + Clone + 'a {
    resources.iter().zip(requests).filter_map(move |(resource, request)| {
        if *request == 0 && matches!(resource.lane, Lane::Extended(_)) {
            return None;
        }
        let (used, allocatable) = cluster.scored(id.index(), resource.lane, real)?;
        Some((resource.weight, used, *request, allocatable))
    })
}

//! The sums over places that pods of one shape asked about lately, kept up to date by the change log.

use super::ShapeCache;
use super::Verdict;
use crate::relations::{Relation, Tallies};
use crate::snapshot::Cluster;

/// Relations that are remembered for one shape: templates that ask for the same resources may differ in their labels.
const KEPT: usize = 8;

/// One relation and its sums.
#[derive(Clone, Debug)]
struct Standing {
    relation: Relation,
    synced: u64,
    /// Of the relations that the sums were made from.
    epoch: (u64, u64),
    tallies: Tallies,
}

/// The last few relations, the latest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Related {
    recent: Vec<Standing>,
    none: Tallies,
}

impl Related {
    /// The sums of a relation as of now; `cache` is in sync. `O(changed nodes · rules)`, for one that was not asked about
    /// lately `O(nodes · rules)`.
    pub(super) fn sync(&mut self, relation: Option<&Relation>, cache: &ShapeCache, cluster: &Cluster) -> &Tallies {
        let Some(relation) = relation else { return &self.none };
        let (epoch, now) = (cluster.relations.epoch(), cluster.changes.seq());
        let known = self.recent.iter().position(|standing| standing.relation == *relation);
        let kept = known.map(|at| self.recent.remove(at)).filter(|standing| standing.epoch == epoch);
        let synced = kept.and_then(|mut standing| {
            let changed = cluster.changes.since(standing.synced)?;
            changed.for_each(|node| {
                let eval = cache.node(node);
                let inclusion = (eval.verdict != Verdict::ABSENT).then_some(eval.inclusion);
                standing.tallies.update(node, inclusion, relation, &cluster.relations);
            });
            Some(Standing { synced: now, ..standing })
        });
        let standing = synced.unwrap_or_else(|| {
            let inclusion = |node| cache.node(node).inclusion;
            let tallies = Tallies::of(relation, &cluster.relations, cache.known().into_iter(), inclusion);
            Standing { relation: relation.clone(), synced: now, epoch, tallies }
        });
        self.recent.truncate(KEPT - 1);
        self.recent.insert(0, standing);
        self.recent.first().map_or(&self.none, |standing| &standing.tallies)
    }

    /// Rough size in bytes.
    pub(super) fn weight(&self) -> usize {
        self.recent.iter().map(|standing| size_of::<Standing>() + standing.tallies.weight()).sum()
    }
}

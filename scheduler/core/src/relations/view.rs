//! The relations of one pod as the cluster stands now: how many are in each place, and what that means for a node.

use super::Relations;
use super::columns::{ABSENT, Column, Columns, KeyId};
use super::counts::Counts;
use super::relate::{Relation, Source};
use super::tally::{Tallies, Tally, is_counted};
use crate::explain::Reason;
use crate::plugins::{inter_pod_affinity, pod_topology_spread};
use std::borrow::Cow;

/// Whether a node counts for spread, by the pod's node affinity and by its tolerations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inclusion {
    pub(crate) affinity: bool,
    pub(crate) taints: bool,
}

/// The relations of one pod as of now.
pub(crate) struct View<'a> {
    relation: &'a Relation,
    columns: &'a Columns,
    counts: &'a Counts,
    tallies: Cow<'a, Tallies>,
    /// By hard constraint: the least of any place that counts.
    fewest: Vec<i64>,
    /// Nobody matches the required affinity yet, and the pod would match itself.
    may_be_first: bool,
}

impl<'a> View<'a> {
    /// With the sums of the relation as of now. `O(rules)`.
    pub(crate) fn new(relation: &'a Relation, relations: &'a Relations, tallies: Cow<'a, Tallies>) -> Self {
        let constraints = tallies.hard.iter().zip(&relation.hard);
        let fewest = constraints.map(|(tally, spread)| tally.fewest(spread.min_domains)).collect();
        let nobody = tallies.near.iter().all(Tally::is_empty);
        let may_be_first = nobody && relation.affinity.as_ref().is_some_and(|affinity| affinity.matches_itself);
        let Relations { columns, counts, .. } = relations;
        Self { relation, columns, counts, tallies, fewest, may_be_first }
    }

    /// Why the pod may not stand on a node, in the order of the profile; None: it may. `O(rules)`.
    pub(crate) fn refuse(&self, node: u32) -> Option<Reason> {
        let value = |key: &KeyId| self.columns.get(*key).of(node);
        for ((spread, tally), fewest) in self.relation.hard.iter().zip(&self.tallies.hard).zip(&self.fewest) {
            let value = value(&spread.key);
            if value == ABSENT {
                return Some(Reason::SpreadLabel);
            }
            if !pod_topology_spread::fits(tally.pods(value), spread.matches_itself, *fewest, spread.max_skew) {
                return Some(Reason::Spread);
            }
        }
        if !self.is_near(node) {
            return Some(Reason::PodAffinity);
        }
        let mut anti = self.relation.anti.iter().zip(&self.tallies.anti);
        if anti.any(|((_, key), tally)| tally.pods(value(key)) > 0) {
            return Some(Reason::PodAntiAffinity);
        }
        let mut against = self.relation.against.iter().zip(&self.tallies.against);
        against.any(|((_, key), tally)| tally.pods(value(key)) > 0).then_some(Reason::ExistingAntiAffinity)
    }

    /// Whether every term of required affinity has a pod in the node's place.
    fn is_near(&self, node: u32) -> bool {
        let mut all = true;
        let keys = self.relation.affinity.iter().flat_map(|affinity| &affinity.keys);
        for (key, tally) in keys.zip(&self.tallies.near) {
            match self.columns.get(*key).of(node) {
                // Without the key there is no place, also for the first.
                ABSENT => return false,
                value => all &= tally.pods(value) > 0,
            }
        }
        all || self.may_be_first
    }
}

/// Scores over the feasible nodes, normalised; by node of the list that it was made for.
#[derive(Debug, Default)]
pub(crate) struct Ranking {
    /// PodTopologySpread's; None where it has nothing to say.
    pub(crate) spread: Option<Vec<i64>>,
    /// InterPodAffinity's; None where it has nothing to say.
    pub(crate) affinity: Option<Vec<i64>>,
    /// Weights of the two.
    pub(crate) weights: [i64; 2],
    /// VolumeBinding's, weighted; None where it is 0 everywhere.
    pub(crate) volumes: Option<Vec<i64>>,
    /// DynamicResources' and its weight; None where all are 0.
    pub(crate) devices: Option<(i64, Vec<i64>)>,
}

impl Ranking {
    /// Weighted sum for the node at this position.
    pub(crate) fn total(&self, at: usize) -> i64 {
        let of = |scores: &Option<Vec<i64>>, weight| scores.as_ref().map_or(0, |s| weight * s[at]);
        let related = of(&self.spread, self.weights[0]) + of(&self.affinity, self.weights[1]);
        related + of(&self.volumes, 1) + self.devices_total(at)
    }

    /// Weighted score of DynamicResources for the node at this position.
    pub(crate) fn devices_total(&self, at: usize) -> i64 {
        self.devices.as_ref().map_or(0, |(weight, scores)| weight * scores[at])
    }
}

impl View<'_> {
    /// Scores these nodes, all of which may take the pod. `O(nodes · rules)`.
    pub(crate) fn rank(&self, feasible: &[u32], known: &[u32], inclusion: impl Fn(u32) -> Inclusion) -> Ranking {
        Ranking {
            spread: (!self.relation.soft.is_empty()).then(|| self.rank_spread(feasible, known, &inclusion)),
            affinity: self.rank_affinity(feasible, known),
            weights: self.relation.weights,
            volumes: None,
            devices: None,
        }
    }

    fn rank_spread(&self, feasible: &[u32], known: &[u32], inclusion: &impl Fn(u32) -> Inclusion) -> Vec<i64> {
        let soft = &self.relation.soft;
        let in_all = |node: u32| soft.iter().all(|spread| self.columns.get(spread.key).of(node) != ABSENT);
        let is_scored = |node: u32| !self.relation.all_keys || in_all(node);
        let scored: Vec<u32> = feasible.iter().copied().filter(|node| is_scored(*node)).collect();
        let counted: Vec<u32> = known.iter().copied().filter(|node| is_scored(*node)).collect();
        let mut raw = vec![0.0; feasible.len()];
        for spread in soft {
            let column = self.columns.get(spread.key);
            let selected = spread.selection.and_then(|id| self.counts.selected(id));
            let count_of = |node: u32| selected.map_or(0, |count| u64::from(count.of(node)));
            let (size, per_value) = if spread.by_host {
                (scored.len(), Vec::new())
            } else {
                let mut per_value = vec![0; column.len()];
                for &node in counted.iter().filter(|node| is_counted(spread, inclusion(**node))) {
                    if let Some(sum) = per_value.get_mut(column.of(node) as usize) {
                        *sum += count_of(node);
                    }
                }
                (places_among(&scored, column), per_value)
            };
            let weight = pod_topology_spread::weight(size);
            for (raw, &node) in raw.iter_mut().zip(feasible).filter(|(_, node)| is_scored(**node)) {
                let value = column.of(node);
                if value != ABSENT {
                    let count = if spread.by_host { count_of(node) } else { per_value[value as usize] };
                    *raw += pod_topology_spread::share(count, spread.max_skew, weight);
                }
            }
        }
        let rounded = |at: usize| is_scored(feasible[at]).then(|| round(raw[at]));
        let least = (0..raw.len()).filter_map(rounded).min().unwrap_or(i64::MAX);
        let most = (0..raw.len()).filter_map(rounded).max().unwrap_or(0).max(0);
        (0..raw.len()).map(|at| pod_topology_spread::normalize(rounded(at), least, most)).collect()
    }

    fn rank_affinity(&self, feasible: &[u32], known: &[u32]) -> Option<Vec<i64>> {
        if self.relation.scored.is_empty() {
            return None;
        }
        let mut raw = vec![0_i64; feasible.len()];
        let mut anybody = false;
        for (source, key, weight) in &self.relation.scored {
            let count = match source {
                Source::Selected(id) => self.counts.selected(*id),
                Source::Holders(id) => self.counts.holders(*id),
            };
            let Some(count) = count.filter(|count| count.total() > 0) else { continue };
            let column = self.columns.get(*key);
            let mut per_value = vec![0_i64; column.len()];
            for &node in known.iter().filter(|node| count.of(**node) > 0) {
                if let Some(sum) = per_value.get_mut(column.of(node) as usize) {
                    *sum += weight * i64::from(count.of(node));
                    anybody = true;
                }
            }
            for (raw, node) in raw.iter_mut().zip(feasible) {
                *raw += per_value.get(column.of(*node) as usize).copied().unwrap_or(0);
            }
        }
        let (least, most) = (raw.iter().copied().min()?, raw.iter().copied().max()?);
        anybody.then(|| raw.iter().map(|raw| inter_pod_affinity::normalize(*raw, least, most)).collect())
    }
}

/// How many places these nodes are in; nodes without the key are in one that they share, with those whose value is empty.
fn places_among(nodes: &[u32], column: &Column) -> usize {
    let mut seen = vec![false; column.len()];
    let mut outside = false;
    for node in nodes {
        match seen.get_mut(column.of(*node) as usize) {
            Some(seen) => *seen = true,
            None => outside = true,
        }
    }
    let shared = column.find("").is_some_and(|empty| seen[empty as usize]);
    seen.into_iter().filter(|seen| *seen).count() + usize::from(outside && !shared)
}

#[expect(clippy::cast_possible_truncation, reason = "as upstream: weights and counts are small")]
fn round(raw: f64) -> i64 {
    raw.round() as i64
}

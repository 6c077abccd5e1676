//! The relations of one pod as the cluster stands now: how many are in each place, and what that means for a node.

use super::Relations;
use super::columns::{ABSENT, Column, Columns};
use super::counts::{Counts, PerNode};
use super::relate::{Affinity, Relation, Source, Spread};
use crate::explain::Reason;
use crate::plugins::{inter_pod_affinity, pod_topology_spread};

/// Whether a node counts for spread, by the pod's node affinity and by its tolerations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inclusion {
    pub(crate) affinity: bool,
    pub(crate) taints: bool,
}

/// The places of a hard constraint.
struct Places<'a> {
    spread: &'a Spread,
    column: &'a Column,
    /// Matching pods by value of the key.
    counts: Vec<i64>,
    /// The least of any place that counts.
    fewest: i64,
}

/// The places of required affinity.
struct Near<'a> {
    columns: Vec<&'a Column>,
    /// By term: whether a pod that matches all terms stands in the place of this value.
    occupied: Vec<Vec<bool>>,
    /// Nobody matches yet, and the pod would match itself.
    may_be_first: bool,
}

/// Places where a pod may not stand, by value of a key.
struct Forbidden<'a> {
    column: &'a Column,
    occupied: Vec<bool>,
}

/// The relations of one pod as of now.
pub(crate) struct View<'a> {
    relation: &'a Relation,
    columns: &'a Columns,
    counts: &'a Counts,
    places: Vec<Places<'a>>,
    near: Option<Near<'a>>,
    anti: Vec<Forbidden<'a>>,
    against: Vec<Forbidden<'a>>,
}

impl<'a> View<'a> {
    /// Looks at every node once per rule; `known` are the nodes that exist.
    pub(crate) fn new(
        relation: &'a Relation,
        relations: &'a Relations,
        known: &[u32],
        inclusion: impl Fn(u32) -> Inclusion,
    ) -> Self {
        let Relations { columns, counts, .. } = relations;
        let hard: Vec<&Column> = relation.hard.iter().map(|spread| columns.get(spread.key)).collect();
        let in_all = |node: &&u32| hard.iter().all(|column| column.of(**node) != ABSENT);
        let eligible: Vec<u32> =
            if hard.is_empty() { Vec::new() } else { known.iter().filter(in_all).copied().collect() };
        let forbidden = |column: &'a Column, count: Option<&PerNode>| Forbidden {
            column,
            occupied: occupied(column, count, known),
        };
        Self {
            relation,
            columns,
            counts,
            places: relation.hard.iter().map(|s| places(s, columns, counts, &eligible, &inclusion)).collect(),
            near: relation.affinity.as_ref().map(|affinity| near(affinity, columns, counts, known)),
            anti: relation.anti.iter().map(|(of, key)| forbidden(columns.get(*key), counts.selected(*of))).collect(),
            against: relation
                .against
                .iter()
                .map(|(of, key)| forbidden(columns.get(*key), counts.holders(*of)))
                .collect(),
        }
    }

    /// Why the pod may not stand on a node, in the order of the profile; None: it may. `O(rules)`.
    pub(crate) fn refuse(&self, node: u32) -> Option<Reason> {
        for places in &self.places {
            let value = places.column.of(node);
            if value == ABSENT {
                return Some(Reason::SpreadLabel);
            }
            let count = places.counts.get(value as usize).copied().unwrap_or(0);
            let Spread { matches_itself, max_skew, .. } = *places.spread;
            if !pod_topology_spread::fits(count, matches_itself, places.fewest, max_skew) {
                return Some(Reason::Spread);
            }
        }
        if self.near.as_ref().is_some_and(|near| !near.takes(node)) {
            return Some(Reason::PodAffinity);
        }
        if self.anti.iter().any(|forbidden| forbidden.holds(node)) {
            return Some(Reason::PodAntiAffinity);
        }
        self.against.iter().any(|forbidden| forbidden.holds(node)).then_some(Reason::ExistingAntiAffinity)
    }
}

impl Near<'_> {
    fn takes(&self, node: u32) -> bool {
        let mut all = true;
        for (column, occupied) in self.columns.iter().zip(&self.occupied) {
            match column.of(node) {
                // Without the key there is no place, also for the first.
                ABSENT => return false,
                value => all &= occupied.get(value as usize).copied().unwrap_or(false),
            }
        }
        all || self.may_be_first
    }
}

impl Forbidden<'_> {
    fn holds(&self, node: u32) -> bool {
        self.occupied.get(self.column.of(node) as usize).copied().unwrap_or(false)
    }
}

fn is_counted(spread: &Spread, inclusion: Inclusion) -> bool {
    (!spread.honor_affinity || inclusion.affinity) && (!spread.honor_taints || inclusion.taints)
}

fn places<'a>(
    spread: &'a Spread,
    columns: &'a Columns,
    counts: &Counts,
    eligible: &[u32],
    inclusion: &impl Fn(u32) -> Inclusion,
) -> Places<'a> {
    let column = columns.get(spread.key);
    let selected = spread.selection.and_then(|id| counts.selected(id));
    let mut per_value = vec![0; column.len()];
    let mut exists = vec![false; column.len()];
    for &node in eligible.iter().filter(|node| is_counted(spread, inclusion(**node))) {
        let value = column.of(node) as usize;
        exists[value] = true;
        per_value[value] += selected.map_or(0, |count| i64::from(count.of(node)));
    }
    let there = || per_value.iter().zip(&exists).filter(|(_, exists)| **exists).map(|(count, _)| *count);
    let enough = there().count() >= spread.min_domains as usize;
    // Where no place counts at all, the fewest are more than any.
    let fewest = if enough { there().min().unwrap_or(i64::from(i32::MAX)) } else { 0 };
    Places { spread, column, counts: per_value, fewest }
}

fn near<'a>(affinity: &'a Affinity, columns: &'a Columns, counts: &Counts, known: &[u32]) -> Near<'a> {
    let columns: Vec<&Column> = affinity.keys.iter().map(|key| columns.get(*key)).collect();
    let selected = counts.selected(affinity.selection);
    let occupied: Vec<Vec<bool>> = columns.iter().map(|column| occupied(column, selected, known)).collect();
    let nobody = occupied.iter().flatten().all(|occupied| !occupied);
    Near { columns, occupied, may_be_first: nobody && affinity.matches_itself }
}

/// By value of a key: whether anybody stands in that place.
fn occupied(column: &Column, count: Option<&PerNode>, known: &[u32]) -> Vec<bool> {
    let mut occupied = vec![false; column.len()];
    let Some(count) = count.filter(|count| count.total() > 0) else { return occupied };
    for &node in known.iter().filter(|node| count.of(**node) > 0) {
        if let Some(place) = occupied.get_mut(column.of(node) as usize) {
            *place = true;
        }
    }
    occupied
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
}

impl Ranking {
    /// Weighted sum for the node at this position.
    pub(crate) fn total(&self, at: usize) -> i64 {
        let of = |scores: &Option<Vec<i64>>, weight| scores.as_ref().map_or(0, |s| weight * s[at]);
        of(&self.spread, self.weights[0]) + of(&self.affinity, self.weights[1])
    }
}

impl View<'_> {
    /// Scores these nodes, all of which may take the pod. `O(nodes · rules)`.
    pub(crate) fn rank(&self, feasible: &[u32], known: &[u32], inclusion: impl Fn(u32) -> Inclusion) -> Ranking {
        Ranking {
            spread: (!self.relation.soft.is_empty()).then(|| self.rank_spread(feasible, known, &inclusion)),
            affinity: self.rank_affinity(feasible, known),
            weights: self.relation.weights,
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

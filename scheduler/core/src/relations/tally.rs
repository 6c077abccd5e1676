//! Sums over places, kept up to date node by node: how many pods of each rule of a relation stand in each place.
//!
//! ```text
//!   change log ──node──> what the node gives to each rule now ──difference──> pods and nodes per place, the fewest of any
//! ```
//! Pods of one template ask the same question again and again, and between two of them one node has changed. A change costs
//! `O(rules · log places)`, making the sums `O(nodes · rules)`.

use super::Relations;
use super::columns::{ABSENT, Column};
use super::counts::PerNode;
use super::relate::{Relation, Spread};
use super::view::Inclusion;
use std::collections::BTreeMap;

/// One place: the pods that count there, and the nodes that make it exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    pods: i64,
    nodes: u32,
}

/// The sums of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// By value of the key.
    places: Vec<Place>,
    /// What each node gives: to which value ([`ABSENT`]: to none), and how many pods.
    given: Vec<(u32, u32)>,
    /// How many of the places that exist have so many pods.
    with_pods: BTreeMap<i64, u32>,
    /// How many places exist.
    existing: usize,
    /// Places with a pod.
    occupied: usize,
}

impl Tally {
    /// A node gives so many pods to a place now, or nothing; `O(log places)`.
    fn set(&mut self, node: u32, now: Option<(u32, u32)>) {
        let at = node as usize;
        let now = now.unwrap_or((ABSENT, 0));
        if self.given.len() <= at {
            if now.0 == ABSENT {
                return;
            }
            self.given.resize(at + 1, (ABSENT, 0));
        }
        let before = std::mem::replace(&mut self.given[at], now);
        if before == now {
            return;
        }
        self.add(before, -1);
        self.add(now, 1);
    }

    fn add(&mut self, (value, pods): (u32, u32), sign: i64) {
        if value == ABSENT {
            return;
        }
        let at = value as usize;
        if self.places.len() <= at {
            self.places.resize(at + 1, Place::default());
        }
        let before = self.places[at];
        let nodes = if sign < 0 { before.nodes.saturating_sub(1) } else { before.nodes + 1 };
        let after = Place { pods: before.pods + sign * i64::from(pods), nodes };
        self.places[at] = after;
        self.forget(before);
        if after.nodes > 0 {
            *self.with_pods.entry(after.pods).or_default() += 1;
            self.existing += 1;
            self.occupied += usize::from(after.pods > 0);
        }
    }

    fn forget(&mut self, place: Place) {
        if place.nodes == 0 {
            return;
        }
        self.existing -= 1;
        self.occupied -= usize::from(place.pods > 0);
        if let Some(places) = self.with_pods.get_mut(&place.pods) {
            *places -= 1;
            if *places == 0 {
                self.with_pods.remove(&place.pods);
            }
        }
    }

    /// Pods in a place.
    pub(super) fn pods(&self, value: u32) -> i64 {
        self.places.get(value as usize).map_or(0, |place| place.pods)
    }

    /// Whether no place has a pod.
    pub(super) fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// The fewest pods of any place; 0 where there are fewer places than `min_domains`, and more than any where there is none.
    pub(super) fn fewest(&self, min_domains: u32) -> i64 {
        let enough = self.existing >= min_domains as usize;
        if enough { self.with_pods.keys().next().copied().unwrap_or(i64::from(i32::MAX)) } else { 0 }
    }

    fn weight(&self) -> usize {
        size_of::<Place>() * self.places.len() + size_of::<(u32, u32)>() * self.given.len() + 24 * self.with_pods.len()
    }
}

/// The sums of all rules of a relation that refuse nodes, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tallies {
    pub(super) hard: Vec<Tally>,
    /// By term of required affinity.
    pub(super) near: Vec<Tally>,
    pub(super) anti: Vec<Tally>,
    pub(super) against: Vec<Tally>,
}

impl Tallies {
    /// The sums over these nodes.
    pub(crate) fn of(
        relation: &Relation,
        relations: &Relations,
        known: impl Iterator<Item = u32>,
        inclusion: impl Fn(u32) -> Inclusion,
    ) -> Self {
        let tallies = |rules: usize| vec![Tally::default(); rules];
        let mut all = Self {
            hard: tallies(relation.hard.len()),
            near: tallies(relation.affinity.as_ref().map_or(0, |affinity| affinity.keys.len())),
            anti: tallies(relation.anti.len()),
            against: tallies(relation.against.len()),
        };
        for node in known {
            all.update(node, Some(inclusion(node)), relation, relations);
        }
        all
    }

    /// A node changed; None: it is not known any more. `O(rules · log places)`.
    pub(crate) fn update(
        &mut self,
        node: u32,
        inclusion: Option<Inclusion>,
        relation: &Relation,
        relations: &Relations,
    ) {
        let Relations { columns, counts, .. } = relations;
        let in_all = relation.hard.iter().all(|spread| columns.get(spread.key).of(node) != ABSENT);
        for (tally, spread) in self.hard.iter_mut().zip(&relation.hard) {
            let counted = in_all && inclusion.is_some_and(|inclusion| is_counted(spread, inclusion));
            let pods = || spread.selection.and_then(|id| counts.selected(id)).map_or(0, |count| count.of(node));
            tally.set(node, counted.then(|| (columns.get(spread.key).of(node), pods())));
        }
        let occupies = |column: &Column, count: Option<&PerNode>| {
            let pods = inclusion.and_then(|_| count.map(|count| count.of(node)))?;
            (pods > 0).then(|| (column.of(node), pods))
        };
        if let Some(affinity) = &relation.affinity {
            let selected = counts.selected(affinity.selection);
            for (tally, key) in self.near.iter_mut().zip(&affinity.keys) {
                tally.set(node, occupies(columns.get(*key), selected));
            }
        }
        for (tally, (of, key)) in self.anti.iter_mut().zip(&relation.anti) {
            tally.set(node, occupies(columns.get(*key), counts.selected(*of)));
        }
        for (tally, (of, key)) in self.against.iter_mut().zip(&relation.against) {
            tally.set(node, occupies(columns.get(*key), counts.holders(*of)));
        }
    }

    /// Rough size in bytes.
    pub(crate) fn weight(&self) -> usize {
        [&self.hard, &self.near, &self.anti, &self.against].into_iter().flatten().map(Tally::weight).sum()
    }
}

/// Whether a node counts for a constraint.
pub(super) fn is_counted(spread: &Spread, inclusion: Inclusion) -> bool {
    (!spread.honor_affinity || inclusion.affinity) && (!spread.honor_taints || inclusion.taints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_follow_every_change() {
        let mut tally = Tally::default();
        tally.set(0, Some((0, 3)));
        tally.set(1, Some((1, 1)));
        tally.set(2, Some((1, 0)));
        assert_eq!((tally.pods(0), tally.pods(1), tally.fewest(1), tally.fewest(3)), (3, 1, 1, 0));
        tally.set(2, Some((2, 0)));
        assert_eq!((tally.fewest(3), tally.is_empty()), (0, false));
        tally.set(2, None);
        tally.set(1, Some((1, 7)));
        assert_eq!((tally.fewest(2), tally.pods(1)), (3, 7));
        (0..2).for_each(|node| tally.set(node, None));
        assert_eq!((tally.fewest(0), tally.is_empty()), (i64::from(i32::MAX), true));
    }
}

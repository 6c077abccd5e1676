//! Whether members may stand where they do, kept up to date while they are placed on trial.
//!
//! `O(rules of the member · levels)` for each question. Members that stand already count: a replacement goes where its segment
//! is. A node that is in no domain of a rule's level is refused, for nothing is known about it.

use super::layout::Layout;
use crate::snapshot::{Cluster, NodeId, PodId};
use flowforge_topology_core::{DomainId, LevelIndex};
use std::collections::BTreeMap;

/// The rules of a layout and who stands where.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) layout: &'a Layout,
    of: BTreeMap<PodId, Bound>,
    /// By tie: where its members stand, and how many.
    ties: Vec<(Option<DomainId>, u32)>,
    /// By rule: the side that a domain holds, and how many of it.
    apart: Vec<BTreeMap<DomainId, (usize, u32)>>,
    spread: Spreading,
    /// Who was placed, in this order.
    placed: Vec<(PodId, NodeId)>,
    /// Members that stood before anyone was placed.
    pub(super) standing: usize,
}

/// What binds a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bound {
    ties: Vec<usize>,
    /// Rule and side.
    apart: Vec<(usize, usize)>,
}

#[derive(Debug, Default)]
struct Spreading {
    /// Members by domain.
    on: BTreeMap<DomainId, u32>,
    /// Members without a place.
    waiting: u32,
    /// Most members of a domain.
    share: u32,
}

impl<'a> Rules<'a> {
    /// The rules as things stand.
    ///
    /// # Errors
    /// The level at which members that must stand together do not.
    pub(super) fn new(layout: &'a Layout, cluster: &Cluster) -> Result<Self, LevelIndex> {
        let mut of: BTreeMap<PodId, Bound> = BTreeMap::new();
        for (at, tie) in layout.ties.iter().enumerate() {
            tie.members.iter().for_each(|pod| of.entry(*pod).or_default().ties.push(at));
        }
        for (at, rule) in layout.apart.iter().enumerate() {
            for (side, members) in rule.sides.iter().enumerate() {
                members.iter().for_each(|pod| of.entry(*pod).or_default().apart.push((at, side)));
            }
        }
        let mut spread = Spreading::default();
        if let Some(rule) = &layout.spread {
            spread.waiting = u32::try_from(rule.members.len()).unwrap_or(u32::MAX);
            spread.share = spread.waiting.div_ceil(rule.min_domains);
            for pod in &rule.members {
                of.entry(*pod).or_default();
            }
        }
        let stands = |pod: &PodId| Some((*pod, cluster.pod(*pod)?.place.node()?));
        let standing: Vec<(PodId, NodeId)> = of.keys().filter_map(stands).collect();
        let (ties, apart) = (vec![(None, 0); layout.ties.len()], vec![BTreeMap::new(); layout.apart.len()]);
        let mut rules = Self { layout, of, ties, apart, spread, placed: Vec::new(), standing: standing.len() };
        for (pod, node) in standing {
            if let Some(level) = rules.torn(cluster, pod, node) {
                return Err(level);
            }
            rules.put(cluster, pod, node);
        }
        rules.placed.clear();
        Ok(rules)
    }

    /// The level of a tie that a member on a node breaks.
    fn torn(&self, cluster: &Cluster, pod: PodId, node: NodeId) -> Option<LevelIndex> {
        let levels = self.of.get(&pod).into_iter().flat_map(|bound| &bound.ties);
        levels.copied().find(|tie| !self.tie_allows(cluster, *tie, node)).map(|tie| self.layout.ties[tie].level)
    }

    fn tie_allows(&self, cluster: &Cluster, tie: usize, node: NodeId) -> bool {
        let domain = cluster.tree().domain_of(node.dense(), self.layout.ties[tie].level);
        domain.is_some() && (self.ties[tie].0.is_none() || self.ties[tie].0 == domain)
    }

    /// Whether a member may stand on a node beside those that do.
    pub(super) fn allow(&self, cluster: &Cluster, pod: PodId, node: NodeId) -> bool {
        let Some(bound) = self.of.get(&pod) else { return true };
        let apart = |(rule, side): &(usize, usize)| {
            let domain = cluster.tree().domain_of(node.dense(), self.layout.apart[*rule].level);
            domain.is_some_and(|domain| self.apart[*rule].get(&domain).is_none_or(|(holds, _)| holds == side))
        };
        bound.ties.iter().all(|tie| self.tie_allows(cluster, *tie, node))
            && bound.apart.iter().all(apart)
            && self.spread_allows(cluster, node)
    }

    /// A domain takes its share at most, and those who wait must be enough for the domains that are still to be reached.
    fn spread_allows(&self, cluster: &Cluster, node: NodeId) -> bool {
        let Some(rule) = &self.layout.spread else { return true };
        let Some(domain) = cluster.tree().domain_of(node.dense(), rule.level) else { return false };
        let has = self.spread.on.get(&domain).copied().unwrap_or(0);
        let reached = saturate(self.spread.on.len()) + u32::from(has == 0);
        let missing = rule.min_domains.saturating_sub(reached);
        has < self.spread.share && missing <= self.spread.waiting.saturating_sub(1)
    }

    /// A member was placed.
    pub(super) fn put(&mut self, cluster: &Cluster, pod: PodId, node: NodeId) {
        self.placed.push((pod, node));
        let Some(bound) = self.of.get(&pod) else { return };
        let tree = cluster.tree();
        for tie in &bound.ties {
            let (domain, count) = &mut self.ties[*tie];
            *domain = domain.or(tree.domain_of(node.dense(), self.layout.ties[*tie].level));
            *count += 1;
        }
        for (rule, side) in &bound.apart {
            if let Some(domain) = tree.domain_of(node.dense(), self.layout.apart[*rule].level) {
                self.apart[*rule].entry(domain).or_insert((*side, 0)).1 += 1;
            }
        }
        if let Some(rule) = &self.layout.spread {
            self.spread.waiting = self.spread.waiting.saturating_sub(1);
            if let Some(domain) = tree.domain_of(node.dense(), rule.level) {
                *self.spread.on.entry(domain).or_default() += 1;
            }
        }
    }

    /// Places members that stand on their nodes now, as far as the rules allow; whether they allow all.
    pub(super) fn put_all(&mut self, cluster: &Cluster, pods: &[PodId]) -> bool {
        pods.iter().all(|pod| {
            let Some(node) = cluster.pod(*pod).and_then(|p| p.place.node()) else { return false };
            let allowed = self.allow(cluster, *pod, node);
            if allowed {
                self.put(cluster, *pod, node);
            }
            allowed
        })
    }

    /// This point, to return to.
    pub(super) fn mark(&self) -> usize {
        self.placed.len()
    }

    /// Forgets who was placed since.
    pub(super) fn undo_to(&mut self, cluster: &Cluster, mark: usize) {
        while self.placed.len() > mark {
            if let Some((pod, node)) = self.placed.pop() {
                self.take(cluster, pod, node);
            }
        }
    }

    fn take(&mut self, cluster: &Cluster, pod: PodId, node: NodeId) {
        let Some(bound) = self.of.get(&pod) else { return };
        let tree = cluster.tree();
        for tie in &bound.ties {
            let (domain, count) = &mut self.ties[*tie];
            *count -= 1;
            if *count == 0 {
                *domain = None;
            }
        }
        for (rule, _) in &bound.apart {
            if let Some(domain) = tree.domain_of(node.dense(), self.layout.apart[*rule].level) {
                release(&mut self.apart[*rule], domain, |(_, count)| count);
            }
        }
        if let Some(rule) = &self.layout.spread {
            self.spread.waiting += 1;
            if let Some(domain) = tree.domain_of(node.dense(), rule.level) {
                release(&mut self.spread.on, domain, |count| count);
            }
        }
    }

    /// What binds a member: members of one shape that are bound alike are interchangeable.
    pub(super) fn bound(&self, pod: PodId) -> Bound {
        self.of.get(&pod).cloned().unwrap_or_default()
    }

    /// Where the members that a member is tied to stand: the narrowest such domain.
    pub(super) fn held(&self, pod: PodId) -> Option<DomainId> {
        let ties = self.of.get(&pod).into_iter().flat_map(|bound| &bound.ties);
        let held = ties.filter_map(|tie| Some((self.layout.ties[*tie].level, self.ties[*tie].0?)));
        held.max().map(|(_, domain)| domain)
    }

    /// Members of a domain at most, and domains at least, where they are spread.
    pub(super) fn share(&self) -> Option<(u32, LevelIndex, u32)> {
        self.layout.spread.as_ref().map(|rule| (self.spread.share, rule.level, rule.min_domains))
    }
}

/// One fewer in a domain; nothing is kept of one that has none.
fn release<T>(counts: &mut BTreeMap<DomainId, T>, domain: DomainId, count: impl Fn(&mut T) -> &mut u32) {
    if let Some(entry) = counts.get_mut(&domain) {
        let left = count(entry);
        *left -= 1;
        if *left == 0 {
            counts.remove(&domain);
        }
    }
}

fn saturate(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

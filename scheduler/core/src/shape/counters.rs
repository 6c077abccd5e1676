//! Domain counters: how many more pods of a shape fit below each topology domain.
//!
//! The sum of the nodes' slots. For a gang of one shape it is exact; for mixed gangs an upper bound: it proves "nowhere"
//! and orders the search, only placing proves "fits". A change costs `O(levels · log domains)`; a change of the tree rebuilds,
//! `O(nodes + domains · log domains)`.

use super::cache::NodeEval;
use crate::snapshot::Cluster;
use flowforge_topology_core::{DomainId, LevelIndex, Tree};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Slots per domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct DomainCounters {
    slots: Vec<u64>,
    /// By level: the domains with slots, in the order of their number.
    ordered: Vec<BTreeSet<(u64, DomainId)>>,
    /// Epoch of the tree that the numbers belong to.
    epoch: Option<u64>,
}

impl DomainCounters {
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    pub(crate) fn slots(&self, domain: DomainId) -> u64 {
        self.slots.get(domain.index()).copied().unwrap_or(0)
    }

    /// Domains of a level with at least so many slots, fewest first, then by id; those after this one.
    pub(crate) fn domains_with(
        &self,
        level: LevelIndex,
        slots: u64,
        after: Option<(u64, DomainId)>,
    ) -> impl Iterator<Item = (u64, DomainId)> + '_ {
        let from = after.map_or(Bound::Included((slots, DomainId::ROOT)), Bound::Excluded);
        let domains = self.ordered.get(usize::from(level.0));
        domains.into_iter().flat_map(move |domains| domains.range((from, Bound::Unbounded))).copied()
    }

    /// A node below this domain has other slots than before.
    pub(crate) fn change(&mut self, tree: &Tree, leaf: DomainId, old: u32, new: u32) {
        for domain in tree.ancestors(leaf) {
            let Some(slots) = self.slots.get_mut(domain.index()) else { continue };
            let before = std::mem::replace(slots, *slots + u64::from(new) - u64::from(old));
            let Some(ordered) = tree.level(domain).and_then(|level| self.ordered.get_mut(usize::from(level.0))) else {
                continue;
            };
            if before > 0 {
                ordered.remove(&(before, domain));
            }
            if *slots > 0 {
                ordered.insert((*slots, domain));
            }
        }
    }

    pub(crate) fn rebuild(&mut self, cluster: &Cluster, nodes: &[NodeEval]) {
        let tree = cluster.tree();
        self.slots.clear();
        self.slots.resize(tree.bound(), 0);
        for (index, node) in (0..).zip(nodes).filter(|(_, node)| node.slots > 0) {
            for domain in tree.leaf(index).into_iter().flat_map(|leaf| tree.ancestors(leaf)) {
                if let Some(slots) = self.slots.get_mut(domain.index()) {
                    *slots += u64::from(node.slots);
                }
            }
        }
        let of = |domain: DomainId| (self.slots(domain), domain);
        let ordered = |level| tree.domains_at(level).map(of).filter(|(slots, _)| *slots > 0).collect();
        self.ordered = tree.levels().iter().map(ordered).collect();
        self.epoch = Some(cluster.tree_epoch);
    }

    pub(crate) fn weight(&self) -> usize {
        let ordered: usize = self.ordered.iter().map(BTreeSet::len).sum();
        self.slots.len() * size_of::<u64>() + ordered * 24
    }
}

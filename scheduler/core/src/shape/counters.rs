//! Domain counters: how many more pods of a shape fit below each topology domain.
//!
//! The sum of the nodes' slots. For a gang of one shape it is exact; for mixed gangs an upper bound: it proves "nowhere"
//! and orders the search, only placing proves "fits". A change costs `O(levels)`; a change of the tree rebuilds, `O(nodes)`.

use super::cache::NodeEval;
use crate::snapshot::Cluster;
use flowforge_topology_core::{DomainId, Tree};

/// Slots per domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct DomainCounters {
    slots: Vec<u64>,
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

    pub(crate) fn change(&mut self, tree: &Tree, leaf: DomainId, old: u32, new: u32) {
        for domain in tree.ancestors(leaf) {
            if let Some(slots) = self.slots.get_mut(domain.index()) {
                *slots = *slots + u64::from(new) - u64::from(old);
            }
        }
    }

    pub(crate) fn rebuild(&mut self, cluster: &Cluster, nodes: &[NodeEval]) {
        let tree = cluster.tree();
        self.slots.clear();
        self.slots.resize(tree.bound(), 0);
        for (index, node) in nodes.iter().enumerate().filter(|(_, n)| n.slots > 0) {
            let leaf = u32::try_from(index).ok().and_then(|i| tree.leaf(i));
            if let Some(leaf) = leaf {
                self.change(tree, leaf, 0, node.slots);
            }
        }
        self.epoch = Some(cluster.tree_epoch);
    }

    pub(crate) fn weight(&self) -> usize {
        self.slots.len() * size_of::<u64>()
    }
}

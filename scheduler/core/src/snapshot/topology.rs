//! The levels of the cluster: other ones at run time, and what the nodes' labels say about them.

use super::Snapshot;
use super::cluster::Cluster;
use super::node::{NodeId, NodeRecord};
use crate::model::NodeInfo;
use flowforge_topology_core::{Levels, Survey, Surveyed, Tree, survey};
use smol_str::SmolStr;

/// A node with whether it has devices.
struct Seen<'a>(&'a NodeRecord);

impl Surveyed for Seen<'_> {
    fn name(&self) -> &str {
        &self.0.info.name
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.0.info.labels.get(key).map(SmolStr::as_str)
    }

    fn has_devices(&self) -> bool {
        !self.0.devices().is_empty()
    }
}

impl Cluster {
    /// Whether other facts about a node's topology come with `info`; where they move it in the tree, the tree tells.
    pub(super) fn says_otherwise(&self, node: &NodeRecord, info: &NodeInfo) -> bool {
        let has = |info: &NodeInfo, name| info.allocatable.get(name).is_some_and(|amount| *amount > 0);
        let devices = |info: &NodeInfo| self.device_resources.iter().any(|name| has(info, name));
        let mut keys = self.tree.levels().all_keys();
        devices(&node.info) != devices(info) || keys.any(|key| node.info.labels.get(key) != info.labels.get(key))
    }

    /// Puts every node where its labels say under other levels. `O(nodes · levels)`. Returns whether the levels are others.
    fn set_levels(&mut self, levels: Levels) -> bool {
        if *self.tree.levels() == levels {
            return false;
        }
        let mut tree = Tree::new(levels);
        for (id, node) in self.nodes.iter().filter(|(_, node)| !node.placeholder) {
            let info = &node.info;
            tree.place(id.dense(), &info.name, |key| info.labels.get(key).map(SmolStr::as_str));
        }
        self.tree = tree;
        self.tree_epoch += 1;
        true
    }

    /// Changes whenever [`Self::survey`] may answer otherwise.
    #[must_use]
    pub fn survey_epoch(&self) -> (u64, u64) {
        (self.tree_epoch, self.label_epoch)
    }

    /// What the labels of the nodes say about the levels. `O(nodes · label keys)`.
    #[must_use]
    pub fn survey(&self) -> Survey {
        let known = self.nodes.iter().filter(|(_, node): &(NodeId, _)| !node.placeholder);
        let nodes: Vec<Seen<'_>> = known.map(|(_, node)| Seen(node)).collect();
        survey(self.tree.levels(), &nodes)
    }
}

impl Snapshot {
    /// Other levels from now on. Returns whether they are others than before. Pods stay where they are.
    pub fn set_levels(&mut self, levels: Levels) -> bool {
        self.cluster.set_levels(levels)
    }
}

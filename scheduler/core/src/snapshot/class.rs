//! Node classes: nodes that look the same to every live shape.
//!
//! A class is the projection of a node's slow facts (labels, taints, cordon) onto the label keys that live shapes reference,
//! so that a hostname or a timestamp label does not make every node its own class. Hostname and `metadata.name` are never
//! part of it: shapes that look at them are evaluated per node. A newly referenced key re-projects all nodes, `O(nodes)`.

use super::cluster::Cluster;
use super::node::NodeId;
use super::slab::{Id, Slab};
use crate::model::{NodeInfo, Taint};
use flowforge_topology_core::HOSTNAME;
use hashbrown::HashMap;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// In the column of classes: no node.
pub(crate) const NO_CLASS: u32 = u32::MAX;

/// Id of a class.
pub(crate) type ClassId = Id<Class>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Facts {
    labels: Vec<(SmolStr, SmolStr)>,
    taints: Vec<Taint>,
    unschedulable: bool,
}

/// A class of nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    facts: Arc<Facts>,
    nodes: u32,
}

/// All classes, and the keys they look at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Classes {
    classes: Slab<Class>,
    ids: HashMap<Arc<Facts>, ClassId, foldhash::fast::FixedState>,
    /// Label keys in use and the number of shapes that reference each; 0 until the next projection.
    keys: BTreeMap<SmolStr, u32>,
}

impl Classes {
    /// The class of a node, counting one more node in it.
    pub(crate) fn enter(&mut self, node: &NodeInfo) -> ClassId {
        let labels = self.keys.keys().filter_map(|k| node.labels.get_key_value(k));
        let mut taints = node.taints.clone();
        taints.sort();
        let facts = Facts {
            labels: labels.map(|(k, v)| (k.clone(), v.clone())).collect(),
            taints,
            unschedulable: node.unschedulable,
        };
        if let Some(&id) = self.ids.get(&facts) {
            if let Some(class) = self.classes.get_mut(id) {
                class.nodes += 1;
            }
            return id;
        }
        let facts = Arc::new(facts);
        let id = self.classes.insert(Class { facts: Arc::clone(&facts), nodes: 1 });
        self.ids.insert(facts, id);
        id
    }

    /// A node left its class.
    pub(crate) fn leave(&mut self, id: ClassId) {
        let Some(class) = self.classes.get_mut(id) else { return };
        class.nodes -= 1;
        if class.nodes == 0
            && let Some(gone) = self.classes.remove(id)
        {
            self.ids.remove(&gone.facts);
        }
    }

    /// A shape references these keys. Returns whether one is new: then every node has to be projected again.
    pub(crate) fn reference<'a>(&mut self, keys: impl Iterator<Item = &'a SmolStr>) -> bool {
        let mut fresh = false;
        for key in keys.filter(|k| *k != HOSTNAME) {
            let count = self.keys.entry(key.clone()).or_insert_with(|| {
                fresh = true;
                0
            });
            *count += 1;
        }
        if fresh {
            self.keys.retain(|_, count| *count > 0);
        }
        fresh
    }

    /// A shape no longer references these keys; they stay in the projection until the next one.
    pub(crate) fn unreference<'a>(&mut self, keys: impl Iterator<Item = &'a SmolStr>) {
        for key in keys.filter(|k| *k != HOSTNAME) {
            if let Some(count) = self.keys.get_mut(key) {
                *count = count.saturating_sub(1);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.classes.len()
    }
}

impl Cluster {
    /// A node is of this class now; the one it leaves may end.
    pub(super) fn set_class(&mut self, id: NodeId, class: Option<ClassId>) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        let left = std::mem::replace(&mut node.class, class);
        if self.class_column.len() < self.nodes.bound() {
            self.class_column.resize(self.nodes.bound(), NO_CLASS);
        }
        self.class_column[id.index()] = class.map_or(NO_CLASS, ClassId::dense);
        if let Some(left) = left {
            self.classes.leave(left);
        }
    }

    /// Class of each node by index; [`NO_CLASS`] where no node is known. May be shorter than the list of nodes.
    pub(crate) fn class_column(&self) -> &[u32] {
        &self.class_column
    }

    /// Projects every node again, because a shape looks at a label key that none looked at before. `O(nodes)`.
    pub(crate) fn project_again(&mut self) {
        let ids: Vec<NodeId> = self.nodes.iter().filter(|(_, n)| !n.placeholder).map(|(id, _)| id).collect();
        for id in ids {
            let Some(class) = self.nodes.get(id).map(|node| self.classes.enter(&node.info)) else { continue };
            self.set_class(id, Some(class));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(labels: &[(&str, &str)]) -> NodeInfo {
        NodeInfo { labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(), ..NodeInfo::default() }
    }

    #[test]
    fn only_referenced_keys_tell_nodes_apart() {
        let mut classes = Classes::default();
        let (a, b) = (node(&[("pool", "x"), (HOSTNAME, "a")]), node(&[("pool", "y"), (HOSTNAME, "b")]));
        assert_eq!(classes.enter(&a), classes.enter(&b));
        let keys = [SmolStr::from("pool"), SmolStr::from(HOSTNAME)];
        assert!(classes.reference(keys.iter()));
        assert!(!classes.reference(keys.iter()));
        assert_ne!(classes.enter(&a), classes.enter(&b));
        assert_eq!(classes.len(), 3);
    }

    #[test]
    fn a_class_ends_with_its_last_node_and_a_key_with_the_next_projection() {
        let mut classes = Classes::default();
        let old = [SmolStr::from("old")];
        classes.reference(old.iter());
        let id = classes.enter(&node(&[]));
        classes.leave(id);
        assert_eq!(classes.len(), 0);
        classes.unreference(old.iter());
        assert!(classes.reference([SmolStr::from("new")].iter()));
        assert_eq!(classes.keys.keys().collect::<Vec<_>>(), ["new"]);
    }
}

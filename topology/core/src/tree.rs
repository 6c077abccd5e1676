//! The domain tree: which node is in which zone, block, rack, NVLink domain.
//!
//! Domains are dense `u32` ids that are reused after their last node left; a domain's parent is the next wider level that
//! the node has a label for. Moving a node costs `O(levels · log children)`.

use crate::levels::{LevelIndex, Levels};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// A domain; dense, reused after the domain emptied.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DomainId(pub u32);

impl DomainId {
    /// The whole cluster.
    pub const ROOT: Self = Self(0);

    /// As an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Debug, Default)]
struct Domain {
    /// None: the cluster itself, or a free slot.
    level: Option<LevelIndex>,
    value: SmolStr,
    parent: DomainId,
    /// Child domains in the order of (level, value).
    children: BTreeMap<(LevelIndex, SmolStr), DomainId>,
    /// Nodes that hang directly below.
    nodes: BTreeSet<u32>,
    /// Nodes below, at any depth.
    size: u32,
}

impl Default for DomainId {
    fn default() -> Self {
        Self::ROOT
    }
}

/// All domains and the place of every node in them. Nodes are the caller's dense `u32` indexes.
#[derive(Clone, Debug)]
pub struct Tree {
    levels: Levels,
    domains: Vec<Domain>,
    free: Vec<DomainId>,
    /// Narrowest domain of each node; None: not in the tree.
    leaf: Vec<Option<DomainId>>,
    /// Domains of each level.
    at_level: Vec<BTreeSet<DomainId>>,
}

impl Tree {
    /// A tree with no node.
    #[must_use]
    pub fn new(levels: Levels) -> Self {
        let at_level = vec![BTreeSet::new(); levels.len()];
        Self { levels, domains: vec![Domain::default()], free: Vec::new(), leaf: Vec::new(), at_level }
    }

    /// The levels.
    #[must_use]
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// Puts a node where its labels say, taking it from where it was. Returns whether anything changed.
    pub fn place<'a>(&mut self, node: u32, name: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let path = self.levels.path(name, label);
        self.place_at(node, path)
    }

    /// Puts a node on a path through the levels, widest first; what the path lacks at its end is taken for missing. Returns
    /// whether anything changed.
    pub fn place_at(&mut self, node: u32, mut path: Vec<Option<SmolStr>>) -> bool {
        path.resize(self.levels.len(), None);
        if let Some(at) = self.leaf(node) {
            if self.path(at) == path {
                return false;
            }
            self.remove(node);
        }
        let mut at = DomainId::ROOT;
        self.grow(at);
        for (level, value) in self.levels.iter().zip(path) {
            if let Some(value) = value {
                at = self.child(at, level, value);
                self.grow(at);
            }
        }
        if let Some(domain) = self.domains.get_mut(at.index()) {
            domain.nodes.insert(node);
        }
        let index = node as usize;
        if self.leaf.len() <= index {
            self.leaf.resize(index + 1, None);
        }
        self.leaf[index] = Some(at);
        true
    }

    /// Takes a node out; domains that become empty are freed.
    pub fn remove(&mut self, node: u32) {
        let Some(slot) = self.leaf.get_mut(node as usize) else { return };
        let Some(leaf) = slot.take() else { return };
        self.domains[leaf.index()].nodes.remove(&node);
        let mut at = leaf;
        loop {
            let domain = &mut self.domains[at.index()];
            domain.size -= 1;
            let (empty, parent) = (domain.size == 0, domain.parent);
            if at == DomainId::ROOT {
                return;
            }
            if empty {
                self.release(at);
            }
            at = parent;
        }
    }

    fn grow(&mut self, at: DomainId) {
        self.domains[at.index()].size += 1;
    }

    fn child(&mut self, parent: DomainId, level: LevelIndex, value: SmolStr) -> DomainId {
        if let Some(&id) = self.domains[parent.index()].children.get(&(level, value.clone())) {
            return id;
        }
        let fresh = Domain { level: Some(level), value: value.clone(), parent, ..Domain::default() };
        let id = if let Some(id) = self.free.pop() {
            self.domains[id.index()] = fresh;
            id
        } else {
            self.domains.push(fresh);
            DomainId(u32::try_from(self.domains.len() - 1).unwrap_or(u32::MAX))
        };
        self.domains[parent.index()].children.insert((level, value), id);
        self.at_level[usize::from(level.0)].insert(id);
        id
    }

    fn release(&mut self, id: DomainId) {
        let gone = std::mem::take(&mut self.domains[id.index()]);
        if let Some(level) = gone.level {
            self.at_level[usize::from(level.0)].remove(&id);
            self.domains[gone.parent.index()].children.remove(&(level, gone.value));
        }
        self.free.push(id);
    }

    /// Narrowest domain of a node; None when the node is not in the tree.
    #[must_use]
    pub fn leaf(&self, node: u32) -> Option<DomainId> {
        self.leaf.get(node as usize).copied().flatten()
    }

    /// A domain and all that contain it, narrowest first, the cluster last.
    pub fn ancestors(&self, from: DomainId) -> impl Iterator<Item = DomainId> + '_ {
        std::iter::successors(Some(from), |&at| (at != DomainId::ROOT).then(|| self.domains[at.index()].parent))
    }

    /// The domain of this level that contains a node; None when the node has no such label.
    #[must_use]
    pub fn domain_of(&self, node: u32, level: LevelIndex) -> Option<DomainId> {
        self.ancestors(self.leaf(node)?).find(|d| self.level(*d) == Some(level))
    }

    /// Level of a domain; None for the cluster.
    #[must_use]
    pub fn level(&self, domain: DomainId) -> Option<LevelIndex> {
        self.domains.get(domain.index()).and_then(|d| d.level)
    }

    /// All domains of a level in id order.
    pub fn domains_at(&self, level: LevelIndex) -> impl Iterator<Item = DomainId> + '_ {
        self.at_level.get(usize::from(level.0)).into_iter().flatten().copied()
    }

    /// Number of domains of a level.
    #[must_use]
    pub fn count_at(&self, level: LevelIndex) -> usize {
        self.at_level.get(usize::from(level.0)).map_or(0, BTreeSet::len)
    }

    /// Children of a domain in the order of (level, value).
    pub fn children(&self, domain: DomainId) -> impl Iterator<Item = DomainId> + '_ {
        self.domains.get(domain.index()).into_iter().flat_map(|d| d.children.values().copied())
    }

    /// Nodes that hang directly below a domain, in id order.
    pub fn nodes(&self, domain: DomainId) -> impl Iterator<Item = u32> + '_ {
        self.domains.get(domain.index()).into_iter().flat_map(|d| d.nodes.iter().copied())
    }

    /// Nodes below a domain, at any depth.
    #[must_use]
    pub fn size(&self, domain: DomainId) -> u32 {
        self.domains.get(domain.index()).map_or(0, |d| d.size)
    }

    /// Whether `inner` is `outer` or below it.
    #[must_use]
    pub fn contains(&self, outer: DomainId, inner: DomainId) -> bool {
        self.ancestors(inner).any(|d| d == outer)
    }

    /// Narrowest domain that contains both.
    #[must_use]
    pub fn common(&self, a: DomainId, b: DomainId) -> DomainId {
        self.ancestors(a).find(|&d| self.contains(d, b)).unwrap_or(DomainId::ROOT)
    }

    /// Levels that two nodes do not share: 0 on the same host, `levels` when they share only the cluster.
    #[must_use]
    pub fn distance(&self, a: u32, b: u32) -> usize {
        match (self.leaf(a), self.leaf(b)) {
            (Some(a), Some(b)) => {
                let shared = self.level(self.common(a, b)).map_or(0, |l| usize::from(l.0) + 1);
                self.levels.len() - shared
            }
            _ => self.levels.len(),
        }
    }

    /// `level/value` for people; `cluster` for the root.
    #[must_use]
    pub fn describe(&self, domain: DomainId) -> String {
        match self.level(domain) {
            Some(level) => format!("{}/{}", self.levels.name(level), self.domains[domain.index()].value),
            None => "cluster".to_owned(),
        }
    }

    /// One more than the largest domain id in use: the length of an array indexed by domain.
    #[must_use]
    pub fn bound(&self) -> usize {
        self.domains.len()
    }

    fn path(&self, leaf: DomainId) -> Vec<Option<SmolStr>> {
        let mut path = vec![None; self.levels.len()];
        for domain in self.ancestors(leaf) {
            if let Some(level) = self.level(domain) {
                path[usize::from(level.0)] = Some(self.domains[domain.index()].value.clone());
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree() -> Tree {
        let levels = ["zone", "rack", "host"].map(|n| (n.into(), vec![n.into()])).to_vec();
        Tree::new(Levels::new(levels).unwrap())
    }

    fn put(tree: &mut Tree, node: u32, path: [&str; 3]) -> bool {
        let keys = ["zone", "rack", "host"];
        tree.place(node, "n", |k| keys.iter().position(|x| *x == k).map(|i| path[i]).filter(|v| !v.is_empty()))
    }

    #[test]
    fn equal_names_in_two_zones_are_two_domains() {
        let mut t = tree();
        put(&mut t, 0, ["z1", "r1", "a"]);
        put(&mut t, 1, ["z2", "r1", "b"]);
        put(&mut t, 2, ["z1", "r1", "c"]);
        let rack = LevelIndex(1);
        assert_eq!(t.count_at(rack), 2);
        assert_eq!(t.domain_of(0, rack), t.domain_of(2, rack));
        assert_ne!(t.domain_of(0, rack), t.domain_of(1, rack));
        assert_eq!([t.distance(0, 0), t.distance(0, 2), t.distance(0, 1)], [0, 1, 3]);
        assert_eq!(t.describe(t.domain_of(1, rack).unwrap()), "rack/r1");
        assert_eq!(t.describe(DomainId::ROOT), "cluster");
    }

    #[test]
    fn a_missing_level_is_skipped() {
        let mut t = tree();
        put(&mut t, 0, ["z1", "", "a"]);
        assert_eq!(t.domain_of(0, LevelIndex(1)), None);
        let host = t.domain_of(0, LevelIndex(2)).unwrap();
        let above: Vec<_> = t.ancestors(host).map(|d| t.describe(d)).collect();
        assert_eq!(above, ["host/a", "zone/z1", "cluster"]);
    }

    #[test]
    fn a_node_that_moves_leaves_nothing_behind() {
        let mut t = tree();
        assert!(put(&mut t, 0, ["z1", "r1", "a"]));
        assert!(!put(&mut t, 0, ["z1", "r1", "a"]));
        assert!(put(&mut t, 0, ["z1", "r2", "a"]));
        assert_eq!(t.domains_at(LevelIndex(1)).map(|d| t.describe(d)).collect::<Vec<_>>(), ["rack/r2"]);
        t.remove(0);
        t.remove(0);
        assert_eq!(t.size(DomainId::ROOT), 0);
        assert_eq!(t.count_at(LevelIndex(0)), 0);
        assert_eq!(t.leaf(0), None);
    }

    proptest! {
        #[test]
        fn sizes_and_membership_agree_with_the_labels(moves in prop::collection::vec((0u32..8, 0u8..3, 0u8..4, any::<bool>()), 1..60)) {
            let mut t = tree();
            let mut truth: BTreeMap<u32, (u8, u8)> = BTreeMap::new();
            for (node, zone, rack, gone) in moves {
                if gone {
                    t.remove(node);
                    truth.remove(&node);
                } else {
                    put(&mut t, node, [&format!("z{zone}"), &(if rack == 0 { String::new() } else { format!("r{rack}") }), &format!("h{node}")]);
                    truth.insert(node, (zone, rack));
                }
            }
            prop_assert_eq!(t.size(DomainId::ROOT) as usize, truth.len());
            for (node, (zone, rack)) in &truth {
                prop_assert_eq!(t.describe(t.domain_of(*node, LevelIndex(0)).unwrap()), format!("zone/z{zone}"));
                prop_assert_eq!(t.domain_of(*node, LevelIndex(1)).is_some(), *rack != 0);
                for (other, (z, r)) in &truth {
                    let same = rack == r && zone == z && *rack != 0;
                    prop_assert_eq!(*rack != 0 && t.domain_of(*node, LevelIndex(1)) == t.domain_of(*other, LevelIndex(1)), same);
                }
            }
            for level in [0, 1, 2] {
                let total: u32 = t.domains_at(LevelIndex(level)).map(|d| t.size(d)).sum();
                let expected = truth.values().filter(|(_, r)| level != 1 || *r != 0).count();
                prop_assert_eq!(total as usize, expected);
            }
        }
    }
}

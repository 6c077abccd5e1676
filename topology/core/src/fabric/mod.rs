//! Descriptions of networks that come from outside Kubernetes: discovery dumps, inventories and model clusters.
//!
//! Each reader is a pure function from a text, or from plain structs where the text is JSON or YAML, to a [`Fabric`]: the hosts
//! and where each stands, level by level. One format a file.

pub mod clos;
pub mod ibnetdiscover;
pub mod model;
pub mod netq;

use crate::levels::{Levels, LevelsError};
use crate::tree::Tree;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Hosts and where they stand.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fabric {
    /// Names of the levels, widest first; the hosts themselves are none.
    pub levels: Vec<SmolStr>,
    /// The path of each host through the levels; None where nothing is known.
    pub hosts: BTreeMap<SmolStr, Vec<Option<SmolStr>>>,
    /// One sentence for each thing that was left out, and why.
    pub left_out: Vec<String>,
}

impl Fabric {
    /// The tree of domains; host `n` of the answer's list is node `n` of the tree.
    ///
    /// # Errors
    /// When the names of levels repeat or are too many.
    pub fn tree(&self) -> Result<(Tree, Vec<SmolStr>), LevelsError> {
        let mut tree = Tree::new(Levels::of_names(self.levels.iter().cloned())?);
        let mut names = Vec::with_capacity(self.hosts.len());
        for (node, (name, path)) in (0_u32..).zip(&self.hosts) {
            tree.place_at(node, path.clone());
            names.push(name.clone());
        }
        Ok((tree, names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::levels::LevelIndex;
    use crate::tree::DomainId;

    #[test]
    fn a_fabric_becomes_a_tree_of_its_hosts() {
        let path = |block: &str, rack: Option<&str>| vec![Some(block.into()), rack.map(SmolStr::from)];
        let hosts = [("b", path("x", Some("1"))), ("a", path("x", None)), ("c", path("y", Some("1")))];
        let fabric = Fabric {
            levels: vec!["block".into(), "rack".into()],
            hosts: hosts.into_iter().map(|(name, path)| (name.into(), path)).collect(),
            left_out: Vec::new(),
        };
        let (tree, names) = fabric.tree().unwrap();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!([tree.count_at(LevelIndex(0)), tree.count_at(LevelIndex(1))], [2, 2]);
        assert_eq!(tree.size(DomainId::ROOT), 3);
        assert_eq!(tree.domain_of(0, LevelIndex(1)), None);
    }
}

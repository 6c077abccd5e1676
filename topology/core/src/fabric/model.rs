//! Model clusters of topograph's simulation: switches that hold switches, and blocks of nodes below the lowest.
//!
//! Source of the form: NVIDIA/topograph `tests/models/*.yaml`. Nodes are written as ranges (`node[1101-1118]`, `srv11[01-08]`); the
//! annotation that ends in `/domain` names the NVLink domain of a block, and labels of a switch hold for all below it.

use super::Fabric;
use serde::Deserialize;
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeMap;
use thiserror::Error;

/// Most hosts of one range.
const MAX_RANGE: u32 = 100_000;
/// Deepest chain of switches.
const MAX_DEPTH: usize = 12;
/// Names of the tiers of switches, from the nodes up; what is above has a number.
const TIERS: [&str; 2] = ["rack", "block"];
const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";

/// A model.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct Model {
    /// Switches by name.
    #[serde(default)]
    pub switches: BTreeMap<SmolStr, ModelSwitch>,
    /// Blocks of nodes.
    #[serde(default)]
    pub blocks: Vec<ModelBlock>,
}

/// A switch.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct ModelSwitch {
    /// Labels of all nodes below it.
    #[serde(default)]
    pub labels: BTreeMap<SmolStr, SmolStr>,
    /// Switches below it.
    #[serde(default)]
    pub switches: Vec<SmolStr>,
}

/// A block of nodes.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct ModelBlock {
    /// The switch that it hangs on.
    pub switch: SmolStr,
    /// Its nodes, as ranges.
    #[serde(default)]
    pub nodes: Vec<SmolStr>,
    /// Annotations; one ends in `/domain`.
    #[serde(default)]
    pub annotations: BTreeMap<SmolStr, SmolStr>,
}

/// Why a model cannot be read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ModelError {
    /// A range that is none.
    #[error("blocks[{0}].nodes: {1:?} is not a name or a range as node[01-18]")]
    BadRange(usize, SmolStr),
    /// A switch below two others.
    #[error("switches.{1} lists switch {0}, which is below {2} already")]
    TwoParents(SmolStr, SmolStr, SmolStr),
    /// Switches in a circle.
    #[error("blocks[{0}].switch: the switches above {1} have no end")]
    Endless(usize, SmolStr),
    /// A node twice.
    #[error("blocks[{0}].nodes: node {1} is in another block already")]
    Twice(usize, SmolStr),
}

/// Reads a model. Levels from wide to narrow: region and zone where labels name them, the tiers of switches, `nvlink`.
///
/// # Errors
/// With the field and what is wrong.
pub fn read(model: &Model) -> Result<Fabric, ModelError> {
    let mut parents: BTreeMap<&SmolStr, &SmolStr> = BTreeMap::new();
    for (name, switch) in &model.switches {
        for below in &switch.switches {
            if let Some(before) = parents.insert(below, name) {
                return Err(ModelError::TwoParents(below.clone(), name.clone(), before.clone()));
            }
        }
    }
    let mut chains = Vec::with_capacity(model.blocks.len());
    for (at, block) in model.blocks.iter().enumerate() {
        let up: Vec<&SmolStr> = std::iter::successors(Some(&block.switch), |switch| parents.get(*switch).copied())
            .take(MAX_DEPTH)
            .collect();
        if up.len() == MAX_DEPTH {
            return Err(ModelError::Endless(at, block.switch.clone()));
        }
        chains.push(up);
    }
    let tiers = chains.iter().map(Vec::len).max().unwrap_or(0);
    let name = |tier: usize| TIERS.get(tier).map_or_else(|| format_smolstr!("tier-{tier}"), |name| (*name).into());
    let mut levels: Vec<SmolStr> = vec!["region".into(), "zone".into()];
    levels.extend((0..tiers).rev().map(name));
    levels.push("nvlink".into());
    let mut fabric = Fabric { levels, ..Fabric::default() };
    for (at, (block, up)) in model.blocks.iter().zip(&chains).enumerate() {
        let label = |key: &str| up.iter().find_map(|switch| model.switches.get(*switch)?.labels.get(key)).cloned();
        let mut path = vec![label(REGION), label(ZONE)];
        path.extend((0..tiers).rev().map(|tier| up.get(tier).map(|switch| (*switch).clone())));
        path.push(block.annotations.iter().find(|(key, _)| key.ends_with("/domain")).map(|(_, domain)| domain.clone()));
        for range in &block.nodes {
            for node in expand(range).ok_or_else(|| ModelError::BadRange(at, range.clone()))? {
                if fabric.hosts.insert(node.clone(), path.clone()).is_some() {
                    return Err(ModelError::Twice(at, node));
                }
            }
        }
    }
    Ok(fabric)
}

/// The names of a range: what stands before and after the brackets stays, numbers keep their width.
fn expand(range: &str) -> Option<Vec<SmolStr>> {
    let Some((before, rest)) = range.split_once('[') else {
        return (!range.is_empty() && !range.contains(']')).then(|| vec![range.into()]);
    };
    let (inside, after) = rest.split_once(']')?;
    let mut names = Vec::new();
    for part in inside.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if from > to || to - from >= MAX_RANGE {
            return None;
        }
        let width = first.len();
        names.extend((from..=to).map(|number| format_smolstr!("{before}{number:0width$}{after}")));
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(switch: &str, nodes: &[&str], domain: &str) -> ModelBlock {
        ModelBlock {
            switch: switch.into(),
            nodes: nodes.iter().map(|node| (*node).into()).collect(),
            annotations: [("accelerator.topology.test/domain".into(), domain.into())].into(),
        }
    }

    fn switch(below: &[&str], labels: &[(&str, &str)]) -> ModelSwitch {
        ModelSwitch {
            labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            switches: below.iter().map(|name| (*name).into()).collect(),
        }
    }

    #[test]
    fn nodes_stand_below_their_switches_and_labels_hold_downwards() {
        let model = Model {
            switches: [
                ("core".into(), switch(&["s1"], &[(REGION, "us")])),
                ("s1".into(), switch(&["l1", "l2"], &[(ZONE, "z1")])),
            ]
            .into(),
            blocks: vec![block("l1", &["n[09-11]"], "nvl-1"), block("l2", &["[1,3]", "x"], "nvl-2")],
        };
        let fabric = read(&model).unwrap();
        assert_eq!(fabric.levels, ["region", "zone", "tier-2", "block", "rack", "nvlink"]);
        assert_eq!(fabric.hosts.keys().collect::<Vec<_>>(), ["1", "3", "n09", "n10", "n11", "x"]);
        let path: Vec<_> = fabric.hosts["n10"].iter().map(|part| part.as_deref().unwrap_or("-")).collect();
        assert_eq!(path, ["us", "z1", "core", "s1", "l1", "nvl-1"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field() {
        let refused = |switches: &[(&str, ModelSwitch)], blocks: Vec<ModelBlock>| {
            let switches = switches.iter().map(|(name, switch)| ((*name).into(), switch.clone())).collect();
            read(&Model { switches, blocks }).unwrap_err().to_string()
        };
        for bad in ["n[1-", "n[a-b]", "n[3-1]", "", "n]", "n[1-900000]"] {
            assert!(refused(&[], vec![block("l", &[bad], "d")]).starts_with("blocks[0].nodes: "), "{bad}");
        }
        assert!(
            refused(&[], vec![block("l", &["a"], "d"), block("l", &["a"], "d")]).contains("blocks[1].nodes: node a is")
        );
        let circle = [("a", switch(&["b"], &[])), ("b", switch(&["a"], &[]))];
        assert!(refused(&circle, vec![block("a", &["n"], "d")]).contains("have no end"));
        let two = [("a", switch(&["c"], &[])), ("b", switch(&["c"], &[]))];
        assert_eq!(refused(&two, vec![]), "switches.b lists switch c, which is below a already");
    }
}

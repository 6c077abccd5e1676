//! Volcano's `HyperNode` (`topology.volcano.sh/v1alpha1`): named groups of nodes, and of such groups, in tiers.
//!
//! A lower tier is a faster network. Members are chosen by exact name, by a regular expression (found anywhere in the name,
//! as Go's `MatchString`), or, for nodes, by labels. Groups may be of mixed depth: one of tier 3 may hold nodes directly, which
//! then have no group of tiers 1 and 2. A gang that names a tier that no HyperNode has gets an error, never a wider placement.

use crate::levels::{LevelIndex, Levels, LevelsError};
use regex::Regex;
use smol_str::{SmolStr, format_smolstr};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Most HyperNodes above a node; more is a cycle that escaped, or a mistake.
const MAX_DEPTH: usize = 16;

/// What a member is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MemberKind {
    /// A node.
    Node,
    /// Another HyperNode.
    HyperNode,
}

/// Which nodes or HyperNodes are members.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MemberSelector {
    /// The one of this name.
    Exact(SmolStr),
    /// Those in whose name this is found.
    Regex(String),
    /// Nodes with all of these labels.
    Labels(Vec<LabelTerm>),
}

/// One requirement on labels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LabelTerm {
    /// The label has one of these values.
    In(SmolStr, Vec<SmolStr>),
    /// The label is absent or has none of these values.
    NotIn(SmolStr, Vec<SmolStr>),
    /// The label is there.
    Exists(SmolStr),
    /// The label is absent.
    Absent(SmolStr),
}

impl LabelTerm {
    fn holds<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::In(key, values) => label(key).is_some_and(|have| values.iter().any(|value| value == have)),
            Self::NotIn(key, values) => label(key).is_none_or(|have| values.iter().all(|value| value != have)),
            Self::Exists(key) => label(key).is_some(),
            Self::Absent(key) => label(key).is_none(),
        }
    }
}

/// A HyperNode.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HyperNode {
    /// Name.
    pub name: SmolStr,
    /// Tier, from 1; lower is faster.
    pub tier: u32,
    /// Name of the tier.
    pub tier_name: Option<SmolStr>,
    /// Members.
    pub members: Vec<(MemberKind, MemberSelector)>,
}

/// What is wrong with HyperNodes; the rest of them counts.
#[derive(Clone, Debug, Eq, Error, Ord, PartialEq, PartialOrd)]
pub enum HyperNodeProblem {
    /// A regular expression that cannot be read.
    #[error("HyperNode {0}: regexMatch.pattern {1:?} cannot be read: {2}")]
    BadPattern(SmolStr, String, String),
    /// Labels select HyperNodes.
    #[error("HyperNode {0}: labelMatch selects nodes only; use exactMatch or regexMatch for members of type HyperNode")]
    LabelsForHyperNodes(SmolStr),
    /// A member that does not exist.
    #[error("HyperNode {0}: its member HyperNode {1} does not exist")]
    NoSuchMember(SmolStr, SmolStr),
    /// A member that is not of a lower tier.
    #[error(
        "HyperNode {parent} of tier {tier}: its member HyperNode {member} is of tier {member_tier}; members must be of a lower tier"
    )]
    NotLower {
        /// The group.
        parent: SmolStr,
        /// Its tier.
        tier: u32,
        /// The member.
        member: SmolStr,
        /// The member's tier.
        member_tier: u32,
    },
    /// A HyperNode in two others.
    #[error("HyperNode {0} is a member of both {1} and {2}; {1} counts")]
    TwoParents(SmolStr, SmolStr, SmolStr),
    /// A tier with two names.
    #[error("tier {0} is called both {1:?} and {2:?}; {1:?} counts")]
    TwoTierNames(u32, SmolStr, SmolStr),
}

/// Why HyperNodes make no levels at all, or a name no level.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum HyperNodesError {
    /// Two tiers with one name, or too many tiers.
    #[error("the tiers of the HyperNodes make no levels: {0}")]
    Levels(#[from] LevelsError),
    /// A tier that nothing has.
    #[error("no HyperNode is of tier {asked:?}; the tiers are {known}")]
    UnknownTier {
        /// What was asked for.
        asked: SmolStr,
        /// What there is, narrowest first.
        known: String,
    },
}

/// All HyperNodes of a cluster.
#[derive(Clone, Debug)]
pub struct HyperNodes {
    levels: Levels,
    /// Tier of each level, widest first.
    tiers: Vec<u32>,
    /// By name: tier and what holds it.
    groups: BTreeMap<SmolStr, (u32, Option<SmolStr>)>,
    exact: BTreeMap<SmolStr, BTreeSet<SmolStr>>,
    patterns: Vec<(Regex, SmolStr)>,
    labelled: Vec<(Vec<LabelTerm>, SmolStr)>,
    problems: Vec<HyperNodeProblem>,
}

/// Where a node stands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Placed {
    /// Its group of each level, widest first.
    pub path: Vec<Option<SmolStr>>,
    /// A second group of a tier that claims the node and does not count.
    pub also: Option<SmolStr>,
}

impl HyperNodes {
    /// Reads all HyperNodes, in any order. `O(members · HyperNodes)` for patterns over HyperNodes, else `O(members)`.
    ///
    /// # Errors
    /// When two tiers have one name, or there are more than 16 tiers. What is wrong with single HyperNodes is in
    /// [`Self::problems`].
    pub fn new(hyper_nodes: &[HyperNode]) -> Result<Self, HyperNodesError> {
        let mut problems = Vec::new();
        let by_name: BTreeMap<&SmolStr, &HyperNode> = hyper_nodes.iter().map(|group| (&group.name, group)).collect();
        let names = tier_names(by_name.values().copied(), &mut problems);
        let tiers: Vec<u32> = names.keys().rev().copied().collect();
        let levels = Levels::of_names(names.into_values().rev())?;
        let groups = by_name.iter().map(|(name, group)| ((*name).clone(), (group.tier, None))).collect();
        let mut all = Self {
            levels,
            tiers,
            groups,
            exact: BTreeMap::new(),
            patterns: Vec::new(),
            labelled: Vec::new(),
            problems,
        };
        for group in by_name.values() {
            for (kind, selector) in &group.members {
                match kind {
                    MemberKind::Node => all.hold_nodes(group, selector),
                    MemberKind::HyperNode => all.hold_groups(group, selector, &by_name),
                }
            }
        }
        all.problems.sort();
        all.problems.dedup();
        Ok(all)
    }

    fn pattern(&mut self, group: &HyperNode, pattern: &str) -> Option<Regex> {
        let read = Regex::new(pattern);
        let why = |error: &regex::Error| {
            HyperNodeProblem::BadPattern(group.name.clone(), pattern.to_owned(), error.to_string().replace('\n', " "))
        };
        read.map_err(|error| self.problems.push(why(&error))).ok()
    }

    fn hold_nodes(&mut self, group: &HyperNode, selector: &MemberSelector) {
        match selector {
            MemberSelector::Exact(node) => {
                self.exact.entry(node.clone()).or_default().insert(group.name.clone());
            }
            MemberSelector::Regex(pattern) => {
                if let Some(regex) = self.pattern(group, pattern) {
                    self.patterns.push((regex, group.name.clone()));
                }
            }
            MemberSelector::Labels(terms) => self.labelled.push((terms.clone(), group.name.clone())),
        }
    }

    fn hold_groups(&mut self, group: &HyperNode, selector: &MemberSelector, all: &BTreeMap<&SmolStr, &HyperNode>) {
        let members: Vec<&HyperNode> = match selector {
            MemberSelector::Exact(name) => match all.get(name) {
                Some(member) => vec![member],
                None => {
                    self.problems.push(HyperNodeProblem::NoSuchMember(group.name.clone(), name.clone()));
                    return;
                }
            },
            MemberSelector::Regex(pattern) => {
                let Some(regex) = self.pattern(group, pattern) else { return };
                // A pattern may well find the group itself.
                all.values().copied().filter(|other| other.name != group.name && regex.is_match(&other.name)).collect()
            }
            MemberSelector::Labels(_) => {
                self.problems.push(HyperNodeProblem::LabelsForHyperNodes(group.name.clone()));
                return;
            }
        };
        for member in members {
            if member.tier >= group.tier {
                self.problems.push(HyperNodeProblem::NotLower {
                    parent: group.name.clone(),
                    tier: group.tier,
                    member: member.name.clone(),
                    member_tier: member.tier,
                });
                continue;
            }
            let Some((_, parent)) = self.groups.get_mut(&member.name) else { continue };
            match parent {
                None => *parent = Some(group.name.clone()),
                Some(before) if *before == group.name => {}
                Some(before) => {
                    let two = HyperNodeProblem::TwoParents(member.name.clone(), before.clone(), group.name.clone());
                    self.problems.push(two);
                }
            }
        }
    }

    /// The levels, widest first; no label names their domains.
    #[must_use]
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// What is wrong, in a fixed order.
    #[must_use]
    pub fn problems(&self) -> &[HyperNodeProblem] {
        &self.problems
    }

    /// The level of the highest tier that a gang allows, by the tier's name or number.
    ///
    /// # Errors
    /// When no HyperNode is of that tier; the gang must not be placed as if it had not asked.
    pub fn tier(&self, asked: &str) -> Result<LevelIndex, HyperNodesError> {
        let by_number = asked.parse::<u32>().ok().and_then(|tier| self.level_of(tier));
        self.levels.find(asked).or(by_number).ok_or_else(|| {
            let known = self.tiers.iter().zip(self.levels.names()).map(|(tier, name)| format!("{name} ({tier})"));
            let mut known: Vec<String> = known.collect();
            known.reverse();
            HyperNodesError::UnknownTier { asked: asked.into(), known: known.join(", ") }
        })
    }

    fn level_of(&self, tier: u32) -> Option<LevelIndex> {
        self.levels.iter().zip(&self.tiers).find(|(_, have)| **have == tier).map(|(level, _)| level)
    }

    /// Where a node stands. `O(patterns + label selectors + tiers)`. Of two groups of one tier the first by name counts.
    pub fn place<'a>(&self, node: &str, label: impl Fn(&str) -> Option<&'a str>) -> Placed {
        let mut direct: BTreeSet<(u32, &SmolStr)> = BTreeSet::new();
        let exact = self.exact.get(node).into_iter().flatten();
        let found = self.patterns.iter().filter(|(regex, _)| regex.is_match(node)).map(|(_, group)| group);
        let chosen = self.labelled.iter().filter(|(terms, _)| terms.iter().all(|term| term.holds(&label)));
        for group in exact.chain(found).chain(chosen.map(|(_, group)| group)) {
            direct.extend(self.groups.get(group).map(|(tier, _)| (*tier, group)));
        }
        let mut placed = Placed { path: vec![None; self.levels.len()], also: None };
        for (_, group) in direct {
            let above = std::iter::successors(Some(group), |group| self.groups.get(*group)?.1.as_ref());
            for group in above.take(MAX_DEPTH) {
                let level = self.groups.get(group).and_then(|(tier, _)| self.level_of(*tier));
                let Some(place) = level.and_then(|level| placed.path.get_mut(usize::from(level.0))) else { continue };
                match place {
                    None => *place = Some(group.clone()),
                    Some(before) if before == group => {}
                    Some(_) => placed.also = placed.also.or_else(|| Some(group.clone())),
                }
            }
        }
        placed
    }
}

/// Name of every tier: that which its first HyperNode gives it, else `tier-N`.
fn tier_names<'a>(
    groups: impl Iterator<Item = &'a HyperNode>,
    problems: &mut Vec<HyperNodeProblem>,
) -> BTreeMap<u32, SmolStr> {
    let mut names: BTreeMap<u32, Option<SmolStr>> = BTreeMap::new();
    for group in groups {
        let known = names.entry(group.tier).or_default();
        match (known.as_ref(), group.tier_name.as_ref().filter(|name| !name.is_empty())) {
            (None, name) => *known = name.cloned(),
            (Some(before), Some(name)) if before != name => {
                problems.push(HyperNodeProblem::TwoTierNames(group.tier, before.clone(), name.clone()));
            }
            _ => {}
        }
    }
    names.into_iter().map(|(tier, name)| (tier, name.unwrap_or_else(|| format_smolstr!("tier-{tier}")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use MemberKind::{HyperNode as Group, Node};

    fn exact(kind: MemberKind, name: &str) -> (MemberKind, MemberSelector) {
        (kind, MemberSelector::Exact(name.into()))
    }

    fn regex(kind: MemberKind, pattern: &str) -> (MemberKind, MemberSelector) {
        (kind, MemberSelector::Regex(pattern.into()))
    }

    fn group(name: &str, tier: u32, members: Vec<(MemberKind, MemberSelector)>) -> HyperNode {
        HyperNode { name: name.into(), tier, tier_name: None, members }
    }

    fn named(tier_name: &str, group: HyperNode) -> HyperNode {
        HyperNode { tier_name: Some(tier_name.into()), ..group }
    }

    fn path(all: &HyperNodes, node: &str, labels: &[(&str, &'static str)]) -> Vec<String> {
        let placed = all.place(node, |key| labels.iter().find(|(have, _)| *have == key).map(|(_, value)| *value));
        placed.path.into_iter().map(|group| group.map_or_else(|| "-".to_owned(), |group| group.to_string())).collect()
    }

    fn problems(groups: &[HyperNode]) -> Vec<String> {
        HyperNodes::new(groups).unwrap().problems().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn members_are_chosen_by_name_pattern_and_labels_and_depth_may_be_mixed() {
        let rack = LabelTerm::In("rack".into(), vec!["r3".into()]);
        let all = HyperNodes::new(&[
            named("spine", group("top", 3, vec![regex(Group, "^s[0-9]$"), exact(Node, "lonely")])),
            named("leaf", group("s0", 1, vec![exact(Node, "node-0"), exact(Node, "node-1")])),
            group("s1", 1, vec![regex(Node, "^node-[23]$")]),
            group("s2", 2, vec![(Node, MemberSelector::Labels(vec![rack]))]),
        ])
        .unwrap();
        assert_eq!(all.problems(), []);
        assert_eq!(all.levels().names().collect::<Vec<_>>(), ["spine", "tier-2", "leaf"]);
        assert_eq!(path(&all, "node-1", &[]), ["top", "-", "s0"]);
        assert_eq!(path(&all, "node-3", &[]), ["top", "-", "s1"]);
        assert_eq!(path(&all, "any", &[("rack", "r3")]), ["top", "s2", "-"]);
        assert_eq!(path(&all, "lonely", &[]), ["top", "-", "-"]);
        assert_eq!(path(&all, "stranger", &[]), ["-", "-", "-"]);
        assert_eq!(path(&all, "xnode-22", &[]), ["-", "-", "-"], "the pattern is anchored");
    }

    #[test]
    fn an_unknown_tier_is_an_error_and_never_ignored() {
        let all =
            HyperNodes::new(&[named("leaf", group("s0", 1, vec![])), named("spine", group("top", 2, vec![]))]).unwrap();
        assert_eq!(all.tier("spine"), Ok(LevelIndex(0)));
        assert_eq!(all.tier("1"), Ok(LevelIndex(1)));
        for asked in ["rack", "3"] {
            let expected = format!("no HyperNode is of tier {asked:?}; the tiers are leaf (1), spine (2)");
            assert_eq!(all.tier(asked).unwrap_err().to_string(), expected);
        }
        let twice = [named("a", group("x", 1, vec![])), named("a", group("y", 2, vec![]))];
        let error = HyperNodes::new(&twice).unwrap_err().to_string();
        assert!(error.contains("\"a\" appears twice"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_told_and_the_rest_counts() {
        let found = problems(&[
            named("one", group("a", 1, vec![regex(Node, "(")])),
            named("two", group("b", 1, vec![exact(Node, "n")])),
            group("c", 2, vec![exact(Group, "b"), exact(Group, "gone"), exact(Group, "d")]),
            group("d", 2, vec![exact(Group, "b"), (Group, MemberSelector::Labels(vec![]))]),
        ]);
        let expected = [
            "HyperNode a: regexMatch.pattern \"(\" cannot be read",
            "HyperNode d: labelMatch selects nodes only",
            "HyperNode c: its member HyperNode gone does not exist",
            "HyperNode c of tier 2: its member HyperNode d is of tier 2; members must be of a lower tier",
            "HyperNode b is a member of both c and d; c counts",
            "tier 1 is called both \"one\" and \"two\"; \"one\" counts",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn a_node_in_two_groups_of_a_tier_stands_in_the_first_and_both_are_told() {
        let all =
            HyperNodes::new(&[group("b", 1, vec![regex(Node, "n")]), group("a", 1, vec![exact(Node, "n1")])]).unwrap();
        let placed = all.place("n1", |_| None);
        assert_eq!(placed, Placed { path: vec![Some("a".into())], also: Some("b".into()) });
        let excluded = vec![LabelTerm::Exists("gpu".into()), LabelTerm::NotIn("pool".into(), vec!["x".into()])];
        let with = [LabelTerm::Absent("old".into())].into_iter().chain(excluded).collect();
        let all = HyperNodes::new(&[group("l", 1, vec![(Node, MemberSelector::Labels(with))])]).unwrap();
        assert_eq!(path(&all, "n", &[("gpu", "1")]), ["l"]);
        assert_eq!(path(&all, "n", &[("gpu", "1"), ("pool", "x")]), ["-"]);
        assert_eq!(path(&all, "n", &[("gpu", "1"), ("old", "")]), ["-"]);
    }
}

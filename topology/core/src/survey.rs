//! What the labels of the nodes say about the levels, and where they say too little or contradict each other.
//!
//! A finding never keeps a node out of the tree: a node without a label hangs below the next wider level that it has one for,
//! and of two labels of a level the first counts. It is told, because a gang that asks for the level sees less than there is.

use crate::levels::{HOSTNAME, LevelIndex, Levels};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::ops::Range;

/// Label keys whose values are unique in a cluster, so that one value in two wider domains is a contradiction. A rack
/// `r1` in two zones is none.
const UNIQUE: [&str; 4] = [
    "nvidia.com/gpu.clique",
    "accelerator.topograph.run/domain",
    "network.topology.nvidia.com/accelerator",
    "topology.k8s.aws/ultraserver-id",
];
/// Nodes that a finding names.
const NAMED: usize = 3;

/// A node as a survey sees it.
pub trait Surveyed {
    /// Its name.
    fn name(&self) -> &str;
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
    /// Whether it has devices, which are what topology matters for most.
    fn has_devices(&self) -> bool;
}

/// What is wrong with labels.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FindingKind {
    /// Nodes lack a label that others have.
    MissingLabels,
    /// Two labels of one level group nodes differently, and neither refines the other.
    ContradictoryLabels,
    /// A domain that is unique in the cluster lies in two wider domains.
    SplitDomain,
    /// Two nodes carry the same hostname.
    SharedHost,
}

impl FindingKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::MissingLabels, Self::ContradictoryLabels, Self::SplitDomain, Self::SharedHost];

    /// One word, for conditions.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::MissingLabels => "MissingLabels",
            Self::ContradictoryLabels => "ContradictoryLabels",
            Self::SplitDomain => "SplitDomain",
            Self::SharedHost => "SharedHost",
        }
    }
}

/// Something to be told.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// Level that it is about.
    pub level: SmolStr,
    /// One sentence with the first nodes or values by name.
    pub message: String,
    /// How many nodes, or domains, are concerned.
    pub count: usize,
}

/// How far a level is filled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LevelCount {
    /// The level.
    pub level: SmolStr,
    /// Values of its label.
    pub domains: usize,
    /// Nodes that have one.
    pub nodes: usize,
}

/// What the labels say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Survey {
    /// Nodes looked at.
    pub nodes: usize,
    /// Each level, widest first.
    pub levels: Vec<LevelCount>,
    /// What is wrong, by kind and level.
    pub findings: Vec<Finding>,
}

/// What all nodes say to the keys of all levels: every label is looked up once, as that is what a survey costs.
struct Sheet<'a, 'l> {
    levels: &'l Levels,
    /// First column of each level, and one past the last.
    begins: Vec<usize>,
    keys: Vec<&'l SmolStr>,
    names: Vec<&'a str>,
    devices: Vec<bool>,
    /// Row by row; an empty value counts as none.
    cells: Vec<Option<&'a str>>,
}

impl<'a, 'l> Sheet<'a, 'l> {
    fn of<N: Surveyed>(levels: &'l Levels, nodes: &'a [N]) -> Self {
        let keys: Vec<&SmolStr> = levels.all_keys().collect();
        let mut begins = vec![0];
        for level in levels.iter() {
            begins.push(begins.last().copied().unwrap_or(0) + levels.keys(level).len());
        }
        let mut cells = Vec::with_capacity(keys.len() * nodes.len());
        for node in nodes {
            cells.extend(keys.iter().map(|key| node.label(key).filter(|value| !value.is_empty())));
        }
        let (names, devices) = (nodes.iter().map(Surveyed::name), nodes.iter().map(Surveyed::has_devices));
        Self { levels, begins, keys, names: names.collect(), devices: devices.collect(), cells }
    }

    fn rows(&self) -> impl Iterator<Item = (usize, &[Option<&'a str>])> {
        // Without keys there is nothing to say of any node.
        self.cells.chunks_exact(self.keys.len().max(1)).enumerate()
    }

    fn columns(&self, level: LevelIndex) -> Range<usize> {
        let at = usize::from(level.0);
        let edge = |at: usize| self.begins.get(at).copied().unwrap_or(0);
        edge(at)..edge(at + 1)
    }

    /// Column and value of the label of a level that counts.
    fn value(&self, row: &[Option<&'a str>], level: LevelIndex) -> Option<(usize, &'a str)> {
        self.columns(level).find_map(|column| Some((column, row.get(column).copied().flatten()?)))
    }

    /// Column of the hostname, where the level is that of hosts.
    fn hostname(&self, level: LevelIndex) -> Option<usize> {
        self.columns(level).find(|column| self.keys[*column] == HOSTNAME)
    }
}

/// Looks at the labels of all nodes. `O(nodes · (label keys + log nodes))`.
pub fn survey<N: Surveyed>(levels: &Levels, nodes: &[N]) -> Survey {
    let sheet = Sheet::of(levels, nodes);
    let mut found = Survey { nodes: nodes.len(), ..Survey::default() };
    let with_devices = sheet.devices.iter().any(|has| *has);
    for level in levels.iter() {
        let hostname = sheet.hostname(level);
        let (mut domains, mut missing) = (Vec::with_capacity(nodes.len()), Vec::new());
        for (node, row) in sheet.rows() {
            match sheet.value(row, level) {
                Some((_, value)) => domains.push(value),
                None if hostname.is_some() => domains.push(sheet.names[node]),
                None if sheet.devices[node] || !with_devices => missing.push(sheet.names[node]),
                None => {}
            }
        }
        let (name, labelled) = (SmolStr::from(levels.name(level)), domains.len());
        domains.sort_unstable();
        domains.dedup();
        if labelled > 0 && !missing.is_empty() {
            let message = format!("{} without a label of level {name}: {}", nodes_of(missing.len()), some(&missing));
            let (kind, count) = (FindingKind::MissingLabels, missing.len());
            found.findings.push(Finding { kind, level: name.clone(), message, count });
        }
        found.findings.extend(contradictions(&sheet, level));
        found.findings.extend(match hostname {
            Some(column) => shared_hosts(&sheet, level, column),
            None => split(&sheet, level),
        });
        found.levels.push(LevelCount { level: name, domains: domains.len(), nodes: labelled });
    }
    found.findings.sort();
    found
}

/// Pairs of labels of one level that group nodes differently.
fn contradictions(sheet: &Sheet<'_, '_>, level: LevelIndex) -> Vec<Finding> {
    let used: Vec<usize> =
        sheet.columns(level).filter(|column| sheet.rows().any(|(_, row)| row[*column].is_some())).collect();
    let name = SmolStr::from(sheet.levels.name(level));
    let mut findings = Vec::new();
    for (at, one) in used.iter().enumerate() {
        for other in used.iter().skip(at + 1) {
            let (Some(there), Some(back)) = (scattered(sheet, *one, *other), scattered(sheet, *other, *one)) else {
                continue;
            };
            let (first, second) = (sheet.keys[*one], sheet.keys[*other]);
            let message = format!(
                "labels {first} and {second} of level {name} group nodes differently ({first}={} has {second}={} and {}; {second}={} \
                 has {first}={} and {}); {first} counts",
                there.0, there.1, there.2, back.0, back.1, back.2
            );
            findings.push(Finding { kind: FindingKind::ContradictoryLabels, level: name.clone(), message, count: 1 });
        }
    }
    findings
}

/// A value of one label whose nodes have two values of another, with both.
fn scattered<'a>(sheet: &Sheet<'a, '_>, one: usize, other: usize) -> Option<(&'a str, &'a str, &'a str)> {
    let mut partner: BTreeMap<&str, &str> = BTreeMap::new();
    for (_, row) in sheet.rows() {
        let (Some(value), Some(with)) = (row[one], row[other]) else { continue };
        let before = *partner.entry(value).or_insert(with);
        if before != with {
            return Some((value, before, with));
        }
    }
    None
}

/// Domains that are unique by their label and yet lie in two wider ones.
fn split(sheet: &Sheet<'_, '_>, level: LevelIndex) -> Vec<Finding> {
    let wider: Vec<LevelIndex> = sheet.levels.iter().filter(|other| *other < level).collect();
    let mut above: BTreeMap<&str, Vec<Option<&str>>> = BTreeMap::new();
    let mut torn: BTreeMap<&str, [String; 2]> = BTreeMap::new();
    for (_, row) in sheet.rows() {
        let Some((column, value)) = sheet.value(row, level) else { continue };
        if !UNIQUE.contains(&sheet.keys[column].as_str()) {
            continue;
        }
        let path: Vec<Option<&str>> =
            wider.iter().map(|level| sheet.value(row, *level).map(|(_, value)| value)).collect();
        let told = |path: &[Option<&str>]| {
            let narrowest = wider.iter().zip(path).filter_map(|(level, value)| Some((level, (*value)?))).next_back();
            narrowest
                .map_or("no wider domain".to_owned(), |(level, value)| format!("{}/{value}", sheet.levels.name(*level)))
        };
        let before = above.entry(value).or_insert_with(|| path.clone());
        if *before != path {
            torn.entry(value).or_insert_with(|| [told(before), told(&path)]);
        }
    }
    let Some((value, [one, other])) = torn.first_key_value() else { return Vec::new() };
    let name = SmolStr::from(sheet.levels.name(level));
    let more = if torn.len() > 1 { format!(", and {} more", torn.len() - 1) } else { String::new() };
    let message = format!("{name}/{value} lies in {one} and in {other} and is taken for two domains{more}");
    vec![Finding { kind: FindingKind::SplitDomain, level: name, message, count: torn.len() }]
}

/// Hostnames that several nodes carry. A node whose host another label of the level names is left out: its hostname does not
/// count, and the other label may group nodes on purpose, as the chassis of virtual machines.
fn shared_hosts(sheet: &Sheet<'_, '_>, level: LevelIndex, hostname: usize) -> Vec<Finding> {
    let host = |(node, row)| match sheet.value(row, level) {
        None => Some((sheet.names[node], node)),
        Some((column, value)) => (column == hostname).then_some((value, node)),
    };
    let mut hosts: Vec<(&str, usize)> = sheet.rows().filter_map(host).collect();
    hosts.sort_unstable();
    let shared: Vec<&[(&str, usize)]> = hosts.chunk_by(|a, b| a.0 == b.0).filter(|nodes| nodes.len() > 1).collect();
    let Some(first) = shared.first() else { return Vec::new() };
    let names: Vec<&str> = first.iter().map(|(_, node)| sheet.names[*node]).collect();
    let host = first.first().map_or("", |(host, _)| *host);
    let message =
        format!("{} carry {HOSTNAME}={host} and are taken for one host: {}", nodes_of(names.len()), some(&names));
    let count = shared.iter().map(|nodes| nodes.len()).sum();
    let level = sheet.levels.name(level).into();
    vec![Finding { kind: FindingKind::SharedHost, level, message, count }]
}

fn nodes_of(count: usize) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}

fn some(names: &[&str]) -> String {
    let mut text = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::levels::standard;

    struct Node(&'static str, Vec<(&'static str, &'static str)>, bool);

    impl Surveyed for Node {
        fn name(&self) -> &str {
            self.0
        }

        fn label(&self, key: &str) -> Option<&str> {
            self.1.iter().find(|(have, _)| *have == key).map(|(_, value)| *value)
        }

        fn has_devices(&self) -> bool {
            self.2
        }
    }

    const NEW: &str = "fabric.topograph.run/tier-0";
    const OLD: &str = "network.topology.nvidia.com/leaf";
    const CLIQUE: &str = "nvidia.com/gpu.clique";

    fn look(nodes: &[Node]) -> Survey {
        survey(&Levels::new(standard()).unwrap(), nodes)
    }

    fn said(nodes: &[Node]) -> Vec<(FindingKind, String, usize)> {
        look(nodes).findings.into_iter().map(|f| (f.kind, f.message, f.count)).collect()
    }

    #[test]
    fn levels_are_counted_and_complete_labels_find_nothing() {
        let nodes = [Node("a", vec![(NEW, "r1")], false), Node("b", vec![(NEW, "r2")], false)];
        let found = look(&nodes);
        assert_eq!(found.findings, []);
        let counts: Vec<_> = found.levels.iter().map(|l| (l.level.as_str(), l.domains, l.nodes)).collect();
        assert_eq!(counts, [("zone", 0, 0), ("block", 0, 0), ("rack", 2, 2), ("nvlink", 0, 0), ("host", 2, 2)]);
        assert_eq!(look(&[]).findings, []);
    }

    #[test]
    fn a_level_that_only_some_device_nodes_have_is_told() {
        let nodes = [
            Node("a", vec![(NEW, "r1")], true),
            Node("b", vec![], true),
            Node("c", vec![(NEW, "")], true),
            Node("cpu", vec![], false),
        ];
        let message = "2 nodes without a label of level rack: b, c".to_owned();
        assert_eq!(said(&nodes), [(FindingKind::MissingLabels, message, 2)]);
    }

    #[test]
    fn labels_that_group_differently_contradict_and_a_refinement_does_not() {
        let refined = [Node("a", vec![(NEW, "r1"), (OLD, "x")], true), Node("b", vec![(NEW, "r1"), (OLD, "y")], true)];
        assert_eq!(said(&refined), []);
        let moved = [
            Node("a", vec![(NEW, "r1"), (OLD, "x")], true),
            Node("b", vec![(NEW, "r2"), (OLD, "x")], true),
            Node("c", vec![(NEW, "r2"), (OLD, "y")], true),
        ];
        let found = said(&moved);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, FindingKind::ContradictoryLabels);
        assert!(found[0].1.ends_with(&format!("{NEW} counts")), "{}", found[0].1);
    }

    #[test]
    fn a_clique_in_two_racks_is_told_and_a_rack_in_two_zones_is_not() {
        let zone = "topology.kubernetes.io/zone";
        let racks =
            [Node("a", vec![(zone, "z1"), (NEW, "r1")], true), Node("b", vec![(zone, "z2"), (NEW, "r1")], true)];
        assert_eq!(said(&racks), []);
        let cliques =
            [Node("a", vec![(NEW, "r1"), (CLIQUE, "u.1")], true), Node("b", vec![(NEW, "r2"), (CLIQUE, "u.1")], true)];
        let message = "nvlink/u.1 lies in rack/r1 and in rack/r2 and is taken for two domains".to_owned();
        assert_eq!(said(&cliques), [(FindingKind::SplitDomain, message, 1)]);
    }

    #[test]
    fn nodes_with_one_hostname_are_told() {
        let nodes = [Node("a", vec![(HOSTNAME, "h")], false), Node("b", vec![(HOSTNAME, "h")], false)];
        let message = "2 nodes carry kubernetes.io/hostname=h and are taken for one host: a, b".to_owned();
        assert_eq!(said(&nodes), [(FindingKind::SharedHost, message, 2)]);
    }

    #[test]
    fn a_hostname_that_another_label_of_the_level_outranks_is_not_told() {
        const CHASSIS: &str = "example.com/chassis";
        let levels = Levels::new(vec![("host".into(), vec![CHASSIS.into(), HOSTNAME.into()])]).unwrap();
        let on = |name, chassis| Node(name, vec![(HOSTNAME, "h"), (CHASSIS, chassis)], false);
        assert_eq!(survey(&levels, &[on("a", "c1"), on("b", "c2")]).findings, []);
        assert_eq!(survey(&levels, &[on("a", "c1"), on("b", "c1")]).findings, [], "grouped on purpose");
        let mixed = [on("a", "c1"), Node("b", vec![(HOSTNAME, "h")], false), Node("c", vec![(HOSTNAME, "h")], false)];
        let found = survey(&levels, &mixed).findings;
        assert_eq!(found.iter().map(|f| (f.kind, f.count)).collect::<Vec<_>>(), [(FindingKind::SharedHost, 2)]);
    }
}

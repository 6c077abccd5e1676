//! The tree of the cluster's domains with their GPUs, as text.
//!
//! ```text
//! cluster     2 nodes  ▰▰▰▰▰▰▰▰▰▰▰▰▱▱▱▱  4 of 16 GPUs free
//! └─ rack/r1  2 nodes  ▰▰▰▰▰▰▰▰▰▰▰▰▱▱▱▱  4 of 16 GPUs free
//!    ├─ d0             ▰▰▰▰▰▰▰▰          0 of 8 GPUs free
//!    └─ d1             ▰▰▰▰▱▱▱▱          4 of 8 GPUs free
//! ```

use std::collections::BTreeMap;

use flowforge_topology_core::{DomainId, HOSTNAME, LevelIndex, Levels, Tree};
use serde::Serialize;

use super::strip::{Part, strip};
use super::style::{Style, Tone, cut, display_width, printable};

pub(crate) mod svg;

/// A node of the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Where it stands, when no labels tell; widest first.
    pub(crate) path: Option<Vec<Option<String>>>,
    /// GPUs that pods can have.
    pub(crate) gpus: i64,
    /// GPUs that pods have.
    pub(crate) used: i64,
    /// Why nothing new comes to it.
    pub(crate) closed: Option<&'static str>,
}

/// GPUs of a node or domain.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct Gpus {
    pub(crate) total: i64,
    pub(crate) used: i64,
    /// Neither used nor on a node that takes no pods.
    pub(crate) free: i64,
}

impl Gpus {
    fn of(host: &Host) -> Self {
        let left = (host.gpus - host.used).max(0);
        Self { total: host.gpus, used: host.used, free: if host.closed.is_some() { 0 } else { left } }
    }

    fn add(&mut self, other: Self) {
        self.total += other.total;
        self.used += other.used;
        self.free += other.free;
    }

    /// Neither used nor free.
    fn out_of_reach(self) -> i64 {
        (self.total - self.used - self.free).max(0)
    }
}

/// A node as it is drawn.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HostDrawing {
    pub(crate) name: String,
    pub(crate) gpus: Gpus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) closed: Option<&'static str>,
}

/// A domain as it is drawn.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Drawing {
    /// `level/value`, or `cluster`.
    pub(crate) name: String,
    pub(crate) nodes: u32,
    pub(crate) gpus: Gpus,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) domains: Vec<Drawing>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) hosts: Vec<HostDrawing>,
}

/// Puts the hosts below their domains, down to the domains of level `last` or to the nodes. A host of
/// one node is drawn as the node.
pub(crate) fn draw(levels: Levels, hosts: &[Host], last: Option<LevelIndex>) -> Drawing {
    let mut tree = Tree::new(levels);
    for (node, host) in (0_u32..).zip(hosts) {
        match &host.path {
            Some(path) => tree.place_at(node, path.iter().map(|part| part.as_deref().map(Into::into)).collect()),
            None => tree.place(node, &host.name, |key| host.labels.get(key).map(String::as_str)),
        };
    }
    domain(&tree, hosts, last, DomainId::ROOT)
}

/// Whether the domains of a level are hosts.
pub(crate) fn is_host(levels: &Levels, level: LevelIndex) -> bool {
    levels.keys(level).iter().any(|key| key == HOSTNAME)
}

fn domain(tree: &Tree, hosts: &[Host], last: Option<LevelIndex>, id: DomainId) -> Drawing {
    let mut drawing = Drawing { name: tree.describe(id), nodes: tree.size(id), ..Drawing::default() };
    for child in tree.children(id) {
        let below = domain(tree, hosts, last, child);
        drawing.gpus.add(below.gpus);
        match below.hosts.first() {
            Some(host) if below.nodes == 1 && tree.level(child).is_some_and(|level| is_host(tree.levels(), level)) => {
                drawing.hosts.push(host.clone());
            }
            _ if last.is_none_or(|last| tree.level(child) <= Some(last)) => drawing.domains.push(below),
            _ => {}
        }
    }
    for host in tree.nodes(id).filter_map(|node| hosts.get(node as usize)) {
        let gpus = Gpus::of(host);
        drawing.gpus.add(gpus);
        if last.is_none() {
            drawing.hosts.push(HostDrawing { name: host.name.clone(), gpus, closed: host.closed });
        }
    }
    drawing.hosts.sort_by(|a, b| a.name.cmp(&b.name));
    drawing
}

/// A line before its columns are aligned: the name with its branches, nodes, the strip, and the rest.
type Cells = [String; 4];

/// The lines, cut to so many columns.
pub(crate) fn lines(drawing: &Drawing, columns: usize, style: Style) -> Vec<String> {
    let mut rows: Vec<Cells> = vec![row(&style.paint(Tone::Strong, &drawing.name), drawing.nodes, drawing.gpus, style)];
    branches(drawing, "", style, &mut rows);
    let width = |at: usize| rows.iter().map(|cells| display_width(&cells[at])).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let aligned = |cells: &Cells| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths).filter(|(_, width)| *width > 0) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width - display_width(cell) + 2));
        }
        line.push_str(&cells[3]);
        cut(line.trim_end(), columns)
    };
    rows.iter().map(aligned).collect()
}

fn branches(drawing: &Drawing, indent: &str, style: Style, rows: &mut Vec<Cells>) {
    let count = drawing.domains.len() + drawing.hosts.len();
    let branch = |at: usize| if at + 1 == count { ("└─ ", "   ") } else { ("├─ ", "│  ") };
    for (at, below) in drawing.domains.iter().enumerate() {
        let (turn, further) = branch(at);
        rows.push(row(&format!("{indent}{turn}{}", printable(&below.name)), below.nodes, below.gpus, style));
        branches(below, &format!("{indent}{further}"), style, rows);
    }
    for (at, host) in (drawing.domains.len()..).zip(&drawing.hosts) {
        let mut cells = row(&format!("{indent}{}{}", branch(at).0, printable(&host.name)), 0, host.gpus, style);
        if let Some(closed) = host.closed {
            let separator = if cells[3].is_empty() { "" } else { ", " };
            cells[3].push_str(&format!("{separator}{}", style.paint(Tone::Waiting, closed)));
        }
        rows.push(cells);
    }
}

fn row(name: &str, nodes: u32, gpus: Gpus, style: Style) -> Cells {
    let nodes = match nodes {
        0 => String::new(),
        1 => "1 node".to_owned(),
        nodes => format!("{nodes} nodes"),
    };
    if gpus.total == 0 {
        return [name.to_owned(), nodes, String::new(), String::new()];
    }
    let part = |count: i64, tone, filled| Part { count: usize::try_from(count).unwrap_or(0), tone, filled };
    let cells = strip(
        &[
            part(gpus.used.min(gpus.total), Tone::Busy, true),
            part(gpus.out_of_reach(), Tone::Waiting, true),
            part(gpus.free, Tone::Good, false),
        ],
        style,
    );
    [name.to_owned(), nodes, cells, format!("{} of {} GPUs free", gpus.free, gpus.total)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use flowforge_topology_core::standard;

    pub(super) fn host(name: &str, rack: &str, used: i64) -> Host {
        let labels = [("network.topology.nvidia.com/leaf".to_owned(), rack.to_owned())];
        let labels = if rack.is_empty() { BTreeMap::new() } else { labels.into() };
        Host { name: name.into(), labels, gpus: 8, used, ..Host::default() }
    }

    pub(super) fn hosts() -> Vec<Host> {
        vec![
            host("d1", "r1", 4),
            host("d0", "r1", 8),
            Host { closed: Some("cordoned"), ..host("d2", "r2", 3) },
            Host { gpus: 0, ..host("cpu", "", 0) },
        ]
    }

    fn levels() -> Levels {
        Levels::new(standard()).expect("valid")
    }

    #[track_caller]
    fn check(hosts: &[Host], last: Option<&str>, columns: usize, expected: &Expect) {
        let levels = levels();
        let last = last.and_then(|name| levels.find(name));
        let lines = lines(&draw(levels, hosts, last), columns, Style::default());
        expected.assert_eq(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    }

    #[test]
    fn nodes_stand_below_their_domains_with_what_is_free() {
        check(
            &hosts(),
            None,
            120,
            &expect![[r#"
            cluster     4 nodes  ▰▰▰▰▰▰▰▰▰▰▰▰▰▰▱▱  4 of 24 GPUs free
            ├─ rack/r1  2 nodes  ▰▰▰▰▰▰▰▰▰▰▰▰▱▱▱▱  4 of 16 GPUs free
            │  ├─ d0             ▰▰▰▰▰▰▰▰          0 of 8 GPUs free
            │  └─ d1             ▰▰▰▰▱▱▱▱          4 of 8 GPUs free
            ├─ rack/r2  1 node   ▰▰▰▰▰▰▰▰          0 of 8 GPUs free
            │  └─ d2             ▰▰▰▰▰▰▰▰          0 of 8 GPUs free, cordoned
            └─ cpu
        "#]],
        );
    }

    #[test]
    fn a_level_ends_the_drawing_and_sums_up_what_is_below() {
        check(
            &hosts(),
            Some("rack"),
            120,
            &expect![[r#"
            cluster     4 nodes  ▰▰▰▰▰▰▰▰▰▰▰▰▰▰▱▱  4 of 24 GPUs free
            ├─ rack/r1  2 nodes  ▰▰▰▰▰▰▰▰▰▰▰▰▱▱▱▱  4 of 16 GPUs free
            └─ rack/r2  1 node   ▰▰▰▰▰▰▰▰          0 of 8 GPUs free
        "#]],
        );
        check(
            &hosts(),
            Some("rack"),
            30,
            &expect![[r#"
            cluster     4 nodes  ▰▰▰▰▰▰▰▰…
            ├─ rack/r1  2 nodes  ▰▰▰▰▰▰▰▰…
            └─ rack/r2  1 node   ▰▰▰▰▰▰▰▰…
        "#]],
        );
    }

    #[test]
    fn hosts_of_a_description_stand_on_their_path_and_have_no_gpus() {
        let path = |rack: &str| Some(vec![Some("p1".to_owned()), Some(rack.to_owned())]);
        let host = |name: &str, rack| Host { name: name.into(), path: path(rack), ..Host::default() };
        let levels = Levels::of_names(["pod".into(), "rack".into()]).expect("valid");
        let drawing = draw(levels, &[host("a", "r1"), host("b", "r2"), host("c", "r2")], None);
        expect![[r#"
            cluster        3 nodes
            └─ pod/p1      3 nodes
               ├─ rack/r1  1 node
               │  └─ a
               └─ rack/r2  2 nodes
                  ├─ b
                  └─ c"#]]
        .assert_eq(&lines(&drawing, 80, Style::default()).join("\n"));
    }

    #[test]
    fn more_in_use_than_there_is_leaves_nothing_free() {
        let drawing = draw(levels(), &[host("a", "r1", 11)], None);
        assert_eq!(drawing.gpus, Gpus { total: 8, used: 11, free: 0 });
        assert_eq!(lines(&drawing, 80, Style::default())[0], "cluster     1 node  ▰▰▰▰▰▰▰▰  0 of 8 GPUs free");
    }
}

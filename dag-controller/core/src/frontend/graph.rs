//! Edges: targets that exist, and no circle.

use super::MAX_EDGES;
use super::errors::{Errors, Path, echo};
use crate::dag;
use crate::ids::NodeIx;
use std::collections::{BTreeMap, BTreeSet};

/// Most circles reported, and most nodes shown of one.
const MAX_CYCLES: usize = 5;
const MAX_SHOWN: usize = 8;

/// What the graph needs to know of a node.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    /// Its id, where it has a good one.
    pub(super) id: Option<&'a str>,
    /// Where it stands.
    pub(super) path: Path,
    /// The ids it depends on, each with its place in `dependsOn`.
    pub(super) depends_on: Vec<(usize, &'a str)>,
}

/// The edges (upstream, downstream); mistakes go to `errors`.
pub(super) fn edges(nodes: &[Draft<'_>], errors: &mut Errors) -> Vec<(NodeIx, NodeIx)> {
    let total: usize = nodes.iter().map(|n| n.depends_on.len()).sum();
    if total > MAX_EDGES {
        let problem = format!("has {total} dependsOn entries in all, at most {MAX_EDGES} are possible");
        errors.push("", problem, "put a joining node between wide layers");
        return Vec::new();
    }
    let mut by_id: BTreeMap<&str, NodeIx> = BTreeMap::new();
    for (at, node) in (0u32..).zip(nodes) {
        if let Some(id) = node.id {
            by_id.entry(id).or_insert(NodeIx(at));
        }
    }
    let mut edges = Vec::with_capacity(total);
    for (at, node) in (0u32..).zip(nodes) {
        let mut seen = BTreeSet::new();
        for &(place, target) in &node.depends_on {
            let path = || node.path.field("dependsOn").at(place);
            if !seen.insert(target) {
                errors.push(path(), format!("{} is there twice", echo(target)), "remove one of the two");
                continue;
            }
            match by_id.get(target) {
                Some(&up) if up == NodeIx(at) => {
                    errors.push(path(), format!("{} depends on itself", echo(target)), "remove this entry");
                }
                Some(&up) => edges.push((up, NodeIx(at))),
                None => unknown_target(path(), target, &by_id, errors),
            }
        }
    }
    report_cycles(nodes, &mut edges, errors);
    edges
}

fn unknown_target(path: Path, target: &str, by_id: &BTreeMap<&str, NodeIx>, errors: &mut Errors) {
    let fix = errors.look_alike(target, by_id.keys().copied()).map_or_else(
        || "add a node with this id, or remove the entry".to_owned(),
        |near| format!("did you mean {near:?}?"),
    );
    errors.push(path, format!("no node has the id {}", echo(target)), fix);
}

fn report_cycles(nodes: &[Draft<'_>], edges: &mut [(NodeIx, NodeIx)], errors: &mut Errors) {
    edges.sort_unstable();
    for cycle in dag::cycles(nodes.len(), edges, MAX_CYCLES) {
        let Some(first) = cycle.first().and_then(|n| nodes.get(n.at())) else { continue };
        let name = |n: &NodeIx| nodes.get(n.at()).and_then(|node| node.id).unwrap_or("?");
        let mut shown: Vec<&str> = cycle.iter().take(MAX_SHOWN).map(name).collect();
        let rest = cycle.len() - shown.len();
        let between = if rest > 0 { format!("… {rest} more …") } else { String::new() };
        if rest > 0 {
            shown.push(&between);
        }
        shown.push(name(&cycle[0]));
        let problem = format!("these nodes wait for each other: {}", shown.join(" -> "));
        let fix = "an arrow means 'runs before': remove one of these dependsOn entries";
        errors.push(first.path.field("dependsOn"), problem, fix);
    }
}

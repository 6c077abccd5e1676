//! Edges: targets that exist, what they wait for, and no circle; and what a failure means to the others, which follows from
//! who waits for it.

use super::MAX_EDGES;
use super::errors::{Errors, Path, echo};
use super::schema::{self, get};
use crate::dag::{self, Edge, NodeSpec, On, OnFailure};
use crate::ids::NodeIx;
use serde_json::{Map, Value};
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
    /// What it depends on.
    pub(super) depends_on: Vec<Dependency<'a>>,
    /// What its failure means, where that is written.
    pub(super) on_failure: Option<OnFailure>,
    /// It runs after all others.
    pub(super) finally: bool,
}

/// One entry of `dependsOn`.
#[derive(Debug)]
pub(super) struct Dependency<'a> {
    /// Its place in the list.
    place: usize,
    /// The id of the upstream node.
    pub(super) node: &'a str,
    /// What is waited for.
    on: On,
}

/// The words of `dependsOn[].on`.
pub(super) const ON: &[(&str, On)] = &[
    ("Succeeded", On::Succeeded),
    ("Failed", On::Failed),
    ("Completed", On::Completed),
    ("Running", On::Running),
    ("Skipped", On::Skipped),
];

/// The entries of a node's `dependsOn`: an id, or `{node: <id>, on: <what>}`.
pub(super) fn depends_on<'a>(
    path: &Path,
    node: &'a Map<String, Value>,
    strict: bool,
    errors: &mut Errors,
) -> Vec<Dependency<'a>> {
    let Some(value) = get(node, "dependsOn") else { return Vec::new() };
    let path = path.field("dependsOn");
    if value.is_string() {
        errors.push(path, "must be a list of ids, is a text", format!("write [{value}]"));
        return Vec::new();
    }
    let entries = schema::list(&path, value, errors).into_iter().flatten().enumerate();
    entries.filter_map(|(at, entry)| dependency(&path.at(at), at, entry, strict, errors)).collect()
}

fn dependency<'a>(
    path: &Path,
    place: usize,
    entry: &'a Value,
    strict: bool,
    errors: &mut Errors,
) -> Option<Dependency<'a>> {
    if let Some(node) = entry.as_str() {
        return Some(Dependency { place, node, on: On::Succeeded });
    }
    let Some(object) = entry.as_object() else {
        let problem = format!("must be an id or an object, is {}", schema::type_of(entry));
        errors.push(path, problem, "write the id of a node, or {node: <id>, on: Failed}");
        return None;
    };
    if strict {
        schema::unknown_fields(object, path, || ["node", "on"].into_iter(), errors);
    }
    let Some(node) = get(object, "node") else {
        errors.push(path, "has no node", "add node: the id of the node it waits for");
        return None;
    };
    let node = schema::text(&path.field("node"), node, errors)?;
    let on = match get(object, "on") {
        None => On::Succeeded,
        Some(on) => schema::word(&path.field("on"), on, ON, errors)?,
    };
    Some(Dependency { place, node, on })
}

/// Sets what the failure of each node means: as written, else SkipDownstream where a node waits for it, else Fail.
pub(super) fn failures(drafts: &[Draft<'_>], edges: &[Edge], specs: &mut [NodeSpec], errors: &mut Errors) {
    for (draft, spec) in drafts.iter().zip(&mut *specs) {
        spec.on_failure = draft.on_failure.unwrap_or_default();
    }
    for edge in edges.iter().filter(|e| matches!(e.on, On::Failed | On::Completed)) {
        let (Some(up), Some(down)) = (drafts.get(edge.up.at()), drafts.get(edge.down.at())) else { continue };
        match up.on_failure {
            None => specs[edge.up.at()].on_failure = OnFailure::SkipDownstream,
            Some(OnFailure::Fail) => {
                let (up_id, id) = (up.id.unwrap_or("?"), down.id.unwrap_or("?"));
                let problem = format!("a failure of {up_id:?} stops the workflow, but {id:?} waits for it");
                let fix = "write SkipDownstream or Continue, or remove it";
                errors.push(up.path.field("onFailure"), problem, fix);
            }
            Some(OnFailure::Continue | OnFailure::SkipDownstream) => {}
        }
    }
}

/// The edges; mistakes go to `errors`.
pub(super) fn edges(nodes: &[Draft<'_>], errors: &mut Errors) -> Vec<Edge> {
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
        for &Dependency { place, node: target, on } in &node.depends_on {
            let path = || node.path.field("dependsOn").at(place);
            if !seen.insert((target, on)) {
                errors.push(path(), format!("{} is there twice", echo(target)), "remove one of the two");
                continue;
            }
            match by_id.get(target) {
                Some(&up) if up == NodeIx(at) => {
                    errors.push(path(), format!("{} depends on itself", echo(target)), "remove this entry");
                }
                Some(&up) if nodes[up.at()].finally != node.finally => {
                    let (problem, fix) = if node.finally {
                        ("is no finally node: it has ended when this one starts", "remove the entry")
                    } else {
                        ("is a finally node, which starts when all others have ended", "write finally: true here too")
                    };
                    errors.push(path(), format!("{} {problem}", echo(target)), fix);
                }
                Some(&up) => edges.push(Edge { up, down: NodeIx(at), on }),
                None => unknown_target(path(), target, &by_id, errors),
            }
        }
    }
    if !nodes.is_empty() && nodes.iter().all(|n| n.finally) {
        errors.push(nodes[0].path.field("finally"), "every node is a finally node", "leave one node without finally");
    }
    report_cycles(nodes, &edges, errors);
    edges
}

fn unknown_target(path: Path, target: &str, by_id: &BTreeMap<&str, NodeIx>, errors: &mut Errors) {
    let fix = errors.look_alike(target, by_id.keys().copied()).map_or_else(
        || "add a node with this id, or remove the entry".to_owned(),
        |near| format!("did you mean {near:?}?"),
    );
    errors.push(path, format!("no node has the id {}", echo(target)), fix);
}

fn report_cycles(nodes: &[Draft<'_>], edges: &[Edge], errors: &mut Errors) {
    let mut pairs: Vec<(NodeIx, NodeIx)> = edges.iter().map(|e| (e.up, e.down)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    for cycle in dag::cycles(nodes.len(), &pairs, MAX_CYCLES) {
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

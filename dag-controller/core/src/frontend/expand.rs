//! From the nodes that a person wrote to plain ones: `for` unrolled, templates put in, parameters filled.
//!
//! Texts that wait for upstream nodes stay as they are, as do escapes: both are filled when the node is released. A node that
//! uses none of it is borrowed as it stands. What comes out is checked like any other node; its mistakes are told at the
//! place of the node that was written.

use super::errors::{Errors, Path};
use super::fill::{self, Pass, Scope};
use super::loops::{self, Groups, Items};
use super::schema::get;
use super::template::{self, Catalog, Instance};
use super::{MAX_PLAIN_BYTES, Options, json_len};
use crate::expr::{LATE, Reads};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// A plain node.
#[derive(Clone, Debug)]
pub(super) struct Plain<'a> {
    /// Where it was written.
    pub(super) path: Path,
    /// Its fields.
    pub(super) node: Cow<'a, Value>,
    /// What its texts read of other nodes.
    pub(super) reads: Reads,
    /// The nodes with `for` that it waits for.
    pub(super) waits_for: Vec<String>,
}

/// The plain nodes, and where the instances of each `for` stand among them.
#[derive(Debug, Default)]
pub(super) struct Plains<'a> {
    pub(super) nodes: Vec<Plain<'a>>,
    pub(super) groups: BTreeMap<String, Range<u32>>,
}

impl Plain<'_> {
    /// Whether it has texts that are filled when it is released.
    pub(super) fn is_unfinished(&self) -> bool {
        matches!(&self.node, Cow::Owned(node) if fill::has_texts(node))
    }
}

/// Fields of a node whose texts may wait for upstream nodes.
const MAY_WAIT: &[&str] =
    &["image", "command", "args", "workingDir", "env", "labels", "annotations", "podTemplate", "roles"];

/// What every node is expanded with.
struct Cx<'a> {
    params: &'a Value,
    catalog: &'a Catalog<'a>,
    options: Options<'a>,
}

/// A node with `for`, once that is read.
type Loop = Option<(String, Items)>;

/// The plain nodes of a workflow, in the order of the text.
pub(super) fn nodes<'a>(
    path: &Path,
    nodes: &'a [Value],
    params: &Value,
    catalog: &Catalog<'_>,
    options: Options<'_>,
    errors: &mut Errors,
) -> Plains<'a> {
    let cx = Cx { params, catalog, options };
    let mut plains = Plains::default();
    let Some((loops, groups)) = unroll(path, nodes, &cx, errors) else { return plains };
    let mut bytes = 0;
    for ((at, node), of) in nodes.iter().enumerate().zip(loops) {
        let at = path.at(at);
        let first = plains.nodes.len();
        match (node.as_object(), of) {
            (Some(fields), Some((id, items))) => {
                for index in 0..items.len() {
                    let instance = instance(&at, fields, &id, &items, index, &groups, &cx, errors);
                    bytes += instance.as_ref().map_or(0, |plain| json_len(&*plain.node));
                    plains.nodes.extend(instance);
                    if bytes > MAX_PLAIN_BYTES {
                        break;
                    }
                }
                let to = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
                plains.groups.insert(id, to(first)..to(plains.nodes.len()));
            }
            (Some(fields), None)
                if fields.contains_key("template") || fill::has_texts(node) || groups.is_waited(fields) =>
            {
                let mut fields = fields.clone();
                let waits_for = groups.resolve(&mut fields);
                let scope = Scope { known: &[("params", cx.params)], late: &LATE, late_params: None, bind: &[] };
                let plain = expand(&at, fields, &cx, scope, errors).map(|plain| Plain { waits_for, ..plain });
                bytes += plain.as_ref().map_or(0, |plain| json_len(&*plain.node));
                plains.nodes.extend(plain);
            }
            _ => plains.nodes.push(Plain {
                path: at,
                node: Cow::Borrowed(node),
                reads: Reads::default(),
                waits_for: Vec::new(),
            }),
        }
        if bytes > MAX_PLAIN_BYTES {
            let problem = format!("have more than {MAX_PLAIN_BYTES} bytes as JSON with templates and `for` put in");
            errors.push(path, problem, "make the templates smaller, or split the workflow");
            break;
        }
    }
    plains
}

/// Reads every `for`; `None` when there would be too many nodes.
fn unroll(path: &Path, nodes: &[Value], cx: &Cx<'_>, errors: &mut Errors) -> Option<(Vec<Loop>, Groups)> {
    let mut loops = Vec::with_capacity(nodes.len());
    let mut groups = Groups::default();
    let mut total = 0;
    for (at, node) in nodes.iter().enumerate() {
        let path = path.at(at);
        let of = node.as_object().and_then(|fields| {
            let mut value = get(fields, "for")?.clone();
            let at = path.field("for");
            let scope = Scope { known: &[("params", cx.params)], late: &LATE, late_params: None, bind: &[] };
            let reads = fill::fill(&mut value, Pass::Last, scope, &at, errors);
            let items = loops::items(&at, &value, reads, cx.options, errors)?;
            Some((loops::id(&path, fields, errors)?, items))
        });
        total += of.as_ref().map_or(1, |(_, items)| items.len());
        if !loops::check_total(&Path::root("spec.nodes"), total, errors) {
            return None;
        }
        if let Some((id, items)) = &of {
            groups.0.insert(id.clone(), (0..items.len()).map(|index| format!("{id}-{index}")).collect());
        }
        loops.push(of);
    }
    Some((loops, groups))
}

#[expect(clippy::too_many_arguments, reason = "one instance is a place in all of these")]
fn instance<'a>(
    path: &Path,
    fields: &Map<String, Value>,
    id: &str,
    items: &Items,
    index: usize,
    groups: &Groups,
    cx: &Cx<'_>,
    errors: &mut Errors,
) -> Option<Plain<'a>> {
    let mut fields = fields.clone();
    fields.remove("for");
    fields.insert("id".to_owned(), Value::from(format!("{id}-{index}")));
    let own = get(&fields, "when").and_then(Value::as_str).map(str::to_owned);
    if let Some(when) = loops::when(own.as_deref(), items, index) {
        fields.insert("when".to_owned(), Value::from(when));
    }
    let waits_for = groups.resolve(&mut fields);
    let number = Value::from(index);
    let bound_index = ("index", index.to_string());
    let plain = match items {
        Items::Known(known) => {
            let item = known.get(index)?;
            let known = [("params", cx.params), ("item", item), ("index", &number)];
            let bind = [("item", item.to_string()), bound_index];
            expand(path, fields, cx, Scope { known: &known, late: &LATE, late_params: None, bind: &bind }, errors)
        }
        Items::Late { code, reads, .. } => {
            let known = [("params", cx.params), ("index", &number)];
            let late = ["item", LATE[0], LATE[1]];
            let bind = [("item", format!("{code}[{index}]")), bound_index];
            let scope = Scope { known: &known, late: &late, late_params: None, bind: &bind };
            expand(path, fields, cx, scope, errors).map(|mut plain| {
                plain.reads.extend(reads.clone());
                plain
            })
        }
    };
    plain.map(|plain| Plain { waits_for, ..plain })
}

fn expand<'a>(
    path: &Path,
    mut own: Map<String, Value>,
    cx: &Cx<'_>,
    scope: Scope<'_>,
    errors: &mut Errors,
) -> Option<Plain<'a>> {
    let reference = own.remove("template").filter(|reference| !reference.is_null());
    // A condition is a code of its own, and no text.
    let when = own.remove("when");
    let mut own = Value::Object(own);
    let mut reads = fill::fill(&mut own, Pass::First, scope, path, errors);
    let Value::Object(mut own) = own else { return None };
    own.extend(when.map(|when| ("when".to_owned(), when)));
    let Some(reference) = reference else {
        return Some(plain(path.clone(), own, reads, errors));
    };
    let at = path.field("template");
    let mut node = match template::instantiate(&at, &reference, cx.catalog, scope, cx.options, errors) {
        Instance::Node(node, more) => {
            reads.extend(more);
            node
        }
        // The rest of the node is checked all the same.
        Instance::Elsewhere | Instance::Wrong => placeholder(),
    };
    template::lay(&mut node, own);
    let name = reference.get("name").and_then(Value::as_str).unwrap_or("?");
    Some(plain(path.with_note(&format!("template {name}")), node, reads, errors))
}

fn plain<'a>(path: Path, node: Map<String, Value>, reads: Reads, errors: &mut Errors) -> Plain<'a> {
    let may_wait = |key: &str| MAY_WAIT.contains(&key) || key == "when";
    for (key, _) in node.iter().filter(|(key, value)| !may_wait(key) && fill::waits(value)) {
        let fix = format!("use parameters here; texts of {} may wait", MAY_WAIT.join(", "));
        errors.push(path.field(key), "waits for upstream nodes, but must be known when the workflow is submitted", fix);
    }
    Plain { path, node: Cow::Owned(Value::Object(node)), reads, waits_for: Vec::new() }
}

/// Stands for what a template would give.
fn placeholder() -> Map<String, Value> {
    Map::from_iter([("image".to_owned(), Value::from("unknown"))])
}

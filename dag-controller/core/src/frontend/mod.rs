//! Front ends: from what a person wrote to a [`Dag`], or to every mistake in it with its place and its cure.
//!
//! ```text
//!   JSON value ── expand.rs: for, templates, patches, parameters ──> plain nodes
//!              ── workflow.rs: fields, by the tables of schema.rs ──┐
//!                 roles.rs, pod_template.rs, storage.rs, names     ├─> errors, all at once, in the order of the text
//!                 graph.rs: targets, cycles                        ┘         or Compiled { Dag, … }
//! ```
//! They take any JSON value and never panic, run in time linear in its size (but for a bounded search for look-alikes), and
//! report at most [`MAX_ERRORS`] mistakes. The admission webhook, the controller and `flowforge lint` call the same
//! function.

mod data;
mod errors;
mod expand;
mod fill;
mod graph;
mod loops;
mod params;
mod patch;
mod pod_template;
mod retry;
mod roles;
mod schema;
mod size;
mod storage;
mod syntax;
mod template;
mod topology;
mod workflow;

pub use errors::{FieldError, MAX_ERRORS};
pub use fill::{finish, has_texts};
pub use size::json_len;
pub use workflow::{Compiled, is_bare, to_manifest};

use serde_json::Value;
use std::collections::BTreeMap;

/// Most nodes of one workflow.
pub const MAX_NODES: usize = 20_000;
/// Largest `spec`, in bytes as JSON: etcd takes 1.5 MiB for an object, and metadata and status must fit beside it.
pub const MAX_SPEC_BYTES: usize = 1280 * 1024;
/// Most JSON bytes of the nodes once their templates are put in.
pub const MAX_PLAIN_BYTES: usize = 32 * 1024 * 1024;
/// Most `dependsOn` entries of one workflow.
pub const MAX_EDGES: usize = 200_000;
/// Most members of one gang.
pub const MAX_REPLICAS: i64 = 8_192;
/// Topology levels, wide to narrow, where the cluster does not name its own.
pub const DEFAULT_LEVELS: &[&str] = &["zone", "block", "rack", "nvlink", "host"];

/// How strict a front end is, and what it cannot know from the text.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Unknown fields are mistakes. The API server drops them before it asks a webhook, so only a lint sees them.
    pub strict: bool,
    /// The topology levels that a node may name.
    pub levels: Levels<'a>,
    /// Templates besides those in the workflow itself.
    pub templates: Templates<'a>,
}

/// Templates as far as they are known.
#[derive(Clone, Copy, Debug)]
pub enum Templates<'a> {
    /// Those in the workflow: the admission webhook has put there what the cluster has.
    Inline,
    /// These as well, by name, each the `spec` of a `WorkTemplate`. One that is not known may be in the cluster.
    These(&'a BTreeMap<String, Value>),
}

/// Topology levels as far as they are known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Levels<'a> {
    /// These, wide to narrow.
    These(&'a [&'a str]),
    /// Not known here: somebody else checks the name.
    Any,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { strict: false, levels: Levels::These(DEFAULT_LEVELS), templates: Templates::Inline }
    }
}

/// Compiles a `Workflow` manifest, or the short form `workflow: {name, storage, nodes}`.
///
/// # Errors
/// Every mistake, in the order of the text, those of the graph last; never empty.
pub fn compile(document: &Value, options: Options<'_>) -> Result<Compiled, Vec<FieldError>> {
    workflow::compile(document, options)
}

/// What may stand in an expression, for its fix.
fn expr_fix(names: &[&str]) -> String {
    format!("variables here: {}", names.join(", "))
}

/// Every mistake in a `WorkTemplate`, in the order of the text; empty when there is none.
#[must_use]
pub fn check_template(document: &Value, options: Options<'_>) -> Vec<FieldError> {
    let mut errors = errors::Errors::default();
    template::check_document(document, options, &mut errors);
    errors.into_list()
}

/// The names of the templates that a workflow refers to and does not hold itself, each once, in the order of the text.
#[must_use]
pub fn templates_wanted(spec: &Value) -> Vec<&str> {
    let list = |key: &str| spec.get(key).and_then(Value::as_array).into_iter().flatten();
    let held: Vec<&str> = list("templates").filter_map(|t| t.get("name")?.as_str()).collect();
    let mut wanted: Vec<&str> = Vec::new();
    for name in list("nodes").filter_map(|node| node.pointer("/template/name")?.as_str()) {
        if !held.contains(&name) && !wanted.contains(&name) {
            wanted.push(name);
        }
    }
    wanted
}

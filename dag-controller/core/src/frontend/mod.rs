//! Front ends: from what a person wrote to a [`Dag`], or to every mistake in it with its place and its cure.
//!
//! ```text
//!   JSON value ── workflow.rs: fields, by the tables of schema.rs ──┐
//!                 pod_template.rs, storage.rs, names               ├─> errors, all at once, in the order of the text
//!                 graph.rs: targets, cycles                        ┘         or Compiled { Dag, … }
//! ```
//! They take any JSON value and never panic, run in time linear in its size (but for a bounded search for look-alikes), and
//! report at most [`MAX_ERRORS`] mistakes. The admission webhook, the controller and `flowforge lint` call the same
//! function.

mod errors;
mod graph;
mod pod_template;
mod retry;
mod schema;
mod size;
mod storage;
mod syntax;
mod workflow;

pub use errors::{FieldError, MAX_ERRORS};
pub use size::json_len;
pub use workflow::{Compiled, is_bare, to_manifest};

use serde_json::Value;

/// Most nodes of one workflow.
pub const MAX_NODES: usize = 20_000;
/// Largest `spec`, in bytes as JSON: etcd takes 1.5 MiB for an object, and metadata and status must fit beside it.
pub const MAX_SPEC_BYTES: usize = 1280 * 1024;
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
        Self { strict: false, levels: Levels::These(DEFAULT_LEVELS) }
    }
}

/// Compiles a `Workflow` manifest, or the short form `workflow: {name, storage, nodes}`.
///
/// # Errors
/// Every mistake, in the order of the text, those of the graph last; never empty.
pub fn compile(document: &Value, options: Options<'_>) -> Result<Compiled, Vec<FieldError>> {
    workflow::compile(document, options)
}

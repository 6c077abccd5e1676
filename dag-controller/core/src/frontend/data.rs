//! What a node says to those that wait for it, and what it reads of those that it waits for: `outputs`, `when`, and the
//! texts that wait.

use super::errors::{Errors, Path, echo};
use super::expand::Plain;
use super::graph::Draft;
use super::schema::{self, Kind, get};
use super::{Options, expr_fix};
use crate::expr::{self, LATE, Reads};
use crate::outputs::{Kind as ValueKind, Output, Outputs};
use crate::role::{self, Role, WORKER};
use serde_json::{Map, Value};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Most outputs of one node.
const MAX_OUTPUTS: usize = 64;
const FIELDS: &[schema::Field] = &[
    ("name", Kind::Special),
    ("type", Kind::Word(ValueKind::WORDS)),
    ("default", Kind::Special),
    ("optional", Kind::Flag),
    ("collect", Kind::Text),
    ("description", Kind::Text),
];

/// What the check of reads needs of a node.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) path: Path,
    pub(super) id: &'a str,
    /// Ids that it waits for.
    pub(super) waits_for: BTreeSet<&'a str>,
    pub(super) reads: Reads,
    /// Names of its outputs.
    pub(super) outputs: BTreeSet<SmolStr>,
}

/// The members of a node, who say its outputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct SaidBy<'a> {
    pub(super) replicas: u32,
    pub(super) roles: Option<&'a [Role]>,
}

impl SaidBy<'_> {
    /// The ranks of a role.
    fn role(self, name: &str) -> Option<Range<u32>> {
        match self.roles {
            None => (name == WORKER).then_some(0..self.replicas),
            Some(roles) => role::ranks(roles).find(|(role, _)| role.name == name).map(|(_, ranks)| ranks),
        }
    }

    fn names(self) -> String {
        let names = |roles: &[Role]| roles.iter().map(|role| role.name.as_str()).collect::<Vec<_>>().join(", ");
        self.roles.map_or_else(|| WORKER.to_owned(), names)
    }
}

/// What a node says and reads, checked as far as it can be by itself.
#[derive(Debug)]
pub(super) struct Checked<'a> {
    pub(super) reader: Reader<'a>,
    /// Its outputs, where it has any.
    pub(super) outputs: Option<Arc<Outputs>>,
    /// Whether something is to be evaluated before it runs.
    pub(super) gated: bool,
}

/// Checks `outputs`, `when` and what the texts of a node read.
pub(super) fn check<'a>(
    plain: &'a Plain<'_>,
    node: &Map<String, Value>,
    draft: &Draft<'a>,
    said_by: SaidBy<'_>,
    params: &Value,
    options: Options<'_>,
    errors: &mut Errors,
) -> Checked<'a> {
    let when = when(&plain.path, node, params, errors);
    let outputs = outputs(&plain.path, node, said_by, options, errors);
    let gated = when.is_some() || !plain.reads.nodes.is_empty();
    let mut reads = plain.reads.clone();
    reads.extend(when.unwrap_or_default());
    let nodes = draft.depends_on.iter().map(|dependency| dependency.node);
    let reader = Reader {
        path: plain.path.clone(),
        id: draft.id.unwrap_or_default(),
        waits_for: nodes.chain(plain.waits_for.iter().map(String::as_str)).collect(),
        reads,
        outputs: outputs.0.iter().map(|output| output.name.clone()).collect(),
    };
    Checked { reader, outputs: (!outputs.0.is_empty()).then(|| Arc::new(outputs)), gated }
}

/// The declared outputs of a node with these members.
fn outputs(
    path: &Path,
    node: &Map<String, Value>,
    said_by: SaidBy<'_>,
    options: Options<'_>,
    errors: &mut Errors,
) -> Outputs {
    let mut all: Vec<Output> = Vec::new();
    let Some(value) = get(node, "outputs") else { return Outputs::default() };
    let path = path.field("outputs");
    for (at, entry) in schema::list(&path, value, errors).into_iter().flatten().enumerate() {
        let path = path.at(at);
        if at == MAX_OUTPUTS {
            errors.push(path, format!("is more than {MAX_OUTPUTS} outputs"), "use a map for what belongs together");
            break;
        }
        let Some(entry) = schema::object(&path, entry, errors) else { continue };
        schema::check(entry, &path, &[FIELDS], options, errors);
        let Some(output) = output(&path, entry, said_by, errors) else { continue };
        if all.iter().any(|known| known.name == output.name) {
            errors.push(path.field("name"), format!("{} is there twice", echo(&output.name)), "rename one of the two");
        } else {
            all.push(output);
        }
    }
    Outputs(all)
}

fn output(path: &Path, entry: &Map<String, Value>, said_by: SaidBy<'_>, errors: &mut Errors) -> Option<Output> {
    let Some(name) = get(entry, "name") else {
        errors.push(path, "has no name", "add name: a key of the termination message");
        return None;
    };
    let name = schema::text(&path.field("name"), name, errors)?;
    if !super::params::is_name(name) {
        let fix =
            "use letters, digits and '_', at most 63, the first no digit, so that outputs.NODE.NAME can be written";
        errors.push(path.field("name"), format!("{} is no name of an output", echo(name)), fix);
        return None;
    }
    let kind = ValueKind::parse(get(entry, "type").and_then(Value::as_str).unwrap_or("string"))?;
    let default = match get(entry, "default") {
        None => None,
        Some(default) => Some(super::params::typed(&path.field("default"), default, kind, errors)?),
    };
    let collect = match get(entry, "collect").and_then(Value::as_str) {
        None => None,
        Some(name) => {
            let ranks = said_by.role(name);
            if ranks.is_none() {
                let problem = format!("{} is no role of this node", echo(name));
                errors.push(path.field("collect"), problem, format!("write {}", said_by.names()));
                return None;
            }
            ranks
        }
    };
    let optional = get(entry, "optional") == Some(&Value::Bool(true));
    Some(Output { name: name.into(), kind, default, optional, collect })
}

/// Checks `when`; what it reads, or `None` where there is none.
fn when(path: &Path, node: &Map<String, Value>, params: &Value, errors: &mut Errors) -> Option<Reads> {
    let path = path.field("when");
    let code = schema::text(&path, get(node, "when")?, errors)?;
    let names = ["params", LATE[0], LATE[1]];
    let read = expr::compile(code, &names).and_then(|expression| {
        if !expression.may_be_bool() {
            return Err("its value is neither true nor false".to_owned());
        }
        super::fill::check_params(params, &expression)?;
        Reads::of(&expression)
    });
    match read {
        Ok(reads) => Some(reads),
        Err(what) => {
            errors.push(path, what, expr_fix(&names));
            Some(Reads::default())
        }
    }
}

/// Whoever reads of a node waits for it, and reads what that node declares.
pub(super) fn check_reads(readers: &[Reader<'_>], groups: &BTreeMap<String, Range<u32>>, errors: &mut Errors) {
    let mut declared: BTreeMap<&str, &BTreeSet<SmolStr>> = readers.iter().map(|r| (r.id, &r.outputs)).collect();
    for (id, instances) in groups {
        // All instances of a node declare the same.
        declared.extend(readers.get(instances.start as usize).map(|first| (id.as_str(), &first.outputs)));
    }
    for reader in readers {
        for node in reader.reads.nodes.iter().filter(|node| !reader.waits_for.contains(node.as_str())) {
            let (problem, fix) = match declared.contains_key(node.as_str()) {
                true => {
                    (format!("reads of {}, but does not wait for it", echo(node)), format!("add {node} to dependsOn"))
                }
                false => {
                    (format!("reads of {}, which is no node", echo(node)), "write the id of a node in dependsOn".into())
                }
            };
            errors.push(&reader.path, problem, fix);
        }
        for (node, output) in &reader.reads.outputs {
            let Some(outputs) = declared.get(node.as_str()).filter(|outputs| !outputs.contains(output)) else {
                continue;
            };
            let names: Vec<&str> = outputs.iter().map(SmolStr::as_str).collect();
            let fix = match names.is_empty() {
                true => format!("declare it: outputs: [{{name: {output}}}] of node {node}"),
                false => format!("declared are {}", names.join(", ")),
            };
            errors.push(&reader.path, format!("node {node} declares no output {}", echo(output)), fix);
        }
    }
}

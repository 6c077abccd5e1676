//! The front end of our own `Workflow`, and of its short form.
//!
//! ```text
//!   apiVersion: flowforge.dev/v1alpha1        workflow:
//!   kind: Workflow                              name: example
//!   metadata: {name: example}                   storage: {claimRef: nas}
//!   spec: {storage: [...], nodes: [...]}        nodes: [...]
//! ```

use super::data;
use super::errors::{Errors, FieldError, Path, echo};
use super::expand::{self, Plain, Plains};
use super::graph::{self, Draft};
use super::schema::{self, get};
use super::storage::{self, Taken};
use super::template::Catalog;
use super::{MAX_NODES, MAX_SPEC_BYTES, Options, json_len, params, pod_template, retry, roles, syntax};
use crate::dag::{Dag, Edge, Limits, MemberLost, Mode, NodeSpec, OnFailure};
use crate::ids::NodeIx;
use crate::ranks::{pack, unpack};
use crate::{expr, names};
use serde_json::{Map, Value, json};
use smol_str::SmolStr;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

const API_VERSION: &str = "flowforge.dev/v1alpha1";
const KIND: &str = "Workflow";
/// The words of `onFailure` and `dependsMode`.
const ON_FAILURE: &[(&str, OnFailure)] =
    &[("Fail", OnFailure::Fail), ("Continue", OnFailure::Continue), ("SkipDownstream", OnFailure::SkipDownstream)];
const MODES: &[(&str, Mode)] = &[("All", Mode::All), ("Any", Mode::Any)];
/// How long a bound gang may take to start where its node does not say.
const START_MS: u64 = 10 * 60 * 1_000;
/// Letters that the API server adds to `generateName`.
const GENERATED_LEN: usize = 5;

/// What a good document compiles to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Compiled {
    /// The workflow's name; absent when the API server is to generate one.
    pub name: Option<SmolStr>,
    /// The graph.
    pub dag: Dag,
    /// The spec with plain nodes, where templates or parameters made them; else the nodes are those of the document.
    pub spec: Option<Value>,
    /// The values of the workflow's parameters, an object.
    pub params: Value,
    /// Where the instances of each `for` stand among the nodes, by the id of its node.
    pub groups: BTreeMap<String, Range<u32>>,
    /// Nodes with texts that [`super::finish`] fills when they are released.
    pub unfinished: BTreeSet<NodeIx>,
}

impl Compiled {
    /// The same, with what had succeeded before.
    fn taking_over(self, places: &BTreeSet<u32>) -> Option<Self> {
        let edges: Vec<Edge> = self.dag.ids().flat_map(|at| self.dag.edges_from(at)).collect();
        // What runs last runs again.
        let taken_over = |at: NodeIx| places.contains(&at.0) && !self.dag.node(at).finally;
        let node = |at: NodeIx| NodeSpec { taken_over: taken_over(at), ..self.dag.node(at).clone() };
        let dag = Dag::new(self.dag.ids().map(node).collect(), edges).ok()?;
        Some(Self { dag, ..self })
    }
}

/// Whether a document is the short form.
#[must_use]
pub fn is_bare(document: &Value) -> bool {
    document.as_object().is_some_and(|o| o.contains_key("workflow") && !o.contains_key("kind"))
}

/// The manifest that a short form stands for; `None` when it is none. Mistakes in it stay mistakes.
#[must_use]
pub fn to_manifest(document: &Value) -> Option<Value> {
    if !is_bare(document) {
        return None;
    }
    let mut spec = document.get("workflow")?.as_object()?.clone();
    let name = spec.remove("name").unwrap_or_default();
    if let Some(storage) = spec.get_mut("storage")
        && storage.is_object()
    {
        *storage = json!([storage.take()]);
    }
    Some(json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}))
}

/// See [`super::compile`].
pub(super) fn compile(document: &Value, options: Options<'_>) -> Result<Compiled, Vec<FieldError>> {
    let mut errors = Errors::default();
    let compiled = check_document(document, options, &mut errors);
    match compiled {
        Some(compiled) if errors.is_empty() => Ok(compiled),
        _ => {
            if errors.is_empty() {
                errors.push("", "the graph cannot be built", "check ids and dependsOn");
            }
            Err(errors.into_list())
        }
    }
}

fn check_document(document: &Value, options: Options<'_>, errors: &mut Errors) -> Option<Compiled> {
    let root = Path::root("");
    let object = schema::object(&root, document, errors)?;
    if is_bare(document) {
        if options.strict {
            schema::unknown_fields(object, &root, || ["workflow"].into_iter(), errors);
        }
        let path = root.field("workflow");
        let workflow = schema::object(&path, object.get("workflow")?, errors)?;
        let name = check_name(&path, get(workflow, "name"), None, errors);
        return check_spec(&path, workflow, name, &[("name", schema::Kind::Special)], options, errors);
    }
    check_kind(&root, object, errors);
    if options.strict {
        let known = || ["apiVersion", "kind", "metadata", "spec", "status"].into_iter();
        schema::unknown_fields(object, &root, known, errors);
    }
    let path = root.field("metadata");
    let metadata = match get(object, "metadata") {
        Some(metadata) => schema::object(&path, metadata, errors),
        None => None,
    };
    let field = |key| metadata.and_then(|m| get(m, key));
    let name = check_name(&path, field("name"), field("generateName"), errors);
    let Some(spec) = get(object, "spec") else {
        errors.push(root, "has no spec", "add spec with a list of nodes");
        return None;
    };
    let path = root.field("spec");
    check_spec(&path, schema::object(&path, spec, errors)?, name, &[], options, errors)
}

fn check_kind(root: &Path, object: &Map<String, Value>, errors: &mut Errors) {
    for (key, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        match get(object, key) {
            None => errors.push(root, format!("has no {key}"), format!("add {key}: {wanted}")),
            Some(value) if value.as_str() != Some(wanted) => {
                let shown = value.as_str().map_or_else(|| schema::type_of(value).to_owned(), echo);
                errors.push(root.field(key), format!("is {shown}"), format!("write {wanted}"));
            }
            Some(_) => {}
        }
    }
}

/// A workflow's name as far as it is known: its text, and the length it will have.
#[derive(Clone, Debug)]
struct Name<'a> {
    path: Path,
    text: Option<&'a str>,
    len: usize,
    starts_with_letter: bool,
}

fn check_name<'a>(
    path: &Path,
    name: Option<&'a Value>,
    generate: Option<&'a Value>,
    errors: &mut Errors,
) -> Option<Name<'a>> {
    let (path, value, is_final) = match (name, generate) {
        (Some(name), _) if name.as_str() != Some("") => (path.field("name"), name, true),
        (_, Some(prefix)) => (path.field("generateName"), prefix, false),
        _ => {
            errors.push(path.field("name"), "is missing", "give the workflow a name");
            return None;
        }
    };
    let text = schema::text(&path, value, errors)?;
    let good = if is_final { syntax::is_label(text) } else { syntax::is_label_of_any_length(&format!("{text}0")) };
    if !good {
        let fix = "use lower-case letters, digits and '-', at most 63, the first and last no '-'";
        errors.push(&path, format!("{} is no name for a workflow", echo(text)), fix);
        return None;
    }
    let len = text.len() + if is_final { 0 } else { GENERATED_LEN };
    let starts_with_letter = text.starts_with(|c: char| c.is_ascii_lowercase());
    Some(Name { path, text: is_final.then_some(text), len, starts_with_letter })
}

fn check_spec(
    path: &Path,
    spec: &Map<String, Value>,
    name: Option<Name<'_>>,
    further: &[schema::Field],
    options: Options<'_>,
    errors: &mut Errors,
) -> Option<Compiled> {
    schema::check(spec, path, &[schema::SPEC, further], options, errors);
    let storage = get(spec, "storage");
    let short = !further.is_empty();
    let mut taken =
        storage.map(|s| storage::check(&path.field("storage"), s, short, options, errors)).unwrap_or_default();
    if let Some(defaults) = get(spec, "defaults") {
        let path = path.field("defaults");
        if let Some(defaults) = schema::object(&path, defaults, errors) {
            schema::check(defaults, &path, &[schema::DEFAULTS], options, errors);
            taken.take_shm(&path, defaults, errors);
            // A node may mount something else at the path of a default, so that only the claims stay taken.
            taken.clone().take_mounts(&path, defaults, errors);
        }
    }
    let of_spec = path;
    let path = path.field("nodes");
    let Some(nodes) = get(spec, "nodes") else {
        errors.push(&path, "is missing", "add at least one node: {id: …, image: …}");
        return None;
    };
    let nodes = schema::list(&path, nodes, errors)?;
    if nodes.is_empty() || nodes.len() > MAX_NODES {
        let (problem, fix) = match nodes.len() {
            0 => ("is empty".to_owned(), "add at least one node: {id: …, image: …}"),
            n => (format!("has {n} nodes, at most {MAX_NODES} are possible"), "split the workflow"),
        };
        errors.push(&path, problem, fix);
        return None;
    }
    let params = get(spec, "parameters")
        .map(|list| params::declarations(&of_spec.field("parameters"), list, true, options, errors))
        .unwrap_or_default();
    let params = Value::Object(params::own_values(&params, errors));
    let catalog = Catalog::new(&of_spec.field("templates"), get(spec, "templates"), options, errors);
    let Plains { nodes: plain, groups } = expand::nodes(&path, nodes, &params, &catalog, options, errors);
    let taken_over = get(spec, "rerunOf").map(|value| check_rerun(of_spec, value, plain.len(), options, errors));
    let compiled = check_nodes(&plain, &groups, name, &taken, &params, options, errors).map(|compiled| Compiled {
        spec: plain_spec(spec, plain),
        params,
        groups,
        ..compiled
    });
    let compiled = match (compiled, taken_over) {
        (Some(compiled), Some(places)) => compiled.taking_over(&places),
        (compiled, _) => compiled,
    };
    let bytes = json_len(spec);
    if errors.is_empty() && bytes > MAX_SPEC_BYTES {
        let problem = format!("has {bytes} bytes as JSON, at most {MAX_SPEC_BYTES} are possible");
        errors.push(of_spec, problem, "move what nodes share into defaults or a ConfigMap, or split the workflow");
    }
    compiled
}

/// The spec with the nodes that it stands for; `None` when they are its own.
fn plain_spec(spec: &Map<String, Value>, plain: Vec<Plain<'_>>) -> Option<Value> {
    if plain.iter().all(|plain| matches!(plain.node, Cow::Borrowed(_))) {
        return None;
    }
    let rest = spec.iter().filter(|(key, _)| !matches!(key.as_str(), "nodes" | "templates"));
    let mut made: Map<String, Value> = rest.map(|(key, value)| (key.clone(), value.clone())).collect();
    made.insert("nodes".to_owned(), plain.into_iter().map(|plain| plain.node.into_owned()).collect());
    Some(Value::Object(made))
}

/// The places of nodes whose success is taken over from another workflow.
fn check_rerun(
    of_spec: &Path,
    value: &Value,
    count: usize,
    options: Options<'_>,
    errors: &mut Errors,
) -> BTreeSet<u32> {
    let path = of_spec.field("rerunOf");
    let Some(rerun) = schema::object(&path, value, errors) else { return BTreeSet::new() };
    schema::check(rerun, &path, &[schema::RERUN], options, errors);
    if get(rerun, "name").is_none() {
        errors.push(&path, "has no name", "add name: the workflow that is run again");
    }
    let path = path.field("succeeded");
    let Some(text) = get(rerun, "succeeded").and_then(|value| schema::text(&path, value, errors)) else {
        return BTreeSet::new();
    };
    let places = unpack(text, u32::try_from(count).unwrap_or(u32::MAX));
    if pack(&places) != text {
        let fix = format!("write places in spec.nodes, ascending, below {count}, like 0-3,5; flowforge rerun does");
        errors.push(path, format!("{} is no set of nodes", echo(text)), fix);
    }
    places
}

fn check_nodes(
    nodes: &[Plain<'_>],
    groups: &BTreeMap<String, Range<u32>>,
    name: Option<Name<'_>>,
    taken: &Taken,
    params: &Value,
    options: Options<'_>,
    errors: &mut Errors,
) -> Option<Compiled> {
    let mut readers = Vec::with_capacity(nodes.len());
    let mut ids = BTreeSet::new();
    let mut drafts = Vec::with_capacity(nodes.len());
    let mut specs = Vec::with_capacity(nodes.len());
    for plain in nodes {
        let Plain { path, node, .. } = plain;
        let mut draft =
            Draft { id: None, path: path.clone(), depends_on: Vec::new(), on_failure: None, finally: false };
        if let Some(node) = schema::object(path, node, errors) {
            schema::check(node, path, &[schema::NODE, schema::DEFAULTS], options, errors);
            let members = roles::check(path, node, options, errors);
            let replicas = members.replicas;
            draft.id = check_id(path, node, name.as_ref(), replicas, errors);
            draft.depends_on = graph::depends_on(path, node, options.strict, errors);
            draft.finally = get(node, "finally") == Some(&Value::Bool(true));
            draft.on_failure = word_in(path, node, "onFailure", ON_FAILURE, errors);
            let approval = get(node, "approval") == Some(&Value::Bool(true));
            match approval {
                true => check_runs_nothing(path, node, errors),
                false => check_work(path, node, members.have_images, &mut taken.clone(), options, errors),
            }
            if let Some(id) = draft.id
                && !ids.insert(id)
            {
                errors.push(path.field("id"), format!("{} is there twice", echo(id)), "rename one of the two");
            }
            let data = data::check(plain, node, &draft, members.said_by(), params, options, errors);
            readers.push(data.reader);
            specs.push(NodeSpec {
                gated: data.gated,
                outputs: data.outputs,
                member_lost: member_lost(node),
                roles: members.roles.map(Into::into),
                finally: draft.finally,
                approval,
                limits: check_timeouts(path, node, options, errors),
                retry: retry::check(path, node, options, errors),
                mode: word_in(path, node, "dependsMode", MODES, errors).unwrap_or_default(),
                ..NodeSpec::of(draft.id.unwrap_or_default(), replicas.unwrap_or(1))
            });
        }
        drafts.push(draft);
    }
    if let Some(name) = &name
        && !name.starts_with_letter
        && specs.iter().any(|n| n.replicas > 1)
    {
        let problem = "must start with a letter, because a gang of two or more gets a Service named after it";
        errors.push(&name.path, problem, "put a letter in front");
    }
    data::check_reads(&readers, groups, errors);
    let edges = graph::edges(&drafts, errors);
    if specs.len() == drafts.len() {
        graph::failures(&drafts, &edges, &mut specs, errors);
    }
    let name = name.and_then(|n| n.text).map(SmolStr::from);
    if !errors.is_empty() {
        return None;
    }
    Dag::new(specs, edges).ok().map(|dag| {
        let unfinished = (0..).map(NodeIx).zip(nodes).filter(|(_, plain)| plain.is_unfinished()).map(|(at, _)| at);
        Compiled {
            name,
            dag,
            spec: None,
            params: Value::Null,
            groups: BTreeMap::new(),
            unfinished: unfinished.collect(),
        }
    })
}

fn check_id<'a>(
    path: &Path,
    node: &'a Map<String, Value>,
    name: Option<&Name<'_>>,
    replicas: Option<u32>,
    errors: &mut Errors,
) -> Option<&'a str> {
    let Some(id) = get(node, "id") else {
        errors.push(path, "has no id", "add an id, unique in the workflow");
        return None;
    };
    let path = path.field("id");
    let id = schema::text(&path, id, errors)?;
    if !syntax::is_label(id) {
        let fix = "use lower-case letters, digits and '-', the first and last no '-'";
        errors.push(&path, format!("{} is no id of a node", echo(id)), fix);
        return None;
    }
    if let (Some(name), Some(replicas)) = (name, replicas) {
        let len = names::longest_hostname(name.len, id, replicas);
        if len > names::MAX_LABEL_LEN {
            let over = len - names::MAX_LABEL_LEN;
            let doubled = id.replace('-', "--");
            let problem = format!(
                "its last member's host name <workflow>-{doubled}-<attempt>-<rank> would have {len} characters"
            );
            let twice = if id.contains('-') { "; a hyphen of the id counts twice" } else { "" };
            errors.push(&path, problem, format!("shorten the id or the workflow's name by {over}{twice}"));
        }
    }
    Some(id)
}

/// A node that waits for a person makes no pods.
fn check_runs_nothing(path: &Path, node: &Map<String, Value>, errors: &mut Errors) {
    for field in ["image", "command", "args", "podTemplate", "replicas", "roles", "gang", "retry", "timeouts"] {
        // The API server writes the default where nothing is written.
        let default = field == "replicas" && get(node, field) == Some(&Value::from(1));
        if get(node, field).is_some() && !default {
            errors.push(path.field(field), "has no meaning, because an approval node makes no pods", "remove it");
        }
    }
}

/// Image, template and mounts.
fn check_work(
    path: &Path,
    node: &Map<String, Value>,
    roles_have_images: bool,
    taken: &mut Taken,
    options: Options<'_>,
    errors: &mut Errors,
) {
    taken.take_shm(path, node, errors);
    taken.take_mounts(path, node, errors);
    let template = get(node, "podTemplate")
        .map(|t| pod_template::check(&path.field("podTemplate"), t, taken, options, errors))
        .unwrap_or_default();
    match get(node, "image") {
        Some(image) => check_image(&path.field("image"), image, errors),
        None if template.has_image || roles_have_images => {}
        None if get(node, "roles").is_some() => {
            errors.push(path, "has no image for all of its roles", "add image to the node, or to each role");
        }
        None => errors.push(path, "has no image", "add image, or a podTemplate whose main container has one"),
    }
}

/// An image reference, as far as it can be known here.
pub(super) fn check_image(path: &Path, image: &Value, errors: &mut Errors) {
    if let Some(image) = schema::text(path, image, errors)
        && (image.is_empty() || image.contains(char::is_whitespace) && !expr::is_filled(image))
    {
        errors.push(path, format!("{} is no image", echo(image)), "write an image reference, like repo/name:tag");
    }
}

/// How long the attempts of a node may last.
fn check_timeouts(path: &Path, node: &Map<String, Value>, options: Options<'_>, errors: &mut Errors) -> Limits {
    let mut limits = Limits { start_ms: Some(START_MS), ..Limits::default() };
    let path = path.field("timeouts");
    let Some(timeouts) = get(node, "timeouts").and_then(|value| schema::object(&path, value, errors)) else {
        return limits;
    };
    schema::check(timeouts, &path, &[schema::TIMEOUTS], options, errors);
    let ms = |key| get(timeouts, key).and_then(Value::as_u64).map(|seconds| seconds.saturating_mul(1_000));
    limits.queue_ms = ms("queueSeconds");
    limits.start_ms = ms("startSeconds").or(limits.start_ms);
    limits.run_ms = ms("runSeconds");
    limits
}

/// The meaning of a word in a field of `node`, where there is one.
fn word_in<T: Copy>(
    path: &Path,
    node: &Map<String, Value>,
    key: &str,
    words: &[(&str, T)],
    errors: &mut Errors,
) -> Option<T> {
    get(node, key).and_then(|value| schema::word(&path.field(key), value, words, errors))
}

fn member_lost(node: &Map<String, Value>) -> MemberLost {
    match get(node, "memberLostPolicy").and_then(Value::as_str) {
        Some("ReplaceMember") => MemberLost::Replace,
        _ => MemberLost::Fail,
    }
}

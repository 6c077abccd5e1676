//! Templates: nodes written once, with parameters, and used by reference.
//!
//! ```text
//!   template.node ──its parameters──> filled ──patches──> patched ──fields of the node──> a node without a template
//! ```
//! A field of the node wins over the template's: maps are merged by key, lists of named things by name, tolerations and
//! `envFrom` are joined. One replica is what a node has that says nothing: a patch makes one of a template's several. A template's node knows the template's parameters alone.

use super::errors::{Errors, Path, echo};
use super::fill::{self, Pass, Scope};
use super::params::{self, Declared};
use super::patch;
use super::schema::{self, Kind, get};
use super::{Options, Templates};
use crate::expr::Reads;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Most templates inside one workflow.
const MAX_TEMPLATES: usize = 256;
const FIELDS: &[schema::Field] = &[("parameters", Kind::Special), ("description", Kind::Text), ("node", Kind::Special)];
const NAME: &[schema::Field] = &[("name", Kind::Name)];
const REFERENCE: &[schema::Field] = &[("name", Kind::Name), ("parameters", Kind::Special), ("patches", Kind::Special)];
/// Fields of a node that say where it stands in its workflow.
const OF_THE_WORKFLOW: &[&str] = &["id", "dependsOn", "dependsMode", "finally", "for", "template", "when"];

/// A template that was checked.
#[derive(Clone, Debug)]
struct Template<'a> {
    path: Path,
    declared: Vec<Declared<'a>>,
    node: &'a Value,
}

/// The templates that a workflow may refer to.
#[derive(Debug, Default)]
pub(super) struct Catalog<'a> {
    known: BTreeMap<&'a str, Option<Template<'a>>>,
    /// What is not here may be in the cluster.
    lenient: bool,
}

impl<'a> Catalog<'a> {
    /// Those of `spec.templates`, and those that are known from elsewhere.
    pub(super) fn new(path: &Path, templates: Option<&'a Value>, options: Options<'a>, errors: &mut Errors) -> Self {
        let mut catalog = Self::default();
        if let Templates::These(elsewhere) = options.templates {
            catalog.lenient = true;
            for (name, spec) in elsewhere {
                let path = Path::root(&format!("WorkTemplate {name}: spec"));
                // Its mistakes are its own document's.
                let mut told = Errors::default();
                let template = spec.as_object().and_then(|spec| check(&path, spec, &[], options, &mut told));
                catalog.known.insert(name, template.filter(|_| told.is_empty()));
            }
        }
        let Some(templates) = templates else { return catalog };
        for (at, entry) in schema::list(path, templates, errors).into_iter().flatten().enumerate() {
            let path = path.at(at);
            if at == MAX_TEMPLATES {
                errors.push(path, format!("is more than {MAX_TEMPLATES} templates"), "share templates by parameters");
                break;
            }
            let Some(entry) = schema::object(&path, entry, errors) else { continue };
            let Some(name) = get(entry, "name") else {
                errors.push(&path, "has no name", "add name");
                continue;
            };
            let Some(name) = schema::text(&path.field("name"), name, errors) else { continue };
            let template = check(&path, entry, NAME, options, errors);
            if catalog.known.insert(name, template).is_some() && !catalog.lenient {
                errors.push(path.field("name"), format!("{} is there twice", echo(name)), "rename one of the two");
            }
        }
        catalog
    }
}

/// Every mistake in a `WorkTemplate`.
pub(super) fn check_document(document: &Value, options: Options<'_>, errors: &mut Errors) {
    let root = Path::root("");
    let Some(object) = schema::object(&root, document, errors) else { return };
    match get(object, "spec") {
        None => errors.push(root, "has no spec", "add spec with parameters and a node"),
        Some(spec) => {
            let path = root.field("spec");
            if let Some(spec) = schema::object(&path, spec, errors) {
                check(&path, spec, &[], options, errors);
            }
        }
    }
}

fn check<'a>(
    path: &Path,
    spec: &'a Map<String, Value>,
    further: &[schema::Field],
    options: Options<'_>,
    errors: &mut Errors,
) -> Option<Template<'a>> {
    schema::check(spec, path, &[FIELDS, further], options, errors);
    let declared = get(spec, "parameters")
        .map(|list| params::declarations(&path.field("parameters"), list, false, options, errors))
        .unwrap_or_default();
    let Some(node) = get(spec, "node") else {
        errors.push(path, "has no node", "add node with the fields that a node of a workflow may have");
        return None;
    };
    let at = path.field("node");
    let fields = schema::object(&at, node, errors)?;
    for key in OF_THE_WORKFLOW.iter().filter(|key| get(fields, key).is_some()) {
        errors.push(
            at.field(key),
            "belongs to the node of a workflow",
            "remove it: the node that refers to this has it",
        );
    }
    // Its schema is open, so that a number may be written as a text that is filled: nobody else looks for a slip here.
    let known = || [schema::NODE, schema::DEFAULTS].into_iter().flatten().map(|(key, _)| *key);
    schema::unknown_fields(fields, &at, known, errors);
    check_texts(&at, node, &declared, errors);
    Some(Template { path: path.clone(), declared, node })
}

/// Every code compiles, and knows its parameters. Values are not known here.
fn check_texts(path: &Path, node: &Value, declared: &[Declared<'_>], errors: &mut Errors) {
    let names: Map<String, Value> = declared.iter().map(|one| (one.name.to_owned(), Value::Null)).collect();
    let all_late = declared.iter().map(|one| (one.name.to_owned(), "null".to_owned())).collect();
    let params = Value::Object(names);
    let scope = Scope { known: &[("params", &params)], late: &[], late_params: Some(&all_late), bind: &[] };
    fill::fill(&mut node.clone(), Pass::First, scope, path, errors);
}

/// What a reference makes of its template: the fields that the node's own are laid over. `scope` is the workflow's.
pub(super) fn instantiate(
    path: &Path,
    reference: &Value,
    catalog: &Catalog<'_>,
    scope: Scope<'_>,
    options: Options<'_>,
    errors: &mut Errors,
) -> Instance {
    let Some(reference) = schema::object(path, reference, errors) else { return Instance::Wrong };
    schema::check(reference, path, &[REFERENCE], options, errors);
    let Some(name) = get(reference, "name") else {
        errors.push(path, "has no name", "name a WorkTemplate of the workflow's namespace, or one of spec.templates");
        return Instance::Wrong;
    };
    let Some(name) = name.as_str() else { return Instance::Wrong };
    let template = match catalog.known.get(name) {
        Some(Some(template)) => template,
        Some(None) => return Instance::Wrong,
        None if catalog.lenient => return Instance::Elsewhere,
        None => {
            let fix = errors.look_alike(name, catalog.known.keys().copied()).map_or_else(
                || {
                    "create the WorkTemplate in the workflow's namespace first, or write it into spec.templates"
                        .to_owned()
                },
                |near| format!("did you mean {near:?}?"),
            );
            errors.push(path.field("name"), format!("there is no template {}", echo(name)), fix);
            return Instance::Wrong;
        }
    };
    let before = errors.len();
    let mut given = get(reference, "parameters").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    let at = path.field("parameters");
    let mut reads = fill::fill(&mut given, Pass::First, scope, &at, errors);
    if schema::object(&at, &given, errors).is_none() {
        return Instance::Wrong;
    }
    let Value::Object(mut given) = given else { return Instance::Wrong };
    let late = fill::late_params(&at, &given, errors);
    fill::unescape(&mut given);
    let given = &given;
    let values = params::given_values(&at, &template.declared, given, |name| late.contains_key(name), errors);
    if errors.len() > before {
        return Instance::Wrong;
    }
    let mut node = template.node.clone();
    let values = Value::Object(values);
    let inner = Scope { known: &[("params", &values)], late: &[], late_params: Some(&late), bind: &[] };
    fill::fill(&mut node, Pass::First, inner, &template.path.field("node"), errors);
    if let Some(patches) = get(reference, "patches") {
        let at = path.field("patches");
        let mut patches = patches.clone();
        reads.extend(fill::fill(&mut patches, Pass::First, scope, &at, errors));
        patch::apply(&at, &patches, &mut node, errors);
    }
    match node {
        Value::Object(node) if errors.len() == before => Instance::Node(node, reads),
        Value::Object(_) => Instance::Wrong,
        _ => {
            errors.push(path.field("patches"), "leave no object", "patch fields of the node, not the node itself");
            Instance::Wrong
        }
    }
}

/// What became of a reference.
pub(super) enum Instance {
    /// The fields of a node, and what they read of other nodes.
    Node(Map<String, Value>, Reads),
    /// Not known here.
    Elsewhere,
    /// Mistakes were told.
    Wrong,
}

/// Lays the node's own fields over those of its template.
pub(super) fn lay(base: &mut Map<String, Value>, own: Map<String, Value>) {
    for (key, value) in own.into_iter().filter(|(_, value)| !value.is_null()) {
        match (key.as_str(), base.get_mut(&key), value) {
            // The API server writes one replica where the node says nothing.
            ("replicas", Some(_), Value::Number(one)) if one.as_i64() == Some(1) => {}
            ("env" | "volumes" | "imagePullSecrets" | "roles", Some(Value::Array(base)), Value::Array(own)) => {
                lay_named(base, own, "name");
            }
            ("volumeMounts", Some(Value::Array(base)), Value::Array(own)) => lay_named(base, own, "mountPath"),
            ("tolerations" | "envFrom", Some(Value::Array(base)), Value::Array(own)) => base.extend(own),
            ("nodeSelector" | "labels" | "annotations", Some(Value::Object(base)), Value::Object(own)) => {
                base.extend(own);
            }
            ("resources", Some(Value::Object(base)), Value::Object(own)) => {
                for (kind, amounts) in own {
                    match (base.get_mut(&kind), amounts) {
                        (Some(Value::Object(base)), Value::Object(own)) => base.extend(own),
                        (_, amounts) => drop(base.insert(kind, amounts)),
                    }
                }
            }
            (_, _, value) => drop(base.insert(key, value)),
        }
    }
}

fn lay_named(base: &mut Vec<Value>, own: Vec<Value>, key: &str) {
    for entry in own {
        match base.iter_mut().find(|known| known.get(key).is_some() && known.get(key) == entry.get(key)) {
            Some(known) => *known = entry,
            None => base.push(entry),
        }
    }
}

//! Parameters: declarations with types, and the values given for them.

use super::errors::{Errors, Path, echo};
use super::schema::{self, Kind, get};
use super::{Options, json_len};
use crate::expr::MAX_INPUT_BYTES;
use crate::outputs::Kind as ValueKind;
use serde_json::{Map, Value};

/// Most parameters of a workflow or template.
const MAX_PARAMETERS: usize = 256;
const MAX_NAME: usize = 63;
const FIELDS: &[(&str, Kind)] = &[
    ("name", Kind::Special),
    ("type", Kind::Word(ValueKind::WORDS)),
    ("default", Kind::Special),
    ("enum", Kind::Special),
    ("description", Kind::Text),
];
/// A workflow gives the value beside the declaration.
const VALUE: &[(&str, Kind)] = &[("value", Kind::Special)];

/// One declared parameter.
#[derive(Clone, Debug)]
pub(super) struct Declared<'a> {
    pub(super) name: &'a str,
    kind: ValueKind,
    default: Option<&'a Value>,
    allowed: Option<&'a Vec<Value>>,
    /// The value beside the declaration, and where it stands.
    value: Option<(&'a Value, Path)>,
    path: Path,
}

/// Checks a list of declarations.
pub(super) fn declarations<'a>(
    path: &Path,
    value: &'a Value,
    with_values: bool,
    options: Options<'_>,
    errors: &mut Errors,
) -> Vec<Declared<'a>> {
    let mut all: Vec<Declared<'a>> = Vec::new();
    for (at, entry) in schema::list(path, value, errors).into_iter().flatten().enumerate() {
        let path = path.at(at);
        if at == MAX_PARAMETERS {
            errors.push(
                path,
                format!("is more than {MAX_PARAMETERS} parameters"),
                "use a map for what belongs together",
            );
            break;
        }
        let Some(entry) = schema::object(&path, entry, errors) else { continue };
        let value: &[schema::Field] = if with_values { VALUE } else { &[] };
        schema::check(entry, &path, &[FIELDS, value], options, errors);
        let Some(declared) = declaration(&path, entry, with_values, errors) else { continue };
        if all.iter().any(|known| known.name == declared.name) {
            errors.push(path.field("name"), format!("{} is there twice", echo(declared.name)), "rename one of the two");
        } else {
            all.push(declared);
        }
    }
    all
}

fn declaration<'a>(
    path: &Path,
    entry: &'a Map<String, Value>,
    with_value: bool,
    errors: &mut Errors,
) -> Option<Declared<'a>> {
    let Some(name) = get(entry, "name") else {
        errors.push(path, "has no name", "add name");
        return None;
    };
    let name = schema::text(&path.field("name"), name, errors)?;
    if !is_name(name) {
        let fix = "use letters, digits and '_', at most 63, the first no digit, so that params.NAME can be written";
        errors.push(path.field("name"), format!("{} is no name of a parameter", echo(name)), fix);
        return None;
    }
    // Another word is told by the table.
    let kind = ValueKind::parse(get(entry, "type").and_then(Value::as_str).unwrap_or("string"))?;
    let allowed = match get(entry, "enum") {
        None => None,
        Some(allowed) => {
            let path = path.field("enum");
            let allowed = schema::list(&path, allowed, errors)?;
            if allowed.is_empty() {
                errors.push(&path, "is empty", "list the values that are allowed, or remove it");
            }
            for (at, value) in allowed.iter().enumerate() {
                typed(&path.at(at), value, kind, errors);
            }
            Some(allowed)
        }
    };
    let declared = Declared {
        name,
        kind,
        default: get(entry, "default"),
        allowed,
        value: get(entry, "value").filter(|_| with_value).map(|value| (value, path.field("value"))),
        path: path.clone(),
    };
    if let Some(default) = declared.default {
        declared.accept(&path.field("default"), default, errors);
    }
    Some(declared)
}

/// Whether `params.NAME` can be written.
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

impl Declared<'_> {
    /// A value of the declared type and among those allowed.
    fn accept(&self, path: &Path, value: &Value, errors: &mut Errors) -> Option<Value> {
        let value = typed(path, value, self.kind, errors)?;
        if let Some(allowed) = self.allowed
            && !allowed.iter().any(|one| same(one, &value))
        {
            let all: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            errors.push(
                path,
                format!("{} is not allowed", echo(&value.to_string())),
                format!("write one of {}", all.join(", ")),
            );
            return None;
        }
        Some(value)
    }
}

/// Whether two values are one: 1 and 1.0 are.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b).is_eq(),
        _ => a == b,
    }
}

/// The value in its declared type; a whole number may stand for a float.
pub(super) fn typed(path: &Path, value: &Value, kind: ValueKind, errors: &mut Errors) -> Option<Value> {
    let good = kind.accept(value);
    if good.is_none() {
        let fix = match (kind, value) {
            (ValueKind::String, Value::Number(_) | Value::Bool(_)) => format!("put it in quotes: \"{value}\""),
            _ => format!("write {}, or declare another type", example(kind)),
        };
        errors.push(path, format!("must be of type {}, is {}", kind.word(), schema::type_of(value)), fix);
    }
    good
}

fn example(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Int => "a whole number like 8",
        ValueKind::Float => "a number like 0.1",
        ValueKind::Bool => "true or false",
        ValueKind::List => "a list like [a, b]",
        ValueKind::Map => "a map like {a: 1}",
        ValueKind::String => "a text",
    }
}

/// The values of a workflow's parameters: each is given beside its declaration, or has a default.
pub(super) fn own_values(declared: &[Declared<'_>], errors: &mut Errors) -> Map<String, Value> {
    let mut values = Map::new();
    for one in declared {
        let found = match (&one.value, one.default) {
            (Some((value, path)), _) => one.accept(path, value, errors),
            // Its mistakes are told once, by the declaration.
            (None, Some(default)) => typed(&one.path, default, one.kind, &mut Errors::default()),
            (None, None) => {
                let fix = format!("add value or default, or give it: flowforge submit -p {}=…", one.name);
                errors.push(&one.path, format!("parameter {} has no value", one.name), fix);
                None
            }
        };
        values.insert(one.name.to_owned(), found.unwrap_or(Value::Null));
    }
    bounded(declared.first().map(|d| &d.path), &values, errors);
    values
}

/// The values that a reference gives for a template's parameters. `waits` says which are known only later: of those the type
/// is not checked.
pub(super) fn given_values(
    path: &Path,
    declared: &[Declared<'_>],
    given: &Map<String, Value>,
    waits: impl Fn(&str) -> bool,
    errors: &mut Errors,
) -> Map<String, Value> {
    for key in given.keys().filter(|key| !declared.iter().any(|one| one.name == *key)) {
        let fix = errors
            .look_alike(key, declared.iter().map(|one| one.name))
            .map_or_else(|| "remove it".to_owned(), |near| format!("did you mean {near:?}? Else remove it"));
        errors.push(path.field(key), format!("the template has no parameter {}", echo(key)), fix);
    }
    let mut values = Map::new();
    for one in declared {
        let found = match (get(given, one.name), one.default) {
            (Some(value), _) if waits(one.name) => Some(value.clone()),
            (Some(value), _) => one.accept(&path.field(one.name), value, errors),
            (None, Some(default)) => typed(&one.path, default, one.kind, &mut Errors::default()),
            (None, None) => {
                errors.push(path, format!("parameter {} has no value", one.name), format!("add {}: …", one.name));
                None
            }
        };
        values.insert(one.name.to_owned(), found.unwrap_or(Value::Null));
    }
    bounded(Some(path), &values, errors);
    values
}

fn bounded(path: Option<&Path>, values: &Map<String, Value>, errors: &mut Errors) {
    let bytes = json_len(values);
    if let Some(path) = path.filter(|_| bytes > MAX_INPUT_BYTES) {
        let problem = format!("the parameters have {bytes} bytes as JSON, at most {MAX_INPUT_BYTES} are possible");
        errors.push(path, problem, "put what is large into a ConfigMap or a file");
    }
}

//! The fields a person may write, as tables, and the check of a value against them.
//!
//! The tables follow `api/src/workflow.rs` (a test compares them with the generated CRD). Types of core/v1 are checked for
//! their shape only: the API server and the controller know them in full.

use super::Options;
use super::errors::{Errors, Path, echo};
use super::syntax;
use serde_json::{Map, Value};

/// What may stand in a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// A DNS-1123 subdomain, the name of another object.
    Name,
    /// One of these words.
    Word(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A whole number in this range.
    Whole(i64, i64),
    /// A list of texts.
    Texts,
    /// Label keys to label values.
    Labels,
    /// Annotation keys to any text.
    Annotations,
    /// A Quantity, as text or number.
    Quantity,
    /// `requests` and `limits`, names to quantities.
    Resources,
    /// An object.
    Object,
    /// A list of objects.
    Objects,
    /// A list of objects, each with a text in this field; the texts are unique when the flag says so.
    Named(&'static str, bool),
    /// Environment variables.
    Env,
    /// Something with rules of its own, checked elsewhere.
    Special,
}

/// A field and its kind.
pub(super) type Field = (&'static str, Kind);

/// Fields of `spec`.
pub(super) const SPEC: &[Field] = &[
    ("storage", Kind::Special),
    ("defaults", Kind::Special),
    ("nodes", Kind::Special),
    ("parameters", Kind::Special),
    ("templates", Kind::Special),
    ("approvals", Kind::Named("node", true)),
    ("rerunOf", Kind::Special),
    ("cancel", Kind::Flag),
    ("terminate", Kind::Flag),
    ("suspend", Kind::Word(&["Hold"])),
    ("parallelism", Kind::Whole(1, 20_000)),
    ("timeoutSeconds", Kind::Whole(1, LONGEST_SECONDS)),
    ("schedulerName", Kind::Name),
    ("ttlSecondsAfterFinished", Kind::Whole(0, i32::MAX as i64)),
];

/// Fields of `spec.defaults`, and of a node that overrides them.
pub(super) const DEFAULTS: &[Field] = &[
    ("env", Kind::Env),
    ("envFrom", Kind::Objects),
    ("serviceAccountName", Kind::Name),
    ("imagePullSecrets", Kind::Named("name", false)),
    ("imagePullPolicy", Kind::Word(&["Always", "IfNotPresent", "Never"])),
    ("nodeSelector", Kind::Labels),
    ("tolerations", Kind::Objects),
    ("affinity", Kind::Object),
    ("volumes", Kind::Named("name", true)),
    ("volumeMounts", Kind::Special),
    ("podSecurityContext", Kind::Object),
    ("securityContext", Kind::Object),
    ("runtimeClassName", Kind::Name),
    ("priorityClassName", Kind::Name),
    ("resources", Kind::Resources),
    ("labels", Kind::Labels),
    ("annotations", Kind::Annotations),
    ("shmSize", Kind::Quantity),
    ("hostIPC", Kind::Flag),
    ("hostNetwork", Kind::Flag),
    ("terminationGracePeriodSeconds", Kind::Whole(0, i64::MAX)),
    ("nprocPerNode", Kind::Whole(1, 1024)),
    ("tolerationSeconds", Kind::Whole(0, i64::MAX)),
];

/// Fields of a node that are its own.
pub(super) const NODE: &[Field] = &[
    ("id", Kind::Special),
    ("replicas", Kind::Special),
    ("roles", Kind::Special),
    ("gang", Kind::Special),
    ("dependsOn", Kind::Special),
    ("dependsMode", Kind::Special),
    ("onFailure", Kind::Special),
    ("finally", Kind::Flag),
    ("retry", Kind::Special),
    ("timeouts", Kind::Special),
    ("approval", Kind::Flag),
    ("image", Kind::Special),
    ("command", Kind::Texts),
    ("args", Kind::Texts),
    ("workingDir", Kind::Text),
    ("podTemplate", Kind::Special),
    ("topology", Kind::Special),
    ("memberLostPolicy", Kind::Word(&["Fail", "ReplaceMember"])),
    ("template", Kind::Special),
    ("when", Kind::Special),
    ("for", Kind::Special),
    ("outputs", Kind::Special),
];

/// Fields of `spec.storage[]`.
pub(super) const STORAGE: &[Field] =
    &[("claimRef", Kind::Special), ("mountPath", Kind::Special), ("subPath", Kind::Special), ("readOnly", Kind::Flag)];

/// Longest time that may be written: ten years.
pub(super) const LONGEST_SECONDS: i64 = 10 * 366 * 24 * 60 * 60;

/// Fields of `timeouts`.
pub(super) const TIMEOUTS: &[Field] = &[
    ("queueSeconds", Kind::Whole(1, LONGEST_SECONDS)),
    ("startSeconds", Kind::Whole(1, LONGEST_SECONDS)),
    ("runSeconds", Kind::Whole(1, LONGEST_SECONDS)),
];

/// Fields of `rerunOf`.
pub(super) const RERUN: &[Field] = &[("name", Kind::Name), ("uid", Kind::Text), ("succeeded", Kind::Special)];

/// The value of a field; `null` is absent, as in the API server.
pub(super) fn get<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

/// What a value is, for a message.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Says that a value has the wrong type.
pub(super) fn wrong_type(path: &Path, value: &Value, wanted: &str, errors: &mut Errors) {
    let fix = match (wanted, value) {
        ("a text", Value::Number(_) | Value::Bool(_)) => format!("put it in quotes: \"{value}\""),
        _ => format!("write {wanted}"),
    };
    errors.push(path, format!("must be {wanted}, is {}", type_of(value)), fix);
}

/// The object in `value`, or an error.
pub(super) fn object<'a>(path: &Path, value: &'a Value, errors: &mut Errors) -> Option<&'a Map<String, Value>> {
    if !value.is_object() {
        wrong_type(path, value, "an object", errors);
    }
    value.as_object()
}

/// The list in `value`, or an error.
pub(super) fn list<'a>(path: &Path, value: &'a Value, errors: &mut Errors) -> Option<&'a Vec<Value>> {
    if !value.is_array() {
        wrong_type(path, value, "a list", errors);
    }
    value.as_array()
}

/// The text in `value`, or an error.
pub(super) fn text<'a>(path: &Path, value: &'a Value, errors: &mut Errors) -> Option<&'a str> {
    if !value.is_string() {
        wrong_type(path, value, "a text", errors);
    }
    value.as_str()
}

/// Checks the fields of `object` against tables, and in strict mode that there are no others.
pub(super) fn check(
    object: &Map<String, Value>,
    path: &Path,
    tables: &[&[Field]],
    options: Options<'_>,
    errors: &mut Errors,
) {
    for (key, kind) in tables.iter().copied().flatten() {
        if let Some(value) = get(object, key) {
            check_value(&path.field(key), value, *kind, errors);
        }
    }
    if options.strict {
        unknown_fields(object, path, || tables.iter().copied().flatten().map(|(key, _)| *key), errors);
    }
}

/// Reports every key that is not among the known.
pub(super) fn unknown_fields<'a, I: Iterator<Item = &'a str>>(
    object: &Map<String, Value>,
    path: &Path,
    known: impl Fn() -> I,
    errors: &mut Errors,
) {
    for key in object.keys().filter(|key| !known().any(|k| k == *key)) {
        let fix = errors
            .look_alike(key, known())
            .map_or_else(|| "remove it".to_owned(), |near| format!("did you mean {near:?}? Else remove it"));
        errors.push(path.field(key), format!("unknown field {}", echo(key)), fix);
    }
}

fn check_value(path: &Path, value: &Value, kind: Kind, errors: &mut Errors) {
    match kind {
        Kind::Special => {}
        Kind::Text => _ = text(path, value, errors),
        Kind::Name => check_text(
            path,
            value,
            syntax::is_subdomain,
            "is no name of an object",
            "use lower-case letters, digits, '-' and '.', at most 253 characters",
            errors,
        ),
        Kind::Word(words) => check_word(path, value, words, errors),
        Kind::Flag if !value.is_boolean() => {
            errors.push(
                path,
                format!("must be a boolean, is {}", type_of(value)),
                "write true or false, without quotes",
            );
        }
        Kind::Flag => {}
        Kind::Whole(min, max) => _ = whole(path, value, min, max, errors),
        Kind::Texts => check_texts(path, value, errors),
        Kind::Labels => check_map(path, value, syntax::is_label_value, errors),
        Kind::Annotations => check_map(path, value, |_| true, errors),
        Kind::Quantity => check_quantity(path, value, errors),
        Kind::Resources => check_resources(path, value, errors),
        Kind::Object => _ = object(path, value, errors),
        Kind::Objects => {
            for (at, entry) in list(path, value, errors).into_iter().flatten().enumerate() {
                object(&path.at(at), entry, errors);
            }
        }
        Kind::Named(key, unique) => _ = named(path, value, key, unique, errors),
        Kind::Env => check_env(path, value, errors),
    }
}

fn check_text(path: &Path, value: &Value, is_good: fn(&str) -> bool, problem: &str, fix: &str, errors: &mut Errors) {
    if let Some(text) = text(path, value, errors)
        && !is_good(text)
    {
        errors.push(path, format!("{} {problem}", echo(text)), fix);
    }
}

fn check_word(path: &Path, value: &Value, words: &[&'static str], errors: &mut Errors) {
    let Some(word) = text(path, value, errors) else { return };
    if !words.contains(&word) {
        wrong_word(path, word, words.iter().copied(), errors);
    }
}

/// What one of some words means, or an error.
pub(super) fn word<T: Copy>(path: &Path, value: &Value, words: &[(&str, T)], errors: &mut Errors) -> Option<T> {
    let written = text(path, value, errors)?;
    let found = words.iter().find(|(word, _)| *word == written).map(|(_, meaning)| *meaning);
    if found.is_none() {
        wrong_word(path, written, words.iter().map(|(word, _)| *word), errors);
    }
    found
}

fn wrong_word<'a>(path: &Path, word: &str, words: impl Iterator<Item = &'a str>, errors: &mut Errors) {
    let words: Vec<&str> = words.collect();
    let all = words.join(", ");
    let fix = errors
        .look_alike(word, words.iter().copied())
        .map_or_else(|| format!("write one of {all}"), |near| format!("did you mean {near}?"));
    errors.push(path, format!("{} is none of {all}", echo(word)), fix);
}

/// A whole number in a range, or an error.
pub(super) fn whole(path: &Path, value: &Value, min: i64, max: i64, errors: &mut Errors) -> Option<i64> {
    let number = match value {
        Value::Number(n) if n.is_f64() => None,
        // Larger than any i64: out of range, not of the wrong type.
        Value::Number(n) => Some(n.as_i64().unwrap_or(i64::MAX)),
        _ => None,
    };
    let Some(number) = number else {
        wrong_type(path, value, "a whole number", errors);
        return None;
    };
    if number < min || number > max || value.as_i64().is_none() {
        let fix = match (min, max) {
            (_, i64::MAX) => format!("write a number of at least {min}"),
            _ => format!("write a number from {min} to {max}"),
        };
        let problem = if number < min {
            format!("must be at least {min}, is {value}")
        } else {
            format!("must be at most {max}, is {value}")
        };
        errors.push(path, problem, fix);
        return None;
    }
    Some(number)
}

fn check_texts(path: &Path, value: &Value, errors: &mut Errors) {
    if value.is_string() {
        errors.push(
            path,
            "must be a list of texts, is a text",
            "write a list with one entry per word: [\"sh\", \"-c\", \"…\"]",
        );
        return;
    }
    for (at, entry) in list(path, value, errors).into_iter().flatten().enumerate() {
        text(&path.at(at), entry, errors);
    }
}

fn check_map(path: &Path, value: &Value, is_value: fn(&str) -> bool, errors: &mut Errors) {
    for (key, value) in object(path, value, errors).into_iter().flatten() {
        let path = path.field(key);
        if !syntax::is_label_key(key) {
            let fix = "use letters, digits, '-', '_' and '.', at most 63, with an optional prefix like example.com/";
            errors.push(&path, format!("{} is no valid key", echo(key)), fix);
        }
        if let Some(text) = text(&path, value, errors)
            && !is_value(text)
        {
            let fix = "use letters, digits, '-', '_' and '.', at most 63, the first and last a letter or digit";
            errors.push(&path, format!("{} is no valid label value", echo(text)), fix);
        }
    }
}

fn check_quantity(path: &Path, value: &Value, errors: &mut Errors) {
    let good = match value {
        Value::String(text) => syntax::is_quantity(text),
        Value::Number(n) => n.as_f64().is_some_and(|n| n >= 0.0),
        _ => false,
    };
    if !good {
        let shown = value.as_str().map_or_else(|| type_of(value).to_owned(), echo);
        errors.push(path, format!("{shown} is no quantity of at least 0"), "write a quantity like 8, 500m or 16Gi");
    }
}

fn check_resources(path: &Path, value: &Value, errors: &mut Errors) {
    let Some(resources) = object(path, value, errors) else { return };
    for key in ["requests", "limits"] {
        let Some(amounts) = get(resources, key) else { continue };
        let path = path.field(key);
        for (name, amount) in object(&path, amounts, errors).into_iter().flatten() {
            check_quantity(&path.field(name), amount, errors);
        }
    }
}

/// The objects of a list with the text each has in `key`, where it has one.
pub(super) fn named<'a>(
    path: &Path,
    value: &'a Value,
    key: &str,
    unique: bool,
    errors: &mut Errors,
) -> Vec<(&'a Map<String, Value>, &'a str)> {
    let mut found: Vec<(&Map<String, Value>, &str)> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (at, entry) in list(path, value, errors).into_iter().flatten().enumerate() {
        let path = path.at(at);
        let Some(object) = object(&path, entry, errors) else { continue };
        let Some(name) = get(object, key) else {
            errors.push(&path, format!("has no {key}"), format!("add {key}"));
            continue;
        };
        let Some(name) = text(&path.field(key), name, errors) else { continue };
        if name.is_empty() {
            errors.push(path.field(key), "must not be empty", format!("write a {key}"));
        } else if unique && !seen.insert(name) {
            errors.push(path.field(key), format!("{} is there twice", echo(name)), "rename or remove one of the two");
        }
        found.push((object, name));
    }
    found
}

fn check_env(path: &Path, value: &Value, errors: &mut Errors) {
    if value.is_object() {
        errors.push(path, "must be a list, is an object", "write a list of {name: …, value: …}");
        return;
    }
    for (at, entry) in list(path, value, errors).into_iter().flatten().enumerate() {
        let path = path.at(at);
        let Some(variable) = object(&path, entry, errors) else { continue };
        match get(variable, "name") {
            None => errors.push(&path, "has no name", "add name"),
            Some(name) => check_text(
                &path.field("name"),
                name,
                syntax::is_env_name,
                "is no name of an environment variable",
                "use printable ASCII without '='",
                errors,
            ),
        }
        let (plain, from) = (get(variable, "value"), get(variable, "valueFrom"));
        if let Some(plain) = plain {
            text(&path.field("value"), plain, errors);
        }
        if let Some(from) = from {
            object(&path.field("valueFrom"), from, errors);
        }
        if plain.is_some_and(|v| v.as_str() != Some("")) && from.is_some() {
            errors.push(&path, "has both value and valueFrom", "keep one of the two");
        }
    }
}

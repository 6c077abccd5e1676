//! Parameters, given by `-p KEY=VALUE` at submit: values of those that a workflow declares (`spec.parameters`), and of
//! `{{params.KEY}}` in any string of a document.
//!
//! - A declared parameter gets the value in its declared type: lists and maps are written as YAML or JSON. It stays in the
//!   stored object; `${{ params.KEY }}` is filled by the controller.
//! - Of what is not declared:
//!
//! - The document is parsed first and its strings are filled then, so a value can never change the document's shape.
//!   A placeholder must therefore stand in quotes: `replicas: "{{params.workers}}"`.
//! - A placeholder may be a part of a string (`s3://{{params.bucket}}/raw`). Where it is the whole string and the field
//!   is a number or a boolean in the Workflow schema, the value becomes one; in a `podTemplate`, which has no schema,
//!   it stays a string.
//! - Every placeholder needs a value and every value a placeholder; both are errors that name the nearest key.
//! - Other uses of double braces are left alone: they belong to the user's program.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::documents::Document;
use crate::failure::Failure;

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
const PREFIX: &str = "params.";

/// The values given on the command line.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    /// Parses `KEY=VALUE` words.
    pub(crate) fn parse(words: &[String]) -> Result<Self, Failure> {
        let mut params = BTreeMap::new();
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                return Err(Failure::new(format!("-p {word}: there is no `=`")).fix("write -p KEY=VALUE"));
            };
            if !is_key(key) {
                return Err(Failure::new(format!("-p {word}: `{key}` is not a parameter name"))
                    .fix("use letters, digits, `_` and `-`, and start with a letter or `_`"));
            }
            if params.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(Failure::new(format!("-p {key} is given twice")).fix("give each parameter once"));
            }
        }
        Ok(Self(params))
    }

    /// Fills every placeholder of every document.
    pub(crate) fn put_into(&self, documents: &mut [Document]) -> Result<(), Failure> {
        let schema = schema();
        let mut run = Run { params: &self.0, used: BTreeSet::new(), problems: Vec::new() };
        for document in documents {
            let source = document.source.clone();
            run.declare(&mut document.value, &source);
            let schema = if document.value.get("workflow").is_some() { bare_schema(&schema) } else { schema.clone() };
            run.fill(&mut document.value, Some(&schema), &format!("{source}: "));
        }
        let Run { used, mut problems, .. } = run;
        for key in self.0.keys().filter(|key| !used.contains(*key)) {
            let hint = nearest(key, used.iter()).map_or(String::new(), |near| format!("; is {near} meant?"));
            problems.push(format!("-p {key}: no document uses {OPEN}{PREFIX}{key}{CLOSE}{hint}"));
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!("parameters:\n  {}", problems.join("\n  ")))
            .fix("give each placeholder its -p KEY=VALUE"))
    }
}

struct Run<'a> {
    params: &'a BTreeMap<String, String>,
    used: BTreeSet<String>,
    problems: Vec<String>,
}

impl Run<'_> {
    /// Gives a workflow's declared parameters their values.
    fn declare(&mut self, document: &mut Value, source: &str) {
        let root = if document.get("workflow").is_some() { "workflow" } else { "spec" };
        let declared = document.get_mut(root).and_then(|spec| spec.get_mut("parameters")).and_then(Value::as_array_mut);
        for (at, parameter) in declared.into_iter().flatten().enumerate() {
            let Some(fields) = parameter.as_object_mut() else { continue };
            let Some(name) = fields.get("name").and_then(Value::as_str).map(str::to_owned) else { continue };
            let Some(text) = self.params.get(&name) else { continue };
            self.used.insert(name);
            let kind = fields.get("type").and_then(Value::as_str).unwrap_or("string").to_owned();
            match value_of_type(&kind, text) {
                Some(value) => drop(fields.insert("value".to_owned(), value)),
                None => {
                    let path = format!("{source}: {root}.parameters[{at}]");
                    self.problems.push(format!("{path}: `{text}` is not of type {kind}"));
                }
            }
        }
    }

    fn fill(&mut self, value: &mut Value, schema: Option<&Value>, path: &str) {
        match value {
            Value::String(text) if text.contains(OPEN) => {
                if let Some(filled) = self.fill_text(text, schema, path) {
                    *value = filled;
                }
            }
            Value::Array(items) => {
                let items_schema = schema.and_then(|s| s.get("items"));
                for (i, item) in items.iter_mut().enumerate() {
                    self.fill(item, items_schema, &format!("{path}[{i}]"));
                }
            }
            Value::Object(map) => {
                for (key, inner) in map.iter_mut() {
                    let dot = if path.ends_with(": ") { "" } else { "." };
                    self.fill(inner, property(schema, key), &format!("{path}{dot}{key}"));
                }
            }
            _ => {}
        }
    }

    /// The filled string, or the number or boolean that its field wants; `None` when there was nothing to fill.
    fn fill_text(&mut self, text: &str, schema: Option<&Value>, path: &str) -> Option<Value> {
        let mut filled = String::new();
        let (mut rest, mut found, mut whole) = (text, 0, false);
        while let Some(start) = rest.find(OPEN) {
            let after = &rest[start + OPEN.len()..];
            if rest[..start].ends_with('$') {
                // The controller's to fill.
                filled.push_str(&rest[..start + OPEN.len()]);
                rest = after;
                continue;
            }
            let end = after.find(CLOSE);
            let name = end.map(|end| after[..end].trim());
            let Some((end, key)) = end.zip(name.and_then(|name| name.strip_prefix(PREFIX))) else {
                filled.push_str(&rest[..start + OPEN.len()]);
                rest = after;
                continue;
            };
            found += 1;
            filled.push_str(&rest[..start]);
            filled.push_str(&self.value_of(key, path));
            rest = &after[end + CLOSE.len()..];
            whole = found == 1 && start == 0 && rest.is_empty();
        }
        filled.push_str(rest);
        (found > 0).then(|| if whole { self.typed(filled, schema, path) } else { Value::String(filled) })
    }

    fn value_of(&mut self, key: &str, path: &str) -> String {
        if !is_key(key) {
            self.problems.push(format!("{path}: `{key}` is not a parameter name"));
            return String::new();
        }
        self.used.insert(key.to_owned());
        if let Some(value) = self.params.get(key) {
            return value.clone();
        }
        let hint =
            nearest(key, self.params.keys()).map_or(String::new(), |near| format!("; is -p {near}= meant for it?"));
        self.problems.push(format!("{path}: {OPEN}{PREFIX}{key}{CLOSE} has no value{hint}"));
        String::new()
    }

    fn typed(&mut self, text: String, schema: Option<&Value>, path: &str) -> Value {
        let wanted = schema.and_then(|s| s.get("type")).and_then(Value::as_str).unwrap_or("string");
        let typed = match wanted {
            "integer" => text.parse::<i64>().ok().map(Value::from),
            "number" => text.parse::<f64>().ok().map(Value::from),
            "boolean" => text.parse::<bool>().ok().map(Value::from),
            _ => return Value::String(text),
        };
        typed.unwrap_or_else(|| {
            // An absent value has its own line.
            if !text.is_empty() {
                self.problems.push(format!("{path}: `{text}` is not the {wanted} that this field needs"));
            }
            Value::String(text)
        })
    }
}

/// A word of the command line as a value of a declared type.
fn value_of_type(kind: &str, text: &str) -> Option<Value> {
    let parsed = || serde_saphyr::from_str::<Value>(text).ok();
    match kind {
        "int" => text.parse::<i64>().ok().map(Value::from),
        "float" => text.parse::<f64>().ok().filter(|n| n.is_finite()).map(Value::from),
        "bool" => text.parse::<bool>().ok().map(Value::from),
        "list" => parsed().filter(Value::is_array),
        "map" => parsed().filter(Value::is_object),
        _ => Some(Value::from(text)),
    }
}

fn is_key(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// The schema of the Workflow kind.
fn schema() -> Value {
    serde_json::to_value(flowforge_api::workflow::crd())
        .ok()
        .and_then(|mut crd| crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema").map(Value::take))
        .unwrap_or_default()
}

/// The schema of a bare document: everything of the spec stands directly under `workflow`.
fn bare_schema(schema: &Value) -> Value {
    let spec = schema.pointer("/properties/spec").cloned().unwrap_or_default();
    serde_json::json!({ "properties": { "workflow": spec } })
}

fn property<'s>(schema: Option<&'s Value>, key: &str) -> Option<&'s Value> {
    let schema = schema?;
    schema
        .get("properties")
        .and_then(|properties| properties.get(key))
        .or_else(|| schema.get("additionalProperties").filter(|inner| inner.is_object()))
}

/// The known key that a mistyped one most likely means: at most two edits away.
fn nearest<'k>(key: &str, known: impl Iterator<Item = &'k String>) -> Option<&'k String> {
    known.map(|k| (edits(key, k), k)).filter(|(edits, k)| *edits <= 2 && *edits < k.len()).min().map(|(_, k)| k)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::documents;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, words: &[&str], expected: &Expect) {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let filled = Params::parse(&words).and_then(|params| {
            let mut documents = documents::parse("f.yaml", text)?;
            params.put_into(&mut documents)?;
            Ok(documents)
        });
        expected.assert_eq(&match filled {
            Ok(documents) => serde_saphyr::to_string(&documents[0].value).expect("yaml"),
            Err(failure) => failure.text(),
        });
    }

    #[test]
    fn a_value_takes_the_type_of_its_field() {
        check(
            r#"
kind: Workflow
spec:
  cancel: "{{params.cancel}}"
  nodes:
  - id: train
    replicas: "{{ params.workers }}"
    args: ["--lr={{params.lr}}", "{{params.lr}}", "{{params.workers}}"]
"#,
            &["workers=4", "lr=0.1", "cancel=false"],
            &expect![[r#"
                kind: Workflow
                spec:
                  cancel: false
                  nodes:
                  - args:
                    - --lr=0.1
                    - "0.1"
                    - "4"
                    id: train
                    replicas: 4
            "#]],
        );
    }

    #[test]
    fn a_bare_document_has_typed_fields_as_well() {
        check(
            "workflow: {nodes: [{replicas: '{{params.n}}'}]}",
            &["n=2"],
            &expect![[r#"
                workflow:
                  nodes:
                  - replicas: 2
            "#]],
        );
    }

    #[test]
    fn other_braces_and_hostile_values_are_left_alone() {
        check(
            r#"{a: "{{ jinja }} {{params.x}} {{", b: "{{params.x}}"}"#,
            &["x=}}\n- {{params.x}}: [1"],
            &expect![[r#"
                a: |-
                  {{ jinja }} }}
                  - {{params.x}}: [1 {{
                b: |-
                  }}
                  - {{params.x}}: [1
            "#]],
        );
    }

    #[test]
    fn a_declared_parameter_gets_its_value_and_is_left_to_the_controller() {
        check(
            r#"
spec:
  parameters: [{name: lr, type: float}, {name: sizes, type: list}, {name: size, type: int, value: 1}, {name: who}]
  nodes: [{args: ["${{ params.lr }}", "{{params.x}}"]}]
"#,
            &["lr=1", "sizes=[1, a]", "size=3", "who=7", "x=y"],
            &expect![[r#"
                spec:
                  nodes:
                  - args:
                    - ${{ params.lr }}
                    - "y"
                  parameters:
                  - name: lr
                    type: float
                    value: 1.0
                  - name: sizes
                    type: list
                    value:
                    - 1
                    - a
                  - name: size
                    type: int
                    value: 3
                  - name: who
                    value: "7"
            "#]],
        );
        check(
            "workflow: {parameters: [{name: size, type: int}]}",
            &["size=four"],
            &expect![[r#"
                error: parameters:
                  f.yaml: workflow.parameters[0]: `four` is not of type int
                  fix: give each placeholder its -p KEY=VALUE
            "#]],
        );
    }

    #[test]
    fn missing_and_unknown_keys_are_told_together() {
        check(
            "spec: {nodes: [{image: '{{params.image}}', replicas: '{{params.workers}}'}]}",
            &["worker=4", "image=x"],
            &expect![[r#"
                error: parameters:
                  f.yaml: spec.nodes[0].replicas: {{params.workers}} has no value; is -p worker= meant for it?
                  -p worker: no document uses {{params.worker}}; is workers meant?
                  fix: give each placeholder its -p KEY=VALUE
            "#]],
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_field() {
        check(
            "spec: {nodes: [{replicas: '{{params.n}}'}]}",
            &["n=four"],
            &expect![[r#"
                error: parameters:
                  f.yaml: spec.nodes[0].replicas: `four` is not the integer that this field needs
                  fix: give each placeholder its -p KEY=VALUE
            "#]],
        );
    }

    #[test]
    fn words_without_a_key_are_refused() {
        for word in ["x", "=1", "1a=2", "a b=3"] {
            assert!(Params::parse(&[word.to_owned()]).is_err(), "{word}");
        }
        assert!(Params::parse(&["a=1".into(), "a=2".into()]).is_err());
        assert_eq!(Params::parse(&["a=b=c".into()]).expect("parses").0["a"], "b=c");
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!([edits("", "ab"), edits("ab", "ab"), edits("abc", "acb"), edits("kitten", "sitting")], [2, 0, 2, 3]);
    }
}

//! Filling `${{ … }}` in what a person wrote, as far as it is known now.
//!
//! What waits for upstream nodes stays in the text, to be filled when the node is released; what is filled by then must stand
//! in a text that is filled again ([`Pass::First`]). Inside a template `params` are the
//! template's own; what stays there is bound to their values, so that the text can be filled where the node stands.

use super::errors::{Errors, Path};
use crate::expr::{self, Piece, Reads, Variables};
use flowforge_scheduler_cel::Expression;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Fields whose value is a text whatever stands in it: a number that fills one of these becomes its text.
const TEXTS: &[&str] = &[
    "command",
    "args",
    "image",
    "workingDir",
    "name",
    "value",
    "labels",
    "annotations",
    "nodeSelector",
    "limits",
    "requests",
];
/// Below this the names are the user's own, and say nothing about types.
const OWN_NAMES: &str = "parameters";

/// What stands at a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wanted {
    /// By the name of the field.
    Any,
    Text,
    /// Any JSON, whatever its name.
    Own,
}

/// What is known while a place is filled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    /// Variables with their values.
    pub(super) known: &'a [(&'a str, &'a Value)],
    /// Variables whose values come later.
    pub(super) late: &'a [&'a str],
    /// Parameters of a template whose values come later, each as a code over the outer scope.
    pub(super) late_params: Option<&'a BTreeMap<String, String>>,
    /// Variables that nobody knows where a text is filled later, each as a code over the others.
    pub(super) bind: &'a [(&'a str, String)],
}

/// A text that stays, or what it is filled with.
enum Filled {
    Now(Value),
    Later(String),
}

/// Whether what comes out is filled once more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pass {
    /// It is: a literal `${{` stays escaped.
    First,
    /// It is not.
    Last,
}

/// Fills every text below `value`; what stays adds what it reads of other nodes to the result.
pub(super) fn fill(value: &mut Value, pass: Pass, scope: Scope<'_>, path: &Path, errors: &mut Errors) -> Reads {
    let mut filler = Filler { scope, pass, reads: Reads::default(), errors };
    filler.value(value, Wanted::Any, path);
    filler.reads
}

/// Fills what waited in a node, now that all is known, and takes the escapes away.
///
/// # Errors
/// The first text that cannot be filled, with its place in the node.
pub fn finish(node: &mut Value, variables: &[(&str, &Value)]) -> Result<(), String> {
    let mut errors = Errors::default();
    let scope = Scope { known: variables, late: &[], late_params: None, bind: &[] };
    fill(node, Pass::Last, scope, &Path::root(""), &mut errors);
    match errors.into_list().into_iter().next() {
        Some(error) => Err(format!("{}: {}", error.path, error.problem)),
        None => Ok(()),
    }
}

/// Takes the escapes away from values of which no text waits.
pub(super) fn unescape(values: &mut Map<String, Value>) {
    for value in values.values_mut().filter(|value| !waits(value)) {
        let scope = Scope { known: &[], late: &[], late_params: None, bind: &[] };
        fill(value, Pass::Last, scope, &Path::root(""), &mut Errors::default());
    }
}

/// Whether a text below `value` holds anything to be filled.
#[must_use]
pub fn has_texts(value: &Value) -> bool {
    match value {
        Value::String(text) => expr::is_filled(text),
        Value::Array(all) => all.iter().any(has_texts),
        Value::Object(all) => all.values().any(has_texts),
        _ => false,
    }
}

/// Whether something below a filled `value` waits for upstream nodes; a literal `${{` does not.
pub(super) fn waits(value: &Value) -> bool {
    match value {
        Value::String(text) => is_late(text),
        Value::Array(all) => all.iter().any(waits),
        Value::Object(all) => all.values().any(waits),
        _ => false,
    }
}

fn is_late(text: &str) -> bool {
    expr::is_filled(text)
        && expr::pieces(text).is_ok_and(|pieces| pieces.iter().any(|piece| matches!(piece, Piece::Code(_))))
}

/// The code whose value a filled text will be.
pub(super) fn code_of(text: &str) -> String {
    let pieces = expr::pieces(text).unwrap_or_default();
    if let [Piece::Code(code)] = pieces[..] {
        return format!("({code})");
    }
    let terms: Vec<String> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Literal(literal) => Value::from(literal.as_str()).to_string(),
            Piece::Code(code) => format!("string({code})"),
        })
        .collect();
    terms.join(" + ")
}

/// A parameter that is not declared is told by name, also where nothing is evaluated yet.
///
/// # Errors
/// Which one, and what is declared.
pub(super) fn check_params(params: &Value, expression: &Expression) -> Result<(), String> {
    let Value::Object(params) = params else { return Ok(()) };
    match expression.uses("params").fields.iter().find(|field| !params.contains_key(field.as_str())) {
        Some(unknown) if params.is_empty() => Err(format!("no parameter {unknown:?} is declared, nor any other")),
        Some(unknown) => {
            let names: Vec<&str> = params.keys().map(String::as_str).collect();
            Err(format!("no parameter {unknown:?} is declared; declared are {}", names.join(", ")))
        }
        None => Ok(()),
    }
}

struct Filler<'a, 'e> {
    scope: Scope<'a>,
    pass: Pass,
    reads: Reads,
    errors: &'e mut Errors,
}

impl<'a> Filler<'a, '_> {
    fn value(&mut self, value: &mut Value, wanted: Wanted, path: &Path) {
        match value {
            Value::String(of) if expr::is_filled(of) => match self.text(of, wanted == Wanted::Text) {
                Ok(Filled::Now(filled)) => *value = filled,
                Ok(Filled::Later(later)) => *value = Value::String(later),
                Err(what) => {
                    self.errors.push(path, what, super::expr_fix(&self.names()));
                }
            },
            Value::Array(all) => {
                for (at, inner) in all.iter_mut().enumerate() {
                    self.value(inner, wanted, &path.at(at));
                }
            }
            Value::Object(all) => {
                for (key, inner) in all.iter_mut() {
                    let wanted = match (wanted, key.as_str()) {
                        (Wanted::Any, OWN_NAMES) => Wanted::Own,
                        (Wanted::Any, key) if TEXTS.contains(&key) => Wanted::Text,
                        _ => wanted,
                    };
                    self.value(inner, wanted, &path.field(key));
                }
            }
            _ => {}
        }
    }

    fn names(&self) -> Vec<&'a str> {
        self.scope.known.iter().map(|(name, _)| *name).chain(self.scope.late.iter().copied()).collect()
    }

    fn text(&mut self, of: &str, wants_text: bool) -> Result<Filled, String> {
        let names = self.names();
        let mut now = Vec::new();
        let mut later = false;
        for piece in expr::pieces(of)? {
            now.push(match piece {
                Piece::Literal(literal) => (Some(Value::String(literal)), String::new()),
                Piece::Code(code) => {
                    let wrong = |what: String| format!("${{{{ {} }}}}: {what}", expr::short(code));
                    let expression = expr::compile(code, &names).map_err(wrong)?;
                    // Later, `params` may be what was bound to that name.
                    let params =
                        self.scope.known.iter().find(|(name, _)| *name == "params" && self.pass == Pass::First);
                    if let Some((_, params)) = params {
                        check_params(params, &expression).map_err(wrong)?;
                    }
                    if self.is_late(&expression) {
                        self.reads.extend(Reads::of(&expression).map_err(wrong)?);
                        later = true;
                        (None, self.bound(code, &expression))
                    } else {
                        (Some(Variables(self.scope.known).evaluate(&expression).map_err(wrong)?), String::new())
                    }
                }
            });
        }
        let first = self.pass == Pass::First;
        if let [(Some(value), _)] = &mut now[..]
            && !wants_text
        {
            return Ok(Filled::Now(if first { escaped(value.take()) } else { value.take() }));
        }
        let text: String = now
            .iter()
            .map(|(value, code)| match value {
                Some(value) if first => expr::escape(&expr::text_of(value)),
                Some(value) => expr::text_of(value),
                None => expr::quote(code),
            })
            .collect();
        Ok(if later { Filled::Later(text) } else { Filled::Now(Value::String(text)) })
    }

    fn is_late(&self, expression: &Expression) -> bool {
        let is_used = |name: &str| {
            let uses = expression.uses(name);
            uses.whole || !uses.fields.is_empty()
        };
        let of_params = || {
            let uses = expression.uses("params");
            let late = self.scope.late_params.into_iter().flatten();
            late.into_iter().any(|(name, _)| uses.whole || uses.fields.contains(name.as_str()))
        };
        self.scope.late.iter().any(|name| is_used(name)) || of_params()
    }

    /// A code that stays, over the outer scope.
    fn bound(&self, code: &str, expression: &Expression) -> String {
        let mut code = code.to_owned();
        for (name, value) in self.scope.bind {
            let uses = expression.uses(name);
            if uses.whole || !uses.fields.is_empty() {
                code = format!("cel.bind({name}, dyn({value}), {code})");
            }
        }
        let (Some(late), Some((_, Value::Object(params)))) =
            (self.scope.late_params, self.scope.known.iter().find(|(name, _)| *name == "params"))
        else {
            return code;
        };
        let uses = expression.uses("params");
        let used = params.iter().filter(|(name, _)| uses.whole || uses.fields.contains(name.as_str()));
        let entries: Vec<String> = used
            .map(|(name, value)| {
                let value = late.get(name).cloned().unwrap_or_else(|| value.to_string());
                format!("{}: dyn({value})", Value::from(name.as_str()))
            })
            .collect();
        format!("cel.bind(params, {{{}}}, {code})", entries.join(", "))
    }
}

/// A value whose texts are filled once more. Recursion is bounded by the nesting that JSON may have.
fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(expr::escape(&text)),
        Value::Array(all) => all.into_iter().map(escaped).collect(),
        Value::Object(all) => Value::Object(all.into_iter().map(|(key, value)| (key, escaped(value))).collect()),
        other => other,
    }
}

/// Splits the values that a reference gives into those that wait, each as a code, and says what cannot wait.
pub(super) fn late_params(path: &Path, given: &Map<String, Value>, errors: &mut Errors) -> BTreeMap<String, String> {
    let mut late = BTreeMap::new();
    for (name, value) in given {
        match value {
            Value::String(text) if is_late(text) => drop(late.insert(name.clone(), code_of(text))),
            other if waits(other) => {
                let fix = "give the whole value as one ${{ … }}, like ${{ [outputs.a.x, outputs.b.x] }}";
                errors.push(path.field(name), "waits for upstream nodes inside of a list or map", fix);
            }
            _ => {}
        }
    }
    late
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filled(value: Value, known: &[(&str, &Value)], late: &[&str]) -> (Value, Vec<String>) {
        let mut value = value;
        let mut errors = Errors::default();
        let scope = Scope { known, late, late_params: None, bind: &[] };
        let reads = fill(&mut value, Pass::First, scope, &Path::root("p"), &mut errors);
        let mut told: Vec<String> = errors.into_list().iter().map(ToString::to_string).collect();
        told.extend(reads.nodes.iter().map(ToString::to_string));
        (value, told)
    }

    #[test]
    fn a_whole_text_takes_the_type_of_its_value_where_its_field_is_no_text() {
        let params = json!({"n": 4, "on": true, "gpu": 8, "name": "x"});
        let known = [("params", &params)];
        let node = json!({
            "replicas": "${{ params.n }}", "hostNetwork": "${{ params.on }}", "args": ["--n", "${{ params.n }}"],
            "env": [{"name": "N", "value": "${{ params.n }}"}],
            "resources": {"limits": {"nvidia.com/gpu": "${{ params.gpu }}"}},
            "template": {"parameters": {"value": "${{ params.n }}", "name": "pre-${{ params.name }}"}},
        });
        let expected = json!({
            "replicas": 4, "hostNetwork": true, "args": ["--n", "4"],
            "env": [{"name": "N", "value": "4"}],
            "resources": {"limits": {"nvidia.com/gpu": "8"}},
            "template": {"parameters": {"value": 4, "name": "pre-x"}},
        });
        assert_eq!(filled(node, &known, &[]), (expected, Vec::new()));
    }

    #[test]
    fn what_waits_stays_and_names_its_nodes() {
        let params = json!({"a": "$${{", "n": 1, "plain": "${{ x }}"});
        let known = [("params", &params)];
        let text = json!(["${{ params.n }}-${{ outputs.train.loss }}-${{ params.a }}"]);
        let (value, nodes) = filled(text, &known, &["outputs"]);
        assert_eq!(nodes, ["train"]);
        assert_eq!(value, json!(["1-${{ outputs.train.loss }}-$$${{"]));
        assert!(waits(&value));
        let outputs = json!({"train": {"loss": 0.5}});
        let mut value = value;
        finish(&mut value, &[("outputs", &outputs)]).unwrap();
        assert_eq!(value, json!(["1-0.5-$${{"]));
        assert!(!waits(&json!("$${{ outputs.a.b }}")));
        let (mut value, _) = filled(json!(["${{ params.plain }}"]), &known, &["outputs"]);
        finish(&mut value, &[]).unwrap();
        assert_eq!(value, json!(["${{ x }}"]), "what a value holds is not filled itself");
    }

    #[test]
    fn mistakes_are_told_with_their_place_and_what_would_be_known() {
        let params = json!({"lr": 0.1});
        let known = [("params", &params)];
        for (text, expected) in [
            ("${{ params.rl }}", "p.args[0]: ${{ params.rl }}: no parameter \"rl\" is declared; declared are lr"),
            ("${{ param.lr }}", "undeclared reference to 'param'"),
            ("${{ params.lr", "has no }}"),
            ("${{ outputs.a.b }}", "undeclared reference to 'outputs'"),
        ] {
            let (_, errors) = filled(json!({"args": [text]}), &known, &[]);
            assert!(errors[0].contains(expected), "{errors:?}");
            assert!(errors[0].ends_with("variables here: params"), "{errors:?}");
        }
    }

    #[test]
    fn a_late_parameter_of_a_template_is_bound_where_it_is_used() {
        let given = json!({"loss": "${{ outputs.train.loss }}", "n": 2, "dir": "/x/${{ outputs.train.dir }}"});
        let given = given.as_object().unwrap();
        let late = late_params(&Path::root("p"), given, &mut Errors::default());
        let params = Value::Object(given.clone());
        let known = [("params", &params)];
        let mut args = json!(["${{ params.n }}", "${{ params.loss }}", "${{ params.dir + \"/\" + string(params.n) }}"]);
        let scope = Scope { known: &known, late: &[], late_params: Some(&late), bind: &[] };
        fill(&mut args, Pass::First, scope, &Path::root("p"), &mut Errors::default());
        assert_eq!(args[0], json!(2));
        let outputs = json!({"train": {"loss": 0.5, "dir": "y"}});
        finish(&mut args, &[("outputs", &outputs)]).unwrap();
        assert_eq!(args, json!([2, 0.5, "/x/y/2"]));
    }
}

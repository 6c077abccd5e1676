//! Expressions over variables of any shape: what a workflow decides by. The same language and the same cost limit as the
//! selectors of devices; variables and results are JSON.
//!
//! JSON knows one kind of number: a whole one becomes an `int`, any other a `double`; numbers of both kinds compare.

use crate::ast::Expr;
use crate::check;
use crate::eval::Evaluation;
use crate::parse;
use crate::value::{Key, Map, Value};
use crate::{CompileError, EvalError};
use regex::Regex;
use serde_json::Value as Json;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An expression over named variables.
#[derive(Clone, Debug)]
pub struct Expression {
    expr: Expr,
    regexes: BTreeMap<SmolStr, Regex>,
    is_bool: bool,
}

/// How an expression uses a variable.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Uses {
    /// The fields that are named: `a` of `variable.a` and `variable["a"]`.
    pub fields: BTreeSet<SmolStr>,
    /// The fields of those that are named: `a` and `b` of `variable.a.b`.
    pub inner: BTreeSet<(SmolStr, SmolStr)>,
    /// It is used in another way as well: as a whole, or by a field that only its evaluation tells.
    pub whole: bool,
}

impl Expression {
    /// Compiles an expression over these variables. `O(length · overloads)`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(text: &str, variables: &[&str]) -> Result<Self, CompileError> {
        let mut expr = parse::parse(text)?;
        let (regexes, is_bool) = check::check_open(&mut expr, variables)?;
        Ok(Self { expr, regexes, is_bool })
    }

    /// Whether it evaluates to a bool, or to what only its evaluation shows.
    #[must_use]
    pub fn may_be_bool(&self) -> bool {
        self.is_bool
    }

    /// Number of its parts, macros expanded.
    #[must_use]
    pub fn size(&self) -> usize {
        let mut count = 0;
        walk(&self.expr, &mut |_| count += 1);
        count
    }

    /// How deep its comprehensions nest.
    #[must_use]
    pub fn fold_depth(&self) -> usize {
        fold_depth(&self.expr)
    }

    /// How it uses a variable. A name that a macro binds hides the variable; such a use counts all the same.
    #[must_use]
    pub fn uses(&self, variable: &str) -> Uses {
        let mut uses = Uses::default();
        collect(&self.expr, variable, &mut uses);
        uses
    }

    /// Its value, within a cost of `limit`.
    ///
    /// # Errors
    /// When it fails on these variables, costs too much, or has a value that JSON cannot say.
    pub fn evaluate(&self, variables: &[(&str, &Json)], limit: u64) -> Result<Json, EvalError> {
        let vars = variables.iter().map(|(name, value)| ((*name).into(), Ok(from_json(value)))).collect();
        let value = Evaluation::with_variables(&self.regexes, vars, limit).eval(&self.expr)?;
        to_json(&value)
    }
}

/// The parts directly inside one.
fn parts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Literal(_) | Expr::Ident(_) => Vec::new(),
        Expr::Select(operand, _) | Expr::Has(operand, _) | Expr::OptSelect(operand, _) => vec![operand],
        Expr::Call(call) => call.args.iter().collect(),
        Expr::List(elements) => elements.iter().map(|(element, _)| element).collect(),
        Expr::Map(entries) => entries.iter().flat_map(|(key, value, _)| [key, value]).collect(),
        Expr::And(terms) | Expr::Or(terms) => terms.iter().collect(),
        Expr::Conditional(parts) => parts.iter().collect(),
        Expr::Fold(fold) => vec![&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result],
    }
}

/// The parser bounds how deep this goes.
fn walk(expr: &Expr, visit: &mut impl FnMut(&Expr)) {
    visit(expr);
    for part in parts(expr) {
        walk(part, visit);
    }
}

/// A binding over no elements (`cel.bind`) is no loop.
fn fold_depth(expr: &Expr) -> usize {
    let inner = parts(expr).into_iter().map(fold_depth).max().unwrap_or(0);
    match expr {
        Expr::Fold(fold) if fold.range != Expr::List(Vec::new()) => inner + 1,
        _ => inner,
    }
}

/// The operand and the name of a field that is named.
fn field_of(expr: &Expr) -> Option<(&Expr, &SmolStr)> {
    match expr {
        Expr::Select(operand, field) | Expr::Has(operand, field) | Expr::OptSelect(operand, field) => {
            Some((operand, field))
        }
        Expr::Call(call) if matches!(call.function.as_str(), "_[_]" | "_[?_]") => match &call.args[..] {
            [operand, Expr::Literal(Value::String(field))] => Some((operand, field)),
            _ => None,
        },
        _ => None,
    }
}

fn collect(expr: &Expr, variable: &str, uses: &mut Uses) {
    let is_variable = |of: &Expr| matches!(of, Expr::Ident(name) if name == variable);
    if is_variable(expr) {
        uses.whole = true;
        return;
    }
    if let Some((operand, field)) = field_of(expr) {
        if is_variable(operand) {
            uses.fields.insert(field.clone());
            return;
        }
        if let Some((inner, of)) = field_of(operand)
            && is_variable(inner)
        {
            uses.fields.insert(of.clone());
            uses.inner.insert((of.clone(), field.clone()));
            return;
        }
    }
    parts(expr).into_iter().for_each(|part| collect(part, variable, uses));
}

fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::Int(i),
            (None, Some(u)) => Value::Uint(u),
            (None, None) => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::String(s.into()),
        Json::Array(all) => Value::list(all.iter().map(from_json).collect()),
        Json::Object(all) => {
            let entry = |(key, value): (&String, &Json)| {
                let key = SmolStr::from(key);
                (Key::String(key.clone()), (Value::String(key), from_json(value)))
            };
            Value::Map(Arc::new(Map { entries: all.iter().map(entry).collect(), lenient: false }))
        }
    }
}

fn to_json(value: &Value) -> Result<Json, EvalError> {
    let no_json = |value: &Value| Err(EvalError::Failed(format!("a {} is no JSON value", value.type_name())));
    Ok(match value {
        Value::Null | Value::Optional(None) => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(i) => Json::from(*i),
        Value::Uint(u) => Json::from(*u),
        Value::Double(d) => match serde_json::Number::from_f64(*d) {
            Some(number) => Json::Number(number),
            None => return Err(EvalError::Failed(format!("{d} is no JSON number"))),
        },
        Value::String(s) => Json::String(s.to_string()),
        Value::List(all) => Json::Array(all.iter().map(to_json).collect::<Result<_, _>>()?),
        Value::Map(map) => {
            let mut object = serde_json::Map::new();
            for (key, value) in map.entries.values() {
                let Value::String(key) = key else { return no_json(key) };
                object.insert(key.to_string(), to_json(value)?);
            }
            Json::Object(object)
        }
        Value::Optional(Some(value)) => to_json(value)?,
        Value::Bytes(_) | Value::Quantity(..) | Value::Semver(_) | Value::Type(_) => return no_json(value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LIMIT: u64 = 100_000;

    #[track_caller]
    fn value(text: &str) -> Result<Json, String> {
        let expression = Expression::compile(text, &["params", "outputs"]).map_err(|e| e.to_string())?;
        let params = json!({"lr": 0.5, "n": 4, "names": ["a", "b"], "on": true, "who": "me"});
        let outputs = json!({"train": {"loss": 0.25}, "a-b": {"x": {"y": [1, 2.5, null]}}});
        expression.evaluate(&[("params", &params), ("outputs", &outputs)], LIMIT).map_err(|e| e.to_string())
    }

    #[test]
    fn variables_of_any_shape_are_seen_and_any_json_comes_back() {
        assert_eq!(value("outputs.train.loss < params.lr && params.on"), Ok(json!(true)));
        assert_eq!(value("params.n + 1"), Ok(json!(5)));
        assert_eq!(value("params.n < 4.5"), Ok(json!(true)), "numbers of both kinds compare");
        assert_eq!(value("params.names.map(n, n + '!')"), Ok(json!(["a!", "b!"])));
        assert_eq!(value(r#"outputs["a-b"].x"#), Ok(json!({"y": [1, 2.5, null]})));
        assert_eq!(value("has(outputs.train.accuracy) ? 1 : 2"), Ok(json!(2)));
        assert_eq!(value("params.?other.orValue(7)"), Ok(json!(7)));
        assert_eq!(value("{'a': [params.who]}"), Ok(json!({"a": ["me"]})));
    }

    #[test]
    fn what_does_not_work_says_why() {
        assert!(value("outputs.train.accuracy > 0.5").unwrap_err().contains("no such key: accuracy"));
        assert!(value("param.n").unwrap_err().contains("undeclared reference to 'param'"));
        assert!(value("params.n +").is_err());
        assert!(value("1 + 'a'").unwrap_err().contains("no matching overload"));
        assert!(value("b'x'").unwrap_err().contains("no JSON value"));
        assert!(value("{1: 2}").unwrap_err().contains("no JSON value"));
    }

    #[test]
    fn what_costs_too_much_is_cut_off() {
        let numbers: Vec<u64> = (0..2_000).collect();
        let all = json!({ "all": numbers });
        let expression = Expression::compile("params.all.exists(a, params.all.exists(b, a + b < 0))", &["params"]);
        let result = expression.unwrap().evaluate(&[("params", &all)], LIMIT);
        assert_eq!(result, Err(EvalError::CostLimit(LIMIT)));
    }

    #[test]
    fn size_depth_and_uses_are_known_before() {
        let compile = |text: &str| Expression::compile(text, &["params", "outputs"]).unwrap();
        assert_eq!(compile("params.a").size(), 2);
        assert_eq!(compile("params.a.all(x, x.exists(y, y))").fold_depth(), 2);
        assert_eq!(compile("cel.bind(x, params.a, x)").fold_depth(), 0);
        let uses = compile(r#"outputs.a.b > 1 && outputs["c-d"].e && has(outputs.f) && outputs.?g.h.hasValue()"#);
        let fields: Vec<SmolStr> = uses.uses("outputs").fields.into_iter().collect();
        assert_eq!(fields, ["a", "c-d", "f", "g"]);
        let inner: Vec<(SmolStr, SmolStr)> = uses.uses("outputs").inner.into_iter().collect();
        assert_eq!(inner, [("a", "b"), ("c-d", "e"), ("g", "h")].map(|(of, field)| (of.into(), field.into())));
        assert!(!uses.uses("outputs").whole);
        assert!(compile("size(outputs) > 0").uses("outputs").whole);
        assert!(compile("outputs[params.a]").uses("outputs").whole);
    }

    #[test]
    fn a_condition_is_known_to_be_one_before() {
        let may = |text: &str| Expression::compile(text, &["params"]).unwrap().may_be_bool();
        assert!(may("params.a"));
        assert!(may("params.a == 1"));
        assert!(!may("1 + 1"));
    }
}

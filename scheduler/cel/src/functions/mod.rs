//! What the functions do, by the values that they are given. Which values they take is declared in [`crate::declare`];
//! arguments whose types only their evaluation shows are dispatched here, and fit or fail.

mod convert;
mod lists;
mod numbers;
mod strings;

use crate::EvalError;
use crate::eval::failed;
use crate::quantity::Quantity;
use crate::semver::Semver;
use crate::value::{Key, Map, Value};
use regex::Regex;
use smol_str::SmolStr;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

type Called = Result<Value, EvalError>;

/// No function of this name takes such values.
fn no_overload(name: &str) -> Called {
    failed(format!("no such overload: {name}"))
}

fn int(value: impl TryInto<i64>) -> Called {
    value.try_into().map(Value::Int).or_else(|_| failed("integer overflow"))
}

/// Calls a function.
pub(crate) fn call(name: &str, args: &[Value], regexes: &BTreeMap<SmolStr, Regex>) -> Called {
    use Value::{Bool, Bytes, List, Map as MapValue, Optional, String as Text};
    match (name, args) {
        ("!_", [Bool(value)]) => Ok(Bool(!value)),
        ("_==_", [a, b]) => a.equals(b).map(Bool).map_or_else(|| no_overload(name), Ok),
        ("_!=_", [a, b]) => Ok(Bool(a.equals(b) != Some(true))),
        ("_<_", [a, b]) => order(a, b, |order| order == Ordering::Less),
        ("_<=_", [a, b]) => order(a, b, |order| order != Ordering::Greater),
        ("_>_", [a, b]) => order(a, b, |order| order == Ordering::Greater),
        ("_>=_", [a, b]) => order(a, b, |order| order != Ordering::Less),
        ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [a, b]) => numbers::arithmetic(name, a, b),
        ("-_", [of]) => numbers::negate(of),
        ("@in", [of, List(all)]) => Ok(Bool(lists::contains(all, of))),
        ("@in", [of, MapValue(map)]) => Ok(Bool(map.contains(of))),
        ("size", [Text(_) | Bytes(_) | List(_) | MapValue(_)]) => int(args[0].size()),
        ("type", [of]) => Ok(Value::Type(of.type_name().into())),
        ("dyn", [of]) => Ok(of.clone()),
        ("bool" | "bytes" | "double" | "int" | "uint" | "string", [of]) => convert::convert(name, of),
        ("optional.of", [of]) => Ok(Value::some(of.clone())),
        ("optional.ofNonZeroValue", [of]) => Ok(if of.is_zero() { Optional(None) } else { Value::some(of.clone()) }),
        ("optional.none", []) => Ok(Optional(None)),
        ("hasValue", [Optional(value)]) => Ok(Bool(value.is_some())),
        ("value", [Optional(Some(value))]) => Ok(value.as_ref().clone()),
        ("value", [Optional(None)]) => failed("optional.none() dereference"),
        ("cel.@mapInsert", [MapValue(map), rest @ ..]) => insert(map, rest),
        ("quantity" | "isQuantity" | "sign" | "asApproximateFloat" | "asInteger" | "isInteger" | "add" | "sub", _) => {
            quantity(name, args)
        }
        ("semver" | "isSemver" | "major" | "minor" | "patch", _) => semver(name, args),
        ("isGreaterThan" | "isLessThan" | "compareTo", [a, b]) => {
            let order = match (a, b) {
                (Value::Quantity(a, _), Value::Quantity(b, _)) => a.cmp(b),
                (Value::Semver(a), Value::Semver(b)) => a.cmp(b),
                _ => return no_overload(name),
            };
            Ok(match name {
                "isGreaterThan" => Bool(order == Ordering::Greater),
                "isLessThan" => Bool(order == Ordering::Less),
                _ => Value::Int(order as i64),
            })
        }
        ("includes", [List(all), of]) => Ok(Bool(lists::contains(all, of))),
        ("includes", [a, b]) => Ok(Bool(a.equals(b) == Some(true))),
        (_, [List(_), ..]) | ("lists.range", _) => lists::call(name, args),
        (_, [Text(text), rest @ ..]) => strings::call(name, text, rest, regexes),
        _ => no_overload(name),
    }
}

fn order(a: &Value, b: &Value, wanted: impl Fn(Ordering) -> bool) -> Called {
    compare(a, b).map(|order| Value::Bool(wanted(order)))
}

/// Order of two values of types that have one.
fn compare(a: &Value, b: &Value) -> Result<Ordering, EvalError> {
    let order = match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Double(x), _) | (_, Value::Double(x)) if x.is_nan() => return failed("NaN values cannot be ordered"),
        _ => a.compare_numbers(b),
    };
    order.map_or_else(|| failed("no such overload: values cannot be ordered"), Ok)
}

fn insert(map: &Arc<Map>, rest: &[Value]) -> Called {
    let added: Vec<(Value, Value)> = match rest {
        [key, value] => vec![(key.clone(), value.clone())],
        [Value::Map(more)] => more.entries.values().cloned().collect(),
        _ => return no_overload("transformMapEntry"),
    };
    let mut map = map.as_ref().clone();
    for (key, value) in added {
        let Some(known) = Key::of(&key) else { return failed(format!("unsupported key type: {}", key.type_name())) };
        if map.entries.insert(known, (key.clone(), value)).is_some() {
            return failed(format!("insert failed: key {key:?} already exists"));
        }
    }
    Ok(Value::Map(Arc::new(map)))
}

fn quantity(name: &str, args: &[Value]) -> Called {
    Ok(match (name, args) {
        ("quantity", [Value::String(text)]) => match Quantity::parse(text) {
            Ok(quantity) => Value::Quantity(quantity, false),
            Err(error) => return failed(error.to_string()),
        },
        ("isQuantity", [Value::String(text)]) => Value::Bool(Quantity::parse(text).is_ok()),
        ("sign", [Value::Quantity(q, _)]) => Value::Int(q.sign()),
        ("asApproximateFloat", [Value::Quantity(q, _)]) => Value::Double(q.to_f64()),
        ("isInteger", [Value::Quantity(q, _)]) => Value::Bool(q.to_i64().is_some()),
        ("asInteger", [Value::Quantity(q, _)]) => {
            return q.to_i64().map(Value::Int).map_or_else(|| failed("cannot convert value to integer"), Ok);
        }
        ("add" | "sub", [Value::Quantity(q, _), other]) => {
            let other = match other {
                Value::Quantity(other, _) => *other,
                Value::Int(other) => Quantity::whole(*other),
                _ => return no_overload(name),
            };
            Value::Quantity(if name == "add" { q.plus(other) } else { q.minus(other) }, true)
        }
        _ => return no_overload(name),
    })
}

fn semver(name: &str, args: &[Value]) -> Called {
    let (text, normalize) = match args {
        [Value::Semver(version)] => {
            return match name {
                "major" => int(version.major),
                "minor" => int(version.minor),
                "patch" => int(version.patch),
                _ => no_overload(name),
            };
        }
        [Value::String(text)] => (text, false),
        [Value::String(text), Value::Bool(normalize)] => (text, *normalize),
        _ => return no_overload(name),
    };
    let parsed = if normalize { Semver::parse_normalized(text) } else { Semver::parse(text) };
    match (name, parsed) {
        ("isSemver", parsed) => Ok(Value::Bool(parsed.is_ok())),
        ("semver", Ok(version)) => Ok(Value::Semver(Arc::new(version))),
        ("semver", Err(what)) => failed(what),
        _ => no_overload(name),
    }
}

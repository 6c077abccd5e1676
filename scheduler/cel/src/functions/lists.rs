//! Functions of lists, and sets made of them.

use super::{Called, compare, int, no_overload, numbers};
use crate::eval::failed;
use crate::value::Value;
use std::cmp::Ordering;

/// Elements that `lists.range` may make; the cost limit allows no more.
const MAX_RANGE: i64 = 1_000_000;

pub(super) fn contains(all: &[Value], of: &Value) -> bool {
    all.iter().any(|value| value.equals(of) == Some(true))
}

pub(super) fn call(name: &str, args: &[Value]) -> Called {
    match (name, args) {
        ("lists.range", [Value::Int(size)]) => match size {
            0..=MAX_RANGE => Ok(Value::list((0..*size).map(Value::Int).collect())),
            _ => failed(format!("lists.range: size {size} is not between 0 and {MAX_RANGE}")),
        },
        (_, [Value::List(all), rest @ ..]) => of_list(name, all, rest),
        _ => no_overload(name),
    }
}

fn of_list(name: &str, all: &[Value], rest: &[Value]) -> Called {
    match (name, rest) {
        ("indexOf", [of]) => {
            all.iter().position(|value| value.equals(of) == Some(true)).map_or(Ok(Value::Int(-1)), int)
        }
        ("lastIndexOf", [of]) => {
            all.iter().rposition(|value| value.equals(of) == Some(true)).map_or(Ok(Value::Int(-1)), int)
        }
        ("first", []) => Ok(all.first().cloned().map_or(Value::Optional(None), Value::some)),
        ("last", []) => Ok(all.last().cloned().map_or(Value::Optional(None), Value::some)),
        ("sum", []) => sum(all),
        ("max", []) => extreme(name, all, Ordering::Less),
        ("min", []) => extreme(name, all, Ordering::Greater),
        ("isSorted", []) => {
            for pair in all.windows(2) {
                if compare(&pair[0], &pair[1])? == Ordering::Greater {
                    return Ok(Value::Bool(false));
                }
            }
            Ok(Value::Bool(true))
        }
        ("join", []) => join(all, ""),
        ("join", [Value::String(between)]) => join(all, between),
        ("slice", [Value::Int(from), Value::Int(to)]) => slice(all, *from, *to),
        ("flatten", []) => Ok(Value::list(flatten(all, 1))),
        ("flatten", [Value::Int(depth)]) if *depth >= 0 => Ok(Value::list(flatten(all, *depth))),
        ("flatten", [Value::Int(_)]) => failed("level must be non-negative"),
        ("reverse", []) => Ok(Value::list(all.iter().rev().cloned().collect())),
        ("distinct", []) => Ok(Value::list(distinct(all))),
        ("sort", []) => sort(all, all),
        ("@sortByAssociatedKeys", [Value::List(keys)]) => sort(all, keys),
        ("sets.contains", [Value::List(other)]) => Ok(Value::Bool(other.iter().all(|of| contains(all, of)))),
        ("sets.intersects", [Value::List(other)]) => Ok(Value::Bool(all.iter().any(|of| contains(other, of)))),
        ("sets.equivalent", [Value::List(other)]) => {
            Ok(Value::Bool(other.iter().all(|of| contains(all, of)) && all.iter().all(|of| contains(other, of))))
        }
        ("unwrapOpt" | "optional.unwrap", []) => unwrap(all),
        _ => no_overload(name),
    }
}

fn sum(all: &[Value]) -> Called {
    let Some((first, rest)) = all.split_first() else { return Ok(Value::Int(0)) };
    if !matches!(first, Value::Int(_) | Value::Uint(_) | Value::Double(_)) {
        return no_overload("sum");
    }
    rest.iter().try_fold(first.clone(), |sum, value| numbers::arithmetic("_+_", &sum, value))
}

fn extreme(name: &str, all: &[Value], worse: Ordering) -> Called {
    let Some((first, rest)) = all.split_first() else { return failed(format!("{name} called on empty list")) };
    let mut best = first;
    for value in rest {
        if compare(best, value)? == worse {
            best = value;
        }
    }
    Ok(best.clone())
}

fn join(all: &[Value], between: &str) -> Called {
    let mut texts = Vec::with_capacity(all.len());
    for value in all {
        match value {
            Value::String(text) => texts.push(text.as_str()),
            other => return failed(format!("join: a {} is no string", other.type_name())),
        }
    }
    Ok(Value::String(texts.join(between).into()))
}

fn slice(all: &[Value], from: i64, to: i64) -> Called {
    match (usize::try_from(from), usize::try_from(to)) {
        (Ok(start), Ok(end)) if start <= end && end <= all.len() => Ok(Value::list(all[start..end].to_vec())),
        _ => failed(format!("cannot slice({from}, {to}), list is length {}", all.len())),
    }
}

fn flatten(all: &[Value], depth: i64) -> Vec<Value> {
    let mut flat = Vec::new();
    for value in all {
        match value {
            Value::List(inner) if depth > 0 => flat.extend(flatten(inner, depth - 1)),
            other => flat.push(other.clone()),
        }
    }
    flat
}

fn distinct(all: &[Value]) -> Vec<Value> {
    let mut distinct: Vec<Value> = Vec::new();
    for value in all {
        if !distinct.iter().any(|known| value.equals(known) == Some(true)) {
            distinct.push(value.clone());
        }
    }
    distinct
}

fn sort(all: &[Value], keys: &[Value]) -> Called {
    if all.len() != keys.len() {
        return failed("@sortByAssociatedKeys() expected a list of the same size as the associated keys list");
    }
    if keys.iter().any(|key| key.type_name() != keys[0].type_name()) {
        return failed("list elements must have the same type");
    }
    let mut order: Vec<usize> = (0..all.len()).collect();
    let mut wrong = None;
    order.sort_by(|a, b| {
        compare(&keys[*a], &keys[*b]).unwrap_or_else(|error| {
            wrong = Some(error);
            Ordering::Equal
        })
    });
    wrong.map_or_else(|| Ok(Value::list(order.into_iter().map(|at| all[at].clone()).collect())), Err)
}

fn unwrap(all: &[Value]) -> Called {
    let mut values = Vec::new();
    for value in all {
        match value {
            Value::Optional(Some(value)) => values.push(value.as_ref().clone()),
            Value::Optional(None) => {}
            other => return failed(format!("a {} is not optional", other.type_name())),
        }
    }
    Ok(Value::list(values))
}

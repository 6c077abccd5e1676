//! What a call costs, as cel-go and Kubernetes count it; the limit of an evaluation is in these units.

use crate::ast::{Call, Expr, is_conversion};
use crate::value::Value;

/// A list literal.
pub(crate) const LIST: u64 = 10;
/// A map literal.
pub(crate) const MAP: u64 = 30;

/// A tenth of a size, rounded up: traversing a string.
fn tenth(size: u64) -> u64 {
    size.div_ceil(10)
}

/// Cost of a call with these arguments and this result.
pub(crate) fn call(call: &Call, args: &[Value], result: &Value) -> u64 {
    let size = |at: usize| args.get(at).map_or(1, Value::size);
    // Which overload it is counts only where the types left one.
    let one = call.overload.is_some();
    let text = |at: usize| matches!(args.get(at), Some(Value::String(_) | Value::Bytes(_)));
    match call.function.as_str() {
        _ if is_conversion(call) && call.args.iter().all(Expr::is_constant) => 0,
        "@in" if call.args.get(1).is_some_and(Expr::is_constant) => 0,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes" => traversal(args.first()),
        "lowerAscii" | "upperAscii" | "substring" | "trim" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
            tenth(size(0))
        }
        "replace" | "split" => size(0).div_ceil(5),
        "join" => result.size().div_ceil(5),
        "find" | "findAll" => tenth(1 + size(0)) * size(1).div_ceil(4),
        "matches" if one => tenth(1 + size(0)) * size(1).div_ceil(4),
        "contains" if one => tenth(size(0)) * tenth(size(1)),
        "startsWith" | "endsWith" if one => tenth(size(1)),
        "strings.quote" => tenth(size(0)),
        "bytes" | "string" if one && text(0) && result.type_name() != args[0].type_name() => tenth(size(0)),
        "_==_" if matches!(args.first(), Some(Value::Quantity(..) | Value::Semver(_))) => 1,
        "_==_" | "_!=_" => tenth(size(0).min(size(1))),
        "_<_" | "_<=_" | "_>_" | "_>=_" if one && text(0) => tenth(size(0).min(size(1))),
        "_+_" if one && text(0) => tenth(size(0) + size(1)),
        "@in" if one && matches!(args.get(1), Some(Value::List(_))) => size(1),
        "sets.contains" | "sets.intersects" => 1 + size(0) * size(1),
        "sets.equivalent" => 1 + 2 * size(0) * size(1),
        "slice" | "reverse" | "lists.range" if one => 1 + LIST + result.size(),
        "flatten" if one => 1 + LIST + result.size(),
        "distinct" | "sort" | "@sortByAssociatedKeys" if one => 1 + LIST + size(0) * size(0),
        _ => 1,
    }
}

/// Of a list: one for each element, and more for long texts.
fn traversal(of: Option<&Value>) -> u64 {
    match of {
        Some(Value::List(all)) => all.iter().map(|value| traversal(Some(value))).sum::<u64>(),
        Some(value @ (Value::String(_) | Value::Bytes(_))) => value.size() / 10,
        _ => 1,
    }
}

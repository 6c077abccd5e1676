//! Arithmetic: integers never wrap.

use super::{Called, no_overload};
use crate::eval::failed;
use crate::value::Value;

/// `+`, `-`, `*`, `/` and `%`, and joining texts and lists.
pub(super) fn arithmetic(name: &str, a: &Value, b: &Value) -> Called {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => integers(name, *a, *b),
        (Value::Uint(a), Value::Uint(b)) => unsigned(name, *a, *b),
        (Value::Double(a), Value::Double(b)) => match name {
            "_+_" => Ok(Value::Double(a + b)),
            "_-_" => Ok(Value::Double(a - b)),
            "_*_" => Ok(Value::Double(a * b)),
            "_/_" => Ok(Value::Double(a / b)),
            _ => no_overload(name),
        },
        (Value::String(a), Value::String(b)) if name == "_+_" => Ok(Value::String(format!("{a}{b}").into())),
        (Value::Bytes(a), Value::Bytes(b)) if name == "_+_" => Ok(Value::Bytes([&a[..], &b[..]].concat().into())),
        (Value::List(a), Value::List(b)) if name == "_+_" => {
            Ok(Value::list(a.iter().chain(b.iter()).cloned().collect()))
        }
        _ => no_overload(name),
    }
}

/// Arithmetic on whole numbers of a type, which ends where that type does.
macro_rules! whole {
    ($name:ident, $of:ty, $value:path, $overflow:literal) => {
        fn $name(name: &str, a: $of, b: $of) -> Called {
            if b == 0 && matches!(name, "_/_" | "_%_") {
                return failed(if name == "_/_" { "division by zero" } else { "modulus by zero" });
            }
            let result = match name {
                "_+_" => a.checked_add(b),
                "_-_" => a.checked_sub(b),
                "_*_" => a.checked_mul(b),
                "_/_" => a.checked_div(b),
                _ => a.checked_rem(b),
            };
            result.map($value).map_or_else(|| failed($overflow), Ok)
        }
    };
}

whole!(integers, i64, Value::Int, "integer overflow");
whole!(unsigned, u64, Value::Uint, "unsigned integer overflow");

pub(super) fn negate(of: &Value) -> Called {
    match of {
        Value::Int(value) => value.checked_neg().map(Value::Int).map_or_else(|| failed("integer overflow"), Ok),
        Value::Double(value) => Ok(Value::Double(-value)),
        _ => no_overload("-_"),
    }
}

//! Conversions between types.

use super::{Called, no_overload};
use crate::eval::failed;
use crate::value::Value;

/// `bool()`, `bytes()`, `double()`, `int()`, `uint()` and `string()`.
pub(super) fn convert(to: &str, of: &Value) -> Called {
    if of.type_name() == to {
        return Ok(of.clone());
    }
    match (to, of) {
        ("bool", Value::String(text)) => match text.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => failed(format!("type conversion error from 'string' to 'bool': {text:?}")),
        },
        ("bytes", Value::String(text)) => Ok(Value::Bytes(text.as_bytes().into())),
        ("double", _) => double(of),
        ("int", _) => int(of),
        ("uint", _) => uint(of),
        ("string", _) => string(of),
        _ => no_overload(to),
    }
}

#[expect(clippy::cast_precision_loss, reason = "as a double holds it")]
fn double(of: &Value) -> Called {
    match of {
        Value::Int(value) => Ok(Value::Double(*value as f64)),
        Value::Uint(value) => Ok(Value::Double(*value as f64)),
        Value::String(text) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() || !text.contains(|c: char| c.is_ascii_digit()) => Ok(Value::Double(value)),
            _ => failed(format!("type conversion error from 'string' to 'double': {text:?}")),
        },
        _ => no_overload("double"),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "in range")]
fn int(of: &Value) -> Called {
    match of {
        Value::Uint(value) => i64::try_from(*value).map(Value::Int).or_else(|_| failed("integer overflow")),
        Value::Double(value) if value.abs() < 9_223_372_036_854_775_808.0 => Ok(Value::Int(*value as i64)),
        Value::Double(_) => failed("integer overflow"),
        Value::String(text) => text.parse().map(Value::Int).or_else(|_| wrong(text, "int")),
        _ => no_overload("int"),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
fn uint(of: &Value) -> Called {
    match of {
        Value::Int(value) => u64::try_from(*value).map(Value::Uint).or_else(|_| failed("unsigned integer overflow")),
        Value::Double(value) if *value >= 0.0 && *value < 18_446_744_073_709_551_616.0 => {
            Ok(Value::Uint(*value as u64))
        }
        Value::Double(_) => failed("unsigned integer overflow"),
        Value::String(text) if !text.starts_with('+') => text.parse().map(Value::Uint).or_else(|_| wrong(text, "uint")),
        Value::String(text) => wrong(text, "uint"),
        _ => no_overload("uint"),
    }
}

fn wrong(text: &str, to: &str) -> Called {
    failed(format!("type conversion error from 'string' to '{to}': {text:?}"))
}

fn string(of: &Value) -> Called {
    match of {
        Value::Bool(value) => Ok(Value::String(value.to_string().into())),
        Value::Int(value) => Ok(Value::String(value.to_string().into())),
        Value::Uint(value) => Ok(Value::String(value.to_string().into())),
        Value::Double(value) => Ok(Value::String(shortest(*value).into())),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::String(text.into())),
            Err(_) => failed("invalid UTF-8 in bytes, cannot convert to string"),
        },
        _ => no_overload("string"),
    }
}

/// Go's `%g`: an exponent below 1e-4 and from 1e21 on.
fn shortest(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if value != 0.0 && !(-4..21).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_written_as_go_writes_them() {
        let written = [0.0, 1.0, -1.5, 1e20, 1e21, 1e-4, 1e-5, 12300.0].map(shortest);
        assert_eq!(written, ["0", "1", "-1.5", "100000000000000000000", "1e+21", "0.0001", "1e-05", "12300"]);
    }
}

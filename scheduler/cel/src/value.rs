//! Values while an expression is evaluated.

use crate::quantity::Quantity;
use crate::semver::Semver;
use smol_str::SmolStr;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(SmolStr),
    Bytes(Arc<[u8]>),
    List(Arc<Vec<Value>>),
    Map(Arc<Map>),
    /// A quantity, and whether it is the result of `add` or `sub`: cel-go cannot compare to those.
    Quantity(Quantity, bool),
    Semver(Arc<Semver>),
    Optional(Option<Arc<Value>>),
    Type(SmolStr),
}

/// A map; integers of either kind are one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Map {
    pub(crate) entries: BTreeMap<Key, (Value, Value)>,
    /// Whether a key that is not there is found as an empty map: the domains of a device.
    pub(crate) lenient: bool,
}

/// A key of a map.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Key {
    Bool(bool),
    Number(i128),
    String(SmolStr),
}

impl Key {
    /// The key that a value is; None where it cannot be one.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(Self::Bool(*b)),
            Value::Int(i) => Some(Self::Number(i128::from(*i))),
            Value::Uint(u) => Some(Self::Number(i128::from(*u))),
            Value::String(s) => Some(Self::String(s.clone())),
            #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
            Value::Double(d) if d.fract() == 0.0 && d.abs() < 1e19 => Some(Self::Number(*d as i128)),
            _ => None,
        }
    }
}

impl Map {
    pub(crate) fn find(&self, key: &Value) -> Option<Value> {
        match Key::of(key).and_then(|key| self.entries.get(&key)) {
            Some((_, value)) => Some(value.clone()),
            None if self.lenient => Some(Value::Map(Arc::default())),
            None => None,
        }
    }

    /// Whether the key is there, also in a lenient map.
    pub(crate) fn contains(&self, key: &Value) -> bool {
        Key::of(key).is_some_and(|key| self.entries.contains_key(&key))
    }
}

impl Value {
    pub(crate) fn list(of: Vec<Self>) -> Self {
        Self::List(Arc::new(of))
    }

    pub(crate) fn some(of: Self) -> Self {
        Self::Optional(Some(Arc::new(of)))
    }

    /// Name of its type.
    pub(crate) fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Quantity(..) => "kubernetes.Quantity",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
        }
    }

    /// What cost counts as its size.
    pub(crate) fn size(&self) -> u64 {
        let size = match self {
            Self::String(s) => s.chars().count(),
            Self::Bytes(b) => b.len(),
            Self::List(l) => l.len(),
            Self::Map(m) => m.entries.len(),
            Self::Optional(Some(value)) => return value.size(),
            _ => 1,
        };
        size as u64
    }

    /// Whether it is the zero of its type.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Self::Null | Self::Optional(None) => true,
            Self::Bool(b) => !b,
            Self::Int(i) => *i == 0,
            Self::Uint(u) => *u == 0,
            Self::Double(d) => *d == 0.0,
            Self::String(s) => s.is_empty(),
            Self::Bytes(b) => b.is_empty(),
            Self::List(l) => l.is_empty(),
            Self::Map(m) => m.entries.is_empty(),
            Self::Quantity(..) | Self::Semver(_) | Self::Optional(Some(_)) | Self::Type(_) => false,
        }
    }

    /// Equality over all types. None: the two cannot be compared, which is an error in cel-go.
    pub(crate) fn equals(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Null, _) | (_, Self::Null) => Some(matches!((self, other), (Self::Null, Self::Null))),
            (Self::Quantity(a, _), Self::Quantity(b, false)) => Some(a == b),
            (Self::Semver(a), Self::Semver(b)) => Some(a == b),
            (Self::Quantity(..) | Self::Semver(_), _) => None,
            (Self::Bool(a), Self::Bool(b)) => Some(a == b),
            (Self::String(a), Self::String(b)) | (Self::Type(a), Self::Type(b)) => Some(a == b),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a == b),
            (Self::List(a), Self::List(b)) => {
                if a.len() != b.len() {
                    return Some(false);
                }
                all_equal(a.iter().zip(b.iter()))
            }
            (Self::Map(a), Self::Map(b)) => {
                if a.entries.len() != b.entries.len() {
                    return Some(false);
                }
                let pairs: Option<Vec<_>> =
                    a.entries.iter().map(|(key, (_, value))| Some((value, &b.entries.get(key)?.1))).collect();
                pairs.map_or(Some(false), |pairs| all_equal(pairs.into_iter()))
            }
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (a, b) => Some(a.is_none() && b.is_none()),
            },
            _ => Some(self.compare_numbers(other) == Some(Ordering::Equal)),
        }
    }

    /// Order of two numbers of any kind; None where one is none, or not a number.
    pub(crate) fn compare_numbers(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Double(a), b) => compare_double(*a, b.integer()?),
            (a, Self::Double(b)) => compare_double(*b, a.integer()?).map(Ordering::reverse),
            (a, b) => Some(a.integer()?.cmp(&b.integer()?)),
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Self::Int(i) => Some(i128::from(*i)),
            Self::Uint(u) => Some(i128::from(*u)),
            _ => None,
        }
    }
}

/// A difference decides, whatever cannot be compared beside it.
fn all_equal<'a>(pairs: impl Iterator<Item = (&'a Value, &'a Value)>) -> Option<bool> {
    let mut result = Some(true);
    for (a, b) in pairs {
        match a.equals(b) {
            Some(false) => return Some(false),
            Some(true) => {}
            None => result = None,
        }
    }
    result
}

#[expect(clippy::cast_possible_truncation, reason = "exact where it decides")]
fn compare_double(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    if a.abs() >= 1e30 {
        return a.partial_cmp(&0.0);
    }
    Some((a.floor() as i128).cmp(&b).then(if a.fract() == 0.0 { Ordering::Equal } else { Ordering::Greater }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_across_types() {
        let order = |a: Value, b: Value| a.compare_numbers(&b);
        assert_eq!(order(Value::Int(-1), Value::Uint(0)), Some(Ordering::Less));
        assert_eq!(order(Value::Double(1.5), Value::Int(1)), Some(Ordering::Greater));
        assert_eq!(order(Value::Double(-1.5), Value::Int(-1)), Some(Ordering::Less));
        assert_eq!(order(Value::Uint(u64::MAX), Value::Double(f64::INFINITY)), Some(Ordering::Less));
        assert_eq!(order(Value::Double(f64::NAN), Value::Int(1)), None);
    }

    #[test]
    fn a_difference_decides_before_what_cannot_be_compared() {
        let quantity = Value::Quantity(Quantity::whole(1), false);
        let list = |values: &[Value]| Value::list(values.to_vec());
        assert_eq!(quantity.equals(&Value::Int(1)), None);
        assert_eq!(
            list(&[quantity.clone(), Value::Int(1)]).equals(&list(&[Value::Int(1), Value::Int(2)])),
            Some(false)
        );
        assert_eq!(list(&[quantity]).equals(&list(&[Value::Int(1)])), None);
    }
}

//! Types while an expression is checked, and which of them stands for which.

use smol_str::SmolStr;
use std::fmt;

/// A type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Type {
    /// Known only when evaluated.
    Dyn,
    /// What could not be found out; compatible with all.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Optional(Box<Type>),
    /// The type of types.
    Kind(Box<Type>),
    Quantity,
    Semver,
    Device,
    /// A variable.
    Param(usize),
}

impl Type {
    pub(crate) fn list(of: Self) -> Self {
        Self::List(Box::new(of))
    }

    pub(crate) fn map(key: Self, value: Self) -> Self {
        Self::Map(Box::new(key), Box::new(value))
    }

    pub(crate) fn optional(of: Self) -> Self {
        Self::Optional(Box::new(of))
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    fn is_nullable(&self) -> bool {
        matches!(self, Self::Null | Self::Optional(_) | Self::Quantity | Self::Semver | Self::Device)
    }

    /// The type without its optionality.
    pub(crate) fn unwrapped(&self) -> (&Self, bool) {
        match self {
            Self::Optional(of) => (of, true),
            other => (other, false),
        }
    }

    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::List(of) | Self::Optional(of) | Self::Kind(of) => vec![of],
            Self::Map(key, value) => vec![key, value],
            _ => Vec::new(),
        }
    }

    /// Name of the type, where a value of it can be asked for.
    pub(crate) fn named(name: &str) -> Option<(Self, SmolStr)> {
        let of = match name {
            "bool" => Self::Bool,
            "bytes" => Self::Bytes,
            "double" => Self::Double,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "string" => Self::String,
            "list" => Self::list(Self::Dyn),
            "map" => Self::map(Self::Dyn, Self::Dyn),
            "null_type" => Self::Null,
            "type" => Self::Kind(Box::new(Self::Dyn)),
            "optional_type" => Self::optional(Self::Dyn),
            _ => return None,
        };
        Some((of, name.into()))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn | Self::Param(_) => f.write_str("dyn"),
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::List(of) => write!(f, "list({of})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            Self::Kind(of) => write!(f, "type({of})"),
            Self::Quantity => f.write_str("kubernetes.Quantity"),
            Self::Semver => f.write_str("kubernetes.Semver"),
            Self::Device => f.write_str("kubernetes.DRADevice"),
        }
    }
}

/// What the variables stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapping {
    bound: Vec<Option<Type>>,
    /// What the variables stood for before they were bound, so that a binding can be undone.
    undo: Vec<(usize, Option<Type>)>,
}

impl Mapping {
    /// A variable of its own.
    pub(crate) fn fresh(&mut self) -> Type {
        self.bound.push(None);
        Type::Param(self.bound.len() - 1)
    }

    fn of(&self, param: usize) -> Option<&Type> {
        self.bound.get(param)?.as_ref()
    }

    /// Whether `a` is assignable to `b`; the variables are then bound so.
    pub(crate) fn assign(&mut self, a: &Type, b: &Type) -> bool {
        self.assign_all(std::slice::from_ref(a), std::slice::from_ref(b))
    }

    /// The same for as many; all of them or none.
    pub(crate) fn assign_all(&mut self, a: &[Type], b: &[Type]) -> bool {
        if a.len() != b.len() {
            return false;
        }
        self.undo.clear();
        let all = a.iter().zip(b).all(|(a, b)| self.assignable(a, b));
        if !all {
            while let Some((param, before)) = self.undo.pop() {
                self.bound[param] = before;
            }
        }
        all
    }

    fn bind(&mut self, param: usize, to: Type) {
        let before = self.bound[param].replace(to);
        self.undo.push((param, before));
    }

    fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(param) = b {
            let (valid, bound) = self.substitutes(a, *param);
            if valid || bound {
                return valid;
            }
        }
        if let Type::Param(param) = a {
            return self.substitutes(b, *param).0;
        }
        if a.is_dyn() || b.is_dyn() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => other.is_nullable(),
            (Type::Kind(_), Type::Kind(_)) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.assignable(a, b),
            (Type::Map(key, value), Type::Map(key2, value2)) => {
                self.assignable(key, key2) && self.assignable(value, value2)
            }
            _ => a == b,
        }
    }

    /// Whether a type may stand for a variable, and whether another stands for it already.
    fn substitutes(&mut self, a: &Type, param: usize) -> (bool, bool) {
        if *a == Type::Param(param) {
            return (true, true);
        }
        if let Some(known) = self.of(param).cloned() {
            if *a == known {
                return (true, true);
            }
            if !self.assignable(a, &known) {
                return (false, true);
            }
            let general = most_general(a, &known);
            if self.absent_from(param, &general) {
                self.bind(param, general);
            }
            return (true, true);
        }
        let free = self.absent_from(param, a);
        if free {
            self.bind(param, a.clone());
        }
        (free, false)
    }

    /// Whether a variable does not occur in a type.
    fn absent_from(&self, param: usize, within: &Type) -> bool {
        match within {
            Type::Param(other) if *other == param => false,
            Type::Param(other) => self.of(*other).is_none_or(|of| self.absent_from(param, of)),
            other => other.parts().into_iter().all(|part| self.absent_from(param, part)),
        }
    }

    /// The type with every variable replaced by what it stands for.
    pub(crate) fn resolve(&self, of: &Type) -> Type {
        match of {
            Type::Param(param) => self.of(*param).map_or_else(|| of.clone(), |of| self.resolve(of)),
            Type::List(of) => Type::list(self.resolve(of)),
            Type::Optional(of) => Type::optional(self.resolve(of)),
            Type::Kind(of) => Type::Kind(Box::new(self.resolve(of))),
            Type::Map(key, value) => Type::map(self.resolve(key), self.resolve(value)),
            other => other.clone(),
        }
    }
}

/// The more general of two types that fit each other.
pub(crate) fn most_general(a: &Type, b: &Type) -> Type {
    if is_less_specific(a, b) { a.clone() } else { b.clone() }
}

fn is_less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => is_less_specific(a, b),
        (Type::Map(key, value), Type::Map(key2, value2)) => {
            is_less_specific(key, key2) && is_less_specific(value, value2)
        }
        (Type::Kind(_), Type::Kind(_)) => true,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_stands_for_the_more_general_type() {
        let mut map = Mapping::default();
        let a = map.fresh();
        assert!(map.assign(&Type::Int, &a) && !map.assign(&Type::String, &a));
        assert!(map.assign(&Type::Dyn, &a));
        assert_eq!(map.resolve(&Type::list(a)), Type::list(Type::Dyn));
    }

    #[test]
    fn a_variable_never_contains_itself() {
        let mut map = Mapping::default();
        let a = map.fresh();
        assert!(!map.assign(&Type::list(a.clone()), &a));
    }

    #[test]
    fn null_is_assignable_to_objects_only() {
        let mut map = Mapping::default();
        assert!(map.assign(&Type::Null, &Type::Quantity) && !map.assign(&Type::Null, &Type::String));
    }
}

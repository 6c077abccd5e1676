//! The tree of an expression, macros expanded as cel-go expands them.

use crate::value::Value;
use smol_str::SmolStr;

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    Literal(Value),
    Ident(SmolStr),
    /// `operand.field`.
    Select(Box<Expr>, SmolStr),
    /// `has(operand.field)`.
    Has(Box<Expr>, SmolStr),
    /// `operand.?field`.
    OptSelect(Box<Expr>, SmolStr),
    Call(Call),
    /// Elements, each with whether it is optional.
    List(Vec<(Expr, bool)>),
    /// Entries, each with whether it is optional.
    Map(Vec<(Expr, Expr, bool)>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Conditional(Box<[Expr; 3]>),
    Fold(Box<Fold>),
}

/// A function, an operator under cel-go's name, or a method.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) function: SmolStr,
    /// The receiver comes first in `args`.
    pub(crate) member: bool,
    pub(crate) args: Vec<Expr>,
    /// The only overload that the types allow; it decides what the call costs.
    pub(crate) overload: Option<usize>,
}

/// A comprehension.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fold {
    pub(crate) range: Expr,
    pub(crate) var: SmolStr,
    pub(crate) var2: Option<SmolStr>,
    pub(crate) accu: SmolStr,
    pub(crate) init: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Expr,
    pub(crate) result: Expr,
}

impl Expr {
    pub(crate) fn call(function: &str, args: Vec<Self>) -> Self {
        Self::Call(Call { function: function.into(), member: false, args, overload: None })
    }

    pub(crate) fn method(function: &str, target: Self, args: Vec<Self>) -> Self {
        let args = std::iter::once(target).chain(args).collect();
        Self::Call(Call { function: function.into(), member: true, args, overload: None })
    }

    pub(crate) fn ident(name: &str) -> Self {
        Self::Ident(name.into())
    }

    pub(crate) fn bool(value: bool) -> Self {
        Self::Literal(Value::Bool(value))
    }

    pub(crate) fn int(value: i64) -> Self {
        Self::Literal(Value::Int(value))
    }

    /// Whether it is a literal, or made of nothing but literals: cel-go makes such a value once, at no cost.
    pub(crate) fn is_constant(&self) -> bool {
        match self {
            Self::Literal(_) => true,
            Self::List(elements) => elements.iter().all(|(element, optional)| !optional && element.is_constant()),
            Self::Map(entries) => {
                entries.iter().all(|(k, v, optional)| !optional && k.is_constant() && v.is_constant())
            }
            Self::Call(call) => is_conversion(call) && call.args.iter().all(|arg| matches!(arg, Self::Literal(_))),
            _ => false,
        }
    }

    /// `a.b.c` for a chain of selections of an identifier.
    pub(crate) fn dotted(&self) -> Option<String> {
        match self {
            Self::Ident(name) => Some(name.to_string()),
            Self::Select(operand, field) => Some(format!("{}.{field}", operand.dotted()?)),
            _ => None,
        }
    }
}

/// Whether a call converts a value to another type.
pub(crate) fn is_conversion(call: &Call) -> bool {
    !call.member && matches!(call.function.as_str(), "bool" | "bytes" | "double" | "dyn" | "int" | "string" | "uint")
}

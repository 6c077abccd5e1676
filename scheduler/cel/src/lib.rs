//! The Common Expression Language as Kubernetes 1.37 lets DeviceClasses and ResourceClaims select devices with it: the
//! variable `device`, the standard library, optional access (`a.?b`, `orValue`), quantities, semantic versions, strings,
//! lists, sets, regular expressions, comprehensions with two variables, `cel.bind`, and the cost limit.
//!
//! ```text
//!   text ──lex, parse, macros──> tree ──check──> Program ──evaluate over a Device──> true, false, or an error
//! ```
//! Semantics are those of cel-go 0.29 with `k8s.io/apiserver/pkg/cel/environment` for stored expressions. What Kubernetes
//! knows and this does not (durations, timestamps, URLs, IP addresses, formats) is a [`CompileError::Unsupported`], never a
//! `false`. Everything is bounded: nesting when parsing, cost when evaluating.
//!
//! Workflows decide by the same language over variables of their own ([`Expression`]).

mod ast;
mod check;
mod cost;
mod declare;
mod device;
mod eval;
mod functions;
mod lex;
mod macros;
mod open;
mod parse;
mod quantity;
mod regexes;
mod semver;
#[cfg(test)]
mod tests;
mod types;
mod value;

pub use device::{Attribute, Device};
pub use open::{Expression, Uses};
pub use quantity::{NotAQuantity, Quantity};
pub use semver::Semver;

use crate::ast::Expr;
use crate::eval::Evaluation;
use crate::value::Value;
use regex::Regex;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use thiserror::Error;

/// Cost that an evaluation may take (`CELSelectorExpressionMaxCost`).
pub const COST_LIMIT: u64 = 1_000_000;

/// Why a text is no selector.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum CompileError {
    /// It does not follow the grammar.
    #[error("at byte {at}: {what}")]
    Syntax {
        /// Where.
        at: usize,
        /// What is wrong.
        what: String,
    },
    /// A name or a type is wrong.
    #[error("{0}")]
    Type(String),
    /// Kubernetes knows the function; this scheduler does not.
    #[error("the function {0} is not supported by this scheduler")]
    Unsupported(String),
}

impl CompileError {
    pub(crate) fn syntax(at: usize, what: impl Into<String>) -> Self {
        Self::Syntax { at, what: what.into() }
    }
}

/// Why an evaluation has no result.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum EvalError {
    /// The expression failed on this device.
    #[error("{0}")]
    Failed(String),
    /// It would have cost more than it may.
    #[error("the evaluation would cost more than {0}")]
    CostLimit(u64),
}

/// A compiled selector.
#[derive(Clone, Debug)]
pub struct Program {
    expr: Expr,
    regexes: BTreeMap<SmolStr, Regex>,
}

impl Program {
    /// Compiles an expression. `O(length · overloads)`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(text: &str) -> Result<Self, CompileError> {
        let mut expr = parse::parse(text)?;
        let regexes = check::check(&mut expr)?;
        Ok(Self { expr, regexes })
    }

    /// Whether a device is selected. `O(cost)`, which is limited.
    ///
    /// # Errors
    /// When the expression fails on this device, or costs too much.
    pub fn matches(&self, device: &Device) -> Result<bool, EvalError> {
        self.evaluate(device).0
    }

    /// The same, and what it cost.
    pub fn evaluate(&self, device: &Device) -> (Result<bool, EvalError>, u64) {
        let value = match device.value() {
            Ok(value) => value,
            Err(what) => return (Err(EvalError::Failed(what.clone())), 0),
        };
        let mut evaluation = Evaluation::new(&self.regexes, value, COST_LIMIT);
        let result = match evaluation.eval(&self.expr) {
            Ok(Value::Bool(matches)) => Ok(matches),
            Ok(other) => Err(EvalError::Failed(format!(
                "CEL result of type {} could not be converted to bool",
                other.type_name()
            ))),
            Err(error) => Err(error),
        };
        (result, evaluation.cost())
    }
}

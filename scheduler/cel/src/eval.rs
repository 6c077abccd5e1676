//! The evaluator: walks the checked tree over one device, counting cost.

use crate::EvalError;
use crate::ast::{Call, Expr, Fold};
use crate::cost;
use crate::functions;
use crate::value::{Key, Map, Value};
use regex::Regex;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) struct Evaluation<'a> {
    regexes: &'a BTreeMap<SmolStr, Regex>,
    /// An accumulator may hold an error.
    vars: Vec<(SmolStr, Evaluated)>,
    cost: u64,
    limit: u64,
}

pub(crate) type Evaluated = Result<Value, EvalError>;

pub(crate) fn failed<T>(what: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::Failed(what.into()))
}

impl<'a> Evaluation<'a> {
    pub(crate) fn new(regexes: &'a BTreeMap<SmolStr, Regex>, device: &Value, limit: u64) -> Self {
        Self::with_variables(regexes, vec![("device".into(), Ok(device.clone()))], limit)
    }

    pub(crate) fn with_variables(
        regexes: &'a BTreeMap<SmolStr, Regex>,
        vars: Vec<(SmolStr, Evaluated)>,
        limit: u64,
    ) -> Self {
        Self { regexes, vars, cost: 0, limit }
    }

    /// What it has cost so far.
    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    fn pay(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::CostLimit(self.limit)) } else { Ok(()) }
    }

    pub(crate) fn eval(&mut self, expr: &Expr) -> Evaluated {
        match expr {
            Expr::Literal(value) => Ok(value.clone()),
            Expr::Ident(name) => self.ident(name),
            Expr::Select(operand, field) => {
                let of = self.operand(operand)?;
                self.pay(1)?;
                select(&of, &Value::String(field.clone()))
            }
            Expr::OptSelect(operand, field) => {
                let of = self.operand(operand)?;
                self.pay(1)?;
                Ok(Value::Optional(find(&of, &Value::String(field.clone()))?.map(Arc::new)))
            }
            Expr::Has(operand, field) => {
                let of = self.operand(operand)?;
                Ok(Value::Bool(find(&of, &Value::String(field.clone()))?.is_some()))
            }
            Expr::Call(call) => self.call(call),
            Expr::List(elements) => self.list(elements),
            Expr::Map(entries) => self.map(entries),
            Expr::And(terms) => self.logical(terms, false),
            Expr::Or(terms) => self.logical(terms, true),
            Expr::Conditional(parts) => match self.eval(&parts[0])? {
                Value::Bool(true) => self.eval(&parts[1]),
                Value::Bool(false) => self.eval(&parts[2]),
                _ => failed("no such overload: the condition of ?: is no bool"),
            },
            Expr::Fold(fold) => self.fold(fold),
        }
    }

    fn ident(&mut self, name: &str) -> Evaluated {
        let known = self.vars.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        match known {
            Some(value) => {
                self.pay(1)?;
                value
            }
            None => Ok(Value::Type(name.into())),
        }
    }

    /// What a field or index is taken of; what is computed costs one more.
    fn operand(&mut self, expr: &Expr) -> Evaluated {
        let value = self.eval(expr)?;
        let path = match expr {
            Expr::Ident(_) | Expr::Select(..) | Expr::OptSelect(..) | Expr::Conditional(_) => true,
            Expr::Call(call) => matches!(call.function.as_str(), "_[_]" | "_[?_]"),
            _ => false,
        };
        if !path {
            self.pay(1)?;
        }
        Ok(value)
    }

    fn call(&mut self, call: &Call) -> Evaluated {
        match (call.function.as_str(), &call.args[..]) {
            ("_[_]", [operand, index]) => {
                let of = self.operand(operand)?;
                let index = self.eval(index)?;
                self.pay(1)?;
                select(&of, &index)
            }
            ("_[?_]", [operand, index]) => {
                let of = self.operand(operand)?;
                let index = self.eval(index)?;
                self.pay(1)?;
                Ok(Value::Optional(find(&of, &index)?.map(Arc::new)))
            }
            ("@not_strictly_false", [of]) => match self.eval(of) {
                Err(fatal @ EvalError::CostLimit(_)) => Err(fatal),
                Ok(Value::Bool(false)) => self.paid(Value::Bool(false)),
                _ => self.paid(Value::Bool(true)),
            },
            ("or" | "orValue", [optional, other]) => match self.eval(optional)? {
                Value::Optional(None) => self.eval(other),
                Value::Optional(Some(value)) if call.function == "orValue" => Ok(value.as_ref().clone()),
                value @ Value::Optional(_) => Ok(value),
                _ => failed("no such overload"),
            },
            _ => {
                let args = call.args.iter().map(|arg| self.eval(arg)).collect::<Result<Vec<_>, _>>()?;
                let result = functions::call(&call.function, &args, self.regexes)?;
                self.pay(cost::call(call, &args, &result))?;
                Ok(result)
            }
        }
    }

    fn paid(&mut self, value: Value) -> Evaluated {
        self.pay(1)?;
        Ok(value)
    }

    fn list(&mut self, elements: &[(Expr, bool)]) -> Evaluated {
        let mut all = Vec::with_capacity(elements.len());
        for (element, optional) in elements {
            match (self.eval(element)?, optional) {
                (value, false) => all.push(value),
                (Value::Optional(value), true) => all.extend(value.map(|value| value.as_ref().clone())),
                (_, true) => return failed("an optional element is no optional value"),
            }
        }
        if !elements.iter().all(|(element, optional)| !optional && element.is_constant()) {
            self.pay(cost::LIST)?;
        }
        Ok(Value::list(all))
    }

    fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Evaluated {
        let mut map = Map::default();
        let constant =
            entries.iter().all(|(key, value, optional)| !optional && key.is_constant() && value.is_constant());
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let value = match (self.eval(value)?, optional) {
                (value, false) => Some(value),
                (Value::Optional(value), true) => value.map(|value| value.as_ref().clone()),
                (_, true) => return failed("an optional entry is no optional value"),
            };
            let Some(known) = Key::of(&key).filter(|_| !matches!(key, Value::Double(_))) else {
                return failed(format!("unsupported key type: {}", key.type_name()));
            };
            if let Some(value) = value {
                map.entries.insert(known, (key, value));
            }
        }
        if !constant {
            self.pay(cost::MAP)?;
        }
        Ok(Value::Map(Arc::new(map)))
    }

    /// `&&` or `||`: one term that decides does so whatever errors stand before it.
    fn logical(&mut self, terms: &[Expr], decisive: bool) -> Evaluated {
        let mut error = None;
        for term in terms {
            match self.eval(term) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Err(fatal @ EvalError::CostLimit(_)) => return Err(fatal),
                Ok(_) => error = error.or_else(|| Some(EvalError::Failed("no such overload".into()))),
                Err(other) => error = error.or(Some(other)),
            }
        }
        error.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn fold(&mut self, fold: &Fold) -> Evaluated {
        let range = self.eval(&fold.range)?;
        let items = items(&range, fold.var2.is_some())?;
        // An error is carried on as the value of the accumulator: the logical operators may absorb it.
        let init = self.eval(&fold.init);
        let depth = self.vars.len();
        self.vars.push((fold.accu.clone(), init));
        let result = self.turns(fold, items, depth).and_then(|()| self.eval(&fold.result));
        self.vars.truncate(depth);
        result
    }

    fn turns(&mut self, fold: &Fold, items: Vec<(Value, Value)>, depth: usize) -> Result<(), EvalError> {
        for (first, second) in items {
            self.vars.push((fold.var.clone(), Ok(first)));
            self.vars.extend(fold.var2.clone().map(|name| (name, Ok(second))));
            let stop = match self.eval(&fold.condition) {
                Err(fatal @ EvalError::CostLimit(_)) => return Err(fatal),
                condition => condition == Ok(Value::Bool(false)),
            };
            let step = if stop { None } else { Some(self.eval(&fold.step)) };
            self.vars.truncate(depth + 1);
            match (step, self.vars.last_mut()) {
                (Some(Err(fatal @ EvalError::CostLimit(_))), _) => return Err(fatal),
                (Some(value), Some((_, accu))) => *accu = value,
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}

/// What a comprehension goes over: elements or keys, or indices and elements or keys and values.
fn items(range: &Value, two: bool) -> Result<Vec<(Value, Value)>, EvalError> {
    let one = |value: &Value| (value.clone(), Value::Null);
    match range {
        Value::List(all) if two => {
            Ok((0..).zip(all.iter()).map(|(at, value)| (Value::Int(at), value.clone())).collect())
        }
        Value::List(all) => Ok(all.iter().map(one).collect()),
        Value::Map(map) => Ok(map.entries.values().map(|(key, value)| (key.clone(), value.clone())).collect()),
        other => failed(format!("got '{}', expected a list or a map to go over", other.type_name())),
    }
}

/// A field or an element; what is optional stays so.
fn select(of: &Value, key: &Value) -> Evaluated {
    if let Value::Optional(_) = of {
        return Ok(Value::Optional(find(of, key)?.map(Arc::new)));
    }
    match find(of, key)? {
        Some(value) => Ok(value),
        None => match (of, key) {
            (Value::List(_), Value::Int(at)) => failed(format!("index out of bounds: {at}")),
            (_, Value::String(key)) => failed(format!("no such key: {key}")),
            (_, key) => failed(format!("no such key: {key:?}")),
        },
    }
}

/// A field or an element, where there is one.
fn find(of: &Value, key: &Value) -> Result<Option<Value>, EvalError> {
    match of {
        Value::Optional(None) => Ok(None),
        Value::Optional(Some(value)) => find(value, key),
        Value::Map(map) => match key {
            Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::String(_) => Ok(map.find(key)),
            other => failed(format!("unsupported key type: {}", other.type_name())),
        },
        Value::List(all) => match Key::of(key) {
            Some(Key::Number(at)) => Ok(usize::try_from(at).ok().and_then(|at| all.get(at).cloned())),
            _ => failed(format!("unsupported index type '{}' in list", key.type_name())),
        },
        _ => Ok(None),
    }
}

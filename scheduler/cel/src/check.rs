//! The checker: names and types are right before anything is evaluated, as the API server and kube-scheduler check them.

use crate::CompileError;
use crate::ast::{Call, Expr, Fold, is_conversion};
use crate::declare::{FUNCTIONS, Overload, UNSUPPORTED};
use crate::functions;
use crate::regexes;
use crate::types::{Mapping, Type, most_general};
use crate::value::Value;
use regex::Regex;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Checks an expression: it evaluates to a bool, or to what only its evaluation shows. Names with dots become functions, and
/// patterns that are literals are compiled.
pub(crate) fn check(expr: &mut Expr) -> Result<BTreeMap<SmolStr, Regex>, CompileError> {
    let mut checker = Checker { scope: vec![("device".into(), Type::Device)], ..Checker::default() };
    let of = checker.check(expr)?;
    match checker.map.resolve(&of) {
        Type::Bool | Type::Dyn => Ok(checker.regexes),
        other => Err(CompileError::Type(format!("must evaluate to bool or the unknown type, not {other}"))),
    }
}

/// Checks an expression over variables of which only the evaluation knows the types; whether it may evaluate to a bool.
pub(crate) fn check_open(
    expr: &mut Expr,
    variables: &[&str],
) -> Result<(BTreeMap<SmolStr, Regex>, bool), CompileError> {
    let scope = variables.iter().map(|name| (SmolStr::from(*name), Type::Dyn)).collect();
    let mut checker = Checker { scope, ..Checker::default() };
    let of = checker.check(expr)?;
    let is_bool = matches!(checker.map.resolve(&of), Type::Bool | Type::Dyn | Type::Error | Type::Param(_));
    Ok((checker.regexes, is_bool))
}

#[derive(Debug, Default)]
struct Checker {
    map: Mapping,
    scope: Vec<(SmolStr, Type)>,
    regexes: BTreeMap<SmolStr, Regex>,
}

type Checked = Result<Type, CompileError>;

fn wrong<T>(what: impl Into<String>) -> Result<T, CompileError> {
    Err(CompileError::Type(what.into()))
}

impl Checker {
    fn check(&mut self, expr: &mut Expr) -> Checked {
        match expr {
            Expr::Literal(value) => Ok(literal(value)),
            Expr::Ident(name) => self.ident(name),
            Expr::Select(operand, field) => self.select(operand, field, false),
            Expr::OptSelect(operand, field) => self.select(operand, field, true),
            Expr::Has(operand, field) => self.select(operand, field, false).map(|_| Type::Bool),
            Expr::Call(_) => self.call(expr),
            Expr::List(elements) => {
                let mut all = None;
                for (element, optional) in elements {
                    let of = self.check(element)?;
                    all = Some(self.join(all, of, *optional)?);
                }
                Ok(Type::list(all.unwrap_or_else(|| self.map.fresh())))
            }
            Expr::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for (key, value, optional) in entries {
                    let of = self.check(key)?;
                    keys = Some(self.join(keys, of, false)?);
                    let of = self.check(value)?;
                    values = Some(self.join(values, of, *optional)?);
                }
                let key = keys.unwrap_or_else(|| self.map.fresh());
                Ok(Type::map(key, values.unwrap_or_else(|| self.map.fresh())))
            }
            Expr::And(terms) | Expr::Or(terms) => {
                for term in terms {
                    let of = self.check(term)?;
                    if !self.map.assign(&of, &Type::Bool) {
                        return wrong(format!("expected type 'bool' but found '{}'", self.map.resolve(&of)));
                    }
                }
                Ok(Type::Bool)
            }
            Expr::Conditional(parts) => {
                let [condition, yes, no] = parts.as_mut();
                let args = [self.check(condition)?, self.check(yes)?, self.check(no)?];
                let either = self.map.fresh();
                if !self.map.assign_all(&args, &[Type::Bool, either.clone(), either.clone()]) {
                    return self.no_overload("_?_:_", &args);
                }
                Ok(self.map.resolve(&either))
            }
            Expr::Fold(fold) => self.fold(fold),
        }
    }

    fn ident(&mut self, name: &str) -> Checked {
        if let Some((_, of)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            return Ok(of.clone());
        }
        match Type::named(name) {
            Some((of, _)) => Ok(Type::Kind(Box::new(of))),
            None => wrong(format!("undeclared reference to '{name}'")),
        }
    }

    fn select(&mut self, operand: &mut Expr, field: &str, optional: bool) -> Checked {
        let of = self.check(operand)?;
        let of = self.map.resolve(&of);
        let (target, was_optional) = of.unwrapped();
        let result = match target {
            Type::Map(_, value) => value.as_ref().clone(),
            Type::Device => device_field(field)?,
            Type::Param(_) => {
                self.map.assign(&Type::Dyn, target);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => return wrong(format!("type '{other}' does not support field selection")),
        };
        let result = if optional || was_optional { Type::optional(result) } else { result };
        Ok(self.map.resolve(&result))
    }

    fn call(&mut self, expr: &mut Expr) -> Checked {
        let Expr::Call(call) = expr else { return Ok(Type::Error) };
        // A name with dots is a function rather than a method of a variable.
        if call.member
            && let Some(prefix) = call.args.first().and_then(Expr::dotted)
        {
            let qualified = format!("{prefix}.{}", call.function);
            if FUNCTIONS.contains_key(qualified.as_str()) || UNSUPPORTED.contains(&qualified.as_str()) {
                call.args.remove(0);
                call.member = false;
                call.function = qualified.into();
            }
        }
        if call.member && UNSUPPORTED.contains(&call.function.as_str()) && !FUNCTIONS.contains_key(&call.function) {
            return unsupported(&call.function);
        }
        let args = call.args.iter_mut().map(|arg| self.check(arg)).collect::<Result<Vec<Type>, _>>()?;
        let Some(overloads) = FUNCTIONS.get(&call.function) else {
            return if UNSUPPORTED.contains(&call.function.as_str()) {
                unsupported(&call.function)
            } else {
                wrong(format!("undeclared reference to '{}'", call.function))
            };
        };
        let (result, only) = self.resolve(call, overloads, &args)?;
        call.overload = only;
        constant(call)?;
        self.pattern(expr)?;
        Ok(result)
    }

    fn resolve(
        &mut self,
        call: &Call,
        overloads: &[Overload],
        args: &[Type],
    ) -> Result<(Type, Option<usize>), CompileError> {
        let (mut result, mut matching) = (None, Vec::new());
        for (at, overload) in overloads.iter().enumerate().filter(|(_, o)| o.member == call.member) {
            let params: Vec<Type> = (0..overload.params).map(|_| self.map.fresh()).collect();
            let wanted: Vec<Type> = overload.args.iter().map(|of| instantiate(of, &params)).collect();
            if !self.map.assign_all(args, &wanted) {
                continue;
            }
            matching.push(at);
            let of = self.map.resolve(&instantiate(&overload.result, &params));
            result = Some(match result {
                None => of,
                Some(known) if known == of || known == Type::Dyn => known,
                Some(_) => Type::Dyn,
            });
        }
        let Some(result) = result else { return self.no_overload(&call.function, args) };
        Ok((result, if let [only] = matching[..] { Some(only) } else { None }))
    }

    fn no_overload<T>(&self, function: &str, args: &[Type]) -> Result<T, CompileError> {
        let args: Vec<String> = args.iter().map(|of| self.map.resolve(of).to_string()).collect();
        wrong(format!("found no matching overload for '{function}' applied to '({})'", args.join(", ")))
    }

    /// A pattern that is a literal is compiled once.
    fn pattern(&mut self, expr: &Expr) -> Result<(), CompileError> {
        let Expr::Call(call) = expr else { return Ok(()) };
        if !matches!(call.function.as_str(), "matches" | "find" | "findAll") {
            return Ok(());
        }
        if let Some(Expr::Literal(Value::String(pattern))) = call.args.get(1) {
            let regex = regexes::compile(pattern).map_err(CompileError::Type)?;
            self.regexes.insert(pattern.clone(), regex);
        }
        Ok(())
    }

    /// The common type of what a list or map holds.
    fn join(&mut self, known: Option<Type>, of: Type, optional: bool) -> Checked {
        let of = if optional {
            match of.unwrapped() {
                (inner, true) => inner.clone(),
                (other, false) if other.is_dyn() => other.clone(),
                (other, false) => return wrong(format!("expected type 'optional_type({other})' but found '{other}'")),
            }
        } else {
            of
        };
        match known {
            None => Ok(of),
            Some(known) if self.map.assign(&known, &of) => Ok(most_general(&known, &of)),
            Some(known) => {
                wrong(format!("expected type '{}' but found '{}'", self.map.resolve(&known), self.map.resolve(&of)))
            }
        }
    }

    fn fold(&mut self, fold: &mut Fold) -> Checked {
        let range = self.check(&mut fold.range)?;
        let accu = self.check(&mut fold.init)?;
        let range = self.map.resolve(&range);
        let (var, var2) = match &range {
            Type::List(of) if fold.var2.is_some() => (Type::Int, of.as_ref().clone()),
            Type::List(of) => (of.as_ref().clone(), Type::Error),
            Type::Map(key, value) => (key.as_ref().clone(), value.as_ref().clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.map.assign(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                return wrong(format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                ));
            }
        };
        let depth = self.scope.len();
        self.scope.push((fold.accu.clone(), accu.clone()));
        self.scope.push((fold.var.clone(), var));
        self.scope.extend(fold.var2.clone().map(|name| (name, var2)));
        let condition = self.check(&mut fold.condition)?;
        self.expect(&Type::Bool, &condition)?;
        let step = self.check(&mut fold.step)?;
        self.expect(&accu, &step)?;
        self.scope.truncate(depth + 1);
        let result = self.check(&mut fold.result)?;
        self.scope.truncate(depth);
        Ok(self.map.resolve(&result))
    }

    fn expect(&mut self, wanted: &Type, found: &Type) -> Result<(), CompileError> {
        if self.map.assign(wanted, found) {
            return Ok(());
        }
        wrong(format!("expected type '{}' but found '{}'", self.map.resolve(wanted), self.map.resolve(found)))
    }
}

/// What converts a literal is converted once; that it cannot be is known before anything is evaluated.
fn constant(call: &Call) -> Result<(), CompileError> {
    match &call.args[..] {
        [Expr::Literal(value)] if is_conversion(call) => {
            functions::call(&call.function, std::slice::from_ref(value), &BTreeMap::new())
                .map(drop)
                .map_err(|error| CompileError::Type(error.to_string()))
        }
        _ => Ok(()),
    }
}

fn unsupported<T>(function: &str) -> Result<T, CompileError> {
    Err(CompileError::Unsupported(function.to_owned()))
}

/// A signature with variables of its own.
fn instantiate(of: &Type, params: &[Type]) -> Type {
    match of {
        Type::Param(at) => params.get(*at).cloned().unwrap_or(Type::Error),
        Type::List(of) => Type::list(instantiate(of, params)),
        Type::Optional(of) => Type::optional(instantiate(of, params)),
        Type::Kind(of) => Type::Kind(Box::new(instantiate(of, params))),
        Type::Map(key, value) => Type::map(instantiate(key, params), instantiate(value, params)),
        other => other.clone(),
    }
}

fn device_field(field: &str) -> Checked {
    let domains = |of: Type| Type::map(Type::String, Type::map(Type::String, of));
    match field {
        "driver" => Ok(Type::String),
        "allowMultipleAllocations" => Ok(Type::Bool),
        "attributes" => Ok(domains(Type::Dyn)),
        "capacity" => Ok(domains(Type::Quantity)),
        other => wrong(format!("undefined field '{other}'")),
    }
}

fn literal(value: &Value) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        _ => Type::Error,
    }
}

//! Macros, expanded while parsing: `has`, quantifiers, `map`, `filter`, their forms with two variables, `sortBy`,
//! `cel.bind`, `optMap` and `optFlatMap`.

use crate::ast::{Expr, Fold};
use crate::value::Value;
use smol_str::SmolStr;

/// Name that no expression can write.
const ACCU: &str = "@result";
const UNUSED: &str = "#unused";

type Expanded = Result<Expr, String>;

/// A call of a function by name.
pub(crate) fn function(name: &str, mut args: Vec<Expr>) -> Expanded {
    if name != "has" || args.len() != 1 {
        return Ok(Expr::call(name, args));
    }
    match args.pop() {
        Some(Expr::Select(operand, field)) => Ok(Expr::Has(operand, field)),
        _ => Err("has() takes a field, as in has(a.b)".into()),
    }
}

/// A call of a method.
pub(crate) fn method(name: &str, target: Expr, args: Vec<Expr>) -> Expanded {
    match (name, args.len()) {
        ("all" | "exists" | "exists_one", 2) => quantifier(name, target, &args[..1], &args[1]),
        ("all" | "exists" | "exists_one" | "existsOne", 3) => quantifier(name, target, &args[..2], &args[2]),
        ("map", 2) => list(target, &args[..1], None, &args[1]),
        ("map", 3) => list(target, &args[..1], Some(&args[1]), &args[2]),
        ("filter", 2) => list(target, &args[..1], Some(&args[1]), &args[0]),
        ("transformList", 3) => list(target, &args[..2], None, &args[2]),
        ("transformList", 4) => list(target, &args[..2], Some(&args[2]), &args[3]),
        ("transformMap" | "transformMapEntry", 3) => entries(name, target, &args[..2], None, &args[2]),
        ("transformMap" | "transformMapEntry", 4) => entries(name, target, &args[..2], Some(&args[2]), &args[3]),
        ("sortBy", 2) => sort_by(target, &args),
        ("bind", 3) if target == Expr::ident("cel") => {
            let name = variable(&args[0])?;
            let [_, value, result] = <[Expr; 3]>::try_from(args).map_err(|_| "cel.bind() takes three arguments")?;
            Ok(bind(name, value, result))
        }
        ("optMap" | "optFlatMap", 2) => opt_map(name, target, &args),
        _ => Ok(Expr::method(name, target, args)),
    }
}

fn variable(of: &Expr) -> Result<SmolStr, String> {
    match of {
        Expr::Ident(name) if name == "__result__" => Err("__result__ cannot be the name of a variable".into()),
        Expr::Ident(name) => Ok(name.clone()),
        _ => Err("the variable of a macro is a simple name".into()),
    }
}

fn accu() -> Expr {
    Expr::ident(ACCU)
}

struct Loop {
    range: Expr,
    vars: (SmolStr, Option<SmolStr>),
    init: Expr,
    condition: Expr,
    step: Expr,
    result: Expr,
}

fn variables(of: &[Expr]) -> Result<(SmolStr, Option<SmolStr>), String> {
    let first = variable(&of[0])?;
    let second = of.get(1).map(variable).transpose()?;
    if second.as_ref() == Some(&first) {
        return Err(format!("duplicate variable name: {first}"));
    }
    Ok((first, second))
}

fn fold(of: Loop) -> Expr {
    let Loop { range, vars: (var, var2), init, condition, step, result } = of;
    Expr::Fold(Box::new(Fold { range, var, var2, accu: ACCU.into(), init, condition, step, result }))
}

fn conditional(condition: Expr, yes: Expr, no: Expr) -> Expr {
    Expr::Conditional(Box::new([condition, yes, no]))
}

fn quantifier(name: &str, range: Expr, vars: &[Expr], predicate: &Expr) -> Expanded {
    let vars = variables(vars)?;
    let predicate = predicate.clone();
    let (init, condition, step, result) = match name {
        "all" => (
            Expr::bool(true),
            Expr::call("@not_strictly_false", vec![accu()]),
            Expr::And(vec![accu(), predicate]),
            accu(),
        ),
        "exists" => (
            Expr::bool(false),
            Expr::call("@not_strictly_false", vec![Expr::call("!_", vec![accu()])]),
            Expr::Or(vec![accu(), predicate]),
            accu(),
        ),
        _ => {
            let more = Expr::call("_+_", vec![accu(), Expr::int(1)]);
            let one = Expr::call("_==_", vec![accu(), Expr::int(1)]);
            (Expr::int(0), Expr::bool(true), conditional(predicate, more, accu()), one)
        }
    };
    Ok(fold(Loop { range, vars, init, condition, step, result }))
}

/// `map`, `filter` and `transformList`.
fn list(range: Expr, vars: &[Expr], filter: Option<&Expr>, element: &Expr) -> Expanded {
    let vars = variables(vars)?;
    let longer = Expr::call("_+_", vec![accu(), Expr::List(vec![(element.clone(), false)])]);
    let step = filter.map_or_else(|| longer.clone(), |filter| conditional(filter.clone(), longer.clone(), accu()));
    Ok(fold(Loop { range, vars, init: Expr::List(Vec::new()), condition: Expr::bool(true), step, result: accu() }))
}

/// `transformMap` and `transformMapEntry`.
fn entries(name: &str, range: Expr, vars: &[Expr], filter: Option<&Expr>, entry: &Expr) -> Expanded {
    let vars = variables(vars)?;
    let inserted = match name {
        "transformMap" => vec![accu(), Expr::Ident(vars.0.clone()), entry.clone()],
        _ => vec![accu(), entry.clone()],
    };
    let larger = Expr::call("cel.@mapInsert", inserted);
    let step = filter.map_or_else(|| larger.clone(), |filter| conditional(filter.clone(), larger.clone(), accu()));
    Ok(fold(Loop { range, vars, init: Expr::Map(Vec::new()), condition: Expr::bool(true), step, result: accu() }))
}

fn bind(name: SmolStr, value: Expr, result: Expr) -> Expr {
    Expr::Fold(Box::new(Fold {
        range: Expr::List(Vec::new()),
        var: UNUSED.into(),
        var2: None,
        step: Expr::Ident(name.clone()),
        accu: name,
        init: value,
        condition: Expr::Literal(Value::Bool(false)),
        result,
    }))
}

fn sort_by(target: Expr, args: &[Expr]) -> Expanded {
    const INPUT: &str = "@__sortBy_input__";
    let keys = list(Expr::ident(INPUT), &args[..1], None, &args[1])?;
    let sorted = Expr::method("@sortByAssociatedKeys", Expr::ident(INPUT), vec![keys]);
    Ok(bind(INPUT.into(), target, sorted))
}

fn opt_map(name: &str, target: Expr, args: &[Expr]) -> Expanded {
    let var = variable(&args[0])?;
    let mapped = bind(var, Expr::method("value", target.clone(), Vec::new()), args[1].clone());
    let mapped = if name == "optMap" { optional("of", vec![mapped]) } else { mapped };
    Ok(conditional(Expr::method("hasValue", target, Vec::new()), mapped, optional("none", Vec::new())))
}

fn optional(name: &str, args: Vec<Expr>) -> Expr {
    Expr::call(&format!("optional.{name}"), args)
}

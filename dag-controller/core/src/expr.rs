//! Expressions: CEL over what a node may know, in `when` and in texts as `${{ … }}`.
//!
//! ```text
//!   "--lr=${{ params.lr }}"  ──parse──> literal, code ──evaluate over variables──> text, or any JSON where the text is one code
//! ```
//! Variables: `params` (parameters), `item` and `index` (of a node made by `for`), `outputs` and `phases` (of nodes that this
//! one depends on, by id). `$${{` stands for a literal `${{`. Everything is bounded: the parts of an expression, how deep its
//! comprehensions nest, its input, and the cost of its evaluation.

use flowforge_scheduler_cel::{EvalError, Expression};
use serde_json::Value;
use smol_str::SmolStr;
use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::frontend::json_len;

/// Most parts of one expression, macros expanded.
pub const MAX_PARTS: usize = 1_000;
/// How deep comprehensions may nest.
pub const MAX_FOLD_DEPTH: usize = 2;
/// Longest expression, and most JSON bytes that one may look at.
pub const MAX_INPUT_BYTES: usize = 64 * 1024;
/// Cost of one evaluation, in CEL's units.
pub const COST_LIMIT: u64 = 1_000_000;
/// Every variable.
pub const VARIABLES: [&str; 5] = ["params", "item", "index", "outputs", "phases"];
/// Those that are known only when upstream nodes have ended.
pub const LATE: [&str; 2] = ["outputs", "phases"];

const OPEN: &str = "${{";
const ESCAPED: &str = "$${{";

/// Compiles a bounded expression over some of [`VARIABLES`].
///
/// # Errors
/// One sentence that says what is wrong.
pub fn compile(code: &str, variables: &[&str]) -> Result<Expression, String> {
    if code.len() > MAX_INPUT_BYTES {
        return Err(format!("the expression has {} bytes, at most {MAX_INPUT_BYTES} are possible", code.len()));
    }
    let expression = Expression::compile(code, variables).map_err(|error| error.to_string())?;
    let (parts, depth) = (expression.size(), expression.fold_depth());
    if parts > MAX_PARTS {
        return Err(format!("the expression has {parts} parts, at most {MAX_PARTS} are possible"));
    }
    if depth > MAX_FOLD_DEPTH {
        return Err(format!("comprehensions nest {depth} deep, at most {MAX_FOLD_DEPTH} are possible"));
    }
    Ok(expression)
}

/// What an expression, or a whole node, reads of upstream nodes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reads {
    /// Ids of the nodes.
    pub nodes: BTreeSet<SmolStr>,
    /// Outputs that are named: node and output.
    pub outputs: BTreeSet<(SmolStr, SmolStr)>,
}

impl Reads {
    /// What an expression reads.
    ///
    /// # Errors
    /// When it uses `outputs` or `phases` other than by the id of a node.
    pub fn of(expression: &Expression) -> Result<Self, String> {
        let mut reads = Self::default();
        for variable in LATE {
            let uses = expression.uses(variable);
            if uses.whole {
                return Err(format!(
                    "{variable} is used without the id of a node: write {variable}.ID or {variable}[\"ID\"]"
                ));
            }
            reads.nodes.extend(uses.fields);
            if variable == "outputs" {
                reads.outputs.extend(uses.inner);
            }
        }
        Ok(reads)
    }

    /// Both.
    pub fn extend(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
        self.outputs.extend(other.outputs);
    }
}

/// The values of variables while something is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a>(pub &'a [(&'a str, &'a Value)]);

impl Variables<'_> {
    /// Evaluates a compiled expression over them.
    ///
    /// # Errors
    /// One sentence that says why there is no value.
    pub fn evaluate(self, expression: &Expression) -> Result<Value, String> {
        // Only what is looked at counts, and is looked at.
        let used: Vec<(&str, Cow<'_, Value>)> = self
            .0
            .iter()
            .filter_map(|&(name, value)| {
                let uses = expression.uses(name);
                match value {
                    _ if uses.whole => Some((name, Cow::Borrowed(value))),
                    _ if uses.fields.is_empty() => None,
                    Value::Object(all) => {
                        let part = all.iter().filter(|(key, _)| uses.fields.contains(key.as_str()));
                        Some((name, Cow::Owned(part.map(|(key, value)| (key.clone(), value.clone())).collect())))
                    }
                    _ => Some((name, Cow::Borrowed(value))),
                }
            })
            .collect();
        let bytes: usize = used.iter().map(|(_, value)| json_len(value)).sum();
        if bytes > MAX_INPUT_BYTES {
            return Err(format!("its variables have {bytes} bytes as JSON, at most {MAX_INPUT_BYTES} are possible"));
        }
        let used: Vec<(&str, &Value)> = used.iter().map(|(name, value)| (*name, &**value)).collect();
        expression.evaluate(&used, COST_LIMIT).map_err(|error| match error {
            EvalError::Failed(what) => what,
            EvalError::CostLimit(limit) => format!("it would cost more than {limit}: look at less at once"),
        })
    }
}

/// A piece of a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece<'a> {
    /// As it stands.
    Literal(String),
    /// The inside of `${{ … }}`.
    Code(&'a str),
}

/// Whether a text holds anything to be filled, or unescaped.
#[must_use]
pub fn is_filled(text: &str) -> bool {
    text.contains(OPEN)
}

/// The pieces of a text.
///
/// # Errors
/// When a `${{` has no end.
pub fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        if at > 0 && rest[..at].ends_with('$') {
            literal.push_str(&rest[..at - 1]);
            literal.push_str(OPEN);
            rest = &rest[at + OPEN.len()..];
            continue;
        }
        literal.push_str(&rest[..at]);
        let inside = &rest[at + OPEN.len()..];
        let end = end_of(inside).ok_or_else(|| format!("${{{{ has no }}}}: {}", short(&rest[at..])))?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Code(inside[..end].trim()));
        rest = &inside[end + 2..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// Where the `}}` of a code stands: outside of its texts and braces.
fn end_of(inside: &str) -> Option<usize> {
    let bytes = inside.as_bytes();
    let (mut at, mut depth, mut quote) = (0, 0u32, None);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, open @ (b'"' | b'\'')) => quote = Some(open),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, _) => {}
        }
        at += 1;
    }
    None
}

/// A literal as it must stand in a text that is filled.
#[must_use]
pub fn escape(literal: &str) -> String {
    literal.replace(OPEN, ESCAPED)
}

/// A code as it stands in a text.
#[must_use]
pub fn quote(code: &str) -> String {
    format!("{OPEN} {code} }}}}")
}

/// A value inside a text: texts as they are, everything else as JSON.
#[must_use]
pub fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The beginning of a text, for a message.
#[must_use]
pub fn short(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_falls_into_literals_and_codes() {
        let lit = |text: &str| Piece::Literal(text.into());
        assert_eq!(pieces("a ${{ b }} c").unwrap(), [lit("a "), Piece::Code("b"), lit(" c")]);
        assert_eq!(pieces("${{ {'a': {'}}': 1}} }}").unwrap(), [Piece::Code("{'a': {'}}': 1}}")]);
        assert_eq!(pieces(r#"${{ "\"}}" }}x"#).unwrap(), [Piece::Code(r#""\"}}""#), lit("x")]);
        assert_eq!(pieces("$${{ a }} {{ b }}").unwrap(), [lit("${{ a }} {{ b }}")]);
        assert!(pieces("x ${{ a }").unwrap_err().contains("has no }}"));
        assert_eq!(pieces(&escape("${{ a")).unwrap(), [lit("${{ a")]);
    }

    #[test]
    fn bombs_are_refused() {
        let wrong = |code: &str| compile(code, &VARIABLES).unwrap_err();
        let long = format!("1{}", "+1".repeat(150));
        assert!(compile(&long, &VARIABLES).is_ok());
        assert!(wrong(&vec!["params.a == 1"; 400].join(" || ")).contains("parts"));
        assert!(wrong(&"(".repeat(60_000)).contains("deeper"));
        assert!(wrong(&"x".repeat(70_000)).contains("bytes"));
        assert!(wrong("params.a.all(x, x.all(y, y.all(z, z)))").contains("nest 3 deep"));
        let large = json!("x".repeat(70_000));
        let variables = [("params", &large)];
        let expression = compile("size(params)", &VARIABLES).unwrap();
        assert!(Variables(&variables).evaluate(&expression).unwrap_err().contains("bytes"));
        let list = json!((0..3000).collect::<Vec<u32>>());
        let variables = [("params", &list)];
        let expression = compile("params.all(x, params.all(y, x + y >= 0))", &VARIABLES).unwrap();
        assert!(Variables(&variables).evaluate(&expression).unwrap_err().contains("cost"));
    }

    #[test]
    fn nodes_are_named_by_their_ids() {
        let reads = |code: &str| Reads::of(&compile(code, &VARIABLES).unwrap());
        let found = reads("outputs.a.x > 1 && phases[\"b-c\"] == 'Failed'").unwrap();
        assert_eq!(found.nodes.into_iter().collect::<Vec<_>>(), ["a", "b-c"]);
        assert_eq!(found.outputs.into_iter().collect::<Vec<_>>(), [("a".into(), "x".into())]);
        assert!(reads("size(outputs) > 1").unwrap_err().contains("outputs.ID"));
    }
}

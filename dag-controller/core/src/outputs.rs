//! Outputs: what members say with their termination message when they end well, and what becomes of it.
//!
//! ```text
//!   termination message ──pick: declared names only──> recorded with the member's end ──collect──> outputs of the node
//! ```
//! The message of rank 0 speaks for the node; an output that is collected is a list of what each member of a role says, in
//! the order of the ranks. A message is one JSON object of at most 4 KiB, as Kubernetes keeps it.

use serde_json::{Map, Number, Value};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::ops::Range;

use crate::frontend::json_len;
use crate::reason::{Cause, Reason};

/// Most JSON bytes of a node's outputs.
pub const MAX_BYTES: usize = 256 * 1024;

/// Type of an output or parameter.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kind {
    /// A text.
    #[default]
    String,
    /// A whole number.
    Int,
    /// Any number.
    Float,
    /// True or false.
    Bool,
    /// A list.
    List,
    /// An object.
    Map,
}

impl Kind {
    /// Every type as it is written.
    pub const WORDS: &'static [&'static str] = &["string", "int", "float", "bool", "list", "map"];

    /// The type with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "string" => Self::String,
            "int" => Self::Int,
            "float" => Self::Float,
            "bool" => Self::Bool,
            "list" => Self::List,
            "map" => Self::Map,
            _ => return None,
        })
    }

    /// The word of this type.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::List => "list",
            Self::Map => "map",
        }
    }

    /// The value in this type; a whole number may stand for a float. `None` when it is of another.
    #[must_use]
    pub fn accept(self, value: &Value) -> Option<Value> {
        match (self, value) {
            (Self::String, Value::String(_))
            | (Self::Bool, Value::Bool(_))
            | (Self::List, Value::Array(_))
            | (Self::Map, Value::Object(_)) => Some(value.clone()),
            (Self::Int, Value::Number(n)) if n.is_i64() || n.is_u64() => Some(value.clone()),
            (Self::Float, Value::Number(n)) => n.as_f64().and_then(Number::from_f64).map(Value::Number),
            _ => None,
        }
    }
}

/// A declared output.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Output {
    /// Its name, a key of the message.
    pub name: SmolStr,
    /// Its type; of a collected one that of each entry.
    pub kind: Kind,
    /// Value where the message has none.
    pub default: Option<Value>,
    /// It may be missing: then it is null.
    pub optional: bool,
    /// Ranks whose messages are collected as a list; rank 0 alone speaks when there are none.
    pub collect: Option<Range<u32>>,
}

/// The declared outputs of a node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outputs(pub Vec<Output>);

impl Outputs {
    fn of(&self, rank: u32) -> impl Iterator<Item = &Output> {
        self.0.iter().filter(move |output| match &output.collect {
            Some(ranks) => ranks.contains(&rank),
            None => rank == 0,
        })
    }

    /// Whether this rank has something to say.
    #[must_use]
    pub fn asks(&self, rank: u32) -> bool {
        self.of(rank).next().is_some()
    }

    /// What a member's message says of the declared outputs, as a short JSON object; empty when it says nothing.
    #[must_use]
    pub fn pick(&self, rank: u32, message: &str) -> SmolStr {
        let Ok(Value::Object(mut said)) = serde_json::from_str::<Value>(message) else { return SmolStr::default() };
        let picked: Map<String, Value> = self
            .of(rank)
            .filter_map(|output| Some((output.name.to_string(), said.remove(output.name.as_str())?)))
            .filter(|(_, value)| !value.is_null())
            .collect();
        if picked.is_empty() { SmolStr::default() } else { Value::Object(picked).to_string().into() }
    }

    /// The outputs of a node whose members have said what they had to say: `said` has an entry of each that ended well. What is
    /// collected is a list of what those said, in the order of their ranks.
    ///
    /// # Errors
    /// Why the node fails: the first output that is missing or of another type, in the order of the declaration.
    pub fn collect(&self, said: &BTreeMap<u32, SmolStr>) -> Result<Map<String, Value>, Cause> {
        let ended_well = |rank: &u32| said.contains_key(rank);
        let said: BTreeMap<u32, Value> =
            said.iter().filter_map(|(rank, text)| Some((*rank, serde_json::from_str(text).ok()?))).collect();
        let mut outputs = Map::new();
        for output in &self.0 {
            let value = match &output.collect {
                None => output.value(0, &said)?,
                Some(ranks) => {
                    let ranks = ranks.clone().filter(ended_well);
                    Value::Array(ranks.map(|rank| output.value(rank, &said)).collect::<Result<_, _>>()?)
                }
            };
            outputs.insert(output.name.to_string(), value);
        }
        let bytes = json_len(&outputs);
        if bytes > MAX_BYTES {
            let detail = format!("the outputs have {bytes} bytes as JSON, at most {MAX_BYTES} are possible");
            return Err(Cause::of(Reason::OutputInvalid).with_detail(detail));
        }
        Ok(outputs)
    }
}

impl Output {
    fn value(&self, rank: u32, said: &BTreeMap<u32, Value>) -> Result<Value, Cause> {
        let cause = |reason, detail: String| Cause { rank: Some(rank), ..Cause::of(reason).with_detail(detail) };
        match said.get(&rank).and_then(|of| of.get(self.name.as_str())) {
            Some(value) => self.kind.accept(value).ok_or_else(|| {
                let detail = format!("output {} is not of type {}", self.name, self.kind.word());
                cause(Reason::OutputInvalid, detail)
            }),
            None => match &self.default {
                Some(default) => Ok(default.clone()),
                None if self.optional => Ok(Value::Null),
                None => {
                    let detail = format!("output {} is not in its termination message", self.name);
                    Err(cause(Reason::OutputMissing, detail))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn output(name: &str, kind: Kind) -> Output {
        Output { name: name.into(), kind, default: None, optional: false, collect: None }
    }

    fn said(outputs: &Outputs, messages: &[(u32, &str)]) -> Result<Value, String> {
        let said = messages.iter().map(|(rank, text)| (*rank, outputs.pick(*rank, text))).collect();
        outputs.collect(&said).map(Value::Object).map_err(|cause| format!("{}: {}", cause.reason, cause.message()))
    }

    #[test]
    fn rank_0_speaks_for_the_node_and_others_are_collected() {
        let losses = Output { collect: Some(0..3), ..output("loss", Kind::Float) };
        let outputs = Outputs(vec![output("path", Kind::String), losses]);
        let messages = [
            (0, r#"{"path": "/x", "loss": 1, "other": [1]}"#),
            (1, r#"{"path": "/y", "loss": 0.5}"#),
            (2, r#"{"loss": 0.25}"#),
        ];
        assert_eq!(said(&outputs, &messages), Ok(json!({"path": "/x", "loss": [1.0, 0.5, 0.25]})));
        assert_eq!(outputs.pick(1, messages[1].1), r#"{"loss":0.5}"#, "only what is declared is kept");
        assert!(outputs.asks(2) && !outputs.asks(3));
    }

    #[test]
    fn what_is_missing_has_a_default_or_is_null_or_fails() {
        let optional = Output { optional: true, ..output("a", Kind::Int) };
        let default = Output { default: Some(json!("x")), ..output("b", Kind::String) };
        let outputs = Outputs(vec![optional, default]);
        assert_eq!(said(&outputs, &[(0, "")]), Ok(json!({"a": null, "b": "x"})));
        let needed = Outputs(vec![output("loss", Kind::Float)]);
        for message in ["", "no json", "[1]", "{}", r#"{"loss": null}"#] {
            let expected = "OutputMissing: member 0: output loss is not in its termination message";
            assert_eq!(said(&needed, &[(0, message)]), Err(expected.to_owned()), "{message}");
        }
    }

    #[test]
    fn a_value_of_another_type_fails() {
        let outputs = Outputs(vec![output("n", Kind::Int)]);
        for message in [r#"{"n": "1"}"#, r#"{"n": 1.5}"#, r#"{"n": [1]}"#] {
            let expected = "OutputInvalid: member 0: output n is not of type int";
            assert_eq!(said(&outputs, &[(0, message)]), Err(expected.to_owned()));
        }
    }

    #[test]
    fn what_is_too_large_fails() {
        let all = Output { collect: Some(0..100), ..output("text", Kind::String) };
        let message = json!({"text": "x".repeat(4000)}).to_string();
        let messages: Vec<(u32, &str)> = (0..100).map(|rank| (rank, message.as_str())).collect();
        assert!(said(&Outputs(vec![all]), &messages).unwrap_err().starts_with("OutputInvalid: the outputs have"));
    }
}

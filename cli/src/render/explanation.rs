//! Why something waits: what is known, who refuses it, and what would cure it.
//!
//! What was written by the scheduler or the controller into the objects comes first; nothing of it is guessed from the
//! cluster's state, and where nobody has written anything yet, that itself is the answer. Of a gang, what its next try would
//! come to is told beside it ([`super::rehearsal`]).

mod gang;
mod pod;
mod workflow;

use flowforge_scheduler_core::rehearsal::Rehearsal;
use serde::Serialize;
use std::fmt::Write as _;

use super::style::{Style, Tone, printable};
use super::table;
use super::verdict::{self, NodeReason};

pub(crate) use gang::of_gang;
pub(crate) use pod::of_pod;
pub(crate) use workflow::of_workflow;

/// The answer of `explain`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) phase: String,
    /// What is known, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) facts: Vec<String>,
    /// Who refuses, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) refusals: Vec<Refusal>,
    /// What would become of a gang if it were tried now, or what its places cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) now: Option<Rehearsal>,
    /// The same for what it is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) parts: Vec<Explanation>,
}

/// One refusal, as its writer put it, and taken apart.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Pods that carry it, where it was found on pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pods: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) nodes: Vec<NodeReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cure: Option<String>,
}

impl Refusal {
    pub(crate) fn new(reason: &str, message: &str) -> Self {
        let nodes = verdict::nodes(message);
        // Each row of the table has its own.
        let cure = if nodes.is_empty() { verdict::cure_of(reason, message).map(Into::into) } else { None };
        Self { reason: printable(reason), message: printable(message), pods: None, nodes, cure }
    }

    /// Nobody has said anything; `who` should have.
    pub(crate) fn silence(who: &str, cure: &str) -> Self {
        let message = format!("{who} has not looked at it yet");
        Self { reason: "NotSeen".into(), message, cure: Some(cure.into()), ..Self::default() }
    }
}

impl Explanation {
    /// The text for people.
    pub(crate) fn text(&self, style: Style) -> String {
        let mut text = String::new();
        self.write(&mut text, "", style);
        text
    }

    fn write(&self, text: &mut String, indent: &str, style: Style) {
        let name =
            if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) };
        let _ = writeln!(text, "{indent}{} {}: {}", self.kind, style.paint(Tone::Strong, &name), self.phase);
        for fact in &self.facts {
            let _ = writeln!(text, "{indent}  {fact}");
        }
        for refusal in &self.refusals {
            refusal.write(text, indent, style);
        }
        for part in &self.parts {
            let _ = writeln!(text);
            part.write(text, &format!("{indent}  "), style);
        }
    }
}

impl Refusal {
    /// The message without the list of reasons, where the table below it says the same.
    fn headline(&self) -> &str {
        let list = if self.nodes.is_empty() { None } else { verdict::list_part(&self.message) };
        let end = list.and_then(|list| self.message.find(list)).unwrap_or(self.message.len());
        self.message[..end].trim_end_matches([' ', ':'])
    }

    fn write(&self, text: &mut String, indent: &str, style: Style) {
        let pods = match self.pods {
            Some(1) => " (on 1 pod)".to_owned(),
            Some(n) => format!(" (on {n} pods)"),
            None => String::new(),
        };
        let _ = writeln!(text, "{indent}  {}{pods}: {}", style.paint(Tone::Waiting, &self.reason), self.headline());
        if !self.nodes.is_empty() {
            let rows = self.nodes.iter().map(|n| [n.nodes.to_string(), n.reason.clone(), n.cure.clone()]);
            for line in table::render(["NODES", "REASON", "WHAT WOULD CURE IT"], rows).lines() {
                let _ = writeln!(text, "{indent}    {line}");
            }
        }
        if let Some(cure) = &self.cure {
            let _ = writeln!(text, "{indent}    cure: {cure}");
        }
    }
}

#[cfg(test)]
mod tests;

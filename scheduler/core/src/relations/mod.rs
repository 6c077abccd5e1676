//! Relations between pods: spread, affinity and anti-affinity, as counts per node that every placement keeps up to date.
//!
//! ```text
//!   pods on nodes ──peer──> matches ──> selections: how many selected pods stand on each node
//!                     └───> holds ────> held terms: how many pods with this term stand on each node
//!   a pod that asks ──relate──> Relation (its rules, by id) ──View──> per place: how many; then per node: may it, how good
//! ```
//! Placing and removing a pod costs `O(selections it matches + terms it has)`, inside transactions too, so that members of
//! a gang see each other. A new selection counts all pods once, `O(pods)`. Asking costs `O(nodes · rules)` for the first pods
//! of a template, then `O(changed nodes · rules)` for rules that refuse, and `O(nodes · rules)` for those that score.
//!
//! Invariant: a count is the sum over the pods on the node (`counts_are_sums`); what is rolled back leaves no trace.

mod columns;
mod counts;
mod owners;
mod relate;
mod tally;
mod terms;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use columns::Columns;
pub(crate) use counts::{Counts, PeerId};
pub use owners::{SelectorInfo, SelectorKind};
pub(crate) use relate::{Relation, placed};
pub(crate) use tally::Tallies;
pub(crate) use terms::{Namespaces, Peer};
pub use terms::{PodAffinity, PodAffinityTerm, Scope, SpreadConstraint};
pub(crate) use view::{Inclusion, Ranking, View};

use crate::labels::Labels;
use owners::Owners;
use smol_str::SmolStr;
use std::collections::BTreeSet;

/// Selections and columns that nobody asked for in so many questions are dropped.
const KEPT_FOR: u64 = 4_096;

/// Everything that is known about who is related to whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Relations {
    pub(crate) columns: Columns,
    pub(crate) counts: Counts,
    pub(crate) namespaces: Namespaces,
    owners: Owners,
    /// Counts the questions, as a clock for what is in use.
    asked: u64,
}

impl Relations {
    /// A Service or controller was added or changed.
    pub(crate) fn set_selector(&mut self, info: SelectorInfo) {
        self.owners.set(info);
    }

    /// A Service or controller went away.
    pub(crate) fn remove_selector(&mut self, kind: SelectorKind, namespace: &SmolStr, name: &SmolStr) {
        self.owners.remove(kind, namespace, name);
    }

    /// A list of this kind came.
    pub(crate) fn retain_selectors(&mut self, kind: SelectorKind, listed: &BTreeSet<(SmolStr, SmolStr)>) {
        self.owners.retain(kind, listed);
    }

    /// A namespace has these labels; None: it is gone. Returns whether anything changed; then selections by namespace have to
    /// be counted again.
    pub(crate) fn set_namespace(&mut self, name: &SmolStr, labels: Option<Labels>) -> bool {
        match labels {
            Some(labels) if self.namespaces.get(name) == Some(&labels) => false,
            Some(labels) => {
                self.namespaces.insert(name.clone(), labels);
                true
            }
            None => self.namespaces.remove(name).is_some(),
        }
    }

    /// Changes when sums over places made before are void: ids of columns ended, or namespaces were counted anew.
    pub(crate) fn epoch(&self) -> (u64, u64) {
        (self.columns.epoch(), self.counts.recounts())
    }

    /// Drops what nobody asked for lately.
    pub(crate) fn trim(&mut self) {
        let since = self.asked.saturating_sub(KEPT_FOR);
        self.columns.trim(since);
        self.counts.trim(since);
    }
}

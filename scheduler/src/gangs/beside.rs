//! What stands beside the objects that declare gangs and says how they are meant: queues, owners, tiers.

use super::members::Key;
use crate::watch::Ours;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// What of such an object counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// A queue is in this state.
    Queue(SmolStr),
    /// An owner asks for this scheduler.
    Scheduler(SmolStr),
    /// A group of nodes is of this tier, which has this name.
    Tier(u32, Option<SmolStr>),
}

/// News of such an object: its kind, namespace and name.
#[derive(Debug)]
pub(crate) enum BesideFact {
    /// It says this.
    Is(&'static str, Key, Fact),
    /// It is gone.
    Gone(&'static str, Key),
    /// These are all of the kind.
    Listed(&'static str, BTreeSet<Key>),
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Surroundings {
    ours: Ours,
    known: BTreeMap<(&'static str, Key), Fact>,
}

impl Surroundings {
    /// Nothing is known yet.
    pub(crate) fn new(ours: Ours) -> Self {
        Self { ours, known: BTreeMap::new() }
    }

    /// Takes news in; whether anything is different now.
    pub(crate) fn take(&mut self, fact: BesideFact) -> bool {
        match fact {
            BesideFact::Is(kind, key, fact) => {
                self.known.insert((kind, key), fact.clone()).is_none_or(|before| before != fact)
            }
            BesideFact::Gone(kind, key) => self.known.remove(&(kind, key)).is_some(),
            BesideFact::Listed(listed, names) => {
                let before = self.known.len();
                self.known.retain(|(kind, key), _| *kind != listed || names.contains(key));
                self.known.len() != before
            }
        }
    }

    /// Whether this scheduler serves the name.
    pub(crate) fn is_ours(&self, scheduler: &str) -> bool {
        self.ours.0.contains(scheduler)
    }

    /// What an object says.
    pub(crate) fn find(&self, kind: &'static str, namespace: &str, name: &str) -> Option<&Fact> {
        self.known.get(&(kind, (namespace.into(), name.into())))
    }

    /// All objects of a kind by name.
    pub(crate) fn all(&self, kind: &'static str) -> impl Iterator<Item = (&Key, &Fact)> {
        self.known.iter().filter(move |((have, _), _)| *have == kind).map(|((_, key), fact)| (key, fact))
    }
}

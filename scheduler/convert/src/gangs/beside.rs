//! What stands beside the objects that declare gangs and says how they are meant: queues, owners, tiers.

use super::members::Key;
use crate::Ours;
use crate::types::Meta;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// What of such an object counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A queue is in this state.
    Queue(SmolStr),
    /// An owner asks for this scheduler.
    Scheduler(SmolStr),
    /// A group of nodes is of this tier, which has this name.
    Tier(u32, Option<SmolStr>),
}

/// A kind that stands beside such objects.
pub trait BesideKind: DeserializeOwned + Clone + Send + Sync + 'static {
    /// `plural.group`, the label of its metrics.
    const PLURAL: &'static str;
    /// Path of the collection over all namespaces.
    const PATH: &'static str;
    /// Its metadata.
    fn meta(&self) -> &Meta;
    /// What of it counts.
    fn said(&self) -> Fact;
}

/// News of such an object: its kind, namespace and name.
#[derive(Debug)]
pub enum BesideFact {
    /// It says this.
    Is(&'static str, Key, Fact),
    /// It is gone.
    Gone(&'static str, Key),
    /// These are all of the kind.
    Listed(&'static str, BTreeSet<Key>),
}

/// All of them.
#[derive(Debug)]
pub struct Surroundings {
    ours: Ours,
    known: BTreeMap<(&'static str, Key), Fact>,
}

impl Surroundings {
    /// Nothing is known yet.
    pub fn new(ours: Ours) -> Self {
        Self { ours, known: BTreeMap::new() }
    }

    /// Takes news in; whether anything is different now.
    pub fn take(&mut self, fact: BesideFact) -> bool {
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
    pub fn is_ours(&self, scheduler: &str) -> bool {
        self.ours.serves(scheduler)
    }

    /// What an object says.
    pub fn find(&self, kind: &'static str, namespace: &str, name: &str) -> Option<&Fact> {
        self.known.get(&(kind, (namespace.into(), name.into())))
    }

    /// All objects of a kind by name.
    pub fn all(&self, kind: &'static str) -> impl Iterator<Item = (&Key, &Fact)> {
        self.known.iter().filter(move |((have, _), _)| *have == kind).map(|((_, key), fact)| (key, fact))
    }
}

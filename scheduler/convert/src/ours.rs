//! Which scheduler names are ours.

use smol_str::SmolStr;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Scheduler names that one scheduler serves; clones share them.
#[derive(Clone, Debug)]
pub struct Ours(Arc<BTreeSet<SmolStr>>);

impl Ours {
    /// These names.
    pub fn new(names: impl IntoIterator<Item = SmolStr>) -> Self {
        Self(Arc::new(names.into_iter().collect()))
    }

    /// Whether a name is one of them.
    #[must_use]
    pub fn serves(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// The first in order of the alphabet.
    #[must_use]
    pub fn first(&self) -> Option<&SmolStr> {
        self.0.first()
    }
}

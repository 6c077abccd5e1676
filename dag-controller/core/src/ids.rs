//! Dense ids: the engine counts nodes, it does not spell their names.

use std::fmt;

/// A node of one [`crate::dag::Dag`]: its place in `spec.nodes`, from 0.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeIx(pub u32);

impl NodeIx {
    /// The id as a place in an array.
    #[must_use]
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeIx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node[{}]", self.0)
    }
}

/// One attempt of a node: exactly one `Gang` object, whose creation is the claim on it. Attempts count from 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AttemptKey {
    /// The node.
    pub node: NodeIx,
    /// Its attempt, from 1.
    pub attempt: u32,
}

/// One pod that this controller made or will make; its object's name follows from it ([`crate::names`]).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MemberKey {
    /// The node.
    pub node: NodeIx,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Rank inside the gang, from 0.
    pub rank: u32,
    /// How often this rank was made again in this attempt, from 0.
    pub incarnation: u32,
}

impl MemberKey {
    /// The attempt this pod belongs to.
    #[must_use]
    pub const fn attempt_key(self) -> AttemptKey {
        AttemptKey { node: self.node, attempt: self.attempt }
    }
}

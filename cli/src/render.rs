//! Objects in, text out: pure, with the time as an argument.

pub(crate) mod duration;
pub(crate) mod explanation;
pub(crate) mod picture;
pub(crate) mod rehearsal;
pub(crate) mod strip;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod topology;
pub(crate) mod transitions;
pub(crate) mod tree;
pub(crate) mod verdict;

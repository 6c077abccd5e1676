//! Pure model of cluster topology: levels, domains, node hardware.
//!
//! ```text
//!   cluster ── zone ── block ── rack ── nvlink ── host          (levels: an ordered list, label keys are configuration)
//!      └─ every node hangs below the narrowest level it has a label for; a level without a label is skipped
//!   host ── NUMA node ── PCIe ── device, NVLink as a graph         (`host`; `cost` tells what a set of devices is worth, `board` what is left)
//! ```
//! `readers` and `fabric` read what others publish: CRDs, labels, slices, and descriptions of networks.
//! Invariants: a domain is identified by its whole path (two racks named `r1` in two zones are two domains); every node
//! is in at most one domain of a level; everything iterates in a fixed order; no IO, no clock.

pub mod board;
pub mod cost;
pub mod fabric;
mod hardware;
pub mod host;
mod levels;
pub mod readers;
mod survey;
mod tree;

pub use hardware::{DeviceTake, NodeHardware};
pub use levels::{HOSTNAME, LevelIndex, LevelSpec, Levels, LevelsError, standard};
pub use survey::{Finding, FindingKind, LevelCount, Survey, Surveyed, survey};
pub use tree::{DomainId, Tree};

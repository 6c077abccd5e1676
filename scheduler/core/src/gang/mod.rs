//! Gangs: which pods belong together, when they can be planned, and where.
//!
//! ```text
//!   Gang objects, labels ──table──> GangRecord ──assess──> Waiting(reason) | Ready ──plan (one transaction)──> places | refusal
//! ```
//! Every way to declare a gang ends in one [`GangRecord`]; there are no shadow objects.

mod assess;
mod blocks;
mod candidates;
mod even;
#[cfg(test)]
mod exhaustive_tests;
mod layout;
#[cfg(test)]
mod layout_tests;
mod nowhere;
#[cfg(test)]
mod others_tests;
mod plan;
#[cfg(test)]
mod plan_tests;
mod promised;
mod ring;
mod rules;
mod search;
mod table;

pub use assess::{Assessment, Minimum, Origin, Readiness, assess};
pub(crate) use layout::level;
pub use layout::{Layout, Slot};
pub use plan::{Ask, Nowhere, Planned, is_torn, may_fit, plan};
pub(crate) use plan::{allowed, groups, place_in, ranked};
pub use promised::{plan_on, plan_promised};
pub(crate) use search::{Found, are_related};
pub use table::{GangId, GangRecord, Gangs};

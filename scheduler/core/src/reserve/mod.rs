//! Reservations in time: the first gang of a priority that finds no room is promised one, and what runs meanwhile makes way.
//!
//! ```text
//!   refused gangs ──first of each profile and priority──> heads ──shadow: whose ends make room, and where?──> Reservation
//!                                                                                                                │ until
//!   a pod or gang that looks for a place, of no higher priority:                                                 v
//!      ends by then, as it declares ──────────────────────────────> anywhere (backfill)
//!      else ──> what is free now, and is left over then as well:    free + what ends by then - what the gang needs there
//! ```
//! This is EASY backfill (Lifka 1995; Mu'alem and Feitelson 2001) with one reservation per profile and priority. What is
//! reserved is room (requests and places for pods), not devices: a node that has the room has them, too, but for the rare case
//! that others fragment them, and then the promise moves.
//!
//! Invariants: a promise keeps nobody of a higher priority off; it rests only on ends that were declared; while everyone
//! keeps to what was declared, the gang starts no later than it was promised first. What is reserved is derived from the snapshot: nothing of it
//! is written anywhere, and a new leader derives it anew.

mod ends;
mod run_time;
mod shadow;
mod table;
#[cfg(test)]
mod tests;

pub use run_time::RunTime;
pub(crate) use shadow::{Known, Shadow, shadow};
pub(crate) use table::{Amounts, Reservations};

use crate::explain::{Reason, rfc3339};
use crate::gang::GangId;
use crate::model::{Millis, PodInfo};
use crate::snapshot::{NodeId, PodId};
use smol_str::SmolStr;

/// A place in time that is kept for a gang.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The gang.
    pub gang: GangId,
    /// Its namespace.
    pub namespace: SmolStr,
    /// Its name.
    pub name: SmolStr,
    /// Position of its profile among those of the process.
    pub profile: usize,
    /// Who is more important is not kept off.
    pub priority: i32,
    /// Since when the gang waits.
    pub since_ms: Millis,
    /// When it is expected to have its room; who ends by then is not kept off.
    pub until_ms: Millis,
    /// When it was promised first.
    pub first_until_ms: Millis,
    /// It has waited too long: the nodes stay the same until it starts, whether or not anybody knows when that can be.
    pub kept: bool,
    /// Where each member is to stand.
    pub places: Vec<(PodId, NodeId)>,
}

impl Reservation {
    /// `namespace/name` of the gang.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether it is that of the pod's own gang.
    fn is_of(&self, pod: &PodInfo) -> bool {
        pod.key.namespace == self.namespace && pod.gang.as_ref().is_some_and(|gang| gang.name == self.name)
    }

    /// Why a pod is kept off a node.
    fn reason(&self, run_time: RunTime) -> Reason {
        Reason::Reserved {
            gang: self.title(),
            until_ms: self.until_ms,
            kept: self.kept,
            misdeclared: run_time == RunTime::INVALID,
        }
    }

    /// The same in words, for a gang that is kept off so many nodes.
    fn note(&self, nodes: usize) -> String {
        let until = rfc3339(self.until_ms);
        let title = self.title();
        if self.kept {
            format!(
                "room on {nodes} node(s) is kept for gang {title} until it starts, but for work that ends by {until}"
            )
        } else {
            format!("room on {nodes} node(s) is reserved for gang {title} until {until}")
        }
    }
}

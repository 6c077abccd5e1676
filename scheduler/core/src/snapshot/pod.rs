//! The record of a pod and where it stands.
//!
//! ```text
//!                seen unbound              assume (plan)
//!     (absent) ───────────────> Pending ──────────────────> Assumed(node)
//!         │                        ^                          │      │
//!         │                        └───── forget (undone) ────┘      │ confirm (Binding acknowledged, or seen bound)
//!         │ seen bound                                               v
//!         └────────────────────────────────────────────────────> Bound(node)
//!                                                                    │
//!              Ended <── seen Succeeded or Failed (from any state) ──┤
//!                │                                                   │ deleted (from any state)
//!                └────────────────> (absent) <───────────────────────┘
//! ```
//! Assumed and Bound pods hold their resources, deleting ones too; Pending and Ended ones hold nothing. A watch event
//! without nodeName never takes a pod out of Assumed or Bound. Every assumption is confirmed or forgotten
//! (`assumed_is_confirmed_or_forgotten`).

use super::footprint::FootprintId;
use super::node::NodeId;
use super::slab::Id;
use super::standing::Standing;
use crate::model::{Millis, PodInfo, PodKey};
use crate::relations::{PeerId, PodAffinity};
use crate::shape::ShapeId;
use flowforge_topology_core::DeviceTake;
use std::collections::{BTreeMap, BTreeSet};

/// Id of a pod.
pub type PodId = Id<PodRecord>;

/// Where a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On no node.
    Pending,
    /// Planned on a node, not confirmed.
    Assumed(NodeId),
    /// On a node.
    Bound(NodeId),
    /// Succeeded or Failed; holds nothing.
    Ended,
}

impl Place {
    /// The node whose resources it holds.
    #[must_use]
    pub fn node(self) -> Option<NodeId> {
        match self {
            Self::Assumed(node) | Self::Bound(node) => Some(node),
            Self::Pending | Self::Ended => None,
        }
    }
}

/// What is still to be known of a pod of ours that stands on its node and is in no gang: who it is and how it is, not what it
/// looked for in a node. Others see that of it as its peer and footprint, which pods of one template share. Most of a large
/// cluster's memory would be these.
pub(super) fn settled(info: PodInfo) -> PodInfo {
    PodInfo {
        labels: BTreeMap::new(),
        requests: BTreeMap::new(),
        node_selector: BTreeMap::new(),
        required_node_affinity: None,
        preferred_node_affinity: Vec::new(),
        affinity: PodAffinity::default(),
        spread: Vec::new(),
        images: Vec::new(),
        tolerations: Vec::new(),
        required_features: BTreeSet::new(),
        host_ports: Vec::new(),
        containers: Vec::new(),
        ..info
    }
}

/// A pod, of ours or foreign.
#[derive(Clone, Debug, PartialEq)]
pub struct PodRecord {
    /// Identity.
    pub key: PodKey,
    /// Everything that is known, for pods of ours only; once bound less, see `settled`.
    pub info: Option<Box<PodInfo>>,
    /// Shape, for pods of ours that wait for a place.
    pub shape: Option<ShapeId>,
    /// Where it stands.
    pub place: Place,
    /// When it came to stand where it stands, by the engine's clock; 0 before that. Counts where it has not begun to run.
    pub(crate) placed_at_ms: Millis,
    /// The object is gone, but its resources stay reserved for a replacement.
    pub vacant: bool,
    pub(crate) footprint: FootprintId,
    /// What other pods see of it.
    pub(crate) peer: PeerId,
    pub(crate) standing: Standing,
    /// Position in the node's list of pods.
    pub(crate) slot: usize,
    /// Devices taken, by device table of the node.
    pub(crate) takes: Vec<DeviceTake>,
}

impl PodRecord {
    /// It stands there from now on.
    pub(super) fn stand(&mut self, place: Place, now: Millis) {
        self.placed_at_ms = match place {
            Place::Assumed(_) => now,
            Place::Bound(_) if self.placed_at_ms == 0 => now,
            Place::Pending if matches!(self.place, Place::Assumed(_)) => 0,
            _ => self.placed_at_ms,
        };
        self.place = place;
    }
}

//! What reaches the engine's thread: one bounded channel for watches, outcomes and questions, in order of arrival.

use crate::dispatch::{PodFacts, Report};
use crate::gangs::GroupFact;
use crate::topology::TopologyFact;
use flowforge_scheduler_core::event::{Event, JournalSlotRead};
use flowforge_scheduler_core::model::{GangInfo, NodeInfo, PodInfo, PodKey};
use smol_str::SmolStr;
use tokio::sync::oneshot;

/// Inputs that wait at most; senders wait when it is full.
pub(crate) const CAPACITY: usize = 8_192;

/// A watch event as its kind sees it.
#[derive(Debug)]
pub(crate) enum Fact {
    /// A pod was added or changed.
    Pod(Box<PodFact>),
    /// A pod is gone.
    PodGone(PodKey),
    /// UIDs of all pods that a list found.
    PodsListed(Vec<SmolStr>),
    /// A node was added or changed.
    Node(Box<NodeInfo>),
    /// A node is gone.
    NodeGone(SmolStr),
    /// Names of all nodes that a list found.
    NodesListed(Vec<SmolStr>),
    /// A gang was added or changed.
    Gang(Box<GangInfo>),
    /// A gang is gone, or is not ours.
    GangGone {
        /// Namespace.
        namespace: SmolStr,
        /// Name.
        name: SmolStr,
        /// UID.
        uid: SmolStr,
    },
    /// UIDs of all gangs that a list found.
    GangsListed(Vec<SmolStr>),
    /// News of a ClusterTopology.
    Topology(TopologyFact),
    /// News of an object by which somebody else declares a gang.
    Group(GroupFact),
    /// Anything that the engine takes as it is.
    Plain(Box<Event>),
}

/// A pod with what only the shell needs of it.
#[derive(Debug)]
pub(crate) struct PodFact {
    /// What the core sees.
    pub(crate) info: PodInfo,
    /// For its condition and Events.
    pub(crate) facts: PodFacts,
}

/// One message to the engine's thread.
pub(crate) enum Input {
    /// A watch event and when it arrived.
    Fact {
        /// What happened.
        fact: Fact,
        /// Arrival on the engine's clock.
        at_ms: u64,
    },
    /// What became of a command.
    Report(Report),
    /// All first lists are in, and the journal was read before them: begin.
    Begin {
        /// Epoch of the term.
        epoch: u64,
        /// The journal.
        slots: Vec<JournalSlotRead>,
    },
    /// A look inside, for people.
    Inspect(oneshot::Sender<serde_json::Value>),
}

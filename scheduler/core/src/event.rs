//! What the engine is told: facts from watches, and the outcome of every command it gave.

use crate::command::OpId;
use crate::devices::{DeviceFact, DeviceList};
use crate::labels::Labels;
use crate::model::{GangInfo, NodeInfo, PodInfo, PodKey, TopologyLevels};
use crate::preempt::Budget;
use crate::preparation::ObjectFacts;
use crate::relations::{SelectorInfo, SelectorKind};
use crate::volumes::{ObjectName, StorageFact, StorageKind};
use smol_str::SmolStr;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A node was added or changed.
    NodeUpsert(Box<NodeInfo>),
    /// A node went away.
    NodeDelete {
        /// Its name.
        name: SmolStr,
    },
    /// A pod was added or changed. A watch event without nodeName never un-assumes a pod.
    PodUpsert(Box<PodInfo>),
    /// A pod object went away.
    PodDelete(PodKey),
    /// A Gang was added or changed.
    GangUpsert(Box<GangInfo>),
    /// A Gang went away.
    GangDelete {
        /// Its namespace.
        namespace: SmolStr,
        /// Its name.
        name: SmolStr,
        /// Its UID.
        uid: SmolStr,
    },
    /// A namespace was added or changed.
    NamespaceUpsert {
        /// Its name.
        name: SmolStr,
        /// Its labels.
        labels: Labels,
    },
    /// A namespace went away.
    NamespaceDelete {
        /// Its name.
        name: SmolStr,
    },
    /// A Service or controller was added or changed.
    SelectorUpsert(Box<SelectorInfo>),
    /// A Service or controller went away.
    SelectorDelete {
        /// What it is.
        kind: SelectorKind,
        /// Its namespace.
        namespace: SmolStr,
        /// Its name.
        name: SmolStr,
    },
    /// A PodDisruptionBudget was added or changed.
    BudgetUpsert(Box<Budget>),
    /// A PodDisruptionBudget went away.
    BudgetDelete {
        /// Its namespace.
        namespace: SmolStr,
        /// Its name.
        name: SmolStr,
    },
    /// The topology levels are these from now on; a list that [`flowforge_topology_core::Levels`] refuses changes nothing.
    Topology(TopologyLevels),
    /// A storage object was added or changed.
    StorageUpsert(Box<StorageFact>),
    /// A storage object went away.
    StorageDelete {
        /// What it is.
        kind: StorageKind,
        /// Its namespace; empty for what has none.
        namespace: SmolStr,
        /// Its name.
        name: SmolStr,
    },
    /// Something became known of devices, their classes or claims.
    Device(Box<DeviceFact>),
    /// A watch was re-listed: what is absent from the list is gone. Upserts of the list come before.
    Relisted(RelistedKind),
    /// All first lists are in.
    Synced,
    /// This process became the leader with this epoch (the Lease's transitions); the journal was read after that.
    Lead {
        /// Epoch, larger than every former leader's.
        epoch: u64,
        /// Every journal slot as read: (slot number, resourceVersion, payload).
        slots: Vec<JournalSlotRead>,
    },
    /// This process is no longer the leader: nothing more is commanded.
    Follow,
    /// What became of a command.
    Outcome(Outcome),
}

/// What a re-list found.
#[derive(Clone, Debug, PartialEq)]
pub enum RelistedKind {
    /// Names of all nodes.
    Nodes(Vec<SmolStr>),
    /// UIDs of all pods.
    Pods(Vec<SmolStr>),
    /// UIDs of all gangs.
    Gangs(Vec<SmolStr>),
    /// Names of all namespaces.
    Namespaces(Vec<SmolStr>),
    /// Namespaces and names of all PodDisruptionBudgets.
    Budgets(Vec<(SmolStr, SmolStr)>),
    /// Namespaces and names of all Services, or of all controllers of a kind.
    Selectors(SelectorKind, Vec<(SmolStr, SmolStr)>),
    /// Namespaces and names of all storage objects of a kind.
    Storage(StorageKind, Vec<ObjectName>),
    /// All objects of a kind that says what devices there are.
    Devices(DeviceList),
}

/// A journal slot as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalSlotRead {
    /// Number of the slot, from 0.
    pub slot: u32,
    /// resourceVersion for the next write.
    pub resource_version: SmolStr,
    /// The payload; empty for a fresh slot.
    pub payload: String,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Of [`crate::command::Command::WriteJournal`].
    Journal {
        /// The command.
        op: OpId,
        /// What the server said.
        result: WriteResult,
    },
    /// Of [`crate::command::Command::ReadJournal`] (a consistent GET).
    JournalRead {
        /// The command.
        op: OpId,
        /// What was found.
        result: JournalReadResult,
    },
    /// Of [`crate::command::Command::Bind`].
    Bind {
        /// The command.
        op: OpId,
        /// What the server said.
        result: BindResult,
    },
    /// Of [`crate::command::Command::ReadPod`] (a consistent GET): None means the name is free.
    Read {
        /// The command.
        op: OpId,
        /// The pod now under that name, or an unknown outcome.
        result: ReadResult,
    },
    /// Of [`crate::command::Command::ReadPrepared`] (a consistent GET).
    PreparedRead {
        /// The command.
        op: OpId,
        /// What was found.
        result: PrepareReadResult,
    },
    /// Of [`crate::command::Command::Prepare`].
    Prepare {
        /// The command.
        op: OpId,
        /// What the server said; `Ok` holds the new resourceVersion.
        result: WriteResult,
    },
    /// Of [`crate::command::Command::FencePod`].
    Fence {
        /// The command.
        op: OpId,
        /// What the server said; `Ok` holds the new resourceVersion.
        result: WriteResult,
    },
    /// Of [`crate::command::Command::MarkRollback`].
    Mark {
        /// The command.
        op: OpId,
        /// What the server said.
        result: WriteResult,
    },
    /// Of [`crate::command::Command::DeletePod`].
    Delete {
        /// The command.
        op: OpId,
        /// What the server said; NotFound and Conflict mean that this UID is gone.
        result: WriteResult,
    },
    /// Of [`crate::command::Command::Evict`].
    Evict {
        /// The command.
        op: OpId,
        /// What the server said; NotFound and Conflict mean that this UID is gone.
        result: WriteResult,
    },
}

impl Outcome {
    /// The command that this answers.
    #[must_use]
    pub fn op(&self) -> OpId {
        match self {
            Self::Journal { op, .. }
            | Self::JournalRead { op, .. }
            | Self::Bind { op, .. }
            | Self::Read { op, .. }
            | Self::PreparedRead { op, .. }
            | Self::Prepare { op, .. }
            | Self::Fence { op, .. }
            | Self::Mark { op, .. }
            | Self::Delete { op, .. }
            | Self::Evict { op, .. } => *op,
        }
    }
}

/// What a consistent read of a journal slot found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalReadResult {
    /// The slot as it is now.
    Found {
        /// resourceVersion for the next write.
        resource_version: SmolStr,
        /// The payload; empty for a fresh slot.
        payload: String,
    },
    /// The server did not answer.
    Unknown(String),
}

/// What the server said to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// Done; the new resourceVersion where there is one.
    Ok(SmolStr),
    /// 409: the precondition (resourceVersion or UID) did not hold.
    Conflict,
    /// 404.
    NotFound,
    /// 403 or 422: it will not get better by itself; the text says why.
    Refused(String),
    /// Timeout, reset, 5xx, 429 given up: it may or may not have happened.
    Unknown(String),
}

/// What the server said to a Binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindResult {
    /// Bound.
    Ok,
    /// 409: already bound, gated, deleting, or UID/resourceVersion moved; only a consistent read tells.
    Conflict(String),
    /// 404: the pod is gone.
    NotFound,
    /// 403 or 422: not the node's fault.
    Refused(String),
    /// Timeout, reset, 5xx: it may or may not have happened.
    Unknown(String),
}

/// What a consistent read found.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadResult {
    /// The pod that now has the name (perhaps with another UID).
    Found(Box<PodInfo>),
    /// No pod has the name.
    NotFound,
    /// The server did not answer.
    Unknown(String),
}

/// What a consistent read of what is prepared for a pod found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrepareReadResult {
    /// The object that now has the name (perhaps with another UID).
    Found(Box<ObjectFacts>),
    /// No object has the name.
    NotFound,
    /// The server did not answer.
    Unknown(String),
}

//! Storage: claims, volumes and what drivers say of nodes; what pods mount of it; and what was chosen for pods that have a
//! place but whose claims are not bound yet.
//!
//! ```text
//!   StorageFact ──> facts, and who uses them ───────────┐
//!   a pod comes to a node (also on trial) ──> Choice ───┼──> a pod that asks ──> VolumeDemand (per pod) ──> per node: may it,
//!     volumes kept for its claims, nodes that are       │                                                  how good
//!     selected for claims; undone when it leaves        │
//!   pods on a node, attachments ──> Attached (per node)─┘
//! ```
//! A choice is made with the pod's place and ends with it, inside transactions too, so that members of a gang see each
//! other's; it also ends when the pod is bound, for then the API server says the same. What a node's pods have attached is
//! found anew when anything about the node changed.
//!
//! Cost: a pod that asks looks at the volumes of the classes of its waiting claims, `O(volumes)`, and then at every node,
//! `O(nodes · its volumes)`; pods without claims and disks are unknown here.
//!
//! Invariant: what is rolled back leaves no trace (`rollback_is_identity`).

mod attached;
mod choose;
mod demand;
mod facts;
mod store;
#[cfg(test)]
mod tests;
mod waiting;

pub(crate) use demand::{VolumeDemand, VolumeView};
pub use facts::{
    AttachmentInfo, CapacityInfo, ClaimInfo, ClaimRef, ClassInfo, CsiDriverInfo, CsiHandle, CsiNodeInfo, Disk,
    ExclusiveDisk, InTreeVolume, ObjectName, PodVolume, READ_WRITE_ONCE_POD, StorageFact, StorageKind, StorageSize,
    TopologyTerm, VolumeInfo, VolumeSource,
};
pub(crate) use store::{Changed, Volumes};

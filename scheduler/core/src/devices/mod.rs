//! Dynamic Resource Allocation: devices that claims ask for, chosen here and held for the pods that are placed.
//!
//! ```text
//!   slices, classes, claims, rules ──> Devices ──demand(pod)──> DeviceDemand ──offer(node)──> allocations and a score, or why not
//!                                        ^                                            │
//!                                        └──────── held while a pod is assumed <──────┘
//! ```
//! The feasibility is kube-scheduler 1.37's with its default gates (`dynamic-resource-allocation/structured`, the allocator
//! "incubating"): structured allocation with CEL selectors, constraints, prioritized alternatives, admin access, device taints,
//! partitionable devices with shared counters, consumable capacity, and conditions of devices. An error of one selector
//! refuses the nodes where it shows, not the pod as a whole. Members of a gang share a claim that one of them allocates.
//!
//! Which of the devices that will do are taken is ours: those that are best linked and aligned, and leave most to others
//! ([`allocator`], [`inside`]).
//!
//! Extended resources that a class stands for become one special claim of their pod ([`extended`]).
//!
//! What is held while pods are assumed follows their places, also in a transaction: what is rolled back leaves no trace, and
//! two pods never hold one device (`no_overcommit`, `rollback_is_identity`).

mod allocator;
mod capacity;
#[cfg(test)]
mod choice_tests;
mod constraints;
mod demand;
mod dump;
mod extended;
mod facts;
mod holding;
mod idle;
mod inside;
#[cfg(test)]
mod machines;
mod pools;
mod result;
mod selectors;
mod store;
#[cfg(test)]
mod tests;
mod usage;
mod view;

pub(crate) use demand::DeviceDemand;
pub use dump::{AssumedClaim, DumpedDevices, DumpedSlice, HeldDevice};
pub(crate) use extended::special_uid;
pub use extended::{ANNOTATION as EXTENDED_CLAIM_ANNOTATION, ContainerAsk, may_be_devices};
pub use facts::{
    AllocatedDevice, Allocation, Amounts, Ask, Capacity, CapacityPolicy, CapacityRange, ClaimInfo, ClaimSource,
    ClassInfo, Constraint, Count, DeviceEffect, DeviceFact, DeviceInfo, DeviceList, DeviceTaint, DeviceToleration,
    PodClaim, Reach, Request, RequestKind, SliceInfo, TaintRuleInfo,
};
pub use flowforge_scheduler_cel::{Attribute, Quantity};
pub(crate) use inside::DeviceId;
pub use inside::HardwareInfo;
pub use store::DeviceNews;
pub(crate) use store::Devices;
pub use usage::Use;
pub(crate) use view::DeviceView;

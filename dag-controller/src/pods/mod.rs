//! From a workflow node to the pods of one attempt of it.
//!
//! ```text
//!   system values < spec.defaults < node.podTemplate < fields of the node < of the role   (`layers`)
//!        + storage claims, /dev/shm                                              (`volumes`)
//!        + rendezvous and FLOWFORGE_* environment                                (`env`)
//!        = one template per attempt and role, stamped per rank and incarnation   (`template`)
//! ```
//! Maps are merged by key and lists of named things by name, the stronger layer winning an entry as a whole;
//! tolerations and `envFrom` are joined. What a pod needs to be ours (labels, owner, finalizer, `restartPolicy: Never`)
//! is laid over everything.
//!
//! What must hold: the result depends on the arguments alone, so that a member made again after a restart of the
//! controller is the same pod; names come from `flowforge_dag_controller_core::names`.

mod env;
mod layers;
mod merge;
mod template;
mod volumes;

pub(crate) use env::MASTER_PORT;
pub use template::{AttemptRef, MemberTemplate, TemplateError};
pub(crate) use template::{attempt_labels, gang_owner, main_container};

#[cfg(test)]
mod tests;

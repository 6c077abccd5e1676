//! Asks FlowForge and kube-scheduler the same questions and compares the answers.
//!
//! ```text
//!   seed ──> generate ──> case (JSON) ──┬──> ours: convert, snapshot, rules ──────────────┬──> compare ──> tally
//!                                       └──> upstream: `testbed oracle`, plugins of 1.37 ─┘       │
//!                                                                  shrink <── disagreement <──────┘
//! ```
//! A case is a cluster and a pod. What must agree: which nodes are feasible; the plugin that refuses a node first and its
//! reasons; the message of a pod that fits nowhere; the score of every rule on every feasible node; and that the node
//! that FlowForge picks has the highest total.

mod compare;
mod features;
mod generate;
mod ours;
pub mod preempt;
mod random;
mod run;
mod selectors;
mod shrink;
mod tally;
mod upstream;

pub use run::{ENOUGH, Outcome, replay, run};
pub use selectors::{Said, Selection, selections};
pub use upstream::Upstream;

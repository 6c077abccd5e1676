//! The decisions of the FlowForge scheduler, without IO: time and seed are arguments, effects are a list of commands.
//!
//! ```text
//!   watch events ─convert─> Event ─> [ Engine: one writer, in-memory snapshot ] ─> Vec<Command> ─> dispatch ─> API server
//!                                         ^                                              |
//!                                         +────────────── outcome of every command ──────+
//! ```
//! Invariants: a refusal is a value, never an error; speculation happens in a transaction that closes itself; the same
//! snapshot, events and seed give the same plan; nothing here knows Kubernetes types, clocks, files or the network.

pub mod command;
pub mod config;
pub mod cycle;
mod demand;
pub mod devices;
pub mod engine;
pub mod event;
pub mod explain;
#[cfg(test)]
mod fixture;
pub mod gang;
pub mod labels;
pub mod model;
pub mod opinion;
pub mod plugins;
pub mod preempt;
pub mod preparation;
pub mod profile;
pub mod protocol;
pub mod queue;
pub mod rehearsal;
pub mod relations;
pub mod reserve;
pub mod shape;
pub mod snapshot;
pub mod volumes;

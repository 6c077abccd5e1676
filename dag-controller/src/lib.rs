//! The FlowForge DAG controller: the shell around the pure core, and the admission webhook.
//!
//! ```text
//!   watch ──> inputs ──> shard ──(convert, flow)──> core: apply ──> commands ──> run ──> exec ──> writer ──> API server
//!                          ^                                                      |
//!                          └────────────── outcome of every command ─────────────┘
//!   boot: the lists of a new term ──> core: rebuild        announce: Events        webhook: refuses what cannot run
//! ```
//! Invariants: the core alone decides; `convert` alone knows both the API's types and the core's; `writer` alone sends
//! writes, and none without the lease. Nothing is kept between terms: a leader derives everything from the API server.

pub mod announce;
pub mod boot;
pub mod config;
pub mod convert;
pub mod data;
pub mod exec;
pub mod flow;
pub mod inputs;
pub mod ledger;
pub mod metrics;
pub mod objects;
pub mod pods;
pub mod run;
pub mod session;
pub mod shard;
pub mod status;
pub mod storage;
pub mod watch;
pub mod watched;
pub mod webhook;
pub mod writer;

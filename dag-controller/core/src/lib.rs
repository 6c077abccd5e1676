//! The decisions of the FlowForge DAG controller, without IO: time and seed are arguments, effects are a list of
//! commands.
//!
//! ```text
//!   manifest ──frontend──> Dag
//!   watch events ─convert─> Event ─> apply(&mut State, event, now_ms, &mut Vec<Command>) ─> execute ─> API server
//!                                         ^                                                    |
//!                                         +──────────── facts, refusals, receipts ─────────────+
//!   at start:  rebuild(dag, config, observed, recorded, now_ms, &mut Vec<Command>) ─> State
//! ```
//! One [`State`] per workflow, one caller at a time. Invariants: no node is released before what it waits for has
//! durably happened; an ended node never runs again; phases only move forward; one event costs O(out-degree) of the node
//! it ends and O(1) otherwise, apart from starting and stopping a gang, which is O(its members); nothing here knows
//! Kubernetes types, clocks, files or the network.

pub mod command;
pub mod dag;
pub mod engine;
pub mod event;
pub mod expr;
pub mod frontend;
pub mod ids;
pub mod names;
pub mod outputs;
pub mod ranks;
pub mod reason;
pub mod retry;
pub mod role;
pub mod state;

pub use command::{Command, MemberEnd, MemberOutcome, Milestone};
pub use dag::{Dag, DagError, Edge, Limits, MemberLost, Mode, NodeSpec, On, OnFailure};
pub use engine::{Observed, ObservedGang, Recorded, RecordedMember, RecordedNode, State, apply, rebuild};
pub use event::{Decision, Event, GangEnd, GangFacts, Judgement, PodFacts};
pub use ids::{AttemptKey, MemberKey, NodeIx};
pub use reason::{Cause, Class, Reason};
pub use role::{Failure, Role, Success};
pub use state::{Config, Counts, GangPhase, NodePhase, NodeView, WorkflowPhase};

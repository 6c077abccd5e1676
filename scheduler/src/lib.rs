//! The scheduler's shell: watches in, commands out. The decisions are `flowforge-scheduler-core`'s.
//!
//! ```text
//!   API server ──watch──> convert ──> bounded channel ──> writer (owns the Engine) ──> dispatch ──> API server
//!                                          ^                                              |
//!                                          └──────────── outcome of every command ────────┘
//! ```
//! Invariants: only [`dispatch`] writes to the API server, and only under the lease; only [`convert`] knows Kubernetes
//! types, those of others in [`convert::gangs`]; everything between two terms of leadership is thrown away.

mod as_is;
mod clock;
pub mod config;
mod dispatch;
mod gangs;
mod input;
pub mod metrics;
mod pieces;
mod term;
mod thread;
mod topology;
mod watch;
mod writer;

pub use flowforge_scheduler_convert as convert;
pub use term::Scheduler;
pub use thread::EnginePanicked;

//! FlowForge on a testbed: what the control-plane tests, the demo and the benchmarks share.
//!
//! ```text
//!   Testbed (flowforge-testbed) ──> Installation: manifests applied, binaries running as their own ServiceAccounts
//!                                        └── scrape(): a binary's metrics;   eventually(): wait for a fact, with a limit
//! ```

pub mod follow;
pub mod install;
pub mod metrics;
pub mod wait;

pub use flowforge_testbed::skip;
pub use follow::Follower;
pub use install::{Installation, Options};
pub use metrics::Scrape;
pub use wait::eventually;

//! FlowForge on a testbed: what the control-plane tests, the demo and the benchmarks share.
//!
//! ```text
//!   Testbed (flowforge-testbed) ──> Installation: manifests applied, binaries running as their own ServiceAccounts
//!                                        └── scrape(): a binary's metrics;   eventually(): wait for a fact, with a limit
//! ```

pub mod follow;
pub mod install;
pub mod metrics;
mod skip;
pub mod wait;

pub use follow::Follower;
pub use install::{Installation, Options};
pub use metrics::Scrape;
pub use skip::skip;
pub use wait::eventually;

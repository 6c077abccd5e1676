//! What both binaries share: flags, telemetry, metrics, admin HTTP, the client, the leader lease and shutdown.
//!
//! ```text
//!   flags ──> client ──> Elector ──terms──> the binary's work, under a Leadership
//!     └─────> telemetry <──PUT /log-level── Admin ──/livez /readyz /metrics /debug/state──> people and Prometheus
//! ```
//! Invariants: nothing here knows what the binaries decide; a [`Leadership`] never claims more time than its Lease
//! really has left (monotonic clock, counted from the start of the last renewal that the server acknowledged).

pub mod admin;
pub mod client;
pub mod election;
pub mod elector;
pub mod flags;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;

pub use admin::{Admin, Health};
pub use client::Pressure;
pub use election::LeaseTiming;
pub use elector::{Elector, Leadership, Terms};
pub use flags::RuntimeArgs;
pub use metrics::Metrics;

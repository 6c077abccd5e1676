//! Parameters of the core, turned from the binary's configuration file once at start.

use crate::model::{Millis, TopologyLevels};
use crate::profile::Profiles;
use crate::protocol::ProtocolConfig;
use smol_str::SmolStr;

/// Parameters of an [`crate::engine::Engine`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How the pods of each `schedulerName` are scheduled.
    pub profiles: Profiles,
    /// Topology levels, widest first: (level name, node label keys, first present wins).
    pub topology: TopologyLevels,
    /// How long a gang that could start short of some replicas waits after the last arrival.
    pub settle_ms: Millis,
    /// First backoff after a failed attempt.
    pub backoff_initial_ms: Millis,
    /// Longest backoff.
    pub backoff_max_ms: Millis,
    /// After this long an unschedulable entity is tried again whatever happened.
    pub unschedulable_flush_ms: Millis,
    /// Most entities tried in one [`crate::engine::Engine::run`]; the rest waits for the next call, which
    /// [`crate::engine::Engine::next_wakeup`] asks for at once.
    pub attempts_per_run: usize,
    /// Most placements tried while planning one gang before the search gives up with `SearchLimit`.
    pub search_steps: u32,
    /// Most gangs that room is reserved for at once, the first of each profile and priority; 0 reserves nothing.
    pub reservations: usize,
    /// After this long without room the nodes of a reservation are kept for its gang until it starts.
    pub starvation_ms: Millis,
    /// Bytes that the caches of pod shapes may take together.
    pub shape_cache_bytes: usize,
    /// Resource names that count whole devices, for the device tables of nodes.
    pub device_resources: Vec<SmolStr>,
    /// Whether plans are bound by the protocol; without it they are assumed and confirmed at once (benchmarks).
    pub bind: bool,
    /// Parameters of the binding protocol.
    pub protocol: ProtocolConfig,
    /// Seed of everything that could be arbitrary.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            profiles: Profiles::default(),
            topology: flowforge_topology_core::standard(),
            settle_ms: 1_000,
            backoff_initial_ms: 1_000,
            backoff_max_ms: 10_000,
            unschedulable_flush_ms: 300_000,
            attempts_per_run: 512,
            search_steps: 20_000,
            reservations: 8,
            starvation_ms: 1_800_000,
            shape_cache_bytes: 256 << 20,
            device_resources: vec!["nvidia.com/gpu".into(), "amd.com/gpu".into(), "gpu.intel.com/i915".into()],
            bind: true,
            protocol: ProtocolConfig::default(),
            seed: 0,
        }
    }
}

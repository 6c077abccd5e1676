//! The engine's clock: wall time at start, then monotonic, in milliseconds.
//!
//! One clock for arrivals and decisions that never jumps, and that can be compared with creation timestamps.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A clock; copies agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base_ms: u64,
    started: Instant,
}

impl Clock {
    /// A clock that starts at the wall clock's time.
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { base_ms: u64::try_from(since_epoch.as_millis()).unwrap_or_default(), started: Instant::now() }
    }

    /// Now.
    pub(crate) fn now_ms(&self) -> u64 {
        self.base_ms.saturating_add(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

//! What goes wrong while faults are on, and how often. Times in virtual milliseconds.

use flowforge_scheduler_core::model::Millis;

/// Rates of the faults; 0 everywhere is a perfect world.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Requests that never arrive, per mille.
    pub request_lost: u64,
    /// Requests that arrive long after the client gave up, per mille.
    pub request_late: u64,
    /// Requests that arrive twice, per mille.
    pub request_doubled: u64,
    /// Responses that are lost, per mille: the write happened, nobody knows.
    pub response_lost: u64,
    /// Longest usual way of a request or response.
    pub latency_ms: Millis,
    /// Longest way of a late request.
    pub late_ms: Millis,
    /// Watch events that are lost until the next relist, per mille.
    pub watch_lost: u64,
    /// Watch events that come twice, per mille.
    pub watch_doubled: u64,
    /// Watch events that overtake others, per mille (never what a real watch does within one kind; the protocol bears it).
    pub watch_reordered: u64,
    /// Longest usual delay of a watch event.
    pub watch_delay_ms: Millis,
    /// Mean time between blows (crashes, pauses, lost nodes, …); 0 for none.
    pub blow_every_ms: Millis,
}

impl Faults {
    /// No faults, and a fast network.
    #[must_use]
    pub fn none() -> Self {
        Self {
            request_lost: 0,
            request_late: 0,
            request_doubled: 0,
            response_lost: 0,
            latency_ms: 5,
            late_ms: 0,
            watch_lost: 0,
            watch_doubled: 0,
            watch_reordered: 0,
            watch_delay_ms: 20,
            blow_every_ms: 0,
        }
    }

    /// Everything at once.
    #[must_use]
    pub fn storm() -> Self {
        Self {
            request_lost: 15,
            request_late: 25,
            request_doubled: 20,
            response_lost: 20,
            latency_ms: 40,
            late_ms: 12_000,
            watch_lost: 10,
            watch_doubled: 20,
            watch_reordered: 50,
            watch_delay_ms: 200,
            blow_every_ms: 700,
        }
    }

    /// Without overtaking watch events, as the real engine is promised.
    #[must_use]
    pub fn in_order(self) -> Self {
        Self { watch_reordered: 0, ..self }
    }
}

//! The gang binding protocol: all-or-nothing over an API server that binds one pod at a time.

mod config;
mod effects;
mod plan;

pub use config::{ProtocolConfig, Tolerance, TolerantOwner};
pub use effects::{Cause, Effect, Effects, Ending, ReplanMember, Timings};
pub use plan::{BeginError, GangKey, PartialGang, Placement, Plan, Quorum, Replanned, shape_of};

use crate::event::{JournalSlotRead, Outcome};
use crate::model::{Millis, PodInfo, PodKey};

/// The state machine of all open intents of one leader.
#[derive(Debug)]
pub struct Protocol {
    config: ProtocolConfig,
}

/// Gauges of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtocolStats {
    /// Open intents that the journal holds (or is about to).
    pub open_intents: usize,
    /// Pods on their own that are being bound.
    pub open_singles: usize,
    /// Intents being rolled back.
    pub rolling_back: usize,
    /// Gangs held partial.
    pub held_partial: usize,
    /// Commands whose outcome is awaited.
    pub awaited: usize,
}

impl Protocol {
    /// A follower.
    #[must_use]
    pub fn new(config: ProtocolConfig) -> Self {
        Self { config }
    }

    /// This process leads with this epoch: fences every slot, then recovers what is open. Answered by
    /// [`Effect::Recovered`] per open intent and then [`Effect::Ready`].
    pub fn lead(&mut self, epoch: u64, slots: Vec<JournalSlotRead>, now: Millis, fx: &mut Effects) {
        let _ = (epoch, slots, now, fx, &self.config);
    }

    /// This process no longer leads: everything is dropped, nothing more is commanded, late outcomes are ignored.
    pub fn follow(&mut self) {}

    /// Whether plans are welcome: leading, and the journal is fenced.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        false
    }

    /// Whether the gang has an open intent; it must not be planned then.
    #[must_use]
    pub fn is_open(&self, gang: &GangKey) -> bool {
        let _ = gang;
        false
    }

    /// Begins to bind a plan whose members the engine has assumed. Several calls in a row share one journal write when
    /// [`Self::flush`] follows the last of them.
    ///
    /// # Errors
    /// See [`BeginError`]; nothing was begun then, and the caller releases what it assumed.
    pub fn begin(&mut self, plan: Plan, now: Millis, fx: &mut Effects) -> Result<(), BeginError> {
        let _ = (plan, now, fx);
        Err(BeginError::NotReady)
    }

    /// Opens a repair for a gang that was found partially bound without an open intent.
    ///
    /// # Errors
    /// See [`BeginError`].
    pub fn adopt(&mut self, gang: PartialGang, now: Millis, fx: &mut Effects) -> Result<(), BeginError> {
        let _ = (gang, now, fx);
        Err(BeginError::NotReady)
    }

    /// Emits the journal writes of what was begun since; every other call does so by itself.
    pub fn flush(&mut self, now: Millis, fx: &mut Effects) {
        let _ = (now, fx);
    }

    /// The engine's answer to [`Effect::Replan`]; unknown gangs are ignored.
    pub fn replanned(&mut self, gang: &GangKey, answer: Replanned, now: Millis, fx: &mut Effects) {
        let _ = (gang, answer, now, fx);
    }

    /// The gang must not live (deleted, ended, constraints broken): rolls its open intent back, or holds it.
    pub fn abort(&mut self, gang: &GangKey, why: &str, now: Millis, fx: &mut Effects) {
        let _ = (gang, why, now, fx);
    }

    /// What became of a command. Outcomes of unknown commands are ignored.
    pub fn on_outcome(&mut self, outcome: Outcome, now: Millis, fx: &mut Effects) {
        let _ = (outcome, now, fx);
    }

    /// A pod was seen by watch: a member of an open intent, or a replacement for a lost one. Stale news do no harm.
    pub fn on_pod(&mut self, pod: &PodInfo, now: Millis, fx: &mut Effects) {
        let _ = (pod, now, fx);
    }

    /// A pod object is gone.
    pub fn on_pod_gone(&mut self, pod: &PodKey, now: Millis, fx: &mut Effects) {
        let _ = (pod, now, fx);
    }

    /// A node is gone: members planned there need another place.
    pub fn on_node_gone(&mut self, node: &str, now: Millis, fx: &mut Effects) {
        let _ = (node, now, fx);
    }

    /// Time passed: retries, timeouts and deadlines that are due.
    pub fn tick(&mut self, now: Millis, fx: &mut Effects) {
        let _ = (now, fx);
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        None
    }

    /// The gauges.
    #[must_use]
    pub fn stats(&self) -> ProtocolStats {
        ProtocolStats::default()
    }
}

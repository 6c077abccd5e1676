//! How long an attempt may wait for its place, start and run, and why one did not start.
//!
//! ```text
//!   pods may be made ──queue──> all bound ──start──> all run ──run──> ended
//! ```
//! | What was too long | Reason | Class |
//! |---|---|---|
//! | the wait for a place | QueueTimeout | policy: the same limit would pass again |
//! | the start, while an image is not there | ImagePull | user |
//! | the start, while a container's configuration is not there | ConfigError | user |
//! | the start, while the pod has no sandbox | SandboxNotReady, or VolumeMount where it mounts claims | infrastructure |
//! | the start for anything else | StartTimeout | infrastructure |
//! | the run | RunTimeout | user |

use crate::command::Command;
use crate::event::{PodFacts, Starting};
use crate::reason::{Cause, Reason};
use crate::state::GangPhase;

use super::State;
use super::gang::{Cx, Gang};
use super::timers::Wake;

impl Gang {
    /// When the present phase has lasted too long.
    fn deadline_ms(&self) -> Option<u64> {
        let (since_ms, limit_ms) = match self.phase {
            GangPhase::Pending => (Some(self.queued_at_ms.max(self.plan.not_before_ms)), self.limits.queue_ms),
            GangPhase::Scheduled => (self.scheduled_at_ms, self.limits.start_ms),
            GangPhase::Running => (self.started_at_ms, self.limits.run_ms),
            GangPhase::Succeeded | GangPhase::Failed => (None, None),
        };
        Some(since_ms?.saturating_add(limit_ms?))
    }

    /// The phase is new, or was read back: its deadline is set.
    pub(super) fn set_deadline(&self, cx: &mut Cx<'_>) {
        if let Some(at_ms) = self.deadline_ms().filter(|_| self.ending.is_none()) {
            cx.timers.set(at_ms, Wake::Gang(self.key.node));
        }
    }

    /// Ends the attempt when its time is over.
    pub(super) fn check_deadline(&mut self, cx: &mut Cx<'_>) {
        if self.ending.is_some() || self.deadline_ms().is_none_or(|at_ms| at_ms > cx.now_ms) {
            return;
        }
        let cause = match self.phase {
            GangPhase::Pending => Cause::of(Reason::QueueTimeout).with_detail("not all of its members found a place"),
            GangPhase::Scheduled => match self.slow.clone() {
                Some((rank, reason, detail)) => Cause { rank: Some(rank), ..Cause::of(reason).with_detail(detail) },
                None => Cause::of(Reason::StartTimeout).with_detail("not all of its members started"),
            },
            _ => Cause::of(Reason::RunTimeout).with_detail("its time to run is over"),
        };
        self.end(false, cause, cx);
    }

    /// Takes note of what a bound member waits for; the latest to say something is shown.
    pub(super) fn note_start(&mut self, rank: u32, facts: &PodFacts) {
        let reason = match &facts.starting {
            Starting::Unknown => {
                if self.slow.as_ref().is_some_and(|(slow, _, _)| *slow == rank) {
                    self.slow = None;
                }
                return;
            }
            Starting::Image(_) => Reason::ImagePull,
            Starting::Config(_) => Reason::ConfigError,
            Starting::Volumes => Reason::VolumeMount,
            Starting::Sandbox => Reason::SandboxNotReady,
        };
        // What a person can mend outweighs what passes by itself.
        let known = self.slow.as_ref().map(|(_, known, _)| *known);
        if known.is_none_or(|known| known.class() != crate::reason::Class::User || known == reason) {
            let detail = match &facts.starting {
                Starting::Image(text) | Starting::Config(text) => text.clone(),
                _ => reason.as_str().into(),
            };
            self.slow = Some((rank, reason, detail));
        }
    }
}

impl State {
    /// When the whole workflow has lasted too long.
    fn timeout_at_ms(&self) -> Option<u64> {
        let open = !self.phase.is_over() && self.stop.is_none();
        Some(self.started_at_ms.filter(|_| open)?.saturating_add(self.config.timeout_ms?))
    }

    /// Sets that deadline, once the first node is released.
    pub(super) fn set_timeout(&mut self) {
        if let Some(at_ms) = self.timeout_at_ms() {
            self.timers.set(at_ms, Wake::Workflow);
        }
    }

    /// Stops the workflow when its time is over; `finally` nodes still run.
    pub(super) fn check_timeout(&mut self, now_ms: u64, out: &mut Vec<Command>) {
        if self.timeout_at_ms().is_some_and(|at_ms| at_ms <= now_ms) {
            self.stop(Cause::of(Reason::WorkflowTimeout).with_detail("its timeoutSeconds are over"), now_ms, out);
        }
    }
}

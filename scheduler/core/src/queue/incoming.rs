//! Counts of what enters which queue and why, with kube-scheduler's words (`scheduler_queue_incoming_pods_total`).

use super::Place;
use crate::plugins::Cures;
use std::collections::BTreeMap;

/// Why pods entered a queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cause {
    /// They came.
    Added,
    /// They, or the gang around them, changed.
    Changed,
    /// An attempt failed.
    Failed,
    /// Their backoff ended.
    BackoffEnded,
    /// They were parked for too long.
    Timeout,
    /// These events may have cured them.
    Cured(Cures),
}

impl Cause {
    /// kube-scheduler's label; of several events the first of this list.
    fn label(self) -> &'static str {
        match self {
            Self::Added => "UnscheduledPodAdd",
            Self::Changed => "UnscheduledPodUpdate",
            Self::Failed => "ScheduleAttemptFailure",
            Self::BackoffEnded => "BackoffComplete",
            Self::Timeout => "UnschedulableTimeout",
            Self::Cured(cures) => {
                let known = [
                    (Cures::NODE_ADDED, "NodeAdd"),
                    (Cures::NODE_LABELS, "NodeUpdateLabel"),
                    (Cures::NODE_TAINTS, "NodeUpdateTaint"),
                    (Cures::NODE_ALLOCATABLE, "NodeUpdateAllocatable"),
                    (Cures::NODE_FEATURES, "NodeUpdateDeclaredFeature"),
                    (Cures::NODE_GONE, "NodeDelete"),
                    (Cures::POD_GONE, "AssignedPodDelete"),
                    (Cures::POD_ADDED, "AssignedPodAdd"),
                    (Cures::PEER_LABELS, "AssignedPodUpdateLabel"),
                ];
                known.into_iter().find(|(event, _)| cures.meets(*event)).map_or("OtherUpdate", |(_, label)| label)
            }
        }
    }
}

/// Pods by (queue, event).
pub type Counts = BTreeMap<(&'static str, &'static str), u64>;

/// What entered since it was last asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Incoming(Counts);

impl Incoming {
    /// So many pods entered a queue. Being bound is none.
    pub(super) fn note(&mut self, place: Place, cause: Cause, pods: usize) {
        let queue = match place {
            Place::Active => "active",
            Place::Backoff(_) => "backoff",
            Place::Parked(_) => "unschedulable",
            Place::InFlight => return,
        };
        *self.0.entry((queue, cause.label())).or_default() += pods as u64;
    }

    /// The counts, which begin anew.
    pub(super) fn take(&mut self) -> Counts {
        std::mem::take(&mut self.0)
    }
}

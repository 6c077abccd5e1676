//! SchedulingGates: a pod with gates is not queued at all, and does not count as a member that waits for a place. The API
//! server itself writes `PodScheduled=False` with reason `SchedulingGated`; nothing is added to that.

use super::Cures;

/// kube-scheduler's name.
pub const NAME: &str = "SchedulingGates";
/// What cures it.
pub const CURED_BY: Cures = Cures::POD_CHANGED;

/// Whether the pod may be queued.
#[must_use]
pub fn may_queue(gated: bool) -> bool {
    !gated
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_ungated_pods_are_queued() {
        assert!(super::may_queue(false) && !super::may_queue(true));
    }
}

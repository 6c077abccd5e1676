//! Which candidate is best: kube-scheduler's criteria, in its order. Less is better.

use crate::snapshot::{Cluster, PodId};
use std::cmp::Reverse;

/// How good it is to evict some pods; the fields are compared in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Pods whose eviction breaks a budget.
    pub violations: u32,
    /// Priority of the most important victim.
    pub highest: i32,
    /// Sum of the priorities, each lifted above zero, so that a further victim always costs.
    pub sum: i64,
    /// Pods.
    pub pods: usize,
    /// Earliest start among the victims of the highest priority, in milliseconds; later is better.
    pub started_at_ms: Reverse<u64>,
}

impl Rank {
    /// The rank of these victims.
    #[must_use]
    pub fn of(cluster: &Cluster, victims: &[PodId], violations: u32) -> Self {
        let standings = || victims.iter().filter_map(|pod| cluster.pod(*pod)).map(|pod| pod.standing);
        let highest = standings().map(|s| s.priority).max().unwrap_or(i32::MIN);
        let lifted = |priority: i32| i64::from(priority) + i64::from(i32::MAX) + 1;
        let started = standings().filter(|s| s.priority == highest).map(|s| s.started_at_ms.unwrap_or(u64::MAX));
        Self {
            violations,
            highest,
            sum: standings().map(|s| lifted(s.priority)).sum(),
            pods: victims.len(),
            started_at_ms: Reverse(started.min().unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_criteria_are_compared_in_their_order() {
        let base = Rank { violations: 1, highest: 5, sum: 10, pods: 2, started_at_ms: Reverse(100) };
        let better = [
            Rank { violations: 0, highest: 9, sum: 99, pods: 9, started_at_ms: Reverse(0) },
            Rank { highest: 4, sum: 99, pods: 9, ..base },
            Rank { sum: 9, pods: 9, ..base },
            Rank { pods: 1, started_at_ms: Reverse(0), ..base },
            Rank { started_at_ms: Reverse(101), ..base },
        ];
        assert!(better.iter().all(|rank| *rank < base), "{better:?}");
    }
}

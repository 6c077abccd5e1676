//! NodeResourcesFit: what the pod asks for must be free, and the node must take one more pod. Reports every lane that is
//! short. `Too many pods` is checked even for pods that ask for nothing; a request of zero is no request.
//!
//! The score is LeastAllocated over CPU and memory, weight 1 each: the mean of the free percentages after the pod, where a
//! container that asks for nothing counts as 100m / 200 MiB.

use super::{Cures, MAX_NODE_SCORE};

/// kube-scheduler's name.
pub const NAME: &str = "NodeResourcesFit";
/// Reason text when the node's pod count is reached.
pub const TOO_MANY_PODS: &str = "Too many pods";
/// What cures it.
pub const CURED_BY: Cures = Cures::NODE_ADDED.and(Cures::NODE_ALLOCATABLE).and(Cures::POD_GONE).and(Cures::POD_CHANGED);
/// Weight of the score.
pub const WEIGHT: i64 = 1;

/// Requests that have a bit of their own in a [`Short`]; further ones share the last bit.
pub const MAX_BITS: usize = 56;

/// Which lanes are short: bit 0 the pod count, bit `1 + i` the i-th request.
pub type Short = u64;

/// Reason text of a resource.
#[must_use]
pub fn reason(resource: &str) -> String {
    format!("Insufficient {resource}")
}

/// Evaluates a node: free pod places, and (wanted, free) of every request in the shape's order. 0: it fits.
pub fn short(free_pods: i64, requests: impl Iterator<Item = (i64, i64)>) -> Short {
    let mut short = u64::from(free_pods < 1);
    for (at, (wanted, free)) in requests.enumerate() {
        if wanted > 0 && wanted > free {
            short |= 1 << (1 + at.min(MAX_BITS - 1));
        }
    }
    short
}

/// How many copies of a pod fit: free pod places, and (wanted, free) of every request.
pub fn copies(free_pods: i64, requests: impl Iterator<Item = (i64, i64)>) -> u32 {
    let least = requests.filter(|(wanted, _)| *wanted > 0).map(|(wanted, free)| free / wanted);
    let least = least.min().unwrap_or(i64::MAX).min(free_pods);
    u32::try_from(least.max(0)).unwrap_or(u32::MAX)
}

/// LeastAllocated: `used` without the pod (with the defaults for scoring), `request` of the pod, `allocatable`; each CPU
/// and memory.
#[must_use]
pub fn score(used: [i64; 2], request: [i64; 2], allocatable: [i64; 2]) -> i64 {
    let (mut sum, mut weights) = (0, 0);
    for i in 0..2 {
        if allocatable[i] != 0 {
            sum += free_share(used[i].saturating_add(request[i]), allocatable[i]);
            weights += 1;
        }
    }
    if weights == 0 { 0 } else { sum / weights }
}

fn free_share(used: i64, capacity: i64) -> i64 {
    if used > capacity {
        return 0;
    }
    let share = (i128::from(capacity) - i128::from(used)) * i128::from(MAX_NODE_SCORE) / i128::from(capacity);
    i64::try_from(share).unwrap_or(MAX_NODE_SCORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_short_lane_is_reported() {
        assert_eq!(short(1, [(4, 4), (8, 8)].into_iter()), 0);
        assert_eq!(short(0, [(4, 3), (8, 8), (1, -5)].into_iter()), 0b1011);
        assert_eq!(short(1, [(0, -5)].into_iter()), 0);
    }

    #[test]
    fn absurd_requests_do_no_harm() {
        let many = std::iter::repeat_n((i64::MAX, i64::MIN), 200);
        assert_eq!(short(1, many).count_ones() as usize, MAX_BITS);
        assert_eq!(copies(i64::MAX, [(i64::MAX, i64::MAX)].into_iter()), 1);
        assert_eq!(copies(i64::MAX, std::iter::empty()), u32::MAX);
        assert_eq!(score([i64::MAX, i64::MAX], [i64::MAX, 0], [i64::MAX, 1]), 0);
    }

    #[test]
    fn copies_are_limited_by_the_scarcest_lane() {
        assert_eq!(copies(110, [(8, 16), (1000, 64_000)].into_iter()), 2);
        assert_eq!(copies(1, [(8, 16)].into_iter()), 1);
        assert_eq!(copies(5, [(8, -1)].into_iter()), 0);
    }

    #[test]
    fn the_score_is_the_mean_of_the_free_shares() {
        assert_eq!(score([1000, 0], [1000, 0], [4000, 1000]), (50 + 100) / 2);
        assert_eq!(score([0, 0], [5000, 100], [4000, 1000]), 45);
        assert_eq!(score([0, 0], [1, 1], [0, 0]), 0);
        assert_eq!(score([0, 0], [1000, 0], [4000, 0]), 75);
    }
}

//! NodeResourcesBalancedAllocation: prefers nodes whose CPU and memory use would be equally high after the pod, compared
//! with before it. 50..=100, about 75 when nothing changes, weight 1; skipped for pods that ask for neither.

use super::MAX_NODE_SCORE;

/// kube-scheduler's name.
pub const NAME: &str = "NodeResourcesBalancedAllocation";
/// Weight of the score.
pub const WEIGHT: i64 = 1;

/// Score of a node: `used` without the pod, `request` of the pod, `allocatable`; each CPU and memory, real requests.
#[must_use]
pub fn score(used: [i64; 2], request: [i64; 2], allocatable: [i64; 2]) -> i64 {
    let with = [used[0].saturating_add(request[0]), used[1].saturating_add(request[1])];
    let half = MAX_NODE_SCORE / 2;
    half + (half + balance(with, allocatable) - balance(used, allocatable)) / 2
}

/// 100 when both fractions are equal, less the further they are apart.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "upstream computes this score in float64 and truncates"
)]
fn balance(used: [i64; 2], allocatable: [i64; 2]) -> i64 {
    if allocatable.contains(&0) {
        return MAX_NODE_SCORE;
    }
    let fraction = |i: usize| (used[i] as f64 / allocatable[i] as f64).min(1.0);
    let std = ((fraction(0) - fraction(1)) / 2.0).abs();
    ((1.0 - std) * MAX_NODE_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_evens_out_scores_higher() {
        let allocatable = [1000, 1000];
        // 50 + (50 + after - before) / 2
        assert_eq!(score([0, 0], [100, 100], allocatable), 75);
        assert_eq!(score([0, 500], [500, 0], allocatable), 87);
        assert_eq!(score([0, 0], [1000, 0], allocatable), 50);
    }

    #[test]
    fn overcommitted_and_empty_nodes_do_no_harm() {
        assert_eq!(score([i64::MAX, 0], [i64::MAX, 0], [1000, 1000]), 75);
        assert_eq!(score([0, 0], [5, 5], [0, 0]), 75);
    }
}

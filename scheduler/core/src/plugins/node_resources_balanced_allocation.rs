//! NodeResourcesBalancedAllocation: prefers nodes whose use of some resources, by default CPU and memory, would be equally
//! high after the pod, compared with before it. 50..=100, about 75 when nothing changes, weight 1; skipped for pods that ask
//! for none of them. A resource that the node does not have is left out, and so is an extended one that the pod does not ask
//! for.

use super::MAX_NODE_SCORE;
use super::node_resources_fit::{floor, floor_of_halves};

/// kube-scheduler's name.
pub const NAME: &str = "NodeResourcesBalancedAllocation";
/// Weight of the score.
pub const WEIGHT: i64 = 1;

/// Score of a node over its resources: (real use without the pod, with it, allocatable), all allocatable more than 0.
#[must_use]
pub fn score(resources: impl Iterator<Item = (i64, i64, i64)> + Clone) -> i64 {
    let half = MAX_NODE_SCORE / 2;
    let with = balance(resources.clone().map(|(_, with, all)| (with, all)));
    let without = balance(resources.map(|(without, _, all)| (without, all)));
    half + (half + with - without) / 2
}

/// [`score`] for two resources in doubles, for looks at every node: [`balance`] without the pod, use with it. The same number
/// as long as nothing is 0 in `allocatable`, nothing is negative and nothing exceeds [`super::node_resources_fit::EXACT`].
#[inline]
#[must_use]
pub fn score_of_doubles(before: f64, with: [f64; 2], allocatable: [f64; 2]) -> f64 {
    let fraction = |i: usize| (with[i] / allocatable[i]).min(1.0);
    let std = ((fraction(0) - fraction(1)) / 2.0).abs();
    let after = floor((1.0 - std) * 100.0);
    50.0 + floor_of_halves((50.0 + after - before) / 2.0)
}

/// 100 when all fractions are equal, less the further they are apart.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "upstream computes this score in float64 and truncates"
)]
pub(crate) fn balance(used: impl Iterator<Item = (i64, i64)> + Clone) -> i64 {
    let fractions = used.map(|(used, all)| (used as f64 / all as f64).min(1.0));
    let (mut sum, mut count) = (0.0, 0_u32);
    for fraction in fractions.clone() {
        sum += fraction;
        count += 1;
    }
    let std = match count {
        0 | 1 => 0.0,
        // What upstream does for two, which rounds otherwise than the general form.
        2 => {
            let mut both = fractions;
            let (first, second) = (both.next().unwrap_or_default(), both.next().unwrap_or_default());
            ((first - second) / 2.0).abs()
        }
        _ => {
            let mean = sum / f64::from(count);
            let squares = fractions.fold(0.0, |sum, fraction| sum + (fraction - mean) * (fraction - mean));
            (squares / f64::from(count)).sqrt()
        }
    };
    ((1.0 - std) * MAX_NODE_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::node_resources_fit::EXACT;
    use crate::snapshot::double;
    use proptest::prelude::*;

    fn of(resources: &[(i64, i64, i64)]) -> i64 {
        score(resources.iter().copied())
    }

    #[test]
    fn a_pod_that_evens_out_scores_higher() {
        // 50 + (50 + after - before) / 2
        assert_eq!(of(&[(0, 100, 1000), (0, 100, 1000)]), 75);
        assert_eq!(of(&[(0, 500, 1000), (500, 500, 1000)]), 87);
        assert_eq!(of(&[(0, 1000, 1000), (0, 0, 1000)]), 50);
    }

    #[test]
    fn more_than_two_resources_are_balanced_by_their_standard_deviation() {
        // Fractions 0.1, 0.5, 0.9 after, all 0.1 before: deviation 0.3265.
        assert_eq!(of(&[(100, 100, 1000), (100, 500, 1000), (100, 900, 1000)]), 50 + (50 + 67 - 100) / 2);
    }

    #[test]
    fn overcommitted_and_empty_nodes_do_no_harm() {
        assert_eq!(of(&[(i64::MAX, i64::MAX, 1000), (0, 0, 1000)]), 75);
        assert_eq!(of(&[]), 75);
        assert_eq!(of(&[(0, 5, 10)]), 75);
    }

    proptest! {
        #[test]
        fn doubles_score_as_integers_do(
            allocatable in [1..=EXACT, 1..=EXACT],
            used in [0..=EXACT, 0..=EXACT],
            percent in [0i64..=110, 0i64..=110],
            request in [0..=EXACT, 0i64..=5],
        ) {
            let even: [i64; 2] = std::array::from_fn(|i| (allocatable[i] / 100 * percent[i]).min(EXACT));
            for used in [used, even] {
                let with = std::array::from_fn(|i| double(used[i]) + double(request[i]));
                let before = double(balance(used.into_iter().zip(allocatable)));
                let around: [(i64, i64, i64); 2] = std::array::from_fn(|i| (used[i], used[i] + request[i], allocatable[i]));
                let expected = of(&around);
                prop_assert_eq!(score_of_doubles(before, with, allocatable.map(double)), double(expected));
            }
        }
    }
}

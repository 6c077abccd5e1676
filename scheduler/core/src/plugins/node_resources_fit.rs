//! NodeResourcesFit: what the pod asks for must be free, and the node must take one more pod. Reports every lane that is
//! short. `Too many pods` is checked even for pods that ask for nothing; a request of zero is no request. What a DeviceClass
//! stands for is not looked at on nodes that do not offer it themselves ([`super::dynamic_resources`]).
//!
//! The score is a weighted mean over some resources ([`Strategy`]), by default LeastAllocated over CPU and memory, weight 1
//! each: the mean of the free percentages after the pod, where a container that asks for nothing counts as 100m / 200 MiB.
//! A resource that the node does not have is left out, and so is an extended one that the pod does not ask for.

use super::{Cures, MAX_NODE_SCORE};

/// kube-scheduler's name.
pub const NAME: &str = "NodeResourcesFit";
/// Reason text when the node's pod count is reached.
pub const TOO_MANY_PODS: &str = "Too many pods";
/// What cures it.
pub const CURED_BY: Cures = Cures::NODE_ADDED.and(Cures::NODE_ALLOCATABLE).and(Cures::POD_GONE).and(Cures::POD_CHANGED);
/// What cures it for a resource that a DeviceClass may stand for.
pub const CURED_BY_CLASSES: Cures = CURED_BY.and(Cures::DEVICE_CLASSES);
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

/// How the use of a resource becomes a score.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// The share that stays free.
    #[default]
    LeastAllocated,
    /// The share in use.
    MostAllocated,
    /// A line through these points of (utilization in percent, score 0..=100), ascending; flat beyond its ends.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

impl Strategy {
    /// Score of a node over its resources: (weight, use after the pod, allocatable), all allocatable more than 0.
    #[must_use]
    pub fn score(&self, resources: impl Iterator<Item = (i64, i64, i64)>) -> i64 {
        match self {
            Self::LeastAllocated => mean(resources.map(|(weight, used, all)| (weight, free_share(used, all)))),
            Self::MostAllocated => mean(resources.map(|(weight, used, all)| (weight, used_share(used, all)))),
            Self::RequestedToCapacityRatio(points) => {
                let scored = resources.map(|(weight, used, all)| (weight, on_line(points, utilization(used, all))));
                rounded_mean(scored.filter(|(_, score)| *score > 0))
            }
        }
    }
}

fn sums(scores: impl Iterator<Item = (i64, i64)>) -> (i64, i64) {
    scores.fold((0, 0), |(sum, weights), (weight, score)| (sum + weight * score, weights + weight))
}

fn mean(scores: impl Iterator<Item = (i64, i64)>) -> i64 {
    let (sum, weights) = sums(scores);
    if weights == 0 { 0 } else { sum / weights }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "as upstream; the sums are small")]
fn rounded_mean(scores: impl Iterator<Item = (i64, i64)>) -> i64 {
    let (sum, weights) = sums(scores);
    if weights == 0 { 0 } else { (sum as f64 / weights as f64).round() as i64 }
}

/// LeastAllocated for two resources of equal weight in doubles, for looks at every node: `used` with the pod. The same number as long as no capacity is 0, nothing
/// is negative and nothing exceeds [`EXACT`]: the quotient of two integers below 2^53 is never rounded up to the next one.
#[inline]
#[must_use]
pub fn score_of_doubles(used: [f64; 2], capacity: [f64; 2]) -> f64 {
    let share = |i: usize| floor((capacity[i] - used[i]).max(0.0) * 100.0 / capacity[i]);
    floor_of_halves((share(0) + share(1)) / 2.0)
}

/// Largest amount that [`score_of_doubles`] takes: a hundred times as much is an integer that a double holds.
pub const EXACT: i64 = 1 << 46;

/// From here on doubles are whole numbers: what is added to it is rounded to the nearest one.
const WHOLE: f64 = (1_u64 << 52) as f64;

/// The integral part of a number from 0 to 2^51, by instructions that every machine has for several numbers at once.
#[inline]
pub(super) fn floor(x: f64) -> f64 {
    let nearest = (x + WHOLE) - WHOLE;
    if nearest > x { nearest - 1.0 } else { nearest }
}

/// The same for a multiple of one half.
#[inline]
pub(super) fn floor_of_halves(x: f64) -> f64 {
    (x - 0.25 + WHOLE) - WHOLE
}

fn free_share(used: i64, capacity: i64) -> i64 {
    if used > capacity { 0 } else { percent(i128::from(capacity) - i128::from(used), capacity) }
}

fn used_share(used: i64, capacity: i64) -> i64 {
    percent(i128::from(used.min(capacity)), capacity)
}

fn utilization(used: i64, capacity: i64) -> i64 {
    if used > capacity { MAX_NODE_SCORE } else { percent(i128::from(used), capacity) }
}

fn percent(part: i128, of: i64) -> i64 {
    i64::try_from(part * i128::from(MAX_NODE_SCORE) / i128::from(of)).unwrap_or(MAX_NODE_SCORE)
}

/// Where the line through ascending points is at `x`; flat beyond its ends.
pub(super) fn on_line(points: &[(i64, i64)], x: i64) -> i64 {
    let after = points.partition_point(|(at, _)| *at < x);
    match (after.checked_sub(1).map(|before| points[before]), points.get(after)) {
        (None, Some(first)) => first.1,
        (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
        (Some(last), None) => last.1,
        (None, None) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::Strategy;
    use super::*;
    use crate::snapshot::double;
    use proptest::prelude::*;

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
        assert_eq!(least(&[(1, i64::MAX, i64::MAX), (1, i64::MAX, 1)]), 0);
        assert_eq!(Strategy::MostAllocated.score([(1, i64::MAX, i64::MAX)].into_iter()), 100);
    }

    #[test]
    fn copies_are_limited_by_the_scarcest_lane() {
        assert_eq!(copies(110, [(8, 16), (1000, 64_000)].into_iter()), 2);
        assert_eq!(copies(1, [(8, 16)].into_iter()), 1);
        assert_eq!(copies(5, [(8, -1)].into_iter()), 0);
    }

    fn least(resources: &[(i64, i64, i64)]) -> i64 {
        Strategy::LeastAllocated.score(resources.iter().copied())
    }

    #[test]
    fn the_score_is_the_weighted_mean_of_the_free_shares() {
        assert_eq!(least(&[(1, 2000, 4000), (1, 0, 1000)]), (50 + 100) / 2);
        assert_eq!(least(&[(1, 5000, 4000), (1, 100, 1000)]), 45);
        assert_eq!(least(&[(3, 2000, 4000), (1, 0, 1000)]), (150 + 100) / 4);
        assert_eq!(least(&[]), 0);
    }

    #[test]
    fn packing_scores_what_is_in_use() {
        let most = |resources: &[(i64, i64, i64)]| Strategy::MostAllocated.score(resources.iter().copied());
        assert_eq!(most(&[(1, 2000, 4000), (1, 100, 1000)]), (50 + 10) / 2);
        assert_eq!(most(&[(1, 5000, 4000)]), 100, "more than there is counts as all of it");
    }

    #[test]
    fn a_line_maps_utilization_to_a_score() {
        let line = Strategy::RequestedToCapacityRatio(vec![(20, 0), (60, 80), (100, 100)]);
        let score = |used| line.score([(1, used, 100)].into_iter());
        assert_eq!([0, 20, 40, 60, 80, 100, 500].map(score), [0, 0, 40, 80, 90, 100, 100]);
        let falling = Strategy::RequestedToCapacityRatio(vec![(0, 100), (100, 0)]);
        assert_eq!(falling.score([(1, 25, 100), (1, 100, 100)].into_iter()), 75, "what scores 0 is left out");
        assert_eq!(falling.score([(1, 25, 100), (1, 34, 100)].into_iter()), 71, "70.5 is rounded up");
    }

    proptest! {
        #[test]
        fn doubles_score_as_integers_do(
            capacity in [1..=EXACT, 1..=EXACT],
            parts in [0i64..=1_000, 0i64..=1_000],
            off in [-1i64..=1, -1i64..=1],
            requests in [0..=EXACT, 0i64..=5],
        ) {
            // Close to a whole percentage, where rounding would show.
            let used: [i64; 2] = std::array::from_fn(|i| {
                let part = i128::from(capacity[i]) * i128::from(parts[i]) / 1_000;
                (i64::try_from(part).unwrap() + off[i]).clamp(0, EXACT)
            });
            for request in [[0, 0], requests, [requests[1], 0]] {
                let with = std::array::from_fn(|i| double(used[i]) + double(request[i]));
                let after: [(i64, i64, i64); 2] = std::array::from_fn(|i| (1, used[i] + request[i], capacity[i]));
                let expected = least(&after);
                prop_assert_eq!(score_of_doubles(with, capacity.map(double)), double(expected));
            }
        }
    }
}

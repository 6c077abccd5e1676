//! Gang packing: which of several places leaves the cluster in one piece. Not a kube-scheduler plugin; it decides only
//! about gangs, whose members prefer standing close together over standing on the emptiest nodes.
//!
//! Between domains that fit the whole gang, the one with the least left over wins: a gang that fits in a half-used NVLink
//! domain never breaks a whole one. Inside a domain the largest parts are filled first, so that the fewest are used, and
//! what remains goes to the tightest part that takes all of it. Between equal parts soft taints and preferred affinity
//! decide, then the id.

use std::cmp::Reverse;

/// Distributes `need` members over parts with `(slots, tie)`: which parts take how many. The parts must have enough slots
/// together, else what fits is returned. `O(parts · log parts)`.
#[must_use]
pub fn distribute<T: Ord + Copy>(mut parts: Vec<(u64, T)>, need: u64) -> Vec<(T, u64)> {
    parts.retain(|(slots, _)| *slots > 0);
    parts.sort_unstable_by_key(|(slots, tie)| (Reverse(*slots), *tie));
    let mut taken = Vec::new();
    let (mut at, mut left) = (0, need);
    while left > 0 && at < parts.len() {
        if parts[at].0 >= left {
            let fitting = &parts[at..][..parts[at..].partition_point(|(slots, _)| *slots >= left)];
            let least = fitting.last().map_or(0, |(slots, _)| *slots);
            let tightest = fitting.partition_point(|(slots, _)| *slots > least);
            taken.push((fitting[tightest].1, left));
            return taken;
        }
        taken.push((parts[at].1, parts[at].0));
        left -= parts[at].0;
        at += 1;
    }
    taken
}

/// Distributes `need` members over all of these parts as evenly as their slots let; the parts must have enough together.
/// `O(parts · log parts)`.
#[must_use]
pub fn evenly<T: Ord + Copy>(mut parts: Vec<(u64, T)>, need: u64) -> Vec<(T, u64)> {
    parts.sort_unstable();
    let mut left = need;
    let mut taken = Vec::with_capacity(parts.len());
    for (at, (slots, part)) in parts.iter().enumerate() {
        let others = u64::try_from(parts.len() - at).unwrap_or(u64::MAX);
        let takes = (*slots).min(left / others);
        taken.push((*part, takes));
        left -= takes;
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(parts: &[u64], need: u64) -> Vec<(usize, u64)> {
        distribute(parts.iter().enumerate().map(|(i, s)| (*s, i)).collect(), need)
    }

    #[test]
    fn the_tightest_part_that_fits_all_wins() {
        assert_eq!(take(&[8, 4, 2, 4], 3), [(1, 3)]);
        assert_eq!(take(&[8, 8], 8), [(0, 8)]);
    }

    #[test]
    fn otherwise_the_largest_parts_are_filled_and_the_rest_goes_where_it_is_tightest() {
        assert_eq!(take(&[1, 3, 3, 2], 5), [(1, 3), (3, 2)]);
        assert_eq!(take(&[4, 4, 4, 1], 9), [(0, 4), (1, 4), (3, 1)]);
    }

    #[test]
    fn too_few_slots_give_what_there_is() {
        assert_eq!(take(&[0, 2, 1], 9), [(1, 2), (2, 1)]);
        assert_eq!(take(&[], 1), []);
        assert_eq!(take(&[3], 0), []);
    }

    #[test]
    fn evenly_means_that_only_those_take_less_that_have_no_more() {
        let parts = [4, 1, 8].iter().enumerate().map(|(i, s)| (*s, i)).collect();
        assert_eq!(evenly(parts, 9), [(1, 1), (0, 4), (2, 4)]);
        assert_eq!(evenly(vec![(3, 0), (3, 1)], 5), [(0, 2), (1, 3)]);
    }
}

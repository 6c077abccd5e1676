//! Aligned groups of one size, and how many of them fit side by side into what is free.

use super::{Board, GpuSet};

/// Sets of a size that are looked at; a size with more has no groups.
const MAX_SETS: u64 = 2_000;
/// Steps of a search for groups side by side; what was found until then counts.
const MAX_STEPS: u32 = 20_000;

/// The aligned groups of a size.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    size: u32,
    /// In ascending order.
    sets: Vec<GpuSet>,
}

impl Groups {
    /// Those of a board; None where there are too many sets to look at. `O(sets · cost)`.
    pub(super) fn of(board: &mut Board, size: u32) -> Option<Self> {
        let gpus = board.all().count_ones();
        if size == 0 || size > gpus || choices(gpus, size) > MAX_SETS {
            return None;
        }
        let mut best = None;
        let mut sets = Vec::new();
        for set in subsets(board.all(), size) {
            let worth = (board.cost_ns_per_gib(set), board.spread(set));
            if best.is_none_or(|best| worth < best) {
                best = Some(worth);
                sets.clear();
            }
            if best == Some(worth) {
                sets.push(set);
            }
        }
        Some(Self { size, sets })
    }

    /// The most groups among these GPUs of which no two share one.
    pub(super) fn apart(&self, free: GpuSet) -> u32 {
        self.most(free, &mut { MAX_STEPS })
    }

    /// The lowest GPU is in one of the groups, or in none. Most boards need few steps: where all sets are alike the first try
    /// reaches the bound, and where they are not few hold the lowest GPU.
    fn most(&self, free: GpuSet, steps: &mut u32) -> u32 {
        let bound = free.count_ones() / self.size;
        if bound == 0 {
            return 0;
        }
        let lowest = free & free.wrapping_neg();
        let mut most = 0;
        for set in self.sets.iter().filter(|set| **set & free == **set && **set & lowest != 0) {
            let Some(left) = steps.checked_sub(1) else { return most };
            *steps = left;
            most = most.max(1 + self.most(free & !set, steps));
            if most == bound {
                return most;
            }
        }
        most.max(self.most(free & !lowest, steps))
    }
}

/// How many sets of a size there are; saturates.
fn choices(of: u32, size: u32) -> u64 {
    (0..u64::from(size)).fold(1, |sum: u64, at| sum.saturating_mul(u64::from(of) - at) / (at + 1))
}

/// All sets of a size of the lowest GPUs, ascending (Gosper's way).
fn subsets(all: GpuSet, size: u32) -> impl Iterator<Item = GpuSet> {
    let first = if size >= GpuSet::BITS { GpuSet::MAX } else { (1 << size) - 1 };
    std::iter::successors(Some(first), move |set| {
        let lowest = set & set.wrapping_neg();
        let ripple = set.checked_add(lowest)?;
        Some((((ripple ^ set) >> 2) / lowest) | ripple)
    })
    .take_while(move |set| set & !all == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_of_a_size_is_looked_at_once() {
        let pairs: Vec<GpuSet> = subsets(0b1111, 2).collect();
        assert_eq!(pairs, [0b0011, 0b0101, 0b0110, 0b1001, 0b1010, 0b1100]);
        assert_eq!(subsets(0xff, 4).count(), 70);
        assert_eq!(subsets(0xff, 8).collect::<Vec<_>>(), [0xff]);
        assert_eq!(subsets(GpuSet::MAX, 64).collect::<Vec<_>>(), [GpuSet::MAX]);
        assert_eq!([choices(8, 4), choices(64, 2), choices(4, 4)], [70, 2016, 1]);
    }

    #[test]
    fn groups_side_by_side_are_as_many_as_can_be() {
        // A path 1-2-3-4: greedily from the middle there is one, really two.
        let path = Groups { size: 2, sets: vec![0b00110, 0b01100, 0b11000] };
        assert_eq!([path.apart(0b11110), path.apart(0b01110), path.apart(0b10010)], [2, 1, 0]);
    }
}

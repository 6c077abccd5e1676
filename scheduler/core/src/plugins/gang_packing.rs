//! Gang packing: which of several places leaves the cluster in one piece. Not a kube-scheduler plugin; it decides only
//! about gangs, whose members prefer standing close together over standing on the emptiest nodes.
//!
//! Between domains that fit the whole gang, the one with the least left over wins: a gang that fits in a half-used NVLink
//! domain never breaks a whole one. When no child fits all, the largest is filled first, so that the fewest are used.

/// Key of a domain or node that could take all of the remaining members; the smallest wins, then the id.
#[must_use]
pub fn best_fit(slots: u64, need: u64) -> u64 {
    slots.saturating_sub(need)
}

/// Picks the next part of a domain to fill with `need` members from `(slots, tie)` of its parts: the tightest that fits
/// all, else the largest. None when no part has a slot. `O(parts)`.
#[must_use]
pub fn next_part<T: Ord + Copy>(parts: impl Iterator<Item = (u64, T)>, need: u64) -> Option<T> {
    let mut fitting: Option<(u64, T)> = None;
    let mut largest: Option<(u64, T)> = None;
    for (slots, tie) in parts.filter(|(slots, _)| *slots > 0) {
        if slots >= need && fitting.is_none_or(|best| (best_fit(slots, need), tie) < (best_fit(best.0, need), best.1)) {
            fitting = Some((slots, tie));
        }
        if largest.is_none_or(|best| slots > best.0 || (slots == best.0 && tie < best.1)) {
            largest = Some((slots, tie));
        }
    }
    fitting.or(largest).map(|(_, tie)| tie)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(parts: &[u64], need: u64) -> Option<usize> {
        next_part(parts.iter().enumerate().map(|(i, s)| (*s, i)), need)
    }

    #[test]
    fn the_tightest_part_that_fits_all_wins() {
        assert_eq!(next(&[8, 4, 2, 4], 3), Some(1));
        assert_eq!(next(&[8, 8], 8), Some(0));
    }

    #[test]
    fn otherwise_the_largest_part_is_filled_first() {
        assert_eq!(next(&[1, 3, 3, 2], 5), Some(1));
        assert_eq!(next(&[0, 0], 1), None);
    }
}

//! A strip of cells: how far a workflow or a gang has come, at a glance.
//!
//! One cell for each node or member while they fit, else each cell stands for several. A part that is there at all shows
//! at least one cell, so that a single failure among thousands is seen; what is left over is taken from the widest part.

use super::style::{Style, Tone};

/// Most cells.
const CELLS: usize = 16;

/// One part of the whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) count: usize,
    pub(crate) tone: Tone,
    /// Filled cells are done or live; empty ones are still to come.
    pub(crate) filled: bool,
}

/// The strip of these parts, in their order; empty where there is less than two to show.
pub(crate) fn strip(parts: &[Part], style: Style) -> String {
    let total: usize = parts.iter().map(|part| part.count).sum();
    if total < 2 {
        return String::new();
    }
    let cells = shares(parts, total);
    let cell = |filled| if filled { "▰" } else { "▱" };
    parts.iter().zip(cells).map(|(part, n)| style.paint(part.tone, &cell(part.filled).repeat(n))).collect()
}

/// Cells of each part; together `min(total, CELLS)`.
fn shares(parts: &[Part], total: usize) -> Vec<usize> {
    let cells = total.min(CELLS);
    let mut shares: Vec<usize> =
        parts.iter().map(|part| (part.count * cells / total).max(usize::from(part.count > 0))).collect();
    loop {
        let used: usize = shares.iter().sum();
        let widest = (0..shares.len()).max_by_key(|&at| (shares[at], usize::MAX - at));
        match (widest, used.cmp(&cells)) {
            (Some(at), std::cmp::Ordering::Less) => shares[at] += 1,
            (Some(at), std::cmp::Ordering::Greater) => shares[at] -= 1,
            _ => return shares,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(done: usize, failed: usize, left: usize) -> String {
        let part = |count, tone, filled| Part { count, tone, filled };
        strip(
            &[part(done, Tone::Good, true), part(failed, Tone::Bad, true), part(left, Tone::Quiet, false)],
            Style::default(),
        )
    }

    #[test]
    fn each_has_a_cell_while_they_fit() {
        assert_eq!(show(3, 0, 1), "▰▰▰▱");
        assert_eq!(show(0, 0, 2), "▱▱");
        assert_eq!(show(1, 0, 0), "", "nothing to compare");
        assert_eq!(show(0, 0, 0), "");
    }

    #[test]
    fn many_share_cells_and_the_least_is_still_seen() {
        assert_eq!(show(4096, 0, 4096), "▰▰▰▰▰▰▰▰▱▱▱▱▱▱▱▱");
        let part = |count| Part { count, tone: Tone::Good, filled: true };
        assert_eq!(shares(&[part(8190), part(1), part(1)], 8192), [14, 1, 1]);
        for (a, b, c) in [(17, 0, 0), (1, 1, 30), (10, 10, 10), (0, 1, 20_000), (333, 333, 334)] {
            let shares = shares(&[part(a), part(b), part(c)], a + b + c);
            assert_eq!(shares.iter().sum::<usize>(), CELLS, "{a} {b} {c}");
            assert!([a, b, c].iter().zip(&shares).all(|(count, share)| (*count > 0) == (*share > 0)), "{shares:?}");
        }
    }
}

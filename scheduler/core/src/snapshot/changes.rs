//! The change log: which nodes changed since a cache last looked. Caches read what is new, `O(changes)`; one that is too
//! far behind starts over.

use std::collections::VecDeque;

/// Most entries kept, at least; more on big clusters (four per node).
const MIN_KEPT: usize = 1 << 16;

/// A bounded log of node indexes. Sequence numbers only grow; rolling back a transaction is a change like any other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    first: u64,
    entries: VecDeque<u32>,
}

impl Changes {
    /// Sequence number of the next entry.
    pub(crate) fn seq(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Notes that a node changed; `nodes` is the number of nodes.
    pub(crate) fn note(&mut self, node: u32, nodes: usize) {
        self.entries.push_back(node);
        if self.entries.len() > MIN_KEPT.max(nodes.saturating_mul(4)) {
            let half = self.entries.len() / 2;
            self.entries.drain(..half);
            self.first += half as u64;
        }
    }

    /// Forgets what was noted since, where nobody has read it and it was undone without a trace.
    pub(crate) fn rewind(&mut self, seq: u64) {
        if let Some(kept) = seq.checked_sub(self.first).and_then(|kept| usize::try_from(kept).ok()) {
            self.entries.truncate(kept);
        }
    }

    /// The nodes that changed since, perhaps repeated; None when the log does not reach back so far.
    pub(crate) fn since(&self, seq: u64) -> Option<impl Iterator<Item = u32> + '_> {
        let skip = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        Some(self.entries.iter().skip(skip).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_what_is_new_and_learn_when_they_are_too_late() {
        let mut log = Changes::default();
        log.note(3, 1);
        let seq = log.seq();
        log.note(5, 1);
        log.note(3, 1);
        assert_eq!(log.since(seq).unwrap().collect::<Vec<_>>(), [5, 3]);
        assert_eq!(log.since(log.seq()).unwrap().count(), 0);
        for i in 0..(2 * u32::try_from(MIN_KEPT).unwrap()) {
            log.note(i, 1);
        }
        assert!(log.since(seq).is_none());
        assert!(log.entries.len() <= MIN_KEPT);
    }
}

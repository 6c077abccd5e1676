//! Sets of ranks as short text (`0-6,8`), the form in which a Gang's status records its members: a whole gang of 8,192 is
//! six bytes, and one that half ended stays far below the object limit.

use std::collections::BTreeSet;
use std::fmt::Write;

/// Packs a set: ascending, runs of two or more as `first-last`.
#[must_use]
pub fn pack(ranks: &BTreeSet<u32>) -> String {
    let mut text = String::new();
    let mut rest = ranks.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|&r| r == last + 1) {
            last = next;
        }
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = if first == last { write!(text, "{comma}{first}") } else { write!(text, "{comma}{first}-{last}") };
    }
    text
}

/// Unpacks ranks below `replicas`; parts that are no ranks are left out, so that no text can do harm.
#[must_use]
pub fn unpack(text: &str, replicas: u32) -> BTreeSet<u32> {
    let mut ranks = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            ranks.extend((first..=last.min(replicas.saturating_sub(1))).take_while(|&r| r < replicas));
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_survives_being_packed(ranks in prop::collection::btree_set(0u32..300, 0..200)) {
            prop_assert_eq!(unpack(&pack(&ranks), 300), ranks);
        }

        #[test]
        fn no_text_does_harm(text in ".{0,40}", replicas in 0u32..50) {
            prop_assert!(unpack(&text, replicas).iter().all(|&r| r < replicas));
        }
    }

    #[test]
    fn runs_are_short() {
        assert_eq!(pack(&BTreeSet::from([0, 1, 2, 5, 7, 8])), "0-2,5,7-8");
        assert_eq!(pack(&(0..8192).collect()), "0-8191");
        assert_eq!(pack(&BTreeSet::new()), "");
        assert!(unpack("0-4294967295", 3).len() == 3);
    }

    #[test]
    fn the_worst_set_of_the_largest_gang_stays_small() {
        let text = pack(&(0..8192).step_by(2).collect());
        assert!(text.len() < 24 << 10, "{} bytes", text.len());
    }
}

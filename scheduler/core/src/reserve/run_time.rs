//! How long a pod runs at most, as it declares it: a part of its shape, so that pods of one template share an answer.
//!
//! What is declared is rounded up to one of eight steps per doubling (whole seconds up to sixteen): pods whose run times are
//! almost alike are of one shape, and whoever is let in for a short while is gone no later than was assumed.

use crate::model::Millis;
use smol_str::SmolStr;

/// Steps per doubling.
const STEPS: u64 = 8;

/// A declared run time, rounded up by an eighth at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunTime(u16);

impl RunTime {
    /// Nothing is declared: it may run for ever.
    pub const UNKNOWN: Self = Self(0);
    /// What is declared is no duration; counts as nothing.
    pub const INVALID: Self = Self(u16::MAX);

    /// What a pod declares.
    #[must_use]
    pub fn of(declared: Option<&Result<Millis, SmolStr>>) -> Self {
        match declared {
            None => Self::UNKNOWN,
            Some(Err(_)) => Self::INVALID,
            Some(Ok(ms)) => Self::at_least(*ms),
        }
    }

    fn at_least(ms: Millis) -> Self {
        let seconds = ms.div_ceil(1_000).clamp(1, 1 << 40);
        let doublings = u64::from(seconds.ilog2()).saturating_sub(3);
        let steps = seconds.div_ceil(1 << doublings);
        Self(u16::try_from(doublings * STEPS + steps).unwrap_or(Self::INVALID.0))
    }

    /// The longest that such a pod runs; None where nobody says.
    #[must_use]
    pub fn ms(self) -> Option<Millis> {
        if self == Self::UNKNOWN || self == Self::INVALID {
            return None;
        }
        let class = u64::from(self.0);
        let doublings = (class / STEPS).saturating_sub(1);
        Some(((class - doublings * STEPS) << doublings) * 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(ms: Millis) -> Millis {
        RunTime::of(Some(&Ok(ms))).ms().expect("it is declared")
    }

    #[test]
    fn short_run_times_are_whole_seconds_and_long_ones_grow_by_an_eighth_at_most() {
        assert_eq!([rounded(1), rounded(1_000), rounded(1_001), rounded(16_000)], [1_000, 1_000, 2_000, 16_000]);
        assert_eq!([rounded(16_001), rounded(18_000), rounded(3_600_000)], [18_000, 18_000, 3_840_000]);
        for seconds in (1..200_000_u64).step_by(7) {
            let (exact, up) = (seconds * 1_000, rounded(seconds * 1_000));
            assert!(up >= exact && up <= exact + exact / 8, "{exact} became {up}");
            assert_eq!(rounded(up), up, "rounding twice changes nothing");
        }
    }

    #[test]
    fn what_is_not_declared_or_no_duration_never_ends() {
        let wrong = Err(SmolStr::new_static("soon"));
        assert_eq!([RunTime::of(None).ms(), RunTime::of(Some(&wrong)).ms()], [None, None]);
        assert_ne!(RunTime::of(None), RunTime::of(Some(&wrong)));
        assert!(rounded(Millis::MAX) > 0);
    }
}

//! Deadlines. One wish is outstanding at the shell: the earliest; a deadline that lost its sense is harmless, because
//! what it wakes looks at its own state first.

use crate::command::Command;
use crate::ids::NodeIx;
use crate::state::Config;
use std::collections::BTreeSet;

/// What a deadline wakes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Wake {
    /// An open gang.
    Gang(NodeIx),
    /// The workflow's own time.
    Workflow,
    /// The workflow's time to live.
    Ttl,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Timers {
    due: BTreeSet<(u64, Wake)>,
    asked_at_ms: Option<u64>,
}

impl Timers {
    /// Wakes `what` at `at_ms` or soon after.
    pub(crate) fn set(&mut self, at_ms: u64, what: Wake) {
        self.due.insert((at_ms, what));
    }

    /// The next deadline that has come, taken off.
    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<Wake> {
        let first = *self.due.first()?;
        (first.0 <= now_ms).then(|| {
            self.due.pop_first();
            first.1
        })
    }

    /// The shell's own timer has gone off, or was lost: ask again.
    pub(crate) const fn rang(&mut self) {
        self.asked_at_ms = None;
    }

    /// Asks the shell to come back for the earliest deadline, if it does not know.
    pub(crate) fn ask(&mut self, out: &mut Vec<Command>) {
        let earliest = self.due.first().map(|(at_ms, _)| *at_ms);
        if earliest.is_some() && earliest != self.asked_at_ms {
            self.asked_at_ms = earliest;
            out.extend(earliest.map(|at_ms| Command::WakeAt { at_ms }));
        }
    }
}

/// Pause before try number `round` (from 0): doubles from the base to the cap, spread over its upper half by the seed,
/// so that gangs that refused each other do not meet again.
pub(crate) fn backoff_ms(config: &Config, node: NodeIx, round: u32) -> u64 {
    let pause = config.retry_base_ms.saturating_mul(1 << round.min(40)).min(config.retry_cap_ms);
    pause / 2 + spread(config.seed, node, round) % (pause / 2 + 1)
}

/// How long a gang that quota refuses keeps its half: one to two times the bound.
pub(crate) fn quota_hold_ms(config: &Config, node: NodeIx, round: u32) -> u64 {
    let more = spread(config.seed ^ 0x51AF, node, round) % config.quota_hold_ms.saturating_add(1);
    config.quota_hold_ms.saturating_add(more)
}

/// The splitmix64 finalizer (Steele, Lea, Flood: Fast splittable pseudorandom number generators) over the three values.
pub(crate) fn spread(seed: u64, node: NodeIx, round: u32) -> u64 {
    let mut z = seed ^ (u64::from(node.0) << 32 | u64::from(round)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_stay_in_their_upper_half() {
        let config = Config { seed: 7, ..Config::default() };
        for round in 0..200 {
            let pause = (config.retry_base_ms << round.min(6)).min(config.retry_cap_ms);
            let got = backoff_ms(&config, NodeIx(3), round);
            assert!(got >= pause / 2 && got <= pause, "round {round}: {got} of {pause}");
        }
    }

    #[test]
    fn the_shell_is_asked_only_when_the_earliest_deadline_changes() {
        let (mut timers, mut out) = (Timers::default(), Vec::new());
        for at_ms in [50, 70, 20] {
            timers.set(at_ms, Wake::Ttl);
            timers.ask(&mut out);
        }
        assert_eq!(out, [Command::WakeAt { at_ms: 50 }, Command::WakeAt { at_ms: 20 }]);
        assert_eq!(timers.pop(19), None);
        assert_eq!(timers.pop(20), Some(Wake::Ttl));
        timers.rang();
        timers.ask(&mut out);
        assert_eq!(out.last(), Some(&Command::WakeAt { at_ms: 50 }));
    }
}

//! When a failed attempt is followed by another one, and how soon.
//!
//! ```text
//!   attempt fails ──class──> may it be tried again? ──budget of the class──> left? ──backoff──> the next attempt
//! ```
//! | What failed it ([`crate::reason::Class`]) | Tried again | Budget |
//! |---|---|---|
//! | User | when `on` is absent, or names its exit code or reason | `limit` |
//! | Infrastructure, but for a deleted Gang | always | `infrastructureLimit` |
//! | Policy, Stopped | never | |

use crate::reason::{Cause, Class, Reason};
use smol_str::SmolStr;
use std::collections::BTreeSet;

/// Most nodes that the next attempt avoids.
const MAX_AVOIDED: usize = 16;

/// How a node is tried again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retry {
    /// Attempts after a failure of the user's.
    pub limit: u32,
    /// Attempts after a failure of the infrastructure.
    pub infrastructure_limit: u32,
    /// Pause before the second attempt.
    pub initial_ms: u64,
    /// By what each further pause is longer.
    pub factor: u32,
    /// Longest pause.
    pub cap_ms: u64,
    /// How much of a pause is random, in per cent.
    pub jitter_percent: u32,
    /// What is made again.
    pub scope: Scope,
    /// Which failures of the user's are tried again; all when `None`.
    pub on: Option<On>,
    /// How long after the decision an attempt whose pods do not stop is given up, so that the next one can start although
    /// the old one may still run; never when `None`.
    pub force_after_ms: Option<u64>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            limit: 0,
            infrastructure_limit: 3,
            initial_ms: 10_000,
            factor: 2,
            cap_ms: 300_000,
            jitter_percent: 10,
            scope: Scope::Gang,
            on: None,
            force_after_ms: None,
        }
    }
}

/// What is made again.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Scope {
    /// The whole gang, as a new attempt.
    #[default]
    Gang,
    /// The failed member, in the same attempt, up to `limit` times a member; then the gang fails for good.
    Member,
}

/// Failures that are tried again.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct On {
    /// By exit code of the root cause.
    pub exit_codes: BTreeSet<i32>,
    /// By reason of the root cause.
    pub reasons: BTreeSet<Reason>,
}

/// What an attempt was made with: written into its Gang, because the claim is all that a restart finds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Attempts before it that were charged to the user's budget.
    pub user: u32,
    /// Attempts before it that were charged to the infrastructure's budget.
    pub infrastructure: u32,
    /// Its pods are not made before, milliseconds since the epoch.
    pub not_before_ms: u64,
    /// Machines that its pods avoid where they can, the latest last.
    pub avoid: Vec<SmolStr>,
}

impl Retry {
    /// Whether a failure of this kind is tried again, budgets aside.
    #[must_use]
    pub fn covers(&self, cause: &Cause) -> bool {
        match (cause.reason.class(), &self.on) {
            (Class::Infrastructure, _) => cause.reason != Reason::GangDeleted,
            (Class::User, None) => true,
            (Class::User, Some(on)) => {
                on.reasons.contains(&cause.reason) || cause.exit_code.is_some_and(|code| on.exit_codes.contains(&code))
            }
            _ => false,
        }
    }

    /// Whether an attempt made with `plan` can be followed by another one if the infrastructure turns out to have failed it.
    #[must_use]
    pub const fn forgives_infrastructure(&self, plan: &Plan) -> bool {
        plan.infrastructure < self.infrastructure_limit
    }

    /// The plan of the attempt that follows one made with `plan`; none when there is no budget, or nothing to be gained.
    /// `waited_ms` of the pause are over when it ended at `ended_at_ms`; `random` makes the jitter.
    #[must_use]
    pub fn next(&self, plan: &Plan, cause: &Cause, ended_at_ms: u64, waited_ms: u64, random: u64) -> Option<Plan> {
        if !self.covers(cause) {
            return None;
        }
        let mut next = plan.clone();
        let (charged, limit) = match cause.reason.class() {
            Class::Infrastructure => (&mut next.infrastructure, self.infrastructure_limit),
            // A member that was made again so often has used its budget.
            _ if self.scope == Scope::Member => return None,
            _ => (&mut next.user, self.limit),
        };
        if *charged >= limit {
            return None;
        }
        *charged += 1;
        let pause_ms = self.pause_ms(next.user + next.infrastructure, random);
        next.not_before_ms = ended_at_ms.saturating_add(pause_ms.saturating_sub(waited_ms));
        Some(next)
    }

    /// Pause before the attempt that follows `failures` failed ones.
    #[must_use]
    pub fn pause_ms(&self, failures: u32, random: u64) -> u64 {
        let factor = u64::from(self.factor.max(1)).checked_pow(failures.saturating_sub(1)).unwrap_or(u64::MAX);
        let pause = self.initial_ms.saturating_mul(factor).min(self.cap_ms);
        let spread = pause / 100 * u64::from(self.jitter_percent.min(100));
        pause - spread + random % (spread + 1)
    }
}

impl Plan {
    /// The same, avoiding one more machine.
    #[must_use]
    pub fn avoiding(mut self, machine: SmolStr) -> Self {
        if !machine.is_empty() {
            self.avoid.retain(|known| *known != machine);
            self.avoid.push(machine);
            let more = self.avoid.len().saturating_sub(MAX_AVOIDED);
            self.avoid.drain(..more);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reason: Reason, exit_code: Option<i32>) -> Cause {
        Cause { exit_code, ..Cause::of(reason) }
    }

    #[test]
    fn budgets_are_separate_and_end() {
        let retry = Retry { limit: 1, infrastructure_limit: 2, ..Retry::default() };
        let next = |plan: &Plan, reason| retry.next(plan, &failed(reason, None), 0, 0, 0);
        let user = next(&Plan::default(), Reason::MemberFailed).expect("the first");
        assert_eq!((user.user, user.infrastructure), (1, 0));
        assert_eq!(next(&user, Reason::MemberFailed), None, "the user's budget is used");
        let lost = next(&user, Reason::NodeLost).expect("the other one is not");
        let lost = next(&lost, Reason::Evicted).expect("nor now");
        assert_eq!((lost.user, lost.infrastructure), (1, 2));
        assert_eq!(next(&lost, Reason::Preempted), None);
    }

    #[test]
    fn what_cannot_help_is_not_tried() {
        let retry = Retry { limit: 9, ..Retry::default() };
        for (reason, covered) in [
            (Reason::MemberFailed, true),
            (Reason::NodeLost, true),
            (Reason::GangDeleted, false),
            (Reason::CreateForbidden, false),
            (Reason::CreateInvalid, false),
            (Reason::Canceled, false),
            (Reason::NodeFailed, false),
        ] {
            assert_eq!(retry.covers(&failed(reason, None)), covered, "{reason}");
        }
    }

    #[test]
    fn only_the_named_failures_of_the_user_are_tried_again() {
        let on = On { exit_codes: BTreeSet::from([75]), reasons: BTreeSet::from([Reason::OomKilled]) };
        let retry = Retry { limit: 9, on: Some(on), ..Retry::default() };
        assert!(retry.covers(&failed(Reason::MemberFailed, Some(75))));
        assert!(!retry.covers(&failed(Reason::MemberFailed, Some(1))));
        assert!(retry.covers(&failed(Reason::OomKilled, Some(137))));
        assert!(retry.covers(&failed(Reason::NodeLost, None)), "the infrastructure has a budget of its own");
    }

    #[test]
    fn pauses_grow_to_the_cap_within_their_jitter_and_what_was_waited_counts() {
        let retry = Retry { limit: 99, initial_ms: 1_000, factor: 3, cap_ms: 20_000, ..Retry::default() };
        let exact = Retry { jitter_percent: 0, ..retry.clone() };
        assert_eq!([1, 2, 3, 4, 90].map(|n| exact.pause_ms(n, 7)), [1_000, 3_000, 9_000, 20_000, 20_000]);
        for random in [0, 1, 99, u64::MAX] {
            let pause = retry.pause_ms(1, random);
            assert!((900..=1_000).contains(&pause), "{pause}");
        }
        let plan =
            exact.next(&Plan::default(), &failed(Reason::MemberFailed, None), 50_000, 600, 0).expect("tried again");
        assert_eq!(plan.not_before_ms, 50_400);
    }

    #[test]
    fn the_latest_machines_are_avoided() {
        let plan = (0..20).fold(Plan::default(), |plan, n| plan.avoiding(format!("n{}", n % 18).into()));
        assert_eq!(plan.avoid.len(), MAX_AVOIDED);
        assert_eq!(plan.avoid.last().map(SmolStr::as_str), Some("n1"));
        assert_eq!(plan.clone().avoiding("".into()), plan, "a member that had none");
    }
}

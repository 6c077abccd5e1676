//! Many cases, and what came of them.

use crate::compare::{Difference, differences};
use crate::shrink::shrink;
use crate::tally::Tally;
use crate::upstream::Upstream;
use crate::{generate, ours};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::fmt;

/// As many cases are enough to say that something is hardly compared.
pub const ENOUGH: u64 = 1_000;
/// Disagreements that are shown in full; further ones are counted.
const SHOWN: usize = 5;

/// What came of some cases.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cases asked.
    pub cases: u64,
    /// Seeds of the cases with a disagreement.
    pub disagreements: Vec<u64>,
    shown: Vec<Disagreement>,
    tally: Tally,
}

#[derive(Debug)]
struct Disagreement {
    seed: u64,
    differences: Vec<Difference>,
    case: Value,
}

/// Asks both sides about `cases` cases; the seed of case `i` is `seed + i`.
///
/// # Errors
/// When the oracle ends, or FlowForge cannot read a case.
pub fn run(upstream: &mut Upstream, seed: u64, cases: u64) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for seed in (0..cases).map(|i| seed.wrapping_add(i)) {
        one(upstream, seed, &mut outcome).with_context(|| format!("case {seed}"))?;
    }
    Ok(outcome)
}

/// Asks both sides about the cases of these seeds again.
///
/// # Errors
/// As [`run`].
pub fn replay(upstream: &mut Upstream, seeds: &[u64]) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for seed in seeds {
        one(upstream, *seed, &mut outcome).with_context(|| format!("case {seed}"))?;
    }
    Ok(outcome)
}

fn one(upstream: &mut Upstream, seed: u64, outcome: &mut Outcome) -> Result<()> {
    let case = generate::case(seed);
    let answer = upstream.ask(&case)?;
    let found = differences(&answer, &ours::ask(&case)?);
    outcome.cases += 1;
    outcome.tally.add(&case, &answer);
    if !found.is_empty() {
        outcome.disagreements.push(seed);
        if outcome.shown.len() < SHOWN {
            outcome.shown.push(show(upstream, seed, case));
        }
    }
    Ok(())
}

/// The smallest case with a difference, and its differences.
fn show(upstream: &mut Upstream, seed: u64, case: Value) -> Disagreement {
    let mut ask = |case: &Value| match (upstream.ask(case), ours::ask(case)) {
        (Ok(theirs), Ok(mine)) if theirs.error.is_empty() => differences(&theirs, &mine),
        _ => Vec::new(),
    };
    let smallest = shrink(case, |smaller| !ask(smaller).is_empty());
    Disagreement { seed, differences: ask(&smallest), case: smallest }
}

impl Outcome {
    /// Whether both sides agreed on every case.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.disagreements.is_empty()
    }

    /// What these cases hardly compare at all, one line each; empty for fewer than [`ENOUGH`] cases, which say nothing of that.
    #[must_use]
    pub fn thin(&self) -> Vec<String> {
        if self.cases < ENOUGH { Vec::new() } else { self.tally.thin() }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for shown in &self.shown {
            writeln!(f, "case {}, as small as it shows:", shown.seed)?;
            for Difference { at, upstream, ours } in &shown.differences {
                writeln!(f, "  {at}\n    kube-scheduler: {upstream}\n    FlowForge:      {ours}")?;
            }
            writeln!(f, "  {}", shown.case)?;
        }
        if self.disagreements.len() > SHOWN {
            writeln!(f, "seeds that disagree: {:?}", self.disagreements)?;
        }
        write!(f, "{}", self.tally)
    }
}

//! A virtual world with faults that drives the pure core of the scheduler.
//!
//! [`world::World`] holds an API server ([`api`]), scheduler processes ([`process`]) that run either the real engine or the
//! protocol with the smallest engine around it ([`toy`]), owners that make pods ([`owners`]), and faults ([`faults`]): lost,
//! late and doubled requests, responses and watch events, leaders that are paused, killed and deposed while they go on, lost
//! nodes, deleted pods, Bindings by others and refused ones, an unreachable server. After every step the [`invariants`] look
//! at all of it; then the faults stop, and it must heal. A run is determined by its seed: [`run_seed`].
//!
//! Without faults, [`replay`] runs traces of jobs through the same engine and the orders of the field.

pub mod api;
mod chaos;
pub mod claims;
pub mod faults;
pub mod invariants;
mod lease;
mod network;
pub mod owners;
pub mod prng;
pub mod process;
pub mod replay;
mod tend;
pub mod toy;
pub mod world;

use invariants::Violation;
use world::{Scenario, Subject, World};

/// A run that failed.
#[derive(Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What did not hold.
    pub violation: Violation,
    /// The last things that happened.
    pub transcript: Vec<String>,
}

/// Runs one seed in the world that the seed chooses.
///
/// # Errors
/// The first violation, with a transcript.
pub fn run_seed(seed: u64, subject: Subject) -> Result<(), Box<Failure>> {
    let run = |verbose| {
        let mut world = World::new(seed, Scenario::from_seed(seed, subject), verbose);
        world.run().map_err(|violation| (violation, world.transcript))
    };
    // The same run again, this time with a transcript: it costs nothing unless something is wrong.
    run(false).map_err(|first| {
        let (violation, transcript) = run(true).err().unwrap_or(first);
        Box::new(Failure { seed, violation, transcript: transcript.into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The quick slice; `cargo run -p flowforge-sim -- --seeds N` runs more.
    fn check(subject: Subject, seeds: std::ops::Range<u64>) {
        for seed in seeds {
            if let Err(failure) = run_seed(seed, subject) {
                let shown = failure.transcript.len().saturating_sub(40);
                panic!("seed {seed}: {}\n{}", failure.violation, failure.transcript[shown..].join("\n"));
            }
        }
    }

    /// Every seed that ever failed, with what it found. A change of the world gives a seed another history; what it found is
    /// also told by a test of the core, which does not.
    const ONCE_FAILED: &[(Subject, u64)] = &[
        // A pod on its way out and its successor were planned together, under one rank.
        (Subject::Protocol, 1250),
        // A pod that someone else bound to a gang being undone counted as deleted.
        (Subject::Engine, 133),
        // The same, bound while the journal forgot the gang.
        (Subject::Engine, 1031),
        // The journal gave up a lost place to which a Binding was on its way.
        (Subject::Engine, 976),
        (Subject::Engine, 1295),
        (Subject::Engine, 1366),
        // Two leaders of one epoch, when the Lease was deleted twice.
        (Subject::Engine, 1255),
        // A gang was refused because a volume was seen after its claim, and the volume woke nobody.
        (Subject::Engine, 51),
    ];

    #[test]
    fn the_protocol_keeps_its_promises_in_two_hundred_worlds() {
        check(Subject::Protocol, 0..200);
    }

    #[test]
    fn the_engine_keeps_its_promises_in_a_hundred_worlds() {
        check(Subject::Engine, 0..100);
    }

    #[test]
    fn the_engine_meets_volumes_that_are_made_for_its_pods() {
        let volumes = |seed| {
            let mut world = World::new(seed, Scenario::from_seed(seed, Subject::Engine), false);
            world.run().unwrap();
            world.api.claims.values().filter(|claim| claim.bound).count()
        };
        assert!((0..20).map(volumes).sum::<usize>() > 10);
    }

    #[test]
    fn what_failed_once_does_not_fail_again() {
        for (subject, seed) in ONCE_FAILED {
            check(*subject, *seed..*seed + 1);
        }
    }
}

//! A virtual world with faults that drives the pure cores.
//!
//! [`world::World`] holds an API server ([`api`]), scheduler processes ([`process`]) that run either the real engine or the
//! protocol with the smallest engine around it ([`toy`]), owners that make pods ([`owners`]), and faults ([`faults`]): lost,
//! late and doubled requests, responses and watch events, leaders that are paused, killed and deposed while they go on, lost
//! nodes, deleted pods, Bindings by others and refused ones, an unreachable server. After every step the [`invariants`] look
//! at all of it; then the faults stop, and it must heal. A run is determined by its seed: [`run_seed`].

pub mod api;
mod chaos;
pub mod faults;
pub mod invariants;
mod lease;
mod network;
pub mod owners;
pub mod prng;
pub mod process;
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

    #[test]
    fn the_protocol_keeps_its_promises_in_two_hundred_worlds() {
        check(Subject::Protocol, 0..200);
    }
}

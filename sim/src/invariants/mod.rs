//! What must hold: one file each, looked at after every step and once more when all faults have stopped.

mod assumed_is_confirmed_or_forgotten;
mod gang_all_or_nothing;
mod heals_when_faults_stop;
mod no_double_bind;
mod no_overcommit;
mod nothing_unprepared_is_bound;
mod stale_writer_is_harmless;
mod undone_leaves_nothing;

use crate::api::Landed;
use crate::world::World;
use flowforge_scheduler_core::model::Millis;
use std::fmt;

/// A named property of the world.
pub trait Invariant: fmt::Debug {
    /// Its name.
    fn name(&self) -> &'static str;

    /// A write of a scheduler took effect.
    ///
    /// # Errors
    /// What is wrong.
    fn landed(&mut self, world: &World, landed: &Landed) -> Result<(), String> {
        let _ = (world, landed);
        Ok(())
    }

    /// Something happened.
    ///
    /// # Errors
    /// What is wrong.
    fn step(&mut self, world: &World) -> Result<(), String> {
        let _ = world;
        Ok(())
    }

    /// The run is over; the faults stopped long ago.
    ///
    /// # Errors
    /// What is wrong.
    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let _ = world;
        Ok(())
    }
}

/// An invariant that does not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// When.
    pub at_ms: Millis,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ms: {}", self.invariant, self.at_ms, self.message)
    }
}

impl std::error::Error for Violation {}

/// All of them.
#[must_use]
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(no_double_bind::NoDoubleBind::default()),
        Box::new(stale_writer_is_harmless::StaleWriterIsHarmless),
        Box::new(no_overcommit::NoOvercommit),
        Box::new(nothing_unprepared_is_bound::NothingUnpreparedIsBound),
        Box::new(undone_leaves_nothing::UndoneLeavesNothing::default()),
        Box::new(assumed_is_confirmed_or_forgotten::AssumedIsConfirmedOrForgotten),
        Box::new(gang_all_or_nothing::GangAllOrNothing::default()),
        Box::new(heals_when_faults_stop::HealsWhenFaultsStop),
    ]
}

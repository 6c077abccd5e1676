//! Other topology levels at run time: the tree is built anew, and every gang is looked at with the new names.
//!
//! Nothing that is bound or being bound moves: an open intent goes on to its end, and what is tied to a domain afterwards
//! is tied to where its members then stand.

use super::Engine;
use crate::model::{Millis, TopologyLevels};
use crate::plugins::Cures;
use crate::queue::{Entity, Place};
use flowforge_topology_core::Levels;

impl Engine {
    pub(super) fn on_topology(&mut self, levels: TopologyLevels, now: Millis) {
        let Ok(levels) = Levels::new(levels) else { return };
        if !self.snapshot.set_levels(levels) {
            return;
        }
        // What was asked and refused was said in the positions of the former levels.
        for note in self.notes.values_mut() {
            note.asked = None;
            note.would_do.clear();
            note.proven = false;
        }
        let waits = |place: &Place| matches!(place, Place::Parked(_) | Place::Backoff(_));
        let gangs = self.queue.iter().filter(|(e, entry)| matches!(e, Entity::Gang(_)) && waits(&entry.place));
        let gangs: Vec<Entity> = gangs.map(|(entity, _)| entity).collect();
        gangs.into_iter().for_each(|gang| self.queue.activate(gang, false, now));
        self.gangs.touch_all();
        self.cures = self.cures.and(Cures::NODE_LABELS);
    }
}

//! From the first solution to the best one: other devices for the same requests, by what they are [`worth`](super::worth).
//!
//! ```text
//!   first solution ──> slots, one for each device ──> few sets?  yes: every one of them is looked at
//!                                                                no: from each first device on the best next one is taken
//! ```
//! Every set is taken device by device as the first one was, so that constraints, counters, capacities and taints hold. What
//! alternative of a request is used, what asks for all devices, and what is for administrators stays as it was found; of sets
//! that are worth the same the one that comes first does. Up to [`MAX_SETS`] sets the answer is the best there is; beyond, the
//! best of those looked at, at most [`MAX_LOOKS`] devices in all. `O(sets · devices)` with what is remembered of a board.

use super::worth::{Judge, Placements, Worth};
use super::{At, Search, Spot, Undo};
use crate::devices::facts::Count;
use crate::devices::inside::DeviceId;
use std::collections::BTreeSet;

/// Sets that are all looked at.
const MAX_SETS: u64 = 2_048;
/// Devices that are looked at where there are more sets.
const MAX_LOOKS: u32 = 8_192;
/// Devices that one request chooses among: the first of those that it can have.
const MAX_CANDIDATES: usize = 256;

/// One device to be chosen.
#[derive(Clone, Copy, Debug)]
struct Slot {
    at: At,
    /// Which list it is chosen from.
    list: usize,
    /// Whether the slot before chooses from the same list for the same request.
    follows: bool,
}

/// What is chosen among.
#[derive(Debug, Default)]
struct Choice {
    slots: Vec<Slot>,
    lists: Vec<Vec<Spot>>,
    first: Vec<Spot>,
}

/// The best set so far.
struct Best {
    worth: Worth,
    lost: Vec<u32>,
    spots: Vec<Spot>,
}

impl<'a> Search<'a> {
    /// Takes the best devices instead of the first ones; `mates` are those of others of the gang.
    pub(super) fn improve(&mut self, mates: &[DeviceId]) {
        let choice = self.choice();
        let sets = choice.sets();
        if sets < 2 {
            return;
        }
        let insides = &self.devices.insides;
        insides.prepare(self.node, &self.pools);
        let best = insides.look(&self.node.name, |seats, board| {
            let placements = Placements::of(self);
            let spots: BTreeSet<Spot> = choice.lists.iter().flatten().copied().collect();
            let judge = Judge::new(self, &spots, mates, seats, board);
            if judge.is_blind() && placements.is_empty() {
                return None;
            }
            Some(Improvement { search: self, choice: &choice, judge, placements }.best(sets <= MAX_SETS))
        });
        if let Some(best) = best
            && !self.take_all(&choice, &best)
        {
            debug_assert!(false, "what was taken once can be taken again");
            self.take_all(&choice, &choice.first);
        }
    }

    fn choice(&self) -> Choice {
        let mut choice = Choice::default();
        for (claim, of) in self.ways.iter().enumerate() {
            let mut found = self.results[claim].iter().map(|chosen| chosen.spot);
            for (request, ways) in of.iter().enumerate() {
                let alternative = self.picked[claim][request];
                let Some(way) = ways.get(alternative) else { continue };
                let first: Vec<Spot> = found.by_ref().take(way.count).collect();
                let fixed = way.ask.admin || way.ask.count == Count::All;
                for (device, spot) in first.iter().enumerate() {
                    if fixed || device == 0 {
                        choice.lists.push(if fixed { vec![*spot] } else { self.candidates(claim, way, &first) });
                    }
                    let at = At { claim, request, alternative, device };
                    choice.slots.push(Slot { at, list: choice.lists.len() - 1, follows: !fixed && device > 0 });
                }
                choice.first.extend(first);
            }
        }
        choice
    }

    /// What a request could have, one by one, when nothing else is taken; those that it has among them.
    fn candidates(&self, claim: usize, way: &super::Way<'a>, first: &[Spot]) -> Vec<Spot> {
        let of = self.claims[claim];
        let may = |spot: Spot| {
            !self.held(spot).is_some_and(super::Use::is_exclusive)
                && matches!(self.is_selected(of, way, spot), Ok(true))
                && (first.contains(&spot) || matches!(self.has_capacity(of, way, spot, false), Ok(true)))
        };
        let mut found = Vec::new();
        for (pool, of) in self.pools.iter().enumerate() {
            for (slice, of) in of.slices.iter().enumerate() {
                for device in 0..of.info.devices.len() {
                    let spot = [pool, slice, device];
                    if (found.len() < MAX_CANDIDATES || first.contains(&spot)) && may(spot) {
                        found.push(spot);
                    }
                }
            }
        }
        found
    }

    /// Takes these devices and no others; false where that cannot be.
    fn take_all(&mut self, choice: &Choice, spots: &[Spot]) -> bool {
        self.reset();
        choice.slots.iter().zip(spots).all(|(slot, spot)| matches!(self.take(slot.at, *spot, false), Ok(Some(_))))
    }

    /// Nothing is taken.
    fn reset(&mut self) {
        self.taken.clear();
        self.shares.clear();
        self.counted.iter_mut().for_each(std::collections::BTreeMap::clear);
        self.results.iter_mut().for_each(Vec::clear);
        self.watches.iter_mut().flatten().for_each(super::Watch::clear);
    }
}

impl Choice {
    /// How many sets there are at most; saturates.
    fn sets(&self) -> u64 {
        let mut sets: u64 = 1;
        let mut taken = 0;
        for slot in &self.slots {
            taken = if slot.follows { taken + 1 } else { 0 };
            let left = self.lists[slot.list].len().saturating_sub(taken);
            sets =
                sets.saturating_mul(u64::try_from(left).unwrap_or(u64::MAX)) / (u64::try_from(taken).unwrap_or(0) + 1);
        }
        sets
    }
}

struct Improvement<'s, 'a, 'j> {
    search: &'s mut Search<'a>,
    choice: &'s Choice,
    judge: Judge<'j>,
    placements: Placements<'a>,
}

impl Improvement<'_, '_, '_> {
    fn best(mut self, all: bool) -> Vec<Spot> {
        let first = &self.choice.first;
        let lost = self.placements.lost(self.search, first);
        let mut best = Best { worth: self.judge.worth(first), lost, spots: first.clone() };
        self.search.reset();
        if all {
            self.every(&mut Vec::new(), 0, &mut best);
        } else {
            self.greedy(&mut best);
        }
        best.spots
    }

    /// Looks at the set that is taken.
    fn look(&mut self, spots: &[Spot], best: &mut Best) {
        let worth = self.judge.worth(spots);
        if worth > best.worth {
            return;
        }
        let lost = self.placements.lost(self.search, spots);
        if worth < best.worth || lost < best.lost {
            *best = Best { worth, lost, spots: spots.to_vec() };
        }
    }

    /// Every set, in the order in which the first one was found.
    fn every(&mut self, spots: &mut Vec<Spot>, from: usize, best: &mut Best) {
        let Some(slot) = self.choice.slots.get(spots.len()).copied() else { return self.look(spots, best) };
        let from = if slot.follows { from } else { 0 };
        for (at, spot) in self.choice.lists[slot.list].iter().enumerate().skip(from) {
            let Ok(Some(undo)) = self.search.take(slot.at, *spot, false) else { continue };
            spots.push(*spot);
            self.every(spots, at + 1, best);
            spots.pop();
            self.search.give_back(slot.at, *spot, undo);
        }
    }

    /// From each device that the first real choice has, the next one is always that which is worth most with those before it.
    fn greedy(&mut self, best: &mut Best) {
        let lists = &self.choice.lists;
        let Some(seed) = self.choice.slots.iter().position(|slot| lists[slot.list].len() > 1) else { return };
        let mut looks = MAX_LOOKS;
        for start in &lists[self.choice.slots[seed].list] {
            let mut taken: Vec<(At, Spot, Undo)> = Vec::new();
            let whole = self.grow((seed, *start), &mut taken, &mut looks);
            if whole {
                let spots: Vec<Spot> = taken.iter().map(|(_, spot, _)| *spot).collect();
                self.look(&spots, best);
            }
            for (at, spot, undo) in taken.into_iter().rev() {
                self.search.give_back(at, spot, undo);
            }
            if looks == 0 {
                return;
            }
        }
    }

    /// Takes a device for every slot; false where there is none, or no look is left.
    fn grow(&mut self, seed: (usize, Spot), taken: &mut Vec<(At, Spot, Undo)>, looks: &mut u32) -> bool {
        for (number, slot) in self.choice.slots.iter().enumerate() {
            let only = [seed.1];
            let list = if number == seed.0 { &only[..] } else { &self.choice.lists[slot.list] };
            let mut spots: Vec<Spot> = taken.iter().map(|(_, spot, _)| *spot).collect();
            let request = |at: &At| (at.claim, at.request);
            let mut best: Option<(Worth, Spot)> = None;
            for spot in list {
                if taken.iter().any(|(at, other, _)| other == spot && request(at) == request(&slot.at)) {
                    continue;
                }
                let Some(left) = looks.checked_sub(1) else { return false };
                *looks = left;
                let Ok(Some(undo)) = self.search.take(slot.at, *spot, false) else { continue };
                spots.push(*spot);
                let worth = self.judge.worth(&spots);
                spots.pop();
                self.search.give_back(slot.at, *spot, undo);
                if best.as_ref().is_none_or(|(known, _)| worth < *known) {
                    best = Some((worth, *spot));
                }
            }
            let Some((_, spot)) = best else { return false };
            let Ok(Some(undo)) = self.search.take(slot.at, spot, false) else { return false };
            taken.push((slot.at, spot, undo));
        }
        true
    }
}

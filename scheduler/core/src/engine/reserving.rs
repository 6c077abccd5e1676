//! Reservations: which gangs have one, when it is looked at again, and what its end cures.
//!
//! ```text
//!   refused for want of room ──first of its profile and priority──> head ──shadow──> reserved ──placed──> over
//!                                                                    │                 │  ^
//!                                                                    └── none: again ──┘  └── its time has passed, or ten seconds:
//!                                                                        in ten seconds       looked at again
//! ```
//! Starvation is bounded: who has waited for `starvation_ms` keeps its nodes from then on, known ends or not. Work of no higher
//! priority that declares to end by a fixed time may still begin there, nothing else. The wait is then at most that time and
//! what ran there before takes to end.

use super::Engine;
use crate::command::{Command, Observation};
use crate::gang::{Ask, GangId};
use crate::model::Millis;
use crate::plugins::Cures;
use crate::queue::{Entity, Place};
use crate::reserve::{Known, Reservation, Shadow, shadow};
use crate::snapshot::{NodeId, PodId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A reservation, or a gang that has none, is looked at again after so long.
const LOOK_AGAIN_MS: Millis = 10_000;
/// One whose time has passed is looked at again after so long at least.
const PASSED_MS: Millis = 1_000;
/// A promise that moves by less is not late: starts are known to a second.
const SAME_MS: Millis = 1_000;

/// When reservations are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Reserving {
    /// A gang was refused for want of room.
    pub(super) stirred: bool,
    /// By gang: when it was looked at, and at which change of the cluster.
    looked: BTreeMap<GangId, (Millis, u64)>,
    due: Option<Millis>,
}

impl Reserving {
    /// When [`Engine::look_after_reservations`] has something to do.
    pub(super) fn next_wakeup(&self) -> Option<Millis> {
        self.due
    }
}

/// A gang that room is to be reserved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    priority: Reverse<i32>,
    since_ms: Millis,
    gang: GangId,
    profile: usize,
}

impl Engine {
    /// The reservations, the most important first.
    pub fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.snapshot.reservations().iter()
    }

    /// Reserves room for the first gangs that find none, and ends reservations that nobody needs any more.
    pub(super) fn look_after_reservations(&mut self, now: Millis, out: &mut Vec<Command>) {
        let stirred = std::mem::take(&mut self.reserving.stirred);
        let due = self.reserving.due.is_some_and(|at| at <= now);
        if !(stirred || due || self.reservations().any(|reservation| !self.lies(Entity::Gang(reservation.gang)))) {
            return;
        }
        let heads = self.heads();
        let mut former: BTreeMap<GangId, Reservation> = BTreeMap::new();
        former.extend(self.snapshot.reservations_mut().take().into_iter().map(|r| (r.gang, r)));
        let (mut news, mut freed) = (false, false);
        let mut looked = BTreeMap::new();
        for head in &heads {
            let before = former.remove(&head.gang);
            // Who comes after one that moved may be in its way now.
            let after = match &before {
                Some(reservation) if !news && !self.is_due(head, Some(reservation), now) => before.clone(),
                None if !news && !self.is_due(head, None, now) => None,
                _ => {
                    self.reserving.looked.remove(&head.gang);
                    self.reserve(*head, before.as_ref(), now, out)
                }
            };
            let seen = self.reserving.looked.get(&head.gang).copied();
            looked.insert(head.gang, seen.unwrap_or((now, self.snapshot.cluster().changes.seq())));
            news |= before != after;
            freed |= before.is_some() && before != after;
            if let Some(after) = after {
                self.snapshot.cluster.reserve(after);
            }
        }
        freed |= !former.is_empty();
        if news || freed {
            self.snapshot.reservations_mut().touch();
        }
        if freed {
            self.cures = self.cures.and(Cures::POD_GONE);
        }
        self.reserving.looked = looked;
        self.reserving.due = heads.iter().filter_map(|head| self.due(head.gang)).min();
    }

    /// The first gang of each profile and priority that finds no room, the most important first. `O(refused gangs)`.
    fn heads(&self) -> Vec<Head> {
        let refused = self.queue.refused_gangs(Cures::POD_GONE).into_iter();
        let waiting = self.reservations().map(|reservation| reservation.gang);
        let mut first: BTreeMap<(usize, Reverse<i32>), Head> = BTreeMap::new();
        for gang in refused.chain(waiting).filter(|gang| !self.evictions.holds.contains_key(gang)) {
            let Some(entry) = self.queue.get(Entity::Gang(gang)).filter(|entry| entry.place != Place::InFlight) else {
                continue;
            };
            let lacks = entry.refusal.as_ref().is_some_and(|refusal| refusal.lacks_room());
            if !lacks || self.notes.get(&gang).is_none_or(|note| note.would_do.is_empty()) {
                continue;
            }
            let priority = Reverse(entry.priority);
            let head = Head { priority, since_ms: entry.since_ms, gang, profile: entry.profile };
            let known = first.entry((entry.profile, priority)).or_insert(head);
            *known = head.min(*known);
        }
        let mut heads: Vec<Head> = first.into_values().collect();
        heads.sort_unstable();
        heads.truncate(self.config.reservations);
        heads
    }

    /// When a gang with or without a reservation is to be looked at again.
    fn due(&self, gang: GangId) -> Option<Millis> {
        let (looked, _) = *self.reserving.looked.get(&gang)?;
        let again = looked.saturating_add(LOOK_AGAIN_MS);
        Some(match self.snapshot.reservations().of(gang) {
            Some(reservation) if !reservation.kept => {
                again.min(reservation.until_ms.max(looked.saturating_add(PASSED_MS)))
            }
            _ => again,
        })
    }

    fn is_due(&mut self, head: &Head, reservation: Option<&Reservation>, now: Millis) -> bool {
        let Some((looked, seq)) = self.reserving.looked.get(&head.gang).copied() else { return true };
        let passed = |r: &Reservation| !r.kept && r.until_ms <= now && looked.saturating_add(PASSED_MS) <= now;
        if reservation.is_some_and(passed) {
            return true;
        }
        if looked.saturating_add(LOOK_AGAIN_MS) > now {
            return false;
        }
        // Where nothing changed, the answer has not either, but for the patience of the gang.
        let starved = now.saturating_sub(head.since_ms) >= self.config.starvation_ms;
        let same = seq == self.snapshot.cluster().changes.seq() && !(starved && reservation.is_none_or(|r| !r.kept));
        if same {
            self.reserving.looked.insert(head.gang, (now, seq));
        }
        !same
    }

    /// Looks for the time and the place of a gang.
    fn reserve(
        &mut self,
        head: Head,
        before: Option<&Reservation>,
        now: Millis,
        out: &mut Vec<Command>,
    ) -> Option<Reservation> {
        let starved = now.saturating_sub(head.since_ms) >= self.config.starvation_ms;
        let ask = self.notes.get(&head.gang)?.would_do.first()?.clone();
        if let Some(kept) = before.filter(|r| r.kept && self.still_holds(r, &ask)) {
            return Some(kept.clone());
        }
        let mut found = shadow(&mut self.snapshot, &ask, now, Known::Only);
        if found.is_none() && starved {
            found = shadow(&mut self.snapshot, &ask, now, Known::OrNot);
        }
        let later = |found: &Shadow| before.is_some_and(|b| found.at_ms.is_none_or(|at| at > b.until_ms + SAME_MS));
        if before.is_some() && found.as_ref().is_none_or(later) {
            out.push(Command::Observe(Observation::ReservationDelayed));
        }
        let gang = self.gangs.get(head.gang)?;
        let Shadow { at_ms, places } = found?;
        let until_ms = at_ms.unwrap_or(now.saturating_add(self.config.starvation_ms));
        Some(Reservation {
            gang: head.gang,
            namespace: gang.namespace.clone(),
            name: gang.name.clone(),
            profile: head.profile,
            priority: head.priority.0,
            since_ms: head.since_ms,
            until_ms,
            first_until_ms: before.map_or(until_ms, |before| before.first_until_ms),
            kept: starved,
            places,
        })
    }

    /// Whether all members still want a place and all of the nodes are there to give them one.
    fn still_holds(&self, reservation: &Reservation, ask: &Ask) -> bool {
        let cluster = self.snapshot.cluster();
        let usable =
            |node: &NodeId| cluster.node(*node).is_some_and(|node| !node.placeholder && !node.info.unschedulable);
        reservation.places.len() == ask.members.len()
            && reservation.places.iter().all(|(pod, node)| ask.members.contains(pod) && usable(node))
    }

    /// Where these members were reserved their places; None where one of them was not.
    pub(super) fn reserved_places(&self, id: GangId, members: &[PodId]) -> Option<Vec<NodeId>> {
        let places: BTreeMap<PodId, NodeId> = self.snapshot.reservations().of(id)?.places.iter().copied().collect();
        members.iter().map(|pod| places.get(pod).copied()).collect()
    }

    /// A gang has its place: what was reserved for it is free.
    pub(super) fn unreserve(&mut self, id: GangId) {
        if self.snapshot.reservations_mut().remove(id) {
            self.cures = self.cures.and(Cures::POD_GONE);
        }
    }

    /// Counts pods that begin where room is reserved for others.
    pub(super) fn observe_backfill(&self, places: &[(PodId, NodeId)], out: &mut Vec<Command>) {
        let pods = self.snapshot.backfilled(places);
        if pods > 0 {
            out.push(Command::Observe(Observation::Backfilled(u32::try_from(pods).unwrap_or(u32::MAX))));
        }
    }

    /// This process leads no more: nothing is reserved.
    pub(super) fn end_reservations(&mut self) {
        self.reserving = Reserving::default();
        if !self.snapshot.reservations_mut().take().is_empty() {
            self.snapshot.reservations_mut().touch();
        }
    }
}

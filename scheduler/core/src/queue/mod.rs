//! The queue: what is to be tried, when, and what it waits for.
//!
//! ```text
//!               add                         pop
//!   (absent) ─────────> Active (priority, time) ──────> InFlight ──┬── remove (bound, or nothing waits)
//!                         ^   ^                          │         │
//!            cured, flush │   │ due                 fail │         │ park (refused)
//!                         │   └──── Backoff <────────────┘         v
//!                         │           ^                            │
//!                         │           └── cured, but not proven ───┤
//!                         └──────────────────────────────────── Parked (unschedulable)
//! ```
//! Refused entities are parked with the events that can cure them and block nobody. kube-scheduler lets every refused pod
//! back off before such an event makes it active. Here only those back off, 1 s doubling to 10 s, of whom trying again may be
//! in vain: whose binding failed, whose search gave up, or whose refusal a search had to find out. What refuses the others
//! is known exactly, and they are woken only when it no longer holds. A parked entity is flushed after five minutes whatever
//! happened. All operations are `O(log n)`.

mod incoming;

pub use incoming::Counts as IncomingCounts;

use crate::explain::Refusal;
use crate::gang::GangId;
use crate::model::Millis;
use crate::plugins::Cures;
use crate::shape::ShapeId;
use crate::snapshot::PodId;
use incoming::{Cause, Incoming};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is planned at once.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Entity {
    /// A pod on its own.
    Pod(PodId),
    /// A gang.
    Gang(GangId),
}

/// Where an entity is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// To be tried.
    Active,
    /// Not before this time.
    Backoff(Millis),
    /// Refused at this time.
    Parked(Millis),
    /// Being bound.
    InFlight,
}

/// An entity in the queue.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it is.
    pub place: Place,
    /// Higher goes first.
    pub priority: i32,
    /// When it was first ready; among equals the oldest goes first.
    pub since_ms: Millis,
    /// Times it was tried.
    pub attempts: u32,
    /// Pods in it.
    pub pods: usize,
    /// Position of the profile among those of the process.
    pub profile: usize,
    /// Why it was refused last.
    pub refusal: Option<Arc<Refusal>>,
    /// What it is parked under: pods of one shape are cured together.
    shape: Option<ShapeId>,
    cures: Cures,
    failures: u32,
    /// Not before this time, after a failure.
    not_before: Millis,
}

impl Entry {
    /// Whether it waits, refused, for something that one of the events can cure.
    #[must_use]
    pub fn waits_for(&self, events: Cures) -> bool {
        matches!(self.place, Place::Parked(_) | Place::Backoff(_)) && self.cures.meets(events)
    }
}

/// When entities back off.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    /// First backoff.
    pub initial_ms: Millis,
    /// Longest backoff.
    pub max_ms: Millis,
    /// Flush of parked entities.
    pub flush_ms: Millis,
}

/// Whose turn it is: priority, then age.
type Turn = (Reverse<i32>, Millis, Entity);

/// Pods by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In active entities.
    pub active: usize,
    /// In entities that back off.
    pub backoff: usize,
    /// In parked entities.
    pub parked: usize,
    /// In entities being bound.
    pub in_flight: usize,
}

/// Everything that waits for a place.
#[derive(Clone, Debug)]
pub struct Queue {
    delays: Delays,
    entries: BTreeMap<Entity, Entry>,
    active: BTreeSet<Turn>,
    backoff: BTreeSet<(Millis, Entity)>,
    parked: BTreeSet<(Millis, Entity)>,
    by_shape: BTreeMap<ShapeId, BTreeSet<Turn>>,
    parked_gangs: BTreeSet<GangId>,
    /// Parked pods that no other pod's answer holds for.
    alone: BTreeSet<PodId>,
    counts: Counts,
    by_plugin: BTreeMap<(&'static str, usize), usize>,
    incoming: Incoming,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(delays: Delays) -> Self {
        Self {
            delays,
            entries: BTreeMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            parked: BTreeSet::new(),
            by_shape: BTreeMap::new(),
            parked_gangs: BTreeSet::new(),
            alone: BTreeSet::new(),
            counts: Counts::default(),
            by_plugin: BTreeMap::new(),
            incoming: Incoming::default(),
        }
    }

    /// An entity waits for a place. One that is known keeps its place in the queue, but its priority and size are updated.
    pub fn add(&mut self, entity: Entity, priority: i32, since_ms: Millis, pods: usize, profile: usize) {
        let known = self.take(entity);
        if known.is_none() {
            self.incoming.note(Place::Active, Cause::Added, pods);
        }
        let mut entry = known.unwrap_or(Entry {
            place: Place::Active,
            priority,
            since_ms,
            attempts: 0,
            pods,
            profile,
            refusal: None,
            shape: None,
            cures: Cures::NONE,
            failures: 0,
            not_before: 0,
        });
        entry.priority = priority;
        entry.pods = pods;
        entry.profile = profile;
        self.put(entity, entry);
    }

    /// An entity no longer waits.
    pub fn remove(&mut self, entity: Entity) {
        self.take(entity);
    }

    /// An entity.
    #[must_use]
    pub fn get(&self, entity: Entity) -> Option<&Entry> {
        self.entries.get(&entity)
    }

    /// All that is more important than this and not in hand, in the order of ids. `O(entities)`.
    pub fn waiting_above(&self, priority: i32) -> impl Iterator<Item = Entity> + '_ {
        let waits = move |entry: &Entry| entry.priority > priority && entry.place != Place::InFlight;
        self.entries.iter().filter(move |(_, entry)| waits(entry)).map(|(entity, _)| *entity)
    }

    /// Takes the first active entity in hand.
    pub fn pop(&mut self) -> Option<Entity> {
        let (_, _, entity) = *self.active.first()?;
        let mut entry = self.take(entity)?;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.place = Place::InFlight;
        self.put(entity, entry);
        Some(entity)
    }

    /// An entity in hand was refused: it waits for what can cure that. `shape`: pods of one shape are cured together; a pod
    /// without one is tried anew after each event that may cure it. A refusal that is not `proven` counts as a failure, whose backoff a patient activation waits for.
    pub fn park(&mut self, entity: Entity, shape: Option<ShapeId>, refusal: Arc<Refusal>, proven: bool, now: Millis) {
        let Some(mut entry) = self.take(entity) else { return };
        if !proven {
            self.back_off(&mut entry, now);
        }
        entry.place = Place::Parked(now);
        entry.shape = shape;
        entry.cures = refusal.cures();
        entry.refusal = Some(refusal);
        self.incoming.note(entry.place, Cause::Failed, entry.pods);
        self.put(entity, entry);
    }

    /// Trying an entity failed for no fault of the nodes, or gave up: it backs off.
    pub fn fail(&mut self, entity: Entity, refusal: Option<Arc<Refusal>>, now: Millis) {
        let Some(mut entry) = self.take(entity) else { return };
        self.back_off(&mut entry, now);
        entry.place = Place::Backoff(entry.not_before);
        entry.cures = refusal.as_ref().map_or(Cures::NONE, |refusal| refusal.cures());
        if refusal.is_some() {
            entry.refusal = refusal;
        }
        self.incoming.note(entry.place, Cause::Failed, entry.pods);
        self.put(entity, entry);
    }

    fn back_off(&self, entry: &mut Entry, now: Millis) {
        entry.failures = entry.failures.saturating_add(1);
        let doubled = self.delays.initial_ms.saturating_mul(1 << entry.failures.saturating_sub(1).min(20));
        entry.not_before = now.saturating_add(doubled.min(self.delays.max_ms));
    }

    /// An entity in hand changed while it was tried: it is active again at once, but backs off when that goes on.
    pub fn renew(&mut self, entity: Entity, now: Millis) {
        let first = self.entries.get(&entity).is_some_and(|entry| entry.failures == 0);
        self.fail(entity, None, now);
        if first {
            self.activate(entity, false, now);
        }
    }

    /// An entity in hand could not be tried after all: it is active again.
    pub fn put_back(&mut self, entity: Entity) {
        self.activate(entity, false, 0);
    }

    /// An entity that waits may be tried again; `patient` ones finish the backoff of their failures first.
    pub fn activate(&mut self, entity: Entity, patient: bool, now: Millis) {
        self.move_on(entity, patient, Cause::Changed, now);
    }

    /// The same, because these events may have cured it.
    pub fn wake(&mut self, entity: Entity, patient: bool, events: Cures, now: Millis) {
        self.move_on(entity, patient, Cause::Cured(events), now);
    }

    fn move_on(&mut self, entity: Entity, patient: bool, cause: Cause, now: Millis) {
        let Some(mut entry) = self.take(entity) else { return };
        entry.place = if patient && entry.not_before > now { Place::Backoff(entry.not_before) } else { Place::Active };
        self.incoming.note(entry.place, cause, entry.pods);
        self.put(entity, entry);
    }

    /// Shapes that parked pods wait under. Whether one fits now is asked of its cache, not of what refused it last: pods far
    /// back in the queue were not tried for a while.
    #[must_use]
    pub fn parked_shapes(&self) -> Vec<ShapeId> {
        self.by_shape.keys().copied().collect()
    }

    /// The parked pod of a shape whose turn is first.
    #[must_use]
    pub fn first_parked(&self, shape: ShapeId) -> Option<PodId> {
        self.parked_pods(shape).next()
    }

    /// The parked pods of a shape, in the order of their turns.
    pub fn parked_pods(&self, shape: ShapeId) -> impl Iterator<Item = PodId> + '_ {
        let turns = self.by_shape.get(&shape).into_iter().flatten();
        turns.filter_map(|(.., entity)| match entity {
            Entity::Pod(pod) => Some(*pod),
            Entity::Gang(_) => None,
        })
    }

    /// Gangs, parked or backing off, that one of the events can cure. `O(such gangs and all that back off)`.
    #[must_use]
    pub fn refused_gangs(&self, events: Cures) -> Vec<GangId> {
        let curable = |id: &GangId| self.entries.get(&Entity::Gang(*id)).is_some_and(|e| e.cures.meets(events));
        let backing_off = self.backoff.iter().filter_map(|(_, entity)| match entity {
            Entity::Gang(id) => Some(*id),
            Entity::Pod(_) => None,
        });
        self.parked_gangs.iter().copied().chain(backing_off).filter(curable).collect()
    }

    /// Parked pods that wait on their own and that one of the events can cure.
    #[must_use]
    pub fn parked_alone(&self, events: Cures) -> Vec<PodId> {
        let curable = |id: &&PodId| self.entries.get(&Entity::Pod(**id)).is_some_and(|e| e.cures.meets(events));
        self.alone.iter().filter(curable).copied().collect()
    }

    /// The first parked pods of a shape may be tried again. Returns whether more of it are parked.
    pub fn wake_shape(&mut self, shape: ShapeId, limit: usize, events: Cures, now: Millis) -> bool {
        let parked = self.by_shape.get(&shape).map_or(0, BTreeSet::len);
        let first: Vec<Turn> = self.by_shape.get(&shape).into_iter().flatten().take(limit).copied().collect();
        for (.., entity) in &first {
            self.wake(*entity, false, events, now);
        }
        parked > first.len()
    }

    /// Moves on what is due: ended backoffs, and what was parked for too long.
    pub fn advance(&mut self, now: Millis) {
        while let Some((_, entity)) = self.backoff.first().copied().filter(|(at, _)| *at <= now) {
            self.move_on(entity, false, Cause::BackoffEnded, now);
        }
        while let Some((_, entity)) =
            self.parked.first().copied().filter(|(at, _)| at.saturating_add(self.delays.flush_ms) <= now)
        {
            self.move_on(entity, true, Cause::Timeout, now);
        }
    }

    /// When [`Self::advance`] has something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Millis> {
        let flush = self.parked.first().map(|(at, _)| at.saturating_add(self.delays.flush_ms));
        let backoff = self.backoff.first().map(|(at, _)| *at);
        flush.into_iter().chain(backoff).min()
    }

    /// Whether something can be popped.
    #[must_use]
    pub fn any_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// Pods by place.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What entered which queue since this was last asked.
    pub fn take_incoming(&mut self) -> IncomingCounts {
        self.incoming.take()
    }

    /// Pods whose entity is parked, by the plugins that refused it and the profile.
    #[must_use]
    pub fn by_plugin(&self) -> &BTreeMap<(&'static str, usize), usize> {
        &self.by_plugin
    }

    /// Everything, in no queue's order.
    pub fn iter(&self) -> impl Iterator<Item = (Entity, &Entry)> {
        self.entries.iter().map(|(entity, entry)| (*entity, entry))
    }

    fn take(&mut self, entity: Entity) -> Option<Entry> {
        let entry = self.entries.remove(&entity)?;
        match entry.place {
            Place::Active => {
                self.active.remove(&(Reverse(entry.priority), entry.since_ms, entity));
            }
            Place::Backoff(at) => {
                self.backoff.remove(&(at, entity));
            }
            Place::Parked(at) => {
                self.parked.remove(&(at, entity));
                self.unlist(entity, &entry);
            }
            Place::InFlight => {}
        }
        *self.count(entry.place) -= entry.pods;
        Some(entry)
    }

    fn put(&mut self, entity: Entity, entry: Entry) {
        *self.count(entry.place) += entry.pods;
        match entry.place {
            Place::Active => {
                self.active.insert((Reverse(entry.priority), entry.since_ms, entity));
            }
            Place::Backoff(at) => {
                self.backoff.insert((at, entity));
            }
            Place::Parked(at) => {
                self.parked.insert((at, entity));
                self.list(entity, &entry);
            }
            Place::InFlight => {}
        }
        self.entries.insert(entity, entry);
    }

    fn count(&mut self, place: Place) -> &mut usize {
        match place {
            Place::Active => &mut self.counts.active,
            Place::Backoff(_) => &mut self.counts.backoff,
            Place::Parked(_) => &mut self.counts.parked,
            Place::InFlight => &mut self.counts.in_flight,
        }
    }

    fn list(&mut self, entity: Entity, entry: &Entry) {
        match (entity, entry.shape) {
            (Entity::Gang(id), _) => {
                self.parked_gangs.insert(id);
            }
            (Entity::Pod(_), Some(shape)) => {
                self.by_shape.entry(shape).or_default().insert((Reverse(entry.priority), entry.since_ms, entity));
            }
            (Entity::Pod(id), None) => {
                self.alone.insert(id);
            }
        }
        for plugin in entry.refusal.iter().flat_map(|r| r.plugins()) {
            *self.by_plugin.entry((plugin, entry.profile)).or_default() += entry.pods;
        }
    }

    fn unlist(&mut self, entity: Entity, entry: &Entry) {
        match entity {
            Entity::Gang(id) => self.parked_gangs.remove(&id),
            Entity::Pod(id) => self.alone.remove(&id),
        };
        if let Some(shape) = entry.shape
            && let Some(entities) = self.by_shape.get_mut(&shape)
        {
            entities.remove(&(Reverse(entry.priority), entry.since_ms, entity));
            if entities.is_empty() {
                self.by_shape.remove(&shape);
            }
        }
        for plugin in entry.refusal.iter().flat_map(|r| r.plugins()) {
            let key = (plugin, entry.profile);
            if let Some(pods) = self.by_plugin.get_mut(&key) {
                *pods -= entry.pods;
                if *pods == 0 {
                    self.by_plugin.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{Reason, Seen};
    use crate::snapshot::Slab;

    const DELAYS: Delays = Delays { initial_ms: 1000, max_ms: 10_000, flush_ms: 300_000 };

    fn ids(n: usize) -> Vec<Entity> {
        let mut slab = Slab::default();
        let gang = crate::gang::GangRecord {
            namespace: "".into(),
            name: "".into(),
            declared: None,
            members: BTreeSet::new(),
            last_arrival_ms: 0,
            whole_once: false,
            doomed: BTreeSet::new(),
        };
        (0..n).map(|_| Entity::Gang(slab.insert(gang.clone()))).collect()
    }

    fn refusal(reason: Reason) -> Arc<Refusal> {
        let mut seen = Seen { total: 1, ..Seen::default() };
        seen.add(reason, 1);
        Arc::new(Refusal::Nodes(seen))
    }

    #[test]
    fn priority_goes_first_then_age_and_a_refused_one_blocks_nobody() {
        let e = ids(3);
        let mut q = Queue::new(DELAYS);
        q.add(e[0], 0, 10, 1, 0);
        q.add(e[1], 0, 5, 1, 0);
        q.add(e[2], 100, 20, 4, 0);
        assert_eq!(q.pop(), Some(e[2]));
        q.park(e[2], None, refusal(Reason::TooManyPods), true, 30);
        assert_eq!([q.pop(), q.pop(), q.pop()], [Some(e[1]), Some(e[0]), None]);
        assert_eq!(q.counts(), Counts { parked: 4, in_flight: 2, ..Counts::default() });
        assert_eq!(q.by_plugin().get(&("NodeResourcesFit", 0)), Some(&4));
    }

    #[test]
    fn failures_back_off_from_one_to_ten_seconds() {
        let e = ids(1)[0];
        let mut q = Queue::new(DELAYS);
        q.add(e, 0, 0, 1, 0);
        let mut waits = Vec::new();
        for _ in 0..6 {
            q.pop();
            q.fail(e, None, 0);
            waits.push(q.next_due().unwrap());
            q.advance(waits[waits.len() - 1] - 1);
            assert!(!q.any_active());
            q.advance(10_000);
        }
        assert_eq!(waits, [1000, 2000, 4000, 8000, 10_000, 10_000]);
    }

    #[test]
    fn only_curing_events_find_a_parked_entity_and_the_flush_finds_all() {
        let e = ids(1)[0];
        let Entity::Gang(id) = e else { unreachable!() };
        let mut q = Queue::new(DELAYS);
        q.add(e, 0, 0, 1, 0);
        q.pop();
        q.park(e, None, refusal(Reason::NodePorts), true, 7);
        assert!(q.refused_gangs(Cures::NODE_LABELS).is_empty());
        assert_eq!(q.refused_gangs(Cures::POD_GONE), [id]);
        assert_eq!(q.next_due(), Some(300_007));
        q.advance(300_007);
        assert!(q.any_active());
        assert!(q.by_plugin().is_empty());
    }

    #[test]
    fn a_patient_activation_waits_for_the_backoff_and_a_cure_does_not() {
        let e = ids(1)[0];
        let mut q = Queue::new(DELAYS);
        q.add(e, 0, 0, 1, 0);
        q.pop();
        q.fail(e, None, 0);
        q.activate(e, true, 10);
        assert_eq!(q.get(e).unwrap().place, Place::Backoff(1000));
        q.activate(e, false, 10);
        assert_eq!(q.get(e).unwrap().place, Place::Active);
    }

    #[test]
    fn a_refusal_that_is_not_proven_backs_off_and_can_still_be_cured_meanwhile() {
        let e = ids(1)[0];
        let Entity::Gang(id) = e else { unreachable!() };
        let mut q = Queue::new(DELAYS);
        q.add(e, 0, 0, 1, 0);
        let mut waits = Vec::new();
        for _ in 0..5 {
            q.pop();
            q.park(e, None, refusal(Reason::NodePorts), false, 0);
            q.activate(e, true, 0);
            waits.push(q.next_due().unwrap());
            assert_eq!(q.refused_gangs(Cures::POD_GONE), [id]);
            q.activate(e, false, 0);
        }
        assert_eq!(waits, [1000, 2000, 4000, 8000, 10_000]);
    }

    #[test]
    fn what_changes_all_the_time_is_renewed_once_and_then_backs_off() {
        let e = ids(1)[0];
        let mut q = Queue::new(DELAYS);
        q.add(e, 0, 0, 1, 0);
        q.pop();
        q.renew(e, 0);
        assert_eq!(q.get(e).unwrap().place, Place::Active);
        q.pop();
        q.renew(e, 0);
        assert_eq!(q.get(e).unwrap().place, Place::Backoff(2000));
    }
}

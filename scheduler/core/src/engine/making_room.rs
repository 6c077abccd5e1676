//! Gangs that have others evicted: what is found is promised to every member, and kept until all of them stand there.
//!
//! ```text
//!   refused gang ──make_room──> victims ──evict_all──> gone ──> the gang is tried at once, where it was promised to stand
//!                        │                                        │
//!                        └─ every member is promised its node ────┴─ placed: the promises end with the Bindings
//!                                                                 └─ gone, changed, displaced, too late: withdrawn, and the
//!                                                                    evictions count as wasted
//! ```
//! Nobody is evicted for a gang where somebody more important, who waits and is not tried at the moment, would take the room.
//! Two gangs of one priority do not fight: what one was promised is kept from the other, and neither evicts the other. A gang
//! that waits for its victims evicts nobody else.

use super::Engine;
use super::preempting::Hold;
use crate::command::{Command, Observation};
use crate::explain::{GangRoom, Preemption, Refusal};
use crate::gang::{Ask, Found, GangId, place_in};
use crate::model::Millis;
use crate::preempt::{Around, Evicted, Making, Room, make_room};
use crate::queue::Entity;
use crate::snapshot::PodId;
use std::collections::{BTreeMap, BTreeSet};

/// How long room that was made for a gang is kept for it, victims that take long to go included.
const HOLD_MS: Millis = 900_000;

impl Engine {
    /// Whether the members of a gang may evict somebody, and somebody less important than all of them stands anywhere.
    pub(super) fn gang_may_preempt(&self, members: &[PodId]) -> bool {
        !members.is_empty() && members.iter().all(|pod| self.may_preempt(*pod))
    }

    /// Looks for room for a gang that is refused, for the first of these asks that some can be made for, and begins to make
    /// it. Returns the refusal with what came of it, where there was anything to look for.
    pub(super) fn make_room_for(
        &mut self,
        id: GangId,
        asks: &[Ask],
        refusal: Refusal,
        now: Millis,
        out: &mut Vec<Command>,
    ) -> Refusal {
        let members: BTreeSet<PodId> = asks.iter().flat_map(|ask| ask.members.iter().copied()).collect();
        if members.is_empty() || members.iter().any(|pod| self.snapshot.profile(*pod).preemption.is_none()) {
            return refusal;
        }
        let Some(preemption) = self.look_for_room(id, asks, &members, now, out) else { return refusal };
        let victims: Option<u32> = match &preemption {
            Preemption::Gang(GangRoom::Found(victims)) => Some(victims.iter().map(|(_, pods)| saturate(*pods)).sum()),
            _ => None,
        };
        out.push(Command::Observe(Observation::Preemption { victims }));
        Refusal::Preempted { refusal: Box::new(refusal), preemption }
    }

    fn look_for_room(
        &mut self,
        id: GangId,
        asks: &[Ask],
        members: &BTreeSet<PodId>,
        now: Millis,
        out: &mut Vec<Command>,
    ) -> Option<Preemption> {
        let infos = || members.iter().filter_map(|pod| self.snapshot.cluster().info(*pod));
        if infos().any(|pod| pod.never_preempts) {
            return Some(Preemption::Never);
        }
        let priority = infos().map(|pod| pod.priority).min().unwrap_or(i32::MIN);
        self.wait_for_going(id, members, priority);
        let awaited = self.evictions.awaited_by(Entity::Gang(id));
        if awaited > 0 {
            return Some(Preemption::Gang(GangRoom::Waits(awaited)));
        }
        if !self.snapshot.cluster().any_below(priority) {
            self.withdraw(id, out);
            return None;
        }
        let mut came = GangRoom::Nowhere;
        for ask in asks {
            let around = Around { gangs: &self.gangs, own: id, doomed: self.evictions.doomed(), now };
            match make_room(&mut self.snapshot, ask, priority, around) {
                Making::Room(room) => match self.outranked(&room, priority) {
                    None => return Some(self.take_room(id, priority, &room, now, out)),
                    Some(other) => {
                        came = GangRoom::Outranked(self.title_of(other));
                        self.queue.activate(other, false, now);
                    }
                },
                Making::Going => came = GangRoom::Going,
                Making::Limit => came = GangRoom::Limit,
                Making::Nowhere => {}
            }
        }
        self.withdraw(id, out);
        Some(Preemption::Gang(came))
    }

    /// Somebody more important who waits and would fit into the room once it is made, and would then take it. It may be backing
    /// off while the gang is tried. `O(entities that wait)`, and a plan for each shape and gang of those.
    pub(super) fn outranked(&mut self, room: &Room, priority: i32) -> Option<Entity> {
        let cluster = self.snapshot.cluster();
        let mut shapes = BTreeSet::new();
        let mut asks: Vec<(Entity, Ask)> = Vec::new();
        for entity in self.queue.waiting_above(priority) {
            match entity {
                Entity::Pod(pod)
                    if !self.snapshot.is_nominated(pod) && cluster.pod(pod).is_some_and(|p| shapes.insert(p.shape)) =>
                {
                    asks.push((entity, Ask { members: vec![pod], steps: self.config.search_steps, ..Ask::default() }));
                }
                Entity::Gang(gang) if !self.evictions.holds.contains_key(&gang) => {
                    let would_do = self.notes.get(&gang).map(|note| note.would_do.as_slice()).unwrap_or_default();
                    asks.extend(would_do.iter().map(|ask| (entity, ask.clone())));
                }
                Entity::Pod(_) | Entity::Gang(_) => {}
            }
        }
        if asks.is_empty() {
            return None;
        }
        let nodes: BTreeSet<_> = room.places.iter().map(|(_, node)| *node).collect();
        let on = nodes.into_iter().filter_map(|node| cluster.node(node)).flat_map(|node| node.pods().iter().copied());
        let going =
            |pod: &PodId| self.evictions.is_doomed(*pod) || cluster.pod(*pod).is_some_and(|p| p.standing.deleting);
        let victims = room.victims.iter().flat_map(|unit| unit.pods.iter().copied());
        let leaving: BTreeSet<PodId> = on.filter(going).chain(victims).collect();
        self.snapshot.rehearse(|txn| {
            leaving.into_iter().for_each(|pod| txn.take_off(pod));
            let start = txn.mark();
            asks.into_iter().find_map(|(entity, ask)| {
                let fits = place_in(txn, &ask) == Found::Placed;
                txn.roll_back_to(start);
                fits.then_some(entity)
            })
        })
    }

    /// Promises each member its place and evicts who stands there.
    fn take_room(&mut self, id: GangId, priority: i32, room: &Room, now: Millis, out: &mut Vec<Command>) -> Preemption {
        // What an earlier try evicted and somebody else could not be evicted for serves this one.
        let before = self.evictions.holds.remove(&id).map_or(0, |hold| hold.evicted);
        self.withdraw(id, out);
        for (pod, node) in &room.places {
            let node = self.snapshot.cluster().node_name(*node);
            self.displace(Entity::Gang(id), priority, &node, now, out);
            self.promise(*pod, Some(node), out);
        }
        let victims: Vec<PodId> = room.victims.iter().flat_map(|unit| unit.pods.iter().copied()).collect();
        let found = room.victims.iter().map(|unit| (self.name_of(unit), unit.pods.len())).collect();
        let title = self.gangs.get(id).map(|gang| gang.title()).unwrap_or_default();
        let first = room.places.first().and_then(|(pod, _)| self.snapshot.cluster().info(*pod));
        let profile = first.map(|pod| pod.scheduler_name.clone()).unwrap_or_default();
        let cluster = self.snapshot.cluster();
        let node = |pod: &PodId| cluster.pod(*pod).and_then(|p| p.place.node()).map(|node| cluster.node_name(node));
        let note = |pod: &PodId| (*pod, format!("gang {title} on node {}", node(pod).unwrap_or_default()));
        let notes: BTreeMap<PodId, String> = victims.iter().map(note).collect();
        let by = |pod: PodId| notes.get(&pod).cloned().unwrap_or_default();
        self.evict_all(Entity::Gang(id), &victims, &profile, by, now, out);
        let hold = Hold { until: now.saturating_add(HOLD_MS), evicted: before.saturating_add(saturate(victims.len())) };
        self.evictions.holds.insert(id, hold);
        Preemption::Gang(GangRoom::Found(found))
    }

    pub(super) fn name_of(&self, unit: &Evicted) -> String {
        let pod = || unit.pods.first().map(|pod| Entity::Pod(*pod));
        unit.gang.map(Entity::Gang).or_else(pod).map(|entity| self.title_of(entity)).unwrap_or_default()
    }

    /// `gang ns/name` or `pod ns/name`.
    pub(super) fn title_of(&self, entity: Entity) -> String {
        let title = match entity {
            Entity::Gang(gang) => self.gangs.get(gang).map(|gang| format!("gang {}", gang.title())),
            Entity::Pod(pod) => {
                self.snapshot.cluster().pod(pod).map(|p| format!("pod {}/{}", p.key.namespace, p.key.name))
            }
        };
        title.unwrap_or_default()
    }

    /// A former leader evicted somebody for this gang: it waits for all who still leave the nodes that it was promised.
    fn wait_for_going(&mut self, id: GangId, members: &BTreeSet<PodId>, priority: i32) {
        if self.evictions.awaited_by(Entity::Gang(id)) > 0 || self.evictions.holds.contains_key(&id) {
            return;
        }
        let cluster = self.snapshot.cluster();
        let nodes: BTreeSet<_> = members.iter().filter_map(|pod| self.snapshot.nominated_node(*pod)).collect();
        let going = |pod: &&PodId| {
            let standing = cluster.pod(**pod).map(|p| p.standing).unwrap_or_default();
            standing.priority < priority && (standing.deleting && standing.preempted || self.evictions.is_doomed(**pod))
        };
        let on = |node| cluster.node(node).into_iter().flat_map(|node| node.pods().iter().filter(going).copied());
        let going: Vec<PodId> = nodes.into_iter().flat_map(on).collect();
        if !going.is_empty() {
            let title = self.gangs.get(id).map(|gang| gang.title()).unwrap_or_default();
            self.evictions.expect(Entity::Gang(id), &going, &format!("gang {title}"));
        }
    }

    /// Room that was made for a gang is kept for it no longer; it was made in vain.
    pub(super) fn withdraw(&mut self, id: GangId, out: &mut Vec<Command>) {
        self.evictions.forget_preemptor(Entity::Gang(id));
        if let Some(hold) = self.evictions.holds.remove(&id) {
            out.push(Command::Observe(Observation::WastedEvictions(hold.evicted)));
        }
        let members: Vec<PodId> = self.gangs.get(id).into_iter().flat_map(|g| g.members.iter().copied()).collect();
        for pod in members {
            self.promise(pod, None, out);
        }
    }

    /// A gang stands where it was promised to, or elsewhere: it waits for nobody any more.
    pub(super) fn has_room(&mut self, id: GangId) {
        self.evictions.forget_preemptor(Entity::Gang(id));
        self.evictions.holds.remove(&id);
    }
}

fn saturate(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

//! Evictions: who has to go for whom, and what follows when they are gone.
//!
//! ```text
//!   refused ──look──> victims ──┬─ bound ───> Evict ──outcome, watch──> gone ──┐
//!      ^                        └─ assumed ─> intent aborted ──released───────┴──> the pod is tried at once, on the node
//!      │                              └─ confirmed after all ─> Evict             that it was promised
//!      └────────────── eviction failed: after a backoff ──────────────────────────
//! ```
//! While they go, the promise of the node keeps it from pods of no higher priority, and the pod evicts nobody else. What is
//! evicted already is not evicted again, whoever else would have it so.

use super::Engine;
use crate::command::{Command, EventKind, Observation, OpId};
use crate::demand::Demand;
use crate::event::WriteResult;
use crate::explain::{Preemption, Reason, Refusal};
use crate::gang::GangId;
use crate::model::Millis;
use crate::plugins::Cures;
use crate::preempt::{Candidate, Surroundings, look};
use crate::protocol::GangKey;
use crate::queue::{Entity, Place as QueuePlace};
use crate::shape::ShapeId;
use crate::snapshot::{Place, PodId};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// Identities of evictions begin here; those of the protocol never get so far.
const FIRST_OP: u64 = 1 << 63;
/// An eviction without an outcome for so long counts as failed.
const OUTCOME_TIMEOUT_MS: Millis = 60_000;

/// What an answer to a refused pod depends on: changes of nodes, promises (reservations too) and budgets.
pub(super) type Moment = (u64, u64, u64);

/// Who is evicted for whom.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    victims: BTreeMap<PodId, Victim>,
    /// By pod or gang: whom it waits for.
    waiting: BTreeMap<Entity, BTreeSet<PodId>>,
    /// Gangs that room was made for, until they stand there.
    pub(super) holds: BTreeMap<GangId, Hold>,
    /// Evictions whose outcome is awaited, and until when.
    ops: BTreeMap<OpId, (PodId, Millis)>,
    /// Victims that left their nodes and whose preemptors were not told yet.
    left: Vec<PodId>,
    /// Victims whose eviction is on its way; those of `victims` that are being taken back are not among them.
    doomed: BTreeSet<PodId>,
    last_op: u64,
    /// Where the next search begins on a big cluster.
    start: u32,
    /// By shape: the parked pod that was sent to look whether somebody can be evicted now.
    scouts: BTreeMap<ShapeId, PodId>,
}

/// Somebody who has to go.
#[derive(Debug)]
struct Victim {
    /// Who waits for that.
    preemptors: BTreeSet<Entity>,
    /// Who wanted it first, and from which node: for the event.
    by: String,
    /// The name under which who wanted it schedules.
    profile: SmolStr,
}

/// Room that was made for a gang.
#[derive(Debug)]
pub(super) struct Hold {
    /// Until when it is kept.
    pub(super) until: Millis,
    /// How many pods were evicted for it.
    pub(super) evicted: u32,
}

impl Evictions {
    /// A pod or gang waits no more: it is gone, or placed.
    pub(super) fn forget_preemptor(&mut self, entity: Entity) {
        for victim in self.waiting.remove(&entity).into_iter().flatten() {
            if let Some(victim) = self.victims.get_mut(&victim) {
                victim.preemptors.remove(&entity);
            }
        }
    }

    /// How many pods that were evicted for somebody are still there.
    pub(super) fn awaited_by(&self, entity: Entity) -> usize {
        self.waiting.get(&entity).map_or(0, BTreeSet::len)
    }

    /// Whether the eviction of a pod is on its way.
    pub(super) fn is_doomed(&self, id: PodId) -> bool {
        self.doomed.contains(&id)
    }

    /// Pods whose eviction is on its way.
    pub(super) fn doomed(&self) -> &BTreeSet<PodId> {
        &self.doomed
    }

    /// This process leads no more: what it sent may or may not happen.
    pub(super) fn end_term(&mut self) {
        *self = Self { last_op: self.last_op, ..Self::default() };
    }

    /// A pod stands nowhere any more.
    pub(super) fn left(&mut self, id: PodId) {
        if self.victims.contains_key(&id) {
            self.left.push(id);
        }
        self.doomed.remove(&id);
    }

    /// When [`Engine::look_after_evictions`] has something to do.
    pub(super) fn next_wakeup(&self) -> Option<Millis> {
        if !self.left.is_empty() {
            return Some(0);
        }
        self.ops.values().map(|(_, until)| *until).chain(self.holds.values().map(|hold| hold.until)).min()
    }

    /// Somebody waits for pods that a former leader evicted for it.
    pub(super) fn expect(&mut self, preemptor: Entity, going: &[PodId], by: &str) {
        self.wait(preemptor, going, &SmolStr::default(), |_| by.to_owned());
    }

    /// Somebody waits for these; `by` says who to whom, for the event of each.
    fn wait(&mut self, preemptor: Entity, victims: &[PodId], profile: &SmolStr, by: impl Fn(PodId) -> String) {
        self.forget_preemptor(preemptor);
        for &id in victims {
            let unknown = || Victim { preemptors: BTreeSet::new(), by: by(id), profile: profile.clone() };
            self.victims.entry(id).or_insert_with(unknown).preemptors.insert(preemptor);
        }
        self.waiting.insert(preemptor, victims.iter().copied().collect());
    }
}

impl Engine {
    pub(super) fn moment(&self) -> Moment {
        let cluster = self.snapshot.cluster();
        let promises = cluster.nominations.version() + cluster.reservations.version();
        (cluster.changes.seq(), promises, self.snapshot.budgets().version())
    }

    /// What pods that get one answer have in common.
    pub(super) fn kind_of(&self, id: PodId, shape: ShapeId) -> (ShapeId, i32, bool) {
        self.snapshot.cluster().info(id).map_or((shape, 0, true), |pod| (shape, pod.priority, pod.never_preempts))
    }

    /// Whether somebody less important than a pod stands anywhere, and it may evict.
    pub(super) fn may_preempt(&self, id: PodId) -> bool {
        let cluster = self.snapshot.cluster();
        self.snapshot.profile(id).preemption.is_some()
            && cluster.info(id).is_some_and(|pod| !pod.never_preempts && cluster.any_below(pod.priority))
    }

    /// No node takes pods of this shape: one of them looks whether somebody can be evicted, when its backoff is over.
    pub(super) fn send_scout(&mut self, shape: ShapeId, cures: Cures, now: Millis) {
        let on_the_way = |pod: &PodId| {
            let entry = self.queue.get(Entity::Pod(*pod));
            entry.is_some_and(|e| matches!(e.place, QueuePlace::Active | QueuePlace::Backoff(_)))
        };
        if self.evictions.scouts.get(&shape).is_some_and(on_the_way) {
            return;
        }
        let scout = self.queue.parked_pods(shape).find(|pod| self.may_preempt(*pod));
        match scout {
            Some(pod) => {
                self.evictions.scouts.insert(shape, pod);
                self.queue.wake(Entity::Pod(pod), true, cures, now);
            }
            None => {
                self.evictions.scouts.remove(&shape);
            }
        }
    }

    /// Looks for pods to evict for one that is refused, and begins to evict them. Returns the refusal with what came of it,
    /// and whether somebody was found.
    pub(super) fn preempt(
        &mut self,
        id: PodId,
        shape: ShapeId,
        demand: &Result<Demand, Reason>,
        refusal: Refusal,
        now: Millis,
        out: &mut Vec<Command>,
    ) -> (Refusal, bool) {
        if self.snapshot.cluster().node_count() == 0 {
            self.promise(id, None, out);
            return (refusal, false);
        }
        let Evictions { doomed, start, .. } = &self.evictions;
        let around = Surroundings { gangs: &self.gangs, doomed, start: *start };
        let Some((preemption, candidate)) = look(&mut self.snapshot, id, shape, demand, around) else {
            return (refusal, false);
        };
        let victims = candidate.as_ref().map(|c| u32::try_from(c.victims.len()).unwrap_or(u32::MAX));
        out.push(Command::Observe(Observation::Preemption { victims }));
        match (&preemption, candidate) {
            (_, Some(candidate)) => self.make_room(id, shape, &candidate, now, out),
            (Preemption::Nowhere(_), None) => self.promise(id, None, out),
            (Preemption::Terminating, None) => self.wait_for_leaving(id),
            (Preemption::Never | Preemption::Found { .. } | Preemption::Gang(_), None) => {}
        }
        let found = victims.is_some();
        (Refusal::Preempted { refusal: Box::new(refusal), preemption }, found)
    }

    fn make_room(&mut self, id: PodId, shape: ShapeId, candidate: &Candidate, now: Millis, out: &mut Vec<Command>) {
        let node = self.snapshot.cluster().node_name(candidate.node);
        self.evictions.start = candidate.node.dense().saturating_add(1);
        let priority = self.snapshot.cluster().pod(id).map_or(0, |p| p.standing.priority);
        self.displace(Entity::Pod(id), priority, &node, now, out);
        self.promise(id, Some(node.clone()), out);
        if let Some(info) = self.snapshot.cluster().info(id) {
            let (uid, profile) = (info.key.uid.clone(), info.scheduler_name.clone());
            let by = |_| format!("pod {uid} on node {node}");
            self.evict_all(Entity::Pod(id), &candidate.victims, &profile, by, now, out);
        }
        // The next of the shape may find somebody, too.
        let next = self.queue.parked_pods(shape).find(|pod| self.may_preempt(*pod));
        next.into_iter().for_each(|pod| self.retry(Entity::Pod(pod), now));
    }

    /// Less important pods that were promised the node look for another one, and with them their gangs.
    pub(super) fn displace(&mut self, by: Entity, priority: i32, node: &SmolStr, now: Millis, out: &mut Vec<Command>) {
        let cluster = self.snapshot.cluster();
        let lower =
            |other: &PodId| cluster.pod(*other).is_some_and(|p| p.standing.priority < priority && p.info.is_some());
        let displaced: Vec<PodId> = cluster.nominations.on(node).filter(lower).collect();
        for other in displaced {
            match self.gang_of(other) {
                Some((gang, _)) if Entity::Gang(gang) == by => {}
                Some((gang, _)) => {
                    self.withdraw(gang, out);
                    self.retry(Entity::Gang(gang), now);
                }
                None => {
                    self.promise(other, None, out);
                    self.retry(Entity::Pod(other), now);
                }
            }
        }
    }

    /// What waits is tried again at once.
    fn retry(&mut self, entity: Entity, now: Millis) {
        if self.lies(entity) {
            self.queue.activate(entity, false, now);
        }
    }

    /// Whether it is in the queue and not in hand.
    pub(super) fn lies(&self, entity: Entity) -> bool {
        self.queue.get(entity).is_some_and(|entry| entry.place != QueuePlace::InFlight)
    }

    /// Promises a pod a node, or takes the promise back, and has it written where it is not what the API server has.
    pub(super) fn promise(&mut self, id: PodId, node: Option<SmolStr>, out: &mut Vec<Command>) {
        if self.snapshot.nominate(id, node.clone())
            && let Some(info) = self.snapshot.cluster().info(id)
        {
            out.push(Command::Nominate { pod: info.key.clone(), node });
        }
    }

    /// Evicts pods for somebody who waits for that; `by` says who it is, for the event of each.
    pub(super) fn evict_all(
        &mut self,
        preemptor: Entity,
        victims: &[PodId],
        profile: &SmolStr,
        by: impl Fn(PodId) -> String,
        now: Millis,
        out: &mut Vec<Command>,
    ) {
        self.evictions.wait(preemptor, victims, profile, by);
        let mut intents = BTreeSet::new();
        for &id in victims {
            let Some(pod) = self.snapshot.cluster().pod(id) else { continue };
            match (pod.place, self.snapshot.cluster().info(id)) {
                (Place::Assumed(_), Some(info)) => {
                    intents.insert(info.gang.as_ref().map_or(GangKey::Pod(info.key.clone()), |_| GangKey::of(info)));
                }
                _ => self.evict(id, now, out),
            }
        }
        for intent in intents {
            self.protocol.abort(&intent, "preempted by one of a higher priority", now, &mut self.fx);
        }
    }

    /// Sends the eviction of a pod, unless it is going already.
    fn evict(&mut self, id: PodId, now: Millis, out: &mut Vec<Command>) {
        let Some(pod) = self.snapshot.cluster().pod(id) else { return };
        let Some(victim) = self.evictions.victims.get(&id) else { return };
        if pod.standing.deleting || self.evictions.doomed.contains(&id) {
            return;
        }
        self.evictions.last_op += 1;
        let op = OpId(FIRST_OP + self.evictions.last_op);
        let message = format!("{}: preempting to accommodate a higher priority pod", victim.profile);
        out.push(Command::Evict { op, pod: pod.key.clone(), message });
        self.evictions.doomed.insert(id);
        self.evictions.ops.insert(op, (id, now.saturating_add(OUTCOME_TIMEOUT_MS)));
    }

    /// A pod is bound: it waits for nobody any more, and if it was to be taken back, it is evicted after all.
    pub(super) fn evict_after_all(&mut self, id: PodId, now: Millis, out: &mut Vec<Command>) {
        self.evictions.forget_preemptor(Entity::Pod(id));
        self.evict(id, now, out);
    }

    /// What came of an eviction.
    pub(super) fn on_evicted(&mut self, op: OpId, result: &WriteResult, now: Millis, out: &mut Vec<Command>) {
        let Some((id, _)) = self.evictions.ops.remove(&op) else { return };
        match result {
            WriteResult::Ok(_) => self.tell_victim(id, "", out),
            // It is gone; the watch will say so.
            WriteResult::NotFound | WriteResult::Conflict => {}
            WriteResult::Refused(_) | WriteResult::Unknown(_) => {
                self.evictions.doomed.remove(&id);
                let preemptors = self.evictions.victims.remove(&id).map(|v| v.preemptors).unwrap_or_default();
                for preemptor in preemptors {
                    self.evictions.forget_preemptor(preemptor);
                    if self.lies(preemptor) {
                        self.queue.fail(preemptor, None, now);
                    }
                }
            }
        }
    }

    /// A victim that was not bound yet is taken back.
    pub(super) fn taken_back(&mut self, id: PodId, out: &mut Vec<Command>) {
        self.tell_victim(id, " (in kube-scheduler memory).", out);
        self.evictions.left(id);
    }

    fn tell_victim(&self, id: PodId, how: &str, out: &mut Vec<Command>) {
        let (Some(victim), Some(pod)) = (self.evictions.victims.get(&id), self.snapshot.cluster().pod(id)) else {
            return;
        };
        let note = format!("Preempted by {}{how}", victim.by);
        out.push(Command::PodEvent { pod: pod.key.clone(), kind: EventKind::Preempted, note });
    }

    /// Evictions that nobody answered failed, room that was kept too long is given up, and those whose victims have left are
    /// tried at once.
    pub(super) fn look_after_evictions(&mut self, now: Millis, out: &mut Vec<Command>) {
        let lost: Vec<OpId> =
            self.evictions.ops.iter().filter(|(_, (_, until))| *until <= now).map(|(op, _)| *op).collect();
        for op in lost {
            self.on_evicted(op, &WriteResult::Unknown("no answer".to_owned()), now, out);
        }
        let expired = self.evictions.holds.iter().filter(|(_, hold)| hold.until <= now).map(|(gang, _)| *gang);
        for gang in expired.collect::<Vec<_>>() {
            self.withdraw(gang, out);
            self.retry(Entity::Gang(gang), now);
        }
        for id in std::mem::take(&mut self.evictions.left) {
            let Some(victim) = self.evictions.victims.remove(&id) else { continue };
            for preemptor in victim.preemptors {
                let Some(left) = self.evictions.waiting.get_mut(&preemptor) else { continue };
                left.remove(&id);
                if left.is_empty() {
                    self.evictions.waiting.remove(&preemptor);
                    self.retry(preemptor, now);
                }
            }
        }
    }

    /// Somebody was evicted for this pod before; it waits for all who still leave its node.
    fn wait_for_leaving(&mut self, id: PodId) {
        if self.evictions.waiting.contains_key(&Entity::Pod(id)) {
            return;
        }
        let cluster = self.snapshot.cluster();
        let Some(node) = self.snapshot.nominated_node(id).and_then(|node| cluster.node(node)) else { return };
        let leaving = |pod: &&PodId| cluster.pod(**pod).is_some_and(|p| p.standing.deleting && p.standing.preempted);
        let leaving: Vec<PodId> = node.pods().iter().filter(leaving).copied().collect();
        let by = format!("pod {} on node {}", cluster.pod(id).map_or("", |p| p.key.uid.as_str()), node.info.name);
        self.evictions.expect(Entity::Pod(id), &leaving, &by);
    }
}

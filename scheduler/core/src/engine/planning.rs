//! Planning: one entity of the queue at a time gets a place, or a reason.

use super::gangs::quorum;
use super::{Engine, Flight};
use crate::command::{AttemptResult, Command, Observation};
use crate::cycle;
use crate::explain::{GangContext, Reason, Refusal};
use crate::gang::{
    Ask, Assessment, GangId, Minimum, Nowhere, Planned, Readiness, may_fit, plan, plan_on, plan_promised,
};
use crate::model::Millis;
use crate::plugins::Cures;
use crate::protocol::{BeginError, GangKey, Placement, Plan, Quorum};
use crate::queue::{Entity, Place};
use crate::shape::ShapeId;
use crate::snapshot::{NodeId, PodId};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Pods of a shape that are woken together; the answer to those that do not fit is fresh then.
const WOKEN_AT_LEAST: usize = 256;

impl Engine {
    /// Refused entities that something since the last run may have cured are active again: the first pods of each shape
    /// that fits somewhere now (more in the next run, while it does), pods that other pods may refuse after a backoff, and
    /// gangs for which the counters leave a place possible, or of which something else than before is wrong. `O(shapes that
    /// wait · changed nodes + such pods + members of such gangs)`. What the counters had not proved needs a search, and backs
    /// off; only a node, for which people wait and which comes seldom, is worth a search at once.
    pub(super) fn wake_cured(&mut self, now: Millis) {
        self.wake_claimants(now);
        let cures = std::mem::take(&mut self.cures);
        if cures.is_empty() {
            return;
        }
        if cures.meets(Cures::NODE.and(Cures::POD_GONE).and(Cures::DEVICE_CLASSES)) {
            for shape in self.queue.parked_shapes() {
                self.wake_shape(shape, cures, now);
            }
        }
        for pod in self.queue.parked_alone(cures) {
            self.queue.wake(Entity::Pod(pod), true, cures, now);
        }
        for gang in self.queue.refused_gangs(cures) {
            let Some(note) = self.notes.get(&gang) else { continue };
            if note.would_do.is_empty() {
                self.wake_refused_anyway(gang, cures, now);
            } else if note.would_do.iter().any(|ask| may_fit(&mut self.snapshot, ask)) {
                // What was reserved for it is not to be kept from others for a backoff's time.
                let reserved = self.snapshot.reservations().of(gang).is_some();
                let patient = !note.proven && !cures.meets(Cures::NODE) && !reserved;
                self.queue.wake(Entity::Gang(gang), patient, cures, now);
            } else if note.would_do.iter().any(|ask| self.gang_may_preempt(&ask.members)) {
                self.queue.wake(Entity::Gang(gang), true, cures, now);
            }
        }
    }

    /// A gang that was refused without asking for nodes is active again, unless the same is still against it: a claim whose
    /// volume is not seen yet is cured by the volume, and nothing else tells of that. `O(members)`.
    fn wake_refused_anyway(&mut self, id: GangId, cures: Cures, now: Millis) {
        let entity = Entity::Gang(id);
        let parked = self.queue.get(entity).filter(|entry| matches!(entry.place, Place::Parked(_)));
        let (Some(parked), Some(note)) = (parked, self.notes.get(&id)) else { return };
        let stays = match (parked.refusal.as_deref(), &note.asked) {
            (Some(Refusal::PreFilter { reason, .. }), Some((ask, _))) => {
                self.refused_anyway(ask).as_ref() == Some(reason)
            }
            _ => false,
        };
        if !stays {
            let patient = !note.proven;
            self.queue.wake(entity, patient, cures, now);
        }
    }

    fn wake_shape(&mut self, shape: ShapeId, cures: Cures, now: Millis) {
        let Some(first) = self.queue.first_parked(shape) else { return };
        let feasible = cycle::feasible_for(&mut self.snapshot, first, shape);
        if feasible == 0 {
            self.send_scout(shape, cures, now);
        } else if self.queue.wake_shape(shape, feasible.max(WOKEN_AT_LEAST), cures, now) {
            self.cures = self.cures.and(Cures::POD_GONE);
        }
    }

    /// Pods, and gangs of pods, whose claims changed are active again where that may have cured them. `O(such pods)`.
    fn wake_claimants(&mut self, now: Millis) {
        for pod in std::mem::take(&mut self.claimants) {
            let entity = self.gang_of(pod).map_or(Entity::Pod(pod), |(gang, _)| Entity::Gang(gang));
            if self.queue.get(entity).is_some_and(|entry| entry.waits_for(Cures::CLAIMS)) {
                self.queue.wake(entity, false, Cures::CLAIMS, now);
            }
        }
    }

    /// Plans a pod on its own.
    pub(super) fn try_pod(&mut self, id: PodId, now: Millis, out: &mut Vec<Command>) {
        let entity = Entity::Pod(id);
        let Some(shape) = self.snapshot.cluster().pod(id).and_then(|p| p.shape).filter(|_| self.is_waiting(id)) else {
            return self.queue.remove(entity);
        };
        let demand = self.snapshot.demand(id);
        if let Some(node) = cycle::nominated(&mut self.snapshot, id, shape, &demand) {
            return self.bind_pod(id, node, now, out);
        }
        // Pods of one shape share an answer, unless one of them asks for more or was promised a place.
        let shared = demand.as_ref().is_ok_and(|demand| !demand.refuses()) && !self.snapshot.is_nominated(id);
        let kind = self.kind_of(id, shape);
        let moment = self.moment();
        if let Some((at, refusal)) = self.refused.get(&kind).filter(|_| shared)
            && *at == moment
        {
            let refusal = Arc::clone(refusal);
            out.push(Command::Observe(Observation::Preemption { victims: None }));
            return self.refuse_pod(id, Some(shape), refusal, now, out);
        }
        match cycle::find_for(&mut self.snapshot, shape, &demand) {
            Ok(node) => self.bind_pod(id, node, now, out),
            Err(refusal) => {
                self.free_claims(entity, &[id], now, out);
                let (refusal, found) = self.preempt(id, shape, &demand, *refusal, now, out);
                let refusal = Arc::new(refusal);
                let shape = (shared && !found).then_some(shape);
                if shape.is_some() {
                    self.refused.insert(kind, (moment, Arc::clone(&refusal)));
                }
                self.refuse_pod(id, shape, refusal, now, out);
            }
        }
    }

    fn refuse_pod(
        &mut self,
        id: PodId,
        shape: Option<ShapeId>,
        refusal: Arc<Refusal>,
        now: Millis,
        out: &mut Vec<Command>,
    ) {
        self.observe_attempt(id, AttemptResult::Unschedulable, out);
        self.report(&[id], &refusal, out);
        // What refuses a shape is known exactly; whether somebody could be evicted takes a search to find out.
        let proven = shape.is_some() && !self.may_preempt(id);
        self.queue.park(Entity::Pod(id), shape, refusal, proven, now);
    }

    fn bind_pod(&mut self, id: PodId, node: NodeId, now: Millis, out: &mut Vec<Command>) {
        self.observe_backfill(&[(id, node)], out);
        self.snapshot.assume(id, node);
        let members = match self.placements(&[(id, node)]) {
            Ok(members) => members,
            Err(reason) => {
                let refusal = Refusal::PreFilter { total: self.snapshot.cluster().node_count(), reason };
                return self.refuse_pod(id, None, Arc::new(refusal), now, out);
            }
        };
        self.cures = self.cures.and(Cures::POD_ADDED);
        let Some(info) = self.snapshot.cluster().info(id) else { return };
        let plan = Plan {
            gang: GangKey::Pod(info.key.clone()),
            members,
            quorum: Quorum::all(1),
            ready_at_ms: self.first_ready.get(&id).copied().unwrap_or(now),
            planned_at_ms: now,
        };
        self.begin(Entity::Pod(id), plan, &[id], false, now, out);
    }

    /// Assumed pods with their nodes and what has to be prepared for them there. Where one must not be bound to its place,
    /// no assumption is left.
    pub(super) fn placements(&mut self, places: &[(PodId, NodeId)]) -> Result<Vec<Placement>, Reason> {
        let mut all = Vec::with_capacity(places.len());
        for (pod, node) in places {
            let Some(info) = self.snapshot.cluster().info(*pod) else { continue };
            match self.snapshot.preparations(*pod) {
                Ok(preparations) => {
                    let node = self.snapshot.cluster().node_name(*node);
                    let patience = self.snapshot.profile(*pod).patience;
                    all.push(Placement { preparations, patience, ..Placement::new(info, node) });
                }
                Err(reason) => {
                    for (pod, _) in places {
                        self.snapshot.forget(*pod);
                    }
                    return Err(reason);
                }
            }
        }
        Ok(all)
    }

    /// Hands a plan whose members are assumed to the protocol, or confirms it at once where nothing is bound.
    fn begin(
        &mut self,
        entity: Entity,
        plan: Plan,
        pods: &[PodId],
        replacing: bool,
        now: Millis,
        out: &mut Vec<Command>,
    ) {
        if !self.config.bind {
            for placement in &plan.members {
                if let Some(node) = &placement.node {
                    self.on_confirmed(&placement.pod, node, now, out);
                }
            }
            if let Entity::Gang(gang) = entity {
                self.on_gang_live(gang);
            }
            return self.queue.remove(entity);
        }
        let key = plan.gang.clone();
        match self.protocol.begin(plan, now, &mut self.fx) {
            Ok(()) => {
                if matches!(entity, Entity::Gang(_)) {
                    out.push(Command::Observe(Observation::GangPlanned));
                }
                let flight = Flight { entity: Some(entity), members: pods.iter().copied().collect(), replacing };
                self.flights.insert(key, flight);
            }
            Err(error) => {
                for pod in pods {
                    self.snapshot.forget(*pod);
                }
                match error {
                    BeginError::NotReady => self.queue.put_back(entity),
                    BeginError::JournalFull | BeginError::AlreadyOpen | BeginError::Incomplete => {
                        self.queue.fail(entity, None, now);
                    }
                }
            }
        }
    }

    /// Plans a gang: all of its members that wait, or (where that is impossible) its minimum.
    pub(super) fn try_gang(&mut self, id: GangId, now: Millis, out: &mut Vec<Command>) {
        let entity = Entity::Gang(id);
        let Some(seen) = self.assessment(id, now) else { return self.queue.remove(entity) };
        let missing = match &seen.readiness {
            Readiness::Ready(missing) => Some(missing.clone()),
            Readiness::Replacing => None,
            _ => return self.gang_changed(id),
        };
        let ask = match self.ask(&seen) {
            Ok(ask) => ask,
            Err(reason) => return self.refuse_gang(id, &seen, Vec::new(), self.named(id, reason), now, out),
        };
        self.note(id).proven = true;
        if let Some(reason) = self.refused_anyway(&ask) {
            let total = self.snapshot.cluster().node_count();
            let refusal = Refusal::PreFilter { total, reason };
            return self.refuse_gang(id, &seen, Vec::new(), refusal, now, out);
        }
        let would_do = self.would_do(&ask, &seen, missing.as_ref());
        match self.place_gang(id, &ask, &seen, missing.as_ref()) {
            Planned::Placed(places) => self.bind_gang(id, &seen, &places, missing.as_ref(), now, out),
            Planned::Nowhere(nowhere) => {
                self.note(id).proven = nowhere.proven;
                self.free_claims(entity, &ask.members, now, out);
                let refusal = self.no_place(id, &ask, *nowhere);
                // Replacements of a live gang get room together where that can be made, else one after the other.
                let together = missing.is_none().then(|| ask.clone());
                let asks: Vec<Ask> = together.into_iter().chain(would_do.iter().cloned()).collect();
                let refusal = self.make_room_for(id, &asks, refusal, now, out);
                // Whether somebody can be evicted takes a search to find out.
                let may_preempt = self.gang_may_preempt(&ask.members);
                self.note(id).proven &= !may_preempt;
                let outranked = refusal.is_outranked();
                self.refuse_gang(id, &seen, would_do, refusal, now, out);
                if outranked {
                    // Who goes first is in nobody's event.
                    self.queue.fail(entity, None, now);
                }
            }
            Planned::SearchLimit(steps) => {
                out.push(Command::Observe(Observation::SearchLimit));
                let refusal = self.named(id, Reason::SearchLimit(steps));
                let note = self.note(id);
                note.would_do = would_do;
                note.proven = false;
                self.reserving.stirred = true;
                self.report_all(id, &seen, &refusal, out);
                self.queue.fail(entity, Some(Arc::new(refusal)), now);
            }
            Planned::Split(level) => {
                let level = self.snapshot.cluster().tree().levels().name(level).into();
                let refusal = self.named(id, Reason::SplitDomain(level));
                self.refuse_gang(id, &seen, would_do, refusal, now, out);
            }
        }
    }

    /// The refusal of a gang that has no place.
    pub(super) fn no_place(&mut self, id: GangId, ask: &Ask, nowhere: Nowhere) -> Refusal {
        let level = ask.required.map(|l| self.snapshot.cluster().tree().levels().name(l).to_owned());
        let context = GangContext {
            gang: self.gangs.get(id).map(|g| g.title()).unwrap_or_default(),
            need: u32::try_from(ask.members.len()).unwrap_or(u32::MAX),
            fit: nowhere.fit,
            domain: level.map(|level| (level, nowhere.domain)),
            member: self.member_name(nowhere.member),
            part: nowhere.part.or_else(|| self.snapshot.kept_from_gang(&ask.members)),
        };
        Refusal::GangNodes { gang: context, seen: nowhere.seen }
    }

    /// What refuses a member whatever the nodes have.
    pub(super) fn refused_anyway(&self, ask: &Ask) -> Option<Reason> {
        let shape = |pod: &PodId| self.snapshot.cluster().pod(*pod)?.shape;
        let shapes: BTreeSet<ShapeId> = ask.members.iter().filter_map(shape).collect();
        let by_shape = shapes.into_iter().find_map(|shape| self.snapshot.shape(shape)?.spec.refused_anyway());
        by_shape.or_else(|| ask.members.iter().find_map(|pod| self.snapshot.refused_anyway(*pod)))
    }

    /// The least that would make a refused gang go on: its minimum, or any one replacement of each shape.
    pub(super) fn would_do(&self, ask: &Ask, seen: &Assessment, missing: Option<&Minimum>) -> Vec<Ask> {
        if let Some(missing) = missing {
            return vec![ask.of_fewer(self.fewest(seen, missing))];
        }
        let mut shapes = BTreeSet::new();
        let fresh = |pod: &&PodId| self.snapshot.cluster().pod(**pod).is_some_and(|p| shapes.insert(p.shape));
        ask.members.iter().filter(fresh).map(|pod| Ask { members: vec![*pod], ..ask.clone() }).collect()
    }

    /// The gang is not ready any more: it is looked at again.
    fn gang_changed(&mut self, id: GangId) {
        self.queue.remove(Entity::Gang(id));
        self.gangs.touch(id);
    }

    pub(super) fn named(&self, id: GangId, reason: Reason) -> Refusal {
        Refusal::Gang { gang: self.gangs.get(id).map(|g| g.title()).unwrap_or_default(), reason }
    }

    /// `rank N`, or the pod's name.
    fn member_name(&self, pod: PodId) -> String {
        let Some(info) = self.snapshot.cluster().info(pod) else { return String::new() };
        match info.gang.as_ref().and_then(|g| g.rank) {
            Some(rank) => format!("rank {rank}"),
            None => info.key.name.to_string(),
        }
    }

    /// Wherever members find a place, else where one was reserved for all who are needed.
    pub(super) fn place_gang(
        &mut self,
        id: GangId,
        ask: &Ask,
        seen: &Assessment,
        missing: Option<&Minimum>,
    ) -> Planned {
        let found = self.search_place(ask, seen, missing);
        if matches!(found, Planned::Placed(_) | Planned::Split(_)) || self.snapshot.reservations().is_empty() {
            return found;
        }
        let needed = missing.map_or_else(|| ask.clone(), |missing| ask.of_fewer(self.fewest(seen, missing)));
        let nodes = self.reserved_places(id, &needed.members);
        nodes.and_then(|nodes| plan_on(&mut self.snapshot, &needed, nodes)).map_or(found, Planned::Placed)
    }

    /// All members at once, where they were promised to stand if that can be; an elastic gang falls back to its minimum, replacements of a live gang to one after the other.
    fn search_place(&mut self, ask: &Ask, seen: &Assessment, missing: Option<&Minimum>) -> Planned {
        if let Some(places) = plan_promised(&mut self.snapshot, ask) {
            return Planned::Placed(places);
        }
        let all = plan(&mut self.snapshot, ask);
        if matches!(all, Planned::Placed(_) | Planned::Split(_)) {
            return all;
        }
        match missing {
            Some(missing) => {
                let fewest = self.fewest(seen, missing);
                if fewest.len() == ask.members.len() || fewest.is_empty() {
                    return all;
                }
                let fewest = ask.of_fewer(fewest);
                if let Some(places) = plan_promised(&mut self.snapshot, &fewest) {
                    return Planned::Placed(places);
                }
                match (plan(&mut self.snapshot, &fewest), all) {
                    (Planned::Placed(places), _) => Planned::Placed(places),
                    (Planned::Nowhere(fewest), Planned::Nowhere(all)) => {
                        let proven = all.proven && fewest.proven;
                        Planned::Nowhere(Box::new(Nowhere { proven, ..*all }))
                    }
                    (Planned::SearchLimit(steps), _) => Planned::SearchLimit(steps),
                    (_, all) => all,
                }
            }
            None if ask.members.len() > 1 => match self.place_one_by_one(ask) {
                places if places.is_empty() => all,
                places => Planned::Placed(places),
            },
            None => all,
        }
    }

    /// The lowest ranks that make the minimum.
    fn fewest(&self, seen: &Assessment, missing: &Minimum) -> Vec<PodId> {
        let role = |pod: &PodId| self.snapshot.cluster().info(*pod).and_then(|p| Some(p.gang.as_ref()?.role.clone()));
        let mut left: BTreeMap<SmolStr, u32> = missing.roles.clone();
        let mut extra = missing.total.saturating_sub(left.values().sum());
        let needed = |pod: &&PodId| {
            if let Some(n) = role(pod).and_then(|r| left.get_mut(&r).filter(|n| **n > 0)) {
                *n -= 1;
                return true;
            }
            let spare = extra > 0;
            extra -= u32::from(spare);
            spare
        };
        seen.pending.iter().filter(needed).copied().collect()
    }

    /// Places members of a live gang one after the other, each close to those before; those that must share a domain of their
    /// own (a segment) together.
    pub(super) fn place_one_by_one(&mut self, ask: &Ask) -> Vec<(PodId, NodeId)> {
        let mut places = Vec::new();
        let mut next = ask.clone();
        for members in ask.layout.tied_together(&ask.members) {
            next.members = members;
            if let Planned::Placed(found) = plan(&mut self.snapshot, &next) {
                next.bound.extend(found.iter().map(|(_, node)| *node));
                places.extend(found);
            }
        }
        places
    }

    fn bind_gang(
        &mut self,
        id: GangId,
        seen: &Assessment,
        places: &[(PodId, NodeId)],
        missing: Option<&Minimum>,
        now: Millis,
        out: &mut Vec<Command>,
    ) {
        let Some(key) = self.key_of(id) else { return };
        let pods: Vec<PodId> = places.iter().map(|(pod, _)| *pod).collect();
        let members = match self.placements(places) {
            Ok(members) => members,
            Err(reason) => {
                // The search took this place for a good one: whether it finds another takes a search.
                self.note(id).proven = false;
                return self.refuse_gang(id, seen, Vec::new(), self.named(id, reason), now, out);
            }
        };
        self.cures = self.cures.and(Cures::POD_ADDED);
        let plan = Plan {
            gang: key,
            members,
            quorum: missing.map(|m| quorum(m, 0)).unwrap_or_default(),
            // A surplus member that came later was not waited for.
            ready_at_ms: places.iter().filter_map(|(pod, _)| self.first_ready.get(pod)).max().copied().unwrap_or(now),
            planned_at_ms: now,
        };
        self.observe_backfill(places, out);
        self.unreserve(id);
        let note = self.note(id);
        note.asked = None;
        note.waiting = None;
        let replacing = missing.is_none() || !seen.bound.is_empty();
        self.begin(Entity::Gang(id), plan, &pods, replacing, now, out);
    }

    fn refuse_gang(
        &mut self,
        id: GangId,
        seen: &Assessment,
        would_do: Vec<Ask>,
        refusal: Refusal,
        now: Millis,
        out: &mut Vec<Command>,
    ) {
        let asked = self.asked(seen);
        let note = self.note(id);
        note.asked = asked;
        note.would_do = would_do;
        let proven = note.proven;
        self.reserving.stirred |= refusal.lacks_room();
        self.report_all(id, seen, &refusal, out);
        self.queue.park(Entity::Gang(id), None, Arc::new(refusal), proven, now);
    }

    fn report_all(&mut self, id: GangId, seen: &Assessment, refusal: &Refusal, out: &mut Vec<Command>) {
        seen.pending.iter().for_each(|pod| self.observe_attempt(*pod, AttemptResult::Unschedulable, out));
        self.report(&seen.pending, refusal, out);
        self.report_gang(id, seen, refusal, out);
    }
}

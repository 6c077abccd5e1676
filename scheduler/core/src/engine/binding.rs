//! What the binding protocol says, mapped on the snapshot, the queue and the reports.

use super::{Engine, Flight};
use crate::command::{AttemptResult, Command, EventKind, GangSchedulingStatus, Observation};
use crate::demand;
use crate::explain::{Reason, Refusal};
use crate::gang::{Ask, GangId, Planned, is_torn, plan};
use crate::model::{Millis, PodInfo, PodKey};
use crate::plugins::Cures;
use crate::protocol::{Cause, Check, Effect, Ending, GangKey, NewPlace, ReplanMember, Replanned, Timings};
use crate::queue::Entity;
use crate::shape::verdict;
use crate::snapshot::{NodeId, Place, PodId};
use flowforge_topology_core::LevelIndex;
use smol_str::SmolStr;
use std::sync::Arc;

/// Why the intent of a gang that has ended is undone.
pub(super) const ENDED: &str = "the gang has ended";

/// A call of the protocol that follows from its effects; made after all of them were taken.
enum Answer {
    Replanned(GangKey, Replanned),
    Abort(GangKey, String),
    NodeGone(SmolStr),
    Recovered(GangKey),
    Offer(GangId),
    Checked(PodKey, Check),
}

impl Engine {
    /// Takes the protocol's effects until it has no more.
    pub(super) fn settle(&mut self, now: Millis, out: &mut Vec<Command>) {
        loop {
            out.append(&mut self.fx.commands);
            if self.fx.effects.is_empty() {
                return;
            }
            let mut answers = Vec::new();
            for effect in std::mem::take(&mut self.fx.effects) {
                self.take_effect(effect, now, out, &mut answers);
            }
            for answer in answers {
                match answer {
                    Answer::Replanned(gang, answer) => self.protocol.replanned(&gang, answer, now, &mut self.fx),
                    Answer::Abort(gang, why) => self.protocol.abort(&gang, &why, now, &mut self.fx),
                    Answer::NodeGone(name) => self.protocol.on_node_gone(&name, now, &mut self.fx),
                    Answer::Recovered(gang) => self.tell_recovered(&gang, now),
                    Answer::Offer(gang) => self.offer(gang, now),
                    Answer::Checked(pod, check) => self.protocol.checked(&pod, check, now, &mut self.fx),
                }
            }
        }
    }

    fn take_effect(&mut self, effect: Effect, now: Millis, out: &mut Vec<Command>, answers: &mut Vec<Answer>) {
        match effect {
            Effect::Ready => self.gangs.touch_all(),
            Effect::Fenced { by_epoch } => {
                self.on_follow(now);
                self.fenced_by = Some(by_epoch);
            }
            Effect::Recovered { gang, members } => self.on_recovered(gang, members, answers),
            Effect::Confirm { pod, node } => self.on_confirmed(&pod, &node, now, out),
            Effect::Prepared { pod, node } => {
                let check = self.check_prepared(&pod, &node);
                answers.push(Answer::Checked(pod, check));
            }
            Effect::Release { pod } => self.on_released(&pod, out),
            Effect::ForeignBound { gang, pod, node } => {
                if let Some(id) = self.snapshot.cluster().find_pod(&pod.uid) {
                    self.snapshot.confirm(id, &node);
                }
                if let Some(why) = self.broken_constraint(&gang, now) {
                    answers.push(Answer::Abort(gang, why));
                }
            }
            Effect::Replan { gang, members } => {
                let answer = self.replan(&gang, &members, now);
                answers.push(Answer::Replanned(gang, answer));
            }
            Effect::MemberLost { gang, .. } => answers.extend(self.gang_of_key(&gang).map(Answer::Offer)),
            Effect::HeldPartial { gang, bound, message, .. } => self.on_held(&gang, bound, message, out),
            Effect::WriteRefused { gang: Some(gang), message } => {
                let refusal = self.refusal_of(&gang, Reason::BindRefused(message));
                let pods: Vec<PodId> =
                    self.flights.get(&gang).map(|f| f.members.iter().copied().collect()).unwrap_or_default();
                let unbound: Vec<PodId> = pods.into_iter().filter(|p| self.is_unbound(*p)).collect();
                self.report(&unbound, &refusal, out);
            }
            Effect::WriteRefused { gang: None, message } => {
                out.push(Command::Observe(Observation::JournalRefused(message)));
            }
            Effect::JournalUnreadable { slot, message } => {
                self.journal_lost = true;
                let what = format!("slot {slot}: {message}");
                out.push(Command::Observe(Observation::JournalUnreadable(what)));
            }
            Effect::Closed { gang, outcome, gone, timings } => self.on_closed(&gang, outcome, &gone, timings, now, out),
        }
    }

    /// Whether what was prepared for a pod is what it needs on its node.
    fn check_prepared(&self, pod: &PodKey, node: &SmolStr) -> Check {
        let cluster = self.snapshot.cluster();
        match (cluster.find_pod(&pod.uid), cluster.find_node(node)) {
            (Some(pod), Some(node)) => self.snapshot.check_prepared(pod, node),
            // Their end is told in another way.
            _ => Check::NotYet,
        }
    }

    fn is_unbound(&self, pod: PodId) -> bool {
        self.snapshot.cluster().pod(pod).is_some_and(|p| matches!(p.place, Place::Pending | Place::Assumed(_)))
    }

    /// An intent of a former leader: its members stand where it planned them until the protocol says otherwise.
    fn on_recovered(&mut self, gang: GangKey, members: Vec<(PodKey, Option<SmolStr>)>, answers: &mut Vec<Answer>) {
        let entity = match &gang {
            GangKey::Pod(pod) => self.snapshot.cluster().find_pod(&pod.uid).map(Entity::Pod),
            GangKey::Gang { .. } => self.gang_of_key(&gang).map(Entity::Gang),
        };
        let mut flight = Flight { entity, ..Flight::default() };
        for (pod, node) in members {
            let Some(id) = self.snapshot.cluster().find_pod(&pod.uid) else { continue };
            flight.members.insert(id);
            let Some(name) = node else { continue };
            match self.snapshot.cluster().find_node(&name) {
                Some(node) if self.snapshot.cluster().node(node).is_some_and(|n| !n.placeholder) => {
                    self.snapshot.assume(id, node);
                }
                _ => answers.push(Answer::NodeGone(name)),
            }
        }
        if let Some(entity) = entity {
            self.queue.remove(entity);
        }
        if self.is_closed(&gang) {
            answers.push(Answer::Abort(gang.clone(), ENDED.to_owned()));
        }
        answers.push(Answer::Recovered(gang.clone()));
        self.flights.insert(gang, flight);
    }

    /// Tells the protocol what is known of the pods of a recovered intent.
    fn tell_recovered(&mut self, gang: &GangKey, now: Millis) {
        let members = self.flights.get(gang).map(|flight| &flight.members);
        let pods = members.into_iter().flatten().filter_map(|pod| self.snapshot.cluster().info(*pod));
        let pods: Vec<&PodInfo> = pods.collect();
        self.protocol.recovered(gang, &pods, now, &mut self.fx);
    }

    /// Whether the very gang of this key is declared to have ended.
    fn is_closed(&self, key: &GangKey) -> bool {
        let declared = self.gang_of_key(key).and_then(|id| self.gangs.get(id)?.declared.as_ref());
        let GangKey::Gang { uid, .. } = key else { return false };
        declared.is_some_and(|gang| gang.closed && uid.as_ref().is_none_or(|uid| *uid == gang.uid))
    }

    /// A pod is bound where it was planned.
    pub(super) fn on_confirmed(&mut self, key: &PodKey, node: &SmolStr, now: Millis, out: &mut Vec<Command>) {
        let Some(id) = self.snapshot.cluster().find_pod(&key.uid) else { return };
        self.snapshot.confirm(id, node);
        self.evict_after_all(id, now, out);
        let Some(info) = self.snapshot.cluster().info(id) else { return };
        let entity = match self.gang_of(id) {
            Some((gang, _)) => Entity::Gang(gang),
            None => Entity::Pod(id),
        };
        let attempts = self.queue.get(entity).map_or(1, |e| e.attempts.max(1));
        let sli_ms = self.first_ready.remove(&id).map_or(0, |ready| now.saturating_sub(ready));
        let note = format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
        out.push(Command::PodEvent { pod: info.key.clone(), kind: EventKind::Scheduled, note });
        self.observe_attempt(id, AttemptResult::Scheduled, out);
        out.push(Command::Observe(Observation::PodScheduled { attempts, sli_ms }));
    }

    /// A pod is not bound, and no Binding of ours can land any more.
    fn on_released(&mut self, key: &PodKey, out: &mut Vec<Command>) {
        let Some(id) = self.snapshot.cluster().find_pod(&key.uid) else { return };
        if self.vacant.contains_key(&key.uid) {
            return self.drop_pod(id);
        }
        if self.snapshot.forget(id) {
            self.cures = self.cures.and(Cures::POD_GONE);
            self.taken_back(id, out);
        }
    }

    /// Whether the members of a gang stand in several domains of a level that must hold all of them.
    fn broken_constraint(&self, key: &GangKey, now: Millis) -> Option<String> {
        let seen = self.assessment(self.gang_of_key(key)?, now)?;
        let level = is_torn(&self.snapshot, &self.ask(&seen).ok()?)?;
        Some(self.split(level).to_string())
    }

    fn split(&self, level: LevelIndex) -> Reason {
        Reason::SplitDomain(self.snapshot.cluster().tree().levels().name(level).into())
    }

    /// New places for members of an open intent: their old one where it is still good, else close to the others.
    fn replan(&mut self, key: &GangKey, members: &[ReplanMember], now: Millis) -> Replanned {
        let mut waiting: Vec<PodId> = Vec::new();
        let mut places: Vec<(PodId, NodeId)> = Vec::new();
        for member in members {
            if let Some(lost) = member.takes_slot_of.as_ref().and_then(|lost| self.vacant.get(&lost.uid).copied()) {
                self.drop_pod(lost);
            }
            let Some(id) = self.snapshot.cluster().find_pod(&member.pod.uid) else { continue };
            self.snapshot.forget(id);
            if let Some(flight) = self.flights.get_mut(key) {
                flight.members.insert(id);
            }
            match member.prior.as_ref().and_then(|prior| self.still_good(id, prior)) {
                Some(node) => {
                    self.snapshot.assume(id, node);
                    places.push((id, node));
                }
                None => waiting.push(id),
            }
        }
        let mut refusal = self.replan_rest(key, &waiting, now, &mut places);
        let mut placed = Vec::with_capacity(places.len());
        for (id, node) in places {
            let Some(pod) = self.snapshot.cluster().pod(id).map(|pod| pod.key.clone()) else { continue };
            match self.snapshot.preparations(id) {
                Ok(preparations) => {
                    let patience = self.snapshot.profile(id).patience;
                    placed.push(NewPlace {
                        pod,
                        node: self.snapshot.cluster().node_name(node),
                        preparations,
                        patience,
                    });
                }
                // It must not be bound to this place: it stays without one.
                Err(reason) => {
                    self.snapshot.forget(id);
                    refusal = Some(reason.to_string());
                }
            }
        }
        if placed.is_empty() {
            return Replanned::Refused(refusal.unwrap_or_else(|| "its pods are not known".to_owned()));
        }
        Replanned::Placed(placed)
    }

    /// The node, where it takes the pod now.
    fn still_good(&mut self, pod: PodId, node: &SmolStr) -> Option<NodeId> {
        let cluster = self.snapshot.cluster();
        let node = cluster.find_node(node)?;
        let shape = cluster.pod(pod)?.shape?;
        let spec = self.snapshot.shape(shape)?.spec.clone();
        let good = if self.snapshot.may_demand(pod) {
            let demand = self.snapshot.own_demand(pod).ok()?;
            demand::takes(&mut self.snapshot, shape, &spec, &demand, node)
        } else {
            verdict(node, &spec, self.snapshot.cluster()).is_feasible()
        };
        good.then_some(node)
    }

    fn replan_rest(
        &mut self,
        key: &GangKey,
        pods: &[PodId],
        now: Millis,
        places: &mut Vec<(PodId, NodeId)>,
    ) -> Option<String> {
        if pods.is_empty() {
            return None;
        }
        let seen = self.assessment(self.gang_of_key(key)?, now)?;
        let ask = match self.ask(&seen) {
            Ok(ask) => Ask { members: pods.to_vec(), ..ask },
            Err(reason) => return Some(reason.to_string()),
        };
        match plan(&mut self.snapshot, &ask) {
            Planned::Placed(found) => {
                places.extend(found);
                None
            }
            Planned::Split(level) => Some(self.split(level).to_string()),
            Planned::SearchLimit(steps) => Some(Reason::SearchLimit(steps).to_string()),
            Planned::Nowhere(nowhere) => {
                if !ask.bound.is_empty() {
                    places.extend(self.place_one_by_one(&ask));
                }
                Some(Refusal::Nodes(nowhere.seen).message())
            }
        }
    }

    fn refusal_of(&self, key: &GangKey, reason: Reason) -> Refusal {
        match key {
            GangKey::Pod(_) => Refusal::Pod { reason },
            GangKey::Gang { namespace, name, .. } => Refusal::Gang { gang: format!("{namespace}/{name}"), reason },
        }
    }

    fn on_held(&mut self, key: &GangKey, bound: u32, message: String, out: &mut Vec<Command>) {
        let Some(id) = self.gang_of_key(key) else { return };
        if let Some(pod) = self.flights.get(key).and_then(|f| f.members.iter().copied().find(|p| self.is_unbound(*p)))
            && let Some(info) = self.snapshot.cluster().info(pod)
        {
            out.push(Command::PodEvent {
                pod: info.key.clone(),
                kind: EventKind::FailedScheduling,
                note: message.clone(),
            });
        }
        let reason = SmolStr::new_static("HeldPartial");
        let status = GangSchedulingStatus { scheduled: false, reason, message, bound, domain: None, nodes: Vec::new() };
        self.write_gang_status(id, status, out);
    }

    fn on_closed(
        &mut self,
        key: &GangKey,
        outcome: Ending,
        gone: &[PodKey],
        timings: Timings,
        now: Millis,
        out: &mut Vec<Command>,
    ) {
        self.doom(key, gone);
        let flight = self.flights.remove(key).unwrap_or_default();
        self.drop_vacant(&flight);
        match (key, outcome) {
            (GangKey::Pod(_), Ending::Bound { .. }) => {
                if let Some(entity) = flight.entity {
                    self.queue.remove(entity);
                }
            }
            (GangKey::Pod(pod), Ending::Undone { cause }) => self.on_pod_undone(pod, &cause, now, out),
            (GangKey::Gang { .. }, Ending::Bound { .. }) => {
                observe_gang(timings, out);
                let Some(id) = self.gang_of_key(key) else { return };
                self.queue.remove(Entity::Gang(id));
                self.on_gang_live(id);
                self.report_live(id, now, out);
            }
            (GangKey::Gang { .. }, Ending::Undone { cause }) => self.on_gang_undone(key, &flight, &cause, now, out),
        }
    }

    /// These members count as deleting until the watch says so.
    fn doom(&mut self, key: &GangKey, gone: &[PodKey]) {
        let known = gone.iter().filter_map(|pod| self.snapshot.cluster().find_pod(&pod.uid)).collect::<Vec<_>>();
        if let Some(gang) = self.gang_of_key(key).and_then(|id| self.gangs.get_mut(id)) {
            let members: Vec<PodId> = known.into_iter().filter(|pod| gang.members.contains(pod)).collect();
            gang.doomed.extend(members);
        }
    }

    /// A gang's minimum is live.
    pub(super) fn on_gang_live(&mut self, id: GangId) {
        if let Some(gang) = self.gangs.get_mut(id) {
            gang.whole_once = true;
        }
        self.has_room(id);
        self.gangs.touch(id);
    }

    /// Places that were kept for replacements which did not come are free.
    fn drop_vacant(&mut self, flight: &Flight) {
        let vacant: Vec<PodId> = self.vacant.values().copied().filter(|id| flight.members.contains(id)).collect();
        vacant.into_iter().for_each(|id| self.drop_pod(id));
    }

    fn on_pod_undone(&mut self, key: &PodKey, cause: &Cause, now: Millis, out: &mut Vec<Command>) {
        let Some(id) = self.snapshot.cluster().find_pod(&key.uid) else { return };
        let entity = Entity::Pod(id);
        if !self.is_waiting(id) {
            return self.queue.remove(entity);
        }
        if matches!(cause, Cause::Refused(_) | Cause::Unprepared(_)) {
            self.observe_attempt(id, AttemptResult::Error, out);
            self.report(&[id], &Refusal::Pod { reason: undone(cause) }, out);
        }
        self.update_single(id, false, now);
        if matches!(cause, Cause::Changed(_)) {
            self.queue.renew(entity, now);
        } else {
            self.queue.fail(entity, Some(Arc::new(Refusal::Pod { reason: undone(cause) })), now);
        }
    }

    fn on_gang_undone(&mut self, key: &GangKey, flight: &Flight, cause: &Cause, now: Millis, out: &mut Vec<Command>) {
        let Some(id) = self.gang_of_key(key) else { return };
        let unbound: Vec<PodId> = flight.members.iter().copied().filter(|p| self.is_unbound(*p)).collect();
        let refusal = self.refusal_of(key, undone(cause));
        self.report(&unbound, &refusal, out);
        let reason = SmolStr::new_static(refusal.condition_reason());
        let status = GangSchedulingStatus {
            scheduled: false,
            reason,
            message: refusal.message(),
            bound: 0,
            domain: None,
            nodes: Vec::new(),
        };
        if !flight.replacing {
            self.write_gang_status(id, status, out);
        }
        self.queue.fail(Entity::Gang(id), Some(Arc::new(refusal)), now);
        self.gangs.touch(id);
    }
}

fn undone(cause: &Cause) -> Reason {
    match cause {
        Cause::Refused(text) => Reason::BindRefused(text.clone()),
        other => Reason::Undone(other.message().to_owned()),
    }
}

fn observe_gang(timings: Timings, out: &mut Vec<Command>) {
    let Some(acked) = timings.last_ack_at_ms.filter(|_| !timings.recovered) else { return };
    let first_bind = timings.first_bind_at_ms.unwrap_or(timings.planned_at_ms);
    out.push(Command::Observe(Observation::GangPlaced {
        members: timings.members,
        queue_ms: timings.planned_at_ms.saturating_sub(timings.ready_at_ms),
        prepare_ms: first_bind.saturating_sub(timings.planned_at_ms),
        bind_ms: acked.saturating_sub(first_bind),
        total_ms: acked.saturating_sub(timings.ready_at_ms),
    }));
}

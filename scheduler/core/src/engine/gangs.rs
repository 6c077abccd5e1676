//! Looking at gangs: which are ready, which wait and why, which are partly live.

use super::{Engine, Note};
use crate::command::Command;
use crate::explain::{Reason, Refusal};
use crate::gang::{Ask, Assessment, GangId, Layout, Minimum, Origin, Readiness, assess, level};
use crate::model::Millis;
use crate::protocol::{BeginError, GangKey, PartialGang, Placement, Quorum};
use crate::queue::{Entity, Place};
use crate::snapshot::{NodeId, PodId};
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where plain gangs name the level that all must share.
const REQUIRED: &str = "annotation flowforge.dev/topology-required";
/// Where they name those that are preferred.
const PREFERRED: &str = "annotation flowforge.dev/topology-preferred";

impl Engine {
    /// Looks at every gang whose members or declaration changed, or whose settle time has passed.
    pub(super) fn look_at_gangs(&mut self, now: Millis, out: &mut Vec<Command>) {
        while let Some((_, gang)) = self.settling.first().copied().filter(|(at, _)| *at <= now) {
            self.settling.pop_first();
            self.gangs.touch(gang);
        }
        for gang in self.gangs.take_dirty() {
            self.look_at(gang, now, out);
        }
    }

    fn look_at(&mut self, id: GangId, now: Millis, out: &mut Vec<Command>) {
        self.set_outside(id, 0);
        if let Some(until) = self.notes.get_mut(&id).and_then(|n| n.settling_until.take()) {
            self.settling.remove(&(until, id));
        }
        let Some(key) = self.key_of(id) else {
            self.queue.remove(Entity::Gang(id));
            self.notes.remove(&id);
            return self.withdraw(id, out);
        };
        if self.protocol.is_open(&key) {
            return self.offer(id, now);
        }
        self.remember_whole(id);
        let Some(gang) = self.gangs.get(id) else { return };
        let seen = assess(gang, self.snapshot.cluster(), now, self.config.settle_ms);
        let title = gang.title();
        for (pod, reason) in &seen.strangers {
            let refusal = Refusal::Gang { gang: title.clone(), reason: reason.clone() };
            self.report(&[*pod], &refusal, out);
        }
        let queued = matches!(seen.readiness, Readiness::Ready(_) | Readiness::Replacing | Readiness::Partial);
        self.set_outside(id, seen.strangers.len() + if queued { 0 } else { seen.pending.len() });
        if matches!(seen.readiness, Readiness::Idle | Readiness::Waiting(_)) {
            self.withdraw(id, out);
        }
        match &seen.readiness {
            Readiness::Idle => self.queue.remove(Entity::Gang(id)),
            Readiness::Waiting(reason) => {
                let refusal = Refusal::Gang { gang: title, reason: reason.clone() };
                self.wait(id, &seen, refusal, now, out);
            }
            Readiness::Settling(until) => {
                self.settle_until(id, *until);
                self.queue.remove(Entity::Gang(id));
            }
            Readiness::Ready(_) | Readiness::Replacing => self.enqueue(id, &seen, now),
            Readiness::Partial => self.adopt(id, key, &seen, now),
        }
    }

    /// How many members of a gang wait although they are in no queue.
    pub(super) fn set_outside(&mut self, id: GangId, pods: usize) {
        let before = match self.notes.get_mut(&id) {
            Some(note) => std::mem::replace(&mut note.outside, pods),
            None if pods == 0 => 0,
            None => std::mem::replace(&mut self.note(id).outside, pods),
        };
        self.outside = self.outside + pods - before;
    }

    fn wait(&mut self, id: GangId, seen: &Assessment, refusal: Refusal, now: Millis, out: &mut Vec<Command>) {
        self.queue.remove(Entity::Gang(id));
        let quiet_at = self.gangs.get(id).map_or(0, |g| g.last_arrival_ms.saturating_add(self.config.settle_ms));
        let arriving =
            matches!(refusal, Refusal::Gang { reason: Reason::Incomplete(..) | Reason::RoleIncomplete(..), .. });
        if now < quiet_at && arriving {
            // Members are still arriving: a count on each of them for every arrival would be a flood of writes.
            self.settle_until(id, quiet_at);
            return;
        }
        self.report(&seen.pending, &refusal, out);
        self.report_gang(id, seen, &refusal, out);
        self.notes.entry(id).or_default().waiting = Some(Arc::new(refusal));
    }

    /// A gang that can be planned is queued; one that was refused stays parked while it asks for the same.
    fn enqueue(&mut self, id: GangId, seen: &Assessment, now: Millis) {
        let entity = Entity::Gang(id);
        let since = self.gangs.get(id).map_or(now, |g| g.last_arrival_ms);
        let asks = self.asked(seen);
        let same = asks.is_some() && self.notes.get(&id).is_some_and(|note| note.asked == asks);
        let parked = self.queue.get(entity).is_some_and(|e| matches!(e.place, Place::Parked(_)));
        let profile = seen.pending.first().map_or(0, |pod| self.snapshot.profile(*pod).id());
        self.queue.add(entity, seen.priority, since, seen.pending.len(), profile);
        if parked && !same {
            self.queue.activate(entity, false, now);
        }
        if let Some(note) = self.notes.get_mut(&id) {
            note.waiting = None;
        }
    }

    /// Offers the pods of a gang to the open intent, bound ones too: they may take the slot of a lost member.
    pub(super) fn offer(&mut self, id: GangId, now: Millis) {
        let Some(gang) = self.gangs.get(id) else { return };
        for pod in gang.members.difference(&gang.doomed) {
            let Some(record) = self.snapshot.cluster().pod(*pod).filter(|p| !p.vacant) else { continue };
            if let Some(info) = &record.info
                && !self.protocol.is_member(&record.key)
            {
                self.protocol.on_pod(info, now, &mut self.fx);
            }
        }
    }

    /// A gang whose bound members carry the mark of an intent that is closed was whole once.
    fn remember_whole(&mut self, id: GangId) {
        let Some(gang) = self.gangs.get(id).filter(|g| !g.whole_once && !self.journal_lost) else { return };
        let marked = |pod: &PodId| {
            let bound = self.snapshot.cluster().pod(*pod).is_some_and(|p| p.place.node().is_some());
            bound && self.snapshot.cluster().info(*pod).is_some_and(|p| p.intent.is_some() && !p.deleting)
        };
        let whole = gang.members.difference(&gang.doomed).any(marked);
        if let Some(gang) = self.gangs.get_mut(id) {
            gang.whole_once |= whole;
        }
    }

    /// A gang of which a part is bound, and that never was whole: completed or rolled back by the protocol.
    fn adopt(&mut self, id: GangId, key: GangKey, seen: &Assessment, now: Millis) {
        self.queue.remove(Entity::Gang(id));
        let members: BTreeSet<PodId> = seen.bound.iter().chain(&seen.pending).copied().collect();
        let found = members.iter().filter_map(|pod| self.snapshot.cluster().info(*pod)).map(Placement::found).collect();
        let vacant = seen.vacant.iter().flat_map(|(role, n)| (0..*n).map(|_| (role.clone(), None, None)));
        let partial = PartialGang {
            gang: key.clone(),
            members: found,
            vacant: vacant.collect(),
            quorum: quorum(&seen.minimum, seen.done),
            may_roll_back: true,
        };
        match self.protocol.adopt(partial, now, &mut self.fx) {
            Ok(()) => {
                self.flights.insert(key, super::Flight { entity: Some(Entity::Gang(id)), members, replacing: false });
            }
            Err(BeginError::JournalFull) => self.retry_later(id, now),
            Err(BeginError::NotReady | BeginError::AlreadyOpen | BeginError::Incomplete) => {}
        }
    }

    /// Looks at a gang again after a while.
    pub(super) fn retry_later(&mut self, id: GangId, now: Millis) {
        self.settle_until(id, now.saturating_add(self.config.backoff_initial_ms));
    }

    /// Looks at a gang again at this time.
    fn settle_until(&mut self, id: GangId, at: Millis) {
        self.settling.insert((at, id));
        self.note(id).settling_until = Some(at);
    }

    /// Name by which the protocol knows a gang; None when it has no members.
    pub(super) fn key_of(&self, id: GangId) -> Option<GangKey> {
        let gang = self.gangs.get(id)?;
        let current = gang.declared.as_ref().map(|d| &d.uid);
        let infos = || gang.members.iter().filter_map(|pod| self.snapshot.cluster().info(*pod));
        let mut of_attempt = infos().filter(|p| p.gang.as_ref().is_some_and(|g| g.uid.as_ref() == current));
        of_attempt
            .next()
            .or_else(|| infos().find(|p| p.gang.as_ref().is_some_and(|g| g.uid.is_none())))
            .map(GangKey::of)
            .or_else(|| infos().next().map(GangKey::of))
    }

    /// The gang that a pod is a member of, and its name.
    pub(super) fn gang_of(&self, pod: PodId) -> Option<(GangId, SmolStr)> {
        let info = self.snapshot.cluster().info(pod)?;
        let membership = info.gang.as_ref()?;
        Some((self.gangs.find(&info.key.namespace, &membership.name)?, membership.name.clone()))
    }

    /// The gang of a protocol key.
    pub(super) fn gang_of_key(&self, key: &GangKey) -> Option<GangId> {
        match key {
            GangKey::Pod(_) => None,
            GangKey::Gang { namespace, name, .. } => self.gangs.find(namespace, name),
        }
    }

    /// What the planner is asked for a gang.
    pub(super) fn ask(&self, seen: &Assessment) -> Result<Ask, Reason> {
        let levels = self.snapshot.cluster().tree().levels();
        let field = |name: &str, annotation: &'static str| match seen.origin {
            Origin::Gang => format_smolstr!("spec.topology.{name}"),
            Origin::Pods => SmolStr::new_static(annotation),
            Origin::Others => SmolStr::new_static("its declaration"),
        };
        let required = seen.required.as_ref();
        let required = required.map(|name| level(levels, name, || field("required", REQUIRED))).transpose()?;
        let preferred = seen.preferred.iter().enumerate();
        let preferred = preferred
            .map(|(at, name)| level(levels, name, || field(&format!("preferred[{at}]"), PREFERRED)))
            .collect::<Result<_, _>>()?;
        let (roles, slots) = &seen.slots;
        Ok(Ask {
            members: seen.pending.clone(),
            required,
            preferred,
            bound: self.nodes_of(&seen.bound),
            layout: Layout::of(&seen.layout, roles, slots, levels)?,
            steps: self.config.search_steps,
        })
    }

    /// What is asked for a gang, and for which shapes.
    pub(super) fn asked(&self, seen: &Assessment) -> Option<super::Asked> {
        let ask = self.ask(seen).ok()?;
        let shapes = ask.members.iter().map(|pod| self.snapshot.cluster().pod(*pod).and_then(|p| p.shape)).collect();
        Some((ask, shapes))
    }

    pub(super) fn nodes_of(&self, pods: &[PodId]) -> Vec<NodeId> {
        pods.iter().filter_map(|pod| self.snapshot.cluster().pod(*pod)?.place.node()).collect()
    }

    /// Assesses a gang as it stands now.
    pub(super) fn assessment(&self, id: GangId, now: Millis) -> Option<Assessment> {
        Some(assess(self.gangs.get(id)?, self.snapshot.cluster(), now, self.config.settle_ms))
    }

    pub(super) fn note(&mut self, id: GangId) -> &mut Note {
        self.notes.entry(id).or_default()
    }
}

/// How many of an intent's members make the gang live, of which so many need none any more.
pub(super) fn quorum(minimum: &Minimum, done: u32) -> Quorum {
    Quorum { total: minimum.total.saturating_sub(done), roles: minimum.roles.clone() }
}

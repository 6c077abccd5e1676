//! Facts from the watches: what they change in the snapshot, the gangs and the queue.

use super::Engine;
use super::binding::ENDED;
use crate::devices::DeviceFact;
use crate::event::RelistedKind;
use crate::gang::GangId;
use crate::labels::Labels;
use crate::model::{GangInfo, Millis, NodeInfo, PodInfo, PodKey};
use crate::plugins::{Cures, scheduling_gates};
use crate::preparation::VolumeClaimFacts;
use crate::queue::Entity;
use crate::snapshot::{Place, PodId, StorageNews};
use crate::volumes::{ClaimInfo, StorageFact, StorageKind};
use smol_str::SmolStr;
use std::collections::BTreeSet;

impl Engine {
    pub(super) fn on_node(&mut self, node: NodeInfo) {
        self.cures = self.cures.and(self.snapshot.upsert_node(node));
    }

    pub(super) fn on_node_gone(&mut self, name: &SmolStr, now: Millis) {
        self.snapshot.delete_node(name);
        self.cures = self.cures.and(Cures::NODE_GONE);
        self.protocol.on_node_gone(name, now, &mut self.fx);
    }

    pub(super) fn on_namespace(&mut self, name: &SmolStr, labels: Option<Labels>) {
        self.cures = self.cures.and(self.snapshot.set_namespace(name, labels));
    }

    pub(super) fn on_storage(&mut self, fact: StorageFact, now: Millis) {
        let claim = match &fact {
            StorageFact::Claim(claim) if self.protocol.prepares(&claim.uid) => Some(prepared_claim(claim)),
            _ => None,
        };
        let volume = match &fact {
            StorageFact::Volume(volume) => Some(volume.name.clone()),
            _ => None,
        };
        // What is waited for is checked against the snapshot, which comes first.
        let news = self.snapshot.set_storage(fact);
        self.on_storage_news(news);
        if let Some(claim) = claim {
            self.protocol.on_volume_claim(&claim, now, &mut self.fx);
        }
        if let Some(volume) = volume {
            self.on_volume_seen(&volume, now);
        }
    }

    pub(super) fn on_storage_gone(&mut self, kind: StorageKind, namespace: &SmolStr, name: &SmolStr, now: Millis) {
        let claim = self.snapshot.cluster().volume_claim(namespace, name).filter(|_| kind == StorageKind::Claim);
        let news = self.snapshot.remove_storage(kind, namespace, name);
        self.on_storage_news(news);
        if let Some(claim) = claim {
            self.protocol.on_claim(&claim, now, &mut self.fx);
        }
    }

    /// Who found the volume of a prepared claim missing looks again.
    fn on_volume_seen(&mut self, volume: &SmolStr, now: Millis) {
        for claim in self.snapshot.cluster().claims_of_volume(volume) {
            self.protocol.on_volume(&claim, now, &mut self.fx);
        }
    }

    fn on_storage_news(&mut self, news: StorageNews) {
        self.cures = self.cures.and(news.cures);
        self.claimants.extend(news.users);
    }

    pub(super) fn on_device(&mut self, fact: DeviceFact, now: Millis) {
        let claims = match &fact {
            DeviceFact::Claim(claim) => claim.identities(),
            DeviceFact::ClaimGone(namespace, name) => self.snapshot.cluster().device_claim(namespace, name),
            _ => Vec::new(),
        };
        let news = self.snapshot.note_device(fact);
        self.cures = self.cures.and(news.cures);
        self.claimants.extend(news.users);
        for claim in claims {
            self.protocol.on_claim(&claim, now, &mut self.fx);
        }
    }

    pub(super) fn on_pod(&mut self, pod: PodInfo, now: Millis) {
        if pod.ours {
            self.protocol.on_pod(&pod, now, &mut self.fx);
        }
        let known = self.snapshot.cluster().find_pod(&pod.key.uid);
        let before = known.and_then(|id| self.snapshot.cluster().info(id)).map(seen_by_gang);
        let after = seen_by_gang(&pod);
        let membership = pod.gang.clone();
        let left = known
            .and_then(|id| self.gang_of(id))
            .filter(|(_, name)| membership.as_ref().is_none_or(|g| g.name != *name));
        if let (Some(id), Some((gang, _))) = (known, left) {
            self.gangs.part(id, gang);
            self.sweep(gang);
        }
        let (namespace, ours) = (pod.key.namespace.clone(), pod.ours);
        let Some(news) = self.snapshot.upsert_pod(pod) else { return };
        self.cures = self.cures.and(news.cures);
        if news.shape_changed {
            // Its claims may have got their names by now.
            self.claimants.extend([news.id]);
        }
        if news.before.is_some_and(|place| place.node().is_some()) && news.after.node().is_none() {
            self.evictions.left(news.id);
        }
        if !ours {
            return;
        }
        let Some(membership) = membership else {
            return self.update_single(news.id, news.shape_changed, now);
        };
        self.queue.remove(Entity::Pod(news.id));
        if before.as_ref() != Some(&after) || news.before != Some(news.after) || news.shape_changed {
            let gang = self.gangs.join(news.id, &namespace, &membership);
            let arrived = self.is_waiting(news.id) && before.as_ref().is_none_or(|b| b.1 || b.0 != after.0);
            if arrived && let Some(gang) = self.gangs.get_mut(gang) {
                gang.last_arrival_ms = now;
            }
        }
        self.note_ready(news.id, now);
    }

    /// A pod of ours on its own: is it to be queued?
    pub(super) fn update_single(&mut self, id: PodId, shape_changed: bool, now: Millis) {
        let entity = Entity::Pod(id);
        if !self.is_waiting(id) {
            // Being bound, it stays in hand: whether that ends well the protocol says.
            if !self.snapshot.cluster().pod(id).is_some_and(|p| matches!(p.place, Place::Assumed(_))) {
                self.queue.remove(entity);
            }
            return;
        }
        self.note_ready(id, now);
        let since = self.first_ready.get(&id).copied().unwrap_or(now);
        let priority = self.snapshot.cluster().info(id).map_or(0, |p| p.priority);
        self.queue.add(entity, priority, since, 1, self.snapshot.profile(id).id());
        if shape_changed {
            self.queue.activate(entity, false, now);
        }
    }

    /// Whether a pod of ours wants a place that nobody gave it yet.
    pub(super) fn is_waiting(&self, id: PodId) -> bool {
        self.snapshot.cluster().pod(id).is_some_and(|pod| {
            let wants = |info: &PodInfo| !info.deleting && scheduling_gates::may_queue(info.gated);
            pod.place == Place::Pending && !pod.vacant && pod.info.as_deref().is_some_and(wants)
        })
    }

    fn note_ready(&mut self, id: PodId, now: Millis) {
        if self.is_waiting(id) {
            self.first_ready.entry(id).or_insert(now);
        }
    }

    pub(super) fn on_pod_gone(&mut self, key: &PodKey, now: Millis) {
        let in_flight = self.protocol.is_member(key);
        self.protocol.on_pod_gone(key, now, &mut self.fx);
        let Some(id) = self.snapshot.cluster().find_pod(&key.uid) else { return };
        let assumed = self.snapshot.cluster().pod(id).is_some_and(|p| matches!(p.place, Place::Assumed(_)));
        let in_gang = self.snapshot.cluster().info(id).is_some_and(|p| p.gang.is_some());
        if assumed && in_flight && in_gang {
            // Its place is kept for the replacement that takes its slot.
            self.snapshot.vacate_pod(id);
            self.vacant.insert(key.uid.clone(), id);
            if let Some((gang, _)) = self.gang_of(id) {
                self.gangs.touch(gang);
            }
            return;
        }
        self.drop_pod(id);
    }

    /// Ends a pod: what it held is free.
    pub(super) fn drop_pod(&mut self, id: PodId) {
        if let Some((gang, _)) = self.gang_of(id) {
            self.gangs.part(id, gang);
            self.sweep(gang);
        }
        self.queue.remove(Entity::Pod(id));
        self.first_ready.remove(&id);
        self.evictions.forget_preemptor(Entity::Pod(id));
        self.evictions.left(id);
        if self.snapshot.cluster().pod(id).is_some_and(|p| p.place.node().is_some()) {
            self.cures = self.cures.and(Cures::POD_GONE);
        }
        if let Some(pod) = self.snapshot.delete_pod(id) {
            self.vacant.remove(&pod.key.uid);
        }
    }

    /// A gang that is gone leaves nothing behind.
    fn sweep(&mut self, id: GangId) {
        if self.gangs.get(id).is_none() {
            self.queue.remove(Entity::Gang(id));
            self.set_outside(id, 0);
            if let Some(until) = self.notes.remove(&id).and_then(|note| note.settling_until) {
                self.settling.remove(&(until, id));
            }
        }
    }

    pub(super) fn on_gang(&mut self, gang: GangInfo, now: Millis) {
        let closed = gang.closed;
        let id = self.gangs.declare(gang);
        if closed && let Some(key) = self.key_of(id) {
            self.protocol.abort(&key, ENDED, now, &mut self.fx);
        }
    }

    pub(super) fn on_gang_gone(&mut self, namespace: &SmolStr, name: &SmolStr, uid: &SmolStr, now: Millis) {
        let id = self.gangs.find(namespace, name);
        let key = id.and_then(|id| self.key_of(id));
        self.gangs.undeclare(namespace, name, uid);
        if let Some(id) = id {
            self.sweep(id);
        }
        if let Some(key) = key {
            self.protocol.abort(&key, "the gang was deleted", now, &mut self.fx);
        }
    }

    pub(super) fn on_relisted(&mut self, kind: RelistedKind, now: Millis) {
        match kind {
            RelistedKind::Nodes(names) => {
                let names: BTreeSet<SmolStr> = names.into_iter().collect();
                for name in self.snapshot.retain_nodes(&names) {
                    self.cures = self.cures.and(Cures::NODE_GONE);
                    self.protocol.on_node_gone(&name, now, &mut self.fx);
                }
            }
            RelistedKind::Namespaces(names) => self.snapshot.retain_namespaces(&names.into_iter().collect()),
            RelistedKind::Budgets(names) => self.snapshot.budgets_mut().retain(&names.into_iter().collect()),
            RelistedKind::Selectors(kind, names) => {
                self.snapshot.retain_selectors(kind, &names.into_iter().collect());
            }
            RelistedKind::Storage(kind, names) => {
                let news = self.snapshot.retain_storage(kind, &names.into_iter().collect());
                self.on_storage_news(news);
            }
            RelistedKind::Devices(list) => self.on_device(DeviceFact::Relisted(list), now),
            RelistedKind::Pods(uids) => {
                let uids: BTreeSet<SmolStr> = uids.into_iter().collect();
                let absent = self.snapshot.pods_absent_from(&uids);
                let keys: Vec<PodKey> =
                    absent.iter().filter_map(|id| Some(self.snapshot.cluster().pod(*id)?.key.clone())).collect();
                keys.iter().for_each(|key| self.on_pod_gone(key, now));
            }
            RelistedKind::Gangs(uids) => {
                let uids: BTreeSet<SmolStr> = uids.into_iter().collect();
                for (namespace, name, uid) in self.gangs.absent_from(&uids) {
                    self.on_gang_gone(&namespace, &name, &uid, now);
                }
            }
        }
    }

    /// This process does not lead: nothing is assumed, everything waits as it did.
    pub(super) fn on_follow(&mut self, now: Millis) {
        self.protocol.follow();
        self.fx.commands.clear();
        self.fx.effects.clear();
        self.flights.clear();
        self.evictions.end_term();
        self.freeing.end_term();
        self.end_reservations();
        self.snapshot.believe_nominations();
        self.journal_lost = false;
        for id in std::mem::take(&mut self.vacant).into_values() {
            self.drop_pod(id);
        }
        for id in self.snapshot.assumed() {
            self.snapshot.forget(id);
            if self.snapshot.cluster().info(id).is_some_and(|p| p.gang.is_none()) {
                self.update_single(id, false, now);
                self.queue.activate(Entity::Pod(id), false, now);
            }
        }
        self.notes.clear();
        self.outside = 0;
        let gangs: Vec<Entity> = self.queue.iter().map(|(e, _)| e).filter(|e| matches!(e, Entity::Gang(_))).collect();
        gangs.into_iter().for_each(|gang| self.queue.remove(gang));
        self.gangs.touch_all();
    }
}

/// What the protocol wants to know of a claim that is prepared.
fn prepared_claim(claim: &ClaimInfo) -> VolumeClaimFacts {
    VolumeClaimFacts {
        key: claim.claim_name(),
        resource_version: claim.resource_version.clone(),
        deleting: claim.deleting,
        lost: claim.lost,
        volume: claim.volume.clone(),
        bound: claim.bind_completed,
        selected_node: claim.selected_node.clone(),
        // Fences are for consistent reads.
        fence: None,
    }
}

/// What a gang sees of a member; other news of a pod do not concern it.
fn seen_by_gang(pod: &PodInfo) -> (Option<crate::model::GangMembership>, bool, bool, crate::model::PodPhase, i32) {
    (pod.gang.clone(), pod.gated, pod.deleting, pod.phase, pod.priority)
}

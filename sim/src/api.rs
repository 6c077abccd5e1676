//! The API server as far as binding a gang can tell: pods, nodes and journal slots with their preconditions.
//!
//! Semantics: Kubernetes 1.37 `pkg/registry/core/pod/storage/storage.go` (`BindingREST`: UID and resourceVersion are
//! preconditions; a pod that is bound, deleting or gated is refused with 409; annotations of the Binding are merged), PUT
//! with resourceVersion, DELETE with a UID precondition (an unbound pod goes at once, a bound one when its kubelet lets go).

use crate::claims::StoredClaim;
use flowforge_scheduler_core::command::Command;
use flowforge_scheduler_core::event::{
    BindResult, JournalReadResult, JournalSlotRead, Outcome, ReadResult, WriteResult,
};
use flowforge_scheduler_core::model::{GangInfo, Millis, NodeInfo, PodInfo, PodKey};
use flowforge_scheduler_core::protocol::journal::{MemberRecord, Part, Slot};
use flowforge_scheduler_core::volumes::{StorageFact, StorageKind};
use smol_str::{SmolStr, ToSmolStr};
use std::collections::BTreeMap;

/// Something that changed, for the watches.
#[derive(Clone, Debug)]
pub enum Change {
    /// A pod was created or changed.
    Pod(Box<PodInfo>),
    /// A pod is gone.
    PodGone(PodKey),
    /// A node was created.
    Node(Box<NodeInfo>),
    /// A node is gone.
    NodeGone(SmolStr),
    /// A gang was created or changed.
    Gang(Box<GangInfo>),
    /// A gang is gone.
    GangGone(Box<GangInfo>),
    /// A claim or a volume was created or changed.
    Storage(Box<StorageFact>),
    /// A claim or a volume is gone.
    StorageGone(StorageKind, SmolStr),
}

/// A journal slot as it is stored.
#[derive(Clone, Debug, Default)]
pub struct StoredSlot {
    /// Its resourceVersion.
    pub resource_version: u64,
    /// Its payload.
    pub payload: String,
    /// The same, decoded.
    pub slot: Slot,
}

/// A write of a scheduler that took effect.
#[derive(Clone, Debug)]
pub enum Landed {
    /// The pod was bound.
    Bind {
        /// The pod.
        pod: PodKey,
        /// To this node.
        node: SmolStr,
        /// By this intent.
        intent: SmolStr,
    },
    /// A live pod was deleted.
    Delete {
        /// The pod.
        pod: PodKey,
    },
    /// A slot was written.
    Journal {
        /// Number of the slot.
        slot: usize,
        /// Epoch that it held before.
        over_epoch: u64,
        /// Epoch of the writer.
        epoch: u64,
    },
}

/// The store.
#[derive(Debug, Default)]
pub struct Api {
    version: u64,
    /// Pods by name; all are in one namespace.
    pub pods: BTreeMap<SmolStr, PodInfo>,
    /// Nodes by name.
    pub nodes: BTreeMap<SmolStr, NodeInfo>,
    /// Claims by name.
    pub claims: BTreeMap<SmolStr, StoredClaim>,
    /// Gangs by name.
    pub gangs: BTreeMap<SmolStr, GangInfo>,
    /// The journal.
    pub slots: Vec<StoredSlot>,
    /// What changed since the watches were served.
    pub changes: Vec<Change>,
    /// What schedulers' writes did since the invariants were served.
    pub landed: Vec<Landed>,
    /// Pods whose Bindings are refused with 403, until when.
    pub refused_until: BTreeMap<SmolStr, Millis>,
    /// Nodes that hold a pod bound by someone else, or by a leader whose term was over.
    pub disputed: std::collections::BTreeSet<SmolStr>,
}

impl Api {
    /// An empty store with so many journal slots.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self { slots: vec![StoredSlot::default(); slots], version: 1, ..Self::default() }
    }

    pub(crate) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Every slot, read consistently.
    #[must_use]
    pub fn read_slots(&self) -> Vec<JournalSlotRead> {
        let read = |(slot, stored): (u32, &StoredSlot)| JournalSlotRead {
            slot,
            resource_version: stored.resource_version.to_smolstr(),
            payload: stored.payload.clone(),
        };
        (0..).zip(&self.slots).map(read).collect()
    }

    /// What the journal holds for a pod: the part, and the member.
    pub fn recorded<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = (&'a Part, &'a MemberRecord)> {
        let parts = self.slots.iter().flat_map(|stored| &stored.slot.parts);
        parts.flat_map(move |part| {
            part.members.iter().filter(move |member| member.u == uid).map(move |member| (part, member))
        })
    }

    /// Whether the intent is being rolled back.
    #[must_use]
    pub fn is_rolling_back(&self, intent: &str) -> bool {
        let mut heads = self.slots.iter().flat_map(|stored| &stored.slot.parts).filter(|part| part.id == intent);
        heads.any(|part| part.head.as_ref().is_some_and(|head| head.rollback.is_some()))
    }

    /// Creates a pod.
    pub fn create_pod(&mut self, mut pod: PodInfo) {
        self.create_claim(&pod);
        pod.resource_version = self.next_version().to_smolstr();
        self.changes.push(Change::Pod(Box::new(pod.clone())));
        self.pods.insert(pod.key.name.clone(), pod);
    }

    /// Changes a pod if it is still the same one; false otherwise.
    pub fn update_pod(&mut self, key: &PodKey, change: impl FnOnce(&mut PodInfo)) -> bool {
        let version = self.next_version();
        let Some(pod) = self.pods.get_mut(&key.name).filter(|pod| pod.key == *key) else { return false };
        change(pod);
        pod.resource_version = version.to_smolstr();
        self.changes.push(Change::Pod(Box::new(pod.clone())));
        true
    }

    /// Removes a pod object.
    pub fn remove_pod(&mut self, key: &PodKey) -> bool {
        let same = self.pods.get(&key.name).is_some_and(|pod| pod.key == *key);
        if same {
            self.pods.remove(&key.name);
            self.changes.push(Change::PodGone(key.clone()));
        }
        same
    }

    /// Deletes a pod as a client does: an unbound or ended pod goes at once, a bound one is marked.
    pub fn delete_pod(&mut self, key: &PodKey) {
        let Some(pod) = self.pods.get(&key.name).filter(|pod| pod.key == *key) else { return };
        if pod.node_name.is_none() || pod.phase.is_terminal() {
            self.remove_pod(key);
        } else if !pod.deleting {
            self.update_pod(key, |pod| pod.deleting = true);
        }
    }

    /// Adds a node.
    pub fn create_node(&mut self, node: NodeInfo) {
        self.changes.push(Change::Node(Box::new(node.clone())));
        self.nodes.insert(node.name.clone(), node);
    }

    /// Removes a node; its pods stay until the garbage collector comes.
    pub fn remove_node(&mut self, name: &SmolStr) {
        if self.nodes.remove(name).is_some() {
            self.changes.push(Change::NodeGone(name.clone()));
        }
    }

    /// Creates or changes a gang.
    pub fn put_gang(&mut self, gang: GangInfo) {
        self.changes.push(Change::Gang(Box::new(gang.clone())));
        self.gangs.insert(gang.name.clone(), gang);
    }

    /// Removes a gang.
    pub fn remove_gang(&mut self, name: &SmolStr) {
        if let Some(gang) = self.gangs.remove(name) {
            self.changes.push(Change::GangGone(Box::new(gang)));
        }
    }

    /// Executes a scheduler's command; None for those that nobody answers.
    pub fn execute(&mut self, command: &Command, now: Millis) -> Option<Outcome> {
        Some(match command {
            Command::WriteJournal { op, slot, resource_version, epoch, payload, .. } => {
                Outcome::Journal { op: *op, result: self.write_slot(*slot as usize, resource_version, *epoch, payload) }
            }
            Command::ReadJournal { op, slot } => {
                let stored = &self.slots[*slot as usize];
                let resource_version = stored.resource_version.to_smolstr();
                let result = JournalReadResult::Found { resource_version, payload: stored.payload.clone() };
                Outcome::JournalRead { op: *op, result }
            }
            Command::Bind { op, pod, resource_version, node, intent } => {
                Outcome::Bind { op: *op, result: self.bind(pod, resource_version, node, intent, now) }
            }
            Command::ReadPod { op, pod } => {
                let found = self.pods.get(&pod.name).cloned();
                let result = found.map_or(ReadResult::NotFound, |pod| ReadResult::Found(Box::new(pod)));
                Outcome::Read { op: *op, result }
            }
            Command::FencePod { op, pod, resource_version, fence } => {
                let fence = fence.clone();
                let result = self.patch(pod, resource_version.as_ref(), move |pod| pod.fence = Some(fence));
                Outcome::Fence { op: *op, result }
            }
            Command::ReadPrepared { op, object } => Outcome::PreparedRead { op: *op, result: self.read_claim(object) },
            Command::Prepare { op, write } => Outcome::Prepare { op: *op, result: self.write_claim(write) },
            Command::MarkRollback { op, pod, .. } => Outcome::Mark { op: *op, result: self.patch(pod, None, |_| {}) },
            Command::DeletePod { op, pod } => Outcome::Delete { op: *op, result: self.delete(pod) },
            Command::Evict { op, pod, .. } => {
                self.patch(pod, None, |pod| pod.preempted = true);
                Outcome::Evict { op: *op, result: self.delete(pod) }
            }
            Command::Nominate { .. }
            | Command::PodCondition { .. }
            | Command::PodEvent { .. }
            | Command::GangStatus { .. }
            | Command::Observe(_) => {
                return None;
            }
        })
    }

    fn write_slot(&mut self, slot: usize, resource_version: &str, epoch: u64, payload: &str) -> WriteResult {
        if self.slots[slot].resource_version.to_smolstr() != resource_version {
            return WriteResult::Conflict;
        }
        let version = self.next_version();
        let over_epoch = self.slots[slot].slot.epoch;
        let Ok(decoded) = Slot::decode(payload) else { return WriteResult::Refused("not a slot".to_owned()) };
        self.slots[slot] = StoredSlot { resource_version: version, payload: payload.to_owned(), slot: decoded };
        self.landed.push(Landed::Journal { slot, over_epoch, epoch });
        WriteResult::Ok(version.to_smolstr())
    }

    fn bind(&mut self, key: &PodKey, version: &str, node: &SmolStr, intent: &SmolStr, now: Millis) -> BindResult {
        let Some(pod) = self.pods.get(&key.name) else { return BindResult::NotFound };
        if self.refused_until.get(&key.name).is_some_and(|until| now < *until) {
            return BindResult::Refused("pods \"binding\" is forbidden".to_owned());
        }
        let refusal = match pod {
            pod if pod.key.uid != key.uid => Some("Precondition failed: UID"),
            pod if pod.resource_version != version => Some("Precondition failed: ResourceVersion"),
            pod if pod.deleting => Some("pod is being deleted, cannot be assigned to a host"),
            pod if pod.node_name.is_some() => Some("pod is already assigned to node"),
            pod if pod.gated => Some("pod has non-empty .spec.schedulingGates"),
            _ => None,
        };
        if let Some(refusal) = refusal {
            return BindResult::Conflict(refusal.to_owned());
        }
        self.landed.push(Landed::Bind { pod: key.clone(), node: node.clone(), intent: intent.clone() });
        self.update_pod(key, |pod| {
            pod.node_name = Some(node.clone());
            pod.intent = Some(intent.clone());
        });
        BindResult::Ok
    }

    fn patch(&mut self, key: &PodKey, version: Option<&SmolStr>, change: impl FnOnce(&mut PodInfo)) -> WriteResult {
        let Some(pod) = self.pods.get(&key.name) else { return WriteResult::NotFound };
        if pod.key.uid != key.uid || version.is_some_and(|version| *version != pod.resource_version) {
            return WriteResult::Conflict;
        }
        self.update_pod(key, change);
        WriteResult::Ok(self.pods.get(&key.name).map_or_else(SmolStr::default, |pod| pod.resource_version.clone()))
    }

    fn delete(&mut self, key: &PodKey) -> WriteResult {
        match self.pods.get(&key.name) {
            None => WriteResult::NotFound,
            Some(pod) if pod.key.uid != key.uid => WriteResult::Conflict,
            Some(pod) => {
                if !pod.deleting {
                    self.landed.push(Landed::Delete { pod: key.clone() });
                }
                self.delete_pod(key);
                WriteResult::Ok(SmolStr::default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowforge_scheduler_core::command::OpId;

    fn key(uid: &str) -> PodKey {
        PodKey { namespace: "sim".into(), name: "p".into(), uid: uid.into() }
    }

    fn check(api: &mut Api, uid: &str, version: &str, expected: &BindResult) {
        let (op, pod) = (OpId(1), key(uid));
        let command = Command::Bind { op, pod, resource_version: version.into(), node: "n".into(), intent: "i".into() };
        let result = api.execute(&command, 0);
        assert_eq!(result, Some(Outcome::Bind { op: OpId(1), result: expected.clone() }));
    }

    fn conflict(text: &str) -> BindResult {
        BindResult::Conflict(text.to_owned())
    }

    #[test]
    fn a_binding_lands_once_and_only_on_its_uid_and_version() {
        let mut api = Api::new(1);
        check(&mut api, "u", "2", &BindResult::NotFound);
        api.create_pod(PodInfo { key: key("u"), gated: true, ..PodInfo::default() });
        check(&mut api, "v", "2", &conflict("Precondition failed: UID"));
        check(&mut api, "u", "3", &conflict("Precondition failed: ResourceVersion"));
        check(&mut api, "u", "2", &conflict("pod has non-empty .spec.schedulingGates"));
        api.update_pod(&key("u"), |pod| pod.gated = false);
        check(&mut api, "u", "3", &BindResult::Ok);
        check(&mut api, "u", "4", &conflict("pod is already assigned to node"));
        assert_eq!(api.pods["p"].intent.as_deref(), Some("i"));
    }

    #[test]
    fn a_slot_is_written_by_compare_and_swap() {
        let mut api = Api::new(1);
        let payload = Slot { v: 1, epoch: 3, ..Slot::default() }.encode();
        assert!(matches!(api.write_slot(0, "0", 3, &payload), WriteResult::Ok(_)));
        assert_eq!(api.write_slot(0, "0", 2, &payload), WriteResult::Conflict);
    }

    #[test]
    fn a_bound_pod_is_deleted_gracefully_and_an_unbound_one_at_once() {
        let mut api = Api::new(0);
        api.create_pod(PodInfo { key: key("u"), ..PodInfo::default() });
        assert_eq!(api.delete(&key("other")), WriteResult::Conflict);
        api.update_pod(&key("u"), |pod| pod.node_name = Some("n".into()));
        api.delete_pod(&key("u"));
        assert!(api.pods["p"].deleting);
        api.remove_pod(&key("u"));
        assert_eq!(api.delete(&key("u")), WriteResult::NotFound);
    }
}

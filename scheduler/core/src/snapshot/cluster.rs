//! Nodes and pods and what they hold: the facts that filters and scores read.
//!
//! Every change of a node (also of what is free on it) is noted in the change log, `O(lanes)` per pod placed or removed.

use super::changes::Changes;
use super::class::Classes;
use super::footprint::{Footprint, Footprints};
use super::images::{Images, size_of};
use super::lanes::{Lanes, PODS_LANE};
use super::node::{DeviceTable, NodeId, NodeRecord};
use super::nominations::Nominations;
use super::pod::{Place, PodId, PodRecord};
use super::slab::Slab;
use super::standing::{Standing, count_down, count_up};
use crate::devices::Devices;
use crate::model::{NodeInfo, PodInfo, PodKey};
use crate::plugins::{Cures, image_locality};
use crate::relations::{Peer, Relations};
use crate::reserve::Reservations;
use crate::volumes::Volumes;
use flowforge_topology_core::{DomainId, Levels, NodeHardware, Tree};
use hashbrown::HashMap;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

type Map<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// The cluster as it is known and assumed.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(crate) nodes: Slab<NodeRecord>,
    node_names: Map<SmolStr, NodeId>,
    pub(crate) pods: Slab<PodRecord>,
    pod_uids: Map<SmolStr, PodId>,
    pub(crate) lanes: Lanes,
    pub(crate) footprints: Footprints,
    pub(crate) classes: Classes,
    /// Class of each node by index, [`super::NO_CLASS`] where there is no node.
    pub(super) class_column: Vec<u32>,
    pub(crate) changes: Changes,
    pub(crate) relations: Relations,
    pub(crate) nominations: Nominations,
    pub(crate) reservations: Reservations,
    /// Pods on nodes by priority.
    pub(super) priorities: BTreeMap<i32, usize>,
    pub(crate) volumes: Volumes,
    pub(crate) devices: Devices,
    images: Images,
    pub(crate) tree: Tree,
    /// Changes when a node enters, leaves or moves in the tree.
    pub(crate) tree_epoch: u64,
    /// Changes when labels that levels read, or devices, change without the tree.
    pub(super) label_epoch: u64,
    pub(super) device_resources: Vec<SmolStr>,
    known_nodes: usize,
    assumed: usize,
    ended: usize,
}

impl Cluster {
    pub(crate) fn new(levels: Levels, device_resources: Vec<SmolStr>) -> Self {
        Self {
            nodes: Slab::default(),
            node_names: Map::default(),
            pods: Slab::default(),
            pod_uids: Map::default(),
            lanes: Lanes::new(),
            footprints: Footprints::default(),
            classes: Classes::default(),
            class_column: Vec::new(),
            changes: Changes::default(),
            relations: Relations::default(),
            nominations: Nominations::default(),
            reservations: Reservations::default(),
            priorities: BTreeMap::new(),
            volumes: Volumes::default(),
            devices: Devices::default(),
            images: Images::default(),
            tree: Tree::new(levels),
            tree_epoch: 0,
            label_epoch: 0,
            device_resources,
            known_nodes: 0,
            assumed: 0,
            ended: 0,
        }
    }

    /// Nodes that exist, placeholders not counted.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.known_nodes
    }

    /// How much of a resource all nodes can give together; saturating. `O(nodes)`.
    #[must_use]
    pub fn total(&self, resource: &str) -> i64 {
        let nodes = self.nodes.iter().filter(|(_, node)| !node.placeholder);
        nodes.filter_map(|(_, node)| node.info.allocatable.get(resource)).fold(0, |sum, has| sum.saturating_add(*has))
    }

    /// Pods, ended ones included.
    #[must_use]
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// Pods assumed and not confirmed.
    #[must_use]
    pub fn assumed_count(&self) -> usize {
        self.assumed
    }

    /// Pods that ended.
    #[must_use]
    pub fn ended_count(&self) -> usize {
        self.ended
    }

    /// Node classes.
    #[must_use]
    pub fn class_count(&self) -> usize {
        self.classes.len()
    }

    /// A node by name; placeholders too.
    #[must_use]
    pub fn find_node(&self, name: &str) -> Option<NodeId> {
        self.node_names.get(name).copied()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeRecord> {
        self.nodes.get(id)
    }

    /// Name of a node; empty when it is gone.
    #[must_use]
    pub fn node_name(&self, id: NodeId) -> SmolStr {
        self.nodes.get(id).map(|n| n.info.name.clone()).unwrap_or_default()
    }

    /// A pod by UID.
    #[must_use]
    pub fn find_pod(&self, uid: &str) -> Option<PodId> {
        self.pod_uids.get(uid).copied()
    }

    /// A pod.
    #[must_use]
    pub fn pod(&self, id: PodId) -> Option<&PodRecord> {
        self.pods.get(id)
    }

    /// What is known of a pod of ours.
    #[must_use]
    pub fn info(&self, id: PodId) -> Option<&PodInfo> {
        self.pods.get(id)?.info.as_deref()
    }

    /// The domain tree.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Adds or updates a node; returns what that can cure, and the id.
    pub(crate) fn upsert_node(&mut self, info: NodeInfo) -> (NodeId, Cures) {
        match self.find_node(&info.name) {
            Some(id) if self.is_same_node(id, &info) => {
                let cures = self.cures_of_change(id, &info);
                self.set_node(id, info);
                (id, cures)
            }
            Some(old) => {
                let fresh = self.insert_node(NodeRecord::placeholder(info.name.clone()));
                self.move_pods(old, fresh);
                self.drop_node(old);
                self.node_names.insert(info.name.clone(), fresh);
                self.set_node(fresh, info);
                (fresh, Cures::NODE.and(Cures::POD_GONE))
            }
            None => {
                let id = self.insert_node(NodeRecord::placeholder(info.name.clone()));
                self.node_names.insert(info.name.clone(), id);
                self.set_node(id, info);
                (id, Cures::NODE)
            }
        }
    }

    fn is_same_node(&self, id: NodeId, info: &NodeInfo) -> bool {
        self.nodes.get(id).is_some_and(|n| n.placeholder || n.info.uid == info.uid)
    }

    fn cures_of_change(&self, id: NodeId, new: &NodeInfo) -> Cures {
        let Some(node) = self.nodes.get(id).filter(|n| !n.placeholder) else { return Cures::NODE };
        let old = &node.info;
        let mut cures = Cures::NONE;
        if old.labels != new.labels {
            cures = cures.and(Cures::NODE_LABELS);
        }
        if old.taints != new.taints || (old.unschedulable && !new.unschedulable) {
            cures = cures.and(Cures::NODE_TAINTS);
        }
        if new.allocatable.iter().any(|(name, amount)| *amount > old.allocatable.get(name).copied().unwrap_or(0)) {
            cures = cures.and(Cures::NODE_ALLOCATABLE);
        }
        if !new.declared_features.is_subset(&old.declared_features) {
            cures = cures.and(Cures::NODE_FEATURES);
        }
        cures
    }

    fn insert_node(&mut self, record: NodeRecord) -> NodeId {
        let id = self.nodes.insert(record);
        self.lanes.grow(self.nodes.bound());
        self.touch(id);
        id
    }

    /// Lays new facts over a node's record.
    fn set_node(&mut self, id: NodeId, mut info: NodeInfo) {
        let images_changed = self.set_images(id, &std::mem::take(&mut info.images));
        let Some(node) = self.nodes.get(id) else { return };
        let old = node.info.allocatable.clone();
        let unchanged = !node.placeholder && node.info == info;
        if unchanged {
            if images_changed {
                self.touch(id);
            }
            return;
        }
        let (fresh, otherwise) = (node.placeholder, self.says_otherwise(node, &info));
        self.known_nodes += usize::from(fresh);
        self.label_epoch += u64::from(otherwise);
        self.set_allocatable(id, &old, &info);
        if self.tree.place(id.dense(), &info.name, |k| info.labels.get(k).map(SmolStr::as_str)) {
            self.tree_epoch += 1;
        }
        let class = self.classes.enter(&info);
        let tables = self.device_tables(&info);
        let Some(node) = self.nodes.get_mut(id) else { return };
        let same_devices = node.devices.len() == tables.len()
            && node.devices.iter().zip(&tables).all(|(a, b)| (&a.resource, &a.hardware) == (&b.resource, &b.hardware));
        self.relations.columns.set_node(id.dense(), Some(&info.labels));
        self.volumes.set_node(id, Some(&info.name));
        node.info = info;
        node.placeholder = false;
        self.set_class(id, Some(class));
        if !same_devices {
            self.replace_devices(id, tables);
        }
        self.touch(id);
    }

    /// Returns whether the node has other images than before.
    fn set_images(&mut self, id: NodeId, images: &[(SmolStr, i64)]) -> bool {
        let Some(node) = self.nodes.get_mut(id) else { return false };
        let former = std::mem::take(&mut node.images);
        node.images = self.images.replace(&former, images);
        node.images != former
    }

    /// What the pod's images that a node has are worth there; see [`image_locality`].
    pub(crate) fn images_worth(&self, node: &NodeRecord, images: &[SmolStr]) -> i64 {
        let worth = |name: &SmolStr| {
            let id = self.images.find(name)?;
            Some(image_locality::worth(size_of(&node.images, id)?, self.images.nodes(id), self.known_nodes))
        };
        images.iter().filter_map(worth).sum()
    }

    /// What image scores depend on beside the nodes themselves; None where they are all 0.
    pub(crate) fn images_state(&self, images: &[SmolStr]) -> Option<(u64, usize)> {
        Some((self.images.state(images.iter())?, self.known_nodes))
    }

    fn set_allocatable(&mut self, id: NodeId, old: &crate::model::Resources, new: &NodeInfo) {
        for (name, amount) in &new.allocatable {
            let lane = if old.contains_key(name) {
                self.lanes.find(name)
            } else {
                let (lane, fresh) = self.lanes.hold(name);
                if fresh {
                    self.fill_lane(lane, name);
                }
                Some(lane)
            };
            if let Some(lane) = lane {
                self.lanes.set_allocatable(lane, id.index(), *amount);
            }
        }
        for name in old.keys().filter(|name| !new.allocatable.contains_key(*name)) {
            if let Some(lane) = self.lanes.find(name) {
                self.lanes.set_allocatable(lane, id.index(), 0);
            }
            self.lanes.release(name);
        }
    }

    /// Sums what the pods on all nodes ask of a lane that just began. `O(pods)`, once per new resource name.
    fn fill_lane(&mut self, lane: usize, name: &str) {
        for (_, pod) in self.pods.iter() {
            let Some(node) = pod.place.node() else { continue };
            let amount = self.footprints.get(pod.footprint).map_or(0, |f| f.request(name));
            self.lanes.add_used(lane, node.index(), i128::from(amount));
        }
    }

    fn device_tables(&self, info: &NodeInfo) -> Vec<DeviceTable> {
        let label = |k: &str| info.labels.get(k).map(SmolStr::as_str);
        let counted = self.device_resources.iter().filter_map(|name| {
            let count = u32::try_from(*info.allocatable.get(name)?).ok().filter(|n| (1..=1024).contains(n))?;
            Some(DeviceTable::new(name.clone(), NodeHardware::from_labels(count, label)))
        });
        counted.collect()
    }

    fn replace_devices(&mut self, id: NodeId, tables: Vec<DeviceTable>) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.devices = tables;
        for pod in node.pods.clone() {
            self.take_devices(pod, id);
        }
    }

    fn take_devices(&mut self, pod: PodId, node: NodeId) {
        let (Some(pod), Some(node)) = (self.pods.get_mut(pod), self.nodes.get_mut(node)) else { return };
        pod.takes.clear();
        if let Some(footprint) = self.footprints.get(pod.footprint)
            && node.devices.iter().any(|d| footprint.request(&d.resource) > 0)
        {
            pod.takes = node.devices.iter_mut().map(|d| d.take(footprint.request(&d.resource))).collect();
        }
    }

    /// A node went away. Pods on it keep a placeholder until they are gone too.
    pub(crate) fn delete_node(&mut self, name: &str) {
        let Some(id) = self.find_node(name) else { return };
        let Some(node) = self.nodes.get(id).filter(|n| !n.placeholder) else { return };
        let gone = NodeInfo { name: node.info.name.clone(), ..NodeInfo::default() };
        let old = node.info.allocatable.clone();
        let empty = node.pods.is_empty();
        self.set_allocatable(id, &old, &gone);
        self.tree.remove(id.dense());
        self.tree_epoch += 1;
        self.known_nodes -= 1;
        self.set_class(id, None);
        if let Some(node) = self.nodes.get_mut(id) {
            node.info = gone;
            node.placeholder = true;
        }
        self.relations.columns.set_node(id.dense(), None);
        self.volumes.set_node(id, None);
        self.set_images(id, &[]);
        self.replace_devices(id, Vec::new());
        self.touch(id);
        if empty {
            self.drop_node(id);
            self.node_names.remove(name);
        }
    }

    /// Ends a record without pods.
    fn drop_node(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(id) else { return };
        if !node.placeholder {
            let old = node.info.allocatable.clone();
            self.set_allocatable(id, &old, &NodeInfo::default());
            self.tree.remove(id.dense());
            self.tree_epoch += 1;
            self.known_nodes -= 1;
            self.set_class(id, None);
        }
        self.relations.columns.set_node(id.dense(), None);
        self.volumes.set_node(id, None);
        self.set_images(id, &[]);
        self.touch(id);
        self.nodes.remove(id);
    }

    fn move_pods(&mut self, from: NodeId, to: NodeId) {
        let Some(node) = self.nodes.get(from) else { return };
        for pod in node.pods.clone() {
            let Some(place) = self.pods.get(pod).map(|p| p.place) else { continue };
            self.set_place(pod, Place::Pending);
            self.set_place(pod, if matches!(place, Place::Assumed(_)) { Place::Assumed(to) } else { Place::Bound(to) });
        }
    }

    /// The node of this name, or a placeholder for it.
    pub(crate) fn node_or_placeholder(&mut self, name: &SmolStr) -> NodeId {
        if let Some(id) = self.find_node(name) {
            return id;
        }
        let id = self.insert_node(NodeRecord::placeholder(name.clone()));
        self.node_names.insert(name.clone(), id);
        id
    }

    /// Stores a pod that is on no node yet.
    pub(crate) fn insert_pod(&mut self, key: PodKey, footprint: Footprint, peer: Peer) -> PodId {
        let footprint = self.footprints.intern(footprint);
        let peer = self.relations.counts.enter(peer);
        let uid = key.uid.clone();
        let id = self.pods.insert(PodRecord {
            key,
            info: None,
            shape: None,
            place: Place::Pending,
            placed_at_ms: 0,
            vacant: false,
            footprint,
            peer,
            standing: Standing::default(),
            slot: 0,
            takes: Vec::new(),
        });
        self.pod_uids.insert(uid, id);
        id
    }

    /// Ends a pod's record; what it held is free. Returns the record.
    pub(crate) fn remove_pod(&mut self, id: PodId) -> Option<PodRecord> {
        self.set_place(id, Place::Pending);
        self.nominations.set(id, None);
        let pod = self.pods.remove(id)?;
        if self.pod_uids.get(&pod.key.uid) == Some(&id) {
            self.pod_uids.remove(&pod.key.uid);
        }
        self.footprints.release(pod.footprint);
        self.relations.counts.leave(pod.peer);
        self.volumes.leave(id);
        self.devices.leave(id, &pod.key.uid);
        Some(pod)
    }

    /// Changes what a pod takes of its node.
    pub(crate) fn set_footprint(&mut self, id: PodId, footprint: Footprint) -> bool {
        let Some(pod) = self.pods.get(id) else { return false };
        if self.footprints.get(pod.footprint).is_some_and(|f| **f == footprint) {
            return false;
        }
        let (node, old) = (pod.place.node(), pod.footprint);
        if let Some(node) = node {
            self.take_off(id, node);
        }
        let fresh = self.footprints.intern(footprint);
        self.footprints.release(old);
        if let Some(pod) = self.pods.get_mut(id) {
            pod.footprint = fresh;
        }
        if let Some(node) = node {
            self.put_on(id, node);
        }
        true
    }

    /// Moves a pod between the states of [`Place`]; resources follow.
    pub(crate) fn set_place(&mut self, id: PodId, place: Place) {
        let Some(pod) = self.pods.get(id) else { return };
        let old = pod.place;
        if old == place {
            return;
        }
        self.assumed -= usize::from(matches!(old, Place::Assumed(_)));
        self.assumed += usize::from(matches!(place, Place::Assumed(_)));
        self.ended -= usize::from(old == Place::Ended);
        self.ended += usize::from(place == Place::Ended);
        if old.node() != place.node() {
            if let Some(node) = old.node() {
                self.take_off(id, node);
                self.devices.forget(id, matches!(old, Place::Bound(_)));
            }
            self.hold_devices(id, place);
            if let Some(node) = place.node() {
                self.put_on(id, node);
            }
        }
        let now = self.reservations.now();
        if let Some(pod) = self.pods.get_mut(id) {
            pod.stand(place, now);
        }
        self.volumes_follow(id, place);
        if old.node() != place.node()
            && let Some(node) = old.node()
        {
            self.drop_placeholder(node);
        }
    }

    fn put_on(&mut self, id: PodId, node: NodeId) {
        self.account(id, node, 1);
        self.meet(id, node, true);
        self.take_devices(id, node);
        let (Some(pod), Some(record)) = (self.pods.get_mut(id), self.nodes.get_mut(node)) else { return };
        count_up(&mut self.priorities, pod.standing.priority);
        pod.slot = record.pods.len();
        record.pods.push(id);
        if let Some(footprint) = self.footprints.get(pod.footprint) {
            footprint.ports.iter().for_each(|p| record.ports.add(p));
        }
        self.touch(node);
    }

    fn take_off(&mut self, id: PodId, node: NodeId) {
        self.account(id, node, -1);
        self.meet(id, node, false);
        let (Some(pod), Some(record)) = (self.pods.get_mut(id), self.nodes.get_mut(node)) else { return };
        count_down(&mut self.priorities, pod.standing.priority);
        for (table, take) in record.devices.iter_mut().zip(&pod.takes) {
            table.give_back(take);
        }
        pod.takes.clear();
        let slot = std::mem::take(&mut pod.slot);
        if let Some(footprint) = self.footprints.get(pod.footprint) {
            footprint.ports.iter().for_each(|p| record.ports.remove(p));
        }
        record.pods.swap_remove(slot);
        let moved = record.pods.get(slot).copied();
        if let Some(moved) = moved.and_then(|m| self.pods.get_mut(m)) {
            moved.slot = slot;
        }
        self.touch(node);
    }

    fn account(&mut self, id: PodId, node: NodeId, sign: i128) {
        let Some(footprint) = self.pods.get(id).map(|p| p.footprint) else { return };
        let (cpu, memory) = self.footprints.get(footprint).map_or((0, 0), |f| f.scoring);
        for (lane, amount) in self.footprints.lanes(footprint, &self.lanes).to_vec() {
            self.lanes.add_used(lane, node.index(), sign * i128::from(amount));
        }
        self.lanes.add_used(PODS_LANE, node.index(), sign);
        self.lanes.add_scored(node.index(), sign * i128::from(cpu), sign * i128::from(memory));
    }

    fn drop_placeholder(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(id).filter(|n| n.placeholder && n.pods.is_empty()) else { return };
        let name = node.info.name.clone();
        if self.node_names.get(&name) == Some(&id) {
            self.node_names.remove(&name);
        }
        self.drop_node(id);
    }

    pub(crate) fn touch(&mut self, id: NodeId) {
        let generation = self.changes.seq();
        self.changes.note(id.dense(), self.nodes.bound());
        if let Some(node) = self.nodes.get_mut(id) {
            node.generation = generation;
        }
    }

    /// The lanes, for looks at every node.
    pub(crate) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Free places for pods on a node.
    pub(crate) fn free_pods(&self, row: usize) -> i64 {
        self.lanes.free(PODS_LANE, row)
    }

    /// Narrowest domain of a node.
    #[must_use]
    pub fn leaf(&self, node: NodeId) -> Option<DomainId> {
        self.tree.leaf(node.dense())
    }

    /// UIDs of all pods that are not in the set. `O(pods)`.
    pub(crate) fn pods_absent_from(&self, uids: &BTreeSet<SmolStr>) -> Vec<PodId> {
        self.pods.iter().filter(|(_, p)| !p.vacant && !uids.contains(&p.key.uid)).map(|(id, _)| id).collect()
    }

    /// Names of all nodes that are not in the set. `O(nodes)`.
    pub(crate) fn nodes_absent_from(&self, names: &BTreeSet<SmolStr>) -> Vec<SmolStr> {
        let absent = self.nodes.iter().filter(|(_, n)| !n.placeholder && !names.contains(&n.info.name));
        absent.map(|(_, n)| n.info.name.clone()).collect()
    }
}

//! Trials: pods are taken off their nodes, or put on others, to see what the filters would say then.
//!
//! ```text
//!   snapshot.try_out(|trial| { trial.take_off(victim); trial.put_on(nominated, node); …look… })
//! ```
//! Unlike a transaction, a trial moves pods that are bound, foreign ones too, and nothing of it can be kept. Afterwards
//! everything is as it was, down to the order of the pods on a node and the devices that are thought to be theirs; the
//! change log too, so that no cache has to look again. A cache must not be looked at meanwhile: it would learn what is not.

use super::node::{DeviceTable, NodeId};
use super::pod::{Place, PodId};
use super::{Cluster, Snapshot};
use crate::demand::Demand;
use crate::explain::Reason;
use flowforge_topology_core::DeviceTake;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// A node as it was before pods were taken off it.
#[derive(Debug)]
pub(super) struct Before {
    node: NodeId,
    pods: Vec<(PodId, Vec<DeviceTake>)>,
    devices: Vec<DeviceTable>,
    generation: u64,
}

impl Before {
    /// How a node is now.
    pub(super) fn of(cluster: &Cluster, id: NodeId) -> Option<Self> {
        let node = cluster.node(id)?;
        let takes = |pod: &PodId| (*pod, cluster.pod(*pod).map(|p| p.takes.clone()).unwrap_or_default());
        let pods = node.pods.iter().map(takes).collect();
        Some(Self { node: id, pods, devices: node.devices.clone(), generation: node.generation })
    }

    /// Once the same pods stand there again: their order, and the devices that are thought to be theirs, are as before.
    pub(super) fn restore(self, cluster: &mut Cluster) {
        for (slot, (pod, takes)) in self.pods.iter().enumerate() {
            if let Some(pod) = cluster.pods.get_mut(*pod) {
                pod.slot = slot;
                pod.takes.clone_from(takes);
            }
        }
        if let Some(node) = cluster.nodes.get_mut(self.node) {
            node.pods = self.pods.into_iter().map(|(pod, _)| pod).collect();
            node.devices = self.devices;
        }
        cluster.volumes.forget_attached(self.node);
    }
}

/// An open trial.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    snapshot: &'a mut Snapshot,
    seq: u64,
    moved: Vec<(PodId, Place)>,
    nodes: BTreeMap<NodeId, Before>,
}

impl Snapshot {
    /// Runs a trial; nothing of it stays.
    pub(crate) fn try_out<R>(&mut self, body: impl FnOnce(&mut Trial<'_>) -> R) -> R {
        let seq = self.cluster.changes.seq();
        body(&mut Trial { snapshot: self, seq, moved: Vec::new(), nodes: BTreeMap::new() })
    }
}

impl Drop for Trial<'_> {
    /// Also a body that unwinds leaves nothing behind.
    fn drop(&mut self) {
        self.reset();
        self.snapshot.cluster.changes.rewind(self.seq);
    }
}

impl Trial<'_> {
    /// The cluster as it is in the trial.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.snapshot.cluster
    }

    /// What a pod would ask for beyond its shape; reservations are the caller's to count.
    ///
    /// # Errors
    /// What would refuse it whatever the nodes have.
    pub(crate) fn demand(&mut self, pod: PodId) -> Result<Demand, Reason> {
        self.snapshot.own_demand(pod)
    }

    /// Takes a pod off its node. `O(pods on the node)` for the first of a node, else as any placement.
    pub(crate) fn take_off(&mut self, pod: PodId) {
        if self.cluster().pod(pod).is_some_and(|p| p.place.node().is_some()) {
            self.put(pod, Place::Pending);
        }
    }

    /// Puts a pod that stands nowhere on a node.
    pub(crate) fn put_on(&mut self, pod: PodId, node: NodeId) {
        if self.cluster().pod(pod).is_some_and(|p| p.place == Place::Pending) {
            self.put(pod, Place::Assumed(node));
        }
    }

    fn put(&mut self, pod: PodId, place: Place) {
        let Some(before) = self.cluster().pod(pod).map(|p| p.place) else { return };
        before.node().into_iter().chain(place.node()).for_each(|node| self.remember(node));
        if let Some(node) = before.node() {
            self.snapshot.cluster.devices.lend(pod, node);
        }
        self.moved.push((pod, before));
        self.snapshot.cluster.set_place(pod, place);
    }

    fn remember(&mut self, id: NodeId) {
        if let Entry::Vacant(unknown) = self.nodes.entry(id)
            && let Some(before) = Before::of(&self.snapshot.cluster, id)
        {
            unknown.insert(before);
        }
    }

    /// Everything is as it was before the trial; it can go on.
    pub(crate) fn reset(&mut self) {
        let cluster = &mut self.snapshot.cluster;
        for (pod, place) in self.moved.drain(..).rev() {
            cluster.set_place(pod, place);
        }
        for (id, before) in std::mem::take(&mut self.nodes) {
            let generation = before.generation;
            before.restore(cluster);
            if let Some(node) = cluster.nodes.get_mut(id) {
                node.generation = generation;
            }
        }
    }
}

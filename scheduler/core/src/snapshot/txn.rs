//! Transactions: place pods on trial, look, and keep or undo all of it.
//!
//! ```text
//!   transact(|txn| { txn.place(pod, node); let m = txn.mark(); …; txn.roll_back_to(m); End::Keep(x) | End::RollBack(x) })
//!   rehearse(|txn| { txn.take_off(victim); txn.place(pod, node); … })      nothing of it is ever kept
//! ```
//! It cannot be left open: the closure ends it. What is undone leaves no trace in nodes, lanes, ports, devices and pods
//! (`rollback_is_identity`); undoing is done in reverse order, so that the pod lists of nodes are as they were. Only the
//! change log remembers, which keeps the caches right at every moment, inside the transaction too.

use super::Snapshot;
use super::node::NodeId;
use super::pod::{Place, PodId};
use super::trial::Before;
use crate::demand::{self, Considered, Demand};
use crate::explain::Reason;
use crate::relations::{Relation, Tallies};
use crate::reserve::Amounts;
use crate::shape::{Shape, ShapeCache, ShapeId, verdict};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End<R> {
    /// What was placed stays assumed.
    Keep(R),
    /// Nothing happened.
    RollBack(R),
}

/// A point to roll back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(usize);

/// An open transaction.
#[derive(Debug)]
pub struct Txn<'a> {
    snapshot: &'a mut Snapshot,
    /// Pods that were moved, and where they stood before.
    moved: Vec<(PodId, Place)>,
    /// Nodes that pods were taken off, as they were.
    before: BTreeMap<NodeId, Before>,
    /// Pods that stand where they were promised a place until the transaction ends, however it does.
    lent: Vec<PodId>,
    /// What counts as used until then, because it is reserved; None where nothing was asked for.
    held: Option<Vec<(NodeId, Amounts)>>,
}

impl Snapshot {
    /// Runs a transaction.
    pub fn transact<R>(&mut self, body: impl FnOnce(&mut Txn<'_>) -> End<R>) -> R {
        let mut txn = Txn { snapshot: self, moved: Vec::new(), before: BTreeMap::new(), lent: Vec::new(), held: None };
        match body(&mut txn) {
            End::Keep(result) => {
                debug_assert!(txn.before.is_empty(), "only a rehearsal takes pods off their nodes");
                txn.moved.clear();
                result
            }
            End::RollBack(result) => {
                txn.roll_back_to(Mark(0));
                result
            }
        }
    }

    /// Runs a transaction that may also take pods off their nodes, bound and foreign ones too; nothing of it stays. Unlike in a
    /// trial, caches follow, so that whole gangs can be planned in it.
    pub(crate) fn rehearse<R>(&mut self, body: impl FnOnce(&mut Txn<'_>) -> R) -> R {
        self.transact(|txn| End::RollBack(body(txn)))
    }
}

impl Drop for Txn<'_> {
    /// Also a body that unwinds leaves nothing behind.
    fn drop(&mut self) {
        self.roll_back_to(Mark(0));
        // Lent pods came before anything was taken off: they are part of what is restored, and go afterwards.
        for (_, before) in std::mem::take(&mut self.before) {
            before.restore(&mut self.snapshot.cluster);
        }
        for pod in self.lent.drain(..).rev() {
            self.snapshot.cluster.set_place(pod, Place::Pending);
        }
        if let Some(held) = self.held.take() {
            held.iter().for_each(|(node, amounts)| self.snapshot.cluster.hold(*node, amounts, -1));
            self.snapshot.cluster.reservations.set_applied(false);
        }
    }
}

impl Txn<'_> {
    /// The state inside the transaction.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        self.snapshot
    }

    /// Keeps the places that were promised to pods of at least the priority of these, which are of one gang, but for that gang,
    /// and what is reserved that these would delay, until the transaction ends. To be called before anything is placed.
    /// `O(promises + reserved nodes)`.
    pub(crate) fn keep_promises(&mut self, members: &[PodId]) {
        self.lend_promised(members);
        self.hold_reserved(members, false);
    }

    /// The same, but for what is reserved as if nobody left by then: where it is tried out who leaves.
    pub(crate) fn keep_promises_whole(&mut self, members: &[PodId]) {
        self.lend_promised(members);
        self.hold_reserved(members, true);
    }

    fn hold_reserved(&mut self, members: &[PodId], whole: bool) {
        if !self.snapshot.cluster.reservations.in_force() {
            return;
        }
        let ends = if whole { None } else { self.snapshot.end_if_begun(members) };
        let cluster = &mut self.snapshot.cluster;
        cluster.refresh_held();
        let held = cluster.held_from(members, ends, whole);
        held.iter().for_each(|(node, amounts)| cluster.hold(*node, amounts, 1));
        cluster.reservations.set_applied(true);
        self.held = Some(held);
    }

    fn lend_promised(&mut self, members: &[PodId]) {
        let Some(&pod) = members.first() else { return };
        let cluster = &mut self.snapshot.cluster;
        let Some(priority) = cluster.pod(pod).map(|p| p.standing.priority) else { return };
        for (node, pods) in cluster.all_promised(pod, priority) {
            for pod in pods {
                cluster.set_place(pod, Place::Assumed(node));
                self.lent.push(pod);
            }
        }
    }

    /// Places a pending pod on a node. The caller has checked that it fits.
    pub fn place(&mut self, pod: PodId, node: NodeId) {
        if self.snapshot.cluster.pod(pod).is_some_and(|p| p.place == Place::Pending) {
            self.snapshot.cluster.set_place(pod, Place::Assumed(node));
            self.moved.push((pod, Place::Pending));
        }
    }

    /// Takes a pod off its node, in a rehearsal. `O(pods on the node)` for the first of a node, else as any placement.
    pub(crate) fn take_off(&mut self, pod: PodId) {
        let Some(place) = self.snapshot.cluster.pod(pod).map(|p| p.place) else { return };
        let exists = |node: &NodeId| self.snapshot.cluster.node(*node).is_some_and(|n| !n.placeholder);
        let Some(node) = place.node().filter(exists) else { return };
        if let Entry::Vacant(unknown) = self.before.entry(node)
            && let Some(before) = Before::of(&self.snapshot.cluster, node)
        {
            unknown.insert(before);
        }
        self.snapshot.cluster.devices.lend(pod, node);
        self.snapshot.cluster.set_place(pod, Place::Pending);
        self.moved.push((pod, place));
    }

    /// Whether a node takes a pod, as things are in the transaction. `O(lanes)`, and `O(nodes · rules)` where other pods
    /// matter to it.
    pub(crate) fn takes(&mut self, pod: PodId, node: NodeId) -> bool {
        let known = self.snapshot.cluster.pod(pod).and_then(|p| p.shape);
        let Some((shape, spec)) = known.and_then(|id| Some((id, self.snapshot.shape(id)?.spec.clone()))) else {
            return false;
        };
        if spec.refused_anyway().is_some() {
            return false;
        }
        match self.snapshot.own_demand(pod) {
            Ok(demand) if demand.refuses() => demand::takes(self.snapshot, shape, &spec, &demand, node),
            Ok(_) => verdict(node, &spec, &self.snapshot.cluster).is_feasible(),
            Err(_) => false,
        }
    }

    /// This point, to return to.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.moved.len())
    }

    /// Undoes everything since the mark, last first.
    pub fn roll_back_to(&mut self, mark: Mark) {
        while self.moved.len() > mark.0 {
            if let Some((pod, place)) = self.moved.pop() {
                self.snapshot.cluster.set_place(pod, place);
            }
        }
    }

    /// Every node as it looks to a pod that asks for more than its shape.
    pub(crate) fn consider(&mut self, pod: PodId) -> Vec<Considered> {
        let known = self.snapshot.cluster.pod(pod).and_then(|p| p.shape);
        let Some((shape, spec)) = known.and_then(|id| Some((id, self.snapshot.shape(id)?.spec.clone()))) else {
            return Vec::new();
        };
        let Ok(demand) = self.snapshot.demand(pod) else { return Vec::new() };
        demand::consider(self.snapshot, shape, &spec, &demand).0
    }

    /// What a pod asks for beyond its shape, as things are in the transaction.
    ///
    /// # Errors
    /// What refuses it whatever the nodes have.
    pub(crate) fn demand(&mut self, pod: PodId) -> Result<Demand, Reason> {
        self.snapshot.demand(pod)
    }

    /// The cache of a shape as of now, with domain counters, the sums of a relation that one of its pods has, and the cluster.
    pub(crate) fn view_related(
        &mut self,
        shape: ShapeId,
        relation: Option<&Relation>,
    ) -> Option<(&ShapeCache, &Tallies, &super::Cluster)> {
        self.snapshot.view_related(shape, relation, true)
    }

    /// The cache of a shape as of now, with domain counters, and the cluster.
    pub fn view(&mut self, shape: ShapeId) -> Option<(&ShapeCache, &Shape, &super::Cluster)> {
        self.snapshot.view_with_cluster(shape)
    }
}

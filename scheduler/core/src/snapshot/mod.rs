//! The snapshot: the whole cluster in memory, as it is known and as it is assumed, with what is derived from it.
//!
//! ```text
//!   NodeUpsert, PodUpsert, … ──> Cluster (nodes, pods, lanes, classes, domains) ──change log──> shape caches
//!                                   ^                                                              |
//!                                   +── Txn: place, roll back, keep <── plans <── feasible, scores, counters
//! ```
//! Invariants: a lane's use is the sum over the pods on the node (`lanes_are_sums`); a transaction that is not kept leaves
//! no trace (`rollback_is_identity`); a cache that is in sync equals evaluating every node anew (`cache_equals_naive`).

mod changes;
mod claims;
mod class;
mod cluster;
mod dump;
mod footprint;
mod images;
mod lanes;
mod node;
mod nominations;
mod pod;
mod related;
mod reserved;
mod scoring_rows;
mod slab;
mod standing;
mod storage;
#[cfg(test)]
mod tests;
mod topology;
mod trial;
mod txn;

pub use class::Class as NodeClass;
pub(crate) use class::NO_CLASS;
pub use cluster::Cluster;
pub use dump::{Dump, DumpedNode, DumpedPod};
pub use footprint::{Footprint, FootprintId};
pub(crate) use lanes::PODS_LANE;
pub use node::{DeviceTable, NodeId, NodeRecord};
use pod::settled;
pub use pod::{Place, PodId, PodRecord};
pub(crate) use reserved::beside;
pub(crate) use scoring_rows::{ScoringRows, double};
pub use slab::{Id, Slab};
pub(crate) use standing::Standing;
pub use storage::StorageNews;
pub(crate) use trial::Trial;
pub use txn::{End, Mark, Txn};

use crate::config::Config;
use crate::demand::Demand;
use crate::devices::{DeviceDemand, DeviceFact, DeviceNews};
use crate::explain::Reason;
use crate::labels::Labels;
use crate::model::{NodeInfo, PodInfo};
use crate::plugins::Cures;
use crate::preempt::Budgets;
use crate::preparation::Preparation;
use crate::profile::{Filter, ProfileRef, Profiles};
use crate::protocol::Check;
use crate::relations::{Peer, Relation, SelectorInfo, SelectorKind, Tallies};
use crate::shape::{Shape, ShapeCache, ShapeId, ShapeSpec, Shapes};
use crate::volumes::{ObjectName, StorageFact, StorageKind};
use flowforge_topology_core::Levels;
use smol_str::SmolStr;
use std::collections::BTreeSet;

/// The cluster and the caches that follow it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) cluster: Cluster,
    shapes: Shapes,
    profiles: Profiles,
    budgets: Budgets,
    /// Pods of ours with scheduling gates.
    gated: usize,
}

/// What a pod's news changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodNews {
    /// The pod.
    pub id: PodId,
    /// Where it stood before; None when it is new.
    pub before: Option<Place>,
    /// Where it stands now.
    pub after: Place,
    /// What that can cure for others.
    pub cures: Cures,
    /// Whether anything a filter sees of the pod itself changed.
    pub shape_changed: bool,
}

impl Snapshot {
    /// An empty cluster. Levels that cannot be used are left out; the shell checks them before it starts.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let levels = Levels::new(config.topology.clone()).unwrap_or_default();
        let mut cluster = Cluster::new(levels, config.device_resources.clone());
        cluster.lanes.watch(config.profiles.extended());
        Self {
            cluster,
            shapes: Shapes::new(config.shape_cache_bytes),
            profiles: config.profiles.clone(),
            budgets: Budgets::default(),
            gated: 0,
        }
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The PodDisruptionBudgets.
    #[must_use]
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// The PodDisruptionBudgets, to keep them up to date.
    pub fn budgets_mut(&mut self) -> &mut Budgets {
        &mut self.budgets
    }

    /// Adds or updates a node.
    pub fn upsert_node(&mut self, info: NodeInfo) -> Cures {
        self.cluster.upsert_node(info).1
    }

    /// A node went away.
    pub fn delete_node(&mut self, name: &str) {
        self.cluster.delete_node(name);
    }

    /// A list of all nodes came: what it does not name is gone.
    pub fn retain_nodes(&mut self, names: &BTreeSet<SmolStr>) -> Vec<SmolStr> {
        let gone = self.cluster.nodes_absent_from(names);
        for name in &gone {
            self.cluster.delete_node(name);
        }
        gone
    }

    /// Pods that a list of all pods does not name.
    #[must_use]
    pub fn pods_absent_from(&self, uids: &BTreeSet<SmolStr>) -> Vec<PodId> {
        self.cluster.pods_absent_from(uids)
    }

    /// Adds or updates a pod. A pod without nodeName that is assumed or bound here stays so. None: an ended pod that is
    /// nobody's concern.
    pub fn upsert_pod(&mut self, info: PodInfo) -> Option<PodNews> {
        let known = self.cluster.find_pod(&info.key.uid);
        let concern = info.ours && info.gang.is_some();
        if info.phase.is_terminal() && known.is_none() && !concern {
            return None;
        }
        let fresh = known.is_none();
        let id = known.unwrap_or_else(|| {
            let id = self.cluster.insert_pod(info.key.clone(), Footprint::of(&info), Peer::of(&info));
            self.cluster.volumes.enter(id, &info);
            id
        });
        let before = self.cluster.pod(id).map(|p| p.place)?;
        self.cluster.set_standing(id, Standing::of(&info));
        let mut cures = Cures::NONE;
        if !fresh && self.cluster.set_footprint(id, Footprint::of(&info)) && before.node().is_some() {
            cures = Cures::POD_GONE;
        }
        if !fresh && self.cluster.set_peer(id, Peer::of(&info)) && before.node().is_some() {
            cures = cures.and(Cures::PEER_LABELS);
        }
        let after = self.place_after(before, &info);
        if after != before {
            self.cluster.set_place(id, after);
            let came = if before.node().is_some() { Cures::POD_GONE } else { Cures::NONE };
            cures = cures.and(came).and(if after.node().is_some() { Cures::POD_ADDED } else { Cures::NONE });
        }
        if info.phase.is_terminal() && !concern {
            self.delete_pod(id);
            return Some(PodNews { id, before: Some(before), after, cures, shape_changed: false });
        }
        self.see_nomination(id, &info, after);
        let shape_changed = self.set_info(id, info, after);
        Some(PodNews { id, before: (!fresh).then_some(before), after, cures, shape_changed })
    }

    fn place_after(&mut self, before: Place, info: &PodInfo) -> Place {
        if info.phase.is_terminal() || before == Place::Ended {
            return Place::Ended;
        }
        match &info.node_name {
            Some(name) => Place::Bound(self.cluster.node_or_placeholder(name)),
            None => before,
        }
    }

    /// The node that a pod was promised, if it exists.
    pub(crate) fn nominated_node(&self, id: PodId) -> Option<NodeId> {
        let node = self.cluster.find_node(self.cluster.nominations.of(id)?)?;
        self.cluster.node(node).is_some_and(|n| !n.placeholder).then_some(node)
    }

    /// Whether a pod was promised a node.
    pub(crate) fn is_nominated(&self, id: PodId) -> bool {
        self.cluster.nominations.of(id).is_some()
    }

    /// Whether any pod was promised a node.
    pub(crate) fn any_nominated(&self) -> bool {
        !self.cluster.nominations.is_empty()
    }

    /// What the API server has about promises counts, not what was noted ahead of it. `O(promises)`.
    pub(crate) fn believe_nominations(&mut self) {
        let noted: Vec<PodId> = self.cluster.nominations.iter().flat_map(|(_, pods)| pods.iter().copied()).collect();
        for id in noted {
            if let Some(info) = self.cluster.info(id) {
                let node = info.nominated_node.clone();
                self.nominate(id, node);
            }
        }
    }

    /// A promise ends when the pod stands somewhere; else what the API server has counts when it changed.
    fn see_nomination(&mut self, id: PodId, info: &PodInfo, place: Place) {
        let seen_before = self.cluster.info(id).map(|known| &known.nominated_node);
        if !matches!(place, Place::Pending | Place::Assumed(_)) || info.deleting {
            self.nominate(id, None);
        } else if seen_before != Some(&info.nominated_node) {
            self.nominate(id, info.nominated_node.clone());
        }
    }

    fn set_info(&mut self, id: PodId, info: PodInfo, place: Place) -> bool {
        if !info.ours {
            return false;
        }
        let shape = (place == Place::Pending || matches!(place, Place::Assumed(_))).then(|| self.enter_shape(&info));
        let stands = matches!(place, Place::Bound(_)) && info.gang.is_none();
        if shape.is_some() {
            self.cluster.devices.enter(id, &info);
        } else {
            self.cluster.devices.leave(id, &info.key.uid);
        }
        let info = if stands { settled(info) } else { info };
        let Some(pod) = self.cluster.pods.get_mut(id) else { return false };
        let old = std::mem::replace(&mut pod.shape, shape);
        self.gated += usize::from(is_gated(&info));
        let mut claims_changed = false;
        if let Some(before) = pod.info.replace(Box::new(info)) {
            self.gated -= usize::from(is_gated(&before));
            claims_changed = pod.info.as_ref().is_some_and(|info| info.resource_claims != before.resource_claims);
        }
        if let Some(old) = old {
            self.shapes.release(old);
        }
        old != shape || claims_changed
    }

    fn enter_shape(&mut self, info: &PodInfo) -> ShapeId {
        let (id, fresh) = self.shapes.intern(ShapeSpec::of(info, self.profiles.of(&info.scheduler_name)));
        if fresh
            && let Some(shape) = self.shapes.get(id)
            && self.cluster.classes.reference(shape.spec.label_keys())
        {
            self.cluster.project_again();
        }
        id
    }

    /// What a pod of ours asks for beyond its shape. See [`crate::relations`] for the cost.
    ///
    /// # Errors
    /// What refuses it whatever the nodes have, in the order of the profile.
    pub(crate) fn demand(&mut self, id: PodId) -> Result<Demand, Reason> {
        let own = self.own_demand(id)?;
        Ok(Demand { reserved: self.reserved(id, &own), ..own })
    }

    /// The same without what was promised to others.
    ///
    /// # Errors
    /// As [`Self::demand`].
    pub(crate) fn own_demand(&mut self, id: PodId) -> Result<Demand, Reason> {
        let profile = self.profile(id);
        let volumes = self.cluster.volume_demand(id, &profile).map_err(Reason::Volume)?;
        let devices = self.claims(id)?.map(|demand| (profile.weights.dynamic_resources, demand));
        Ok(Demand { volumes, relation: self.cluster.relate(id, &profile), devices, ..Demand::default() })
    }

    /// What the claims of a pod of ours ask for; None where it has none, or its profile does not look at them.
    ///
    /// # Errors
    /// What refuses the pod whatever the nodes have.
    pub(crate) fn claims(&self, id: PodId) -> Result<Option<DeviceDemand>, Reason> {
        let claims = self.cluster.info(id).is_some_and(|info| self.cluster.may_claim(info));
        if !claims || !self.profile(id).filters.has(Filter::DynamicResources) {
            return Ok(None);
        }
        self.cluster.device_demand(id)
    }

    /// Whether a pod of ours may ask for something that can refuse a node beyond its shape. `O(terms of pods that are there)`.
    pub(crate) fn may_demand(&self, id: PodId) -> bool {
        let profile = self.profile(id);
        let claims = |info: &PodInfo| self.cluster.may_claim(info) && profile.filters.has(Filter::DynamicResources);
        let may = |info| claims(info) || self.cluster.relations.may_refuse(info, &profile);
        self.cluster.volumes.is_known(id) || self.cluster.info(id).is_some_and(may)
    }

    /// How a pod of ours is scheduled.
    pub(crate) fn profile(&self, id: PodId) -> ProfileRef {
        self.profiles.of(self.cluster.info(id).map_or("", |info| &info.scheduler_name))
    }

    /// Promises a pod a node, or takes the promise back. Returns whether that is news.
    pub(crate) fn nominate(&mut self, id: PodId, node: Option<SmolStr>) -> bool {
        self.cluster.nominations.set(id, node)
    }

    /// What refuses a pod of ours whatever the nodes have, beyond its shape.
    pub(crate) fn refused_anyway(&self, id: PodId) -> Option<Reason> {
        let volumes = self.cluster.volumes_refuse(id, &self.profile(id)).map(Reason::Volume);
        volumes.or_else(|| self.claims(id).err())
    }

    /// What has to be done, in this order, before an assumed pod may be bound to its node.
    ///
    /// # Errors
    /// Why it must not be bound there whatever is done: the place was not searched for with what is known now.
    pub fn preparations(&self, id: PodId) -> Result<Vec<Preparation>, Reason> {
        let filters = self.profile(id).filters;
        let mut all = Vec::new();
        if filters.has(Filter::VolumeBinding) {
            all = self.cluster.volume_preparations(id).map_err(Reason::Volume)?;
        }
        if filters.has(Filter::DynamicResources) {
            all.extend(self.cluster.claim_preparations(id)?);
        }
        Ok(all)
    }

    /// Whether all that was prepared for a pod is what it needs on a node, as far as is seen by now.
    #[must_use]
    pub fn check_prepared(&self, id: PodId, node: NodeId) -> Check {
        let filters = self.profile(id).filters;
        let volumes = filters.has(Filter::VolumeBinding).then(|| self.cluster.check_volumes(id, node));
        match volumes {
            Some(found) if found != Check::Sound => found,
            _ if filters.has(Filter::DynamicResources) => self.cluster.check_claims(id, node),
            _ => Check::Sound,
        }
    }

    /// A storage object was added or changed.
    pub fn set_storage(&mut self, fact: StorageFact) -> StorageNews {
        self.cluster.set_storage(fact)
    }

    /// A storage object is gone.
    pub fn remove_storage(&mut self, kind: StorageKind, namespace: &SmolStr, name: &SmolStr) -> StorageNews {
        self.cluster.remove_storage(kind, namespace, name)
    }

    /// A list of a kind of storage objects came: what it does not name is gone.
    pub fn retain_storage(&mut self, kind: StorageKind, listed: &BTreeSet<ObjectName>) -> StorageNews {
        self.cluster.retain_storage(kind, listed)
    }

    /// Notes a fact about devices. Returns what that can cure.
    pub fn note_device(&mut self, fact: DeviceFact) -> DeviceNews {
        self.cluster.devices.note(fact)
    }

    /// A namespace has these labels; None: it is gone. Returns what that can cure.
    pub fn set_namespace(&mut self, name: &SmolStr, labels: Option<Labels>) -> Cures {
        if self.cluster.set_namespace(name, labels) { Cures::PEER_LABELS } else { Cures::NONE }
    }

    /// A list of all namespaces came: what it does not name is gone.
    pub fn retain_namespaces(&mut self, listed: &BTreeSet<SmolStr>) {
        for name in self.cluster.namespaces_absent_from(listed) {
            self.cluster.set_namespace(&name, None);
        }
    }

    /// A Service or controller was added or changed.
    pub fn set_selector(&mut self, info: SelectorInfo) {
        self.cluster.set_selector(info);
    }

    /// A Service or controller went away.
    pub fn remove_selector(&mut self, kind: SelectorKind, namespace: &SmolStr, name: &SmolStr) {
        self.cluster.remove_selector(kind, namespace, name);
    }

    /// A list of Services or controllers came: what it does not name is gone.
    pub fn retain_selectors(&mut self, kind: SelectorKind, listed: &BTreeSet<(SmolStr, SmolStr)>) {
        self.cluster.retain_selectors(kind, listed);
    }

    /// A pod object is gone: what it held is free.
    pub fn delete_pod(&mut self, id: PodId) -> Option<PodRecord> {
        let pod = self.cluster.remove_pod(id)?;
        self.gated -= usize::from(pod.info.as_deref().is_some_and(is_gated));
        if let Some(shape) = pod.shape {
            self.shapes.release(shape);
        }
        Some(pod)
    }

    /// A pod object is gone, but what it holds stays reserved until [`Self::delete_pod`].
    pub fn vacate_pod(&mut self, id: PodId) {
        if let Some(pod) = self.cluster.pods.get_mut(id) {
            pod.vacant = true;
        }
    }

    /// Plans a pending pod on a node.
    pub fn assume(&mut self, id: PodId, node: NodeId) {
        if self.cluster.pod(id).is_some_and(|p| matches!(p.place, Place::Pending | Place::Assumed(_))) {
            self.cluster.set_place(id, Place::Assumed(node));
        }
    }

    /// The assumption holds: the pod is on the node of this name.
    pub fn confirm(&mut self, id: PodId, node: &SmolStr) {
        if self.cluster.pod(id).is_some_and(|p| p.place != Place::Ended) {
            let node = self.cluster.node_or_placeholder(node);
            self.cluster.set_place(id, Place::Bound(node));
            self.nominate(id, None);
        }
    }

    /// The assumption does not hold. Returns whether the pod was assumed.
    pub fn forget(&mut self, id: PodId) -> bool {
        let assumed = self.cluster.pod(id).is_some_and(|p| matches!(p.place, Place::Assumed(_)));
        if assumed {
            self.cluster.set_place(id, Place::Pending);
        }
        assumed
    }

    /// What is known of a pod of ours, to note what was written about it.
    pub(crate) fn info_mut(&mut self, id: PodId) -> Option<&mut PodInfo> {
        self.cluster.pods.get_mut(id)?.info.as_deref_mut()
    }

    /// All assumed pods. `O(pods)`.
    #[must_use]
    pub fn assumed(&self) -> Vec<PodId> {
        let assumed = self.cluster.pods.iter().filter(|(_, p)| matches!(p.place, Place::Assumed(_)));
        assumed.map(|(id, _)| id).collect()
    }

    /// A shape.
    #[must_use]
    pub fn shape(&self, id: ShapeId) -> Option<&Shape> {
        self.shapes.get(id)
    }

    /// The best node for a pod of a shape that asks for nothing beyond it: see [`Shapes::best`].
    pub(crate) fn best(&mut self, id: ShapeId) -> Option<u32> {
        self.shapes.best(id, &self.cluster)
    }

    /// The cache of a shape, brought up to date: `O(changes since)`. None when the shape ended.
    pub fn view(&mut self, id: ShapeId) -> Option<&ShapeCache> {
        self.shapes.view(id, &self.cluster, false)
    }

    /// The cache of a shape with its domain counters, brought up to date.
    pub fn view_counted(&mut self, id: ShapeId) -> Option<&ShapeCache> {
        self.shapes.view(id, &self.cluster, true)
    }

    /// The cache of a shape and the cluster it was derived from.
    pub fn view_with_cluster(&mut self, id: ShapeId) -> Option<(&ShapeCache, &Shape, &Cluster)> {
        self.shapes.view(id, &self.cluster, true)?;
        let shape = self.shapes.get(id)?;
        Some((shape.cache()?, shape, &self.cluster))
    }

    /// The cache of a shape, the sums of a relation that one of its pods has, and the cluster; with domain counters or not.
    pub(crate) fn view_related(
        &mut self,
        id: ShapeId,
        relation: Option<&Relation>,
        counted: bool,
    ) -> Option<(&ShapeCache, &Tallies, &Cluster)> {
        let (cache, tallies) = self.shapes.view_related(id, &self.cluster, relation, counted)?;
        Some((cache, tallies, &self.cluster))
    }

    /// Pods of ours with scheduling gates.
    #[must_use]
    pub fn gated(&self) -> usize {
        self.gated
    }

    /// Drops what the budget does not allow for; label keys of ended shapes leave the projection.
    pub fn trim(&mut self) {
        self.cluster.relations.trim();
        for shape in self.shapes.trim() {
            self.cluster.classes.unreference(shape.label_keys());
        }
    }

    /// Shapes with a cache, and the bytes of all caches.
    #[must_use]
    pub fn cache_size(&self) -> (usize, usize) {
        self.shapes.size()
    }
}

fn is_gated(pod: &PodInfo) -> bool {
    pod.gated && !pod.deleting && !pod.phase.is_terminal()
}

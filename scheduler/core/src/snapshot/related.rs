//! What relates pods to each other, kept with the cluster: who they are to others, and the namespaces and selectors they are
//! found by.

use super::cluster::Cluster;
use super::node::NodeId;
use super::pod::PodId;
use crate::labels::Labels;
use crate::profile::Profile;
use crate::relations::{Peer, Relation, Relations, SelectorInfo, SelectorKind, placed};
use smol_str::SmolStr;
use std::collections::BTreeSet;

impl Cluster {
    /// Changes what other pods see of a pod. Returns whether it is another peer than before.
    pub(crate) fn set_peer(&mut self, id: PodId, peer: Peer) -> bool {
        let Some(pod) = self.pods.get(id) else { return false };
        if self.relations.counts.peer(pod.peer).is_some_and(|known| **known == peer) {
            return false;
        }
        let (node, old) = (pod.place.node(), pod.peer);
        let fresh = self.relations.counts.enter(peer);
        let Relations { counts, namespaces, .. } = &mut self.relations;
        if let Some(node) = node {
            counts.take_off(old, node.dense(), namespaces);
            counts.put_on(fresh, node.dense(), namespaces);
        }
        counts.leave(old);
        if let Some(pod) = self.pods.get_mut(id) {
            pod.peer = fresh;
        }
        if let Some(node) = node {
            self.touch(node);
        }
        true
    }

    /// The rules of a pod of ours that other pods give it; None where it is related to nobody.
    pub(crate) fn relate(&mut self, id: PodId, profile: &Profile) -> Option<Relation> {
        let pod = self.pods.get(id)?.info.as_deref()?;
        self.relations.relate(pod, profile, &self.nodes, &self.pods)
    }

    /// Whether a pod matters to others only by what it asks of a node: it forbids nobody its place.
    pub(crate) fn is_plain(&self, id: PodId) -> bool {
        let peer = self.pods.get(id).and_then(|pod| self.relations.counts.peer(pod.peer));
        peer.is_some_and(|peer| peer.affinity.required_anti.is_empty())
    }

    /// A namespace has these labels; None: it is gone. Returns whether that changed anything. `O(pods)` then.
    pub(crate) fn set_namespace(&mut self, name: &SmolStr, labels: Option<Labels>) -> bool {
        let changed = self.relations.set_namespace(name, labels);
        if changed {
            let Relations { counts, namespaces, .. } = &mut self.relations;
            counts.namespaces_changed(namespaces, || placed(&self.pods));
        }
        changed
    }

    /// A Service or controller was added or changed.
    pub(crate) fn set_selector(&mut self, info: SelectorInfo) {
        self.relations.set_selector(info);
    }

    /// A Service or controller went away.
    pub(crate) fn remove_selector(&mut self, kind: SelectorKind, namespace: &SmolStr, name: &SmolStr) {
        self.relations.remove_selector(kind, namespace, name);
    }

    /// A list of Services or controllers came: what it does not name is gone.
    pub(crate) fn retain_selectors(&mut self, kind: SelectorKind, listed: &BTreeSet<(SmolStr, SmolStr)>) {
        self.relations.retain_selectors(kind, listed);
    }

    /// Namespaces that are known and that a list does not name.
    pub(crate) fn namespaces_absent_from(&self, listed: &BTreeSet<SmolStr>) -> Vec<SmolStr> {
        self.relations.namespaces.keys().filter(|name| !listed.contains(*name)).cloned().collect()
    }

    /// Counts a pod for those that it is related to.
    pub(super) fn meet(&mut self, id: PodId, node: NodeId, comes: bool) {
        let Some(peer) = self.pods.get(id).map(|pod| pod.peer) else { return };
        let Relations { counts, namespaces, .. } = &mut self.relations;
        if comes {
            counts.put_on(peer, node.dense(), namespaces);
        } else {
            counts.take_off(peer, node.dense(), namespaces);
        }
    }
}

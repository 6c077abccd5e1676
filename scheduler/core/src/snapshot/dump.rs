//! What the snapshot holds, in a form that can be compared: with what another process would have made of the same objects.

use super::cluster::Cluster;
use super::pod::Place;
use crate::devices::DumpedDevices;
use crate::labels::Labels;
use crate::model::NodeInfo;
use crate::volumes::{ClaimInfo, VolumeInfo};
use serde::Serialize;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is known, by name and UID; what ended and is nobody's concern any more is not in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dump {
    /// Nodes by name; those that only pods speak of are not in it.
    pub nodes: BTreeMap<SmolStr, DumpedNode>,
    /// Pods by UID.
    pub pods: BTreeMap<SmolStr, DumpedPod>,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<SmolStr, Labels>,
    /// PersistentVolumeClaims by `namespace/name`.
    pub claims: BTreeMap<String, ClaimInfo>,
    /// PersistentVolumes by name.
    pub volumes: BTreeMap<SmolStr, VolumeInfo>,
    /// Devices, and who holds them.
    pub devices: DumpedDevices,
}

/// A node and what is taken of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DumpedNode {
    /// The facts.
    pub info: NodeInfo,
    /// Use of each resource that any node has.
    pub used: BTreeMap<SmolStr, i64>,
    /// CPU and memory with the defaults for scoring.
    pub scored: [i64; 2],
    /// UIDs of the pods on it.
    pub pods: BTreeSet<SmolStr>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DumpedPod {
    /// Namespace and name.
    pub name: String,
    /// `pending`, `assumed`, `bound` or `ended`.
    pub place: &'static str,
    /// Name of its node.
    pub node: Option<SmolStr>,
    /// What it takes, resources that nodes lack too.
    pub requests: BTreeMap<SmolStr, i64>,
    /// Labels, as others see them.
    pub labels: Labels,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `metadata.resourceVersion`, for pods of ours.
    pub resource_version: Option<SmolStr>,
}

impl Cluster {
    /// What is known. `O(nodes · resources + pods + devices)`, and a copy of most of it: for tests and people, not for the hot path.
    #[must_use]
    pub fn dump(&self) -> Dump {
        let nodes = self.nodes.iter().filter(|(_, node)| !node.placeholder);
        let dumped = |row: usize, info: &NodeInfo| DumpedNode {
            info: info.clone(),
            used: self.lanes.used_by_name(row),
            scored: self.lanes.scored(row),
            pods: BTreeSet::new(),
        };
        let mut nodes: BTreeMap<SmolStr, DumpedNode> =
            nodes.map(|(id, node)| (node.info.name.clone(), dumped(id.index(), &node.info))).collect();
        let mut pods = BTreeMap::new();
        for (_, pod) in self.pods.iter() {
            let peer = self.relations.counts.peer(pod.peer);
            let (place, node) = match pod.place {
                Place::Pending => ("pending", None),
                Place::Assumed(node) => ("assumed", Some(self.node_name(node))),
                Place::Bound(node) => ("bound", Some(self.node_name(node))),
                Place::Ended => ("ended", None),
            };
            if let Some(node) = node.as_ref().and_then(|name| nodes.get_mut(name)) {
                node.pods.insert(pod.key.uid.clone());
            }
            let requests = self.footprints.get(pod.footprint).map(|f| f.requests.iter().cloned().collect());
            let dumped = DumpedPod {
                name: format!("{}/{}", pod.key.namespace, pod.key.name),
                place,
                node,
                requests: requests.unwrap_or_default(),
                labels: peer.map(|peer| peer.labels.clone()).unwrap_or_default(),
                deleting: peer.is_some_and(|peer| peer.deleting),
                resource_version: pod.info.as_ref().map(|info| info.resource_version.clone()),
            };
            pods.insert(pod.key.uid.clone(), dumped);
        }
        let (claims, volumes) = self.volumes.dump();
        let uid = |id| self.pod(id).map(|pod| pod.key.uid.clone()).unwrap_or_default();
        let devices = self.devices.dump(uid);
        Dump { nodes, pods, namespaces: self.relations.namespaces.clone(), claims, volumes, devices }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::fixture::{PodChain, node, pod};
    use crate::snapshot::Snapshot;

    #[test]
    fn a_dump_shows_who_stands_where_and_what_that_takes() {
        let mut snapshot = Snapshot::new(&Config::default());
        snapshot.upsert_node(node("n1"));
        let id = snapshot.upsert_pod(pod("p").asks("cpu", 500)).unwrap().id;
        let pending = snapshot.cluster().dump();
        assert_eq!((pending.pods["uid-p"].place, pending.nodes["n1"].used["cpu"]), ("pending", 0));
        let node = snapshot.cluster().find_node("n1").unwrap();
        snapshot.assume(id, node);
        let dump = snapshot.cluster().dump();
        let (pod, node) = (&dump.pods["uid-p"], &dump.nodes["n1"]);
        assert_eq!((pod.place, pod.node.as_deref(), pod.name.as_str()), ("assumed", Some("n1"), "ns/p"));
        assert_eq!((node.used["cpu"], node.used["pods"], node.pods.len()), (500, 1, 1));
    }
}

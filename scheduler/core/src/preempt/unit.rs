//! Units of eviction: a pod, or a whole gang of ours, which is of no use when one of its members is gone, unless its
//! declaration says that its members may go one by one.

use super::budgets::Spending;
use crate::gang::{GangId, Gangs};
use crate::snapshot::{Cluster, NodeId, PodId};
use smol_str::SmolStr;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Pods that are evicted together or not at all, with their nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) pods: Vec<(PodId, NodeId)>,
    pub(crate) gang: Option<GangId>,
    /// Of its most important pod.
    pub(crate) priority: i32,
    started_at_ms: u64,
    name: (SmolStr, SmolStr),
}

impl Unit {
    fn new(cluster: &Cluster, pods: Vec<(PodId, NodeId)>, gang: Option<GangId>) -> Option<Self> {
        let first = cluster.pod(pods.first()?.0)?;
        let name = (first.key.namespace.clone(), first.key.name.clone());
        let standings = || pods.iter().filter_map(|(pod, _)| cluster.pod(*pod)).map(|pod| pod.standing);
        let priority = standings().map(|s| s.priority).max()?;
        let started_at_ms = standings().map(|s| s.started_at_ms.unwrap_or(u64::MAX)).min()?;
        Some(Self { pods, gang, priority, started_at_ms, name })
    }

    /// The most important first: priority, gangs before pods, larger gangs, those that run longer.
    pub(crate) fn importance(&self) -> impl Ord + use<> {
        let size = if self.gang.is_some() { self.pods.len() } else { 0 };
        (Reverse(self.priority), Reverse(self.gang.is_some()), Reverse(size), self.started_at_ms, self.name.clone())
    }

    /// How many of its pods would break a budget; what they spend stays spent.
    pub(crate) fn violations(&self, cluster: &Cluster, spending: &mut Spending<'_>) -> u32 {
        let breaks = |(pod, _): &&(PodId, NodeId)| {
            cluster.pod(*pod).is_some_and(|p| {
                let labels = cluster.relations.counts.peer(p.peer).map(|peer| &peer.labels);
                labels.is_some_and(|labels| spending.breaks(&p.key.namespace, &p.key.name, labels))
            })
        };
        u32::try_from(self.pods.iter().filter(breaks).count()).unwrap_or(u32::MAX)
    }

    /// Its pods on a node.
    pub(crate) fn on(&self, node: NodeId) -> impl Iterator<Item = PodId> + '_ {
        self.pods.iter().filter(move |(_, at)| *at == node).map(|(pod, _)| *pod)
    }
}

/// The units that have a pod on one of these nodes and less than this priority. `O(pods on them and in their gangs)`.
pub(crate) fn units_below(
    cluster: &Cluster,
    gangs: &Gangs,
    nodes: impl IntoIterator<Item = NodeId>,
    priority: i32,
) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut seen = BTreeSet::new();
    for node in nodes {
        let Some(record) = cluster.node(node) else { continue };
        for &pod in record.pods() {
            let gang = gang_of(cluster, gangs, pod);
            let unit = match gang {
                Some(gang) if !seen.insert(gang) => continue,
                Some(gang) => Unit::new(cluster, placed(cluster, gangs, gang), Some(gang)),
                None => Unit::new(cluster, vec![(pod, node)], None),
            };
            units.extend(unit.filter(|unit| unit.priority < priority));
        }
    }
    units
}

fn gang_of(cluster: &Cluster, gangs: &Gangs, pod: PodId) -> Option<GangId> {
    let info = cluster.info(pod)?;
    let gang = gangs.find(&info.key.namespace, &info.gang.as_ref()?.name)?;
    let declared = gangs.get(gang)?.declared.as_ref();
    declared.is_none_or(|declared| !declared.terms.parts_singly).then_some(gang)
}

/// The members of a gang that stand on nodes that exist.
fn placed(cluster: &Cluster, gangs: &Gangs, gang: GangId) -> Vec<(PodId, NodeId)> {
    let exists = |node: &NodeId| cluster.node(*node).is_some_and(|n| !n.placeholder);
    let at = |pod: &PodId| Some((*pod, cluster.pod(*pod)?.place.node().filter(exists)?));
    gangs.get(gang).into_iter().flat_map(|gang| gang.members.iter().filter_map(at)).collect()
}

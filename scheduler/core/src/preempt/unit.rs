//! Units of eviction: a pod, or a whole gang of ours, which is of no use when one of its members is gone, unless its
//! declaration says that its members may go one by one.
//!
//! A gang that has more live members than it needs (an elastic one that grew) is several units: what it needs, and above that
//! layers of further members, the last ranks on top: the last one, the two before it, the four before those, and so on, so
//! that few layers shrink it about as far as has to be. A layer goes only with all layers above it, and what the gang needs only
//! with all of them ([`with_those_above`]).

use super::budgets::Spending;
use crate::gang::{GangId, GangRecord, Gangs};
use crate::model::{GangInfo, GangRoleInfo};
use crate::snapshot::{Cluster, NodeId, PodId};
use smol_str::SmolStr;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Pods that are evicted together or not at all, with their nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) pods: Vec<(PodId, NodeId)>,
    pub(crate) gang: Option<GangId>,
    /// Of a gang: 0 is what it needs, above it lie the layers that it can do without.
    pub(crate) layer: usize,
    /// Of its most important pod.
    pub(crate) priority: i32,
    started_at_ms: u64,
    name: (SmolStr, SmolStr),
}

impl Unit {
    fn new(cluster: &Cluster, pods: Vec<(PodId, NodeId)>, gang: Option<GangId>, layer: usize) -> Option<Self> {
        let first = cluster.pod(pods.first()?.0)?;
        let name = (first.key.namespace.clone(), first.key.name.clone());
        let standings = || pods.iter().filter_map(|(pod, _)| cluster.pod(*pod)).map(|pod| pod.standing);
        let priority = standings().map(|s| s.priority).max()?;
        let started_at_ms = standings().map(|s| s.started_at_ms.unwrap_or(u64::MAX)).min()?;
        Some(Self { pods, gang, layer, priority, started_at_ms, name })
    }

    /// The most important first: priority, gangs before pods and what gangs can do without, larger gangs, those that run longer.
    pub(crate) fn importance(&self) -> impl Ord + use<> {
        let whole = self.gang.is_some() && self.layer == 0;
        let size = if whole { self.pods.len() } else { 0 };
        let name = self.name.clone();
        (Reverse(self.priority), Reverse(whole), self.layer, Reverse(size), self.started_at_ms, name)
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
            match gang {
                Some(gang) if !seen.insert(gang) => {}
                Some(gang) => units.extend(of_gang(cluster, gangs, gang).filter(|unit| unit.priority < priority)),
                None => {
                    let unit = Unit::new(cluster, vec![(pod, node)], None, 0);
                    units.extend(unit.filter(|unit| unit.priority < priority));
                }
            }
        }
    }
    units
}

/// The units of a gang, what it needs first, then the layers upwards. All go by the priority of the most important member, so
/// that none of them is out of reach where another one is not. `O(members · log members)` where it has more than it needs.
fn of_gang(cluster: &Cluster, gangs: &Gangs, gang: GangId) -> impl Iterator<Item = Unit> {
    let mut pods = placed(cluster, gangs, gang);
    let mut layers: Vec<Vec<(PodId, NodeId)>> = Vec::new();
    let spare = gangs.get(gang).map(|record| spare(cluster, record, &pods)).unwrap_or_default();
    if !spare.is_empty() {
        let dispensable: BTreeSet<PodId> = spare.iter().map(|(pod, _)| *pod).collect();
        pods.retain(|(pod, _)| !dispensable.contains(pod));
        let (mut rest, mut size) = (spare.as_slice(), 1);
        while !rest.is_empty() {
            let (layer, below) = rest.split_at(size.min(rest.len()));
            layers.push(layer.to_vec());
            (rest, size) = (below, size * 2);
        }
        layers.reverse();
    }
    let units: Vec<Unit> = std::iter::once(pods)
        .chain(layers)
        .enumerate()
        .filter_map(|(layer, pods)| Unit::new(cluster, pods, Some(gang), layer))
        .collect();
    let priority = units.iter().map(|unit| unit.priority).max();
    units.into_iter().map(move |unit| Unit { priority: priority.unwrap_or(unit.priority), ..unit })
}

/// Members that a live gang can do without, the last rank first. Of gangs that others declare none: whether these may shrink is
/// not ours to say.
fn spare(cluster: &Cluster, gang: &GangRecord, placed: &[(PodId, NodeId)]) -> Vec<(PodId, NodeId)> {
    let Some(declared) = gang.declared.as_ref().filter(|gang| !GangInfo::is_of_others(&gang.name)) else {
        return Vec::new();
    };
    let sum = |of: fn(&GangRoleInfo) -> u32| declared.roles.iter().map(|role| u64::from(of(role))).sum::<u64>();
    let needed = sum(|role| role.min).max(declared.min_member.into());
    if sum(|role| role.replicas) <= needed {
        return Vec::new();
    }
    let mut live = Vec::new();
    for &(pod, node) in placed {
        let Some(info) = cluster.info(pod).filter(|info| !info.deleting && !gang.doomed.contains(&pod)) else {
            continue;
        };
        let Some(membership) = info.gang.as_ref().filter(|m| m.uid.as_ref().is_none_or(|uid| *uid == declared.uid))
        else {
            continue;
        };
        live.push((membership.rank, &info.key.name, &membership.role, (pod, node)));
    }
    live.sort_unstable_by(|a, b| b.cmp(a));
    let mut total = live.len().saturating_sub(usize::try_from(needed).unwrap_or(usize::MAX));
    let of_role = |name: &SmolStr| live.iter().filter(|(.., role, _)| *role == name).count();
    let mut roles: BTreeMap<&SmolStr, usize> =
        declared.roles.iter().map(|role| (&role.name, of_role(&role.name).saturating_sub(role.min as usize))).collect();
    let mut spare = Vec::new();
    for (_, _, role, stand) in &live {
        if let Some(left) = roles.get_mut(role).filter(|left| **left > 0 && total > 0) {
            *left -= 1;
            total -= 1;
            spare.push(*stand);
        }
    }
    spare
}

/// The units of a choice, by their positions, with those that cannot stay where they go: layers of the same gang that lie above.
/// Ascending. `O(chosen + units)`.
pub(crate) fn with_those_above<'a>(units: impl Fn(usize) -> &'a Unit, count: usize, chosen: &[usize]) -> Vec<usize> {
    let mut lowest: BTreeMap<GangId, usize> = BTreeMap::new();
    for unit in chosen.iter().map(|at| units(*at)) {
        if let Some(gang) = unit.gang {
            let layer = lowest.entry(gang).or_insert(unit.layer);
            *layer = unit.layer.min(*layer);
        }
    }
    let mut all: BTreeSet<usize> = chosen.iter().copied().collect();
    if !lowest.is_empty() {
        let goes =
            |at: &usize| units(*at).gang.is_some_and(|gang| lowest.get(&gang).is_some_and(|l| *l < units(*at).layer));
        all.extend((0..count).filter(goes));
    }
    all.into_iter().collect()
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

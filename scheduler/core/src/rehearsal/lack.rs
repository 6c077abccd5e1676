//! Level by level what is missing for a gang that has no place: how near the best domain comes, and who holds the rest.
//!
//! Everything is counted on nodes that may take a member: those that refuse for no other reason than what stands on them. The
//! others are told apart by their reasons. `O(nodes · levels + pods of the best domains)`, for one gang and a person who asks.

use super::{Closed, DomainRoom, Holder, Lack, NAMED, NodeRoom};
use crate::explain::Reason;
use crate::gang::{Ask, Gangs, groups};
use crate::shape::ShapeId;
use crate::snapshot::{Cluster, NodeId, PodId, Snapshot, Txn};
use flowforge_topology_core::{DomainId, LevelIndex};
use smol_str::SmolStr;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What one node has for the gang.
struct Spot {
    node: NodeId,
    free: i64,
    total: i64,
    /// Members of each group that fit.
    slots: Vec<u64>,
    /// Why no member may stand there whatever is free; None where one may.
    closed: Option<Reason>,
}

/// What is missing at every level, wide to narrow. `resource` is what units are counted in; `priority` that of the gang.
pub(crate) fn lacks(snapshot: &mut Snapshot, gangs: &Gangs, ask: &Ask, resource: &str, priority: i32) -> Vec<Lack> {
    let shapes: Vec<(ShapeId, u64)> =
        groups(snapshot, &ask.members).iter().map(|group| (group.shape, group.need())).collect();
    let need = ask.members.iter().map(|pod| asks(snapshot.cluster(), *pod, resource)).sum();
    snapshot.rehearse(|txn| {
        txn.keep_promises(&ask.members);
        let spots = spots(txn, &shapes, resource);
        let cluster = txn.snapshot().cluster();
        let count: Vec<u64> = shapes.iter().map(|(_, need)| *need).collect();
        let levels = std::iter::once(None).chain(cluster.tree().levels().iter().map(Some));
        let tells = |level: &Option<LevelIndex>| {
            level.is_none_or(|own| ask.required == Some(own) || cluster.tree().count_at(own) > 0)
        };
        let populated = levels.filter(tells);
        let of = |level| Level { cluster, level, required: ask.required == level, need, count: &count };
        populated.map(|level| of(level).lack(&spots, gangs, resource, priority)).collect()
    })
}

/// How much of a resource a pod asks for.
fn asks(cluster: &Cluster, pod: PodId, resource: &str) -> i64 {
    cluster.footprint_of(pod).map_or(0, |footprint| footprint.request(resource))
}

/// Every node, in id order.
fn spots(txn: &mut Txn<'_>, shapes: &[(ShapeId, u64)], resource: &str) -> Vec<Spot> {
    let cluster = txn.snapshot().cluster();
    let known = cluster.nodes.iter().filter(|(_, node)| !node.placeholder);
    let mut spots: Vec<Spot> = known
        .map(|(node, _)| Spot {
            node,
            free: cluster.lanes().find(resource).map_or(0, |lane| cluster.lanes().free(lane, node.index())).max(0),
            total: cluster.allocatable(node, resource),
            slots: Vec::new(),
            closed: None,
        })
        .collect();
    let mut open = vec![false; spots.len()];
    for (shape, _) in shapes {
        let Some((cache, shape, _)) = txn.view(*shape) else { continue };
        for (spot, open) in spots.iter_mut().zip(&mut open) {
            let eval = cache.node(spot.node.dense());
            spot.slots.push(eval.slots.into());
            let reasons = eval.verdict.reasons(&shape.spec);
            match reasons.into_iter().find(|reason| !reason.ends_by_eviction()) {
                Some(reason) => spot.closed = spot.closed.take().or(Some(reason)),
                None => *open = true,
            }
        }
    }
    // A node that may take members of one shape is open, though others may not stand there.
    spots.iter_mut().zip(open).filter(|(_, open)| *open).for_each(|(spot, _)| spot.closed = None);
    spots
}

/// One level of one gang.
struct Level<'a> {
    cluster: &'a Cluster,
    /// None: the cluster as a whole.
    level: Option<LevelIndex>,
    required: bool,
    need: i64,
    /// Members of each group.
    count: &'a [u64],
}

/// What a domain has, by count.
#[derive(Clone, Debug, Default)]
struct Tally {
    free: i64,
    slots: Vec<u64>,
}

impl Level<'_> {
    fn lack(&self, spots: &[Spot], gangs: &Gangs, resource: &str, priority: i32) -> Lack {
        let mut tallies: BTreeMap<DomainId, Tally> = BTreeMap::new();
        for spot in spots {
            let Some(domain) = self.domain(spot.node) else { continue };
            let tally = tallies.entry(domain).or_default();
            tally.slots.resize(self.count.len(), 0);
            if spot.closed.is_none() {
                tally.free += spot.free;
                tally.slots.iter_mut().zip(&spot.slots).for_each(|(sum, slots)| *sum += slots);
            }
        }
        let wanted: u64 = self.count.iter().sum();
        let best =
            tallies.iter().max_by_key(|(id, tally)| (self.fit(tally), tally.free, Reverse(**id))).map(|(id, _)| *id);
        Lack {
            level: self.level.map_or("cluster", |level| self.cluster.tree().levels().name(level)).to_owned(),
            required: self.required,
            domains: saturate(tallies.len()),
            enough: saturate(tallies.values().filter(|tally| self.fit(tally) >= wanted).count()),
            need: self.need,
            best: best.map(|domain| self.room(domain, &tallies[&domain], spots, gangs, (resource, priority))),
        }
    }

    fn domain(&self, node: NodeId) -> Option<DomainId> {
        match self.level {
            None => Some(DomainId::ROOT),
            Some(level) => self.cluster.tree().domain_of(node.dense(), level),
        }
    }

    /// Members that fit, each group taken by itself.
    fn fit(&self, tally: &Tally) -> u64 {
        tally.slots.iter().zip(self.count).map(|(slots, need)| *slots.min(need)).sum()
    }

    fn room(
        &self,
        domain: DomainId,
        tally: &Tally,
        spots: &[Spot],
        gangs: &Gangs,
        (resource, priority): (&str, i32),
    ) -> DomainRoom {
        let inside: Vec<&Spot> = spots.iter().filter(|spot| self.domain(spot.node) == Some(domain)).collect();
        let open = || inside.iter().filter(|spot| spot.closed.is_none());
        let mut nodes: Vec<NodeRoom> = open().filter(|spot| spot.free > 0).map(|spot| self.node(spot)).collect();
        nodes.sort_by(|a, b| {
            (Reverse(a.fit), Reverse(a.free), &a.name).cmp(&(Reverse(b.fit), Reverse(b.free), &b.name))
        });
        let mut closed: BTreeMap<String, (u32, i64)> = BTreeMap::new();
        for spot in &inside {
            let Some(reason) = &spot.closed else { continue };
            let (nodes, free) = closed.entry(reason.to_string()).or_default();
            *nodes += 1;
            *free += spot.free;
        }
        let pods = open().filter_map(|spot| self.cluster.node(spot.node)).flat_map(|node| node.pods().iter().copied());
        let mut holders = holders(self.cluster, gangs, pods, resource, priority);
        let more = |len: usize| saturate(len.saturating_sub(NAMED));
        let (more_nodes, more_holders) = (more(nodes.len()), more(holders.len()));
        nodes.truncate(NAMED);
        holders.truncate(NAMED);
        DomainRoom {
            domain: self.cluster.tree().describe(domain),
            fit: u32::try_from(self.fit(tally)).unwrap_or(u32::MAX),
            free: tally.free,
            total: open().map(|spot| spot.total).sum(),
            nodes,
            more_nodes,
            closed: closed.into_iter().map(|(reason, (nodes, free))| Closed { reason, nodes, free }).collect(),
            holders,
            more_holders,
        }
    }

    fn node(&self, spot: &Spot) -> NodeRoom {
        let fit: u64 = spot.slots.iter().zip(self.count).map(|(slots, need)| *slots.min(need)).sum();
        NodeRoom {
            name: self.cluster.node_name(spot.node),
            free: spot.free,
            fit: u32::try_from(fit).unwrap_or(u32::MAX),
        }
    }
}

/// Who holds units, most first, then by name.
fn holders(
    cluster: &Cluster,
    gangs: &Gangs,
    pods: impl Iterator<Item = PodId>,
    resource: &str,
    priority: i32,
) -> Vec<Holder> {
    let mut by_name: BTreeMap<(&'static str, String), Vec<PodId>> = BTreeMap::new();
    for pod in pods.filter(|pod| asks(cluster, *pod, resource) > 0) {
        by_name.entry(name_of(cluster, gangs, pod)).or_default().push(pod);
    }
    let mut all: Vec<Holder> =
        by_name.into_iter().map(|(name, pods)| holder(cluster, name, &pods, resource, priority)).collect();
    all.sort_by(|a, b| (Reverse(a.units), &a.name).cmp(&(Reverse(b.units), &b.name)));
    all
}

/// Pods that are named together.
pub(crate) fn holder(
    cluster: &Cluster,
    (kind, name): (&'static str, String),
    pods: &[PodId],
    resource: &str,
    priority: i32,
) -> Holder {
    let standings = || pods.iter().filter_map(|pod| cluster.pod(*pod)).map(|pod| pod.standing);
    let highest = standings().map(|standing| standing.priority).max().unwrap_or(0);
    Holder {
        kind,
        name,
        priority: highest,
        pods: saturate(pods.len()),
        units: pods.iter().map(|pod| asks(cluster, *pod, resource)).sum(),
        since_ms: standings().filter_map(|standing| standing.started_at_ms).min(),
        less_important: highest < priority,
        leaving: standings().all(|standing| standing.deleting),
    }
}

/// The gang of a pod, or the pod.
pub(crate) fn name_of(cluster: &Cluster, gangs: &Gangs, pod: PodId) -> (&'static str, String) {
    let Some(record) = cluster.pod(pod) else { return ("pod", String::new()) };
    let gang = cluster.info(pod).and_then(|info| info.gang.as_ref());
    let gang = gang.and_then(|gang| gangs.get(gangs.find(&record.key.namespace, &gang.name)?));
    match gang {
        Some(gang) => ("gang", gang.title()),
        None => ("pod", format!("{}/{}", record.key.namespace, record.key.name)),
    }
}

/// The resource that a gang is counted in: the devices that its members ask for most of, else what is short, else CPU.
pub(crate) fn unit(cluster: &Cluster, members: &[PodId], short: Option<&SmolStr>) -> SmolStr {
    let sum = |name: &SmolStr| members.iter().map(|pod| asks(cluster, *pod, name)).sum::<i64>();
    let devices = cluster.device_resources().iter().filter(|name| sum(name) > 0);
    let most = devices.max_by_key(|name| sum(name)).or(short);
    most.cloned().unwrap_or(SmolStr::new_static(crate::model::CPU))
}

fn saturate(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

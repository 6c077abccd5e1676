//! How evenly the devices of a gang stand over its hosts, and so how fast they are together.
//!
//! An all-reduce is as fast as its slowest hop ([`flowforge_topology_core::cost`]). What a host can send grows with the
//! devices that take part on it, for each comes with a NIC of its own, so that the host with the fewest sets the pace: 3 + 2
//! is twice as fast as 4 + 1. What lies above a level carries less the wider it is; as nobody says how much, each level is
//! taken to halve it. Packing alone fills hosts to the brim; here what it found is evened out, where that is worth it:
//!
//! - a gang of one shape: of the fewest hosts that hold it, those that let the least loaded one have the most;
//! - a small gang by a bounded search for the fastest ring ([`super::ring`]); a large mixed one stays as it was packed.
//!
//! Where everyone stands on one host, or every host is as full as it can be (one member each is the usual case), a glance
//! at the places is all it costs: `O(members · log members)`.

use super::plan::{Group, put};
use super::{ring, search};
use crate::plugins::gang_packing::evenly;
use crate::shape::ShapeCache;
use crate::snapshot::{Cluster, Mark, NodeId, PodId, Txn};
use flowforge_topology_core::{DomainId, Tree};
use std::cmp::Reverse;

/// Most members of a gang for which the fastest ring is searched.
const MOST_MEMBERS: usize = 16;
/// Most nodes of the domain where it is searched.
const MOST_NODES: u32 = 64;
/// The search may take this share of the steps that are left.
const SHARE: u32 = 8;
/// Pace of one device that nothing slows down.
const FULL: u64 = 1 << 16;

/// How fast a placement is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Evenness {
    /// Of the slowest hop of the ring: devices that send, less what is lost on the way, in parts of [`FULL`].
    pace: u64,
    /// Hosts that have any.
    hosts: usize,
    /// No placement on hosts like these is faster.
    pub(super) ideal: bool,
}

impl Evenness {
    /// Nothing is sent between hosts, or it is not known what.
    const ALONE: Self = Self { pace: u64::MAX, hosts: 0, ideal: true };

    /// Whether it is faster.
    pub(super) fn beats(self, other: Self) -> bool {
        (self.pace, Reverse(self.hosts)) > (other.pace, Reverse(other.hosts))
    }
}

/// Evens out what was packed below a domain since `start`, where that makes it faster.
pub(super) fn level_out(
    txn: &mut Txn<'_>,
    groups: &[Group],
    domain: DomainId,
    start: Mark,
    loose: bool,
    steps: &mut u32,
) -> Evenness {
    let mut best = measure(txn, groups, loose);
    if let ([only], false) = (groups, best.ideal) {
        best = level_out_one(txn, only, domain, start, best);
    }
    if best.ideal { best } else { fastest(txn, groups, (domain, start), best, loose, steps) }
}

/// How fast the gang is as it stands now. `loose`: see [`may_share_a_host`].
fn measure(txn: &mut Txn<'_>, groups: &[Group], loose: bool) -> Evenness {
    let cluster = txn.snapshot().cluster();
    let devices = |group: &Group| group.members.first().map_or(0, |pod| cluster.devices_of(*pod));
    let counted: Vec<(&Group, u64)> = groups.iter().map(|g| (g, devices(g))).filter(|(_, n)| *n > 0).collect();
    let mut stands: Vec<(NodeId, u64)> = Vec::new();
    for (group, devices) in &counted {
        let nodes = group.members.iter().filter_map(|pod| cluster.pod(*pod)?.place.node());
        stands.extend(nodes.map(|node| (node, *devices)));
    }
    stands.sort_unstable();
    let mut hosts: Vec<(NodeId, u64)> = stands
        .chunk_by(|a, b| a.0 == b.0)
        .filter_map(|run| Some((run.first()?.0, run.iter().map(|(_, n)| n).sum())))
        .collect();
    if hosts.len() < 2 {
        return Evenness::ALONE;
    }
    let (most, unit) = match counted.as_slice() {
        [(group, devices)] => (most_of_one(txn, group, *devices, &hosts), *devices),
        _ => (most_of_any(cluster, &hosts), 1),
    };
    if !loose && hosts.iter().all(|(_, n)| *n == most) {
        // As full as can be, and all alike: what is lost on the way is lost in any case.
        return Evenness { pace: u64::MAX, hosts: hosts.len(), ideal: true };
    }
    let elsewhere = match counted.as_slice() {
        [(group, devices)] => most_elsewhere(txn, group, *devices),
        _ => 0,
    };
    let most = most.max(elsewhere);
    let total: u64 = hosts.iter().map(|(_, n)| n).sum();
    let tree = txn.snapshot().cluster().tree();
    hosts.sort_by_cached_key(|(node, _)| tree_order(tree, *node));
    let ring = hosts.windows(2).map(|pair| hop(tree, pair[0], pair[1]));
    let back = hop(tree, hosts[hosts.len() - 1], hosts[0]);
    let pace = ring.fold(back, u64::min);
    let leaves = hosts.iter().filter_map(|(node, _)| tree.leaf(node.dense()));
    let widest = leaves.reduce(|a, b| tree.common(a, b)).unwrap_or(DomainId::ROOT);
    let fewest = total.div_ceil(most.max(1)).max(2);
    let limit = most.saturating_mul(carries(tree, widest)).min((total / unit / fewest * unit).saturating_mul(FULL));
    Evenness { pace, hosts: hosts.len(), ideal: !loose && pace >= limit }
}

/// Whether some host may take all members that have devices, while those without any stand elsewhere: then a gang that no single
/// host takes may send nothing between hosts nevertheless. Nobody is placed yet. `O(groups · log hosts)`.
pub(super) fn may_share_a_host(txn: &mut Txn<'_>, groups: &[Group]) -> bool {
    let Some(level) = txn.snapshot().cluster().tree().levels().iter().last().filter(|_| groups.len() > 1) else {
        return false;
    };
    let mut others = false;
    for group in groups {
        let Some((cache, _, cluster)) = txn.view(group.shape) else { return false };
        if group.members.first().is_none_or(|pod| cluster.devices_of(*pod) == 0) {
            others = true;
        } else if cache.domains_with(level, group.need(), None).next().is_none() {
            return false;
        }
    }
    others
}

/// Pace of a hop between two hosts with so many devices each.
pub(super) fn hop(tree: &Tree, a: (NodeId, u64), b: (NodeId, u64)) -> u64 {
    let (Some(one), Some(other)) = (tree.leaf(a.0.dense()), tree.leaf(b.0.dense())) else { return 0 };
    a.1.min(b.1).saturating_mul(carries(tree, tree.common(one, other)))
}

/// What is left of the pace of a device on the way through a domain: all in the narrowest that holds hosts, half above, and so on.
fn carries(tree: &Tree, domain: DomainId) -> u64 {
    let levels = tree.levels().len();
    let above = tree.level(domain).map_or(levels, |level| levels - 1 - usize::from(level.0));
    FULL >> above.saturating_sub(1).min(16)
}

/// The order of the tree, widest domain first.
pub(super) fn tree_order(tree: &Tree, node: NodeId) -> (Vec<DomainId>, NodeId) {
    let mut path: Vec<DomainId> =
        tree.leaf(node.dense()).map(|leaf| tree.ancestors(leaf).collect()).unwrap_or_default();
    path.reverse();
    (path, node)
}

/// Most devices that any host could give to members of one shape, also where the gang does not stand: a domain whose hosts
/// are all small is not the best that there is. `O(nodes)`, which only small gangs are worth.
fn most_elsewhere(txn: &mut Txn<'_>, group: &Group, devices: u64) -> u64 {
    let Some((cache, _, cluster)) = txn.view(group.shape).filter(|_| group.members.len() <= MOST_MEMBERS) else {
        return 0;
    };
    let mut nodes = Vec::new();
    search::collect(cache, cluster, DomainId::ROOT, &mut nodes);
    let slots = nodes.iter().map(|node| u64::from(cache.node(node.dense()).slots)).max().unwrap_or(0);
    slots.saturating_mul(devices)
}

/// Most devices that one of the hosts could give to members of one shape.
fn most_of_one(txn: &mut Txn<'_>, group: &Group, devices: u64, hosts: &[(NodeId, u64)]) -> u64 {
    let Some((cache, ..)) = txn.view(group.shape) else { return u64::MAX };
    let more = |node: &NodeId| u64::from(cache.node(node.dense()).slots).saturating_mul(devices);
    hosts.iter().map(|(node, has)| has.saturating_add(more(node))).max().unwrap_or(0)
}

/// Most devices that one of the hosts could give.
fn most_of_any(cluster: &Cluster, hosts: &[(NodeId, u64)]) -> u64 {
    hosts.iter().map(|(node, has)| has.saturating_add(cluster.free_devices(*node))).max().unwrap_or(0)
}

fn level_out_one(txn: &mut Txn<'_>, group: &Group, domain: DomainId, start: Mark, packed: Evenness) -> Evenness {
    let places = places(txn, std::slice::from_ref(group));
    txn.roll_back_to(start);
    if let Some((cache, _, cluster)) = txn.view(group.shape) {
        let taken = evenest(cache, cluster, domain, group.need());
        put(txn, group, taken);
        let found = measure(txn, std::slice::from_ref(group), false);
        if found.beats(packed) {
            return found;
        }
        txn.roll_back_to(start);
    }
    restore(txn, &places);
    packed
}

/// Which nodes of a domain take how many, so that the one with the fewest has as many as can be. `O(nodes of the domain ·
/// log)`.
///
/// Fewest hosts, for with more of them both the average and the smallest room go down; of the rooms the largest, and last the
/// tightest that serves as well.
fn evenest(cache: &ShapeCache, cluster: &Cluster, domain: DomainId, need: u64) -> Vec<(u32, u64)> {
    let mut nodes = Vec::new();
    search::collect(cache, cluster, domain, &mut nodes);
    /// Slots; then soft taints, preferred affinity, the order of the tree; and the node.
    type Room = (Reverse<u64>, u32, Reverse<i64>, usize, u32);
    let mut rooms: Vec<Room> = Vec::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        let eval = cache.node(node.dense());
        rooms.push((Reverse(eval.slots.into()), eval.raw.taints, Reverse(eval.raw.affinity), at, node.dense()));
    }
    rooms.sort_unstable();
    let (mut count, mut before) = (0, 0_u64);
    while let Some((Reverse(slots), ..)) = rooms.get(count).filter(|(slots, ..)| before.saturating_add(slots.0) < need)
    {
        before = before.saturating_add(*slots);
        count += 1;
    }
    let Some((Reverse(room), ..)) = rooms.get(count) else { return Vec::new() };
    let hosts = u64::try_from(count).unwrap_or(u64::MAX).saturating_add(1);
    let enough = (need / hosts).min(*room).max(need - before);
    let serves = rooms[count..].partition_point(|(slots, ..)| slots.0 >= enough).max(1);
    let tightest = rooms[count + serves - 1].0;
    let last = count + rooms[count..].partition_point(|(slots, ..)| *slots < tightest);
    let mut chosen: Vec<(u64, u32)> = rooms[..count].iter().map(|room| (room.0.0, room.4)).collect();
    chosen.push((tightest.0, rooms[last].4));
    evenly(chosen, need)
}

/// The fastest ring of a small gang in a small domain, as far as the steps reach.
fn fastest(
    txn: &mut Txn<'_>,
    groups: &[Group],
    (domain, start): (DomainId, Mark),
    packed: Evenness,
    loose: bool,
    steps: &mut u32,
) -> Evenness {
    let members: usize = groups.iter().map(|group| group.members.len()).sum();
    if members > MOST_MEMBERS || txn.snapshot().cluster().tree().size(domain) > MOST_NODES {
        return packed;
    }
    let budget = *steps / SHARE;
    let known = places(txn, groups);
    txn.roll_back_to(start);
    let found = ring::faster(txn, groups, domain, packed.pace, budget);
    restore(txn, found.as_ref().unwrap_or(&known));
    *steps -= budget;
    if found.is_some() { measure(txn, groups, loose) } else { packed }
}

/// Where the members stand.
pub(super) fn places(txn: &Txn<'_>, groups: &[Group]) -> Vec<(PodId, NodeId)> {
    let cluster = txn.snapshot().cluster();
    let pods = groups.iter().flat_map(|group| &group.members);
    pods.filter_map(|pod| Some((*pod, cluster.pod(*pod)?.place.node()?))).collect()
}

/// Puts everyone back where they stood.
pub(super) fn restore(txn: &mut Txn<'_>, places: &[(PodId, NodeId)]) {
    places.iter().for_each(|(pod, node)| txn.place(*pod, *node));
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::fixture::{PodChain, dgx, member, pod};
    use crate::gang::{Ask, Planned, plan};
    use crate::snapshot::Snapshot;
    use std::collections::BTreeMap;

    /// How many members of a gang with these requests of GPUs stand where, in racks of nodes with so many free GPUs.
    fn stand(racks: &[&[i64]], gpus: &[i64]) -> BTreeMap<String, usize> {
        let mut s = Snapshot::new(&Config::default());
        for (r, rack) in racks.iter().enumerate() {
            for (n, free) in rack.iter().enumerate() {
                let name = format!("r{r}n{n}");
                s.upsert_node(dgx(&name, "b", &format!("r{r}")));
                s.upsert_pod(pod(&format!("fill-{name}")).asks("nvidia.com/gpu", 8 - free).on(&name).foreign());
            }
        }
        let members = (0..)
            .zip(gpus)
            .map(|(rank, gpus)| s.upsert_pod(member("g", rank, 1).asks("nvidia.com/gpu", *gpus)).unwrap().id);
        let ask = Ask { members: members.collect(), steps: 20_000, ..Ask::default() };
        let Planned::Placed(places) = plan(&mut s, &ask) else { panic!("not placed") };
        let mut stand = BTreeMap::new();
        places.iter().for_each(|(_, n)| *stand.entry(s.cluster().node_name(*n).to_string()).or_default() += 1);
        stand
    }

    fn of(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
        expected.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    #[test]
    fn members_are_spread_evenly_over_the_fewest_hosts() {
        assert_eq!(stand(&[&[8, 8, 8]], &[2; 5]), of(&[("r0n0", 2), ("r0n1", 3)]));
        assert_eq!(stand(&[&[8, 2, 4]], &[2; 5]), of(&[("r0n0", 3), ("r0n2", 2)]));
    }

    #[test]
    fn a_rack_where_they_stand_evenly_is_better_than_a_tight_one() {
        assert_eq!(stand(&[&[6, 1, 1], &[6, 6]], &[1; 8]), of(&[("r1n0", 4), ("r1n1", 4)]));
    }

    #[test]
    fn roles_are_spread_evenly_too() {
        assert_eq!(stand(&[&[8, 8]], &[4, 4, 2, 2]), of(&[("r0n0", 2), ("r0n1", 2)]));
    }
}

//! What the places of a gang cost: the all-reduce over its devices, by the hosts as their labels describe them.
//!
//! Which devices of a host a pod gets is the kubelet's choice; the first ones stand for them. Between hosts that share a level of
//! NVLink cliques there is NVLink; elsewhere the network, of which nobody says how much it is oversubscribed: as in the planner
//! (`gang/even.rs`) each level above the one that holds hosts is taken to halve it, those alone that the cluster has domains of.

use super::Pace;
use crate::snapshot::{Cluster, NodeId, PodId};
use flowforge_topology_core::cost::{Between, Bottleneck, Party, all_reduce};
use flowforge_topology_core::host::{Device, DeviceKind, Host, HostFacts, PathKind};
use flowforge_topology_core::readers::gfd;
use flowforge_topology_core::{DomainId, NodeHardware, Tree};
use smol_str::format_smolstr;
use std::collections::BTreeMap;

/// Label of NVLink cliques: hosts of one value are joined by NVLink.
const CLIQUE: &str = "nvidia.com/gpu.clique";

/// The cost of places; None where nobody has whole devices. `O(places + hosts · NICs)`.
pub(crate) fn pace(cluster: &Cluster, places: &[(PodId, NodeId)]) -> Option<Pace> {
    let mut on: BTreeMap<NodeId, u64> = BTreeMap::new();
    for (pod, node) in places {
        *on.entry(*node).or_default() += cluster.devices_of(*pod);
    }
    let tree = cluster.tree();
    let mut nodes: Vec<(NodeId, usize)> = on
        .into_iter()
        .filter(|(_, devices)| *devices > 0)
        .map(|(node, n)| (node, usize::try_from(n).unwrap_or(usize::MAX)))
        .collect();
    nodes.sort_by_cached_key(|(node, _)| order(tree, *node));
    let hosts: Vec<Host> = nodes.iter().map(|(node, devices)| host(cluster, *node, *devices)).collect();
    let taken: Vec<Vec<usize>> =
        hosts.iter().zip(&nodes).map(|(host, (_, devices))| host.gpus().take(*devices).collect()).collect();
    let parties: Vec<Party<'_>> = hosts.iter().zip(&taken).map(|(host, gpus)| Party { host, gpus }).collect();
    let common = |a: usize, b: usize| meet(tree, nodes[a].0, nodes[b].0);
    let found = all_reduce(&parties, |a, b| between(tree, common(a, b))).filter(|found| found.gpus > 0)?;
    let name = |at: usize| cluster.node_name(nodes[at].0);
    let (level, bottleneck) = match found.bottleneck {
        Bottleneck::Nothing => ("device".to_owned(), "nothing is sent: one device".to_owned()),
        Bottleneck::Inside(at, path) => ("host".to_owned(), format!("{} inside {}", inside(path), name(at))),
        Bottleneck::Between(a, b) => {
            let domain = common(a, b);
            let medium = if between(tree, domain) == Between::NvLink { "NVLink" } else { "network" };
            let level = tree.level(domain).map_or("cluster", |level| tree.levels().name(level));
            (level.to_owned(), format!("{medium} between {} and {}", name(a), name(b)))
        }
    };
    Some(Pace {
        seconds_per_gib: found.s_per_gib(),
        gb_per_s: found.gb_per_s.is_finite().then_some(found.gb_per_s),
        devices: found.gpus,
        hosts: nodes.len(),
        level,
        bottleneck,
    })
}

fn inside(path: PathKind) -> &'static str {
    match path {
        PathKind::Local | PathKind::NvLink | PathKind::NvLinkVia => "NVLink",
        PathKind::Pix | PathKind::Pxb => "PCIe switches",
        PathKind::P2c | PathKind::Phb => "PCIe through the CPU",
        PathKind::Sys => "PCIe across sockets",
    }
}

fn order(tree: &Tree, node: NodeId) -> (Vec<DomainId>, NodeId) {
    let mut path: Vec<DomainId> = tree.leaf(node.dense()).into_iter().flat_map(|leaf| tree.ancestors(leaf)).collect();
    path.reverse();
    (path, node)
}

fn meet(tree: &Tree, a: NodeId, b: NodeId) -> DomainId {
    match (tree.leaf(a.dense()), tree.leaf(b.dense())) {
        (Some(a), Some(b)) => tree.common(a, b),
        _ => DomainId::ROOT,
    }
}

/// What lies between two hosts whose narrowest common domain is this one.
fn between(tree: &Tree, domain: DomainId) -> Between {
    let levels = tree.levels();
    let is_clique = |level| levels.keys(level).iter().any(|key| key == CLIQUE);
    if tree.ancestors(domain).filter_map(|above| tree.level(above)).any(is_clique) {
        return Between::NvLink;
    }
    let narrowest = levels.iter().next_back();
    let below = levels.iter().filter(|level| tree.level(domain).is_none_or(|own| *level > own));
    let halved =
        below.filter(|level| Some(*level) != narrowest && !is_clique(*level) && tree.count_at(*level) > 0).count();
    Between::Network { share: 0.5_f64.powi(i32::try_from(halved).unwrap_or(i32::MAX)) }
}

/// A host by its labels; where they do not say, devices without links.
fn host(cluster: &Cluster, node: NodeId, devices: usize) -> Host {
    let Some(record) = cluster.node(node) else { return Host::default() };
    let label = |key: &str| record.info.labels.get(key).map(smol_str::SmolStr::as_str);
    let numa = NodeHardware::from_labels(u32::try_from(devices).unwrap_or(u32::MAX), label).per_numa.len();
    let numa = u16::try_from(numa).unwrap_or(1).max(1);
    if let Ok(found) = gfd::node(label, numa).map(gfd::GfdNode::checked)
        && found.gpus().count() >= devices
    {
        return found;
    }
    let device = |at: usize| Device {
        id: format_smolstr!("gpu-{at}"),
        kind: DeviceKind::Gpu { generation: None, c2c: false },
        product: None,
        bus: None,
        numa: None,
        pcie: None,
    };
    Host::new(HostFacts { devices: (0..devices).map(device).collect(), ..HostFacts::default() }).unwrap_or_default()
}

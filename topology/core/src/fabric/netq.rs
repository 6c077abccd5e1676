//! NetQ: its list of compute nodes with the NVLink domain of each, and its graph of an Ethernet fabric.
//!
//! In the graph, devices that LLDP has found are the hosts; a host stands in the rack of its leaf, which is its switch of the
//! lowest tier, or, with several, in the rack that is named by all of them.

use super::Fabric;
use serde::Deserialize;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// A compute node of an NVLink domain.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "PascalCase", default)]
pub struct ComputeNode {
    /// Name of the host.
    pub name: SmolStr,
    /// The domain.
    #[serde(rename = "DomainUUID")]
    pub domain_uuid: SmolStr,
}

/// A graph.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct Graph {
    /// Links between devices.
    pub links: Vec<Link>,
    /// Tiers of devices.
    pub nodes: Vec<TierOfDevices>,
}

/// A link.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct Link {
    /// Id of one end.
    pub src: SmolStr,
    /// Id of the other.
    pub target: SmolStr,
}

/// Devices of a tier.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct TierOfDevices {
    /// The devices.
    pub compounded_nodes: Vec<GraphDevice>,
}

/// A device.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct GraphDevice {
    /// Id, which links name.
    pub id: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// `switch`, or how it was found.
    pub device_type: SmolStr,
    /// Tier of a switch from 1; -1 for what is none.
    pub tier: i32,
}

/// The NVLink domains of compute nodes. A node without a name or a domain is left out and told.
#[must_use]
pub fn compute_nodes(nodes: &[ComputeNode]) -> Fabric {
    let mut fabric = Fabric { levels: vec!["nvlink".into()], ..Fabric::default() };
    for (at, node) in nodes.iter().enumerate() {
        if node.name.is_empty() {
            fabric.left_out.push(format!("compute node {at} has no Name"));
        } else if node.domain_uuid.is_empty() {
            fabric.left_out.push(format!("compute node {} has no DomainUUID", node.name));
        } else {
            fabric.hosts.insert(node.name.clone(), vec![Some(node.domain_uuid.clone())]);
        }
    }
    fabric
}

/// The racks of a graph. `O(links + devices)`.
#[must_use]
pub fn graph(graphs: &[Graph]) -> Fabric {
    let mut fabric = Fabric { levels: vec!["rack".into()], ..Fabric::default() };
    let all = graphs.iter().flat_map(|graph| &graph.nodes).flat_map(|tier| &tier.compounded_nodes);
    let devices: BTreeMap<&SmolStr, &GraphDevice> = all.map(|device| (&device.id, device)).collect();
    let mut leaves: BTreeMap<&SmolStr, BTreeSet<(i32, &SmolStr)>> = BTreeMap::new();
    for link in graphs.iter().flat_map(|graph| &graph.links) {
        let (Some(one), Some(other)) = (devices.get(&link.src), devices.get(&link.target)) else {
            fabric.left_out.push(format!("a link joins {} and {}, of which one is not listed", link.src, link.target));
            continue;
        };
        for (host, switch) in [(one, other), (other, one)] {
            if !is_switch(host) && is_switch(switch) {
                leaves.entry(&host.name).or_default().insert((switch.tier, &switch.name));
            }
        }
    }
    for host in devices.values().filter(|device| !is_switch(device)) {
        let above = leaves.get(&host.name);
        let lowest = above.and_then(|above| above.first()).map(|(tier, _)| *tier);
        let names: Vec<&str> = above
            .into_iter()
            .flatten()
            .filter(|(tier, _)| Some(*tier) == lowest)
            .map(|(_, name)| name.as_str())
            .collect();
        if names.is_empty() {
            fabric.left_out.push(format!("host {} is linked to no switch", host.name));
        }
        fabric.hosts.insert(host.name.clone(), vec![(!names.is_empty()).then(|| names.join("+").into())]);
    }
    fabric
}

fn is_switch(device: &GraphDevice) -> bool {
    device.device_type == "switch"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, name: &str, tier: i32) -> GraphDevice {
        let device_type = if tier > 0 { "switch" } else { "discovered_via_lldp" };
        GraphDevice { id: id.into(), name: name.into(), device_type: device_type.into(), tier }
    }

    fn link(src: &str, target: &str) -> Link {
        Link { src: src.into(), target: target.into() }
    }

    #[test]
    fn compute_nodes_stand_in_their_nvlink_domain() {
        let node = |name: &str, domain: &str| ComputeNode { name: name.into(), domain_uuid: domain.into() };
        let fabric = compute_nodes(&[node("a", "u1"), node("b", ""), node("", "u1")]);
        assert_eq!(fabric.hosts, [("a".into(), vec![Some("u1".into())])].into());
        assert_eq!(fabric.left_out, ["compute node b has no DomainUUID", "compute node 2 has no Name"]);
    }

    #[test]
    fn a_host_stands_below_its_lowest_switches() {
        let nodes = vec![device("1", "l1", 1), device("2", "l2", 1), device("3", "s", 2)];
        let hosts = vec![device("4", "a", -1), device("5", "both", -1), device("6", "alone", -1)];
        let tier = |compounded_nodes| TierOfDevices { compounded_nodes };
        let links =
            vec![link("1", "4"), link("4", "3"), link("5", "2"), link("1", "5"), link("1", "3"), link("1", "9")];
        let fabric = graph(&[Graph { links, nodes: vec![tier(nodes), tier(hosts)] }]);
        let rack = |host: &str| fabric.hosts[host][0].as_deref();
        assert_eq!([rack("a"), rack("both"), rack("alone")], [Some("l1"), Some("l1+l2"), None]);
        assert_eq!(fabric.left_out.len(), 2, "{:?}", fabric.left_out);
    }
}

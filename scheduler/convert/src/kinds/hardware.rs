//! NodeResourceTopologies (`topology.node.k8s.io/v1alpha2`): what agents report of the inside of nodes, for the choice among
//! devices.
//!
//! They are other people's objects: where the API is absent, or may not be read, nothing is missing but their knowledge. Exporters
//! write an object again whenever a resource of its zones is used; what of it the core looks at then stays as it was.

use super::plain;
use crate::types::Meta;
use flowforge_scheduler_core::devices::{DeviceFact, DeviceList, HardwareInfo};
use flowforge_scheduler_core::event::{Event, RelistedKind};
use flowforge_topology_core::readers::nrt;
use serde::Deserialize;
use smol_str::SmolStr;

/// The object, trimmed to what is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeResourceTopology {
    metadata: Meta,
    attributes: Vec<Attribute>,
    topology_policies: Vec<SmolStr>,
    zones: Vec<Zone>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Zone {
    name: SmolStr,
    #[serde(rename = "type")]
    kind: SmolStr,
    parent: Option<SmolStr>,
    costs: Vec<Cost>,
    attributes: Vec<Attribute>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Cost {
    name: SmolStr,
    value: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Attribute {
    name: SmolStr,
    value: SmolStr,
}

plain!(
    /// NodeResourceTopologies.
    NodeResourceTopologies: NodeResourceTopology, "noderesourcetopologies",
    "/apis/topology.node.k8s.io/v1alpha2/noderesourcetopologies", optional true, foreign true,
    upsert |object| Event::Device(Box::new(DeviceFact::Hardware(hardware(object)))),
    gone |_, name| Event::Device(Box::new(DeviceFact::HardwareGone(name))),
    listed |all| RelistedKind::Devices(DeviceList::Hardware(all.into_iter().map(|(_, name)| name).collect()))
);

/// What an object says is inside its node.
fn hardware(of: &NodeResourceTopology) -> HardwareInfo {
    let pairs = |all: &[Attribute]| -> Vec<(SmolStr, SmolStr)> {
        all.iter().map(|one| (one.name.clone(), one.value.clone())).collect()
    };
    let zone = |zone: &Zone| nrt::Zone {
        name: zone.name.clone(),
        kind: zone.kind.clone(),
        parent: zone.parent.clone().filter(|parent| !parent.is_empty()),
        costs: zone.costs.iter().map(|cost| (cost.name.clone(), cost.value)).collect(),
        attributes: pairs(&zone.attributes),
        resources: Vec::new(),
    };
    let zones: Vec<nrt::Zone> = of.zones.iter().map(zone).collect();
    let found = nrt::read(&pairs(&of.attributes), &of.topology_policies, &zones);
    HardwareInfo { node: of.metadata.name.clone(), host: found.host }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Plain as _;
    use serde_json::json;

    #[test]
    fn zones_become_the_inside_of_a_node() {
        let gpu = |name: &str, peer: &str| {
            let attributes = json!([
                {"name": "product", "value": "NVIDIA A100-PCIE-40GB"}, {"name": "nvlink", "value": format!("{peer}=12")},
            ]);
            json!({"name": name, "type": "GPU", "parent": "node-0", "attributes": attributes})
        };
        let numa = json!({"name": "node-0", "type": "Node", "costs": [{"name": "node-0", "value": 10}],
            "resources": [{"name": "cpu", "capacity": "8", "allocatable": "8", "available": "3"}]});
        let object = json!({"apiVersion": "topology.node.k8s.io/v1alpha2", "kind": "NodeResourceTopology",
            "metadata": {"name": "n"}, "attributes": [{"name": "topologyManagerPolicy", "value": "none"}],
            "zones": [numa, gpu("gpu-0", "gpu-1"), gpu("gpu-1", "gpu-0")]});
        let object = serde_json::from_value(object).expect("an object");
        let event = NodeResourceTopologies::upsert(&object);
        let Event::Device(fact) = event else { panic!("{event:?}") };
        let DeviceFact::Hardware(info) = *fact else { panic!("{fact:?}") };
        assert_eq!((info.node.as_str(), info.host.devices.len(), info.host.links.between(0, 1)), ("n", 2, 12));
        assert_eq!((info.host.devices[0].numa, info.host.numa_distances.len()), (Some(0), 1));
        let gone = NodeResourceTopologies::gone(SmolStr::default(), "n".into());
        assert_eq!(gone, Event::Device(Box::new(DeviceFact::HardwareGone("n".into()))));
    }
}

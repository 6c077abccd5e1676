//! Devices of ResourceSlices: which GPUs and NICs a node has, on which PCIe root and NUMA node.
//!
//! Attributes are those that the drivers publish: the standard ones (`resource.kubernetes.io/pcieRoot`, `/numaNode`), NVIDIA's
//! (`type`, `uuid`, `productName`, `cudaComputeCapability`, `parentUUID`), AMD's, Intel's and DRANET's. No driver publishes NVLink:
//! it is known from the product where all GPUs of the node are of one that has it. A name without a domain is the driver's own.

use crate::cost::Generation;
use crate::host::{Bus, BusKind, Device, DeviceKind, HostFacts, gpu_of_product};
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeMap;
use thiserror::Error;

const STANDARD: &str = "resource.kubernetes.io";
/// DRANET's own attributes; other network drivers are recognised by them too where they publish them.
const DRANET: &str = "dra.net";
/// Drivers of GPUs.
const GPU_DRIVERS: [&str; 3] = ["gpu.nvidia.com", "gpu.amd.com", "gpu.intel.com"];

/// Value of an attribute.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// A number.
    Int(i64),
    /// A truth.
    Bool(bool),
    /// Text or a version.
    Text(SmolStr),
    /// A list of numbers: for `numaNode` the device's own comes first.
    Ints(Vec<i64>),
}

/// A device of a slice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SliceDevice {
    /// The driver.
    pub driver: SmolStr,
    /// The pool.
    pub pool: SmolStr,
    /// Its name, unique in the pool.
    pub name: SmolStr,
    /// Attributes by their names as they are published.
    pub attributes: BTreeMap<SmolStr, Value>,
}

/// Driver, pool and name of a device.
pub type SliceId = (SmolStr, SmolStr, SmolStr);

/// What is wrong with devices; the others count.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum SliceProblem {
    /// One device in two slices.
    #[error("device {1} of driver {0} is published twice")]
    Twice(SmolStr, SmolStr),
    /// A piece of a GPU that is not there.
    #[error("device {1} of driver {0} is a part of GPU {2}, which no slice of the node has")]
    NoParent(SmolStr, SmolStr, SmolStr),
    /// A NUMA node that is none.
    #[error(
        "device {1} of driver {0}: attribute numaNode is {2}; it must be 0 or more, or absent where it is not known"
    )]
    BadNuma(SmolStr, SmolStr, i64),
}

/// The devices of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SliceHost {
    /// As a host.
    pub host: HostFacts,
    /// Place of each device among the host's; parts (MIG devices, virtual functions) have that of their GPU.
    pub places: BTreeMap<SliceId, usize>,
    /// Those among them that are no further device: parts of GPUs, and GPUs that are offered in another way, too.
    pub parts: Vec<SliceId>,
    /// What is wrong.
    pub problems: Vec<SliceProblem>,
}

impl SliceDevice {
    /// An attribute by its full name; the driver's own are published without a domain or with the driver's.
    fn get(&self, domain: &str, name: &str) -> Option<&Value> {
        let full = self.attributes.get(format!("{domain}/{name}").as_str());
        full.or_else(|| (domain == self.driver).then(|| self.attributes.get(name)).flatten())
    }

    fn own(&self, name: &str) -> Option<&Value> {
        self.get(&self.driver, name)
    }

    fn own_text(&self, name: &str) -> Option<&SmolStr> {
        text(self.own(name))
    }

    fn id(&self) -> SliceId {
        (self.driver.clone(), self.pool.clone(), self.name.clone())
    }

    fn is_nic(&self) -> bool {
        self.driver == DRANET
            || self.attributes.keys().any(|key| key.strip_prefix(DRANET).is_some_and(|k| k.starts_with('/')))
    }

    /// The GPU that this is a part of.
    fn parent(&self) -> Option<&SmolStr> {
        self.own_text("parentUUID")
            .or_else(|| self.own_text("parentDeviceID"))
            .or_else(|| self.own_text("parentPciAddr"))
    }

    fn pcie_root(&self) -> Option<&SmolStr> {
        text(self.get(STANDARD, "pcieRoot")).or_else(|| self.own_text("pcieRoot")).or_else(|| self.own_text("pciRoot"))
    }

    fn numa(&self) -> Option<i64> {
        let known = self.get(STANDARD, "numaNode").or_else(|| self.own("numaNode")).or_else(|| self.own("numa"));
        match known? {
            Value::Int(node) => Some(*node),
            Value::Ints(nodes) => nodes.first().copied(),
            Value::Text(node) => node.parse().ok(),
            Value::Bool(_) => None,
        }
    }
}

fn text(value: Option<&Value>) -> Option<&SmolStr> {
    match value? {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// Gives NVIDIA's GPUs without a product the one that a label of GPU feature discovery tells of their node.
pub fn name_products(devices: &mut [SliceDevice], label: &str) {
    let product = super::gfd::whole_product(label);
    for device in devices.iter_mut().filter(|device| device.driver == GPU_DRIVERS[0] && device.parent().is_none()) {
        if let (Some(product), None) = (product, device.own_text("productName")) {
            device.attributes.insert(SmolStr::new_static("productName"), Value::Text(product.into()));
        }
    }
}

/// Reads all devices of one node's slices: GPUs, NICs, and parts of GPUs; devices of other drivers are none of ours.
/// `O(devices · log devices)`; the result does not depend on their order.
#[must_use]
pub fn host(devices: &[SliceDevice]) -> SliceHost {
    let mut ordered: Vec<&SliceDevice> = devices.iter().collect();
    ordered.sort_by_key(|device| device.id());
    let mut found = SliceHost::default();
    let mut roots: BTreeMap<SmolStr, usize> = BTreeMap::new();
    let mut by_name: BTreeMap<(SmolStr, SmolStr), usize> = BTreeMap::new();
    for device in ordered.iter().filter(|device| device.parent().is_none()) {
        let Some(kind) = kind(device) else { continue };
        if found.places.contains_key(&device.id()) {
            found.problems.push(SliceProblem::Twice(device.driver.clone(), device.name.clone()));
            continue;
        }
        let known = device.own_text("uuid").and_then(|uuid| by_name.get(&(device.driver.clone(), uuid.clone())));
        if let Some(place) = known.copied() {
            // The same GPU offered in another way, as for passing it through to a virtual machine.
            found.places.insert(device.id(), place);
            found.parts.push(device.id());
            continue;
        }
        let numa = numa(device, &mut found.problems);
        let bus = device.pcie_root().map(|root| {
            *roots.entry(root.clone()).or_insert_with(|| {
                found.host.buses.push(Bus { name: root.clone(), kind: BusKind::Root, parent: None, numa });
                found.host.buses.len() - 1
            })
        });
        let place = found.host.devices.len();
        for name in ["uuid", "pciAddr"].into_iter().filter_map(|name| device.own_text(name)) {
            by_name.insert((device.driver.clone(), name.clone()), place);
        }
        let id = format_smolstr!("{}/{}/{}", device.driver, device.pool, device.name);
        let product = device.own_text("productName").or_else(|| device.own_text("model")).cloned();
        found.host.devices.push(Device { id, kind, product, bus, numa, pcie: None });
        found.places.insert(device.id(), place);
    }
    for device in ordered {
        let Some(parent) = device.parent().filter(|_| GPU_DRIVERS.contains(&device.driver.as_str())) else { continue };
        match by_name.get(&(device.driver.clone(), parent.clone())) {
            Some(place) => {
                found.places.insert(device.id(), *place);
                found.parts.push(device.id());
            }
            None => {
                let none = SliceProblem::NoParent(device.driver.clone(), device.name.clone(), parent.clone());
                found.problems.push(none);
            }
        }
    }
    link(&mut found.host);
    found
}

fn kind(device: &SliceDevice) -> Option<DeviceKind> {
    if GPU_DRIVERS.contains(&device.driver.as_str()) {
        let capability = device.own_text("cudaComputeCapability");
        let product = device.own_text("productName").and_then(|name| gpu_of_product(name));
        let generation = capability.and_then(|version| generation(version)).or(product.and_then(|p| p.generation));
        return Some(DeviceKind::Gpu { generation, c2c: product.is_some_and(|p| p.has_c2c()) });
    }
    // No driver publishes how fast a port is.
    device.is_nic().then_some(DeviceKind::Nic { mbit_per_s: None })
}

fn generation(version: &str) -> Option<Generation> {
    let mut parts = version.split('.').map(str::parse::<u32>);
    Generation::of_capability(parts.next()?.ok()?, parts.next()?.ok()?)
}

fn numa(device: &SliceDevice, problems: &mut Vec<SliceProblem>) -> Option<u16> {
    let told = device.numa()?;
    let node = u16::try_from(told).ok();
    if node.is_none() {
        problems.push(SliceProblem::BadNuma(device.driver.clone(), device.name.clone(), told));
    }
    node
}

/// Links and ports of GPUs that are all of one known product.
fn link(host: &mut HostFacts) {
    let is_gpu = |device: &Device| matches!(device.kind, DeviceKind::Gpu { .. });
    let gpus: Vec<usize> = host.devices.iter().enumerate().filter(|(_, d)| is_gpu(d)).map(|(at, _)| at).collect();
    let mut products = gpus.iter().map(|at| host.devices[*at].product.as_deref());
    let Some(Some(first)) = products.next() else { return };
    if !products.all(|product| product == Some(first)) {
        return;
    }
    let Some(known) = gpu_of_product(first) else { return };
    host.links = known.links(&gpus);
    for at in gpus {
        host.devices[at].pcie = Some(known.pcie());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Host, PathKind};

    const NVIDIA: &str = "gpu.nvidia.com";

    fn device(driver: &str, name: &str, attributes: &[(&str, Value)]) -> SliceDevice {
        let attributes = attributes.iter().map(|(key, value)| ((*key).into(), value.clone())).collect();
        SliceDevice { driver: driver.into(), pool: "node".into(), name: name.into(), attributes }
    }

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    fn gpu(minor: u32, numa: i64) -> SliceDevice {
        let (uuid, root) = (format!("GPU-{minor}"), format!("pci0000:{minor:02x}"));
        device(
            NVIDIA,
            &format!("gpu-{minor}"),
            &[
                ("type", text("gpu")),
                ("uuid", text(&uuid)),
                ("productName", text("NVIDIA H100 80GB HBM3")),
                ("cudaComputeCapability", text("9.0.0")),
                ("resource.kubernetes.io/pcieRoot", text(&root)),
                ("resource.kubernetes.io/numaNode", Value::Int(numa)),
            ],
        )
    }

    fn nic(name: &str, root: &str, numa: Value) -> SliceDevice {
        let root = ("resource.kubernetes.io/pcieRoot", text(root));
        device(DRANET, name, &[("rdma", Value::Bool(true)), root, ("resource.kubernetes.io/numaNode", numa)])
    }

    #[test]
    fn gpus_and_nics_meet_on_their_pcie_roots() {
        let slices = [gpu(1, 1), gpu(0, 0), nic("eth0", "pci0000:00", Value::Ints(vec![0, 1]))];
        let found = host(&slices);
        assert_eq!(found.problems, []);
        let place = |driver: &str, name: &str| found.places[&(driver.into(), "node".into(), name.into())];
        let (first, second, eth) = (place(NVIDIA, "gpu-0"), place(NVIDIA, "gpu-1"), place(DRANET, "eth0"));
        let known = Host::new(found.host.clone()).unwrap();
        assert_eq!(known.path(first, second).unwrap().kind, PathKind::NvLink);
        assert_eq!([known.numa_of(first), known.numa_of(second), known.numa_of(eth)], [Some(0), Some(1), Some(0)]);
        assert_eq!(known.path(first, eth).unwrap().kind, PathKind::Phb, "one root, no switch that is known");
        assert_eq!(known.path(second, eth).unwrap().kind, PathKind::Sys);
        let mut turned = slices.to_vec();
        turned.reverse();
        assert_eq!(host(&turned), found, "the order of slices is nothing");
    }

    #[test]
    fn a_label_names_the_product_where_the_driver_does_not() {
        let mut gpus = [gpu(0, 0), gpu(1, 0), gpu(2, 1)];
        gpus.iter_mut().for_each(|gpu| drop(gpu.attributes.remove("productName")));
        let linked = |gpus: &[SliceDevice]| host(gpus).host.links.between(0, 2);
        assert_eq!(linked(&gpus), 0);
        let named = |label: &str| {
            let mut gpus = gpus.clone();
            name_products(&mut gpus, label);
            linked(&gpus)
        };
        assert_eq!([named("NVIDIA-H100-80GB-HBM3-SHARED"), named("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb")], [18, 0]);
        let mut told = [gpu(0, 0), gpu(1, 0), gpu(2, 1)];
        name_products(&mut told, "NVIDIA-L40S");
        assert_eq!(linked(&told), 18, "what a driver says counts more");
    }

    #[test]
    fn a_part_has_the_place_of_its_gpu() {
        let part = |name: &str, parent: &str| {
            device(NVIDIA, name, &[("type", text("mig")), ("parentUUID", text(parent)), ("profile", text("1g.10gb"))])
        };
        let passed = device(NVIDIA, "gpu-vfio-0", &[("type", text("vfio")), ("uuid", text("GPU-0"))]);
        let found = host(&[gpu(0, 0), part("gpu-0-mig-9-0", "GPU-0"), part("lost", "GPU-7"), passed]);
        assert_eq!((found.host.devices.len(), found.parts.len()), (1, 2));
        assert!(found.parts.iter().all(|part| found.places[part] == 0));
        let expected = "device lost of driver gpu.nvidia.com is a part of GPU GPU-7, which no slice of the node has";
        assert_eq!(found.problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn what_is_wrong_is_told_and_other_drivers_are_left_alone() {
        let mixed =
            device("gpu.amd.com", "card0", &[("productName", text("MI300X")), ("pcieRoot", text("pci0000:60"))]);
        let other = device("example.com", "fpga", &[]);
        let found = host(&[gpu(0, -1), gpu(0, 0), mixed, other]);
        let told: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("numaNode is -1; it must be 0 or more") || told[1].contains("numaNode is -1"));
        assert_eq!(found.host.devices.len(), 2);
        assert!(found.host.links.is_empty(), "of two products nothing is known to be linked");
        assert_eq!(found.host.buses.len(), 2);
    }
}

//! A node's ResourceSlices together with what its NodeResourceTopology says about the same devices.
//!
//! The slices say which devices can be allocated; the report knows more of what is between them: switches, NVLinks, speeds of
//! ports. A device is found in the report by its UUID, name, PCI address or interface. A report that contradicts the slices, as
//! one that is left over from another machine does, does not count.

use super::dra::{SliceDevice, SliceHost, Value};
use crate::cost::Generation;
use crate::host::{Bus, Device, DeviceKind, HostFacts, NvLinks};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use thiserror::Error;

/// Attributes that name a device, with their domain or the driver's own.
const NAMES: [&str; 6] = ["uuid", "pciBusID", "pciAddr", "pciAddress", "rdmaDevice", "ifName"];

/// Why a report does not count.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum MergeError {
    /// Two devices are one in the report.
    #[error("devices {0} and {1} of ResourceSlices are both {2} in the NodeResourceTopology; it does not count")]
    Twice(SmolStr, SmolStr, SmolStr),
    /// The NUMA nodes differ.
    #[error(
        "device {0} is on NUMA node {1} by its ResourceSlice and on {2} by the NodeResourceTopology; the latter does not count"
    )]
    OtherNuma(SmolStr, u16, u16),
    /// They are devices of different kinds.
    #[error(
        "device {0} is a GPU in one and a NIC in the other of ResourceSlice and NodeResourceTopology; the latter does not count"
    )]
    OtherKind(SmolStr),
}

/// Adds what a report knows of the devices that `found` was read from. `O(devices · log devices + links)`.
///
/// # Errors
/// Why nothing was added.
pub fn add_report(found: &mut SliceHost, devices: &[SliceDevice], report: &HostFacts) -> Result<(), MergeError> {
    let matched = matched(found, devices, report)?;
    let buses = take_buses(&mut found.host, report);
    for (place, other) in &matched {
        let (device, told) = (&mut found.host.devices[*place], &report.devices[*other]);
        device.numa = device.numa.or(told.numa);
        device.bus = told.bus.map(|bus| buses + bus).or(device.bus);
        device.pcie = told.pcie.or(device.pcie);
        device.product = device.product.take().or_else(|| told.product.clone());
        device.kind = merged(&device.kind, &told.kind);
    }
    found.host.numa_distances.clone_from(&report.numa_distances);
    let is_gpu = |device: &Device| matches!(device.kind, DeviceKind::Gpu { .. });
    let known = |place: usize| !is_gpu(&found.host.devices[place]) || matched.contains_key(&place);
    if !report.links.is_empty() && (0..found.host.devices.len()).all(known) {
        take_links(&mut found.host, &matched, report);
    }
    Ok(())
}

/// By place of a device its place in the report.
fn matched(
    found: &SliceHost,
    devices: &[SliceDevice],
    report: &HostFacts,
) -> Result<BTreeMap<usize, usize>, MergeError> {
    let by_id: BTreeMap<&str, usize> =
        report.devices.iter().enumerate().map(|(at, device)| (device.id.as_str(), at)).collect();
    let mut matched = BTreeMap::new();
    let mut holders: BTreeMap<usize, (usize, &SmolStr)> = BTreeMap::new();
    for device in devices {
        let id = (device.driver.clone(), device.pool.clone(), device.name.clone());
        let Some(place) = found.places.get(&id).copied().filter(|_| !found.parts.contains(&id)) else { continue };
        let Some(other) = names(device).find_map(|name| by_id.get(name).copied()) else { continue };
        let told = &report.devices[other];
        if let Some((first, name)) = holders.insert(other, (place, &device.name))
            && first != place
        {
            return Err(MergeError::Twice(name.clone(), device.name.clone(), told.id.clone()));
        }
        let own = &found.host.devices[place];
        if std::mem::discriminant(&own.kind) != std::mem::discriminant(&told.kind) {
            return Err(MergeError::OtherKind(device.name.clone()));
        }
        if let (Some(one), Some(two)) = (own.numa, told.numa.or_else(|| numa_of_bus(report, told.bus)))
            && one != two
        {
            return Err(MergeError::OtherNuma(device.name.clone(), one, two));
        }
        matched.insert(place, other);
    }
    Ok(matched)
}

fn names(device: &SliceDevice) -> impl Iterator<Item = &str> {
    let named = |wanted: &&str| {
        let of = |key: &SmolStr| key.rsplit('/').next() == Some(wanted);
        device.attributes.iter().find(|(key, _)| of(key)).and_then(|(_, value)| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    };
    NAMES.iter().filter_map(named).chain([device.name.as_str()])
}

fn numa_of_bus(report: &HostFacts, bus: Option<usize>) -> Option<u16> {
    let up = |at: &usize| report.buses.get(*at)?.parent;
    std::iter::successors(bus, up).take(report.buses.len()).find_map(|at| report.buses[at].numa)
}

/// Puts the report's buses behind those of the slices, whose devices move to the root of the same name; answers where they begin.
fn take_buses(host: &mut HostFacts, report: &HostFacts) -> usize {
    let first = host.buses.len();
    let moved = |bus: &Bus| Bus { parent: bus.parent.map(|parent| first + parent), ..bus.clone() };
    host.buses.extend(report.buses.iter().map(moved));
    for device in &mut host.devices {
        let name = device.bus.and_then(|bus| host.buses.get(bus)).map(|bus| bus.name.clone());
        let same = name.and_then(|name| report.buses.iter().position(|bus| bus.name == name && bus.parent.is_none()));
        device.bus = same.map(|same| first + same).or(device.bus);
    }
    first
}

fn merged(own: &DeviceKind, told: &DeviceKind) -> DeviceKind {
    match (own, told) {
        (DeviceKind::Gpu { generation, c2c }, DeviceKind::Gpu { generation: other, c2c: joined }) => {
            DeviceKind::Gpu { generation: generation.or(*other), c2c: *c2c || *joined }
        }
        (DeviceKind::Nic { mbit_per_s }, DeviceKind::Nic { mbit_per_s: other }) => {
            DeviceKind::Nic { mbit_per_s: other.or(*mbit_per_s) }
        }
        _ => own.clone(),
    }
}

/// Links as reported take the place of those that the product has. Of a GPU with links whose generation nobody knows the
/// slowest that has bridges is assumed.
fn take_links(host: &mut HostFacts, matched: &BTreeMap<usize, usize>, report: &HostFacts) {
    let mut links = NvLinks::default();
    for (place, other) in matched {
        links.join_switch(*place, report.links.switched(*other));
        for (peer, far) in matched.range(place + 1..) {
            links.join(*place, *peer, report.links.direct(*other, *far));
        }
        if let DeviceKind::Gpu { generation: generation @ None, .. } = &mut host.devices[*place].kind {
            *generation = Some(Generation::Sm86);
        }
    }
    host.links = links;
}

#[cfg(test)]
mod tests {
    use super::super::dra::host;
    use super::*;
    use crate::host::{BusKind, Host, Nearness};

    fn gpu(minor: u16, numa: i64) -> SliceDevice {
        let attributes = [
            ("uuid", Value::Text(format!("GPU-{minor}").into())),
            ("productName", Value::Text("NVIDIA A100-PCIE-40GB".into())),
            ("resource.kubernetes.io/pcieRoot", Value::Text(format!("pci0000:0{numa}").into())),
            ("resource.kubernetes.io/numaNode", Value::Int(numa)),
        ];
        SliceDevice {
            driver: "gpu.nvidia.com".into(),
            pool: "node".into(),
            name: format!("gpu-{minor}").into(),
            attributes: attributes.into_iter().map(|(key, value)| (key.into(), value)).collect(),
        }
    }

    fn told(id: &str, numa: Option<u16>, bus: Option<usize>) -> Device {
        let kind = DeviceKind::Gpu { generation: None, c2c: false };
        Device { id: id.into(), kind, product: None, bus, numa, pcie: None }
    }

    fn bus(name: &str, kind: BusKind, parent: Option<usize>) -> Bus {
        Bus { name: name.into(), kind, parent, numa: None }
    }

    /// Four GPUs; the report has them in another order, with bridges 0-2 and 1-3 and a switch above 0 and 1.
    fn report() -> HostFacts {
        let buses = vec![
            bus("pci0000:00", BusKind::Root, None),
            bus("sw", BusKind::Switch, Some(0)),
            bus("pci0000:01", BusKind::Root, None),
        ];
        let devices = vec![
            told("GPU-3", None, Some(2)),
            told("GPU-1", Some(0), Some(1)),
            told("gpu-2", None, None),
            told("GPU-0", None, Some(1)),
        ];
        let links = NvLinks::bridge_pairs(&[3, 2, 1, 0], 12);
        HostFacts { buses, devices, links, ..HostFacts::default() }
    }

    #[test]
    fn a_report_adds_switches_and_links_to_the_devices_of_slices() {
        let devices = [gpu(0, 0), gpu(1, 0), gpu(2, 1), gpu(3, 1)];
        let mut found = host(&devices);
        add_report(&mut found, &devices, &report()).unwrap();
        let known = Host::new(found.host).unwrap();
        let links = &known.facts().links;
        assert_eq!([links.between(0, 2), links.between(1, 3), links.between(0, 1)], [12, 12, 0]);
        assert_eq!(known.nearness(0, 1), Nearness::Switch);
        assert_eq!(known.nearness(2, 3), Nearness::Root, "the root of the slices is the report's of the same name");
        assert_eq!(known.nearness(1, 2), Nearness::Apart);
    }

    #[test]
    fn links_count_only_where_the_report_knows_every_gpu() {
        let devices = [gpu(0, 0), gpu(1, 0), gpu(2, 1), gpu(3, 1), gpu(4, 1)];
        let mut found = host(&devices);
        add_report(&mut found, &devices, &report()).unwrap();
        assert!(found.host.links.is_empty());
        let mut unknown = [gpu(0, 0), gpu(1, 0)];
        unknown.iter_mut().for_each(|gpu| drop(gpu.attributes.remove("productName")));
        let mut found = host(&unknown);
        let links = NvLinks::bridge_pairs(&[1, 3], 4);
        add_report(&mut found, &unknown, &HostFacts { links, ..report() }).unwrap();
        let known = Host::new(found.host).unwrap();
        assert_eq!(known.path(0, 1).unwrap().gb_per_s, 48.0, "four links of the slowest kind");
    }

    #[test]
    fn a_report_that_contradicts_the_slices_does_not_count() {
        let devices = [gpu(0, 0), gpu(1, 1)];
        let mut found = host(&devices);
        let before = found.clone();
        let refused = add_report(&mut found, &devices, &report()).unwrap_err().to_string();
        assert!(refused.contains("device gpu-1 is on NUMA node 1 by its ResourceSlice and on 0"), "{refused}");
        let mut nic = report();
        nic.links = NvLinks::default();
        nic.devices[3].kind = DeviceKind::Nic { mbit_per_s: None };
        assert_eq!(add_report(&mut found, &devices, &nic), Err(MergeError::OtherKind("gpu-0".into())));
        let mut twins = [gpu(0, 0), gpu(0, 0)];
        twins[1].pool = "other".into();
        twins[1].driver = "gpu.amd.com".into();
        let mut twice = host(&twins);
        assert!(matches!(add_report(&mut twice, &twins, &report()), Err(MergeError::Twice(..))));
        assert_eq!(found, before);
    }
}

//! What is inside a host: NUMA nodes, the PCIe tree, GPUs and NICs on it, and NVLinks between GPUs.
//!
//! ```text
//!   NUMA node ── PCIe root ── PCIe switch ── device        (a tree; a device may hang on any of it)
//!   GPU ══ NVLink ══ GPU, or GPU ══ NVSwitch               (a graph of its own, see `nvlink`)
//! ```
//! What is not known is None and never taken for 0: a guest without NUMA information has devices without a NUMA node.
//! A [`Host`] is checked when it is made, so that every index in it is valid.

mod catalog;
mod nvlink;
mod path;

pub use catalog::{Catalogued, gpu_of_product};
pub use nvlink::NvLinks;
pub use path::{Nearness, Path, PathKind};

use crate::cost::Generation;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Most devices that a host may have; more is a mistake in what describes it.
const MAX_DEVICES: usize = 1024;

/// What a PCIe device hangs on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BusKind {
    /// A root complex or root port: beyond it is the CPU.
    Root,
    /// A switch.
    Switch,
}

/// A node of the PCIe tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bus {
    /// Name, as `pci0000:17`.
    pub name: SmolStr,
    /// What it is.
    pub kind: BusKind,
    /// What it hangs on; None for a root.
    pub parent: Option<usize>,
    /// NUMA node, where it is known.
    pub numa: Option<u16>,
}

/// PCIe of a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pcie {
    /// Generation from 1.
    pub generation: u8,
    /// Lanes.
    pub width: u8,
}

/// A kind of device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeviceKind {
    /// A GPU.
    Gpu {
        /// NVLink generation; None: it has no NVLink or is not known.
        generation: Option<Generation>,
        /// Whether it is joined to its CPU by NVLink-C2C, as on Grace.
        c2c: bool,
    },
    /// A network card.
    Nic {
        /// Speed of its port, where it is known.
        mbit_per_s: Option<u32>,
    },
}

/// A device of a host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// What names it, as a GPU's UUID.
    pub id: SmolStr,
    /// What it is.
    pub kind: DeviceKind,
    /// Product, for people.
    pub product: Option<SmolStr>,
    /// What it hangs on, as an index into the buses.
    pub bus: Option<usize>,
    /// NUMA node; that of its bus where it does not say.
    pub numa: Option<u16>,
    /// Its PCIe link.
    pub pcie: Option<Pcie>,
}

/// How sockets are joined.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sockets {
    /// Intel before Skylake.
    Broadwell,
    /// Intel Skylake to Ice Lake; also what is taken for an unknown CPU.
    #[default]
    Skylake,
    /// Intel Sapphire Rapids.
    SapphireRapids,
    /// Intel Emerald Rapids.
    EmeraldRapids,
    /// AMD.
    Amd,
    /// ARM.
    Arm,
    /// IBM POWER9.
    Power9,
}

/// A host as it is described.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostFacts {
    /// Distances between NUMA nodes by (from, to), as the firmware's SLIT: 10 is local.
    pub numa_distances: BTreeMap<(u16, u16), u32>,
    /// The PCIe tree.
    pub buses: Vec<Bus>,
    /// GPUs and NICs.
    pub devices: Vec<Device>,
    /// NVLinks between GPUs, by their place among the devices.
    pub links: NvLinks,
    /// How sockets are joined.
    pub sockets: Sockets,
}

/// Why a description cannot be a host.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum HostError {
    /// More devices than any host has.
    #[error("{0} devices; at most {MAX_DEVICES} are supported")]
    TooManyDevices(usize),
    /// Two devices with one id.
    #[error("device {0:?} is listed twice; each device must have its own id")]
    DuplicateDevice(SmolStr),
    /// A device on a bus that is not listed.
    #[error("device {device:?} hangs on PCIe bus {bus}, but there are only {buses}")]
    UnknownBus {
        /// The device.
        device: SmolStr,
        /// The index.
        bus: usize,
        /// How many there are.
        buses: usize,
    },
    /// A bus whose parent is not listed before it.
    #[error("PCIe bus {0:?} hangs on a bus that is not listed before it; list roots first")]
    ParentAfterChild(SmolStr),
    /// A root with a parent, or a switch without.
    #[error("PCIe bus {0:?} must be a root without a parent, or a switch with one")]
    Rootless(SmolStr),
    /// An NVLink to what is not a GPU of the host.
    #[error("an NVLink ends at device {0}, which is no GPU of this host")]
    LinkToNoGpu(usize),
}

/// A checked host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    facts: HostFacts,
}

impl Host {
    /// Checks a description. `O(devices + buses + links)`.
    ///
    /// # Errors
    /// See [`HostError`]; each names what is wrong.
    pub fn new(facts: HostFacts) -> Result<Self, HostError> {
        if facts.devices.len() > MAX_DEVICES {
            return Err(HostError::TooManyDevices(facts.devices.len()));
        }
        for (at, bus) in facts.buses.iter().enumerate() {
            match (bus.kind, bus.parent) {
                (BusKind::Root, None) => {}
                (BusKind::Switch, Some(parent)) if parent < at => {}
                (BusKind::Switch, Some(_)) => return Err(HostError::ParentAfterChild(bus.name.clone())),
                _ => return Err(HostError::Rootless(bus.name.clone())),
            }
        }
        let mut ids = BTreeSet::new();
        for device in &facts.devices {
            if !ids.insert(&device.id) {
                return Err(HostError::DuplicateDevice(device.id.clone()));
            }
            if let Some(bus) = device.bus.filter(|bus| *bus >= facts.buses.len()) {
                return Err(HostError::UnknownBus { device: device.id.clone(), bus, buses: facts.buses.len() });
            }
        }
        let is_gpu = |at: &usize| facts.devices.get(*at).is_some_and(|d| matches!(d.kind, DeviceKind::Gpu { .. }));
        if let Some(end) = facts.links.ends().find(|end| !is_gpu(end)) {
            return Err(HostError::LinkToNoGpu(end));
        }
        Ok(Self { facts })
    }

    /// What it is made of.
    #[must_use]
    pub fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// Places of the GPUs among the devices.
    pub fn gpus(&self) -> impl Iterator<Item = usize> + '_ {
        self.places(|kind| matches!(kind, DeviceKind::Gpu { .. }))
    }

    /// Places of the NICs among the devices.
    pub fn nics(&self) -> impl Iterator<Item = usize> + '_ {
        self.places(|kind| matches!(kind, DeviceKind::Nic { .. }))
    }

    fn places(&self, is: impl Fn(&DeviceKind) -> bool) -> impl Iterator<Item = usize> {
        self.facts.devices.iter().enumerate().filter(move |(_, device)| is(&device.kind)).map(|(at, _)| at)
    }

    /// A device by its id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<usize> {
        self.facts.devices.iter().position(|device| device.id == id)
    }

    /// NUMA node of a device: its own, else that of the nearest bus that knows it.
    #[must_use]
    pub fn numa_of(&self, device: usize) -> Option<u16> {
        let device = self.facts.devices.get(device)?;
        device.numa.or_else(|| self.above(device.bus).find_map(|bus| self.facts.buses.get(bus)?.numa))
    }

    /// A bus and all above it, the root last.
    fn above(&self, bus: Option<usize>) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(bus, |at| self.facts.buses.get(*at)?.parent)
    }

    /// The bus at the top of what a device hangs on: its PCIe root, by its place among the buses.
    #[must_use]
    pub fn root_of(&self, device: usize) -> Option<usize> {
        self.above(self.facts.devices.get(device)?.bus).last()
    }

    /// NUMA nodes that devices are known to hang on.
    #[must_use]
    pub fn numa_nodes(&self) -> BTreeSet<u16> {
        (0..self.facts.devices.len()).filter_map(|device| self.numa_of(device)).collect()
    }

    /// The NICs as a GPU reaches them, nearest first. `O(nics · depth)`.
    #[must_use]
    pub fn nics_by_affinity(&self, gpu: usize) -> Vec<(usize, Path)> {
        let mut nics: Vec<(usize, Path)> = self.nics().filter_map(|nic| Some((nic, self.path(gpu, nic)?))).collect();
        nics.sort_by(|(a, one), (b, other)| {
            (one.kind, a).cmp(&(other.kind, b)).then(other.gb_per_s.total_cmp(&one.gb_per_s))
        });
        nics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(id: &str, bus: Option<usize>) -> Device {
        let kind = DeviceKind::Gpu { generation: None, c2c: false };
        Device { id: id.into(), kind, product: None, bus, numa: None, pcie: None }
    }

    fn root(name: &str, numa: u16) -> Bus {
        Bus { name: name.into(), kind: BusKind::Root, parent: None, numa: Some(numa) }
    }

    fn switch(name: &str, parent: usize) -> Bus {
        Bus { name: name.into(), kind: BusKind::Switch, parent: Some(parent), numa: None }
    }

    #[test]
    fn a_device_stands_on_the_numa_node_of_the_nearest_bus_that_knows_it() {
        let facts = HostFacts {
            buses: vec![root("a", 1), switch("s", 0)],
            devices: vec![gpu("g", Some(1)), gpu("alone", None), Device { numa: Some(3), ..gpu("own", Some(0)) }],
            ..HostFacts::default()
        };
        let host = Host::new(facts).unwrap();
        assert_eq!(
            [host.numa_of(0), host.numa_of(1), host.numa_of(2), host.numa_of(9)],
            [Some(1), None, Some(3), None]
        );
        assert_eq!(host.numa_nodes(), [1, 3].into());
        assert_eq!((host.find("own"), host.find("none")), (Some(2), None));
    }

    #[test]
    fn descriptions_that_cannot_be_are_refused_with_what_is_wrong() {
        let refused = |facts: HostFacts| Host::new(facts).unwrap_err().to_string();
        let with = |buses: Vec<Bus>, devices: Vec<Device>| HostFacts { buses, devices, ..HostFacts::default() };
        assert!(refused(with(vec![], vec![gpu("g", None), gpu("g", None)])).contains("\"g\" is listed twice"));
        assert!(refused(with(vec![], vec![gpu("g", Some(2))])).contains("hangs on PCIe bus 2, but there are only 0"));
        assert!(refused(with(vec![switch("s", 0)], vec![])).contains("list roots first"));
        let rootless = Bus { parent: Some(0), ..root("r", 0) };
        assert!(refused(with(vec![root("a", 0), rootless], vec![])).contains("must be a root without a parent"));
        assert!(refused(with(vec![], vec![gpu("g", None); 2000])).contains("at most 1024"));
        let links = NvLinks::bridge_pairs(&[0, 1], 4);
        let facts = HostFacts { links, ..with(vec![], vec![gpu("g", None)]) };
        assert!(refused(facts).contains("ends at device 1"));
    }
}

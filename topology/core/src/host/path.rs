//! How two devices of a host reach each other, and how fast: NCCL's kinds of paths in NCCL's order, with its bandwidths.
//!
//! Source of kinds, order and constants: NVIDIA/nccl `src/graph/topo.h`.

use super::{BusKind, Device, DeviceKind, Host};
use crate::cost::constants;
use std::fmt;

/// Kind of a path, best first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PathKind {
    /// The same device.
    Local,
    /// NVLink, directly or through switches.
    NvLink,
    /// NVLink through one other GPU.
    NvLinkVia,
    /// Through the PCIe of one switch.
    Pix,
    /// Through several PCIe switches.
    Pxb,
    /// Through the CPU that a GPU is joined to by C2C.
    P2c,
    /// Through a PCIe host bridge, within one NUMA node.
    Phb,
    /// Across the interconnect of sockets.
    Sys,
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "LOC",
            Self::NvLink => "NVL",
            Self::NvLinkVia => "NVB",
            Self::Pix => "PIX",
            Self::Pxb => "PXB",
            Self::P2c => "P2C",
            Self::Phb => "PHB",
            Self::Sys => "SYS",
        })
    }
}

/// How near two devices are to each other on the PCIe tree, nearest first; NVLinks do not count.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Nearness {
    /// The same device.
    Same,
    /// Below one switch.
    Switch,
    /// Below several switches that meet under one root.
    Switches,
    /// Below one root.
    Root,
    /// On one NUMA node.
    Numa,
    /// On several NUMA nodes, or nobody knows.
    Apart,
}

/// A path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    /// Its kind.
    pub kind: PathKind,
    /// Effective bandwidth in GB/s, one direction.
    pub gb_per_s: f64,
}

impl Host {
    /// How two devices reach each other; None when one does not exist. `O(gpus + depth of the PCIe tree)`.
    #[must_use]
    pub fn path(&self, from: usize, to: usize) -> Option<Path> {
        let devices = &self.facts().devices;
        let (a, b) = (devices.get(from)?, devices.get(to)?);
        if from == to {
            return Some(Path { kind: PathKind::Local, gb_per_s: constants::LOCAL_GB_PER_S });
        }
        Some(self.nvlink_path(from, to).unwrap_or_else(|| self.pcie_path((from, a), (to, b))))
    }

    /// How near two devices are on the PCIe tree, as a GPU and a NIC are; [`Nearness::Apart`] for one that does not exist.
    /// `O(depth of the PCIe tree)`.
    #[must_use]
    pub fn nearness(&self, from: usize, to: usize) -> Nearness {
        let devices = &self.facts().devices;
        let (Some(a), Some(b)) = (devices.get(from), devices.get(to)) else { return Nearness::Apart };
        if from == to {
            return Nearness::Same;
        }
        match self.pcie_kind((from, a), (to, b)) {
            PathKind::Pix => Nearness::Switch,
            PathKind::Pxb => Nearness::Switches,
            PathKind::Sys => Nearness::Apart,
            _ if self.root_of(from).is_some() && self.root_of(from) == self.root_of(to) => Nearness::Root,
            _ => Nearness::Numa,
        }
    }

    /// By NVLink, or through one other GPU where both are linked to it; the widest of those.
    fn nvlink_path(&self, from: usize, to: usize) -> Option<Path> {
        let straight = self.link_gb_per_s(from, to);
        if straight > 0.0 {
            return Some(Path { kind: PathKind::NvLink, gb_per_s: straight });
        }
        let via = self.gpus().map(|gpu| self.link_gb_per_s(from, gpu).min(self.link_gb_per_s(gpu, to)));
        let gb_per_s = via.fold(0.0, f64::max);
        (gb_per_s > 0.0).then_some(Path { kind: PathKind::NvLinkVia, gb_per_s })
    }

    /// Bandwidth of the NVLinks between two GPUs; that of the older end.
    pub(crate) fn link_gb_per_s(&self, one: usize, other: usize) -> f64 {
        f64::from(self.facts().links.between(one, other))
            * self.per_link_gb_per_s(one).min(self.per_link_gb_per_s(other))
    }

    /// Bandwidth of one NVLink of a GPU; 0 where its generation is not known.
    pub(crate) fn per_link_gb_per_s(&self, gpu: usize) -> f64 {
        match self.facts().devices.get(gpu).map(|device| &device.kind) {
            Some(DeviceKind::Gpu { generation: Some(generation), .. }) => generation.nvlink_gb_per_s(),
            _ => 0.0,
        }
    }

    fn pcie_path(&self, (from, a): (usize, &Device), (to, b): (usize, &Device)) -> Path {
        let gb_per_s = port_gb_per_s(a).min(port_gb_per_s(b));
        let kind = self.pcie_kind((from, a), (to, b));
        let between_gpus = matches!((&a.kind, &b.kind), (DeviceKind::Gpu { .. }, DeviceKind::Gpu { .. }));
        let sockets = self.facts().sockets;
        let through_cpu = if between_gpus { sockets.p2p_overhead() } else { 1.0 };
        let gb_per_s = match kind {
            PathKind::Phb => gb_per_s / through_cpu,
            PathKind::Sys => gb_per_s.min(sockets.gb_per_s()) / through_cpu,
            _ => gb_per_s,
        };
        Path { kind, gb_per_s }
    }

    fn pcie_kind(&self, (from, a): (usize, &Device), (to, b): (usize, &Device)) -> PathKind {
        if let Some(below) = self.shared_switch(a, b) {
            return below;
        }
        let same_numa = match (self.numa_of(from), self.numa_of(to)) {
            (Some(one), Some(other)) => one == other,
            // Nothing is known of a NUMA node: there is one, or it must be taken for the worst.
            _ => self.numa_nodes().len() <= 1 && self.facts().numa_distances.len() <= 1,
        };
        let c2c = |device: &Device| matches!(device.kind, DeviceKind::Gpu { c2c: true, .. });
        match (same_numa, c2c(a) || c2c(b)) {
            (true, true) => PathKind::P2c,
            (true, false) => PathKind::Phb,
            (false, _) => PathKind::Sys,
        }
    }

    /// PIX or PXB where the devices meet below a root.
    fn shared_switch(&self, a: &Device, b: &Device) -> Option<PathKind> {
        let above_b: Vec<usize> = self.above(b.bus).collect();
        let (up, meet) = self.above(a.bus).enumerate().find(|(_, bus)| above_b.contains(bus))?;
        let down = above_b.iter().position(|bus| *bus == meet)?;
        match self.facts().buses.get(meet)?.kind {
            BusKind::Root => None,
            BusKind::Switch if up == 0 && down == 0 => Some(PathKind::Pix),
            BusKind::Switch => Some(PathKind::Pxb),
        }
    }
}

/// What a device's own port carries: its PCIe link, and a NIC's network.
fn port_gb_per_s(device: &Device) -> f64 {
    let pcie = device.pcie.map_or(constants::UNKNOWN_PCIE_GB_PER_S, constants::pcie_gb_per_s);
    match device.kind {
        DeviceKind::Gpu { .. } => pcie,
        DeviceKind::Nic { mbit_per_s } => {
            pcie.min(constants::net_gb_per_s(mbit_per_s.unwrap_or(constants::UNKNOWN_NET_MBIT_PER_S)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bus, HostFacts, NvLinks, Pcie, Sockets};
    use super::*;
    use crate::cost::Generation;

    fn bus(name: &str, parent: Option<usize>, numa: u16) -> Bus {
        let kind = if parent.is_some() { BusKind::Switch } else { BusKind::Root };
        Bus { name: name.into(), kind, parent, numa: Some(numa) }
    }

    fn device(id: &str, kind: DeviceKind, bus: usize) -> Device {
        let pcie = Some(Pcie { generation: 4, width: 16 });
        Device { id: id.into(), kind, product: None, bus: Some(bus), numa: None, pcie }
    }

    /// Two sockets; on the first a root with two switches, the second of them below another, and one GPU on the root.
    fn host() -> Host {
        let gpu = || DeviceKind::Gpu { generation: Some(Generation::Sm80), c2c: false };
        let nic = DeviceKind::Nic { mbit_per_s: Some(200_000) };
        let buses = vec![
            bus("r0", None, 0),
            bus("s0", Some(0), 0),
            bus("s1", Some(1), 0),
            bus("r1", None, 1),
            bus("r2", None, 0),
        ];
        let devices = vec![
            device("g0", gpu(), 1),
            device("g1", gpu(), 1),
            device("g2", gpu(), 2),
            device("g3", gpu(), 3),
            device("g4", gpu(), 4),
            device("n0", nic, 1),
        ];
        Host::new(HostFacts { buses, devices, sockets: Sockets::Amd, ..HostFacts::default() }).unwrap()
    }

    fn told(host: &Host, a: usize, b: usize) -> String {
        let path = host.path(a, b).unwrap();
        format!("{} {:.1}", path.kind, path.gb_per_s)
    }

    #[test]
    fn without_nvlink_the_pcie_tree_and_the_sockets_say_how_far_it_is() {
        let host = host();
        assert_eq!(told(&host, 0, 0), "LOC 5000.0");
        assert_eq!(told(&host, 0, 1), "PIX 24.0");
        assert_eq!(told(&host, 0, 2), "PXB 24.0");
        assert_eq!(told(&host, 0, 4), "PHB 24.0");
        assert_eq!(told(&host, 0, 3), "SYS 16.0");
        assert_eq!(told(&host, 3, 0), told(&host, 0, 3), "both ways alike");
        assert_eq!(host.path(0, 9), None);
        let near = |a, b| host.nearness(a, b);
        assert_eq!([near(0, 0), near(0, 1), near(0, 5)], [Nearness::Same, Nearness::Switch, Nearness::Switch]);
        assert_eq!([near(0, 2), near(0, 4), near(0, 3)], [Nearness::Switches, Nearness::Numa, Nearness::Apart]);
        assert_eq!(near(0, 9), Nearness::Apart);
        let mut facts = host.facts().clone();
        facts.devices[4].bus = Some(0);
        assert_eq!(Host::new(facts).unwrap().nearness(0, 4), Nearness::Root);
    }

    #[test]
    fn nvlink_comes_first_and_through_one_gpu_second() {
        let mut facts = host().facts().clone();
        facts.links.join(0, 1, 4);
        facts.links.join(1, 3, 2);
        let host = Host::new(facts).unwrap();
        assert_eq!(told(&host, 0, 1), "NVL 80.0");
        assert_eq!(told(&host, 0, 3), "NVB 40.0");
        assert_eq!(told(&host, 0, 2), "PXB 24.0");
    }

    #[test]
    fn nics_are_ordered_by_how_near_they_are() {
        let mut facts = host().facts().clone();
        facts.devices.push(device("n1", DeviceKind::Nic { mbit_per_s: Some(400_000) }, 3));
        let host = Host::new(facts).unwrap();
        let seen = |gpu| host.nics_by_affinity(gpu).into_iter().map(|(nic, path)| (nic, path.kind)).collect::<Vec<_>>();
        assert_eq!(seen(0), [(5, PathKind::Pix), (6, PathKind::Sys)]);
        assert_eq!(seen(3), [(6, PathKind::Phb), (5, PathKind::Sys)]);
    }

    #[test]
    fn an_intel_cpu_slows_gpus_that_talk_through_it_and_an_unknown_numa_node_is_the_worst() {
        let facts = HostFacts { sockets: Sockets::Skylake, ..host().facts().clone() };
        let host = Host::new(facts).unwrap();
        assert_eq!(told(&host, 0, 4), "PHB 20.0");
        assert_eq!(told(&host, 0, 3), "SYS 8.3");
        let mut facts = host.facts().clone();
        facts.buses[4].numa = None;
        assert_eq!(told(&Host::new(facts).unwrap(), 0, 4), "SYS 8.3");
    }

    #[test]
    fn a_gpu_on_grace_reaches_its_nic_through_the_cpu() {
        let gpu = DeviceKind::Gpu { generation: Some(Generation::Sm100), c2c: true };
        let nic = DeviceKind::Nic { mbit_per_s: Some(400_000) };
        let devices = vec![
            Device { bus: None, numa: Some(0), ..device("g", gpu, 0) },
            Device { pcie: Some(Pcie { generation: 5, width: 16 }), ..device("n", nic, 0) },
        ];
        let facts = HostFacts {
            buses: vec![bus("r", None, 0)],
            devices,
            sockets: Sockets::Arm,
            links: NvLinks::switch(&[0], 18),
            ..HostFacts::default()
        };
        assert_eq!(told(&Host::new(facts).unwrap(), 0, 1), "P2C 24.0");
    }
}

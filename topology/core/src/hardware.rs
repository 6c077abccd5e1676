//! Hardware of one node, condensed: devices by NUMA node, and whether they share a switch. [`crate::host`] is the whole of it.
//!
//! Where no agent reports it, it is read from labels: the device count is the node's allocatable, devices are spread evenly
//! over the NUMA nodes, and the GPU product tells whether they share an NVSwitch.

use crate::host::{Catalogued, gpu_of_product};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Label with the GPU product, by GPU feature discovery.
const GPU_PRODUCT: &str = "nvidia.com/gpu.product";
/// Label with the number of NUMA nodes, where no agent reports them.
const NUMA_NODES: &str = "flowforge.dev/numa-nodes";
/// Labels with the NVLink domain that spans nodes.
const CLIQUE: [&str; 2] = ["nvidia.com/gpu.clique", "accelerator.topograph.run/domain"];
/// Most NUMA nodes that are modelled.
const MAX_NUMA: u16 = 64;

/// How two devices of a node reach each other, best first (NCCL's path order, condensed).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum LinkKind {
    /// The same device.
    Local,
    /// NVLink through switches: every pair at full bandwidth.
    NvSwitch,
    /// PCIe below one NUMA node.
    SameNuma,
    /// Across the sockets' interconnect.
    CrossNuma,
}

/// Devices of one kind on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHardware {
    /// Devices per NUMA node.
    pub per_numa: Vec<u32>,
    /// Whether all devices share an NVSwitch.
    pub nvswitch: bool,
    /// NVLink domain that spans nodes.
    pub clique: Option<SmolStr>,
}

/// How many devices of each NUMA node a pod takes.
pub type DeviceTake = Vec<u32>;

impl NodeHardware {
    /// Reads the hardware from labels and the number of devices.
    pub fn from_labels<'a>(devices: u32, label: impl Fn(&str) -> Option<&'a str>) -> Self {
        let numa =
            label(NUMA_NODES).and_then(|v| v.parse::<u16>().ok()).filter(|n| (1..=MAX_NUMA).contains(n)).unwrap_or(1);
        let numa = u32::from(numa);
        let per_numa = (0..numa).map(|i| devices / numa + u32::from(i < devices % numa)).collect();
        let nvswitch = label(GPU_PRODUCT).and_then(gpu_of_product).is_some_and(Catalogued::is_switched);
        let clique = CLIQUE.iter().find_map(|k| label(k).filter(|v| !v.is_empty())).map(SmolStr::from);
        Self { per_numa, nvswitch, clique }
    }

    /// All devices.
    #[must_use]
    pub fn devices(&self) -> u32 {
        self.per_numa.iter().sum()
    }

    /// NUMA node of a device, counting devices from NUMA node 0 upwards.
    #[must_use]
    pub fn numa_of(&self, device: u32) -> Option<usize> {
        let mut end = 0;
        self.per_numa.iter().position(|n| {
            end += n;
            device < end
        })
    }

    /// How two devices reach each other; None when one does not exist.
    #[must_use]
    pub fn link(&self, a: u32, b: u32) -> Option<LinkKind> {
        let (numa_a, numa_b) = (self.numa_of(a)?, self.numa_of(b)?);
        Some(if a == b {
            LinkKind::Local
        } else if self.nvswitch {
            LinkKind::NvSwitch
        } else if numa_a == numa_b {
            LinkKind::SameNuma
        } else {
            LinkKind::CrossNuma
        })
    }

    /// Which NUMA nodes `want` devices would come from when `free` are left: one NUMA node that fits with the least left
    /// over, else as few as possible. None when there are not enough.
    #[must_use]
    pub fn choose(free: &[u32], want: u32) -> Option<DeviceTake> {
        let mut take = vec![0; free.len()];
        let one = (0..free.len()).filter(|&i| free[i] >= want).min_by_key(|&i| (free[i] - want, i));
        if let Some(i) = one {
            take[i] = want;
            return Some(take);
        }
        let mut order: Vec<usize> = (0..free.len()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(free[i]), i));
        let mut left = want;
        for i in order {
            take[i] = free[i].min(left);
            left -= take[i];
        }
        (left == 0).then_some(take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(devices: u32, labels: &[(&str, &'static str)]) -> NodeHardware {
        let labels: BTreeMap<String, &str> = labels.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        NodeHardware::from_labels(devices, |k| labels.get(k).copied())
    }

    #[test]
    fn a_dgx_has_two_numa_nodes_of_four_gpus_behind_a_switch() {
        let hw = read(8, &[(NUMA_NODES, "2"), (GPU_PRODUCT, "NVIDIA-H100-80GB-HBM3")]);
        assert_eq!((hw.per_numa.as_slice(), hw.nvswitch), ([4, 4].as_slice(), true));
        assert_eq!(hw.link(0, 7), Some(LinkKind::NvSwitch));
        assert_eq!(hw.link(0, 8), None);
    }

    #[test]
    fn pcie_cards_are_linked_by_their_numa_nodes() {
        let hw = read(5, &[(NUMA_NODES, "2"), (GPU_PRODUCT, "NVIDIA-H100-PCIe-SXM")]);
        assert_eq!(hw.per_numa, [3, 2]);
        assert_eq!(hw.link(0, 2), Some(LinkKind::SameNuma));
        assert_eq!(hw.link(2, 3), Some(LinkKind::CrossNuma));
        assert_eq!(hw.link(3, 3), Some(LinkKind::Local));
    }

    #[test]
    fn unusable_numbers_mean_one_numa_node() {
        for bad in ["0", "-1", "x", "1000"] {
            assert_eq!(read(4, &[(NUMA_NODES, bad)]).per_numa, [4]);
        }
        assert_eq!(read(0, &[]).devices(), 0);
    }

    #[test]
    fn devices_come_from_the_fullest_numa_node_that_fits() {
        assert_eq!(NodeHardware::choose(&[4, 2], 2), Some(vec![0, 2]));
        assert_eq!(NodeHardware::choose(&[4, 2], 5), Some(vec![4, 1]));
        assert_eq!(NodeHardware::choose(&[1, 2], 4), None);
        assert_eq!(NodeHardware::choose(&[], 0), Some(vec![]));
    }
}

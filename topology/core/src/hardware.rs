//! Hardware of one node, condensed: devices by NUMA node. [`crate::host`] is the whole of it.
//!
//! Where no agent reports it, it is read from labels: the device count is the node's allocatable, and devices are spread evenly
//! over the NUMA nodes.

use serde::{Deserialize, Serialize};

/// Label with the number of NUMA nodes, where no agent reports them.
const NUMA_NODES: &str = "flowforge.dev/numa-nodes";
/// Most NUMA nodes that are modelled.
const MAX_NUMA: u16 = 64;

/// Devices of one kind on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHardware {
    /// Devices per NUMA node.
    pub per_numa: Vec<u32>,
}

/// How many devices of each NUMA node a pod takes.
pub type DeviceTake = Vec<u32>;

impl NodeHardware {
    /// Reads the hardware from labels and the number of devices.
    pub fn from_labels<'a>(devices: u32, label: impl Fn(&str) -> Option<&'a str>) -> Self {
        let numa =
            label(NUMA_NODES).and_then(|v| v.parse::<u16>().ok()).filter(|n| (1..=MAX_NUMA).contains(n)).unwrap_or(1);
        let numa = u32::from(numa);
        Self { per_numa: (0..numa).map(|i| devices / numa + u32::from(i < devices % numa)).collect() }
    }

    /// All devices.
    #[must_use]
    pub fn devices(&self) -> u32 {
        self.per_numa.iter().sum()
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
    fn devices_are_spread_over_the_numa_nodes() {
        assert_eq!(read(8, &[(NUMA_NODES, "2")]).per_numa, [4, 4]);
        assert_eq!(read(5, &[(NUMA_NODES, "2")]).per_numa, [3, 2]);
        assert_eq!(read(5, &[]).per_numa, [5]);
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

//! The record of a node: its facts, its class, the pods on it, ports and devices.

use super::class::ClassId;
use super::images::NodeImages;
use super::pod::PodId;
use super::slab::Id;
use crate::model::NodeInfo;
use crate::plugins::node_ports::PortsInUse;
use flowforge_topology_core::{DeviceTake, NodeHardware};
use smol_str::SmolStr;

/// Id of a node; a node recreated with another UID is another id.
pub type NodeId = Id<NodeRecord>;

/// A node, or the placeholder of a node that pods name but that is not known.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRecord {
    /// Its facts; only the name of a placeholder.
    pub info: NodeInfo,
    /// Whether the node itself is not known (yet, or any more); nothing is planned there.
    pub placeholder: bool,
    pub(crate) class: Option<ClassId>,
    pub(crate) pods: Vec<PodId>,
    pub(crate) ports: PortsInUse,
    pub(crate) devices: Vec<DeviceTable>,
    pub(crate) images: NodeImages,
    /// Sequence number of its last change.
    pub(crate) generation: u64,
}

impl NodeRecord {
    pub(crate) fn placeholder(name: SmolStr) -> Self {
        Self {
            info: NodeInfo { name, ..NodeInfo::default() },
            placeholder: true,
            class: None,
            pods: Vec::new(),
            ports: PortsInUse::default(),
            devices: Vec::new(),
            images: NodeImages::new(),
            generation: 0,
        }
    }

    /// Pods on the node, assumed ones included.
    #[must_use]
    pub fn pods(&self) -> &[PodId] {
        &self.pods
    }

    /// Its devices.
    #[must_use]
    pub fn devices(&self) -> &[DeviceTable] {
        &self.devices
    }
}

/// Devices of one resource on a node: the hardware, and how many are free per NUMA node.
///
/// The kubelet chooses the devices; until an agent reports its choice this predicts it, so that what is planned next to a
/// pod knows on which NUMA nodes and links it probably stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceTable {
    /// Resource that counts these devices.
    pub resource: SmolStr,
    /// NUMA nodes and links.
    pub hardware: NodeHardware,
    /// Free devices per NUMA node.
    pub free: Vec<u32>,
}

impl DeviceTable {
    pub(crate) fn new(resource: SmolStr, hardware: NodeHardware) -> Self {
        Self { resource, free: hardware.per_numa.clone(), hardware }
    }

    /// Takes devices; an overcommitted node gives what it has.
    pub(crate) fn take(&mut self, wanted: i64) -> DeviceTake {
        let left: u32 = self.free.iter().sum();
        let wanted = u32::try_from(wanted.max(0)).unwrap_or(u32::MAX).min(left);
        let take = NodeHardware::choose(&self.free, wanted).unwrap_or_else(|| vec![0; self.free.len()]);
        for (free, taken) in self.free.iter_mut().zip(&take) {
            *free -= taken;
        }
        take
    }

    pub(crate) fn give_back(&mut self, take: &DeviceTake) {
        for (free, taken) in self.free.iter_mut().zip(take) {
            *free += taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_taken_whole_and_given_back() {
        let mut table = DeviceTable::new("gpu".into(), NodeHardware { per_numa: vec![4, 4] });
        let six = table.take(6);
        assert_eq!((six.as_slice(), table.free.as_slice()), ([4, 2].as_slice(), [0, 2].as_slice()));
        let too_many = table.take(i64::MAX);
        assert_eq!(too_many, [0, 2]);
        table.give_back(&six);
        table.give_back(&too_many);
        assert_eq!(table.free, [4, 4]);
    }
}

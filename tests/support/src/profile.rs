//! Node profiles: what a machine of a kind offers and where it stands.
//!
//! One function, [`Profile::node`], makes the `Node` object of a fake node;
//! [`Profile::labels`] gives the labels alone, which real nodes of the same
//! profile carry too. Everything is a pure function of the profile and the
//! node's index, so that two runs build the same cluster.
//!
//! The label keys are those that clusters publish today: GPU Feature Discovery
//! (`nvidia.com/gpu.*`), topograph v1 (`fabric.topograph.run/tier-N`, tier 0 next
//! to the node; `accelerator.topograph.run/domain`) and the well-known ones.

use std::{collections::BTreeMap, fmt, str::FromStr};

use k8s_openapi::{
    api::core::v1::{Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
    jiff::Timestamp,
};
use kube::api::ObjectMeta;

/// Label that says who plays the kubelet of a node: `fake` (kwok does), `lost`
/// (nobody does any more) or `real`.
pub const NODE_KIND_LABEL: &str = "testbed.flowforge.dev/node";

/// Label with the number of NUMA nodes of a machine.
pub const NUMA_NODES_LABEL: &str = "flowforge.dev/numa-nodes";

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// 8 H100 with NVSwitch, 2 NUMA nodes, 8 rails; racks of 4 machines, blocks
    /// of 8 racks. The NVLink domain is the machine itself.
    DgxH100,
    /// A compute tray with 4 GPUs of a GB200 NVL72: 18 trays are one rack and
    /// one NVLink domain; blocks of 8 racks.
    Gb200Nvl72,
    /// 4 L40S on PCIe without NVLink, 2 NUMA nodes; racks of 8, blocks of 4 racks.
    L40sPcie,
    /// No accelerator; racks of 16, blocks of 4 racks.
    Cpu,
}

/// What a machine of a profile has.
struct Machine {
    cpu: u32,
    memory_gib: u32,
    storage_gib: u32,
    numa_nodes: u32,
    rdma_rails: u32,
    instance_type: &'static str,
    architecture: &'static str,
    gpu: Option<Gpu>,
}

/// The GPUs of a machine, in the words of GPU Feature Discovery.
struct Gpu {
    count: u32,
    product: &'static str,
    family: &'static str,
    memory_mib: u32,
    machine: &'static str,
    compute: (u32, u32),
}

/// How many machines stand together.
struct Layout {
    nodes_per_rack: usize,
    racks_per_block: usize,
    blocks_per_zone: usize,
    /// The rack is one NVLink domain.
    rack_is_nvlink_domain: bool,
}

impl Profile {
    /// All profiles.
    pub const ALL: [Self; 4] = [Self::DgxH100, Self::Gb200Nvl72, Self::L40sPcie, Self::Cpu];

    /// The name on the command line and in node names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DgxH100 => "dgx-h100",
            Self::Gb200Nvl72 => "gb200-nvl72",
            Self::L40sPcie => "l40s-pcie",
            Self::Cpu => "cpu",
        }
    }

    /// GPUs of one machine, 0 for none.
    #[must_use]
    pub fn gpus(self) -> u32 {
        self.machine().gpu.map_or(0, |gpu| gpu.count)
    }

    /// NUMA nodes of one machine.
    #[must_use]
    pub fn numa_nodes(self) -> u32 {
        self.machine().numa_nodes
    }

    /// Machines in one rack.
    #[must_use]
    pub fn nodes_per_rack(self) -> usize {
        self.layout().nodes_per_rack
    }

    /// Machines in one block.
    #[must_use]
    pub fn nodes_per_block(self) -> usize {
        let layout = self.layout();
        layout.nodes_per_rack * layout.racks_per_block
    }

    /// The labels of the `index`-th machine, `kubernetes.io/hostname` included.
    ///
    /// Real and fake nodes of a profile share the index space: where both exist,
    /// the caller gives each its own range.
    #[must_use]
    pub fn labels(self, index: usize, hostname: &str) -> BTreeMap<String, String> {
        let machine = self.machine();
        let place = self.place(index);
        let mut labels = BTreeMap::new();
        let mut set = |key: &str, value: &str| labels.insert(key.to_owned(), value.to_owned());
        set("kubernetes.io/hostname", hostname);
        set("kubernetes.io/os", "linux");
        set("kubernetes.io/arch", machine.architecture);
        // Kubelets still set the old keys; the controller manager adds them where
        // they are missing, which is one more write per node.
        set("beta.kubernetes.io/os", "linux");
        set("beta.kubernetes.io/arch", machine.architecture);
        set("node.kubernetes.io/instance-type", machine.instance_type);
        set("topology.kubernetes.io/region", "testbed");
        set("topology.kubernetes.io/zone", &place.zone);
        set("fabric.topograph.run/tier-0", &place.rack);
        set("fabric.topograph.run/tier-1", &place.block);
        set(NUMA_NODES_LABEL, &machine.numa_nodes.to_string());
        if let Some(gpu) = &machine.gpu {
            set("nvidia.com/gpu.present", "true");
            set("nvidia.com/gpu.count", &gpu.count.to_string());
            set("nvidia.com/gpu.product", gpu.product);
            set("nvidia.com/gpu.family", gpu.family);
            set("nvidia.com/gpu.memory", &gpu.memory_mib.to_string());
            set("nvidia.com/gpu.machine", gpu.machine);
            set("nvidia.com/gpu.compute.major", &gpu.compute.0.to_string());
            set("nvidia.com/gpu.compute.minor", &gpu.compute.1.to_string());
        }
        if let Some(domain) = &place.nvlink_domain {
            set("nvidia.com/gpu.clique", &format!("{domain}.0"));
            set("accelerator.topograph.run/domain", domain);
        }
        labels
    }

    /// What the machine can give to pods: `status.capacity`, and by a small
    /// reserve for the system less, `status.allocatable`.
    #[must_use]
    pub fn capacity(self) -> BTreeMap<String, Quantity> {
        self.resources(0, 0)
    }

    /// See [`Profile::capacity`].
    #[must_use]
    pub fn allocatable(self) -> BTreeMap<String, Quantity> {
        self.resources(2, 16)
    }

    fn resources(self, cpu_reserved: u32, gib_reserved: u32) -> BTreeMap<String, Quantity> {
        let machine = self.machine();
        let mut resources = BTreeMap::from([
            ("cpu".to_owned(), Quantity((machine.cpu - cpu_reserved).to_string())),
            ("memory".to_owned(), Quantity(format!("{}Gi", machine.memory_gib - gib_reserved))),
            ("ephemeral-storage".to_owned(), Quantity(format!("{}Gi", machine.storage_gib - gib_reserved))),
            ("pods".to_owned(), Quantity("110".to_owned())),
            ("hugepages-1Gi".to_owned(), Quantity("0".to_owned())),
            ("hugepages-2Mi".to_owned(), Quantity("0".to_owned())),
        ]);
        if let Some(gpu) = machine.gpu {
            resources.insert("nvidia.com/gpu".to_owned(), Quantity(gpu.count.to_string()));
        }
        if machine.rdma_rails > 0 {
            resources.insert("rdma/hca".to_owned(), Quantity(machine.rdma_rails.to_string()));
        }
        resources
    }

    /// The name of the `index`-th fake node, for example `dgx-h100-0007`.
    #[must_use]
    pub fn node_name(self, index: usize) -> String {
        format!("{}-{index:04}", self.name())
    }

    /// The `Node` object of the `index`-th fake node: ready, with the full status
    /// that a kubelet would register with.
    #[must_use]
    pub fn node(self, index: usize, now: Timestamp) -> Node {
        let name = self.node_name(index);
        let mut labels = self.labels(index, &name);
        labels.insert(NODE_KIND_LABEL.to_owned(), "fake".to_owned());
        let machine = self.machine();
        Node {
            metadata: ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() },
            spec: Some(NodeSpec { provider_id: Some(format!("testbed://{name}")), ..NodeSpec::default() }),
            status: Some(NodeStatus {
                addresses: Some(addresses(self, index, &name)),
                allocatable: Some(self.allocatable()),
                capacity: Some(self.capacity()),
                conditions: Some(healthy_conditions(now)),
                node_info: Some(NodeSystemInfo {
                    architecture: machine.architecture.to_owned(),
                    container_runtime_version: "containerd://2.3.7".to_owned(),
                    kernel_version: "6.8.0".to_owned(),
                    kubelet_version: "v1.37.2".to_owned(),
                    operating_system: "linux".to_owned(),
                    os_image: "testbed".to_owned(),
                    machine_id: format!("{index:032x}"),
                    ..NodeSystemInfo::default()
                }),
                ..NodeStatus::default()
            }),
        }
    }

    fn machine(self) -> Machine {
        match self {
            Self::DgxH100 => Machine {
                cpu: 224,
                memory_gib: 2048,
                storage_gib: 27_000,
                numa_nodes: 2,
                rdma_rails: 8,
                instance_type: "dgx-h100",
                architecture: "amd64",
                gpu: Some(Gpu {
                    count: 8,
                    product: "NVIDIA-H100-80GB-HBM3",
                    family: "hopper",
                    memory_mib: 81_559,
                    machine: "DGXH100",
                    compute: (9, 0),
                }),
            },
            Self::Gb200Nvl72 => Machine {
                cpu: 144,
                memory_gib: 960,
                storage_gib: 15_000,
                numa_nodes: 2,
                rdma_rails: 4,
                instance_type: "gb200-nvl72",
                architecture: "arm64",
                gpu: Some(Gpu {
                    count: 4,
                    product: "NVIDIA-GB200",
                    family: "blackwell",
                    memory_mib: 189_471,
                    machine: "GB200-NVL72",
                    compute: (10, 0),
                }),
            },
            Self::L40sPcie => Machine {
                cpu: 128,
                memory_gib: 1024,
                storage_gib: 7_000,
                numa_nodes: 2,
                rdma_rails: 1,
                instance_type: "l40s-pcie",
                architecture: "amd64",
                gpu: Some(Gpu {
                    count: 4,
                    product: "NVIDIA-L40S",
                    family: "ada-lovelace",
                    memory_mib: 46_068,
                    machine: "PowerEdge-R760xa",
                    compute: (8, 9),
                }),
            },
            Self::Cpu => Machine {
                cpu: 64,
                memory_gib: 256,
                storage_gib: 1_000,
                numa_nodes: 2,
                rdma_rails: 0,
                instance_type: "cpu",
                architecture: "amd64",
                gpu: None,
            },
        }
    }

    fn layout(self) -> Layout {
        let (nodes_per_rack, racks_per_block) = match self {
            Self::DgxH100 => (4, 8),
            Self::Gb200Nvl72 => (18, 8),
            Self::L40sPcie => (8, 4),
            Self::Cpu => (16, 4),
        };
        Layout { nodes_per_rack, racks_per_block, blocks_per_zone: 16, rack_is_nvlink_domain: self == Self::Gb200Nvl72 }
    }

    fn place(self, index: usize) -> Place {
        let layout = self.layout();
        let rack = index / layout.nodes_per_rack;
        let block = rack / layout.racks_per_block;
        let zone = block / layout.blocks_per_zone;
        let name = self.name();
        Place {
            zone: format!("zone-{zone}"),
            block: format!("{name}-block-{block}"),
            rack: format!("{name}-rack-{rack}"),
            // A cluster UUID, as NVML gives it.
            nvlink_domain: layout.rack_is_nvlink_domain.then(|| format!("00000000-0000-4000-8000-{rack:012x}")),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name() == name)
            .ok_or_else(|| format!("unknown profile {name:?}, want one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// Where a machine stands, from wide to narrow.
struct Place {
    zone: String,
    block: String,
    rack: String,
    nvlink_domain: Option<String>,
}

/// Addresses out of 198.18.0.0/15, which is set aside for benchmarks: nothing
/// answers there.
fn addresses(profile: Profile, index: usize, name: &str) -> Vec<NodeAddress> {
    let kind = Profile::ALL.iter().position(|&other| other == profile).unwrap_or_default();
    let host = kind << 15 | (index & 0x7fff);
    vec![
        NodeAddress {
            type_: "InternalIP".to_owned(),
            address: format!("198.{}.{}.{}", 18 + (host >> 16), (host >> 8) & 255, host & 255),
        },
        NodeAddress { type_: "Hostname".to_owned(), address: name.to_owned() },
    ]
}

fn healthy_conditions(now: Timestamp) -> Vec<NodeCondition> {
    [
        ("Ready", "True", "KubeletReady"),
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
    ]
    .map(|(type_, status, reason)| NodeCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: None,
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    })
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(profile: Profile, index: usize, key: &str) -> Option<String> {
        profile.labels(index, "host").remove(key)
    }

    #[test]
    fn a_rack_of_dgx_h100_holds_4_nodes_and_a_block_8_racks() {
        let rack = |index| label(Profile::DgxH100, index, "fabric.topograph.run/tier-0");
        let block = |index| label(Profile::DgxH100, index, "fabric.topograph.run/tier-1");
        assert_eq!(rack(0), rack(3));
        assert_ne!(rack(3), rack(4));
        assert_eq!(block(0), block(31));
        assert_ne!(block(31), block(32));
        assert_eq!(Profile::DgxH100.nodes_per_block(), 32);
    }

    #[test]
    fn eighteen_trays_of_an_nvl72_share_a_clique_and_a_dgx_has_none() {
        let clique = |index| label(Profile::Gb200Nvl72, index, "nvidia.com/gpu.clique");
        assert!(clique(0).is_some());
        assert_eq!(clique(0), clique(17));
        assert_ne!(clique(17), clique(18));
        assert_eq!(label(Profile::DgxH100, 0, "nvidia.com/gpu.clique"), None);
    }

    #[test]
    fn every_label_value_is_valid_and_every_address_distinct() {
        let mut seen = std::collections::BTreeSet::new();
        for profile in Profile::ALL {
            for index in [0, 1, 255, 256, 5_000, 9_999] {
                let node = profile.node(index, Timestamp::UNIX_EPOCH);
                for (key, value) in node.metadata.labels.unwrap_or_default() {
                    assert!(value.len() <= 63 && !value.is_empty(), "{key}={value}");
                }
                let status = node.status.unwrap_or_default();
                let address = status.addresses.unwrap_or_default().remove(0).address;
                address.parse::<std::net::Ipv4Addr>().unwrap();
                assert!(seen.insert(address), "{profile} {index}");
            }
        }
    }

    #[test]
    fn the_name_of_a_profile_parses_back() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        assert!("dgx".parse::<Profile>().is_err());
    }
}

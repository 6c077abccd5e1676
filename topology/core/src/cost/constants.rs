//! What links really carry and how long a step takes: the constants by which NCCL chooses its rings and trees.
//!
//! Source: NVIDIA/nccl `src/graph/topo.h` and `src/graph/tuning.cc` (Apache-2.0), not the vendors' marketing figures: an
//! A100 is sold with 300 GB/s of NVLink in one direction and counts 240 here. GB/s are 10^9 bytes a second, one direction.

use crate::host::{Pcie, Sockets};

/// Within one device.
pub(crate) const LOCAL_GB_PER_S: f64 = 5_000.0;
/// A PCIe link that nothing is known of: generation 3 with 16 lanes.
pub(crate) const UNKNOWN_PCIE_GB_PER_S: f64 = 12.0;
/// A network port of 100 Gb/s.
const NET_100G_GB_PER_S: f64 = 12.0;
/// A host whose NICs are not known: one port of 100 Gb/s.
pub(crate) const UNKNOWN_NET_MBIT_PER_S: u32 = 100_000;
/// NVLink of a GPU in a domain across hosts of which no link is known: 18 links of H100, the first that could span hosts.
pub(crate) const UNKNOWN_NVLINK_GB_PER_S: f64 = 370.8;
/// A tree loses so much of its bandwidth to its pipeline.
pub(crate) const TREE_EFFICIENCY: f64 = 0.92;

/// Generation of a GPU as far as its NVLinks are concerned, by compute capability.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Generation {
    /// P100.
    Sm60,
    /// V100.
    Sm70,
    /// A100.
    Sm80,
    /// A10, A40, RTX: NVLink bridges only.
    Sm86,
    /// H100, H200.
    Sm90,
    /// B200, B300, GB200.
    Sm100,
}

impl Generation {
    /// By the major and minor number of the compute capability; None for what has no NVLink, as L40S.
    #[must_use]
    pub fn of_capability(major: u32, minor: u32) -> Option<Self> {
        match (major, minor) {
            (6, _) => Some(Self::Sm60),
            (7, 0 | 2) => Some(Self::Sm70),
            (8, 0) => Some(Self::Sm80),
            (8, 6 | 7) => Some(Self::Sm86),
            (9, _) => Some(Self::Sm90),
            (10, _) => Some(Self::Sm100),
            _ => None,
        }
    }

    /// Effective bandwidth of one NVLink.
    #[must_use]
    pub fn nvlink_gb_per_s(self) -> f64 {
        match self {
            Self::Sm60 => 18.0,
            Self::Sm70 | Self::Sm80 => 20.0,
            Self::Sm86 => 12.0,
            Self::Sm90 => 20.6,
            Self::Sm100 => 40.1,
        }
    }
}

impl Sockets {
    /// Bandwidth between two sockets.
    #[must_use]
    pub fn gb_per_s(self) -> f64 {
        match self {
            Self::Broadwell | Self::Arm => 6.0,
            Self::Skylake => 10.0,
            Self::SapphireRapids => 22.0,
            Self::EmeraldRapids => 40.0,
            Self::Amd => 16.0,
            Self::Power9 => 32.0,
        }
    }

    /// By how much GPUs that talk through such a CPU are slowed.
    #[must_use]
    pub fn p2p_overhead(self) -> f64 {
        match self {
            Self::Broadwell | Self::Skylake | Self::SapphireRapids | Self::EmeraldRapids => 1.2,
            Self::Amd | Self::Arm | Self::Power9 => 1.0,
        }
    }
}

/// Bandwidth of a PCIe link: lanes times the speed of the generation, by NCCL's table.
pub(crate) fn pcie_gb_per_s(pcie: Pcie) -> f64 {
    let speed = match pcie.generation {
        0 | 1 => 15.0,
        2 => 30.0,
        3 => 60.0,
        4 => 120.0,
        5 => 240.0,
        _ => 480.0,
    };
    f64::from(pcie.width.clamp(1, 16)) * speed / 80.0
}

/// Bandwidth of a network port.
pub(crate) fn net_gb_per_s(mbit_per_s: u32) -> f64 {
    if mbit_per_s == 100_000 { NET_100G_GB_PER_S } else { f64::from(mbit_per_s) / 8_000.0 }
}

/// What carries a step.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Medium {
    /// NVLink.
    NvLink,
    /// PCIe, also across sockets.
    Pcie,
    /// The network.
    Network,
}

/// Latency of one step of a ring, protocol Simple, which is the one for gibibytes.
pub(crate) fn ring_latency_us(medium: Medium) -> f64 {
    match medium {
        Medium::NvLink => 3.4,
        Medium::Pcie => 5.7,
        Medium::Network => 14.0,
    }
}

/// Latency of one step of a tree, protocol Simple.
pub(crate) fn tree_latency_us(medium: Medium) -> f64 {
    match medium {
        Medium::NvLink | Medium::Pcie => 4.0,
        Medium::Network => 14.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_bandwidths_are_those_that_nccl_reckons_with() {
        let per_gpu = |generation: Generation, links: u32| generation.nvlink_gb_per_s() * f64::from(links);
        assert_eq!(per_gpu(Generation::Sm80, 12).round(), 240.0, "A100");
        assert_eq!(per_gpu(Generation::Sm90, 18).round(), 371.0, "H100");
        assert_eq!(per_gpu(Generation::Sm100, 18).round(), 722.0, "B200");
        assert_eq!(per_gpu(Generation::Sm70, 6).round(), 120.0, "V100");
        let x16 = |generation| pcie_gb_per_s(Pcie { generation, width: 16 });
        assert_eq!([x16(3), x16(4), x16(5), x16(6)], [12.0, 24.0, 48.0, 96.0]);
        assert_eq!([100_000, 200_000, 400_000].map(net_gb_per_s), [12.0, 25.0, 50.0]);
    }

    #[test]
    fn a_generation_is_told_by_its_compute_capability() {
        assert_eq!(Generation::of_capability(9, 0), Some(Generation::Sm90));
        assert_eq!(Generation::of_capability(8, 6), Some(Generation::Sm86));
        assert_eq!(Generation::of_capability(8, 9), None, "L40S");
        assert_eq!(Generation::of_capability(12, 0), None, "RTX PRO 6000");
    }
}

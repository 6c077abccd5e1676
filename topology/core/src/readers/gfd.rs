//! NVIDIA's GPU feature discovery: the labels of a node, which say product, count and clique, but no link and no NUMA node.

use crate::cost::Generation;
use crate::host::{DeviceKind, Host, HostFacts, gpu_of_product};
use smol_str::{SmolStr, format_smolstr};
use thiserror::Error;

/// Label with the product.
pub const PRODUCT: &str = "nvidia.com/gpu.product";
const COUNT: &str = "nvidia.com/gpu.count";
const MAJOR: &str = "nvidia.com/gpu.compute.major";
const MINOR: &str = "nvidia.com/gpu.compute.minor";
const CLIQUE: &str = "nvidia.com/gpu.clique";
const MIG_STRATEGY: &str = "nvidia.com/mig.strategy";
/// In the product of a node whose GPUs are all cut alike (`mig.strategy=single`).
const MIG_MARK: &str = "-MIG-";
/// Appended to the product of a GPU that is shared by time.
const SHARED_MARK: &str = "-SHARED";
/// Most GPUs that a label may claim.
const MAX_GPUS: usize = 64;

/// Why labels make no host.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum GfdError {
    /// No product, or no count.
    #[error("node label {0} is missing: GPU feature discovery has not run on the node")]
    Missing(&'static str),
    /// A count that is none.
    #[error("node label {COUNT}={0:?} is not a whole number from 1 to {MAX_GPUS}")]
    BadCount(SmolStr),
    /// The GPUs are cut alike, and the count is that of the pieces.
    #[error(
        "node label {PRODUCT}={0:?}: with {MIG_STRATEGY}=single the labels count MIG devices, not GPUs; only ResourceSlices or the \
             topology agent tell which GPU a piece belongs to"
    )]
    Mig(SmolStr),
}

/// What the labels say.
#[derive(Clone, Debug, PartialEq)]
pub struct GfdNode {
    /// GPUs, their links as far as the product tells them, spread over `numa_nodes`.
    pub host: HostFacts,
    /// NVLink domain, `<cluster UUID>.<clique>`.
    pub clique: Option<SmolStr>,
    /// Whether several pods may share a GPU by time, so that a device of the resource is less than a GPU.
    pub shared: bool,
}

/// The product that a label names; None where it counts pieces of GPUs.
pub(super) fn whole_product(label: &str) -> Option<&str> {
    (!label.is_empty() && !label.contains(MIG_MARK)).then(|| label.trim_end_matches(SHARED_MARK))
}

/// Reads a node's labels; nothing in them says how many NUMA nodes there are. A product that is not known has no links that
/// anything is known of.
///
/// # Errors
/// When labels are missing or count pieces instead of GPUs.
pub fn node<'a>(label: impl Fn(&str) -> Option<&'a str>, numa_nodes: u16) -> Result<GfdNode, GfdError> {
    let told = |key: &'static str| label(key).filter(|value| !value.is_empty()).ok_or(GfdError::Missing(key));
    let product = told(PRODUCT)?;
    if product.contains(MIG_MARK) {
        return Err(GfdError::Mig(product.into()));
    }
    let count = told(COUNT)?;
    let count = count.parse().ok().filter(|n| (1..=MAX_GPUS).contains(n)).ok_or(GfdError::BadCount(count.into()))?;
    let name = product.trim_end_matches(SHARED_MARK);
    let number = |key| label(key).and_then(|value| value.parse::<u32>().ok());
    let generation = Generation::of_capability(number(MAJOR).unwrap_or(0), number(MINOR).unwrap_or(0));
    let host = match gpu_of_product(name) {
        Some(known) => known.host(name, count, numa_nodes),
        None => unknown(name, count, numa_nodes, generation),
    };
    Ok(GfdNode {
        host,
        clique: label(CLIQUE).filter(|value| !value.is_empty()).map(SmolStr::from),
        shared: product.ends_with(SHARED_MARK),
    })
}

fn unknown(name: &str, count: usize, numa_nodes: u16, generation: Option<Generation>) -> HostFacts {
    let per_node = count.div_ceil(usize::from(numa_nodes.max(1))).max(1);
    let device = |at: usize| crate::host::Device {
        id: format_smolstr!("gpu-{at}"),
        kind: DeviceKind::Gpu { generation, c2c: false },
        product: Some(name.into()),
        bus: None,
        numa: u16::try_from(at / per_node).ok(),
        pcie: None,
    };
    HostFacts { devices: (0..count).map(device).collect(), ..HostFacts::default() }
}

impl GfdNode {
    /// The host, checked; what labels say is always one.
    #[must_use]
    pub fn checked(self) -> Host {
        Host::new(self.host).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::PathKind;

    fn read(labels: &[(&str, &'static str)]) -> Result<GfdNode, GfdError> {
        node(|key| labels.iter().find(|(have, _)| *have == key).map(|(_, value)| *value), 2)
    }

    #[test]
    fn a_dgx_is_recognised_by_product_and_count() {
        let found = read(&[(PRODUCT, "NVIDIA-H100-80GB-HBM3"), (COUNT, "8"), (CLIQUE, "u.1")]).unwrap();
        assert_eq!((found.clique.as_deref(), found.shared), (Some("u.1"), false));
        let host = found.checked();
        assert_eq!((host.gpus().count(), host.path(0, 7).unwrap().kind), (8, PathKind::NvLink));
        assert_eq!((host.numa_of(3), host.numa_of(4)), (Some(0), Some(1)));
    }

    #[test]
    fn an_unknown_product_has_gpus_without_links_and_a_shared_one_says_so() {
        let found = read(&[(PRODUCT, "NVIDIA-X9000-SHARED"), (COUNT, "3"), (MAJOR, "9"), (MINOR, "0")]).unwrap();
        assert!(found.shared);
        let host = found.checked();
        assert_eq!(host.path(0, 1).unwrap().kind, PathKind::Phb);
        assert_eq!(host.facts().devices[0].product.as_deref(), Some("NVIDIA-X9000"));
    }

    #[test]
    fn pieces_and_bad_counts_are_refused_with_the_label() {
        let refused = |labels: &[(&str, &'static str)]| read(labels).unwrap_err().to_string();
        assert!(refused(&[(COUNT, "8")]).contains("nvidia.com/gpu.product is missing"));
        assert!(refused(&[(PRODUCT, "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb"), (COUNT, "56")]).contains("count MIG devices"));
        for bad in ["0", "x", "65", "-1"] {
            assert!(refused(&[(PRODUCT, "NVIDIA-L40S"), (COUNT, bad)]).contains("is not a whole number from 1 to 64"));
        }
    }
}

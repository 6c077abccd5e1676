//! Products that are known, for hosts of which nothing but the product's name is known.
//!
//! A name says which NVLinks a card can have, not which it has: bridges between PCIe cards are an option, so that such cards
//! count as not linked until somebody reports the links. Source of the figures: NVIDIA's product pages and `nvidia-smi topo -m`.

use super::{Device, DeviceKind, HostFacts, NvLinks, Pcie, Sockets};
use crate::cost::Generation;
use smol_str::{SmolStr, format_smolstr};

/// How the GPUs of a board are joined.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    /// Through switches, with so many links each.
    Switch(u32),
    /// DGX-1 with eight GPUs.
    CubeMesh,
    /// Nothing is known to join them.
    Apart,
}

/// A known product.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Catalogued {
    /// What its name contains; all of it.
    words: &'static [&'static str],
    /// NVLink generation.
    pub generation: Option<Generation>,
    form: Form,
    /// PCIe generation.
    pcie: u8,
    /// Whether it is joined to its CPU by C2C.
    c2c: bool,
}

/// Products, the more special first.
const PRODUCTS: [Catalogued; 17] = [
    known(&["GB300"], Some(Generation::Sm100), Form::Switch(18), 6, true),
    known(&["GB200"], Some(Generation::Sm100), Form::Switch(18), 5, true),
    known(&["B300"], Some(Generation::Sm100), Form::Switch(18), 6, false),
    known(&["B200"], Some(Generation::Sm100), Form::Switch(18), 5, false),
    known(&["GH200"], Some(Generation::Sm90), Form::Switch(18), 5, true),
    known(&["H200", "NVL"], Some(Generation::Sm90), Form::Apart, 5, false),
    known(&["H100", "NVL"], Some(Generation::Sm90), Form::Apart, 5, false),
    known(&["H100", "PCIe"], Some(Generation::Sm90), Form::Apart, 5, false),
    known(&["H200"], Some(Generation::Sm90), Form::Switch(18), 5, false),
    known(&["H100"], Some(Generation::Sm90), Form::Switch(18), 5, false),
    known(&["A100", "PCIe"], Some(Generation::Sm80), Form::Apart, 4, false),
    known(&["A100", "PCIE"], Some(Generation::Sm80), Form::Apart, 4, false),
    known(&["A100", "SXM"], Some(Generation::Sm80), Form::Switch(12), 4, false),
    known(&["A100"], Some(Generation::Sm80), Form::Apart, 4, false),
    known(&["V100", "SXM"], Some(Generation::Sm70), Form::CubeMesh, 3, false),
    known(&["L40S"], None, Form::Apart, 4, false),
    known(&["A10"], Some(Generation::Sm86), Form::Apart, 4, false),
];

const fn known(
    words: &'static [&'static str],
    generation: Option<Generation>,
    form: Form,
    pcie: u8,
    c2c: bool,
) -> Catalogued {
    Catalogued { words, generation, form, pcie, c2c }
}

/// The product of this name, as GPU feature discovery or a driver calls it; None when it is not known.
#[must_use]
pub fn gpu_of_product(name: &str) -> Option<&'static Catalogued> {
    PRODUCTS.iter().find(|product| product.words.iter().all(|word| name.contains(word)))
}

impl Catalogued {
    /// A GPU of the product.
    #[must_use]
    pub fn device(&self, id: SmolStr, name: &str, numa: Option<u16>) -> Device {
        Device {
            id,
            kind: DeviceKind::Gpu { generation: self.generation, c2c: self.c2c },
            product: Some(name.into()),
            bus: None,
            numa,
            pcie: Some(self.pcie()),
        }
    }

    /// Its PCIe link.
    #[must_use]
    pub fn pcie(&self) -> Pcie {
        Pcie { generation: self.pcie, width: 16 }
    }

    /// Whether it is joined to its CPU by NVLink-C2C.
    #[must_use]
    pub fn has_c2c(&self) -> bool {
        self.c2c
    }

    /// The links between so many GPUs on one board, by their places among the devices.
    #[must_use]
    pub fn links(&self, gpus: &[usize]) -> NvLinks {
        match (self.form, gpus) {
            (Form::Switch(links), _) => NvLinks::switch(gpus, links),
            (Form::CubeMesh, [a, b, c, d, e, f, g, h]) => NvLinks::cube_mesh(&[*a, *b, *c, *d, *e, *f, *g, *h]),
            (Form::CubeMesh | Form::Apart, _) => NvLinks::default(),
        }
    }

    /// A host with so many of them, spread evenly over NUMA nodes, the first of each on the lowest; its NICs are not known.
    #[must_use]
    pub fn host(&self, name: &str, count: usize, numa_nodes: u16) -> HostFacts {
        let numa_nodes = usize::from(numa_nodes.max(1));
        let per_node = count.div_ceil(numa_nodes).max(1);
        let device = |at: usize| {
            let numa = u16::try_from(at / per_node).ok();
            self.device(format_smolstr!("gpu-{at}"), name, numa)
        };
        let gpus: Vec<usize> = (0..count).collect();
        HostFacts {
            devices: gpus.iter().map(|at| device(*at)).collect(),
            links: self.links(&gpus),
            sockets: if self.c2c { Sockets::Arm } else { Sockets::default() },
            ..HostFacts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Host, PathKind};
    use super::*;

    #[test]
    fn products_are_told_apart_by_their_names() {
        let links = |name: &str| gpu_of_product(name).map(|p| p.links(&[0, 1]).between(0, 1));
        assert_eq!(links("NVIDIA-H100-80GB-HBM3"), Some(18));
        assert_eq!(links("NVIDIA-H100-PCIe"), Some(0));
        assert_eq!(links("NVIDIA-H100-NVL"), Some(0));
        assert_eq!(links("NVIDIA-A100-SXM4-80GB"), Some(12));
        assert_eq!(links("NVIDIA-A100-PCIE-40GB"), Some(0));
        assert_eq!(gpu_of_product("NVIDIA-A100X").and_then(|p| p.generation), Some(Generation::Sm80));
        assert_eq!(gpu_of_product("NVIDIA-A10G").and_then(|p| p.generation), Some(Generation::Sm86));
        assert_eq!(links("NVIDIA-L40S"), Some(0));
        assert_eq!(links("NVIDIA-Something-New"), None);
        assert!(
            gpu_of_product("NVIDIA-GB200").is_some_and(|p| p.c2c)
                && gpu_of_product("NVIDIA-B200").is_some_and(|p| !p.c2c)
        );
    }

    #[test]
    fn a_catalogued_host_spreads_its_gpus_over_the_numa_nodes() {
        let v100 = gpu_of_product("Tesla-V100-SXM2-32GB").unwrap();
        let host = Host::new(v100.host("Tesla-V100-SXM2-32GB", 8, 2)).unwrap();
        assert_eq!((0..8).filter_map(|gpu| host.numa_of(gpu)).collect::<Vec<_>>(), [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(host.path(0, 3).unwrap().kind, PathKind::NvLink);
        let four = Host::new(v100.host("Tesla-V100-SXM2-32GB", 4, 2)).unwrap();
        assert_eq!(four.path(0, 3).unwrap().kind, PathKind::Sys, "four of them are no cube mesh");
        let uneven = Host::new(v100.host("x", 3, 2)).unwrap();
        assert_eq!(uneven.numa_of(2), Some(1));
    }
}

//! NVLinks as a graph: direct links between pairs of GPUs, and links into switches that join every GPU with every other.

use std::collections::BTreeMap;

/// Links between the GPUs of a host, by their places among its devices. A GPU has links to peers or to switches.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NvLinks {
    /// Links between two GPUs; the lower place first.
    direct: BTreeMap<(usize, usize), u32>,
    /// Links of a GPU into the switches.
    switched: BTreeMap<usize, u32>,
}

impl NvLinks {
    /// Every GPU has so many links into switches, as on DGX and HGX since A100 and in an NVL72 tray.
    #[must_use]
    pub fn switch(gpus: &[usize], links: u32) -> Self {
        Self { switched: gpus.iter().map(|gpu| (*gpu, links)).collect(), ..Self::default() }
    }

    /// Every pair is joined directly, as four A100 on one board by four links each.
    #[must_use]
    pub fn all_to_all(gpus: &[usize], links: u32) -> Self {
        let mut all = Self::default();
        for (at, one) in gpus.iter().enumerate() {
            gpus.iter().skip(at + 1).for_each(|other| all.join(*one, *other, links));
        }
        all
    }

    /// Neighbours in the list are joined by a bridge, as PCIe cards are: the first with the second, and so on.
    #[must_use]
    pub fn bridge_pairs(gpus: &[usize], links: u32) -> Self {
        let mut pairs = Self::default();
        for pair in gpus.chunks_exact(2) {
            if let [one, other] = pair {
                pairs.join(*one, *other, links);
            }
        }
        pairs
    }

    /// The hybrid cube mesh of eight V100 in a DGX-1: six links each, two to a nearer and one to a farther peer.
    #[must_use]
    pub fn cube_mesh(gpus: &[usize; 8]) -> Self {
        const DOUBLE: [(usize, usize); 8] = [(0, 3), (0, 4), (1, 2), (1, 5), (2, 3), (4, 7), (5, 6), (6, 7)];
        const SINGLE: [(usize, usize); 8] = [(0, 1), (0, 2), (1, 3), (2, 6), (3, 7), (4, 5), (4, 6), (5, 7)];
        let mut mesh = Self::default();
        DOUBLE.iter().for_each(|(a, b)| mesh.join(gpus[*a], gpus[*b], 2));
        SINGLE.iter().for_each(|(a, b)| mesh.join(gpus[*a], gpus[*b], 1));
        mesh
    }

    /// Adds links between two GPUs; a GPU is not linked to itself.
    pub fn join(&mut self, one: usize, other: usize, links: u32) {
        if one != other && links > 0 {
            *self.direct.entry((one.min(other), one.max(other))).or_default() += links;
        }
    }

    /// Adds links of a GPU into switches.
    pub fn join_switch(&mut self, gpu: usize, links: u32) {
        if links > 0 {
            *self.switched.entry(gpu).or_default() += links;
        }
    }

    /// Links that carry traffic between two GPUs without a third: those between them, else those that both have into
    /// switches.
    #[must_use]
    pub fn between(&self, one: usize, other: usize) -> u32 {
        if one == other {
            return 0;
        }
        self.direct(one, other).max(self.switched(one).min(self.switched(other)))
    }

    /// Links between two GPUs without a switch.
    #[must_use]
    pub fn direct(&self, one: usize, other: usize) -> u32 {
        self.direct.get(&(one.min(other), one.max(other))).copied().unwrap_or(0)
    }

    /// Links of a GPU into switches.
    #[must_use]
    pub fn switched(&self, gpu: usize) -> u32 {
        self.switched.get(&gpu).copied().unwrap_or(0)
    }

    /// Whether there is no link.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.switched.is_empty()
    }

    /// Every place that a link ends at, some more than once.
    pub(super) fn ends(&self) -> impl Iterator<Item = usize> + '_ {
        self.direct.keys().flat_map(|(one, other)| [*one, *other]).chain(self.switched.keys().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gpu_of_a_cube_mesh_has_six_links_and_no_way_to_three_peers() {
        let mesh = NvLinks::cube_mesh(&[0, 1, 2, 3, 4, 5, 6, 7]);
        for gpu in 0..8 {
            let links: Vec<u32> = (0..8).map(|peer| mesh.between(gpu, peer)).collect();
            assert_eq!(links.iter().sum::<u32>(), 6, "{gpu}: {links:?}");
            assert_eq!(links.iter().filter(|n| **n == 0).count(), 4, "itself and three peers");
        }
        assert_eq!([mesh.between(0, 3), mesh.between(4, 0), mesh.between(0, 1), mesh.between(0, 6)], [2, 2, 1, 0]);
    }

    #[test]
    fn switches_join_all_and_bridges_only_pairs() {
        let switch = NvLinks::switch(&[0, 1, 2], 18);
        assert_eq!([switch.between(0, 2), switch.between(0, 3), switch.between(1, 1)], [18, 0, 0]);
        let pairs = NvLinks::bridge_pairs(&[0, 1, 2, 3, 4], 12);
        assert_eq!(
            [pairs.between(0, 1), pairs.between(1, 2), pairs.between(3, 2), pairs.between(4, 0)],
            [12, 0, 12, 0]
        );
        let board = NvLinks::all_to_all(&[0, 1, 2, 3], 4);
        assert_eq!([board.between(0, 3), board.between(2, 1)], [4, 4]);
        let mut uneven = NvLinks::switch(&[0, 1], 18);
        uneven.join_switch(2, 9);
        assert_eq!(uneven.between(0, 2), 9, "the narrower end");
        assert!(NvLinks::default().is_empty() && !uneven.is_empty());
    }
}

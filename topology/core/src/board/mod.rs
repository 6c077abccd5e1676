//! Sets of GPUs of one host, asked about often: what they cost together, and what is left for others once they are taken.
//!
//! ```text
//!   GPUs 0..n of a host ── a set is a bit mask ──> cost        seconds for each GiB all-reduced, see `cost`
//!                                              └─> left        aligned groups that the GPUs outside still form
//! ```
//! An aligned group of a size (2, 4, 8, …) is a set of that many GPUs that no other set of the host beats: at the least cost,
//! on the fewest NUMA nodes and PCIe roots. On a board with bridges these are the bridged pairs, on two sockets the sets below
//! one of them. Keeping as many of them apart from each other as can be is what is meant by little fragmentation.
//!
//! Answers are remembered, so that a host that is asked again costs a lookup.

mod groups;

use crate::cost::{Between, Party, all_reduce};
use crate::host::Host;
use groups::Groups;
use std::collections::{BTreeMap, BTreeSet};

/// Most GPUs of a host: a set of them is a `u64`.
pub const MAX_GPUS: usize = 64;
/// Answers that are remembered; beyond it all are forgotten.
const MAX_KNOWN: usize = 1 << 16;
/// Nanoseconds of a second.
const NS: f64 = 1e9;

/// A set of GPUs by their numbers: bit `n` is the GPU with number `n`.
pub type GpuSet = u64;

/// A host and what is known of sets of its GPUs.
#[derive(Clone, Debug)]
pub struct Board {
    host: Host,
    /// Places of the GPUs among the host's devices, by number.
    gpus: Vec<usize>,
    costs: BTreeMap<GpuSet, u64>,
    lefts: BTreeMap<GpuSet, Vec<u32>>,
    groups: Option<Vec<Groups>>,
}

impl Board {
    /// A board; None for a host with more than [`MAX_GPUS`] GPUs.
    #[must_use]
    pub fn new(host: Host) -> Option<Self> {
        let gpus: Vec<usize> = host.gpus().collect();
        let fits = gpus.len() <= MAX_GPUS;
        fits.then(|| Self { host, gpus, costs: BTreeMap::new(), lefts: BTreeMap::new(), groups: None })
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Number of the GPU at a place among the host's devices.
    #[must_use]
    pub fn number(&self, place: usize) -> Option<u32> {
        self.gpus.iter().position(|gpu| *gpu == place).and_then(|number| u32::try_from(number).ok())
    }

    /// All GPUs.
    #[must_use]
    pub fn all(&self) -> GpuSet {
        if self.gpus.len() == MAX_GPUS { GpuSet::MAX } else { (1 << self.gpus.len()) - 1 }
    }

    /// What an all-reduce over a set takes, in nanoseconds for each GiB; 0 for fewer than two GPUs. As [`all_reduce`] for the
    /// first time, then `O(log known)`.
    pub fn cost_ns_per_gib(&mut self, set: GpuSet) -> u64 {
        let set = set & self.all();
        if set.count_ones() < 2 {
            return 0;
        }
        if let Some(known) = self.costs.get(&set) {
            return *known;
        }
        let gpus = self.places(set);
        let party = Party { host: &self.host, gpus: &gpus };
        let estimate = all_reduce(&[party], |_, _| Between::Network { share: 1.0 });
        let cost = estimate.map_or(u64::MAX, |estimate| whole(estimate.s_per_gib() * NS));
        if self.costs.len() >= MAX_KNOWN {
            self.costs.clear();
        }
        self.costs.insert(set, cost);
        cost
    }

    /// How many aligned groups these GPUs form that have none in common, of each size, the largest size first; last how many
    /// GPUs they are. More is better, in this order.
    pub fn left(&mut self, free: GpuSet) -> &[u32] {
        let free = free & self.all();
        if self.lefts.len() >= MAX_KNOWN {
            self.lefts.clear();
        }
        if !self.lefts.contains_key(&free) {
            let mut left: Vec<u32> = self.groups().iter().map(|groups| groups.apart(free)).collect();
            left.push(free.count_ones());
            self.lefts.insert(free, left);
        }
        self.lefts.get(&free).map_or(&[], Vec::as_slice)
    }

    fn groups(&mut self) -> &[Groups] {
        if self.groups.is_none() {
            let largest = u32::try_from(self.gpus.len()).unwrap_or(0);
            let sizes = (1..=6).map(|power| 1 << power).take_while(|size| *size <= largest);
            let mut all: Vec<Groups> = sizes.filter_map(|size| Groups::of(self, size)).collect();
            all.reverse();
            self.groups = Some(all);
        }
        self.groups.as_deref().unwrap_or_default()
    }

    /// NUMA nodes and PCIe roots that a set is spread over; what is not known is not counted.
    fn spread(&self, set: GpuSet) -> (usize, usize) {
        let places = self.places(set);
        let numa: BTreeSet<u16> = places.iter().filter_map(|place| self.host.numa_of(*place)).collect();
        let roots: BTreeSet<usize> = places.iter().filter_map(|place| self.host.root_of(*place)).collect();
        (numa.len(), roots.len())
    }

    fn places(&self, set: GpuSet) -> Vec<usize> {
        self.gpus.iter().enumerate().filter(|(number, _)| set & (1 << number) != 0).map(|(_, place)| *place).collect()
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what a u64 holds before")]
fn whole(ns: f64) -> u64 {
    ns.round().clamp(0.0, 9e18) as u64
}

#[cfg(test)]
mod tests;

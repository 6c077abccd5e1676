//! What a set of devices is worth, as a value that orders sets: the least is the best.
//!
//! In this order: no device that has to be attached first; the least time that an all-reduce takes over its GPUs and those that
//! others of the gang have on the node; NICs near the GPUs; few NUMA nodes and PCIe roots; what is left for others, whole GPUs
//! and aligned groups of them; and within GPUs that are cut the largest placements.

use super::{Search, Spot};
use crate::devices::inside::{DeviceId, Seat};
use crate::devices::usage::Use;
use flowforge_scheduler_cel::Quantity;
use flowforge_topology_core::board::{Board, GpuSet};
use flowforge_topology_core::host::Nearness;
use smol_str::SmolStr;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What a set is worth, but for what it leaves of cut GPUs.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Worth {
    /// Devices with binding conditions.
    conditional: usize,
    /// Time of an all-reduce.
    ns_per_gib: u64,
    /// The GPU or NIC of the set that is farthest from its nearest counterpart, and how far all are together.
    apart: (Option<Nearness>, u32),
    numa_nodes: usize,
    roots: usize,
    /// Aligned groups that are left, the largest first.
    left: Reverse<Vec<u32>>,
}

/// Knows the devices of a node that may be chosen.
pub(super) struct Judge<'j> {
    board: Option<&'j mut Board>,
    seats: BTreeMap<Spot, Seat>,
    conditional: BTreeSet<Spot>,
    /// GPUs of which anything is held.
    busy: GpuSet,
    /// GPUs of others of the gang.
    mates: GpuSet,
}

fn bit(seat: &Seat) -> GpuSet {
    seat.gpu.map_or(0, |number| 1 << number)
}

impl<'j> Judge<'j> {
    /// For these devices of a search. `O(devices + held devices)`, each with a look-up.
    pub(super) fn new(
        search: &Search<'_>,
        spots: &BTreeSet<Spot>,
        mates: &[DeviceId],
        seats: &BTreeMap<DeviceId, Seat>,
        board: Option<&'j mut Board>,
    ) -> Self {
        let seat = |spot: &Spot| {
            let pool = &search.pools[spot[0]];
            seats.get(&[pool.driver.clone(), pool.name.clone(), search.device(*spot).name.clone()]).copied()
        };
        let mut busy = 0;
        for (pool, held) in search.pools.iter().zip(&search.held) {
            let held = held.iter().flat_map(|held| held.iter()).filter(|(_, of)| **of != Use::default());
            for (name, _) in held {
                busy |= seats.get(&[pool.driver.clone(), pool.name.clone(), name.clone()]).map_or(0, bit);
            }
        }
        Self {
            board,
            seats: spots.iter().filter_map(|spot| Some((*spot, seat(spot)?))).collect(),
            conditional: spots
                .iter()
                .filter(|spot| search.device(**spot).binding_conditions.is_some())
                .copied()
                .collect(),
            busy,
            mates: mates.iter().filter_map(|id| seats.get(id)).map(bit).fold(0, |all, one| all | one),
        }
    }

    /// Whether nothing is known by which one set is better than another.
    pub(super) fn is_blind(&self) -> bool {
        let tells = |seat: &Seat| seat.gpu.or(seat.numa.map(u32::from)).is_some() || seat.root.is_some();
        self.conditional.is_empty() && !self.seats.values().any(tells)
    }

    /// What a set is worth. Of a set that was seen before `O(devices + log sets)` and `O(GPUs · NICs)`.
    pub(super) fn worth(&mut self, spots: &[Spot]) -> Worth {
        let seats: Vec<Seat> = spots.iter().filter_map(|spot| self.seats.get(spot)).copied().collect();
        let own = seats.iter().map(bit).fold(0, |all, one| all | one);
        let distinct = |of: &dyn Fn(&Seat) -> Option<usize>| seats.iter().filter_map(of).collect::<BTreeSet<_>>().len();
        let (numa_nodes, roots) = (distinct(&|seat| seat.numa.map(usize::from)), distinct(&|seat| seat.root));
        let mut worth = Worth {
            conditional: spots.iter().filter(|spot| self.conditional.contains(*spot)).count(),
            ns_per_gib: 0,
            apart: (None, 0),
            numa_nodes,
            roots,
            left: Reverse(Vec::new()),
        };
        if let Some(board) = self.board.as_deref_mut() {
            worth.ns_per_gib = board.cost_ns_per_gib(own | self.mates);
            worth.apart = apart(board, &seats);
            let free = board.all() & !(self.busy | own);
            worth.left = Reverse(board.left(free).to_vec());
        }
        worth
    }
}

/// How far the GPUs of a set are from the nearest of its NICs, and those from the nearest of its GPUs: the farthest, and all
/// together.
fn apart(board: &Board, seats: &[Seat]) -> (Option<Nearness>, u32) {
    let places = |gpu: bool| {
        seats.iter().filter(move |seat| seat.gpu.is_some() == gpu).filter_map(|seat| seat.place).collect::<Vec<usize>>()
    };
    let (gpus, nics) = (places(true), places(false));
    let nearest = |from: &usize, all: &[usize]| all.iter().map(|to| board.host().nearness(*from, *to)).min();
    let all =
        gpus.iter().filter_map(|gpu| nearest(gpu, &nics)).chain(nics.iter().filter_map(|nic| nearest(nic, &gpus)));
    all.fold((None, 0), |(worst, sum), near| (worst.max(Some(near)), sum + near as u32))
}

/// Parts of devices that share counters, and which of them can still be had.
pub(super) struct Placements<'a> {
    /// By pool and counter set: places in `all`.
    by_set: BTreeMap<(usize, &'a SmolStr), Vec<usize>>,
    /// Device, and the rank of its size; 0 is the largest.
    all: Vec<(Spot, usize)>,
    sizes: usize,
}

impl<'a> Placements<'a> {
    /// Those that could be had before anything was taken. `O(devices · counters)`.
    pub(super) fn of(search: &Search<'a>) -> Self {
        let mut sized: Vec<(Spot, Quantity)> = Vec::new();
        for (at, pool) in search.pools.iter().enumerate() {
            let mut left = None;
            for (slice, of) in pool.slices.iter().enumerate() {
                for (device, info) in of.info.devices.iter().enumerate().filter(|(_, info)| !info.consumes.is_empty()) {
                    let spot = [at, slice, device];
                    let left = left.get_or_insert_with(|| search.counters_left(at));
                    let amounts = || info.consumes.iter().flat_map(|(set, all)| all.iter().map(move |one| (set, one)));
                    let enough = |(set, (name, amount)): (&'a SmolStr, (&'a SmolStr, &Quantity))| {
                        left.get(&(set, name)).is_some_and(|left| amount <= left)
                    };
                    if search.held(spot).is_none() && amounts().all(enough) {
                        let size = amounts().fold(Quantity::default(), |sum, (_, (_, amount))| sum.plus(*amount));
                        sized.push((spot, size));
                    }
                }
            }
        }
        let sizes: BTreeSet<Reverse<Quantity>> = sized.iter().map(|(_, size)| Reverse(*size)).collect();
        let rank: BTreeMap<Reverse<Quantity>, usize> = sizes.into_iter().zip(0..).collect();
        let all: Vec<(Spot, usize)> =
            sized.iter().map(|(spot, size)| (*spot, rank.get(&Reverse(*size)).copied().unwrap_or(0))).collect();
        let mut by_set: BTreeMap<(usize, &'a SmolStr), Vec<usize>> = BTreeMap::new();
        for (at, (spot, _)) in all.iter().enumerate() {
            for (set, _) in &search.device(*spot).consumes {
                by_set.entry((spot[0], set)).or_default().push(at);
            }
        }
        Self { by_set, all, sizes: rank.len() }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many of each size cannot be had any more once a search has taken these devices, the largest first.
    /// `O(placements of the same sets · counters)`.
    pub(super) fn lost(&self, search: &Search<'a>, taken: &[Spot]) -> Vec<u32> {
        let mut lost = vec![0; self.sizes];
        let of = |spot: Spot| search.device(spot).consumes.iter().map(move |(set, _)| (spot[0], set));
        let sets: BTreeSet<(usize, &SmolStr)> = taken.iter().copied().flat_map(of).collect();
        let touched: BTreeSet<usize> = sets.iter().filter_map(|set| self.by_set.get(set)).flatten().copied().collect();
        for (spot, rank) in touched.into_iter().map(|at| self.all[at]) {
            let (counted, left) = (&search.counted[spot[0]], &search.left[spot[0]]);
            let enough = |set: &'a SmolStr, name: &'a SmolStr, amount: &Quantity| {
                let taken = counted.get(&(set, name)).copied().unwrap_or_default();
                left.as_ref().is_none_or(|left| left.get(&(set, name)).is_some_and(|left| taken.plus(*amount) <= *left))
            };
            let mut consumed =
                search.device(spot).consumes.iter().flat_map(|(set, all)| all.iter().map(move |one| (set, one)));
            if taken.contains(&spot) || !consumed.all(|(set, (name, amount))| enough(set, name, amount)) {
                lost[rank] += 1;
            }
        }
        lost
    }
}

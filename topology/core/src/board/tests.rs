//! Boards of machines as they are sold, and hosts made up at random beside a plain search.

use super::*;
use crate::host::{Bus, BusKind, HostFacts, NvLinks, gpu_of_product};
use proptest::prelude::*;
use smol_str::format_smolstr;

fn facts(product: &str, count: usize) -> HostFacts {
    gpu_of_product(product).unwrap().host(product, count, 2)
}

fn board(facts: HostFacts) -> Board {
    Board::new(Host::new(facts).unwrap()).unwrap()
}

/// What is left of a board when GPUs are taken, as `left` has it.
#[track_caller]
fn check_left(board: &mut Board, taken: &[u32], expected: &[u32]) {
    let taken: GpuSet = taken.iter().map(|gpu| 1 << gpu).sum();
    let free = board.all() & !taken;
    assert_eq!(board.left(free), expected, "{taken:b} taken");
}

#[test]
fn behind_switches_groups_are_those_of_a_socket() {
    let mut h100 = board(facts("NVIDIA-H100-80GB-HBM3", 8));
    assert_eq!(h100.cost_ns_per_gib(0b11), h100.cost_ns_per_gib(0b1000_0001), "all are joined alike");
    check_left(&mut h100, &[], &[1, 2, 4, 8]);
    check_left(&mut h100, &[0], &[0, 1, 3, 7]);
    check_left(&mut h100, &[0, 1], &[0, 1, 3, 6]);
    check_left(&mut h100, &[0, 4], &[0, 0, 2, 6]);
}

#[test]
fn a_cube_mesh_has_pairs_with_two_links() {
    let mut dgx1 = board(facts("Tesla-V100-SXM2-32GB", 8));
    let mut cost = |a: u32, b: u32| dgx1.cost_ns_per_gib(1 << a | 1 << b);
    assert!(cost(0, 3) < cost(0, 1) && cost(0, 1) == cost(0, 6));
    check_left(&mut dgx1, &[], &[1, 2, 4, 8]);
    // 0 and 4 are joined by two links too, but are on two sockets: not as good as 0 and 3.
    check_left(&mut dgx1, &[0, 4], &[0, 0, 2, 6]);
    check_left(&mut dgx1, &[0, 3], &[0, 1, 3, 6]);
}

#[test]
fn bridges_make_the_pairs() {
    let mut facts = facts("NVIDIA-A100-PCIE-40GB", 8);
    facts.links = NvLinks::bridge_pairs(&[0, 2, 1, 3, 4, 6, 5, 7], 12);
    let mut bridged = board(facts);
    check_left(&mut bridged, &[], &[1, 2, 4, 8]);
    check_left(&mut bridged, &[0, 1], &[0, 1, 2, 6]);
    check_left(&mut bridged, &[0, 2], &[0, 1, 3, 6]);
}

#[test]
fn pcie_roots_make_the_pairs_where_nothing_else_does() {
    let mut facts = facts("NVIDIA-L40S", 8);
    for (at, device) in facts.devices.iter_mut().enumerate() {
        device.bus = Some(at / 2);
    }
    let root =
        |at: u16| Bus { name: format_smolstr!("pci{at}"), kind: BusKind::Root, parent: None, numa: Some(at / 2) };
    facts.buses = (0..4).map(root).collect();
    let mut pcie = board(facts);
    check_left(&mut pcie, &[], &[1, 2, 4, 8]);
    check_left(&mut pcie, &[1], &[0, 1, 3, 7]);
    check_left(&mut pcie, &[1, 2], &[0, 1, 2, 6]);
}

#[test]
fn odd_hosts_have_answers_too() {
    let mut none = board(HostFacts::default());
    assert_eq!((none.all(), none.cost_ns_per_gib(7), none.left(7)), (0, 0, [0].as_slice()));
    let mut three = board(facts("NVIDIA-L40S", 3));
    check_left(&mut three, &[], &[1, 3]);
    assert!(Board::new(Host::new(facts("NVIDIA-L40S", 65)).unwrap()).is_none());
    let mut many = board(facts("NVIDIA-H100-80GB-HBM3", 64));
    assert_eq!(many.left(GpuSet::MAX), [1, 64], "sizes with too many sets have no groups");
}

/// Hosts of up to six GPUs on up to three sockets, with any links.
fn hosts() -> impl Strategy<Value = HostFacts> {
    let gpus = proptest::collection::vec(0_u16..3, 1..=6);
    (gpus, proptest::collection::vec((0_usize..6, 0_usize..6, 0_u32..3), 0..8)).prop_map(|(numa, links)| {
        let mut facts = facts("Tesla-V100-SXM2-32GB", numa.len());
        facts.devices.iter_mut().zip(&numa).for_each(|(device, numa)| device.numa = Some(*numa));
        facts.links = NvLinks::default();
        let there = |link: &&(usize, usize, u32)| link.0 < numa.len() && link.1 < numa.len();
        links.iter().filter(there).for_each(|(a, b, links)| facts.links.join(*a, *b, *links));
        facts
    })
}

proptest! {
    /// The pairs among free GPUs side by side, counted by trying every set of pairs.
    #[test]
    fn pairs_side_by_side_are_those_of_a_plain_search(facts in hosts(), free in 0_u64..64) {
        let mut board = board(facts);
        let free = free & board.all();
        let gpus = board.all().count_ones();
        let pairs: Vec<GpuSet> =
            (0..gpus).flat_map(|a| (0..a).map(move |b| 1 << a | 1 << b)).collect();
        let worth: Vec<_> = pairs.iter().map(|pair| (board.cost_ns_per_gib(*pair), board.spread(*pair))).collect();
        let best = worth.iter().min().copied();
        let aligned: Vec<GpuSet> = pairs.iter().zip(&worth)
            .filter(|(pair, worth)| Some(**worth) == best && **pair & free == **pair).map(|(pair, _)| *pair).collect();
        let apart = |chosen: u32| {
            let mut seen = 0;
            aligned.iter().enumerate().filter(|(at, _)| chosen & (1 << at) != 0).all(|(_, pair)| {
                let new = seen & pair == 0;
                seen |= pair;
                new
            })
        };
        let most = (0..1_u32 << aligned.len()).filter(|chosen| apart(*chosen)).map(u32::count_ones).max();
        let left = board.left(free).to_vec();
        let found = left.len().checked_sub(2).map(|pairs| left[pairs]);
        prop_assert_eq!(found.unwrap_or(0), most.unwrap_or(0));
        prop_assert_eq!(left.last().copied(), Some(free.count_ones()));
    }
}

//! Worked examples: each figure can be checked with a pocket calculator from the constants in `constants`.

use super::*;
use crate::host::{Bus, BusKind, Device, DeviceKind, Host, HostFacts, Pcie, gpu_of_product};
use smol_str::format_smolstr;

fn catalogued(product: &str, count: usize, numa: u16) -> HostFacts {
    gpu_of_product(product).unwrap().host(product, count, numa)
}

/// Adds a NIC beside each GPU, on a switch of their own.
fn with_nics(mut facts: HostFacts, gpus: usize, mbit_per_s: u32) -> Host {
    for at in 0..gpus {
        let numa = facts.devices[at].numa;
        let root = facts.buses.len();
        let bus = |name, kind, parent| Bus { name, kind, parent, numa };
        facts.buses.push(bus(format_smolstr!("root-{at}"), BusKind::Root, None));
        facts.buses.push(bus(format_smolstr!("switch-{at}"), BusKind::Switch, Some(root)));
        facts.devices[at].bus = Some(root + 1);
        facts.devices.push(Device {
            id: format_smolstr!("nic-{at}"),
            kind: DeviceKind::Nic { mbit_per_s: Some(mbit_per_s) },
            product: None,
            bus: Some(root + 1),
            numa,
            pcie: Some(Pcie { generation: 5, width: 16 }),
        });
    }
    Host::new(facts).unwrap()
}

fn h100() -> Host {
    with_nics(catalogued("NVIDIA-H100-80GB-HBM3", 8, 2), 8, 400_000)
}

fn alone(host: &Host, gpus: &[usize]) -> Estimate {
    all_reduce(&[Party { host, gpus }], |_, _| unreachable!("one host")).unwrap()
}

fn network(hosts: &[(&Host, &[usize])], share: f64) -> Estimate {
    let parties: Vec<_> = hosts.iter().map(|(host, gpus)| Party { host, gpus }).collect();
    all_reduce(&parties, |_, _| Between::Network { share }).unwrap()
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= expected * 1e-3, "{found} is not {expected}");
}

#[test]
fn eight_a100_behind_switches() {
    let host = Host::new(catalogued("NVIDIA-A100-SXM4-80GB", 8, 2)).unwrap();
    let cost = alone(&host, &[0, 1, 2, 3, 4, 5, 6, 7]);
    // 12 links of 20 GB/s; 2 · 7/8 · 1.0737 GB / 240 GB/s + 14 · 3.4 us; 2 · 1.0737 GB / 240 GB/s / 0.92 + 2 · 7 · 4 us.
    near(cost.gb_per_s, 240.0);
    near(cost.ring_s_per_gib, 7.877e-3);
    near(cost.tree_s_per_gib, 9.782e-3);
    near(cost.s_per_gib(), 7.877e-3);
    assert_eq!(cost.bottleneck, Bottleneck::Inside(0, PathKind::NvLink));
}

#[test]
fn one_gpu_sends_nothing_and_a_gpu_that_is_not_there_has_no_cost() {
    let host = h100();
    let cost = alone(&host, &[3]);
    assert_eq!((cost.s_per_gib(), cost.bottleneck), (0.0, Bottleneck::Nothing));
    let none = all_reduce(&[Party { host: &host, gpus: &[0, 99] }], |_, _| Between::NvLink);
    assert_eq!(none, None);
    assert_eq!(all_reduce(&[], |_, _| Between::NvLink).map(|cost| cost.gpus), Some(0));
}

#[test]
fn in_a_cube_mesh_the_choice_of_gpus_decides() {
    let host = Host::new(catalogued("Tesla-V100-SXM2-32GB", 8, 2)).unwrap();
    let bandwidth = |gpus: &[usize]| alone(&host, gpus).gb_per_s;
    near(bandwidth(&[0, 3]), 40.0);
    near(bandwidth(&[0, 1]), 20.0);
    // No link: through a third GPU.
    near(bandwidth(&[0, 6]), 20.0);
    assert_eq!(alone(&host, &[0, 6]).bottleneck, Bottleneck::Inside(0, PathKind::NvLinkVia));
    // Two rings, each run both ways.
    near(bandwidth(&[0, 1, 2, 3]), 80.0);
    // All six links of every GPU.
    near(bandwidth(&[0, 1, 2, 3, 4, 5, 6, 7]), 120.0);
}

#[test]
fn on_pcie_a_pair_below_one_socket_beats_one_across() {
    let host = Host::new(catalogued("NVIDIA-L40S", 8, 2)).unwrap();
    let (near_pair, far_pair) = (alone(&host, &[0, 1]), alone(&host, &[0, 4]));
    // PCIe 4 x16 through an Intel CPU: 24 / 1.2; across sockets 10 / 1.2.
    near(near_pair.gb_per_s, 20.0);
    near(far_pair.gb_per_s, 8.333);
    // 1.0737 GB / 8.333 GB/s + 2 · 5.7 us.
    near(far_pair.ring_s_per_gib, 0.12886);
    assert_eq!(far_pair.bottleneck, Bottleneck::Inside(0, PathKind::Sys));
    // More than eight are ordered by their NUMA nodes, so that the sockets are crossed once each way.
    let many = Host::new(catalogued("NVIDIA-L40S", 10, 2)).unwrap();
    near(alone(&many, &[9, 0, 8, 1, 7, 2, 6, 3, 5, 4]).gb_per_s, 8.333);
    near(alone(&many, &[4, 0, 3, 1, 2]).gb_per_s, 20.0);
}

#[test]
fn between_hosts_the_nics_of_the_chosen_gpus_count() {
    let (one, other) = (h100(), h100());
    let all: Vec<usize> = (0..8).collect();
    // 8 · 48 GB/s, which PCIe 5 x16 leaves of 400 Gb/s, are more than 18 · 20.6 GB/s of NVLink.
    let whole = network(&[(&one, &all), (&other, &all)], 1.0);
    near(whole.gb_per_s, 370.8);
    assert_eq!(whole.bottleneck, Bottleneck::Inside(0, PathKind::NvLink));
    // 2 · 15/16 · 1.0737 GB / 370.8 GB/s + 26 · 3.4 us + 4 · 14 us.
    near(whole.ring_s_per_gib, 5.574e-3);
    let half = network(&[(&one, &all[..4]), (&other, &all[4..])], 1.0);
    near(half.gb_per_s, 192.0);
    assert_eq!(half.bottleneck, Bottleneck::Between(0, 1));
    near(network(&[(&one, &[0]), (&other, &[0])], 1.0).gb_per_s, 48.0);
    // A fabric that is oversubscribed 2 : 1.
    near(network(&[(&one, &all[..4]), (&other, &all[..4])], 0.5).gb_per_s, 96.0);
    // Of NICs that are not known one of 100 Gb/s is assumed.
    let unknown = Host::new(catalogued("NVIDIA-H100-80GB-HBM3", 8, 2)).unwrap();
    near(network(&[(&one, &all), (&unknown, &all)], 1.0).gb_per_s, 12.0);
}

#[test]
fn eighteen_trays_of_an_nvl72_are_one_host_to_nvlink() {
    let tray = with_nics(catalogued("NVIDIA-GB200", 4, 2), 4, 400_000);
    let parties = vec![Party { host: &tray, gpus: &[0, 1, 2, 3] }; 18];
    let inside = all_reduce(&parties, |_, _| Between::NvLink).unwrap();
    // 18 links of 40.1 GB/s; 2 · 71/72 · 1.0737 GB / 721.8 GB/s + 142 · 3.4 us.
    near(inside.gb_per_s, 721.8);
    near(inside.ring_s_per_gib, 3.417e-3);
    let torn =
        all_reduce(&parties, |a, _| if a == 8 { Between::Network { share: 1.0 } } else { Between::NvLink }).unwrap();
    near(torn.gb_per_s, 192.0);
    assert_eq!(torn.bottleneck, Bottleneck::Between(8, 9));
    assert!(torn.s_per_gib() > 3.0 * inside.s_per_gib(), "a domain that is left costs");
}

#[test]
fn many_hosts_do_better_with_trees_when_steps_cost_more_than_bytes() {
    let host = h100();
    let parties = vec![Party { host: &host, gpus: &[0, 1, 2, 3, 4, 5, 6, 7] }; 512];
    let cost = all_reduce(&parties, |_, _| Between::Network { share: 1.0 }).unwrap();
    assert!(cost.tree_s_per_gib < cost.ring_s_per_gib, "{cost:?}");
    // 2 · 1.0737 GB / 370.8 GB/s / 0.92 + 2 · (7 · 4 us + 9 · 14 us).
    near(cost.tree_s_per_gib, 6.603e-3);
    assert_eq!(cost.s_per_gib(), cost.tree_s_per_gib);
}

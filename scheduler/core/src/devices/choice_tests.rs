//! Which devices pods get on machines as they are sold, where the first that would do are others.

use super::machines::*;
use super::*;
use crate::config::Config;
use crate::fixture::{NodeChain, member, node, pod};
use crate::model::PodInfo;
use crate::snapshot::{PodId, Snapshot};
use flowforge_topology_core::host::{Device, DeviceKind, HostFacts, NvLinks};
use smol_str::SmolStr;

/// One node with these devices of each driver, of which some are held.
fn machine(devices: &[(&str, Vec<DeviceInfo>)], taken: &[(&str, &[&str])]) -> Snapshot {
    let mut s = Snapshot::new(&Config::default());
    s.upsert_node(node("n").has("cpu", 64_000));
    for (driver, devices) in devices {
        s.note_device(DeviceFact::Class(class(driver)));
        s.note_device(DeviceFact::Slice(slice(driver, "n", devices.clone())));
    }
    for (driver, names) in taken {
        s.note_device(DeviceFact::Claim(held("n", driver, names)));
    }
    s
}

fn arrive(s: &mut Snapshot, pod: PodInfo, claims: &[&[(&str, i64)]]) -> PodId {
    let mut named = Vec::new();
    for (at, asks) in claims.iter().enumerate() {
        let name = format!("{}-{at}", pod.key.name);
        s.note_device(DeviceFact::Claim(claim(&name, asks)));
        named.push(PodClaim { name: name.clone().into(), source: ClaimSource::Named(name.into()) });
    }
    s.upsert_pod(PodInfo { resource_claims: named, ..pod }).unwrap().id
}

/// Places a pod on the node; answers the names of its devices, sorted.
fn place(s: &mut Snapshot, id: PodId) -> Vec<SmolStr> {
    let n = s.cluster().find_node("n").unwrap();
    s.assume(id, n);
    holds(s, id)
}

fn holds(s: &Snapshot, id: PodId) -> Vec<SmolStr> {
    let info = s.cluster().info(id).unwrap();
    s.cluster().devices.devices_of(id, info).into_iter().map(|[_, _, name]| name).collect()
}

#[track_caller]
fn check(s: &mut Snapshot, name: &str, claims: &[&[(&str, i64)]], expected: &[&str]) {
    let id = arrive(s, pod(name), claims);
    assert_eq!(place(s, id), expected, "{name}");
}

/// The report of an agent: bridges between GPUs of these numbers, one pair after the other.
fn bridges(gpus: &[usize]) -> DeviceFact {
    let device = |minor: usize| Device {
        id: format!("GPU-{minor}").into(),
        kind: DeviceKind::Gpu { generation: None, c2c: false },
        product: None,
        bus: None,
        numa: None,
        pcie: None,
    };
    let links = NvLinks::bridge_pairs(gpus, 12);
    let devices = (0..gpus.len()).map(device).collect();
    DeviceFact::Hardware(HardwareInfo { node: "n".into(), host: HostFacts { devices, links, ..HostFacts::default() } })
}

fn bridged(taken: &[&str]) -> Snapshot {
    let mut s = machine(&[(NVIDIA, board(A100_PCIE, 8))], &[(NVIDIA, taken)]);
    s.note_device(bridges(&[0, 2, 1, 3, 4, 6, 5, 7]));
    s
}

#[test]
fn on_a_cube_mesh_two_get_the_pair_with_two_links_and_four_a_whole_side() {
    let mut s = machine(&[(NVIDIA, board(V100, 8))], &[]);
    check(&mut s, "two", &[&[(NVIDIA, 2)]], &["gpu-0", "gpu-3"]);
    check(&mut s, "four", &[&[(NVIDIA, 4)]], &["gpu-4", "gpu-5", "gpu-6", "gpu-7"]);
}

#[test]
fn two_get_a_bridge_and_single_ones_leave_bridges_whole() {
    let mut s = bridged(&[]);
    check(&mut s, "first", &[&[(NVIDIA, 1)]], &["gpu-0"]);
    check(&mut s, "pair", &[&[(NVIDIA, 2)]], &["gpu-1", "gpu-3"]);
    check(&mut s, "second", &[&[(NVIDIA, 1)]], &["gpu-2"]);
    check(&mut s, "four", &[&[(NVIDIA, 4)]], &["gpu-4", "gpu-5", "gpu-6", "gpu-7"]);
    // Two claims of one pod are one set too.
    let mut s = bridged(&[]);
    check(&mut s, "claims", &[&[(NVIDIA, 1)], &[(NVIDIA, 1)]], &["gpu-0", "gpu-2"]);
}

#[test]
fn without_links_devices_are_of_one_socket_and_leave_the_other_whole() {
    let mut s = machine(&[(NVIDIA, board(L40S, 8))], &[(NVIDIA, &["gpu-0", "gpu-1", "gpu-2"])]);
    check(&mut s, "two", &[&[(NVIDIA, 2)]], &["gpu-4", "gpu-5"]);
    check(&mut s, "one", &[&[(NVIDIA, 1)]], &["gpu-3"]);
    let mut s = machine(&[(NVIDIA, board(L40S, 8))], &[(NVIDIA, &["gpu-0"])]);
    check(&mut s, "four", &[&[(NVIDIA, 4)]], &["gpu-4", "gpu-5", "gpu-6", "gpu-7"]);
}

#[test]
fn behind_switches_all_are_linked_alike_and_four_are_of_one_socket() {
    let mut s = machine(&[(NVIDIA, board(H100, 8))], &[(NVIDIA, &["gpu-1"])]);
    check(&mut s, "four", &[&[(NVIDIA, 4)]], &["gpu-4", "gpu-5", "gpu-6", "gpu-7"]);
    check(&mut s, "two", &[&[(NVIDIA, 2)]], &["gpu-0", "gpu-2"]);
    // The label of GPU feature discovery tells the product where the driver does not.
    let mut unnamed = board(H100, 8);
    unnamed.iter_mut().for_each(|gpu| drop(gpu.attributes.remove("productName")));
    let mut s = machine(&[(NVIDIA, unnamed)], &[]);
    s.upsert_node(node("n").has("cpu", 64_000).label("nvidia.com/gpu.product", "NVIDIA-H100-80GB-HBM3"));
    check(&mut s, "two", &[&[(NVIDIA, 2)]], &["gpu-0", "gpu-1"]);
}

#[test]
fn a_gpu_and_a_nic_meet_on_one_root_in_one_claim_or_in_two() {
    let nic = |at: usize, numa| device(&format!("nic-{at}"), numa, &format!("pci0000:{at:02x}"));
    let nics: Vec<DeviceInfo> = (0..8).map(|at| nic(at, i64::from(at > 3))).collect();
    let taken: [(&str, &[&str]); 2] = [(NVIDIA, &["gpu-0", "gpu-3"]), (NICS, &["nic-1", "nic-2"])];
    let fresh = || machine(&[(NVIDIA, board(H100, 8)), (NICS, nics.clone())], &taken);
    check(&mut fresh(), "claim", &[&[(NVIDIA, 1), (NICS, 1)]], &["nic-4", "gpu-4"]);
    check(&mut fresh(), "claims", &[&[(NICS, 1)], &[(NVIDIA, 1)]], &["nic-4", "gpu-4"]);
    check(&mut fresh(), "two", &[&[(NVIDIA, 2)], &[(NICS, 2)]], &["nic-4", "nic-5", "gpu-4", "gpu-5"]);
    // More sets than are all looked at.
    let four = ["nic-4", "nic-5", "nic-6", "nic-7", "gpu-4", "gpu-5", "gpu-6", "gpu-7"];
    check(
        &mut machine(&[(NVIDIA, board(H100, 8)), (NICS, nics.clone())], &[(NVIDIA, &["gpu-0"])]),
        "four",
        &[&[(NVIDIA, 4)], &[(NICS, 4)]],
        &four,
    );
    // Any driver's devices are aligned by the standard attributes.
    let cards = vec![device("card-0", 0, "a"), device("card-1", 1, "b"), device("card-2", 1, "b")];
    check(&mut machine(&[("fpga.example", cards)], &[]), "cards", &[&[("fpga.example", 2)]], &["card-1", "card-2"]);
}

#[test]
fn members_of_a_gang_on_one_node_are_one_set() {
    let mut s = bridged(&["gpu-0"]);
    let ids: Vec<PodId> = (0..2).map(|rank| arrive(&mut s, member("g", rank, 2), &[&[(NVIDIA, 1)]])).collect();
    assert_eq!(place(&mut s, ids[0]), ["gpu-2"]);
    let stranger = arrive(&mut s, pod("stranger"), &[&[(NVIDIA, 1)]]);
    assert_eq!(place(&mut s, stranger), ["gpu-1"]);
    assert_eq!(place(&mut s, ids[1]), ["gpu-3"], "on the socket of the first, though it is next to a stranger");
    let mut s = bridged(&[]);
    let ids: Vec<PodId> = (0..2).map(|rank| arrive(&mut s, member("g", rank, 2), &[&[(NVIDIA, 1)]])).collect();
    assert_eq!([place(&mut s, ids[0]), place(&mut s, ids[1])], [["gpu-0"], ["gpu-2"]]);
}

#[test]
fn without_data_or_with_contradictions_the_first_devices_are_taken() {
    let plain: Vec<DeviceInfo> =
        (0..4).map(|at| DeviceInfo { name: format!("dev-{at}").into(), ..DeviceInfo::default() }).collect();
    check(&mut machine(&[("gpu.example", plain)], &[]), "two", &[&[("gpu.example", 2)]], &["dev-0", "dev-1"]);
    // A report that has the GPUs on other sockets is of another machine.
    let mut s = bridged(&[]);
    let DeviceFact::Hardware(mut report) = bridges(&[0, 2, 1, 3, 4, 6, 5, 7]) else { panic!("no report") };
    report.host.devices[0].numa = Some(1);
    s.note_device(DeviceFact::Hardware(report));
    check(&mut s, "two", &[&[(NVIDIA, 2)]], &["gpu-0", "gpu-1"]);
    s.note_device(bridges(&[0, 2, 1, 3, 4, 6, 5, 7]));
    check(&mut s, "bridged", &[&[(NVIDIA, 2)]], &["gpu-4", "gpu-6"]);
    s.note_device(DeviceFact::Relisted(DeviceList::Hardware(Vec::new())));
    check(&mut s, "not any more", &[&[(NVIDIA, 2)]], &["gpu-2", "gpu-3"]);
}

#[test]
fn devices_that_are_to_be_attached_first_come_last() {
    let mut gpus = board(L40S, 4);
    gpus[2].binding_conditions = Some(vec!["attached".into()]);
    let mut s = machine(&[(NVIDIA, gpus)], &[(NVIDIA, &["gpu-0"])]);
    check(&mut s, "two", &[&[(NVIDIA, 2)]], &["gpu-1", "gpu-3"]);
}

#[test]
fn where_there_are_too_many_sets_the_best_of_those_looked_at_is_taken() {
    let gpus: Vec<DeviceInfo> = (0..16).map(|minor| gpu(minor, L40S, i64::try_from(minor % 2).unwrap_or(0))).collect();
    let mut s = machine(&[(NVIDIA, gpus)], &[(NVIDIA, &["gpu-4"])]);
    let odd = ["gpu-1", "gpu-11", "gpu-13", "gpu-15", "gpu-3", "gpu-5", "gpu-7", "gpu-9"];
    check(&mut s, "eight", &[&[(NVIDIA, 8)]], &odd);
}

/// A GPU with eight slices of memory: what it can be cut into, and itself.
fn cut(gpu: usize) -> Vec<DeviceInfo> {
    let part = |profile: &str, first: usize, slices: usize| {
        let counters = (first..first + slices).map(|at| (format!("slice-{at}").into(), Quantity::whole(1))).collect();
        let name = format!("gpu-{gpu}-{profile}-{first}");
        let part = with(with(device(&name, 0, "pci0"), "type", "mig"), "parentUUID", &format!("GPU-{gpu}"));
        DeviceInfo { consumes: vec![(format!("gpu-{gpu}").into(), counters)], ..part }
    };
    let whole = DeviceInfo { consumes: part("7g", 0, 8).consumes, ..machines::gpu(gpu, H100, 0) };
    let small = (0..7).map(|first| part("1g", first, 1));
    let large = [0, 4].map(|first| part("3g", first, 4));
    std::iter::once(whole).chain(small).chain(large).collect()
}

#[test]
fn parts_of_a_gpu_leave_large_placements_and_whole_gpus() {
    let mut s = Snapshot::new(&Config::default());
    s.upsert_node(node("n").has("cpu", 64_000));
    s.note_device(DeviceFact::Class(class(NVIDIA)));
    let sets = |gpu: usize| {
        let all = (0..8).map(|at| (format!("slice-{at}").into(), Quantity::whole(1))).collect();
        (SmolStr::from(format!("gpu-{gpu}")), all)
    };
    let counters = SliceInfo {
        name: "counters".into(),
        counter_sets: vec![sets(0), sets(1)],
        devices: Vec::new(),
        ..slice(NVIDIA, "n", Vec::new())
    };
    let devices = SliceInfo { slices_in_pool: 2, ..slice(NVIDIA, "n", [cut(0), cut(1)].concat()) };
    s.note_device(DeviceFact::Slice(SliceInfo { slices_in_pool: 2, ..counters }));
    s.note_device(DeviceFact::Slice(devices));
    // Somebody has a slice in the upper half of the second GPU.
    s.note_device(DeviceFact::Claim(held("n", NVIDIA, &["gpu-1-1g-5"])));
    let profile = |profile: &str| format!("device.attributes[\"{NVIDIA}\"].?type.orValue(\"\") == \"{profile}\"");
    let mut of = |name: &str, profile: &str| {
        let ask = Ask { selectors: vec![Some(profile.into())], ..ask(NVIDIA, 1) };
        let requests = vec![Request { name: "r0".into(), kind: RequestKind::Exactly(ask) }];
        s.note_device(DeviceFact::Claim(ClaimInfo { requests, ..claim(name, &[]) }));
        let source = ClaimSource::Named(name.into());
        let named = vec![PodClaim { name: "c".into(), source }];
        let id = s.upsert_pod(PodInfo { resource_claims: named, ..pod(name) }).unwrap().id;
        place(&mut s, id)
    };
    assert_eq!(of("small", &profile("mig")), ["gpu-1-1g-4"], "beside the one that is held");
    assert_eq!(of("whole", &profile("gpu")), ["gpu-0"]);
}

#[test]
fn a_pod_that_is_taken_off_on_trial_comes_back_to_its_devices() {
    let mut s = bridged(&[]);
    let early = arrive(&mut s, pod("early"), &[&[(NVIDIA, 1)]]);
    let pair = arrive(&mut s, pod("pair"), &[&[(NVIDIA, 2)]]);
    assert_eq!([place(&mut s, early), place(&mut s, pair)], [vec!["gpu-0"], vec!["gpu-1", "gpu-3"]]);
    let late = arrive(&mut s, pod("late"), &[&[(NVIDIA, 1)]]);
    place(&mut s, late);
    s.forget(early);
    s.note_device(bridges(&[7, 5, 6, 4, 3, 2, 1, 0]));
    let before = s.cluster().devices.held();
    s.try_out(|trial| {
        trial.take_off(pair);
        trial.take_off(late);
    });
    assert_eq!(s.cluster().devices.held(), before);
    s.rehearse(|txn| [late, pair].into_iter().for_each(|pod| txn.take_off(pod)));
    assert_eq!(s.cluster().devices.held(), before);
    assert_eq!(holds(&s, pair), ["gpu-1", "gpu-3"]);
}

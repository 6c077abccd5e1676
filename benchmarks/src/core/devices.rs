//! Claims of 2 and 4 GPUs on half-full nodes: how many pods a second, and what an all-reduce over the chosen GPUs takes beside
//! that over the first free ones, which kube-scheduler takes.
//!
//! ```text
//!   8 GPUs a node, 4 of them held at random ─> claims and their pods ─> run ─> devices of each claim ─> cost, and cost of the first
//! ```
//! Scores spread the pods, one on a node: what the first free GPUs are is known then. Of nodes with more than one pod only the
//! first in the order of names counts as far as that is told.

use crate::Args;
use crate::cluster::{cpu_nanos, median, node, pod};
use anyhow::{Context as _, Result, ensure};
use flowforge_scheduler_core::config::Config;
use flowforge_scheduler_core::devices::{
    AllocatedDevice, Allocation, Amounts, Ask, Attribute, ClaimInfo, ClaimSource, ClassInfo, Count, DeviceFact,
    DeviceInfo, HardwareInfo, PodClaim, Reach, Request, RequestKind, SliceInfo,
};
use flowforge_scheduler_core::engine::Engine;
use flowforge_scheduler_core::event::Event;
use flowforge_topology_core::board::Board;
use flowforge_topology_core::host::{Device, Host, HostFacts, NvLinks, gpu_of_product};
use smol_str::{SmolStr, format_smolstr};
use std::collections::{BTreeMap, BTreeSet};

const DRIVER: &str = "gpu.nvidia.com";
const GPUS: usize = 8;
const HELD: usize = 4;

/// A machine with eight GPUs on two NUMA nodes.
struct Machine {
    name: &'static str,
    product: &'static str,
    /// GPUs that are joined by bridges, pair after pair.
    bridges: &'static [usize],
}

const MACHINES: [Machine; 4] = [
    Machine { name: "cube mesh", product: "Tesla V100-SXM2-32GB", bridges: &[] },
    Machine { name: "bridge pairs", product: "NVIDIA A100-PCIE-40GB", bridges: &[0, 2, 1, 3, 4, 6, 5, 7] },
    Machine { name: "2-NUMA PCIe", product: "NVIDIA L40S", bridges: &[] },
    Machine { name: "NVSwitch", product: "NVIDIA H100 80GB HBM3", bridges: &[] },
];

/// What a round came to.
struct Round {
    nanos: u64,
    /// Seconds for each GiB: of the chosen devices and of the first ones, summed over the pods that tell.
    chosen: f64,
    first: f64,
}

/// Measures every machine whose name holds `args.only`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let pods = args.pods.unwrap_or(500);
    for nodes in args.nodes_or(&[1_000]) {
        println!(
            "{nodes} nodes, half full; {pods} pods a round, median of {} rounds, CPU time of one thread",
            args.rounds
        );
        println!(
            "  {:<16} {:>5} {:>10} {:>16} {:>16} {:>8}",
            "machine", "GPUs", "pods/s", "chosen ms/GiB", "first ms/GiB", "ratio"
        );
        for machine in MACHINES.iter().filter(|machine| machine.name.contains(&args.only)) {
            for count in [2, 4] {
                let rounds: Vec<Round> =
                    (0..args.rounds).map(|seed| round(machine, nodes, pods, count, seed)).collect::<Result<_>>()?;
                let sum = |of: fn(&Round) -> f64| rounds.iter().map(of).sum::<f64>();
                let (chosen, first) = (sum(|round| round.chosen), sum(|round| round.first));
                #[expect(clippy::cast_precision_loss, reason = "figures for people")]
                let (all, each) = (
                    (rounds.len().max(1) * pods) as f64,
                    median(rounds.iter().map(|r| r.nanos).collect()) / pods as f64,
                );
                let (chosen, first) = (chosen / all * 1e3, first / all * 1e3);
                println!(
                    "  {:<16} {count:>5} {:>10.0} {chosen:>16.2} {first:>16.2} {:>8.2}",
                    machine.name,
                    1e9 / each,
                    chosen / first
                );
            }
        }
    }
    Ok(())
}

/// A fresh cluster takes the pods once.
fn round(machine: &Machine, nodes: usize, pods: usize, count: usize, seed: usize) -> Result<Round> {
    let mut engine = Engine::new(Config { bind: false, ..Config::default() });
    let mut held: BTreeMap<SmolStr, BTreeSet<usize>> = BTreeMap::new();
    let mut random = Lcg(u64::try_from(seed)? + 1);
    let mut tell = |event: Event| engine.apply(event, 0, &mut Vec::new());
    tell(device(DeviceFact::Class(class())));
    for index in 0..nodes {
        let node = node(index);
        let taken = random.choose(HELD, GPUS);
        tell(device(DeviceFact::Slice(slice(machine, &node.name))));
        tell(device(DeviceFact::Claim(claim(&format_smolstr!("held-{index}"), HELD, Some((&node.name, &taken))))));
        if !machine.bridges.is_empty() {
            let info = HardwareInfo { node: node.name.clone(), host: host(machine) };
            tell(device(DeviceFact::Hardware(info)));
        }
        held.insert(node.name.clone(), taken);
        tell(Event::NodeUpsert(Box::new(node)));
    }
    tell(Event::Synced);
    tell(Event::Lead { epoch: 1, slots: Vec::new() });
    engine.run(0, &mut Vec::new());
    let names: Vec<SmolStr> = (0..pods).map(|at| format_smolstr!("pod-{at:05}")).collect();
    for name in &names {
        engine.apply(device(DeviceFact::Claim(claim(name, count, None))), 0, &mut Vec::new());
    }
    let before = cpu_nanos();
    for name in &names {
        let mut pod = pod(name.clone());
        pod.resource_claims = vec![PodClaim { name: "gpus".into(), source: ClaimSource::Named(name.clone()) }];
        engine.apply(Event::PodUpsert(Box::new(pod)), 1_000, &mut Vec::new());
    }
    while engine.next_wakeup().is_some_and(|at| at <= 1_000) && engine.stats().unschedulable == 0 {
        engine.run(1_000, &mut Vec::new());
    }
    let nanos = cpu_nanos() - before;
    let (chosen, first) = costs(&engine, machine, &names, count, held)?;
    Ok(Round { nanos, chosen, first })
}

/// Seconds for each GiB over all pods: of what they got, and of the first that were free before them.
fn costs(
    engine: &Engine,
    machine: &Machine,
    names: &[SmolStr],
    count: usize,
    mut held: BTreeMap<SmolStr, BTreeSet<usize>>,
) -> Result<(f64, f64)> {
    let mut board = Board::new(Host::new(host(machine))?).context("too many GPUs for a board")?;
    let assumed = engine.snapshot().cluster().dump().devices.assumed;
    let (mut chosen, mut first) = (0.0, 0.0);
    for name in names {
        let of = assumed.get(&format_smolstr!("uid-{name}"));
        let results = &of.with_context(|| format!("{name} was not placed"))?.allocation.results;
        let number = |result: &AllocatedDevice| result.id[2].strip_prefix("gpu-").and_then(|at| at.parse().ok());
        let got: BTreeSet<usize> = results.iter().filter_map(number).collect();
        ensure!(got.len() == count, "{name} has {got:?}");
        let pool = results.first().map(|result| result.id[1].clone()).unwrap_or_default();
        let taken = held.entry(pool).or_default();
        let free: BTreeSet<usize> = (0..GPUS).filter(|gpu| !taken.contains(gpu)).take(count).collect();
        let mut cost = |gpus: &BTreeSet<usize>| {
            let set = gpus.iter().fold(0, |all, gpu| all | 1 << gpu);
            std::time::Duration::from_nanos(board.cost_ns_per_gib(set)).as_secs_f64()
        };
        chosen += cost(&got);
        first += cost(&free);
        taken.extend(got);
    }
    Ok((chosen, first))
}

fn device(fact: DeviceFact) -> Event {
    Event::Device(Box::new(fact))
}

/// The host as the cost model sees it.
fn host(machine: &Machine) -> HostFacts {
    let known = gpu_of_product(machine.product).map(|product| product.host(machine.product, GPUS, 2));
    let mut host = known.unwrap_or_default();
    if !machine.bridges.is_empty() {
        host.links = NvLinks::bridge_pairs(machine.bridges, 12);
    }
    host.devices = host.devices.into_iter().map(|gpu| Device { product: None, ..gpu }).collect();
    host
}

fn slice(machine: &Machine, node: &SmolStr) -> SliceInfo {
    let gpu = |minor: usize| {
        let numa = i64::from(minor >= GPUS / 2);
        let attributes = [
            ("type", Attribute::String("gpu".into())),
            ("uuid", Attribute::String(format_smolstr!("gpu-{minor}"))),
            ("productName", Attribute::String(machine.product.into())),
            ("resource.kubernetes.io/numaNode", Attribute::Int(numa)),
        ];
        DeviceInfo {
            name: format_smolstr!("gpu-{minor}"),
            attributes: attributes.map(|(key, value)| (SmolStr::new_static(key), value)).into(),
            ..DeviceInfo::default()
        }
    };
    SliceInfo {
        name: node.clone(),
        driver: DRIVER.into(),
        pool: node.clone(),
        slices_in_pool: 1,
        reach: Reach::Node(node.clone()),
        devices: (0..GPUS).map(gpu).collect(),
        ..SliceInfo::default()
    }
}

fn class() -> ClassInfo {
    let selectors = vec![Some(format_smolstr!("device.driver == '{DRIVER}'"))];
    ClassInfo { name: "gpu".into(), selectors, ..ClassInfo::default() }
}

/// A claim of so many GPUs, which may have these of a node.
fn claim(name: &SmolStr, count: usize, has: Option<(&SmolStr, &BTreeSet<usize>)>) -> ClaimInfo {
    let ask = Ask {
        class: "gpu".into(),
        selectors: Vec::new(),
        count: Count::Exactly(i64::try_from(count).unwrap_or(0)),
        admin: false,
        tolerations: Vec::new(),
        written_tolerations: Vec::new(),
        capacity: Amounts::new(),
        derived: false,
    };
    let result = |node: &SmolStr, gpu: &usize| AllocatedDevice {
        request: "gpus".into(),
        id: [DRIVER.into(), node.clone(), format_smolstr!("gpu-{gpu}")],
        ..AllocatedDevice::default()
    };
    let allocation = has.map(|(node, gpus)| Allocation {
        results: gpus.iter().map(|gpu| result(node, gpu)).collect(),
        ..Allocation::default()
    });
    ClaimInfo {
        namespace: "bench".into(),
        name: name.clone(),
        uid: format_smolstr!("uid-{name}"),
        requests: vec![Request { name: "gpus".into(), kind: RequestKind::Exactly(ask) }],
        allocation,
        ..ClaimInfo::default()
    }
}

/// A sequence of numbers that is the same each time (Knuth's MMIX).
struct Lcg(u64);

impl Lcg {
    fn choose(&mut self, count: usize, of: usize) -> BTreeSet<usize> {
        let mut chosen = BTreeSet::new();
        while chosen.len() < count {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            chosen.insert(usize::try_from(self.0 >> 33).unwrap_or(0) % of);
        }
        chosen
    }
}

//! `flowforge-bench-core`: how many pods and gangs the scheduler's core places in a second of one thread's CPU time, in
//! process and without an API server.
//!
//! ```text
//!   nodes ─> Engine <─ pods of one kind, in batches ─> run: plan, confirm at once ─> CPU time of this thread per pod
//! ```
//! A batch is deleted again before the next, so that the cluster is as full at the end as at the start.

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use flowforge_scheduler_core::config::Config;
use flowforge_scheduler_core::engine::Engine;
use flowforge_scheduler_core::event::Event;
use flowforge_scheduler_core::labels::LabelSelector;
use flowforge_scheduler_core::model::{GangMembership, NodeInfo, PodInfo, PodKey};
use flowforge_scheduler_core::relations::{PodAffinityTerm, Scope, SpreadConstraint};
use smol_str::{SmolStr, format_smolstr};

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const RACK: &str = "fabric.topograph.run/tier-0";
const BLOCK: &str = "fabric.topograph.run/tier-1";

/// Pods a second of CPU time, in the core alone.
#[derive(Parser)]
struct Args {
    /// Nodes.
    #[arg(long, default_value_t = 5_000)]
    nodes: usize,
    /// Pods of each kind in a round.
    #[arg(long, default_value_t = 2_000)]
    pods: usize,
    /// Rounds; the median is shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Kinds whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
}

/// A kind of load.
struct Kind {
    name: &'static str,
    /// Members of each gang; 1: single pods.
    gang: usize,
    make: fn(PodInfo, usize) -> PodInfo,
}

const KINDS: [Kind; 8] = [
    Kind { name: "plain pods of one shape", gang: 1, make: |pod, _| pod },
    Kind { name: "plain pods, each of its own shape", gang: 1, make: own_shape },
    Kind { name: "spread over zones", gang: 1, make: |pod, _| spread(pod, ZONE) },
    Kind { name: "spread over hosts", gang: 1, make: |pod, _| spread(pod, HOST) },
    Kind { name: "required anti-affinity on hosts", gang: 1, make: |pod, _| apart(pod) },
    Kind { name: "gangs of 4, required rack", gang: 4, make: gpus },
    Kind { name: "gangs of 64, required rack", gang: 64, make: gpus },
    Kind { name: "gangs of 1000, no level", gang: 1000, make: gpus },
];

fn main() -> Result<()> {
    let args = Args::parse();
    println!(
        "{} nodes; {} pods a round, median of {} rounds, one thread's CPU time",
        args.nodes, args.pods, args.rounds
    );
    println!("{:<36} {:>12} {:>14}", "load", "pods/s", "microseconds");
    for kind in KINDS.iter().filter(|kind| kind.name.contains(&args.only)) {
        let nanos = measure(kind, &args)?;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let each = nanos as f64 / args.pods as f64;
        println!("{:<36} {:>12.0} {:>14.2}", kind.name, 1e9 / each, each / 1e3);
    }
    Ok(())
}

/// CPU nanoseconds for a round, the median.
fn measure(kind: &Kind, args: &Args) -> Result<u64> {
    let mut engine = engine(args.nodes);
    let mut rounds = Vec::with_capacity(args.rounds);
    // The first round warms the caches.
    for round in 0..=args.rounds {
        let pods: Vec<PodInfo> = (0..args.pods / kind.gang * kind.gang).map(|at| pod(kind, round, at)).collect();
        let keys: Vec<PodKey> = pods.iter().map(|pod| pod.key.clone()).collect();
        let before = cpu_nanos()?;
        let now = 1_000 * (round as u64 + 1);
        pods.into_iter().for_each(|pod| engine.apply(Event::PodUpsert(Box::new(pod)), now, &mut Vec::new()));
        // An engine that asks for another run at once gets it.
        while engine.next_wakeup().is_some_and(|at| at <= now) && engine.stats().unschedulable == 0 {
            engine.run(now, &mut Vec::new());
        }
        let took = cpu_nanos()? - before;
        let placed = keys.iter().filter(|key| is_placed(&engine, key)).count();
        let why = || engine.waiting(1).first().map(|entry| entry.message.clone()).unwrap_or_default();
        ensure!(placed == keys.len(), "{}: {placed} of {} were placed: {}", kind.name, keys.len(), why());
        if round > 0 {
            rounds.push(took);
        }
        keys.into_iter().for_each(|key| engine.apply(Event::PodDelete(key), now, &mut Vec::new()));
        engine.run(now, &mut Vec::new());
    }
    rounds.sort_unstable();
    Ok(rounds[rounds.len() / 2])
}

fn is_placed(engine: &Engine, key: &PodKey) -> bool {
    let cluster = engine.snapshot().cluster();
    cluster.find_pod(&key.uid).and_then(|id| cluster.pod(id)).is_some_and(|pod| pod.place.node().is_some())
}

fn engine(nodes: usize) -> Engine {
    let mut engine = Engine::new(Config { bind: false, ..Config::default() });
    let mut out = Vec::new();
    for index in 0..nodes {
        engine.apply(Event::NodeUpsert(Box::new(node(index))), 0, &mut out);
    }
    engine.apply(Event::Synced, 0, &mut out);
    engine.apply(Event::Lead { epoch: 1, slots: Vec::new() }, 0, &mut out);
    engine.run(0, &mut out);
    engine
}

/// Racks of 32, blocks of 8 racks, zones of 4 blocks.
fn node(index: usize) -> NodeInfo {
    let name = format_smolstr!("node-{index:05}");
    let labels = [
        (HOST, name.clone()),
        (ZONE, format_smolstr!("zone-{}", index / 1_024)),
        (RACK, format_smolstr!("rack-{}", index / 32)),
        (BLOCK, format_smolstr!("block-{}", index / 256)),
    ];
    let has = [("cpu", 64_000), ("memory", 512 << 30), ("pods", 110), ("nvidia.com/gpu", 8)];
    NodeInfo {
        uid: format_smolstr!("uid-{name}"),
        name,
        labels: labels.map(|(key, value)| (SmolStr::new_static(key), value)).into(),
        allocatable: has.map(|(name, amount)| (SmolStr::new_static(name), amount)).into(),
        ..NodeInfo::default()
    }
}

fn pod(kind: &Kind, round: usize, at: usize) -> PodInfo {
    let name = format_smolstr!("pod-{round}-{at}");
    let gang = (kind.gang > 1).then(|| GangMembership {
        name: format_smolstr!("gang-{round}-{}", at / kind.gang),
        uid: None,
        size: Some(Ok(u32::try_from(kind.gang).unwrap_or(u32::MAX))),
        role: SmolStr::new_static("worker"),
        rank: u32::try_from(at % kind.gang).ok(),
        topology_required: (kind.gang < 256).then(|| SmolStr::new_static("rack")),
        topology_preferred: Vec::new(),
    });
    let pod = PodInfo {
        key: PodKey { namespace: SmolStr::new_static("bench"), uid: format_smolstr!("uid-{name}"), name },
        ours: true,
        scheduler_name: SmolStr::new_static("flowforge"),
        labels: [(SmolStr::new_static("app"), SmolStr::new_static("load"))].into(),
        requests: [(SmolStr::new_static("cpu"), 100), (SmolStr::new_static("memory"), 128 << 20)].into(),
        scoring_requests: (100, 128 << 20),
        gang,
        ..PodInfo::default()
    };
    (kind.make)(pod, at)
}

fn own_shape(mut pod: PodInfo, at: usize) -> PodInfo {
    pod.requests.insert(SmolStr::new_static("memory"), (128 << 20) + i64::try_from(at).unwrap_or_default());
    pod
}

fn gpus(mut pod: PodInfo, _: usize) -> PodInfo {
    pod.requests.insert(SmolStr::new_static("nvidia.com/gpu"), 1);
    pod
}

fn selector() -> Option<LabelSelector> {
    Some(LabelSelector::of(&[(SmolStr::new_static("app"), SmolStr::new_static("load"))].into()))
}

fn spread(mut pod: PodInfo, key: &'static str) -> PodInfo {
    pod.spread = vec![SpreadConstraint {
        max_skew: 1,
        topology_key: SmolStr::new_static(key),
        hard: true,
        selector: selector(),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    }];
    pod
}

fn apart(mut pod: PodInfo) -> PodInfo {
    let scope =
        Scope { namespaces: [pod.key.namespace.clone()].into(), namespace_selector: None, selector: selector() };
    pod.affinity.required_anti = vec![PodAffinityTerm { scope, topology_key: SmolStr::new_static(HOST) }];
    pod
}

/// CPU time of this thread, in nanoseconds.
fn cpu_nanos() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("this needs Linux's schedstat")?;
    text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).context("schedstat holds no number")
}

//! How many pods and gangs the core places in a second.
//!
//! ```text
//!   nodes ─> Engine <─ pods of one kind, in batches ─> run: plan, confirm at once ─> CPU time of this thread per pod
//! ```
//! A batch is deleted again before the next, so that the cluster is as full at the end as at the start. The journal and the
//! binding protocol are not part of it.

use crate::Args;
use crate::cluster::{GPU, HOST, ZONE, cpu_nanos, median, membership, node, pod};
use anyhow::{Result, ensure};
use flowforge_scheduler_core::config::Config;
use flowforge_scheduler_core::engine::Engine;
use flowforge_scheduler_core::event::Event;
use flowforge_scheduler_core::labels::LabelSelector;
use flowforge_scheduler_core::model::{PodInfo, PodKey};
use flowforge_scheduler_core::relations::{PodAffinityTerm, Scope, SpreadConstraint};
use smol_str::{SmolStr, format_smolstr};

/// A kind of load.
struct Kind {
    name: &'static str,
    /// Members of each gang; 1: single pods.
    gang: usize,
    /// Of a plain pod and its number, which no other pod of any round has.
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

/// Measures every kind whose name holds `args.only`, on each size of cluster.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (sizes, pods) = (args.nodes_or(&[5_000]), args.pods.unwrap_or(2_000));
    for nodes in sizes {
        println!("{nodes} nodes; {pods} pods a round, median of {} rounds, CPU time of one thread", args.rounds);
        println!("  {:<36} {:>12} {:>12} {:>14}", "load", "pods/s", "gangs/s", "us per pod");
        for kind in KINDS.iter().filter(|kind| kind.name.contains(&args.only)) {
            #[expect(clippy::cast_precision_loss, reason = "figures for people")]
            let (count, gang) = ((pods / kind.gang * kind.gang) as f64, kind.gang as f64);
            let each = measure(kind, nodes, pods, args.rounds)? / count;
            let gangs = if kind.gang > 1 { format!("{:.0}", 1e9 / each / gang) } else { String::new() };
            println!("  {:<36} {:>12.0} {:>12} {:>14.2}", kind.name, 1e9 / each, gangs, each / 1e3);
        }
    }
    Ok(())
}

/// CPU nanoseconds for a round, the median.
fn measure(kind: &Kind, nodes: usize, pods: usize, count: usize) -> Result<f64> {
    let mut engine = engine(nodes);
    let mut rounds = Vec::with_capacity(count);
    // The first round warms the caches.
    for round in 0..=count {
        let pods: Vec<PodInfo> = (0..pods / kind.gang * kind.gang).map(|at| load(kind, round, at)).collect();
        let keys: Vec<PodKey> = pods.iter().map(|pod| pod.key.clone()).collect();
        let before = cpu_nanos();
        let now = 1_000 * (round as u64 + 1);
        pods.into_iter().for_each(|pod| engine.apply(Event::PodUpsert(Box::new(pod)), now, &mut Vec::new()));
        // An engine that asks for another run at once gets it.
        while engine.next_wakeup().is_some_and(|at| at <= now) && engine.stats().unschedulable == 0 {
            engine.run(now, &mut Vec::new());
        }
        let took = cpu_nanos() - before;
        let placed = keys.iter().filter(|key| is_placed(&engine, key)).count();
        let why = || engine.waiting(1).first().map(|entry| entry.message.clone()).unwrap_or_default();
        ensure!(placed == keys.len(), "{}: {placed} of {} were placed: {}", kind.name, keys.len(), why());
        if round > 0 {
            rounds.push(took);
        }
        keys.into_iter().for_each(|key| engine.apply(Event::PodDelete(key), now, &mut Vec::new()));
        engine.run(now, &mut Vec::new());
    }
    Ok(median(rounds))
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

fn load(kind: &Kind, round: usize, at: usize) -> PodInfo {
    let mut pod = pod(format_smolstr!("pod-{round}-{at}"));
    if kind.gang > 1 {
        let name = format_smolstr!("gang-{round}-{}", at / kind.gang);
        pod.gang = Some(membership(name, kind.gang, at % kind.gang, (kind.gang < 256).then_some("rack")));
    }
    (kind.make)(pod, round * 1_000_000 + at)
}

fn own_shape(mut pod: PodInfo, at: usize) -> PodInfo {
    pod.requests.insert(SmolStr::new_static("memory"), (128 << 20) + i64::try_from(at).unwrap_or_default());
    pod
}

fn gpus(mut pod: PodInfo, _: usize) -> PodInfo {
    pod.requests.insert(SmolStr::new_static(GPU), 1);
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

//! Peak memory of a process that holds a large cluster with every pod bound, and nothing else.

use crate::Args;
use crate::cluster::{node, pod};
use anyhow::{Context as _, Result};
use flowforge_scheduler_core::config::Config;
use flowforge_scheduler_core::engine::Engine;
use flowforge_scheduler_core::event::Event;
use smol_str::format_smolstr;

/// First every second pod is ours, then the others are too: what ours need beyond those of another scheduler is the second
/// step. The pods are of a thousand templates and not members of gangs.
pub(crate) fn run(args: &Args) -> Result<()> {
    let pods = args.pods.unwrap_or(1_000_000);
    for nodes in args.nodes_or(&[100_000]) {
        let mut engine = Engine::new(Config { bind: false, ..Config::default() });
        let mut out = Vec::new();
        for index in 0..nodes {
            engine.apply(Event::NodeUpsert(Box::new(node(index))), 0, &mut out);
        }
        let empty = resident_mib()?;
        let mut steps = Vec::new();
        for every in [false, true] {
            (0..pods).for_each(|at| engine.apply(bound(at, nodes, every), 0, &mut Vec::new()));
            steps.push(resident_mib()?);
        }
        let [half, all] = steps[..] else { continue };
        println!(
            "{nodes} nodes: {empty:.0} MiB; and {pods} bound pods, half of them ours: {half:.0} MiB; all: {all:.0} MiB"
        );
    }
    Ok(())
}

fn bound(at: usize, nodes: usize, every: bool) -> Event {
    let template = at % 1_000;
    let mut pod = pod(format_smolstr!("deployment-{template}-{:010x}-{at:05}", template * 7_919));
    pod.key.uid = format_smolstr!("{at:08x}-89ab-4def-8123-456789abcdef");
    pod.resource_version = format_smolstr!("{}", 1_000_000 + at);
    pod.labels.insert("app".into(), format_smolstr!("app-{template}"));
    pod.ours = every || at.is_multiple_of(2);
    pod.node_name = Some(node(at % nodes).name);
    Event::PodUpsert(Box::new(pod))
}

/// Peak resident memory of this process.
fn resident_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("this needs Linux's /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("VmHWM holds no number")?;
    Ok(kib / 1024.0)
}

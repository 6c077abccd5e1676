//! Peak memory of a process that holds a large cluster with every pod bound, and nothing else.

use crate::Args;
use crate::cluster::{node, pod};
use anyhow::{Context as _, Result};
use flowforge_scheduler_core::config::Config;
use flowforge_scheduler_core::engine::Engine;
use flowforge_scheduler_core::event::Event;
use smol_str::format_smolstr;

/// Half of the pods are another scheduler's, in a thousand templates.
pub(crate) fn run(args: &Args) -> Result<()> {
    let pods = args.pods.unwrap_or(1_000_000);
    for nodes in args.nodes_or(&[100_000]) {
        let mut engine = Engine::new(Config { bind: false, ..Config::default() });
        let mut out = Vec::new();
        for index in 0..nodes {
            engine.apply(Event::NodeUpsert(Box::new(node(index))), 0, &mut out);
        }
        let empty = resident_mib()?;
        for at in 0..pods {
            let mut pod = pod(format_smolstr!("deployment-{}-{:010x}-{at:05}", at % 1_000, at % 1_000 * 7_919));
            pod.key.uid = format_smolstr!("{at:08x}-89ab-4def-8123-456789abcdef");
            pod.resource_version = format_smolstr!("{}", 1_000_000 + at);
            pod.labels.insert("app".into(), format_smolstr!("app-{}", at % 1_000));
            pod.ours = at % 2 == 0;
            pod.node_name = Some(node(at % nodes).name);
            engine.apply(Event::PodUpsert(Box::new(pod)), 0, &mut out);
            out.clear();
        }
        let full = resident_mib()?;
        println!("{nodes} nodes: {empty:.0} MiB; with {pods} bound pods, half of them ours: {full:.0} MiB");
    }
    Ok(())
}

/// Peak resident memory of this process.
fn resident_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("this needs Linux's /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("VmHWM holds no number")?;
    Ok(kib / 1024.0)
}

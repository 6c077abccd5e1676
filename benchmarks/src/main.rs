//! `flowforge-bench`: the same pods through kube-scheduler and through FlowForge, in turn, on one testbed.
//!
//! ```text
//!   for round in 1..=ROUNDS:   kube-scheduler <- PODS pods, bound, deleted      (CPU time, latency)
//!                              flowforge      <- PODS pods, bound, deleted      (CPU time, latency)
//!   then                       flowforge      <- PODS / 8 gangs of 8            (CPU time, latency)
//! ```
//! CPU time is user + system of the scheduler's process (`/proc/PID/stat`), so that a noisy machine does not change it much;
//! the ratio is taken pair by pair. Peak memory is the process's `VmHWM`. Latency is from the API server's answer to the
//! create until this program's watch shows the pod's node.

mod load;
mod process;

use anyhow::{Context as _, Result};
use clap::Parser;
use flowforge_testbed::{Profile, Testbed, component};
use flowforge_tests::install::{Installation, Options, SCHEDULER};
use serde_json::json;
use std::path::PathBuf;

use load::{Load, Measured};
use process::Process;

/// Compare the schedulers' cost.
#[derive(Parser)]
struct Args {
    /// Fake nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Pods per round and scheduler.
    #[arg(long, default_value_t = 2000)]
    pods: usize,
    /// Rounds; the ratio is the median over them.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Pods created at once.
    #[arg(long, default_value_t = 32)]
    parallel: usize,
    /// A scheduler binary to measure instead of the one built beside this program (a release build, say).
    #[arg(long)]
    scheduler: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let config = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"qps": 5000, "burst": 10000},
        "leaderElection": {"leaderElect": false},
    });
    let testbed = Testbed::builder()
        .nodes(Profile::Cpu, args.nodes)
        .kube_scheduler(true)
        .kube_scheduler_config(config)
        .start()
        .await
        .context("start the testbed")?;
    let options = Options { controller: false, scheduler: args.scheduler.is_none(), ..Options::default() };
    let installation = Installation::install(&testbed, options).await?;
    let ours = match &args.scheduler {
        Some(path) => Process::new(installation.start_scheduler_from(SCHEDULER, installation.scheduler, path).await?),
        None => Process::of_testbed(testbed.dir(), SCHEDULER)?,
    };
    let theirs = Process::of_testbed(testbed.dir(), component::SCHEDULER)?;
    let client = testbed.client().clone();
    println!("nodes {}, pods {}, rounds {}", args.nodes, args.pods, args.rounds);

    let (mut kube, mut flow) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        let load = Load { name: format!("kube-{round}"), scheduler: "default-scheduler", pods: args.pods, gang: 1 };
        kube.push(load.run(&client, &theirs, args.parallel).await?);
        let load = Load { name: format!("flow-{round}"), scheduler: "flowforge", pods: args.pods, gang: 1 };
        flow.push(load.run(&client, &ours, args.parallel).await?);
    }
    let load = Load { name: "gangs".into(), scheduler: "flowforge", pods: args.pods, gang: 8 };
    let gangs = load.run(&client, &ours, args.parallel).await?;

    report("kube-scheduler, single pods", &kube, theirs.peak_mib()?);
    report("flowforge, single pods", &flow, ours.peak_mib()?);
    report("flowforge, gangs of 8", std::slice::from_ref(&gangs), ours.peak_mib()?);
    let mut ratios: Vec<f64> = kube.iter().zip(&flow).map(|(k, f)| f.cpu_ms_per_pod / k.cpu_ms_per_pod).collect();
    ratios.sort_by(f64::total_cmp);
    println!("CPU per bound pod, flowforge / kube-scheduler, median of rounds: {:.3}", ratios[ratios.len() / 2]);
    testbed.stop()
}

fn report(what: &str, rounds: &[Measured], peak_mib: f64) {
    for m in rounds {
        println!(
            "{what:<28} {:>7.3} CPU ms/pod  {:>7.0} pods/s  create->bound p50 {:>7.1} ms  p99 {:>8.1} ms  peak {peak_mib:>6.1} MiB",
            m.cpu_ms_per_pod, m.pods_per_second, m.p50_ms, m.p99_ms
        );
    }
}

//! `flowforge-bench`: the same pods through kube-scheduler and through FlowForge, in turn, on one testbed.
//!
//! ```text
//!   for round in 1..=ROUNDS:   kube-scheduler <- PODS pods, bound, deleted      (CPU time, latency)
//!                              flowforge      <- PODS pods, bound, deleted      (CPU time, latency)
//!   then                       flowforge      <- PODS / 8 gangs of 8            (CPU time, latency)
//!   then                       each           <- PACED pods, 20 a second        (latency)
//!                              flowforge      <- PACED / 8 gangs of 8, 5 a second
//! ```
//! CPU time is user + system of the scheduler's process (`/proc/PID/stat`), so that a noisy machine does not change it much;
//! the ratio is taken pair by pair. Peak memory is the process's `VmHWM`. Latency is from the API server's answer to the
//! create until this program's watch shows the pod's node; of a gang, from the last answer to the last node seen.

mod load;
mod process;

use anyhow::{Context as _, Result};
use clap::Parser;
use flowforge_testbed::{Profile, Testbed, component};
use flowforge_tests::install::{Installation, Options, SCHEDULER};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

use load::{Arrival, Load, Measured};
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
    /// Pods created at once in a burst.
    #[arg(long, default_value_t = 32)]
    parallel: usize,
    /// Pods that arrive one by one, for the latency.
    #[arg(long, default_value_t = 400)]
    paced: usize,
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

    let burst = Arrival::Burst(args.parallel);
    let load = |name: String, scheduler, pods, gang, arrival| Load { name, scheduler, pods, gang, arrival };
    let (mut kube, mut flow) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        let theirs_load = load(format!("kube-{round}"), "default-scheduler", args.pods, 1, burst);
        kube.push(theirs_load.run(&client, &theirs).await?);
        let ours_load = load(format!("flow-{round}"), "flowforge", args.pods, 1, burst);
        flow.push(ours_load.run(&client, &ours).await?);
    }
    let gangs = load("gangs".into(), "flowforge", args.pods, 8, burst).run(&client, &ours).await?;
    let (fast, slow) = (Arrival::Paced(Duration::from_millis(50)), Arrival::Paced(Duration::from_millis(200)));
    let kube_paced = load("kube-paced".into(), "default-scheduler", args.paced, 1, fast).run(&client, &theirs).await?;
    let flow_paced = load("flow-paced".into(), "flowforge", args.paced, 1, fast).run(&client, &ours).await?;
    let gangs_paced = load("gangs-paced".into(), "flowforge", args.paced, 8, slow).run(&client, &ours).await?;

    let (theirs_peak, ours_peak) = (theirs.peak_mib()?, ours.peak_mib()?);
    report("kube-scheduler, burst", &kube, theirs_peak);
    report("flowforge, burst", &flow, ours_peak);
    report("flowforge, gangs of 8, burst", &[gangs], ours_peak);
    report("kube-scheduler, paced", &[kube_paced], theirs_peak);
    report("flowforge, paced", &[flow_paced], ours_peak);
    report("flowforge, gangs of 8, paced", &[gangs_paced], ours_peak);
    let mut ratios: Vec<f64> = kube.iter().zip(&flow).map(|(k, f)| f.cpu_ms_per_pod / k.cpu_ms_per_pod).collect();
    ratios.sort_by(f64::total_cmp);
    println!("CPU per bound pod, flowforge / kube-scheduler, median of rounds: {:.3}", ratios[ratios.len() / 2]);
    println!("peak memory, flowforge / kube-scheduler: {:.3}", ours_peak / theirs_peak);
    testbed.stop()
}

fn report(what: &str, rounds: &[Measured], peak_mib: f64) {
    for m in rounds {
        println!(
            "{what:<30} {:>7.3} CPU ms/pod  {:>7.0} pods/s  create->bound p50 {:>7.1} ms  p99 {:>8.1} ms  peak {peak_mib:>6.1} MiB",
            m.cpu_ms_per_pod, m.pods_per_second, m.p50_ms, m.p99_ms
        );
    }
}

//! `flowforge-bench`: the same pods through kube-scheduler and through FlowForge, in turn, on one testbed.
//!
//! ```text
//!   for round in 1..=ROUNDS:   both       <- PODS pods at once, bound, deleted        (CPU time, throughput)
//!   then                       flowforge  <- PODS / 8 gangs of 8 at once
//!   for round in 1..=2:        both       <- PACED pods, 20 a second                  (latency)
//!   then                       flowforge  <- PACED_GANGS gangs of 8, 5 a second
//! ```
//! In each round the one that was second goes first, so that what grows over a run (the API server, the page cache) counts for
//! both. CPU time is user + system of the scheduler's process (`/proc/PID/stat`), so that a noisy machine does not change it
//! much; ratios are taken pair by pair. Peak memory is the process's `VmHWM`. Latency is from the request that creates a pod
//! until this program's watch shows its node; of a gang, from its last request to its last node. It contains the API server's
//! work, alike for both. Beside it stands what the scheduler's own histogram says of the same pods, as exactly as its buckets
//! are.

mod fresh;
mod load;
mod metrics;
mod process;
mod report;

use anyhow::{Context as _, Result};
use clap::Parser;
use flowforge_testbed::{Profile, Testbed, component};
use flowforge_tests::eventually;
use flowforge_tests::install::{Installation, Options, SCHEDULER, repository};
use flowforge_tests::metrics::get;
use kube::Client;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use load::{Arrival, Contender, Load};
use metrics::Exporter;
use process::Process;
use report::{Measured, median};

/// Members of a gang.
const GANG: usize = 8;
const PACED_ROUNDS: usize = 2;
const POD_PAUSE: Duration = Duration::from_millis(50);
const GANG_PAUSE: Duration = Duration::from_millis(200);
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Compare the schedulers' cost.
#[derive(Parser)]
struct Args {
    /// Fake nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Pods per round and scheduler.
    #[arg(long, default_value_t = 2000)]
    pods: usize,
    /// Rounds; the ratio is the median over them. An even number, and each goes first equally often.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Pods created at once in a burst.
    #[arg(long, default_value_t = 32)]
    parallel: usize,
    /// Pods that arrive one by one, for the latency, per round and scheduler.
    #[arg(long, default_value_t = 400)]
    paced: usize,
    /// Gangs that arrive one by one; from 100 on they have a 99th percentile.
    #[arg(long, default_value_t = 500)]
    paced_gangs: usize,
    /// A scheduler binary to measure instead of the release build of these sources.
    #[arg(long)]
    scheduler: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let binary = args.scheduler.clone().map_or_else(fresh::release_scheduler, Ok)?;
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
    let theirs = Contender {
        title: "kube-scheduler",
        scheduler: "default-scheduler",
        process: Process::of_testbed(testbed.dir(), component::SCHEDULER)?,
        exporter: Exporter::of_kube_scheduler(&testbed).await?,
    };
    let ours = start_ours(&testbed, &binary).await?;
    println!("commit {}, scheduler {}", commit(), binary.display());
    println!("nodes {}, pods {}, rounds {}", args.nodes, args.pods, args.rounds);
    measure(&args, testbed.client(), &theirs, &ours).await?;
    testbed.stop()
}

/// FlowForge's scheduler, installed as in production, from one binary.
async fn start_ours(testbed: &Testbed, binary: &Path) -> Result<Contender> {
    let options = Options { controller: false, scheduler: false, ..Options::default() };
    let installation = Installation::install(testbed, options).await?;
    let address = installation.scheduler;
    let pid = installation.start_scheduler_from(SCHEDULER, address, binary).await?;
    eventually("FlowForge's scheduler is ready", READY_LIMIT, || async {
        get(address, "/readyz").await.map(drop).map_err(|error| format!("{error:#}"))
    })
    .await?;
    Ok(Contender {
        title: "flowforge",
        scheduler: "flowforge",
        process: Process::new(pid),
        exporter: Exporter::Plain(address),
    })
}

async fn measure(args: &Args, client: &Client, theirs: &Contender, ours: &Contender) -> Result<()> {
    let load = |name: &str, pods, gang, arrival| Load { name: name.to_owned(), pods, gang, arrival };
    let burst = Arrival::Burst(args.parallel);
    let pair = [theirs, ours];
    let bursts = in_turn(&load("burst", args.pods, 1, burst), args.rounds, client, pair).await?;
    run(&load("gangs", args.pods / GANG * GANG, GANG, burst), client, ours).await?;
    let paced = load("paced", args.paced, 1, Arrival::Paced(POD_PAUSE));
    let paced = in_turn(&paced, PACED_ROUNDS, client, pair).await?;
    run(&load("paced-gangs", args.paced_gangs * GANG, GANG, Arrival::Paced(GANG_PAUSE)), client, ours).await?;

    println!("flowforge / kube-scheduler, medians of the rounds:");
    println!("  CPU per bound pod, burst:     {:.3}", ratio(&bursts, |m| m.cpu_ms_per_pod));
    println!("  pods per second, burst:       {:.3}", ratio(&bursts, |m| m.pods_per_second));
    println!("  median create->bound, paced:  {:.3}", ratio(&paced, Measured::p50_ms));
    println!("  peak memory of the whole run: {:.3}", ours.process.peak_mib()? / theirs.process.peak_mib()?);
    Ok(())
}

/// The load through both in each round, the second of a round first in the next; results in the order of `pair`.
async fn in_turn(load: &Load, rounds: usize, client: &Client, pair: [&Contender; 2]) -> Result<Vec<[Measured; 2]>> {
    let mut results = Vec::new();
    for round in 0..rounds {
        let load = Load { name: format!("{}-{round}", load.name), ..load.clone() };
        let first = round % 2;
        let earlier = run(&load, client, pair[first]).await?;
        let later = run(&load, client, pair[1 - first]).await?;
        results.push(if first == 0 { [earlier, later] } else { [later, earlier] });
    }
    Ok(results)
}

/// One load through one scheduler, said as soon as it is known.
async fn run(load: &Load, client: &Client, contender: &Contender) -> Result<Measured> {
    let measured = load.run(client, contender).await?;
    println!("{:<14} {:<12} {measured}", contender.title, load.name);
    Ok(measured)
}

/// The median over rounds of ours divided by theirs.
fn ratio(rounds: &[[Measured; 2]], figure: impl Fn(&Measured) -> f64) -> f64 {
    let mut ratios: Vec<f64> = rounds.iter().map(|[theirs, ours]| figure(ours) / figure(theirs)).collect();
    ratios.sort_by(f64::total_cmp);
    median(&ratios)
}

/// The commit that the figures belong to, as git names it.
fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(repository()).output();
    let known = git.ok().filter(|output| output.status.success());
    known.map_or_else(|| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

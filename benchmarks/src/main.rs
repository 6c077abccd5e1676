//! `flowforge-bench`: the same pods through kube-scheduler and through FlowForge, in turn, on one testbed.
//!
//! ```text
//!   cpu         for each workload and round:  kube-scheduler, FlowForge  <- PODS pods at once, bound, deleted
//!                                             (plain: bind-only too)
//!   throughput  for each round:  FlowForge, bind-only, bindings alone    <- PODS pods that are there before it starts
//!   latency     for each round:  kube-scheduler, FlowForge, bind-only    <- PACED pods at half the slower one's rate
//!   gangs       FlowForge                                                <- PODS / 8 gangs of 8 at once; PACED_GANGS, 5 a second
//!   standing    for each round:  raw lists, kube-scheduler, FlowForge    <- STANDING pods bound beforehand; start to first bind
//! ```
//! One of them runs at a time, and the order of a round is that of the last turned round, so that what grows over a run (the
//! API server, the page cache) counts for all. CPU time is user + system of the process (`/proc/PID/stat`) until the last Event
//! is there, so that a noisy machine does not change it much; ratios are taken round by round. Peak memory is the process's
//! `VmHWM`. Latency is from the reply of the request that creates a pod until this program's watch shows its node; of a gang,
//! from its last reply to its last node. Beside it stands what the scheduler's own histogram says of the same pods, as exactly
//! as its buckets are. Bind-only is a client that has nothing to decide (`bind.rs`).

mod claims;
mod contender;
mod devices;
mod follow;
mod fresh;
mod load;
mod metrics;
mod process;
mod report;
mod standing;
mod workload;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::install::{Installation, Options, repository};
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use contender::{Arena, Kind};
use load::{Arrival, Load};
use report::{Goal, Measured, Row, median_of};
use workload::Workload;

/// Members of a gang.
const GANG: usize = 8;
const GANG_PAUSE: Duration = Duration::from_millis(200);
/// Pods a second for the latency where the rate of a burst is not known.
const PACED_PER_SECOND: f64 = 50.0;

/// Compare the schedulers' cost.
#[derive(Parser)]
struct Args {
    /// Fake nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Pods of a load.
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    /// Rounds of each load; figures are medians over them.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Pods created at once in a burst.
    #[arg(long, default_value_t = 32)]
    parallel: usize,
    /// Pods that arrive one by one, for the latency, per round and contender.
    #[arg(long, default_value_t = 1000)]
    paced: usize,
    /// Gangs that arrive one by one; from 100 on they have a 99th percentile.
    #[arg(long, default_value_t = 100)]
    paced_gangs: usize,
    /// Pods bound beforehand, for the start and the memory.
    #[arg(long, default_value_t = 5000)]
    standing: usize,
    /// What to measure; all of it unless said.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Rows>,
    /// Workloads whose CPU time is measured; all of them unless said.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<Workload>,
    /// A scheduler binary to measure instead of the release build of these sources.
    #[arg(long)]
    scheduler: Option<PathBuf>,
}

/// A group of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rows {
    Cpu,
    Throughput,
    Latency,
    Gangs,
    Standing,
}

/// A run: what is asked for, where, and what is known so far.
struct Run<'t> {
    args: &'t Args,
    arena: Arena<'t>,
    rows: Vec<Row>,
    /// Bound pods per second of the slower scheduler, from the bursts of plain pods.
    slower: Option<f64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let binary = args.scheduler.clone().map_or_else(fresh::release_scheduler, Ok)?;
    println!("commit {}, scheduler {}", commit(), binary.display());
    println!("nodes {}, pods {}, rounds {}, standing {}", args.nodes, args.pods, args.rounds, args.standing);
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
    // The lease as in production: a short one would be lost on a busy machine, and with it the Events that wait.
    let options = Options { controller: false, scheduler: false, lease_args: Vec::new(), ..Options::default() };
    let installation = Installation::install(&testbed, options).await?;
    let arena = Arena::new(&testbed, installation, binary).await?;
    let mut run = Run { args: &args, arena, rows: Vec::new(), slower: None };
    let measured = run.all().await;
    println!("\n{}", Row::table(&run.rows));
    drop(run);
    if measured.is_err() {
        println!("the logs are in {}", testbed.keep_logs().display());
    }
    testbed.stop()?;
    measured
}

impl Run<'_> {
    /// Everything that is asked for. Standing pods come last: after them nobody plays the nodes.
    async fn all(&mut self) -> Result<()> {
        let wanted = |rows| self.args.rows.is_empty() || self.args.rows.contains(&rows);
        let [cpu, throughput, latency, gangs, standing] =
            [Rows::Cpu, Rows::Throughput, Rows::Latency, Rows::Gangs, Rows::Standing].map(wanted);
        if cpu {
            let all = Workload::ALL;
            let workloads = if self.args.workloads.is_empty() { all.to_vec() } else { self.args.workloads.clone() };
            for workload in workloads {
                self.cpu(workload).await?;
            }
        }
        if throughput {
            self.throughput().await?;
        }
        if latency {
            self.latency().await?;
        }
        if gangs {
            self.gangs().await?;
        }
        if standing {
            self.standing().await?;
        }
        Ok(())
    }

    async fn cpu(&mut self, workload: Workload) -> Result<()> {
        let args = self.args;
        let load = self.load(workload.name(), workload, Arrival::Burst(args.parallel));
        let load = Load { pods: workload.fitting(args.pods, args.nodes), ..load };
        if workload != Workload::Plain {
            let rounds = self.in_turn(&load, [Kind::KubeScheduler, Kind::FlowForge]).await?;
            self.rows.push(cpu_row(workload, &rounds));
            return Ok(());
        }
        let rounds = self.in_turn(&load, [Kind::KubeScheduler, Kind::FlowForge, Kind::BindOnly]).await?;
        let rate = |contender: usize| median_of(rounds.iter().map(|round| round[contender].pods_per_second));
        self.slower = Some(rate(0).min(rate(1)));
        self.rows.push(cpu_row(workload, &rounds));
        let apiserver = |m: &Measured| m.apiserver_ms_per_pod;
        let rows = [
            ("peak memory of these loads", 0, Goal::None, "MiB", (|m| m.peak_mib) as fn(&Measured) -> f64),
            ("bound pods per second while they are created", 0, Goal::None, "/s", |m| m.pods_per_second),
            ("API server CPU per pod, created and bound", 0, Goal::None, "ms", apiserver),
            ("the same beside bind-only", 2, Goal::None, "ms", apiserver),
        ];
        for (what, against, goal, unit, figure) in rows {
            self.rows.push(row(what, &rounds, [against, 1], goal, unit, figure));
        }
        Ok(())
    }

    async fn throughput(&mut self) -> Result<()> {
        let load = self.load("backlog", Workload::Plain, Arrival::Backlog(self.args.parallel));
        let rounds = self.in_turn(&load, [Kind::BindOnly, Kind::FlowForge, Kind::Plain]).await?;
        let rate = |m: &Measured| m.pods_per_second;
        let least = Goal::AtLeast(0.9);
        self.rows.push(row("bound pods per second beside bind-only", &rounds, [0, 1], least, "/s", rate));
        self.rows.push(row("the same beside bindings alone", &rounds, [2, 1], Goal::None, "/s", rate));
        Ok(())
    }

    async fn latency(&mut self) -> Result<()> {
        let per_second = self.slower.map_or(PACED_PER_SECOND, |slower| slower / 2.0);
        println!("latency at {per_second:.0} pods a second");
        let pause = Duration::from_secs_f64(1.0 / per_second);
        let load = self.load("paced", Workload::Plain, Arrival::Paced(pause));
        let load = Load { pods: self.args.paced, ..load };
        let rounds = self.in_turn(&load, [Kind::KubeScheduler, Kind::FlowForge, Kind::BindOnly]).await?;
        let excess = |contender: usize| median_of(rounds.iter().map(|r| r[contender].p99_ms() - r[2].p99_ms()));
        let (theirs, ours) = (excess(0), excess(1));
        let base = median_of(rounds.iter().map(|round| round[2].p99_ms()));
        self.rows.push(Row {
            what: format!(
                "create to bound at {per_second:.0} pods/s, p99 in excess of bind-only's {}",
                shown(base, "ms")
            ),
            theirs: shown(theirs, "ms"),
            ours: shown(ours, "ms"),
            // None of ours is a third of any; where theirs is none, the machine was too busy to tell.
            ratio: if theirs > 0.0 { ours.max(0.0) / theirs } else { f64::NAN },
            goal: Goal::AtMost(1.0 / 3.0),
        });
        Ok(())
    }

    async fn gangs(&mut self) -> Result<()> {
        let args = self.args;
        let load = |name, pods, arrival| Load { pods, gang: GANG, ..self.load(name, Workload::Plain, arrival) };
        let burst = load("gangs", args.pods / GANG * GANG, Arrival::Burst(args.parallel));
        let paced = load("paced-gangs", args.paced_gangs * GANG, Arrival::Paced(GANG_PAUSE));
        for load in [burst, paced] {
            self.run(&load, Kind::FlowForge).await?;
        }
        Ok(())
    }

    async fn standing(&mut self) -> Result<()> {
        let rounds = standing::measure(&self.arena, self.args.standing, self.args.rounds).await?;
        let median = |figure: fn(&standing::Round) -> f64| median_of(rounds.iter().map(figure));
        let compared =
            |what: &str, goal, unit, theirs: fn(&standing::Round) -> f64, ours: fn(&standing::Round) -> f64| Row {
                what: format!("{what}, {} nodes and {} bound pods", self.args.nodes, self.args.standing),
                theirs: shown(median(theirs), unit),
                ours: shown(median(ours), unit),
                ratio: median_of(rounds.iter().map(|round| ours(round) / theirs(round))),
                goal,
            };
        let first_bind = |round: &standing::Round| round.flowforge.first_bind_ms;
        let rows = [
            compared(
                "peak memory",
                Goal::AtMost(1.0 / 3.0),
                "MiB",
                |r| r.kube_scheduler.peak_mib,
                |r| r.flowforge.peak_mib,
            ),
            compared("start to first bind beside raw lists", Goal::AtMost(1.3), "ms", |r| r.lists_ms, first_bind),
            compared(
                "the same beside kube-scheduler",
                Goal::None,
                "ms",
                |r| r.kube_scheduler.first_bind_ms,
                first_bind,
            ),
        ];
        self.rows.extend(rows);
        Ok(())
    }

    fn load(&self, name: &str, workload: Workload, arrival: Arrival) -> Load {
        Load { name: name.to_owned(), workload, pods: self.args.pods, gang: 1, arrival }
    }

    /// The load through each in every round, in turned order in every other one; results in the order of `kinds`.
    async fn in_turn<const N: usize>(&self, load: &Load, kinds: [Kind; N]) -> Result<Vec<Vec<Measured>>> {
        let mut results = Vec::new();
        for round in 0..self.args.rounds {
            let load = Load { name: format!("{}-{round}", load.name), ..load.clone() };
            let mut measured = Vec::new();
            for index in 0..N {
                let kind = if round % 2 == 0 { kinds[index] } else { kinds[N - 1 - index] };
                measured.push(self.run(&load, kind).await?);
            }
            if round % 2 == 1 {
                measured.reverse();
            }
            results.push(measured);
        }
        Ok(results)
    }

    /// One load through one contender, said as soon as it is known.
    async fn run(&self, load: &Load, kind: Kind) -> Result<Measured> {
        let measured = load.run(&self.arena, kind).await.with_context(|| format!("{} {}", kind.title(), load.name))?;
        println!("{:<14} {:<16} {measured}", kind.title(), load.name);
        Ok(measured)
    }
}

fn cpu_row(workload: Workload, rounds: &[Vec<Measured>]) -> Row {
    let what = format!("CPU per bound pod, {}", workload.title());
    row(&what, rounds, [0, 1], Goal::AtMost(0.125), "ms", |m| m.cpu_ms_per_pod)
}

/// A figure of two contenders of the rounds, `[theirs, ours]`: the medians, and the median of the ratios of each round.
fn row(
    what: &str,
    rounds: &[Vec<Measured>],
    [theirs, ours]: [usize; 2],
    goal: Goal,
    unit: &str,
    figure: fn(&Measured) -> f64,
) -> Row {
    let median = |contender: usize| median_of(rounds.iter().map(|round| figure(&round[contender])));
    Row {
        what: what.to_owned(),
        theirs: shown(median(theirs), unit),
        ours: shown(median(ours), unit),
        ratio: median_of(rounds.iter().map(|round| figure(&round[ours]) / figure(&round[theirs]))),
        goal,
    }
}

/// Three digits or so, and the unit.
fn shown(value: f64, unit: &str) -> String {
    let digits = if value.abs() < 10.0 { 2 } else { usize::from(value.abs() < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// The commit that the figures belong to, as git names it.
fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(repository()).output();
    let known = git.ok().filter(|output| output.status.success());
    known.map_or_else(|| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

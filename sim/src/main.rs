//! Runs many seeds: `flowforge-sim --seeds 10000`; or replays a trace: `flowforge-sim replay --trace philly.csv`.

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use flowforge_sim::replay::{GPUS_PER_NODE, Machines, Policy, replay, trace};
use flowforge_sim::run_seed;
use flowforge_sim::world::Subject;
use std::path::PathBuf;
use std::time::Instant;

/// Runs the cores through virtual worlds full of faults.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Task>,
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// What is tested.
    #[arg(long, value_enum, default_value_t = What::Protocol)]
    subject: What,
    /// Lines of the transcript that the first failure shows.
    #[arg(long, default_value_t = 60)]
    lines: usize,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Replays a trace of jobs on a cluster without faults, under one policy or several.
    Replay(Replay),
}

#[derive(Debug, clap::Args)]
struct Replay {
    /// The trace, a file with the columns num_gpu, submit_time and duration (ms), or timestamp, duration (s) and num_gpus.
    #[arg(long)]
    trace: PathBuf,
    /// Who decides; several may be given, all without one.
    #[arg(long, value_parser = policy)]
    policy: Vec<Policy>,
    /// Moves submissions together until this share of the GPUs, in percent, is asked for on average; as they are without it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    load: Option<u64>,
    /// Only the first so many jobs.
    #[arg(long)]
    limit: Option<usize>,
    /// What jobs declare, in percent of how long they run; 0: nothing.
    #[arg(long, default_value_t = 100)]
    declared: u64,
    /// Nodes, of 8 GPUs each.
    #[arg(long, default_value_t = Machines::LARGE.nodes)]
    nodes: u32,
}

fn policy(name: &str) -> Result<Policy, String> {
    let known = || Policy::ALL.map(Policy::name).join(", ");
    Policy::ALL.into_iter().find(|policy| policy.name() == name).ok_or_else(|| format!("the policies are {}", known()))
}

impl Replay {
    fn run(self) -> anyhow::Result<()> {
        let text =
            std::fs::read_to_string(&self.trace).with_context(|| format!("cannot read {}", self.trace.display()))?;
        let mut jobs = trace::parse(&text).with_context(|| self.trace.display().to_string())?;
        jobs.truncate(self.limit.unwrap_or(usize::MAX));
        let machines = Machines { nodes: self.nodes, ..Machines::LARGE };
        let gpus = machines.nodes * GPUS_PER_NODE;
        let too_wide = jobs.iter().filter(|job| job.gpus > gpus).count();
        jobs.retain(|job| job.gpus <= gpus);
        if let Some(percent) = self.load {
            trace::set_load(&mut jobs, gpus, percent);
        }
        eprintln!("{} jobs on {gpus} GPUs; {too_wide} that are wider are left out", jobs.len());
        let declared = (self.declared > 0).then_some(self.declared);
        let policies = if self.policy.is_empty() { Policy::ALL.to_vec() } else { self.policy };
        for policy in policies {
            let started = Instant::now();
            print!("{}", replay(&jobs, machines, policy, declared));
            eprintln!("  ({:.1} s)", started.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// The protocol with the smallest engine around it.
    Protocol,
    /// The real engine.
    Engine,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(Task::Replay(task)) = args.command {
        return task.run();
    }
    let subject = match args.subject {
        What::Protocol => Subject::Protocol,
        What::Engine => Subject::Engine,
    };
    let started = Instant::now();
    let mut failed = 0_u64;
    for seed in args.first..args.first + args.seeds {
        if let Err(failure) = run_seed(seed, subject) {
            // The first failure is shown whole, the others by name: together they say what they have in common.
            if failed == 0 {
                let skip = failure.transcript.len().saturating_sub(args.lines);
                failure.transcript.iter().skip(skip).for_each(|line| eprintln!("{line}"));
            }
            eprintln!("seed {seed}: {}", failure.violation);
            failed += 1;
        }
        if (seed + 1) % 1_000 == 0 {
            eprintln!("{} seeds, {:.0} s", seed + 1 - args.first, started.elapsed().as_secs_f64());
        }
    }
    if failed > 0 {
        anyhow::bail!("{failed} of {} seeds failed", args.seeds);
    }
    println!("{} seeds ran clean in {:.1} s", args.seeds, started.elapsed().as_secs_f64());
    Ok(())
}

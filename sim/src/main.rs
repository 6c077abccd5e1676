//! Runs many seeds: `flowforge-sim --seeds 10000`.

use clap::{Parser, ValueEnum};
use flowforge_sim::run_seed;
use flowforge_sim::world::Subject;
use std::time::Instant;

/// Runs the cores through virtual worlds full of faults.
#[derive(Debug, Parser)]
struct Args {
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// The protocol with the smallest engine around it.
    Protocol,
    /// The real engine.
    Engine,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
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

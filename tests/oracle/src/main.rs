//! `flowforge-oracle --seed N --cases N`: compares FlowForge with kube-scheduler on random cases. Disagreements and the
//! counts per plugin go to stdout; the last line is the verdict. It fails also where a thousand cases or more hardly compare a
//! rule at all.

use anyhow::Result;
use clap::Parser;
use flowforge_oracle::{Upstream, preempt, run};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Compares FlowForge's verdicts and scores with kube-scheduler's.
#[derive(Debug, Parser)]
struct Args {
    /// Seed of the first case; each further case has the next number. A fresh one when absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Number of cases.
    #[arg(long, default_value_t = 2_000)]
    cases: u64,
    /// Number of preemption cases.
    #[arg(long, default_value_t = 1_000)]
    preemptions: u64,
    /// A testbed binary that is built already.
    #[arg(long)]
    testbed: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() * 1_000_000);
    let seed = args.seed.unwrap_or_else(fresh);
    let mut upstream = match &args.testbed {
        Some(binary) => Upstream::start_binary(binary)?,
        None => Upstream::start()?,
    };
    let outcome = run(&mut upstream, seed, args.cases)?;
    print!("{outcome}");
    let preemptions = preempt::run(&mut upstream, seed, args.preemptions)?;
    print!("{preemptions}");
    let thin = outcome.thin();
    thin.iter().for_each(|found| println!("hardly compared: {found}"));
    println!("{} cases, {} disagreements, seed {seed}", outcome.cases, outcome.disagreements.len());
    Ok(if outcome.agrees() && preemptions.agrees() && thin.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

//! `flowforge-bench-core`: what the scheduler's core costs, in process and without an API server: pods and gangs a second of
//! one thread's CPU time, plans of very large gangs, devices of claims, memory. A harness of its own instead of criterion, because a load is a
//! history of a cluster and not a function that is called again and again; like criterion it reports medians.

mod cluster;
mod devices;
mod memory;
mod plans;
mod rates;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// What the core costs.
#[derive(Parser)]
struct Args {
    /// What to measure.
    #[arg(value_enum, default_value = "rates")]
    what: What,
    /// Nodes; several sizes with commas. By default 5000 for rates, 16384 and 100000 for plans, 1000 for devices, 100000 for memory.
    #[arg(long, value_delimiter = ',')]
    nodes: Vec<usize>,
    /// Pods of each kind in a round (rates, devices), or in all (memory, 1000000 by default).
    #[arg(long)]
    pods: Option<usize>,
    /// Rounds; the median is shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Kinds or machines whose name holds this (rates, devices).
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Pods and gangs a second.
    Rates,
    /// The time to plan a gang of thousands, and to refuse one.
    Plans,
    /// Pods with claims a second, and what the chosen devices are worth beside the first ones.
    Devices,
    /// Peak memory with every pod bound.
    Memory,
}

impl Args {
    fn nodes_or(&self, default: &[usize]) -> Vec<usize> {
        if self.nodes.is_empty() { default.to_vec() } else { self.nodes.clone() }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.what {
        What::Rates => rates::run(&args),
        What::Plans => plans::run(&args),
        What::Devices => devices::run(&args),
        What::Memory => memory::run(&args),
    }
}

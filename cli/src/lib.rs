//! The flowforge command line: submit a workflow, watch it, ask why it waits, cancel it, read its logs, draw the cluster.
//!
//! ```text
//!   args ──> commands/* ──> cluster (the only user of the network) ──> API server
//!               │    └────> input/* (documents, parameters, checks; offline)
//!               ├─────────> snapshot (a cluster, live or written down, in the scheduler's own core)
//!               └─────────> render/* (pure: objects in, text out) ──> output (stdout)
//! ```
//! What must hold:
//! - stdout is data, everything else goes to stderr; a reader that leaves early ends the command quietly.
//! - The exit code is an answer, see [`Exit`].
//! - Every error says what would fix it where that is known.
//! - The checks of `lint` and `submit` are those of the admission webhook: both call the controller core's front end.

mod args;
mod cluster;
mod commands;
mod failure;
mod input;
mod output;
mod plain;
mod render;
mod snapshot;
#[cfg(test)]
mod testing;

use clap::Parser;
use std::process::ExitCode;

pub use failure::Exit;

use args::{Cli, Command};
use cluster::Target;
use failure::Failure;
use output::Output;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Refused } else { Exit::Success };
            // Nothing is left to do when even the usage text cannot be written.
            let _ = error.print();
            return exit.into();
        }
    };
    let mut out = Output::stdout(cli.global.color);
    match run(cli, &mut out).and_then(|exit| out.flush().map(|()| exit)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report();
            failure.exit().into()
        }
    }
}

fn run(cli: Cli, out: &mut Output) -> Result<Exit, Failure> {
    let target = Target::from(cli.global);
    match cli.command {
        Command::Lint(args) => commands::lint::run(&args, out),
        Command::Completion(args) => commands::completion::run(&args, out),
        Command::Version(args) if !args.server => commands::version::client(args.output, out),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::new(format!("cannot start the runtime: {error}")))?;
            runtime.block_on(online(command, &target, out))
        }
    }
}

/// The commands that talk to a cluster.
async fn online(command: Command, target: &Target, out: &mut Output) -> Result<Exit, Failure> {
    if let Command::Submit(args) = command {
        // Reads and checks its documents before it needs a cluster.
        return commands::submit::run(&args, target, out).await;
    }
    if let Command::Topology(args) = command {
        // The description of a network needs no cluster.
        return commands::topology::run(&args, target, out).await;
    }
    if let Command::Place(args) = command {
        // A cluster that was written down needs no other.
        return commands::place::run(&args, target, out).await;
    }
    if let Command::Explain(args) = &command
        && let Some(path) = &args.snapshot
    {
        return commands::explain::written_down(args, path, target, out);
    }
    let cluster = target.connect().await?;
    match command {
        Command::Get(args) => commands::get::run(&args, &cluster, out).await,
        Command::Watch(args) => commands::watch::run(&args.name, &cluster, out).await,
        Command::Explain(args) => commands::explain::run(&args, &cluster, out).await,
        Command::Snapshot => commands::snapshot::run(&cluster, out).await,
        Command::Approve(args) => commands::approve::run(&args, &cluster, out).await,
        Command::Rerun(args) => commands::rerun::run(&args, &cluster, out).await,
        Command::Cancel(args) => commands::cancel::run(&args, &cluster, out).await,
        Command::Logs(args) => commands::logs::run(&args, &cluster, out).await,
        Command::Version(args) => commands::version::server(args.output, &cluster, out).await,
        Command::Submit(_) | Command::Topology(_) | Command::Place(_) | Command::Lint(_) | Command::Completion(_) => {
            Ok(Exit::Success)
        }
    }
}

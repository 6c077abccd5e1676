//! `flowforge completion SHELL`.

use clap::CommandFactory as _;

use crate::args::{Cli, CompletionArgs};
use crate::failure::{Exit, Failure};
use crate::output::Output;

pub(crate) fn run(args: &CompletionArgs, out: &mut Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "flowforge", &mut script);
    out.bytes(&script)?;
    Ok(Exit::Success)
}

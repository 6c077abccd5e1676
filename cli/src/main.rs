//! Entry point of `flowforge`; everything is in the library, where it can be tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    flowforge_cli::main()
}

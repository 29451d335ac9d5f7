use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    residuum::cli::Cli::parse().run()
}

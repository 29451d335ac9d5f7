//! Commands that ask a running server: one file for each command or group of commands.
//!
//! [`server`] sends requests and [`failure`] gives errors their exit codes. What comes from a server or a model is shown
//! through [`visible`], so that it cannot give orders to a terminal. The commands know the HTTP interface and nothing of
//! the engine.

mod answers;
mod cache_filter;
mod caches_commands;
mod call;
mod compare_command;
mod download;
mod event_stream;
mod export_command;
mod failure;
mod get_command;
mod get_summary;
mod hook_summary;
mod import_command;
mod input_lines;
mod interrupt;
mod lens_command;
mod models_commands;
mod open_command;
mod output;
mod patch_command;
mod patch_table;
mod progress;
mod references;
mod run_batches;
mod run_command;
mod run_dry;
mod run_report;
mod run_stream;
mod runs_commands;
mod search_command;
mod server;
mod table;
mod token_strip;
mod tokens_command;
mod units;
mod values;
mod visible;

use std::process::ExitCode;

use clap::Subcommand;

use self::failure::Failure;

// The commands. A doc comment would replace the first line of `residuum --help`.
#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    Run(Box<run_command::Run>),
    Ps(runs_commands::Ps),
    Runs(runs_commands::Runs),
    Caches(caches_commands::Caches),
    Get(get_command::Get),
    Tokens(tokens_command::Tokens),
    Lens(lens_command::Lens),
    Compare(compare_command::Compare),
    Search(Box<search_command::Search>),
    Patch(Box<patch_command::Patch>),
    Import(Box<import_command::Import>),
    Export(Box<export_command::Export>),
    Models(models_commands::Models),
    Open(open_command::Open),
}

impl ClientCommand {
    /// Runs the command, and says on standard error why it failed. The exit code is 0; 1 for a failed run and anything
    /// unforeseen; 2 for a command line that makes no sense; 3 if something does not exist; 4 if the server refused; 5
    /// if no server answered.
    pub(super) fn run(&self) -> ExitCode {
        let done = match self {
            Self::Run(command) => command.run(),
            Self::Ps(command) => command.run(),
            Self::Runs(command) => command.run(),
            Self::Caches(command) => command.run(),
            Self::Get(command) => command.run(),
            Self::Tokens(command) => command.run(),
            Self::Lens(command) => command.run(),
            Self::Compare(command) => command.run(),
            Self::Search(command) => command.run(),
            Self::Patch(command) => command.run(),
            Self::Import(command) => command.run(),
            Self::Export(command) => command.run(),
            Self::Models(command) => command.run(),
            Self::Open(command) => command.run(),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                if !matches!(failure, Failure::BrokenPipe) {
                    eprintln!("residuum: {failure}");
                }
                ExitCode::from(failure.code())
            }
        }
    }
}

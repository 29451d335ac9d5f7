//! The command line: one module per command; those that ask a running server are in [`client`]. Most flags can also be
//! set as environment variables `RESIDUUM_…`.

mod client;
mod healthcheck;
mod keys;
mod serve;
mod upkeep;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};

use self::{
    client::ClientCommand,
    healthcheck::healthcheck,
    serve::Serve,
    upkeep::{Backup, Gc, Verify},
};
use crate::api::openapi;

/// An activation server for language models.
#[derive(Debug, Parser)]
#[command(name = "residuum", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Client(ClientCommand),
    /// Serve models and the store over HTTP.
    Serve(Box<Serve>),
    /// Print the OpenAPI specification, or compare a file with it.
    Openapi {
        /// Compare this file with the specification instead of printing; exits with 1 if they differ.
        #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "openapi.yaml")]
        check: Option<PathBuf>,
        /// The version of OpenAPI to write: 3.1, or 3.0 for generators that do not know 3.1.
        #[arg(long, value_name = "VERSION", default_value = "3.1", value_parser = ["3.1", "3.0"], conflicts_with = "check")]
        oas: String,
    },
    /// Check every stored tensor against its hash and the index; exits with 1 if anything is damaged.
    Verify(Verify),
    /// Delete what nothing refers to, rewrite blobs that are mostly dead, and merge small ones. A running server does
    /// this itself.
    Gc(Gc),
    /// Make, list and revoke API keys, also while a server uses the data folder.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Copy the data folder, also while a server uses it, and verify the copy.
    Backup(Backup),
    /// Ask a running server whether it is ready; exits with 1 if not.
    Healthcheck {
        /// Address of the server.
        #[arg(long, env = "RESIDUUM_LISTEN", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
    },
    /// Print completions for a shell. For bash: residuum completions bash > ~/.local/share/bash-completion/completions/residuum
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct DataDir {
    /// Folder of blobs and index.
    #[arg(long, env = "RESIDUUM_DATA_DIR", default_value = "./data")]
    data_dir: PathBuf,
}

impl Cli {
    /// Runs the command.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Openapi { check: Some(file), .. } => check_openapi(&file),
            Command::Openapi { check: None, oas } => {
                print!("{}", if oas == "3.0" { openapi::yaml_3_0() } else { openapi::yaml().to_owned() });
                Ok(())
            }
            Command::Verify(verify) => verify.run(),
            Command::Gc(gc) => gc.run(),
            Command::Keys(keys) => keys.run(),
            Command::Client(command) => return command.run(),
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "residuum", &mut std::io::stdout());
                Ok(())
            }
            Command::Backup(backup) => backup.run(),
            Command::Healthcheck { listen } => healthcheck(listen),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("residuum: {message}");
                ExitCode::FAILURE
            }
        }
    }
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(2))
        .enable_all()
        .build()
        .map_err(|e| format!("the async runtime could not be started: {e}"))
}

fn check_openapi(file: &std::path::Path) -> Result<(), String> {
    let found = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    if found == openapi::yaml() {
        return Ok(());
    }
    Err(format!("{0} differs from the code's specification; update it with: residuum openapi > {0}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

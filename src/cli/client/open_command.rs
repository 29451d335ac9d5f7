//! `residuum open`: the server in the browser.

use std::process::{Command, Stdio};

use clap::Args;

use super::{
    call::Call,
    failure::{Failure, Outcome},
    server::{Client, Connection},
    visible::visible,
};

/// Open the server in the browser.
#[derive(Debug, Args)]
pub(in crate::cli) struct Open {
    /// Print the address, and open nothing.
    #[arg(long)]
    print: bool,
    /// Open the reference of the API.
    #[arg(long)]
    docs: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Open {
    pub(super) fn run(&self) -> Outcome {
        let client = self.connection.open()?;
        let address = self.address(&client)?;
        client.out.line(&visible(&address))?;
        if self.print {
            return Ok(());
        }
        open(&address)
    }

    /// The dashboard; or the reference page of a server that is built without it.
    fn address(&self, client: &Client) -> Outcome<String> {
        let docs = format!("{}/docs/", client.url());
        if self.docs {
            client.done(&Call::get("/healthz"))?;
            return Ok(docs);
        }
        match client.done(&Call::get("/ui/")) {
            Ok(()) => Ok(format!("{}/ui/", client.url())),
            Err(Failure::NotFound(_)) => Ok(docs),
            Err(failure) => Err(failure),
        }
    }
}

/// Starts the browser: that of the variable BROWSER, or the system's own.
fn open(address: &str) -> Outcome {
    let named = std::env::var("BROWSER").ok().filter(|name| !name.is_empty());
    let usual = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let program = named.unwrap_or_else(|| usual.to_owned());
    let started =
        Command::new(&program).arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    started
        .map(drop)
        .map_err(|e| Failure::Other(format!("{program} could not be started ({e}): open the address yourself")))
}

//! `residuum open`: the server in the browser.

use std::process::{Command, Stdio};

use clap::Args;

use super::{
    call::{Call, segment},
    failure::{Failure, Outcome},
    references::{CACHE_HELP, cache_id},
    server::{Client, Connection},
    visible::visible,
};

/// Open the server in the browser: its dashboard, or a cache or run there.
#[derive(Debug, Args)]
#[command(after_help = format!("{CACHE_HELP}

Examples:
  residuum open                 the dashboard
  residuum open @last           the newest cache
  residuum open RUN             a run, by its id
  residuum open --docs          the reference of the API"))]
pub(in crate::cli) struct Open {
    /// The cache, or the id of a run.
    #[arg(value_name = "CACHE_OR_RUN_ID")]
    subject: Option<String>,
    /// Print the address, and open nothing.
    #[arg(long)]
    print: bool,
    /// Open the reference of the API.
    #[arg(long, conflicts_with = "subject")]
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

    /// The dashboard, or a place in it. If the server is built without it, the reference page.
    fn address(&self, client: &Client) -> Outcome<String> {
        let docs = format!("{}/docs/", client.url());
        if self.docs {
            client.done(&Call::get("/healthz"))?;
            return Ok(docs);
        }
        match (client.done(&Call::get("/ui/")), &self.subject) {
            (Ok(()), None) => Ok(format!("{}/ui/", client.url())),
            (Ok(()), Some(subject)) => Ok(format!("{}/ui/{}", client.url(), place(client, subject)?)),
            (Err(Failure::NotFound(_)), None) => Ok(docs),
            (Err(Failure::NotFound(_)), Some(_)) => Err(Failure::NotFound(format!(
                "{} was built without the dashboard, so it has no page of a cache or run",
                client.url()
            ))),
            (Err(failure), _) => Err(failure),
        }
    }
}

/// The path of a cache or run within the dashboard. Nothing in an id says which of them it is, so the server is asked.
fn place(client: &Client, subject: &str) -> Outcome<String> {
    let id = cache_id(client, subject)?;
    for kind in ["caches", "runs"] {
        let place = format!("{kind}/{}", segment(&id));
        match client.done(&Call::get(format!("/v1/{place}"))) {
            Ok(()) => return Ok(place),
            Err(Failure::NotFound(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::NotFound(format!("there is no cache and no run {}", visible(&id))))
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

//! The command line. Every flag can also be given as `RESIDUUM_…`.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use axum::http::HeaderValue;
use clap::{Args, Parser, Subcommand};

use crate::{
    api::{ApiConfig, openapi},
    app::{self, Config},
    engine::{Limits, ModelSource},
    model::LoadOptions,
    store::Store,
    telemetry::{self, LogFormat},
};

/// An activation server for language models.
#[derive(Debug, Parser)]
#[command(name = "residuum", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve models and the store over HTTP.
    Serve(Box<Serve>),
    /// Print the OpenAPI specification, or compare a file with it.
    Openapi {
        /// Compare this file with the specification instead of printing; exits with 1 if they differ.
        #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "openapi.yaml")]
        check: Option<PathBuf>,
    },
    /// Check every stored tensor against its hash and the index; exits with 1 on damage.
    Verify(DataDir),
    /// Delete what nothing refers to.
    Gc(DataDir),
    /// Ask a running server whether it is ready; exits with 1 if not.
    Healthcheck {
        /// Address of the server.
        #[arg(long, env = "RESIDUUM_LISTEN", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
    },
}

#[derive(Debug, Args)]
struct DataDir {
    /// Folder of blobs and index.
    #[arg(long, env = "RESIDUUM_DATA_DIR", default_value = "./data")]
    data_dir: PathBuf,
}

#[derive(Debug, Args)]
struct Serve {
    /// Address to listen on.
    #[arg(long, env = "RESIDUUM_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    #[command(flatten)]
    data: DataDir,
    /// A model to serve, as ID=PATH; may be repeated. PATH is a Hugging Face folder, a .gguf file or a hub name org/name.
    #[arg(long = "model", env = "RESIDUUM_MODEL", value_name = "ID=PATH", value_parser = model_source, value_delimiter = ',', required = true)]
    models: Vec<ModelSource>,
    /// Use only what is in the local hub cache.
    #[arg(long, env = "RESIDUUM_OFFLINE")]
    offline: bool,
    /// Threads for forward passes; by default the cores this process may use.
    #[arg(long, env = "RESIDUUM_THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Inputs one run may have.
    #[arg(long, env = "RESIDUUM_MAX_RUN_ITEMS", default_value_t = Limits::default().max_run_items)]
    max_run_items: usize,
    /// Bytes one run may store.
    #[arg(long, env = "RESIDUUM_MAX_RUN_BYTES", default_value_t = Limits::default().max_run_bytes)]
    max_run_bytes: u64,
    /// Inputs that may wait, over all runs.
    #[arg(long, env = "RESIDUUM_MAX_QUEUED_ITEMS", default_value_t = Limits::default().max_queued_items)]
    max_queued_items: usize,
    /// Bytes that waiting captures may take, over all runs.
    #[arg(long, env = "RESIDUUM_MAX_QUEUED_BYTES", default_value_t = Limits::default().max_queued_bytes)]
    max_queued_bytes: u64,
    /// Inputs of one client that may wait.
    #[arg(long, env = "RESIDUUM_MAX_CLIENT_ITEMS", default_value_t = Limits::default().max_client_items)]
    max_client_items: usize,
    /// Bytes that the waiting captures of one client may take.
    #[arg(long, env = "RESIDUUM_MAX_CLIENT_BYTES", default_value_t = Limits::default().max_client_bytes)]
    max_client_bytes: u64,
    /// Bytes of a request body.
    #[arg(long, env = "RESIDUUM_MAX_BODY_BYTES", default_value_t = ApiConfig::default().max_body_bytes)]
    max_body_bytes: usize,
    /// Elements of a tensor answered as JSON.
    #[arg(long, env = "RESIDUUM_MAX_JSON_ELEMENTS", default_value_t = ApiConfig::default().max_json_elements)]
    max_json_elements: usize,
    /// An origin whose pages may call this server; may be repeated, `*` for any.
    #[arg(long = "cors-origin", env = "RESIDUUM_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    cors_origins: Vec<HeaderValue>,
    /// How log lines are written.
    #[arg(long, env = "RESIDUUM_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// What is logged: a level, or a filter such as `residuum=debug,warn`.
    #[arg(long, env = "RESIDUUM_LOG", default_value = "info")]
    log: String,
}

fn model_source(text: &str) -> Result<ModelSource, String> {
    let (id, path) = text.split_once('=').ok_or("write it as ID=PATH, for example smollm2-135m=models/SmolLM2.gguf")?;
    let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if id.is_empty() || id.len() > 100 || !id.chars().all(valid) || path.is_empty() {
        return Err("an id has letters, digits, dots, dashes and underscores, and a path follows it".to_owned());
    }
    Ok(ModelSource { id: id.to_owned(), path: path.into() })
}

impl Cli {
    /// Carries the command out.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Openapi { check: None } => {
                print!("{}", openapi::yaml());
                Ok(())
            }
            Command::Openapi { check: Some(file) } => check_openapi(&file),
            Command::Verify(DataDir { data_dir }) => verify(&data_dir),
            Command::Gc(DataDir { data_dir }) => gc(&data_dir),
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

impl Serve {
    fn run(self) -> Result<(), String> {
        telemetry::start_logging(self.log_format, &self.log).map_err(|e| format!("--log {}: {e}", self.log))?;
        if let Some(twice) =
            self.models.iter().enumerate().find(|(i, m)| self.models[..*i].iter().any(|o| o.id == m.id))
        {
            return Err(format!("--model {} is given twice", twice.1.id));
        }
        let threads = self.threads.map_or_else(cores, usize::from);
        // First of all: left alone, rayon asks the machine and not what this process may use.
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("compute-{i}")).build_global();
        pool.map_err(|e| format!("the compute threads could not be started: {e}"))?;
        let config = Config {
            listen: self.listen,
            data_dir: self.data.data_dir,
            models: self.models,
            load: LoadOptions { offline: self.offline, ..LoadOptions::default() },
            limits: Limits {
                max_run_items: self.max_run_items,
                max_run_bytes: self.max_run_bytes,
                max_queued_items: self.max_queued_items,
                max_queued_bytes: self.max_queued_bytes,
                max_client_items: self.max_client_items,
                max_client_bytes: self.max_client_bytes,
            },
            api: ApiConfig {
                max_body_bytes: self.max_body_bytes,
                max_json_elements: self.max_json_elements,
                cors_origins: self.cors_origins,
            },
            threads,
        };
        runtime(threads)?.block_on(app::serve(config, stop_signal())).map_err(|e| e.to_string())
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(2))
        .enable_all()
        .build()
        .map_err(|e| format!("the async runtime could not be started: {e}"))
}

/// Resolves at the first SIGINT or SIGTERM.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("signals cannot be received; stop the server by killing it");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn check_openapi(file: &std::path::Path) -> Result<(), String> {
    let found = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    if found == openapi::yaml() {
        return Ok(());
    }
    Err(format!("{0} is not what the code says; write it anew with: residuum openapi > {0}", file.display()))
}

fn verify(data_dir: &std::path::Path) -> Result<(), String> {
    let report = runtime(1)?.block_on(async {
        let store = Store::open_read_only(data_dir).await?;
        store.verify().await
    });
    let report = report.map_err(|e| e.to_string())?;
    println!("{report}");
    if report.is_clean() { Ok(()) } else { Err("the data folder is damaged".to_owned()) }
}

fn gc(data_dir: &std::path::Path) -> Result<(), String> {
    let report = runtime(1)?.block_on(async {
        let store = Store::open(data_dir).await?;
        let report = store.gc().await;
        store.close().await;
        report
    });
    println!("{}", report.map_err(|e| e.to_string())?);
    Ok(())
}

/// One plain request: the binary is the only program in its container.
fn healthcheck(listen: SocketAddr) -> Result<(), String> {
    use std::{
        io::{Read, Write},
        net::{IpAddr, Ipv4Addr, TcpStream},
        time::Duration,
    };
    let ip = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
    let address = SocketAddr::new(ip, listen.port());
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    };
    match ask() {
        Ok(head) if head.ends_with(" 200") => Ok(()),
        Ok(head) => Err(format!("{address} is not ready: {head}")),
        Err(e) => Err(format!("{address} does not answer: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn models_are_named_id_and_path() {
        let source = model_source("smollm2-135m=models/a=b.gguf").unwrap();
        assert_eq!((source.id.as_str(), source.path.to_str()), ("smollm2-135m", Some("models/a=b.gguf")));
        for bad in ["x", "=p", "a b=p", "x=", "a/b=p"] {
            assert!(model_source(bad).is_err(), "{bad}");
        }
    }
}

//! `residuum serve`: the server's flags, and how they become a [`Config`].

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use axum::http::HeaderValue;
use clap::Args;

use super::{DataDir, runtime};
use crate::{
    api::ApiConfig,
    app::{self, Config},
    connections::ConnectionLimits,
    telemetry::{self, LogFormat},
};
use residuum_domain::ids::{ID_RULE, is_id};
use residuum_engine::{Limits, ModelSource, SaeSource};
use residuum_model::{ComputeDtype, LoadOptions, Placements};
use residuum_store::{Compaction, Maintenance, Quota};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Address to listen on.
    #[arg(long, env = "RESIDUUM_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    #[command(flatten)]
    data: DataDir,
    /// A model to serve, as ID=PATH; may be repeated. PATH is a Hugging Face folder, a .gguf file or a hub name org/name.
    /// Others can be loaded while the server runs: see --models-dir.
    #[arg(long = "model", env = "RESIDUUM_MODEL", value_name = "ID=PATH", value_parser = model_source, value_delimiter = ',')]
    models: Vec<ModelSource>,
    /// A sparse autoencoder of a model, as ID=MODEL:PATH; may be repeated. PATH is a folder in SAELens format: cfg.json
    /// and sae_weights.safetensors.
    #[arg(long = "sae", env = "RESIDUUM_SAE", value_name = "ID=MODEL:PATH", value_parser = sae_source, value_delimiter = ',')]
    saes: Vec<SaeSource>,
    /// Folder from which requests may load models and autoencoders while the server runs (POST /v1/models).
    #[arg(long, env = "RESIDUUM_MODELS_DIR", value_name = "DIR")]
    models_dir: Option<PathBuf>,
    /// Let requests load models from the hub while the server runs.
    #[arg(long, env = "RESIDUUM_ALLOW_HUB")]
    allow_hub: bool,
    /// Do not load again what was loaded while the server ran before.
    #[arg(long, env = "RESIDUUM_NO_RESTORE")]
    no_restore: bool,
    /// Do not download from the hub: use only its local cache.
    #[arg(long, env = "RESIDUUM_OFFLINE")]
    offline: bool,
    /// Device for forward passes: cpu; cuda or cuda:1, an NVIDIA GPU by its number (builds with --features cuda); metal
    /// (builds with --features metal); or candle-cpu, which runs the GPU code on the CPU, to check it. Separate several
    /// GPUs with commas: cuda:0,cuda:1. Each then holds every model and takes batches from the same queue.
    #[arg(long, env = "RESIDUUM_DEVICE", value_name = "DEVICE", default_value_t)]
    device: Placements,
    /// Type of matrix products with weights on a GPU: float32, bfloat16 or float16; by default that of the checkpoint,
    /// or float32. The CPU always computes in float32.
    #[arg(long, env = "RESIDUUM_COMPUTE_DTYPE", value_name = "DTYPE")]
    compute_dtype: Option<ComputeDtype>,
    /// Threads for forward passes; by default the number of cores this process may use.
    #[arg(long, env = "RESIDUUM_THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Maximum number of inputs of one run.
    #[arg(long, env = "RESIDUUM_MAX_RUN_ITEMS", default_value_t = Limits::default().max_run_items)]
    max_run_items: usize,
    /// Maximum number of tokens of one run, including those to be generated.
    #[arg(long, env = "RESIDUUM_MAX_RUN_TOKENS", default_value_t = Limits::default().max_run_tokens)]
    max_run_tokens: usize,
    /// Maximum number of bytes that one run may store.
    #[arg(long, env = "RESIDUUM_MAX_RUN_BYTES", default_value_t = Limits::default().max_run_bytes)]
    max_run_bytes: u64,
    /// Maximum number of inputs waiting in the queue, over all runs.
    #[arg(long, env = "RESIDUUM_MAX_QUEUED_ITEMS", default_value_t = Limits::default().max_queued_items)]
    max_queued_items: usize,
    /// Maximum number of bytes that the captures of all waiting runs will store.
    #[arg(long, env = "RESIDUUM_MAX_QUEUED_BYTES", default_value_t = Limits::default().max_queued_bytes)]
    max_queued_bytes: u64,
    /// Maximum number of bytes that blobs and index may take on the disk; by default the whole disk.
    #[arg(long, env = "RESIDUUM_MAX_STORE_BYTES")]
    max_store_bytes: Option<u64>,
    /// When --max-store-bytes is reached, delete the oldest caches that are not pinned instead of refusing new runs.
    #[arg(long, env = "RESIDUUM_EVICT_OLDEST", requires = "max_store_bytes")]
    evict_oldest: bool,
    /// Maximum number of inputs of one client waiting in the queue.
    #[arg(long, env = "RESIDUUM_MAX_CLIENT_ITEMS", default_value_t = Limits::default().max_client_items)]
    max_client_items: usize,
    /// Maximum number of bytes that the captures of one client's waiting runs will store.
    #[arg(long, env = "RESIDUUM_MAX_CLIENT_BYTES", default_value_t = Limits::default().max_client_bytes)]
    max_client_bytes: u64,
    /// Maximum size of a request body, in bytes.
    #[arg(long, env = "RESIDUUM_MAX_BODY_BYTES", default_value_t = ApiConfig::default().max_body_bytes)]
    max_body_bytes: usize,
    /// Bytes of memory for receiving and parsing request bodies, over all requests; when it is used up, requests wait
    /// or get 503.
    #[arg(long, env = "RESIDUUM_MAX_REQUEST_MEMORY", default_value_t = ApiConfig::default().max_request_memory)]
    max_request_memory: u64,
    /// Maximum size of an imported file, in bytes. It is not held in memory.
    #[arg(long, env = "RESIDUUM_MAX_IMPORT_BYTES", default_value_t = ApiConfig::default().max_import_bytes)]
    max_import_bytes: u64,
    /// Maximum number of elements of a tensor in a JSON response.
    #[arg(long, env = "RESIDUUM_MAX_JSON_ELEMENTS", default_value_t = ApiConfig::default().max_json_elements)]
    max_json_elements: usize,
    /// Maximum time between the last byte of a request and the start of its response, in seconds; the seconds of
    /// `?wait=` are added.
    #[arg(long, env = "RESIDUUM_REQUEST_TIMEOUT", value_name = "SECONDS", default_value_t = ApiConfig::default().request_timeout.as_secs(), value_parser = clap::value_parser!(u64).range(1..))]
    request_timeout: u64,
    /// Maximum number of connections at one time; further ones wait. Each takes a file descriptor.
    #[arg(long, env = "RESIDUUM_MAX_CONNECTIONS", default_value_t = ConnectionLimits::default().max_connections)]
    max_connections: usize,
    /// Listen on other addresses than loopback even if the store has no API keys: anyone who can reach the port can do
    /// everything.
    #[arg(long, env = "RESIDUUM_ALLOW_UNAUTHENTICATED")]
    allow_unauthenticated: bool,
    /// Maximum rate at which merging of small blobs may copy, in bytes per second. 0 turns off merging of blobs and of
    /// FTS5 segments, and deleted activations stay on the disk.
    #[arg(long, env = "RESIDUUM_MERGE_RATE", default_value_t = 32 << 20)]
    merge_rate: u64,
    /// Seconds between two rounds of upkeep, each of which merges small blobs and FTS5 segments; every sixtieth round
    /// also deletes what nothing refers to.
    #[arg(long, env = "RESIDUUM_UPKEEP_INTERVAL", default_value_t = 10.0, value_parser = seconds)]
    upkeep_interval: f64,
    /// A host name, with or without a port, that a server without API keys accepts in the Host header, besides those of
    /// this machine; may be repeated.
    #[arg(long, env = "RESIDUUM_ALLOWED_HOSTS", value_name = "HOST", value_delimiter = ',')]
    allowed_hosts: Vec<String>,
    /// An origin whose web pages may call this server; may be repeated, `*` for any.
    #[arg(long = "cors-origin", env = "RESIDUUM_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    cors_origins: Vec<HeaderValue>,
    /// Format of log lines.
    #[arg(long, env = "RESIDUUM_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// What is logged: a level, or a filter such as `residuum=debug,warn`.
    #[arg(long, env = "RESIDUUM_LOG", default_value = "info")]
    log: String,
}

fn model_source(text: &str) -> Result<ModelSource, String> {
    let (id, path) = text.split_once('=').ok_or("write it as ID=PATH, for example smollm2-135m=models/SmolLM2.gguf")?;
    if !is_id(id) || path.is_empty() {
        return Err(format!("{ID_RULE}, and a path follows it"));
    }
    Ok(ModelSource { id: id.to_owned(), path: path.into() })
}

fn sae_source(text: &str) -> Result<SaeSource, String> {
    let parts = text.split_once('=').and_then(|(id, rest)| Some((id, rest.split_once(':')?)));
    let (id, (model, path)) =
        parts.ok_or("write it as ID=MODEL:PATH, for example res-12=smollm2-135m:saes/layer_12")?;
    if !is_id(id) || !is_id(model) || path.is_empty() {
        return Err(format!("{ID_RULE}, and a model and a path follow it"));
    }
    Ok(SaeSource { id: id.to_owned(), model: model.to_owned(), path: path.into() })
}

impl Serve {
    /// Serves until it is told to stop.
    pub(super) fn run(self) -> Result<(), String> {
        telemetry::start_logging(self.log_format, &self.log).map_err(|e| format!("--log {}: {e}", self.log))?;
        if let Some(twice) =
            self.models.iter().enumerate().find(|(i, m)| self.models[..*i].iter().any(|o| o.id == m.id))
        {
            return Err(format!("--model {} is given twice", twice.1.id));
        }
        check_saes(&self.saes, &self.models)?;
        let threads = self.threads.map_or_else(cores, usize::from);
        // Before anything uses rayon: by default it starts a thread for each core of the machine, even if this process
        // may use fewer.
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("compute-{i}")).build_global();
        pool.map_err(|e| format!("the compute threads could not be started: {e}"))?;
        let config = Config {
            listen: self.listen,
            data_dir: self.data.data_dir,
            models: self.models,
            saes: self.saes,
            load: LoadOptions {
                offline: self.offline,
                placements: self.device,
                compute_dtype: self.compute_dtype,
                ..LoadOptions::default()
            },
            models_dir: self.models_dir,
            allow_hub: self.allow_hub,
            no_restore: self.no_restore,
            limits: Limits {
                max_run_items: self.max_run_items,
                max_run_tokens: self.max_run_tokens,
                max_run_bytes: self.max_run_bytes,
                max_queued_items: self.max_queued_items,
                max_queued_bytes: self.max_queued_bytes,
                quota: self.max_store_bytes.map(|max_bytes| Quota { max_bytes, evict_oldest: self.evict_oldest }),
                max_client_items: self.max_client_items,
                max_client_bytes: self.max_client_bytes,
                ..Limits::default()
            },
            api: ApiConfig {
                max_body_bytes: self.max_body_bytes,
                max_import_bytes: self.max_import_bytes,
                max_request_memory: self.max_request_memory,
                max_json_elements: self.max_json_elements,
                allowed_hosts: self.allowed_hosts,
                any_address: !self.listen.ip().is_loopback(),
                cors_origins: self.cors_origins,
                request_timeout: Duration::from_secs(self.request_timeout),
                ..ApiConfig::default()
            },
            connections: ConnectionLimits { max_connections: self.max_connections, ..ConnectionLimits::default() },
            allow_unauthenticated: self.allow_unauthenticated,
            maintenance: Maintenance {
                interval: Duration::from_secs_f64(self.upkeep_interval),
                compaction: (self.merge_rate > 0)
                    .then(|| Compaction { bytes_per_second: Some(self.merge_rate), ..Compaction::default() }),
            },
            threads,
        };
        runtime(threads)?.block_on(app::serve(config, stop_signal())).map_err(|e| e.to_string())
    }
}

fn check_saes(saes: &[SaeSource], models: &[ModelSource]) -> Result<(), String> {
    for (i, sae) in saes.iter().enumerate() {
        if saes[..i].iter().any(|other| other.id == sae.id) {
            return Err(format!("--sae {} is given twice", sae.id));
        }
        if !models.iter().any(|model| model.id == sae.model) {
            return Err(format!("--sae {} names the model {}, but no --model has this id", sae.id, sae.model));
        }
    }
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
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

/// Parses a time between two rounds of upkeep.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    if (0.05..=86400.0).contains(&seconds) { Ok(seconds) } else { Err("between 0.05 and 86400".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upkeep_interval_is_bounded() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for bad in ["0", "-1", "NaN", "inf", "x", "1e9"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_model_is_given_as_id_and_path() {
        let source = model_source("smollm2-135m=models/a=b.gguf").unwrap();
        assert_eq!((source.id.as_str(), source.path.to_str()), ("smollm2-135m", Some("models/a=b.gguf")));
        for bad in ["x", "=p", "a b=p", "x=", "a/b=p"] {
            assert!(model_source(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_autoencoder_is_given_with_its_model() {
        let source = sae_source("res-12=smollm2-135m:saes/a:b=c").unwrap();
        let found = (source.id.as_str(), source.model.as_str(), source.path.to_str());
        assert_eq!(found, ("res-12", "smollm2-135m", Some("saes/a:b=c")));
        for bad in ["x", "x=p", "x=:p", "x=m:", "=m:p", "x y=m:p"] {
            assert!(sae_source(bad).is_err(), "{bad}");
        }
        let models = [ModelSource { id: "smollm2-135m".to_owned(), path: "p".into() }];
        assert!(check_saes(std::slice::from_ref(&source), &models).is_ok());
        assert!(check_saes(std::slice::from_ref(&source), &[]).unwrap_err().contains("smollm2-135m"));
        assert!(check_saes(&[source.clone(), source], &models).unwrap_err().contains("twice"));
    }
}

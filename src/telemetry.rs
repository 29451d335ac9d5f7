//! Logs and metrics of the process. The table `METRICS` declares every metric; other modules only set the values.

use std::{io::IsTerminal, sync::OnceLock};

use clap::ValueEnum;
use metrics::Label;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use residuum_domain::{Code, Priority, WarningCode};
use residuum_engine::serving::shelf::STATES;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. `filter` is a tracing filter such as `info` or `residuum=debug`.
///
/// # Errors
/// If the filter is malformed.
pub fn start_logging(format: LogFormat, filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(filter)?;
    let layer = match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colours).boxed()
        }
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
    };
    // Tests start it several times in one process; the first start wins.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
    Ok(())
}

/// Bucket bounds of durations, in seconds: from a query of the index to a request that waits for its run.
const SECONDS: [f64; 17] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Bucket bounds of items of a batch.
const ITEMS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// Bucket bounds of tokens of a batch.
const TOKENS: [f64; 10] = [8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

/// Type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Every metric of this server: its type, its name, the series that exist from the start, and its help text.
/// `docs/METRICS.md` has the same list.
const METRICS: &[(Kind, &str, Labels, &str)] = {
    use Kind::{Counter, Gauge, Histogram};
    use Labels::{Bounds, Codes, Later, None, Priorities, States, Version, Warnings};
    &[
        (Gauge, "residuum_build_info", Version, "1, with the version of the server."),
        (
            Gauge,
            "residuum_ready",
            None,
            "1 while the server accepts new runs: every model that its flags name is loaded and the server is not stopping.",
        ),
        (Counter, "residuum_http_requests_total", Later, "Requests answered, by route, method and status."),
        (
            Histogram,
            "residuum_http_seconds",
            Later,
            "Seconds until the response to a request started, by route and method.",
        ),
        (Gauge, "residuum_http_in_flight", None, "Requests being answered."),
        (Counter, "residuum_errors_total", Codes, "Problems answered, by code."),
        (
            Counter,
            "residuum_warnings_total",
            Warnings,
            "Warnings about models and autoencoders when they were loaded, by kind and code.",
        ),
        (
            Gauge,
            "residuum_models",
            States,
            "Models by status. `failed` are those that requests asked for and that could not be loaded.",
        ),
        (Gauge, "residuum_saes", States, "Sparse autoencoders by status."),
        (Counter, "residuum_runs_total", None, "Runs accepted."),
        (Gauge, "residuum_queue_items", Priorities, "Inputs waiting in the queue, by priority."),
        (Gauge, "residuum_queue_oldest_seconds", Priorities, "Age of the oldest run with inputs waiting, by priority."),
        (
            Gauge,
            "residuum_queue_bytes",
            None,
            "Maximum bytes that the captures of waiting inputs will take in the store.",
        ),
        (
            Gauge,
            "residuum_queue_followers",
            None,
            "Inputs waiting for another input whose forward pass gives their activations too.",
        ),
        (
            Counter,
            "residuum_queue_refused_total",
            Bounds,
            "Runs refused because the queue was full, by the bound that was reached.",
        ),
        (Gauge, "residuum_in_flight_items", None, "Inputs being computed, continued or stored now."),
        (Histogram, "residuum_batch_items", None, "Inputs of a batch."),
        (Histogram, "residuum_batch_tokens", None, "Tokens of a batch."),
        (Histogram, "residuum_batch_seconds", None, "Seconds that a batch took on a worker, including writing."),
        (Counter, "residuum_batches_split_total", None, "Batches that failed and were tried again in smaller batches."),
        (Counter, "residuum_worker_panics_total", None, "Panics on worker threads. The threads continue afterwards."),
        (Counter, "residuum_tokens_total", None, "Tokens of inputs that were captured by a forward pass."),
        (Gauge, "residuum_tokens_per_second", None, "Tokens per second of recent batches."),
        (Counter, "residuum_tokens_generated_total", None, "Tokens generated."),
        (Gauge, "residuum_generating_sequences", None, "Inputs being continued now."),
        (Counter, "residuum_items_captured_total", None, "Inputs captured by a forward pass."),
        (Counter, "residuum_items_reused_total", None, "Inputs answered from the store without a forward pass."),
        (Counter, "residuum_items_copied_total", None, "Reused inputs whose rows were copied out of a larger capture."),
        (Counter, "residuum_items_failed_total", None, "Inputs that failed."),
        (Counter, "residuum_caches_expired_total", None, "Caches deleted because they expired."),
        (Counter, "residuum_caches_evicted_total", None, "Caches deleted to keep the store within --max-store-bytes."),
        (Counter, "residuum_experiments_total", None, "Experiments started."),
        (Gauge, "residuum_experiments_running", None, "Experiments running now."),
        (Gauge, "residuum_experiments_waiting", None, "Experiments waiting for their turn."),
        (
            Histogram,
            "residuum_commit_seconds",
            None,
            "Seconds until a batch of ended inputs was durable in the index, including time in the writer's queue.",
        ),
        (Gauge, "residuum_store_runs", None, "Runs in the index, including ended ones."),
        (Gauge, "residuum_store_pending_items", None, "Inputs in the index that have not ended."),
        (Gauge, "residuum_store_caches", None, "Caches in the index."),
        (
            Gauge,
            "residuum_store_extents",
            None,
            "Extents in the index; fewer than caches if some activations were reused.",
        ),
        (Gauge, "residuum_store_packs", None, "Blob files."),
        (Gauge, "residuum_store_blob_bytes", None, "Bytes of the blob files."),
        (Gauge, "residuum_store_unknown_blobs", None, "Blobs in the folder `unknown`, which are not in the index."),
        (Gauge, "residuum_store_disk_bytes", None, "Bytes of blobs, including those being written, and of the index."),
        (Gauge, "residuum_store_max_bytes", None, "Value of --max-store-bytes; +Inf without it."),
        (Gauge, "process_resident_memory_bytes", None, "Memory of the process that is in RAM. Linux only."),
        (Gauge, "process_open_fds", None, "Open file descriptors. Linux only."),
    ]
};

/// Which series of a metric exist from the start, with the value 0. If a series began with its first event, Prometheus
/// would not see that event as an increase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Labels {
    /// The only series, without labels.
    None,
    /// None: label values become known with the first event.
    Later,
    /// One per priority.
    Priorities,
    /// One per problem code.
    Codes,
    /// One per bound of the queue.
    Bounds,
    /// One per state of a model or autoencoder.
    States,
    /// One, with the version of the server.
    Version,
    /// One per kind (model, sae) and warning code.
    Warnings,
}

impl Labels {
    fn known(self) -> Vec<Vec<Label>> {
        let each = |name: &'static str, values: &mut dyn Iterator<Item = &'static str>| {
            values.map(|value| vec![Label::from_static_parts(name, value)]).collect()
        };
        match self {
            Self::None => vec![Vec::new()],
            Self::Later => Vec::new(),
            Self::Priorities => each("priority", &mut Priority::ALL.into_iter().map(Priority::name)),
            Self::Codes => each("code", &mut Code::ALL.iter().map(|code| code.name())),
            Self::Bounds => each("bound", &mut ["client", "total"].into_iter()),
            Self::States => each("status", &mut STATES.into_iter()),
            Self::Warnings => {
                let of = |kind, code: &WarningCode| {
                    vec![Label::from_static_parts("kind", kind), Label::from_static_parts("code", code.name())]
                };
                let kinds = ["model", "sae"].into_iter();
                kinds.flat_map(|kind| WarningCode::ALL.iter().map(move |code| of(kind, code))).collect()
            }
            Self::Version => each("version", &mut [env!("CARGO_PKG_VERSION")].into_iter()),
        }
    }
}

/// The metrics of this process. The first call installs the recorder; all calls return the same handle.
///
/// # Panics
/// If something else in the process has installed a recorder.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let install = || {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_items".to_owned()), &ITEMS))
            .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_tokens".to_owned()), &TOKENS));
        let handle =
            builder.expect("the buckets are not empty").install_recorder().expect("no other recorder is installed");
        METRICS.iter().for_each(register);
        metrics::gauge!("residuum_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        handle
    };
    HANDLE.get_or_init(install).clone()
}

fn register((kind, name, labels, help): &(Kind, &'static str, Labels, &'static str)) {
    let name = *name;
    match kind {
        Kind::Counter => metrics::describe_counter!(name, *help),
        Kind::Gauge => metrics::describe_gauge!(name, *help),
        Kind::Histogram => metrics::describe_histogram!(name, *help),
    }
    for labels in labels.known() {
        match kind {
            Kind::Counter => metrics::counter!(name, labels).increment(0),
            Kind::Gauge => metrics::gauge!(name, labels).increment(0.0),
            Kind::Histogram => drop(metrics::histogram!(name, labels)),
        }
    }
}

/// Updates memory and file descriptor gauges, on systems that have `/proc`.
#[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
pub fn observe_process() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = |line: &str| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
    if let Some(kibibytes) = status.lines().find_map(resident) {
        metrics::gauge!("process_resident_memory_bytes").set((kibibytes * 1024) as f64);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(files.count() as f64);
    }
}

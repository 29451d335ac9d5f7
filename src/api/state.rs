//! Settings of the HTTP API, and what all handlers share.

use std::{sync::Arc, time::Duration};

use axum::http::HeaderValue;
use metrics_exporter_prometheus::PrometheusHandle;

use super::{key_ring::KeyRing, memory::RequestMemory, pace::BodyRate, readiness::Readiness};
use residuum_engine::{Engine, questions::Questions, serving::Serving};

/// Settings of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Maximum bytes of a request body.
    pub max_body_bytes: usize,
    /// Maximum bytes of an imported file.
    pub max_import_bytes: u64,
    /// Bytes of memory for receiving and parsing the bodies of all requests.
    pub max_request_memory: u64,
    /// Maximum elements of a tensor in a JSON response.
    pub max_json_elements: usize,
    /// Origins whose pages may call this server; empty: none, `*`: any.
    pub cors_origins: Vec<HeaderValue>,
    /// Names, with or without a port, that a server without keys accepts in `Host`, besides those of this machine.
    pub allowed_hosts: Vec<String>,
    /// Whether a server without keys accepts any IP address in `Host`, not only loopback addresses.
    pub any_address: bool,
    /// Maximum time between the last byte of a request and the start of its response; `?wait=` is added.
    pub request_timeout: Duration,
    /// How slowly a body may arrive.
    pub body_rate: BodyRate,
    /// Maximum age of cached API keys and of the cached result of a test write.
    pub freshness: Duration,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            max_import_bytes: 16 << 30,
            max_request_memory: 2 << 30,
            max_json_elements: 4_000_000,
            cors_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            any_address: false,
            request_timeout: Duration::from_secs(600),
            body_rate: BodyRate::default(),
            freshness: Duration::from_millis(500),
        }
    }
}

/// What handlers share; clones are cheap.
#[derive(Clone)]
pub struct ApiState {
    /// Runs, models and the store.
    pub engine: Engine,
    /// Computes from stored activations.
    pub questions: Questions,
    /// Loads and unloads models and autoencoders.
    pub serving: Serving,
    /// Settings.
    pub config: Arc<ApiConfig>,
    /// API keys.
    pub keys: Arc<KeyRing>,
    /// Memory for request bodies.
    pub memory: RequestMemory,
    /// Whether the store can be written to.
    pub readiness: Arc<Readiness>,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// When this server started.
    pub started: jiff::Timestamp,
}

impl ApiState {
    /// The state of one server.
    #[must_use]
    pub fn new(questions: Questions, serving: Serving, config: ApiConfig, metrics: PrometheusHandle) -> Self {
        let engine = questions.engine().clone();
        let keys = Arc::new(KeyRing::new(engine.store().clone(), config.freshness));
        let memory = RequestMemory::new(config.max_request_memory);
        let readiness = Arc::new(Readiness::new(config.freshness));
        let started = jiff::Timestamp::now();
        Self { engine, questions, serving, config: Arc::new(config), keys, memory, readiness, metrics, started }
    }
}

//! What handlers share.

use std::{sync::Arc, time::Duration};

use axum::http::HeaderValue;
use metrics_exporter_prometheus::PrometheusHandle;

use super::{key_ring::KeyRing, memory::RequestMemory, pace::Patience, readiness::Readiness};
use residuum_engine::{Engine, questions::Questions};

/// Settings of the HTTP side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Bytes of a request body.
    pub max_body_bytes: usize,
    /// Bytes of an imported file.
    pub max_import_bytes: u64,
    /// Bytes of memory that reading the bodies of all requests under way may take.
    pub max_request_memory: u64,
    /// Elements of a tensor answered as JSON.
    pub max_json_elements: usize,
    /// Origins whose pages may call this server; empty: none, `*`: any.
    pub cors_origins: Vec<HeaderValue>,
    /// Names, with or without a port, by which a server without keys may be asked, beside those of this machine.
    pub allowed_hosts: Vec<String>,
    /// Whether a server without keys may be asked by any address, and not by those of loopback alone.
    pub any_address: bool,
    /// Time until an answer begins, counted from the last byte of the request; `?wait=` comes on top.
    pub request_timeout: Duration,
    /// How slowly a body may arrive.
    pub patience: Patience,
    /// How old that may be which is known of keys, and of whether the store can be written to.
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
            patience: Patience::default(),
            freshness: Duration::from_millis(500),
        }
    }
}

/// What handlers share; clones are cheap.
#[derive(Clone)]
pub struct ApiState {
    /// Runs, models and, through it, the store.
    pub engine: Engine,
    /// What is computed at once.
    pub questions: Questions,
    /// Settings.
    pub config: Arc<ApiConfig>,
    /// Who may call.
    pub keys: Arc<KeyRing>,
    /// What requests may take of memory.
    pub memory: RequestMemory,
    /// Whether the store can be written to.
    pub readiness: Arc<Readiness>,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
}

impl ApiState {
    /// What the handlers of one server share.
    #[must_use]
    pub fn new(questions: Questions, config: ApiConfig, metrics: PrometheusHandle) -> Self {
        let engine = questions.engine().clone();
        let keys = Arc::new(KeyRing::new(engine.store().clone(), config.freshness));
        let memory = RequestMemory::new(config.max_request_memory);
        let readiness = Arc::new(Readiness::new(config.freshness));
        Self { engine, questions, config: Arc::new(config), keys, memory, readiness, metrics }
    }
}

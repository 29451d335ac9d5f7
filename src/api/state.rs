//! What handlers share.

use std::sync::Arc;

use axum::http::HeaderValue;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    domain::{Code, Problem},
    engine::{Engine, Saes},
};

/// Settings of the HTTP side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Bytes of a request body.
    pub max_body_bytes: usize,
    /// Elements of a tensor answered as JSON.
    pub max_json_elements: usize,
    /// Origins whose pages may call this server; empty: none, `*`: any.
    pub cors_origins: Vec<HeaderValue>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { max_body_bytes: 32 << 20, max_json_elements: 4_000_000, cors_origins: Vec::new() }
    }
}

/// What handlers share; clones are cheap.
#[derive(Clone)]
pub struct ApiState {
    /// Runs, models and, through it, the store.
    pub engine: Engine,
    /// The sparse autoencoders beside the models.
    pub saes: Arc<Saes>,
    /// Settings.
    pub config: Arc<ApiConfig>,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// Threads for analysis, apart from the worker's, so that a comparison never slows a forward pass down to its own pace.
    pub analysis: Arc<rayon::ThreadPool>,
}

impl ApiState {
    /// Runs heavy work on the threads for analysis. It may read the store.
    ///
    /// # Errors
    /// Those of the work, and [`Code::Internal`] when it panicked.
    pub async fn analyse<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let pool = Arc::clone(&self.analysis);
        let done = tokio::task::spawn_blocking(move || pool.install(work)).await;
        done.unwrap_or_else(|e| {
            tracing::error!(error = %e, "an analysis panicked");
            Err(Problem::new(Code::Internal, "the analysis could not be carried out"))
        })
    }
}

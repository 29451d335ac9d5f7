//! The index, liveness, readiness, metrics and the specification.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Redirect, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::ApiResult,
    extract::{NoQuery, Query},
    openapi,
    problems::{QueryProblems, ReadyProblems},
    state::ApiState,
    tensor::accepted,
};
use crate::telemetry;
use residuum_domain::{Code, Problem};

/// What this server is, and where to go on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "name": "residuum", "version": "0.1.0", "ui": "/ui/", "docs": "/docs/", "openapi": "/openapi.json",
    "models": "/v1/models", "health": "/healthz", "readiness": "/readyz"
}))]
pub struct ServerIndex {
    /// Always `residuum`.
    #[schema(example = "residuum")]
    name: &'static str,
    /// Version of the server.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// Path of the dashboard; left out if the server was built without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    ui: Option<&'static str>,
    /// Path of the reference page.
    docs: &'static str,
    /// Path of the specification.
    openapi: &'static str,
    /// Path of the list of models.
    models: &'static str,
    /// Path that answers while the process is alive.
    health: &'static str,
    /// Path that answers 200 once the server is ready.
    readiness: &'static str,
}

const INDEX: ServerIndex = ServerIndex {
    name: "residuum",
    version: OK.version,
    ui: DASHBOARD,
    docs: DOCS,
    openapi: "/openapi.json",
    models: "/v1/models",
    health: "/healthz",
    readiness: "/readyz",
};

/// The dashboard, if the server was built with it.
const DASHBOARD: Option<&str> = if cfg!(feature = "ui") { Some("/ui/") } else { None };

/// The reference page.
const DOCS: &str = "/docs/";

/// The server is alive.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"status": "ok", "version": "0.1.0"}))]
pub struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Version of the server.
    #[schema(example = "0.1.0")]
    version: &'static str,
}

/// The server accepts and computes runs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"status": "ok", "version": "0.1.0", "n_unknown_blobs": 0, "notes": []}))]
pub struct Ready {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Version of the server.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// Number of blobs that are not in the index of the store. They are kept in the folder `unknown`.
    #[schema(example = 0)]
    n_unknown_blobs: u64,
    /// What the operator should look at, although the server works.
    #[schema(example = json!([]))]
    notes: Vec<String>,
}

const OK: Health = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };

/// What is here
///
/// Name, version and the most important paths. A browser, which asks for HTML rather than JSON, is sent to the dashboard,
/// or to the reference page if the server was built without it.
#[utoipa::path(
    get, path = "/", operation_id = "getIndex", tag = "system",
    responses((status = 200, description = "The index", body = ServerIndex),
        (status = 307, description = "To the dashboard or the reference page, for browsers", headers(("Location" = String, description = "Path of the page"))), QueryProblems)
)]
pub async fn index(Query(NoQuery {}): Query<NoQuery>, headers: HeaderMap) -> Response {
    let wanted = accepted(&headers).into_iter().find(|range| ["text/html", "application/json", "*/*"].contains(range));
    let answer = if wanted == Some("text/html") {
        Redirect::temporary(DASHBOARD.unwrap_or(DOCS)).into_response()
    } else {
        Json(INDEX).into_response()
    };
    ([(header::VARY, "accept")], answer).into_response()
}

/// Is the process alive
///
/// Always 200, if the server can answer at all.
#[utoipa::path(
    get, path = "/healthz", operation_id = "getHealth", tag = "system",
    responses((status = 200, description = "The process is alive", body = Health), QueryProblems)
)]
pub async fn healthz(Query(NoQuery {}): Query<NoQuery>) -> Json<Health> {
    Json(OK)
}

/// Is the server ready
///
/// 200 while the server accepts and computes runs: all models and sparse autoencoders that its flags name are loaded,
/// all workers are running, and the store can be written to. Otherwise 503 with the reason, also while the server stops.
#[utoipa::path(
    get, path = "/readyz", operation_id = "getReadiness", tag = "system",
    responses((status = 200, description = "The server is ready", body = Ready), ReadyProblems)
)]
pub async fn readyz(State(state): State<ApiState>, Query(NoQuery {}): Query<NoQuery>) -> ApiResult<Json<Ready>> {
    let not_yet = |detail: &str| Problem::new(Code::Unavailable, detail).retry_after(1);
    if state.engine.draining().is_cancelled() {
        return Err(not_yet("the server is stopping").into());
    }
    if !state.engine.models().all_ready() {
        return Err(not_yet("models are still being loaded").into());
    }
    if !state.questions.saes().all_ready() {
        return Err(not_yet("sparse autoencoders are still being loaded").into());
    }
    if !state.engine.is_alive() {
        return Err(not_yet("a worker has ended; the server must be started again").into());
    }
    if let Some(why) = state.readiness.unwritable(state.engine.store()).await {
        return Err(not_yet(why).into());
    }
    let n_unknown = state.engine.store().n_unknown_blobs();
    let notes = if n_unknown == 0 { Vec::new() } else { vec![UNKNOWN_BLOBS.to_owned()] };
    Ok(Json(Ready { status: OK.status, version: OK.version, n_unknown_blobs: n_unknown, notes }))
}

/// Note on blobs that are not in the index.
const UNKNOWN_BLOBS: &str = "the folder `unknown` has blobs that are not in the index: stop the server and run \
    `residuum verify --rebuild-index` to add their caches to the index, or `residuum gc --unknown` to delete them";

/// Metrics
///
/// In Prometheus's text format; `docs/METRICS.md` lists them. They are totals over all tenants, so they need the scope
/// `metrics`.
#[utoipa::path(
    get, path = "/metrics", operation_id = "getMetrics", tag = "system",
    responses((status = 200, description = "The metrics", content_type = "text/plain; version=0.0.4", body = String), QueryProblems)
)]
pub async fn metrics(State(state): State<ApiState>, Query(NoQuery {}): Query<NoQuery>) -> Response {
    state.engine.observe().await;
    state.serving.observe();
    telemetry::observe_process();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render()).into_response()
}

/// This specification as JSON
///
/// OpenAPI 3.1, generated from the code.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenapiJson", tag = "system",
    responses((status = 200, description = "The specification", content_type = "application/json", body = Value, example = json!({"openapi": "3.1.0"})), QueryProblems)
)]
pub async fn openapi_json(Query(NoQuery {}): Query<NoQuery>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::json()).into_response()
}

/// This specification as YAML
///
/// Byte for byte the `openapi.yaml` of the repository.
#[utoipa::path(
    get, path = "/openapi.yaml", operation_id = "getOpenapiYaml", tag = "system",
    responses((status = 200, description = "The specification", content_type = "application/yaml", body = serde_json::Value), QueryProblems)
)]
pub async fn openapi_yaml(Query(NoQuery {}): Query<NoQuery>) -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], openapi::yaml()).into_response()
}

//! The HTTP API: routes, bodies, extractors and the error table.
//!
//! A handler takes what the extractors have parsed, makes one call to the engine or the store, and answers. Nothing
//! here knows SQL or types of tensors: bytes come from the store, models from the engine. [`route_table`]
//! is the route table; only what is listed there is served, and all of it is in the OpenAPI specification. Two pages for
//! browsers are served beside it: the reference at `/docs/` and the dashboard at `/ui/`.

mod access;
mod caches;
mod comparisons;
mod directions;
mod dto;
mod error;
mod experiments;
mod export;
mod extract;
mod hosts;
mod interventions;
mod json;
mod key_ring;
mod limits;
mod memory;
mod models;
mod openai;
pub mod openapi;
mod pace;
mod problems;
mod projections;
mod readiness;
mod runs;
mod saes;
mod search;
mod serving;
mod state;
mod statistics;
mod system;
mod tensor;
#[cfg(feature = "ui")]
mod ui;

use std::time::Duration;

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    trace::TraceLayer,
};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter},
    routes,
};
use utoipa_swagger_ui::SwaggerUi;

use self::error::ApiError;
pub use key_ring::{Caller, KeyRing};
pub use pace::BodyRate;
pub use readiness::Readiness;
use residuum_domain::{Code, Problem};
pub use state::{ApiConfig, ApiState};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The route table.
fn route_table() -> Vec<UtoipaMethodRouter<ApiState>> {
    vec![
        routes!(runs::create_run::create_run, runs::manage_runs::list_runs),
        routes!(runs::manage_runs::get_run, runs::manage_runs::delete_run),
        routes!(runs::manage_runs::cancel_run),
        routes!(runs::events::follow_run),
        routes!(runs::manage_runs::list_run_caches),
        routes!(runs::run_tensors::get_run_tensor),
        routes!(export::export_run),
        routes!(export::export_caches),
        routes!(
            caches::manage_caches::list_caches,
            caches::import_cache::import_cache,
            caches::manage_caches::delete_caches
        ),
        routes!(
            caches::manage_caches::get_cache,
            caches::manage_caches::update_cache,
            caches::manage_caches::delete_cache
        ),
        routes!(caches::cache_tensors::get_layers),
        routes!(caches::cache_tensors::get_layer),
        routes!(caches::cache_tensors::get_tensor),
        routes!(caches::cache_file::get_safetensors),
        routes!(caches::lens::read_lens),
        routes!(caches::attribution::attribute),
        routes!(comparisons::compare),
        routes!(directions::new_direction::create_direction, directions::stored_directions::list_directions),
        routes!(
            directions::stored_directions::get_direction,
            directions::stored_directions::update_direction,
            directions::stored_directions::delete_direction
        ),
        routes!(directions::stored_directions::get_direction_vector),
        routes!(projections::project),
        routes!(statistics::summarise),
        routes!(search::search),
        routes!(experiments::patching::patch_activations),
        routes!(saes::list::list_saes, serving::sae_routes::load_sae),
        routes!(saes::list::get_sae, serving::sae_routes::unload_sae),
        routes!(serving::sae_routes::follow_sae),
        routes!(saes::features::encode_features),
        routes!(saes::tokens::find_feature_tokens),
        routes!(models::list_models, serving::model_routes::load_model),
        routes!(models::get_model, serving::model_routes::unload_model),
        routes!(serving::model_routes::follow_model),
        routes!(models::tokenize),
        routes!(openai::completions::create_chat_completion),
        routes!(openai::completions::create_completion),
        routes!(openai::openai_embeddings::create_embedding),
        routes!(openai::openai_models::list_models),
        routes!(openai::openai_models::get_model),
        routes!(system::index),
        routes!(system::healthz),
        routes!(system::readyz),
        routes!(system::metrics),
        routes!(system::openapi_json),
        routes!(system::openapi_yaml),
    ]
}

/// All routes, with their descriptions.
fn routes() -> OpenApiRouter<ApiState> {
    route_table().into_iter().fold(OpenApiRouter::new(), OpenApiRouter::routes)
}

/// The pages for browsers: the reference of the API at `/docs/`, and the dashboard at `/ui/`.
fn pages() -> Router {
    let pages = Router::from(SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::new(["/openapi.json"])));
    #[cfg(feature = "ui")]
    let pages = pages.merge(ui::router());
    pages
}

/// The whole service: the routes, the pages for browsers, and the middleware of every request.
pub fn router(state: ApiState) -> Router {
    let (router, _) = routes().split_for_parts();
    let config = state.config.clone();
    router
        .with_state(state.clone())
        .merge(pages())
        .fallback(error::route_not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(DefaultBodyLimit::max(config.max_body_bytes))
        .layer(middleware::from_fn_with_state(state.clone(), limits::enforce))
        .layer(middleware::from_fn_with_state(state.clone(), access::check))
        .layer(middleware::from_fn_with_state(state, hosts::check))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(middleware::from_fn(openai::openai_error::shape))
        .layer(middleware::from_fn(measure))
        .layer(cors(&config.cors_origins))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(TraceLayer::new_for_http().make_span_with(span).on_response(log_response).on_failure(()))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
}

/// The answer to a request for this path on a spare connection.
pub fn too_many_connections(path: &str) -> Response {
    let problem = Problem::new(Code::Unavailable, "the maximum number of connections is reached; try again shortly");
    openai::openai_error::shaped(path, ApiError(problem.retry_after(1)).into_response())
}

/// CORS: pages of which origins may call the server, and which response headers their scripts may read.
fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let exposed = [
        header::ETAG,
        header::LOCATION,
        header::CONTENT_RANGE,
        header::ACCEPT_RANGES,
        header::RETRY_AFTER,
        header::CONTENT_DISPOSITION,
        header::WWW_AUTHENTICATE,
        REQUEST_ID,
    ];
    let accepted = [
        header::CONTENT_TYPE,
        header::ACCEPT,
        header::AUTHORIZATION,
        header::RANGE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        HeaderName::from_static("last-event-id"),
        HeaderName::from_static("idempotency-key"),
        REQUEST_ID,
    ];
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers(accepted.into_iter().chain(openai::CLIENT_HEADERS).collect::<Vec<_>>())
        .expose_headers(exposed.into_iter().chain(tensor::EXPOSED).collect::<Vec<_>>())
        .max_age(Duration::from_secs(3600));
    if origins.iter().any(|o| o == "*") {
        layer.allow_origin(AllowOrigin::any())
    } else {
        layer.allow_origin(AllowOrigin::list(origins.to_vec()))
    }
}

fn span(request: &Request) -> tracing::Span {
    let id = request.headers().get(REQUEST_ID).and_then(|v| v.to_str().ok()).unwrap_or("");
    let (tenant, key) = (tracing::field::Empty, tracing::field::Empty);
    tracing::info_span!("request", id, method = %request.method(), path = request.uri().path(), tenant, key)
}

fn log_response(response: &Response, latency: Duration, _: &tracing::Span) {
    tracing::info!(
        status = response.status().as_u16(),
        milliseconds = (latency.as_secs_f64() * 1e5).round() / 1e2,
        "answered"
    );
}

/// Counts a request in a gauge until it is dropped, which also happens if the client disconnects.
struct InFlight(metrics::Gauge);

impl InFlight {
    fn one() -> Self {
        let gauge = metrics::gauge!("residuum_http_in_flight");
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Middleware: counts and times requests by route. Not by path: every id would make a new series.
async fn measure(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |p| p.as_str().to_owned());
    let method = request.method().to_string();
    let started = std::time::Instant::now();
    let in_flight = InFlight::one();
    let response = next.run(request).await;
    drop(in_flight);
    let status = response.status().as_u16().to_string();
    metrics::histogram!("residuum_http_seconds", "route" => route.clone(), "method" => method.clone())
        .record(started.elapsed().as_secs_f64());
    metrics::counter!("residuum_http_requests_total", "route" => route, "method" => method, "status" => status)
        .increment(1);
    response
}

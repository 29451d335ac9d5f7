//! `POST /v1/comparisons`.

mod answer;
mod metric;
mod request;
mod sets;
mod vectors;

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;

use self::{
    answer::{ComparisonDto, Outcome},
    request::{Asked, Comparison, Metrics, Mode},
};
use super::{
    error::ApiResult,
    extract::{JsonBody, Query, Tenant},
    problems::ComparisonProblems,
    state::ApiState,
    tensor::Format,
};
use crate::api::dto::selector::CacheSelector;
use residuum_domain::{Code, Hook, Problem, TenantId};
use residuum_engine::questions::{Chosen, blocking, deleted_caches::again};
use residuum_store::{Store, StoreError};

/// Numbers in one JSON answer.
const MAX_JSON: usize = 4_000_000;
/// Numbers in one binary answer: 256 MiB.
const MAX_BINARY: usize = 32 << 20;
/// Caches in one list or group.
const MAX_CACHES: usize = 10_000;
/// Bytes that a comparison may hold at once, beside its answer.
const MAX_BYTES: usize = 1 << 30;

/// Parameters of a comparison.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ComparisonQuery {
    /// `json`, `npy`, `safetensors` or `raw`; beats the `Accept` header. `npy` and `raw` hold one metric.
    pub format: Option<Format>,
}

/// Compare caches
///
/// Vectors of one hook at one position, layer by layer, pair by pair or each with each; each layer with each layer; or groups
/// of caches as sets of rows. Sums are accumulated in float64. In the binary formats the values are float64, NaN where
/// undefined: `[layer, pair]` in mode `pairs`, `[layer, i, j]` in the modes `matrix` and `sets`, `[layer_a, layer_b]` in mode
/// `layers`; safetensors holds a tensor a metric, and the rest of the answer in its metadata.
#[utoipa::path(
    post, path = "/v1/comparisons", operation_id = "compareCaches", tag = "comparisons", request_body = Comparison,
    params(ComparisonQuery),
    responses((status = 200, description = "The values", content((ComparisonDto = "application/json"), (Vec<u8> = "application/x-npy"),
        (Vec<u8> = "application/vnd.safetensors"), (Vec<u8> = "application/octet-stream"))), ComparisonProblems)
)]
pub async fn compare(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(query): Query<ComparisonQuery>,
    headers: HeaderMap,
    body: JsonBody<Comparison>,
) -> ApiResult<Response> {
    let request = body.value;
    let format = Format::negotiate(query.format, &headers)?;
    let asked = Asked::of(&request)?;
    if matches!(format, Format::Npy | Format::Raw) && asked.names.len() != 1 {
        let detail = "npy and raw hold one array; name one metric, or ask for format=safetensors";
        return Err(Problem::at(Code::InvalidValue, "/metrics", detail).into());
    }
    let context = Context { state: &state, tenant, request: &request, asked: &asked, format };
    let outcome = again(Code::UnknownCache, || outcome(&context)).await?;
    Ok(answer::respond(&context, outcome)?)
}

async fn outcome(context: &Context<'_>) -> Result<Outcome, Problem> {
    match (context.request.mode, &context.asked.metrics) {
        (Mode::Pairs, Metrics::Vector(metrics)) => vectors::pairs(context, metrics).await,
        (Mode::Matrix, Metrics::Vector(metrics)) => vectors::matrix(context, metrics).await,
        (Mode::Layers, Metrics::Vector(metrics)) => vectors::layers(context, metrics).await,
        (Mode::Layers, Metrics::Set(metrics)) => sets::layers(context, metrics).await,
        (_, Metrics::Set(metrics)) => sets::sets(context, metrics).await,
        (Mode::Sets, Metrics::Vector(_)) => Err(Problem::new(Code::Internal, "a metric of vectors came to mode sets")),
    }
}

/// What the parts of a comparison share.
struct Context<'a> {
    state: &'a ApiState,
    tenant: TenantId,
    request: &'a Comparison,
    asked: &'a Asked,
    format: Format,
}

impl Context<'_> {
    fn store(&self) -> &Store {
        self.state.engine.store()
    }

    /// The caches of a field that the mode needs.
    async fn choose(&self, selector: Option<&CacheSelector>, pointer: &str) -> Result<Chosen, Problem> {
        let missing = || {
            let name = pointer.trim_start_matches('/');
            let detail = format!("this mode needs {name}: an array of cache ids, or conditions");
            Problem::at(Code::InvalidBody, pointer, detail)
        };
        let selector = selector.ok_or_else(missing)?;
        if matches!(selector, CacheSelector::Ids(ids) if ids.is_empty()) {
            return Err(missing());
        }
        let mut chosen = selector.selector(pointer)?.choose(self.store(), self.tenant, pointer, MAX_CACHES).await?;
        if matches!(selector, CacheSelector::Filter(_)) {
            // all bear one pointer, so only the caches move
            chosen.caches.sort_by_key(|c| (c.cache.run, c.cache.item_index, c.cache.id));
        }
        Ok(chosen)
    }

    /// Refuses an answer of more numbers than the format takes.
    fn fits(&self, shape: &[usize]) -> Result<(), Problem> {
        let numbers = shape.iter().fold(self.asked.names.len(), |n, axis| n.saturating_mul(*axis));
        let (max, instead) = if self.format == Format::Json {
            (MAX_JSON, "Ask for format=npy or safetensors, or compare fewer caches or layers at once")
        } else {
            (MAX_BINARY, "Compare fewer caches or layers at once")
        };
        if numbers <= max {
            return Ok(());
        }
        let detail = format!("the answer would hold {numbers} numbers; {max} are allowed. {instead}");
        Err(Problem::new(Code::ResultTooLarge, detail))
    }

    /// Computes on the threads of analysis, off the async ones.
    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let pool = Arc::clone(self.state.questions.threads());
        blocking(move || pool.install(work)).await
    }
}

/// Refuses work that would hold more than a comparison may.
fn holds(bytes: usize) -> Result<(), Problem> {
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    let detail = format!(
        "the comparison would hold {bytes} bytes at once; {MAX_BYTES} are allowed. Compare fewer or shorter rows, or fewer layers or groups at once"
    );
    Err(Problem::new(Code::ResultTooLarge, detail))
}

/// The name of a hook without its layer.
fn site(hooks: &[Hook]) -> String {
    let name = hooks.first().map_or("", |hook| hook.site().name());
    name.strip_prefix("hook_").unwrap_or(name).to_owned()
}

fn layers_of(hooks: &[Hook]) -> Vec<usize> {
    hooks.iter().filter_map(Hook::layer).collect()
}

//! `POST /v1/comparisons`: compares stored activations by metrics.

mod comparison_answer;
mod comparison_body;
mod metric_name;

use axum::{extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;

use self::{comparison_answer::ComparisonDto, comparison_body::Comparison};
use super::{
    error::ApiResult,
    extract::{JsonBody, Query, Tenant},
    problems::ComparisonProblems,
    state::ApiState,
    tensor::Format,
};
use residuum_domain::{Code, Problem};
use residuum_engine::questions::answer_limit::AnswerLimit;

/// Maximum number of values in a JSON response.
const MAX_JSON: usize = 4_000_000;
/// Maximum number of values in a binary response: 256 MiB.
const MAX_BINARY: usize = 32 << 20;

/// Query parameters of a comparison.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ComparisonQuery {
    /// `json`, `npy`, `safetensors` or `raw`; takes precedence over the `Accept` header. `npy` and `raw` can hold only
    /// one metric.
    pub format: Option<Format>,
}

/// Compare caches
///
/// Compares vectors of one hook at one position, layer by layer, in pairs or each with each; or each layer with each
/// layer; or groups of caches as sets of rows. Sums are accumulated in float64. In binary formats the values are
/// float64, NaN if undefined: `[layer, pair]` in mode `pairs`, `[layer, i, j]` in the modes `matrix` and `sets`,
/// `[layer_a, layer_b]` in mode `layers`. safetensors has one tensor per metric, and the rest of the answer in its
/// metadata.
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
    let question = request.question(limit(format))?;
    if matches!(format, Format::Npy | Format::Raw) && question.metrics.len() > 1 {
        let detail = "npy and raw can hold only one array; request one metric, or format=safetensors";
        return Err(Problem::at(Code::InvalidValue, "/metrics", detail).into());
    }
    let answer = state.questions.comparison(tenant, &question).await?;
    Ok(comparison_answer::respond(&question, answer, format)?)
}

/// Maximum number of values of a response in this format.
fn limit(format: Format) -> AnswerLimit {
    let (n_numbers, instead) = match format {
        Format::Json => (MAX_JSON, "Ask for format=npy or safetensors, or compare fewer caches or layers at once"),
        _ => (MAX_BINARY, "Compare fewer caches or layers at once"),
    };
    AnswerLimit { n_numbers, instead }
}

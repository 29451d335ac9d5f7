//! `POST /v1/caches/{id}/features`: encodes stored activations with a sparse autoencoder.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::features_answer::FeaturesDto;
use crate::api::{
    dto::capture::PositionsRequestSchema,
    error::ApiResult,
    extract::{JsonBody, PathId, Query, Tenant},
    problems::FeaturesProblems,
    state::ApiState,
    tensor::{Format, POSITIONS, Part, TensorAnswer, respond_to_post},
};
use residuum_domain::{Axis, CacheId, Code, Dtype, PositionsRequest, Problem};
use residuum_engine::questions::sae::features::{FeaturesQuestion, FeaturesTensor};

/// Default number of most active features in the response.
const TOP_K: usize = 10;

/// Which positions to encode, and with which autoencoder.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FeaturesRequest, example = json!({"sae": "res-12", "positions": "all", "top_k": 5, "features": [123]}))]
pub struct Features {
    /// The autoencoder.
    sae: String,
    /// Stored positions, by number, text or kind, but not by message; `{"special": false}` selects those whose tokens
    /// are not special. If left out: all that the cache has, except tokens on which the autoencoder was not trained
    /// (`exclude_special_tokens` of its settings); `left_out` in the response describes these.
    #[schema(value_type = Option<PositionsRequestSchema>)]
    positions: Option<PositionsRequest>,
    /// Number of most active features to list at each position, at most 1000; 10 if left out.
    top_k: Option<usize>,
    /// Features whose activations to return at each position, at most 1000.
    features: Option<Vec<usize>>,
    /// true: encode even if the cache begins with a BOS token and the autoencoder was trained without one, or vice
    /// versa, and add a warning. By default such a request is refused.
    #[serde(default)]
    #[schema(default = false)]
    allow_bos_mismatch: bool,
}

/// Query parameters of the features of a cache.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FeaturesQuery {
    /// `json` describes each position. `npy`, `safetensors` and `raw` are the activations of the chosen `features`, or
    /// of all if none are chosen, in float32, `[pos, feature]`. If the request does not give positions by number, the
    /// header `Residuum-Positions` lists them (`1:4,6` means 1, 2, 3 and 6). Takes precedence over the `Accept` header.
    format: Option<Format>,
}

/// Encode stored activations to features
///
/// The features of a sparse autoencoder that are active at each position of a cache, and how well they reconstruct the
/// stored rows. No forward pass is run. The cache must be made by the autoencoder's model and have captured its hook.
/// Special tokens are marked: BOS and other attention sinks usually have a very large norm and their own features, and
/// how well they are reconstructed says nothing about other tokens. Therefore `summary` is given with and without
/// special tokens.
#[utoipa::path(
    post, path = "/v1/caches/{id}/features", operation_id = "encodeFeatures", tag = "saes", request_body = Features,
    params(("id" = String, Path, description = "Id of the cache"), FeaturesQuery),
    responses((status = 200, description = "The features", content((FeaturesDto = "application/json"), (Vec<u8> = "application/x-npy"),
        (Vec<u8> = "application/vnd.safetensors"), (Vec<u8> = "application/octet-stream"))), FeaturesProblems)
)]
pub async fn encode_features(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<CacheId>,
    Query(query): Query<FeaturesQuery>,
    headers: HeaderMap,
    body: JsonBody<Features>,
) -> ApiResult<Response> {
    let request = body.value;
    let format = Format::negotiate(query.format, &headers)?;
    let question = FeaturesQuestion {
        cache: id,
        sae: request.sae,
        positions: request.positions,
        features: request.features,
        allow_bos_mismatch: request.allow_bos_mismatch,
    };
    let rows = state.questions.features(tenant, question).await?;
    if format != Format::Json {
        if request.top_k.is_some() {
            let detail =
                "top_k cannot be used with this format: the answer has all features, or those chosen by features";
            return Err(Problem::at(Code::InvalidBody, "/top_k", detail).into());
        }
        let found = state.questions.features_tensor(rows).await?;
        let positions = if found.numbered { None } else { positions_header(&found.positions) };
        // encoding takes long, so it runs on the threads for analysis
        let answer = state.questions.analyse(move || Ok(tensor(found))).await?;
        let mut response = respond_to_post(answer, format, &state).await?;
        response.headers_mut().extend(positions);
        return Ok(response);
    }
    let answer = state.questions.features_described(rows, request.top_k.unwrap_or(TOP_K)).await?;
    Ok(Json(FeaturesDto::from(answer)).into_response())
}

/// The header that lists positions; consecutive ones are written as `first:end`.
fn positions_header(positions: &[u32]) -> Option<(HeaderName, HeaderValue)> {
    let runs: Vec<String> = positions
        .chunk_by(|a, b| a.checked_add(1) == Some(*b))
        .map(|run| match run {
            [one] => one.to_string(),
            run => format!("{}:{}", run[0], run[run.len() - 1] + 1),
        })
        .collect();
    Some((POSITIONS, HeaderValue::from_str(&runs.join(",")).ok()?))
}

/// The activations, `[pos, feature]`.
fn tensor(found: FeaturesTensor) -> TensorAnswer {
    let mut bytes = Vec::with_capacity(found.shape.iter().product::<usize>() * Dtype::Float32.size());
    for block in found.blocks {
        Dtype::Float32.encode(&block, &mut bytes);
    }
    TensorAnswer {
        hook: format!("{}.features", found.sae),
        layer: None,
        layers: None,
        caches: None,
        offsets: None,
        shape: found.shape.to_vec(),
        axes: vec![Axis::Pos, Axis::Feature],
        dtype: Dtype::Float32,
        widened: false,
        parts: vec![Part::Made(bytes.into())],
    }
}

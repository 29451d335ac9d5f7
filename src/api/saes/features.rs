//! `POST /v1/caches/{id}/features`.

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

/// Strongest features that are named if the request does not say how many.
const TOP_K: usize = 10;

/// What to encode.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FeaturesRequest, example = json!({"sae": "res-12", "positions": "all", "top_k": 5, "features": [123]}))]
pub struct Features {
    /// The autoencoder.
    sae: String,
    /// Positions, by number, by text or by kind: `{"special": false}` are those stored whose tokens are not special. Not those
    /// of a message. If left out: all that the cache has, but for tokens that the autoencoder was not trained on
    /// (`exclude_special_tokens` of its settings); `left_out` in the answer says so.
    #[schema(value_type = Option<PositionsRequestSchema>)]
    positions: Option<PositionsRequest>,
    /// Strongest features to name at each position, at most 1000; 10 if left out.
    top_k: Option<usize>,
    /// Features to give the activations of at each position, at most 1000.
    features: Option<Vec<usize>>,
    /// Encode although the cache begins with a BOS token and the autoencoder was trained without, or the other way round;
    /// the answer then warns. Refused if left out.
    #[serde(default)]
    #[schema(default = false)]
    allow_bos_mismatch: bool,
}

/// How the features are answered.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FeaturesQuery {
    /// `json` describes each position; `npy`, `safetensors` and `raw` are the activations, float32 `[pos, feature]`: of the
    /// chosen `features`, else of all; where the request names no positions by number, the header `Residuum-Positions` says which
    /// they are (`1:4,6` are 1, 2, 3 and 6). Beats the `Accept` header.
    format: Option<Format>,
}

/// Encode stored activations to features
///
/// The features of a sparse autoencoder that are active at each position of a cache, and how well they reconstruct what was
/// stored. No forward pass is run. The cache must have been made by the model that the autoencoder stands beside, and must have
/// captured its hook. Special tokens are marked: BOS and other attention sinks usually have an enormous norm, features of their
/// own and a reconstruction that says nothing of the others, so `summary` is given with and without them.
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
                "top_k has no meaning in this format: the answer has every feature, or those chosen by features";
            return Err(Problem::at(Code::InvalidBody, "/top_k", detail).into());
        }
        let found = state.questions.features_tensor(rows).await?;
        let positions = if found.numbered { None } else { positions_header(&found.positions) };
        // encoding them takes its time
        let answer = state.questions.analyse(move || Ok(tensor(found))).await?;
        let mut response = respond_to_post(answer, format, &state).await?;
        response.headers_mut().extend(positions);
        return Ok(response);
    }
    let answer = state.questions.features_described(rows, request.top_k.unwrap_or(TOP_K)).await?;
    Ok(Json(FeaturesDto::from(answer)).into_response())
}

/// The header that names positions, runs of them as `first:end`.
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

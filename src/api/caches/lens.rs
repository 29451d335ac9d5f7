//! `POST /v1/caches/{id}/lens`: the logit lens.

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::lens_answer::LensDto;
use crate::api::{
    dto::{
        capture::{LayersSchema, PositionsSchema},
        token::TokenRef,
    },
    error::ApiResult,
    extract::{JsonBody, PathId, Query, Tenant},
    problems::LensProblems,
    state::ApiState,
    tensor::{Format, Part, TensorAnswer, respond_to_post},
};
use residuum_domain::{Axis, CacheId, Code, Dtype, Layers, Positions, Problem};
use residuum_engine::questions::lens;

/// Default number of most probable tokens in the response.
const TOP_K: usize = 5;

/// Which rows of the residual stream to convert to logits.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LensRequest, example = json!({"layers": [20, 25, 29], "positions": "last", "top_k": 3, "tokens": [" Paris"]}))]
pub struct Lens {
    /// Hook on the residual stream: `resid_pre`, `resid_mid` or `resid_post`; or the full name of one.
    #[serde(default = "resid_post")]
    #[schema(default = "resid_post")]
    hook: String,
    /// Layers; all that the cache has if left out.
    #[schema(value_type = Option<LayersSchema>)]
    #[serde(default)]
    layers: Layers,
    /// Positions; all that the cache has if left out.
    #[schema(value_type = Option<PositionsSchema>)]
    positions: Option<Positions>,
    /// Number of most probable tokens to list at each layer and position, at most 100; 5 if left out.
    top_k: Option<usize>,
    /// Tokens to follow through the layers, at most 100: ids, or texts that are exactly one token.
    tokens: Option<Vec<TokenRef>>,
}

fn resid_post() -> String {
    "resid_post".to_owned()
}

/// Query parameters of a lens.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LensQuery {
    /// `json` describes each distribution; `npy`, `safetensors` and `raw` are whole distributions, float32
    /// `[layer, pos, d_vocab]`. Takes precedence over the `Accept` header.
    format: Option<Format>,
    /// Values of a binary response; log-probabilities in nats if left out.
    values: Option<LensValues>,
}

/// Values of a binary response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LensValues {
    /// Log-probabilities, in nats.
    LogProbs,
    /// Logits, with the model's scale and softcap applied.
    Logits,
}

/// Apply the logit lens
///
/// Applies the final norm and the unembedding of the model to the stored residual stream, at every layer and position.
/// No forward pass is run. For the last block's output the results are the model's own logits, bit for bit if the cache
/// holds float32. The server must have the model that made the cache.
#[utoipa::path(
    post, path = "/v1/caches/{id}/lens", operation_id = "readLens", tag = "analysis", request_body = Lens,
    params(("id" = String, Path, description = "Id of the cache"), LensQuery),
    responses((status = 200, description = "The distributions", content((LensDto = "application/json"), (Vec<u8> = "application/x-npy"),
        (Vec<u8> = "application/vnd.safetensors"), (Vec<u8> = "application/octet-stream"))), LensProblems)
)]
pub async fn read_lens(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<CacheId>,
    Query(query): Query<LensQuery>,
    headers: HeaderMap,
    body: JsonBody<Lens>,
) -> ApiResult<Response> {
    let request = body.value;
    let format = Format::negotiate(query.format, &headers)?;
    let question =
        lens::LensQuestion { cache: id, hook: request.hook, layers: request.layers, positions: request.positions };
    let rows = state.questions.lens(tenant, &question).await?;
    if format != Format::Json {
        for (name, given) in [("top_k", request.top_k.is_some()), ("tokens", request.tokens.is_some())] {
            if given {
                let detail = format!("{name} cannot be used with this format: the answer has every token");
                return Err(Problem::at(Code::InvalidBody, format!("/{name}"), detail).into());
            }
        }
        let values = query.values.unwrap_or(LensValues::LogProbs);
        let found = state.questions.lens_tensor(rows, values.into()).await?;
        return respond_to_post(tensor(found, values), format, &state).await;
    }
    if query.values.is_some() {
        return Err(Problem::at(Code::InvalidQuery, "values", "values can only be used with binary formats").into());
    }
    let tokens = request.tokens.unwrap_or_default().into_iter().map(Into::into).collect();
    let detail = lens::LensDetail { top_k: request.top_k.unwrap_or(TOP_K), tokens };
    let answer = state.questions.lens_described(rows, &detail).await?;
    Ok(Json(LensDto::from(answer)).into_response())
}

impl From<LensValues> for lens::LensValues {
    fn from(values: LensValues) -> Self {
        match values {
            LensValues::LogProbs => Self::LogProbs,
            LensValues::Logits => Self::Logits,
        }
    }
}

fn tensor(found: lens::LensTensor, values: LensValues) -> TensorAnswer {
    let name = match values {
        LensValues::LogProbs => "lens.log_probs",
        LensValues::Logits => "lens.logits",
    };
    let part = |values: Vec<f32>| {
        let mut bytes = Vec::new();
        Dtype::Float32.encode(&values, &mut bytes);
        Part::Made(bytes.into())
    };
    TensorAnswer {
        hook: name.to_owned(),
        layer: None,
        layers: Some(found.layers),
        caches: None,
        offsets: None,
        shape: found.shape.to_vec(),
        axes: vec![Axis::Layer, Axis::Pos, Axis::DVocab],
        dtype: Dtype::Float32,
        widened: false,
        parts: found.values.into_iter().map(part).collect(),
    }
}

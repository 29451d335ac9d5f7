//! `POST /v1/caches/{id}/attribution`: direct logit attribution.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::{
    dto::{
        capture::PositionsSchema,
        token::{Token, TokenRef},
    },
    error::ApiResult,
    extract::{JsonBody, NoQuery, PathId, Query, Tenant},
    problems::AttributionProblems,
    state::ApiState,
};
use residuum_domain::{CacheId, Positions};
use residuum_engine::questions::{attribution, finite};

/// Which logit to attribute.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AttributionRequest, example = json!({"token": " Paris", "against": " London", "position": "last"}))]
pub struct Attribution {
    /// The token: an id, or a text that is exactly one token.
    token: TokenRef,
    /// A second token; if given, the difference of the two logits is attributed.
    against: Option<TokenRef>,
    /// One position; the last if left out. Its logit is for the token that comes next.
    #[schema(value_type = Option<PositionsSchema>)]
    position: Option<Positions>,
    /// Which parts to distinguish; if left out, the finest that the captured hooks allow.
    components: Option<Components>,
}

/// A logit as the sum of contributions to the residual stream.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attribution, example = json!({
    "cache": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "model": "smollm2-135m", "position": 9, "token": {"id": 7042, "token": " Paris"},
    "against": null, "components": "sublayers", "scale": 9.27,
    "parts": [
        {"name": "hook_embed", "kind": "embedding", "value": 0.1}, {"name": "blocks.0.hook_attn_out", "kind": "attention", "layer": 0, "value": 0.3},
        {"name": "blocks.0.hook_mlp_out", "kind": "mlp", "layer": 0, "value": 18.9}
    ],
    "sum": 19.3, "logit": 19.3, "error": 0.0, "softcap": null, "logit_after_softcap": null
}))]
pub struct AttributionDto {
    /// The cache.
    cache: String,
    /// Name of its model on this server.
    model: String,
    /// The position.
    position: u32,
    /// The token.
    token: Token,
    /// The token whose logit is subtracted.
    against: Option<Token>,
    /// Which parts are distinguished.
    components: Components,
    /// The denominator of the final norm at this position, treated as a constant; 1 if the model has no final norm.
    scale: Option<f64>,
    /// The contribution of each part to the logit, in the order of the forward pass.
    parts: Vec<Part>,
    /// The sum of the parts.
    sum: Option<f64>,
    /// The logit that the model's head computes from the stored output of the last block: after the model's scale of
    /// logits, before any softcap. With `against` the difference of two logits.
    logit: Option<f64>,
    /// `sum − logit`: the error from rounding of the stored activations. If interventions changed the residual stream
    /// itself, their contribution is included, since it belongs to no part.
    error: Option<f64>,
    /// The softcap of the model's logits. It is not linear, so it cannot be a part.
    softcap: Option<f32>,
    /// The logit (or the difference of two) after the softcap, if the model has one.
    logit_after_softcap: Option<f64>,
}

/// Which parts of a logit are distinguished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AttributionComponents)]
#[serde(rename_all = "snake_case")]
pub enum Components {
    /// The attention and the MLP of every block; needs `attn_out` and `mlp_out`.
    Sublayers,
    /// Every head, the bias of attention, and every MLP; needs `attn.z` (or `attn.result`) and `mlp_out`.
    Heads,
}

/// Kind of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AttributionKind)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Token, position or type embedding, or the residual stream before the first block.
    Embedding,
    /// The whole output of attention.
    Attention,
    /// One head.
    Head,
    /// The contribution of attention that belongs to no head: the bias of its output projection and of the norm after
    /// it.
    AttentionBias,
    /// The output of an MLP.
    Mlp,
    /// A bias at the end of the model.
    Bias,
}

/// A part of a logit.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AttributionPart)]
pub struct Part {
    /// The hook whose value it is; for a bias, TransformerLens's name of the weight.
    name: String,
    /// Kind of the part.
    kind: Kind,
    /// The layer, if it is inside the blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<usize>,
    /// The head.
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<usize>,
    /// Its contribution to the logit; null if that is not finite.
    value: Option<f64>,
}

/// Attribute a logit
///
/// Direct logit attribution. The residual stream before the final norm is the sum of the embeddings and the outputs of
/// every attention and MLP. If the denominator of the norm is treated as a constant, the logit is a sum over these
/// parts. The biases of the final norm and of the unembedding are separate parts; with `components: heads` so are each
/// head and the bias of each output projection. Denominators of post-norms after attention are treated as constants
/// too. No forward pass is run; the server must have the model that made the cache.
#[utoipa::path(
    post, path = "/v1/caches/{id}/attribution", operation_id = "attributeLogit", tag = "analysis", request_body = Attribution,
    params(("id" = String, Path, description = "Id of the cache")),
    responses((status = 200, description = "The parts", body = AttributionDto), AttributionProblems)
)]
pub async fn attribute(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<CacheId>,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<Attribution>,
) -> ApiResult<Json<AttributionDto>> {
    let request = body.value;
    let question = attribution::AttributionQuestion {
        cache: id,
        token: request.token.into(),
        against: request.against.map(Into::into),
        position: request.position.unwrap_or_default(),
        components: request.components.map(Into::into),
    };
    Ok(Json(state.questions.attribution(tenant, question).await?.into()))
}

impl From<Components> for attribution::Components {
    fn from(components: Components) -> Self {
        match components {
            Components::Sublayers => Self::Sublayers,
            Components::Heads => Self::Heads,
        }
    }
}

impl From<attribution::Components> for Components {
    fn from(components: attribution::Components) -> Self {
        match components {
            attribution::Components::Sublayers => Self::Sublayers,
            attribution::Components::Heads => Self::Heads,
        }
    }
}

impl From<attribution::PartKind> for Kind {
    fn from(kind: attribution::PartKind) -> Self {
        use attribution::PartKind;
        match kind {
            PartKind::Embedding => Self::Embedding,
            PartKind::Attention => Self::Attention,
            PartKind::Head => Self::Head,
            PartKind::AttentionBias => Self::AttentionBias,
            PartKind::Mlp => Self::Mlp,
            PartKind::Bias => Self::Bias,
        }
    }
}

impl From<attribution::LogitPart> for Part {
    fn from(part: attribution::LogitPart) -> Self {
        let attribution::LogitPart { name, kind, layer, head, value } = part;
        Self { name, kind: kind.into(), layer, head, value: finite(value) }
    }
}

impl From<attribution::AttributionAnswer> for AttributionDto {
    fn from(answer: attribution::AttributionAnswer) -> Self {
        Self {
            cache: answer.cache.to_string(),
            model: answer.model,
            position: answer.position,
            token: answer.token.into(),
            against: answer.against.map(Into::into),
            components: answer.components.into(),
            scale: finite(answer.scale),
            parts: answer.parts.into_iter().map(Into::into).collect(),
            sum: finite(answer.sum),
            logit: finite(answer.logit),
            error: finite(answer.sum - answer.logit),
            softcap: answer.softcap,
            logit_after_softcap: answer.logit_after_softcap.and_then(finite),
        }
    }
}

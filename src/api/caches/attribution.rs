//! `POST /v1/caches/{id}/attribution`.

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

/// Which logit to take apart.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AttributionRequest, example = json!({"token": " Paris", "against": " London", "position": "last"}))]
pub struct Attribution {
    /// The token: an id, or a text that is exactly one token.
    token: TokenRef,
    /// A second token: then the difference of the two logits is taken apart.
    against: Option<TokenRef>,
    /// One position; the last if left out. The logit there is that of the token behind it.
    #[schema(value_type = Option<PositionsSchema>)]
    position: Option<Positions>,
    /// How finely; as finely as the cache has it if left out.
    components: Option<Components>,
}

/// A logit as the sum of what was added to the residual stream.
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
    /// The name that its model is served under now.
    model: String,
    /// The position.
    position: u32,
    /// The token.
    token: Token,
    /// The token whose logit is subtracted.
    against: Option<Token>,
    /// How finely the logit is taken apart.
    components: Components,
    /// The denominator of the final norm at this position, at which it is held; 1 where there is no such norm.
    scale: Option<f64>,
    /// What each part adds to the logit, in the order of the forward pass.
    parts: Vec<Part>,
    /// The sum of the parts.
    sum: Option<f64>,
    /// The logit that the model's own head computes from the stored output of the last block: after the model's scale of
    /// logits, before any softcap. With `against` the difference of two.
    logit: Option<f64>,
    /// `sum − logit`: what rounding of the stored activations leaves. Where a run changed the residual stream itself, what that
    /// added is here too: it is nobody's part.
    error: Option<f64>,
    /// The softcap of the model's logits, which is not linear and therefore no part.
    softcap: Option<f32>,
    /// The logit (or the difference of two) behind the softcap, where there is one.
    logit_after_softcap: Option<f64>,
}

/// How finely a logit is taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AttributionComponents)]
#[serde(rename_all = "snake_case")]
pub enum Components {
    /// Every attention and every MLP; needs `attn_out` and `mlp_out`.
    Sublayers,
    /// Every head, the bias of attention, and every MLP; needs `attn.z` (or `attn.result`) and `mlp_out`.
    Heads,
}

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AttributionKind)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Token, position or type embedding, or the stream in front of the first block.
    Embedding,
    /// The whole output of attention.
    Attention,
    /// One head.
    Head,
    /// What attention adds without any head: the bias of its output projection and of the norm behind it.
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
    /// The hook whose value adds it; a bias has TransformerLens's name of the weight.
    name: String,
    /// What it is.
    kind: Kind,
    /// The layer, inside the blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<usize>,
    /// The head.
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<usize>,
    /// What it adds to the logit; null where it is not finite.
    value: Option<f64>,
}

/// Take a logit apart
///
/// Direct logit attribution: the residual stream in front of the final norm is the sum of the embeddings and of what every
/// attention and MLP added to it, so with the norm's denominator held at its value the logit is a sum over these parts. The
/// bias of the final norm and of the unembedding are parts of their own; with `components: heads` so are each head and the
/// bias of each output projection. Post-norms behind attention are held at their value likewise. No forward pass is run; the
/// model that made the cache must be served.
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

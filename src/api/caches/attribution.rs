//! `POST /v1/caches/{id}/attribution`.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    parts::{Components, Part, Plan, Reader},
    reading::{not_readable, readout},
    tensors::stored,
};
use crate::api::{
    dto::capture::PositionsSchema,
    error::ApiResult,
    extract::{JsonBody, NoQuery, PathId, Query, Tenant},
    problems::AttributionProblems,
    serving::{Token, TokenRef, model_of},
    state::ApiState,
};
use residuum_domain::{CacheId, Code, Positions, Problem, Rows};
use residuum_model::Model;
use residuum_store::{Store, StoredCache};

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
    let cache = stored(&state, tenant, id).await?;
    let model = model_of(state.engine.models(), &cache.cache)?;
    let token = request.token.resolve(model.tokenizer(), "/token")?;
    let against = request.against.map(|t| t.resolve(model.tokenizer(), "/against")).transpose()?;
    let position = one_position(&cache, &request.position.unwrap_or_default())?;
    readout(&model)?.linear().map_err(|why| not_readable(&model, why))?;
    let plan = Plan::of(&cache.cache, model.info(), request.components)?;
    let store = state.engine.store().clone();
    let job = Job { store, cache, model, plan, position, token, against };
    Ok(Json(state.analyse(move || job.run()).await?))
}

fn one_position(cache: &StoredCache, wanted: &Positions) -> Result<u32, Problem> {
    let at = |p: Problem| Problem::at(p.code, "/position", p.detail);
    match wanted.resolve(cache.cache.token_ids.len()).map_err(at)? {
        Rows::List(list) if list.len() == 1 && !wanted.keeps_axis() => Ok(list[0]),
        _ => {
            Err(Problem::at(Code::InvalidValue, "/position", "a logit stands at one position: an integer or \"last\""))
        }
    }
}

/// A request, checked.
struct Job {
    store: Store,
    cache: Arc<StoredCache>,
    model: Arc<Model>,
    plan: Plan,
    position: u32,
    token: Token,
    against: Option<Token>,
}

impl Job {
    fn run(self) -> Result<AttributionDto, Problem> {
        let readout = readout(&self.model)?;
        let linear = readout.linear().map_err(|why| not_readable(&self.model, why))?;
        let reader = Reader { store: &self.store, cache: &self.cache, position: self.position };
        let row = reader.row(self.plan.end)?;
        let difference = |of: &dyn Fn(u32) -> f64| of(self.token.id) - self.against.as_ref().map_or(0.0, |t| of(t.id));
        let logits = readout.uncapped_logits(&row);
        let logit = difference(&|id| f64::from(logits[id as usize]));
        let capped = readout.softcap().map(|_| {
            let capped = readout.logits(&row);
            difference(&|id| f64::from(capped[id as usize]))
        });

        let (mut weights, mut bias) = linear.token(self.token.id);
        if let Some(against) = &self.against {
            let (minus, minus_bias) = linear.token(against.id);
            weights.iter_mut().zip(minus).for_each(|(w, m)| *w -= m);
            bias -= minus_bias;
        }
        let norm = linear.final_norm(&row.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        let (weights, norm_bias) = norm.pull_back(&weights);
        let mut parts = self.plan.parts(&reader, linear, &weights)?;
        if norm.has_bias() {
            parts.push(Part::bias("ln_final.b", norm_bias));
        }
        if linear.has_bias() {
            parts.push(Part::bias("unembed.b_U", bias));
        }
        let sum: f64 = parts.iter().map(Part::value).sum();
        Ok(AttributionDto {
            cache: self.cache.cache.id.to_string(),
            model: self.model.info().id.clone(),
            position: self.position,
            token: self.token,
            against: self.against,
            components: self.plan.components,
            scale: finite(norm.scale),
            parts,
            sum: finite(sum),
            logit: finite(logit),
            error: finite(sum - logit),
            softcap: readout.softcap(),
            logit_after_softcap: capped.and_then(finite),
        })
    }
}

/// JSON has no NaN and no infinities.
pub fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

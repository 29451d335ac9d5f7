//! `POST /v1/caches/{id}/lens`.

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    reading::{Final, MAX_TENSOR_BYTES, Reading},
    tensors::stored,
};
use crate::api::{
    dto::capture::{LayersSchema, PositionsSchema},
    error::ApiResult,
    extract::{JsonBody, PathId, Query, Tenant},
    problems::LensProblems,
    serving::{Token, TokenRef, model_of},
    state::ApiState,
    tensor::{Format, Part, TensorAnswer, respond_to_post},
};
use residuum_analysis::Distribution as Softmax;
use residuum_domain::{Axis, CacheId, Code, Dtype, Hook, Layers, Positions, Problem};

/// Most probable tokens of one distribution, and chosen tokens.
const MAX_TOKENS: usize = 100;
/// Numbers and token strings of one JSON answer.
const MAX_CELLS: usize = 1_000_000;

/// What to read as logits.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LensRequest, example = json!({"layers": [20, 25, 29], "positions": "last", "top_k": 3, "tokens": [" Paris"]}))]
pub struct Lens {
    /// Place in the residual stream: `resid_pre`, `resid_mid` or `resid_post`; or one layer's full name.
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
    /// Most probable tokens to name at each layer and position, at most 100; 5 if left out.
    top_k: Option<usize>,
    /// Tokens to follow through the layers, at most 100: ids, or texts that are exactly one token.
    tokens: Option<Vec<TokenRef>>,
}

fn resid_post() -> String {
    "resid_post".to_owned()
}

/// How a lens answers.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LensQuery {
    /// `json` describes each distribution; `npy`, `safetensors` and `raw` are whole distributions, float32
    /// `[layer, pos, d_vocab]`. Beats the `Accept` header.
    format: Option<Format>,
    /// What a binary answer holds; log-probabilities in nats if left out.
    values: Option<LensValues>,
}

/// What a binary answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LensValues {
    /// Log-probabilities, in nats.
    LogProbs,
    /// Logits, scaled and capped as the model's own.
    Logits,
}

/// The distributions over the next token that the residual stream stands for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Lens, example = json!({
    "cache": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "model": "smollm2-135m", "hook": "resid_post", "layers": [29], "positions": [9],
    "position_tokens": [" of"], "tokens": [{"id": 7042, "token": " Paris"}], "final_from": "blocks.29.hook_resid_post",
    "values": [[{
        "entropy": 2.41, "kl": 0.0, "top": [{"id": 7042, "token": " Paris", "probability": 0.41, "logit": 19.3}],
        "tokens": [{"id": 7042, "rank": 0, "probability": 0.41, "log_probability": -0.89, "logit": 19.3}]
    }]]
}))]
pub struct LensDto {
    /// The cache.
    cache: String,
    /// The name that its model is served under now.
    model: String,
    /// The place read, without its layer.
    hook: String,
    /// Layers, in the order of `values`.
    layers: Vec<usize>,
    /// Positions, in the order of each layer's values.
    positions: Vec<u32>,
    /// The tokens at these positions; the distributions are over the tokens behind them.
    position_tokens: Vec<String>,
    /// The tokens to follow, in the order asked for.
    tokens: Vec<Token>,
    /// The stored hook that the final distribution was taken from; null, and `kl` too, where neither the last block's output
    /// nor `logits` is stored.
    final_from: Option<String>,
    /// `[layer][position]`.
    values: Vec<Vec<Distribution>>,
}

/// One distribution over the next token. Null and empty where a logit is not finite.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = LensDistribution)]
pub struct Distribution {
    /// Entropy, in nats.
    entropy: Option<f64>,
    /// KL divergence of the model's final distribution from this one, `KL(final ‖ this)`, in nats.
    kl: Option<f64>,
    /// The most probable tokens, the most probable first; of equal ones the lower id.
    top: Vec<TopToken>,
    /// The tokens to follow.
    tokens: Vec<FollowedToken>,
}

/// One of the most probable tokens.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct TopToken {
    /// Its id.
    id: u32,
    /// What it stands for.
    token: String,
    /// Its probability.
    probability: f64,
    /// Its logit, scaled and capped as the model's own.
    logit: f32,
}

/// A token that was asked for.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct FollowedToken {
    /// Its id.
    id: u32,
    /// How many tokens are more probable.
    rank: usize,
    /// Its probability.
    probability: f64,
    /// Its log-probability, in nats.
    log_probability: f64,
    /// Its logit, scaled and capped as the model's own.
    logit: f32,
}

/// Read the residual stream as logits
///
/// The logit lens: the final norm and the unembedding of the served model, applied to the residual stream as it was stored,
/// at every layer and position. No forward pass is run. At the last block's output the logits are the model's own, bit for bit
/// where the cache holds float32. The model that made the cache must be served.
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
    let cache = stored(&state, tenant, id).await?;
    let model = model_of(state.engine.models(), &cache.cache)?;
    let store = state.engine.store().clone();
    let reading = Reading::new(store, cache, model, &request.hook, &request.layers, request.positions.as_ref())?;
    if format != Format::Json {
        return tensor(&state, reading, &request, query.values.unwrap_or(LensValues::LogProbs), format).await;
    }
    if query.values.is_some() {
        return Err(Problem::at(Code::InvalidQuery, "values", "values belongs to the binary formats").into());
    }
    let wanted = Wanted::of(&request, &reading)?;
    Ok(Json(state.analyse(move || describe(&reading, wanted)).await?).into_response())
}

/// What is said of each distribution.
struct Wanted {
    top_k: usize,
    tokens: Vec<Token>,
}

impl Wanted {
    fn of(request: &Lens, reading: &Reading) -> Result<Self, Problem> {
        let top_k = request.top_k.unwrap_or(5);
        if top_k > MAX_TOKENS {
            let detail = format!("at most {MAX_TOKENS} tokens are named; ask for format=npy to have all");
            return Err(Problem::at(Code::InvalidValue, "/top_k", detail));
        }
        let named = request.tokens.as_deref().unwrap_or_default();
        if named.len() > MAX_TOKENS {
            let detail = format!("at most {MAX_TOKENS} tokens are followed; ask for format=npy to have all");
            return Err(Problem::at(Code::InvalidValue, "/tokens", detail));
        }
        let tokenizer = reading.model.tokenizer();
        let resolve = |(i, token): (usize, &TokenRef)| token.resolve(tokenizer, &format!("/tokens/{i}"));
        let tokens: Vec<Token> = named.iter().enumerate().map(resolve).collect::<Result<_, _>>()?;
        let cells = reading.n_rows().saturating_mul(top_k + tokens.len() + 1);
        if cells > MAX_CELLS {
            let detail = format!(
                "the answer would hold {cells} entries; {MAX_CELLS} are allowed. Ask for fewer layers, positions or tokens"
            );
            return Err(Problem::new(Code::ResultTooLarge, detail));
        }
        Ok(Self { top_k, tokens })
    }
}

fn describe(reading: &Reading, wanted: Wanted) -> Result<LensDto, Problem> {
    let mut values: Vec<Vec<Distribution>> = vec![Vec::new(); reading.hooks.len()];
    let end = reading.end();
    reading.for_each_block(end, |hook, logits, last| {
        let rows = logits.par_chunks(reading.d_vocab());
        let described = rows.enumerate().map(|(i, row)| {
            let last = last.map(|last| &last[i * reading.d_vocab()..][..reading.d_vocab()]);
            wanted.describe(reading, row, last)
        });
        values[hook].par_extend(described);
        Ok(())
    })?;
    let cache = &reading.cache.cache;
    let token_at = |p: &u32| cache.tokens.get(*p as usize).cloned().unwrap_or_default();
    Ok(LensDto {
        cache: cache.id.to_string(),
        model: reading.model.info().id.clone(),
        hook: reading.site().name().trim_start_matches("hook_").to_owned(),
        layers: reading.hooks.iter().filter_map(Hook::layer).collect(),
        position_tokens: reading.positions.iter().map(token_at).collect(),
        positions: reading.positions.clone(),
        tokens: wanted.tokens,
        final_from: end.map(|Final(hook)| hook.to_string()),
        values,
    })
}

impl Wanted {
    /// The distribution of `logits` `[d_vocab]`, and how far it is from that of `last`, the model's own.
    fn describe(&self, reading: &Reading, logits: &[f32], last: Option<&[f32]>) -> Distribution {
        let Some(p) = Softmax::of(logits) else {
            return Distribution { entropy: None, kl: None, top: Vec::new(), tokens: Vec::new() };
        };
        let top: Vec<u32> = p.top(self.top_k).into_iter().filter_map(|i| u32::try_from(i).ok()).collect();
        let names = reading.model.tokenizer().token_strings(&top);
        let named = |(id, token): (u32, String)| {
            let i = id as usize;
            TopToken { id, token, probability: p.probability(i), logit: p.logit(i) }
        };
        let follow = |token: &Token| {
            let i = token.id as usize;
            let (rank, probability, log_probability) = (p.rank(i), p.probability(i), p.log_probability(i));
            FollowedToken { id: token.id, rank, probability, log_probability, logit: p.logit(i) }
        };
        Distribution {
            entropy: Some(p.entropy()),
            kl: last.and_then(Softmax::of).map(|last| last.kl(&p)),
            top: top.into_iter().zip(names).map(named).collect(),
            tokens: self.tokens.iter().map(follow).collect(),
        }
    }
}

/// Whole distributions, `[layer, pos, d_vocab]`.
async fn tensor(
    state: &ApiState,
    reading: Reading,
    request: &Lens,
    values: LensValues,
    format: Format,
) -> ApiResult<Response> {
    for (name, given) in [("top_k", request.top_k.is_some()), ("tokens", request.tokens.is_some())] {
        if given {
            let detail = format!("{name} has no meaning in this format: the answer has every token");
            return Err(Problem::at(Code::InvalidBody, format!("/{name}"), detail).into());
        }
    }
    let n_bytes = reading.n_rows().saturating_mul(reading.d_vocab() * Dtype::Float32.size());
    if n_bytes > MAX_TENSOR_BYTES {
        let detail = format!(
            "the tensor would have {n_bytes} bytes; {MAX_TENSOR_BYTES} are allowed. Ask for fewer layers or positions"
        );
        return Err(Problem::new(Code::ResultTooLarge, detail).into());
    }
    let name = match values {
        LensValues::LogProbs => "lens.log_probs",
        LensValues::Logits => "lens.logits",
    };
    let shape = vec![reading.hooks.len(), reading.positions.len(), reading.d_vocab()];
    let layers = reading.hooks.iter().filter_map(Hook::layer).collect();
    let parts = state.analyse(move || whole(&reading, values)).await?;
    let answer = TensorAnswer {
        hook: name.to_owned(),
        layer: None,
        layers: Some(layers),
        caches: None,
        offsets: None,
        shape,
        axes: vec![Axis::Layer, Axis::Pos, Axis::DVocab],
        dtype: Dtype::Float32,
        widened: false,
        parts,
    };
    respond_to_post(answer, format, state).await
}

/// The bytes of the tensor, layer by layer.
fn whole(reading: &Reading, values: LensValues) -> Result<Vec<Part>, Problem> {
    let mut layers: Vec<Vec<u8>> = vec![Vec::new(); reading.hooks.len()];
    reading.for_each_block(None, |hook, logits, _| {
        if values == LensValues::LogProbs {
            logits.par_chunks_mut(reading.d_vocab()).for_each(|row| match Softmax::of(row) {
                Some(p) => {
                    let log_probs: Vec<f32> = p.log_probabilities().collect();
                    row.copy_from_slice(&log_probs);
                }
                None => row.fill(f32::NAN),
            });
        }
        Dtype::Float32.encode(logits, &mut layers[hook]);
        Ok(())
    })?;
    Ok(layers.into_iter().map(|bytes| Part::Made(bytes.into())).collect())
}

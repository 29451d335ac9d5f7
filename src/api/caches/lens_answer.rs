//! The answer of a lens, as JSON.

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::dto::token::Token;
use residuum_engine::questions::{self, lens};

/// The distributions over the next token, computed from the residual stream.
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
    /// Name of its model on this server.
    model: String,
    /// The hook, without its layer.
    hook: String,
    /// Layers, in the order of `values`.
    layers: Vec<usize>,
    /// Positions, in the order of each layer's values.
    positions: Vec<u32>,
    /// The tokens at these positions; each distribution is over the token that comes next.
    position_tokens: Vec<String>,
    /// The tokens to follow, in the order of the request.
    tokens: Vec<Token>,
    /// The stored hook from which the final distribution was computed. If neither the last block's output nor `logits`
    /// is stored, it is null, and so is `kl`.
    final_from: Option<String>,
    /// `[layer][position]`.
    values: Vec<Vec<Distribution>>,
}

/// One distribution over the next token. Null and empty if a logit is not finite.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = LensDistribution)]
pub struct Distribution {
    /// Entropy, in nats.
    entropy: Option<f64>,
    /// KL divergence of the model's final distribution from this one, `KL(final ‖ this)`, in nats.
    kl: Option<f64>,
    /// The most probable tokens, the most probable first; among equals the lower id first.
    top: Vec<TopToken>,
    /// The tokens to follow.
    tokens: Vec<FollowedToken>,
}

/// One of the most probable tokens.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct TopToken {
    /// Its id.
    id: u32,
    /// Its text.
    token: String,
    /// Its probability.
    probability: f64,
    /// Its logit, scaled and capped as the model's own.
    logit: f32,
}

/// One of the tokens to follow.
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

impl From<lens::LensAnswer> for LensDto {
    fn from(answer: lens::LensAnswer) -> Self {
        let cache = &answer.cache.cache;
        let token_at = |p: &u32| cache.tokens.get(*p as usize).cloned().unwrap_or_default();
        Self {
            cache: cache.id.to_string(),
            model: answer.model,
            hook: answer.site.name().trim_start_matches("hook_").to_owned(),
            layers: answer.layers,
            position_tokens: answer.positions.iter().map(token_at).collect(),
            positions: answer.positions,
            tokens: answer.tokens.into_iter().map(Into::into).collect(),
            final_from: answer.final_from.map(|hook| hook.to_string()),
            values: answer.values.into_iter().map(|layer| layer.into_iter().map(Into::into).collect()).collect(),
        }
    }
}

impl From<lens::LensDistribution> for Distribution {
    fn from(found: lens::LensDistribution) -> Self {
        let top = |lens::TopToken { token: questions::Token { id, token }, probability, logit }| TopToken {
            id,
            token,
            probability,
            logit,
        };
        let followed = |lens::FollowedToken { id, rank, probability, log_probability, logit }| FollowedToken {
            id,
            rank,
            probability,
            log_probability,
            logit,
        };
        Self {
            entropy: found.entropy,
            kl: found.kl,
            top: found.top.into_iter().map(top).collect(),
            tokens: found.tokens.into_iter().map(followed).collect(),
        }
    }
}

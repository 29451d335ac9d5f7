//! The most probable next tokens of a cache, in responses.

use serde::Serialize;
use utoipa::ToSchema;

use residuum_engine::questions::{
    Token,
    lens::TopToken,
    next_tokens::{NextTokens, NoNextTokens},
};

/// The most probable next tokens after the last captured position of a cache.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NextTokens, example = json!({
    "cache": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "position": 9, "missing": null,
    "tokens": [{"id": 7042, "token": " Paris", "probability": 0.41, "logit": 19.3}]
}))]
pub struct NextTokensDto {
    /// The cache.
    pub cache: String,
    /// The last captured position: the tokens are those that would follow it. Null if `logits` were not captured at
    /// single positions.
    pub position: Option<u32>,
    /// Why there are no tokens; null if there are.
    pub missing: Option<NoNextTokensDto>,
    /// The tokens, the most probable first; of equally probable ones the lower id first.
    pub tokens: Vec<NextTokenDto>,
}

/// Why a cache has no next tokens.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = NoNextTokens)]
#[serde(rename_all = "snake_case")]
pub enum NoNextTokensDto {
    /// The hook `logits` was not captured: add it to `capture.hooks`.
    LogitsNotCaptured,
    /// A mean over positions was captured, which is no distribution over the next token.
    MeanOfPositions,
    /// A logit is NaN or infinite.
    NotFinite,
}

/// One of the most probable next tokens.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NextToken)]
pub struct NextTokenDto {
    /// Its id.
    pub id: u32,
    /// Its text; empty if the model that made the cache is no longer served.
    pub token: String,
    /// Its probability: the softmax over the whole vocabulary, computed in float64.
    pub probability: f64,
    /// Its logit, as captured.
    pub logit: f32,
}

impl From<NextTokens> for NextTokensDto {
    fn from(NextTokens { cache, position, top, missing }: NextTokens) -> Self {
        let token = |TopToken { token: Token { id, token }, probability, logit }| NextTokenDto {
            id,
            token,
            probability,
            logit,
        };
        let why = |missing| match missing {
            NoNextTokens::NotCaptured => NoNextTokensDto::LogitsNotCaptured,
            NoNextTokens::Mean => NoNextTokensDto::MeanOfPositions,
            NoNextTokens::NotFinite => NoNextTokensDto::NotFinite,
        };
        let tokens = top.into_iter().map(token).collect();
        Self { cache: cache.to_string(), position, missing: missing.map(why), tokens }
    }
}

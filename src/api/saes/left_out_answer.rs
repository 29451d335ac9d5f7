//! The part of a response that describes positions left out because of their tokens.

use serde::Serialize;
use utoipa::ToSchema;

use residuum_engine::questions::sae::left_out::{self, LeftOutPositions, LeftOutTokens};

/// What decided which tokens are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LeftOutSaidBy)]
#[serde(rename_all = "lowercase")]
pub enum SaidBy {
    /// The request.
    Request,
    /// `exclude_special_tokens` of the autoencoder's `cfg.json`.
    Autoencoder,
    /// Neither, so none are left out.
    Default,
}

/// Which tokens are left out.
#[derive(Serialize, ToSchema)]
#[schema(as = LeftOutTokens)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes `tokens` for the specification")]
enum LeftOutTokensSchema {
    /// No tokens.
    None,
    /// Tokens that the model's tokenizer marks as special.
    Special,
    /// The ids in the autoencoder's `exclude_special_tokens`.
    Listed,
}

/// Positions left out because of their tokens.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = LeftOut, example = json!({"tokens": "special", "n_ids": null, "said_by": "autoencoder", "rows": 100}))]
pub struct LeftOutDto {
    /// `none`; `special`: tokens that the model's tokenizer marks as special; `listed`: the ids in the autoencoder's
    /// `exclude_special_tokens`.
    #[schema(value_type = LeftOutTokensSchema)]
    tokens: &'static str,
    /// For `listed`: number of ids.
    n_ids: Option<usize>,
    /// What decided this.
    said_by: SaidBy,
    /// Number of stored positions left out because of this.
    rows: u64,
}

impl From<LeftOutPositions> for LeftOutDto {
    fn from(left_out: LeftOutPositions) -> Self {
        let (tokens, n_ids) = match left_out.tokens {
            LeftOutTokens::Nothing => ("none", None),
            LeftOutTokens::Special => ("special", None),
            LeftOutTokens::Listed(n) => ("listed", Some(n)),
        };
        Self { tokens, n_ids, said_by: left_out.said_by.into(), rows: left_out.rows }
    }
}

impl From<left_out::SaidBy> for SaidBy {
    fn from(said_by: left_out::SaidBy) -> Self {
        match said_by {
            left_out::SaidBy::Question => Self::Request,
            left_out::SaidBy::Autoencoder => Self::Autoencoder,
            left_out::SaidBy::Default => Self::Default,
        }
    }
}

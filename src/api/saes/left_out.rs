//! Which tokens an autoencoder does not get to see, and who decided so.

use serde::Serialize;
use utoipa::ToSchema;

use residuum_model::sae::{ExcludedTokens, Sae};

/// Which tokens are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The tokens.
    pub tokens: ExcludedTokens,
    /// Who decided.
    pub said_by: SaidBy,
}

/// Who decided which tokens are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LeftOutSaidBy)]
#[serde(rename_all = "lowercase")]
pub enum SaidBy {
    /// The request.
    Request,
    /// `exclude_special_tokens` of the autoencoder's `cfg.json`.
    Autoencoder,
    /// Neither, so none are.
    Default,
}

impl LeftOut {
    /// What a request decides with `special`, and the autoencoder where it does not.
    pub fn of(sae: &Sae, special: Option<bool>) -> Self {
        match (special, &sae.settings().exclude_special_tokens) {
            (Some(true), _) => Self::by_request(ExcludedTokens::Nothing),
            (Some(false), _) => Self::by_request(ExcludedTokens::Special),
            (None, ExcludedTokens::Nothing) => Self { tokens: ExcludedTokens::Nothing, said_by: SaidBy::Default },
            (None, tokens) => Self { tokens: tokens.clone(), said_by: SaidBy::Autoencoder },
        }
    }

    /// What a request says by itself.
    pub fn by_request(tokens: ExcludedTokens) -> Self {
        Self { tokens, said_by: SaidBy::Request }
    }

    /// Whether any tokens are left out.
    pub fn any(&self) -> bool {
        self.tokens != ExcludedTokens::Nothing
    }

    /// For the answer; `rows` were left out.
    pub fn describe(&self, rows: u64) -> LeftOutDto {
        let (tokens, n_ids) = match &self.tokens {
            ExcludedTokens::Nothing => ("none", None),
            ExcludedTokens::Special => ("special", None),
            ExcludedTokens::Listed(ids) => ("listed", Some(ids.len())),
        };
        LeftOutDto { tokens, n_ids, said_by: self.said_by, rows }
    }
}

/// Positions left out because of their tokens.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = LeftOut, example = json!({"tokens": "special", "n_ids": null, "said_by": "autoencoder", "rows": 100}))]
pub struct LeftOutDto {
    /// `none`; `special`: those that the model's tokenizer marks as special; `listed`: the ids of the autoencoder's
    /// `exclude_special_tokens`.
    tokens: &'static str,
    /// Of `listed`: how many ids.
    n_ids: Option<usize>,
    /// Who decided.
    said_by: SaidBy,
    /// Stored positions left out for it.
    rows: u64,
}

//! Decides which tokens are not encoded, and records who decided.

use residuum_model::sae::{ExcludedTokens, Sae};

/// Positions left out because of their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOutPositions {
    /// The tokens.
    pub tokens: LeftOutTokens,
    /// Who decided.
    pub said_by: SaidBy,
    /// Number of stored positions left out for this reason.
    pub rows: u64,
}

/// Kind of tokens that are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOutTokens {
    /// None.
    Nothing,
    /// Those that the model's tokenizer marks as special.
    Special,
    /// This many token ids, listed in the autoencoder's `exclude_special_tokens`.
    Listed(usize),
}

/// Who decided which tokens are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaidBy {
    /// The question.
    Question,
    /// `exclude_special_tokens` of the autoencoder's `cfg.json`.
    Autoencoder,
    /// Neither; no tokens are left out.
    Default,
}

/// The decision which tokens are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// The tokens.
    pub tokens: ExcludedTokens,
    /// Who decided.
    pub said_by: SaidBy,
}

impl LeftOut {
    /// The decision of the question's `special`, or of the autoencoder if the question has none.
    pub fn of(sae: &Sae, special: Option<bool>) -> Self {
        match (special, &sae.settings().exclude_special_tokens) {
            (Some(true), _) => Self::by_question(ExcludedTokens::Nothing),
            (Some(false), _) => Self::by_question(ExcludedTokens::Special),
            (None, ExcludedTokens::Nothing) => Self { tokens: ExcludedTokens::Nothing, said_by: SaidBy::Default },
            (None, tokens) => Self { tokens: tokens.clone(), said_by: SaidBy::Autoencoder },
        }
    }

    /// A decision by the question.
    pub fn by_question(tokens: ExcludedTokens) -> Self {
        Self { tokens, said_by: SaidBy::Question }
    }

    /// Whether any tokens are left out.
    pub fn any(&self) -> bool {
        self.tokens != ExcludedTokens::Nothing
    }

    /// The decision as part of an answer, with the number of positions left out.
    pub fn positions(&self, rows: u64) -> LeftOutPositions {
        let tokens = match &self.tokens {
            ExcludedTokens::Nothing => LeftOutTokens::Nothing,
            ExcludedTokens::Special => LeftOutTokens::Special,
            ExcludedTokens::Listed(ids) => LeftOutTokens::Listed(ids.len()),
        };
        LeftOutPositions { tokens, said_by: self.said_by, rows }
    }
}

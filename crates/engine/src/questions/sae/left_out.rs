//! Which tokens an autoencoder does not get to see, and who decided so.

use residuum_model::sae::{ExcludedTokens, Sae};

/// Positions left out because of their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOutPositions {
    /// Which tokens.
    pub tokens: LeftOutTokens,
    /// Who decided.
    pub said_by: SaidBy,
    /// Stored positions left out for it.
    pub rows: u64,
}

/// Tokens that are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOutTokens {
    /// None.
    Nothing,
    /// Those that the model's tokenizer marks as special.
    Special,
    /// So many ids, which the autoencoder's `exclude_special_tokens` lists.
    Listed(usize),
}

/// Who decided which tokens are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaidBy {
    /// The question.
    Question,
    /// `exclude_special_tokens` of the autoencoder's `cfg.json`.
    Autoencoder,
    /// Neither, so none are.
    Default,
}

/// Which tokens are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// The tokens.
    pub tokens: ExcludedTokens,
    /// Who decided.
    pub said_by: SaidBy,
}

impl LeftOut {
    /// What a question decides with `special`, and the autoencoder where it does not.
    pub fn of(sae: &Sae, special: Option<bool>) -> Self {
        match (special, &sae.settings().exclude_special_tokens) {
            (Some(true), _) => Self::by_question(ExcludedTokens::Nothing),
            (Some(false), _) => Self::by_question(ExcludedTokens::Special),
            (None, ExcludedTokens::Nothing) => Self { tokens: ExcludedTokens::Nothing, said_by: SaidBy::Default },
            (None, tokens) => Self { tokens: tokens.clone(), said_by: SaidBy::Autoencoder },
        }
    }

    /// What a question says by itself.
    pub fn by_question(tokens: ExcludedTokens) -> Self {
        Self { tokens, said_by: SaidBy::Question }
    }

    /// Whether any tokens are left out.
    pub fn any(&self) -> bool {
        self.tokens != ExcludedTokens::Nothing
    }

    /// For the answer; `rows` were left out.
    pub fn positions(&self, rows: u64) -> LeftOutPositions {
        let tokens = match &self.tokens {
            ExcludedTokens::Nothing => LeftOutTokens::Nothing,
            ExcludedTokens::Special => LeftOutTokens::Special,
            ExcludedTokens::Listed(ids) => LeftOutTokens::Listed(ids.len()),
        };
        LeftOutPositions { tokens, said_by: self.said_by, rows }
    }
}

//! Reads `exclude_special_tokens`: tokens that an autoencoder was not trained on.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::TextTokenizer;
use crate::sae::cfg_keys::{Keys, Read, Refused};

/// Tokens that are excluded, such as those that an autoencoder was not trained on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ExcludedTokens {
    /// None.
    #[default]
    Nothing,
    /// The tokens that the model's tokenizer marks as special.
    Special,
    /// The tokens with these ids; at least one.
    Listed(BTreeSet<u32>),
}

impl ExcludedTokens {
    /// Whether a token with this id is excluded.
    #[must_use]
    pub fn contains(&self, id: u32, tokenizer: &TextTokenizer) -> bool {
        match self {
            Self::Nothing => false,
            Self::Special => tokenizer.is_special(id),
            Self::Listed(ids) => ids.contains(&id),
        }
    }

    /// The value in `cfg.json`; `None` if nothing is excluded.
    #[must_use]
    pub fn to_json(&self) -> Option<Value> {
        match self {
            Self::Nothing => None,
            Self::Special => Some(Value::Bool(true)),
            Self::Listed(ids) => Some(ids.iter().copied().collect()),
        }
    }
}

/// Reads `exclude_special_tokens`: true, false or a list of ids.
pub(super) fn excluded_tokens(keys: &mut Keys) -> Read<ExcludedTokens> {
    const KEY: &str = "exclude_special_tokens";
    let wrong = |value: &dyn std::fmt::Display| {
        Err(Refused::new(KEY, format!("is {value}; expected true, false or a list of token ids")))
    };
    match keys.take(KEY) {
        None | Some(Value::Bool(false)) => Ok(ExcludedTokens::Nothing),
        Some(Value::Bool(true)) => Ok(ExcludedTokens::Special),
        Some(Value::Array(ids)) if ids.is_empty() => Ok(ExcludedTokens::Nothing),
        Some(Value::Array(ids)) => {
            let read = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
            match ids.iter().map(read).collect::<Option<BTreeSet<u32>>>() {
                Some(ids) => Ok(ExcludedTokens::Listed(ids)),
                None => wrong(&Value::Array(ids)),
            }
        }
        Some(other) => wrong(&other),
    }
}

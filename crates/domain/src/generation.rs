//! Generating text: how to choose tokens, and what came of it.

use serde::{Deserialize, Serialize};

/// How to continue an input.
///
/// Each token is chosen from the softmax of `logits / temperature`, restricted to the `top_k` most probable tokens and
/// then to the smallest set of them whose probabilities reach `top_p` (nucleus sampling, Holtzman et al., 2020).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Tokens to add at most.
    pub max_new_tokens: usize,
    /// 0 takes the most probable token every time.
    pub temperature: f64,
    /// Only the most probable tokens.
    pub top_k: Option<usize>,
    /// Only as many of them as reach this probability.
    pub top_p: Option<f64>,
    /// Decides every choice, together with the input's place in its run.
    pub seed: u64,
    /// Texts that end the continuation.
    pub stop: Vec<String>,
}

impl Generation {
    /// Whether the most probable token is taken every time.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == Some(1)
    }
}

/// Why a continuation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// `max_new_tokens` were added.
    Length,
    /// The model chose a token that ends its text; it is the last one.
    EndOfSequence,
    /// One of the `stop` texts appeared.
    Stop,
}

/// A continuation. Its tokens are the cache's from `first` on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextCompletion {
    /// Position of the first generated token.
    pub first: usize,
    /// The generated text, without special tokens and without the text that stopped it.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// How tokens were chosen.
    pub generation: Generation,
}

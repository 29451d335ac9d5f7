//! Generation: the settings for choosing tokens, and its result.

use serde::{Deserialize, Serialize};

/// How to continue an input.
///
/// Each token is chosen from the softmax of `logits / temperature`, restricted to the `top_k` most probable tokens and
/// then to the smallest set of them whose probabilities reach `top_p` (nucleus sampling, Holtzman et al., 2020).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Largest number of tokens to add.
    pub max_new_tokens: usize,
    /// The temperature; 0 always chooses the most probable token.
    pub temperature: f64,
    /// If set, only this many of the most probable tokens are candidates.
    pub top_k: Option<usize>,
    /// If set, only the smallest set of them that reaches this probability.
    pub top_p: Option<f64>,
    /// The seed. Together with the index of the input in its run, it determines every choice.
    pub seed: u64,
    /// Texts that end the continuation.
    pub stop: Vec<String>,
}

impl Generation {
    /// Whether the most probable token is always chosen.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == Some(1)
    }
}

/// Why generation ended.
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

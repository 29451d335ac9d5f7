//! Generation: the settings for choosing tokens, and its result.

use serde::{Deserialize, Serialize};

/// For [`Generation::max_new_tokens`]: what is left of the model's context after the input.
pub const REST_OF_CONTEXT: usize = usize::MAX;

/// How to continue an input.
///
/// Each token is chosen from the softmax of `logits / temperature`, restricted to the `top_k` most probable tokens and
/// then to the smallest set of them whose probabilities reach `top_p` (nucleus sampling, Holtzman et al., 2020).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Largest number of tokens to add. In a request, [`REST_OF_CONTEXT`]: as many as fit after each input.
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
    /// Which of the samples of its input this is, from 0.
    #[serde(default)]
    pub sample: u32,
    /// Number of samples of each input.
    #[serde(default = "one")]
    pub n: u32,
}

const fn one() -> u32 {
    1
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
    /// The run was cancelled: what had been written by then.
    Cancelled,
}

/// Which log-probabilities are computed beside those of the generated tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scoring {
    /// Whether the tokens of the prompt are scored too.
    pub prompt: bool,
    /// For each scored token, how many of the most probable tokens are listed beside it.
    pub top: usize,
}

/// The log-probability of a token, given the tokens before it: natural logarithms of the softmax of the logits, before
/// any temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenScore {
    /// The token.
    pub token_id: u32,
    /// Its log-probability; `None` for the first token of a prompt.
    pub logprob: Option<f32>,
    /// The most probable tokens with theirs, most probable first; of equal ones, the lower id first.
    pub top: Vec<(u32, f32)>,
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
    /// The log-probability of each generated token, before temperature; empty in caches of older versions.
    #[serde(default)]
    pub logprobs: Vec<f32>,
}

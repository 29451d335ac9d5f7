//! A request for text, after its fields are checked.

use super::{recording::Recording, sampling::Delivery};
use residuum_domain::Scoring;
use residuum_engine::RunRequest;

/// Which of the two routes is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Continuations of prompts.
    Text,
    /// Answers to a chat.
    Chat,
}

/// A request whose fields are checked.
pub struct Asked {
    /// What to generate.
    pub run: RunRequest,
    /// Which log-probabilities to compute.
    pub scoring: Scoring,
    pub form: Form,
    pub delivery: Delivery,
    /// Whether answers begin with the prompt.
    pub echo: bool,
    /// Whether log-probabilities are wanted.
    pub logprobs: bool,
    /// The name of the field with the maximum number of tokens.
    pub limit_field: &'static str,
    /// What to store.
    pub recording: Option<Recording>,
}

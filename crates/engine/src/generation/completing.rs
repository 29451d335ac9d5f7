//! Generation for a client that waits for it, token by token; with or without a run in the store.

use std::sync::Arc;

use super::token_log::{GenerationEvent, TokenFeed};
use crate::{Engine, RunRequest};
use residuum_domain::{Problem, RunId, Scoring};
use residuum_model::Model;

/// What a client wants to be generated while it waits.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// Inputs, interventions, and how to generate: `generation` must be there. `max_new_tokens` may be 0 if nothing is
    /// recorded: then the prompts are only scored.
    pub run: RunRequest,
    /// Whether this is a run that is stored, with its captures. Otherwise nothing of it is kept.
    pub recorded: bool,
    /// Which log-probabilities to report.
    pub scoring: Scoring,
}

/// An input as the model gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptTokens {
    /// Token ids.
    pub token_ids: Vec<u32>,
    /// The text of each token.
    pub tokens: Vec<String>,
    /// The text as posted or rendered from a chat; `None` if token ids were posted.
    pub text: Option<String>,
}

/// A token as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpelledToken {
    /// Its text; bytes that are not UTF-8 are U+FFFD.
    pub text: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A generation under way. If it is not recorded, it ends when this is dropped.
pub struct Completing {
    run: RunId,
    prompts: Vec<PromptTokens>,
    n_items: usize,
    model: Arc<Model>,
    feed: TokenFeed,
}

impl Completing {
    /// The run, if it is recorded; else only a name of this generation.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The inputs in order. Sample `s` of input `i` is item `i × samples + s`.
    #[must_use]
    pub fn prompts(&self) -> &[PromptTokens] {
        &self.prompts
    }

    /// Number of items: inputs × samples.
    #[must_use]
    pub fn n_items(&self) -> usize {
        self.n_items
    }

    /// The texts and bytes of tokens of the model.
    #[must_use]
    pub fn spell(&self, token_ids: &[u32]) -> Vec<SpelledToken> {
        let spelled = |id: &u32| {
            let bytes = self.model.tokenizer().token_bytes(*id);
            SpelledToken { text: String::from_utf8_lossy(&bytes).into_owned(), bytes }
        };
        token_ids.iter().map(spelled).collect()
    }

    /// The next event; `None` once every item has ended. If the server stops, the items that have not ended end with
    /// [`Code::Unavailable`](residuum_domain::Code::Unavailable). Safe to cancel.
    pub async fn next(&mut self) -> Option<Arc<GenerationEvent>> {
        self.feed.next().await.map(|(_, event)| event)
    }
}

impl Engine {
    /// Starts to generate for a client that waits.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn complete(&self, request: CompletionRequest) -> Result<Completing, Problem> {
        let _ = request;
        Err(Problem::new(residuum_domain::Code::Unavailable, "not yet"))
    }
}

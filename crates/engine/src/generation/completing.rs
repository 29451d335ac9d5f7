//! Generation for a client that waits for it, token by token; with or without a run in the store.

use std::sync::Arc;

use super::token_log::{GenerationEvent, TokenFeed, TokenLog};
use crate::{Engine, Prepared, RunRequest, submit::units_of};
use residuum_domain::{Code, NewItem, Problem, RunId, Scoring};
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
    /// Held until the client is gone, so that the model stays while queued items need it.
    model: Arc<Model>,
    feed: TokenFeed,
    /// The engine, if the generation is not recorded.
    unrecorded: Option<Engine>,
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

    /// The fingerprint of the model.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.model.info().fingerprint
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

impl Drop for Completing {
    fn drop(&mut self) {
        if let Some(engine) = &self.unrecorded {
            engine.forget(self.run, &[]);
        }
    }
}

impl Engine {
    /// Starts to generate for a client that waits.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn complete(&self, request: CompletionRequest) -> Result<Completing, Problem> {
        let CompletionRequest { mut run, recorded, scoring } = request;
        let Some(generation) = &run.generation else {
            return Err(Problem::new(Code::Internal, "a completion needs settings for its generation"));
        };
        if recorded && generation.max_new_tokens == 0 {
            let detail = "a run that is stored generates at least one token";
            return Err(Problem::at(Code::InvalidValue, "/max_tokens", detail));
        }
        if !recorded {
            run.capture.hooks = Vec::new();
            run.reuse = false;
        }
        let samples = run.samples() as usize;
        let prepared = self.prepare(run).await?;
        let items = &prepared.run.items;
        let prompt = |item: &NewItem| PromptTokens {
            token_ids: item.token_ids.clone(),
            tokens: item.tokens.clone(),
            text: item.text.clone(),
        };
        let prompts = items.iter().step_by(samples).map(prompt).collect();
        let (n_items, model) = (items.len(), Arc::clone(&prepared.model));
        let log = Arc::new(TokenLog::new(Some(n_items)));
        let feed = TokenFeed::new(Arc::clone(&log), 0);
        let run = if recorded {
            self.submit_prepared(prepared, Some((log, scoring))).await?.id()
        } else {
            self.queue_unrecorded(prepared, log, scoring)?
        };
        Ok(Completing { run, prompts, n_items, model, feed, unrecorded: (!recorded).then(|| self.clone()) })
    }

    /// Queues items that the store never knows.
    fn queue_unrecorded(&self, prepared: Prepared, log: Arc<TokenLog>, scoring: Scoring) -> Result<RunId, Problem> {
        let Prepared { run, item_bytes, .. } = prepared;
        let _admission = self.admit(run.tenant, &item_bytes)?;
        let id = RunId::generate();
        let units = units_of(&run, &item_bytes).into_iter().map(|unit| crate::Unit { run: id, ..unit }).collect();
        self.inner.followed.open(id, log, scoring, Some((run.items, run.model)));
        self.inner.enqueue(units);
        Ok(id)
    }

    /// Ends the generations by a model that are not stored.
    pub(crate) fn end_unrecorded(&self, model: &str) {
        let unloading = Problem::new(Code::Unavailable, "the model is being unloaded");
        for run in self.inner.followed.unrecorded_of(model) {
            self.inner.followed.close(run, &unloading);
            self.forget(run, &[]);
        }
    }

    /// Follows the tokens of a run that generates, from event `after` on. Call it before reading the run, and
    /// [`Self::unfollow`] if it has ended.
    #[must_use]
    pub fn follow(&self, run: RunId, after: u64) -> TokenFeed {
        TokenFeed::new(self.inner.followed.log(run).0, after)
    }

    /// Ends the log of a run that has ended.
    pub fn unfollow(&self, run: RunId) {
        self.inner.close_logs(&[run]);
    }
}

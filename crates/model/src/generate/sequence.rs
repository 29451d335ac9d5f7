//! One input that is being continued, between the steps.

use std::{ops::Range, sync::Arc};

use residuum_domain::{Applied, Edits, FinishReason, Generation, Scoring, TextCompletion, TokenScore};

use super::{
    kept_rows::{Keep, KeptRows},
    sampler::Sampler,
    scores::score,
    text_stream::TextStream,
};
use crate::{cpu::kv_cache::KvCache, tokenizer::TextTokenizer};

/// An input that is being continued.
#[derive(Debug)]
pub struct Sequence {
    pub(super) generation: Generation,
    pub(super) token_ids: Vec<u32>,
    pub(super) n_prompt: usize,
    /// Tokens in the KV cache; their keys were rotated for a text of `rotated_for` tokens.
    pub(super) n_seen: usize,
    pub(super) rotated_for: usize,
    pub(super) history: KvCache,
    pub(super) edits: Option<(Arc<Edits>, Vec<Applied>)>,
    sampler: Sampler,
    scoring: Scoring,
    /// Scores of the prompt's tokens, while they are computed.
    prompt_scores: Vec<TokenScore>,
    text: TextStream,
    logprobs: Vec<f32>,
    kept: Option<KeptRows>,
    ended: Option<FinishReason>,
    news: Vec<News>,
}

/// What a step added to a sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// The prompt's tokens have been scored.
    Scored(Vec<TokenScore>),
    /// A token was chosen.
    Written {
        /// Its position.
        position: usize,
        /// The token and its log-probability.
        score: TokenScore,
        /// Text that is certain now.
        text: String,
        /// Number of code points of the continuation before this token.
        text_start: usize,
    },
    /// Generation ended, with text that was held back until now.
    Ended(FinishReason, String),
}

/// A sequence whose generation has ended.
#[derive(Debug, PartialEq)]
pub struct Finished {
    /// All tokens.
    pub token_ids: Vec<u32>,
    /// What was generated.
    pub completion: TextCompletion,
    /// The rows that were captured meanwhile.
    pub kept: Option<KeptRows>,
}

impl Sequence {
    pub(super) fn new(token_ids: Vec<u32>, generation: Generation, stream: u64) -> Self {
        Self {
            sampler: Sampler::new(&generation, stream),
            n_prompt: token_ids.len(),
            n_seen: 0,
            rotated_for: 0,
            history: KvCache::default(),
            edits: None,
            scoring: Scoring::default(),
            prompt_scores: Vec::new(),
            text: TextStream::default(),
            logprobs: Vec::new(),
            kept: None,
            ended: None,
            news: Vec::new(),
            generation,
            token_ids,
        }
    }

    /// Applies interventions at every step.
    #[must_use]
    pub fn with_edits(self, edits: Arc<Edits>, applied: Vec<Applied>) -> Self {
        Self { edits: Some((edits, applied)), ..self }
    }

    /// Computes further log-probabilities.
    #[must_use]
    pub fn with_scoring(self, scoring: Scoring) -> Self {
        Self { scoring, ..self }
    }

    /// Captures rows while decoding. The last token is passed through the model for that, too.
    #[must_use]
    pub fn with_keep(self, keep: Keep) -> Self {
        Self { kept: Some(KeptRows::new(keep)), ..self }
    }

    /// Whether everything is done: generation has ended, and what is to be captured is.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.ended.is_some() && (self.kept.is_none() || self.n_seen == self.token_ids.len())
    }

    /// Tokens that its KV cache holds.
    #[must_use]
    pub fn n_cached(&self) -> usize {
        self.n_seen
    }

    /// Drops the KV cache. The next steps fill it again, which changes no number.
    pub fn release(&mut self) {
        self.history = KvCache::default();
        self.n_seen = 0;
    }

    /// What happened since the last call.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Ends generation now. Returns whether anything had been written.
    pub fn cancel(&mut self, tokenizer: &TextTokenizer) -> bool {
        let wrote = self.token_ids.len() > self.n_prompt;
        if wrote && self.ended.is_none() {
            let rest = self.text.end(tokenizer, &self.token_ids);
            self.end(FinishReason::Cancelled, rest);
        }
        wrote
    }

    /// All tokens, what was generated and what was captured; `None` if it is not finished.
    #[must_use]
    pub fn finish(self) -> Option<Finished> {
        if !self.is_finished() {
            return None;
        }
        let completion = TextCompletion {
            first: self.n_prompt,
            text: self.text.text().to_owned(),
            finish_reason: self.ended?,
            generation: self.generation,
            logprobs: self.logprobs,
        };
        Some(Finished { token_ids: self.token_ids, completion, kept: self.kept })
    }

    /// Number of its tokens in the next step, at most `room`. `score_rows`: most rows whose logits may be kept at once.
    pub(super) fn share(&self, room: usize, score_rows: usize) -> usize {
        let most = if self.scores_prompt() { score_rows.min(room) } else { room };
        if self.is_finished() { 0 } else { (self.token_ids.len() - self.n_seen).min(most) }
    }

    fn scores_prompt(&self) -> bool {
        self.scoring.prompt && self.prompt_scores.len() < self.n_prompt
    }

    /// The hooks that it captures.
    pub(super) fn kept_hooks(&self) -> &[residuum_domain::Hook] {
        self.kept.as_ref().map_or(&[], |kept| kept.hooks())
    }

    /// The rows to capture of its next `share` tokens, counted from the first of them.
    pub(super) fn kept_in(&self, share: usize) -> Range<usize> {
        let step = self.n_seen..self.n_seen + share;
        let Some(kept) = &self.kept else { return 0..0 };
        let is_last = self.ended.is_some() && step.end == self.token_ids.len();
        let wanted = kept.wanted(step, is_last);
        wanted.start - self.n_seen..wanted.end - self.n_seen
    }

    /// The rows of its next `share` tokens whose logits are needed, counted from the first of them.
    pub(super) fn logits_in(&self, share: usize) -> Range<usize> {
        if self.ended.is_some() {
            return 0..0;
        }
        let reaches_end = self.n_seen + share == self.token_ids.len();
        match (self.scores_prompt(), reaches_end) {
            (true, _) => 0..share,
            (false, true) => share - 1..share,
            (false, false) => 0..0,
        }
    }

    /// Takes in the captured rows of a step: those of one of the step's hooks.
    pub(super) fn keep(&mut self, hook: residuum_domain::Hook, values: &[f32]) {
        if let Some(kept) = &mut self.kept
            && let Some(index) = kept.hooks().iter().position(|h| *h == hook)
        {
            kept.append(index, values);
        }
    }

    /// Takes in the result of a step over its next `share` tokens: the logits of the rows of [`Self::logits_in`], each of `d_vocab`.
    pub(super) fn advance(
        &mut self,
        share: usize,
        logits: &[f32],
        (d_vocab, tokenizer, end_tokens): (usize, &TextTokenizer, &[u32]),
    ) {
        let captured = self.kept_in(share);
        if let Some(kept) = &mut self.kept {
            kept.appended(self.n_seen + captured.start..self.n_seen + captured.end);
        }
        if self.scores_prompt() {
            self.score_prompt(share, logits, d_vocab);
        }
        self.n_seen += share;
        if self.ended.is_some() || self.n_seen < self.token_ids.len() {
            return;
        }
        if self.generation.max_new_tokens == 0 {
            return self.end(FinishReason::Length, String::new());
        }
        let last = &logits[logits.len() - d_vocab..];
        let next = self.sampler.choose(last);
        self.write(score(last, next, self.scoring.top), tokenizer, end_tokens);
    }

    /// Scores the tokens of the prompt that follow the rows of a step.
    fn score_prompt(&mut self, share: usize, logits: &[f32], d_vocab: usize) {
        if self.prompt_scores.is_empty() {
            let first = TokenScore { token_id: self.token_ids[0], logprob: None, top: Vec::new() };
            self.prompt_scores.push(first);
        }
        for (row, logits) in (self.n_seen..self.n_seen + share).zip(logits.chunks_exact(d_vocab)) {
            // rows that are passed again after their cache was dropped are scored already
            if row + 1 == self.prompt_scores.len() && row + 1 < self.n_prompt {
                self.prompt_scores.push(score(logits, self.token_ids[row + 1], self.scoring.top));
            }
        }
        if self.prompt_scores.len() == self.n_prompt {
            self.news.push(News::Scored(self.prompt_scores.clone()));
        }
    }

    /// Appends a token, and ends the text if the token ends it.
    fn write(&mut self, score: TokenScore, tokenizer: &TextTokenizer, end_tokens: &[u32]) {
        let (position, newest) = (self.token_ids.len(), score.token_id);
        self.token_ids.push(newest);
        self.logprobs.push(score.logprob.unwrap_or(f32::NAN));
        let text_start = self.text.n_decoded();
        let mut text = self.text.push(tokenizer, &self.token_ids, self.n_prompt, &self.generation.stop);
        let ended = if self.text.is_stopped() {
            Some(FinishReason::Stop)
        } else if end_tokens.contains(&newest) {
            Some(FinishReason::EndOfSequence)
        } else {
            (self.logprobs.len() >= self.generation.max_new_tokens).then_some(FinishReason::Length)
        };
        if ended.is_some() {
            text.push_str(&self.text.end(tokenizer, &self.token_ids));
        }
        self.news.push(News::Written { position, score, text, text_start });
        if let Some(reason) = ended {
            self.end(reason, String::new());
        }
    }

    fn end(&mut self, reason: FinishReason, rest: String) {
        self.ended = Some(reason);
        self.news.push(News::Ended(reason, rest));
    }
}

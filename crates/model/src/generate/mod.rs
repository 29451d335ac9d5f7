//! Generation: continues inputs token by token.
//!
//! Every step is a packed forward pass over the new tokens of each sequence, with a KV cache of the earlier ones, that captures the
//! logits of each sequence's last row. The logits equal those of one pass over the whole text, bit for bit, so the tokens depend
//! neither on the rest of the batch nor on how a prompt was divided into steps. Nothing else is captured here: once a sequence is
//! complete, its tokens are an input like any other.

mod sampler;

use std::{ops::Range, sync::Arc};

use super::{
    Batch, CaptureSink, ForwardError, Input, InputEdits, Model, Refusal,
    capture::taps::Taps,
    cpu::kv_cache::{KvCache, bytes_per_token},
    packing::{Continued, Packing},
};
use residuum_domain::{
    Applied, Code, Dtype, Edits, FinishReason, Generation, Hook, PackLayout, Problem, Rows, Site, TextCompletion,
};
use sampler::Sampler;

/// Largest number of tokens in one step; long prompts take several steps.
const STEP_TOKENS: usize = 512;

/// An input that is being continued.
#[derive(Debug)]
pub struct Sequence {
    generation: Generation,
    token_ids: Vec<u32>,
    n_prompt: usize,
    /// Tokens in the KV cache; their keys were rotated for a text of `rotated_for` tokens.
    n_seen: usize,
    rotated_for: usize,
    history: KvCache,
    edits: Option<(Arc<Edits>, Vec<Applied>)>,
    sampler: Sampler,
    finished: Option<Finished>,
}

#[derive(Debug)]
struct Finished {
    reason: FinishReason,
    text: String,
}

impl Sequence {
    /// Applies interventions at every step.
    #[must_use]
    pub fn with_edits(self, edits: Arc<Edits>, applied: Vec<Applied>) -> Self {
        Self { edits: Some((edits, applied)), ..self }
    }

    /// Whether generation has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished.is_some()
    }

    /// All tokens, and what was generated; `None` if generation has not ended.
    #[must_use]
    pub fn finish(self) -> Option<(Vec<u32>, TextCompletion)> {
        let Finished { reason, text } = self.finished?;
        let completion = TextCompletion {
            first: self.n_prompt,
            text,
            finish_reason: reason,
            generation: self.generation,
            logprobs: Vec::new(),
        };
        Some((self.token_ids, completion))
    }

    /// Number of its tokens in the next step, at most `room`.
    fn share(&self, room: usize) -> usize {
        if self.is_finished() { 0 } else { (self.token_ids.len() - self.n_seen).min(room) }
    }
}

impl Model {
    /// Checks that the model can continue inputs.
    ///
    /// # Errors
    /// [`Code::CannotGenerate`] for encoders and checkpoints without an LM head.
    pub fn check_generates(&self) -> Result<(), Problem> {
        let lacks = match (self.info.bidirectional, self.info.has(Hook::global(Site::Logits))) {
            (true, _) => "its attention is bidirectional",
            (false, false) => "its checkpoint has no LM head",
            (false, true) => return Ok(()),
        };
        Err(Problem::new(Code::CannotGenerate, format!("{} cannot continue a text: {lacks}", self.info.id)))
    }

    /// Size in bytes of the KV cache of one token.
    #[must_use]
    pub fn generation_bytes_per_token(&self) -> u64 {
        bytes_per_token(self.info.n_layers, self.info.n_kv_heads * self.info.d_head)
    }

    /// Starts to continue an input. The inputs of a run share a seed; `stream` gives each its own random numbers.
    #[must_use]
    pub fn sequence(&self, token_ids: Vec<u32>, generation: Generation, stream: u64) -> Sequence {
        Sequence {
            sampler: Sampler::new(&generation, stream),
            n_prompt: token_ids.len(),
            n_seen: 0,
            rotated_for: 0,
            history: KvCache::default(),
            edits: None,
            finished: None,
            generation,
            token_ids,
        }
    }

    /// One step: each unfinished sequence gets its next token, or the next tokens of its prompt are processed (prefill). Sequences
    /// with one new token (decode) go first.
    ///
    /// # Errors
    /// As [`Model::forward`]; the sequences are unchanged then.
    pub fn step(
        &self,
        sequences: &mut [&mut Sequence],
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), ForwardError> {
        sequences.iter_mut().for_each(|s| self.rotate_anew(s));
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|i| sequences[*i].share(usize::MAX));
        let mut room = STEP_TOKENS;
        let mut shares = vec![0; sequences.len()];
        for i in order {
            shares[i] = sequences[i].share(room);
            room -= shares[i];
        }
        let mut moving: Vec<(&mut Sequence, usize)> =
            sequences.iter_mut().map(|s| &mut **s).zip(shares).filter(|(_, share)| *share > 0).collect();
        if moving.is_empty() {
            return Ok(());
        }
        let logits = self.last_logits(&mut moving, cancelled)?;
        for ((sequence, share), logits) in moving.into_iter().zip(logits.chunks_exact(self.info.d_vocab)) {
            sequence.n_seen += share;
            if sequence.n_seen == sequence.token_ids.len() {
                let next = sequence.sampler.choose(logits);
                sequence.token_ids.push(next);
                self.look_for_the_end(sequence, next);
            }
        }
        Ok(())
    }

    /// Some rotary tables depend on the length of the text. If the cached keys were rotated for a length with other frequencies, the
    /// cache is dropped, so that the logits stay those of one pass over the text so far.
    fn rotate_anew(&self, sequence: &mut Sequence) {
        let length = sequence.token_ids.len();
        if !self.transformer.rotates_alike(sequence.rotated_for, length) {
            sequence.n_seen = 0;
        }
        if sequence.n_seen == 0 {
            sequence.rotated_for = length;
        }
    }

    /// Runs the next tokens of each sequence through the model. Returns the logits of the last one of each, `[sequences, d_vocab]`.
    fn last_logits(
        &self,
        moving: &mut [(&mut Sequence, usize)],
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<f32>, ForwardError> {
        #[expect(clippy::cast_possible_truncation, reason = "a step has few tokens")]
        let rows: Vec<Rows> = moving.iter().map(|(_, share)| Rows::List(vec![*share as u32 - 1])).collect();
        let place = |(s, _): &(&mut Sequence, usize)| Continued { cached: s.n_seen, length: s.token_ids.len() };
        let places: Vec<Continued> = moving.iter().map(place).collect();
        let spans: Vec<(usize, &Rows)> = moving.iter().zip(&rows).map(|((_, share), rows)| (*share, rows)).collect();
        let hooks = [Hook::global(Site::Logits)].into();
        let layout = PackLayout::new(hooks, vec![vec![self.info.d_vocab]], Dtype::Float32, &spans);
        let mut histories: Vec<KvCache> = moving.iter_mut().map(|(s, _)| std::mem::take(&mut s.history)).collect();
        let inputs: Vec<Input<'_>> = moving
            .iter()
            .zip(&rows)
            .map(|((s, share), rows)| Input {
                token_ids: &s.token_ids[s.n_seen..s.n_seen + *share],
                rows,
                edits: s.edits.as_ref().map(|(edits, applied)| InputEdits { edits, applied }),
            })
            .collect();
        let batch = Batch { inputs: &inputs, layout: &layout };
        let mut sink = Gathered(Vec::with_capacity(inputs.len() * self.info.d_vocab));
        let outcome = rayon::scope(|_| {
            let packing = Packing::new(&batch, Some(&places), &self.info)?;
            let mut taps = Taps::new(&batch, &packing, &mut sink);
            self.transformer.forward(&batch, &packing, Some(&mut histories), &mut taps, cancelled)
        });
        moving.iter_mut().zip(histories).for_each(|((s, _), history)| s.history = history);
        outcome.map(|()| sink.0)
    }

    /// Ends the sequence if its newest token ends the text.
    fn look_for_the_end(&self, sequence: &mut Sequence, newest: u32) {
        let text = || self.tokenizer.continuation(&sequence.token_ids, sequence.n_prompt);
        let n_new = sequence.token_ids.len() - sequence.n_prompt;
        let stops = &sequence.generation.stop;
        let stopped = || {
            let text = if stops.is_empty() { return None } else { text() };
            let first = stops.iter().filter_map(|stop| text.find(stop.as_str())).min()?;
            Some(Finished { reason: FinishReason::Stop, text: text[..first].to_owned() })
        };
        sequence.finished = stopped().or_else(|| {
            let reason = if self.end_tokens.contains(&newest) {
                FinishReason::EndOfSequence
            } else if n_new >= sequence.generation.max_new_tokens {
                FinishReason::Length
            } else {
                return None;
            };
            Some(Finished { reason, text: text() })
        });
    }
}

/// A sink that keeps the values.
struct Gathered(Vec<f32>);

impl CaptureSink for Gathered {
    fn write(&mut self, _: usize, _: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
        self.0.extend_from_slice(values);
        Ok(())
    }
}

//! Generation: continues inputs token by token.
//!
//! Every step is a packed forward pass over the new tokens of each sequence, with a KV cache of the earlier ones. Its numbers equal
//! those of one pass over the whole text, bit for bit, so the tokens depend neither on the rest of the batch nor on how a prompt was
//! divided into steps; and what a step records can be kept as if the finished text had been passed through the model.

mod kept_rows;
mod sampler;
mod scores;
mod sequence;
mod text_stream;

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
};

use rayon::prelude::*;

pub use kept_rows::{Keep, KeptRows};
pub use sequence::{Finished, News, Sequence};

use super::{
    Batch, CaptureSink, ForwardError, Input, InputEdits, Model, Refusal,
    capture::taps::Taps,
    cpu::kv_cache::{KvCache, bytes_per_token},
    packing::{Continued, Packing},
};
use residuum_domain::{Code, Dtype, Generation, Hook, PackLayout, Problem, Rows, Site};

/// Largest number of tokens in one step; long prompts take several steps.
const STEP_TOKENS: usize = 512;
/// Most logits of one sequence that a step keeps while its prompt is scored.
const SCORED_LOGITS: usize = 8 << 20;

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
        Sequence::new(token_ids, generation, stream)
    }

    /// Whether steps record these hooks with the numbers that a pass over a whole text of `length` tokens records. Not on devices,
    /// where steps run on the CPU; not attention maps, whose rows become longer with the text; and not if rotary tables depend on
    /// its length.
    #[must_use]
    pub fn records_while_decoding(&self, hooks: &[Hook], length: usize) -> bool {
        self.on_devices.is_empty()
            && !hooks.iter().any(|hook| hook.site().is_attention_map())
            && self.transformer.rotates_alike(1, length)
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
        let score_rows = (SCORED_LOGITS / self.info.d_vocab.max(1)).max(1);
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|i| sequences[*i].share(usize::MAX, score_rows));
        let mut room = STEP_TOKENS;
        let mut shares = vec![0; sequences.len()];
        for i in order {
            shares[i] = sequences[i].share(room, score_rows);
            room -= shares[i];
        }
        let mut moving: Vec<Moving<'_>> = sequences
            .iter_mut()
            .zip(shares)
            .filter(|(_, share)| *share > 0)
            .map(|(sequence, share)| Moving::new(sequence, share))
            .collect();
        if moving.is_empty() {
            return Ok(());
        }
        let recorded = self.pass(&mut moving, cancelled)?;
        let mut logits = recorded.get(&Hook::global(Site::Logits)).map_or(&[][..], Vec::as_slice);
        for (hook, values) in &recorded {
            let mut rest = values.as_slice();
            for one in &mut moving {
                let rows = if hook.site() == Site::Logits { one.logits.len() } else { one.kept.len() };
                let (own, others) = rest.split_at(rows * self.info.row_shape(hook.site()).iter().product::<usize>());
                rest = others;
                if hook.site() == Site::Logits {
                    // a text that has ended needs no logits to go on, but may capture them
                    one.sequence.keep(*hook, &own[own.len() - own.len().min(one.kept.len() * self.info.d_vocab)..]);
                } else {
                    one.sequence.keep(*hook, own);
                }
            }
        }
        let parts: Vec<&[f32]> = moving
            .iter()
            .map(|one| {
                let (own, others) = logits.split_at(one.logits.len() * self.info.d_vocab);
                logits = others;
                own
            })
            .collect();
        let context = (self.info.d_vocab, &*self.tokenizer, self.end_tokens.as_slice());
        moving.into_par_iter().zip(parts).for_each(|(one, logits)| one.sequence.advance(one.share, logits, context));
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

    /// Runs the next tokens of each sequence through the model. Returns what was recorded of each hook, sequence by sequence: the
    /// rows that each captures, and of the logits those that it needs.
    fn pass(
        &self,
        moving: &mut [Moving<'_>],
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<HashMap<Hook, Vec<f32>>, ForwardError> {
        let mut hooks: BTreeSet<Hook> = moving
            .iter()
            .filter(|one| !one.kept.is_empty())
            .flat_map(|one| one.sequence.kept_hooks().iter().copied())
            .collect();
        if moving.iter().any(|one| !one.logits.is_empty()) {
            hooks.insert(Hook::global(Site::Logits));
        }
        let hooks: Arc<[Hook]> = hooks.into_iter().collect();
        let place = |one: &Moving<'_>| Continued { cached: one.sequence.n_seen, length: one.sequence.token_ids.len() };
        let places: Vec<Continued> = moving.iter().map(place).collect();
        let rows: Vec<Rows> = moving.iter().map(|one| Rows::List(positions(&one.kept))).collect();
        let logit_rows: Vec<Vec<u32>> = moving.iter().map(|one| positions(&one.logits)).collect();
        let spans: Vec<(usize, &Rows)> = moving.iter().zip(&rows).map(|(one, rows)| (one.share, rows)).collect();
        let row_shapes = hooks.iter().map(|hook| self.info.row_shape(hook.site())).collect();
        let layout = PackLayout::new(Arc::clone(&hooks), row_shapes, Dtype::Float32, &spans);
        let mut histories: Vec<KvCache> =
            moving.iter_mut().map(|one| std::mem::take(&mut one.sequence.history)).collect();
        let inputs: Vec<Input<'_>> = moving
            .iter()
            .zip(&rows)
            .map(|(one, rows)| Input {
                token_ids: &one.sequence.token_ids[one.sequence.n_seen..one.sequence.n_seen + one.share],
                rows,
                edits: one.sequence.edits.as_ref().map(|(edits, applied)| InputEdits { edits, applied }),
            })
            .collect();
        let batch = Batch { inputs: &inputs, layout: &layout };
        let mut sink = Gathered(vec![Vec::new(); hooks.len()]);
        let outcome = rayon::scope(|_| {
            let packing = Packing::with_logit_rows(&batch, Some(&places), Some(&logit_rows), &self.info)?;
            let mut taps = Taps::new(&batch, &packing, &mut sink);
            self.transformer.forward(&batch, &packing, Some(&mut histories), &mut taps, cancelled)
        });
        moving.iter_mut().zip(histories).for_each(|(one, history)| one.sequence.history = history);
        outcome.map(|()| hooks.iter().copied().zip(sink.0).collect())
    }
}

/// A sequence in a step.
struct Moving<'s> {
    sequence: &'s mut Sequence,
    /// Number of its tokens.
    share: usize,
    /// Its rows to capture.
    kept: Range<usize>,
    /// Its rows whose logits are recorded: those it needs, and those it captures.
    logits: Range<usize>,
}

impl<'s> Moving<'s> {
    fn new(sequence: &'s mut Sequence, share: usize) -> Self {
        let (kept, needed) = (sequence.kept_in(share), sequence.logits_in(share));
        let captures_logits = sequence.kept_hooks().contains(&Hook::global(Site::Logits)) && !kept.is_empty();
        let logits = match (captures_logits, needed.is_empty()) {
            (true, true) => kept.clone(),
            (true, false) => kept.start.min(needed.start)..kept.end.max(needed.end),
            (false, _) => needed,
        };
        Self { sequence, share, kept, logits }
    }
}

fn positions(rows: &Range<usize>) -> Vec<u32> {
    #[expect(clippy::cast_possible_truncation, reason = "a step has few tokens")]
    rows.clone().map(|row| row as u32).collect()
}

/// A sink that keeps the values of each hook.
struct Gathered(Vec<Vec<f32>>);

impl CaptureSink for Gathered {
    fn write(&mut self, hook: usize, _: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
        self.0[hook].extend_from_slice(values);
        Ok(())
    }
}

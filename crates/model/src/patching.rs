//! Activation patching: many forward passes over one input that each differ by one change. Each pass computes only what its change
//! can reach.
//!
//! A change in block `l` at position `p` does not affect the blocks before `l`, nor, in a causal model, the tokens before `p` in
//! any block. A [`Trace`] keeps the residual stream, keys and values of the unchanged pass, so a changed pass starts at block `l`
//! and token `p`. Sums over keys have the same order in both, so the logits equal those of a whole pass, bit for bit.

use std::collections::BTreeMap;

use super::{
    Batch, CaptureSink, ForwardError, Input, InputEdits, Model, Refusal,
    capture::taps::Taps,
    cpu::kv_cache::KvCache,
    packing::{Continued, Packing},
};
use residuum_domain::{Applied, Dtype, Edits, Hook, PackLayout, Rows, Site};

/// What is kept of the unchanged pass over one input.
#[derive(Debug)]
pub struct Trace {
    token_ids: Vec<u32>,
    /// The rows of all tokens, by hook.
    rows: BTreeMap<Hook, Vec<f32>>,
    history: KvCache,
}

/// A forward pass with changes in one block.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The changes, all in one block.
    pub edits: Edits,
    /// The tokens that each intervention touches.
    pub applied: Vec<Applied>,
    /// The first token that is touched.
    pub first: usize,
}

impl Trace {
    /// The tokens of the input.
    #[must_use]
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// The rows `[tokens, width]` of a hook that was asked for in [`Model::trace`].
    #[must_use]
    pub fn rows(&self, hook: Hook) -> Option<&[f32]> {
        self.rows.get(&hook).map(Vec::as_slice)
    }
}

impl Model {
    /// Size in bytes of a trace of this many tokens with these hooks.
    #[must_use]
    pub fn trace_bytes(&self, n_tokens: usize, hooks: &[Hook]) -> u64 {
        let hooked: usize = hooks.iter().map(|h| self.info.row_shape(h.site()).iter().product::<usize>()).sum();
        let width = self.info.n_layers * self.info.d_model + hooked;
        (n_tokens * width * size_of::<f32>()) as u64 + self.generation_bytes_per_token() * n_tokens as u64
    }

    /// Runs the unchanged pass over an input. The trace also keeps the rows of `hooks`.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn trace(
        &self,
        token_ids: &[u32],
        hooks: &[Hook],
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Trace, ForwardError> {
        let n = token_ids.len();
        // Capture the last block's output too, so that the pass reaches it and its keys and values are kept.
        let ends = [Hook::block(Site::ResidPost, self.info.n_layers - 1)];
        let starts = (0..self.info.n_layers).map(|l| Hook::block(Site::ResidPre, l));
        let mut all: Vec<Hook> = starts.chain(ends).chain(hooks.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        #[expect(clippy::cast_possible_truncation, reason = "a context is shorter than 2^32")]
        let rows = Rows::List((0..n as u32).collect());
        let input = Input { token_ids, rows: &rows, edits: None };
        let mut history = [KvCache::default()];
        let values =
            self.run_from(None, &all, &[input], &[Continued { cached: 0, length: n }], &mut history, cancelled)?;
        let [history] = history;
        Ok(Trace { token_ids: token_ids.to_vec(), rows: all.into_iter().zip(values).collect(), history })
    }

    /// The logits `[cells, d_vocab]` at `position` of passes that each differ from the traced one by the changes of a cell, all of
    /// them in block `layer`. Without cells, nothing is computed.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn patched(
        &self,
        trace: &Trace,
        layer: usize,
        cells: &[Cell],
        position: usize,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<f32>, ForwardError> {
        let n = trace.token_ids.len();
        let from_start = |cell: &Cell| if self.info.bidirectional { 0 } else { cell.first.min(position) };
        let places: Vec<Continued> =
            cells.iter().map(|cell| Continued { cached: from_start(cell), length: n }).collect();
        #[expect(clippy::cast_possible_truncation, reason = "a context is shorter than 2^32")]
        let rows: Vec<Rows> = places.iter().map(|p| Rows::List(vec![(position - p.cached) as u32])).collect();
        let inputs: Vec<Input<'_>> = cells
            .iter()
            .zip(&places)
            .zip(&rows)
            .map(|((cell, place), rows)| Input {
                token_ids: &trace.token_ids[place.cached..],
                rows,
                edits: Some(InputEdits { edits: &cell.edits, applied: &cell.applied }),
            })
            .collect();
        let start = trace.rows(Hook::block(Site::ResidPre, layer)).unwrap_or_default();
        let x: Vec<f32> = places.iter().flat_map(|p| &start[p.cached * self.info.d_model..]).copied().collect();
        let width = self.info.n_kv_heads * self.info.d_head;
        let mut histories: Vec<KvCache> =
            places.iter().map(|p| trace.history.before(layer, p.cached * width)).collect();
        let logits = [Hook::global(Site::Logits)];
        let values = self.run_from(Some((layer, x)), &logits, &inputs, &places, &mut histories, cancelled)?;
        Ok(values.into_iter().next().unwrap_or_default())
    }

    /// Runs a packed pass, from the start or from a block, and returns all captured values, hook by hook.
    fn run_from(
        &self,
        start: Option<(usize, Vec<f32>)>,
        hooks: &[Hook],
        inputs: &[Input<'_>],
        places: &[Continued],
        histories: &mut [KvCache],
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<Vec<f32>>, ForwardError> {
        let shapes = hooks.iter().map(|h| self.info.row_shape(h.site())).collect();
        let spans: Vec<(usize, &Rows)> = inputs.iter().map(|i| (i.token_ids.len(), i.rows)).collect();
        let layout = PackLayout::new(hooks.into(), shapes, Dtype::Float32, &spans);
        let batch = Batch { inputs, layout: &layout };
        let mut sink = InMemory::new(hooks.len());
        rayon::scope(|_| {
            let packing = Packing::new(&batch, Some(places), &self.info)?;
            let mut taps = Taps::new(&batch, &packing, &mut sink);
            match start {
                None => self.transformer.forward(&batch, &packing, Some(histories), &mut taps, cancelled),
                Some((layer, x)) => {
                    self.transformer.forward_from(layer, x, &packing, Some(histories), &mut taps, cancelled)
                }
            }
        })?;
        Ok(sink.into_values())
    }
}

/// A sink that keeps every value in memory, hook by hook.
pub(super) struct InMemory(Vec<Vec<f32>>);

impl InMemory {
    /// A sink for this many hooks.
    pub(super) fn new(n_hooks: usize) -> Self {
        Self(vec![Vec::new(); n_hooks])
    }

    /// The values that were written, hook by hook.
    pub(super) fn into_values(self) -> Vec<Vec<f32>> {
        self.0
    }
}

impl CaptureSink for InMemory {
    fn write(&mut self, hook: usize, _: std::ops::Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
        self.0[hook].extend_from_slice(values);
        Ok(())
    }
}

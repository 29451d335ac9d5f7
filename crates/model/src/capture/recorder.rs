//! Gathers the rows that are asked for at each hook point and hands them to the sink, in chunks of bounded size. A hook that nobody
//! asked for costs one look-up.

use std::{collections::HashMap, ops::Range};

use super::{
    map_part::{MapPart, split_map},
    mean::{add_rows, finish_mean},
    ordered_sink::OrderedSink,
};
use crate::{
    CaptureSink, ForwardError, Lent,
    packing::{Packing, Picked, RowSet},
};
use residuum_domain::{Hook, PackLayout};

/// Number of values after which a chunk goes to the sink; a single item may have more.
const BATCH_VALUES: usize = 1 << 20;

/// Largest number of values of one item in a chunk. A larger item (logits over a vocabulary, attention maps of a long input) is
/// computed and handed over in several chunks.
const CHUNK_VALUES: usize = 8 << 20;

/// Number of rows computed at a time where only their mean is kept.
const MEAN_ROWS: usize = 64;

/// Records the hooks of one batch.
pub struct Recorder<'a> {
    packing: &'a Packing,
    hooks: HashMap<Hook, usize>,
    last: Option<Hook>,
    sink: OrderedSink<'a>,
    buffer: Vec<f32>,
}

/// Computes rows of a tensor. Arguments: the rows, as indices into the buffer they are computed from; and where to write them.
pub type Compute<'f> = &'f mut dyn FnMut(&[u32], &mut [f32]);

/// Computes part of an attention map, `[heads, rows, keys]`. Arguments: the part, its rows in the query buffer, and where to write.
pub type ComputeMap<'f> = &'f mut dyn FnMut(&MapPart<'_>, &[u32], &mut [f32]);

impl<'a> Recorder<'a> {
    /// A recorder of the hooks of `layout`.
    pub fn new(layout: &'a PackLayout, packing: &'a Packing, sink: &'a mut dyn CaptureSink) -> Self {
        let hooks = layout.hooks.iter().enumerate().map(|(i, h)| (*h, i)).collect();
        let sink = OrderedSink::new(sink, layout.items.len());
        Self { packing, hooks, last: layout.hooks.last().copied(), sink, buffer: Vec::new() }
    }

    /// Whether anyone asked for `hook`.
    pub fn wants(&self, hook: Hook) -> bool {
        self.hooks.contains_key(&hook)
    }

    /// Whether everything asked for has been recorded.
    pub fn done(&self) -> bool {
        self.n_taken() == self.n_hooks()
    }

    /// Number of hooks to record.
    pub fn n_hooks(&self) -> usize {
        self.hooks.len()
    }

    /// Number of hooks that are recorded completely; they are the first ones of the layout.
    pub fn n_taken(&self) -> usize {
        self.sink.handed_out()
    }

    /// Whether no hook after `hook`, the last one of a block, was asked for.
    pub fn done_after(&self, hook: Hook) -> bool {
        self.last.is_none_or(|last| last <= hook)
    }

    /// Records a hook from a buffer that holds the rows of `set`.
    pub fn tap(&mut self, hook: Hook, values: &[f32], set: RowSet) -> Result<(), ForwardError> {
        if !self.wants(hook) {
            return Ok(());
        }
        let width = values.len() / self.packing.of(set).positions.len().max(1);
        self.compute(hook, width, set, &mut |rows, out| {
            for (row, out) in rows.iter().zip(out.chunks_exact_mut(width)) {
                let at = *row as usize * width;
                out.copy_from_slice(&values[at..at + width]);
            }
        })
    }

    /// Records a tensor that is computed row by row, for the rows that are asked for only.
    pub fn compute(&mut self, hook: Hook, width: usize, set: RowSet, compute: Compute<'_>) -> Result<(), ForwardError> {
        let Some(index) = self.hooks.get(&hook).copied() else { return Ok(()) };
        let picked = self.packing.of(set).picked_of(hook.site());
        // Items before `first` have gone to the sink. The first `filled` values of the buffer belong to the items from there on.
        let (mut first, mut filled) = (0, 0);
        for (item, rows) in picked.iter().enumerate() {
            match rows {
                Picked::Rows(rows) if rows.len() * width > CHUNK_VALUES => {
                    if filled > 0 {
                        self.hand_out(index, first..item, filled)?;
                    }
                    for chunk in rows.chunks((CHUNK_VALUES / width).max(1)) {
                        compute(chunk, self.space(0, chunk.len() * width));
                        self.hand_out(index, item..item + 1, chunk.len() * width)?;
                    }
                    (first, filled) = (item + 1, 0);
                    continue;
                }
                Picked::Rows(rows) => {
                    compute(rows, self.space(filled, rows.len() * width));
                    filled += rows.len() * width;
                }
                Picked::Mean(rows) => {
                    self.buffer.truncate(filled);
                    mean_of_rows(rows, width, compute, &mut self.buffer);
                    filled = self.buffer.len();
                }
            }
            if filled >= BATCH_VALUES || item + 1 == picked.len() {
                self.hand_out(index, first..item + 1, filled)?;
                (first, filled) = (item + 1, 0);
            }
        }
        self.sink.finish(index)
    }

    /// Whether rows of `set` themselves are kept of every input, not their mean.
    pub fn keeps_rows(&self, set: RowSet) -> bool {
        self.packing.of(set).picked.iter().all(|picked| matches!(picked, Picked::Rows(_)))
    }

    /// Records a hook whose kept rows, of all inputs in order, are in `values` already.
    pub fn take(&mut self, hook: Hook, values: Lent) -> Result<(), ForwardError> {
        let Some(index) = self.hooks.get(&hook).copied() else { return Ok(()) };
        self.sink.take(index, 0..self.packing.lengths.len(), values)?;
        self.sink.finish(index)
    }

    /// The next `n` values of the buffer, after the first `filled` ones. They are not cleared, since they are overwritten.
    fn space(&mut self, filled: usize, n: usize) -> &mut [f32] {
        if self.buffer.len() < filled + n {
            self.buffer.resize(filled + n, 0.0);
        }
        &mut self.buffer[filled..filled + n]
    }

    /// Hands the first `filled` values of the buffer to the sink.
    fn hand_out(&mut self, hook: usize, items: Range<usize>, filled: usize) -> Result<(), ForwardError> {
        self.buffer.truncate(filled);
        self.sink.write(hook, items, &mut self.buffer)
    }

    /// Records an attention map `[heads, rows, keys]`, input by input.
    pub fn map(&mut self, hook: Hook, heads: usize, set: RowSet, compute: ComputeMap<'_>) -> Result<(), ForwardError> {
        let Some(index) = self.hooks.get(&hook).copied() else { return Ok(()) };
        let packing = self.packing;
        let selection = packing.of(set);
        for (input, rows) in selection.picked.iter().enumerate() {
            let n_keys = packing.all.offsets[input + 1] - packing.all.offsets[input];
            let of = |rows: &[u32]| rows.iter().map(|r| selection.positions[*r as usize]).collect();
            match rows {
                Picked::Rows(rows) => {
                    let positions: Vec<u32> = of(rows);
                    for (heads, part) in split_map(heads, rows.len(), n_keys, CHUNK_VALUES) {
                        let (rows, positions) = (&rows[part.clone()], &positions[part]);
                        let part = MapPart { input, heads, positions, n_keys };
                        compute(&part, rows, self.space(0, part.n_cells()));
                        self.hand_out(index, input..input + 1, part.n_cells())?;
                    }
                }
                Picked::Mean(rows) => {
                    let mut sums = vec![0f64; heads * n_keys];
                    for rows in rows.chunks(MEAN_ROWS) {
                        let positions: Vec<u32> = of(rows);
                        let part = MapPart { input, heads: 0..heads, positions: &positions, n_keys };
                        let block = self.space(0, part.n_cells());
                        compute(&part, rows, block);
                        for (sum, head) in sums.chunks_exact_mut(n_keys).zip(block.chunks(rows.len() * n_keys)) {
                            add_rows(sum, head);
                        }
                    }
                    self.buffer.clear();
                    finish_mean(&sums, rows.len(), &mut self.buffer);
                    self.sink.write(index, input..input + 1, &mut self.buffer)?;
                }
            }
        }
        self.sink.finish(index)
    }
}

/// The mean of computed rows, accumulated in float64 in the order of `rows`.
fn mean_of_rows(rows: &[u32], width: usize, compute: Compute<'_>, out: &mut Vec<f32>) {
    let mut sums = vec![0f64; width];
    let mut values = Vec::new();
    for block in rows.chunks(MEAN_ROWS) {
        values.resize(block.len() * width, 0.0);
        compute(block, &mut values);
        add_rows(&mut sums, &values);
    }
    finish_mean(&sums, rows.len(), out);
}

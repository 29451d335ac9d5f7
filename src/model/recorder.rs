//! Takes the rows asked for at every tap and hands them to the sink; a tap nobody asked for costs a look-up.

use std::collections::HashMap;

use super::{
    CaptureSink, ForwardError,
    outlet::Outlet,
    packing::{Packing, Picked, RowSet},
};
use crate::domain::{Hook, PackLayout};

/// Values handed to the sink at once, unless one item alone has more.
const BATCH_VALUES: usize = 1 << 20;

/// Values of one item handed out at once: of a wider tensor (logits over a vocabulary) an item goes in pieces, and its rows
/// are computed as many at a time.
const PIECE_VALUES: usize = 8 << 20;

/// Rows computed at a time when only their mean is kept.
const MEAN_ROWS: usize = 64;

/// Connects taps with the sink.
pub struct Recorder<'a> {
    packing: &'a Packing,
    hooks: HashMap<Hook, usize>,
    last: Option<Hook>,
    outlet: Outlet<'a>,
    buffer: Vec<f32>,
}

/// Computes rows of a tensor: the rows (of the buffer it is computed from), and where to write them.
pub type Compute<'f> = &'f mut dyn FnMut(&[u32], &mut [f32]);

/// Computes rows of an attention map: the input, the query rows (of the query buffer), their positions, and
/// `[heads, rows, keys]` to write to.
pub type ComputeMap<'f> = &'f mut dyn FnMut(usize, &[u32], &[u32], &mut [f32]);

impl<'a> Recorder<'a> {
    /// A recorder of the hooks of `layout`.
    pub fn new(layout: &'a PackLayout, packing: &'a Packing, sink: &'a mut dyn CaptureSink) -> Self {
        let hooks = layout.hooks.iter().enumerate().map(|(i, h)| (*h, i)).collect();
        let outlet = Outlet::new(sink, layout.items.len());
        Self { packing, hooks, last: layout.hooks.last().copied(), outlet, buffer: Vec::new() }
    }

    /// Whether anyone asked for `hook`.
    pub fn wants(&self, hook: Hook) -> bool {
        self.hooks.contains_key(&hook)
    }

    /// Whether everything asked for has been recorded.
    pub fn done(&self) -> bool {
        self.n_taken() == self.n_hooks()
    }

    /// Hooks to record.
    pub fn n_hooks(&self) -> usize {
        self.hooks.len()
    }

    /// Hooks recorded, from the first on without a gap.
    pub fn n_taken(&self) -> usize {
        self.outlet.handed_out()
    }

    /// Whether nothing behind the block that ends with `hook` was asked for.
    pub fn done_after(&self, hook: Hook) -> bool {
        self.last.is_none_or(|last| last <= hook)
    }

    /// Taps a buffer whose rows are those of `set`.
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

    /// Records a tensor that is computed row by row, for the rows asked for only.
    pub fn compute(&mut self, hook: Hook, width: usize, set: RowSet, compute: Compute<'_>) -> Result<(), ForwardError> {
        let Some(index) = self.hooks.get(&hook).copied() else { return Ok(()) };
        let picked = &self.packing.of(set).picked;
        let mut first = 0;
        self.buffer.clear();
        for (item, rows) in picked.iter().enumerate() {
            let start = self.buffer.len();
            match rows {
                Picked::Rows(rows) if rows.len() * width > PIECE_VALUES => {
                    if start > 0 {
                        self.outlet.write(index, first..item, &mut self.buffer)?;
                    }
                    for piece in rows.chunks((PIECE_VALUES / width).max(1)) {
                        self.buffer.clear();
                        self.buffer.resize(piece.len() * width, 0.0);
                        compute(piece, &mut self.buffer);
                        self.outlet.write(index, item..item + 1, &mut self.buffer)?;
                    }
                    self.buffer.clear();
                    first = item + 1;
                    continue;
                }
                Picked::Rows(rows) => {
                    self.buffer.resize(start + rows.len() * width, 0.0);
                    compute(rows, &mut self.buffer[start..]);
                }
                Picked::Mean(rows) => mean_of_rows(rows, width, compute, &mut self.buffer),
            }
            if self.buffer.len() >= BATCH_VALUES || item + 1 == picked.len() {
                self.outlet.write(index, first..item + 1, &mut self.buffer)?;
                self.buffer.clear();
                first = item + 1;
            }
        }
        self.outlet.finish(index)
    }

    /// Records an attention map `[heads, rows, keys]`, input by input.
    pub fn map(&mut self, hook: Hook, heads: usize, set: RowSet, compute: ComputeMap<'_>) -> Result<(), ForwardError> {
        let Some(index) = self.hooks.get(&hook).copied() else { return Ok(()) };
        let selection = self.packing.of(set);
        for (item, rows) in selection.picked.iter().enumerate() {
            let keys = self.packing.all.offsets[item + 1] - self.packing.all.offsets[item];
            let positions =
                |rows: &[u32]| -> Vec<u32> { rows.iter().map(|r| selection.positions[*r as usize]).collect() };
            self.buffer.clear();
            match rows {
                Picked::Rows(rows) => {
                    self.buffer.resize(heads * rows.len() * keys, 0.0);
                    compute(item, rows, &positions(rows), &mut self.buffer);
                }
                Picked::Mean(rows) => {
                    let mut sums = vec![0f64; heads * keys];
                    for block in rows.chunks(MEAN_ROWS) {
                        self.buffer.resize(heads * block.len() * keys, 0.0);
                        compute(item, block, &positions(block), &mut self.buffer);
                        for (sum, head) in sums.chunks_exact_mut(keys).zip(self.buffer.chunks(block.len() * keys)) {
                            add_rows(sum, head);
                        }
                    }
                    self.buffer.clear();
                    finish_mean(&sums, rows.len(), &mut self.buffer);
                }
            }
            self.outlet.write(index, item..item + 1, &mut self.buffer)?;
        }
        self.outlet.finish(index)
    }
}

fn add_rows(sums: &mut [f64], rows: &[f32]) {
    for row in rows.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a mean is stored as float32")]
fn finish_mean(sums: &[f64], n: usize, out: &mut Vec<f32>) {
    out.extend(sums.iter().map(|s| (s / n as f64) as f32));
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

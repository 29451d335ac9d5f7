//! The kernel of a task of a matrix product: a block of packed rows times some panels of a weight.

use std::ops::Range;

use super::super::outliers::Outlier;
use super::super::parallel::Shared;
use super::super::rows::{PackedRows, tile_of, tiles_of};
use super::super::simd::map::{load_partial, store_partial};
use super::super::simd::tile::{Into, Rows, Tile, widest};
use super::super::simd::{LANES, Line, Op, Simd, as_floats_mut};
use super::Linear;

/// Number of terms that are summed separately before the sum is added to the output. This bounds the rounding error of long
/// sums and keeps a block of a panel in the first-level cache. Changing it changes the low bits of results.
///
/// Shorter blocks have smaller rounding errors but take longer, since the output is read and written once per block: 64 takes
/// a tenth more time. Most of their gain comes from terms that are far larger than the others of their sum, and those are
/// added last anyway ([`super::super::outliers`]).
const DEPTH_BLOCK: usize = 192;

/// Rows times panels of the largest tile of any instruction set.
const MAX_TILE: usize = 24;

/// A task of a product: some rows times some panels.
pub(super) struct Block<'a> {
    pub(super) weight: &'a Linear,
    pub(super) cols: Range<usize>,
    pub(super) x: &'a PackedRows<'a>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) out: Shared,
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
}

impl Op for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.rows.len();
        let tiles = tiles_of::<S>(rows);
        let widest = widest::<S>(rows.div_ceil(tiles.max(1)));
        let depth = self.cols.len();
        for from in (0..depth).step_by(DEPTH_BLOCK) {
            let block = DEPTH_BLOCK.min(depth - from);
            let mut panel = self.panels.start;
            while panel < self.panels.end {
                let n = fitting(widest, self.panels.end - panel);
                // Each tile prefetches its share of the next panel.
                let next =
                    if panel + n < self.panels.end { (panel + n, from) } else { (self.panels.start, from + block) };
                let (ahead, share) = (self.weights(next.0, next.1), block * LANES / tiles);
                for i in 0..tiles {
                    let rows = tile_of(&self.rows, i, tiles);
                    let ahead = ahead.wrapping_add(i * share);
                    self.tile(s, rows, panel..panel + n, from..from + block, (ahead, LANES / tiles));
                }
                panel += n;
            }
        }
        for outlier in self.x.outliers(&self.rows) {
            self.add(s, outlier);
        }
    }
}

/// Number of panels of the next tile: 4, 2 or 1, at most `widest` and at most `left`.
fn fitting(widest: usize, left: usize) -> usize {
    [4, 2].into_iter().find(|&n| n <= widest && n <= left).unwrap_or(1)
}

impl Block<'_> {
    /// Adds the term of an outlier to the output of its row.
    #[inline(always)]
    fn add<S: Simd>(&self, s: S, outlier: &Outlier) {
        let Linear { out_features, in_features, ref panels, .. } = *self.weight;
        let start = self.panels.start * LANES;
        let width = (self.panels.len() * LANES).min(out_features - start);
        // SAFETY: within the output, whose length is checked; no other task has this row's part of these panels.
        let out =
            unsafe { std::slice::from_raw_parts_mut(self.out.get().add(outlier.row * out_features + start), width) };
        let (outs, tail) = out.as_chunks_mut::<LANES>();
        let value = s.splat(outlier.value);
        let mut at = self.panels.start * in_features + self.cols.start + outlier.column;
        for out in outs {
            s.store(s.fma(value, s.load(&panels[at].0), s.load(out)), out);
            at += in_features;
        }
        if !tail.is_empty() {
            store_partial(s, s.fma(value, s.load(&panels[at].0), load_partial(s, tail)), tail);
        }
    }

    /// The address of the weights of `panel` for the `from`th column of this product.
    #[inline(always)]
    fn weights(&self, panel: usize, from: usize) -> *const f32 {
        self.weight.panels.as_ptr().wrapping_add(panel * self.weight.in_features + self.cols.start + from).cast()
    }

    /// Multiplies some rows with some panels, over the range `terms`; `ahead` is what to prefetch, as in [`Tile`].
    #[inline(always)]
    fn tile<S: Simd>(
        &self,
        s: S,
        rows: Range<usize>,
        panels: Range<usize>,
        terms: Range<usize>,
        ahead: (*const f32, usize),
    ) {
        let Linear { out_features, in_features, .. } = *self.weight;
        let (column, n) = (panels.start * LANES, panels.len());
        let width = (n * LANES).min(out_features - column);
        let last = terms.end == self.cols.len();
        // SAFETY: within the output, whose length is checked; no other task has these rows and columns.
        let out = unsafe { self.out.get().add(rows.start * out_features + column) };
        let mut tile = Tile {
            a: self.x.tile(&rows, terms.start),
            a_rows: Rows::Packed,
            b: self.weights(panels.start, terms.start),
            b_stride: in_features * LANES,
            depth: terms.len(),
            c: out,
            c_stride: out_features,
            into: if terms.start == 0 { Into::Overwrite } else { Into::Add },
            ahead: ahead.0,
            ahead_step: ahead.1,
        };
        if width == n * LANES {
            // SAFETY: A lies in x, B in the panels, C in the output.
            unsafe { s.tile(rows.len(), n, &tile) };
        } else {
            // The last panel is wider than the rest of the output's row, so compute into a padded buffer.
            let mut lines = [Line::ZERO; MAX_TILE];
            let padded = as_floats_mut(&mut lines);
            let stride = n * LANES;
            for i in 0..rows.len() {
                // SAFETY: row i of this task's part of the output.
                let row = unsafe { std::slice::from_raw_parts(out.add(i * out_features), width) };
                padded[i * stride..][..width].copy_from_slice(row);
            }
            (tile.c, tile.c_stride) = (padded.as_mut_ptr(), stride);
            // SAFETY: A lies in x, B in the panels, C in `padded`.
            unsafe { s.tile(rows.len(), n, &tile) };
            for i in 0..rows.len() {
                // SAFETY: row i of this task's part of the output.
                let row = unsafe { std::slice::from_raw_parts_mut(out.add(i * out_features), width) };
                row.copy_from_slice(&padded[i * stride..][..width]);
            }
        }
        if let (true, Some(bias)) = (last, self.bias) {
            for i in 0..rows.len() {
                // SAFETY: row i of this task's part of the output.
                let row = unsafe { std::slice::from_raw_parts_mut(out.add(i * out_features), width) };
                for (y, b) in row.iter_mut().zip(&bias[column..]) {
                    *y += b;
                }
            }
        }
    }
}

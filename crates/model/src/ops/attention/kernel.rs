//! Attention kernels for a block of queries of one head, query tile by query tile.

use std::ops::Range;

use super::super::elementwise::SoftCap;
use super::super::parallel::Shared;
use super::super::simd::map::{Unary, store_partial};
use super::super::simd::tile::{Into, Rows, Tile, widest};
use super::super::simd::{LANES, Op, Simd, math};
use super::AttentionSpec;
use super::packed::PackedHead;

/// Rows of the largest tile of any instruction set.
const MAX_ROWS: usize = 12;

/// The positions of the queries of a block.
#[derive(Clone, Copy)]
pub enum Positions<'a> {
    From(usize),
    Listed(&'a [u32]),
}

/// A block of queries of one head, and the keys and values of their sequence.
#[derive(Clone, Copy)]
pub struct Queries<'a> {
    pub spec: &'a AttentionSpec<'a>,
    pub head: usize,
    /// Starts at the first query's first number; the next query is `n_heads * d_head` floats further.
    pub q: &'a [f32],
    pub positions: Positions<'a>,
    pub n: usize,
    pub kv: PackedHead<'a>,
}

/// The scores of a query tile, in scratch memory.
struct Scored<'a> {
    /// `[tile, stride]`; entry j of a row belongs to key `base + j`.
    scores: &'a mut [f32],
    stride: usize,
    base: usize,
    rows: [ScoredRow; MAX_ROWS],
}

/// One query of a tile.
#[derive(Clone, Default)]
struct ScoredRow {
    /// The range of keys it sees. Scores before it are undefined; after it they are -inf up to a whole vector.
    visible: Range<usize>,
    /// The largest score; -inf if it sees no key.
    most: f32,
}

impl<'a> Queries<'a> {
    /// Floats of scratch memory that a query tile needs: scores, and sums of values.
    pub fn scratch(&self) -> usize {
        MAX_ROWS * (self.kv.n_keys.next_multiple_of(LANES) + 2 * LANES + self.padded_head())
    }

    fn padded_head(&self) -> usize {
        self.spec.d_head.next_multiple_of(LANES)
    }

    fn stride(&self) -> usize {
        self.spec.n_heads * self.spec.d_head
    }

    fn visible(&self, i: usize) -> Range<usize> {
        let position = match self.positions {
            Positions::From(first) => first + i,
            Positions::Listed(positions) => positions[i] as usize,
        };
        self.spec.visible(position, self.kv.n_keys)
    }

    /// Computes the scores of a query tile, each query over the keys it sees.
    #[inline(always)]
    fn score<'s, S: Simd>(&self, s: S, tile: Range<usize>, scratch: &'s mut [f32]) -> Scored<'s> {
        let mut rows: [ScoredRow; MAX_ROWS] = Default::default();
        let (mut start, mut end) = (usize::MAX, 0);
        for (row, query) in rows.iter_mut().zip(tile.clone()) {
            row.visible = self.visible(query);
            start = start.min(row.visible.start);
            end = end.max(row.visible.end);
        }
        let panels = start / LANES..end.div_ceil(LANES).max(start / LANES);
        // A row's vectors start at its own first key and may reach one vector past the panels.
        let (base, stride) = (panels.start * LANES, (panels.len() + 1) * LANES);
        let scores = &mut scratch[..tile.len() * stride];
        let d = self.spec.d_head;
        let most = widest::<S>(tile.len());
        let mut panel = panels.start;
        while panel < panels.end {
            let n = if panels.end - panel >= most { most } else { 1 };
            let product = Tile {
                a: self.q[tile.start * self.stride()..].as_ptr(),
                a_rows: Rows::Apart(self.stride()),
                b: self.kv.keys[panel * d * LANES..].as_ptr(),
                b_stride: d * LANES,
                depth: d,
                c: scores[panel * LANES - base..].as_mut_ptr(),
                c_stride: stride,
                into: Into::Overwrite,
                ahead: self.kv.keys.as_ptr(),
                ahead_step: 0,
            };
            // SAFETY: A lies in q, B in the packed keys, C in the scores.
            unsafe { s.tile(tile.len(), n, &product) };
            panel += n;
        }
        for (scores, row) in scores.chunks_exact_mut(stride).zip(&mut rows) {
            row.most = self.finish(s, &mut scores[row.visible.start - base..], row.visible.clone());
        }
        Scored { scores, stride, base, rows }
    }

    /// Turns dot products into scores, for the range `keys`; returns the largest score.
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, row: &mut [f32], keys: Range<usize>) -> f32 {
        const COUNT: [f32; LANES] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
        let scale = s.splat(self.spec.scale);
        let masked = s.splat(f32::NEG_INFINITY);
        let mut most = masked;
        let chunks = row.as_chunks_mut::<LANES>().0.iter_mut();
        for (x, key) in chunks.zip(keys.clone().step_by(LANES)) {
            let mut y = self.bend(s, s.mul(s.load(x), scale), key);
            let left = keys.end - key;
            if left < LANES {
                // negative in lanes whose index is `left` or more
                let within = s.sub(s.splat(left as f32 - 0.5), s.load(&COUNT));
                y = s.select_negative(within, masked, y);
            }
            s.store(y, x);
            most = s.max(y, most);
        }
        math::largest(s, most)
    }

    /// Applies the softcap, and adds the biases of the keys from `key` on.
    #[inline(always)]
    fn bend<S: Simd>(&self, s: S, mut score: S::V, key: usize) -> S::V {
        if let Some(cap) = self.spec.softcap {
            score = SoftCap(cap).call(s, score);
        }
        match self.spec.key_biases {
            Some(biases) => s.add(score, s.load(biases.at(self.head, key))),
            None => score,
        }
    }
}

/// Computes attention of a block of queries into z.
pub struct Attend<'a> {
    pub queries: Queries<'a>,
    pub z: Shared,
    /// The address of the first query's output in z.
    pub at: usize,
    pub scratch: &'a mut [f32],
}

impl Op for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { queries, z, at, scratch } = self;
        let d = queries.spec.d_head;
        let (sums, scratch) = scratch.split_at_mut(MAX_ROWS * queries.padded_head());
        let mut start = 0;
        while start < queries.n {
            let tile = start..queries.n.min(start + S::TILE_ROWS);
            let mut scored = queries.score(s, tile.clone(), scratch);
            let mut totals = [0.0; MAX_ROWS];
            for (i, total) in totals.iter_mut().enumerate().take(tile.len()) {
                *total = scored.exponentials(s, i);
            }
            let sums = &mut sums[..tile.len() * queries.padded_head()];
            sums.fill(0.0);
            weighted_sums(s, &scored, queries, tile.len(), sums);
            for (i, sums) in sums.chunks_exact(queries.padded_head()).enumerate() {
                let inverse = if totals[i] == 0.0 { 0.0 } else { 1.0 / totals[i] };
                // SAFETY: this head of this query lies in z and belongs to this task.
                let z = unsafe { std::slice::from_raw_parts_mut(z.get().add(at + (start + i) * queries.stride()), d) };
                for (z, sum) in z.iter_mut().zip(sums) {
                    *z = sum * inverse;
                }
            }
            start = tile.end;
        }
    }
}

impl Scored<'_> {
    /// Turns query i's scores into `e^(score - largest)`; returns their sum, which is 0 only if there are none.
    #[inline(always)]
    fn exponentials<S: Simd>(&mut self, s: S, i: usize) -> f32 {
        let ScoredRow { visible, most } = &self.rows[i];
        let vectors = visible.len().div_ceil(LANES);
        let row = &mut self.scores[i * self.stride + visible.start - self.base..][..vectors * LANES];
        let (most, mut total) = (s.splat(finite(*most)), s.splat(0.0));
        for x in row.as_chunks_mut::<LANES>().0 {
            let y = math::exp(s, s.sub(s.load(x), most));
            s.store(y, x);
            total = s.add(total, y);
        }
        math::sum(s, total)
    }
}

/// The largest score, or 0 where everything is masked: -inf minus -inf would be NaN.
fn finite(most: f32) -> f32 {
    most.max(f32::MIN)
}

/// `sums[i] += Σ weight · value` over the keys that query i sees, in ascending order.
#[inline(always)]
fn weighted_sums<S: Simd>(s: S, scored: &Scored, queries: Queries, n: usize, sums: &mut [f32]) {
    let rows = &scored.rows[..n];
    // The range of keys that all queries see goes through one tile; keys before and after it, query by query.
    let mut all = 0..usize::MAX;
    for ScoredRow { visible, .. } in rows {
        all = all.start.max(visible.start)..all.end.min(visible.end);
    }
    if all.is_empty() {
        for (i, ScoredRow { visible, .. }) in rows.iter().enumerate() {
            add_values(s, scored, queries, i..i + 1, visible.clone(), sums);
        }
        return;
    }
    for (i, ScoredRow { visible, .. }) in rows.iter().enumerate() {
        add_values(s, scored, queries, i..i + 1, visible.start..all.start, sums);
    }
    add_values(s, scored, queries, 0..n, all.clone(), sums);
    for (i, ScoredRow { visible, .. }) in rows.iter().enumerate() {
        add_values(s, scored, queries, i..i + 1, all.end..visible.end, sums);
    }
}

#[inline(always)]
fn add_values<S: Simd>(
    s: S,
    scored: &Scored,
    queries: Queries,
    rows: Range<usize>,
    keys: Range<usize>,
    sums: &mut [f32],
) {
    if keys.is_empty() {
        return;
    }
    let width = queries.padded_head();
    let (panels, panel_floats) = (width / LANES, queries.kv.n_keys * LANES);
    let most = widest::<S>(rows.len());
    let mut panel = 0;
    while panel < panels {
        let n = if panels - panel >= most { most } else { 1 };
        let product = Tile {
            a: scored.scores[rows.start * scored.stride + keys.start - scored.base..].as_ptr(),
            a_rows: Rows::Apart(scored.stride),
            b: queries.kv.values[panel * panel_floats + keys.start * LANES..].as_ptr(),
            b_stride: panel_floats,
            depth: keys.len(),
            c: sums[rows.start * width + panel * LANES..].as_mut_ptr(),
            c_stride: width,
            into: Into::Continue,
            ahead: queries.kv.values.as_ptr(),
            ahead_step: 0,
        };
        // SAFETY: A lies in the scores, B in the packed values, C in `sums`.
        unsafe { s.tile(rows.len(), n, &product) };
        panel += n;
    }
}

/// Writes the scores of a block of queries to memory.
pub struct Score<'a> {
    pub queries: Queries<'a>,
    /// `[n, n_keys]`
    pub scores: &'a mut [f32],
    pub scratch: &'a mut [f32],
}

impl Op for Score<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { queries, scores, scratch } = self;
        let n_keys = queries.kv.n_keys;
        scores.fill(f32::NEG_INFINITY);
        let mut start = 0;
        while start < queries.n {
            let tile = start..queries.n.min(start + S::TILE_ROWS);
            let scored = queries.score(s, tile.clone(), scratch);
            for (row, query) in tile.clone().enumerate() {
                let visible = scored.rows[row].visible.clone();
                let from = &scored.scores[row * scored.stride + visible.start - scored.base..][..visible.len()];
                scores[query * n_keys..][visible].copy_from_slice(from);
            }
            start = tile.end;
        }
    }
}

/// Softmax of whole rows, in place.
pub struct SoftmaxRows<'a> {
    pub scores: &'a mut [f32],
    pub n_k: usize,
}

impl Op for SoftmaxRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.scores.chunks_exact_mut(self.n_k) {
            let total = exponentials(s, row);
            let inverse = if total == 0.0 { 0.0 } else { 1.0 / total };
            for x in row {
                *x *= inverse;
            }
        }
    }
}

/// `x[i] = e^(x[i] - max x)` for a row of any length; returns the sum, which is 0 only if every score is -inf.
#[inline(always)]
fn exponentials<S: Simd>(s: S, x: &mut [f32]) -> f32 {
    let (chunks, tail) = x.as_chunks_mut::<LANES>();
    let mut rest = [f32::NEG_INFINITY; LANES];
    rest[..tail.len()].copy_from_slice(tail);
    let mut most = s.load(&rest);
    for x in &*chunks {
        most = s.max(s.load(x), most);
    }
    let most = s.splat(finite(math::largest(s, most)));
    let mut total = s.splat(0.0);
    for x in chunks {
        let y = math::exp(s, s.sub(s.load(x), most));
        s.store(y, x);
        total = s.add(total, y);
    }
    let y = math::exp(s, s.sub(s.load(&rest), most));
    store_partial(s, y, tail);
    math::sum(s, s.add(total, y))
}

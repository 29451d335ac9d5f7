//! Scaled dot-product attention over packed sequences, without the score matrix of a sequence.
//!
//! A task takes a block of queries of one head. For each query tile (six queries, or twelve with AVX-512) it computes the scores
//! of all keys that any of them sees, then each query's softmax over its own keys, then the weighted sum of the values.
//! Sums of a query run over its keys in ascending order, so its numbers do not depend on the other queries of its tile.

mod kernel;
mod packed;

use std::ops::Range;

use rayon::prelude::*;

use self::kernel::{Attend, Positions, Queries, Score, SoftmaxRows};
use self::packed::PackedKv;
use super::parallel::{self, Shared, with_scratch};
use super::simd::{LANES, Level};

/// The shape, mask and scale of attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSpec<'a> {
    pub n_heads: usize,
    /// Divides `n_heads`; query head h reads key and value head `h / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    pub d_head: usize,
    /// Factor of the dot products, usually `1 / sqrt(d_head)`.
    pub scale: f32,
    /// Whether a query sees no key after its own position.
    pub causal: bool,
    /// Sliding window. In causal attention, a query at q sees keys above `q - window`; else keys within `window / 2` of q on
    /// either side.
    pub window: Option<usize>,
    /// Softcap, `cap * tanh(score / cap)`, after the scale (Gemma 2).
    pub softcap: Option<f32>,
    /// Biases that are added to the scores after the scale and the softcap.
    pub key_biases: Option<&'a KeyBiases>,
}

/// Biases of the scores, one for each head and key position, the same for every query.
#[derive(Clone, Debug)]
pub struct KeyBiases {
    n_keys: usize,
    /// Floats per head: one for each key, and padding zeros for a vector that starts at the last key.
    stride: usize,
    values: Vec<f32>,
}

impl KeyBiases {
    /// Computes `bias(head, position)` for every head and the positions below `n_keys`.
    pub fn new(n_heads: usize, n_keys: usize, bias: impl Fn(usize, usize) -> f32) -> Self {
        let stride = n_keys + LANES;
        let mut values = vec![0.0; n_heads * stride];
        for (head, values) in values.chunks_exact_mut(stride).enumerate() {
            values[..n_keys].iter_mut().enumerate().for_each(|(position, value)| *value = bias(head, position));
        }
        Self { n_keys, stride, values }
    }

    /// The biases of a head, one for each key.
    pub fn of_head(&self, head: usize) -> &[f32] {
        &self.values[head * self.stride..][..self.n_keys]
    }

    /// The biases of a head for the keys from `key` on.
    #[inline(always)]
    fn at(&self, head: usize, key: usize) -> &[f32; LANES] {
        &self.values[head * self.stride + key..].as_chunks().0[0]
    }
}

impl AttentionSpec<'_> {
    /// The range of keys, of `n_keys`, that the query at position `q` sees.
    pub fn visible(&self, q: usize, n_keys: usize) -> Range<usize> {
        let (start, end) = match (self.causal, self.window) {
            (true, None) => (0, q + 1),
            (true, Some(window)) => ((q + 1).saturating_sub(window), q + 1),
            (false, None) => (0, n_keys),
            (false, Some(window)) => (q.saturating_sub(window / 2), q + window / 2 + 1),
        };
        start.min(n_keys)..end.min(n_keys)
    }

    /// Number of query heads that share a key and value head.
    fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    fn check(&self, n_keys: usize) {
        assert!(self.n_kv_heads > 0 && self.n_heads.is_multiple_of(self.n_kv_heads), "heads are not whole groups");
        assert!(self.d_head > 0);
        let enough = |b: &KeyBiases| b.n_keys >= n_keys && b.values.len() == self.n_heads * b.stride;
        assert!(self.key_biases.is_none_or(enough), "a bias for each head and key");
    }
}

/// Queries per task: enough to outweigh the cost of starting it, few enough to spread a sequence of a hundred tokens over threads.
const QUERY_BLOCK: usize = 48;

/// A task: `n` queries of a sequence, from query `first` on, for one head; `at` is the row of the first one in q and z.
struct Block {
    sequence: usize,
    head: usize,
    first: usize,
    n: usize,
    at: usize,
}

/// `z = softmax(mask(q kᵀ)) v`, within each sequence of the call.
///
/// `offsets` is `[n_sequences + 1]`, the first token of each sequence and the end. `k` and `v` are `[tokens, n_kv_heads,
/// d_head]`. Without `rows`, `q` and `z` are `[tokens, n_heads, d_head]`. `rows` are, for each sequence, the positions of the
/// queries to compute: then `q` and `z` hold only those, in that order. The output of a query that sees no key is zero.
pub fn attention(
    spec: &AttentionSpec,
    offsets: &[usize],
    rows: Option<&[Vec<u32>]>,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    z: &mut [f32],
) {
    attention_at(Level::best(), spec, offsets, rows, q, k, v, z);
}

#[expect(clippy::too_many_arguments, reason = "the arguments of `attention` and the instruction set")]
fn attention_at(
    level: Level,
    spec: &AttentionSpec,
    offsets: &[usize],
    rows: Option<&[Vec<u32>]>,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    z: &mut [f32],
) {
    spec.check(offsets.windows(2).map(|bounds| bounds[1] - bounds[0]).max().unwrap_or(0));
    let tokens = offsets.last().copied().unwrap_or(0);
    assert!(k.len() == tokens * spec.n_kv_heads * spec.d_head && v.len() == k.len(), "k and v are not [tokens, ..]");
    assert!(rows.is_none_or(|rows| rows.len() + 1 == offsets.len()), "rows for each sequence");
    assert_eq!(q.len(), z.len());
    let width = spec.n_heads * spec.d_head;

    let mut blocks = Vec::new();
    let (mut at, mut cost) = (0, 0);
    for (sequence, bounds) in offsets.windows(2).enumerate() {
        let n_keys = bounds[1] - bounds[0];
        let n = rows.map_or(n_keys, |rows| rows[sequence].len());
        for head in 0..spec.n_heads {
            for first in (0..n).step_by(QUERY_BLOCK) {
                blocks.push(Block { sequence, head, first, n: QUERY_BLOCK.min(n - first), at: at + first });
            }
        }
        cost += product_ns(spec, n, n_keys);
        at += n;
    }
    assert_eq!(q.len(), at * width, "q is not [queries, n_heads, d_head]");

    let tasks = parallel::tasks(cost);
    let z = Shared::new(z);
    PackedKv::with(spec, offsets, k, Some(v), tasks > 1, |packed| {
        let run = |block: &Block| {
            let kv = packed.head(block.sequence, block.head / spec.group());
            let at = block.at * width + block.head * spec.d_head;
            let queries = Queries {
                spec,
                head: block.head,
                q: &q[at..],
                positions: match rows {
                    Some(rows) => Positions::Listed(&rows[block.sequence][block.first..][..block.n]),
                    None => Positions::From(block.first),
                },
                n: block.n,
                kv,
            };
            with_scratch(queries.scratch(), |scratch| {
                level.run(Attend { queries, z, at, scratch });
            });
        };
        if tasks > 1 {
            blocks.par_iter().with_max_len(1).for_each(run);
        } else {
            blocks.iter().for_each(run);
        }
    });
}

/// Scores of some heads of one sequence, `[heads, n_q, n_k]`: scaled, softcapped, biased, then -inf where masked.
///
/// `q` is `[n_q, n_heads, d_head]`, the sequence's queries at local positions `q_pos`; `k` is `[n_k, n_kv_heads,
/// d_head]`.
pub fn attention_scores(
    spec: &AttentionSpec,
    heads: Range<usize>,
    q_pos: &[u32],
    q: &[f32],
    k: &[f32],
    scores: &mut [f32],
) {
    attention_scores_at(Level::best(), spec, heads, q_pos, q, k, scores);
}

fn attention_scores_at(
    level: Level,
    spec: &AttentionSpec,
    heads: Range<usize>,
    q_pos: &[u32],
    q: &[f32],
    k: &[f32],
    scores: &mut [f32],
) {
    assert!(heads.end <= spec.n_heads, "heads {heads:?} of {}", spec.n_heads);
    let n_keys = k.len() / (spec.n_kv_heads * spec.d_head);
    spec.check(n_keys);
    let n_q = q_pos.len();
    assert_eq!(k.len(), n_keys * spec.n_kv_heads * spec.d_head, "k is not [n_k, n_kv_heads, d_head]");
    assert_eq!(q.len(), n_q * spec.n_heads * spec.d_head, "q is not [n_q, n_heads, d_head]");
    assert_eq!(scores.len(), heads.len() * n_q * n_keys, "scores are not [heads, n_q, n_k]");
    if scores.is_empty() {
        return;
    }
    let tasks = parallel::tasks(product_ns(spec, n_q, n_keys) * heads.len() / spec.n_heads);
    PackedKv::with(spec, &[0, n_keys], k, None, tasks > 1, |packed| {
        let run = |(head, block, scores): (usize, usize, &mut [f32])| {
            let first = block * QUERY_BLOCK;
            let queries = Queries {
                spec,
                head,
                q: &q[(first * spec.n_heads + head) * spec.d_head..],
                positions: Positions::Listed(&q_pos[first..]),
                n: scores.len() / n_keys,
                kv: packed.head(0, head / spec.group()),
            };
            with_scratch(queries.scratch(), |scratch| level.run(Score { queries, scores, scratch }));
        };
        let heads = heads.zip(scores.chunks_mut(n_q * n_keys));
        let blocks = heads.flat_map(|(head, scores)| {
            scores.chunks_mut(QUERY_BLOCK * n_keys).enumerate().map(move |(block, part)| (head, block, part))
        });
        if tasks > 1 {
            blocks.collect::<Vec<_>>().into_par_iter().with_max_len(1).for_each(run);
        } else {
            blocks.for_each(run);
        }
    });
}

/// Softmax over the last axis, of length `n_k`, in place. A row that is all -inf becomes all zeros.
pub fn softmax_rows(scores: &mut [f32], n_k: usize) {
    if scores.is_empty() {
        return;
    }
    assert!(n_k > 0 && scores.len().is_multiple_of(n_k), "scores are not rows of {n_k}");
    let level = Level::best();
    // About three quarters of a nanosecond for each number.
    let rows = parallel::rows_of_a_task(scores.len() / n_k, scores.len() / 4 * 3);
    scores.par_chunks_mut(rows * n_k).for_each(|scores| level.run(SoftmaxRows { scores, n_k }));
}

/// `z = pattern v` of one sequence: `z` `[n_q, n_heads, d_head]` from `pattern` `[n_heads, n_q, n_k]` and `v` `[n_k,
/// n_kv_heads, d_head]`, summed over ascending keys.
pub fn weighted_values(spec: &AttentionSpec, pattern: &[f32], v: &[f32], z: &mut [f32]) {
    let d = spec.d_head;
    let n_keys = v.len() / (spec.n_kv_heads * d);
    let n_q = z.len() / (spec.n_heads * d);
    assert_eq!(pattern.len(), spec.n_heads * n_q * n_keys, "the pattern is not [n_heads, n_q, n_k]");
    z.fill(0.0);
    for (row, weights) in pattern.chunks_exact(n_keys.max(1)).enumerate() {
        let (head, q) = (row / n_q, row % n_q);
        let z = &mut z[(q * spec.n_heads + head) * d..][..d];
        for (key, weight) in weights.iter().enumerate().filter(|(_, w)| **w != 0.0) {
            let value = &v[(key * spec.n_kv_heads + head / spec.group()) * d..][..d];
            z.iter_mut().zip(value).for_each(|(z, v)| *z += weight * v);
        }
    }
}

/// Estimated nanoseconds on one thread: a third of a nanosecond for each vector of terms of the two products, half of which a
/// causal mask saves, plus the softmax.
fn product_ns(spec: &AttentionSpec, n_queries: usize, n_keys: usize) -> usize {
    n_queries * n_keys * spec.n_heads * spec.d_head / 32
}

#[cfg(test)]
mod tests;

//! Packs keys and values for the tile kernel.

use rayon::prelude::*;

use super::super::parallel::with_scratch;
use super::super::simd::LANES;
use super::AttentionSpec;

/// For each sequence and key-value head: keys as panels of 16 keys `[n_keys / 16][d_head][16]`, then values as panels of 16
/// dimensions `[d_head / 16][n_keys][16]`, both padded with zeros.
pub struct PackedKv<'a> {
    heads: Vec<PackedHead<'a>>,
    n_kv_heads: usize,
}

/// Keys and values of one sequence and head.
#[derive(Clone, Copy)]
pub struct PackedHead<'a> {
    pub n_keys: usize,
    pub keys: &'a [f32],
    /// Empty where only scores are asked for.
    pub values: &'a [f32],
}

/// One head's part of the packed buffer, and where its numbers come from.
struct Part<'a> {
    buffer: &'a mut [f32],
    n_keys: usize,
    key_floats: usize,
    /// The row of the first key in k and v.
    from: usize,
}

impl PackedKv<'_> {
    /// Packs `k` and `v`, `[tokens, n_kv_heads, d_head]`, into scratch memory and hands them to `f`.
    pub fn with<T>(
        spec: &AttentionSpec,
        offsets: &[usize],
        k: &[f32],
        v: Option<&[f32]>,
        parallel: bool,
        f: impl FnOnce(&PackedKv) -> T,
    ) -> T {
        let d = spec.d_head;
        let key_floats = |n: usize| n.next_multiple_of(LANES) * d;
        let value_floats = |n: usize| {
            if v.is_some() { d.next_multiple_of(LANES) * n } else { 0 }
        };
        let lengths = || offsets.windows(2).map(|bounds| (bounds[0], bounds[1] - bounds[0]));
        let total: usize = lengths().map(|(_, n)| key_floats(n) + value_floats(n)).sum();
        with_scratch(total * spec.n_kv_heads, |mut rest| {
            let mut parts = Vec::with_capacity(lengths().count() * spec.n_kv_heads);
            for (start, n_keys) in lengths() {
                for head in 0..spec.n_kv_heads {
                    let (buffer, others) = rest.split_at_mut(key_floats(n_keys) + value_floats(n_keys));
                    let from = (start * spec.n_kv_heads + head) * d;
                    parts.push(Part { buffer, n_keys, key_floats: key_floats(n_keys), from });
                    rest = others;
                }
            }
            let stride = spec.n_kv_heads * d;
            let heads = if parallel {
                parts.into_par_iter().map(|part| pack(part, k, v, d, stride)).collect()
            } else {
                parts.into_iter().map(|part| pack(part, k, v, d, stride)).collect()
            };
            f(&PackedKv { heads, n_kv_heads: spec.n_kv_heads })
        })
    }

    pub fn head(&self, sequence: usize, kv_head: usize) -> PackedHead<'_> {
        self.heads[sequence * self.n_kv_heads + kv_head]
    }
}

fn pack<'a>(part: Part<'a>, k: &[f32], v: Option<&[f32]>, d: usize, stride: usize) -> PackedHead<'a> {
    let Part { buffer, n_keys, key_floats, from } = part;
    let (keys, values) = buffer.split_at_mut(key_floats);
    for (i, panel) in keys.chunks_exact_mut(d * LANES).enumerate() {
        let first = i * LANES;
        let n = LANES.min(n_keys - first);
        let panel = panel.as_chunks_mut::<LANES>().0;
        for lane in 0..n {
            let key = &k[from + (first + lane) * stride..][..d];
            for (line, &x) in panel.iter_mut().zip(key) {
                line[lane] = x;
            }
        }
        if n < LANES {
            for line in panel {
                line[n..].fill(0.0);
            }
        }
    }
    if let Some(v) = v {
        for (i, panel) in values.chunks_exact_mut((n_keys * LANES).max(1)).enumerate() {
            let first = i * LANES;
            let n = LANES.min(d - first);
            for (key, line) in panel.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                line[..n].copy_from_slice(&v[from + key * stride + first..][..n]);
                line[n..].fill(0.0);
            }
        }
    }
    PackedHead { n_keys, keys, values }
}

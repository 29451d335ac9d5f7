//! The KV cache: keys and values of the tokens that a sequence has already passed through the model, so that later tokens attend to
//! them without another pass.

use rayon::prelude::*;

use crate::{
    ops::attention::{AttentionSpec, attention},
    packing::{Packing, RowSet},
};

/// Rotated keys, and values, of one sequence.
#[derive(Debug, Default)]
pub struct KvCache {
    /// One for each block.
    layers: Vec<Layer>,
}

/// Keys and values of one block, each `[tokens, kv_heads, d_head]`.
#[derive(Debug, Default)]
struct Layer {
    k: Vec<f32>,
    v: Vec<f32>,
}

/// Size in bytes of one token in the cache of a model with `n_layers` blocks and `width` (`kv_heads · d_head`) numbers per key.
pub fn bytes_per_token(n_layers: usize, width: usize) -> u64 {
    (n_layers * 2 * width * size_of::<f32>()) as u64
}

impl KvCache {
    /// The cached keys and values of block `l`.
    pub fn of_layer(&self, l: usize) -> [&[f32]; 2] {
        self.layers.get(l).map_or([&[], &[]], |layer| [&layer.k, &layer.v])
    }

    /// A copy with the first `n` numbers of the keys and values of each block from `first` on; the blocks before are empty.
    pub fn before(&self, first: usize, n: usize) -> Self {
        let head = |all: &[f32]| all[..n.min(all.len())].to_vec();
        let layers = self.layers.iter().enumerate().map(|(l, layer)| match l < first {
            true => Layer::default(),
            false => Layer { k: head(&layer.k), v: head(&layer.v) },
        });
        Self { layers: layers.collect() }
    }

    /// Appends keys and values of new tokens to block `l` after the first `before` numbers, and returns all of them. What a
    /// cancelled pass may have appended there is overwritten.
    fn extend(&mut self, l: usize, before: usize, k: &[f32], v: &[f32]) -> (&[f32], &[f32]) {
        if self.layers.len() <= l {
            self.layers.resize_with(l + 1, Layer::default);
        }
        let layer = &mut self.layers[l];
        for (held, new) in [(&mut layer.k, k), (&mut layer.v, v)] {
            held.truncate(before);
            held.extend_from_slice(new);
        }
        (&layer.k, &layer.v)
    }
}

/// Attention of new tokens to the cached tokens and to each other: computes `z` of the rows of `set`, bit for bit as one pass over
/// all tokens would.
///
/// The slices are the queries of `set`, and the keys and values of every new token, which are added to the caches.
pub fn attend(
    history: &mut [KvCache],
    spec: &AttentionSpec<'_>,
    l: usize,
    packing: &Packing,
    set: RowSet,
    [q, k, v]: [&[f32]; 3],
    z: &mut [f32],
) {
    let (width_q, width_kv) = (spec.n_heads * spec.d_head, spec.n_kv_heads * spec.d_head);
    let selection = packing.of(set);
    let mut rest = z;
    let tasks: Vec<_> = history
        .iter_mut()
        .enumerate()
        .map(|(i, cache)| {
            let rows = selection.offsets[i]..selection.offsets[i + 1];
            let tokens = packing.all.offsets[i]..packing.all.offsets[i + 1];
            let before = packing.all.positions[tokens.start] as usize;
            let (z, others) = std::mem::take(&mut rest).split_at_mut(rows.len() * width_q);
            rest = others;
            (cache, rows, tokens, before, z)
        })
        .collect();
    tasks.into_par_iter().for_each(|(cache, rows, tokens, before, z)| {
        let new = tokens.start * width_kv..tokens.end * width_kv;
        let (keys, values) = cache.extend(l, before * width_kv, &k[new.clone()], &v[new]);
        let positions = vec![selection.positions[rows.clone()].to_vec()];
        let queries = &q[rows.start * width_q..rows.end * width_q];
        attention(spec, &[0, before + tokens.len()], Some(&positions), queries, keys, values, z);
    });
}

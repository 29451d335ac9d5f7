//! Keys and values of the tokens a sequence has behind it, so that the next ones need no second pass over them.

use rayon::prelude::*;

use crate::{
    ops::attention::{AttentionSpec, attention},
    packing::{Packing, RowSet},
};

/// Keys, rotated, and values of one sequence.
#[derive(Debug, Default)]
pub struct KvCache {
    /// One a block.
    layers: Vec<Layer>,
}

/// Those of one block, each `[tokens, kv_heads, d_head]`.
#[derive(Debug, Default)]
struct Layer {
    k: Vec<f32>,
    v: Vec<f32>,
}

/// Bytes that one token takes in a model with `n_layers` blocks and keys of `width` numbers.
pub fn bytes_per_token(n_layers: usize, width: usize) -> u64 {
    (n_layers * 2 * width * size_of::<f32>()) as u64
}

impl KvCache {
    /// The keys and values of block `l` it has.
    pub fn of_layer(&self, l: usize) -> [&[f32]; 2] {
        self.layers.get(l).map_or([&[], &[]], |layer| [&layer.k, &layer.v])
    }

    /// The first `n` numbers of the keys and of the values, from block `first` on.
    pub fn before(&self, first: usize, n: usize) -> Self {
        let head = |all: &[f32]| all[..n.min(all.len())].to_vec();
        let layers = self.layers.iter().enumerate().map(|(l, layer)| match l < first {
            true => Layer::default(),
            false => Layer { k: head(&layer.k), v: head(&layer.v) },
        });
        Self { layers: layers.collect() }
    }

    /// The keys and values of block `l`, with those of new tokens behind the `before` ones it has. What a pass that was
    /// broken off left behind is overwritten.
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

/// Attention of new tokens to those before them and to each other: `z` of the rows of `set`, as
/// [`attention`] gives it, bit for bit what one pass over all tokens gives.
///
/// `qkv` are the queries of `set` and the keys and values of every new token.
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

//! Attention of one tile on an NVIDIA GPU, with our own kernels around two batched products.

use candle_core::{Result, Tensor};

use super::{
    kernels::{heads_first, heads_last, masked_softmax},
    product::{batched_product, batched_transposed},
};
use crate::{device::tiles::Tile, ops::attention::AttentionSpec};

/// The heads' outputs `z` of a tile, `[parts · queries, heads · d_head]`. `seen` is the range of keys that each query sees, as
/// [`masked_softmax`] takes it. With `tf32`, the factors of the two products are rounded to 11 bits.
pub fn attend(
    spec: &AttentionSpec<'_>,
    tile: &Tile,
    [q, k, v]: [&Tensor; 3],
    biases: Option<&Tensor>,
    seen: &Tensor,
    tf32: bool,
) -> Result<Tensor> {
    let (parts, n_queries, n_keys) = tile.shape;
    let (heads, kv, d) = (spec.n_heads, spec.n_kv_heads, spec.d_head);
    // The queries of heads that share keys are one matrix.
    let (batch, rows) = (parts * kv, heads / kv * n_queries);
    let q = heads_first(q, tile.queries.as_ref(), (parts, n_queries, heads))?.reshape((batch, rows, d))?;
    let [k, v] = [k, v].map(|x| heads_first(x, tile.keys.as_ref(), (parts, n_keys, kv))?.reshape((batch, n_keys, d)));
    let scores = batched_transposed(&q, &k?, tf32)?.reshape((parts, heads, n_queries, n_keys))?;
    let pattern = masked_softmax(spec, &scores, seen, biases)?.reshape((batch, rows, n_keys))?;
    heads_last(&batched_product(&pattern, &v?, tf32)?.reshape((parts, heads, n_queries, d))?)
}

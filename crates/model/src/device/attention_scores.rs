//! Attention scores and outputs of padded tiles, in candle's operations. It knows shapes, masks and biases, and no weights.

use std::ops::Range;

use candle_core::Tensor;
use candle_nn::ops::softmax_last_dim;

use super::{tiles::Tile, weights::softcapped};
use crate::{capture::map_part::MapPart, ops::attention::AttentionSpec};

/// Splits `heads` into ranges that are whole groups of heads with shared keys, or lie within one group.
pub fn of_whole_groups(spec: &AttentionSpec<'_>, heads: &Range<usize>) -> Vec<Range<usize>> {
    let group = spec.n_heads / spec.n_kv_heads;
    let (first, last) = (heads.start.next_multiple_of(group), heads.end / group * group);
    if first > last {
        return vec![heads.clone()];
    }
    [heads.start..first, first..last, last..heads.end].into_iter().filter(|part| !part.is_empty()).collect()
}

/// The scores `[1, heads, queries, keys]` of a range of heads from [`of_whole_groups`], given queries and keys of all heads,
/// `[_, heads · d_head]`.
pub fn scores_of_heads(
    spec: &AttentionSpec<'_>,
    heads: Range<usize>,
    part: &MapPart<'_>,
    [queries, keys]: [&Tensor; 2],
    biases: Option<&Tensor>,
    mask: &Tensor,
) -> candle_core::Result<Tensor> {
    let (group, d_head) = (spec.n_heads / spec.n_kv_heads, spec.d_head);
    let read = heads.start / group..heads.end.div_ceil(group);
    let of_heads = AttentionSpec { n_heads: heads.len(), n_kv_heads: read.len(), ..*spec };
    let queries = queries.narrow(1, heads.start * d_head, heads.len() * d_head)?;
    let keys = keys.narrow(1, read.start * d_head, read.len() * d_head)?;
    let biases = biases.map(|biases| biases.narrow(1, heads.start, heads.len())).transpose()?;
    scores(&of_heads, (1, part.positions.len(), part.n_keys), &queries, &keys, biases.as_ref(), Some(mask))
}

/// The scores `[parts, heads, queries, keys]` of a tile of padded parts: `q` is `[parts · queries, heads · d_head]`, `k` is
/// `[parts · keys, kv_heads · d_head]`.
fn scores(
    spec: &AttentionSpec<'_>,
    (parts, n_queries, n_keys): (usize, usize, usize),
    q: &Tensor,
    k: &Tensor,
    biases: Option<&Tensor>,
    mask: Option<&Tensor>,
) -> candle_core::Result<Tensor> {
    let (kv, d_head) = (spec.n_kv_heads, spec.d_head);
    let group = spec.n_heads / kv;
    // Scale the queries rather than the scores: there are fewer of them.
    let q = (q * f64::from(spec.scale))?.reshape((parts, n_queries, kv, group, d_head))?;
    let q = q.permute((0, 2, 3, 1, 4))?.contiguous()?.reshape((parts, kv, group * n_queries, d_head))?;
    let k = k.reshape((parts, n_keys, kv, d_head))?.permute((0, 2, 3, 1))?.contiguous()?;
    let mut scores = q.matmul(&k)?.reshape((parts, spec.n_heads, n_queries, n_keys))?;
    if let Some(cap) = spec.softcap {
        scores = softcapped(&scores, cap)?;
    }
    if let Some(biases) = biases {
        scores = scores.broadcast_add(&biases.narrow(3, 0, n_keys)?)?;
    }
    match mask {
        Some(mask) => scores.broadcast_add(mask),
        None => Ok(scores),
    }
}

/// The heads' outputs `z` of a tile, `[parts · queries, heads · d_head]`.
pub fn attend_tile(
    spec: &AttentionSpec<'_>,
    tile: &Tile,
    [q, k, v]: [&Tensor; 3],
    biases: Option<&Tensor>,
    mask: Option<&Tensor>,
) -> candle_core::Result<Tensor> {
    let (parts, n_queries, n_keys) = tile.shape;
    let (kv, d_head) = (spec.n_kv_heads, spec.d_head);
    let group = spec.n_heads / kv;
    let gather = |x: &Tensor, rows: &Option<Tensor>| match rows {
        Some(rows) => x.index_select(rows, 0),
        None => Ok(x.clone()),
    };
    let (q, k, v) = (gather(q, &tile.queries)?, gather(k, &tile.keys)?, gather(v, &tile.keys)?);
    let pattern = softmax_last_dim(&scores(spec, tile.shape, &q, &k, biases, mask)?)?;
    let pattern = pattern.reshape((parts, kv, group * n_queries, n_keys))?;
    let v = v.reshape((parts, n_keys, kv, d_head))?.transpose(1, 2)?.contiguous()?;
    let z = pattern.matmul(&v)?.reshape((parts, kv, group, n_queries, d_head))?;
    z.permute((0, 3, 1, 2, 4))?.contiguous()?.reshape((parts * n_queries, spec.n_heads * d_head))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn scores_of_some_heads_are_those_of_all() {
        let spec = AttentionSpec {
            n_heads: 6,
            n_kv_heads: 2,
            d_head: 4,
            scale: 0.5,
            causal: true,
            window: None,
            softcap: None,
            key_biases: None,
        };
        let device = Device::Cpu;
        let random = |shape| Tensor::randn(0f32, 1.0, shape, &device).unwrap();
        let (q, k, mask) = (random((5, 24)), random((7, 8)), Tensor::zeros((1, 1, 5, 7), DType::F32, &device).unwrap());
        let biases = Tensor::randn(0f32, 1.0, (1, 6, 1, 7), &device).unwrap();
        let all = scores(&spec, (1, 5, 7), &q, &k, Some(&biases), Some(&mask)).unwrap();
        let positions = [2, 3, 4, 5, 6];
        for (heads, n_parts) in [(0..6, 1), (1..2, 1), (2..4, 2), (1..6, 2), (3..5, 1), (2..5, 2), (0..3, 1), (5..6, 1)]
        {
            let part = MapPart { input: 0, heads: heads.clone(), positions: &positions, n_keys: 7 };
            let parts = of_whole_groups(&spec, &heads);
            assert_eq!(parts.len(), n_parts, "{heads:?}: {parts:?}");
            let parts: Vec<Tensor> = parts
                .into_iter()
                .map(|heads| scores_of_heads(&spec, heads, &part, [&q, &k], Some(&biases), &mask).unwrap())
                .collect();
            let some = Tensor::cat(&parts, 1).unwrap();
            let expected = all.narrow(1, heads.start, heads.len()).unwrap();
            let off = (some - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(off < 1e-6, "{heads:?}: {off}");
        }
    }
}

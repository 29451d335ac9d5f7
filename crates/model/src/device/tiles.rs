//! Lays out attention over many inputs in few kernel launches: inputs of similar length are padded to one tile. It knows lengths,
//! positions and masks, and no weights.
//!
//! Padding does not affect results: no real query sees a key outside its input, and outputs of padded queries are dropped. A long
//! input is divided into query ranges, so that the scores of a tile stay within a budget.

use std::{collections::HashMap, ops::Range};

use candle_core::{Device, Result, Tensor};

use crate::{
    ops::attention::AttentionSpec,
    packing::{Packing, RowSet, index},
};

/// Largest number of scores in one tile, over all heads.
const MAX_SCORES: usize = 64 << 20;

/// Largest query range in a causal pass: the scores of keys after its last query are not computed.
const CAUSAL_QUERIES: usize = 512;

/// Limit on padding: a tile may have this many quarters of the scores that its inputs have.
const MAX_PADDING_QUARTERS: usize = 6;

/// A query range of one input, and the number of keys that it may see.
#[derive(Debug, Clone)]
struct Part {
    input: usize,
    /// Rows of the queries in the set.
    rows: Range<usize>,
    n_keys: usize,
}

impl Part {
    fn area(&self) -> usize {
        self.rows.len() * self.n_keys
    }
}

/// Parts that are padded to one shape and computed together.
#[derive(Debug)]
pub struct Tile {
    /// Number of parts, and queries and keys of each, including padding.
    pub shape: (usize, usize, usize),
    parts: Vec<Part>,
    /// For each query, its row in the query buffer, `[parts · queries]`; padding repeats the first row of its part. `None` if the
    /// tile is the whole buffer.
    pub queries: Option<Tensor>,
    /// For each key, its row among all tokens, `[parts · keys]`; padding repeats the first token of the input. `None` as above.
    pub keys: Option<Tensor>,
    /// Masks by window, which are added to the scores, `[parts or 1, 1, queries, keys]`: -∞ where a query does not see a key.
    /// `None` where every query sees every key.
    masks: HashMap<Option<usize>, Option<Tensor>>,
    /// Results of [`Self::seen`] by window.
    #[cfg(feature = "cuda")]
    seen: HashMap<Option<usize>, Tensor>,
}

/// The tiles of one batch, for the queries of one set.
#[derive(Debug)]
pub struct Tiles {
    pub tiles: Vec<Tile>,
    /// For each row of the set, its row in the concatenated results of all tiles.
    pub restore: Tensor,
    /// Whether the concatenated results are in the order of the set already.
    pub in_order: bool,
}

impl Tiles {
    /// Lays out the queries of `set`.
    pub fn new(packing: &Packing, set: RowSet, causal: bool, n_heads: usize, device: &Device) -> Result<Self> {
        Self::within(MAX_SCORES / n_heads, packing, set, causal, device)
    }

    /// As [`Self::new`], with at most `area` scores per head in a tile, unless a single query has more.
    fn within(area: usize, packing: &Packing, set: RowSet, causal: bool, device: &Device) -> Result<Self> {
        let groups = grouped(parts(area, packing, set, causal), area);
        let mut restore = vec![0; packing.of(set).positions.len()];
        let (mut tiles, mut base) = (Vec::new(), 0);
        for group in groups {
            let tile = Tile::new(group, packing, set, device)?;
            for (i, part) in tile.parts.iter().enumerate() {
                let first = base + i * tile.shape.1;
                part.rows.clone().zip(first..).for_each(|(row, at)| restore[row] = index(at));
            }
            base += tile.shape.0 * tile.shape.1;
            tiles.push(tile);
        }
        let n = restore.len();
        let in_order = n == base && restore.is_sorted();
        Ok(Self { tiles, restore: Tensor::from_vec(restore, n, device)?, in_order })
    }
}

/// The queries of every input, divided into query ranges.
fn parts(area: usize, packing: &Packing, set: RowSet, causal: bool) -> Vec<Part> {
    let selection = packing.of(set);
    let mut parts = Vec::new();
    for (input, bounds) in selection.offsets.windows(2).enumerate() {
        let all_keys = packing.all.offsets[input + 1] - packing.all.offsets[input];
        let most = if causal { CAUSAL_QUERIES } else { usize::MAX };
        let step = (area / all_keys).clamp(1, most);
        for first in (bounds[0]..bounds[1]).step_by(step) {
            let rows = first..bounds[1].min(first + step);
            // Positions ascend, so the last query sees the most keys.
            let last = selection.positions[rows.end - 1] as usize;
            let n_keys = if causal { last + 1 } else { all_keys };
            parts.push(Part { input, rows, n_keys });
        }
    }
    parts
}

/// Groups parts of similar size.
fn grouped(mut parts: Vec<Part>, area: usize) -> Vec<Vec<Part>> {
    parts.sort_by_key(|part| (part.n_keys, part.rows.len()));
    let mut groups: Vec<Vec<Part>> = Vec::new();
    let (mut real, mut queries) = (0, 0);
    for part in parts {
        let wide = queries.max(part.rows.len());
        if let Some(group) = groups.last_mut() {
            // Parts are sorted, so the new one has the most keys.
            let padded = (group.len() + 1) * wide * part.n_keys;
            if padded <= area && padded * 4 <= (real + part.area()) * MAX_PADDING_QUARTERS {
                (real, queries) = (real + part.area(), wide);
                group.push(part);
                continue;
            }
        }
        (real, queries) = (part.area(), part.rows.len());
        groups.push(vec![part]);
    }
    groups
}

impl Tile {
    fn new(parts: Vec<Part>, packing: &Packing, set: RowSet, device: &Device) -> Result<Self> {
        let n_queries = parts.iter().map(|p| p.rows.len()).max().unwrap_or(0);
        let n_keys = parts.iter().map(|p| p.n_keys).max().unwrap_or(0);
        let padded = |first: usize, n: usize, of: usize| (0..of).map(move |i| index(first + if i < n { i } else { 0 }));
        let queries: Vec<u32> = parts.iter().flat_map(|p| padded(p.rows.start, p.rows.len(), n_queries)).collect();
        let keys: Vec<u32> =
            parts.iter().flat_map(|p| padded(packing.all.offsets[p.input], p.n_keys, n_keys)).collect();
        let upload = |rows: Vec<u32>, of: usize| {
            let whole = rows.len() == of && rows.iter().copied().eq(0..index(of));
            (!whole).then(|| Tensor::from_slice(&rows, rows.len(), device)).transpose()
        };
        Ok(Self {
            shape: (parts.len(), n_queries, n_keys),
            parts,
            queries: upload(queries, packing.of(set).positions.len())?,
            keys: upload(keys, packing.n_tokens())?,
            masks: HashMap::new(),
            #[cfg(feature = "cuda")]
            seen: HashMap::new(),
        })
    }

    /// The mask that is added to the scores; `None` if every query sees every key.
    pub fn mask(
        &mut self,
        spec: &AttentionSpec<'_>,
        packing: &Packing,
        set: RowSet,
        device: &Device,
    ) -> Result<Option<Tensor>> {
        if let Some(mask) = self.masks.get(&spec.window) {
            return Ok(mask.clone());
        }
        let (_, n_queries, n_keys) = self.shape;
        let (n, seen) = self.visible(spec, packing, set);
        let mut values = vec![0f32; n * n_queries * n_keys];
        seen.into_iter().zip(values.chunks_exact_mut(n_keys)).for_each(|(seen, row)| hide_but(seen, row));
        let hides = values.iter().any(|v| *v != 0.0);
        let mask = hides.then(|| Tensor::from_vec(values, (n, 1, n_queries, n_keys), device)).transpose()?;
        self.masks.insert(spec.window, mask.clone());
        Ok(mask)
    }

    /// The range of keys that each query sees, as start and end, `[parts or 1, queries, 2]`.
    #[cfg(feature = "cuda")]
    pub fn seen(
        &mut self,
        spec: &AttentionSpec<'_>,
        packing: &Packing,
        set: RowSet,
        device: &Device,
    ) -> Result<Tensor> {
        if let Some(seen) = self.seen.get(&spec.window) {
            return Ok(seen.clone());
        }
        let (n, seen) = self.visible(spec, packing, set);
        let bounds: Vec<u32> = seen.into_iter().flat_map(|seen| [index(seen.start), index(seen.end)]).collect();
        let seen = Tensor::from_vec(bounds, (n, self.shape.1, 2), device)?;
        self.seen.insert(spec.window, seen.clone());
        Ok(seen)
    }

    /// The range of keys that each query sees, for every part, or for one if all parts are alike. Padded queries see keys as well.
    fn visible(&self, spec: &AttentionSpec<'_>, packing: &Packing, set: RowSet) -> (usize, Vec<Range<usize>>) {
        let (n, n_queries, n_keys) = self.shape;
        let positions = |part: &Part| &packing.of(set).positions[part.rows.clone()];
        let from_start = |part: &Part| positions(part).iter().copied().eq(0..index(part.rows.len()));
        // In a causal pass, padded keys come after all queries of the input, so the causal mask hides them.
        if spec.causal && self.parts.iter().all(from_start) {
            return (1, (0..n_queries).map(|position| spec.visible(position, n_keys)).collect());
        }
        let mut seen = Vec::with_capacity(n * n_queries);
        for part in &self.parts {
            let own = packing.all.offsets[part.input + 1] - packing.all.offsets[part.input];
            let of_part = positions(part).iter().map(|position| {
                let seen = spec.visible(*position as usize, own);
                seen.start.min(n_keys)..seen.end.min(n_keys)
            });
            seen.extend(of_part);
            seen.resize(seen.len() + n_queries - part.rows.len(), 0..n_keys);
        }
        (n, seen)
    }
}

/// Writes -∞ to `[queries, n_keys]` where the queries at `positions`, in an input of `own` tokens, do not see a key.
pub fn hide(spec: &AttentionSpec<'_>, positions: &[u32], own: usize, n_keys: usize, values: &mut [f32]) {
    for (position, row) in positions.iter().zip(values.chunks_exact_mut(n_keys)) {
        hide_but(spec.visible(*position as usize, own), row);
    }
}

/// Writes -∞ to all keys of a row outside this range.
fn hide_but(seen: Range<usize>, row: &mut [f32]) {
    let n_keys = row.len();
    row[..seen.start.min(n_keys)].fill(f32::NEG_INFINITY);
    row[seen.end.min(n_keys)..].fill(f32::NEG_INFINITY);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(lengths: &[usize]) -> crate::packing::Selection {
        let mut offsets = vec![0];
        let mut positions = Vec::new();
        for n in lengths {
            positions.extend(0..index(*n));
            offsets.push(positions.len());
        }
        crate::packing::Selection { offsets, positions, picked: Vec::new(), picked_logits: None }
    }

    fn packing(lengths: &[usize]) -> Packing {
        Packing {
            all: selection(lengths),
            wanted: selection(&[]),
            wanted_positions: Vec::new(),
            wanted_tokens: Vec::new(),
            lengths: lengths.to_vec(),
        }
    }

    fn queries(tile: &Tile) -> Vec<u32> {
        let (n, n_queries, _) = tile.shape;
        tile.queries.as_ref().map_or_else(|| (0..index(n * n_queries)).collect(), |q| q.to_vec1().unwrap())
    }

    #[test]
    fn every_row_is_computed_once_and_no_tile_is_too_large() {
        for (lengths, area) in [(&[5, 1, 9, 4, 4, 30][..], 100), (&[40][..], 7), (&[3; 20][..], 1000)] {
            let packing = packing(lengths);
            let tiles = Tiles::within(area, &packing, RowSet::All, true, &Device::Cpu).unwrap();
            let mut seen = vec![false; packing.n_tokens()];
            for row in tiles.tiles.iter().flat_map(|t| &t.parts).flat_map(|p| p.rows.clone()) {
                assert!(!std::mem::replace(&mut seen[row], true), "row {row} twice");
            }
            assert!(seen.iter().all(|s| *s));
            for tile in &tiles.tiles {
                let (n, queries, keys) = tile.shape;
                assert!(n * queries * keys <= area || queries == 1, "{:?}", tile.shape);
            }
            let at: Vec<u32> = tiles.restore.to_vec1().unwrap();
            let rows: Vec<u32> = tiles.tiles.iter().flat_map(queries).collect();
            assert!(at.iter().enumerate().all(|(row, at)| rows[*at as usize] as usize == row));
        }
    }

    #[test]
    fn equal_inputs_share_a_tile_without_padding() {
        let packing = packing(&[3; 20]);
        let tiles = Tiles::within(1000, &packing, RowSet::All, true, &Device::Cpu).unwrap();
        assert_eq!(tiles.tiles.iter().map(|t| t.shape).collect::<Vec<_>>(), [(20, 3, 3)]);
        assert!(
            tiles.in_order && tiles.tiles[0].queries.is_none() && tiles.tiles[0].keys.is_none(),
            "the buffer is used as it is"
        );
    }

    #[test]
    fn queries_see_their_own_keys_only() {
        let spec = AttentionSpec {
            n_heads: 1,
            n_kv_heads: 1,
            d_head: 4,
            scale: 1.0,
            causal: true,
            window: Some(2),
            softcap: None,
            key_biases: None,
        };
        let packing = packing(&[3, 2]);
        let mut tiles = Tiles::within(100, &packing, RowSet::All, true, &Device::Cpu).unwrap();
        let tile = &mut tiles.tiles[0];
        assert_eq!(tile.shape, (2, 3, 3));
        let mask = tile.mask(&spec, &packing, RowSet::All, &Device::Cpu).unwrap().unwrap();
        let seen: Vec<bool> = mask.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| *v == 0.0).collect();
        let (t, f) = (true, false);
        // Both inputs share a mask; the third query and key of the shorter one are padding.
        assert_eq!(seen, [t, f, f, t, t, f, f, t, t]);
        let both_ways = AttentionSpec { causal: false, window: None, ..spec };
        let mut tiles = Tiles::within(100, &packing, RowSet::All, false, &Device::Cpu).unwrap();
        let mask = tiles.tiles[0].mask(&both_ways, &packing, RowSet::All, &Device::Cpu).unwrap().unwrap();
        let seen: Vec<bool> = mask.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| *v == 0.0).collect();
        // The shorter input comes first.
        assert_eq!(seen[..6], [t, t, f, t, t, f]);
        assert!(seen[6..].iter().all(|seen| *seen));
    }
}

//! Selects the part of a stored tensor that answers a query, given the positions that are wanted and those that are stored.

use std::{collections::HashMap, ops::Range};

use super::{
    cache::Cache,
    hook::Axis,
    positions::{Positions, Rows},
    problem::{Code, Problem},
};

/// A part of one cache's stored tensor: ranges of elements, in the order in which they are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Index of the hook in the cache's capture.
    pub hook: usize,
    /// Ranges of elements of the stored tensor; adjacent ranges are merged.
    pub parts: Vec<Range<usize>>,
    /// Shape of what is served.
    pub shape: Vec<usize>,
    /// Axes of what is served.
    pub axes: Vec<Axis>,
    /// `Some(n)`: the parts are `n` rows of `shape`, and their mean is served.
    pub mean_of: Option<usize>,
}

impl Selection {
    /// Number of elements of the parts.
    #[must_use]
    pub fn n_read(&self) -> usize {
        self.parts.iter().map(ExactSizeIterator::len).sum()
    }

    /// The parts as the store reads them: index of the hook, and range of elements.
    #[must_use]
    pub fn reads(&self) -> Vec<(usize, Range<usize>)> {
        self.parts.iter().map(|part| (self.hook, part.clone())).collect()
    }

    /// Number of elements that are served.
    #[must_use]
    pub fn n_served(&self) -> usize {
        self.shape.iter().product()
    }

    /// The whole stored tensor, or the rows at `positions` of the input.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`] when the input or the cache lacks a position, saying what is stored.
    pub fn of(cache: &Cache, hook: usize, positions: Option<&Positions>) -> Result<Self, Problem> {
        let (stored_shape, stored_axes) = cache.shape_of(hook)?;
        let stored = cache.rows()?;
        let row_len: usize = cache.row_shapes[hook].iter().product();
        let (n_keys, n_stored) = (cache.token_ids.len(), stored.len());
        let is_map = cache.capture.hooks[hook].site().is_attention_map();
        let Some(wanted) = positions else {
            let total: usize = stored_shape.iter().product();
            return Ok(Self {
                hook,
                parts: std::iter::once(0..total).collect(),
                shape: stored_shape,
                axes: stored_axes,
                mean_of: None,
            });
        };
        let rows = StoredRows::of(&cache.capture.positions, n_keys, Some(wanted))?;
        // The position axis is the first, or the second of an attention map [head, q, k].
        let (outer, inner) = if is_map { (row_len, n_keys) } else { (1, row_len) };
        let parts = (0..outer)
            .flat_map(|o| rows.indices.iter().map(move |r| (o * n_stored + r) * inner))
            .map(|start| start..start + inner)
            .fold(Vec::new(), merge);
        let keep = wanted.keeps_axis();
        let mut axes = cache.capture.hooks[hook].site().axes().to_vec();
        let mut shape = if is_map { vec![outer, rows.indices.len(), inner] } else { vec![rows.indices.len()] };
        if !is_map {
            shape.extend_from_slice(&cache.row_shapes[hook]);
        }
        if !keep {
            axes.remove(usize::from(is_map));
            shape.remove(usize::from(is_map));
        }
        if rows.averaged && (is_map || cache.capture.hooks[hook].site().is_index()) {
            let detail = if is_map {
                "attention maps cannot be averaged when fetching; ask for queries"
            } else {
                "indices have no mean; ask for positions"
            };
            return Err(Problem::at(Code::InvalidValue, "position", detail));
        }
        Ok(Self { hook, parts, shape, axes, mean_of: rows.averaged.then_some(rows.indices.len()) })
    }
}

/// Which stored rows answer a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRows {
    /// Their indices among the stored rows, in the order in which they are served.
    pub indices: Vec<usize>,
    /// The position of each; `None` for a stored mean.
    pub positions: Vec<Option<u32>>,
    /// Whether the mean of these rows is served.
    pub averaged: bool,
}

impl StoredRows {
    /// The rows at `wanted` of an input of `n_tokens` that was captured at `captured`; without `wanted`, all rows.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`] when the input or the capture lacks a position, saying what is stored.
    pub fn of(captured: &Positions, n_tokens: usize, wanted: Option<&Positions>) -> Result<Self, Problem> {
        let stored = captured.resolve(n_tokens)?;
        let lacking = |what: &str| {
            let detail = format!("the cache holds positions {captured} of {n_tokens} tokens, not {what}");
            Problem::at(Code::PositionOutOfRange, "position", detail)
        };
        let at = |have: &[u32], want: &[u32], averaged: bool| -> Result<Self, Problem> {
            let place: HashMap<u32, usize> = have.iter().enumerate().map(|(i, p)| (*p, i)).collect();
            let find = |p: &u32| place.get(p).copied().ok_or_else(|| lacking(&p.to_string()));
            let indices = want.iter().map(find).collect::<Result<_, _>>()?;
            Ok(Self { indices, positions: want.iter().map(|p| Some(*p)).collect(), averaged })
        };
        let mean = Self { indices: vec![0], positions: vec![None], averaged: false };
        match (stored, wanted.map(|w| w.resolve(n_tokens)).transpose()?) {
            (Rows::Mean(_), None) => Ok(mean),
            (Rows::List(have), None) => {
                let positions: Vec<Option<u32>> = have.into_iter().map(Some).collect();
                Ok(Self { indices: (0..positions.len()).collect(), positions, averaged: false })
            }
            (Rows::Mean(have), Some(Rows::Mean(want))) if have == want => Ok(mean),
            (Rows::Mean(_), Some(Rows::Mean(_))) => Err(lacking("another mean")),
            (Rows::Mean(_), Some(Rows::List(_))) => Err(lacking("single positions")),
            (Rows::List(have), Some(Rows::Mean(want))) => at(&have, &want, true),
            (Rows::List(have), Some(Rows::List(want))) => at(&have, &want, false),
        }
    }

    /// Number of rows that are served.
    #[must_use]
    pub fn n_served(&self) -> usize {
        if self.averaged { 1 } else { self.indices.len() }
    }
}

fn merge(mut parts: Vec<Range<usize>>, next: Range<usize>) -> Vec<Range<usize>> {
    match parts.last_mut() {
        Some(last) if last.end == next.start => last.end = next.end,
        _ => parts.push(next),
    }
    parts
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{BosDecision, CacheId, Capture, Dtype, Hook, Provenance, RunId, Site, TenantId, TensorStats};

    fn cache(positions: Positions) -> Cache {
        let hooks = vec![Hook::block(Site::Pattern, 0), Hook::block(Site::ResidPost, 0)];
        Cache {
            id: CacheId::generate(),
            tenant: TenantId::DEFAULT,
            run: RunId::generate(),
            item_index: 0,
            model: "m".into(),
            n_layers: 1,
            d_model: 3,
            text: None,
            token_ids: vec![1, 2, 3, 4],
            tokens: vec![String::new(); 4],
            capture: Capture { hooks: hooks.into(), positions, dtype: Dtype::Float32 },
            row_shapes: vec![vec![2], vec![3]],
            bos: BosDecision { requested: None, present: false, added: false, token_id: None },
            n_truncated: 0,
            completion: None,
            origin: None,
            interventions: Vec::new(),
            stats: TensorStats::default(),
            provenance: Provenance {
                model_fingerprint: String::new(),
                architecture: String::new(),
                weights_dtype: String::new(),
                compute_dtype: String::new(),
                device: String::new(),
                residuum_version: String::new(),
                numerics_version: 1,
            },
            reused: false,
            content_hash: String::new(),
            n_bytes: 0,
            tags: vec![],
            metadata: serde_json::Map::new(),
            label: None,
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            pinned: false,
        }
    }

    fn one(part: Range<usize>) -> Vec<Range<usize>> {
        std::iter::once(part).collect()
    }

    #[test]
    fn rows_of_an_all_position_cache() {
        let c = cache(Positions::All);
        let whole = Selection::of(&c, 1, None).unwrap();
        assert_eq!((whole.parts, whole.shape), (one(0..12), vec![4, 3]));
        let last = Selection::of(&c, 1, Some(&Positions::Last)).unwrap();
        assert_eq!((last.parts, last.shape, last.axes), (one(9..12), vec![3], vec![Axis::DModel]));
        let some = Selection::of(&c, 1, Some(&Positions::List(vec![0, 1, -1]))).unwrap();
        assert_eq!((some.parts, some.shape), (vec![0..6, 9..12], vec![3, 3]));
        let mean = Selection::of(&c, 1, Some(&Positions::Mean)).unwrap();
        assert_eq!((mean.n_read(), mean.n_served(), mean.mean_of), (12, 3, Some(4)));
        let behind = Positions::mean_of(Positions::Range { start: Some(1), end: None }).unwrap();
        let mean = Selection::of(&c, 1, Some(&behind)).unwrap();
        assert_eq!((mean.parts, mean.shape, mean.mean_of), (one(3..12), vec![3], Some(3)));
    }

    #[test]
    fn queries_of_an_attention_map() {
        let c = cache(Positions::All);
        let q = Selection::of(&c, 0, Some(&Positions::One(1))).unwrap();
        assert_eq!((q.parts, q.shape), (vec![4..8, 20..24], vec![2, 4]));
        assert_eq!(q.axes, [Axis::Head, Axis::KPos]);
        let both = Selection::of(&c, 0, Some(&Positions::Range { start: Some(2), end: None })).unwrap();
        assert_eq!((both.parts, both.shape), (vec![8..16, 24..32], vec![2, 2, 4]));
        assert!(Selection::of(&c, 0, Some(&Positions::Mean)).is_err());
    }

    #[test]
    fn what_was_not_stored_is_refused() {
        let last = cache(Positions::Last);
        assert_eq!(Selection::of(&last, 1, Some(&Positions::One(3))).unwrap().parts, one(0..3));
        for p in [Positions::One(0), Positions::Mean, Positions::All, Positions::One(9)] {
            assert_eq!(Selection::of(&last, 1, Some(&p)).unwrap_err().code, Code::PositionOutOfRange, "{p}");
        }
        assert!(Selection::of(&cache(Positions::Mean), 1, Some(&Positions::Mean)).is_ok());
        assert!(Selection::of(&cache(Positions::Mean), 1, Some(&Positions::Last)).is_err());
        let of = |list: &[i64]| Positions::mean_of(Positions::List(list.to_vec())).unwrap();
        assert!(Selection::of(&cache(of(&[1, 2])), 1, Some(&of(&[1, -2]))).is_ok());
        for other in [Positions::Mean, of(&[1])] {
            let problem = Selection::of(&cache(of(&[1, 2])), 1, Some(&other)).unwrap_err();
            assert_eq!(problem.detail, "the cache holds positions mean of 1,2 of 4 tokens, not another mean");
        }
    }
}

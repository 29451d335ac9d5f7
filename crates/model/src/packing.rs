//! The layout of a batch in memory: the tokens of all inputs one after the other, without padding. It owns which rows each part of
//! a pass computes and keeps; it knows no weights and no tensors.

use super::{Batch, ForwardError, Input};
use residuum_domain::{ModelInfo, Rows, Site};

/// Which token rows a buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowSet {
    /// Every token.
    All,
    /// Only the tokens that some captured row depends on: in the last layer, nothing else is computed after attention.
    Wanted,
}

impl RowSet {
    /// 0 or 1, to index an array with an entry for each set.
    pub fn index(self) -> usize {
        match self {
            Self::All => 0,
            Self::Wanted => 1,
        }
    }
}

/// A choice of token rows of every input, and where they are in a buffer that holds only those.
#[derive(Debug)]
pub struct Selection {
    /// Where the rows of each input begin in a buffer; one more entry than inputs.
    pub offsets: Vec<usize>,
    /// Position of each row in its input.
    pub positions: Vec<u32>,
    /// For each input, the rows of the buffer that are kept.
    pub picked: Vec<Picked>,
    /// For each input, the rows whose logits are kept, where they are not those of `picked`.
    pub picked_logits: Option<Vec<Picked>>,
}

impl Selection {
    fn empty(has_logit_rows: bool) -> Self {
        let picked_logits = has_logit_rows.then(Vec::new);
        Self { offsets: vec![0], positions: Vec::new(), picked: Vec::new(), picked_logits }
    }

    /// For each input, the rows of the buffer that are kept of a hook.
    pub fn picked_of(&self, site: Site) -> &[Picked] {
        match &self.picked_logits {
            Some(logits) if site == Site::Logits => logits,
            _ => &self.picked,
        }
    }
}

/// The rows of a buffer that are kept of one input.
#[derive(Debug)]
pub enum Picked {
    /// These rows.
    Rows(Vec<u32>),
    /// The mean over these rows.
    Mean(Vec<u32>),
}

impl Picked {
    /// `rows` of an input as rows of a buffer; `place` maps a position to its row there.
    fn of(rows: &Rows, place: impl Fn(u32) -> u32) -> Self {
        let places = rows.positions().iter().map(|p| place(*p)).collect();
        match rows {
            Rows::Mean(_) => Self::Mean(places),
            Rows::List(_) => Self::Rows(places),
        }
    }
}

/// How far an input has come that is continued from a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continued {
    /// Tokens that are in the KV cache: the input's first token in the batch has this position.
    pub cached: usize,
    /// Tokens of the whole text; some rotary tables depend on this number.
    pub length: usize,
}

/// The layout of a batch.
#[derive(Debug)]
pub struct Packing {
    /// Every token.
    pub all: Selection,
    /// Only the tokens that a captured row depends on.
    pub wanted: Selection,
    /// For each input, the positions of its rows in `wanted`, ascending.
    pub wanted_positions: Vec<Vec<u32>>,
    /// The rows of `wanted` among all tokens.
    pub wanted_tokens: Vec<u32>,
    /// Tokens of each input's whole text.
    pub lengths: Vec<usize>,
}

impl Packing {
    /// Lays out a batch and checks it against the model.
    ///
    /// `continued` has an entry for each input, where inputs are continued: then rows are counted from an input's first token in
    /// the batch.
    ///
    /// # Errors
    /// [`ForwardError::Failed`] when the batch does not fit the model or its layout.
    pub fn new(batch: &Batch<'_>, continued: Option<&[Continued]>, info: &ModelInfo) -> Result<Self, ForwardError> {
        Self::with_logit_rows(batch, continued, None, info)
    }

    /// As [`Self::new`]; `logit_rows` has an entry for each input: the rows whose logits are kept, instead of the rows of its other
    /// hooks.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_logit_rows(
        batch: &Batch<'_>,
        continued: Option<&[Continued]>,
        logit_rows: Option<&[Vec<u32>]>,
        info: &ModelInfo,
    ) -> Result<Self, ForwardError> {
        let whole = |input: &Input<'_>| Continued { cached: 0, length: input.token_ids.len() };
        let places = continued.map_or_else(|| batch.inputs.iter().map(whole).collect(), <[Continued]>::to_vec);
        check(batch, &places, info)?;
        let mut all = Selection::empty(logit_rows.is_some());
        let mut wanted = Selection::empty(logit_rows.is_some());
        let (mut wanted_positions, mut wanted_tokens) = (Vec::new(), Vec::new());
        for (i, (input, place)) in batch.inputs.iter().zip(&places).enumerate() {
            let (n, cached) = (index(input.token_ids.len()), index(place.cached));
            let (first, first_wanted) = (index(all.positions.len()), index(wanted.positions.len()));
            let of_logits = logit_rows.and_then(|rows| rows.get(i)).map_or(&[][..], Vec::as_slice);
            let mut mine = input.rows.positions().to_vec();
            mine.extend_from_slice(of_logits);
            mine.sort_unstable();
            mine.dedup();
            all.picked.push(Picked::of(input.rows, |p| first + p));
            let row_of = |p: u32| first_wanted + index(mine.partition_point(|q| *q < p));
            wanted.picked.push(Picked::of(input.rows, row_of));
            if let (Some(all), Some(wanted)) = (&mut all.picked_logits, &mut wanted.picked_logits) {
                all.push(Picked::Rows(of_logits.iter().map(|p| first + p).collect()));
                wanted.push(Picked::Rows(of_logits.iter().map(|p| row_of(*p)).collect()));
            }
            all.positions.extend(cached..cached + n);
            all.offsets.push(all.positions.len());
            wanted_tokens.extend(mine.iter().map(|p| first + p));
            let positions: Vec<u32> = mine.iter().map(|p| cached + p).collect();
            wanted.positions.extend_from_slice(&positions);
            wanted.offsets.push(wanted.positions.len());
            wanted_positions.push(positions);
        }
        let lengths = places.iter().map(|p| p.length).collect();
        Ok(Self { all, wanted, wanted_positions, wanted_tokens, lengths })
    }

    /// Tokens of all inputs.
    pub fn n_tokens(&self) -> usize {
        self.all.positions.len()
    }

    /// The rows of a set.
    pub fn of(&self, set: RowSet) -> &Selection {
        match set {
            RowSet::All => &self.all,
            RowSet::Wanted => &self.wanted,
        }
    }
}

/// A number of rows or tokens as an index.
#[expect(clippy::cast_possible_truncation, reason = "a batch has fewer than 2^32 tokens, and as many for its experts")]
pub fn index(n: usize) -> u32 {
    n as u32
}

fn check(batch: &Batch<'_>, places: &[Continued], info: &ModelInfo) -> Result<(), ForwardError> {
    let fail = |reason: String| Err(ForwardError::Failed(reason));
    let layout = batch.layout;
    if batch.inputs.len() != layout.items.len()
        || batch.inputs.len() != places.len()
        || layout.row_shapes.len() != layout.hooks.len()
    {
        return fail(format!("the layout has {} items for {} inputs", layout.items.len(), batch.inputs.len()));
    }
    if let Some(hook) = layout.hooks.iter().find(|h| !info.has(**h)) {
        return fail(format!("{} has no hook {hook}", info.id));
    }
    if !layout.hooks.is_sorted_by(|a, b| a < b) {
        return fail("the hooks of the layout are not in execution order".to_owned());
    }
    for (i, (hook, shape)) in layout.hooks.iter().zip(&layout.row_shapes).enumerate() {
        if *shape != info.row_shape(hook.site()) {
            return fail(format!("row shape {i} of the layout is {shape:?}, not that of {hook}"));
        }
    }
    for (i, (input, span)) in batch.inputs.iter().zip(&layout.items).enumerate() {
        let n = input.token_ids.len();
        let end = places[i].cached + n;
        if n == 0 || end > info.n_ctx || end > places[i].length {
            return fail(format!("input {i} has {end} tokens; the model takes 1 to {}", info.n_ctx));
        }
        if let Some(id) = input.token_ids.iter().find(|id| **id as usize >= info.d_vocab) {
            return fail(format!("input {i} has token {id}; the vocabulary ends at {}", info.d_vocab - 1));
        }
        if let Some(row) = input.rows.positions().iter().find(|r| **r as usize >= n) {
            return fail(format!("input {i} has no position {row}"));
        }
        if span.n_tokens != n || span.n_rows != input.rows.len() {
            return fail(format!("item {i} of the layout does not describe its input"));
        }
    }
    Ok(())
}

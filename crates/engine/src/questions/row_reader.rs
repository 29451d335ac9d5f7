//! Reads rows of stored activations at one hook of many caches, block by block.

use std::{ops::Range, sync::Arc};

use super::{blocking, chosen::Chosen, mean::mean};
use residuum_analysis::RowSource;
use residuum_domain::{Code, ComparedPosition, Hook, Problem, Selection};
use residuum_store::{Store, StoreError, StoredCache};

/// What counts as a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowsOf {
    /// Each cache has one row: its values at this position, without the position axis.
    Caches(ComparedPosition),
    /// Each stored position of each cache is a row.
    Positions,
}

/// A matrix `[rows, width]` in the store: the rows of all caches, one cache after another.
#[derive(Clone)]
pub struct RowReader {
    store: Store,
    caches: Vec<Arc<StoredCache>>,
    selected: Vec<Selection>,
    /// The index of each cache's first row, and the total.
    starts: Vec<usize>,
    width: usize,
}

impl Chosen {
    /// The rows at one hook, in the order of the caches.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`], [`Code::InvalidValue`] for positions of an attention map, [`Code::ShapeMismatch`]
    /// at the first cache whose rows have another width.
    pub fn rows(&self, store: &Store, hook: Hook, rows: &RowsOf) -> Result<RowReader, Problem> {
        let (mut selected, mut starts) = (Vec::with_capacity(self.caches.len()), vec![0]);
        let mut width = None;
        for (cache, pointer) in self.caches.iter().zip(&self.pointers) {
            let (selection, n_rows) = select(cache, hook, rows).map_err(|p| Problem::at(p.code, pointer, p.detail))?;
            let found = selection.n_served() / n_rows.max(1);
            let expected = *width.get_or_insert(found);
            if found != expected {
                let detail = format!("{hook} has {found} values here and {expected} in the first cache");
                return Err(Problem::at(Code::ShapeMismatch, pointer, detail));
            }
            starts.push(starts[starts.len() - 1] + n_rows);
            selected.push(selection);
        }
        let caches = self.caches.clone();
        Ok(RowReader { store: store.clone(), caches, selected, starts, width: width.unwrap_or(0) })
    }

    /// The vector of each cache at one hook and one position, in float32; all of one width.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`], [`Code::ShapeMismatch`] at the first cache whose vector has another width, and
    /// those of the store.
    pub async fn vectors(
        &self,
        store: &Store,
        hook: Hook,
        position: impl Into<ComparedPosition>,
    ) -> Result<Vec<Vec<f32>>, Problem> {
        let rows = self.rows(store, hook, &RowsOf::Caches(position.into()))?;
        let one = move |i| rows.read(i..i + 1);
        let n = self.caches.len();
        blocking(move || (0..n).map(one).collect()).await
    }
}

fn select(cache: &StoredCache, hook: Hook, rows: &RowsOf) -> Result<(Selection, usize), Problem> {
    let index = cache.cache.hook_index(hook)?;
    match rows {
        RowsOf::Caches(position) => Ok((position.select(&cache.cache, index)?, 1)),
        RowsOf::Positions if hook.site().is_attention_map() => {
            let detail = format!("{hook} is an attention map, whose rows differ in length; compare it at one position");
            Err(Problem::new(Code::InvalidValue, detail))
        }
        RowsOf::Positions => Ok((Selection::of(&cache.cache, index, None)?, cache.cache.rows()?.len())),
    }
}

impl RowReader {
    /// Number of rows of each cache.
    pub fn counts(&self) -> impl Iterator<Item = usize> {
        self.starts.windows(2).map(|pair| pair[1] - pair[0])
    }

    /// The rows `rows` of one cache.
    fn read_cache(&self, index: usize, rows: Range<usize>) -> Result<Vec<f32>, StoreError> {
        let (cache, selection) = (&self.caches[index], &self.selected[index]);
        if rows == (0..self.starts[index + 1] - self.starts[index]) {
            return read_rows(&self.store, cache, selection);
        }
        let part = vec![(selection.hook, rows.start * self.width..rows.end * self.width)];
        let mut values = Vec::with_capacity(rows.len() * self.width);
        for bytes in cache.read_many_blocking(&self.store, &part)? {
            values.extend(cache.cache.capture.dtype.decode(&bytes));
        }
        Ok(values)
    }
}

impl RowSource for RowReader {
    type Error = StoreError;

    fn n_rows(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    fn width(&self) -> usize {
        self.width
    }

    fn read(&self, rows: Range<usize>) -> Result<Vec<f32>, StoreError> {
        let mut values = Vec::with_capacity(rows.len() * self.width);
        let first = self.starts.partition_point(|start| *start <= rows.start).saturating_sub(1);
        for index in first..self.caches.len() {
            let (start, end) = (self.starts[index], self.starts[index + 1]);
            if start >= rows.end {
                break;
            }
            values.extend(self.read_cache(index, rows.start.max(start) - start..rows.end.min(end) - start)?);
        }
        Ok(values)
    }
}

/// The values of one selection, or their mean if it asks for one. Blocks.
///
/// # Errors
/// Those of the store.
pub fn read_rows(store: &Store, cache: &StoredCache, selection: &Selection) -> Result<Vec<f32>, StoreError> {
    if let Some(n) = selection.mean_of {
        return mean(store, cache, selection, n);
    }
    let mut values = Vec::with_capacity(selection.n_served());
    for bytes in cache.read_many_blocking(store, &selection.reads())? {
        values.extend(cache.cache.capture.dtype.decode(&bytes));
    }
    Ok(values)
}

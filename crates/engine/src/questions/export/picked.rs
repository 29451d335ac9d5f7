//! What an export takes of one cache.

use std::{ops::Range, sync::Arc};

use residuum_domain::StoredRows;
use residuum_store::StoredCache;

/// A cache of an export.
#[derive(Debug, Clone)]
pub struct Picked {
    /// It.
    pub cache: Arc<StoredCache>,
    /// For each array, the index of its hook in the cache.
    pub hooks: Vec<usize>,
    /// Which of its rows.
    pub rows: StoredRows,
}

impl Picked {
    /// The position of a served row, and the id of its token where it is known.
    #[must_use]
    pub fn row(&self, row: usize) -> (Option<u32>, Option<u32>) {
        let cache = &self.cache.cache;
        let position = if self.rows.averaged { None } else { self.rows.positions.get(row).copied().flatten() };
        let token = position.filter(|_| cache.knows_token_ids()).and_then(|p| cache.token_ids.get(p as usize).copied());
        (position, token)
    }

    /// The stored rows that served rows `rows` are made of, as ranges; all of them where they are averaged.
    #[must_use]
    pub fn stored_ranges(&self, rows: Range<usize>) -> Vec<Range<usize>> {
        merge(&self.rows.indices, if self.rows.averaged { 0..self.rows.indices.len() } else { rows })
    }

    /// Ranges of stored rows that are not side by side.
    #[must_use]
    pub fn n_pieces(&self) -> usize {
        if self.rows.averaged { 1 } else { self.stored_ranges(0..self.rows.indices.len()).len() }
    }
}

/// The stored rows at `rows` of `indices`, merged where they lie side by side.
fn merge(indices: &[usize], rows: Range<usize>) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    for index in &indices[rows] {
        match parts.last_mut() {
            Some(last) if last.end == *index => last.end += 1,
            _ => parts.push(*index..index + 1),
        }
    }
    parts
}

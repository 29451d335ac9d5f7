//! The hooks and rows that an export takes from one cache.

use std::{ops::Range, sync::Arc};

use residuum_domain::StoredRows;
use residuum_store::StoredCache;

/// One cache of an export.
#[derive(Debug, Clone)]
pub struct Picked {
    /// The cache.
    pub cache: Arc<StoredCache>,
    /// For each array, the index of its hook in the cache.
    pub hooks: Vec<usize>,
    /// The rows to export.
    pub rows: StoredRows,
}

impl Picked {
    /// The position of an exported row, and the id of its token if it is known.
    #[must_use]
    pub fn row(&self, row: usize) -> (Option<u32>, Option<u32>) {
        let cache = &self.cache.cache;
        let position = if self.rows.averaged { None } else { self.rows.positions.get(row).copied().flatten() };
        let token = position.filter(|_| cache.knows_token_ids()).and_then(|p| cache.token_ids.get(p as usize).copied());
        (position, token)
    }

    /// The ranges of stored rows from which the exported rows `rows` are made; all of them if they are averaged.
    #[must_use]
    pub fn stored_ranges(&self, rows: Range<usize>) -> Vec<Range<usize>> {
        merge(&self.rows.indices, if self.rows.averaged { 0..self.rows.indices.len() } else { rows })
    }

    /// Number of contiguous ranges of stored rows.
    #[must_use]
    pub fn n_pieces(&self) -> usize {
        if self.rows.averaged { 1 } else { self.stored_ranges(0..self.rows.indices.len()).len() }
    }
}

/// The stored rows `indices[rows]`, with adjacent rows merged into ranges.
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

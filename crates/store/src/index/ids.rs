//! What the writer remembers of interned values: their ids, by digest.

use std::collections::HashMap;

/// Ids that are remembered; at that number the memory is cleared.
const REMEMBERED: usize = 4096;

/// Tables of values that are found by a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    HookSets,
    Layouts,
    Provenances,
}

/// Ids that the writer found or made, by table and digest. They hold until such rows are removed, or the transaction in which
/// they were made is undone: nobody else changes the index.
#[derive(Default)]
pub(crate) struct Ids(HashMap<(Table, blake3::Hash), i64>);

impl Ids {
    /// The id of the value with a digest, if it is remembered.
    pub(crate) fn get(&self, table: Table, digest: &blake3::Hash) -> Option<i64> {
        self.0.get(&(table, *digest)).copied()
    }

    /// Remembers an id.
    pub(crate) fn put(&mut self, table: Table, digest: &blake3::Hash, id: i64) {
        if self.0.len() >= REMEMBERED {
            self.forget();
        }
        self.0.insert((table, *digest), id);
    }

    /// Forgets all of them.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

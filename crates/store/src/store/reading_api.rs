//! Reading through the handle: the methods of other modules' types that take a [`Store`].

use std::ops::Range;

use super::Store;
use crate::{
    error::StoreError,
    find::reading::{check, read_many},
    packs::stored_cache::StoredCache,
    runs::reuse::StoredRows,
    scan::{RowKey, ScanPlan, ScanReport},
};
use residuum_domain::Rows;

impl StoredCache {
    /// Makes sure, once in the life of a process, that the bytes are those that were stored, unless there are so many that
    /// the answer would have to wait for it (16 MiB). Those are checked by `verify` alone, as is what happens to bytes later.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they are not, or the blob is missing or short, [`StoreError::Gone`] when the cache was
    /// deleted meanwhile, [`StoreError::Io`].
    pub async fn check(&self, store: &Store) -> Result<(), StoreError> {
        check(store.index(), store.blobs(), &store.inner.checked, self).await
    }

    /// Reads elements of one hook's tensor, counted within this cache: little-endian bytes of `cache.capture.dtype`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the blob is missing or short, [`StoreError::Gone`] when the cache was deleted
    /// meanwhile, [`StoreError::Misuse`] for a hook or elements that the cache lacks, [`StoreError::Io`].
    pub async fn read(&self, store: &Store, hook_index: usize, elements: Range<usize>) -> Result<Vec<u8>, StoreError> {
        only(self.read_many(store, &[(hook_index, elements)]).await?)
    }

    /// Reads several parts, each a hook's index and elements of its tensor, in one task.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_many(&self, store: &Store, parts: &[(usize, Range<usize>)]) -> Result<Vec<Vec<u8>>, StoreError> {
        read_many(store.index(), store.blobs(), self, parts).await
    }

    /// [`Self::read`] for threads that may block. It cannot ask what the store of another process has deleted or moved.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_blocking(
        &self,
        store: &Store,
        hook_index: usize,
        elements: Range<usize>,
    ) -> Result<Vec<u8>, StoreError> {
        only(self.read_many_blocking(store, &[(hook_index, elements)])?)
    }

    /// [`Self::read_many`] for threads that may block.
    ///
    /// # Errors
    /// As [`Self::read_blocking`].
    pub fn read_many_blocking(
        &self,
        store: &Store,
        parts: &[(usize, Range<usize>)],
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        self.location().read_blocking(store.blobs(), parts)
    }
}

fn only(mut parts: Vec<Vec<u8>>) -> Result<Vec<u8>, StoreError> {
    parts.pop().ok_or_else(|| StoreError::Misuse("a read of one part gave none".to_owned()))
}

impl StoredRows {
    /// Makes `wanted`, which [`residuum_domain::Capture::answer`] said these rows hold, of the hook at `hook` among those wanted: its values
    /// as the forward pass would have handed them out. For threads that may block.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the rows were deleted meanwhile, [`StoreError::Damaged`] when the blob is missing or short,
    /// [`StoreError::Misuse`] for rows that are not here, [`StoreError::Io`].
    pub fn read_blocking(&self, store: &Store, hook: usize, wanted: &Rows) -> Result<Vec<f32>, StoreError> {
        self.read(store.blobs(), hook, wanted)
    }
}

impl ScanPlan {
    /// Reads one part on this thread: `visit` gets rows that lie side by side, `[keys, width]` in float32, with their
    /// keys. A row that cannot be read costs its cache and nothing else.
    pub fn read_blocking(&self, store: &Store, task: usize, visit: impl FnMut(&[f32], &[RowKey])) -> ScanReport {
        self.read(store.blobs(), task, visit)
    }
}

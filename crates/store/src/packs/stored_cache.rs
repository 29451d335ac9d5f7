//! A cache whose tensors can be read.

use std::{
    collections::HashSet,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{Store, blobs::epoch::Session, blocking, error::StoreError, packs::location::Location};
use residuum_domain::{Cache, CacheId, PackId, TenantId};

/// Bytes of activations that are hashed before they are first served; more would make the first answer wait too long.
const CHECKED_BYTES: u64 = 16 << 20;
/// Activations that are remembered to be as they were.
const CHECKED: usize = 1 << 17;

/// A cache whose tensors can be read.
#[derive(Debug, Clone)]
pub struct StoredCache {
    /// What it is.
    pub cache: Cache,
    location: Arc<Location>,
    /// Keeps the file there while rows move.
    _session: Arc<Session>,
}

/// Extents whose bytes were hashed by this process and were right.
#[derive(Debug, Default)]
pub(crate) struct Checked(Mutex<HashSet<(PackId, u64)>>);

impl Checked {
    fn lock(&self) -> MutexGuard<'_, HashSet<(PackId, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoredCache {
    pub(crate) fn new(cache: Cache, location: Location, session: &Arc<Session>) -> Self {
        Self { cache, location: Arc::new(location), _session: Arc::clone(session) }
    }

    /// Makes sure, once in the life of a process, that the bytes are those that were stored, unless there are so many that
    /// the answer would have to wait for it (16 MiB). Those are checked by `verify` alone, as is what happens to bytes later.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they are not, or the blob is missing or short, [`StoreError::Gone`] when the cache was
    /// deleted meanwhile, [`StoreError::Io`].
    pub async fn check(&self, store: &Store) -> Result<(), StoreError> {
        let location = &self.location;
        let (n_bytes, key) = (location.whole_bytes(), location.key());
        let checked = &store.inner.checked;
        if n_bytes > CHECKED_BYTES || checked.lock().contains(&key) {
            return Ok(());
        }
        let (blobs, own) = (Arc::clone(store.blobs()), Arc::clone(location));
        let found = match blocking(move || own.hash(&blobs)).await {
            Ok(hash) if hash.to_hex().as_str() == self.cache.content_hash => Ok(()),
            Ok(_) => Err(format!("the bytes of cache {} in pack {} have changed", self.cache.id, location.pack())),
            Err(StoreError::Damaged { what }) => Err(what),
            Err(other) => return Err(other),
        };
        if let Err(what) = found {
            let there = store.stored(self.cache.tenant, &[self.cache.id]).await?.pop().flatten();
            return Err(if there.is_some() { StoreError::damaged(what) } else { StoreError::Gone });
        }
        let mut checked = checked.lock();
        if checked.len() >= CHECKED {
            checked.clear();
        }
        checked.insert(key);
        Ok(())
    }

    /// Elements of the tensor of the hook at `hook_index` of `cache.capture.hooks`; 0 where there is none.
    #[must_use]
    pub fn elements(&self, hook_index: usize) -> usize {
        self.location.elements(hook_index)
    }

    /// Bytes of the tensor of the hook at `hook_index`.
    #[must_use]
    pub fn byte_len(&self, hook_index: usize) -> u64 {
        (self.elements(hook_index) * self.location.dtype().size()) as u64
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
        let failed = match self.location.read(store.blobs(), parts).await {
            Err(StoreError::Damaged { what }) => what,
            result => return result,
        };
        // A store of another process may have moved the rows since; the index says where they are.
        let (tenant, id): (TenantId, CacheId) = (self.cache.tenant, self.cache.id);
        match store.stored(tenant, &[id]).await?.pop().flatten() {
            None => {
                tracing::debug!(what = failed, "a cache was deleted while it was read");
                Err(StoreError::Gone)
            }
            Some(now) if *now.location != *self.location => now.location.read(store.blobs(), parts).await,
            Some(_) => Err(StoreError::damaged(failed)),
        }
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
        store.blobs().read(self.location.pack(), &self.location.bytes(parts)?)
    }
}

fn only(mut parts: Vec<Vec<u8>>) -> Result<Vec<u8>, StoreError> {
    parts.pop().ok_or_else(|| StoreError::Misuse("a read of one part gave none".to_owned()))
}

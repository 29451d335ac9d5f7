//! Where a cache's numbers lie, and reading them.

use std::{
    collections::HashSet,
    fs::File,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    Store,
    blobs::{Blobs, epoch::Session, read_at},
    blocking,
    error::StoreError,
    find::caches::pack_id,
    index::{intern::Layout, rows::Fields},
};
use residuum_domain::{Cache, CacheId, Dtype, Hook, ItemSpan, PackId, PackLayout, TenantId};

/// Bytes read and hashed at a time.
const CHUNK: usize = 1 << 20;
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

/// The place of an extent's tensors.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pack: PackId,
    dtype: Dtype,
    /// One for each hook of the cache: byte in the file, and elements.
    tensors: Vec<(u64, usize)>,
    /// The same for all hooks of the extent, where the cache has fewer.
    whole: Option<Vec<(u64, usize)>>,
}

/// Extents whose bytes were hashed by this process and were right.
#[derive(Debug, Default)]
pub(crate) struct Checked(Mutex<HashSet<(PackId, u64)>>);

impl Checked {
    fn lock(&self) -> MutexGuard<'_, HashSet<(PackId, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Location {
    /// Finds the tensors of `hooks` in an extent of a pack; also gives the index of each in the pack's layout.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the pack lacks a hook or the extent leaves the pack.
    pub(crate) fn new(
        extent: &Fields<'_>,
        pack: &Fields<'_>,
        layout: &Layout,
        dtype: Dtype,
        hooks: &[Hook],
    ) -> Result<(Self, Vec<usize>), StoreError> {
        let span = ItemSpan {
            n_tokens: extent.uint("n_tokens")?,
            n_rows: extent.uint("n_rows")?,
            row_start: extent.uint("row_start")?,
            map_start: extent.uint("map_start")?,
        };
        let dims = PackDims { n_rows: pack.uint("pack_rows")?, n_map: pack.uint("pack_map")? };
        let (id, data_start): (_, u64) = (pack_id(extent, "pack_id")?, pack.uint("data_start")?);
        let damaged = |why: &str| StoreError::damaged(format!("an extent of pack {id} {why}"));
        if span.row_start + span.n_rows > dims.n_rows || span.map_start + span.n_map() > dims.n_map {
            return Err(damaged("leaves its pack"));
        }
        let all = dims.tensors(layout, dtype, &span);
        let indices: Vec<usize> = if *hooks == *layout.hooks {
            (0..hooks.len()).collect()
        } else {
            let find = |h| layout.hooks.binary_search(h).map_err(|_| damaged("lacks a hook of a cache"));
            hooks.iter().map(find).collect::<Result<_, _>>()?
        };
        let all: Vec<(u64, usize)> = all.into_iter().map(|(begin, elements)| (data_start + begin, elements)).collect();
        let tensors: Vec<(u64, usize)> = indices.iter().map(|i| all[*i]).collect();
        let whole = (tensors.len() < all.len()).then_some(all);
        Ok((Self { pack: id, dtype, tensors, whole }, indices))
    }

    /// The tensors of all hooks of the extent.
    fn whole(&self) -> &[(u64, usize)] {
        self.whole.as_deref().unwrap_or(&self.tensors)
    }

    /// Hashes all bytes of the extent.
    fn hash(&self, blobs: &Blobs) -> Result<blake3::Hash, StoreError> {
        let file = blobs.file(self.pack)?;
        hash(&file, self.pack, self.dtype, self.whole(), |_, _| Ok(()))
    }

    /// Bytes of all tensors.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, elements)| (elements * self.dtype.size()) as u64).sum()
    }

    async fn read(&self, store: &Store, parts: &[(usize, Range<usize>)]) -> Result<Vec<Vec<u8>>, StoreError> {
        let bytes = self.bytes(parts)?;
        let (blobs, pack) = (Arc::clone(store.blobs()), self.pack);
        blocking(move || blobs.read(pack, &bytes)).await
    }

    /// The pack they lie in.
    pub(crate) fn pack(&self) -> PackId {
        self.pack
    }

    /// Checks parts, each a hook's index and elements of its tensor, and turns them into offsets and lengths.
    pub(crate) fn bytes(&self, parts: &[(usize, Range<usize>)]) -> Result<Vec<(u64, usize)>, StoreError> {
        let size = self.dtype.size();
        parts
            .iter()
            .map(|(hook, range)| match self.tensors.get(*hook) {
                Some((offset, elements)) if range.start <= range.end && range.end <= *elements => {
                    Ok((offset + (range.start * size) as u64, range.len() * size))
                }
                Some((_, elements)) => {
                    Err(StoreError::Misuse(format!("elements {range:?} of a tensor that has {elements}")))
                }
                None => Err(StoreError::Misuse(format!("tensor {hook} of a cache that has {}", self.tensors.len()))),
            })
            .collect()
    }
}

/// Hashes tensors of a pack, each its byte in the file and its elements, one after the other: what an extent's content hash is
/// of. `visit` sees every chunk with the index of its tensor.
///
/// # Errors
/// [`StoreError::Damaged`] when the file is too short; those of `visit`.
pub(crate) fn hash(
    file: &File,
    pack: PackId,
    dtype: Dtype,
    tensors: &[(u64, usize)],
    mut visit: impl FnMut(usize, &[u8]) -> Result<(), StoreError>,
) -> Result<blake3::Hash, StoreError> {
    let mut hasher = blake3::Hasher::new();
    for (i, (offset, elements)) in tensors.iter().enumerate() {
        let (mut at, end) = (*offset, offset + (elements * dtype.size()) as u64);
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let bytes = read_at(file, pack, at, len)?;
            hasher.update(&bytes);
            visit(i, &bytes)?;
            at += len as u64;
        }
    }
    Ok(hasher.finalize())
}

/// Lengths of a pack's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackDims {
    pub(crate) n_rows: usize,
    pub(crate) n_map: usize,
}

impl PackDims {
    /// For each hook of the layout, the extent's first byte behind the header, and its elements.
    pub(crate) fn tensors(&self, layout: &Layout, dtype: Dtype, span: &ItemSpan) -> Vec<(u64, usize)> {
        let mut begin = 0;
        layout
            .hooks
            .iter()
            .zip(&layout.row_shapes)
            .map(|(hook, shape)| {
                let cell: usize = shape.iter().product();
                let (start, len, all) = if hook.site().is_attention_map() {
                    (span.map_start, span.n_map(), self.n_map)
                } else {
                    (span.row_start, span.n_rows, self.n_rows)
                };
                let place = (begin + (start * cell * dtype.size()) as u64, len * cell);
                begin += (all * cell * dtype.size()) as u64;
                place
            })
            .collect()
    }

    /// A layout with tensors of these lengths, which knows no items.
    pub(crate) fn whole(&self, layout: &Layout, dtype: Dtype) -> PackLayout {
        let span = ItemSpan { n_tokens: 0, n_rows: self.n_rows, row_start: 0, map_start: self.n_map };
        PackLayout { hooks: Arc::clone(&layout.hooks), row_shapes: layout.row_shapes.clone(), dtype, items: vec![span] }
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
        let n_bytes: u64 = location.whole().iter().map(|(_, n)| (n * location.dtype.size()) as u64).sum();
        let key = (location.pack, location.whole().first().map_or(0, |(offset, _)| *offset));
        let checked = &store.inner.checked;
        if n_bytes > CHECKED_BYTES || checked.lock().contains(&key) {
            return Ok(());
        }
        let (blobs, own) = (Arc::clone(store.blobs()), Arc::clone(location));
        let found = match blocking(move || own.hash(&blobs)).await {
            Ok(hash) if hash.to_hex().as_str() == self.cache.content_hash => Ok(()),
            Ok(_) => Err(format!("the bytes of cache {} in pack {} have changed", self.cache.id, location.pack)),
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
        self.location.tensors.get(hook_index).map_or(0, |(_, elements)| *elements)
    }

    /// Bytes of the tensor of the hook at `hook_index`.
    #[must_use]
    pub fn byte_len(&self, hook_index: usize) -> u64 {
        (self.elements(hook_index) * self.location.dtype.size()) as u64
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
        let failed = match self.location.read(store, parts).await {
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
            Some(now) if *now.location != *self.location => now.location.read(store, parts).await,
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
        store.blobs().read(self.location.pack, &self.location.bytes(parts)?)
    }
}

fn only(mut parts: Vec<Vec<u8>>) -> Result<Vec<u8>, StoreError> {
    parts.pop().ok_or_else(|| StoreError::Misuse("a read of one part gave none".to_owned()))
}

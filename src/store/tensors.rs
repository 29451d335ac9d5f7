//! Where a cache's numbers lie, and reading them.

use std::{ops::Range, sync::Arc};

use super::{Store, blocking, caches::pack_id, error::StoreError, intern::Layout, rows::Fields};
use crate::domain::{Cache, Dtype, Hook, ItemSpan, PackId, PackLayout};

/// A cache whose tensors can be read.
#[derive(Debug, Clone)]
pub struct StoredCache {
    /// What it is.
    pub cache: Cache,
    location: Arc<Location>,
}

/// The place of an extent's tensors.
#[derive(Debug)]
pub(super) struct Location {
    pack: PackId,
    dtype: Dtype,
    /// One for each hook of the cache: byte in the file, and elements.
    tensors: Vec<(u64, usize)>,
}

impl Location {
    /// Finds the tensors of `hooks` in an extent of a pack; also gives the index of each in the pack's layout.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the pack lacks a hook or the extent leaves the pack.
    pub(super) fn new(
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
        let tensors = indices.iter().map(|i| (data_start + all[*i].0, all[*i].1)).collect();
        Ok((Self { pack: id, dtype, tensors }, indices))
    }

    /// Bytes of all tensors.
    pub(super) fn n_bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, elements)| (elements * self.dtype.size()) as u64).sum()
    }

    /// The pack they lie in.
    pub(super) fn pack(&self) -> PackId {
        self.pack
    }

    /// Checks parts, each a hook's index and elements of its tensor, and turns them into offsets and lengths.
    pub(super) fn bytes(&self, parts: &[(usize, Range<usize>)]) -> Result<Vec<(u64, usize)>, StoreError> {
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

/// Lengths of a pack's tensors.
pub(super) struct PackDims {
    pub(super) n_rows: usize,
    pub(super) n_map: usize,
}

impl PackDims {
    /// For each hook of the layout, the extent's first byte behind the header, and its elements.
    pub(super) fn tensors(&self, layout: &Layout, dtype: Dtype, span: &ItemSpan) -> Vec<(u64, usize)> {
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
    pub(super) fn whole(&self, layout: &Layout, dtype: Dtype) -> PackLayout {
        let span = ItemSpan { n_tokens: 0, n_rows: self.n_rows, row_start: 0, map_start: self.n_map };
        PackLayout { hooks: Arc::clone(&layout.hooks), row_shapes: layout.row_shapes.clone(), dtype, items: vec![span] }
    }
}

impl StoredCache {
    pub(super) fn new(cache: Cache, location: Location) -> Self {
        Self { cache, location: Arc::new(location) }
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
        let bytes = self.location.bytes(parts)?;
        let (blobs, pack) = (Arc::clone(store.blobs()), self.location.pack);
        match blocking(move || blobs.read(pack, &bytes)).await {
            Err(StoreError::Damaged { what }) if self.is_gone(store).await? => {
                tracing::debug!(%what, "a cache was deleted while it was read");
                Err(StoreError::Gone)
            }
            result => result,
        }
    }

    /// [`Self::read`] for threads that may block. It cannot tell a deleted cache from a damaged blob.
    ///
    /// # Errors
    /// As [`Self::read`], except [`StoreError::Gone`].
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

    async fn is_gone(&self, store: &Store) -> Result<bool, StoreError> {
        let id = self.cache.id.as_bytes().as_slice();
        let found = sqlx::query("SELECT 1 FROM caches WHERE id = ?").bind(id).fetch_optional(store.readers()).await?;
        Ok(found.is_none())
    }
}

fn only(mut parts: Vec<Vec<u8>>) -> Result<Vec<u8>, StoreError> {
    parts.pop().ok_or_else(|| StoreError::Misuse("a read of one part gave none".to_owned()))
}

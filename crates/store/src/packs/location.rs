//! Where an extent lies in its pack: the byte range of each tensor, and reading them.

use std::{fs::File, ops::Range, sync::Arc};

use crate::{
    blobs::{LocalBlobs, read_at},
    blocking::blocking,
    error::StoreError,
    index::{
        intern::Layout,
        rows::{Fields, pack_id},
    },
};
use residuum_domain::{Dtype, Hook, ItemSpan, PackId, PackLayout};

/// Bytes read and hashed at a time.
const CHUNK: usize = 1 << 20;

/// An extent: the immutable rows of a pack that hold one input's activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExtentId(pub(crate) i64);

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

impl Location {
    /// Finds the tensors of `hooks` in an extent of a pack; also gives the index of each in the pack's layout.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the pack lacks a hook or the extent reaches beyond the pack.
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

    /// Identifies the extent: its pack, and its first byte there.
    pub(crate) fn key(&self) -> (PackId, u64) {
        (self.pack, self.whole().first().map_or(0, |(offset, _)| *offset))
    }

    /// Bytes of all tensors of the extent, those of hooks that the cache lacks among them.
    pub(crate) fn whole_bytes(&self) -> u64 {
        self.whole().iter().map(|(_, elements)| (elements * self.dtype.size()) as u64).sum()
    }

    /// Elements of the tensor of the hook at `hook_index`; 0 where there is none.
    pub(crate) fn elements(&self, hook_index: usize) -> usize {
        self.tensors.get(hook_index).map_or(0, |(_, elements)| *elements)
    }

    /// The type of the elements.
    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The tensors of all hooks of the extent.
    fn whole(&self) -> &[(u64, usize)] {
        self.whole.as_deref().unwrap_or(&self.tensors)
    }

    /// Hashes all bytes of the extent.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the file is missing or too short, [`StoreError::Gone`], [`StoreError::Io`].
    pub(crate) fn hash(&self, blobs: &LocalBlobs) -> Result<blake3::Hash, StoreError> {
        let file = blobs.file(self.pack)?;
        hash(&file, self.pack, self.dtype, self.whole(), |_, _| Ok(()))
    }

    /// Bytes of all tensors.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, elements)| (elements * self.dtype.size()) as u64).sum()
    }

    /// Reads parts, each a hook's index and elements of its tensor.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the file is missing or too short, [`StoreError::Gone`], [`StoreError::Misuse`] for a hook or
    /// elements that are not there, [`StoreError::Io`].
    pub(crate) async fn read(
        &self,
        blobs: &Arc<LocalBlobs>,
        parts: &[(usize, Range<usize>)],
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let bytes = self.bytes(parts)?;
        let (blobs, pack) = (Arc::clone(blobs), self.pack);
        blocking(move || blobs.read(pack, &bytes)).await
    }

    /// [`Self::read`] for threads that may block.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn read_blocking(
        &self,
        blobs: &LocalBlobs,
        parts: &[(usize, Range<usize>)],
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        blobs.read(self.pack, &self.bytes(parts)?)
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

/// Lengths of the tensors of a pack.
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

    /// A layout with tensors of these lengths, without items.
    pub(crate) fn whole(&self, layout: &Layout, dtype: Dtype) -> PackLayout {
        let span = ItemSpan { n_tokens: 0, n_rows: self.n_rows, row_start: 0, map_start: self.n_map };
        PackLayout { hooks: Arc::clone(&layout.hooks), row_shapes: layout.row_shapes.clone(), dtype, items: vec![span] }
    }
}

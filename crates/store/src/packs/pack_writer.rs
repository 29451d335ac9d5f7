//! The pack writer: one safetensors file, in which the place of every tensor is known before the forward pass runs.

use std::{ops::Range, sync::Arc};

use crate::{
    blobs::{InFlight, LocalBlobs, TempBlob, quota::Quota},
    error::StoreError,
    fault::Purpose,
    packs::{
        contents::PackHeader,
        header,
        sub_batch::{ItemProgress, SubBatchWriter},
    },
};
use residuum_domain::{Hook, PackId, PackLayout, TensorStats};

/// Writes the tensors of a pack, of each item in order. Dropped unfinished, it leaves nothing behind.
#[derive(Debug)]
pub struct PackWriter {
    header: PackHeader,
    blob: TempBlob,
    /// Byte of the file where the tensor of each hook begins.
    starts: Vec<u64>,
    /// Byte of the file where the first tensor begins.
    data_start: u64,
    /// How much of each item has been written.
    items: Vec<ItemProgress>,
    /// Encoded values, if the encoding differs from what is in memory.
    buffer: Vec<u8>,
}

/// A pack whose file is durable under its name, and which the index does not know yet.
///
/// Dropped instead of completed, it leaves a file that [`crate::Store::gc`] or the next start removes.
#[derive(Debug)]
pub struct FinishedPack {
    pub(crate) header: PackHeader,
    pub(crate) data_start: u64,
    pub(crate) n_bytes: u64,
    /// blake3 of each item's bytes, hook after hook.
    pub(crate) hashes: Vec<blake3::Hash>,
    /// `[item][hook]`
    pub(crate) stats: Vec<Vec<TensorStats>>,
    pub(crate) _in_flight: InFlight,
}

impl PackWriter {
    /// Starts a pack's file, if the quota leaves room for it.
    ///
    /// # Errors
    /// [`StoreError::Misuse`] when header and layout contradict each other; [`StoreError::Full`], [`StoreError::Io`].
    pub(crate) fn begin(blobs: &Arc<LocalBlobs>, quota: Option<Quota>, header: PackHeader) -> Result<Self, StoreError> {
        header.check()?;
        let (n_items, n_hooks) = (header.caches.len(), header.layout.hooks.len());
        // the hashes are filled in once they are known
        let front = header::encode(&header, &vec![blake3::Hash::from_bytes([0; 32]); n_items])?;
        let n_bytes = front.len() as u64 + header.layout.total_bytes();
        blobs.check_room(quota, n_bytes)?;
        let mut blob = blobs.create(header.id, Purpose::Capture)?;
        blob.allocate(n_bytes)?;
        blob.write_at(&front, 0)?;
        let data_start = front.len() as u64;
        let starts = (0..n_hooks).scan(data_start, |next, hook| {
            let start = *next;
            *next += header.layout.tensor_bytes(hook);
            Some(start)
        });
        let starts = starts.collect();
        Ok(Self {
            header,
            blob,
            starts,
            data_start,
            items: vec![ItemProgress::nothing(n_hooks); n_items],
            buffer: Vec::new(),
        })
    }

    /// Where the numbers go.
    #[must_use]
    pub fn layout(&self) -> &PackLayout {
        &self.header.layout
    }

    /// Divides items among writers that may be on threads of their own, one for each of `ranges`, which are in order and do not
    /// overlap. Together they may write whatever [`Self::write`] would.
    ///
    /// # Panics
    /// Where they overlap, or go beyond the items.
    #[must_use]
    pub fn sub_batches(&mut self, ranges: &[Range<usize>]) -> Vec<SubBatchWriter<'_>> {
        let (layout, blob, starts) = (&self.header.layout, &self.blob, self.starts.as_slice());
        let (mut rest, mut behind) = (self.items.as_mut_slice(), 0);
        let divide = |range: &Range<usize>| {
            let (items, others) = std::mem::take(&mut rest)[range.start - behind..].split_at_mut(range.len());
            (rest, behind) = (others, range.end);
            SubBatchWriter { layout, blob, starts, first_item: range.start, items, buffer: Vec::new() }
        };
        ranges.iter().map(divide).collect()
    }

    /// Writes through a sub-batch of all items.
    fn whole<T>(&mut self, write: impl FnOnce(&mut SubBatchWriter<'_>) -> T) -> T {
        let mut sub_batch = SubBatchWriter {
            layout: &self.header.layout,
            blob: &self.blob,
            starts: &self.starts,
            first_item: 0,
            items: &mut self.items,
            buffer: std::mem::take(&mut self.buffer),
        };
        let outcome = write(&mut sub_batch);
        self.buffer = sub_batch.buffer;
        outcome
    }

    /// As [`SubBatchWriter::write`], of any of the items.
    ///
    /// # Errors
    /// As there.
    pub fn write(&mut self, hook: usize, items: Range<usize>, values: &[f32]) -> Result<(), StoreError> {
        self.whole(|sub_batch| sub_batch.write(hook, items, values))
    }

    /// Writes the whole tensor of hook `hook` of a pack with one item, as bytes of the pack's type that come in chunks of whole
    /// elements. Hooks come in order.
    ///
    /// # Errors
    /// [`StoreError::Misuse`] for anything out of order or of another length, [`StoreError::Full`], [`StoreError::Io`], and those
    /// of the chunks.
    pub fn write_encoded(
        &mut self,
        hook: usize,
        chunks: impl Iterator<Item = Result<Vec<u8>, StoreError>>,
    ) -> Result<(), StoreError> {
        self.whole(|sub_batch| sub_batch.write_encoded(hook, chunks))
    }

    /// Makes the file durable under its name. The index learns of it by [`crate::Store::complete`].
    ///
    /// # Errors
    /// [`StoreError::Misuse`] when something has not been written, [`StoreError::Full`], [`StoreError::Io`].
    pub fn finish(self) -> Result<FinishedPack, StoreError> {
        let n_hooks = self.header.layout.hooks.len();
        if let Some(unfinished) = self.items.iter().map(ItemProgress::next_hook).find(|hook| *hook != n_hooks) {
            return Err(StoreError::Misuse(format!("an item of a pack ends at hook {unfinished} of {n_hooks}")));
        }
        let hashes: Vec<blake3::Hash> = self.items.iter().map(|item| item.hasher.finalize()).collect();
        let front = header::encode(&self.header, &hashes)?;
        if front.len() as u64 != self.data_start {
            return Err(StoreError::misuse("the header of a pack has changed its length"));
        }
        self.blob.write_at(&front, 0)?;
        Ok(FinishedPack {
            _in_flight: self.blob.publish()?,
            n_bytes: self.data_start + self.header.layout.total_bytes(),
            header: self.header,
            data_start: self.data_start,
            hashes,
            stats: self.items.into_iter().map(|item| item.stats).collect(),
        })
    }
}

impl FinishedPack {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> PackId {
        self.header.id
    }

    /// Bytes of its file.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The hooks it holds.
    pub(crate) fn hooks(&self) -> &Arc<[Hook]> {
        &self.header.layout.hooks
    }
}

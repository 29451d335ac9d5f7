//! Writing a pack: one safetensors file, streamed hook by hook while the forward pass runs.

use std::{
    ops::{BitAnd, BitOr, Not, Range},
    sync::Arc,
};

use super::{
    Store,
    blobs::{InFlight, TempBlob},
    error::StoreError,
    fault::Purpose,
    header,
};
use crate::domain::{
    CacheId, Capture, Dtype, Hook, NewItem, PackId, PackLayout, Provenance, RunId, Site, TenantId, TensorStats,
};

/// Elements encoded, hashed and written at a time.
const CHUNK: usize = 1 << 18;

/// What a pack will hold.
#[derive(Debug, Clone)]
pub struct PackHeader {
    /// Its id.
    pub id: PackId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Name of the model.
    pub model: String,
    /// Number of blocks of the model.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// What computes the numbers.
    pub provenance: Provenance,
    /// What the items have in common: hooks and dtype are those of `layout`; positions are each item's own.
    pub capture: Capture,
    /// Where the numbers go.
    pub layout: PackLayout,
    /// One for each item of `layout`, in order. An item may ask for fewer hooks than the pack holds.
    pub caches: Vec<PackedCache>,
}

/// One item of a pack, and the cache it becomes.
#[derive(Debug, Clone)]
pub struct PackedCache {
    /// Id of the cache.
    pub cache: CacheId,
    /// The run that asked for it.
    pub run: RunId,
    /// Its place among the run's inputs.
    pub item_index: u32,
    /// The input.
    pub item: NewItem,
    /// Identifies the forward pass: equal keys mean equal numbers. `None` for numbers made elsewhere, which answer nothing else.
    pub forward_key: Option<[u8; 32]>,
}

impl PackHeader {
    /// Whether items and layout fit each other.
    fn check(&self) -> Result<(), StoreError> {
        let layout = &self.layout;
        if layout.items.len() != self.caches.len() || layout.items.is_empty() {
            return Err(misuse("a pack needs as many caches as items, and one at least"));
        }
        if layout.hooks.is_empty() || layout.hooks.len() != layout.row_shapes.len() || !layout.hooks.is_sorted() {
            return Err(misuse("a pack needs hooks in execution order, with a row shape each"));
        }
        if self.capture.hooks != layout.hooks || self.capture.dtype != layout.dtype {
            return Err(misuse("the capture of a pack names other hooks or another dtype than its layout"));
        }
        for (cache, span) in self.caches.iter().zip(&layout.items) {
            let capture = &cache.item.capture;
            let rows = capture.positions.resolve(cache.item.token_ids.len()).map_err(|p| misuse(&p.detail))?;
            let held = capture.hooks.iter().all(|h| layout.hooks.binary_search(h).is_ok());
            let same = capture.dtype == layout.dtype
                && cache.item.token_ids.len() == span.n_tokens
                && rows.len() == span.n_rows
                && !capture.hooks.is_empty();
            if !held || !same {
                return Err(misuse("an item of a pack asks for something else than its layout holds"));
            }
        }
        Ok(())
    }
}

fn misuse(why: &str) -> StoreError {
    StoreError::Misuse(why.to_owned())
}

/// Writes the tensors of a pack in order. Dropped unfinished, it leaves nothing behind.
#[derive(Debug)]
pub struct PackWriter {
    header: PackHeader,
    blob: TempBlob,
    /// Byte of the file where the tensor of each hook begins.
    starts: Vec<u64>,
    /// Byte of the file where the first tensor begins.
    data_start: u64,
    /// How far each item is.
    progress: Vec<Progress>,
    /// One an item.
    hashers: Vec<blake3::Hasher>,
    /// `[item][hook]`
    stats: Vec<Vec<TensorStats>>,
    /// Encoded values on their way, where they are not what is in memory.
    buffer: Vec<u8>,
}

/// What of an item has been written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// The hook that comes next.
    hook: usize,
    /// Values of it that have come.
    begun: usize,
}

/// A pack whose file is in its place and durable, and which the index does not have yet.
///
/// Dropped instead of completed, it leaves a file that [`Store::gc`] or the next start removes.
#[derive(Debug)]
pub struct FinishedPack {
    pub(super) header: PackHeader,
    pub(super) data_start: u64,
    pub(super) n_bytes: u64,
    /// blake3 of each item's bytes, hook after hook.
    pub(super) hashes: Vec<blake3::Hash>,
    /// `[item][hook]`
    pub(super) stats: Vec<Vec<TensorStats>>,
    pub(super) _in_flight: InFlight,
}

impl Store {
    /// Starts a pack's file. Called on the worker's thread, as everything of [`PackWriter`]: it blocks.
    ///
    /// # Errors
    /// [`StoreError::Misuse`] when header and layout contradict each other; [`StoreError::Full`], [`StoreError::Io`].
    pub fn begin_pack(&self, header: PackHeader) -> Result<PackWriter, StoreError> {
        header.check()?;
        let (n_items, n_hooks) = (header.caches.len(), header.layout.hooks.len());
        // the hashes are filled in once they are known
        let front = header::encode(&header, &vec![blake3::Hash::from_bytes([0; 32]); n_items])?;
        let n_bytes = front.len() as u64 + header.layout.total_bytes();
        self.check_room(n_bytes)?;
        let mut blob = self.blobs().create(header.id, Purpose::Capture)?;
        blob.allocate(n_bytes)?;
        blob.write_at(&front, 0)?;
        let data_start = front.len() as u64;
        let starts = (0..n_hooks).scan(data_start, |next, hook| {
            let start = *next;
            *next += header.layout.tensor_bytes(hook);
            Some(start)
        });
        let starts = starts.collect();
        Ok(PackWriter {
            header,
            blob,
            starts,
            data_start,
            progress: vec![Progress::default(); n_items],
            hashers: vec![blake3::Hasher::new(); n_items],
            stats: vec![vec![TensorStats::default(); n_hooks]; n_items],
            buffer: Vec::new(),
        })
    }
}

impl PackWriter {
    /// Where the numbers go.
    #[must_use]
    pub fn layout(&self) -> &PackLayout {
        &self.header.layout
    }

    /// Writes the values of hook `hook` for the items in `items`, which follow each other in its tensor: exactly
    /// `layout.elements(hook, items).len()` of them. The hooks of an item come in order, whatever comes of others in between. The
    /// values of an item alone may come in pieces.
    ///
    /// # Errors
    /// [`StoreError::Misuse`] for anything out of order, [`StoreError::Full`], [`StoreError::Io`].
    pub fn write(&mut self, hook: usize, items: Range<usize>, values: &[f32]) -> Result<(), StoreError> {
        let layout = &self.header.layout;
        let [first, others @ ..] = self.progress.get(items.clone()).unwrap_or_default() else {
            return Err(StoreError::Misuse(format!("items {items:?} written of {}", layout.items.len())));
        };
        let (begun, next) = (first.begun, Progress { hook, begun: 0 });
        if hook >= layout.hooks.len() || first.hook != hook || others.iter().any(|other| *other != next) {
            return Err(StoreError::Misuse(format!(
                "hook {hook}, items {items:?} written where {first:?} and {others:?} come next"
            )));
        }
        let mut lengths: Vec<usize> = items.clone().map(|i| layout.elements(hook, i..i + 1).len()).collect();
        lengths[0] -= begun;
        let expected: usize = lengths.iter().sum();
        let is_piece = items.len() == 1 && !values.is_empty() && values.len() < expected;
        if values.len() != expected && !is_piece {
            return Err(StoreError::Misuse(format!("{} values written where {expected} belong", values.len())));
        }
        let n_values = values.len();
        let (mut values, mut at) = (values, layout.elements(hook, items.clone()).start + begun);
        let mut parts = items.clone().zip(lengths);
        let mut part = parts.next();
        while !values.is_empty() {
            let (chunk, rest) = values.split_at(values.len().min(CHUNK));
            self.write_chunk((hook, at), chunk, &mut part, &mut parts)?;
            (values, at) = (rest, at + chunk.len());
        }
        if is_piece {
            self.progress[items.start].begun += n_values;
        } else {
            self.progress[items].fill(Progress { hook: hook + 1, begun: 0 });
        }
        Ok(())
    }

    /// Encodes and writes `chunk` to its hook and place in the hook's tensor; `part` is the item its first value belongs to, and
    /// how many are still missing.
    fn write_chunk(
        &mut self,
        to: (usize, usize),
        chunk: &[f32],
        part: &mut Option<(usize, usize)>,
        parts: &mut impl Iterator<Item = (usize, usize)>,
    ) -> Result<(), StoreError> {
        // A type whose bytes are those in memory needs no copy.
        if let Some(bytes) = self.header.layout.dtype.as_encoded(chunk) {
            return self.write_bytes(to, bytes, part, parts);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.header.layout.dtype.encode(chunk, &mut buffer);
        let outcome = self.write_bytes(to, &buffer, part, parts);
        self.buffer = buffer;
        outcome
    }

    /// Writes encoded values; the other arguments are those of [`Self::write_chunk`].
    fn write_bytes(
        &mut self,
        (hook, at): (usize, usize),
        mut bytes: &[u8],
        part: &mut Option<(usize, usize)>,
        parts: &mut impl Iterator<Item = (usize, usize)>,
    ) -> Result<(), StoreError> {
        let dtype = self.header.layout.dtype;
        let site = self.header.layout.hooks[hook].site();
        self.blob.write_at(bytes, self.starts[hook] + (at * dtype.size()) as u64)?;
        while let Some((item, missing)) = part.as_mut()
            && !bytes.is_empty()
        {
            let n = (*missing).min(bytes.len() / dtype.size());
            let (own, rest) = bytes.split_at(n * dtype.size());
            self.hashers[*item].update(own);
            count_special(dtype, site, own, &mut self.stats[*item][hook]);
            bytes = rest;
            *missing -= n;
            if *missing == 0 {
                *part = parts.next();
            }
        }
        Ok(())
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
        let layout = &self.header.layout;
        if self.progress != [Progress { hook, begun: 0 }] || hook >= layout.hooks.len() {
            return Err(misuse("encoded tensors go in order into a pack of one item"));
        }
        let size = layout.dtype.size();
        let n_values = layout.elements(hook, 0..1).len();
        let mut part = Some((0, n_values));
        for chunk in chunks {
            let bytes = chunk?;
            let room = part.map_or(0, |(_, missing)| missing);
            if !bytes.len().is_multiple_of(size) || bytes.len() / size > room {
                return Err(misuse("encoded values written beyond the end of their tensor"));
            }
            self.write_bytes((hook, n_values - room), &bytes, &mut part, &mut std::iter::empty())?;
        }
        if part.is_some() {
            return Err(misuse("encoded values end before their tensor does"));
        }
        self.progress = vec![Progress { hook: hook + 1, begun: 0 }];
        Ok(())
    }

    /// Makes the file durable under its name. The index learns of it by [`Store::complete`].
    ///
    /// # Errors
    /// [`StoreError::Misuse`] when something has not been written, [`StoreError::Full`], [`StoreError::Io`].
    pub fn finish(self) -> Result<FinishedPack, StoreError> {
        let n_hooks = self.header.layout.hooks.len();
        if let Some(unfinished) = self.progress.iter().find(|item| item.hook != n_hooks) {
            return Err(StoreError::Misuse(format!("an item of a pack ends at hook {} of {n_hooks}", unfinished.hook)));
        }
        let hashes: Vec<blake3::Hash> = self.hashers.iter().map(blake3::Hasher::finalize).collect();
        let front = header::encode(&self.header, &hashes)?;
        if front.len() as u64 != self.data_start {
            return Err(misuse("the header of a pack has changed its length"));
        }
        self.blob.write_at(&front, 0)?;
        Ok(FinishedPack {
            _in_flight: self.blob.publish()?,
            n_bytes: self.data_start + self.header.layout.total_bytes(),
            header: self.header,
            data_start: self.data_start,
            hashes,
            stats: self.stats,
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
    pub(super) fn hooks(&self) -> &Arc<[Hook]> {
        &self.header.layout.hooks
    }
}

/// Adds the NaNs and infinities among encoded values; the -inf of masked attention scores is meant, and not counted.
pub(super) fn count_special(dtype: Dtype, site: Site, bytes: &[u8], stats: &mut TensorStats) {
    let masked = site == Site::AttnScores;
    match dtype {
        Dtype::Float32 => {
            let words = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b));
            count_words(words, 0x7f80_0000, 0x8000_0000, masked, stats);
        }
        Dtype::Float16 => count_words(half_words(bytes), 0x7c00, 0x8000, masked, stats),
        Dtype::BFloat16 => count_words(half_words(bytes), 0x7f80, 0x8000, masked, stats),
    }
}

fn half_words(bytes: &[u8]) -> impl Iterator<Item = u16> + Clone {
    bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b))
}

/// An all-ones exponent, which is that of `infinity`, means an infinity where the fraction is zero, else a NaN.
fn count_words<W>(words: impl Iterator<Item = W> + Clone, infinity: W, sign: W, masked: bool, stats: &mut TensorStats)
where
    W: Copy + Ord + BitAnd<Output = W> + BitOr<Output = W> + Not<Output = W>,
{
    // nearly always nothing is found; this pass without branches is a fraction of the counting one
    if !words.clone().fold(false, |any, word| any | (word & !sign >= infinity)) {
        return;
    }
    for word in words {
        let magnitude = word & !sign;
        stats.n_nan += u64::from(magnitude > infinity);
        stats.n_inf += u64::from(magnitude == infinity && !(masked && word == infinity | sign));
    }
}

//! Writing a sub-batch of a pack: encoding, hashing and writing the values of consecutive items.

use std::ops::{BitAnd, BitOr, Not, Range};

use crate::{blobs::TempBlob, error::StoreError};
use residuum_domain::{Dtype, PackLayout, Site, TensorStats};

/// Elements encoded, hashed and written at a time.
const CHUNK: usize = 1 << 18;

/// Writes consecutive items of a pack while others write others.
#[derive(Debug)]
pub struct SubBatchWriter<'p> {
    pub(crate) layout: &'p PackLayout,
    pub(crate) blob: &'p TempBlob,
    /// Byte of the file where the tensor of each hook begins.
    pub(crate) starts: &'p [u64],
    /// The first of its items, as the pack counts them.
    pub(crate) first_item: usize,
    pub(crate) items: &'p mut [ItemProgress],
    /// Encoded values, if the encoding differs from what is in memory.
    pub(crate) buffer: Vec<u8>,
}

/// How much of an item has been written.
#[derive(Debug, Clone)]
pub(crate) struct ItemProgress {
    progress: Progress,
    pub(crate) hasher: blake3::Hasher,
    /// `[hook]`
    pub(crate) stats: Vec<TensorStats>,
}

/// Where the next values of an item belong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// The hook that comes next.
    hook: usize,
    /// Values of it that have come.
    begun: usize,
}

impl ItemProgress {
    pub(crate) fn nothing(n_hooks: usize) -> Self {
        let stats = vec![TensorStats::default(); n_hooks];
        Self { progress: Progress::default(), hasher: blake3::Hasher::new(), stats }
    }

    /// The hook that comes next.
    pub(crate) const fn next_hook(&self) -> usize {
        self.progress.hook
    }
}

impl SubBatchWriter<'_> {
    /// Writes the values of hook `hook` for consecutive items, counted from the first of the sub-batch: exactly as many as
    /// [`PackLayout::elements`] has of them. The hooks of an item come in order; those of other items may come in between. The
    /// values of a single item may come in pieces.
    ///
    /// # Errors
    /// [`StoreError::Misuse`] for anything out of order, [`StoreError::Full`], [`StoreError::Io`].
    pub fn write(&mut self, hook: usize, items: Range<usize>, values: &[f32]) -> Result<(), StoreError> {
        let [first, others @ ..] = self.items.get(items.clone()).unwrap_or_default() else {
            return Err(StoreError::Misuse(format!(
                "items {items:?} written of a sub-batch that has {}",
                self.items.len()
            )));
        };
        let (begun, next) = (first.progress.begun, Progress { hook, begun: 0 });
        if hook >= self.layout.hooks.len() || first.progress.hook != hook || others.iter().any(|o| o.progress != next) {
            return Err(StoreError::Misuse(format!(
                "hook {hook} of items {items:?} of a sub-batch written, of which the first is at {:?}",
                first.progress
            )));
        }
        let mut lengths: Vec<usize> = items.clone().map(|i| self.elements(hook, i..i + 1).len()).collect();
        lengths[0] -= begun;
        let expected: usize = lengths.iter().sum();
        let is_piece = items.len() == 1 && !values.is_empty() && values.len() < expected;
        if values.len() != expected && !is_piece {
            return Err(StoreError::Misuse(format!("{} values written where {expected} belong", values.len())));
        }
        let n_values = values.len();
        let (mut values, mut at) = (values, self.elements(hook, items.clone()).start + begun);
        let mut parts = items.clone().zip(lengths);
        let mut part = parts.next();
        while !values.is_empty() {
            let (chunk, rest) = values.split_at(values.len().min(CHUNK));
            self.write_chunk((hook, at), chunk, &mut part, &mut parts)?;
            (values, at) = (rest, at + chunk.len());
        }
        if is_piece {
            self.items[items.start].progress.begun += n_values;
        } else {
            self.items[items].iter_mut().for_each(|item| item.progress = Progress { hook: hook + 1, begun: 0 });
        }
        Ok(())
    }

    /// Where the values of some of its items lie in the tensor of a hook.
    fn elements(&self, hook: usize, items: Range<usize>) -> Range<usize> {
        self.layout.elements(hook, self.first_item + items.start..self.first_item + items.end)
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
        if let Some(bytes) = self.layout.dtype.as_encoded(chunk) {
            return self.write_bytes(to, bytes, part, parts);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.layout.dtype.encode(chunk, &mut buffer);
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
        let dtype = self.layout.dtype;
        let site = self.layout.hooks[hook].site();
        self.blob.write_at(bytes, self.starts[hook] + (at * dtype.size()) as u64)?;
        while let Some((item, missing)) = part.as_mut()
            && !bytes.is_empty()
        {
            let n = (*missing).min(bytes.len() / dtype.size());
            let (own, rest) = bytes.split_at(n * dtype.size());
            self.items[*item].hasher.update(own);
            count_special(dtype, site, own, &mut self.items[*item].stats[hook]);
            bytes = rest;
            *missing -= n;
            if *missing == 0 {
                *part = parts.next();
            }
        }
        Ok(())
    }

    /// See [`PackWriter::write_encoded`](crate::PackWriter::write_encoded).
    pub(crate) fn write_encoded(
        &mut self,
        hook: usize,
        chunks: impl Iterator<Item = Result<Vec<u8>, StoreError>>,
    ) -> Result<(), StoreError> {
        let [item] = &*self.items else { return Err(StoreError::misuse("encoded tensors go into a pack of one item")) };
        if item.progress != (Progress { hook, begun: 0 }) || hook >= self.layout.hooks.len() {
            return Err(StoreError::misuse("encoded tensors go in order into a pack"));
        }
        let size = self.layout.dtype.size();
        let n_values = self.elements(hook, 0..1).len();
        let mut part = Some((0, n_values));
        for chunk in chunks {
            let bytes = chunk?;
            let room = part.map_or(0, |(_, missing)| missing);
            if !bytes.len().is_multiple_of(size) || bytes.len() / size > room {
                return Err(StoreError::misuse("encoded values written beyond the end of their tensor"));
            }
            self.write_bytes((hook, n_values - room), &bytes, &mut part, &mut std::iter::empty())?;
        }
        if part.is_some() {
            return Err(StoreError::misuse("encoded values end before their tensor does"));
        }
        self.items[0].progress = Progress { hook: hook + 1, begun: 0 };
        Ok(())
    }
}

/// Adds the NaNs and infinities among encoded values; the -inf of masked attention scores is meant, and not counted.
pub(crate) fn count_special(dtype: Dtype, site: Site, bytes: &[u8], stats: &mut TensorStats) {
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

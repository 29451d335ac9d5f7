//! The bytes of an answer as a header and parts of blobs, read only as far as they are sent.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use crate::{
    connections::{Files, MAX_STRETCH, Offer, Stretch},
    domain::{Code, Dtype, Problem},
    store::{Store, StoreError, StoredCache},
};

/// Bytes read and sent at a time: few enough to be sent while the processor has them at hand.
const CHUNK: u64 = 256 << 10;
/// Bytes of a file that are worth a system call of their own.
const MIN_STRETCH: u64 = 64 << 10;
/// Pieces of a chunk that are read without a trip to a thread that may block.
const PIECES_AT_ONCE: usize = 16;
/// Buffers that an answer keeps.
const BUFFERS: usize = 4;

/// Makes bytes when they are wanted.
type MakeBytes = dyn Fn(&Store) -> Result<Bytes, StoreError> + Send + Sync;

/// A stretch of an answer.
#[derive(Clone)]
pub enum Part {
    /// Bytes made for this answer.
    Made(Bytes),
    /// Elements of a stored tensor.
    Stored {
        /// Whose.
        cache: Arc<StoredCache>,
        /// Index of the hook in the cache's capture.
        hook: usize,
        /// Which.
        elements: Range<usize>,
        /// The type they are rounded to.
        dtype: Dtype,
        /// The type they are sent in: wider where the format lacks the other.
        sent: Dtype,
    },
    /// Bytes that are made when they are sent.
    Computed {
        /// How many.
        len: u64,
        /// Decides them: equal tags mean equal bytes.
        tag: String,
        /// Makes all of them, on a thread that may block.
        make: Arc<MakeBytes>,
    },
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Self::Made(bytes) => bytes.len() as u64,
            Self::Stored { elements, sent, .. } => (elements.len() * sent.size()) as u64,
            Self::Computed { len, .. } => *len,
        }
    }

    /// Fills `buffer` with the bytes from `from` on, where they are at hand as they are to be sent; says whether it did.
    fn read_present(&self, store: &Store, from: u64, buffer: &mut [u8]) -> bool {
        let Ok(from) = usize::try_from(from) else { return false };
        match self {
            Self::Made(bytes) => {
                buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
                true
            }
            Self::Stored { cache, hook, elements, .. } => {
                self.is_as_stored() && cache.read_present(store, *hook, elements.clone(), from, buffer)
            }
            Self::Computed { .. } => false,
        }
    }

    /// Whether a file has the bytes as they are to be sent.
    fn is_as_stored(&self) -> bool {
        match self {
            Self::Stored { cache, dtype, sent, .. } => [*dtype, *sent] == [cache.cache.capture.dtype; 2],
            Self::Made(_) | Self::Computed { .. } => false,
        }
    }

    /// The bytes `range` as a stretch of a file, where they are at hand there as they are to be sent.
    fn stretch(&self, store: &Store, range: Range<u64>) -> Option<Stretch> {
        match self {
            Self::Stored { cache, hook, elements, .. }
                if self.is_as_stored() && range.end - range.start >= MIN_STRETCH =>
            {
                let len = usize::try_from(range.end - range.start).ok()?;
                let from = usize::try_from(range.start).ok()?;
                let (file, offset) = cache.file_present(store, *hook, elements.clone(), from, len)?;
                Stretch::new(file, offset, len)
            }
            _ => None,
        }
    }

    /// The bytes `range` of this part.
    fn read(&self, store: &Store, range: Range<u64>) -> Result<Bytes, StoreError> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "callers read at most a chunk of what exists in memory or on disk"
        )]
        let (from, to) = (range.start as usize, range.end as usize);
        match self {
            Self::Made(bytes) => Ok(bytes.slice(from..to)),
            Self::Computed { make, .. } => Ok(make(store)?.slice(from..to)),
            Self::Stored { cache, hook, elements, dtype, sent } => {
                let size = sent.size();
                let first = from / size;
                let wanted = elements.start + first..elements.start + to.div_ceil(size);
                let stored = cache.read_blocking(store, *hook, wanted)?;
                let rounded = convert(stored, cache.cache.capture.dtype, *dtype);
                let bytes = convert(rounded, *dtype, *sent);
                Ok(Bytes::from(bytes).slice(from - first * size..to - first * size))
            }
        }
    }
}

/// A stretch of a part, by the index of the part.
type Piece = (usize, Range<u64>);

/// Buffers of one answer, which are filled again once they were sent: a new one would be filled with zeros first, a tenth of the
/// time of a download.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// A chunk of so many bytes, whatever they are.
    fn take(self: &Arc<Self>, len: usize) -> Chunk {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Chunk { bytes, len, buffers: Arc::clone(self) }
    }
}

/// The first bytes of a buffer, which goes back when they were sent.
struct Chunk {
    bytes: Vec<u8>,
    len: usize,
    buffers: Arc<Buffers>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut kept = self.buffers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BUFFERS {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// Little-endian elements in another type. Through float32, which holds both narrow types exactly.
pub fn convert(bytes: Vec<u8>, from: Dtype, to: Dtype) -> Vec<u8> {
    if from == to {
        return bytes;
    }
    let mut out = Vec::new();
    to.encode(&from.decode(&bytes), &mut out);
    out
}

/// A frame of a body.
enum Frame {
    Read(Bytes),
    /// For the connection that these are the files of.
    Stretch(Stretch, Arc<Files>),
}

/// An answer of known length.
#[derive(Clone, Default)]
pub struct Assembly {
    parts: Vec<Part>,
    len: u64,
}

impl Assembly {
    /// Appends a part.
    pub fn push(&mut self, part: Part) {
        self.len += part.len();
        self.parts.push(part);
    }

    /// Appends the parts of another.
    pub fn append(&mut self, other: Self) {
        self.len += other.len;
        self.parts.extend(other.parts);
    }

    /// Bytes of the whole.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Feeds whatever decides the bytes, without reading them.
    pub fn identify(&self, hasher: &mut blake3::Hasher) {
        for part in &self.parts {
            match part {
                Part::Made(bytes) => {
                    hasher.update(b"made").update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
                }
                Part::Computed { len, tag, .. } => {
                    hasher.update(b"computed").update(&len.to_le_bytes()).update(tag.as_bytes());
                }
                Part::Stored { cache, hook, elements, dtype, sent } => {
                    let hook = cache.cache.capture.hooks[*hook].to_string();
                    hasher.update(b"stored").update(cache.cache.content_hash.as_bytes()).update(hook.as_bytes());
                    hasher.update(&(elements.start as u64).to_le_bytes()).update(&(elements.end as u64).to_le_bytes());
                    hasher.update(dtype.name().as_bytes()).update(sent.name().as_bytes());
                }
            }
        }
    }

    /// The stretches of parts that make up `range`, none longer than a chunk, or than `longest` where a file may have it.
    fn pieces(&self, range: Range<u64>, longest: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut start = 0;
        for (i, part) in self.parts.iter().enumerate() {
            let end = start + part.len();
            let longest = if part.is_as_stored() { longest } else { CHUNK };
            let (mut from, to) = (range.start.max(start), range.end.min(end));
            while from < to {
                let next = to.min(from + longest);
                pieces.push((i, from - start..next - start));
                from = next;
            }
            start = end;
        }
        pieces
    }

    /// Everything, at once.
    ///
    /// # Errors
    /// [`Code::BlobDamaged`] and the store's other errors.
    pub async fn read_all(self, store: Store) -> Result<Bytes, Problem> {
        let all = self.pieces(0..self.len, CHUNK);
        Self::read_group(Arc::new(self), store, Arc::default(), all).await
    }

    /// A chunk, where all of it is at hand.
    fn read_present(&self, store: &Store, buffers: &Arc<Buffers>, group: &[Piece]) -> Option<Bytes> {
        let len: u64 = group.iter().map(|(_, range)| range.end - range.start).sum();
        if group.len() > PIECES_AT_ONCE || len > CHUNK {
            return None;
        }
        let len = usize::try_from(len).ok()?;
        let mut chunk = buffers.take(len);
        let mut rest = &mut chunk.bytes[..len];
        for (part, range) in group {
            let (piece, behind) = rest.split_at_mut_checked(usize::try_from(range.end - range.start).ok()?)?;
            if !self.parts[*part].read_present(store, range.start, piece) {
                return None;
            }
            rest = behind;
        }
        Some(Bytes::from_owner(chunk))
    }

    /// A chunk, by one trip to a blocking thread where not all of it is at hand.
    async fn read_group(
        this: Arc<Self>,
        store: Store,
        buffers: Arc<Buffers>,
        group: Vec<Piece>,
    ) -> Result<Bytes, Problem> {
        if let Some(bytes) = this.read_present(&store, &buffers, &group) {
            return Ok(bytes);
        }
        blocking(move || {
            let mut pieces = group.into_iter().map(|(part, range)| this.parts[part].read(&store, range));
            let first = pieces.next().unwrap_or(Ok(Bytes::new()))?;
            let Some(second) = pieces.next() else { return Ok(first) };
            let mut out = Vec::from(first);
            out.extend_from_slice(&second?);
            for piece in pieces {
                out.extend_from_slice(&piece?);
            }
            Ok(Bytes::from(out))
        })
        .await
    }

    /// Everything, about a chunk at a time, read one chunk ahead.
    pub fn stream(self, store: Store) -> impl Stream<Item = Result<Bytes, Problem>> + Send {
        let groups = group(self.pieces(0..self.len, CHUNK));
        let (this, buffers) = (Arc::new(self), Arc::<Buffers>::default());
        let read = move |group| Self::read_group(Arc::clone(&this), store.clone(), Arc::clone(&buffers), group);
        stream::iter(groups).map(read).buffered(2)
    }

    /// A body of the bytes `range`, with what it offers to the connection. Short ones are read before the status is sent, so
    /// that damage is still an error answer; long ones stream, and damage ends the connection short of the promised length.
    ///
    /// # Errors
    /// The store's, when the first chunk cannot be read.
    pub async fn body(self, store: Store, range: Range<u64>) -> Result<(Body, Option<Offer>), Problem> {
        let (first, rest) = (range.start..range.end.min(range.start + CHUNK), range.start + CHUNK..range.end);
        let (this, buffers) = (Arc::new(self), Arc::<Buffers>::default());
        let first = this.pieces(first, CHUNK);
        let first = Self::read_group(Arc::clone(&this), store.clone(), Arc::clone(&buffers), first).await?;
        if rest.is_empty() {
            return Ok((Body::from(first), None));
        }
        let offer = Offer::default();
        let rest = stream::once(this.frames(store, buffers, rest, offer.clone())).flatten();
        let all = stream::once(async { Ok(first) }).chain(rest);
        let all = all.inspect_err(|problem: &Problem| broke_off("a download", problem));
        Ok((Body::from_stream(all), Some(offer)))
    }

    /// The bytes `range` as frames of a body, once it is asked for them: one is made ahead of its turn.
    async fn frames(
        self: Arc<Self>,
        store: Store,
        buffers: Arc<Buffers>,
        range: Range<u64>,
        offer: Offer,
    ) -> impl Stream<Item = Result<Bytes, Problem>> + Send {
        let files = offer.accepted().cloned();
        let longest = if files.is_some() { MAX_STRETCH as u64 } else { CHUNK };
        let groups = group(self.pieces(range, longest));
        let make = move |group: Vec<Piece>| {
            let (this, store, buffers, files) = (Arc::clone(&self), store.clone(), Arc::clone(&buffers), files.clone());
            async move {
                if let Some(files) = files
                    && let [(part, range)] = &group[..]
                    && let Some(stretch) = this.parts[*part].stretch(&store, range.clone())
                {
                    return Ok(Frame::Stretch(stretch, files));
                }
                Self::read_group(this, store, buffers, group).await.map(Frame::Read)
            }
        };
        // in the order of the frames, as stand-ins have to be made
        stream::iter(groups).map(make).buffered(2).map_ok(|frame| match frame {
            Frame::Read(bytes) => bytes,
            Frame::Stretch(stretch, files) => files.stand_in(stretch),
        })
    }
}

/// Says that a body ended short of what was promised: deleting a cache that is being read is no fault of the store.
pub fn broke_off(what: &str, problem: &Problem) {
    if problem.code == Code::CacheNotFound {
        tracing::info!(%problem, "{what} broke off");
    } else {
        tracing::error!(%problem, "{what} broke off");
    }
}

/// Groups small neighbouring pieces, so that one trip to a blocking thread reads up to a chunk.
fn group(pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    let mut groups: Vec<Vec<Piece>> = Vec::new();
    let mut size = 0;
    for piece in pieces {
        let len = piece.1.end - piece.1.start;
        match groups.last_mut() {
            Some(last) if size + len <= CHUNK => {
                last.push(piece);
                size += len;
            }
            _ => {
                groups.push(vec![piece]);
                size = len;
            }
        }
    }
    groups
}

/// Runs store reads off the async threads.
pub async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result.map_err(Problem::from),
        Err(e) => {
            tracing::error!(error = %e, "reading a blob panicked");
            Err(Problem::new(Code::Internal, "stored activations could not be read"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_range_exactly() {
        let mut assembly = Assembly::default();
        for n in [10usize, 0, 5, 3_000_000] {
            assembly.push(Part::Made(Bytes::from(vec![0; n])));
        }
        for range in [0..assembly.len(), 3..12, 14..16, 0..1, 2_999_000..3_000_015, 15..15] {
            let pieces = assembly.pieces(range.clone(), CHUNK);
            let total: u64 = pieces.iter().map(|(_, r)| r.end - r.start).sum();
            assert_eq!(total, range.end - range.start, "{range:?}");
            assert!(pieces.iter().all(|(_, r)| r.end - r.start <= CHUNK && r.start < r.end));
            assert_eq!(group(pieces.clone()).concat(), pieces);
            assert_eq!(assembly.pieces(range, MAX_STRETCH as u64), pieces, "what was made comes in chunks");
        }
    }
}

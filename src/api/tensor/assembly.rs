//! The bytes of a response as a list of parts of blobs, which are read only when they are sent.

use std::{ops::Range, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use residuum_domain::{Code, Dtype, Problem};
use residuum_engine::questions::blocking;
use residuum_store::{Store, StoreError, StoredCache};

/// Bytes read and sent at a time: few enough to be still in the processor's caches when they are sent.
const CHUNK: u64 = 256 << 10;

/// Computes bytes when they are sent.
type MakeBytes = dyn Fn(&Store) -> Result<Bytes, StoreError> + Send + Sync;

/// A part of a response.
#[derive(Clone)]
pub enum Part {
    /// Bytes in memory.
    Made(Bytes),
    /// Elements of a stored tensor.
    Stored {
        /// The cache.
        cache: Arc<StoredCache>,
        /// Index of the hook in the cache's capture.
        hook: usize,
        /// Range of its elements.
        elements: Range<usize>,
        /// The type they are rounded to.
        dtype: Dtype,
        /// The type they are sent in: wider if the format does not have `dtype`.
        sent: Dtype,
    },
    /// Bytes that are computed when they are sent.
    Computed {
        /// Number of bytes.
        len: u64,
        /// Identifies the bytes: equal tags mean equal bytes.
        tag: String,
        /// Computes all of them, on a blocking thread.
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

    /// Reads the bytes `range` of this part.
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

/// A byte range of a part, by the index of the part.
type Piece = (usize, Range<u64>);

/// Converts little-endian elements to another type, through float32, which represents both 16-bit types exactly.
pub fn convert(bytes: Vec<u8>, from: Dtype, to: Dtype) -> Vec<u8> {
    if from == to {
        return bytes;
    }
    let mut out = Vec::new();
    to.encode(&from.decode(&bytes), &mut out);
    out
}

/// The bytes of a response, of known length.
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

    /// Appends the parts of another assembly.
    pub fn append(&mut self, other: Self) {
        self.len += other.len;
        self.parts.extend(other.parts);
    }

    /// Total number of bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Hashes what decides the bytes, without reading them.
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

    /// Splits `range` into byte ranges of parts, none longer than a chunk.
    fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut start = 0;
        for (i, part) in self.parts.iter().enumerate() {
            let end = start + part.len();
            let (mut from, to) = (range.start.max(start), range.end.min(end));
            while from < to {
                let next = to.min(from + CHUNK);
                pieces.push((i, from - start..next - start));
                from = next;
            }
            start = end;
        }
        pieces
    }

    /// Reads all bytes into memory.
    ///
    /// # Errors
    /// [`Code::BlobDamaged`] and other errors of the store.
    pub async fn read_all(self, store: Store) -> Result<Bytes, Problem> {
        let all = self.pieces(0..self.len);
        Self::read_group(Arc::new(self), store, all).await
    }

    /// Reads one group of pieces, with one call to a blocking thread.
    async fn read_group(this: Arc<Self>, store: Store, group: Vec<Piece>) -> Result<Bytes, Problem> {
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

    /// Streams all bytes in chunks; reads one chunk ahead.
    pub fn stream(self, store: Store) -> impl Stream<Item = Result<Bytes, Problem>> + Send {
        let len = self.len;
        Arc::new(self).chunks(store, 0..len)
    }

    /// Streams the bytes `range` in chunks; reads one chunk ahead.
    fn chunks(
        self: Arc<Self>,
        store: Store,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, Problem>> + Send + use<> {
        let groups = group(self.pieces(range));
        let read = move |group| Self::read_group(Arc::clone(&self), store.clone(), group);
        stream::iter(groups).map(read).buffered(2)
    }

    /// A body of the bytes `range`. Its first chunk is read before the status is sent, so that damage in it becomes an
    /// error response. If damage is found later, the connection ends before `Content-Length` bytes are sent.
    ///
    /// # Errors
    /// An error of the store if the first chunk cannot be read.
    pub async fn body(self, store: Store, range: Range<u64>) -> Result<Body, Problem> {
        let (first, rest) = (range.start..range.end.min(range.start + CHUNK), range.start + CHUNK..range.end);
        let this = Arc::new(self);
        let first = Self::read_group(Arc::clone(&this), store.clone(), this.pieces(first)).await?;
        if rest.is_empty() {
            return Ok(Body::from(first));
        }
        let all = stream::once(async { Ok(first) }).chain(this.chunks(store, rest));
        Ok(Body::from_stream(all.inspect_err(|problem| log_early_end("a download", problem))))
    }
}

/// Logs that a body ended early. If the reason is a deleted cache, that is not an error of the store.
pub fn log_early_end(what: &str, problem: &Problem) {
    if problem.code == Code::CacheNotFound {
        tracing::info!(%problem, "{what} ended early");
    } else {
        tracing::error!(%problem, "{what} ended early");
    }
}

/// Groups small adjacent pieces, so that one call to a blocking thread reads up to a chunk.
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
            let pieces = assembly.pieces(range.clone());
            let total: u64 = pieces.iter().map(|(_, r)| r.end - r.start).sum();
            assert_eq!(total, range.end - range.start, "{range:?}");
            assert!(pieces.iter().all(|(_, r)| r.end - r.start <= CHUNK && r.start < r.end));
            assert_eq!(group(pieces.clone()).concat(), pieces);
        }
    }
}

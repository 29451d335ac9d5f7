//! Scans: reading one hook of many caches, in the order of their bytes in the packs and without describing each cache.
//!
//! A [`ScanPlan`] knows the place and the cache of every row. Adjacent rows are read together, so the number of reads
//! grows with the bytes and not with the caches.

mod plan;
mod plans;
mod read;
mod tokens;

use std::sync::Arc;

use crate::blobs::epoch::Session;
pub(crate) use plans::Plans;
use residuum_domain::{CacheId, Dtype, PackId, Positions};
pub use tokens::TokenPlaces;

/// Which of a cache's stored rows take part.
#[derive(Debug, Clone, PartialEq)]
pub enum Take {
    /// One of each cache: at this position, or the stored mean. `None` is the only row where there is one, else the last
    /// token's.
    One(Option<Positions>),
    /// Every stored position; a stored mean is not a position.
    Positions,
}

/// A row: its cache, and its position in the input unless it is the mean over all.
pub type RowKey = (CacheId, Option<u32>);

/// What a part of a scan came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Rows that were read.
    pub n_rows: u64,
    /// Bytes of these rows.
    pub n_bytes: u64,
    /// Caches whose rows could not all be read.
    pub unread: Vec<CacheId>,
    /// Caches that were deleted before their rows were read.
    pub deleted: Vec<CacheId>,
}

/// Where the rows of one hook lie. It describes the index at one moment: blobs whose rows move stay until it is dropped, those
/// whose caches are deleted for a bounded time ([`crate::KeepDeleted`]).
#[derive(Debug)]
pub struct ScanPlan {
    packs: Vec<PackRows>,
    /// In the order of packs and, in each, of bytes.
    pieces: Vec<Piece>,
    /// What is read at once.
    windows: Vec<Window>,
    n_caches: u64,
    n_skipped: u64,
    /// When the first cache of the store expires after the plan was made, in microseconds: the plan may be wrong then.
    until: Option<i64>,
    /// Keeps the files while rows move.
    _session: Arc<Session>,
}

/// What the rows of a pack have in common.
#[derive(Debug)]
struct PackRows {
    id: PackId,
    dtype: Dtype,
    /// Elements of a row.
    width: usize,
}

impl PackRows {
    fn row_bytes(&self) -> usize {
        self.width * self.dtype.size()
    }
}

/// Rows of one cache at consecutive positions, side by side.
#[derive(Debug, Clone, Copy)]
struct Piece {
    cache: CacheId,
    /// Position of the first row; `None` for the mean.
    position: Option<u32>,
    /// Byte in the file.
    offset: u64,
    n_rows: u32,
}

/// Bytes of one pack that are read together.
#[derive(Debug)]
struct Window {
    pack: usize,
    start: u64,
    len: usize,
    /// Pieces in it, by index.
    pieces: std::ops::Range<usize>,
}

impl ScanPlan {
    /// Caches with rows to read.
    #[must_use]
    pub fn n_caches(&self) -> u64 {
        self.n_caches
    }

    /// Caches that captured the hook, but not the row that was to be taken.
    #[must_use]
    pub fn n_skipped(&self) -> u64 {
        self.n_skipped
    }

    /// Rows to read.
    #[must_use]
    pub fn n_rows(&self) -> u64 {
        self.pieces.iter().map(|p| u64::from(p.n_rows)).sum()
    }

    /// Elements of the rows, each length once, ascending.
    #[must_use]
    pub fn widths(&self) -> Vec<usize> {
        let widths: std::collections::BTreeSet<usize> = self.packs.iter().map(|p| p.width).collect();
        widths.into_iter().collect()
    }
}

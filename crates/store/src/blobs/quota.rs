//! How much space a store may take, and how much it takes.

use super::LocalBlobs;
use crate::error::StoreError;

/// How much a store may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of blobs and index on the disk.
    pub max_bytes: u64,
    /// Whether the oldest caches that are not pinned make room for new ones; else nothing new is taken.
    pub evict_oldest: bool,
}

impl LocalBlobs {
    /// Bytes that blobs and index take on the disk, packs being written among them.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        self.bytes() + self.index_bytes()
    }

    /// Whether a quota leaves room for `n_bytes`.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub(crate) fn check_room(&self, quota: Option<Quota>, n_bytes: u64) -> Result<(), StoreError> {
        match quota {
            Some(quota) if self.bytes_on_disk().saturating_add(n_bytes) > quota.max_bytes => Err(StoreError::Full),
            _ => Ok(()),
        }
    }
}

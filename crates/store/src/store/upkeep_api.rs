//! The methods of the handle for space, upkeep and checks.

use std::{path::Path, sync::Arc};

use super::Store;
use crate::{
    blobs::quota::Quota,
    blocking::blocking,
    checks::{
        backup::{self, BackupReport},
        rebuild::{self, RebuildReport},
        repair::{Repair, RepairReport},
        verify::VerifyReport,
    },
    error::StoreError,
    upkeep::{
        collect::GcReport,
        compaction::{CompactReport, Compaction},
        stats::StoreStats,
    },
};

impl Store {
    /// Merges FTS5 segments until no two of about the same size are left or a minute is over. Others write in between.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Full`], [`StoreError::Database`]. What was merged before stays merged.
    pub async fn merge_terms(&self) -> Result<(), StoreError> {
        self.index().merge_terms().await
    }

    /// Bytes that blobs and index take on the disk, packs being written among them.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        self.blobs().bytes_on_disk()
    }

    /// How much the store may take.
    #[must_use]
    pub fn quota(&self) -> Option<Quota> {
        self.inner.quota
    }

    /// Makes sure that the quota leaves room for `n_bytes`: what has expired goes first, then, where the quota says so, the
    /// oldest caches that are not pinned. Gives the number of caches that had to go.
    ///
    /// # Errors
    /// [`StoreError::Full`] when there is no room even so; [`StoreError::Closed`], [`StoreError::Database`].
    pub async fn make_room(&self, n_bytes: u64) -> Result<u64, StoreError> {
        self.retention().make_room(n_bytes).await
    }

    /// Removes the caches that have expired, in small transactions, and the activations that only they used. Gives their number.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`], [`StoreError::Full`].
    pub async fn expire(&self) -> Result<u64, StoreError> {
        self.retention().expire().await
    }

    /// How many blobs lie in the folder `unknown`: the index did not know them.
    #[must_use]
    pub fn n_unknown_blobs(&self) -> u64 {
        self.blobs().n_unknown()
    }

    /// Removes the blobs in the folder `unknown`, and gives their number and bytes.
    ///
    /// # Errors
    /// [`StoreError::Closed`] for a store that only reads, [`StoreError::Io`].
    pub async fn remove_unknown_blobs(&self) -> Result<(u64, u64), StoreError> {
        let blobs = Arc::clone(self.blobs());
        blocking(move || blobs.remove_unknown()).await
    }

    /// Counts what the store holds.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.index().stats().await
    }

    /// Removes extents without caches, packs without extents, and files that the index does not know; rewrites packs of which
    /// less than half is alive, and merges small ones; and merges FTS5 segments, if there is room for that. Packs being
    /// written are left alone, and readers are not disturbed.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`], [`StoreError::Io`], [`StoreError::Full`].
    pub async fn gc(&self) -> Result<GcReport, StoreError> {
        self.upkeep().gc().await
    }

    /// Merges small packs until none are left that are worth it.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Full`], [`StoreError::Database`], [`StoreError::Io`]. What was merged before
    /// stays merged.
    pub async fn merge(&self, when: &Compaction) -> Result<CompactReport, StoreError> {
        self.compactor().merge(when).await
    }

    /// Checks the index and what its rows say of each other, every pack's file, size and header, the hash of every extent,
    /// every cache against header and extent, and that no file is unknown.
    ///
    /// Works beside a running server; what is written, moved or deleted meanwhile is not reported, and unknown files only by
    /// the server itself or when there is none.
    ///
    /// # Errors
    /// Only when the check itself cannot go on: [`StoreError::Database`], [`StoreError::Io`]. What is wrong with blobs and rows
    /// is in the report.
    pub async fn verify(&self) -> Result<VerifyReport, StoreError> {
        self.verifier().verify().await
    }

    /// Drops rows that refer to nothing, caches that make no sense, and activations whose bytes are not what they were, with
    /// their caches. Packs of which something is sound are written anew. The files of damaged packs, and files that are no
    /// packs, are moved to the folder `damaged`. For a store that serves nobody.
    ///
    /// # Errors
    /// [`StoreError::IndexDamaged`] when SQLite's own check finds the index damaged: then it has to be rebuilt. Else
    /// [`StoreError::Closed`], [`StoreError::Full`], [`StoreError::Database`], [`StoreError::Io`].
    pub async fn repair(&self) -> Result<RepairReport, StoreError> {
        Repair::new(self.verifier(), self.upkeep()).run().await
    }

    /// Copies the store to the folder `target`, which must be empty or not exist, and verifies the copy. Works beside a server
    /// on a store that was opened to read only. Blobs get a second name where `link` and the file system allow; else their bytes
    /// are copied.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`], [`StoreError::Damaged`] when a blob is missing, [`StoreError::Io`], [`StoreError::Full`],
    /// [`StoreError::Database`]. What else is wrong with the copy is in the report.
    pub async fn backup(&self, target: &Path, link: bool) -> Result<BackupReport, StoreError> {
        backup::backup(self.index(), self.blobs(), target, link).await
    }

    /// Makes a new index for the data folder `dir` from its blobs, and sets the old one aside. Damaged blobs are set aside,
    /// damaged activations left out. The old index, where it can be read, gives its API keys, tenants, pins and expiry.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when someone has the folder, [`StoreError::Io`], [`StoreError::Full`],
    /// [`StoreError::Database`]. The old index is in its place then, unless the last step had begun.
    pub async fn rebuild_index(dir: &Path) -> Result<RebuildReport, StoreError> {
        rebuild::rebuild_index(dir).await
    }
}

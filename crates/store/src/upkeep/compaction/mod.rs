//! Compaction: merging small packs of one kind, and rewriting packs of which little is alive.
//!
//! Small packs are merged with others of about their size, so that rows are copied a few times in all and not again
//! with every capture.

mod choose;
pub(crate) mod rewrite;
pub(crate) mod switch;
pub(crate) mod throttle;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use serde::Serialize;

use crate::{
    blobs::LocalBlobs,
    error::StoreError,
    index::SqliteIndex,
    upkeep::compaction::{rewrite::Rewritten, switch::Moved, throttle::Throttle},
};
use residuum_domain::PackId;

/// Bytes of blobs that were merged and wait for readers, beyond which nothing more is merged.
const MAX_RETIRED: u64 = 4 << 30;

/// When packs are merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compaction {
    /// What a merged pack should come to, in bytes. Packs of half of it and more are left alone.
    pub target_bytes: u64,
    /// Packs of one size class that are worth a merge.
    pub fan_in: usize,
    /// Whether sizes matter: packs are merged with those up to eight times their size.
    pub by_size: bool,
    /// Bytes copied in a second.
    pub bytes_per_second: Option<u64>,
}

impl Compaction {
    /// Everything at once, as fast as it goes: for a store that serves nobody.
    #[must_use]
    pub fn thorough() -> Self {
        Self { fan_in: 2, by_size: false, bytes_per_second: None, ..Self::default() }
    }
}

impl Default for Compaction {
    fn default() -> Self {
        Self { target_bytes: 64 << 20, fan_in: 8, by_size: true, bytes_per_second: Some(32 << 20) }
    }
}

/// What compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CompactReport {
    /// Packs that were there before.
    pub n_old: u64,
    /// Packs in their place.
    pub n_new: u64,
    /// Activations that moved.
    pub n_extents: u64,
    /// Bytes of the old packs beyond those of the new ones.
    pub freed_bytes: u64,
    /// Packs that are damaged and were left as they are.
    pub n_damaged: u64,
}

impl CompactReport {
    fn add(&mut self, moved: Moved) {
        self.n_old += moved.n_old;
        self.n_new += moved.n_new;
        self.n_extents += moved.n_extents;
        self.freed_bytes += moved.old_bytes.saturating_sub(moved.new_bytes);
    }
}

impl fmt::Display for CompactReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_old, n_new, n_extents, freed_bytes, n_damaged } = self;
        write!(f, "rewrote {n_old} packs as {n_new}, with {n_extents} extents: {freed_bytes} bytes less")?;
        if *n_damaged > 0 {
            write!(f, "; {n_damaged} damaged packs left as they are (residuum verify says more)")?;
        }
        Ok(())
    }
}

/// What compaction remembers.
#[derive(Default)]
pub(crate) struct Compacting {
    /// One at a time, and none while rows are collected.
    turn: tokio::sync::Mutex<()>,
    /// Packs that turned out to be damaged, or cannot be made one.
    left_alone: Mutex<HashSet<PackId>>,
}

impl Compacting {
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn is_left_alone(&self, pack: &PackId) -> bool {
        self.left_alone().contains(pack)
    }

    fn left_alone(&self) -> MutexGuard<'_, HashSet<PackId>> {
        self.left_alone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rewrites packs.
#[derive(Clone, Copy)]
pub(crate) struct Compactor<'a> {
    pub(crate) index: &'a SqliteIndex,
    pub(crate) blobs: &'a Arc<LocalBlobs>,
    pub(crate) compacting: &'a Compacting,
}

impl Compactor<'_> {
    /// Merges small packs until none are left that are worth it.
    pub(crate) async fn merge(&self, when: &Compaction) -> Result<CompactReport, StoreError> {
        self.merge_until(when, &Arc::default()).await
    }

    /// [`Self::merge`], stopping soon once `stop` is set.
    pub(crate) async fn merge_until(
        &self,
        when: &Compaction,
        stop: &Arc<AtomicBool>,
    ) -> Result<CompactReport, StoreError> {
        let mut report = CompactReport::default();
        while self.blobs.epochs().retired_bytes() < MAX_RETIRED {
            let turn = self.compacting.turn().await;
            let Some(packs) = self.index.small_packs(when, |pack| self.compacting.is_left_alone(pack)).await? else {
                break;
            };
            self.rewrite_packs(&packs, when, stop, &mut report).await?;
            drop(turn);
        }
        Ok(report)
    }

    /// Rewrites packs of which less than half is alive.
    ///
    /// # Errors
    /// As [`Self::merge`].
    pub(crate) async fn shrink(&self, when: &Compaction, stop: &Arc<AtomicBool>) -> Result<CompactReport, StoreError> {
        let mut report = CompactReport::default();
        for pack in self.index.mostly_dead().await? {
            if self.compacting.is_left_alone(&pack) {
                continue;
            }
            let _turn = self.compacting.turn().await;
            self.rewrite_packs(&[pack], when, stop, &mut report).await?;
        }
        Ok(report)
    }

    async fn rewrite_packs(
        &self,
        packs: &[PackId],
        when: &Compaction,
        stop: &Arc<AtomicBool>,
        report: &mut CompactReport,
    ) -> Result<(), StoreError> {
        let Some(rewrite) = self.index.rewrite(self.blobs.enter(), packs, &[]).await? else {
            // they were removed meanwhile; if the index contradicts itself, they would be chosen for ever
            self.compacting.left_alone().extend(packs);
            return Ok(());
        };
        let throttle = Throttle::new(when.bytes_per_second, Arc::clone(stop));
        match self.write_anew(rewrite, throttle).await {
            Ok(Rewritten::Pack(change) | Rewritten::Nothing(change)) => report.add(self.switch_to(*change).await?),
            Ok(Rewritten::Damaged(pack, what)) => {
                tracing::error!(%pack, %what, "a damaged pack is not merged with others");
                self.compacting.left_alone().insert(pack);
                report.n_damaged += 1;
            }
            Ok(Rewritten::Deleted) => tracing::debug!(?packs, "a pack was deleted while it was to be merged"),
            // so many caches share their rows that no header could name them
            Err(StoreError::Misuse(why)) => {
                tracing::warn!(why, "packs are left as they are");
                self.compacting.left_alone().extend(packs);
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }
}

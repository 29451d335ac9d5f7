//! Upkeep: garbage collection, expiry and quota, and compaction.
//!
//! These decide what goes. Rows go in one transaction; files go after its commit, and only when no reader needs them
//! any more.

pub(crate) mod collect;
pub(crate) mod compaction;
pub(crate) mod orphans;
pub(crate) mod retention;
pub(crate) mod stats;

use std::sync::{Arc, atomic::AtomicBool};

use self::{
    collect::{Collector, GcReport},
    compaction::{CompactReport, Compaction, Compactor},
};
use crate::error::StoreError;

/// Collecting and compacting, which take turns.
#[derive(Clone, Copy)]
pub(crate) struct Upkeep<'a> {
    pub(crate) collector: Collector<'a>,
    pub(crate) compactor: Compactor<'a>,
}

impl Upkeep<'_> {
    /// Collects garbage, compacts thoroughly, and merges FTS5 segments if there is room for that.
    pub(crate) async fn gc(&self) -> Result<GcReport, StoreError> {
        let (when, never) = (Compaction::thorough(), Arc::default());
        let mut report = self.collect_and_shrink(&when, &never).await?;
        let merged = self.compactor.merge_until(&when, &never).await?;
        match self.compactor.index.merge_terms().await {
            Err(StoreError::Full) => tracing::warn!("there is no room to merge the segments of the full-text index"),
            done => done?,
        }
        let shrunk = report.rewritten;
        report.rewritten = CompactReport {
            n_old: shrunk.n_old + merged.n_old,
            n_new: shrunk.n_new + merged.n_new,
            n_extents: shrunk.n_extents + merged.n_extents,
            freed_bytes: shrunk.freed_bytes + merged.freed_bytes,
            n_damaged: shrunk.n_damaged + merged.n_damaged,
        };
        Ok(report)
    }

    /// [`Self::gc`] without merging what is small.
    pub(crate) async fn collect_and_shrink(
        &self,
        when: &Compaction,
        stop: &Arc<AtomicBool>,
    ) -> Result<GcReport, StoreError> {
        let collected = {
            let _turn = self.compactor.compacting.turn().await;
            self.collector.collect(true).await?
        };
        Ok(GcReport { rewritten: self.compactor.shrink(when, stop).await?, ..collected })
    }
}

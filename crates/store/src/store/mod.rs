//! The handle that everyone outside holds: the index, the blobs, and what is remembered of both.
//!
//! Its methods delegate to the other modules, which take the parts that they use and do not know the handle. The
//! methods document what is durable and how each call can fail.

mod caches_api;
mod directions_api;
pub(crate) mod maintainer;
mod opening;
mod reading_api;
mod runs_api;
mod served_api;
mod upkeep_api;

use std::sync::Arc;

use crate::{
    blobs::{LocalBlobs, quota::Quota},
    checks::verify::Verifier,
    index::SqliteIndex,
    packs::stored_cache::Checked,
    runs::import::Importer,
    scan::Plans,
    upkeep::{
        Upkeep,
        collect::Collector,
        compaction::{Compacting, Compactor},
        retention::Retention,
    },
};

/// Handle to the store; clones share everything.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    index: SqliteIndex,
    blobs: Arc<LocalBlobs>,
    quota: Option<Quota>,
    plans: Arc<Plans>,
    checked: Checked,
    compacting: Compacting,
}

impl Store {
    fn new(index: SqliteIndex, blobs: Arc<LocalBlobs>, quota: Option<Quota>, plans: Arc<Plans>) -> Self {
        let (checked, compacting) = (Checked::default(), Compacting::default());
        Self { inner: Arc::new(Inner { index, blobs, quota, plans, checked, compacting }) }
    }

    pub(crate) fn index(&self) -> &SqliteIndex {
        &self.inner.index
    }

    pub(crate) fn blobs(&self) -> &Arc<LocalBlobs> {
        &self.inner.blobs
    }

    fn plans(&self) -> &Plans {
        &self.inner.plans
    }

    fn importer(&self) -> Importer<'_> {
        Importer { index: self.index(), blobs: self.blobs(), quota: self.quota() }
    }

    fn retention(&self) -> Retention<'_> {
        Retention { index: self.index(), blobs: self.blobs(), quota: self.quota() }
    }

    fn collector(&self) -> Collector<'_> {
        Collector::new(self.index(), self.blobs())
    }

    pub(crate) fn compactor(&self) -> Compactor<'_> {
        Compactor { index: self.index(), blobs: self.blobs(), compacting: &self.inner.compacting }
    }

    fn upkeep(&self) -> Upkeep<'_> {
        Upkeep { collector: self.collector(), compactor: self.compactor() }
    }

    pub(crate) fn verifier(&self) -> Verifier<'_> {
        Verifier { index: self.index(), blobs: self.blobs() }
    }
}

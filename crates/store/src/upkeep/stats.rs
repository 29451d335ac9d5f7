//! What the store holds, as counts.

use serde::Serialize;

use crate::{
    error::StoreError,
    index::{SqliteIndex, rows::Fields},
};

/// What the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct StoreStats {
    /// Runs, ended ones among them.
    pub n_runs: u64,
    /// Items still to do.
    pub n_pending_items: u64,
    /// Caches.
    pub n_caches: u64,
    /// Distinct inputs' activations; fewer than caches where some were reused.
    pub n_extents: u64,
    /// Blob files.
    pub n_packs: u64,
    /// Bytes of the blob files.
    pub blob_bytes: u64,
}

impl SqliteIndex {
    /// Counts what the store holds.
    pub(crate) async fn stats(&self) -> Result<StoreStats, StoreError> {
        let query = sqlx::query(
            "SELECT (SELECT count(*) FROM run_items WHERE status = 'pending') AS n_pending_items, \
                 (SELECT n FROM counts WHERE what = 'runs') AS n_runs, \
                 (SELECT n FROM counts WHERE what = 'caches') AS n_caches, \
                 (SELECT n FROM counts WHERE what = 'extents') AS n_extents, \
                 (SELECT n FROM counts WHERE what = 'packs') AS n_packs, \
                 (SELECT n FROM counts WHERE what = 'blob_bytes') AS blob_bytes",
        );
        let row = self.row(query).await?.ok_or_else(|| StoreError::damaged("the index does not count"))?;
        let f = Fields::of("packs", &row);
        Ok(StoreStats {
            n_runs: f.uint("n_runs")?,
            n_pending_items: f.uint("n_pending_items")?,
            n_caches: f.uint("n_caches")?,
            n_extents: f.uint("n_extents")?,
            n_packs: f.uint("n_packs")?,
            blob_bytes: f.uint("blob_bytes")?,
        })
    }
}

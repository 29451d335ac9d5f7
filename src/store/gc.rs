//! Upkeep: what the store holds, and removing what nobody refers to.

use std::fmt;

use serde::Serialize;
use sqlx::Row;

use super::{
    Store, blocking,
    caches::pack_id,
    error::StoreError,
    rows::{Fields, hex_list, to_json},
    writer::{Tx, Write},
};
use crate::domain::PackId;

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

/// What [`Store::gc`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct GcReport {
    /// Activations that no cache used.
    pub n_extents: u64,
    /// Packs that held none.
    pub n_packs: u64,
    /// Files that the index does not know.
    pub n_orphans: u64,
    /// Bytes of the files of both.
    pub freed_bytes: u64,
}

impl fmt::Display for GcReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_extents, n_packs, n_orphans, freed_bytes } = self;
        write!(
            f,
            "removed {n_extents} unused extents, {n_packs} packs and {n_orphans} orphan files: {freed_bytes} bytes"
        )
    }
}

impl Store {
    /// Counts what the store holds.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn stats(&self) -> Result<StoreStats, StoreError> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM run_items WHERE status = 'pending') AS n_pending_items, \
                 (SELECT n FROM counts WHERE what = 'runs') AS n_runs, \
                 (SELECT n FROM counts WHERE what = 'caches') AS n_caches, \
                 (SELECT n FROM counts WHERE what = 'extents') AS n_extents, \
                 (SELECT n FROM counts WHERE what = 'packs') AS n_packs, \
                 (SELECT n FROM counts WHERE what = 'blob_bytes') AS blob_bytes",
        )
        .fetch_one(self.readers())
        .await?;
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

    /// Removes activations without caches, packs without activations, and files that the index does not know. Packs
    /// being written are left alone.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`], [`StoreError::Io`].
    pub async fn gc(&self) -> Result<GcReport, StoreError> {
        self.collect(true).await
    }

    /// Removes what a crash left: unfinished files, and finished ones that the index never learnt of.
    pub(super) async fn sweep(&self) -> Result<(), StoreError> {
        let blobs = std::sync::Arc::clone(self.blobs());
        let unfinished = blocking(move || blobs.sweep_temp()).await?;
        let report = self.collect(false).await?;
        if unfinished + usize::try_from(report.n_orphans).unwrap_or(usize::MAX) > 0 {
            tracing::info!(unfinished, orphans = report.n_orphans, "removed blobs that an earlier stop left behind");
        }
        Ok(())
    }

    async fn collect(&self, rows: bool) -> Result<GcReport, StoreError> {
        let blobs = std::sync::Arc::clone(self.blobs());
        let files = blocking(move || blobs.list()).await?;
        self.write(Collect { files, rows }).await
    }
}

/// Removes the extents among `extents` that no cache uses, then packs without extents, whose files go after the commit.
///
/// # Errors
/// [`StoreError::Database`].
pub(super) async fn drop_unused(tx: &mut Tx<'_>, extents: &[i64]) -> Result<GcReport, StoreError> {
    if extents.is_empty() {
        return Ok(GcReport::default());
    }
    let rows = sqlx::query(
        "DELETE FROM extents WHERE id IN (SELECT value FROM json_each(?)) \
           AND NOT EXISTS (SELECT 1 FROM caches c WHERE c.extent_id = extents.id) RETURNING pack_id",
    )
    .bind(to_json(extents)?)
    .fetch_all(&mut *tx.conn)
    .await?;
    let mut packs =
        rows.iter().map(|r| pack_id(&Fields::of("extents", r), "pack_id")).collect::<Result<Vec<_>, _>>()?;
    packs.sort_unstable();
    packs.dedup();
    let mut report = drop_empty_packs(tx, &packs).await?;
    report.n_extents = rows.len() as u64;
    Ok(report)
}

async fn drop_empty_packs(tx: &mut Tx<'_>, packs: &[PackId]) -> Result<GcReport, StoreError> {
    let rows = sqlx::query(
        "DELETE FROM packs WHERE id IN (SELECT unhex(value) FROM json_each(?)) \
           AND NOT EXISTS (SELECT 1 FROM extents e WHERE e.pack_id = packs.id) RETURNING id, n_bytes",
    )
    .bind(hex_list(packs.iter().map(|p| p.as_bytes().as_slice())))
    .fetch_all(&mut *tx.conn)
    .await?;
    let mut report = GcReport { n_packs: rows.len() as u64, ..GcReport::default() };
    for row in &rows {
        let f = Fields::of("packs", row);
        tx.unlink.push(pack_id(&f, "id")?);
        report.freed_bytes += f.uint::<u64>("n_bytes")?;
    }
    Ok(report)
}

struct Collect {
    /// Files listed before the change was asked for, with their lengths.
    files: Vec<(PackId, u64)>,
    /// Whether rows are collected too.
    rows: bool,
}

impl Write for Collect {
    type Output = GcReport;
    const FREES: bool = true;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<GcReport, StoreError> {
        // first: a pack that goes below is known here, and would be counted twice
        let orphans = self.orphans(tx).await?;
        let mut report = if self.rows { collect_rows(tx).await? } else { GcReport::default() };
        for (pack, n_bytes) in orphans {
            tx.unlink.push(pack);
            report.n_orphans += 1;
            report.freed_bytes += n_bytes;
        }
        Ok(report)
    }
}

impl Collect {
    async fn orphans(&self, tx: &mut Tx<'_>) -> Result<Vec<(PackId, u64)>, StoreError> {
        let known = sqlx::query("SELECT j.key FROM json_each(?) j CROSS JOIN packs p ON p.id = unhex(j.value)")
            .bind(hex_list(self.files.iter().map(|(p, _)| p.as_bytes().as_slice())))
            .fetch_all(&mut *tx.conn)
            .await?;
        let mut orphan = vec![true; self.files.len()];
        for row in &known {
            let index: i64 = row.try_get(0)?;
            if let Some(flag) = usize::try_from(index).ok().and_then(|i| orphan.get_mut(i)) {
                *flag = false;
            }
        }
        Ok(self.files.iter().zip(orphan).filter(|(_, orphan)| *orphan).map(|(file, _)| *file).collect())
    }
}

async fn collect_rows(tx: &mut Tx<'_>) -> Result<GcReport, StoreError> {
    let unused: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM extents e WHERE NOT EXISTS (SELECT 1 FROM caches c WHERE c.extent_id = e.id)",
    )
    .fetch_all(&mut *tx.conn)
    .await?;
    let report = drop_unused(tx, &unused).await?;
    let rows = sqlx::query("SELECT id FROM packs p WHERE NOT EXISTS (SELECT 1 FROM extents e WHERE e.pack_id = p.id)")
        .fetch_all(&mut *tx.conn)
        .await?;
    let empty = rows.iter().map(|r| pack_id(&Fields::of("packs", r), "id")).collect::<Result<Vec<_>, _>>()?;
    let empty = drop_empty_packs(tx, &empty).await?;
    for statement in [
        "DELETE FROM provenances WHERE NOT EXISTS (SELECT 1 FROM extents e WHERE e.provenance_id = provenances.id)",
        "DELETE FROM layouts WHERE NOT EXISTS (SELECT 1 FROM packs p WHERE p.layout_id = layouts.id)",
        "DELETE FROM hook_sets WHERE NOT EXISTS (SELECT 1 FROM layouts l WHERE l.hook_set_id = hook_sets.id) \
             AND NOT EXISTS (SELECT 1 FROM caches c WHERE c.hook_set_id = hook_sets.id) \
             AND NOT EXISTS (SELECT 1 FROM run_items i WHERE i.hook_set_id = hook_sets.id)",
    ] {
        sqlx::query(statement).execute(&mut *tx.conn).await?;
    }
    Ok(GcReport {
        n_packs: report.n_packs + empty.n_packs,
        freed_bytes: report.freed_bytes + empty.freed_bytes,
        ..report
    })
}

//! Garbage collection: removing rows and files that nothing refers to.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::{
    blobs::LocalBlobs,
    blocking::blocking,
    error::StoreError,
    index::{
        SqliteIndex,
        rows::{Fields, hex_list, pack_id},
        tx::Tx,
        write::Write,
    },
    packs::unused::{Dropped, drop_empty_packs, drop_unused},
    upkeep::{
        compaction::CompactReport,
        orphans::{Orphans, known},
    },
};
use residuum_domain::PackId;

/// What [`crate::Store::gc`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct GcReport {
    /// Activations that no cache used.
    pub n_extents: u64,
    /// Packs that held none.
    pub n_packs: u64,
    /// Files that the index does not know and that are needed by nobody.
    pub n_orphans: u64,
    /// Files that the index does not know and that were moved to another folder: whole ones to `unknown`, others to `damaged`.
    pub n_set_aside: u64,
    /// Bytes of the packs and files that were removed.
    pub freed_bytes: u64,
    /// What became of packs of which little was alive, and of small ones where they were merged.
    pub rewritten: CompactReport,
}

impl GcReport {
    /// Whether there was nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for GcReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_extents, n_packs, n_orphans, n_set_aside, freed_bytes, rewritten } = self;
        if *n_set_aside > 0 {
            writeln!(
                f,
                "moved {n_set_aside} files that the index does not know to the folders `unknown` and `damaged`"
            )?;
        }
        write!(
            f,
            "removed {n_extents} unused extents, {n_packs} packs and {n_orphans} orphan files: {freed_bytes} bytes; \
             {rewritten}"
        )
    }
}

/// Removes what nobody refers to.
#[derive(Clone, Copy)]
pub(crate) struct Collector<'a> {
    index: &'a SqliteIndex,
    blobs: &'a Arc<LocalBlobs>,
    orphans: Orphans<'a>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(index: &'a SqliteIndex, blobs: &'a Arc<LocalBlobs>) -> Self {
        Self { index, blobs, orphans: Orphans { index, blobs } }
    }

    /// Removes what a kill left: unfinished files, and finished ones that nobody needs. What else the index does not know is
    /// moved to the folder `unknown`. Where the log of the index was `torn`, an input that waits may have been done.
    pub(crate) async fn sweep(&self, torn: bool) -> Result<(), StoreError> {
        let blobs = Arc::clone(self.blobs);
        let unfinished = blocking(move || blobs.sweep_temp()).await?;
        self.orphans.take_known_in().await?;
        if torn {
            tracing::error!(
                "the log of the index was damaged: its last changes may be lost. Blobs that the index does not know are moved \
                 to the folder `unknown`, from where `residuum verify --rebuild-index` takes their caches in"
            );
        }
        let report = self.collect_for(Collecting { torn, work: true, rows: false }).await?;
        let n_unknown = self.blobs.n_unknown();
        if n_unknown > report.n_set_aside {
            tracing::warn!(
                blobs = n_unknown,
                "the folder `unknown` has blobs that an index did not know; see docs/STORE.md"
            );
        }
        if unfinished + usize::try_from(report.n_orphans).unwrap_or(usize::MAX) > 0 {
            tracing::info!(
                unfinished,
                orphans = report.n_orphans,
                "removed unfinished work that an earlier stop left behind"
            );
        }
        Ok(())
    }

    /// Removes what nobody needs; where `rows`, those of the index too.
    pub(crate) async fn collect(&self, rows: bool) -> Result<GcReport, StoreError> {
        self.collect_for(Collecting { rows, ..Collecting::default() }).await
    }

    /// Looks for candidates beside the writer, which decides when it has its turn: all may have changed by then.
    async fn collect_for(&self, what: Collecting) -> Result<GcReport, StoreError> {
        // before the files are listed: what is given up meanwhile is the next collection's
        let own = self.blobs.own_and_done();
        let files = self.orphans.unknown_files().await?;
        let mut unknown = self.orphans.sort_unknown(&files, what.torn).await?;
        if !unknown.data.is_empty() && !what.torn {
            // the index has lost changes, or is an older one: what it says of inputs that wait may be out of date too
            unknown = self.orphans.sort_unknown(&files, true).await?;
        }
        let n_set_aside = self.orphans.keep_unknown(&unknown).await?;
        let mut candidates = Collect {
            files: unknown.garbage,
            tombstones: self.orphans.done_tombstones().await?,
            what,
            ..Collect::default()
        };
        if what.rows {
            (candidates.extents, candidates.packs) = self.index.unused().await?;
        }
        let report = self.index.write(candidates).await?;
        self.blobs.forget_own(&own);
        Ok(GcReport { n_set_aside, ..report })
    }
}

impl SqliteIndex {
    /// Extents without caches, and packs without extents.
    async fn unused(&self) -> Result<(Vec<i64>, Vec<PackId>), StoreError> {
        let extents = sqlx::query_scalar(
            "SELECT id FROM extents e WHERE NOT EXISTS (SELECT 1 FROM caches c WHERE c.extent_id = e.id)",
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let packs = "SELECT id FROM packs p WHERE NOT EXISTS (SELECT 1 FROM extents e WHERE e.pack_id = p.id)";
        let packs = self.rows(sqlx::query(packs)).await?;
        let packs = packs.iter().map(|row| pack_id(&Fields::of("packs", row), "id"));
        Ok((extents, packs.collect::<Result<_, _>>()?))
    }
}

/// What is collected.
#[derive(Debug, Clone, Copy, Default)]
struct Collecting {
    /// Rows too.
    rows: bool,
    /// Also what matters only while packs are being written: none is, at a start.
    work: bool,
    /// The index may have lost changes.
    torn: bool,
}

#[derive(Default)]
struct Collect {
    /// Files that the index did not know and nobody needs, with their lengths.
    files: Vec<(PackId, u64)>,
    /// Deleted packs whose files have gone.
    tombstones: Vec<PackId>,
    what: Collecting,
    /// Extents that no cache used.
    extents: Vec<i64>,
    /// Packs that had no extents.
    packs: Vec<PackId>,
}

impl Write for Collect {
    type Output = GcReport;
    const FREES: bool = true;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<GcReport, StoreError> {
        // first: a pack that goes below is known here, and would be counted twice
        let known = known(tx.conn().await?, &self.files).await?;
        let orphans = self.files.iter().zip(known).filter(|(_, known)| !known).map(|(file, _)| *file);
        let orphans: Vec<(PackId, u64)> = orphans.collect();
        if !self.tombstones.is_empty() {
            tx.later("DELETE FROM tombstones WHERE id IN (SELECT unhex(value) FROM json_each(?))")
                .bind(hex_list(self.tombstones.iter().map(|pack| pack.as_bytes().as_slice())));
        }
        if self.what.work {
            tx.later("DELETE FROM tombstones WHERE kind <> 'pack'");
        }
        let dropped = if self.what.rows { self.collect_rows(tx).await? } else { Dropped::default() };
        let Dropped { n_extents, n_packs, freed_bytes } = dropped;
        let mut report = GcReport { n_extents, n_packs, freed_bytes, ..GcReport::default() };
        for (pack, n_bytes) in orphans {
            tx.unlink.push(pack);
            report.n_orphans += 1;
            report.freed_bytes += n_bytes;
        }
        Ok(report)
    }
}

impl Collect {
    async fn collect_rows(&self, tx: &mut Tx<'_>) -> Result<Dropped, StoreError> {
        let dropped = drop_unused(tx, &self.extents).await?;
        let empty = drop_empty_packs(tx, &self.packs).await?;
        for statement in [
            "DELETE FROM provenances WHERE NOT EXISTS (SELECT 1 FROM extents e WHERE e.provenance_id = provenances.id)",
            "DELETE FROM layouts WHERE NOT EXISTS (SELECT 1 FROM packs p WHERE p.layout_id = layouts.id)",
            "DELETE FROM hook_sets WHERE NOT EXISTS (SELECT 1 FROM layouts l WHERE l.hook_set_id = hook_sets.id) \
                 AND NOT EXISTS (SELECT 1 FROM caches c WHERE c.hook_set_id = hook_sets.id) \
                 AND NOT EXISTS (SELECT 1 FROM run_items i WHERE i.hook_set_id = hook_sets.id)",
        ] {
            tx.later(statement);
        }
        tx.ids.forget();
        Ok(Dropped {
            n_packs: dropped.n_packs + empty.n_packs,
            freed_bytes: dropped.freed_bytes + empty.freed_bytes,
            ..dropped
        })
    }
}

//! Rebuilding the index from the headers of the blobs.
//!
//! A header says of each cache all that its completion said, so the same statements enter it again. Keys, tenants,
//! pins and expiry are taken from the old index where it can still be read. What else only the index knew is lost:
//! pending inputs, counts and tags of runs, directions, caches that were answered by stored rows after their pack was
//! written, and edits since then.

mod enter;
mod old_index;
mod read_blob;

use std::{fmt, path::Path, sync::Arc};

use serde::Serialize;
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use self::enter::{Known, add_blob};
use crate::{
    blobs::LocalBlobs,
    blocking::blocking,
    error::StoreError,
    index::{connect::migrate, ids::Ids, rows::now, tx::Tx},
};
use residuum_domain::PackId;

/// Name of the index while it is made.
const UNFINISHED: &str = "rebuild.sqlite";

/// What [`crate::Store::rebuild_index`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RebuildReport {
    /// Packs that the new index knows.
    pub n_packs: u64,
    /// Their activations.
    pub n_extents: u64,
    /// Their caches.
    pub n_caches: u64,
    /// Runs that these name.
    pub n_runs: u64,
    /// Activations whose header has no hash, so that their bytes were taken as they are.
    pub n_unhashed: u64,
    /// Activations that were left out because their bytes have changed.
    pub n_damaged: u64,
    /// Files that were moved to the folder `damaged`, the old index among them.
    pub n_set_aside: u64,
    /// Notes, in order.
    pub notes: Vec<String>,
}

impl fmt::Display for RebuildReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "rebuild: {note}")?;
        }
        let Self { n_packs, n_extents, n_caches, n_runs, n_unhashed, n_damaged, n_set_aside, .. } = self;
        if *n_unhashed > 0 {
            writeln!(
                f,
                "rebuild: {n_unhashed} extents are of an earlier version, whose headers have no hashes: their bytes were taken \
                 as they are"
            )?;
        }
        write!(
            f,
            "rebuilt the index: {n_runs} runs, {n_caches} caches, {n_extents} extents in {n_packs} packs; left out \
             {n_damaged} damaged extents, set {n_set_aside} files aside.\nNot in blobs, and lost: inputs that waited, runs' \
             tags and metadata, directions; since a pack was written: edits of its caches, deletions, and caches that reused \
             its rows"
        )
    }
}

/// Makes a new index for the data folder `dir` from its blobs, and sets the old one aside. Damaged blobs are set aside,
/// damaged activations left out. The old index, where it can be read, gives its API keys, tenants, pins and expiry.
pub(crate) async fn rebuild_index(dir: &Path) -> Result<RebuildReport, StoreError> {
    let dir = dir.to_owned();
    let blobs = Arc::new(blocking(move || LocalBlobs::open(&dir)).await?);
    let own = Arc::clone(&blobs);
    let listed = blocking(move || {
        let unknown: Vec<PackId> = own.list_unknown()?.into_iter().map(|(pack, _)| pack).collect();
        Ok((own.take_in(&unknown)?, own.list()?, own.scratch(UNFINISHED)?))
    });
    let (n_unknown, mut packs, path) = listed.await?;
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).foreign_keys(true);
    let mut conn = options.disable_statement_logging().connect().await?;
    migrate(&mut conn).await?;
    let kept = old_index::OldIndex::read(&blobs.index()).await;
    // A newer pack may hold what an older one did: rows that moved, and inputs that were computed again.
    packs.sort_unstable_by(|a, b| b.cmp(a));
    let mut rebuild = Rebuild {
        blobs: Arc::clone(&blobs),
        ids: Ids::default(),
        known: Known::default(),
        report: RebuildReport::default(),
    };
    let notes = &mut rebuild.report.notes;
    if n_unknown > 0 {
        notes.push(format!("{n_unknown} blobs that an index did not know were taken from the folder `unknown`"));
    }
    match &kept {
        Some(kept) => kept.enter_keys(&mut conn, notes).await?,
        None => {
            notes.push("there is no old index to take API keys from: make some before you serve this folder".to_owned())
        }
    }
    if let Some(kept) = &kept {
        rebuild.known.deleted = kept.enter_tombstones(&mut conn).await?;
    }
    for (pack, n_bytes) in packs {
        if rebuild.known.deleted.contains(pack.as_bytes()) {
            rebuild.report.notes.push(format!("pack {pack} was deleted; the next start removes it"));
        } else {
            rebuild.add(&mut conn, pack, n_bytes).await?;
        }
    }
    rebuild.finish_runs(&mut conn).await?;
    if let Some(kept) = &kept {
        kept.enter_lifetimes(&mut conn, &mut rebuild.report.notes).await?;
    }
    conn.close().await?;
    let mut report = rebuild.report;
    blocking(move || {
        for name in ["index.sqlite-wal", "index.sqlite-shm", "index.sqlite"] {
            if let Some(path) = blobs.set_aside(Path::new(name))? {
                report.n_set_aside += 1;
                report.notes.push(format!("the old {name} is {}", path.display()));
            }
        }
        blobs.rename(UNFINISHED, "index.sqlite")?;
        Ok(report)
    })
    .await
}

struct Rebuild {
    blobs: Arc<LocalBlobs>,
    ids: Ids,
    known: Known,
    report: RebuildReport,
}

impl Rebuild {
    async fn add(&mut self, conn: &mut SqliteConnection, pack: PackId, n_bytes: u64) -> Result<(), StoreError> {
        let blobs = Arc::clone(&self.blobs);
        let read = match blocking(move || read_blob::read(&blobs, pack, n_bytes)).await {
            Ok(read) => read,
            Err(StoreError::Damaged { what }) => return self.set_aside(pack, &what).await,
            Err(other) => return Err(other),
        };
        let n_damaged = read.found.iter().filter(|f| f.is_none()).count() as u64;
        if n_damaged > 0 {
            self.report
                .notes
                .push(format!("pack {pack}: the bytes of {n_damaged} extents have changed; they are left out"));
        }
        self.report.n_damaged += n_damaged;
        self.report.n_unhashed += read.n_unhashed;
        let in_flight = self.blobs.adopt(pack);
        let mut tx = Tx::begin(conn, &mut self.ids, now(), &self.blobs.faults, false);
        let added = add_blob(&mut tx, read, in_flight, &mut self.known).await?;
        tx.later("COMMIT");
        tx.flush().await?;
        if added.caches == 0 {
            self.leave_out(conn, pack, added.differs, n_damaged > 0).await?;
        } else {
            self.report.n_packs += 1;
        }
        self.report.n_extents += added.extents;
        self.report.n_caches += added.caches;
        Ok(())
    }

    /// Leaves out a pack of which nothing is needed. If all of it is elsewhere too, the next start removes it; what differs is
    /// kept.
    async fn leave_out(
        &mut self,
        conn: &mut SqliteConnection,
        pack: PackId,
        differs: bool,
        damaged: bool,
    ) -> Result<(), StoreError> {
        if damaged {
            return self.set_aside(pack, &format!("pack {pack} holds nothing else that is not elsewhere")).await;
        }
        let note = if differs {
            let blobs = Arc::clone(&self.blobs);
            let path = blocking(move || blobs.set_unknown_aside(pack)).await?.unwrap_or_default();
            self.report.n_set_aside += 1;
            format!(
                "pack {pack} holds inputs that a newer one holds with other numbers; it was moved to {}",
                path.display()
            )
        } else {
            let delete = sqlx::query("INSERT OR IGNORE INTO tombstones (id, kind) VALUES (?, 'pack')");
            delete.bind(pack.as_bytes().as_slice()).execute(conn).await?;
            format!("pack {pack} holds nothing that is not elsewhere; the next start removes it")
        };
        self.report.notes.push(note);
        Ok(())
    }

    async fn set_aside(&mut self, pack: PackId, why: &str) -> Result<(), StoreError> {
        let blobs = Arc::clone(&self.blobs);
        let path = blocking(move || blobs.set_pack_aside(pack)).await?.unwrap_or_default();
        self.report.n_set_aside += 1;
        self.report.notes.push(format!("{why}; it was moved to {}", path.display()));
        Ok(())
    }

    /// Counts what runs have.
    async fn finish_runs(&mut self, conn: &mut SqliteConnection) -> Result<(), StoreError> {
        self.report.n_runs = self.known.runs.len() as u64;
        sqlx::query(
            "UPDATE runs SET n_items = c.n, n_done = c.n, n_reused = c.n_reused, generates = c.generates, \
                 finished_at = c.last FROM (SELECT run_id, count(*) AS n, sum(reused) AS n_reused, \
                     max(completion IS NOT NULL) AS generates, max(created_at) AS last FROM caches GROUP BY run_id) c \
             WHERE c.run_id = runs.id",
        )
        .execute(&mut *conn)
        .await?;
        Ok(())
    }
}

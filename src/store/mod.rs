//! The store: an SQLite index of runs, items and caches, and a folder of blobs that holds their numbers.
//!
//! It owns every SQL statement and every file below the data folder, and knows nothing of HTTP or of models. One task
//! writes (`writer`), a pool of read-only connections reads. What a method acknowledges is durable, except claims,
//! which survive the end of the process only.
//!
//! A cache is stored in two steps: a [`PackWriter`] makes a blob durable under its final name, then one transaction
//! ([`Store::complete`]) makes the index know it. A crash in between leaves a file nobody refers to, which the next
//! start removes; only the holder of the folder's lock removes files.

mod blobs;
mod caches;
mod complete;
mod directions;
mod error;
mod gc;
mod header;
mod intern;
mod interventions;
mod item;
mod pack;
mod queue;
mod reuse;
mod rows;
mod runs;
mod scan;
mod tensors;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::{path::Path, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use self::{
    blobs::Blobs,
    intern::Memo,
    writer::{Write, Writer},
};
pub use self::{
    complete::{Completion, ReusedCache},
    error::StoreError,
    gc::{GcReport, StoreStats},
    pack::{FinishedPack, PackHeader, PackWriter, PackedCache},
    queue::PendingRun,
    reuse::{ExtentId, Reusable, StoredRows, Wanted},
    runs::{Inserted, RunFilter},
    scan::{RowKey, ScanPlan, ScanReport, Take},
    tensors::StoredCache,
    verify::{Issue, VerifyReport},
};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Connections for queries.
const READERS: u32 = 4;

/// Handle to the store; clones share everything.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    blobs: Arc<Blobs>,
    readers: SqlitePool,
    /// `None` for a store that only reads.
    writer: Option<Writer>,
    memo: Memo,
    plans: scan::Plans,
}

impl Store {
    /// Opens the store in `dir` for reading and writing, making it where there is none. Brings the index up to date
    /// and removes what an earlier crash left behind. The folder stays locked until the last clone is gone.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when someone else has the folder, [`StoreError::Newer`] when a newer version wrote the
    /// index, else [`StoreError::Io`], [`StoreError::Full`] or [`StoreError::Database`].
    pub async fn open(dir: &Path) -> Result<Self, StoreError> {
        let dir = dir.to_owned();
        let blobs = Arc::new(blocking(move || Blobs::open(&dir)).await?);
        let options = options(&blobs)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // the log shrinks back after a large transaction
            .pragma("journal_size_limit", "67108864");
        let mut conn = options.connect().await?;
        migrate(&mut conn).await?;
        let readers = readers(&blobs).await?;
        let writer = Some(Writer::start(conn, Arc::clone(&blobs)));
        let store = Self {
            inner: Arc::new(Inner { blobs, readers, writer, memo: Memo::default(), plans: scan::Plans::default() }),
        };
        store.sweep().await?;
        Ok(store)
    }

    /// Opens the store in `dir` to read only, also while a server has it: nothing is locked, made or removed.
    ///
    /// # Errors
    /// [`StoreError::Newer`] or [`StoreError::Older`] when another version wrote the index, [`StoreError::Io`] when
    /// there is none.
    pub async fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        let blobs = Arc::new(Blobs::open_read_only(dir));
        // SQLite's own word for a missing file names neither the folder nor the reason.
        let index = blobs.index();
        tokio::fs::metadata(&index).await.map_err(StoreError::io(index.display()))?;
        let readers = readers(&blobs).await?;
        let found: i64 =
            sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").fetch_one(&readers).await?;
        let known = newest_migration();
        match found.cmp(&known) {
            std::cmp::Ordering::Less => return Err(StoreError::Older { found, known }),
            std::cmp::Ordering::Greater => return Err(StoreError::Newer { found, known }),
            std::cmp::Ordering::Equal => {}
        }
        Ok(Self {
            inner: Arc::new(Inner {
                blobs,
                readers,
                writer: None,
                memo: Memo::default(),
                plans: scan::Plans::default(),
            }),
        })
    }

    /// Whether the store answers: a query runs, and the writer is there.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or [`StoreError::Database`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(self.readers()).await?;
        match &self.inner.writer {
            Some(writer) if !writer.is_alive() => Err(StoreError::Closed),
            _ => Ok(()),
        }
    }

    /// Commits what is waiting, moves the log into the index and closes it, for all clones.
    pub async fn close(self) {
        self.inner.readers.close().await;
        if let Some(writer) = &self.inner.writer {
            writer.close().await;
        }
    }

    fn blobs(&self) -> &Arc<Blobs> {
        &self.inner.blobs
    }

    fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }

    fn memo(&self) -> &Memo {
        &self.inner.memo
    }

    async fn write<W: Write>(&self, change: W) -> Result<W::Output, StoreError> {
        self.inner.writer.as_ref().ok_or(StoreError::Closed)?.write(change).await
    }
}

/// What the writer and the readers have in common.
fn options(blobs: &Blobs) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(blobs.index())
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .pragma("temp_store", "MEMORY")
        .pragma("mmap_size", "0")
        .disable_statement_logging()
}

async fn readers(blobs: &Blobs) -> Result<SqlitePool, StoreError> {
    let pool = SqlitePoolOptions::new().max_connections(READERS).test_before_acquire(false);
    Ok(pool.connect_with(options(blobs).read_only(true)).await?)
}

async fn migrate(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let result = MIGRATIONS.run(&mut *conn).await;
    match result {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(found)) => Err(StoreError::Newer { found, known: newest_migration() }),
        Err(MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _)) => Err(e.into()),
        Err(other) => Err(StoreError::Database(Arc::new(other.into()))),
    }
}

fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0)
}

/// Runs file operations on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // the runtime is shutting down
            Err(_) => Err(StoreError::Closed),
        },
    }
}

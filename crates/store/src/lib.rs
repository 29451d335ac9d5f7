//! The store: an SQLite index of runs, items and caches, and a folder of blobs that holds their numbers.
//!
//! It owns every SQL statement and every file below the data folder, and knows nothing of HTTP or of models. One task
//! writes (`index::writer`), a pool of read-only connections reads. What a method acknowledges is durable, except claims,
//! which survive the end of the process only.
//!
//! A cache is stored in two steps: a [`PackWriter`] makes a blob durable under its final name, then one transaction
//! ([`Store::complete`]) makes the index know it. A crash in between leaves a file nobody refers to, which the next
//! start removes if its inputs still wait (`upkeep::orphans`); only the holder of the folder's lock removes files. Rows may move to other blobs ([`Store::merge`]) while
//! they are read: what a reader was told of stays until it has read it (`blobs::epoch`).

mod blobs;
mod checks;
mod clock;
mod directions;
mod error;
mod fault;
mod find;
mod index;
mod keys;
mod options;
mod packs;
mod runs;
mod scan;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod upkeep;

use std::{path::Path, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, Sqlite, SqliteConnection,
    migrate::{MigrateError, Migrator},
    query::Query,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};

use self::{
    blobs::Blobs,
    index::{
        checkpoint::Checkpoints,
        intern::Memo,
        readers::{Reader, Readers},
        write::{Probe, Write},
        writer::Writer,
    },
};
pub use self::{
    blobs::{epoch::KeepDeleted, quota::Quota},
    checks::{
        backup::BackupReport,
        rebuild::RebuildReport,
        repair::RepairReport,
        verify::{Issue, VerifyReport},
    },
    clock::Clock,
    error::StoreError,
    find::{caches::CachePage, survey::Kind},
    keys::KeyStore,
    options::StoreOptions,
    packs::{
        contents::{PackHeader, PackedCache},
        lane::PackLane,
        location::ExtentId,
        pack_writer::{FinishedPack, PackWriter},
        stored_cache::StoredCache,
    },
    runs::{
        answered::AnsweredRun,
        complete::{Completion, ReusedCache},
        import::{Imported, NewImport, Spool},
        listing::{Inserted, RunFilter},
        queue::PendingRun,
        reuse::{Reusable, StoredRows, Wanted},
    },
    scan::{RowKey, ScanPlan, ScanReport, Take, TokenPlaces},
    upkeep::{
        collect::{GcReport, StoreStats},
        compaction::{CompactReport, Compaction},
        maintain::{Maintainer, Maintenance},
    },
};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// Handle to the store; clones share everything.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    blobs: Arc<Blobs>,
    readers: Readers,
    /// `None` for a store that only reads.
    writer: Option<Writer>,
    memo: Memo,
    plans: scan::Plans,
    options: StoreOptions,
    checked: packs::stored_cache::Checked,
    compacting: upkeep::compaction::Compacting,
}

impl Inner {
    fn new(blobs: Arc<Blobs>, readers: Readers, writer: Option<Writer>, options: StoreOptions) -> Self {
        Self {
            blobs,
            readers,
            writer,
            memo: Memo::default(),
            plans: scan::Plans::default(),
            options,
            checked: packs::stored_cache::Checked::default(),
            compacting: upkeep::compaction::Compacting::default(),
        }
    }
}

impl Store {
    /// Opens the store in `dir` for reading and writing, making it where there is none. Brings the index up to date, removes the
    /// unfinished work of an earlier process, and moves blobs that the index should know and does not to the folder `unknown`. The folder stays locked until the last clone is gone.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when someone else has the folder, [`StoreError::Newer`] when a newer version wrote the
    /// index, [`StoreError::IndexLost`] when there are blobs and no index, [`StoreError::IndexDamaged`] when SQLite cannot
    /// read it, else [`StoreError::Io`], [`StoreError::Full`] or [`StoreError::Database`].
    pub async fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, StoreOptions::default()).await
    }

    /// As [`Self::open`], with a quota or a clock.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(dir: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let dir = dir.to_owned();
        let blobs = Arc::new(blocking(move || Blobs::open(&dir)).await?);
        let own = Arc::clone(&blobs);
        // a new index would know nothing of what is there
        let torn =
            blocking(move || if own.is_without_index()? { Err(StoreError::IndexLost) } else { own.log_is_torn() });
        let torn = torn.await?;
        match Self::start(&blobs, options.clone(), torn).await {
            Err(error) if blobs.is_for_want_of_room(&error) && blobs.give_up_reserve() => {
                tracing::warn!(
                    "the disk is full: the store starts with what was kept in reserve. What is stored can be read and deleted; \
                     new runs wait or are refused until there is room: make some on the disk, or delete runs or caches"
                );
                Self::start(&blobs, options, torn).await
            }
            started => started,
        }
    }

    /// Opens the index of a folder, and brings both up to date.
    async fn start(blobs: &Arc<Blobs>, options: StoreOptions, torn: bool) -> Result<Self, StoreError> {
        let connect = connect_options(blobs)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // in pages of 4 KiB: until then the log is moved into the index beside the writer
            .pragma("wal_autocheckpoint", "16384")
            // the log shrinks back after a large transaction
            .pragma("journal_size_limit", "134217728");
        let mut conn = connect.clone().connect().await?;
        let own = Arc::clone(blobs);
        if is_new(&mut conn).await? && blocking(move || own.has_packs()).await? {
            // all of it was in a log that has gone
            return Err(StoreError::IndexLost);
        }
        migrate(&mut conn).await?;
        let readers = Readers::open(connect_options(blobs).read_only(true)).await?;
        let checkpoints = Checkpoints::new(connect.connect().await?);
        let writer = Some(Writer::start(conn, checkpoints, Arc::clone(blobs), &options));
        let store = Self { inner: Arc::new(Inner::new(Arc::clone(blobs), readers, writer, options)) };
        match store.bring_up_to_date(torn).await {
            Ok(()) => Ok(store),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }

    async fn bring_up_to_date(&self, torn: bool) -> Result<(), StoreError> {
        self.sweep(torn).await?;
        let blobs = Arc::clone(self.blobs());
        blocking(move || {
            blobs.count_bytes()?;
            blobs.keep_reserve();
            Ok(())
        })
        .await?;
        self.enter_missing_terms().await?;
        self.enter_missing_checksums().await
    }

    /// Opens the store in `dir` to read only, also while a server has it: nothing is locked, made or removed. On a file system that
    /// cannot be written, the folder must be one whose server was stopped in order: SQLite reads no log there.
    ///
    /// # Errors
    /// [`StoreError::Newer`] or [`StoreError::Older`] when another version wrote the index, [`StoreError::Io`] when
    /// there is none.
    pub async fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        let blobs = Arc::new(Blobs::open_read_only(dir));
        // SQLite's own word for a missing file names neither the folder nor the reason.
        let index = blobs.index();
        tokio::fs::metadata(&index).await.map_err(StoreError::io(index.display()))?;
        let own = Arc::clone(&blobs);
        let immutable = blocking(move || Ok(own.is_immutable())).await?;
        let readers = Readers::open(connect_options(&blobs).read_only(true).immutable(immutable)).await?;
        let (found, known) = (version(&mut *readers.get().await?).await?, newest_migration());
        match found.cmp(&known) {
            std::cmp::Ordering::Less => return Err(StoreError::Older { found, known }),
            std::cmp::Ordering::Greater => return Err(StoreError::Newer { found, known }),
            std::cmp::Ordering::Equal => {}
        }
        Ok(Self { inner: Arc::new(Inner::new(blobs, readers, None, StoreOptions::default())) })
    }

    /// Whether the store takes changes: a query runs, the writer can change the index, and the folder takes a file. Leaves
    /// nothing behind.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Full`], [`StoreError::Io`] or [`StoreError::Database`].
    pub async fn probe(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&mut *self.reader().await?).await?;
        self.write(Probe).await?;
        let blobs = Arc::clone(self.blobs());
        blocking(move || blobs.probe()).await
    }

    /// Commits what is waiting, moves the log into the index and closes it, for all clones.
    pub async fn close(self) {
        self.inner.readers.close().await;
        if let Some(writer) = &self.inner.writer {
            writer.close().await;
        }
    }

    /// Transactions committed so far; always 0 for a store that only reads.
    fn commits(&self) -> u64 {
        self.inner.writer.as_ref().map_or(0, Writer::commits)
    }

    fn blobs(&self) -> &Arc<Blobs> {
        &self.inner.blobs
    }

    /// A connection for queries.
    async fn reader(&self) -> Result<Reader, StoreError> {
        self.inner.readers.get().await
    }

    /// The rows of one query.
    async fn rows(&self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<Vec<SqliteRow>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = query.fetch_all(&mut *reader).await?;
        reader.done();
        Ok(rows)
    }

    /// The first row of one query.
    async fn row(&self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<Option<SqliteRow>, StoreError> {
        let mut reader = self.reader().await?;
        let row = query.fetch_optional(&mut *reader).await?;
        reader.done();
        Ok(row)
    }

    /// The time, in microseconds.
    fn now(&self) -> i64 {
        self.inner.options.clock.now()
    }

    fn memo(&self) -> &Memo {
        &self.inner.memo
    }

    async fn write<W: Write>(&self, change: W) -> Result<W::Output, StoreError> {
        let writer = self.inner.writer.as_ref().ok_or(StoreError::Closed)?;
        let done = writer.write(change).await;
        if W::FREES {
            // a plan is a reader of what was deleted
            self.inner.plans.forget_older(writer.commits());
        }
        done
    }
}

/// What the writer and the readers have in common.
fn connect_options(blobs: &Blobs) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(blobs.index())
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .pragma("temp_store", "MEMORY")
        // in KiB: of a large index, the upper levels of its trees stay in memory
        .pragma("cache_size", "-32768")
        .pragma("mmap_size", "0")
        // so many rows that a page's never wait for whoever reads them: to wake SQLite's thread takes longer than a row
        .row_buffer_size(256)
        .disable_statement_logging()
}

/// Whether there is nothing in the index, not even tables.
async fn is_new(conn: &mut SqliteConnection) -> Result<bool, StoreError> {
    const ANY: &str = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)";
    Ok(sqlx::query_scalar(ANY).fetch_one(conn).await?)
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

/// Version of the index.
async fn version(conn: &mut SqliteConnection) -> Result<i64, StoreError> {
    let newest = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations");
    Ok(newest.fetch_one(conn).await?)
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

//! The index: an SQLite database, the task that writes it and the connections that read it.
//!
//! This module owns every connection to the database and what is remembered of its rows. The other modules hold the
//! statements: each is a query on a reader, or a [`Write`] that the writer applies. The index knows the blobs only as
//! files to remove once the transaction that forgot them is committed.

mod backfill;
pub(crate) mod checksum;
pub(crate) mod connect;
pub(crate) mod forward_keys;
pub(crate) mod ids;
pub(crate) mod intern;
pub(crate) mod json;
pub(crate) mod readers;
pub(crate) mod rows;
pub(crate) mod terms;
pub(crate) mod tx;
mod wal;
pub(crate) mod write;
pub(crate) mod writer;

use std::sync::Arc;

use sqlx::{
    ConnectOptions, Sqlite,
    query::Query,
    sqlite::{SqliteArguments, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};

use self::{
    connect::{check_exists, check_version, connect_options, is_new, migrate},
    intern::Memo,
    readers::{Reader, Readers},
    write::{Probe, Write},
    writer::Writer,
};
use crate::{
    blobs::{LocalBlobs, epoch::KeepDeleted},
    blocking::blocking,
    clock::Clock,
    error::StoreError,
};

/// Is told how many transactions are committed, after one that may have freed something: whoever remembers what the index
/// said before forgets it.
pub(crate) type Freed = Box<dyn Fn(u64) + Send + Sync>;

/// The index of a data folder, in SQLite.
pub(crate) struct SqliteIndex {
    readers: Readers,
    /// `None` for a store that only reads.
    writer: Option<Writer>,
    memo: Memo,
    clock: Clock,
    freed: Freed,
}

impl SqliteIndex {
    /// Opens the index of a folder for reading and writing, makes it where there is none, and brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Newer`] when a newer version wrote it, [`StoreError::IndexLost`] when there are blobs and no rows,
    /// [`StoreError::IndexDamaged`] when SQLite cannot read it, else [`StoreError::Io`], [`StoreError::Full`] or
    /// [`StoreError::Database`].
    pub(crate) async fn open(
        blobs: &Arc<LocalBlobs>,
        clock: Clock,
        keep: KeepDeleted,
        freed: Freed,
    ) -> Result<Self, StoreError> {
        let connect = connect_options(blobs)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
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
        let writer = Some(Writer::start(conn, Arc::clone(blobs), clock.clone(), keep));
        Ok(Self { readers, writer, memo: Memo::default(), clock, freed })
    }

    /// Opens the index of a folder to read only.
    ///
    /// # Errors
    /// [`StoreError::Newer`] or [`StoreError::Older`] when another version wrote it, [`StoreError::Io`] when there is none;
    /// [`StoreError::Database`].
    pub(crate) async fn open_read_only(blobs: &Arc<LocalBlobs>) -> Result<Self, StoreError> {
        check_exists(blobs).await?;
        let own = Arc::clone(blobs);
        let immutable = blocking(move || Ok(own.is_immutable())).await?;
        let readers = Readers::open(connect_options(blobs).read_only(true).immutable(immutable)).await?;
        check_version(&mut *readers.get().await?).await?;
        let (memo, clock) = (Memo::default(), Clock::default());
        Ok(Self { readers, writer: None, memo, clock, freed: Box::new(|_| ()) })
    }

    /// Whether something lies in the log of the index that SQLite will not take. Before the index is opened.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn log_is_torn(blobs: &LocalBlobs) -> Result<bool, StoreError> {
        wal::is_torn(&blobs.index_log()).map_err(StoreError::io("reading the log of the index"))
    }

    /// Gives rows that an earlier version wrote what they lack.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`].
    pub(crate) async fn enter_missing(&self) -> Result<(), StoreError> {
        self.enter_missing_terms().await?;
        self.enter_missing_checksums().await
    }

    /// Whether a query runs and the writer can change the index.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Full`] or [`StoreError::Database`].
    pub(crate) async fn probe(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&mut *self.reader().await?).await?;
        self.write(Probe).await
    }

    /// Commits what is waiting, moves the log into the index and closes it.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
    }

    /// Whether this process changes the index.
    pub(crate) fn is_writable(&self) -> bool {
        self.writer.is_some()
    }

    /// Transactions committed so far; `None` for an index that was opened to read only: others may change it.
    pub(crate) fn commits(&self) -> Option<u64> {
        self.writer.as_ref().map(Writer::commits)
    }

    /// A connection for queries.
    pub(crate) async fn reader(&self) -> Result<Reader, StoreError> {
        self.readers.get().await
    }

    /// The rows of one query.
    pub(crate) async fn rows(&self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<Vec<SqliteRow>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = query.fetch_all(&mut *reader).await?;
        reader.done();
        Ok(rows)
    }

    /// The first row of one query.
    pub(crate) async fn row(&self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<Option<SqliteRow>, StoreError> {
        let mut reader = self.reader().await?;
        let row = query.fetch_optional(&mut *reader).await?;
        reader.done();
        Ok(row)
    }

    /// Applies a change, and waits until it is committed.
    ///
    /// # Errors
    /// The change's own, the commit's, or [`StoreError::Closed`].
    pub(crate) async fn write<W: Write>(&self, change: W) -> Result<W::Output, StoreError> {
        let writer = self.writer.as_ref().ok_or(StoreError::Closed)?;
        let done = writer.write(change).await;
        if W::FREES {
            (self.freed)(writer.commits());
        }
        done
    }

    /// Has others forget what the index said before, as [`Self::write`] does after a change that frees something.
    pub(crate) fn tell_freed(&self) {
        if let Some(commits) = self.commits() {
            (self.freed)(commits);
        }
    }

    /// The time, in microseconds.
    pub(crate) fn now(&self) -> i64 {
        self.clock.now()
    }

    /// What is remembered of values that many rows share.
    pub(crate) fn memo(&self) -> &Memo {
        &self.memo
    }
}

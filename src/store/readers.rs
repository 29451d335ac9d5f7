//! Connections that read the index, each used by one at a time.
//!
//! A general pool asks a connection how it is whenever it comes back. SQLite has a thread of its own, so that takes as long as
//! the small queries this server makes: here it is asked once a second.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, Connection, Sqlite, SqliteConnection, Transaction, sqlite::SqliteConnectOptions};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::StoreError;

/// Connections.
pub(super) const READERS: u32 = 4;
/// How long a connection that answered is trusted to do so again.
const TRUST: Duration = Duration::from_secs(1);
/// A connection is replaced after this long, with what it remembers of statements and pages.
const AGE: Duration = Duration::from_secs(30 * 60);

/// The connections.
pub(super) struct Readers {
    options: SqliteConnectOptions,
    idle: Mutex<Vec<Open>>,
    free: Semaphore,
}

struct Open {
    conn: SqliteConnection,
    opened: Instant,
    answered: Instant,
}

impl Readers {
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::IndexDamaged`] when the index cannot be opened.
    pub(super) async fn open(options: SqliteConnectOptions) -> Result<Self, StoreError> {
        let readers = Self { options, idle: Mutex::default(), free: Semaphore::new(READERS as usize) };
        let first = readers.connect().await?;
        readers.idle().push(first);
        Ok(readers)
    }

    async fn connect(&self) -> Result<Open, StoreError> {
        let conn = self.options.clone().connect().await?;
        let now = Instant::now();
        Ok(Open { conn, opened: now, answered: now })
    }

    /// The connection used last, once there is one that nobody uses.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`] when none can be opened.
    pub(super) async fn get(&self) -> Result<Reader<'_>, StoreError> {
        let permit = self.free.acquire().await.map_err(|_| StoreError::Closed)?;
        let kept = self.idle().pop();
        let open = match kept {
            Some(open) if open.opened.elapsed() < AGE => Some(open),
            _ => None,
        };
        let open = match open {
            Some(open) if open.answered.elapsed() < TRUST => open,
            Some(mut open) => match open.conn.ping().await {
                Ok(()) => Open { answered: Instant::now(), ..open },
                Err(error) => {
                    tracing::warn!(%error, "a connection to the index was lost; another one is opened");
                    self.connect().await?
                }
            },
            None => self.connect().await?,
        };
        Ok(Reader { open: Some(open), readers: self, _permit: permit })
    }

    /// Closes all of them, each once nobody uses it.
    pub(super) async fn close(&self) {
        let all = self.free.acquire_many(READERS).await;
        self.free.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle());
        for open in idle {
            if let Err(error) = open.conn.close().await {
                tracing::warn!(%error, "a connection to the index could not be closed");
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Open>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, for as long as it is needed. What was asked of it and not waited for is done before what comes next.
pub(super) struct Reader<'r> {
    /// Until it is given back.
    open: Option<Open>,
    readers: &'r Readers,
    _permit: SemaphorePermit<'r>,
}

impl Reader<'_> {
    /// A transaction in which all queries see the same.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(super) async fn snapshot(&mut self) -> Result<Transaction<'_, Sqlite>, StoreError> {
        Ok(self.begin().await?)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.readers.idle().extend(self.open.take());
    }
}

impl Deref for Reader<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.open.as_ref().expect(HELD).conn
    }
}

impl DerefMut for Reader<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.open.as_mut().expect(HELD).conn
    }
}

const HELD: &str = "a reader has its connection until it is dropped";

#[cfg(test)]
mod tests {
    use super::*;

    async fn index() -> (tempfile::TempDir, SqliteConnection, Readers) {
        let dir = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(dir.path().join("index")).create_if_missing(true);
        let mut writer = options.clone().pragma("journal_mode", "WAL").connect().await.unwrap();
        sqlx::raw_sql("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1)").execute(&mut writer).await.unwrap();
        let readers = Readers::open(options.read_only(true)).await.unwrap();
        (dir, writer, readers)
    }

    async fn sum(conn: &mut SqliteConnection) -> i64 {
        sqlx::query_scalar("SELECT sum(n) FROM t").fetch_one(conn).await.unwrap()
    }

    #[tokio::test]
    async fn more_readers_than_connections_wait_for_their_turn() {
        let (_dir, _writer, readers) = index().await;
        let all = (0..READERS * 5).map(|_| async {
            let mut reader = readers.get().await.unwrap();
            sum(&mut reader).await
        });
        assert_eq!(futures::future::join_all(all).await, vec![1; READERS as usize * 5]);
        assert!(readers.idle().len() <= READERS as usize);
    }

    #[tokio::test]
    async fn what_a_reader_left_unfinished_is_no_concern_of_the_next() {
        let (_dir, mut writer, readers) = index().await;
        let mut reader = readers.get().await.unwrap();
        let mut snapshot = reader.snapshot().await.unwrap();
        assert_eq!(sum(&mut snapshot).await, 1);
        sqlx::raw_sql("INSERT INTO t VALUES (2)").execute(&mut writer).await.unwrap();
        assert_eq!(sum(&mut snapshot).await, 1, "it goes on seeing what it saw");
        drop(snapshot);
        drop(reader);
        // nobody waits for it
        let mut reader = readers.get().await.unwrap();
        let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
        let mut rows = sqlx::query(endless).fetch(&mut *reader);
        assert!(futures::StreamExt::next(&mut rows).await.is_some());
        drop(rows);
        drop(reader);
        assert_eq!(readers.idle().len(), 1);
        assert_eq!(sum(&mut readers.get().await.unwrap()).await, 3);
    }

    #[tokio::test]
    async fn old_connections_are_replaced_and_those_long_idle_are_asked() {
        let (_dir, _writer, readers) = index().await;
        let now = Instant::now();
        let earlier = |long: Duration| now.checked_sub(long).unwrap();
        for (opened, answered) in [(earlier(AGE), now), (now, earlier(TRUST))] {
            readers.idle().iter_mut().for_each(|open| (open.opened, open.answered) = (opened, answered));
            let mut reader = readers.get().await.unwrap();
            let open = reader.open.as_ref().unwrap();
            assert!(open.opened >= now && open.answered >= now);
            assert_eq!(sum(&mut reader).await, 1);
        }
    }

    #[tokio::test]
    async fn closing_waits_for_whoever_reads() {
        let (_dir, _writer, readers) = index().await;
        let mut reader = readers.get().await.unwrap();
        let (sum, ()) = tokio::join!(
            async {
                let sum = sum(&mut reader).await;
                drop(reader);
                sum
            },
            readers.close(),
        );
        assert_eq!(sum, 1);
        assert!(matches!(readers.get().await, Err(StoreError::Closed)));
        readers.close().await;
    }
}

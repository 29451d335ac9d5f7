//! The pool of connections that read the index, each used by one task at a time.
//!
//! A general pool pings a connection whenever it comes back. SQLite runs on a thread of its own, so a ping costs a
//! round trip, as much as the small queries this server makes. Here a reader that has received all its answers says so
//! ([`Reader::done`]), and the connection is free at once. Any other may be in the middle of a statement: that is
//! interrupted, and the connection comes back once it answers. So a client that hung up blocks one connection at most,
//! and not for long.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, Connection, Sqlite, SqliteConnection, Transaction, sqlite::SqliteConnectOptions};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::error::StoreError;

/// Connections in the pool.
pub(crate) const READERS: u32 = 4;
/// How long a connection that answered is trusted to do so again.
const TRUST: Duration = Duration::from_secs(1);
/// A connection is replaced after this long, with what it remembers of statements and pages.
const AGE: Duration = Duration::from_secs(30 * 60);
/// Steps of SQLite's virtual machine between two checks whether a statement is still wanted.
const STEPS: i32 = 1000;

/// The pool.
pub(crate) struct Readers {
    options: SqliteConnectOptions,
    idle: Arc<Idle>,
    free: Arc<Semaphore>,
}

/// Connections that nobody uses.
#[derive(Default)]
struct Idle(Mutex<Vec<Open>>);

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Vec<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Open {
    conn: SqliteConnection,
    opened: Instant,
    answered: Instant,
    /// Whether nobody waits for its statement any more: then that is interrupted.
    abandoned: Arc<AtomicBool>,
}

impl Open {
    /// Pings it, and checks that it is not in a transaction; otherwise it is closed.
    async fn ask(mut self) -> Option<Self> {
        let answer = self.conn.ping().await;
        self.abandoned.store(false, Ordering::Relaxed);
        match answer {
            // an error may end a transaction on SQLite's side alone: the next one would never end
            Ok(()) if !self.conn.is_in_transaction() => Some(Self { answered: Instant::now(), ..self }),
            Ok(()) => {
                tracing::warn!("a connection to the index was left in a transaction; another one is opened");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the index was lost; another one is opened");
                None
            }
        }
    }
}

impl Readers {
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::IndexDamaged`] when the index cannot be opened.
    pub(crate) async fn open(options: SqliteConnectOptions) -> Result<Self, StoreError> {
        let free = Arc::new(Semaphore::new(READERS as usize));
        let readers = Self { options, idle: Arc::default(), free };
        let first = readers.connect().await?;
        readers.idle.lock().push(first);
        Ok(readers)
    }

    async fn connect(&self) -> Result<Open, StoreError> {
        let mut conn = self.options.clone().connect().await?;
        let abandoned = Arc::<AtomicBool>::default();
        let unwanted = Arc::clone(&abandoned);
        conn.lock_handle().await?.set_progress_handler(STEPS, move || !unwanted.load(Ordering::Relaxed));
        let now = Instant::now();
        Ok(Open { conn, opened: now, answered: now, abandoned })
    }

    /// The connection used last, once there is one that nobody uses.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`] when none can be opened.
    pub(crate) async fn get(&self) -> Result<Reader, StoreError> {
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let kept = self.idle.lock().pop().filter(|open| open.opened.elapsed() < AGE);
        let kept = match kept {
            Some(open) if open.answered.elapsed() >= TRUST => open.ask().await,
            kept => kept,
        };
        let open = match kept {
            Some(open) => open,
            None => self.connect().await?,
        };
        Ok(Reader { open: Some(open), idle: Arc::clone(&self.idle), permit: Some(permit) })
    }

    /// Closes all of them, each once nobody uses it.
    pub(crate) async fn close(&self) {
        let all = self.free.acquire_many(READERS).await;
        self.free.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle.lock());
        for open in idle {
            if let Err(error) = open.conn.close().await {
                tracing::warn!(%error, "a connection to the index could not be closed");
            }
        }
    }
}

/// A connection that is in use.
pub(crate) struct Reader {
    /// Until it is given back.
    open: Option<Open>,
    idle: Arc<Idle>,
    /// As long as `open` is not among `idle`.
    permit: Option<OwnedSemaphorePermit>,
}

impl Reader {
    /// A read transaction: all queries in it see the same state.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn snapshot(&mut self) -> Result<Transaction<'_, Sqlite>, StoreError> {
        Ok(self.begin().await?)
    }

    /// Gives the connection back at once. All its queries must have been answered without an error; it may still have to end a
    /// snapshot.
    pub(crate) fn done(mut self) {
        self.idle.lock().extend(self.open.take());
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        open.abandoned.store(true, Ordering::Relaxed);
        // without a runtime there will be no next one
        let Ok(runtime) = Handle::try_current() else { return };
        let (idle, permit) = (Arc::clone(&self.idle), self.permit.take());
        runtime.spawn(async move {
            let asked = open.ask().await;
            idle.lock().extend(asked);
            drop(permit);
        });
    }
}

impl Deref for Reader {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.open.as_ref().expect(HELD).conn
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.open.as_mut().expect(HELD).conn
    }
}

const HELD: &str = "a reader has its connection until it is dropped";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    const SOON: Duration = Duration::from_secs(20);

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

    /// All connections that come back, at once.
    async fn all_back(readers: &Readers) -> usize {
        let _all = timeout(SOON, readers.free.acquire_many(READERS)).await.expect("all come back").unwrap();
        readers.idle.lock().len()
    }

    #[tokio::test]
    async fn more_readers_than_connections_wait_for_their_turn() {
        let (_dir, _writer, readers) = index().await;
        let all = (0..READERS * 5).map(|i| {
            let readers = &readers;
            async move {
                let mut reader = readers.get().await.unwrap();
                let sum = sum(&mut reader).await;
                if i % 2 == 0 {
                    reader.done();
                }
                sum
            }
        });
        assert_eq!(futures::future::join_all(all).await, vec![1; READERS as usize * 5]);
        assert!((1..=READERS as usize).contains(&all_back(&readers).await));
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
        reader.done();
        assert_eq!(readers.idle.lock().len(), 1, "at once");
        assert_eq!(sum(&mut readers.get().await.unwrap()).await, 3);
        assert_eq!(all_back(&readers).await, 1);

        // nobody waits for it: a statement with rows, and one that would be in the middle of its only row for ever
        for (what, has_rows) in [(" SELECT i FROM n", true), (" SELECT count(*) FROM n", false)] {
            let mut reader = readers.get().await.unwrap();
            let sql = sqlx::AssertSqlSafe(format!("{ENDLESS}{what}"));
            let mut rows = sqlx::query(sql).fetch(&mut *reader);
            let row = timeout(Duration::from_millis(100), futures::StreamExt::next(&mut rows)).await;
            assert_eq!(row.is_ok(), has_rows);
            drop(rows);
            drop(reader);
            // the next one has another connection rather than wait
            let next = timeout(SOON, async { sum(&mut readers.get().await.unwrap()).await }).await;
            assert_eq!(next.unwrap(), 3);
            assert!(all_back(&readers).await >= 1);
        }
        for open in &mut *readers.idle.lock() {
            assert!(!open.abandoned.load(Ordering::Relaxed));
        }
        assert_eq!(sum(&mut readers.get().await.unwrap()).await, 3);
    }

    #[tokio::test]
    async fn a_connection_left_in_a_transaction_is_replaced() {
        let (_dir, _writer, readers) = index().await;
        let before = readers.idle.lock()[0].opened;
        let mut reader = readers.get().await.unwrap();
        let snapshot = reader.snapshot().await.unwrap();
        // ends on SQLite's side alone, as by an error in the middle of it
        std::mem::forget(snapshot);
        sqlx::raw_sql("ROLLBACK").execute(&mut *reader).await.unwrap();
        drop(reader);
        assert_eq!(all_back(&readers).await, 0);
        let mut reader = readers.get().await.unwrap();
        assert!(reader.open.as_ref().unwrap().opened > before);
        assert_eq!(sum(&mut reader).await, 1);
    }

    #[tokio::test]
    async fn old_connections_are_replaced_and_those_long_idle_are_asked() {
        let (_dir, _writer, readers) = index().await;
        let now = Instant::now();
        let earlier = |long: Duration| now.checked_sub(long).unwrap();
        let (old, young) = (earlier(AGE), earlier(AGE / 2));
        // opened, last answer; and whether it is another one then, and whether it was asked
        for (opened, answered, replaced, asked) in
            [(old, now, true, true), (young, earlier(TRUST), false, true), (young, now, false, false)]
        {
            readers.idle.lock().iter_mut().for_each(|open| (open.opened, open.answered) = (opened, answered));
            let mut reader = readers.get().await.unwrap();
            let open = reader.open.as_ref().unwrap();
            assert_eq!((open.opened != opened, open.answered != answered), (replaced, asked));
            assert_eq!(sum(&mut reader).await, 1);
            reader.done();
        }
    }

    #[tokio::test]
    async fn closing_waits_for_whoever_reads() {
        let (_dir, _writer, readers) = index().await;
        let mut reader = readers.get().await.unwrap();
        let mut closing = std::pin::pin!(readers.close());
        assert!(futures::poll!(&mut closing).is_pending());
        assert_eq!(sum(&mut reader).await, 1);
        assert!(futures::poll!(&mut closing).is_pending());
        // whether it is given back at once or asked first
        drop(reader);
        closing.await;
        assert!(readers.idle.lock().is_empty());
        assert!(matches!(readers.get().await, Err(StoreError::Closed)));
        readers.close().await;
    }
}

//! Checkpoints of the write-ahead log on a connection of their own: a commit that also had to checkpoint would wait
//! for the disk twice.
//!
//! SQLite lets one connection checkpoint what is committed while another writes. It restarts the log only where all of
//! it was checkpointed by the time of a commit. The writer's own `wal_autocheckpoint` sees to that; little is left for
//! it to do then.

use std::time::Duration;

use sqlx::{Connection, SqliteConnection};
use tokio::task::JoinHandle;

/// Time spent writing between two checkpoints: a page that is written again and again is copied once. Unit tests look into
/// the log.
const PERIOD: Duration = if cfg!(test) { Duration::from_secs(3600) } else { Duration::from_millis(250) };

/// Checkpoints on a connection of their own.
pub(crate) struct Checkpoints {
    connection: Connected,
    /// Time that was spent writing since the last checkpoint.
    writing: Duration,
}

enum Connected {
    Idle(SqliteConnection),
    Moving(JoinHandle<SqliteConnection>),
    /// Lost with the task that had it: the writer does all checkpoints.
    Not,
}

impl Checkpoints {
    /// On a connection that may write.
    pub(crate) fn new(connection: SqliteConnection) -> Self {
        Self { connection: Connected::Idle(connection), writing: Duration::ZERO }
    }

    /// Records how long a commit took, and starts a checkpoint if one is due. Does not wait for it.
    pub(crate) async fn wrote(&mut self, took: Duration) {
        self.writing = self.writing.saturating_add(took);
        let busy = matches!(&self.connection, Connected::Moving(moving) if !moving.is_finished());
        if self.writing < PERIOD || busy {
            return;
        }
        // returns at once: the last checkpoint has finished
        self.rest().await;
        self.connection = match std::mem::replace(&mut self.connection, Connected::Not) {
            Connected::Idle(connection) => {
                self.writing = Duration::ZERO;
                Connected::Moving(tokio::spawn(move_log(connection)))
            }
            other => other,
        };
    }

    /// Waits for a running checkpoint.
    pub(crate) async fn rest(&mut self) {
        if let Connected::Moving(moving) = &mut self.connection {
            self.connection = match moving.await {
                Ok(connection) => Connected::Idle(connection),
                Err(error) => {
                    tracing::warn!(%error, "the log of the index is moved by its writer from now on");
                    Connected::Not
                }
            };
        }
    }

    /// Waits for a running checkpoint and closes the connection.
    pub(crate) async fn close(mut self) {
        self.rest().await;
        if let Connected::Idle(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "a connection to the index did not close cleanly");
        }
    }
}

async fn move_log(mut connection: SqliteConnection) -> SqliteConnection {
    // nothing is lost: the log keeps what was not copied, and the writer's own checkpoints try again
    if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut connection).await {
        tracing::debug!(%error, "the log of the index could not be moved into it");
    }
    connection
}

#[cfg(test)]
mod tests {
    use sqlx::{
        ConnectOptions as _,
        sqlite::{SqliteConnectOptions, SqliteJournalMode},
    };

    use super::*;

    #[tokio::test]
    async fn the_log_is_moved_beside_a_writer_which_begins_it_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (index, log) = (dir.path().join("index"), dir.path().join("index-wal"));
        let connect = SqliteConnectOptions::new().filename(&index).journal_mode(SqliteJournalMode::Wal);
        let mut writer =
            connect.clone().create_if_missing(true).pragma("wal_autocheckpoint", "0").connect().await.unwrap();
        let mut checkpoints = Checkpoints::new(connect.connect().await.unwrap());
        sqlx::query("CREATE TABLE t (x)").execute(&mut writer).await.unwrap();
        let insert = async |writer: &mut SqliteConnection| {
            sqlx::query("INSERT INTO t VALUES (zeroblob(100000))").execute(writer).await.unwrap();
        };
        let sizes = || [&index, &log].map(|path| path.metadata().unwrap().len());
        insert(&mut writer).await;
        checkpoints.wrote(PERIOD / 2).await;
        checkpoints.rest().await;
        let [before, logged] = sizes();
        assert!(before < 100_000 && logged > 100_000, "too early");
        // while a transaction writes
        sqlx::query("BEGIN IMMEDIATE").execute(&mut writer).await.unwrap();
        insert(&mut writer).await;
        checkpoints.wrote(PERIOD / 2).await;
        checkpoints.rest().await;
        assert!(sizes()[0] > 100_000, "what is committed is moved");
        sqlx::query("COMMIT").execute(&mut writer).await.unwrap();
        for _ in 0..10 {
            checkpoints.wrote(PERIOD).await;
            checkpoints.rest().await;
            insert(&mut writer).await;
        }
        let [moved, logged] = sizes();
        assert!(moved > 10 * 100_000 && logged < 4 * 100_000, "the log stays as long as it was: {logged}");
        checkpoints.wrote(PERIOD).await;
        checkpoints.close().await;
        let n: i64 = sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&mut writer).await.unwrap();
        assert_eq!(n, 12);
    }

    /// Up to 3.51.2 a log that one connection moves while another begins it anew could lose a commit
    /// (<https://www.sqlite.org/wal.html#walresetbug>).
    #[tokio::test]
    async fn sqlite_is_new_enough_for_it() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut conn).await.unwrap();
        let numbers: Vec<u32> = version.split('.').map(|n| n.parse().unwrap()).collect();
        assert!(numbers >= vec![3, 51, 3], "{version}");
    }
}

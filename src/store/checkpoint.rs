//! The log's way into the index, beside the writer: a commit that had to move the log as well would wait for the disk twice.
//!
//! SQLite lets one connection move what is committed while another writes. It begins the log anew only where all of it has been
//! moved by the time of a commit, which the writer's own `wal_autocheckpoint` sees to: little is left for it to move then.

use std::time::Duration;

use futures::FutureExt as _;
use sqlx::{Connection, SqliteConnection};
use tokio::task::JoinHandle;

/// Time spent writing before the log is moved: what is written again and again is moved once.
const PERIOD: Duration = Duration::from_millis(250);

/// Moves the log on a connection of its own.
pub(super) struct Checkpoints {
    connection: Connected,
    /// Time that was spent writing since the log was last moved.
    writing: Duration,
}

enum Connected {
    Idle(SqliteConnection),
    Moving(JoinHandle<SqliteConnection>),
    /// Lost with the task that had it: the writer moves everything.
    Not,
}

impl Checkpoints {
    /// On a connection that may write.
    pub(super) fn new(connection: SqliteConnection) -> Self {
        Self { connection: Connected::Idle(connection), writing: Duration::ZERO }
    }

    /// Takes note of a commit that took so long, and begins to move the log where it is time to. Does not wait.
    pub(super) fn wrote(&mut self, took: Duration) {
        self.writing = self.writing.saturating_add(took);
        if self.writing < PERIOD {
            return;
        }
        self.connection = match std::mem::replace(&mut self.connection, Connected::Not) {
            Connected::Idle(connection) => self.begin(connection),
            Connected::Moving(mut moving) => match (&mut moving).now_or_never() {
                Some(Ok(connection)) => self.begin(connection),
                Some(Err(error)) => {
                    tracing::warn!(%error, "the log of the index is moved by its writer from now on");
                    Connected::Not
                }
                None => Connected::Moving(moving),
            },
            Connected::Not => Connected::Not,
        };
    }

    fn begin(&mut self, mut connection: SqliteConnection) -> Connected {
        self.writing = Duration::ZERO;
        Connected::Moving(tokio::spawn(async move {
            // what the writer leaves to it fails as quietly there: the log keeps what was not moved
            if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut connection).await {
                tracing::debug!(%error, "the log of the index could not be moved into it");
            }
            connection
        }))
    }

    /// Waits for what is being moved and closes the connection.
    pub(super) async fn close(self) {
        let connection = match self.connection {
            Connected::Idle(connection) => Some(connection),
            Connected::Moving(moving) => moving.await.ok(),
            Connected::Not => None,
        };
        if let Some(connection) = connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "a connection to the index did not close cleanly");
        }
    }
}

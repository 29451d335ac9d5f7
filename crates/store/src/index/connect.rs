//! Opening the database: settings, version and migrations.

use std::{cmp::Ordering, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::SqliteConnectOptions,
};

use crate::{blobs::LocalBlobs, error::StoreError};

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// What the writer and the readers have in common.
pub(crate) fn connect_options(blobs: &LocalBlobs) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(blobs.index())
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .pragma("temp_store", "MEMORY")
        // in KiB: of a large index, the upper levels of its trees stay in memory
        .pragma("cache_size", "-32768")
        .pragma("mmap_size", "0")
        // enough for the rows of a page: waking SQLite's thread costs more than a row
        .row_buffer_size(256)
        .disable_statement_logging()
}

/// Whether there is nothing in the index, not even tables.
pub(crate) async fn is_new(conn: &mut SqliteConnection) -> Result<bool, StoreError> {
    const ANY: &str = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)";
    Ok(sqlx::query_scalar(ANY).fetch_one(conn).await?)
}

pub(crate) async fn migrate(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let result = MIGRATIONS.run(&mut *conn).await;
    match result {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(found)) => Err(StoreError::Newer { found, known: newest_migration() }),
        Err(MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _)) => Err(e.into()),
        Err(other) => Err(StoreError::Database(Arc::new(other.into()))),
    }
}

/// Makes sure that the index has the version that this program knows.
///
/// # Errors
/// [`StoreError::Newer`] or [`StoreError::Older`] when another version wrote it; [`StoreError::Database`].
pub(crate) async fn check_version(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let (found, known) = (version(conn).await?, newest_migration());
    match found.cmp(&known) {
        Ordering::Less => Err(StoreError::Older { found, known }),
        Ordering::Greater => Err(StoreError::Newer { found, known }),
        Ordering::Equal => Ok(()),
    }
}

/// Makes sure that there is an index: SQLite's own word for a missing file names neither the folder nor the reason.
///
/// # Errors
/// [`StoreError::Io`] when there is none.
pub(crate) async fn check_exists(blobs: &LocalBlobs) -> Result<(), StoreError> {
    let index = blobs.index();
    tokio::fs::metadata(&index).await.map_err(StoreError::io(index.display()))?;
    Ok(())
}

/// Version of the index.
async fn version(conn: &mut SqliteConnection) -> Result<i64, StoreError> {
    let newest = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations");
    Ok(newest.fetch_one(conn).await?)
}

fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use sqlx::Connection;

    use super::*;

    /// Up to 3.51.2, a commit could be lost if one connection checkpoints the log while another restarts it
    /// (<https://www.sqlite.org/wal.html#walresetbug>). The server and `residuum keys` may do so.
    #[tokio::test]
    async fn sqlite_is_new_enough_for_checkpoints_of_two_connections() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut conn).await.unwrap();
        let numbers: Vec<u32> = version.split('.').map(|n| n.parse().unwrap()).collect();
        assert!(numbers >= vec![3, 51, 3], "{version}");
    }
}

//! What is taken from the old index, as far as it can still be read: API keys and tenants, pins and expiry, and
//! tombstones.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use sqlx::{ConnectOptions, Connection, SqliteConnection, error::ErrorKind, sqlite::SqliteConnectOptions};

use crate::{error::StoreError, index::checksum};

type Tenant = (i64, String, i64);
type Key = (String, i64, String, Vec<u8>, String, i64, Option<i64>, Option<i64>, Option<i64>);
type Lifetime = (Vec<u8>, bool, Option<i64>);

/// Rows of an index that is about to be moved aside. An `Err` says why they cannot be read.
pub(super) struct OldIndex {
    keys: Result<(Vec<Tenant>, Vec<Key>), String>,
    lifetimes: Result<Vec<Lifetime>, String>,
    /// What was deleted, and of what kind it is. Empty where an index has none, or cannot say.
    tombstones: Vec<(Vec<u8>, String)>,
}

impl OldIndex {
    /// Reads the index at `path`; `None` where there is none.
    pub(super) async fn read(path: &Path) -> Option<Self> {
        path.exists().then_some(())?;
        // a reader leaves a log behind: one that was there before may hold changes, a new one is garbage
        let logs = ["-wal", "-shm"].map(|end| PathBuf::from(format!("{}{end}", path.display())));
        let new: Vec<&PathBuf> = logs.iter().filter(|log| !log.exists()).collect();
        let kept = Self::read_index(path).await;
        for log in new {
            // what stays is set aside with the index
            let _ = std::fs::remove_file(log);
        }
        Some(kept)
    }

    async fn read_index(path: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).disable_statement_logging();
        let mut conn = match options.connect().await {
            Ok(conn) => conn,
            Err(error) => {
                let said = error.to_string();
                return Self { keys: Err(said.clone()), lifetimes: Err(said), tombstones: Vec::new() };
            }
        };
        let keys = read_keys(&mut conn).await.map_err(|error| error.to_string());
        let lifetimes =
            sqlx::query_as("SELECT id, pinned, expires_at FROM caches WHERE pinned OR expires_at IS NOT NULL")
                .fetch_all(&mut conn)
                .await
                .map_err(|error| error.to_string());
        // an older index has no such table
        let tombstones =
            sqlx::query_as("SELECT id, kind FROM tombstones").fetch_all(&mut conn).await.unwrap_or_default();
        // what it read is all that was asked of it
        let _ = conn.close().await;
        Self { keys, lifetimes, tombstones }
    }

    /// Enters tenants and keys, all of them or none.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`].
    pub(super) async fn enter_keys(
        &self,
        conn: &mut SqliteConnection,
        notes: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let entered = match &self.keys {
            Ok((tenants, keys)) => match insert_keys(conn, tenants, keys).await {
                Ok(()) => Ok((tenants.len(), keys.len())),
                // a flipped bit can leave a row that can be read and violates a constraint
                Err(sqlx::Error::Database(error)) if error.kind() != ErrorKind::Other => Err(error.to_string()),
                Err(other) => return Err(other.into()),
            },
            Err(error) => Err(error.clone()),
        };
        match entered {
            Ok((_, 0)) => {}
            Ok((n_tenants, n)) => notes.push(format!("{n} API keys of {n_tenants} tenants were taken from the old index")),
            Err(error) => notes.push(format!(
                "the API keys and tenants of the old index cannot be read ({error}): make new keys before you serve this folder"
            )),
        }
        Ok(())
    }

    /// Enters what was deleted, and gives the ids.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`].
    pub(super) async fn enter_tombstones(&self, conn: &mut SqliteConnection) -> Result<HashSet<[u8; 16]>, StoreError> {
        let mut tx = conn.begin().await?;
        let mut deleted = HashSet::new();
        for (id, kind) in &self.tombstones {
            // a flipped bit can leave a malformed row
            let Ok(known) = <[u8; 16]>::try_from(id.as_slice()) else { continue };
            if kind == "pack" || kind == "run" {
                let insert = sqlx::query("INSERT OR IGNORE INTO tombstones (id, kind) VALUES (?, ?)");
                insert.bind(id).bind(kind).execute(&mut *tx).await?;
                deleted.insert(known);
            }
        }
        tx.commit().await?;
        Ok(deleted)
    }

    /// Pins caches, and gives them their ends.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(super) async fn enter_lifetimes(
        &self,
        conn: &mut SqliteConnection,
        notes: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let lifetimes = match &self.lifetimes {
            Ok(read) => read,
            Err(error) => {
                notes.push(format!("pins and expiry cannot be read from the old index ({error})"));
                return Ok(());
            }
        };
        let mut n = 0;
        let mut tx = conn.begin().await?;
        for (id, pinned, expires_at) in lifetimes {
            let update = sqlx::query("UPDATE caches SET pinned = ?, expires_at = ? WHERE id = ?");
            n += update.bind(pinned).bind(expires_at).bind(id).execute(&mut *tx).await?.rows_affected();
            checksum::renew_cache(&mut tx, id).await?;
        }
        tx.commit().await?;
        if n > 0 {
            notes.push(format!("pins and expiry of {n} caches were taken from the old index"));
        }
        Ok(())
    }
}

async fn insert_keys(conn: &mut SqliteConnection, tenants: &[Tenant], keys: &[Key]) -> Result<(), sqlx::Error> {
    let mut tx = conn.begin().await?;
    for (id, name, created_at) in tenants {
        sqlx::query("INSERT OR REPLACE INTO tenants (id, name, created_at) VALUES (?, ?, ?)")
            .bind(id)
            .bind(name)
            .bind(created_at)
            .execute(&mut *tx)
            .await?;
    }
    for (id, tenant, name, hash, scopes, created_at, last_used_at, expires_at, revoked_at) in keys {
        sqlx::query(
            "INSERT INTO api_keys (id, tenant_id, name, secret_hash, scopes, created_at, last_used_at, expires_at, \
                 revoked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id)
        .bind(tenant)
        .bind(name)
        .bind(hash)
        .bind(scopes)
        .bind(created_at)
        .bind(last_used_at)
        .bind(expires_at)
        .bind(revoked_at)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await
}

async fn read_keys(conn: &mut SqliteConnection) -> Result<(Vec<Tenant>, Vec<Key>), sqlx::Error> {
    let tenants = sqlx::query_as("SELECT id, name, created_at FROM tenants").fetch_all(&mut *conn).await?;
    let keys = sqlx::query_as(
        "SELECT id, tenant_id, name, secret_hash, scopes, created_at, last_used_at, expires_at, revoked_at FROM api_keys",
    );
    Ok((tenants, keys.fetch_all(&mut *conn).await?))
}

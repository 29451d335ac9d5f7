//! API keys and tenants: creating, listing and revoking them, also while a server holds the folder.

use std::path::Path;

use jiff::Timestamp;
use sqlx::{
    ConnectOptions, Connection, QueryBuilder, Sqlite, SqliteConnection,
    sqlite::{SqliteRow, SqliteSynchronous},
};

use crate::{
    blobs::LocalBlobs,
    error::StoreError,
    index::{
        SqliteIndex,
        connect::{check_exists, check_version, connect_options},
        rows::{Fields, now, to_json},
        tx::Tx,
        write::Write,
    },
};
use residuum_domain::{KeyId, KeyRecord, KeyState, NewKey, TenantId};

impl SqliteIndex {
    /// Every key that was ever made here, revoked ones among them, oldest first. It sees at once what another process
    /// has committed.
    pub(crate) async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.rows(listing().build()).await?.iter().map(decode).collect()
    }

    /// Notes that a key was used. It may be lost in a power failure.
    pub(crate) async fn touch_key(&self, id: KeyId, at: Timestamp) -> Result<(), StoreError> {
        self.write(TouchKey { id, at }).await
    }

    /// The tenant of this name.
    pub(crate) async fn tenant(&self, name: &str) -> Result<Option<TenantId>, StoreError> {
        let row = self.row(sqlx::query("SELECT id FROM tenants WHERE name = ?").bind(name)).await?;
        row.map(|row| Fields::of("tenants", &row).get("id").map(TenantId)).transpose()
    }
}

/// The keys of a data folder, for the command line. Each change is one short transaction of the index, beside those of a
/// server that may have the folder; blobs are not touched.
pub struct KeyStore {
    conn: SqliteConnection,
}

impl KeyStore {
    /// Opens the index in `dir` as it is.
    ///
    /// # Errors
    /// [`StoreError::Newer`] or [`StoreError::Older`] when another version wrote it, [`StoreError::Io`] when there is
    /// none, [`StoreError::Database`].
    pub async fn open(dir: &Path) -> Result<Self, StoreError> {
        let blobs = LocalBlobs::open_read_only(dir);
        check_exists(&blobs).await?;
        let mut conn = connect_options(&blobs).synchronous(SqliteSynchronous::Full).connect().await?;
        check_version(&mut conn).await?;
        Ok(Self { conn })
    }

    /// Every key that was ever made here, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn list(&mut self) -> Result<Vec<KeyRecord>, StoreError> {
        listing().build().fetch_all(&mut self.conn).await?.iter().map(decode).collect()
    }

    /// Records a key, durably, and its tenant where that is new.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Database`].
    pub async fn create(&mut self, new: &NewKey) -> Result<KeyRecord, StoreError> {
        let mut tx = self.conn.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("INSERT INTO tenants (name, created_at) VALUES (?, ?) ON CONFLICT (name) DO NOTHING")
            .bind(&new.tenant)
            .bind(now())
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO api_keys (id, tenant_id, name, secret_hash, scopes, created_at, expires_at) \
             VALUES (?, (SELECT id FROM tenants WHERE name = ?), ?, ?, ?, ?, ?)",
        )
        .bind(new.key.id().to_string())
        .bind(&new.tenant)
        .bind(&new.name)
        .bind(new.key.secret_hash().as_bytes().as_slice())
        .bind(to_json(&new.scopes)?)
        .bind(now())
        .bind(new.expires_at.map(Timestamp::as_microsecond))
        .execute(&mut *tx)
        .await?;
        let record = decode(&one(new.key.id()).build().fetch_one(&mut *tx).await?)?;
        tx.commit().await?;
        Ok(record)
    }

    /// Revokes a key, durably. The record as it was before; `None` when there is no such key.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn revoke(&mut self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        let mut tx = self.conn.begin_with("BEGIN IMMEDIATE").await?;
        let before = one(id).build().fetch_optional(&mut *tx).await?.as_ref().map(decode).transpose()?;
        sqlx::query("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
            .bind(now())
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(before)
    }

    /// Forgets every key if none of them opens anything any more, so that a server asks for none from its next start.
    /// The keys that are still active; only where there are none was anything changed.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn forget_all(&mut self) -> Result<Vec<KeyRecord>, StoreError> {
        let mut tx = self.conn.begin_with("BEGIN IMMEDIATE").await?;
        let all = listing().build().fetch_all(&mut *tx).await?;
        let all = all.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        let active: Vec<KeyRecord> =
            all.into_iter().filter(|key| key.state(Timestamp::now()) == KeyState::Active).collect();
        if active.is_empty() {
            sqlx::query("DELETE FROM api_keys").execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(active)
    }

    /// Closes the index.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn close(self) -> Result<(), StoreError> {
        Ok(self.conn.close().await?)
    }
}

const SELECT: &str = "SELECT k.id, k.tenant_id, t.name AS tenant, k.name, k.secret_hash, k.scopes, k.created_at, \
     k.last_used_at, k.expires_at, k.revoked_at FROM api_keys k CROSS JOIN tenants t ON t.id = k.tenant_id";

/// A store has few keys: all are read, and sorted.
fn listing() -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(SELECT);
    query.push(" ORDER BY k.created_at, k.id");
    query
}

fn one(id: KeyId) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(SELECT);
    query.push(" WHERE k.id = ").push_bind(id.to_string());
    query
}

fn decode(row: &SqliteRow) -> Result<KeyRecord, StoreError> {
    let f = Fields::of("api_keys", row);
    Ok(KeyRecord {
        id: f.read("id", |id: &str| id.parse().ok())?,
        name: f.get("name")?,
        tenant: TenantId(f.get("tenant_id")?),
        tenant_name: f.get("tenant")?,
        secret_hash: f.read("secret_hash", |hash: &[u8]| blake3::Hash::from_slice(hash).ok())?,
        scopes: f.json("scopes")?,
        created_at: f.time("created_at")?,
        last_used_at: f.opt_time("last_used_at")?,
        expires_at: f.opt_time("expires_at")?,
        revoked_at: f.opt_time("revoked_at")?,
    })
}

struct TouchKey {
    id: KeyId,
    at: Timestamp,
}

impl Write for TouchKey {
    type Output = ();

    const DURABLE: bool = false;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.later("UPDATE api_keys SET last_used_at = ? WHERE id = ?")
            .bind(self.at.as_microsecond())
            .bind(self.id.to_string());
        Ok(())
    }
}

//! Editing and deleting caches.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    error::StoreError,
    index::{
        SqliteIndex, checksum,
        json::{merge, tags_json},
        rows::{Fields, hex_list, to_json},
        terms,
        tx::Tx,
        write::Write,
    },
    packs::unused::drop_unused,
};
use residuum_domain::{CacheId, CachePatch, TenantId};

/// What became of the caches that were to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletedCaches {
    /// Number of caches that were deleted.
    pub n_deleted: u64,
    /// Number of caches that were kept because they are pinned.
    pub n_pinned: u64,
}

impl SqliteIndex {
    /// Changes tags, metadata or label of a cache, if there is one.
    pub(crate) async fn patch_cache(&self, tenant: TenantId, id: CacheId, patch: CachePatch) -> Result<(), StoreError> {
        self.write(PatchCache { tenant, id, patch, now: self.now() }).await
    }

    /// Deletes a cache, and its activations if nothing else uses them. Says whether there was one. Its run keeps its
    /// counts.
    pub(crate) async fn delete_cache(&self, tenant: TenantId, id: CacheId) -> Result<bool, StoreError> {
        self.write(DeleteCache { tenant, id, now: self.now() }).await
    }

    /// Deletes caches in small transactions, pinned ones only if `and_pinned`. Gives the number of those that were there.
    pub(crate) async fn delete_caches(
        &self,
        tenant: TenantId,
        caches: &[CacheId],
        and_pinned: bool,
    ) -> Result<u64, StoreError> {
        let mut n = 0;
        for some in caches.chunks(CACHES_A_CHANGE) {
            n += self.write(DeleteCaches { tenant, caches: some.to_vec(), and_pinned, now: self.now() }).await?;
        }
        Ok(n)
    }
}

/// Caches deleted in one transaction, so that others get their turn.
const CACHES_A_CHANGE: usize = 500;

struct PatchCache {
    tenant: TenantId,
    id: CacheId,
    patch: CachePatch,
    /// What has expired by now is not there.
    now: i64,
}

impl Write for PatchCache {
    type Output = ();

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let row = sqlx::query(
            "SELECT metadata, label, tags, created_at, expires_at, pinned FROM caches \
             WHERE id = ? AND tenant_id = ? AND (ends_at IS NULL OR ends_at > ?)",
        )
        .bind(self.id.as_bytes().as_slice())
        .bind(self.tenant.0)
        .bind(self.now)
        .fetch_optional(tx.conn().await?)
        .await?;
        let Some(row) = row else { return Ok(()) };
        let f = Fields::of("caches", &row);
        let mut metadata: Map<String, Value> = f.json("metadata")?;
        if let Some(patch) = &self.patch.metadata {
            merge(&mut metadata, patch);
        }
        let expires_at = match &self.patch.expires_at {
            Some(time) => time.map(Timestamp::as_microsecond),
            None => f.get("expires_at")?,
        };
        let pinned = match self.patch.pinned {
            Some(pinned) => pinned,
            None => f.get("pinned")?,
        };
        let label = match &self.patch.label {
            Some(label) => label.clone(),
            None => f.get("label")?,
        };
        let tags = match &self.patch.tags {
            Some(tags) => tags_json(tags)?,
            None => f.get("tags")?,
        };
        tx.later("UPDATE caches SET metadata = ?, label = ?, tags = ?, expires_at = ?, pinned = ? WHERE id = ?")
            .bind(to_json(&metadata)?)
            .bind(label)
            .bind(tags)
            .bind(expires_at)
            .bind(pinned)
            .bind(self.id.as_bytes().as_slice());
        if self.patch.metadata.is_some() || self.patch.label.is_some() || self.patch.tags.is_some() {
            terms::replace(tx, &[f.get("created_at")?]).await?;
        }
        checksum::renew_cache(tx.conn().await?, self.id.as_bytes()).await
    }
}

struct DeleteCache {
    tenant: TenantId,
    id: CacheId,
    now: i64,
}

impl Write for DeleteCache {
    type Output = bool;
    const FREES: bool = true;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let extent: Option<i64> = sqlx::query_scalar(
            "DELETE FROM caches WHERE id = ? AND tenant_id = ? AND (ends_at IS NULL OR ends_at > ?) RETURNING extent_id",
        )
        .bind(self.id.as_bytes().as_slice())
        .bind(self.tenant.0)
        .bind(self.now)
        .fetch_optional(tx.conn().await?)
        .await?;
        drop_unused(tx, extent.as_slice()).await?;
        Ok(extent.is_some())
    }
}

struct DeleteCaches {
    tenant: TenantId,
    caches: Vec<CacheId>,
    and_pinned: bool,
    now: i64,
}

impl Write for DeleteCaches {
    type Output = u64;
    const FREES: bool = true;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        let extents: Vec<i64> = sqlx::query_scalar(
            "DELETE FROM caches WHERE id IN (SELECT unhex(j.value) FROM json_each(?) j) AND +tenant_id = ? \
             AND (pinned = 0 OR ?) AND (ends_at IS NULL OR ends_at > ?) RETURNING extent_id",
        )
        .bind(hex_list(self.caches.iter().map(|id| id.as_bytes().as_slice())))
        .bind(self.tenant.0)
        .bind(self.and_pinned)
        .bind(self.now)
        .fetch_all(tx.conn().await?)
        .await?;
        drop_unused(tx, &extents).await?;
        Ok(extents.len() as u64)
    }
}

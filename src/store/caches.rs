//! Caches: finding, describing, editing and deleting them.

use std::collections::HashMap;

use serde_json::{Map, Value};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{
    Store,
    error::StoreError,
    gc,
    rows::{Fields, hex_list, to_json},
    runs::{Tagged, insert_tags, tag_rows},
    tensors::{Location, StoredCache},
    writer::{Tx, Write},
};
use crate::domain::{Cache, CacheFilter, CacheId, CachePatch, Capture, PackId, RunId, TenantId, TensorStats};

const COLUMNS: &str = "c.id, c.tenant_id, c.run_id, c.item_index, c.model, c.text, c.token_ids, c.tokens, c.bos, \
    c.n_truncated, c.completion, c.reused, c.metadata, c.label, c.created_at, c.hook_set_id, c.positions, \
    (SELECT json_group_array(tag) FROM (SELECT tag FROM cache_tags WHERE cache_id = c.id ORDER BY position)) AS tags, \
    e.provenance_id, e.pack_id, e.n_tokens, e.n_rows, e.row_start, e.map_start, e.content_hash, e.stats, \
    p.layout_id, p.dtype, p.data_start, p.n_rows AS pack_rows, p.n_map AS pack_map";

/// Behind a table that gives `c`, whatever else there is to choose from.
const JOINED: &str = " CROSS JOIN extents e ON e.id = c.extent_id CROSS JOIN packs p ON p.id = e.pack_id";

impl Store {
    /// One cache of a tenant.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn cache(&self, tenant: TenantId, id: CacheId) -> Result<Option<Cache>, StoreError> {
        Ok(self.stored(tenant, &[id]).await?.pop().flatten().map(|s| s.cache))
    }

    /// Caches of a tenant, newest first, those older than `before` where it is given.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn caches(
        &self,
        tenant: TenantId,
        filter: &CacheFilter,
        before: Option<CacheId>,
        limit: u32,
    ) -> Result<Vec<Cache>, StoreError> {
        let stored = self.load(listing("", tenant, filter, before, limit)).await?;
        Ok(stored.into_iter().map(|s| s.cache).collect())
    }

    /// Caches of a tenant that can be read, newest first.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn choose(
        &self,
        tenant: TenantId,
        filter: &CacheFilter,
        limit: u32,
    ) -> Result<Vec<StoredCache>, StoreError> {
        self.load(listing("", tenant, filter, None, limit)).await
    }

    /// How many caches a filter finds.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn count_caches(&self, tenant: TenantId, filter: &CacheFilter) -> Result<u64, StoreError> {
        let mut query = QueryBuilder::new("SELECT count(*) AS n");
        chosen_from(&mut query, tenant, filter);
        let row = query.build().persistent(false).fetch_one(self.readers()).await?;
        Fields::of("caches", &row).uint("n")
    }

    /// Caches of a run in the order of its inputs, from input `from_item` on.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn run_caches(
        &self,
        tenant: TenantId,
        run: RunId,
        from_item: u32,
        limit: u32,
    ) -> Result<Vec<Cache>, StoreError> {
        let mut query = QueryBuilder::new("SELECT ");
        query.push(COLUMNS).push(" FROM caches c").push(JOINED);
        query.push(" WHERE c.run_id = ").push_bind(run.as_bytes().as_slice());
        query.push(" AND c.item_index >= ").push_bind(from_item);
        // the plus keeps the tenant's index out of it: the run's gives the order
        query.push(" AND +c.tenant_id = ").push_bind(tenant.0);
        query.push(" ORDER BY c.item_index LIMIT ").push_bind(i64::from(limit));
        Ok(self.load(query).await?.into_iter().map(|s| s.cache).collect())
    }

    /// Caches with the place of their tensors, in the order asked; `None` for those that the tenant does not have.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn stored(&self, tenant: TenantId, caches: &[CacheId]) -> Result<Vec<Option<StoredCache>>, StoreError> {
        let mut query = QueryBuilder::new("SELECT ");
        query
            .push(COLUMNS)
            .push(" FROM caches c")
            .push(JOINED)
            .push(" WHERE c.id IN (SELECT unhex(value) FROM json_each(");
        query.push_bind(hex_list(caches.iter().map(|id| id.as_bytes().as_slice())));
        query.push(")) AND +c.tenant_id = ").push_bind(tenant.0);
        let stored = self.load(query).await?;
        let by_id: HashMap<CacheId, StoredCache> = stored.into_iter().map(|s| (s.cache.id, s)).collect();
        Ok(caches.iter().map(|id| by_id.get(id).cloned()).collect())
    }

    /// Changes tags, metadata or label of a cache, and gives it as it is then. `None`: no such cache.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn patch_cache(
        &self,
        tenant: TenantId,
        id: CacheId,
        patch: CachePatch,
    ) -> Result<Option<Cache>, StoreError> {
        self.write(PatchCache { tenant, id, patch }).await?;
        self.cache(tenant, id).await
    }

    /// Deletes a cache, and its numbers where nothing else uses them. Says whether there was one. Its run keeps its
    /// counts.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`].
    pub async fn delete_cache(&self, tenant: TenantId, id: CacheId) -> Result<bool, StoreError> {
        self.write(DeleteCache { tenant, id }).await
    }

    /// Runs a query for [`COLUMNS`].
    async fn load(&self, mut query: QueryBuilder<Sqlite>) -> Result<Vec<StoredCache>, StoreError> {
        // one snapshot, so that what rows refer to is there
        let mut snapshot = self.readers().begin().await?;
        let rows = query.build().persistent(false).fetch_all(&mut *snapshot).await?;
        let mut caches = Vec::with_capacity(rows.len());
        for row in &rows {
            caches.push(self.decode(&mut snapshot, row).await?);
        }
        Ok(caches)
    }

    async fn decode(&self, conn: &mut SqliteConnection, row: &SqliteRow) -> Result<StoredCache, StoreError> {
        let f = Fields::of("caches", row);
        let origin = self.memo().origin(conn, f.get("provenance_id")?).await?;
        let layout = self.memo().layout(conn, f.get("layout_id")?).await?;
        let hooks = self.memo().hooks(conn, f.get("hook_set_id")?).await?;
        let extent = Fields::of("extents", row);
        let pack = Fields::of("packs", row);
        let dtype = pack.read("dtype", |d: &str| d.parse().ok())?;
        let (location, indices) = Location::new(&extent, &pack, &layout, dtype, &hooks)?;
        let token_ids: &[u8] = f.get("token_ids")?;
        let stats: Option<Vec<TensorStats>> = extent.opt_json("stats")?;
        let hash = extent.read("content_hash", |h: &[u8]| blake3::Hash::from_slice(h).ok())?;
        let cache = Cache {
            id: f.read("id", CacheId::from_slice)?,
            tenant: TenantId(f.get("tenant_id")?),
            run: f.read("run_id", RunId::from_slice)?,
            item_index: f.uint("item_index")?,
            model: f.get("model")?,
            n_layers: origin.n_layers,
            d_model: origin.d_model,
            text: f.get("text")?,
            token_ids: token_ids.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect(),
            tokens: f.json("tokens")?,
            capture: Capture { hooks, positions: f.json("positions")?, dtype },
            row_shapes: indices.iter().map(|i| layout.row_shapes[*i].clone()).collect(),
            bos: f.json("bos")?,
            n_truncated: f.uint("n_truncated")?,
            completion: f.opt_json("completion")?,
            stats: sum_stats(stats.as_deref(), &indices),
            provenance: origin.provenance.clone(),
            reused: f.get("reused")?,
            content_hash: hash.to_hex().to_string(),
            n_bytes: location.n_bytes(),
            tags: f.json("tags")?,
            metadata: f.json("metadata")?,
            label: f.get("label")?,
            created_at: f.time("created_at")?,
        };
        Ok(StoredCache::new(cache, location))
    }
}

/// The counts of those of an extent's hooks that a cache has.
fn sum_stats(stats: Option<&[TensorStats]>, indices: &[usize]) -> TensorStats {
    let of = |i: &usize| stats.and_then(|s| s.get(*i)).copied().unwrap_or_default();
    indices.iter().map(of).fold(TensorStats::default(), |sum, one| TensorStats {
        n_nan: sum.n_nan + one.n_nan,
        n_inf: sum.n_inf + one.n_inf,
    })
}

/// The statement of a listing, with `prefix` before it.
pub(super) fn listing(
    prefix: &str,
    tenant: TenantId,
    filter: &CacheFilter,
    before: Option<CacheId>,
    limit: u32,
) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(prefix);
    query.push("SELECT ").push(COLUMNS);
    let id = chosen_from(&mut query, tenant, filter);
    if let Some(before) = before {
        query.push(" AND ").push(id).push(" < ").push_bind(before.as_bytes().as_slice());
    }
    query.push(" ORDER BY ").push(id).push(" DESC LIMIT ").push_bind(i64::from(limit));
    query
}

/// The caches of a filter as `c`, with their extents as `e` and packs as `p`: everything behind the columns of a statement
/// up to its conditions. Gives the column of their ids that an index has in order.
pub(super) fn chosen_from(query: &mut QueryBuilder<Sqlite>, tenant: TenantId, filter: &CacheFilter) -> &'static str {
    // the tags' index has a cache's id too, in order
    let (id, more_tags) = if let [first, more @ ..] = filter.tags.as_slice() {
        query.push(" FROM cache_tags t CROSS JOIN caches c ON c.id = t.cache_id").push(JOINED);
        query.push(" WHERE t.tenant_id = ").push_bind(tenant.0).push(" AND t.tag = ").push_bind(first.as_str());
        ("t.cache_id", more)
    } else {
        query.push(" FROM caches c").push(JOINED).push(" WHERE c.tenant_id = ").push_bind(tenant.0);
        ("c.id", [].as_slice())
    };
    for tag in more_tags {
        query.push(" AND EXISTS (SELECT 1 FROM cache_tags m WHERE m.tenant_id = c.tenant_id AND m.cache_id = c.id");
        query.push(" AND m.tag = ").push_bind(tag.as_str()).push(")");
    }
    conditions(query, filter);
    id
}

fn conditions(query: &mut QueryBuilder<Sqlite>, filter: &CacheFilter) {
    if let Some(model) = &filter.model {
        query.push(" AND c.model = ").push_bind(model.as_str());
    }
    if let Some(run) = filter.run {
        query.push(" AND c.run_id = ").push_bind(run.as_bytes().as_slice());
    }
    if let Some(label) = &filter.label {
        query.push(" AND c.label = ").push_bind(label.as_str());
    }
    if let Some(hook) = filter.hook {
        query.push(" AND EXISTS (SELECT 1 FROM hook_set_hooks h WHERE h.hook_set_id = c.hook_set_id AND h.hook = ");
        query.push_bind(hook.to_string()).push(")");
    }
    if let Some(from) = filter.created_from {
        query.push(" AND c.created_at >= ").push_bind(micros_up(from));
    }
    if let Some(to) = filter.created_to {
        query.push(" AND c.created_at < ").push_bind(micros_up(to));
    }
    if let Some(text) = &filter.text {
        query.push(" AND instr(lower(c.text), lower(").push_bind(text.as_str()).push(")) > 0");
    }
    if let Some(fingerprint) = &filter.fingerprint {
        query.push(" AND e.provenance_id IN (SELECT v.id FROM provenances v");
        query.push(" WHERE json_extract(v.provenance, '$.model_fingerprint') = ");
        query.push_bind(fingerprint.as_str()).push(")");
    }
    if let Some(present) = filter.bos {
        query.push(" AND json_extract(c.bos, '$.present') = ").push_bind(present);
    }
    for (key, value) in &filter.metadata {
        let value = value.to_string();
        // A key goes in as a value too: quoted inside a path it could end the quotes.
        query.push(" AND EXISTS (SELECT 1 FROM json_each(c.metadata) m WHERE m.key = ").push_bind(key.as_str());
        query.push(" AND m.type = json_type(").push_bind(value.clone()).push(") AND m.value IS ");
        query.push("iif(m.type IN ('array', 'object'), json(").push_bind(value.clone()).push("), json_extract(");
        query.push_bind(value).push(", '$')))");
    }
}

/// The first whole microsecond at or after a time: both `>= t` and `< t` keep their meaning for whole microseconds.
fn micros_up(time: jiff::Timestamp) -> i64 {
    let micros = time.as_microsecond();
    let exact = time.as_nanosecond() <= i128::from(micros) * 1000;
    if exact { micros } else { micros + 1 }
}

struct PatchCache {
    tenant: TenantId,
    id: CacheId,
    patch: CachePatch,
}

impl Write for PatchCache {
    type Output = ();

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let row = sqlx::query("SELECT metadata, label FROM caches WHERE id = ? AND tenant_id = ?")
            .bind(self.id.as_bytes().as_slice())
            .bind(self.tenant.0)
            .fetch_optional(&mut *tx.conn)
            .await?;
        let Some(row) = row else { return Ok(()) };
        let f = Fields::of("caches", &row);
        let mut metadata: Map<String, Value> = f.json("metadata")?;
        if let Some(patch) = &self.patch.metadata {
            merge(&mut metadata, patch);
        }
        let label = match &self.patch.label {
            Some(label) => label.clone(),
            None => f.get("label")?,
        };
        sqlx::query("UPDATE caches SET metadata = ?, label = ? WHERE id = ?")
            .bind(to_json(&metadata)?)
            .bind(label)
            .bind(self.id.as_bytes().as_slice())
            .execute(&mut *tx.conn)
            .await?;
        if let Some(tags) = &self.patch.tags {
            sqlx::query("DELETE FROM cache_tags WHERE cache_id = ?")
                .bind(self.id.as_bytes().as_slice())
                .execute(&mut *tx.conn)
                .await?;
            insert_tags(tx, Tagged::Caches, &tag_rows(self.tenant, self.id.as_bytes(), tags)).await?;
        }
        Ok(())
    }
}

/// JSON merge patch (RFC 7396) of an object by an object.
pub(super) fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.shift_remove(key);
            }
            Value::Object(patch) => {
                let inner = target.entry(key.clone()).or_insert(Value::Null);
                if !inner.is_object() {
                    *inner = Value::Object(Map::new());
                }
                if let Value::Object(inner) = inner {
                    merge(inner, patch);
                }
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
}

struct DeleteCache {
    tenant: TenantId,
    id: CacheId,
}

impl Write for DeleteCache {
    type Output = bool;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let extent: Option<i64> =
            sqlx::query_scalar("DELETE FROM caches WHERE id = ? AND tenant_id = ? RETURNING extent_id")
                .bind(self.id.as_bytes().as_slice())
                .bind(self.tenant.0)
                .fetch_optional(&mut *tx.conn)
                .await?;
        gc::drop_unused(tx, extent.as_slice()).await?;
        Ok(extent.is_some())
    }
}

/// Reads the id of a pack.
pub(super) fn pack_id(fields: &Fields<'_>, column: &str) -> Result<PackId, StoreError> {
    fields.read(column, PackId::from_slice)
}

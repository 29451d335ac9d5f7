//! Runs: accepting, listing, cancelling and deleting them.

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite, sqlite::SqliteRow};
use uuid::Uuid;

use crate::{
    blocking::blocking,
    error::StoreError,
    find::search::micros_up,
    index::{
        SqliteIndex,
        intern::HookSets,
        rows::{Fields, int, now, push_limit, to_json},
        tx::Tx,
        write::Write,
    },
    packs::{item::ItemRecord, unused::drop_unused},
    runs::interventions,
};
use residuum_domain::{CacheId, Edits, Hook, NewRun, Priority, Run, RunId, RunStatus, TenantId};

/// Rows inserted by one statement: four binds each.
const ROWS_A_STATEMENT: usize = 1000;
/// Caches that a run names.
pub(crate) const LISTED_CACHES: usize = 100;
/// Items of a run whose caches are in the index of those that it names.
const INDEXED_ITEMS: i64 = 128;
/// Digits of an id as the list of runs reads it.
const HEX_ID: usize = 32;
/// How far the time in a run's id may be from the time it was accepted: a clock that was set back leaves a difference.
const CLOCK_STEP: std::time::Duration = std::time::Duration::from_secs(3600);

/// What became of a new run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is queued, durably.
    Created(RunId),
    /// The same request came before with this idempotency key, and made this run.
    Replayed(RunId),
    /// Another request came before with this idempotency key.
    KeyConflict,
}

/// Which runs a listing shows; every condition that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Is in this state.
    pub status: Option<RunStatus>,
    /// Runs on this model.
    pub model: Option<String>,
    /// Bears every one of these tags.
    pub tags: Vec<String>,
    /// Accepted at or after.
    pub created_from: Option<Timestamp>,
    /// Accepted before.
    pub created_to: Option<Timestamp>,
}

/// Adds the columns of a run; caches that have expired by `now` are not listed.
fn push_columns(query: &mut QueryBuilder<Sqlite>, now: i64) {
    // a query without a FROM is asked once, however often its result is used
    query.push(COLUMNS).push(", (SELECT iif(coalesce(length(first), 0) = ").push(LISTED_CACHES * HEX_ID);
    query.push(" OR NOT EXISTS (SELECT 1 FROM caches WHERE run_id = r.id AND item_index >= ").push(INDEXED_ITEMS);
    query.push("), first, (SELECT group_concat(hex(id), '') FROM (SELECT id");
    push_first_caches(query, now, false);
    query.push("))) FROM (SELECT (SELECT group_concat(hex(id), '') FROM (SELECT id");
    push_first_caches(query, now, true);
    query.push(")) AS first)) AS caches");
}

/// Adds ` FROM caches …` for the first caches of a run: of its first items, whose index is enough for them, or of all.
fn push_first_caches(query: &mut QueryBuilder<Sqlite>, now: i64, indexed: bool) {
    // not `ends_at`, which SQLite would compute from the row
    query.push(" FROM caches WHERE run_id = r.id AND (expires_at IS NULL OR pinned OR expires_at > ");
    query.push_bind(now).push(")");
    if indexed {
        query.push(" AND item_index < ").push(INDEXED_ITEMS);
    }
    query.push(" ORDER BY item_index LIMIT ").push(LISTED_CACHES);
}

const COLUMNS: &str = "r.id, r.tenant_id, r.status, r.model, r.priority, r.n_items, r.n_done, r.n_reused, r.n_failed, \
    r.metadata, r.generates, r.imported, r.ttl_seconds, r.created_at, r.started_at, r.finished_at, \
    (SELECT json_group_array(tag) FROM (SELECT tag FROM run_tags WHERE run_id = r.id ORDER BY position)) AS tags, \
    iif(r.n_failed > 0, (SELECT problem FROM run_items WHERE run_id = r.id AND status = 'failed' \
        ORDER BY item_index LIMIT 1), NULL) AS error";

impl SqliteIndex {
    /// Queues a run, durably. The same idempotency key with the same request gives the run it made before.
    pub(crate) async fn insert_run(&self, run: NewRun) -> Result<Inserted, StoreError> {
        if run.items.is_empty() {
            return Err(StoreError::Misuse("a run needs an input".to_owned()));
        }
        // long inputs take a while to encode
        let change = blocking(move || InsertRun::new(&run)).await?;
        self.write(change).await
    }

    /// One run of a tenant.
    pub(crate) async fn run(&self, tenant: TenantId, id: RunId) -> Result<Option<Run>, StoreError> {
        self.row(by_id(tenant, id, self.now()).build()).await?.as_ref().map(decode).transpose()
    }

    /// Runs of a tenant, newest first, those older than `before` where it is given.
    pub(crate) async fn runs(
        &self,
        tenant: TenantId,
        filter: RunFilter,
        before: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<Run>, StoreError> {
        let rows = self.rows(listing("", tenant, &filter, before, limit, self.now()).build()).await?;
        rows.iter().map(decode).collect()
    }

    /// Cancels what of a run is still pending; a run that has ended stays as it is. `None`: no such run.
    pub(crate) async fn cancel_run(&self, tenant: TenantId, id: RunId) -> Result<Option<Run>, StoreError> {
        self.write(CancelRun { tenant, id }).await?;
        self.run(tenant, id).await
    }

    /// Deletes a run with its caches, and the numbers that only they used. Says whether there was one.
    pub(crate) async fn delete_run(&self, tenant: TenantId, id: RunId) -> Result<bool, StoreError> {
        self.write(DeleteRun { tenant, id }).await
    }
}

/// The statement for one run.
pub(crate) fn by_id(tenant: TenantId, id: RunId, now: i64) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT ");
    push_columns(&mut query, now);
    query.push(" FROM runs r WHERE r.id = ").push_bind(id.as_bytes().as_slice());
    query.push(" AND +r.tenant_id = ").push_bind(tenant.0);
    query
}

/// The statement of a listing, with `prefix` before it.
pub(crate) fn listing(
    prefix: &str,
    tenant: TenantId,
    filter: &RunFilter,
    before: Option<RunId>,
    limit: u32,
    now: i64,
) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(prefix);
    query.push("SELECT ");
    push_columns(&mut query, now);
    // the tags' index has a run's id too, in order
    let (id, more_tags) = if let [tag, more @ ..] = filter.tags.as_slice() {
        query.push(" FROM run_tags t CROSS JOIN runs r ON r.id = t.run_id WHERE t.tenant_id = ").push_bind(tenant.0);
        query.push(" AND t.tag = ").push_bind(tag.as_str());
        ("t.run_id", more)
    } else {
        query.push(" FROM runs r WHERE r.tenant_id = ").push_bind(tenant.0);
        ("r.id", [].as_slice())
    };
    for tag in more_tags {
        query.push(" AND EXISTS (SELECT 1 FROM run_tags m WHERE m.tenant_id = r.tenant_id AND m.tag = ");
        query.push_bind(tag.as_str()).push(" AND m.run_id = r.id)");
    }
    // ids begin with the time they were made, give or take a step of the clock
    if let Some(from) = filter.created_from {
        query.push(" AND r.created_at >= ").push_bind(micros_up(from)).push(" AND ").push(id).push(" >= ");
        query.push_bind(RunId::earliest(from.saturating_sub(CLOCK_STEP).unwrap_or(from)).as_bytes().to_vec());
    }
    if let Some(to) = filter.created_to {
        query.push(" AND r.created_at < ").push_bind(micros_up(to)).push(" AND ").push(id).push(" < ");
        query.push_bind(RunId::earliest(to.saturating_add(CLOCK_STEP).unwrap_or(to)).as_bytes().to_vec());
    }
    if let Some(status) = filter.status {
        query.push(" AND r.status = ").push_bind(status.name());
    }
    if let Some(model) = &filter.model {
        query.push(" AND r.model = ").push_bind(model.as_str());
    }
    if let Some(before) = before {
        query.push(" AND ").push(id).push(" < ").push_bind(before.as_bytes().as_slice());
    }
    query.push(" ORDER BY ").push(id).push(" DESC");
    push_limit(&mut query, i64::from(limit));
    query
}

fn decode(row: &SqliteRow) -> Result<Run, StoreError> {
    let f = Fields::of("runs", row);
    let caches: Option<&str> = f.get("caches")?;
    Ok(Run {
        id: f.read("id", RunId::from_slice)?,
        tenant: TenantId(f.get("tenant_id")?),
        status: f.read("status", RunStatus::by_name)?,
        model: f.get("model")?,
        priority: f.read("priority", Priority::by_name)?,
        n_items: f.uint("n_items")?,
        n_done: f.uint("n_done")?,
        n_reused: f.uint("n_reused")?,
        n_failed: f.uint("n_failed")?,
        caches: caches.unwrap_or_default().as_bytes().chunks(32).filter_map(cache_of_hex).collect(),
        error: f.opt_json("error")?,
        tags: f.json("tags")?,
        metadata: f.json("metadata")?,
        generates: f.get("generates")?,
        imported: f.get("imported")?,
        ttl_seconds: f.get::<Option<i64>>("ttl_seconds")?.and_then(|ttl| u64::try_from(ttl).ok()),
        created_at: f.time("created_at")?,
        started_at: f.opt_time("started_at")?,
        finished_at: f.opt_time("finished_at")?,
    })
}

fn cache_of_hex(digits: &[u8]) -> Option<CacheId> {
    CacheId::from_slice(Uuid::try_parse_ascii(digits).ok()?.as_bytes())
}

/// Adds the tags of a run; one that it has already counts once.
pub(crate) async fn insert_tags(
    tx: &mut Tx<'_>,
    tenant: TenantId,
    id: RunId,
    tags: &[String],
) -> Result<(), StoreError> {
    let mut position = 0i64;
    tx.insert(
        "INSERT OR IGNORE INTO run_tags (tenant_id, run_id, position, tag)",
        tags,
        ROWS_A_STATEMENT,
        |script, tag| {
            script.bind(tenant.0).bind(id.as_bytes().as_slice()).bind(position).bind(tag.as_str());
            position += 1;
            Ok(())
        },
    )
    .await
}

struct InsertRun {
    tenant: TenantId,
    model: String,
    reuse: bool,
    priority: Priority,
    generates: bool,
    tags: Vec<String>,
    /// JSON
    metadata: String,
    ttl_seconds: Option<i64>,
    idempotency: Option<(String, [u8; 32])>,
    edits: Option<Arc<Edits>>,
    /// Distinct sets of hooks.
    hook_sets: Vec<Arc<[Hook]>>,
    /// Each item's set of hooks, and its record in JSON.
    items: Vec<(usize, String)>,
}

impl InsertRun {
    fn new(run: &NewRun) -> Result<Self, StoreError> {
        let mut hook_sets: Vec<Arc<[Hook]>> = Vec::new();
        let mut items = Vec::with_capacity(run.items.len());
        for item in &run.items {
            let hooks = &item.capture.hooks;
            let known = hook_sets.iter().position(|known| Arc::ptr_eq(known, hooks) || known == hooks);
            let set = known.unwrap_or_else(|| {
                hook_sets.push(Arc::clone(hooks));
                hook_sets.len() - 1
            });
            items.push((set, to_json(&ItemRecord::from(item))?));
        }
        Ok(Self {
            tenant: run.tenant,
            model: run.model.clone(),
            reuse: run.reuse,
            priority: run.priority,
            generates: run.generates(),
            tags: run.tags.clone(),
            metadata: to_json(&run.metadata)?,
            ttl_seconds: run.ttl_seconds.map(int).transpose()?,
            idempotency: run.idempotency.clone(),
            edits: run.edits.clone(),
            hook_sets,
            items,
        })
    }

    /// Inserts the run's row.
    fn insert(&self, tx: &mut Tx<'_>, id: RunId) -> Result<(), StoreError> {
        let (key, hash) = self.idempotency.as_ref().map(|(k, h)| (k.as_str(), h.as_slice())).unzip();
        tx.later(
            "INSERT INTO runs (id, tenant_id, status, model, reuse, n_items, metadata, idempotency_key, request_hash, \
                 created_at, generates, ttl_seconds, priority) \
             VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id.as_bytes().as_slice())
        .bind(self.tenant.0)
        .bind(&self.model)
        .bind(self.reuse)
        .bind(int(self.items.len())?)
        .bind(&self.metadata)
        .bind(key)
        .bind(hash)
        .bind(now())
        .bind(self.generates)
        .bind(self.ttl_seconds)
        .bind(self.priority.name());
        Ok(())
    }

    /// What became of it, where its idempotency key made a run before.
    async fn earlier(&self, tx: &mut Tx<'_>) -> Result<Option<Inserted>, StoreError> {
        let Some((key, hash)) = &self.idempotency else { return Ok(None) };
        tx.later("SELECT id, request_hash FROM runs WHERE tenant_id = ? AND idempotency_key = ?")
            .bind(self.tenant.0)
            .bind(key);
        let rows = tx.rows().await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let fields = Fields::of("runs", row);
        let same = fields.get::<&[u8]>("request_hash")? == hash.as_slice();
        Ok(Some(if same { Inserted::Replayed(fields.read("id", RunId::from_slice)?) } else { Inserted::KeyConflict }))
    }
}

impl Write for InsertRun {
    type Output = Inserted;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<Inserted, StoreError> {
        // made here, not before the wait, so that ids sort as the commits do and pages of a listing stay whole
        let id = RunId::generate();
        if let Some(earlier) = self.earlier(tx).await? {
            return Ok(earlier);
        }
        self.insert(tx, id)?;
        insert_tags(tx, self.tenant, id, &self.tags).await?;
        if let Some(edits) = &self.edits {
            interventions::insert(tx, id, edits)?;
        }
        let mut known = HookSets::default();
        let mut sets = Vec::with_capacity(self.hook_sets.len());
        for hooks in &self.hook_sets {
            sets.push(known.id(tx, hooks).await?);
        }
        let mut index = 0;
        let insert = "INSERT INTO run_items (run_id, item_index, hook_set_id, payload)";
        tx.insert(insert, &self.items, ROWS_A_STATEMENT, |script, (set, payload)| {
            script.bind(id.as_bytes().as_slice()).bind(index).bind(sets[*set]).bind(payload.as_str());
            index += 1;
            Ok(())
        })
        .await?;
        Ok(Inserted::Created(id))
    }
}

struct CancelRun {
    tenant: TenantId,
    id: RunId,
}

impl Write for CancelRun {
    type Output = ();
    const FREES: bool = true;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let cancelled = sqlx::query(
            "UPDATE runs SET status = 'cancelled', finished_at = ? \
             WHERE id = ? AND tenant_id = ? AND finished_at IS NULL",
        )
        .bind(now())
        .bind(self.id.as_bytes().as_slice())
        .bind(self.tenant.0)
        .execute(tx.conn().await?)
        .await?;
        if cancelled.rows_affected() > 0 {
            sqlx::query(
                "UPDATE run_items SET status = 'cancelled', payload = NULL, hook_set_id = NULL \
                 WHERE run_id = ? AND status = 'pending'",
            )
            .bind(self.id.as_bytes().as_slice())
            .execute(tx.conn().await?)
            .await?;
        }
        Ok(())
    }
}

struct DeleteRun {
    tenant: TenantId,
    id: RunId,
}

impl Write for DeleteRun {
    type Output = bool;
    const FREES: bool = true;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let extents: Vec<i64> =
            sqlx::query_scalar("SELECT DISTINCT extent_id FROM caches WHERE run_id = ? AND tenant_id = ?")
                .bind(self.id.as_bytes().as_slice())
                .bind(self.tenant.0)
                .fetch_all(tx.conn().await?)
                .await?;
        // a pack of theirs may be in work, which would be kept after a kill
        tx.later(
            "INSERT OR IGNORE INTO tombstones (id, kind) \
             SELECT id, 'run' FROM runs WHERE id = ? AND tenant_id = ? AND n_done < n_items",
        )
        .bind(self.id.as_bytes().as_slice())
        .bind(self.tenant.0);
        // items, tags and caches go with it
        let deleted = sqlx::query("DELETE FROM runs WHERE id = ? AND tenant_id = ?")
            .bind(self.id.as_bytes().as_slice())
            .bind(self.tenant.0)
            .execute(tx.conn().await?)
            .await?;
        drop_unused(tx, &extents).await?;
        Ok(deleted.rows_affected() > 0)
    }
}

//! Reading runs: one, or a page of a listing.

use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite, sqlite::SqliteRow};
use uuid::Uuid;

use crate::{
    error::StoreError,
    find::search::micros_up,
    index::{
        SqliteIndex,
        rows::{Fields, push_limit},
    },
};
use residuum_domain::{CacheId, Priority, Run, RunId, RunStatus, TenantId};

/// Caches that a run names.
pub(crate) const LISTED_CACHES: usize = 100;
/// Items of a run whose caches are in the partial index for these.
const INDEXED_ITEMS: i64 = 128;
/// Digits of an id as the list of runs reads it.
const HEX_ID: usize = 32;
/// How far the time in the id of a run may be from the time it was accepted, for example after the clock was set back.
const CLOCK_STEP: std::time::Duration = std::time::Duration::from_secs(3600);

/// Which runs a listing shows; every condition that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Is in this state.
    pub status: Option<RunStatus>,
    /// Runs on this model.
    pub model: Option<String>,
    /// Has every one of these tags.
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

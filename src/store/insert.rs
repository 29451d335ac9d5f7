//! The rows of packs, extents and caches: whatever makes caches inserts them here.

use std::{collections::HashMap, sync::Arc};

use sqlx::{QueryBuilder, Sqlite};

use super::{
    edit::tags_json,
    error::StoreError,
    forward_keys,
    intern::{self, HookSets},
    pack::FinishedPack,
    reuse::ExtentId,
    rows::{Fields, int, now, to_json},
    statements::{self, Insert},
    terms::{self, Described},
    writer::Tx,
};
use crate::domain::{CacheId, NewItem, RunId, TenantId, TensorStats};

/// Rows inserted by one statement: 22 binds a row stay below SQLite's 32,766. Every statement copies the pages that it changes, so
/// that it can be undone.
const ROWS_A_STATEMENT: usize = 1400;

/// A pending item.
pub(super) struct Unit {
    pub(super) row: i64,
    pub(super) tenant: TenantId,
    /// Name of the run's model.
    pub(super) model: Arc<str>,
    /// Microseconds that its cache lives.
    pub(super) ttl: Option<i64>,
}

/// A cache to be inserted.
pub(super) struct CacheRow<'a> {
    pub(super) id: CacheId,
    pub(super) run: RunId,
    pub(super) item_index: u32,
    pub(super) item: &'a NewItem,
    pub(super) extent: i64,
    pub(super) reused: bool,
    pub(super) unit: Unit,
}

/// Adds a pack with the extents of those items that are pending, or has its file removed where none is.
pub(super) async fn add_pack<'a>(
    tx: &mut Tx<'_>,
    pack: &'a FinishedPack,
    reused: bool,
    pending: &mut HashMap<(RunId, u32), Unit>,
    caches: &mut Vec<CacheRow<'a>>,
) -> Result<(), StoreError> {
    let header = &pack.header;
    let last: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'extents'")
        .fetch_optional(&mut *tx.conn)
        .await?;
    let mut extent = last.unwrap_or(0);
    let mut used = Vec::new();
    for (i, c) in header.caches.iter().enumerate() {
        if let Some(unit) = pending.remove(&(c.run, c.item_index)) {
            if unit.tenant != header.tenant {
                return Err(StoreError::Misuse("a pack has another tenant than a run of it".to_owned()));
            }
            extent += 1;
            used.push((i, extent));
            let (id, run, item_index) = (c.cache, c.run, c.item_index);
            caches.push(CacheRow { id, run, item_index, item: &c.item, extent, reused, unit });
        }
    }
    if used.is_empty() {
        tx.unlink.push(header.id);
        return Ok(());
    }
    insert_pack(tx, pack).await?;
    insert_extents(tx, pack, &used).await
}

pub(super) async fn insert_pack(tx: &mut Tx<'_>, pack: &FinishedPack) -> Result<(), StoreError> {
    let header = &pack.header;
    let hook_set = HookSets::default().id(tx.conn, pack.hooks()).await?;
    let layout = intern::layout_id(tx.conn, hook_set, &header.layout.row_shapes).await?;
    sqlx::query(
        "INSERT INTO packs (id, tenant_id, layout_id, dtype, data_start, n_rows, n_map, n_bytes, created_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(header.id.as_bytes().as_slice())
    .bind(header.tenant.0)
    .bind(layout)
    .bind(header.layout.dtype.name())
    .bind(int(pack.data_start)?)
    .bind(int(header.layout.n_rows())?)
    .bind(int(header.layout.n_map())?)
    .bind(int(pack.n_bytes)?)
    .bind(now())
    .execute(&mut *tx.conn)
    .await?;
    Ok(())
}

/// Inserts the extents of the items in `used`, each with the id it is to have, one after the other.
pub(super) async fn insert_extents(
    tx: &mut Tx<'_>,
    pack: &FinishedPack,
    used: &[(usize, i64)],
) -> Result<(), StoreError> {
    let header = &pack.header;
    let provenance = intern::provenance_id(tx.conn, &header.provenance, header.n_layers, header.d_model).await?;
    let statements = used.chunks(ROWS_A_STATEMENT).map(|chunk| {
        let mut rows = Vec::with_capacity(chunk.len());
        for (item, id) in chunk {
            let span = &header.layout.items[*item];
            let positions = to_json(&header.caches[*item].item.capture.positions)?;
            let finite = pack.stats[*item].iter().all(|s| *s == TensorStats::default());
            let stats = (!finite).then(|| to_json(&pack.stats[*item])).transpose()?;
            let numbers = [span.n_tokens, span.n_rows, span.row_start, span.map_start];
            let numbers = [int(numbers[0])?, int(numbers[1])?, int(numbers[2])?, int(numbers[3])?];
            rows.push((*item, *id, positions, stats, numbers));
        }
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO extents (id, tenant_id, pack_id, provenance_id, positions, n_tokens, n_rows, row_start, \
                 map_start, forward_key, content_hash, stats) ",
        );
        query.push_values(rows, |mut row, (item, id, positions, stats, numbers)| {
            row.push_bind(id).push_bind(header.tenant.0).push_bind(header.id.as_bytes().as_slice());
            row.push_bind(provenance).push_bind(positions);
            for number in numbers {
                row.push_bind(number);
            }
            row.push_bind(header.caches[item].forward_key.as_ref().map(<[u8; 32]>::as_slice));
            row.push_bind(pack.hashes[item].as_bytes().as_slice()).push_bind(stats);
        });
        Ok(Insert { query, repeats: chunk.len() == ROWS_A_STATEMENT })
    });
    statements::run(tx, statements).await?;
    if let [(_, first), ..] = used
        && let [.., (_, last)] = used
    {
        forward_keys::enter(tx, *first, *last).await?;
    }
    count(tx, "extents", used.len()).await
}

/// Tenants of those of the extents that are still there.
pub(super) async fn extent_tenants(
    tx: &mut Tx<'_>,
    extents: impl Iterator<Item = ExtentId>,
) -> Result<HashMap<i64, TenantId>, StoreError> {
    let ids: Vec<i64> = extents.map(|e| e.0).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query("SELECT id, tenant_id FROM extents WHERE id IN (SELECT value FROM json_each(?))")
        .bind(to_json(&ids)?)
        .fetch_all(&mut *tx.conn)
        .await?;
    rows.iter()
        .map(|row| {
            let f = Fields::of("extents", row);
            Ok((f.get("id")?, TenantId(f.get("tenant_id")?)))
        })
        .collect()
}

/// Inserts caches, each later than all that are there.
///
/// # Errors
/// [`StoreError::Database`].
pub(super) async fn insert_caches(tx: &mut Tx<'_>, caches: &[CacheRow<'_>]) -> Result<(), StoreError> {
    if caches.is_empty() {
        return Ok(());
    }
    // a microsecond apart: the time of a cache is its place in listings
    let first = next_time(tx).await?;
    let times: Vec<i64> = (first..).take(caches.len()).collect();
    insert_caches_at(tx, caches, &times).await
}

/// Inserts caches, each with its own time; no other cache has one of these.
pub(super) async fn insert_caches_at(
    tx: &mut Tx<'_>,
    caches: &[CacheRow<'_>],
    times: &[i64],
) -> Result<(), StoreError> {
    let mut sets = HookSets::default();
    let blocks = terms::blocks(tx, times).await?;
    let mut placed = Vec::with_capacity(caches.len());
    for ((cache, at), block) in caches.iter().zip(times.iter().copied()).zip(blocks) {
        placed.push(Placed { cache, at, block, hook_set: sets.id(tx.conn, &cache.item.capture.hooks).await? });
    }
    let mut entered = Vec::with_capacity(caches.len());
    let statements = placed.chunks(ROWS_A_STATEMENT).map(|chunk| {
        entered.extend(chunk.iter().map(|p| p.described().entered(p.block)));
        Ok(Insert { query: statement(chunk)?, repeats: chunk.len() == ROWS_A_STATEMENT })
    });
    statements::run(tx, statements).await?;
    terms::insert(tx, &entered).await?;
    count(tx, "caches", caches.len()).await
}

/// A cache to be inserted, and where it comes to be.
struct Placed<'a, 'c> {
    cache: &'a CacheRow<'c>,
    /// Its time.
    at: i64,
    /// The stretch of time it belongs to.
    block: i64,
    hook_set: i64,
}

impl Placed<'_, '_> {
    fn described(&self) -> Described<'_> {
        let item = self.cache.item;
        Described {
            tenant: self.cache.unit.tenant,
            at: self.at,
            run: self.cache.run,
            model: &self.cache.unit.model,
            hook_set: self.hook_set,
            label: item.label.as_deref(),
            tags: &item.tags,
            metadata: &item.metadata,
            text: item.text.as_deref(),
            completion: item.completion.as_ref().map(|c| c.text.as_str()),
        }
    }
}

/// The statement that inserts at most [`ROWS_A_STATEMENT`] caches, at least one.
fn statement(caches: &[Placed<'_, '_>]) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "INSERT INTO caches (id, tenant_id, run_id, item_index, extent_id, hook_set_id, positions, model, text, \
             token_ids, tokens, bos, completion, interventions, origin, n_truncated, reused, metadata, tags, label, \
             created_at, expires_at) VALUES ",
    );
    for (i, Placed { cache, at, hook_set, .. }) in caches.iter().enumerate() {
        let CacheRow { id, run, item_index, item, extent, reused, unit } = cache;
        let token_ids: Vec<u8> = item.token_ids.iter().flat_map(|t| t.to_le_bytes()).collect();
        let edits: Vec<_> = item.interventions.iter().map(|i| &i.described).collect();
        query.push(if i == 0 { "(" } else { ", (" });
        let mut row = query.separated(", ");
        row.push_bind(id.as_bytes().as_slice()).push_bind(unit.tenant.0);
        row.push_bind(run.as_bytes().as_slice()).push_bind(*item_index).push_bind(*extent).push_bind(*hook_set);
        row.push_bind(to_json(&item.capture.positions)?).push_bind(&*unit.model).push_bind(item.text.as_deref());
        row.push_bind(token_ids).push_bind(to_json(&item.tokens)?).push_bind(to_json(&item.bos)?);
        row.push_bind(item.completion.as_ref().map(to_json).transpose()?);
        row.push_bind((!edits.is_empty()).then(|| to_json(&edits)).transpose()?);
        row.push_bind(item.origin.as_ref().map(to_json).transpose()?);
        row.push_bind(int(item.n_truncated)?).push_bind(*reused);
        row.push_bind(to_json(&item.metadata)?).push_bind(tags_json(&item.tags)?).push_bind(item.label.as_deref());
        row.push_bind(*at).push_bind(unit.ttl.map(|ttl| at.saturating_add(ttl)));
        row.push_unseparated(")");
    }
    Ok(query)
}

/// Adds new rows to what the index says there is: SQLite would have to go through them.
///
/// # Errors
/// [`StoreError::Database`].
pub(super) async fn count(tx: &mut Tx<'_>, what: &str, n: usize) -> Result<(), StoreError> {
    sqlx::query("UPDATE counts SET n = n + ? WHERE what = ?").bind(int(n)?).bind(what).execute(&mut *tx.conn).await?;
    Ok(())
}

/// A time later than that of every cache, in microseconds: now, unless the clock stood still or went back.
async fn next_time(tx: &mut Tx<'_>) -> Result<i64, StoreError> {
    let last: Option<i64> = sqlx::query_scalar("SELECT max(created_at) FROM caches").fetch_one(&mut *tx.conn).await?;
    Ok(last.map_or(tx.now, |last| tx.now.max(last + 1)))
}

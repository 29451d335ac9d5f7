//! Completion: one transaction that turns computed, reused and failed items into caches and ended runs.

use std::{collections::HashMap, sync::Arc};

use sqlx::{QueryBuilder, Sqlite};

use super::{
    Store,
    caches::tags_json,
    error::StoreError,
    intern::{self, HookSets},
    pack::FinishedPack,
    reuse::ExtentId,
    rows::{Fields, hex, hex_list, int, now, to_json},
    terms::{self, Described},
    writer::{Tx, Write},
};
use crate::domain::{CacheId, NewItem, Problem, RunId, TenantId, TensorStats};

/// Rows inserted by one statement: 22 binds a row stay below SQLite's 32,766.
const ROWS_A_STATEMENT: usize = 500;

/// What became of a group of items.
#[derive(Debug, Default)]
pub struct Completion {
    /// Newly stored items.
    pub pack: Option<FinishedPack>,
    /// Whether the pack's numbers were copied from stored ones instead of computed: its items count as reused.
    pub copied: bool,
    /// Items answered by what is stored.
    pub reused: Vec<ReusedCache>,
    /// Items that failed, by run and index.
    pub failed: Vec<(RunId, u32, Problem)>,
}

/// An item that a stored extent answers.
#[derive(Debug, Clone)]
pub struct ReusedCache {
    /// What answers it, as [`Store::find_reusable`] gave it for this item's forward key and capture.
    pub extent: ExtentId,
    /// Id of the new cache.
    pub cache: CacheId,
    /// The run that asked.
    pub run: RunId,
    /// Its place among the run's inputs.
    pub item_index: u32,
    /// The input.
    pub item: NewItem,
}

impl Store {
    /// Makes caches of what was computed or reused, marks what failed, and ends the runs that have nothing pending:
    /// `failed` where an item failed, else `completed`. One transaction, durable on return; gives the runs it ended.
    ///
    /// Items that are no longer pending, because their run was cancelled or deleted meanwhile, are passed over; a pack
    /// of which nothing is used is removed.
    ///
    /// # Errors
    /// Nothing is changed then: [`StoreError::Gone`] where a reused extent was deleted after it was found, [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`], and
    /// [`StoreError::Misuse`] when the pack's tenant is not that of its runs.
    pub async fn complete(&self, done: Completion) -> Result<Vec<RunId>, StoreError> {
        self.write(Complete(done)).await
    }
}

/// Items of one run that ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) done: i64,
    pub(super) reused: i64,
    pub(super) failed: i64,
}

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

struct Complete(Completion);

impl Write for Complete {
    type Output = Vec<RunId>;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<Vec<RunId>, StoreError> {
        let done = &self.0;
        let mut pending = self.pending(tx).await?;
        let mut caches = Vec::new();
        if let Some(pack) = &done.pack {
            add_pack(tx, pack, done.copied, &mut pending, &mut caches).await?;
        }
        let mut failed: Vec<(RunId, i64, &Problem)> = Vec::new();
        let tenants = extent_tenants(tx, done.reused.iter().map(|r| r.extent)).await?;
        for r in &done.reused {
            if let Some(unit) = pending.remove(&(r.run, r.item_index)) {
                if tenants.get(&r.extent.0) != Some(&unit.tenant) {
                    return Err(StoreError::Gone);
                }
                let (id, run, item_index, extent) = (r.cache, r.run, r.item_index, r.extent.0);
                caches.push(CacheRow { id, run, item_index, item: &r.item, extent, reused: true, unit });
            }
        }
        for (run, index, problem) in &done.failed {
            if let Some(unit) = pending.remove(&(*run, *index)) {
                failed.push((*run, unit.row, problem));
            }
        }
        insert_caches(tx, &caches).await?;
        end_items(tx, &caches, &failed).await
    }
}

impl Complete {
    /// Those of the items that are pending.
    async fn pending(&self, tx: &mut Tx<'_>) -> Result<HashMap<(RunId, u32), Unit>, StoreError> {
        let packed = self.0.pack.iter().flat_map(|p| p.header.caches.iter().map(|c| (c.run, c.item_index)));
        let reused = self.0.reused.iter().map(|r| (r.run, r.item_index));
        let failed = self.0.failed.iter().map(|(run, index, _)| (*run, *index));
        let units = packed.chain(reused).chain(failed);
        let mut asked: HashMap<RunId, Vec<u32>> = HashMap::new();
        for (run, index) in units {
            asked.entry(run).or_default().push(index);
        }
        let asked: Vec<(String, Vec<u32>)> =
            asked.into_iter().map(|(run, items)| (hex(run.as_bytes()), items)).collect();
        // a row a run: a row an item would take longer than finding it
        let rows = sqlx::query(
            "SELECT r.id, r.tenant_id, r.model, r.ttl_seconds * 1000000 AS ttl, \
                 (SELECT json_group_array(json_array(i.item_index, i.rowid)) FROM json_each(j.value -> 1) j2 \
                  CROSS JOIN run_items i ON i.run_id = r.id AND i.item_index = j2.value WHERE i.status = 'pending') AS items \
             FROM json_each(?) j CROSS JOIN runs r ON r.id = unhex(j.value ->> 0)",
        )
        .bind(to_json(&asked)?)
        .fetch_all(&mut *tx.conn)
        .await?;
        let mut pending = HashMap::new();
        for row in &rows {
            let f = Fields::of("runs", row);
            let run = f.read("id", RunId::from_slice)?;
            let (tenant, ttl): (_, Option<i64>) = (TenantId(f.get("tenant_id")?), f.get("ttl")?);
            let model: Arc<str> = f.get::<&str>("model")?.into();
            let items: Vec<(u32, i64)> = f.json("items")?;
            for (item_index, row) in items {
                pending.insert((run, item_index), Unit { row, tenant, model: Arc::clone(&model), ttl });
            }
        }
        Ok(pending)
    }
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

/// Inserts the extents of the items in `used`, each with the id it is to have.
pub(super) async fn insert_extents(
    tx: &mut Tx<'_>,
    pack: &FinishedPack,
    used: &[(usize, i64)],
) -> Result<(), StoreError> {
    let header = &pack.header;
    let provenance = intern::provenance_id(tx.conn, &header.provenance, header.n_layers, header.d_model).await?;
    for chunk in used.chunks(ROWS_A_STATEMENT) {
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
        query.build().persistent(chunk.len() == ROWS_A_STATEMENT).execute(&mut *tx.conn).await?;
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
    let mut chunks = placed.chunks(ROWS_A_STATEMENT).map(|chunk| {
        chunk.iter().map(|p| Ok((p.row()?, p.described().entered(p.block)))).collect::<Result<Vec<_>, StoreError>>()
    });
    let mut next = chunks.next().transpose()?;
    while let Some(chunk) = next {
        let (rows, terms): (Vec<_>, Vec<_>) = chunk.into_iter().unzip();
        entered.extend(terms);
        let n = rows.len();
        let mut query = insert_rows(rows);
        // SQLite has a thread of its own: the next rows are made while it is busy with these
        let (done, made) = tokio::join!(
            biased;
            query.build().persistent(n == ROWS_A_STATEMENT).execute(&mut *tx.conn),
            async { chunks.next().transpose() }
        );
        done?;
        next = made?;
    }
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

/// What is not bound as it is.
struct Row<'a, 'c> {
    placed: &'a Placed<'a, 'c>,
    token_ids: Vec<u8>,
    /// Positions, tokens, BOS decision, metadata and tags.
    json: [String; 5],
    /// Completion, interventions and origin.
    optional: [Option<String>; 3],
    n_truncated: i64,
}

impl<'c> Placed<'_, 'c> {
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

    fn row(&self) -> Result<Row<'_, 'c>, StoreError> {
        let item = self.cache.item;
        let edits: Vec<_> = item.interventions.iter().map(|i| &i.described).collect();
        Ok(Row {
            placed: self,
            token_ids: item.token_ids.iter().flat_map(|t| t.to_le_bytes()).collect(),
            json: [
                to_json(&item.capture.positions)?,
                to_json(&item.tokens)?,
                to_json(&item.bos)?,
                to_json(&item.metadata)?,
                tags_json(&item.tags)?,
            ],
            optional: [
                item.completion.as_ref().map(to_json).transpose()?,
                (!edits.is_empty()).then(|| to_json(&edits)).transpose()?,
                item.origin.as_ref().map(to_json).transpose()?,
            ],
            n_truncated: int(item.n_truncated)?,
        })
    }
}

/// The statement for at most [`ROWS_A_STATEMENT`] caches.
fn insert_rows(rows: Vec<Row<'_, '_>>) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "INSERT INTO caches (id, tenant_id, run_id, item_index, extent_id, hook_set_id, positions, model, text, \
             token_ids, tokens, bos, completion, interventions, origin, n_truncated, reused, metadata, tags, label, \
             created_at, expires_at) ",
    );
    query.push_values(rows, |mut row, Row { placed, token_ids, json, optional, n_truncated }| {
        let Placed { cache, at, hook_set, .. } = placed;
        let ([positions, tokens, bos, metadata, tags], [completion, interventions, origin]) = (json, optional);
        row.push_bind(cache.id.as_bytes().to_vec()).push_bind(cache.unit.tenant.0);
        row.push_bind(cache.run.as_bytes().to_vec()).push_bind(cache.item_index);
        row.push_bind(cache.extent).push_bind(*hook_set).push_bind(positions);
        row.push_bind(cache.unit.model.to_string()).push_bind(cache.item.text.clone());
        row.push_bind(token_ids).push_bind(tokens).push_bind(bos).push_bind(completion);
        row.push_bind(interventions).push_bind(origin).push_bind(n_truncated);
        row.push_bind(cache.reused).push_bind(metadata).push_bind(tags).push_bind(cache.item.label.clone());
        row.push_bind(*at).push_bind(cache.unit.ttl.map(|ttl| at.saturating_add(ttl)));
    });
    query
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

/// Marks items as done or failed and ends the runs that have nothing left.
async fn end_items(
    tx: &mut Tx<'_>,
    caches: &[CacheRow<'_>],
    failed: &[(RunId, i64, &Problem)],
) -> Result<Vec<RunId>, StoreError> {
    let done: Vec<i64> = caches.iter().map(|c| c.unit.row).collect();
    sqlx::query(
        "UPDATE run_items SET status = 'done', payload = NULL, hook_set_id = NULL \
         WHERE rowid IN (SELECT value FROM json_each(?))",
    )
    .bind(to_json(&done)?)
    .execute(&mut *tx.conn)
    .await?;
    let problems: Vec<(i64, &Problem)> = failed.iter().map(|(_, row, problem)| (*row, *problem)).collect();
    fail_items(tx, &problems).await?;
    let done = caches.iter().map(|c| (c.run, Tally { done: 1, reused: i64::from(c.reused), failed: 0 }));
    let failed = failed.iter().map(|(run, ..)| (*run, Tally { failed: 1, ..Tally::default() }));
    let touched = tally(tx, done.chain(failed)).await?;
    finish_runs(tx, touched.iter().map(|run| run.as_bytes().as_slice())).await
}

/// Marks items, by rowid, as failed.
///
/// # Errors
/// [`StoreError::Database`].
pub(super) async fn fail_items(tx: &mut Tx<'_>, failed: &[(i64, &Problem)]) -> Result<(), StoreError> {
    if failed.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE run_items SET status = 'failed', payload = NULL, hook_set_id = NULL, problem = j.value -> 1 \
         FROM json_each(?) j WHERE run_items.rowid = j.value ->> 0",
    )
    .bind(to_json(failed)?)
    .execute(&mut *tx.conn)
    .await?;
    Ok(())
}

/// Counts ended items for their runs, which are given back, and marks those as running that nobody had claimed.
///
/// # Errors
/// [`StoreError::Database`].
pub(super) async fn tally(
    tx: &mut Tx<'_>,
    ended: impl IntoIterator<Item = (RunId, Tally)>,
) -> Result<Vec<RunId>, StoreError> {
    let mut runs: HashMap<RunId, Tally> = HashMap::new();
    for (run, one) in ended {
        let sum = runs.entry(run).or_default();
        *sum = Tally { done: sum.done + one.done, reused: sum.reused + one.reused, failed: sum.failed + one.failed };
    }
    let now = now();
    for (run, sum) in &runs {
        sqlx::query(
            "UPDATE runs SET n_done = n_done + ?, n_reused = n_reused + ?, n_failed = n_failed + ?, \
                 status = iif(status = 'queued', 'running', status), started_at = coalesce(started_at, ?) \
             WHERE id = ?",
        )
        .bind(sum.done)
        .bind(sum.reused)
        .bind(sum.failed)
        .bind(now)
        .bind(run.as_bytes().as_slice())
        .execute(&mut *tx.conn)
        .await?;
    }
    Ok(runs.into_keys().collect())
}

/// Ends those of the runs that have nothing pending, and gives them back.
///
/// # Errors
/// [`StoreError::Database`].
pub(super) async fn finish_runs<'a>(
    tx: &mut Tx<'_>,
    runs: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<RunId>, StoreError> {
    let rows = sqlx::query(
        "UPDATE runs SET status = iif(n_failed > 0, 'failed', 'completed'), finished_at = ? \
         WHERE id IN (SELECT unhex(value) FROM json_each(?)) AND finished_at IS NULL \
           AND NOT EXISTS (SELECT 1 FROM run_items i WHERE i.run_id = runs.id AND i.status = 'pending') \
         RETURNING id",
    )
    .bind(now())
    .bind(hex_list(runs))
    .fetch_all(&mut *tx.conn)
    .await?;
    rows.iter().map(|row| Fields::of("runs", row).read("id", RunId::from_slice)).collect()
}

//! Inserting the rows of packs, extents and caches. Everything that makes caches does it through here.

use std::{collections::HashMap, sync::Arc};

use sqlx::sqlite::SqliteRow;

use crate::{
    error::StoreError,
    index::{
        SqliteIndex,
        checksum::Checksum,
        forward_keys,
        intern::{self, HookSets},
        json::tags_json,
        rows::{Fields, int, now, to_json},
        terms::{self, Described, Partitions},
        tx::{Script, Tx},
    },
    packs::{location::ExtentId, pack_writer::FinishedPack},
};
use residuum_domain::{CacheId, NewItem, PackId, RunId, TenantId, TensorStats};

/// Rows inserted by one statement: 23 binds a row stay below SQLite's 32,766. Every statement copies the pages that it changes, so
/// that it can be undone.
const ROWS_A_STATEMENT: usize = 1400;

/// Microseconds by which the time of a cache may be ahead of the clock when its time to live is counted from there: the
/// caches of one commit are a microsecond apart.
const MOST_AHEAD: i64 = 1_000_000;

impl SqliteIndex {
    /// Whether the index knows a pack.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn has_pack(&self, id: PackId) -> Result<bool, StoreError> {
        let query = sqlx::query("SELECT 1 FROM packs WHERE id = ?").bind(id.as_bytes().as_slice());
        Ok(self.row(query).await?.is_some())
    }
}

/// A pending item.
pub(crate) struct Unit {
    pub(crate) row: i64,
    pub(crate) tenant: TenantId,
    /// Name of the run's model.
    pub(crate) model: Arc<str>,
    /// Microseconds that its cache lives.
    pub(crate) ttl: Option<i64>,
}

/// A cache to be inserted.
pub(crate) struct CacheRow<'a> {
    pub(crate) id: CacheId,
    pub(crate) run: RunId,
    pub(crate) item_index: u32,
    pub(crate) item: &'a NewItem,
    pub(crate) extent: i64,
    pub(crate) reused: bool,
    pub(crate) unit: Unit,
}

/// The ends of the tables: new rows come after them.
pub(crate) struct Ends {
    /// Largest id that an extent ever had.
    extent: i64,
    /// A time later than that of every cache, in microseconds: now, unless the clock stood still or went back.
    time: i64,
    partitions: Partitions,
}

/// The statement for [`Ends`]: one row.
pub(crate) const ENDS: &str = "SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'extents') AS extent, \
    (SELECT max(created_at) FROM caches) AS last, first_at, last_at, n FROM cache_blocks ORDER BY first_at DESC LIMIT 1";

impl Ends {
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`] of what waits.
    pub(crate) async fn find(tx: &mut Tx<'_>) -> Result<Self, StoreError> {
        let row = sqlx::query(ENDS).fetch_one(tx.conn().await?).await?;
        Self::read(tx, &row)
    }

    /// Reads the row of [`ENDS`].
    pub(crate) fn read(tx: &Tx<'_>, row: &SqliteRow) -> Result<Self, StoreError> {
        let f = Fields::of("cache_blocks", row);
        let last: Option<i64> = f.get("last")?;
        Ok(Self {
            extent: f.get::<Option<i64>>("extent")?.unwrap_or(0),
            time: last.map_or(tx.now, |last| tx.now.max(last + 1)),
            partitions: Partitions { first_at: f.get("first_at")?, last_at: f.get("last_at")?, n: f.get("n")? },
        })
    }
}

/// Inserts a pack with the extents of those items that are pending, or has its file removed if none is.
pub(crate) async fn add_pack<'a>(
    tx: &mut Tx<'_>,
    ends: &mut Ends,
    pack: &'a FinishedPack,
    reused: bool,
    pending: &mut HashMap<(RunId, u32), Unit>,
    caches: &mut Vec<CacheRow<'a>>,
) -> Result<(), StoreError> {
    let header = &pack.header;
    let mut used = Vec::new();
    for (i, c) in header.caches.iter().enumerate() {
        if let Some(unit) = pending.remove(&(c.run, c.item_index)) {
            if unit.tenant != header.tenant {
                return Err(StoreError::Misuse("a pack has another tenant than a run of it".to_owned()));
            }
            ends.extent += 1;
            used.push((i, ends.extent));
            let (id, run, item_index, extent) = (c.cache, c.run, c.item_index, ends.extent);
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

pub(crate) async fn insert_pack(tx: &mut Tx<'_>, pack: &FinishedPack) -> Result<(), StoreError> {
    let header = &pack.header;
    let hook_set = HookSets::default().id(tx, pack.hooks()).await?;
    let layout = intern::layout_id(tx, hook_set, &header.layout.row_shapes).await?;
    tx.later(
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
    .bind(now());
    Ok(())
}

/// Inserts the extents of the items in `used`, each with the id it is to have, one after the other.
pub(crate) async fn insert_extents(
    tx: &mut Tx<'_>,
    pack: &FinishedPack,
    used: &[(usize, i64)],
) -> Result<(), StoreError> {
    let header = &pack.header;
    let provenance = intern::provenance_id(tx, &header.provenance, header.n_layers, header.d_model).await?;
    let insert = "INSERT INTO extents (id, tenant_id, pack_id, provenance_id, positions, n_tokens, n_rows, row_start, \
        map_start, forward_key, content_hash, stats)";
    tx.insert(insert, used, ROWS_A_STATEMENT, |script, (item, id)| {
        let (span, cache) = (&header.layout.items[*item], &header.caches[*item]);
        let finite = pack.stats[*item].iter().all(|s| *s == TensorStats::default());
        script.bind(*id).bind(header.tenant.0).bind(header.id.as_bytes().as_slice()).bind(provenance);
        script.bind(to_json(&cache.item.capture.positions)?);
        script.bind(int(span.n_tokens)?).bind(int(span.n_rows)?).bind(int(span.row_start)?).bind(int(span.map_start)?);
        script.bind(cache.forward_key.as_ref().map(<[u8; 32]>::as_slice));
        script.bind(pack.hashes[*item].as_bytes().as_slice());
        script.bind((!finite).then(|| to_json(&pack.stats[*item])).transpose()?);
        Ok(())
    })
    .await?;
    if let [(_, first), ..] = used
        && let [.., (_, last)] = used
    {
        forward_keys::enter(tx, *first, *last);
    }
    count(tx, "extents", used.len())
}

/// Adds the query for the tenants of those of the extents that are still there.
///
/// # Errors
/// As [`to_json`].
pub(crate) fn push_extent_tenants(tx: &mut Tx<'_>, extents: impl Iterator<Item = ExtentId>) -> Result<(), StoreError> {
    let ids: Vec<i64> = extents.map(|e| e.0).collect();
    tx.later("SELECT id, tenant_id FROM extents WHERE id IN (SELECT value FROM json_each(?))").bind(to_json(&ids)?);
    Ok(())
}

/// Reads what [`push_extent_tenants`] asked for.
///
/// # Errors
/// [`StoreError::Damaged`].
pub(crate) fn read_extent_tenants(rows: &[SqliteRow]) -> Result<HashMap<i64, TenantId>, StoreError> {
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
pub(crate) async fn insert_caches(tx: &mut Tx<'_>, ends: Ends, caches: &[CacheRow<'_>]) -> Result<(), StoreError> {
    if caches.is_empty() {
        return Ok(());
    }
    // a microsecond apart: the time of a cache is its place in listings
    let times: Vec<i64> = (ends.time..).take(caches.len()).collect();
    insert_caches_at(tx, ends.partitions, caches, &times).await
}

/// Inserts caches, each with its own time; no other cache has one of these.
pub(crate) async fn insert_caches_at(
    tx: &mut Tx<'_>,
    partitions: Partitions,
    caches: &[CacheRow<'_>],
    times: &[i64],
) -> Result<(), StoreError> {
    let mut sets = HookSets::default();
    let partitions = partitions.enter(tx, times).await?;
    let mut placed = Vec::with_capacity(caches.len());
    for ((cache, at), partition) in caches.iter().zip(times.iter().copied()).zip(partitions) {
        placed.push(Placed { cache, at, partition, hook_set: sets.id(tx, &cache.item.capture.hooks).await? });
    }
    let mut entered = Vec::with_capacity(caches.len());
    let insert = "INSERT INTO caches (id, tenant_id, run_id, item_index, extent_id, hook_set_id, positions, model, text, \
        token_ids, tokens, bos, completion, interventions, origin, n_truncated, reused, metadata, tags, label, created_at, \
        expires_at, checksum)";
    let now = tx.now;
    tx.insert(insert, &placed, ROWS_A_STATEMENT, |script, placed| {
        entered.push(placed.described().entered(placed.partition));
        placed.bind(script, now)
    })
    .await?;
    terms::insert(tx, &entered).await?;
    count(tx, "caches", caches.len())
}

/// A cache to be inserted, and its place.
struct Placed<'a, 'c> {
    cache: &'a CacheRow<'c>,
    /// Its time.
    at: i64,
    /// The time partition it belongs to.
    partition: i64,
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

    /// Binds the values of its row, in the order of [`crate::index::checksum::CACHE`] where it has one.
    fn bind(&self, script: &mut Script, now: i64) -> Result<(), StoreError> {
        let CacheRow { id, run, item_index, item, extent, reused, unit } = self.cache;
        let token_ids: Vec<u8> = item.token_ids.iter().flat_map(|t| t.to_le_bytes()).collect();
        let edits: Vec<_> = item.interventions.iter().map(|i| &i.described).collect();
        let (positions, tokens, bos) = (to_json(&item.capture.positions)?, to_json(&item.tokens)?, to_json(&item.bos)?);
        let completion = item.completion.as_ref().map(to_json).transpose()?;
        let edits = (!edits.is_empty()).then(|| to_json(&edits)).transpose()?;
        let origin = item.origin.as_ref().map(to_json).transpose()?;
        let n_truncated = int(item.n_truncated)?;
        let (metadata, tags) = (to_json(&item.metadata)?, tags_json(&item.tags)?);
        // `at` is later than the clock where that was set back, maybe by years
        let stored_at = self.at.min(now.saturating_add(MOST_AHEAD));
        let expires_at = unit.ttl.map(|ttl| stored_at.saturating_add(ttl));
        let mut sum = Checksum::default();
        sum.blob(id.as_bytes())
            .int(unit.tenant.0)
            .blob(run.as_bytes())
            .int(*item_index)
            .int(*extent)
            .int(self.hook_set);
        sum.text(&positions).text(&unit.model).opt_text(item.text.as_deref()).blob(&token_ids).text(&tokens).text(&bos);
        sum.opt_text(completion.as_deref()).opt_text(edits.as_deref()).opt_text(origin.as_deref());
        sum.int(n_truncated).int(*reused).text(&metadata).text(&tags).opt_text(item.label.as_deref()).int(self.at);
        match expires_at {
            Some(time) => sum.int(time),
            None => sum.null(),
        };
        // new caches are not pinned
        let sum = sum.int(0).finish();
        script.bind(id.as_bytes().as_slice()).bind(unit.tenant.0);
        script.bind(run.as_bytes().as_slice()).bind(*item_index).bind(*extent).bind(self.hook_set);
        script.bind(positions).bind(&*unit.model).bind(item.text.as_deref());
        script.bind(token_ids).bind(tokens).bind(bos);
        script.bind(completion).bind(edits).bind(origin);
        script.bind(n_truncated).bind(*reused);
        script.bind(metadata).bind(tags).bind(item.label.as_deref());
        script.bind(self.at).bind(expires_at).bind(sum.as_slice());
        Ok(())
    }
}

/// Adds to the counts of rows, which SQLite would have to scan for.
///
/// # Errors
/// [`StoreError::Misuse`].
pub(crate) fn count(tx: &mut Tx<'_>, what: &str, n: usize) -> Result<(), StoreError> {
    tx.later("UPDATE counts SET n = n + ? WHERE what = ?").bind(int(n)?).bind(what);
    Ok(())
}

//! Completion: one transaction that turns computed, reused and failed items into caches and ended runs.

use std::{collections::HashMap, sync::Arc};

use crate::{
    error::StoreError,
    index::{
        SqliteIndex,
        rows::{Fields, hex, hex_list, now, to_json},
        tx::Tx,
        write::Write,
    },
    packs::{
        insert::{CacheRow, Ends, Unit, add_pack, insert_caches, push_extent_tenants, read_extent_tenants},
        location::ExtentId,
        pack_writer::FinishedPack,
    },
};
use residuum_domain::{CacheId, NewItem, Problem, RunId, TenantId};

/// What became of some items.
#[derive(Debug, Default)]
pub struct Completion {
    /// Newly stored items.
    pub pack: Option<FinishedPack>,
    /// Whether the activations of the pack were copied from stored ones instead of computed: its items count as reused.
    pub copied: bool,
    /// Items answered by what is stored.
    pub reused: Vec<ReusedCache>,
    /// Items that failed, by run and index.
    pub failed: Vec<(RunId, u32, Problem)>,
}

/// An item that a stored extent answers.
#[derive(Debug, Clone)]
pub struct ReusedCache {
    /// What answers it, as [`crate::Store::find_reusable`] gave it for this item's forward key and capture.
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

impl SqliteIndex {
    /// Makes caches of what was computed or reused, marks what failed, and ends the runs that have nothing pending:
    /// `failed` where an item failed, else `completed`. One transaction, durable on return; gives the runs it ended.
    ///
    /// Items that are no longer pending, because their run was cancelled or deleted meanwhile, are passed over; a pack
    /// of which nothing is used is removed.
    pub(crate) async fn complete(&self, done: Completion) -> Result<Vec<RunId>, StoreError> {
        self.write(Complete(done)).await
    }
}

/// Items of one run that ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) done: i64,
    pub(crate) reused: i64,
    pub(crate) failed: i64,
}

struct Complete(Completion);

impl Write for Complete {
    type Output = Vec<RunId>;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<Vec<RunId>, StoreError> {
        let done = &self.0;
        let mut pending = self.pending(tx).await?;
        let tenants = if done.reused.is_empty() {
            HashMap::new()
        } else {
            push_extent_tenants(tx, done.reused.iter().map(|r| r.extent))?;
            read_extent_tenants(&tx.rows().await?)?
        };
        let mut ends = Ends::find(tx).await?;
        let mut caches = Vec::new();
        if let Some(pack) = &done.pack {
            add_pack(tx, &mut ends, pack, done.copied, &mut pending, &mut caches).await?;
        }
        let mut failed: Vec<(RunId, i64, &Problem)> = Vec::new();
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
        insert_caches(tx, ends, &caches).await?;
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
        // one row for each run: a row for each item would cost more than finding it
        tx.later(
            "SELECT r.id, r.tenant_id, r.model, r.ttl_seconds * 1000000 AS ttl, \
                 (SELECT json_group_array(json_array(i.item_index, i.rowid)) FROM json_each(j.value -> 1) j2 \
                  CROSS JOIN run_items i ON i.run_id = r.id AND i.item_index = j2.value WHERE i.status = 'pending') AS items \
             FROM json_each(?) j CROSS JOIN runs r ON r.id = unhex(j.value ->> 0)",
        )
        .bind(to_json(&asked)?);
        let rows = tx.rows().await?;
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

/// Marks items as done or failed and ends the runs that have nothing left.
async fn end_items(
    tx: &mut Tx<'_>,
    caches: &[CacheRow<'_>],
    failed: &[(RunId, i64, &Problem)],
) -> Result<Vec<RunId>, StoreError> {
    let done: Vec<i64> = caches.iter().map(|c| c.unit.row).collect();
    tx.later(
        "UPDATE run_items SET status = 'done', payload = NULL, hook_set_id = NULL \
         WHERE rowid IN (SELECT value FROM json_each(?))",
    )
    .bind(to_json(&done)?);
    let problems: Vec<(i64, &Problem)> = failed.iter().map(|(_, row, problem)| (*row, *problem)).collect();
    fail_items(tx, &problems)?;
    let done = caches.iter().map(|c| (c.run, Tally { done: 1, reused: i64::from(c.reused), failed: 0 }));
    let failed = failed.iter().map(|(run, ..)| (*run, Tally { failed: 1, ..Tally::default() }));
    let touched = tally(tx, done.chain(failed))?;
    finish_runs(tx, touched.iter().map(|run| run.as_bytes().as_slice())).await
}

/// Marks items, by rowid, as failed.
///
/// # Errors
/// As [`to_json`].
pub(crate) fn fail_items(tx: &mut Tx<'_>, failed: &[(i64, &Problem)]) -> Result<(), StoreError> {
    if failed.is_empty() {
        return Ok(());
    }
    tx.later(
        "UPDATE run_items SET status = 'failed', payload = NULL, hook_set_id = NULL, problem = j.value -> 1 \
         FROM json_each(?) j WHERE run_items.rowid = j.value ->> 0",
    )
    .bind(to_json(failed)?);
    Ok(())
}

/// Counts ended items for their runs, and marks runs as running that nobody had claimed. Gives the runs.
///
/// # Errors
/// As [`to_json`].
pub(crate) fn tally(
    tx: &mut Tx<'_>,
    ended: impl IntoIterator<Item = (RunId, Tally)>,
) -> Result<Vec<RunId>, StoreError> {
    let mut runs: HashMap<RunId, Tally> = HashMap::new();
    for (run, one) in ended {
        let sum = runs.entry(run).or_default();
        *sum = Tally { done: sum.done + one.done, reused: sum.reused + one.reused, failed: sum.failed + one.failed };
    }
    let sums: Vec<(String, i64, i64, i64)> =
        runs.iter().map(|(run, sum)| (hex(run.as_bytes()), sum.done, sum.reused, sum.failed)).collect();
    tx.later(
        "UPDATE runs SET n_done = n_done + (j.value ->> 1), n_reused = n_reused + (j.value ->> 2), \
             n_failed = n_failed + (j.value ->> 3), status = iif(status = 'queued', 'running', status), \
             started_at = coalesce(started_at, ?) FROM json_each(?) j WHERE runs.id = unhex(j.value ->> 0)",
    )
    .bind(now())
    .bind(to_json(&sums)?);
    Ok(runs.into_keys().collect())
}

/// Ends those of the runs that have nothing pending, and gives these.
///
/// # Errors
/// [`StoreError::Database`].
pub(crate) async fn finish_runs<'a>(
    tx: &mut Tx<'_>,
    runs: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<RunId>, StoreError> {
    tx.later(
        "UPDATE runs SET status = iif(n_failed > 0, 'failed', 'completed'), finished_at = ? \
         WHERE id IN (SELECT unhex(value) FROM json_each(?)) AND finished_at IS NULL \
           AND NOT EXISTS (SELECT 1 FROM run_items i WHERE i.run_id = runs.id AND i.status = 'pending') \
         RETURNING id",
    )
    .bind(now())
    .bind(hex_list(runs));
    let rows = tx.rows().await?;
    rows.iter().map(|row| Fields::of("runs", row).read("id", RunId::from_slice)).collect()
}

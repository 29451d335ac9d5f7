//! The queue: which items are pending, their inputs, and claiming them.

use sqlx::{Row, sqlite::SqliteRow};

use crate::{
    error::StoreError,
    index::{
        SqliteIndex,
        rows::{Fields, hex, to_json},
        tx::Tx,
        write::Write,
    },
    packs::item::ItemRecord,
    runs::complete::{Tally, fail_items, finish_runs, tally},
};
use residuum_domain::{Code, NewItem, Priority, Problem, RunId, TenantId};

/// How often an item is claimed before it is assumed to be what crashes the server.
const MAX_ATTEMPTS: i64 = 3;

/// A run with items still to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRun {
    /// Its id.
    pub id: RunId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Name of the model.
    pub model: String,
    /// Whether stored activations may answer.
    pub reuse: bool,
    /// How urgent it is.
    pub priority: Priority,
    /// Indices of the items that have not ended, ascending.
    pub items: Vec<u32>,
    /// Those of them that were claimed when an earlier process ended.
    pub attempted: Vec<u32>,
}

/// Runs that have not ended, of one model unless the bind is null.
const PENDING: &str = "SELECT r.id, r.tenant_id, r.model, r.reuse, r.priority, \
         (SELECT json_group_array(item_index) FROM (SELECT item_index FROM run_items \
              WHERE run_id = r.id AND status = 'pending' ORDER BY item_index)) AS items, \
         (SELECT json_group_array(item_index) FROM run_items \
              WHERE run_id = r.id AND status = 'pending' AND attempts > 0) AS attempted \
     FROM runs r WHERE r.finished_at IS NULL AND coalesce(+r.model = ?, TRUE) ORDER BY r.id";

fn decode_pending(row: &SqliteRow) -> Result<PendingRun, StoreError> {
    let f = Fields::of("runs", row);
    Ok(PendingRun {
        id: f.read("id", RunId::from_slice)?,
        tenant: TenantId(f.get("tenant_id")?),
        model: f.get("model")?,
        reuse: f.get("reuse")?,
        priority: f.read("priority", Priority::by_name)?,
        items: f.json("items")?,
        attempted: f.json("attempted")?,
    })
}

impl SqliteIndex {
    /// The runs that an earlier process left unfinished, oldest first. Items that were claimed at three crashes are failed
    /// first ([`Code::WorkerFailed`]). Call it once, at the start.
    pub(crate) async fn pending(&self) -> Result<Vec<PendingRun>, StoreError> {
        self.write(FailExhausted).await?;
        let query = sqlx::query(PENDING).bind(None::<&str>);
        self.rows(query).await?.iter().map(decode_pending).collect()
    }

    /// As [`Self::pending`], of one model and without failing anything. At any time, while no item of the model is claimed.
    pub(crate) async fn pending_of(&self, model: &str) -> Result<Vec<PendingRun>, StoreError> {
        self.rows(sqlx::query(PENDING).bind(model.to_owned())).await?.iter().map(decode_pending).collect()
    }

    /// The runs of a model that have not ended, oldest first.
    pub(crate) async fn unfinished_of(&self, model: &str) -> Result<Vec<(TenantId, RunId)>, StoreError> {
        let query = sqlx::query("SELECT id, tenant_id FROM runs WHERE finished_at IS NULL AND +model = ? ORDER BY id");
        let rows = self.rows(query.bind(model.to_owned())).await?;
        rows.iter()
            .map(|row| {
                let f = Fields::of("runs", row);
                Ok((TenantId(f.get("tenant_id")?), f.read("id", RunId::from_slice)?))
            })
            .collect()
    }

    /// The inputs of those of `indices` that are still pending, by index.
    pub(crate) async fn items(&self, run: RunId, indices: &[u32]) -> Result<Vec<(u32, NewItem)>, StoreError> {
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let rows = sqlx::query(
            "SELECT item_index, hook_set_id, payload FROM run_items \
             WHERE run_id = ? AND item_index IN (SELECT value FROM json_each(?)) AND status = 'pending' \
             ORDER BY item_index",
        )
        .bind(run.as_bytes().as_slice())
        .bind(to_json(indices)?)
        .fetch_all(&mut *snapshot)
        .await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in &rows {
            let f = Fields::of("run_items", row);
            let hooks = self.memo().hooks(&mut snapshot, f.get("hook_set_id")?).await?;
            let record: ItemRecord<'_> = f.json("payload")?;
            items.push((f.uint("item_index")?, record.into_item(hooks)));
        }
        drop(snapshot);
        reader.done();
        Ok(items)
    }

    /// Replaces pending items by what they became when they were continued, durably: from now on they wait to be
    /// captured, and count as never claimed. Items that are no longer pending are passed over.
    pub(crate) async fn continued(&self, items: &[(RunId, u32, NewItem)]) -> Result<(), StoreError> {
        let encode = |(run, index, item): &(RunId, u32, NewItem)| Ok((*run, *index, to_json(&ItemRecord::from(item))?));
        let items = items.iter().map(encode).collect::<Result<_, StoreError>>()?;
        self.write(Continued { items }).await
    }

    /// Claims items for a worker: their attempts are counted, and their runs are running.
    pub(crate) async fn claim(&self, units: &[(RunId, u32)]) -> Result<(), StoreError> {
        self.write(Claim { units: units_json(units) }).await
    }

    /// Releases claims: the items are pending as if never claimed.
    pub(crate) async fn release(&self, units: &[(RunId, u32)]) -> Result<(), StoreError> {
        self.write(Release { units: units_json(units) }).await
    }
}

/// Items as one bind: `[["<run in hex>", index], ...]`.
fn units_json(units: &[(RunId, u32)]) -> String {
    let pairs: Vec<String> = units.iter().map(|(run, i)| format!("[\"{}\",{i}]", hex(run.as_bytes()))).collect();
    format!("[{}]", pairs.join(","))
}

struct Claim {
    units: String,
}

impl Write for Claim {
    type Output = ();
    const DURABLE: bool = false;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.later(
            "UPDATE run_items SET attempts = attempts + 1 FROM json_each(?) j \
             WHERE run_id = unhex(j.value ->> 0) AND item_index = j.value ->> 1 AND status = 'pending'",
        )
        .bind(&self.units);
        tx.later(
            "UPDATE runs SET status = 'running', started_at = ? \
             WHERE id IN (SELECT unhex(value ->> 0) FROM json_each(?)) AND status = 'queued'",
        )
        .bind(crate::index::rows::now())
        .bind(&self.units);
        Ok(())
    }
}

struct Release {
    units: String,
}

impl Write for Release {
    type Output = ();

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.later(
            "UPDATE run_items SET attempts = max(attempts - 1, 0) FROM json_each(?) j \
             WHERE run_id = unhex(j.value ->> 0) AND item_index = j.value ->> 1 AND status = 'pending'",
        )
        .bind(&self.units);
        Ok(())
    }
}

struct Continued {
    /// Each with its record in JSON.
    items: Vec<(RunId, u32, String)>,
}

impl Write for Continued {
    type Output = ();

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        for (run, index, record) in &self.items {
            tx.later(
                "UPDATE run_items SET payload = ?, attempts = 0 \
                 WHERE run_id = ? AND item_index = ? AND status = 'pending'",
            )
            .bind(record)
            .bind(run.as_bytes().as_slice())
            .bind(*index);
            tx.flush_if_large().await?;
        }
        Ok(())
    }
}

struct FailExhausted;

impl Write for FailExhausted {
    type Output = ();
    // no start without it
    const FREES: bool = true;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let rows = sqlx::query("SELECT rowid, run_id FROM run_items WHERE status = 'pending' AND attempts >= ?")
            .bind(MAX_ATTEMPTS)
            .fetch_all(tx.conn().await?)
            .await?;
        let detail =
            format!("the server stopped {MAX_ATTEMPTS} times while it computed this input; it is not tried again");
        let problem = Problem::new(Code::WorkerFailed, detail);
        let mut failed = Vec::with_capacity(rows.len());
        let mut tallies = Vec::new();
        for row in &rows {
            let run = Fields::of("run_items", row).read("run_id", RunId::from_slice)?;
            failed.push((row.try_get::<i64, _>(0)?, &problem));
            tallies.push((run, Tally { failed: 1, ..Tally::default() }));
        }
        fail_items(tx, &failed)?;
        tally(tx, tallies)?;
        // what was written of a cancelled run is lost if the process ended before it was stored
        tx.later(
            "UPDATE run_items SET status = 'cancelled', payload = NULL, hook_set_id = NULL WHERE status = 'pending' \
             AND EXISTS (SELECT 1 FROM runs WHERE runs.id = run_items.run_id AND finished_at IS NOT NULL)",
        );
        // also runs that a damaged or older index left without anything to do
        let unfinished: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT id FROM runs WHERE finished_at IS NULL").fetch_all(tx.conn().await?).await?;
        finish_runs(tx, unfinished.iter().map(Vec::as_slice)).await?;
        Ok(())
    }
}

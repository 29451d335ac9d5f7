//! Accepting a run: the run and its inputs are queued in one transaction.

use std::sync::Arc;

use crate::{
    blocking::blocking,
    error::StoreError,
    index::{
        SqliteIndex,
        intern::HookSets,
        rows::{Fields, int, now, to_json},
        tx::Tx,
        write::Write,
    },
    packs::item::ItemRecord,
    runs::interventions,
};
use residuum_domain::{Edits, Hook, NewRun, Priority, RunId, TenantId};

/// Rows inserted by one statement: four binds each.
const ROWS_A_STATEMENT: usize = 1000;

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
}

/// Inserts the tags of a run; a repeated one counts once.
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

    /// What became of it, if its idempotency key made a run before.
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
        // made here, not before the wait, so that ids sort in the order of commits and no page of a listing misses a run
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

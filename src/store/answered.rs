//! Runs that stored extents answer whole: complete from the start, without a place in the queue.

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite};

use super::{
    Store,
    edit::distinct,
    error::StoreError,
    insert::{CacheRow, Unit, extent_tenants, insert_caches},
    interventions,
    reuse::ExtentId,
    rows::{int, now, to_json},
    runs::{LISTED_CACHES, insert_tags},
    writer::{Tx, Write},
};
use crate::domain::{CacheId, NewRun, Run, RunId, RunStatus};

/// Rows inserted by one statement, thirteen binds each.
const RUNS_A_STATEMENT: usize = 500;
/// Rows inserted by one statement, two binds each.
const ITEMS_A_STATEMENT: usize = 1000;

/// A run and what answers it.
#[derive(Debug, Clone)]
pub struct AnsweredRun {
    /// The run, without an idempotency key.
    pub run: Arc<NewRun>,
    /// One for each input, as [`Store::find_reusable`] gave it for the input's forward key and capture.
    pub extents: Vec<ExtentId>,
}

impl Store {
    /// Makes completed runs with the caches of their inputs, in one transaction, durable on return. `None` in the place of
    /// a run of which an extent was deleted since it was found: there is no such run then.
    ///
    /// # Errors
    /// No run is made then: [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`], and
    /// [`StoreError::Misuse`] for a run with an idempotency key, without inputs, or with another number of extents.
    pub async fn insert_answered(&self, runs: Vec<AnsweredRun>) -> Result<Vec<Option<Run>>, StoreError> {
        let fits = |r: &AnsweredRun| {
            r.run.idempotency.is_none() && !r.extents.is_empty() && r.extents.len() == r.run.items.len()
        };
        if !runs.iter().all(fits) {
            return Err(StoreError::Misuse("a run is to be answered that cannot be".to_owned()));
        }
        self.write(InsertAnswered { runs }).await
    }
}

struct InsertAnswered {
    runs: Vec<AnsweredRun>,
}

/// A run that is being made.
struct Made<'a> {
    id: RunId,
    answered: &'a AnsweredRun,
    caches: Vec<CacheId>,
}

impl Write for InsertAnswered {
    type Output = Vec<Option<Run>>;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<Vec<Option<Run>>, StoreError> {
        let tenants = extent_tenants(tx, self.runs.iter().flat_map(|r| r.extents.iter().copied())).await?;
        let at = now();
        let mut made = Vec::with_capacity(self.runs.len());
        let mut answers = Vec::with_capacity(self.runs.len());
        for answered in &self.runs {
            let there = answered.extents.iter().all(|e| tenants.get(&e.0) == Some(&answered.run.tenant));
            if there {
                // made here, not before the wait, so that ids sort as the commits do
                let id = RunId::generate();
                let caches: Vec<CacheId> = answered.extents.iter().map(|_| CacheId::generate()).collect();
                answers.push(Some(completed(id, &answered.run, &caches, at)?));
                made.push(Made { id, answered, caches });
            } else {
                answers.push(None);
            }
        }
        insert_runs(tx, &made, at).await?;
        let mut rows = Vec::new();
        for Made { id, answered, caches } in &made {
            let run = &answered.run;
            let model: Arc<str> = run.model.as_str().into();
            let ttl = run.ttl_seconds.map(int).transpose()?.map(|s: i64| s.saturating_mul(1_000_000));
            for (item_index, ((item, extent), cache)) in
                (0u32..).zip(run.items.iter().zip(&answered.extents).zip(caches))
            {
                let unit = Unit { row: 0, tenant: run.tenant, model: Arc::clone(&model), ttl };
                rows.push(CacheRow { id: *cache, run: *id, item_index, item, extent: extent.0, reused: true, unit });
            }
        }
        insert_caches(tx, &rows).await?;
        Ok(answers)
    }
}

/// The run as a client sees it.
fn completed(id: RunId, run: &NewRun, caches: &[CacheId], at: i64) -> Result<Run, StoreError> {
    let time = Timestamp::from_microsecond(at).map_err(|e| StoreError::Misuse(format!("the clock is off: {e}")))?;
    let n = run.items.len() as u64;
    Ok(Run {
        id,
        tenant: run.tenant,
        status: RunStatus::Completed,
        model: run.model.clone(),
        priority: run.priority,
        n_items: n,
        n_done: n,
        n_reused: n,
        n_failed: 0,
        caches: caches.iter().take(LISTED_CACHES).copied().collect(),
        error: None,
        tags: distinct(&run.tags).into_iter().map(str::to_owned).collect(),
        metadata: run.metadata.clone(),
        generates: run.generates(),
        imported: false,
        ttl_seconds: run.ttl_seconds,
        created_at: time,
        started_at: Some(time),
        finished_at: Some(time),
    })
}

/// Inserts runs that have ended, with their tags, interventions and items.
async fn insert_runs(tx: &mut Tx<'_>, made: &[Made<'_>], at: i64) -> Result<(), StoreError> {
    for chunk in made.chunks(RUNS_A_STATEMENT) {
        let mut rows = Vec::with_capacity(chunk.len());
        for Made { id, answered, .. } in chunk {
            let run = &answered.run;
            let ttl: Option<i64> = run.ttl_seconds.map(int).transpose()?;
            rows.push((*id, run, to_json(&run.metadata)?, ttl, int(run.items.len())?));
        }
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO runs (id, tenant_id, status, model, reuse, n_items, n_done, n_reused, metadata, created_at, \
                 started_at, finished_at, generates, ttl_seconds, priority) ",
        );
        query.push_values(rows, |mut row, (id, run, metadata, ttl, n)| {
            row.push_bind(id.as_bytes().as_slice()).push_bind(run.tenant.0).push("'completed'");
            row.push_bind(run.model.as_str()).push("1").push_bind(n).push_bind(n).push_bind(n).push_bind(metadata);
            row.push_bind(at).push_bind(at).push_bind(at);
            row.push_bind(run.generates()).push_bind(ttl).push_bind(run.priority.name());
        });
        query.build().persistent(chunk.len() == 1).execute(&mut *tx.conn).await?;
    }
    let items: Vec<(RunId, u32)> =
        made.iter().flat_map(|m| (0u32..).zip(&m.answered.extents).map(|(index, _)| (m.id, index))).collect();
    for chunk in items.chunks(ITEMS_A_STATEMENT) {
        let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO run_items (run_id, item_index, status) ");
        query.push_values(chunk, |mut row, (id, index)| {
            row.push_bind(id.as_bytes().as_slice()).push_bind(index).push("'done'");
        });
        query.build().persistent(chunk.len() == 1).execute(&mut *tx.conn).await?;
    }
    for Made { id, answered, .. } in made {
        insert_tags(tx, answered.run.tenant, *id, &answered.run.tags).await?;
        if let Some(edits) = &answered.run.edits {
            interventions::insert(tx, *id, edits).await?;
        }
    }
    Ok(())
}

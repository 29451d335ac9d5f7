//! Reuse at submission: runs that stored extents answer completely. They are complete from the start and never queued.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    error::StoreError,
    index::{
        SqliteIndex,
        json::distinct,
        rows::{int, now, to_json},
        tx::Tx,
        write::Write,
    },
    packs::{
        insert::{CacheRow, ENDS, Ends, Unit, insert_caches, push_extent_tenants, read_extent_tenants},
        location::ExtentId,
    },
    runs::{accept::insert_tags, interventions, listing::LISTED_CACHES},
};
use residuum_domain::{CacheId, NewRun, Run, RunId, RunStatus};

/// Rows inserted by one statement, at most fifteen binds each.
const ROWS_A_STATEMENT: usize = 1000;

/// A run and what answers it.
#[derive(Debug, Clone)]
pub struct AnsweredRun {
    /// The run, without an idempotency key.
    pub run: Arc<NewRun>,
    /// One for each input, as [`crate::Store::find_reusable`] gave it for the input's forward key and capture.
    pub extents: Vec<ExtentId>,
}

impl SqliteIndex {
    /// Makes completed runs with the caches of their inputs, in one transaction, durable on return. `None` in the place of
    /// a run of which an extent was deleted since it was found: there is no such run then.
    pub(crate) async fn insert_answered(&self, runs: Vec<AnsweredRun>) -> Result<Vec<Option<Run>>, StoreError> {
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
        push_extent_tenants(tx, self.runs.iter().flat_map(|r| r.extents.iter().copied()))?;
        tx.later(ENDS);
        let mut rows = tx.rows().await?;
        let ends = rows.pop().ok_or_else(|| StoreError::damaged("the index has no time partition"))?;
        let ends = Ends::read(tx, &ends)?;
        let tenants = read_extent_tenants(&rows)?;
        let at = now();
        let mut made = Vec::with_capacity(self.runs.len());
        let mut answers = Vec::with_capacity(self.runs.len());
        for answered in &self.runs {
            let there = answered.extents.iter().all(|e| tenants.get(&e.0) == Some(&answered.run.tenant));
            if there {
                // made here, not before the wait, so that ids sort in the order of commits
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
        insert_caches(tx, ends, &rows).await?;
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
    let insert = "INSERT INTO runs (id, tenant_id, status, model, reuse, n_items, n_done, n_reused, metadata, created_at, \
        started_at, finished_at, generates, ttl_seconds, priority)";
    tx.insert(insert, made, ROWS_A_STATEMENT, |script, Made { id, answered, .. }| {
        let run = &answered.run;
        let n = int(run.items.len())?;
        script.bind(id.as_bytes().as_slice()).bind(run.tenant.0).bind(RunStatus::Completed.name());
        script.bind(run.model.as_str()).bind(true).bind(n).bind(n).bind(n).bind(to_json(&run.metadata)?);
        script.bind(at).bind(at).bind(at).bind(run.generates());
        script.bind(run.ttl_seconds.map(int::<u64>).transpose()?).bind(run.priority.name());
        Ok(())
    })
    .await?;
    let items: Vec<(RunId, u32)> =
        made.iter().flat_map(|m| (0u32..).zip(&m.answered.extents).map(|(index, _)| (m.id, index))).collect();
    let insert = "INSERT INTO run_items (run_id, item_index, status)";
    tx.insert(insert, &items, ROWS_A_STATEMENT, |script, (id, index)| {
        script.bind(id.as_bytes().as_slice()).bind(*index).bind("done");
        Ok(())
    })
    .await?;
    for Made { id, answered, .. } in made {
        insert_tags(tx, answered.run.tenant, *id, &answered.run.tags).await?;
        if let Some(edits) = &answered.run.edits {
            interventions::insert(tx, *id, edits)?;
        }
        tx.flush_if_large().await?;
    }
    Ok(())
}

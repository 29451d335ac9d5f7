//! Accepts runs: from a request to a durable run that is complete or queued.

use std::sync::Arc;

use super::{
    Engine,
    generation::TokenLog,
    queue::{BatchKey, Reuse, UNLIMITED, Unit},
    recent_items::may_keep,
    request::{self, Prepared, RunRequest},
    reuse::Missed,
    submission_reuse::Looked,
};
use residuum_domain::{Code, NewItem, NewRun, Problem, Run, RunId, Scoring, TenantId};
use residuum_store::Inserted;

/// The outcome of submitting a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// Stored activations answered the whole run: it is complete.
    Answered(Box<Run>),
    /// A new run was queued.
    Created(RunId),
    /// The idempotency key is that of a run posted before.
    Replayed(RunId),
}

impl Submitted {
    /// Id of the run.
    #[must_use]
    pub const fn id(&self) -> RunId {
        match self {
            Self::Answered(run) => run.id,
            Self::Created(id) | Self::Replayed(id) => *id,
        }
    }
}

impl Engine {
    /// Tokenises and checks a request without queueing it. Slow requests are prepared on a blocking thread.
    ///
    /// # Errors
    /// The [`Problem`] of the first thing that is wrong with it.
    pub async fn prepare(&self, request: RunRequest) -> Result<Prepared, Problem> {
        if self.inner.draining.is_cancelled() {
            return Err(Problem::new(Code::Unavailable, "the server is stopping").retry_after(5));
        }
        let model = self.inner.models.get(&request.model)?;
        let n = request.n_items();
        if n > self.inner.limits.max_run_items {
            let detail = format!("the run has {n} items; a run may have {}", self.inner.limits.max_run_items);
            return Err(Problem::new(Code::TooManyItems, detail));
        }
        if request::is_quick(&request, &model, &self.inner.token_cache) {
            return request::prepare(request, model, &self.inner.limits, &self.inner.token_cache);
        }
        let (limits, token_cache) = (self.inner.limits.clone(), Arc::clone(&self.inner.token_cache));
        let prepared = tokio::task::spawn_blocking(move || request::prepare(request, model, &limits, &token_cache));
        prepared.await.unwrap_or_else(|e| {
            tracing::error!(error = %e, "preparing a run panicked");
            Err(Problem::new(Code::Internal, "the request could not be prepared"))
        })
    }

    /// Answers a small run with stored activations, or queues it. The run is durable when this returns. It is submitted
    /// even if the caller is dropped meanwhile.
    ///
    /// # Errors
    /// Those of [`Self::prepare`], [`Code::ClientQueueFull`], [`Code::QueueFull`], [`Code::StoreFull`],
    /// [`Code::IdempotencyKeyReused`], and those of the store.
    pub async fn submit(&self, request: RunRequest) -> Result<Submitted, Problem> {
        let prepared = self.prepare(request).await?;
        self.submit_prepared(prepared, None).await
    }

    /// As [`Self::submit`], for a request that is prepared. `followed`: the log of a client that waits for the tokens.
    pub(super) async fn submit_prepared(
        &self,
        prepared: Prepared,
        followed: Option<(Arc<TokenLog>, Scoring)>,
    ) -> Result<Submitted, Problem> {
        let Prepared { run, item_bytes, model } = prepared;
        self.inner.check_disk()?;
        // caches that share stored extents only take room in the index
        self.inner.make_room(0).await?;
        let (run, missed) = match self.answer(run, &model).await {
            Looked::Answered(run) => return Ok(Submitted::Answered(run)),
            Looked::Missed(run, missed) => (run, missed),
        };
        let admission = self.admit(run.tenant, &item_bytes)?;
        let (_, waiting) = self.inner.waiting(run.tenant);
        self.inner.make_room(waiting.bytes + item_bytes.iter().sum::<u64>()).await?;
        // In a separate task: dropping the request must not leave rows in the store that are not queued.
        let engine = self.clone();
        let queued = tokio::spawn(async move {
            let queued = engine.enqueue(*run, &item_bytes, missed, followed).await;
            // held until the run is in the store: a model that is being unloaded waits for its holders, then for runs
            drop((admission, model));
            queued
        });
        queued.await.unwrap_or_else(|e| {
            tracing::error!(error = %e, "queueing a run panicked");
            Err(Problem::new(Code::Internal, "the run could not be queued"))
        })
    }

    async fn enqueue(
        &self,
        run: NewRun,
        item_bytes: &[u64],
        missed: Option<Missed>,
        followed: Option<(Arc<TokenLog>, Scoring)>,
    ) -> Result<Submitted, Problem> {
        let waiting = units_of(&run, item_bytes);
        let recent = may_keep(&run.items).then(|| run.items.clone());
        let id = match self.inner.store.insert_run(run).await? {
            Inserted::Created(id) => id,
            Inserted::Replayed(id) => return Ok(Submitted::Replayed(id)),
            Inserted::KeyConflict => {
                let detail = "the Idempotency-Key was used before with another body; use a new key";
                return Err(Problem::new(Code::IdempotencyKeyReused, detail));
            }
        };
        if let Some((log, scoring)) = followed {
            self.inner.followed.open(id, log, scoring, None);
        }
        let mut units: Vec<Unit> = waiting.into_iter().map(|unit| Unit { run: id, ..unit }).collect();
        if let Some(items) = recent {
            if let Some(missed) = missed {
                units = self.inner.after_miss(units, &items, missed);
            }
            self.inner.recent_items.keep(id, items);
        }
        self.inner.enqueue(units);
        metrics::counter!("residuum_runs_total").increment(1);
        Ok(Submitted::Created(id))
    }
}

/// The units of a run that has no id yet.
pub(super) fn units_of(run: &NewRun, item_bytes: &[u64]) -> Vec<Unit> {
    let mut keys: Vec<Arc<BatchKey>> = Vec::new();
    let mut shared = |key: Arc<BatchKey>| {
        let known = keys.iter().find(|known| **known == key).cloned();
        known.unwrap_or_else(|| {
            keys.push(Arc::clone(&key));
            key
        })
    };
    let no_id = RunId::generate();
    (0u32..)
        .zip(run.items.iter().zip(item_bytes))
        .map(|(index, (item, n_bytes))| Unit {
            run: no_id,
            index,
            n_tokens: item.planned_tokens(),
            n_bytes: *n_bytes,
            key: shared(batch_key(run.tenant, &run.model, item)),
            edits: run.edits.clone(),
            priority: run.priority,
            reuse: Reuse::of(run.reuse),
            max_batch_items: UNLIMITED,
        })
        .collect()
}

pub(super) fn batch_key(tenant: TenantId, model: &str, item: &NewItem) -> Arc<BatchKey> {
    if item.generation.is_some() {
        return Arc::new(BatchKey::generating(model.to_owned(), tenant));
    }
    Arc::new(BatchKey {
        model: model.to_owned(),
        tenant,
        hooks: Arc::clone(&item.capture.hooks),
        dtype: item.capture.dtype,
    })
}

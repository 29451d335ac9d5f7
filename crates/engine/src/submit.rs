//! Accepts runs: from a request to a durable run that is complete or queued.

use std::sync::Arc;

use super::{
    Engine,
    queue::{BatchKey, Reuse, UNLIMITED, Unit},
    recent_items::may_keep,
    request::{self, Prepared, RunRequest},
    reuse::Missed,
    submission_reuse::Looked,
};
use residuum_domain::{Code, NewItem, NewRun, Problem, Run, RunId, TenantId};
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
        let n = request.inputs.len();
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
        let Prepared { run, item_bytes, model } = self.prepare(request).await?;
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
            let queued = engine.enqueue(*run, &item_bytes, missed).await;
            // held until the run is in the store: a model that is being unloaded waits for its holders, then for runs
            drop((admission, model));
            queued
        });
        queued.await.unwrap_or_else(|e| {
            tracing::error!(error = %e, "queueing a run panicked");
            Err(Problem::new(Code::Internal, "the run could not be queued"))
        })
    }

    async fn enqueue(&self, run: NewRun, item_bytes: &[u64], missed: Option<Missed>) -> Result<Submitted, Problem> {
        let waiting: Vec<(Arc<BatchKey>, usize, u64)> = {
            let mut keys: Vec<Arc<BatchKey>> = Vec::new();
            run.items
                .iter()
                .zip(item_bytes)
                .map(|(item, n_bytes)| {
                    let key = batch_key(run.tenant, &run.model, item);
                    let key = keys.iter().find(|k| **k == key).cloned().unwrap_or_else(|| {
                        keys.push(Arc::clone(&key));
                        key
                    });
                    (key, item.max_tokens(), *n_bytes)
                })
                .collect()
        };
        let (reuse, priority, edits) = (Reuse::of(run.reuse), run.priority, run.edits.clone());
        let recent = may_keep(&run.items).then(|| run.items.clone());
        let id = match self.inner.store.insert_run(run).await? {
            Inserted::Created(id) => id,
            Inserted::Replayed(id) => return Ok(Submitted::Replayed(id)),
            Inserted::KeyConflict => {
                let detail = "the Idempotency-Key was used before with another body; use a new key";
                return Err(Problem::new(Code::IdempotencyKeyReused, detail));
            }
        };
        let mut units: Vec<Unit> = (0u32..)
            .zip(waiting)
            .map(|(index, (key, n_tokens, n_bytes))| Unit {
                run: id,
                index,
                n_tokens,
                n_bytes,
                key,
                edits: edits.clone(),
                priority,
                reuse,
                max_batch_items: UNLIMITED,
            })
            .collect();
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

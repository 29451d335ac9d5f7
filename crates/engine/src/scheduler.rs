//! The scheduler claims items, hands batches to the workers, and commits their outcomes while the next batches are
//! computed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    Inner,
    claimed::{Claimed, claim_ids, complete, load, pack_header},
    queue::{Budget, Unit, UnitId},
    reuse::{lead, reuse_stored},
    worker::{CaptureJob, Job, JobInput, JobOutcome, Workers},
};
use residuum_domain::{Code, NewItem, Problem, RunId};
use residuum_model::Model;
use residuum_store::{Completion, StoreError};

/// Batches in progress at once: one on each worker, and one that is claimed and waits for a free worker.
pub(super) fn pipeline(n_workers: usize) -> u32 {
    u32::try_from(n_workers + 1).expect("a machine has few devices")
}

/// Target time of a batch, so that a request never waits long for the batch before it.
pub(super) const BATCH_TIME: Duration = Duration::from_millis(250);
/// Bounds of a batch, whatever the measured speed. Each batch and each of its sub-batches reads the weights from
/// memory; at the lower bound that takes a tenth of the time.
const BATCH_TOKENS: std::ops::RangeInclusive<usize> = 384..=16_384;
const BATCH_BYTES: u64 = 512 << 20;
const BATCH_ITEMS: usize = 256;
/// Memory for the values of one batch between its layers, in bytes. Running out of memory ends the process, so a batch
/// is bounded before it is tried. A single input may take more.
const BATCH_MEMORY: u64 = 128 << 20;
/// Pause after the store has refused work, before the same work is tried again.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(2);

/// Tokens per second of recent batches, as a moving average.
pub(super) struct Speed {
    of_one: std::sync::atomic::AtomicU64,
    n_workers: usize,
}

impl Speed {
    pub(super) fn new(n_workers: usize) -> Self {
        Self { of_one: std::sync::atomic::AtomicU64::new(0f64.to_bits()), n_workers }
    }

    /// Tokens per second of all workers when they are busy; 0 before the first batch.
    #[expect(clippy::cast_precision_loss, reason = "there are few workers")]
    pub(super) fn get(&self) -> f64 {
        self.of_one() * self.n_workers as f64
    }

    /// Tokens per second of one worker.
    fn of_one(&self) -> f64 {
        f64::from_bits(self.of_one.load(Ordering::Relaxed))
    }

    fn record(&self, tokens: usize, took: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "a batch has few tokens")]
        let now = tokens as f64 / took.as_secs_f64().max(1e-6);
        let before = self.of_one();
        let next = if before == 0.0 { now } else { 0.7 * before + 0.3 * now };
        self.of_one.store(next.to_bits(), Ordering::Relaxed);
    }

    fn budget(&self) -> Budget {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped on the next line")]
        let tokens = (self.of_one() * BATCH_TIME.as_secs_f64()) as usize;
        let tokens = tokens.clamp(*BATCH_TOKENS.start(), *BATCH_TOKENS.end());
        Budget { tokens, bytes: BATCH_BYTES, items: BATCH_ITEMS }
    }
}

/// The budget of the next batch.
fn budget(engine: &Inner) -> Budget {
    let budget = engine.speed.budget();
    let model = engine.queue().next_key().map(|(key, _)| key.model.clone());
    let Some(model) = model.and_then(|name| engine.models.accepted(&name).ok()) else { return budget };
    Budget { tokens: batch_tokens(engine, &model), ..budget }
}

/// Most tokens of a batch: what a worker can do in [`BATCH_TIME`] and what fits [`BATCH_MEMORY`].
pub(super) fn batch_tokens(engine: &Inner, model: &Model) -> usize {
    let fitting = usize::try_from(BATCH_MEMORY / model.working_bytes_per_token().max(1)).unwrap_or(usize::MAX);
    engine.speed.budget().tokens.min(fitting).max(1)
}

/// A batch that is being computed or committed. Kept for cancelling and counting.
pub(super) struct InFlight {
    pub(super) units: Vec<UnitId>,
    pub(super) alive: Arc<AtomicUsize>,
}

/// Runs until the engine drains; returns when the last batch is durable.
pub(super) async fn run(engine: Arc<Inner>, workers: Workers, slots: Arc<Semaphore>, n_slots: u32) {
    loop {
        reuse_stored(&engine).await;
        let mut permit = tokio::select! {
            permit = Arc::clone(&slots).acquire_owned() => permit.expect("the semaphore is never closed"),
            () = engine.draining.cancelled() => break,
        };
        // Items that came while this task waited for a slot join the batch.
        reuse_stored(&engine).await;
        let budget = budget(&engine);
        let units = engine.queue().next_batch(budget);
        let Some(units) = units else {
            drop(permit);
            tokio::select! {
                () = engine.wake.notified() => continue,
                () = engine.draining.cancelled() => break,
            }
        };
        if units.iter().any(|unit| unit.max_batch_items <= 1) {
            // This item may have ended the process before, so no other batch runs beside it.
            let others = Arc::clone(&slots).acquire_many_owned(n_slots - 1).await;
            permit.merge(others.expect("the semaphore is never closed"));
        }
        if engine.draining.is_cancelled() {
            break;
        }
        dispatch(&engine, &workers, units, permit).await;
    }
    // With every permit back, no batch is in progress.
    let _all = slots.acquire_many(n_slots).await;
}

/// Hands a batch to the workers, and spawns a task that commits the outcome.
async fn dispatch(engine: &Arc<Inner>, workers: &Workers, units: Vec<Unit>, permit: OwnedSemaphorePermit) {
    let (items, model) = match claim_batch(engine, units).await {
        Ok(Some(taken)) => taken,
        Ok(None) => return,
        Err((problem, units)) => {
            tracing::error!(%problem, "a batch could not be claimed; it goes back to the queue");
            return put_back(engine, units, false);
        }
    };
    let (job, outcome, units) = build_job(items, model);
    let ids: Vec<UnitId> = units.iter().map(Unit::id).collect();
    // before computing something that could not be stored
    if let Err(problem) = engine.make_room(job.header.layout.total_bytes()).await {
        tracing::error!(%problem, "there is no room for a batch; it waits");
        engine.end_leads(&ids);
        return put_back(engine, units, true);
    }
    let batch = engine.in_flight_add(InFlight { units: ids.clone(), alive: Arc::clone(&job.alive) });
    observe_batch(&units);
    if workers.submit(Job::Capture(Box::new(job))).await.is_err() {
        tracing::error!("the worker threads are gone; a batch goes back to the queue");
        engine.in_flight_remove(batch);
        engine.end_leads(&ids);
        return put_back(engine, units, true);
    }
    let engine = Arc::clone(engine);
    tokio::spawn(async move {
        let outcome = outcome.await.unwrap_or_else(|_| {
            JobOutcome::Failed(Problem::new(Code::WorkerFailed, "the worker ended while computing this"))
        });
        // The worker is free for the next batch while this one is committed.
        drop(permit);
        finish(&engine, units, outcome).await;
        engine.end_leads(&ids);
        engine.in_flight_remove(batch);
        engine.wake.notify_one();
    });
}

#[expect(clippy::cast_precision_loss, reason = "histograms are of floats")]
fn observe_batch(units: &[Unit]) {
    metrics::histogram!("residuum_batch_items").record(units.len() as f64);
    metrics::histogram!("residuum_batch_tokens").record(units.iter().map(|u| u.n_tokens).sum::<usize>() as f64);
}

/// Reads the items of a batch and claims those that no other item answers; `None` if none are left.
///
/// # Errors
/// The problem, and the items that go back to the queue.
async fn claim_batch(engine: &Arc<Inner>, units: Vec<Unit>) -> Result<Option<Claimed>, (Problem, Vec<Unit>)> {
    let items: Vec<(Unit, NewItem)> = match load(engine, &units).await {
        Ok(items) => items.into_iter().map(|(u, item)| (u.clone(), item)).collect(),
        Err(e) => return Err((e.into(), units)),
    };
    // Items that have ended meanwhile do not wait any more either.
    units.iter().for_each(|u| engine.dedup().unqueue(u.id()));
    let Some((first, _)) = items.first() else { return Ok(None) };
    let model = match engine.models.accepted(&first.key.model) {
        Ok(model) => model,
        Err(problem) => return Err((problem, units)),
    };
    let leading = lead(engine, items, &model);
    let ids: Vec<UnitId> = leading.iter().map(|(u, _)| u.id()).collect();
    if ids.is_empty() {
        return Ok(None);
    }
    if let Err(e) = claim_ids(engine, &ids).await {
        engine.end_leads(&ids);
        return Err((e.into(), leading.into_iter().map(|(unit, _)| unit).collect()));
    }
    Ok(Some((leading, model)))
}

fn build_job(items: Vec<(Unit, NewItem)>, model: Arc<Model>) -> (CaptureJob, oneshot::Receiver<JobOutcome>, Vec<Unit>) {
    let (done, outcome) = oneshot::channel();
    let (units, items): (Vec<Unit>, Vec<NewItem>) = items.into_iter().unzip();
    let edits = units.iter().zip(&items).map(|(unit, item)| {
        let edits = unit.edits.clone().map(|edits| (edits, item.interventions.clone()));
        (item.token_ids.clone(), edits)
    });
    let edits: Vec<_> = edits.collect();
    let (header, rows) = pack_header(&units, items, &model, super::keys::provenance(&model));
    let inputs = edits.into_iter().zip(rows).map(|((token_ids, edits), rows)| JobInput { token_ids, rows, edits });
    let inputs = inputs.collect();
    let alive = Arc::new(AtomicUsize::new(units.len()));
    (CaptureJob { model, inputs, header, alive, done }, outcome, units)
}

/// Commits the outcome of a batch, or queues its items again.
async fn finish(engine: &Arc<Inner>, units: Vec<Unit>, outcome: JobOutcome) {
    let tokens: usize = units.iter().map(|u| u.n_tokens).sum();
    let completion = match outcome {
        JobOutcome::Cancelled => return,
        JobOutcome::Failed(problem) if may_succeed_later(&problem) => return no_room(engine, units, &problem),
        JobOutcome::Lost if units.len() == 1 && units[0].max_batch_items > 1 => {
            // The item may not be the cause: it gets one more try, on a device that works.
            return engine.queue().push(units.into_iter().map(|u| Unit { max_batch_items: 1, ..u }).collect());
        }
        JobOutcome::Lost | JobOutcome::Failed(_) if units.len() > 1 => {
            // One bad item must not fail the others, and half as many may fit in memory: each item is tried again in a
            // smaller batch, in the end alone.
            metrics::counter!("residuum_batches_split_total").increment(1);
            let max_batch_items = units.len() / 2;
            return engine.queue().push(units.into_iter().map(|u| Unit { max_batch_items, ..u }).collect());
        }
        JobOutcome::Lost => failed_alone(&units, &Problem::new(Code::WorkerFailed, "the forward pass failed")),
        JobOutcome::Failed(problem) => failed_alone(&units, &problem),
        JobOutcome::Captured(writer, took) => {
            engine.speed.record(tokens, took);
            metrics::counter!("residuum_tokens_total").increment(tokens as u64);
            metrics::counter!("residuum_items_captured_total").increment(units.len() as u64);
            metrics::histogram!("residuum_batch_seconds").record(took.as_secs_f64());
            match tokio::task::spawn_blocking(move || writer.finish()).await {
                Ok(Ok(pack)) => Completion { pack: Some(pack), ..Completion::default() },
                Ok(Err(e)) => {
                    let problem = e.into();
                    if may_succeed_later(&problem) {
                        return no_room(engine, units, &problem);
                    }
                    all_failed(&units, &problem)
                }
                Err(e) => {
                    tracing::error!(error = %e, "finishing a pack panicked; its items go back to the queue");
                    return put_back(engine, units, true);
                }
            }
        }
    };
    let runs = units.iter().map(|u| u.run).collect();
    if let Err(e) = complete(engine, completion, runs).await {
        no_room(engine, units, &e.into());
    }
}

/// Whether the store may accept the same work later. Accepted items wait for room; they do not fail for lack of it.
pub(super) fn may_succeed_later(problem: &Problem) -> bool {
    matches!(problem.code, Code::StoreFull | Code::Unavailable)
}

/// Returns items to the queue because the store could not accept what was computed for them.
pub(super) fn no_room(engine: &Arc<Inner>, units: Vec<Unit>, problem: &Problem) {
    tracing::error!(%problem, items = units.len(), "a batch could not be stored; its items go back to the queue");
    engine.note_room(problem.code != Code::StoreFull);
    put_back(engine, units, true);
}

/// The outcome of a batch whose only item failed.
fn failed_alone(units: &[Unit], problem: &Problem) -> Completion {
    metrics::counter!("residuum_items_failed_total").increment(1);
    all_failed(units, problem)
}

pub(super) fn all_failed(units: &[Unit], problem: &Problem) -> Completion {
    let failed = units.iter().map(|u| (u.run, u.index, problem.clone())).collect();
    Completion { failed, ..Completion::default() }
}

/// Returns items to their queue after a pause, because the store refused them and would refuse them again at once.
/// Claimed items wait until the store has released the claim; otherwise the next start would count each as a crash.
pub(super) fn put_back(engine: &Arc<Inner>, units: Vec<Unit>, claimed: bool) {
    let engine = Arc::clone(engine);
    tokio::spawn(async move {
        let ids: Vec<(RunId, u32)> = units.iter().map(|u| (u.run, u.index)).collect();
        loop {
            tokio::time::sleep(STORE_PAUSE).await;
            match if claimed { engine.store.release(&ids).await } else { Ok(()) } {
                Ok(()) => break,
                // the next start queues them again
                Err(StoreError::Closed) => return,
                Err(error) => tracing::warn!(%error, "items cannot go back to the queue yet"),
            }
        }
        engine.enqueue(units);
    });
}

//! The scheduler: claims work, hands batches to the worker, and makes what comes back durable while the next one runs.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    Inner,
    keys::forward_key,
    queue::{Budget, Unit},
    request::layout_of,
    worker::{CaptureJob, Job, JobInput, JobOutcome, WorkerHandle},
};
use crate::{
    domain::{CacheId, Capture, Code, NewItem, PackId, Problem, Rows, RunId},
    model::Model,
    store::{Completion, PackHeader, PackedCache, ReusedCache, StoreError, Wanted},
};

/// Batches under way at once: one computing, one claimed and waiting for the worker.
pub(super) const PIPELINE: usize = 2;
/// What a batch should take, so that a request never waits long for the one before it.
pub(super) const BATCH_TIME: Duration = Duration::from_millis(250);
/// Bounds of a batch whatever the measured speed.
const BATCH_TOKENS: std::ops::RangeInclusive<usize> = 256..=4096;
const BATCH_BYTES: u64 = 512 << 20;
const BATCH_ITEMS: usize = 256;
/// Items asked about in one query to the store.
const CHECK_ITEMS: usize = 512;
/// Rest after the store refused, before the same work is tried again.
pub(super) const STORE_REST: Duration = Duration::from_secs(2);

/// Tokens per second of recent batches, as a moving average.
pub(super) struct Speed(std::sync::atomic::AtomicU64);

impl Speed {
    pub(super) fn new() -> Self {
        Self(std::sync::atomic::AtomicU64::new(0f64.to_bits()))
    }

    /// Tokens per second; 0 before the first batch.
    pub(super) fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn record(&self, tokens: usize, took: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "a batch has few tokens")]
        let now = tokens as f64 / took.as_secs_f64().max(1e-6);
        let before = self.get();
        let next = if before == 0.0 { now } else { 0.7 * before + 0.3 * now };
        self.0.store(next.to_bits(), Ordering::Relaxed);
    }

    fn budget(&self) -> Budget {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped on the next line")]
        let tokens = (self.get() * BATCH_TIME.as_secs_f64()) as usize;
        let tokens = tokens.clamp(*BATCH_TOKENS.start(), *BATCH_TOKENS.end());
        Budget { tokens, bytes: BATCH_BYTES, items: BATCH_ITEMS }
    }
}

/// A batch on its way through the worker, for cancelling and for counting.
pub(super) struct InFlight {
    pub(super) units: Vec<(RunId, u32)>,
    pub(super) alive: Arc<AtomicUsize>,
}

/// Runs until the engine drains; returns when the last batch is durable.
pub(super) async fn run(engine: Arc<Inner>, worker: WorkerHandle, slots: Arc<Semaphore>) {
    loop {
        reuse_stored(&engine).await;
        let permit = tokio::select! {
            permit = Arc::clone(&slots).acquire_owned() => permit.expect("the semaphore is never closed"),
            () = engine.draining.cancelled() => break,
        };
        // Items that came while this waited for a slot join the batch.
        reuse_stored(&engine).await;
        let units = engine.queue().next_batch(engine.speed.budget());
        let Some(units) = units else {
            drop(permit);
            tokio::select! {
                () = engine.wake.notified() => continue,
                () = engine.draining.cancelled() => break,
            }
        };
        if engine.draining.is_cancelled() {
            break;
        }
        dispatch(&engine, &worker, units, permit).await;
    }
    // Every permit back: nothing is under way any more.
    let _all = slots.acquire_many(u32::try_from(PIPELINE).expect("a small number")).await;
}

/// Answers waiting items from the store where it holds their activations.
async fn reuse_stored(engine: &Arc<Inner>) {
    loop {
        let mut units = engine.queue().take_unchecked(CHECK_ITEMS);
        if units.is_empty() {
            return;
        }
        match try_reuse(engine, &units).await {
            Ok(found) => units.retain(|u| !found.contains(&(u.run, u.index))),
            Err(e) => tracing::error!(error = %e, "the store could not be asked for activations to reuse"),
        }
        units.iter_mut().for_each(|u| u.check_store = false);
        engine.queue().push(units);
    }
}

async fn try_reuse(engine: &Arc<Inner>, units: &[Unit]) -> Result<Vec<(RunId, u32)>, StoreError> {
    let items = load(engine, units).await?;
    let mut found = Vec::new();
    let mut reused = Vec::new();
    // One query per tenant: items of one tenant never see another's.
    let mut by_tenant: HashMap<_, Vec<(&Unit, NewItem, [u8; 32])>> = HashMap::new();
    for (unit, item) in items {
        let Ok(model) = engine.models.get(&unit.key.model) else { continue };
        let key = forward_key(unit.key.tenant, &model, &item, unit.edits.as_deref());
        by_tenant.entry(unit.key.tenant).or_default().push((unit, item, key));
    }
    for (tenant, items) in by_tenant {
        let wanted: Vec<Wanted> = items
            .iter()
            .map(|(_, item, key)| Wanted {
                forward_key: *key,
                capture: item.capture.clone(),
                n_tokens: item.token_ids.len(),
            })
            .collect();
        let extents = engine.store.find_reusable(tenant, &wanted).await?;
        for ((unit, item, _), extent) in items.into_iter().zip(extents) {
            if let Some(extent) = extent {
                found.push((unit.run, unit.index));
                reused.push(ReusedCache {
                    extent,
                    cache: CacheId::generate(),
                    run: unit.run,
                    item_index: unit.index,
                    item,
                });
            }
        }
    }
    if !reused.is_empty() {
        let n = reused.len();
        let runs = found.iter().map(|(run, _)| *run).collect();
        complete(engine, Completion { pack: None, reused, failed: Vec::new() }, runs).await?;
        metrics::counter!("residuum_items_reused_total").increment(n as u64);
    }
    Ok(found)
}

/// Loads the items of `units` from the store, in the order of `units`; those ended meanwhile are left out.
pub(super) async fn load<'u>(engine: &Arc<Inner>, units: &'u [Unit]) -> Result<Vec<(&'u Unit, NewItem)>, StoreError> {
    let mut by_run: HashMap<RunId, Vec<u32>> = HashMap::new();
    for u in units {
        by_run.entry(u.run).or_default().push(u.index);
    }
    let mut items: HashMap<(RunId, u32), NewItem> = HashMap::new();
    for (run, indices) in by_run {
        let loaded = engine.store.items(run, &indices).await?;
        items.extend(loaded.into_iter().map(|(index, item)| ((run, index), item)));
    }
    Ok(units.iter().filter_map(|u| Some((u, items.remove(&(u.run, u.index))?))).collect())
}

/// Claims a batch, gives it to the worker and leaves a task behind that makes the outcome durable.
async fn dispatch(engine: &Arc<Inner>, worker: &WorkerHandle, units: Vec<Unit>, permit: OwnedSemaphorePermit) {
    let (items, model) = match claim(engine, &units).await {
        Ok(Some(claimed)) => claimed,
        Ok(None) => return,
        Err(problem) => {
            tracing::error!(%problem, "a batch could not be claimed; it goes back to the queue");
            return put_back(engine, units, false);
        }
    };
    let (job, outcome, units) = build_job(items, model);
    // before anything is computed that could not be kept
    if let Err(problem) = engine.make_room(job.header.layout.total_bytes()).await {
        tracing::error!(%problem, "there is no room for a batch; it waits");
        return put_back(engine, units, true);
    }
    let in_flight = InFlight { units: units.iter().map(|u| (u.run, u.index)).collect(), alive: Arc::clone(&job.alive) };
    let caches: usize = units.len();
    let batch = engine.in_flight_add(in_flight);
    metrics::histogram!("residuum_batch_items").record(caches as f64);
    if worker.submit(Job::Capture(Box::new(job))).await.is_err() {
        tracing::error!("the worker thread is gone; its batch goes back to the queue");
        engine.in_flight_remove(batch);
        return put_back(engine, units, true);
    }
    let engine = Arc::clone(engine);
    tokio::spawn(async move {
        let outcome = outcome.await.unwrap_or_else(|_| {
            JobOutcome::Failed(Problem::new(Code::WorkerFailed, "the worker ended while computing this"))
        });
        // The worker is free for the next batch while this one is made durable.
        drop(permit);
        finish(&engine, units, outcome).await;
        engine.in_flight_remove(batch);
        engine.wake.notify_one();
    });
}

pub(super) type Claimed = (Vec<(Unit, NewItem)>, Arc<Model>);

pub(super) async fn claim(engine: &Arc<Inner>, units: &[Unit]) -> Result<Option<Claimed>, Problem> {
    let items: Vec<(Unit, NewItem)> =
        load(engine, units).await?.into_iter().map(|(u, item)| (u.clone(), item)).collect();
    let Some((first, _)) = items.first() else { return Ok(None) };
    let model = engine.models.get(&first.key.model)?;
    let ids: Vec<(RunId, u32)> = items.iter().map(|(u, _)| (u.run, u.index)).collect();
    engine.store.claim(&ids).await?;
    let mut runs: Vec<RunId> = ids.iter().map(|(run, _)| *run).collect();
    runs.dedup();
    runs.into_iter().for_each(|run| engine.progress.changed(run));
    Ok(Some((items, model)))
}

fn build_job(items: Vec<(Unit, NewItem)>, model: Arc<Model>) -> (CaptureJob, oneshot::Receiver<JobOutcome>, Vec<Unit>) {
    let (done, outcome) = oneshot::channel();
    let (units, items): (Vec<Unit>, Vec<NewItem>) = items.into_iter().unzip();
    let key = Arc::clone(&units[0].key);
    let inputs: Vec<JobInput> = items
        .iter()
        .zip(&units)
        .map(|(item, unit)| {
            let rows = item.capture.positions.resolve(item.token_ids.len());
            JobInput {
                token_ids: item.token_ids.clone(),
                rows: rows.expect("positions were resolved when the run was accepted"),
                edits: unit.edits.clone().map(|edits| (edits, item.interventions.clone())),
            }
        })
        .collect();
    let lengths: Vec<(usize, &Rows)> = inputs.iter().map(|i| (i.token_ids.len(), &i.rows)).collect();
    let capture =
        Capture { hooks: Arc::clone(&key.hooks), positions: items[0].capture.positions.clone(), dtype: key.dtype };
    let layout = layout_of(&capture, &model, &lengths);
    let caches = units
        .iter()
        .zip(items)
        .map(|(unit, item)| PackedCache {
            cache: CacheId::generate(),
            run: unit.run,
            item_index: unit.index,
            forward_key: forward_key(key.tenant, &model, &item, unit.edits.as_deref()),
            item,
        })
        .collect();
    let header = PackHeader {
        id: PackId::generate(),
        tenant: key.tenant,
        model: key.model.clone(),
        n_layers: model.info().n_layers,
        d_model: model.info().d_model,
        provenance: super::keys::provenance(&model),
        capture,
        layout,
        caches,
    };
    let alive = Arc::new(AtomicUsize::new(units.len()));
    (CaptureJob { model, inputs, header, alive, done }, outcome, units)
}

/// Makes the outcome of a batch durable and tells those who wait.
async fn finish(engine: &Arc<Inner>, units: Vec<Unit>, outcome: JobOutcome) {
    let tokens: usize = units.iter().map(|u| u.n_tokens).sum();
    let completion = match outcome {
        JobOutcome::Cancelled => return,
        JobOutcome::Failed(problem) if waits(&problem) => return no_room(engine, units, &problem),
        JobOutcome::Failed(_) if units.len() > 1 => {
            // One bad item must not fail its company: each gets another try, alone.
            let alone = units.into_iter().map(|u| Unit { alone: true, ..u }).collect();
            return engine.queue().push(alone);
        }
        JobOutcome::Failed(problem) => {
            metrics::counter!("residuum_items_failed_total").increment(1);
            all_failed(&units, &problem)
        }
        JobOutcome::Captured(writer, took) => {
            engine.speed.record(tokens, took);
            metrics::counter!("residuum_tokens_total").increment(tokens as u64);
            metrics::counter!("residuum_items_captured_total").increment(units.len() as u64);
            metrics::histogram!("residuum_batch_seconds").record(took.as_secs_f64());
            match tokio::task::spawn_blocking(move || writer.finish()).await {
                Ok(Ok(pack)) => Completion { pack: Some(pack), reused: Vec::new(), failed: Vec::new() },
                Ok(Err(e)) => {
                    let problem = e.into();
                    if waits(&problem) {
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

/// Whether the store will take the same work later: what was accepted waits for room, and does not fail for want of it.
fn waits(problem: &Problem) -> bool {
    matches!(problem.code, Code::StoreFull | Code::Unavailable)
}

/// Returns items to the queue because the store could not take what was computed for them.
fn no_room(engine: &Arc<Inner>, units: Vec<Unit>, problem: &Problem) {
    tracing::error!(%problem, items = units.len(), "a batch could not be stored; its items go back to the queue");
    engine.note_room(problem.code != Code::StoreFull);
    put_back(engine, units, true);
}

pub(super) fn all_failed(units: &[Unit], problem: &Problem) -> Completion {
    let failed = units.iter().map(|u| (u.run, u.index, problem.clone())).collect();
    Completion { failed, ..Completion::default() }
}

pub(super) async fn complete(
    engine: &Arc<Inner>,
    completion: Completion,
    mut runs: Vec<RunId>,
) -> Result<(), StoreError> {
    engine.store.complete(completion).await?;
    engine.note_room(true);
    runs.sort_unstable();
    runs.dedup();
    runs.into_iter().for_each(|run| engine.progress.changed(run));
    Ok(())
}

/// Returns items to where they wait after a rest: the store said no, and asking again at once would only heat it. Those
/// that were claimed wait until the store has taken the claim back, or each such rest would count as a crash.
pub(super) fn put_back(engine: &Arc<Inner>, units: Vec<Unit>, claimed: bool) {
    let engine = Arc::clone(engine);
    tokio::spawn(async move {
        let ids: Vec<(RunId, u32)> = units.iter().map(|u| (u.run, u.index)).collect();
        loop {
            tokio::time::sleep(STORE_REST).await;
            match if claimed { engine.store.release(&ids).await } else { Ok(()) } {
                Ok(()) => break,
                // the next start takes them up
                Err(StoreError::Closed) => return,
                Err(error) => tracing::warn!(%error, "items cannot go back to the queue yet"),
            }
        }
        engine.enqueue(units);
    });
}

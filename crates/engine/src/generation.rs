//! Continues inputs with generated tokens before they are captured.
//!
//! Sequences of many runs are decoded together, one token each per step, in time slices; other batches run between the
//! slices, and new sequences join there. A finished sequence replaces its item in the store, durably, and is then
//! queued to be captured like any other input. After a crash before that, generation starts again and gives the same
//! tokens.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    InFlight, Inner, batch_key,
    claimed::{claim, complete},
    queue::{Budget, Unit},
    scheduler::{BATCH_TIME, all_failed, put_back},
    unit,
    worker::{GenerateJob, Job, Workers},
};
use residuum_domain::{Code, NewItem, Problem, RunId};
use residuum_model::{Model, generate::Sequence};

/// Sequences that are decoded together.
const MAX_SEQUENCES: usize = 32;
/// Memory for the KV caches of all sequences, in bytes. A single sequence may take more.
const KV_CACHE_BYTES: u64 = 192 << 20;

/// A sequence being generated.
struct Active {
    unit: Unit,
    item: NewItem,
    sequence: Sequence,
    /// 0 once the run is cancelled or deleted.
    alive: Arc<AtomicUsize>,
    /// Key of its entry in `Inner::in_flight`.
    batch: u64,
}

/// A sequence's entry in `Inner::in_flight`.
struct Place {
    alive: Arc<AtomicUsize>,
    batch: u64,
}

impl Place {
    fn take(engine: &Inner, unit: &Unit) -> Self {
        let alive = Arc::new(AtomicUsize::new(1));
        let units = vec![(unit.run, unit.index)];
        let batch = engine.in_flight_add(InFlight { units, alive: Arc::clone(&alive) });
        Self { alive, batch }
    }
}

/// The sequences being generated, all by one model.
#[derive(Default)]
struct GeneratingBatch {
    model: Option<Arc<Model>>,
    active: Vec<Active>,
}

/// Runs until the engine drains.
pub(super) async fn run(engine: Arc<Inner>, workers: Workers, slots: Arc<Semaphore>) {
    let mut batch = GeneratingBatch::default();
    while !engine.draining.is_cancelled() {
        batch.admit(&engine).await;
        metrics::gauge!("residuum_generating_sequences").set(batch.active.len() as f64);
        if batch.active.is_empty() {
            // it may be the last to hold a model that is being unloaded
            batch.model = None;
        }
        let Some(model) = batch.model.clone().filter(|_| !batch.active.is_empty()) else {
            tokio::select! {
                () = engine.wake_generator.notified() => continue,
                () = engine.draining.cancelled() => break,
            }
        };
        let permit = tokio::select! {
            permit = Arc::clone(&slots).acquire_owned() => permit.expect("the semaphore is never closed"),
            () = engine.draining.cancelled() => break,
        };
        batch.slice(&engine, &workers, &model, permit).await;
        batch.remove_ended(&engine, &model).await;
    }
    batch.active.iter().for_each(|a| engine.in_flight_remove(a.batch));
}

impl GeneratingBatch {
    /// Adds waiting sequences while there is room.
    async fn admit(&mut self, engine: &Arc<Inner>) {
        while let Some(units) = self.next(engine) {
            // Entered as in flight before they are read, so that a run cancelled in between is found there.
            let mut places: HashMap<(RunId, u32), Place> =
                units.iter().map(|u| ((u.run, u.index), Place::take(engine, u))).collect();
            let claimed = claim(engine, &units).await;
            if let Ok(Some((items, model))) = &claimed {
                for (unit, item) in items {
                    if item.generation.is_some()
                        && let Some(place) = places.remove(&(unit.run, unit.index))
                    {
                        self.add(model, unit.clone(), item.clone(), place);
                    }
                }
                self.model = Some(Arc::clone(model));
            }
            places.into_values().for_each(|place| engine.in_flight_remove(place.batch));
            match claimed {
                Ok(_) => {}
                Err(problem) => {
                    tracing::error!(%problem, "inputs to continue could not be claimed; they go back to the queue");
                    put_back(engine, units, false);
                    return;
                }
            }
        }
    }

    /// The units that may join now.
    fn next(&self, engine: &Arc<Inner>) -> Option<Vec<Unit>> {
        let mut queue = engine.to_continue();
        let (key, alone) = queue.next_key()?;
        let fits = match (self.active.first(), &self.model) {
            (Some(first), Some(model)) => key.model == model.info().id && !alone && first.unit.max_batch_items > 1,
            _ => true,
        };
        let held: u64 = self.active.iter().map(|a| a.unit.n_tokens as u64).sum();
        let per_token = engine.models.accepted(&key.model).map_or(1, |m| m.generation_bytes_per_token()).max(1);
        let tokens = usize::try_from((KV_CACHE_BYTES / per_token).saturating_sub(held)).unwrap_or(usize::MAX);
        let items = MAX_SEQUENCES.saturating_sub(self.active.len());
        // The queue returns its first item even if it is over the budget, so a batch without room must not ask for one.
        let room = self.active.is_empty() || (items > 0 && tokens > 0);
        if fits && room { queue.next_batch(Budget { tokens, bytes: u64::MAX, items }) } else { None }
    }

    fn add(&mut self, model: &Model, unit: Unit, item: NewItem, Place { alive, batch }: Place) {
        let Some(generation) = item.generation.clone() else { return };
        let mut sequence = model.sequence(item.token_ids.clone(), generation, u64::from(unit.index));
        if let Some(edits) = &unit.edits {
            sequence = sequence.with_edits(Arc::clone(edits), item.interventions.clone());
        }
        self.active.push(Active { unit, item, sequence, alive, batch });
    }

    /// Runs a time slice of decoding steps for every sequence.
    async fn slice(
        &mut self,
        engine: &Arc<Inner>,
        workers: &Workers,
        model: &Arc<Model>,
        permit: OwnedSemaphorePermit,
    ) {
        let (done, outcome) = oneshot::channel();
        let alive: Vec<Arc<AtomicUsize>> = self.active.iter().map(|a| Arc::clone(&a.alive)).collect();
        let (rest, sequences): (Vec<_>, Vec<Sequence>) = std::mem::take(&mut self.active)
            .into_iter()
            .map(|a| ((a.unit, a.item, a.alive, a.batch), a.sequence))
            .unzip();
        let job = GenerateJob {
            model: Arc::clone(model),
            sequences,
            slice: BATCH_TIME,
            cancelled: Box::new(move || alive.iter().all(|a| a.load(Ordering::Relaxed) == 0)),
            done,
        };
        let sent = workers.submit(Job::Generate(job)).await;
        let outcome = match (sent, outcome.await) {
            (Ok(()), Ok(outcome)) => outcome,
            _ => Err(Problem::new(Code::WorkerFailed, "the worker ended while computing this")),
        };
        drop(permit);
        match outcome {
            Ok(sequences) => {
                let again = rest.into_iter().zip(sequences);
                self.active.extend(again.map(|((unit, item, alive, batch), sequence)| Active {
                    unit,
                    item,
                    sequence,
                    alive,
                    batch,
                }));
            }
            Err(problem) => {
                rest.iter().for_each(|(.., batch)| engine.in_flight_remove(*batch));
                failed(engine, rest.into_iter().map(|(unit, ..)| unit).collect(), problem).await;
            }
        }
    }

    /// Removes sequences that are finished or cancelled.
    async fn remove_ended(&mut self, engine: &Arc<Inner>, model: &Arc<Model>) {
        let (gone, staying): (Vec<Active>, Vec<Active>) = std::mem::take(&mut self.active)
            .into_iter()
            .partition(|a| a.sequence.is_finished() || a.alive.load(Ordering::Relaxed) == 0);
        self.active = staying;
        let mut finished = Vec::new();
        for Active { unit, item, sequence, alive, batch } in gone {
            engine.in_flight_remove(batch);
            if alive.load(Ordering::Relaxed) > 0
                && let Some(item) = continued(item, sequence, model)
            {
                finished.push((unit, item));
            }
        }
        if !finished.is_empty() {
            queue_for_capture(engine, model, finished).await;
        }
    }
}

/// The item with the generated tokens.
fn continued(item: NewItem, sequence: Sequence, model: &Model) -> Option<NewItem> {
    let (token_ids, completion) = sequence.finish()?;
    metrics::counter!("residuum_tokens_generated_total").increment((token_ids.len() - completion.first) as u64);
    let tokens = model.tokenizer().token_strings(&token_ids);
    Some(NewItem { token_ids, tokens, generation: None, completion: Some(completion), ..item })
}

/// Resolves the positions of an item whose tokens are all known now.
fn settle_continued(item: &mut NewItem, model: &Model) -> Result<(), Problem> {
    if let Some(asked) = item.unsettled.take() {
        let special = model.tokenizer().special_mask(&item.token_ids);
        item.capture.positions = asked.resolve(&special)?;
    }
    item.capture.positions.resolve(item.token_ids.len()).map(drop)
}

/// Makes continued items durable and queues them to be captured. An item that ended before a position that its capture
/// names fails.
async fn queue_for_capture(engine: &Arc<Inner>, model: &Arc<Model>, finished: Vec<(Unit, NewItem)>) {
    let mut ready = Vec::new();
    for (old, mut item) in finished {
        match settle_continued(&mut item, model) {
            Ok(()) => ready.push((old, item)),
            Err(problem) => record_failure(engine, vec![old], &problem).await,
        }
    }
    let items: Vec<(RunId, u32, NewItem)> = ready.iter().map(|(u, item)| (u.run, u.index, item.clone())).collect();
    if let Err(e) = engine.store.continued(&items).await {
        tracing::error!(error = %e, "continued inputs could not be recorded; they go back to the queue");
        return put_back(engine, ready.into_iter().map(|(unit, _)| unit).collect(), true);
    }
    let waiting = |(old, item): &(Unit, NewItem)| {
        let key = batch_key(old.key.tenant, &model.info().id, item);
        let edits = old.edits.clone();
        let Unit { priority, reuse, max_batch_items, .. } = *old;
        Unit { edits, priority, reuse, max_batch_items, ..unit(old.run, old.index, item, key, model) }
    };
    engine.enqueue(ready.iter().map(waiting).collect());
}

/// Handles sequences whose step failed: each is tried again alone, so that one bad input does not fail the others.
async fn failed(engine: &Arc<Inner>, units: Vec<Unit>, problem: Problem) {
    if units.len() > 1 {
        engine.enqueue(units.into_iter().map(|u| Unit { max_batch_items: 1, ..u }).collect());
    } else {
        record_failure(engine, units, &problem).await;
    }
}

async fn record_failure(engine: &Arc<Inner>, units: Vec<Unit>, problem: &Problem) {
    metrics::counter!("residuum_items_failed_total").increment(units.len() as u64);
    let runs: Vec<RunId> = units.iter().map(|u| u.run).collect();
    if let Err(e) = complete(engine, all_failed(&units, problem), runs).await {
        tracing::error!(error = %e, "a failure could not be recorded; its inputs go back to the queue");
        put_back(engine, units, true);
    }
}

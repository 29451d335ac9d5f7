//! Continues inputs with generated tokens.
//!
//! Sequences of many runs are decoded together, one token each per step, in time slices; other batches run between the
//! slices, and new sequences join there. What is to be captured is recorded by the same steps ([`storing`]). Each token is
//! reported as it is chosen ([`token_log`]). After a crash before an item is stored, generation starts again and gives the
//! same tokens.

mod completing;
mod followed;
mod storing;
mod token_log;
mod writing;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use completing::{Completing, CompletionRequest, PromptTokens, SpelledToken};
pub(crate) use followed::FollowedRuns;
pub(crate) use token_log::TokenLog;
pub use token_log::{Change, GenerationEvent, TokenFeed, WrittenToken};
pub(crate) use writing::{Controls, GenerateJob, generate};

use crate::{
    InFlight, Inner,
    claimed::claim,
    queue::{Budget, Unit, UnitId},
    scheduler::{BATCH_TIME, put_back},
    worker::{Job, Workers},
};
use residuum_domain::{Code, NewItem, Problem, RunId};
use residuum_model::Model;
use storing::{record_failure, store_finished};
use writing::Writing;

/// Sequences that are decoded together, over all models.
const MAX_SEQUENCES: usize = 32;
/// Memory for the KV caches of all sequences, in bytes. A single sequence may take more. Sequences that find no room wait
/// without a cache, and fill it again when their turn comes.
const KV_CACHE_BYTES: u64 = 512 << 20;
/// Memory for the rows that sequences capture while they are decoded, in bytes. What finds no room is captured in a pass of
/// its own at the end.
const KEPT_BYTES: u64 = 256 << 20;
/// Tokens by which a sequence may grow during a time slice, at most; more only if a step takes less than 4 ms.
const SLICE_TOKENS: usize = 64;

/// A sequence being generated.
struct Active {
    unit: Unit,
    item: NewItem,
    writing: Writing,
    model: Arc<Model>,
    /// Bytes of the rows that it captures meanwhile.
    kept_bytes: u64,
    /// Key of its entry in `Inner::in_flight`.
    batch: u64,
}

impl Active {
    /// Bytes of its KV cache at the end of the next slice.
    fn cache_bytes(&self) -> u64 {
        let n = (self.item.token_ids.len() + SLICE_TOKENS).max(self.writing.sequence.n_cached() + SLICE_TOKENS);
        n as u64 * self.model.generation_bytes_per_token()
    }

    /// What sequences must share to be decoded together: the model, and nothing at all if it has to be alone.
    fn group(&self) -> (&str, Option<UnitId>) {
        (&self.model.info().id, (self.unit.max_batch_items <= 1).then(|| self.unit.id()))
    }
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

/// The sequences being generated, in the order in which they joined.
#[derive(Default)]
struct Generator {
    active: Vec<Active>,
    /// Number of slices so far; groups of sequences take turns.
    turn: usize,
}

/// Runs until the engine drains.
pub(super) async fn run(engine: Arc<Inner>, workers: Workers, slots: Arc<Semaphore>) {
    let mut generator = Generator::default();
    while !engine.draining.is_cancelled() {
        generator.admit(&engine).await;
        metrics::gauge!("residuum_generating_sequences").set(generator.active.len() as f64);
        if generator.active.is_empty() {
            tokio::select! {
                () = engine.wake_generator.notified() => continue,
                () = engine.draining.cancelled() => break,
            }
        }
        let permit = tokio::select! {
            permit = Arc::clone(&slots).acquire_owned() => permit.expect("the semaphore is never closed"),
            () = engine.draining.cancelled() => break,
        };
        // those that came while this task waited for a slot join
        generator.admit(&engine).await;
        generator.slice(&engine, &workers, permit).await;
        generator.remove_ended(&engine);
    }
    generator.active.iter().for_each(|a| engine.in_flight_remove(a.batch));
    let stopping = Problem::new(Code::Unavailable, "the server is stopping").retry_after(5);
    engine.followed.close_all(&stopping);
}

impl Generator {
    /// Adds waiting sequences while there is room.
    async fn admit(&mut self, engine: &Arc<Inner>) {
        while let Some(units) = self.next(engine) {
            // Entered as in flight before they are read, so that a run cancelled in between is found there.
            let mut places: HashMap<UnitId, Place> = units.iter().map(|u| (u.id(), Place::take(engine, u))).collect();
            let claimed = claim(engine, &units).await;
            if let Ok(Some((items, model))) = &claimed {
                for (unit, item) in items {
                    if item.generation.is_some()
                        && let Some(place) = places.remove(&unit.id())
                    {
                        self.add(engine, model, unit.clone(), item.clone(), place);
                    }
                }
            }
            places.into_values().for_each(|place| engine.in_flight_remove(place.batch));
            if let Err(problem) = claimed {
                tracing::error!(%problem, "inputs to continue could not be claimed; they go back to the queue");
                put_back(engine, units, false);
                return;
            }
        }
    }

    /// The units that may join now.
    fn next(&self, engine: &Arc<Inner>) -> Option<Vec<Unit>> {
        let mut queue = engine.to_continue();
        let (key, _) = queue.next_key()?;
        let per_token = engine.models.accepted(&key.model).map_or(1, |m| m.generation_bytes_per_token()).max(1);
        let tokens = usize::try_from(self.free_bytes() / per_token).unwrap_or(usize::MAX);
        let items = MAX_SEQUENCES.saturating_sub(self.active.len());
        // The queue returns its first item even if it is over the budget, so a batch without room must not ask for one.
        let room = self.active.is_empty() || (items > 0 && tokens > 0);
        if room { queue.next_batch(Budget { tokens, bytes: u64::MAX, items }) } else { None }
    }

    /// Bytes that the KV caches leave free.
    fn free_bytes(&self) -> u64 {
        KV_CACHE_BYTES.saturating_sub(self.active.iter().map(Active::cache_bytes).sum())
    }

    fn add(&mut self, engine: &Inner, model: &Arc<Model>, unit: Unit, item: NewItem, Place { alive, batch }: Place) {
        let Some(generation) = item.generation.clone().filter(|_| alive.load(Ordering::Relaxed) > 0) else {
            return engine.in_flight_remove(batch);
        };
        let (log, scoring) = engine.followed.log(unit.run);
        log.set_samples(generation.n);
        let mut sequence =
            model.sequence(item.token_ids.clone(), generation, u64::from(unit.index)).with_scoring(scoring);
        if let Some(edits) = &unit.edits {
            sequence = sequence.with_edits(Arc::clone(edits), item.interventions.clone());
        }
        let kept: u64 = self.active.iter().map(|a| a.kept_bytes).sum();
        let mut kept_bytes = 0;
        if let Some((keep, n_bytes)) = storing::keep(&item, model).filter(|(_, n)| kept + n <= KEPT_BYTES) {
            sequence = sequence.with_keep(keep);
            kept_bytes = n_bytes;
        }
        let control = engine.controls.add(unit.id());
        let writing = Writing { sequence, item: unit.index, log: Some(log), control, alive };
        self.active.push(Active { unit, item, writing, model: Arc::clone(model), kept_bytes, batch });
    }

    /// Takes out the sequences of the next slice: those of the group whose turn it is, as far as their KV caches find room.
    /// Sequences that find none drop theirs; they joined last.
    fn take_turn(&mut self) -> Vec<Active> {
        let sizes: Vec<u64> = self.active.iter().map(Active::cache_bytes).collect();
        let has_room = which_fit(&sizes, KV_CACHE_BYTES);
        let mut groups = Vec::new();
        for (active, has_room) in self.active.iter_mut().zip(&has_room) {
            if !has_room {
                active.writing.sequence.release();
            } else if !groups.contains(&active.group()) {
                groups.push(active.group());
            }
        }
        let Some(turn) =
            groups.get(self.turn % groups.len().max(1)).map(|(model, alone)| ((*model).to_owned(), *alone))
        else {
            return Vec::new();
        };
        self.turn += 1;
        let mut at = 0;
        let (taken, rest) = std::mem::take(&mut self.active).into_iter().partition(|active| {
            at += 1;
            has_room[at - 1] && active.group() == (turn.0.as_str(), turn.1)
        });
        self.active = rest;
        taken
    }

    /// Runs a time slice of decoding steps.
    async fn slice(&mut self, engine: &Arc<Inner>, workers: &Workers, permit: OwnedSemaphorePermit) {
        let has_room = self.active.len() < MAX_SEQUENCES && self.free_bytes() > 0;
        let order: Vec<UnitId> = self.active.iter().map(|a| a.unit.id()).collect();
        let taken = self.take_turn();
        let Some(model) = taken.first().map(|a| Arc::clone(&a.model)) else { return };
        let (done, outcome) = oneshot::channel();
        let (rest, writings): (Vec<_>, Vec<Writing>) =
            taken.into_iter().map(|a| ((a.unit, a.item, a.model, a.kept_bytes, a.batch), a.writing)).unzip();
        let waiting = Arc::clone(engine);
        let joins = move || has_room && waiting.to_continue().next_key().is_some();
        let job = GenerateJob { model, writings, slice: BATCH_TIME, yields: Box::new(joins), done };
        let sent = workers.submit(Job::Generate(job)).await;
        let outcome = match (sent, outcome.await) {
            (Ok(()), Ok(outcome)) => outcome,
            _ => Err(Problem::new(Code::WorkerFailed, "the worker ended while computing this")),
        };
        drop(permit);
        match outcome {
            Ok(writings) => {
                let again = rest.into_iter().zip(writings).map(|((unit, item, model, kept_bytes, batch), writing)| {
                    Active { unit, item, writing, model, kept_bytes, batch }
                });
                self.active.extend(again);
                self.active.sort_by_key(|a| order.iter().position(|id| *id == a.unit.id()));
            }
            Err(problem) => {
                let removed = |(unit, .., batch): (Unit, NewItem, Arc<Model>, u64, u64)| {
                    engine.in_flight_remove(batch);
                    engine.controls.remove(unit.id());
                    unit
                };
                let units = rest.into_iter().map(removed).collect();
                failed(engine, units, problem).await;
            }
        }
    }

    /// Removes sequences that are finished or dropped, and lets those that are finished be stored.
    fn remove_ended(&mut self, engine: &Arc<Inner>) {
        let (gone, staying): (Vec<Active>, Vec<Active>) = std::mem::take(&mut self.active)
            .into_iter()
            .partition(|a| a.writing.sequence.is_finished() || !a.writing.is_alive());
        self.active = staying;
        let (finished, dropped): (Vec<Active>, Vec<Active>) =
            gone.into_iter().partition(|a| a.writing.is_alive() && !engine.followed.is_unrecorded(a.unit.run));
        for active in dropped {
            engine.controls.remove(active.unit.id());
            engine.in_flight_remove(active.batch);
        }
        if !finished.is_empty() {
            tokio::spawn(store_finished(Arc::clone(engine), finished));
        }
    }
}

/// Which of these sizes fit into `room` together: the first in any case, and then each that leaves it unexceeded.
fn which_fit(sizes: &[u64], room: u64) -> Vec<bool> {
    let mut taken = 0u64;
    let fits = |(i, size): (usize, &u64)| {
        let fits = i == 0 || taken.saturating_add(*size) <= room;
        taken = if fits { taken.saturating_add(*size) } else { taken };
        fits
    };
    sizes.iter().enumerate().map(fits).collect()
}

/// Handles sequences whose step failed: each is tried again alone, so that one bad input does not fail the others.
async fn failed(engine: &Arc<Inner>, units: Vec<Unit>, problem: Problem) {
    if units.len() > 1 {
        engine.enqueue(units.into_iter().map(|u| Unit { max_batch_items: 1, ..u }).collect());
    } else {
        record_failure(engine, units, &problem).await;
    }
}

impl Inner {
    /// Closes the logs of runs that have ended.
    pub(crate) fn close_logs(&self, ended: &[RunId]) {
        let gone = Problem::new(Code::Conflict, "the run has ended");
        ended.iter().for_each(|run| self.followed.close(*run, &gone));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_have_room_in_the_order_in_which_sequences_joined() {
        assert_eq!(which_fit(&[4, 4, 4], 12), [true; 3]);
        assert_eq!(
            which_fit(&[4, 9, 4, 4], 12),
            [true, false, true, true],
            "a small one does not wait for a large one"
        );
        assert_eq!(which_fit(&[20, 1], 12), [true, false], "the first always goes on");
        assert_eq!(which_fit(&[u64::MAX, u64::MAX], 12), [true, false]);
        assert!(which_fit(&[], 12).is_empty());
    }
}

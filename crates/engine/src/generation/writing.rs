//! Sequences on a worker: what each step adds to them goes to the log of their run.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::token_log::{Change, TokenLog, WrittenToken};
use crate::queue::UnitId;
use residuum_domain::{Code, Problem, RunId};
use residuum_model::{
    ForwardError, Model,
    generate::{News, Sequence},
};

/// Sequences to continue for one time slice.
pub struct GenerateJob {
    /// The model to run.
    pub model: Arc<Model>,
    /// The sequences.
    pub writings: Vec<Writing>,
    /// No step begins after this time.
    pub slice: Duration,
    /// Whether the slice should end now because others wait to join.
    pub yields: Box<dyn Fn() -> bool + Send + Sync>,
    /// Receives the sequences with their new tokens.
    pub done: tokio::sync::oneshot::Sender<Result<Vec<Writing>, Problem>>,
}

/// One sequence with those who wait for it.
pub struct Writing {
    /// The sequence.
    pub sequence: Sequence,
    /// Index of its item in its run.
    pub item: u32,
    /// Receives what is written.
    pub log: Option<Arc<TokenLog>>,
    /// Tells it to stop.
    pub control: Arc<Control>,
    /// 0 once its item is dropped.
    pub alive: Arc<AtomicUsize>,
}

impl Writing {
    /// Whether its item has not been dropped.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed) > 0
    }

    /// Ends the sequence if it was told to stop. What was written stays.
    fn obey(&mut self, model: &Model) {
        if self.control.stop.load(Ordering::Relaxed) && !self.sequence.cancel(model.tokenizer()) {
            self.alive.store(0, Ordering::Relaxed);
        }
    }

    /// Passes on what the last step added.
    fn report(&mut self, model: &Model) {
        for news in self.sequence.take_news() {
            let change = match news {
                News::Scored(scores) => Change::Scored(scores),
                News::Written { position, score, text, text_start } => {
                    self.control.n_written.fetch_add(1, Ordering::Relaxed);
                    metrics::counter!("residuum_tokens_generated_total").increment(1);
                    let token = model.tokenizer().token_strings(&[score.token_id]).concat();
                    Change::Written(WrittenToken { position, score, token, text, text_start })
                }
                News::Ended(reason, text) => Change::Ended { reason: Ok(reason), text },
            };
            if let Some(log) = &self.log {
                log.push(self.item, change);
            }
        }
    }
}

/// Runs steps until the time is over, a sequence is finished, others wait to join, or all are dropped.
pub fn generate(
    model: &Model,
    mut writings: Vec<Writing>,
    slice: Duration,
    yields: &(dyn Fn() -> bool + Send + Sync),
) -> Result<Vec<Writing>, Problem> {
    let started = Instant::now();
    let alive: Vec<Arc<AtomicUsize>> = writings.iter().map(|w| Arc::clone(&w.alive)).collect();
    let cancelled = || alive.iter().all(|a| a.load(Ordering::Relaxed) == 0);
    loop {
        writings.iter_mut().for_each(|w| w.obey(model));
        let mut moving: Vec<&mut Sequence> =
            writings.iter_mut().filter(|w| w.is_alive()).map(|w| &mut w.sequence).collect();
        let outcome = model.step(&mut moving, &cancelled);
        writings.iter_mut().for_each(|w| w.report(model));
        match outcome {
            Ok(()) if writings.iter().any(|w| w.sequence.is_finished() || !w.is_alive()) => return Ok(writings),
            Ok(()) if started.elapsed() < slice && !yields() => {}
            Ok(()) | Err(ForwardError::Cancelled) => return Ok(writings),
            Err(e) => {
                tracing::error!(error = %e, "a step of a generation failed");
                return Err(Problem::new(Code::WorkerFailed, "the forward pass failed"));
            }
        }
    }
}

/// Controls one item that is being generated.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    n_written: AtomicUsize,
}

/// The items that are being generated, until they are stored or wait to be captured.
#[derive(Default)]
pub struct Controls(Mutex<HashMap<UnitId, Arc<Control>>>);

impl Controls {
    fn lock(&self) -> MutexGuard<'_, HashMap<UnitId, Arc<Control>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item.
    pub fn add(&self, id: UnitId) -> Arc<Control> {
        let control = Arc::new(Control::default());
        self.lock().insert(id, Arc::clone(&control));
        control
    }

    /// Removes an item.
    pub fn remove(&self, id: UnitId) {
        self.lock().remove(&id);
    }

    /// The items of a run of which something has been written.
    pub fn written(&self, run: RunId) -> Vec<u32> {
        let wrote = |control: &Control| control.n_written.load(Ordering::Relaxed) > 0;
        let of_run =
            |((of, index), control): (&UnitId, &Arc<Control>)| (*of == run && wrote(control)).then_some(*index);
        self.lock().iter().filter_map(of_run).collect()
    }

    /// Tells items to stop, keeping what they have written.
    pub fn stop(&self, run: RunId, items: &[u32]) {
        let controls = self.lock();
        for control in items.iter().filter_map(|index| controls.get(&(run, *index))) {
            control.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Whether one of these items is still here.
    pub fn has_any(&self, run: RunId, items: &[u32]) -> bool {
        let controls = self.lock();
        items.iter().any(|index| controls.contains_key(&(run, *index)))
    }
}

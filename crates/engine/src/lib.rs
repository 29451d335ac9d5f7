//! The engine takes a run from an accepted request to durable activations: queue → planner → worker thread → store.
//!
//! The only crate that knows both the model and the store. It must not know HTTP. A run is accepted when its rows are
//! durable; from then on it survives a client that disconnects and a server that is killed. [`Engine`] is a cheap
//! handle; background tasks do the work.

mod admission;
mod background_jobs;
mod cancelling;
mod claimed;
mod dedup;
mod generation;
mod input;
mod interventions;
mod keys;
mod observe;
mod positions;
mod progress;
pub mod questions;
mod queue;
mod recent_items;
mod recovery;
mod registry;
mod request;
mod retention;
mod reuse;
mod saes;
mod scheduler;
pub mod serving;
mod sink;
mod submission_reuse;
mod submit;
#[cfg(test)]
mod tests;
mod token_cache;
mod warnings;
mod worker;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use generation::{
    Change, Completing, CompletionRequest, GenerationEvent, PromptTokens, SpelledToken, TokenFeed, WrittenToken,
};
pub use input::{Content, InputSpec};
pub use interventions::{Asked, Interventions, Variants};
pub use registry::{ModelState, Registry};
pub use request::{Prepared, RunRequest, Truncate, item_shapes};
pub use residuum_model::{ChatEnd, GivenTemplate};
pub use saes::{SaeAbout, SaeSource, SaeState, Saes, ServedSae};
pub use submit::Submitted;

use background_jobs::BackgroundJob;
use dedup::InFlightDedup;
use generation::{Controls, FollowedRuns};
use progress::Progress;
use questions::patching::ExperimentQueue;
use queue::{BatchKey, Depth, Load, Loads, Queue, Reuse, UNLIMITED, Unit};
use recent_items::RecentItems;
use request::item_bytes;
use residuum_domain::{NewItem, Priority, Problem, Run, RunId, TenantId};
use residuum_model::Model;
use residuum_store::{KeepDeleted, Quota, Store};
use scheduler::{InFlight, Speed};
use submission_reuse::Lookup;
use submit::batch_key;
use token_cache::TokenCache;
use worker::Workers;

/// Bounds on what the engine accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Inputs of one run.
    pub max_run_items: usize,
    /// Tokens of one run, including those to be generated.
    pub max_run_tokens: usize,
    /// Bytes that one run may store.
    pub max_run_bytes: u64,
    /// Inputs that may wait, over all runs.
    pub max_queued_items: usize,
    /// Bytes that all waiting captures may take.
    pub max_queued_bytes: u64,
    /// How much the store may take; `None`: as much as the disk holds.
    pub quota: Option<Quota>,
    /// How long the files of deleted caches are kept for requests that still read them.
    pub keep_deleted: KeepDeleted,
    /// Inputs of one client that may wait.
    pub max_client_items: usize,
    /// Bytes that the waiting captures of one client may take.
    pub max_client_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_run_items: 10_000,
            max_run_tokens: 10_000_000,
            max_run_bytes: 64 << 30,
            max_queued_items: 100_000,
            max_queued_bytes: 256 << 30,
            max_client_items: 50_000,
            max_client_bytes: 128 << 30,
            quota: None,
            keep_deleted: KeepDeleted::default(),
        }
    }
}

/// A model to serve: the name for clients, and a path or hub name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    /// The name clients use.
    pub id: String,
    /// A Hugging Face folder, a `.gguf` file, or `org/name` on the hub.
    pub path: PathBuf,
}

/// Progress of a run, which server-sent events carry beside the run itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Number of runs whose turn comes before this one's; `None` if nothing of this run waits.
    pub queue_position: Option<usize>,
    /// Tokens per second of recent batches; 0 before the first batch.
    pub tokens_per_second: f64,
}

/// Handle to the engine; clones share it.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    tasks: Arc<Mutex<Option<Tasks>>>,
}

struct Tasks {
    scheduler: JoinHandle<()>,
    generator: JoinHandle<()>,
    submission_reuse: JoinHandle<()>,
    background_jobs: JoinHandle<()>,
    retention: JoinHandle<()>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

struct Inner {
    store: Store,
    models: Registry,
    limits: Limits,
    token_cache: Arc<TokenCache>,
    queue: Mutex<Queue>,
    /// Inputs to be continued before they are put into `queue`.
    to_continue: Mutex<Queue>,
    /// Items that wait for activations that are being computed for another item.
    dedup: Mutex<InFlightDedup>,
    /// Inputs of small new runs, kept in memory so that they need not be read from the store.
    recent_items: RecentItems,
    /// Number of commits of computed or copied activations. While it is unchanged, a lookup that found nothing is still
    /// right.
    completions: AtomicU64,
    /// Load of runs that are being inserted into the store and are not queued yet.
    admitted: Mutex<Loads>,
    in_flight: Mutex<HashMap<u64, InFlight>>,
    next_batch: AtomicU64,
    wake: Notify,
    wake_generator: Notify,
    /// Items that are being generated.
    controls: Controls,
    /// Runs whose tokens are followed, and generations that are not stored.
    followed: FollowedRuns,
    progress: Progress,
    speed: Speed,
    /// When the store last had no room.
    no_room: Mutex<Option<Instant>>,
    draining: CancellationToken,
    background_jobs: mpsc::Sender<BackgroundJob>,
    lookups: mpsc::Sender<Lookup>,
    experiments: Arc<ExperimentQueue>,
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to_continue(&self) -> MutexGuard<'_, Queue> {
        self.to_continue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dedup(&self) -> MutexGuard<'_, InFlightDedup> {
        self.dedup.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admitted(&self) -> MutexGuard<'_, Loads> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits: of one tenant, and in total.
    fn waiting(&self, tenant: TenantId) -> (Load, Load) {
        let (mut own, mut all) = (Load::default(), Load::default());
        let mut add = |loads: &Loads| {
            own += loads.of(tenant);
            all += loads.total();
        };
        add(self.queue().loads());
        add(self.to_continue().loads());
        add(self.dedup().loads());
        (own, all)
    }

    /// What waits, by priority.
    fn depths(&self) -> [Depth; Priority::ALL.len()] {
        let mut depths = Default::default();
        self.queue().measure(&mut depths);
        self.to_continue().measure(&mut depths);
        self.dedup().measure(&mut depths);
        depths
    }

    /// Puts each item into its queue, and wakes the task that serves that queue.
    fn enqueue(&self, units: Vec<Unit>) {
        let (incomplete, complete): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(|u| u.key.generates());
        if !incomplete.is_empty() {
            self.to_continue().push(incomplete);
            self.wake_generator.notify_one();
        }
        if !complete.is_empty() {
            self.queue().push(complete);
            self.wake.notify_one();
        }
    }

    fn in_flight(&self) -> MutexGuard<'_, HashMap<u64, InFlight>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_flight_add(&self, batch: InFlight) -> u64 {
        let id = self.next_batch.fetch_add(1, Ordering::Relaxed);
        self.in_flight().insert(id, batch);
        id
    }

    fn in_flight_remove(&self, id: u64) {
        self.in_flight().remove(&id);
    }
}

impl Engine {
    /// Starts the background tasks and `n_workers` workers, one for each device that models are loaded to.
    /// [`Self::load`] loads the models, and queues runs again that had not ended when the server last stopped.
    ///
    /// # Errors
    /// If a worker thread cannot be started.
    pub fn start(store: Store, names: Vec<String>, limits: Limits, n_workers: usize) -> std::io::Result<Self> {
        let (workers, threads) = Workers::spawn(n_workers, &store)?;
        let (background_jobs, waiting) = mpsc::channel(1);
        let (lookups, to_look_up) = mpsc::channel(submission_reuse::MAX_WAITING);
        let inner = Arc::new(Inner {
            store,
            models: Registry::new(names),
            limits,
            token_cache: Arc::default(),
            recent_items: RecentItems::default(),
            completions: AtomicU64::new(0),
            queue: Mutex::default(),
            to_continue: Mutex::default(),
            dedup: Mutex::default(),
            admitted: Mutex::default(),
            in_flight: Mutex::default(),
            next_batch: AtomicU64::new(0),
            wake: Notify::new(),
            wake_generator: Notify::new(),
            controls: Controls::default(),
            followed: FollowedRuns::default(),
            progress: Progress::default(),
            speed: Speed::new(n_workers),
            no_room: Mutex::default(),
            draining: CancellationToken::new(),
            background_jobs,
            lookups,
            experiments: Arc::default(),
        });
        let n_slots = scheduler::pipeline(n_workers);
        let slots = Arc::new(Semaphore::new(n_slots as usize));
        let scheduler = tokio::spawn(scheduler::run(Arc::clone(&inner), workers.clone(), Arc::clone(&slots), n_slots));
        let generator = tokio::spawn(generation::run(Arc::clone(&inner), workers.clone(), Arc::clone(&slots)));
        let submission_reuse =
            tokio::spawn(submission_reuse::run(inner.store.clone(), inner.draining.clone(), to_look_up));
        let background_jobs = tokio::spawn(background_jobs::run(inner.draining.clone(), workers, slots, waiting));
        let retention = tokio::spawn(retention::run(Arc::clone(&inner)));
        let tasks = Arc::new(Mutex::new(Some(Tasks {
            scheduler,
            generator,
            submission_reuse,
            background_jobs,
            retention,
            workers: threads,
        })));
        Ok(Self { inner, tasks })
    }

    /// The models and their states.
    #[must_use]
    pub fn models(&self) -> &Registry {
        &self.inner.models
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Makes sure that the store's quota leaves room for `n_bytes`, as for every run. If the quota allows eviction, the
    /// oldest caches are deleted for it.
    ///
    /// # Errors
    /// `Code::StoreFull`, and those of the store.
    pub async fn make_room(&self, n_bytes: u64) -> Result<(), Problem> {
        self.inner.make_room(n_bytes).await
    }

    /// The bounds on what is accepted.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Whether new runs are accepted: every model is loaded and the server is not stopping.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.inner.draining.is_cancelled() && self.inner.models.all_ready()
    }

    /// Whether the tasks and threads that carry out runs are still running.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.as_ref().is_some_and(|t| {
            !t.scheduler.is_finished() && !t.generator.is_finished() && !t.workers.iter().any(|w| w.is_finished())
        })
    }

    /// Cancelled when the server starts to drain. Whoever waits for a run should stop waiting then.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.inner.draining.clone()
    }

    /// A receiver that is notified whenever the run changes. Subscribe first, then read the run.
    #[must_use]
    pub fn subscribe(&self, run: RunId) -> watch::Receiver<u64> {
        self.inner.progress.subscribe(run)
    }

    /// The run, as soon as it has ended, `wait` is over or the server drains; `None` if there is no such run.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn wait(&self, tenant: TenantId, id: RunId, wait: Duration) -> Result<Option<Run>, Problem> {
        let deadline = Instant::now() + wait;
        let mut changes = self.subscribe(id);
        loop {
            let run = self.inner.store.run(tenant, id).await?;
            if run.as_ref().is_none_or(|r| r.status.is_final()) || self.inner.draining.is_cancelled() {
                return Ok(run);
            }
            let change = async {
                tokio::select! {
                    _ = changes.changed() => {}
                    () = self.inner.draining.cancelled() => {}
                }
            };
            if timeout_at(deadline, change).await.is_err() {
                return Ok(run);
            }
        }
    }

    /// The run's place in the queue, and the speed of recent batches.
    #[must_use]
    pub fn pace(&self, run: RunId) -> Pace {
        let queue_position = self.inner.queue().position(run);
        let queue_position = queue_position.or_else(|| self.inner.to_continue().position(run));
        let queue_position = queue_position.or_else(|| self.inner.dedup().is_following(run).then_some(0));
        Pace { queue_position, tokens_per_second: self.inner.speed.get() }
    }

    /// Stops accepting runs, finishes the batches in flight, commits them and ends the threads. Unfinished runs
    /// continue at the next start.
    pub async fn drain(&self) {
        self.inner.draining.cancel();
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Tasks { scheduler, generator, submission_reuse, background_jobs, retention, workers }) = tasks else {
            return;
        };
        let ended = [scheduler.await, generator.await, submission_reuse.await, background_jobs.await, retention.await];
        if ended.iter().any(Result::is_err) {
            tracing::error!("a background task of the engine had panicked");
        }
        while !self.inner.in_flight().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The tasks held the last handles to the workers, so the worker threads end by themselves.
        let joined = tokio::task::spawn_blocking(move || workers.into_iter().for_each(|worker| drop(worker.join())));
        let _ = joined.await;
    }
}

fn unit(run: RunId, index: u32, item: &NewItem, key: Arc<BatchKey>, model: &Model) -> Unit {
    Unit {
        run,
        index,
        n_tokens: item.planned_tokens(),
        n_bytes: item_bytes(item, model),
        key,
        edits: None,
        priority: Priority::Normal,
        reuse: Reuse::ToLookUp,
        max_batch_items: UNLIMITED,
    }
}

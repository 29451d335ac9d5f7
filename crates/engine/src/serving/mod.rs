//! Models and autoencoders that come and go while the server runs.
//!
//! A load has a state machine: loading → ready or failed; ready → unloading → gone. [`shelf`] holds the states;
//! `model_loads` and `sae_loads` begin and end loads, one at a time; `unloading` lets accepted work end first; and
//! `restoring` loads again what was loaded before a restart. `allowed_source` says what may be loaded, `free_memory`
//! what there is room for. None of this is part of readiness: that is about what the flags name.

pub(crate) mod allowed_source;
mod free_memory;
mod model_loads;
mod restoring;
mod sae_loads;
pub mod shelf;
mod unloading;

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::task::TaskTracker;

pub use allowed_source::AllowedSources;
pub use model_loads::NewModel;
pub use sae_loads::{NewSae, SaePlace};
pub use shelf::{Load, Origin, Served, ServedState};

use crate::{Engine, ModelSource, Saes};
use free_memory::free_memory;
use residuum_domain::{
    Code, Problem,
    ids::{ID_RULE, is_id},
};
use residuum_model::{LoadError, LoadOptions, sae::Sae};
use residuum_store::StoreError;
use shelf::STATES;

/// How long a cancelled load may take to notice before it is left to itself.
const CANCEL_GRACE: Duration = Duration::from_secs(10);

/// How and from where things are loaded while the server runs.
#[derive(Debug, Clone, Default)]
pub struct ServingOptions {
    /// How checkpoints are loaded.
    pub load: LoadOptions,
    /// What may be loaded.
    pub sources: AllowedSources,
    /// Do not load what was loaded before a restart.
    pub no_restore: bool,
}

/// Loads and unloads models and autoencoders; clones share everything.
#[derive(Clone)]
pub struct Serving {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    saes: Arc<Saes>,
    options: ServingOptions,
    /// The permit of the load that runs.
    turn: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Serving {
    /// Loads for this engine, and autoencoders for its models.
    #[must_use]
    pub fn new(engine: Engine, saes: Arc<Saes>, options: ServingOptions) -> Self {
        let (turn, tasks) = (Arc::new(Semaphore::new(1)), TaskTracker::new());
        Self { inner: Arc::new(Inner { engine, saes, options, turn, tasks }) }
    }

    /// Loads the models and then the autoencoders that the flags name; and begins to load again what was loaded before
    /// a restart. Loads that requests ask for wait until the flags are served.
    ///
    /// # Errors
    /// [`LoadError`] of the first that cannot be served.
    pub async fn start(&self, models: Vec<ModelSource>, options: LoadOptions) -> Result<(), LoadError> {
        let turn = Arc::clone(&self.inner.turn).acquire_owned().await;
        self.engine().load(models, options).await?;
        self.inner.saes.load(self.engine().models()).await?;
        drop(turn);
        if self.inner.options.no_restore {
            tracing::info!("what was loaded before this start is not loaded again");
        } else {
            self.restore().await;
        }
        Ok(())
    }

    /// Ends the loads under way, and waits for them.
    pub async fn stop(&self) {
        self.engine().models().shelf.cancel_loads();
        self.inner.saes.shelf.cancel_loads();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Waits until the model is ready, failed or gone, `wait` is over or the server drains.
    pub async fn wait_for_model(&self, id: &str, wait: Duration) {
        let models = &self.engine().models().shelf;
        let settled = || models.read(|all| all.get(id).is_none_or(|one| one.state.is_final()));
        self.wait_until(models.changes(), settled, wait).await;
    }

    /// As [`Self::wait_for_model`], for an autoencoder.
    pub async fn wait_for_sae(&self, id: &str, wait: Duration) {
        let saes = &self.inner.saes.shelf;
        let settled = || saes.read(|all| all.get(id).is_none_or(|one| one.state.is_final()));
        self.wait_until(saes.changes(), settled, wait).await;
    }

    async fn wait_until(&self, mut changes: watch::Receiver<u64>, settled: impl Fn() -> bool, wait: Duration) {
        let (deadline, draining) = (Instant::now() + wait, self.engine().draining());
        while !settled() && !draining.is_cancelled() {
            let change = async {
                tokio::select! {
                    _ = changes.changed() => {}
                    () = draining.cancelled() => {}
                }
            };
            if timeout_at(deadline, change).await.is_err() {
                return;
            }
        }
    }

    /// Sets the gauges of models and autoencoders.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    pub fn observe(&self) {
        let (models, saes) = (self.engine().models().shelf.count(), self.inner.saes.shelf.count());
        for (i, state) in STATES.into_iter().enumerate() {
            metrics::gauge!("residuum_models", "status" => state).set(models[i] as f64);
            metrics::gauge!("residuum_saes", "status" => state).set(saes[i] as f64);
        }
    }

    fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    fn accepts(&self) -> Result<(), Problem> {
        if self.engine().draining().is_cancelled() {
            return Err(Problem::new(Code::Unavailable, "the server is stopping").retry_after(5));
        }
        Ok(())
    }

    /// Refuses a load that would take more memory than is free, those under way counted.
    fn check_memory(&self, id: &str, needed: u64) -> Result<(), Problem> {
        let Some(free) = free_memory() else { return Ok(()) };
        let (models, saes) = (&self.engine().models().shelf, &self.inner.saes.shelf);
        let promised = models.outstanding_bytes(id).saturating_add(saes.outstanding_bytes(id));
        let free = free.saturating_sub(promised);
        if needed <= free {
            return Ok(());
        }
        let megabytes = |bytes: u64| bytes.div_ceil(1 << 20);
        let detail = format!(
            "loading this takes about {} MiB of memory, and {} MiB are free; unload something first, or send force: true \
             to load it nevertheless",
            megabytes(needed),
            free >> 20
        );
        Err(Problem::new(Code::NotEnoughMemory, detail))
    }

    /// Waits for the turn of a load; `None` if it is cancelled meanwhile.
    async fn turn(&self, load: &Load) -> Option<OwnedSemaphorePermit> {
        let turn = tokio::select! {
            biased;
            () = load.cancelled.cancelled() => None,
            turn = Arc::clone(&self.inner.turn).acquire_owned() => turn.ok(),
        };
        turn.filter(|_| !load.progress.is_cancelled())
    }
}

/// Checks the id of something new.
fn check_id(id: &str) -> Result<(), Problem> {
    if is_id(id) { Ok(()) } else { Err(Problem::at(Code::InvalidValue, "/id", ID_RULE)) }
}

fn in_use(id: &str) -> Problem {
    Problem::at(Code::Conflict, "/id", format!("`{id}` is in use; unload it first, or choose another id"))
}

/// Runs a load on a blocking thread, which keeps its turn. A panic fails the load. A load that is cancelled and does not
/// notice, such as a long download, is left to itself.
async fn read<T: Send + 'static>(
    load: &Load,
    turn: OwnedSemaphorePermit,
    read: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let mut reading: JoinHandle<Result<T, Problem>> = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        read()
    });
    let given_up = async {
        load.cancelled.cancelled().await;
        sleep(CANCEL_GRACE).await;
    };
    tokio::select! {
        done = &mut reading => done.unwrap_or_else(|e| {
            tracing::error!(error = %e, "a load panicked");
            Err(mistake())
        }),
        () = given_up => Err(Problem::new(Code::LoadFailed, "the load was cancelled")),
    }
}

/// Runs something that reads the disk on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
        tracing::error!(error = %e, "looking at what is to be loaded panicked");
        Err(Problem::new(Code::Internal, "the server made a mistake while it looked at this; its log says more"))
    })
}

/// Carries a change out even if whoever asked for it leaves.
async fn detached<T: Send + 'static>(
    change: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(change).await.unwrap_or_else(|e| {
        tracing::error!(error = %e, "loading or unloading panicked");
        Err(Problem::new(Code::Internal, "the server made a mistake; its log says more"))
    })
}

/// The problem of a load that panicked.
fn mistake() -> Problem {
    Problem::new(Code::LoadFailed, "the server made a mistake while loading this; its log says more")
}

/// The problem of a load that failed, for clients.
fn failed(error: &LoadError, path: Option<&Path>, shown: &str) -> Problem {
    Problem::new(Code::LoadFailed, allowed_source::reason(error, path, shown))
}

/// Keeps in the index what is served, for the next start. If that fails, it is served until then.
async fn keep(kept: impl Future<Output = Result<(), StoreError>>, id: &str) {
    if let Err(error) = kept.await {
        tracing::error!(id, %error, "this could not be noted in the index, so the next start will not load it");
    }
}

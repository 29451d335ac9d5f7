//! Background jobs: short work on the device that belongs to no run. It takes turns with batches, and is not stored.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Engine,
    worker::{Job, Workers},
};
use residuum_domain::{Code, Problem};

/// A job, called with the permit for its place on a worker. It drops the permit at the end.
pub(super) type BackgroundJob = Box<dyn FnOnce(OwnedSemaphorePermit) + Send>;

/// Runs until the engine drains.
pub(super) async fn run(
    draining: CancellationToken,
    workers: Workers,
    slots: Arc<Semaphore>,
    mut waiting: mpsc::Receiver<BackgroundJob>,
) {
    loop {
        let job = tokio::select! {
            job = waiting.recv() => job,
            () = draining.cancelled() => return,
        };
        let Some(job) = job else { return };
        let permit = tokio::select! {
            permit = Arc::clone(&slots).acquire_owned() => permit.expect("the semaphore is never closed"),
            () = draining.cancelled() => return,
        };
        if workers.submit(Job::Background(Box::new(move || job(permit)))).await.is_err() {
            return tracing::error!("the worker threads are gone");
        }
    }
}

impl Engine {
    /// Runs `work` on a worker when its turn comes. It should take no longer than a batch does.
    ///
    /// # Errors
    /// [`Code::Unavailable`] if the server is stopping, [`Code::WorkerFailed`] if `work` panicked.
    pub(super) async fn on_worker<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let (done, outcome) = oneshot::channel();
        let job: BackgroundJob = Box::new(move |permit| {
            // The caller may be gone.
            if !done.is_closed() {
                let _ = done.send(work());
            }
            drop(permit);
        });
        let stopping = || Problem::new(Code::Unavailable, "the server is stopping").retry_after(5);
        self.inner.background_jobs.send(job).await.map_err(|_| stopping())?;
        outcome.await.map_err(|_| match self.inner.draining.is_cancelled() {
            true => stopping(),
            false => Problem::new(Code::WorkerFailed, "the forward pass panicked"),
        })
    }
}

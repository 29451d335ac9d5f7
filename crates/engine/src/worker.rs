//! The workers: one named OS thread per device, which owns the device and runs one job after another.
//!
//! They must not know the queue. A worker writes the captured values of a batch into a pack and returns the pack
//! through a oneshot channel; the pack is committed elsewhere while the next batch is computed.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    generation::{GenerateJob, generate},
    sink,
};
use residuum_domain::{Applied, Code, Edits, PackLayout, Problem, Rows};
use residuum_model::{Batch, ForwardError, Input, InputEdits, Model};
use residuum_store::{PackHeader, PackWriter, Store, StoreError};

/// Work for a worker.
pub enum Job {
    /// A forward pass that captures activations.
    Capture(Box<CaptureJob>),
    /// Decoding steps of a generation.
    Generate(GenerateJob),
    /// A background job, which reports its outcome by itself.
    Background(Box<dyn FnOnce() + Send>),
}

/// One batch to capture.
pub struct CaptureJob {
    /// The model to run.
    pub model: Arc<Model>,
    /// The inputs.
    pub inputs: Vec<JobInput>,
    /// The pack to write.
    pub header: PackHeader,
    /// Number of items that are not cancelled. The forward pass stops when it is 0.
    pub alive: Arc<AtomicUsize>,
    /// Receives the outcome.
    pub done: oneshot::Sender<JobOutcome>,
}

/// One input of a batch.
pub struct JobInput {
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// The rows to keep.
    pub rows: Rows,
    /// Changes to make during the forward pass.
    pub edits: Option<(Arc<Edits>, Vec<Applied>)>,
}

impl JobInput {
    /// The input in the model's form.
    pub fn view(&self) -> Input<'_> {
        let edits = self.edits.as_ref().map(|(edits, applied)| InputEdits { edits, applied });
        Input { token_ids: &self.token_ids, rows: &self.rows, edits }
    }
}

/// The outcome of a batch.
pub enum JobOutcome {
    /// Every tensor is written, but not durable yet. With the time that the forward pass took.
    Captured(Box<PackWriter>, Duration),
    /// Every item was cancelled.
    Cancelled,
    /// The batch could not be computed or written.
    Failed(Problem),
    /// The device was lost, or is not back yet.
    Lost,
}

/// How long a worker whose device is lost leaves the work to the others: at first, and at most.
const LOST_PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Sends jobs to the workers; any free worker takes the next job. When the last clone is dropped, the threads end.
#[derive(Clone)]
pub struct Workers(mpsc::Sender<Job>);

/// The channel from which all workers take jobs.
type Jobs = Arc<Mutex<mpsc::Receiver<Job>>>;

impl Workers {
    /// Starts `n` threads. Each runs captures of all models on the device with its number.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn spawn(n: usize, store: &Store) -> std::io::Result<(Self, Vec<thread::JoinHandle<()>>)> {
        let (sender, jobs) = mpsc::channel::<Job>(1);
        let jobs: Jobs = Arc::new(Mutex::new(jobs));
        let threads = (0..n).map(|worker| {
            let (jobs, store) = (Arc::clone(&jobs), store.clone());
            // what `top -H` shows
            thread::Builder::new().name(format!("worker-{worker}")).spawn(move || work(worker, n, &jobs, &store))
        });
        Ok((Self(sender), threads.collect::<Result<_, _>>()?))
    }

    /// Hands a job over, waiting until a worker can take it.
    ///
    /// # Errors
    /// If the worker threads have ended: the job comes back.
    pub async fn submit(&self, job: Job) -> Result<(), Box<Job>> {
        self.0.send(job).await.map_err(|e| Box::new(e.0))
    }
}

/// Runs one job after the other.
fn work(worker: usize, n_workers: usize, jobs: &Jobs, store: &Store) {
    // the other workers wait for the lock, which is like waiting for a job
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
    let mut rest = LOST_PAUSE[0];
    while let Some(job) = next() {
        // If the receiver is gone, nobody needs the outcome; an unfinished pack deletes its file.
        match job {
            Job::Capture(job) => {
                let CaptureJob { model, inputs, mut header, alive, done } = *job;
                header.provenance.device = model.device(worker);
                let outcome = guarded(|| run(worker, &model, &inputs, header, &alive, store));
                let lost = matches!(outcome, Ok(JobOutcome::Lost));
                let _ = done.send(outcome.unwrap_or_else(JobOutcome::Failed));
                if lost && n_workers > 1 {
                    // a worker that fails fast would take more jobs than those that succeed
                    tracing::error!(
                        worker,
                        seconds = rest.as_secs(),
                        "a device is lost; the other workers do its work meanwhile"
                    );
                    leave_to_others(rest, jobs);
                    rest = (2 * rest).min(LOST_PAUSE[1]);
                } else if !lost {
                    rest = LOST_PAUSE[0];
                }
            }
            Job::Generate(GenerateJob { model, writings, slice, yields, done }) => {
                let outcome = guarded(|| generate(&model, writings, slice, &*yields));
                let _ = done.send(outcome.unwrap_or_else(Err));
            }
            // After a panic the job's channel closes without a result, and so its caller learns of it.
            Job::Background(work) => drop(guarded(work)),
        }
    }
}

/// Pauses, unless the engine ends meanwhile.
fn leave_to_others(rest: Duration, jobs: &Jobs) {
    let until = Instant::now() + rest;
    // a worker that waits for a job holds the lock
    let ended = || jobs.try_lock().is_ok_and(|jobs| jobs.sender_strong_count() == 0);
    while Instant::now() < until && !ended() {
        thread::sleep(Duration::from_millis(50).min(rest));
    }
}

/// Keeps a panic from ending the thread.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Problem> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        metrics::counter!("residuum_worker_panics_total").increment(1);
        tracing::error!(panic = panic_text(panic.as_ref()), "a batch panicked");
        Problem::new(Code::WorkerFailed, "the forward pass panicked")
    })
}

fn run(
    worker: usize,
    model: &Model,
    inputs: &[JobInput],
    header: PackHeader,
    alive: &AtomicUsize,
    store: &Store,
) -> JobOutcome {
    let started = Instant::now();
    let layout: PackLayout = header.layout.clone();
    let pack = match store.begin_pack(header) {
        Ok(pack) => pack,
        Err(e) => return JobOutcome::Failed(e.into()),
    };
    let views: Vec<Input<'_>> = inputs.iter().map(JobInput::view).collect();
    let batch = Batch { inputs: &views, layout: &layout };
    #[cfg(test)]
    if super::tests::inject_fault(model, inputs) {
        return JobOutcome::Lost;
    }
    let cancelled = || alive.load(Ordering::Relaxed) == 0;
    match sink::write(pack, |sink| model.forward_on(worker, &batch, sink, &cancelled)) {
        Ok(pack) => JobOutcome::Captured(Box::new(pack), started.elapsed()),
        Err(ForwardError::Cancelled) => JobOutcome::Cancelled,
        Err(e @ (ForwardError::Failed(_) | ForwardError::Device(_))) => {
            tracing::error!(error = %e, "a forward pass failed");
            if matches!(e, ForwardError::Device(_)) && model.is_lost(worker) {
                return JobOutcome::Lost;
            }
            JobOutcome::Failed(Problem::new(Code::WorkerFailed, "the forward pass failed"))
        }
        Err(ForwardError::Sink(e)) => JobOutcome::Failed(match e.downcast::<StoreError>() {
            Ok(e) => (*e).into(),
            Err(e) => {
                tracing::error!(error = %e, "captured activations could not be written");
                Problem::new(Code::Internal, "captured activations could not be written")
            }
        }),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_worker_takes_jobs_and_ends_with_the_last_handle() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let (workers, threads) = Workers::spawn(3, &store).unwrap();
        // only three threads that run at the same time pass it
        let barrier = Arc::new(Barrier::new(3));
        let mut ended = Vec::new();
        for i in 0..6 {
            let (barrier, (done, outcome)) = (Arc::clone(&barrier), oneshot::channel());
            let job = move || {
                barrier.wait();
                // a worker that panics goes on
                assert!(i != 1, "a test asked for this panic");
                done.send(()).unwrap();
            };
            assert!(workers.submit(Job::Background(Box::new(job))).await.is_ok());
            ended.push(outcome);
        }
        for (i, outcome) in ended.into_iter().enumerate() {
            assert_eq!(outcome.await.is_ok(), i != 1);
        }
        drop(workers);
        let joined = tokio::task::spawn_blocking(|| threads.into_iter().all(|thread| thread.join().is_ok()));
        assert!(joined.await.unwrap());
        store.close().await;
    }
}

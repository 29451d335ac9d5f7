//! The worker: one named OS thread that owns the device and runs one batch after the other.
//!
//! It knows nothing of the queue. A batch comes with a place to write to and goes back, written, through a oneshot;
//! making it durable is done elsewhere while the next batch is computed.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::sink;
use crate::{
    domain::{Applied, Code, Edits, PackLayout, Problem, Rows},
    model::{Batch, ForwardError, Input, InputEdits, Model, generate::Sequence},
    store::{PackHeader, PackWriter, Store, StoreError},
};

/// Work for the worker.
pub enum Job {
    /// A forward pass that captures.
    Capture(Box<CaptureJob>),
    /// Steps of a generation.
    Generate(GenerateJob),
    /// Anything else that is to have the device for a short while; it says by itself what came of it.
    Errand(Box<dyn FnOnce() + Send>),
}

/// One batch to capture.
pub struct CaptureJob {
    /// The model to run.
    pub model: Arc<Model>,
    /// The inputs.
    pub inputs: Vec<JobInput>,
    /// The pack to write.
    pub header: PackHeader,
    /// Items not cancelled: the forward pass stops when none is left.
    pub alive: Arc<AtomicUsize>,
    /// Where the outcome goes.
    pub done: oneshot::Sender<JobOutcome>,
}

/// One input of a batch.
pub struct JobInput {
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// The rows to keep.
    pub rows: Rows,
    /// What is changed on the way.
    pub edits: Option<(Arc<Edits>, Vec<Applied>)>,
}

impl JobInput {
    /// As the model takes it.
    pub fn view(&self) -> Input<'_> {
        let edits = self.edits.as_ref().map(|(edits, applied)| InputEdits { edits, applied });
        Input { token_ids: &self.token_ids, rows: &self.rows, edits }
    }
}

/// Sequences to continue for a while.
pub struct GenerateJob {
    /// The model to run.
    pub model: Arc<Model>,
    /// The sequences.
    pub sequences: Vec<Sequence>,
    /// No step is begun after this time.
    pub slice: Duration,
    /// Whether none of the sequences is wanted any more.
    pub cancelled: Box<dyn Fn() -> bool + Send + Sync>,
    /// Where the sequences go, further on than before.
    pub done: oneshot::Sender<Result<Vec<Sequence>, Problem>>,
}

/// What became of a batch.
pub enum JobOutcome {
    /// Every tensor is written, not yet durable.
    Captured(Box<PackWriter>, Duration),
    /// Every item of it was cancelled.
    Cancelled,
    /// It could not be computed or written.
    Failed(Problem),
}

/// Sends jobs to the worker thread; when every clone is dropped the thread ends.
#[derive(Clone)]
pub struct WorkerHandle(mpsc::Sender<Job>);

impl WorkerHandle {
    /// Starts the thread. `name` is what `top -H` shows.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn spawn(name: &str, store: Store) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (sender, mut jobs) = mpsc::channel::<Job>(1);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(job) = jobs.blocking_recv() {
                // A receiver that is gone has no use for the outcome; an unfinished pack removes itself.
                match job {
                    Job::Capture(job) => {
                        let CaptureJob { model, inputs, header, alive, done } = *job;
                        let outcome = guarded(|| run(&model, &inputs, header, &alive, &store));
                        let _ = done.send(outcome.unwrap_or_else(JobOutcome::Failed));
                    }
                    Job::Generate(GenerateJob { model, sequences, slice, cancelled, done }) => {
                        let outcome = guarded(|| generate(&model, sequences, slice, &*cancelled));
                        let _ = done.send(outcome.unwrap_or_else(Err));
                    }
                    // Whoever waits for it learns of a panic by what it never hears.
                    Job::Errand(work) => drop(guarded(work)),
                }
            }
        })?;
        Ok((Self(sender), thread))
    }

    /// Hands a batch over, waiting for its turn.
    ///
    /// # Errors
    /// When the worker thread has ended: the job comes back.
    pub async fn submit(&self, job: Job) -> Result<(), Box<Job>> {
        self.0.send(job).await.map_err(|e| Box::new(e.0))
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

/// Steps until the time is over, every sequence is finished, or none is wanted any more.
fn generate(
    model: &Model,
    mut sequences: Vec<Sequence>,
    slice: Duration,
    cancelled: &(dyn Fn() -> bool + Send + Sync),
) -> Result<Vec<Sequence>, Problem> {
    let started = Instant::now();
    loop {
        let mut unfinished: Vec<&mut Sequence> = sequences.iter_mut().filter(|s| !s.is_finished()).collect();
        match model.step(&mut unfinished, &|| cancelled()) {
            Ok(()) if unfinished.iter().any(|s| s.is_finished()) => return Ok(sequences),
            Ok(()) if started.elapsed() < slice => {}
            Ok(()) | Err(ForwardError::Cancelled) => return Ok(sequences),
            Err(e) => {
                tracing::error!(error = %e, "a step of a generation failed");
                return Err(Problem::new(Code::WorkerFailed, "the forward pass failed"));
            }
        }
    }
}

fn run(model: &Model, inputs: &[JobInput], header: PackHeader, alive: &AtomicUsize, store: &Store) -> JobOutcome {
    let started = Instant::now();
    let layout: PackLayout = header.layout.clone();
    let pack = match store.begin_pack(header) {
        Ok(pack) => pack,
        Err(e) => return JobOutcome::Failed(e.into()),
    };
    let views: Vec<Input<'_>> = inputs.iter().map(JobInput::view).collect();
    let batch = Batch { inputs: &views, layout: &layout };
    #[cfg(test)]
    super::tests::panic_where_told_to(model, inputs);
    let cancelled = || alive.load(Ordering::Relaxed) == 0;
    match sink::write(pack, |sink| model.forward(&batch, sink, &cancelled)) {
        Ok(pack) => JobOutcome::Captured(Box::new(pack), started.elapsed()),
        Err(ForwardError::Cancelled) => JobOutcome::Cancelled,
        Err(e @ (ForwardError::Failed(_) | ForwardError::Device(_))) => {
            tracing::error!(error = %e, "a forward pass failed");
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

//! Runs that what is stored answers whole: they are complete as they come in, and never wait in the queue.
//!
//! Two tasks, each of which takes what has gathered while it was busy: one looks for activations, the other makes the runs
//! they answer. So many clients share one query and one transaction, and a run that has to be computed waits for neither
//! transaction. Whatever goes wrong here, the run is queued instead, which says what is wrong.

use std::{collections::HashMap, sync::Arc, time::Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Engine, reuse::wanted};
use residuum_domain::{NewRun, Run, TenantId};
use residuum_model::Model;
use residuum_store::{AnsweredRun, Reusable, Store, Wanted};

/// Runs that may wait for each task before those who post them do.
pub(super) const WAITING: usize = 256;
/// Runs that are looked for, or made, together.
const TOGETHER: usize = 64;
/// Inputs of a run that is looked for here; a larger one is asked about piece by piece, in the queue.
const MOST_ITEMS: usize = 16;

/// A run that is looked for.
pub(super) struct Question {
    run: Arc<NewRun>,
    /// One for each input.
    wanted: Vec<Wanted>,
    answer: oneshot::Sender<Run>,
}

/// A run and what answers it.
struct Found {
    run: AnsweredRun,
    answer: oneshot::Sender<Run>,
}

/// Answers runs until the engine drains.
pub(super) async fn run(store: Store, draining: CancellationToken, questions: mpsc::Receiver<Question>) {
    let (found, to_make) = mpsc::channel(WAITING);
    tokio::join!(look(&store, &draining, questions, found), make(&store, to_make));
}

/// Takes what waits, up to [`TOGETHER`]; nothing once the engine drains.
async fn gather(draining: &CancellationToken, questions: &mut mpsc::Receiver<Question>) -> Vec<Question> {
    let mut gathered = Vec::with_capacity(TOGETHER);
    tokio::select! {
        biased;
        () = draining.cancelled() => {}
        _ = questions.recv_many(&mut gathered, TOGETHER) => {}
    }
    gathered
}

/// Looks for activations that answer runs whole. Who is not answered hears so by the end of the channel.
async fn look(
    store: &Store,
    draining: &CancellationToken,
    mut questions: mpsc::Receiver<Question>,
    found: mpsc::Sender<Found>,
) {
    loop {
        let gathered = gather(draining, &mut questions).await;
        if gathered.is_empty() {
            return;
        }
        // one query for each tenant: runs of one never see another's
        let mut by_tenant: HashMap<TenantId, Vec<Question>> = HashMap::new();
        for question in gathered {
            by_tenant.entry(question.run.tenant).or_default().push(question);
        }
        for (tenant, questions) in by_tenant {
            let wanted: Vec<Wanted> = questions.iter().flat_map(|q| q.wanted.iter().cloned()).collect();
            let mut reusable = match store.find_reusable(tenant, &wanted).await {
                Ok(reusable) => reusable.into_iter(),
                Err(e) => {
                    tracing::error!(error = %e, "the store could not be asked for activations to reuse");
                    continue;
                }
            };
            for Question { run, wanted, answer } in questions {
                let extents = reusable.by_ref().take(wanted.len()).map(|r| match r {
                    Some(Reusable::Extent(extent)) => Some(extent),
                    _ => None,
                });
                // to the end, so that the next run finds its own
                let extents: Vec<_> = extents.collect();
                let Some(extents) = extents.into_iter().collect() else {
                    // before the answer that never comes: whoever waits for it has the run alone then, and needs no copy
                    drop(run);
                    continue;
                };
                // fails where the other task is gone, and then the run is queued
                drop(found.send(Found { run: AnsweredRun { run, extents }, answer }).await);
            }
        }
    }
}

/// Makes the runs, until nobody looks for any.
async fn make(store: &Store, mut found: mpsc::Receiver<Found>) {
    let mut gathered = Vec::with_capacity(TOGETHER);
    while found.recv_many(&mut gathered, TOGETHER).await > 0 {
        let (runs, answers): (Vec<_>, Vec<_>) = gathered.drain(..).map(|f| (f.run, f.answer)).unzip();
        let started = Instant::now();
        let made = match store.insert_answered(runs).await {
            Ok(made) => made,
            Err(e) => {
                tracing::warn!(error = %e, "answered runs could not be made; they are queued");
                continue;
            }
        };
        metrics::histogram!("residuum_commit_seconds").record(started.elapsed().as_secs_f64());
        for (run, answer) in made.into_iter().zip(answers) {
            if let Some(run) = run {
                metrics::counter!("residuum_runs_total").increment(1);
                metrics::counter!("residuum_items_reused_total").increment(run.n_reused);
                // whoever asked may have gone; the run is there all the same
                drop(answer.send(run));
            }
        }
    }
}

impl Engine {
    /// The run, completed by what is stored, where that answers every input of it; else the run to be queued.
    pub(super) async fn answer(&self, run: NewRun, model: &Model) -> Result<Run, NewRun> {
        let asks = run.reuse && run.idempotency.is_none() && run.items.len() <= MOST_ITEMS && !run.generates();
        if !asks {
            return Err(run);
        }
        let wanted = run.items.iter().map(|item| wanted(run.tenant, run.edits.as_deref(), item, model)).collect();
        let run = Arc::new(run);
        let (answer, answered) = oneshot::channel();
        // fails where the engine drains
        drop(self.inner.questions.send(Question { run: Arc::clone(&run), wanted, answer }).await);
        answered.await.map_err(|_| Arc::unwrap_or_clone(run))
    }
}

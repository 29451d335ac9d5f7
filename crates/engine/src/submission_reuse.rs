//! Reuse at submission: a run whose items are all stored is completed when it is posted, and never queued.
//!
//! Two tasks, each of which takes all that has gathered while it was busy: one looks up activations, the other commits
//! the runs that are answered. So many clients share one query and one transaction, and a run that has to be computed
//! waits for neither transaction. A run that is not answered is queued, together with the result of the lookup, so that
//! its inputs are not looked up a second time.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Engine,
    reuse::{Missed, wanted},
};
use residuum_domain::{NewRun, Run, TenantId};
use residuum_model::Model;
use residuum_store::{AnsweredRun, Reusable, Store, Wanted};

/// Runs that may wait for each task; while there are more, those who post them wait.
pub(super) const MAX_WAITING: usize = 256;
/// Most runs that are looked up or committed together.
const MAX_GATHERED: usize = 64;
/// Most inputs of a run that is looked up here. The items of larger runs are looked up when they are queued.
const MAX_ITEMS: usize = 16;

/// A run to be looked up.
pub(super) struct Lookup {
    run: Arc<NewRun>,
    /// One for each input.
    wanted: Vec<Wanted>,
    outcome: oneshot::Sender<Outcome>,
}

/// The result of a lookup. Nothing is sent if the lookup failed.
enum Outcome {
    /// The run is complete.
    Complete(Box<Run>),
    /// The run has to be queued. For each input, whether nothing was found at all.
    NotFound(Vec<bool>),
}

/// A run and the extents that answer it.
struct Found {
    run: AnsweredRun,
    outcome: oneshot::Sender<Outcome>,
}

/// What became of a run after its lookup.
pub(super) enum Looked {
    /// The run is complete.
    Answered(Box<Run>),
    /// The run has to be queued, with what is known about its inputs.
    Missed(Box<NewRun>, Option<Missed>),
}

/// Answers runs until the engine drains.
pub(super) async fn run(store: Store, draining: CancellationToken, lookups: mpsc::Receiver<Lookup>) {
    let (found, to_make) = mpsc::channel(MAX_WAITING);
    tokio::join!(look(&store, &draining, lookups, found), make(&store, to_make));
}

/// Takes up to [`MAX_GATHERED`] waiting lookups; none once the engine drains.
async fn gather(draining: &CancellationToken, lookups: &mut mpsc::Receiver<Lookup>) -> Vec<Lookup> {
    let mut gathered = Vec::with_capacity(MAX_GATHERED);
    tokio::select! {
        biased;
        () = draining.cancelled() => {}
        _ = lookups.recv_many(&mut gathered, MAX_GATHERED) => {}
    }
    gathered
}

/// Looks up activations that answer whole runs. If a lookup fails, its channel is closed without a result.
async fn look(
    store: &Store,
    draining: &CancellationToken,
    mut lookups: mpsc::Receiver<Lookup>,
    found: mpsc::Sender<Found>,
) {
    loop {
        let gathered = gather(draining, &mut lookups).await;
        if gathered.is_empty() {
            return;
        }
        // one query for each tenant: a run is never answered with another tenant's activations
        let mut by_tenant: HashMap<TenantId, Vec<Lookup>> = HashMap::new();
        for lookup in gathered {
            by_tenant.entry(lookup.run.tenant).or_default().push(lookup);
        }
        for (tenant, lookups) in by_tenant {
            let wanted: Vec<Wanted> = lookups.iter().flat_map(|q| q.wanted.iter().cloned()).collect();
            let mut reusable = match store.find_reusable(tenant, &wanted).await {
                Ok(reusable) => reusable.into_iter(),
                Err(e) => {
                    tracing::error!(error = %e, "the lookup of activations to reuse failed");
                    continue;
                }
            };
            for Lookup { run, wanted, outcome } in lookups {
                // collected to the end, so that the next run gets its own results
                let own: Vec<Option<Reusable>> = reusable.by_ref().take(wanted.len()).collect();
                let absent = own.iter().map(Option::is_none).collect();
                let extents = own.into_iter().map(|r| match r {
                    Some(Reusable::Extent(extent)) => Some(extent),
                    _ => None,
                });
                let Some(extents) = extents.collect() else {
                    // dropped first, so that the receiver of the outcome owns the run and need not clone it
                    drop(run);
                    drop(outcome.send(Outcome::NotFound(absent)));
                    continue;
                };
                // fails if the other task has ended; then the run is queued
                drop(found.send(Found { run: AnsweredRun { run, extents }, outcome }).await);
            }
        }
    }
}

/// Commits answered runs until the lookup task ends.
async fn make(store: &Store, mut found: mpsc::Receiver<Found>) {
    let mut gathered = Vec::with_capacity(MAX_GATHERED);
    while found.recv_many(&mut gathered, MAX_GATHERED).await > 0 {
        let (runs, outcomes): (Vec<_>, Vec<_>) = gathered.drain(..).map(|f| (f.run, f.outcome)).unzip();
        let started = Instant::now();
        let made = match store.insert_answered(runs).await {
            Ok(made) => made,
            Err(e) => {
                tracing::warn!(error = %e, "answered runs could not be stored; they are queued");
                continue;
            }
        };
        metrics::histogram!("residuum_commit_seconds").record(started.elapsed().as_secs_f64());
        for (run, outcome) in made.into_iter().zip(outcomes) {
            if let Some(run) = run {
                metrics::counter!("residuum_runs_total").increment(1);
                metrics::counter!("residuum_items_reused_total").increment(run.n_reused);
                // the client may be gone; the run exists all the same
                drop(outcome.send(Outcome::Complete(Box::new(run))));
            }
        }
    }
}

impl Engine {
    /// Looks up a run if it is small and may reuse activations, and completes it if they answer all of it.
    pub(super) async fn answer(&self, run: NewRun, model: &Model) -> Looked {
        let is_eligible = run.reuse && run.idempotency.is_none() && run.items.len() <= MAX_ITEMS && !run.generates();
        if !is_eligible {
            return Looked::Missed(Box::new(run), None);
        }
        let wanted: Vec<Wanted> =
            run.items.iter().map(|item| wanted(run.tenant, run.edits.as_deref(), item, model)).collect();
        let at = self.inner.completions.load(Ordering::Acquire);
        let run = Arc::new(run);
        let (outcome, received) = oneshot::channel();
        // fails if the engine drains
        drop(self.inner.lookups.send(Lookup { run: Arc::clone(&run), wanted: wanted.clone(), outcome }).await);
        match received.await {
            Ok(Outcome::Complete(run)) => Looked::Answered(run),
            Ok(Outcome::NotFound(absent)) => {
                let wanted = wanted.into_iter().zip(absent).map(|(wanted, absent)| absent.then_some(wanted)).collect();
                Looked::Missed(Box::new(Arc::unwrap_or_clone(run)), Some(Missed { wanted, at }))
            }
            Err(_) => Looked::Missed(Box::new(Arc::unwrap_or_clone(run)), None),
        }
    }
}

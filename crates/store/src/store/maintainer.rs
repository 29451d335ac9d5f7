//! The background task that maintains a store beside a server: it merges small packs and FTS5 segments, and collects
//! garbage now and then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{Compaction, Store, StoreError};

/// Rounds of compaction between two garbage collections.
const ROUNDS: u32 = 60;
/// Rounds before the first one.
const FIRST: u32 = 6;
/// The part of the time between two looks that merging FTS5 segments may take: beside many commits it has no end.
const MERGING: u32 = 4;

/// What is done beside serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// Between two looks for what is to be merged; sixty times as long between two collections.
    pub interval: Duration,
    /// When packs are merged; `None`: they and the FTS5 segments are left as they are, and nothing is collected.
    pub compaction: Option<Compaction>,
}

impl Default for Maintenance {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), compaction: Some(Compaction::default()) }
    }
}

/// The task that maintains a store.
pub struct Maintainer {
    task: JoinHandle<()>,
    stop: CancellationToken,
    /// The same for threads.
    stopping: Arc<AtomicBool>,
}

impl Maintainer {
    /// Starts it; `None` where there is nothing to do.
    #[must_use]
    pub fn start(store: Store, what: Maintenance) -> Option<Self> {
        let compaction = what.compaction?;
        let (stop, stopping) = (CancellationToken::new(), Arc::<AtomicBool>::default());
        let task = tokio::spawn(run(store, what.interval, compaction, stop.clone(), Arc::clone(&stopping)));
        Some(Self { task, stop, stopping })
    }

    /// Stops it, at the next chunk of whatever it is copying.
    pub async fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the upkeep of the store had panicked");
        }
    }
}

async fn run(
    store: Store,
    interval: Duration,
    compaction: Compaction,
    stop: CancellationToken,
    stopping: Arc<AtomicBool>,
) {
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // the first comes at once, and serving comes first
    ticks.tick().await;
    let mut round = ROUNDS - FIRST;
    let mut seen = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        round += 1;
        let commits = store.index().commits();
        if let Some(commits) = commits {
            store.plans().forget_older(commits);
        }
        if seen != Some(commits) {
            let mut all_done = true;
            let mut failed = |what: &str, error: &StoreError| {
                all_done = false;
                if !matches!(error, StoreError::Closed) {
                    tracing::warn!(%error, "{what}; it is tried again later");
                }
            };
            if round >= ROUNDS {
                round = 0;
                match store.upkeep().collect_and_shrink(&compaction, &stopping).await {
                    Ok(report) if report.is_empty() => {}
                    Ok(report) => tracing::info!("{report}"),
                    Err(error) => failed("what nobody uses could not be collected", &error),
                }
            }
            match store.compactor().merge_until(&compaction, &stopping).await {
                Ok(report) if report.n_old == 0 => {}
                Ok(report) => tracing::info!("{report}"),
                Err(error) => failed("small blobs could not be merged", &error),
            }
            if let Err(error) = store.index().merge_terms_until(&stopping, interval / MERGING).await {
                failed("the segments of the full-text index could not be merged", &error);
            }
            // its own changes are no reason to look again
            seen = all_done.then(|| store.index().commits());
        }
    }
}

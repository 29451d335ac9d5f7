//! Removes expired caches, and checks that the quota and the disk leave room.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Inner, scheduler::STORE_PAUSE};
use residuum_domain::{Code, Problem};
use residuum_store::StoreError;

/// Time between two rounds. An expired cache is not served meanwhile; only its bytes are still there.
const PERIOD: Duration = Duration::from_secs(10);

/// Runs until the engine drains.
pub(super) async fn run(engine: Arc<Inner>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = engine.draining.cancelled() => return,
        }
        let expired = tokio::select! {
            expired = engine.store.expire() => expired,
            () = engine.draining.cancelled() => return,
        };
        match expired {
            Ok(0) => {}
            Ok(n) => {
                metrics::counter!("residuum_caches_expired_total").increment(n);
                tracing::info!(caches = n, "removed caches that had expired");
            }
            Err(error) => tracing::error!(%error, "expired caches could not be removed"),
        }
    }
}

impl Inner {
    /// Makes sure that the quota leaves room for `n_bytes`.
    ///
    /// # Errors
    /// [`Code::StoreFull`], and those of the store.
    pub(super) async fn make_room(&self, n_bytes: u64) -> Result<(), Problem> {
        let n_gone = match self.store.make_room(n_bytes).await {
            Err(StoreError::Full) => return Err(self.over_quota(n_bytes)),
            made => made?,
        };
        if n_gone > 0 {
            metrics::counter!("residuum_caches_evicted_total").increment(n_gone);
            tracing::info!(caches = n_gone, n_bytes, "removed the oldest caches to make room");
        }
        Ok(())
    }

    /// The problem that the quota has no room for `n_bytes`, saying how much is lacking.
    fn over_quota(&self, n_bytes: u64) -> Problem {
        let max_bytes = self.store.quota().map_or(u64::MAX, |quota| quota.max_bytes);
        let used = self.store.bytes_on_disk();
        let lacking = used.saturating_add(n_bytes).saturating_sub(max_bytes);
        let detail = format!(
            "the store may take {max_bytes} bytes and takes {used}: {lacking} bytes are lacking. Delete runs or caches that are \
             not needed, or raise --max-store-bytes"
        );
        Problem::new(Code::StoreFull, detail)
    }

    /// Records whether the store had room for the last write.
    pub(super) fn note_room(&self, there_was: bool) {
        *self.no_room.lock().unwrap_or_else(PoisonError::into_inner) = (!there_was).then(Instant::now);
    }

    /// Refuses new runs while accepted ones wait for room on the disk.
    ///
    /// # Errors
    /// [`Code::StoreFull`].
    pub(super) fn check_disk(&self) -> Result<(), Problem> {
        let full = *self.no_room.lock().unwrap_or_else(PoisonError::into_inner);
        // waiting work is tried again every `STORE_PAUSE`: after three of them without a failure, nothing waits any more
        if full.is_some_and(|since| since.elapsed() < 3 * STORE_PAUSE) {
            let detail = "the disk is full: runs that were accepted wait for room; delete runs or caches first";
            return Err(Problem::new(Code::StoreFull, detail));
        }
        Ok(())
    }
}

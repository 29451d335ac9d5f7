//! Removes what has expired, and keeps an eye on the room that is left.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Inner, scheduler::STORE_REST};
use residuum_domain::{Code, Problem};
use residuum_store::StoreError;

/// Time between two looks. What has expired is not served meanwhile; only its bytes are still there.
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
    /// [`Code::StoreFull`], and the store's own.
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

    /// That the quota has no room for `n_bytes`, and how much is lacking.
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

    /// Remembers whether the store took what it was given.
    pub(super) fn note_room(&self, there_was: bool) {
        *self.no_room.lock().unwrap_or_else(PoisonError::into_inner) = (!there_was).then(Instant::now);
    }

    /// Refuses new runs while those that were accepted wait for room on the disk.
    ///
    /// # Errors
    /// [`Code::StoreFull`].
    pub(super) fn check_disk(&self) -> Result<(), Problem> {
        let full = *self.no_room.lock().unwrap_or_else(PoisonError::into_inner);
        // they are tried again after each rest: when nothing was heard for some, nothing waits any more
        if full.is_some_and(|since| since.elapsed() < 3 * STORE_REST) {
            let detail = "the disk is full: runs that were accepted wait for room; delete runs or caches first";
            return Err(Problem::new(Code::StoreFull, detail));
        }
        Ok(())
    }
}

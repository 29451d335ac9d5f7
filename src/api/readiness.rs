//! Whether the store can be written to, as `/readyz` reports it; cached for a short time.

use std::time::Duration;

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use residuum_store::{Store, StoreError};

/// Time limit of a test write.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Tests whether the store can be written to, and caches the result: every test writes to the disk, and anyone may
/// request it.
pub struct Readiness {
    freshness: Duration,
    /// When it was last tested, and why writing failed, if it did.
    last: Mutex<Option<(Instant, Option<&'static str>)>>,
}

impl Readiness {
    /// `freshness` is the maximum age of a cached result.
    pub fn new(freshness: Duration) -> Self {
        Self { freshness, last: Mutex::default() }
    }

    /// Why the store cannot be written to; `None` if it can.
    pub async fn unwritable(&self, store: &Store) -> Option<&'static str> {
        let mut last = self.last.lock().await;
        if let Some((_, why)) = last.filter(|(at, _)| at.elapsed() < self.freshness) {
            return why;
        }
        let why = match timeout(PROBE_TIMEOUT, store.probe()).await {
            Ok(Ok(())) => None,
            Ok(Err(error @ StoreError::Full)) => {
                tracing::error!(%error, "the store cannot be written to");
                Some(
                    "the disk is full: what is stored can be read and deleted, new runs wait or are refused; make room on the \
                     disk, or delete runs or caches",
                )
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the store cannot be written to");
                Some("the store cannot be written to; the server's log says why")
            }
            Err(_) => {
                tracing::error!("a test write to the store took too long");
                Some("the store cannot be written to; the server's log says why")
            }
        };
        *last = Some((Instant::now(), why));
        why
    }
}

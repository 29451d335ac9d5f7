//! Whether the store can be written to, asked of it at most so often.

use std::time::Duration;

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use residuum_store::{Store, StoreError};

/// How long the store may take to show that it can be written to.
const PROBE_PATIENCE: Duration = Duration::from_secs(3);

/// Whether the store could be written to a moment ago: anyone may ask, and each answer costs the disk something.
pub struct Readiness {
    freshness: Duration,
    /// When it was asked, and why it could not be written to.
    last: Mutex<Option<(Instant, Option<&'static str>)>>,
}

impl Readiness {
    /// Asks the store again when what is known is older than `freshness`.
    pub fn new(freshness: Duration) -> Self {
        Self { freshness, last: Mutex::default() }
    }

    /// Why the store cannot be written to; `None`: it can.
    pub async fn unwritable(&self, store: &Store) -> Option<&'static str> {
        let mut last = self.last.lock().await;
        if let Some((_, why)) = last.filter(|(at, _)| at.elapsed() < self.freshness) {
            return why;
        }
        let why = match timeout(PROBE_PATIENCE, store.probe()).await {
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
                tracing::error!("the store did not take a change in time");
                Some("the store cannot be written to; the server's log says why")
            }
        };
        *last = Some((Instant::now(), why));
        why
    }
}

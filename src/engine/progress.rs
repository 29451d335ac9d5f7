//! Who waits for which run. The state itself lies in the store; this only says that it changed.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;

use crate::domain::RunId;

/// Wakes those who wait for a run.
#[derive(Default)]
pub struct Progress {
    waiting: Mutex<HashMap<RunId, watch::Sender<u64>>>,
}

impl Progress {
    /// Subscribe first, then read the run from the store: no change in between is missed.
    #[must_use]
    pub fn subscribe(&self, run: RunId) -> watch::Receiver<u64> {
        self.lock().entry(run).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// Says that a run changed. Forgets the run when nobody listens any more.
    pub fn changed(&self, run: RunId) {
        let mut waiting = self.lock();
        if let Some(sender) = waiting.get(&run)
            && sender.receiver_count() == 0
        {
            waiting.remove(&run);
        } else if let Some(sender) = waiting.get(&run) {
            sender.send_modify(|n| *n += 1);
        }
    }

    /// Forgets runs that nobody listens to.
    pub fn sweep(&self) {
        self.lock().retain(|_, sender| sender.receiver_count() > 0);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, watch::Sender<u64>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_between_subscribing_and_waiting_is_seen() {
        let progress = Progress::default();
        let run = RunId::generate();
        let mut receiver = progress.subscribe(run);
        progress.changed(run);
        receiver.changed().await.unwrap();
        drop(receiver);
        progress.changed(run);
        assert!(progress.lock().is_empty());
    }
}

//! Notifies those who wait for a run that it changed. The state of the run is in the store, not here.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;

use residuum_domain::RunId;

/// One watch channel for each run that someone waits for.
#[derive(Default)]
pub struct Progress {
    waiting: Mutex<HashMap<RunId, watch::Sender<u64>>>,
}

impl Progress {
    /// Subscribe first, then read the run from the store; then no change in between is missed.
    #[must_use]
    pub fn subscribe(&self, run: RunId) -> watch::Receiver<u64> {
        let mut waiting = self.lock();
        // Subscribing to a run that has ended leaves an entry for ever; such entries are dropped before the map would
        // grow.
        if waiting.len() == waiting.capacity() {
            waiting.retain(|_, sender| sender.receiver_count() > 0);
        }
        waiting.entry(run).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// Notifies the subscribers of a run. Forgets the run if there are none.
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

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, watch::Sender<u64>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_runs_without_subscribers_do_not_accumulate() {
        let progress = Progress::default();
        for _ in 0..10_000 {
            drop(progress.subscribe(RunId::generate()));
        }
        assert!(progress.lock().len() < 100);
        let kept: Vec<_> = (0..1000).map(|_| progress.subscribe(RunId::generate())).collect();
        assert!(progress.lock().len() >= kept.len());
    }

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

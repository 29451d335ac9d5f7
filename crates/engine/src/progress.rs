//! Who waits for which run. The state itself lies in the store; this only says that it changed.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;

use residuum_domain::RunId;

/// Wakes those who wait for a run.
#[derive(Default)]
pub struct Progress {
    waiting: Mutex<HashMap<RunId, watch::Sender<u64>>>,
}

impl Progress {
    /// Subscribe first, then read the run from the store: no change in between is missed.
    #[must_use]
    pub fn subscribe(&self, run: RunId) -> watch::Receiver<u64> {
        let mut waiting = self.lock();
        // A run that had ended before anyone asked never changes again; such entries go before the map would grow.
        if waiting.len() == waiting.capacity() {
            waiting.retain(|_, sender| sender.receiver_count() > 0);
        }
        waiting.entry(run).or_insert_with(|| watch::channel(0).0).subscribe()
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

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, watch::Sender<u64>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_nobody_listens_to_do_not_pile_up() {
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

//! The queue of experiments: a few run at once, the others wait. Clients take turns; the experiments of one client run in
//! the order in which they came.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Engine;
use residuum_domain::{Code, Problem, TenantId};

/// Experiments that run at once. Each may hold traces of 128 MiB.
const MAX_RUNNING: usize = 4;
/// Experiments of one client that run at once, so that one client alone never takes every place.
const MAX_CLIENT_RUNNING: usize = 2;
/// Experiments that may wait.
const MAX_WAITING: usize = 256;
/// Experiments of one client that may wait.
const MAX_CLIENT_WAITING: usize = 64;
/// Seconds after which a refused client may try again.
const RETRY_AFTER: u32 = 5;

/// The queue of experiments.
#[derive(Default)]
pub(crate) struct ExperimentQueue {
    state: Mutex<State>,
    /// Notified when an experiment leaves.
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    running: Vec<(u64, TenantId)>,
    /// Clients with waiting experiments, in the order of their turns.
    waiting: VecDeque<(TenantId, VecDeque<u64>)>,
}

/// A place of a running experiment. Dropping it lets the next one run.
pub struct ExperimentPlace {
    queue: Arc<ExperimentQueue>,
    id: u64,
}

impl Drop for ExperimentPlace {
    fn drop(&mut self) {
        self.queue.state().leave(self.id);
        self.queue.changes.send_replace(());
    }
}

impl ExperimentQueue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers of experiments that run and that wait.
    fn counts(&self) -> [usize; 2] {
        let state = self.state();
        [state.running.len(), state.n_waiting()]
    }

    /// Waits until an experiment may run. `moved` is called with the number of experiments before it, whenever this may
    /// have changed. Dropping the future gives up the place in the queue.
    ///
    /// # Errors
    /// [`Code::ClientQueueFull`] and [`Code::QueueFull`] if too many wait already, [`Code::Unavailable`] once the server
    /// drains.
    async fn turn(
        self: &Arc<Self>,
        tenant: TenantId,
        draining: &CancellationToken,
        moved: impl Fn(usize),
    ) -> Result<ExperimentPlace, Problem> {
        let mut changes = self.changes.subscribe();
        let id = self.state().enter(tenant)?;
        let place = ExperimentPlace { queue: Arc::clone(self), id };
        loop {
            if draining.is_cancelled() {
                return Err(Problem::new(Code::Unavailable, "the server is stopping").retry_after(RETRY_AFTER));
            }
            match self.state().n_before(id) {
                None => return Ok(place),
                Some(n) => moved(n),
            }
            tokio::select! {
                // the sender is in `self`, so it is never closed
                _ = changes.changed() => {}
                () = draining.cancelled() => {}
            }
        }
    }
}

impl State {
    /// Adds an experiment, which runs at once if there is a place.
    fn enter(&mut self, tenant: TenantId) -> Result<u64, Problem> {
        let fits = self.running.len() < MAX_RUNNING && self.n_running(tenant) < MAX_CLIENT_RUNNING;
        let own = self.waiting.iter().find(|(t, _)| *t == tenant).map_or(0, |(_, ids)| ids.len());
        let full = |code, whose: &str, n: usize| {
            let detail = format!("{n} of {whose} experiments wait already, as many as may; try again later");
            Err(Problem::new(code, detail).retry_after(RETRY_AFTER))
        };
        if !fits && own >= MAX_CLIENT_WAITING {
            return full(Code::ClientQueueFull, "your", own);
        }
        if !fits && self.n_waiting() >= MAX_WAITING {
            return full(Code::QueueFull, "all clients'", self.n_waiting());
        }
        let id = self.next_id;
        self.next_id += 1;
        match self.waiting.iter_mut().find(|(t, _)| *t == tenant) {
            Some((_, ids)) => ids.push_back(id),
            None => self.waiting.push_back((tenant, VecDeque::from([id]))),
        }
        self.start();
        Ok(id)
    }

    /// Removes an experiment, whether it runs or waits.
    fn leave(&mut self, id: u64) {
        self.running.retain(|(running, _)| *running != id);
        self.waiting.iter_mut().for_each(|(_, ids)| ids.retain(|waiting| *waiting != id));
        self.waiting.retain(|(_, ids)| !ids.is_empty());
        self.start();
    }

    /// Starts experiments while there are places: of the clients with the fewest running ones, that whose turn it is.
    fn start(&mut self) {
        while self.running.len() < MAX_RUNNING {
            let running = |(i, (tenant, _)): (usize, &(TenantId, _))| (self.n_running(*tenant), i);
            let next = self.waiting.iter().enumerate().map(running).min();
            let Some((_, i)) = next.filter(|(n, _)| *n < MAX_CLIENT_RUNNING) else { return };
            let Some((tenant, mut ids)) = self.waiting.remove(i) else { return };
            self.running.extend(ids.pop_front().map(|id| (id, tenant)));
            if !ids.is_empty() {
                self.waiting.push_back((tenant, ids));
            }
        }
    }

    fn n_running(&self, tenant: TenantId) -> usize {
        self.running.iter().filter(|(_, t)| *t == tenant).count()
    }

    fn n_waiting(&self) -> usize {
        self.waiting.iter().map(|(_, ids)| ids.len()).sum()
    }

    /// Number of waiting experiments whose turn comes before this one's, if clients take turns; `None` if it runs.
    fn n_before(&self, id: u64) -> Option<usize> {
        let own = |(turn, (_, ids)): (usize, &(TenantId, VecDeque<u64>))| {
            ids.iter().position(|waiting| *waiting == id).map(|place| (turn, place))
        };
        let (turn, place) = self.waiting.iter().enumerate().find_map(own)?;
        let before = |(i, (_, ids)): (usize, &(TenantId, VecDeque<u64>))| ids.len().min(place + usize::from(i < turn));
        Some(self.waiting.iter().enumerate().map(before).sum())
    }
}

impl Engine {
    /// Numbers of experiments that run and that wait.
    #[must_use]
    pub fn experiments(&self) -> [usize; 2] {
        self.inner.experiments.counts()
    }

    /// Waits for the turn of an experiment. `moved` is called with the number of experiments before it, whenever this may
    /// have changed. Dropping the future gives up the place in the queue.
    ///
    /// # Errors
    /// [`Code::ClientQueueFull`], [`Code::QueueFull`], [`Code::Unavailable`].
    pub(super) async fn experiment_turn(
        &self,
        tenant: TenantId,
        moved: impl Fn(usize),
    ) -> Result<ExperimentPlace, Problem> {
        self.inner.experiments.turn(tenant, &self.inner.draining, moved).await
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::Pin, task::Poll};

    use super::*;

    const A: TenantId = TenantId(1);
    const B: TenantId = TenantId(2);
    const C: TenantId = TenantId(3);

    /// The experiments that run, in the order in which they were started.
    fn running(state: &State) -> Vec<u64> {
        state.running.iter().map(|(id, _)| *id).collect()
    }

    #[test]
    fn one_client_does_not_take_every_place_and_then_clients_take_turns() {
        let mut state = State::default();
        let a: Vec<u64> = (0..5).map(|_| state.enter(A).unwrap()).collect();
        assert_eq!((running(&state), state.n_waiting()), (a[..2].to_vec(), 3));
        let b: Vec<u64> = (0..4).map(|_| state.enter(B).unwrap()).collect();
        assert_eq!(running(&state), [a[0], a[1], b[0], b[1]], "the other client's first ones run at once");
        let c = state.enter(C).unwrap();
        // a2 b2 c, then a3 b3, then a4
        let before = [a[2], b[2], c, a[3], b[3], a[4]].map(|id| state.n_before(id));
        assert_eq!(before, [0, 1, 2, 3, 4, 5].map(Some));
        state.leave(a[0]);
        assert_eq!(state.n_before(c), None, "a client with nothing running comes first");
        state.leave(b[0]);
        assert_eq!(running(&state), [a[1], b[1], c, a[2]]);
        state.leave(c);
        assert_eq!(running(&state), [a[1], b[1], a[2], b[2]], "in the order in which they came");
        assert_eq!(state.n_before(a[1]), None);
    }

    #[test]
    fn an_experiment_that_gives_up_makes_room() {
        let mut state = State::default();
        let ids: Vec<u64> = (0..5).map(|_| state.enter(A).unwrap()).collect();
        state.leave(ids[3]);
        assert_eq!((state.n_before(ids[2]), state.n_before(ids[4])), (Some(0), Some(1)));
        state.leave(ids[0]);
        state.leave(ids[1]);
        assert_eq!(running(&state), [ids[2], ids[4]]);
        state.leave(ids[2]);
        state.leave(ids[4]);
        assert!(state.running.is_empty() && state.waiting.is_empty());
    }

    #[test]
    fn only_so_many_wait() {
        let mut state = State::default();
        let code = |found: Result<u64, Problem>| found.unwrap_err().code;
        (0..MAX_CLIENT_RUNNING + MAX_CLIENT_WAITING).for_each(|_| drop(state.enter(A).unwrap()));
        assert_eq!(code(state.enter(A)), Code::ClientQueueFull);
        for tenant in 2..=4 {
            while state.n_waiting() < MAX_WAITING && state.enter(TenantId(tenant)).is_ok() {}
        }
        assert_eq!((state.n_waiting(), state.running.len()), (MAX_WAITING, MAX_RUNNING));
        let refused = state.enter(TenantId(9)).unwrap_err();
        assert_eq!((refused.code, refused.retry_after), (Code::QueueFull, Some(RETRY_AFTER)));
        state.leave(0);
        assert!(state.enter(TenantId(9)).is_ok(), "the next one has started, so one more may wait");
    }

    /// Polls a future once. Whether it is ready.
    async fn is_ready<F: Future>(future: &mut Pin<Box<F>>) -> bool {
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
    }

    #[tokio::test]
    async fn waiting_ends_with_the_turn_with_the_future_or_with_the_server() {
        let (queue, draining) = (Arc::new(ExperimentQueue::default()), CancellationToken::new());
        let turn = || Box::pin(queue.turn(A, &draining, |_| {}));
        let (first, _second) = (turn().await.unwrap(), turn().await.unwrap());
        let (mut gone, mut third, mut fourth) = (turn(), turn(), turn());
        for waiting in [&mut gone, &mut third, &mut fourth] {
            assert!(!is_ready(waiting).await);
        }
        assert_eq!(queue.counts(), [2, 3]);
        drop(gone);
        assert_eq!(queue.counts(), [2, 2]);
        drop(first);
        let _third = third.await.unwrap();
        draining.cancel();
        assert_eq!(fourth.await.err().map(|p| p.code), Some(Code::Unavailable));
        assert_eq!((queue.counts(), turn().await.err().map(|p| p.code)), ([2, 0], Some(Code::Unavailable)));
    }
}

//! What the sequences of a run write, in the order in which it was written, for those who follow the run.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::watch;

use residuum_domain::{FinishReason, Problem, TokenScore};

/// Events kept of a run that nobody in particular waits for: a follower that is further behind misses some.
const KEPT_EVENTS: usize = 8192;

/// Something that happened to one item of a run that generates.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationEvent {
    /// The item: `input × samples + sample`.
    pub item: u32,
    /// What happened.
    pub change: Change,
}

/// What happened to an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The prompt's tokens are scored. Only if that was asked for, once, before the first token.
    Scored(Vec<TokenScore>),
    /// A token was chosen.
    Written(WrittenToken),
    /// Generation ended; the last event of the item.
    Ended {
        /// Why.
        reason: Result<FinishReason, Problem>,
        /// Text that was held back until now. Empty unless the item was cancelled.
        text: String,
    },
}

/// A generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenToken {
    /// Its position in the text.
    pub position: usize,
    /// The token and its log-probability.
    pub score: TokenScore,
    /// The text of the token by itself; bytes that are not UTF-8 are U+FFFD.
    pub token: String,
    /// Text that is certain now. Empty while a character is incomplete or a stop text may have begun; never part of a
    /// stop text. The texts of all events of an item are the text of its completion.
    pub text: String,
    /// Where the text of this token begins, in code points from the first generated token.
    pub text_start: usize,
}

/// The events of one run.
#[derive(Debug)]
pub struct TokenLog {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// Number of samples of each input, once it is known.
    samples: AtomicU32,
    /// Number of items, if a client waits for this run: nothing is dropped, and the log ends with the last item.
    n_items: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Arc<GenerationEvent>>,
    /// Number of events that were dropped from the front.
    dropped: u64,
    /// For each item, how far it has come: an item that is tried again repeats its events.
    items: HashMap<u32, Reported>,
    /// Number of items that have ended.
    n_ended: usize,
    is_closed: bool,
}

/// What has been reported of an item.
#[derive(Debug, Default)]
struct Reported {
    scored: bool,
    /// Position after the last token that was reported.
    end: usize,
    ended: bool,
}

impl TokenLog {
    /// An empty log. With `n_items` it is for a client that waits for a run of so many items: its follower never misses
    /// an event, and the log ends when every item has ended.
    #[must_use]
    pub fn new(n_items: Option<usize>) -> Self {
        Self { state: Mutex::default(), changed: watch::channel(0).0, samples: AtomicU32::new(1), n_items }
    }

    /// Notes how many samples of each input the run generates.
    pub fn set_samples(&self, n: u32) {
        self.samples.store(n.max(1), Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what happened to an item, unless it was reported before.
    pub fn push(&self, item: u32, change: Change) {
        let mut state = self.state();
        let reported = state.items.entry(item).or_default();
        let is_new = !reported.ended
            && match &change {
                Change::Scored(_) => !std::mem::replace(&mut reported.scored, true),
                Change::Written(token) => {
                    let is_new = token.position >= reported.end;
                    reported.end = reported.end.max(token.position + 1);
                    is_new
                }
                Change::Ended { .. } => {
                    reported.ended = true;
                    true
                }
            };
        if !is_new {
            return;
        }
        state.n_ended += usize::from(matches!(change, Change::Ended { .. }));
        state.events.push_back(Arc::new(GenerationEvent { item, change }));
        match self.n_items {
            Some(n) => state.is_closed = state.n_ended >= n,
            None if state.events.len() > KEPT_EVENTS => {
                state.events.pop_front();
                state.dropped += 1;
            }
            None => {}
        }
        drop(state);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Ends the log: followers get the rest of it and then `None`. Items that a client waits for end with `problem`, unless
    /// they have ended.
    pub fn close(&self, problem: &Problem) {
        for item in (0..).take(self.n_items.unwrap_or(0)) {
            self.push(item, Change::Ended { reason: Err(problem.clone()), text: String::new() });
        }
        self.state().is_closed = true;
        self.changed.send_modify(|n| *n += 1);
    }
}

/// Follows a log.
#[derive(Debug)]
pub struct TokenFeed {
    log: Arc<TokenLog>,
    changed: watch::Receiver<u64>,
    next: u64,
}

impl TokenFeed {
    /// Follows a log from event `after` on: 0 for all that are kept.
    #[must_use]
    pub fn new(log: Arc<TokenLog>, after: u64) -> Self {
        let changed = log.changed.subscribe();
        Self { log, changed, next: after }
    }

    /// The input that an item of the run continues, and which of its samples the item is.
    #[must_use]
    pub fn sample_of(&self, item: u32) -> (u32, u32) {
        let n = self.log.samples.load(Ordering::Relaxed);
        (item / n, item % n)
    }

    /// The next event with its number, counted from 1; `None` once the log has ended. Safe to cancel.
    pub async fn next(&mut self) -> Option<(u64, Arc<GenerationEvent>)> {
        loop {
            self.changed.borrow_and_update();
            {
                let state = self.log.state();
                self.next = self.next.max(state.dropped);
                let at = usize::try_from(self.next - state.dropped).unwrap_or(usize::MAX);
                if let Some(event) = state.events.get(at) {
                    self.next += 1;
                    return Some((self.next, Arc::clone(event)));
                }
                if state.is_closed {
                    return None;
                }
            }
            self.changed.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone() -> Problem {
        Problem::new(residuum_domain::Code::Unavailable, "the server is stopping")
    }

    fn written(position: usize, text: &str) -> Change {
        let score = TokenScore { token_id: 7, logprob: Some(-0.5), top: Vec::new() };
        Change::Written(WrittenToken { position, score, token: text.to_owned(), text: text.to_owned(), text_start: 0 })
    }

    async fn all(log: &Arc<TokenLog>, after: u64) -> Vec<(u64, u32)> {
        let mut feed = TokenFeed::new(Arc::clone(log), after);
        let mut events = Vec::new();
        while let Some((number, event)) = feed.next().await {
            events.push((number, event.item));
        }
        events
    }

    #[tokio::test]
    async fn an_item_that_is_tried_again_reports_nothing_twice() {
        let log = Arc::new(TokenLog::new(None));
        for attempt in 0..2 {
            log.push(0, Change::Scored(Vec::new()));
            (3..5 + attempt).for_each(|position| log.push(0, written(position, "a")));
        }
        log.push(1, written(3, "b"));
        let ended = || Change::Ended { reason: Ok(FinishReason::Length), text: String::new() };
        log.push(0, ended());
        log.push(0, ended());
        log.push(0, written(9, "late"));
        log.close(&gone());
        assert_eq!(all(&log, 0).await, [(1, 0), (2, 0), (3, 0), (4, 0), (5, 1), (6, 0)]);
        assert_eq!(all(&log, 4).await, [(5, 1), (6, 0)]);
    }

    #[tokio::test]
    async fn a_log_that_nobody_waits_for_is_bounded() {
        let (bounded, whole) = (Arc::new(TokenLog::new(None)), Arc::new(TokenLog::new(Some(1))));
        for log in [&bounded, &whole] {
            (0..KEPT_EVENTS + 10).for_each(|position| log.push(0, written(position, "a")));
            log.close(&gone());
        }
        assert_eq!(all(&bounded, 0).await.first(), Some(&(11, 0)), "the numbers show the gap");
        assert_eq!(all(&whole, 0).await.len(), KEPT_EVENTS + 11, "and the item ends");
    }

    #[tokio::test]
    async fn a_log_that_a_client_waits_for_ends_with_its_last_item() {
        let log = Arc::new(TokenLog::new(Some(2)));
        let ended = || Change::Ended { reason: Ok(FinishReason::Stop), text: String::new() };
        log.push(1, ended());
        log.push(0, written(0, "a"));
        log.push(0, ended());
        assert_eq!(all(&log, 0).await, [(1, 1), (2, 0), (3, 0)]);
        let stopped = Arc::new(TokenLog::new(Some(2)));
        stopped.push(1, ended());
        stopped.close(&gone());
        assert_eq!(all(&stopped, 0).await, [(1, 1), (2, 0)]);
    }

    #[tokio::test]
    async fn a_follower_gets_events_that_come_later() {
        let log = Arc::new(TokenLog::new(None));
        let follower = tokio::spawn({
            let log = Arc::clone(&log);
            async move { all(&log, 0).await }
        });
        tokio::task::yield_now().await;
        log.push(2, written(0, "a"));
        log.close(&gone());
        assert_eq!(follower.await.unwrap(), [(1, 2)]);
    }
}

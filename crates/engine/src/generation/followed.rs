//! The runs whose tokens somebody follows, and the generations that are not stored.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::token_log::{Change, TokenLog};
use residuum_domain::{NewItem, Problem, RunId, Scoring};

/// What is kept of a run while it generates.
#[derive(Clone)]
struct Followed {
    log: Arc<TokenLog>,
    scoring: Scoring,
    /// The items of a generation that is not stored, and the name of its model.
    unrecorded: Option<(Arc<Vec<NewItem>>, String)>,
}

/// Runs by id.
#[derive(Default)]
pub struct FollowedRuns(Mutex<HashMap<RunId, Followed>>);

impl FollowedRuns {
    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Followed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a run that a client waits for. With `unrecorded`, these are its items, and the store does not know it.
    pub fn open(&self, run: RunId, log: Arc<TokenLog>, scoring: Scoring, unrecorded: Option<(Vec<NewItem>, String)>) {
        let unrecorded = unrecorded.map(|(items, model)| (Arc::new(items), model));
        self.lock().insert(run, Followed { log, scoring, unrecorded });
    }

    /// The log of a run, which is opened if there is none.
    pub fn log(&self, run: RunId) -> (Arc<TokenLog>, Scoring) {
        let mut runs = self.lock();
        let followed = runs.entry(run).or_insert_with(|| Followed {
            log: Arc::new(TokenLog::new(None)),
            scoring: Scoring::default(),
            unrecorded: None,
        });
        (Arc::clone(&followed.log), followed.scoring)
    }

    /// An item that the store does not have.
    pub fn unrecorded(&self, (run, index): (RunId, u32)) -> Option<NewItem> {
        self.lock().get(&run)?.unrecorded.as_ref()?.0.get(index as usize).cloned()
    }

    /// The generations by a model that are not stored.
    pub fn unrecorded_of(&self, model: &str) -> Vec<RunId> {
        let by_model = |followed: &Followed| followed.unrecorded.as_ref().is_some_and(|(_, name)| name == model);
        self.lock().iter().filter(|(_, followed)| by_model(followed)).map(|(run, _)| *run).collect()
    }

    /// Whether the store does not know this run.
    pub fn is_unrecorded(&self, run: RunId) -> bool {
        self.lock().get(&run).is_some_and(|followed| followed.unrecorded.is_some())
    }

    /// Ends the log of a run that has ended or is gone. Items that have not ended end with `problem`.
    pub fn close(&self, run: RunId, problem: &Problem) {
        if let Some(followed) = self.lock().remove(&run) {
            followed.log.close(problem);
        }
    }

    /// Ends all logs.
    pub fn close_all(&self, problem: &Problem) {
        self.lock().drain().for_each(|(_, followed)| followed.log.close(problem));
    }

    /// Reports the failure of an item.
    pub fn failed(&self, (run, index): (RunId, u32), problem: &Problem) {
        if let Some(followed) = self.lock().get(&run) {
            followed.log.push(index, Change::Ended { reason: Err(problem.clone()), text: String::new() });
        }
    }
}

//! Who may still read a blob whose rows have moved to another.
//!
//! A reader asks the index where rows lie, and reads them later: a download may take an hour. Moving rows must not take
//! the file away from under it. So a reader enters before it asks the index, and what it got keeps the [`Session`]; a
//! blob that a merge made superfluous is retired, and its file removed once everybody has left who entered before that.
//!
//! Whoever enters after the move was committed is told the new place; whoever entered before it counts, whatever they
//! were told. Readers in other processes do not count: they ask the index again when a file is gone.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::blobs::Blobs;
use crate::domain::PackId;

/// Readers that are here, and blobs that wait for them to leave.
#[derive(Debug, Default)]
pub(super) struct Epochs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Grows with every retirement.
    now: u64,
    /// Sessions by the epoch they entered in.
    present: BTreeMap<u64, usize>,
    /// Blobs with their bytes and the epoch they were retired in, oldest first.
    retired: VecDeque<(u64, PackId, u64)>,
}

/// A reader's stay. Where it is dropped, blobs may be removed.
#[derive(Debug)]
pub(super) struct Session {
    epoch: u64,
    /// Not the lock of the folder: a forgotten reader does not keep it.
    blobs: Weak<Blobs>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(blobs) = self.blobs.upgrade() {
            blobs.remove_retired(blobs.epochs().leave(self.epoch));
        }
    }
}

impl Epochs {
    fn state(&self) -> MutexGuard<'_, State> {
        // counts and a list, each changed in one step
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, blobs: &Arc<Blobs>) -> Arc<Session> {
        let mut state = self.state();
        let epoch = state.now;
        *state.present.entry(epoch).or_default() += 1;
        Arc::new(Session { epoch, blobs: Arc::downgrade(blobs) })
    }

    /// Gives the blobs that nobody waits for any more.
    #[must_use]
    fn leave(&self, epoch: u64) -> Vec<PackId> {
        let mut state = self.state();
        if let Some(count) = state.present.get_mut(&epoch) {
            *count -= 1;
            if *count == 0 {
                state.present.remove(&epoch);
            }
        }
        state.free()
    }

    /// Retires blobs, each with its bytes, and gives those that nobody can be reading.
    #[must_use]
    pub(super) fn retire(&self, packs: &[(PackId, u64)]) -> Vec<PackId> {
        let mut state = self.state();
        let now = state.now;
        state.retired.extend(packs.iter().map(|(pack, n_bytes)| (now, *pack, *n_bytes)));
        state.now += 1;
        state.free()
    }

    /// Retired blobs that are still there.
    pub(super) fn retired(&self) -> Vec<PackId> {
        self.state().retired.iter().map(|(_, pack, _)| *pack).collect()
    }

    /// Bytes of the retired blobs that are still there.
    pub(super) fn retired_bytes(&self) -> u64 {
        self.state().retired.iter().map(|(.., n_bytes)| n_bytes).sum()
    }
}

impl State {
    fn free(&mut self) -> Vec<PackId> {
        let oldest = self.present.first_key_value().map_or(u64::MAX, |(epoch, _)| *epoch);
        let n = self.retired.iter().take_while(|(epoch, ..)| *epoch < oldest).count();
        self.retired.drain(..n).map(|(_, pack, _)| pack).collect()
    }
}

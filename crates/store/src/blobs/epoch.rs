//! Epoch-based reclamation: who may still read a blob whose rows have moved to another, or whose caches were deleted.
//!
//! A reader asks the index where rows are, and reads them later: a download may take an hour. Moving rows must not
//! remove the file under it. So a reader enters the current epoch before it asks the index, and what it gets keeps the
//! [`Session`]. A blob that compaction replaced is retired; its file is removed once everyone who entered before that
//! has left.
//!
//! The file of a deleted pack is kept in the same way, but only for a bounded time and up to a bounded number of bytes
//! ([`KeepDeleted`]), because deleting has to free space. A reader that comes later finds no file, and learns from
//! [`Epochs::was_deleted`] that this is no damage.
//!
//! A reader that enters after the move was committed is told the new place. One that entered before counts, whatever
//! it was told. Readers in other processes do not count: they ask the index again when a file is gone.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use crate::blobs::LocalBlobs;
use residuum_domain::PackId;

/// Deleted packs that are remembered while readers are present that may look for them.
const REMEMBERED: usize = 1 << 20;

/// How long the files of deleted caches stay for readers that were told of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepDeleted {
    /// Time that a file stays at most.
    pub time: Duration,
    /// Bytes of all such files; beyond them the oldest go.
    pub max_bytes: u64,
}

impl KeepDeleted {
    /// Not at all: space is needed now.
    pub(crate) const NOTHING: Self = Self { time: Duration::ZERO, max_bytes: 0 };
}

impl Default for KeepDeleted {
    fn default() -> Self {
        Self { time: Duration::from_secs(10), max_bytes: 1 << 30 }
    }
}

/// Readers that are present, and blobs that wait for them to leave.
#[derive(Debug, Default)]
pub(crate) struct Epochs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Grows with every retirement.
    now: u64,
    /// Sessions by the epoch they entered in.
    present: BTreeMap<u64, usize>,
    /// Blobs whose rows have moved, oldest first.
    moved: VecDeque<Retired>,
    /// Deleted blobs whose files are still there, oldest first; each with the time until which it may stay.
    deleted: VecDeque<(Retired, Instant)>,
    /// Deleted blobs with the epoch of their deletion, oldest first.
    forgotten: VecDeque<(u64, PackId)>,
    /// The same packs.
    are_forgotten: HashSet<PackId>,
    /// Whether a task watches that deleted blobs do not stay too long.
    watched: bool,
}

#[derive(Debug, Clone, Copy)]
struct Retired {
    epoch: u64,
    pack: PackId,
    n_bytes: u64,
}

/// A reader in an epoch. When it is dropped, blobs may be removed.
#[derive(Debug)]
pub(crate) struct Session {
    epoch: u64,
    /// Not the lock of the folder: a forgotten reader does not keep it.
    blobs: Weak<LocalBlobs>,
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
        // counts and lists, each changed in one step
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, blobs: &Arc<LocalBlobs>) -> Arc<Session> {
        let mut state = self.state();
        let epoch = state.now;
        *state.present.entry(epoch).or_default() += 1;
        Arc::new(Session { epoch, blobs: Arc::downgrade(blobs) })
    }

    /// Gives the blobs that no present reader can need.
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
    pub(crate) fn retire(&self, packs: &[(PackId, u64)]) -> Vec<PackId> {
        let mut state = self.state();
        let epoch = state.now;
        state.moved.extend(packs.iter().map(|(pack, n_bytes)| Retired { epoch, pack: *pack, n_bytes: *n_bytes }));
        state.now += 1;
        state.free()
    }

    /// Takes in deleted blobs, each with its bytes, and gives those whose files have to go now: nobody can be reading
    /// them, or there are too many bytes of them.
    #[must_use]
    pub(crate) fn delete(&self, packs: &[(PackId, u64)], keep: KeepDeleted, now: Instant) -> Vec<PackId> {
        let mut state = self.state();
        let (epoch, until) = (state.now, now + keep.time);
        for (pack, n_bytes) in packs {
            state.deleted.push_back((Retired { epoch, pack: *pack, n_bytes: *n_bytes }, until));
            state.forgotten.push_back((epoch, *pack));
            state.are_forgotten.insert(*pack);
        }
        state.now += 1;
        let mut gone = state.free();
        let mut n_bytes: u64 = state.deleted.iter().map(|(retired, _)| retired.n_bytes).sum();
        while n_bytes > keep.max_bytes || keep.time.is_zero() {
            let Some((oldest, _)) = state.deleted.pop_front() else { break };
            n_bytes -= oldest.n_bytes;
            gone.push(oldest.pack);
        }
        gone
    }

    /// Gives the deleted blobs whose time is over.
    #[must_use]
    pub(crate) fn overdue(&self, now: Instant) -> Vec<PackId> {
        let mut state = self.state();
        let n = state.deleted.iter().take_while(|(_, until)| *until <= now).count();
        state.deleted.drain(..n).map(|(retired, _)| retired.pack).collect()
    }

    /// Gives all deleted blobs whose files are still there.
    #[must_use]
    pub(crate) fn all_deleted(&self) -> Vec<PackId> {
        self.state().deleted.drain(..).map(|(retired, _)| retired.pack).collect()
    }

    /// Whether the pack was deleted under a reader who may still be here.
    pub(crate) fn was_deleted(&self, pack: PackId) -> bool {
        self.state().are_forgotten.contains(&pack)
    }

    /// Whether deleted blobs wait and nobody watches them; the caller does from now on.
    #[must_use]
    pub(crate) fn watch(&self) -> bool {
        let mut state = self.state();
        let begins = !state.watched && !state.deleted.is_empty();
        state.watched |= begins;
        begins
    }

    /// When the next deleted blob has to go; `None` where there is none, and the watch ends.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let mut state = self.state();
        let next = state.deleted.front().map(|(_, until)| *until);
        state.watched = next.is_some();
        next
    }

    /// Retired and deleted blobs that are still there.
    pub(crate) fn retired(&self) -> Vec<PackId> {
        let state = self.state();
        state.moved.iter().chain(state.deleted.iter().map(|(retired, _)| retired)).map(|r| r.pack).collect()
    }

    /// Bytes of the blobs that are still there though their rows have moved.
    pub(crate) fn retired_bytes(&self) -> u64 {
        self.state().moved.iter().map(|retired| retired.n_bytes).sum()
    }
}

impl State {
    fn free(&mut self) -> Vec<PackId> {
        let oldest = self.present.first_key_value().map_or(u64::MAX, |(epoch, _)| *epoch);
        let n = self.forgotten.iter().take_while(|(epoch, _)| *epoch < oldest).count();
        let n = n.max(self.forgotten.len().saturating_sub(REMEMBERED));
        for (_, pack) in self.forgotten.drain(..n) {
            self.are_forgotten.remove(&pack);
        }
        let n = self.moved.iter().take_while(|retired| retired.epoch < oldest).count();
        let mut free: Vec<PackId> = self.moved.drain(..n).map(|retired| retired.pack).collect();
        let n = self.deleted.iter().take_while(|(retired, _)| retired.epoch < oldest).count();
        free.extend(self.deleted.drain(..n).map(|(retired, _)| retired.pack));
        free
    }
}

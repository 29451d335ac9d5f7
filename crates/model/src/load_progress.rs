//! How far a load has come, and whether it is to stop. The loader writes it, others read it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

use super::error::LoadError;

/// What a load is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LoadStage {
    /// It waits for its turn.
    Queued,
    /// Files come from the hub.
    Downloading,
    /// The files are read once and hashed.
    Reading,
    /// The weights are read and put into the order that the kernels want.
    Weights,
    /// The weights are copied to devices, and checked there.
    Placing,
    /// It is loaded.
    Ready,
}

impl LoadStage {
    /// Every stage, in order.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Downloading, Self::Reading, Self::Weights, Self::Placing, Self::Ready];

    /// The stable spelling.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Downloading => "downloading",
            Self::Reading => "reading",
            Self::Weights => "weights",
            Self::Placing => "placing",
            Self::Ready => "ready",
        }
    }
}

/// A moment of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadSnapshot {
    /// What it is doing.
    pub stage: LoadStage,
    /// Bytes of this stage that are done.
    pub bytes_done: u64,
    /// Bytes of this stage; 0 if they are not known.
    pub bytes_total: u64,
}

/// Progress of one load; clones share it.
#[derive(Debug, Clone, Default)]
pub struct LoadProgress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    stage: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

impl LoadProgress {
    /// How far it has come.
    #[must_use]
    pub fn now(&self) -> LoadSnapshot {
        let stage = usize::from(self.0.stage.load(Ordering::Acquire));
        LoadSnapshot {
            stage: LoadStage::ALL.get(stage).copied().unwrap_or(LoadStage::Ready),
            bytes_done: self.0.done.load(Ordering::Relaxed),
            bytes_total: self.0.total.load(Ordering::Relaxed),
        }
    }

    /// Whether both are the progress of one load.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Ends the load at the next tensor. It then fails.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
    }

    /// Whether it is to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// An error if the load is to end.
    ///
    /// # Errors
    /// When it was cancelled.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        if self.is_cancelled() { Err(LoadError::new("the load", "was cancelled")) } else { Ok(()) }
    }

    /// Begins a stage of so many bytes.
    pub fn begin(&self, stage: LoadStage, bytes_total: u64) {
        self.0.done.store(0, Ordering::Relaxed);
        self.0.total.store(bytes_total, Ordering::Relaxed);
        self.0.stage.store(stage as u8, Ordering::Release);
    }

    /// Adds bytes to the stage: its size was not known.
    pub(crate) fn expect(&self, bytes: u64) {
        self.0.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that are done.
    pub(crate) fn add(&self, bytes: u64) {
        self.0.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_starts_from_nothing_and_clones_see_it() {
        let progress = LoadProgress::default();
        let seen = progress.clone();
        progress.begin(LoadStage::Reading, 10);
        progress.add(7);
        assert_eq!(seen.now(), LoadSnapshot { stage: LoadStage::Reading, bytes_done: 7, bytes_total: 10 });
        progress.begin(LoadStage::Weights, 4);
        assert_eq!(seen.now(), LoadSnapshot { stage: LoadStage::Weights, bytes_done: 0, bytes_total: 4 });
        assert!(seen.check().is_ok());
        seen.cancel();
        assert!(progress.check().is_err());
    }

    #[test]
    fn stages_are_stored_as_their_place_in_the_list() {
        for (i, stage) in LoadStage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, i, "{}", stage.name());
        }
    }
}

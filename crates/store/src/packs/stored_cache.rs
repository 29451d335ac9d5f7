//! A cache together with the place of its tensors.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{blobs::epoch::Session, packs::location::Location};
use residuum_domain::{Cache, PackId};

/// Extents that are remembered to be intact.
const REMEMBERED: usize = 1 << 17;

/// A cache whose tensors can be read.
#[derive(Debug, Clone)]
pub struct StoredCache {
    /// What it is.
    pub cache: Cache,
    location: Arc<Location>,
    /// Keeps the file while rows move.
    _session: Arc<Session>,
}

/// Extents whose bytes this process has hashed and found intact.
#[derive(Debug, Default)]
pub(crate) struct Checked(Mutex<HashSet<(PackId, u64)>>);

impl Checked {
    /// Whether an extent is among them.
    pub(crate) fn contains(&self, location: &Location) -> bool {
        self.lock().contains(&location.key())
    }

    /// Adds an extent.
    pub(crate) fn insert(&self, location: &Location) {
        let mut checked = self.lock();
        if checked.len() >= REMEMBERED {
            checked.clear();
        }
        checked.insert(location.key());
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(PackId, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoredCache {
    pub(crate) fn new(cache: Cache, location: Location, session: &Arc<Session>) -> Self {
        Self { cache, location: Arc::new(location), _session: Arc::clone(session) }
    }

    /// Elements of the tensor of the hook at `hook_index` of `cache.capture.hooks`; 0 where there is none.
    #[must_use]
    pub fn elements(&self, hook_index: usize) -> usize {
        self.location.elements(hook_index)
    }

    /// Bytes of the tensor of the hook at `hook_index`.
    #[must_use]
    pub fn byte_len(&self, hook_index: usize) -> u64 {
        (self.elements(hook_index) * self.location.dtype().size()) as u64
    }

    /// Where its numbers lie.
    pub(crate) fn location(&self) -> &Arc<Location> {
        &self.location
    }
}

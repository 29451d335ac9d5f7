//! Plans that are still true.

use std::sync::{Arc, Mutex, PoisonError};

use super::{ScanPlan, Take};
use residuum_domain::{CacheFilter, TenantId};

/// Plans remembered at once.
const REMEMBERED: usize = 4;
/// Pieces of a plan that is worth its memory, some 40 bytes each.
const MAX_PIECES: usize = 8 << 20;

/// What a plan was asked for.
pub(super) type Key = (TenantId, CacheFilter, Take);

struct Entry {
    key: Key,
    /// Commits of the index when the plan was made.
    commits: u64,
    plan: Arc<ScanPlan>,
}

/// The latest plans, oldest use first.
#[derive(Default)]
pub(crate) struct Plans(Mutex<Vec<Entry>>);

impl Plans {
    /// The plan for `key`, if nothing was committed and nothing has expired since.
    pub(super) fn get(&self, key: &Key, commits: u64, now: i64) -> Option<Arc<ScanPlan>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|e| e.commits == commits && e.plan.until.is_none_or(|until| now < until));
        let at = entries.iter().position(|e| e.key == *key)?;
        let entry = entries.remove(at);
        let plan = Arc::clone(&entry.plan);
        entries.push(entry);
        Some(plan)
    }

    /// Forgets the plans that are no longer true, and with them the blobs that they kept.
    pub(crate) fn forget_older(&self, commits: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|e| e.commits == commits);
    }

    /// Remembers a plan.
    pub(super) fn put(&self, key: Key, commits: u64, plan: &Arc<ScanPlan>) {
        if plan.pieces.len() > MAX_PIECES {
            return;
        }
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|e| e.key != key);
        if entries.len() >= REMEMBERED {
            entries.remove(0);
        }
        entries.push(Entry { key, commits, plan: Arc::clone(plan) });
    }
}

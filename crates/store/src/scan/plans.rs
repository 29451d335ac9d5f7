//! Plans that are remembered while the index does not change.

use std::sync::{Arc, Mutex, PoisonError};

use super::{ScanPlan, Take, plan};
use crate::{blobs::LocalBlobs, error::StoreError, index::SqliteIndex};
use residuum_domain::{CacheFilter, Hook, TenantId};

/// Plans remembered at once.
const REMEMBERED: usize = 4;
/// Pieces of the largest plan that is remembered, some 40 bytes each.
const MAX_PIECES: usize = 8 << 20;

/// What a plan was asked for.
type Key = (TenantId, CacheFilter, Take);

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
    /// The plan for a hook of what a filter finds: a remembered one, or one that is made now.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`] when the index contradicts itself.
    pub(crate) async fn plan(
        &self,
        index: &SqliteIndex,
        blobs: &Arc<LocalBlobs>,
        tenant: TenantId,
        filter: &CacheFilter,
        hook: Hook,
        take: &Take,
    ) -> Result<Arc<ScanPlan>, StoreError> {
        let mut filter = filter.clone();
        if !filter.hooks.contains(&hook) {
            filter.hooks.push(hook);
        }
        // The count is read before the index is: a change in between makes the plan look older than it is.
        let commits = index.commits();
        let key = (tenant, filter, take.clone());
        if let Some(plan) = commits.and_then(|n| self.get(&key, n, index.now())) {
            return Ok(plan);
        }
        // before the index is asked, so that the blobs that it names are kept
        let plan = Arc::new(plan::build(index, blobs.enter(), tenant, &key.1, hook, take).await?);
        if let Some(n) = commits {
            self.put(key, n, &plan);
        }
        Ok(plan)
    }

    /// The plan for `key`, if nothing was committed and nothing has expired since.
    fn get(&self, key: &Key, commits: u64, now: i64) -> Option<Arc<ScanPlan>> {
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
    fn put(&self, key: Key, commits: u64, plan: &Arc<ScanPlan>) {
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

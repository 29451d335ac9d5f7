//! Reads the caches of an export from the index, page by page.

use std::{collections::VecDeque, sync::Arc};

use super::export_plan::ExportPlan;
use residuum_domain::{CacheId, Problem, TenantId};
use residuum_store::{Store, StoredCache};

/// Caches per page.
const PAGE: usize = 256;

/// Reads caches in the order of their ids, which are all that is in memory besides a page. No transaction stays open
/// between pages, so caches that are deleted meanwhile are left out, and new ones are not added.
pub struct CachePages {
    store: Store,
    tenant: TenantId,
    ids: Vec<CacheId>,
    /// Index of the first id of the next page.
    next: usize,
    read: VecDeque<Arc<StoredCache>>,
}

impl CachePages {
    /// Starts at the first of these caches.
    pub fn new(store: Store, tenant: TenantId, ids: Vec<CacheId>) -> Self {
        Self { store, tenant, ids, next: 0, read: VecDeque::new() }
    }

    /// The next cache.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn next(&mut self) -> Result<Option<Arc<StoredCache>>, Problem> {
        while self.read.is_empty() && self.next < self.ids.len() {
            let end = self.ids.len().min(self.next + PAGE);
            let page = self.store.stored(self.tenant, &self.ids[self.next..end]).await?;
            self.next = end;
            self.read.extend(page.into_iter().flatten().map(Arc::new));
        }
        Ok(self.read.pop_front())
    }

    /// Whether another cache that fits the plan follows.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn has_more(&mut self, plan: &ExportPlan) -> Result<bool, Problem> {
        while let Some(cache) = self.next().await? {
            if plan.pick(&cache).is_some() {
                self.give_back(cache);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts a cache back, to be returned next.
    pub fn give_back(&mut self, cache: Arc<StoredCache>) {
        self.read.push_front(cache);
    }
}

//! Reads the caches of an export from the index, page by page.

use std::{collections::VecDeque, sync::Arc};

use jiff::Timestamp;

use super::export_plan::ExportPlan;
use residuum_domain::{CacheFilter, Problem, RunId, TenantId};
use residuum_store::{Store, StoredCache};

/// Caches per page.
const PAGE: u32 = 256;

/// Which caches to export.
#[derive(Debug, Clone)]
pub enum ExportScope {
    /// The caches of a run, in the order of its inputs.
    Run(RunId),
    /// The caches that a filter finds, newest first.
    Filter(Box<CacheFilter>),
}

impl ExportScope {
    /// The filter that finds them.
    pub fn filter(&self) -> CacheFilter {
        match self {
            Self::Run(run) => CacheFilter { run: Some(*run), ..CacheFilter::default() },
            Self::Filter(filter) => filter.as_ref().clone(),
        }
    }
}

/// Reads caches in order. No transaction stays open between pages, so caches that are deleted meanwhile are left out.
pub struct CachePages {
    store: Store,
    tenant: TenantId,
    scope: ExportScope,
    /// Where the next page begins: the next input of a run, or after the last cache that the filter found.
    from_item: u32,
    before: Option<Timestamp>,
    ended: bool,
    read: VecDeque<Arc<StoredCache>>,
}

impl CachePages {
    /// Starts at the first cache.
    pub fn new(store: Store, tenant: TenantId, scope: ExportScope) -> Self {
        Self { store, tenant, scope, from_item: 0, before: None, ended: false, read: VecDeque::new() }
    }

    /// The next cache.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn next(&mut self) -> Result<Option<Arc<StoredCache>>, Problem> {
        if self.read.is_empty() && !self.ended {
            let page = match &self.scope {
                ExportScope::Run(run) => self.store.run_stored(self.tenant, *run, self.from_item, PAGE).await?,
                ExportScope::Filter(filter) => self.store.choose_before(self.tenant, filter, self.before, PAGE).await?,
            };
            match page.last() {
                Some(last) => {
                    self.from_item = u32::try_from(last.cache.item_index).unwrap_or(u32::MAX).saturating_add(1);
                    self.before = Some(last.cache.created_at);
                }
                None => self.ended = true,
            }
            self.read.extend(page.into_iter().map(Arc::new));
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

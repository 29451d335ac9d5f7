//! The caches of an export, page after page.

use std::{collections::VecDeque, sync::Arc};

use jiff::Timestamp;

use super::export_plan::ExportPlan;
use residuum_domain::{CacheFilter, Problem, RunId, TenantId};
use residuum_store::{Store, StoredCache};

/// Caches read from the index at a time.
const PAGE: u32 = 256;

/// Which caches.
#[derive(Debug, Clone)]
pub enum ExportScope {
    /// Those of a run, in the order of its inputs.
    Run(RunId),
    /// Those that a filter finds, newest first.
    Filter(Box<CacheFilter>),
}

impl ExportScope {
    /// The condition that finds them.
    pub fn filter(&self) -> CacheFilter {
        match self {
            Self::Run(run) => CacheFilter { run: Some(*run), ..CacheFilter::default() },
            Self::Filter(filter) => filter.as_ref().clone(),
        }
    }
}

/// Reads caches in order. No transaction stays open between pages: what is deleted meanwhile is not there any more.
pub struct CachePages {
    store: Store,
    tenant: TenantId,
    scope: ExportScope,
    /// Behind the last page: the next input of a run, or the last cache of a filter.
    from_item: u32,
    before: Option<Timestamp>,
    ended: bool,
    read: VecDeque<Arc<StoredCache>>,
}

impl CachePages {
    /// From the beginning.
    pub fn new(store: Store, tenant: TenantId, scope: ExportScope) -> Self {
        Self { store, tenant, scope, from_item: 0, before: None, ended: false, read: VecDeque::new() }
    }

    /// The next cache.
    ///
    /// # Errors
    /// The store's.
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

    /// Whether a cache follows that fits the plan.
    ///
    /// # Errors
    /// The store's.
    pub async fn has_more(&mut self, plan: &ExportPlan) -> Result<bool, Problem> {
        while let Some(cache) = self.next().await? {
            if plan.pick(&cache).is_some() {
                self.give_back(cache);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives a cache back: it comes next.
    pub fn give_back(&mut self, cache: Arc<StoredCache>) {
        self.read.push_front(cache);
    }
}

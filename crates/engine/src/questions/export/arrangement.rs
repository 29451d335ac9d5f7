//! In which order an export has its caches.

use residuum_analysis::folds::SplitMix64;
use residuum_domain::{CacheFilter, CacheId, Order, Problem, TenantId};
use residuum_store::Store;

/// The order of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// By run, and within a run in the order of its inputs; descending, the exact reverse.
    ByRun(Order),
    /// The ascending order, shuffled with this seed: SplitMix64 and Fisher–Yates from the last index down with
    /// `next() mod (i + 1)`. So the same caches come in the same order.
    Shuffled(u64),
}

impl Arrangement {
    /// The ids of the caches that a filter finds, in this order.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn of(self, store: &Store, tenant: TenantId, filter: &CacheFilter) -> Result<Vec<CacheId>, Problem> {
        Ok(match self {
            Self::ByRun(order) => store.cache_ids(tenant, filter, order).await?,
            Self::Shuffled(seed) => {
                let mut ids = store.cache_ids(tenant, filter, Order::Ascending).await?;
                SplitMix64::new(seed).shuffle(&mut ids);
                ids
            }
        })
    }
}

//! The methods of the handle for caches.

use std::sync::Arc;

use jiff::Timestamp;

use super::Store;
use crate::{
    error::StoreError,
    find::{
        caches::{CachePage, PageRequest},
        edit::DeletedCaches,
        survey::Kind,
    },
    packs::stored_cache::StoredCache,
    scan::{ScanPlan, Take, TokenPlaces},
};
use residuum_domain::{Cache, CacheFilter, CacheId, CachePatch, Count, Hook, Order, RunId, TenantId};

impl Store {
    /// Changes tags, metadata or label of a cache, and gives it as it is then. `None`: no such cache.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn patch_cache(
        &self,
        tenant: TenantId,
        id: CacheId,
        patch: CachePatch,
    ) -> Result<Option<Cache>, StoreError> {
        self.index().patch_cache(tenant, id, patch).await?;
        self.cache(tenant, id).await
    }

    /// Deletes a cache, and its activations if nothing else uses them. Says whether there was one. Its run keeps its
    /// counts.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`].
    pub async fn delete_cache(&self, tenant: TenantId, id: CacheId) -> Result<bool, StoreError> {
        self.index().delete_cache(tenant, id).await
    }

    /// Deletes the caches of a tenant that `filter` finds now, and activations that nothing else uses. Pinned ones are kept,
    /// unless the filter asks for them. Other writers get their turn between the transactions, each of which deletes some
    /// hundreds. If it fails or is dropped, what was deleted before stays deleted.
    ///
    /// # Errors
    /// As [`Self::cache`], and [`StoreError::Closed`].
    pub async fn delete_caches(&self, tenant: TenantId, filter: &CacheFilter) -> Result<DeletedCaches, StoreError> {
        let and_pinned = filter.pinned == Some(true);
        let ids = self.index().cache_ids(tenant, filter, Order::Ascending).await?;
        let n_deleted = self.index().delete_caches(tenant, &ids, and_pinned).await?;
        let n_pinned = if filter.pinned.is_none() {
            let pinned = CacheFilter { pinned: Some(true), ..filter.clone() };
            self.index().count_all_caches(tenant, &pinned).await?
        } else {
            0
        };
        Ok(DeletedCaches { n_deleted, n_pinned })
    }

    /// The kinds of caches of a tenant that a filter finds.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`] when the index contradicts itself.
    pub async fn survey(&self, tenant: TenantId, filter: &CacheFilter) -> Result<Vec<Kind>, StoreError> {
        self.index().survey(tenant, filter).await
    }

    /// Where the tokens that are `wanted` stand in the caches of a tenant that `filter` finds. Takes 24 bytes for each such
    /// position, whatever the number of tokens.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`] when the index contradicts itself.
    pub async fn token_places(
        &self,
        tenant: TenantId,
        filter: &CacheFilter,
        wanted: impl Fn(u32) -> bool + Send,
    ) -> Result<TokenPlaces, StoreError> {
        self.index().token_places(tenant, filter, wanted).await
    }

    /// One cache of a tenant.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn cache(&self, tenant: TenantId, id: CacheId) -> Result<Option<Cache>, StoreError> {
        self.index().cache(&self.blobs().enter(), tenant, id).await
    }

    /// A page of the caches of a tenant. It takes a bounded time whatever the filter: a page may be short, and the next
    /// one continues after what this one looked at.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn find_caches(
        &self,
        tenant: TenantId,
        filter: &CacheFilter,
        page: PageRequest,
    ) -> Result<CachePage, StoreError> {
        self.index().find_caches(&self.blobs().enter(), tenant, filter, page).await
    }

    /// Counts the caches of a tenant in a bounded time: exactly if there are at most five thousand and they are counted soon,
    /// otherwise how many there are at least.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn count_caches(&self, tenant: TenantId, filter: &CacheFilter) -> Result<Count, StoreError> {
        self.index().count_caches(tenant, filter).await
    }

    /// Caches of a tenant, newest first, those stored before `before` where it is given. However long it takes, the list is
    /// only shorter than `limit` where there are no more.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn caches(
        &self,
        tenant: TenantId,
        filter: &CacheFilter,
        before: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<Cache>, StoreError> {
        self.index().caches(&self.blobs().enter(), tenant, filter, before, limit).await
    }

    /// Caches of a tenant that can be read, newest first. However long it takes, the list is only shorter than `limit`
    /// where there are no more.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn choose(
        &self,
        tenant: TenantId,
        filter: &CacheFilter,
        limit: u32,
    ) -> Result<Vec<StoredCache>, StoreError> {
        self.index().choose(&self.blobs().enter(), tenant, filter, limit).await
    }

    /// The ids of all caches of a tenant that a filter finds: by run, and within a run in the order of its inputs;
    /// descending, the exact reverse. Takes 16 bytes of memory for each.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn cache_ids(
        &self,
        tenant: TenantId,
        filter: &CacheFilter,
        order: Order,
    ) -> Result<Vec<CacheId>, StoreError> {
        self.index().cache_ids(tenant, filter, order).await
    }

    /// How many caches a filter finds, however long counting takes.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn count_all_caches(&self, tenant: TenantId, filter: &CacheFilter) -> Result<u64, StoreError> {
        self.index().count_all_caches(tenant, filter).await
    }

    /// Caches of a run in the order of its inputs, from input `from_item` on.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn run_caches(
        &self,
        tenant: TenantId,
        run: RunId,
        from_item: u32,
        limit: u32,
    ) -> Result<Vec<Cache>, StoreError> {
        self.index().run_caches(&self.blobs().enter(), tenant, run, from_item, limit).await
    }

    /// [`Self::run_caches`], to be read.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn run_stored(
        &self,
        tenant: TenantId,
        run: RunId,
        from_item: u32,
        limit: u32,
    ) -> Result<Vec<StoredCache>, StoreError> {
        self.index().run_stored(&self.blobs().enter(), tenant, run, from_item, limit).await
    }

    /// Caches with the place of their tensors, in the order asked; `None` for those that the tenant does not have.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn stored(&self, tenant: TenantId, caches: &[CacheId]) -> Result<Vec<Option<StoredCache>>, StoreError> {
        self.index().stored(&self.blobs().enter(), tenant, caches).await
    }

    /// Where the rows of `hook` lie in the caches of a tenant that `filter` finds. Kept until the index changes, so that
    /// the next scan of the same rows costs no query.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`] when the index contradicts itself.
    pub async fn scan_plan(
        &self,
        tenant: TenantId,
        filter: &CacheFilter,
        hook: Hook,
        take: &Take,
    ) -> Result<Arc<ScanPlan>, StoreError> {
        self.plans().plan(self.index(), self.blobs(), tenant, filter, hook, take).await
    }
}

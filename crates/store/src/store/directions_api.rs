//! The methods of the handle for directions and API keys.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Store;
use crate::error::StoreError;
use residuum_domain::{Direction, DirectionId, DirectionInfo, KeyId, KeyRecord, TenantId};

impl Store {
    /// Keeps a direction, durably. Says whether its name was free; if not, nothing changes.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`].
    pub async fn insert_direction(&self, direction: Direction) -> Result<bool, StoreError> {
        self.index().insert_direction(direction).await
    }

    /// One direction of a tenant with its vectors, by id or name.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn direction(&self, tenant: TenantId, id_or_name: &str) -> Result<Option<Direction>, StoreError> {
        self.index().direction(tenant, id_or_name).await
    }

    /// What a direction of a tenant is, by id or name.
    ///
    /// # Errors
    /// As [`Self::direction`].
    pub async fn direction_info(
        &self,
        tenant: TenantId,
        id_or_name: &str,
    ) -> Result<Option<DirectionInfo>, StoreError> {
        self.index().direction_info(tenant, id_or_name).await
    }

    /// Directions of a tenant, newest first, those older than `before` where it is given.
    ///
    /// # Errors
    /// As [`Self::direction`].
    pub async fn directions(
        &self,
        tenant: TenantId,
        before: Option<DirectionId>,
        limit: u32,
    ) -> Result<Vec<DirectionInfo>, StoreError> {
        self.index().directions(tenant, before, limit).await
    }

    /// Merges `metadata` into a direction's as RFC 7396 has it, and says whether there is such a direction.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn patch_direction(
        &self,
        tenant: TenantId,
        id: DirectionId,
        metadata: Map<String, Value>,
    ) -> Result<bool, StoreError> {
        self.index().patch_direction(tenant, id, metadata).await
    }

    /// Deletes a direction. Says whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`].
    pub async fn delete_direction(&self, tenant: TenantId, id: DirectionId) -> Result<bool, StoreError> {
        self.index().delete_direction(tenant, id).await
    }

    /// Every key that was ever made here, revoked ones among them, oldest first. It sees at once what another process
    /// has committed.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.index().keys().await
    }

    /// Notes that a key was used. It may be lost in a power failure.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`].
    pub async fn touch_key(&self, id: KeyId, at: Timestamp) -> Result<(), StoreError> {
        self.index().touch_key(id, at).await
    }

    /// The tenant of this name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn tenant(&self, name: &str) -> Result<Option<TenantId>, StoreError> {
        self.index().tenant(name).await
    }
}

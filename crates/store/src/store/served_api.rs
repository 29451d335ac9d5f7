//! The methods of the handle for models and autoencoders that were loaded while the server ran.

use std::{path::PathBuf, sync::Arc};

use super::Store;
use crate::{SaeUpload, ServedRecord, blocking::blocking, error::StoreError, runs::queue::PendingRun};
use residuum_domain::{RunId, TenantId};

impl Store {
    /// What is to be loaded at the start, in the order in which it was loaded.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn served(&self) -> Result<Vec<ServedRecord>, StoreError> {
        self.index().served().await
    }

    /// Notes something that is to be loaded at the next start, durably. Replaces what had its name.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`].
    pub async fn keep_served(&self, record: ServedRecord) -> Result<(), StoreError> {
        self.index().keep_served(record).await
    }

    /// Forgets a model that was loaded, durably.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`].
    pub async fn forget_served_model(&self, id: &str) -> Result<(), StoreError> {
        self.index().forget_served_model(id.to_owned()).await
    }

    /// Forgets an autoencoder that was loaded, durably, and removes its folder if it was uploaded.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`], [`StoreError::Io`].
    pub async fn forget_served_sae(&self, id: &str) -> Result<(), StoreError> {
        self.index().forget_served_sae(id.to_owned()).await?;
        let (blobs, id) = (Arc::clone(self.blobs()), id.to_owned());
        blocking(move || blobs.remove_sae(&id)).await
    }

    /// A folder in which an autoencoder can be received.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Full`], [`StoreError::Io`].
    pub async fn receive_sae(&self) -> Result<SaeUpload, StoreError> {
        let blobs = Arc::clone(self.blobs());
        blocking(move || blobs.receive_sae()).await
    }

    /// The folder of the uploaded autoencoder `id`, whether or not it is there.
    #[must_use]
    pub fn sae_folder(&self, id: &str) -> PathBuf {
        self.blobs().sae_folder(id)
    }

    /// The runs of a model that have not ended, oldest first, with what [`Self::pending`] says of each.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn pending_of(&self, model: &str) -> Result<Vec<PendingRun>, StoreError> {
        self.index().pending_of(model).await
    }

    /// The runs of a model that have not ended, oldest first, of all tenants.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn unfinished_of(&self, model: &str) -> Result<Vec<(TenantId, RunId)>, StoreError> {
        self.index().unfinished_of(model).await
    }
}

//! Opening and closing a store.

use std::{path::Path, sync::Arc};

use super::Store;
use crate::{
    blobs::LocalBlobs, blocking::blocking, error::StoreError, index::SqliteIndex, keys::KeyStore,
    options::StoreOptions, scan::Plans,
};

impl Store {
    /// Opens the store in `dir` for reading and writing, making it where there is none. Brings the index up to date, removes the
    /// unfinished work of an earlier process, and moves blobs that the index should know and does not to the folder `unknown`. The folder stays locked until the last clone is gone.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when someone else has the folder, [`StoreError::Newer`] when a newer version wrote the
    /// index, [`StoreError::IndexLost`] when there are blobs and no index, [`StoreError::IndexDamaged`] when SQLite cannot
    /// read it, else [`StoreError::Io`], [`StoreError::Full`] or [`StoreError::Database`].
    pub async fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, StoreOptions::default()).await
    }

    /// As [`Self::open`], with a quota or a clock.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(dir: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let dir = dir.to_owned();
        let blobs = Arc::new(blocking(move || LocalBlobs::open(&dir)).await?);
        let own = Arc::clone(&blobs);
        // a new index would know nothing of what is there
        let torn =
            blocking(
                move || {
                    if own.is_without_index()? { Err(StoreError::IndexLost) } else { SqliteIndex::log_is_torn(&own) }
                },
            );
        let torn = torn.await?;
        match Self::start(&blobs, options.clone(), torn).await {
            Err(error) if blobs.is_for_want_of_room(&error) && blobs.give_up_reserve() => {
                tracing::warn!(
                    "the disk is full: the store starts with what was kept in reserve. What is stored can be read and deleted; \
                     new runs wait or are refused until there is room: make some on the disk, or delete runs or caches"
                );
                Self::start(&blobs, options, torn).await
            }
            started => started,
        }
    }

    /// Opens the index of a folder, and brings both up to date.
    async fn start(blobs: &Arc<LocalBlobs>, options: StoreOptions, torn: bool) -> Result<Self, StoreError> {
        let StoreOptions { clock, quota, keep_deleted } = options;
        let plans = Arc::<Plans>::default();
        let stale = Arc::clone(&plans);
        // a plan is a reader of what was deleted
        let freed = Box::new(move |commits| stale.forget_older(commits));
        let index = SqliteIndex::open(blobs, clock, keep_deleted, freed).await?;
        let store = Self::new(index, Arc::clone(blobs), quota, plans);
        match store.bring_up_to_date(torn).await {
            Ok(()) => Ok(store),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }

    async fn bring_up_to_date(&self, torn: bool) -> Result<(), StoreError> {
        self.collector().sweep(torn).await?;
        let blobs = Arc::clone(self.blobs());
        blocking(move || {
            blobs.sweep_uploads()?;
            blobs.count_bytes()?;
            blobs.keep_reserve();
            Ok(())
        })
        .await?;
        self.index().enter_missing().await
    }

    /// Opens the store in `dir` to read only, also while a server has it: nothing is locked, made or removed. On a file system that
    /// cannot be written, the folder must be one whose server was stopped in order: SQLite reads no log there.
    ///
    /// # Errors
    /// [`StoreError::Newer`] or [`StoreError::Older`] when another version wrote the index, [`StoreError::Io`] when
    /// there is none.
    pub async fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        let blobs = Arc::new(LocalBlobs::open_read_only(dir));
        let index = SqliteIndex::open_read_only(&blobs).await?;
        Ok(Self::new(index, blobs, None, Arc::default()))
    }

    /// Whether the store takes changes: a query runs, the writer can change the index, and the folder takes a file. Leaves
    /// nothing behind.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Full`], [`StoreError::Io`] or [`StoreError::Database`].
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.index().probe().await?;
        let blobs = Arc::clone(self.blobs());
        blocking(move || blobs.probe()).await
    }

    /// Commits what is waiting, moves the log into the index and closes it, for all clones.
    pub async fn close(self) {
        self.index().close().await;
    }
}

impl KeyStore {
    /// Opens the index in `dir`. Where there is none, or an older one, it is made or brought up to date, for which the
    /// folder must be free.
    ///
    /// # Errors
    /// As [`Self::open`], and those of [`Store::open`] where the index has to be made.
    pub async fn open_or_make(dir: &Path) -> Result<Self, StoreError> {
        match Self::open(dir).await {
            Err(reason @ (StoreError::Older { .. } | StoreError::Io { .. })) => match Store::open(dir).await {
                Ok(store) => {
                    store.close().await;
                    Self::open(dir).await
                }
                // an older server has it
                Err(StoreError::Locked) => Err(reason),
                Err(other) => Err(other),
            },
            opened => opened,
        }
    }
}

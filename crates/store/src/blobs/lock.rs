//! The lock of a data folder. It consists of two `flock`s: one on the folder itself, which cannot be removed while it
//! is in use, and one on the file `lock` in it, which earlier versions check.
//!
//! A `flock` belongs to an open file, so closing another descriptor of the same file does not release it. (SQLite's
//! locks, by `fcntl`, are lost when the process closes any descriptor of the file: nothing here may open
//! `index.sqlite` while SQLite has it.)

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use crate::error::StoreError;

/// Held as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    /// `None`: the file system does not lock folders, as NFS does not.
    _folder: Option<File>,
}

impl Lock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process or another store of this one holds it; [`StoreError::Io`].
    pub(super) fn take(root: &Path) -> Result<Self, StoreError> {
        let folder = File::open(root).map_err(StoreError::io("opening the data folder"))?;
        let folder = match folder.try_lock() {
            Ok(()) => Some(folder),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked),
            Err(TryLockError::Error(error)) => {
                tracing::debug!(%error, "the data folder itself cannot be locked; its lock file is");
                None
            }
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("lock"))
            .map_err(StoreError::io("opening the lock of the data folder"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file, _folder: folder }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked),
            Err(TryLockError::Error(e)) => Err(StoreError::io("locking the data folder")(e)),
        }
    }

    /// Whether somebody holds the lock of a folder.
    pub(super) fn is_taken(root: &Path) -> bool {
        let taken = |path: &Path| {
            File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
        };
        taken(root) || taken(&root.join("lock"))
    }
}

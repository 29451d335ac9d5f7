//! The folder `saes`: autoencoders that were uploaded, each in a folder of its name. Blobs and index do not refer to it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use uuid::Uuid;

use super::{LocalBlobs, TEMP_PREFIX, sync_folder};
use crate::error::StoreError;

/// Where uploaded autoencoders are, in the data folder.
const SAES: &str = "saes";

/// An autoencoder that is being received, in a folder of its own. Dropping it removes the folder, unless it was published.
#[derive(Debug)]
pub struct SaeUpload {
    folder: PathBuf,
    blobs: Arc<LocalBlobs>,
    published: bool,
}

impl SaeUpload {
    /// The folder that receives the files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A new file of the folder; blocks.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn file(&self, name: &str) -> Result<UploadedFile, StoreError> {
        let file = File::create_new(self.folder.join(name)).map_err(StoreError::io("making a file of an upload"))?;
        Ok(UploadedFile { file, len: 0 })
    }

    /// Gives the folder its name, durably, in place of one that had it; blocks. Returns the folder.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn publish(mut self, id: &str) -> Result<PathBuf, StoreError> {
        let target = self.blobs.sae_folder(id);
        sync_folder(&self.folder)?;
        self.blobs.remove_sae(id)?;
        fs::rename(&self.folder, &target).map_err(StoreError::io("publishing an upload"))?;
        self.published = true;
        sync_folder(&self.blobs.saes())?;
        Ok(target)
    }
}

impl Drop for SaeUpload {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = fs::remove_dir_all(&self.folder)
        {
            tracing::warn!(%error, "the folder of an upload stays until the next start");
        }
    }
}

/// A file of an upload.
#[derive(Debug)]
pub struct UploadedFile {
    file: File,
    len: u64,
}

impl UploadedFile {
    /// Appends bytes; blocks.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(StoreError::io("receiving an upload"))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Bytes that have arrived.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes the file durable; blocks.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn finish(self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(StoreError::io("flushing an upload"))
    }
}

impl LocalBlobs {
    fn saes(&self) -> PathBuf {
        self.root.join(SAES)
    }

    /// The folder of the uploaded autoencoder `id`, whether or not it is there. An id never begins with a dot.
    pub(crate) fn sae_folder(&self, id: &str) -> PathBuf {
        self.saes().join(id)
    }

    /// A folder to receive an autoencoder into.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Full`], [`StoreError::Io`].
    pub(crate) fn receive_sae(self: &Arc<Self>) -> Result<SaeUpload, StoreError> {
        if self.lock.is_none() {
            return Err(StoreError::Closed);
        }
        let folder = self.saes().join(format!("{TEMP_PREFIX}{}", Uuid::now_v7()));
        fs::create_dir_all(&folder).map_err(StoreError::io("making the folder of an upload"))?;
        sync_folder(&self.root)?;
        Ok(SaeUpload { folder, blobs: Arc::clone(self), published: false })
    }

    /// Removes the folder of an uploaded autoencoder; that it is gone already is no error.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn remove_sae(&self, id: &str) -> Result<(), StoreError> {
        if self.lock.is_none() {
            return Err(StoreError::Closed);
        }
        // first another name, so that a folder is never seen with some of its files
        let gone = self.saes().join(format!("{TEMP_PREFIX}{}", Uuid::now_v7()));
        match fs::rename(self.sae_folder(id), &gone) {
            Ok(()) => fs::remove_dir_all(&gone).map_err(StoreError::io("removing an upload")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(StoreError::io("removing an upload")(e)),
        }
    }

    /// Removes what uploads left unfinished. Only at the start, under the lock.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn sweep_uploads(&self) -> Result<(), StoreError> {
        let entries = match fs::read_dir(self.saes()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(StoreError::io("listing uploads")(e)),
        };
        for entry in entries {
            let entry = entry.map_err(StoreError::io("listing uploads"))?;
            if entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX) {
                fs::remove_dir_all(entry.path()).map_err(StoreError::io("removing an unfinished upload"))?;
            }
        }
        Ok(())
    }
}

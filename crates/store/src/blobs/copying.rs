//! Copying blobs to another data folder, and giving files their names there.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{LocalBlobs, sync_folder};
use crate::error::StoreError;
use residuum_domain::PackId;

impl LocalBlobs {
    /// Gives `target` the file of `pack`: a second name for it where `link` and the file system allow, else a durable copy.
    /// Says whether there was such a file.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub(crate) fn copy_to(&self, target: &Self, pack: PackId, link: bool) -> Result<bool, StoreError> {
        let failed = || StoreError::io(format!("copying pack {pack}"));
        let folder = target.folder(pack);
        fs::create_dir_all(&folder).map_err(failed())?;
        match link_or_copy(&self.path(pack), &target.path(pack), !link) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(failed()(e)),
        }
    }

    /// Makes the names of all blobs durable.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn sync_names(&self) -> Result<(), StoreError> {
        let failed = || StoreError::io("listing blobs");
        let blobs = self.root.join("blobs");
        for folder in fs::read_dir(&blobs).map_err(failed())? {
            sync_folder(&folder.map_err(failed())?.path())?;
        }
        sync_folder(&blobs)?;
        sync_folder(&self.root)
    }

    /// Gives a file of the data folder, durable itself, another name there.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let failed = || StoreError::io(format!("naming {to}"));
        File::open(self.root.join(from)).and_then(|f| f.sync_all()).map_err(failed())?;
        fs::rename(self.root.join(from), self.root.join(to)).map_err(failed())?;
        sync_folder(&self.root)
    }

    /// The path of a file that does not exist yet, beside the index.
    ///
    /// # Errors
    /// [`StoreError::Io`] when a file of that name cannot be removed.
    pub(crate) fn scratch(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.root.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io(format_args!("removing {name}"))(e)),
            _ => Ok(path),
        }
    }
}

/// Gives `to` the contents of `from`, durably: as a second name if possible, unless `copy`.
pub(super) fn link_or_copy(from: &Path, to: &Path, copy: bool) -> io::Result<()> {
    if !copy {
        match fs::hard_link(from, to) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(e),
            // another file system, or one without such links
            Err(_) => {}
        }
    }
    let mut source = File::open(from)?;
    let mut target = File::create_new(to)?;
    io::copy(&mut source, &mut target)?;
    target.sync_all()
}

/// Opens a data folder for a copy: one that does not exist yet, or is empty.
///
/// # Errors
/// [`StoreError::NotEmpty`]; [`StoreError::Io`].
pub(crate) fn open_new(root: &Path) -> Result<Arc<LocalBlobs>, StoreError> {
    match fs::read_dir(root).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(StoreError::NotEmpty),
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::io("opening the folder for the copy")(e));
        }
        _ => {}
    }
    Ok(Arc::new(LocalBlobs::open(root)?))
}

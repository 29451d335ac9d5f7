//! The folder `damaged`: files that are not what they should be, or whose place is unknown, are moved here and never removed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{EXTENSION, LocalBlobs, TEMP_PREFIX, copying::link_or_copy, pack_of, sync_folder};
use crate::error::StoreError;
use residuum_domain::PackId;

/// Where files are put that are damaged, or whose place is unknown.
const DAMAGED: &str = "damaged";

impl LocalBlobs {
    /// Files below the folder of blobs that are no blobs, by their path in the data folder: unfinished ones, foreign files, and
    /// blobs in the place of another.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn strays(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut strays = Vec::new();
        for entry in fs::read_dir(self.root.join("blobs")).into_iter().flatten() {
            let path = entry.map_err(StoreError::io("listing blobs"))?.path();
            strays.extend((!path.is_dir()).then_some(path));
        }
        self.each_file(|path| {
            if pack_of(path).is_none_or(|pack| self.path(pack) != path) {
                strays.push(path.to_owned());
            }
        })?;
        let in_flight = self.in_flight();
        let being_written = |path: &Path| {
            let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix(TEMP_PREFIX));
            name.and_then(|n| n.parse().ok()).is_some_and(|pack| in_flight.contains(&pack))
        };
        let inside = |path: PathBuf| path.strip_prefix(&self.root).map(Path::to_owned).ok();
        Ok(strays.into_iter().filter(|path| !being_written(path)).filter_map(inside).collect())
    }

    /// Makes a second name for the file of `pack` among the damaged ones, and gives it as a path in the data folder. `None`:
    /// there is no such file. The first name is left to whoever removes the pack from the index.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub(crate) fn keep_aside(&self, pack: PackId) -> Result<Option<PathBuf>, StoreError> {
        if self.lock.is_none() {
            return Err(StoreError::Closed);
        }
        let target = self.free_name(&format!("{pack}.{EXTENSION}"))?;
        let kept = link_or_copy(&self.path(pack), &self.root.join(&target), false);
        match kept {
            Ok(()) => sync_folder(&self.root.join(DAMAGED)).map(|()| Some(target)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io(format_args!("setting pack {pack} aside"))(e)),
        }
    }

    /// Moves a file of the data folder, given by its path there, among the damaged ones. `None`: there is no such file.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn set_aside(&self, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        if self.lock.is_none() {
            return Err(StoreError::Closed);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let target = self.free_name(&name)?;
        match fs::rename(self.root.join(path), self.root.join(&target)) {
            Ok(()) => sync_folder(&self.root.join(DAMAGED)).map(|()| Some(target)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io(format_args!("setting {} aside", path.display()))(e)),
        }
    }

    /// Moves the file of a pack that the index does not know among the damaged ones.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn set_pack_aside(&self, pack: PackId) -> Result<Option<PathBuf>, StoreError> {
        let path = self.path(pack);
        let inside = path.strip_prefix(&self.root).unwrap_or(&path);
        self.set_aside(inside)
    }

    /// A path among the damaged files that is free, made from `name`.
    fn free_name(&self, name: &str) -> Result<PathBuf, StoreError> {
        let folder = Path::new(DAMAGED);
        fs::create_dir_all(self.root.join(folder)).map_err(StoreError::io("making a folder for damaged files"))?;
        let numbered = |n: u32| if n == 0 { folder.join(name) } else { folder.join(format!("{name}.{n}")) };
        // fewer files than numbers
        Ok((0..u32::MAX).map(numbered).find(|path| !self.root.join(path).exists()).unwrap_or_default())
    }
}

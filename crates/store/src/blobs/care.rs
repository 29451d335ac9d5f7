//! What upkeep does to the folder: removing retired blobs, setting damaged files aside, copying to another folder.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use rustix::fs::{Access, access};

use super::{EXTENSION, LocalBlobs, TEMP_PREFIX, pack_of, sync_folder};
use crate::{blobs::epoch::KeepDeleted, error::StoreError};
use residuum_domain::PackId;

/// Whether a path is that of a blob that was being written.
pub(crate) fn is_unfinished(path: &Path) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(TEMP_PREFIX))
}

/// Where files are put that are damaged, or whose place is unknown.
const DAMAGED: &str = "damaged";

impl LocalBlobs {
    /// Lets go of blobs, each with its bytes, whose rows lie elsewhere now. Files go when their last reader does.
    pub(crate) fn retire(&self, packs: &[(PackId, u64)]) {
        self.remove_retired(self.epochs.retire(packs));
    }

    pub(crate) fn remove_retired(&self, packs: Vec<PackId>) {
        for pack in packs {
            if let Err(error) = self.delete(pack) {
                // the next sweep takes it
                tracing::warn!(%pack, %error, "a blob nobody uses could not be removed");
            }
        }
    }

    /// Removes the files of packs that the index has forgotten: those that readers may be at as soon as they have left, or
    /// `keep` is over.
    pub(crate) fn forget(&self, packs: &[PackId], keep: KeepDeleted) {
        let n_bytes = |pack: &PackId| self.path(*pack).metadata().map_or(0, |file| file.len());
        let packs: Vec<(PackId, u64)> = packs.iter().map(|pack| (*pack, n_bytes(pack))).collect();
        self.remove_retired(self.epochs.delete(&packs, keep, Instant::now()));
    }

    /// Removes the files of deleted packs whose readers have had their time.
    pub(crate) fn remove_overdue(&self) {
        self.remove_retired(self.epochs.overdue(Instant::now()));
    }

    /// Removes the files of all deleted packs, whoever is reading them; says whether there were any.
    pub(crate) fn remove_deleted(&self) -> bool {
        let packs = self.epochs.all_deleted();
        let any = !packs.is_empty();
        self.remove_retired(packs);
        any
    }

    /// Sees to it that files of deleted packs go when their time is over.
    pub(crate) fn watch_deleted(self: &Arc<Self>) {
        if !self.epochs.watch() {
            return;
        }
        // not the lock of the folder: who waits does not keep it
        let blobs = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(due) = blobs.upgrade().and_then(|blobs| blobs.epochs.next_due()) {
                tokio::time::sleep_until(due.into()).await;
                let Some(blobs) = blobs.upgrade() else { return };
                // fails only where the runtime is shutting down
                drop(tokio::task::spawn_blocking(move || blobs.remove_overdue()).await);
            }
        });
    }

    /// Whether there are blobs, and no index that knows them.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn is_without_index(&self) -> Result<bool, StoreError> {
        let index = fs::metadata(self.index()).map_or(0, |m| m.len());
        Ok(index == 0 && self.has_packs()?)
    }

    /// Whether there are blobs, those that an index did not know among them.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn has_packs(&self) -> Result<bool, StoreError> {
        Ok(!self.list()?.is_empty() || !self.list_unknown()?.is_empty())
    }

    /// Whether nobody can change the index, and no log belongs to it: SQLite, which cannot make its files beside it then, need not
    /// look for changes.
    pub(crate) fn is_immutable(&self) -> bool {
        let log = fs::metadata(self.index_log()).map_or(0, |m| m.len());
        log == 0 && access(&self.root, Access::WRITE_OK).is_err() && !self.has_writer()
    }

    /// Files below the folder of blobs that are none, by their path in the data folder: unfinished ones, strangers, and
    /// blobs in another's place.
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
fn link_or_copy(from: &Path, to: &Path, copy: bool) -> io::Result<()> {
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

//! The folder `unknown`: whole blobs that the index does not know. They stay there until `residuum verify --rebuild-
//! index` takes their caches in or `residuum gc --unknown` removes them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use super::{EXTENSION, LocalBlobs, pack_of, sync_folder};
use crate::error::StoreError;
use residuum_domain::PackId;

/// Name of the folder.
const UNKNOWN: &str = "unknown";

impl LocalBlobs {
    fn unknown_path(&self, pack: PackId) -> PathBuf {
        self.root.join(UNKNOWN).join(format!("{pack}.{EXTENSION}"))
    }

    /// Moves the file of a pack that the index does not know there. Gives its path in the data folder; `None`: there is no such
    /// file.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub(crate) fn set_unknown_aside(&self, pack: PackId) -> Result<Option<PathBuf>, StoreError> {
        let target = self.unknown_path(pack);
        if target.exists() {
            // one of that name is there already: both stay
            return self.set_pack_aside(pack);
        }
        self.move_pack(&self.path(pack), &target)?;
        let moved = target.exists().then(|| Path::new(UNKNOWN).join(target.file_name().unwrap_or_default()));
        self.count_unknown()?;
        Ok(moved)
    }

    /// Moves these packs back among the blobs. One whose name is taken there stays. Gives their number.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub(crate) fn take_in(&self, packs: &[PackId]) -> Result<u64, StoreError> {
        let mut n = 0;
        for pack in packs {
            let target = self.path(*pack);
            if !target.exists() {
                self.move_pack(&self.unknown_path(*pack), &target)?;
                n += 1;
            }
        }
        self.count_unknown()?;
        Ok(n)
    }

    /// Removes all of them. Gives their number and bytes.
    ///
    /// # Errors
    /// [`StoreError::Closed`] for a store that only reads, [`StoreError::Io`].
    pub(crate) fn remove_unknown(&self) -> Result<(u64, u64), StoreError> {
        if self.lock.is_none() {
            return Err(StoreError::Closed);
        }
        let (mut n, mut n_bytes) = (0, 0);
        for (pack, bytes) in self.list_unknown()? {
            fs::remove_file(self.unknown_path(pack)).map_err(StoreError::io(format_args!("removing pack {pack}")))?;
            (n, n_bytes) = (n + 1, n_bytes + bytes);
        }
        self.count_unknown()?;
        Ok((n, n_bytes))
    }

    /// The packs there, with the lengths of their files.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn list_unknown(&self) -> Result<Vec<(PackId, u64)>, StoreError> {
        let failed = || StoreError::io("listing unknown blobs");
        let files = match fs::read_dir(self.root.join(UNKNOWN)) {
            Ok(files) => files,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed()(e)),
        };
        let mut packs = Vec::new();
        for file in files {
            let file = file.map_err(failed())?;
            if let Some(pack) = pack_of(&file.path()).filter(|pack| self.unknown_path(*pack) == file.path()) {
                packs.push((pack, file.metadata().map_err(failed())?.len()));
            }
        }
        Ok(packs)
    }

    /// Counts them, for [`Self::n_unknown`].
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn count_unknown(&self) -> Result<(), StoreError> {
        self.n_unknown.store(self.list_unknown()?.len() as u64, Ordering::Release);
        Ok(())
    }

    /// How many there were when they were last counted.
    pub(crate) fn n_unknown(&self) -> u64 {
        self.n_unknown.load(Ordering::Acquire)
    }

    /// Whether there is no file of a pack, for good: readers do not wait for it either.
    pub(crate) fn is_gone(&self, pack: PackId) -> bool {
        !self.path(pack).exists()
    }

    /// Whether this process wrote the file of a pack: where the index does not know it and nobody is writing it, it was given up.
    pub(crate) fn is_own(&self, pack: PackId) -> bool {
        self.own().contains(&pack)
    }

    /// Forgets which of these packs this process wrote.
    pub(crate) fn forget_own(&self, packs: &[PackId]) {
        let mut own = self.own();
        for pack in packs {
            own.remove(pack);
        }
    }

    /// Which packs this process wrote that nobody is writing any more.
    pub(crate) fn own_and_done(&self) -> Vec<PackId> {
        let in_flight = self.in_flight();
        self.own().iter().filter(|pack| !in_flight.contains(pack)).copied().collect()
    }

    /// Moves a file between the blobs and the unknown ones, durably. That it is gone already is no error.
    fn move_pack(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        let failed = || StoreError::io(format!("moving {}", from.display()));
        if self.lock.is_none() {
            return Err(StoreError::Closed);
        }
        let folder = to.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(failed())?;
        match fs::rename(from, to) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed()(e)),
        }
        // the new name first: a power failure may leave both, and never none
        sync_folder(folder)?;
        sync_folder(from.parent().unwrap_or(&self.root))?;
        sync_folder(&self.root)
    }
}

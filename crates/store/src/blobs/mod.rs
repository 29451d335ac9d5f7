//! The data folder: names, locking, reading, removing and listing of blobs. Nothing else in the crate knows a path in
//! it, and it knows nothing of what is in a blob or in the index.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::fs::{Access, access};

use crate::{
    blobs::epoch::{Epochs, Session},
    error::StoreError,
    fault::Faults,
};
use residuum_domain::PackId;

mod aside;
mod copying;
pub(crate) mod epoch;
mod lock;
pub(crate) mod obsolete;
pub(crate) mod quota;
mod reserve;
mod retired;
pub(crate) mod sae_folders;
mod temp_blob;
mod unknown;

use lock::Lock;
use reserve::Reserve;

pub(crate) use copying::open_new;
pub(crate) use temp_blob::TempBlob;

const EXTENSION: &str = "safetensors";
const TEMP_PREFIX: &str = ".tmp-";
/// Packs that this process remembers to have written; at that number the memory is cleared.
const MAX_OWN: usize = 100_000;

/// The data folder.
#[derive(Debug)]
pub(crate) struct LocalBlobs {
    root: PathBuf,
    /// Held as long as anyone may write here; `None` for a store that only reads.
    lock: Option<Lock>,
    /// Packs being written, or written and not yet in the index: not orphans.
    in_flight: Mutex<HashSet<PackId>>,
    /// Packs that this process began since files were last collected.
    own: Mutex<HashSet<PackId>>,
    /// Blobs set aside because the index does not know them.
    n_unknown: AtomicU64,
    /// Bytes of the blobs, with those that packs being written will have.
    bytes: AtomicU64,
    reserve: Reserve,
    epochs: Epochs,
    pub(crate) faults: Faults,
}

/// A pack that the index does not know yet. Dropping it makes its file an orphan, unless the index has it by then.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) pack: PackId,
    blobs: Arc<LocalBlobs>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.blobs.in_flight().remove(&self.pack);
    }
}

impl LocalBlobs {
    /// Opens the folder for writing, making it where needed, and takes its lock.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process or another store of this one holds it.
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(root.join("blobs")).map_err(StoreError::io("making the data folder"))?;
        let lock = Lock::take(root)?;
        sync_folder(root)?;
        Ok(Self { lock: Some(lock), faults: Faults::from_env()?, ..Self::open_read_only(root) })
    }

    /// Opens the folder to read only: no lock, nothing made.
    pub(crate) fn open_read_only(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            lock: None,
            in_flight: Mutex::default(),
            own: Mutex::default(),
            n_unknown: AtomicU64::default(),
            bytes: AtomicU64::default(),
            reserve: Reserve::default(),
            epochs: Epochs::default(),
            faults: Faults::default(),
        }
    }

    /// Counts the bytes of the blobs that are there. Once, before anything is written.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn count_bytes(&self) -> Result<(), StoreError> {
        let bytes = self.list()?.iter().map(|(_, n)| n).sum();
        self.bytes.store(bytes, Ordering::Release);
        Ok(())
    }

    /// Bytes that blobs take, those being written among them.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Bytes that the index takes, with its log.
    pub(crate) fn index_bytes(&self) -> u64 {
        [self.index(), self.index_log()].iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }

    /// Whether a store has the folder for writing: this one, or that of another process.
    pub(crate) fn has_writer(&self) -> bool {
        self.lock.is_some() || Lock::is_taken(&self.root)
    }

    /// The index's file.
    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index.sqlite")
    }

    /// The log of the index, which SQLite keeps beside it.
    pub(crate) fn index_log(&self) -> PathBuf {
        self.root.join("index.sqlite-wal")
    }

    /// Whether there are blobs, and no index that knows them.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn is_without_index(&self) -> Result<bool, StoreError> {
        let index = fs::metadata(self.index()).map_or(0, |m| m.len());
        Ok(index == 0 && self.has_packs()?)
    }

    /// Whether there are blobs, including those that an index did not know.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn has_packs(&self) -> Result<bool, StoreError> {
        Ok(!self.list()?.is_empty() || !self.list_unknown()?.is_empty())
    }

    /// Whether nobody can change the index, and it has no log: then SQLite, which could not make its files beside it, need not
    /// look for changes.
    pub(crate) fn is_immutable(&self) -> bool {
        let log = fs::metadata(self.index_log()).map_or(0, |m| m.len());
        log == 0 && access(&self.root, Access::WRITE_OK).is_err() && !self.has_writer()
    }

    fn in_flight(&self) -> MutexGuard<'_, HashSet<PackId>> {
        // a set of ids is consistent, whatever panicked while holding it
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self) -> MutexGuard<'_, HashSet<PackId>> {
        // as above
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Enters the current epoch for a reader: before it asks the index, until it has read what it was told of.
    pub(crate) fn enter(self: &Arc<Self>) -> Arc<Session> {
        self.epochs.enter(self)
    }

    /// Folder of a pack: the last byte of a UUIDv7 is random, so files spread evenly.
    fn folder(&self, pack: PackId) -> PathBuf {
        self.root.join("blobs").join(format!("{:02x}", pack.as_bytes()[15]))
    }

    fn path(&self, pack: PackId) -> PathBuf {
        self.folder(pack).join(format!("{pack}.{EXTENSION}"))
    }

    fn note_own(&self, pack: PackId) {
        let mut own = self.own();
        if own.len() >= MAX_OWN {
            own.clear();
        }
        own.insert(pack);
    }

    /// Marks a file that is there as one that the index is about to know.
    pub(crate) fn adopt(self: &Arc<Self>, pack: PackId) -> InFlight {
        self.in_flight().insert(pack);
        InFlight { pack, blobs: Arc::clone(self) }
    }

    /// An unnamed file: it is gone when it is closed, whatever happens.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub(crate) fn nameless(&self) -> Result<File, StoreError> {
        if self.lock.is_none() {
            return Err(StoreError::Closed);
        }
        tempfile::tempfile_in(self.root.join("blobs")).map_err(StoreError::io("making a file to receive into"))
    }

    /// Opens the file of `pack`.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when its caches were deleted, [`StoreError::Damaged`] when it is missing otherwise.
    pub(crate) fn file(&self, pack: PackId) -> Result<File, StoreError> {
        File::open(self.path(pack)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound if self.epochs.was_deleted(pack) => StoreError::Gone,
            io::ErrorKind::NotFound => StoreError::damaged(format!("the file of pack {pack} is missing")),
            _ => StoreError::io(format_args!("opening pack {pack}"))(e),
        })
    }

    /// Whether the file of `pack` is there and has so many bytes.
    pub(crate) fn has(&self, pack: PackId, n_bytes: u64) -> bool {
        self.path(pack).metadata().is_ok_and(|file| file.len() == n_bytes)
    }

    /// Reads bytes of `pack`, each part its offset in the file and its length.
    ///
    /// # Errors
    /// Those of [`Self::file`]; [`StoreError::Damaged`] when the file is too short.
    pub(crate) fn read(&self, pack: PackId, parts: &[(u64, usize)]) -> Result<Vec<Vec<u8>>, StoreError> {
        let file = self.file(pack)?;
        parts.iter().map(|(offset, len)| read_at(&file, pack, *offset, *len)).collect()
    }

    /// Removes the file of `pack`; that it is gone already is no error.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn delete(&self, pack: PackId) -> Result<(), StoreError> {
        let path = self.path(pack);
        let removed = path.metadata().and_then(|file| fs::remove_file(&path).map(|()| file.len()));
        match removed {
            Ok(n_bytes) => {
                self.bytes.fetch_sub(n_bytes, Ordering::AcqRel);
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(StoreError::io(format_args!("removing pack {pack}"))(e)),
        }
    }

    /// Every published pack in the folder with its length, except those in flight and those that wait for their readers to
    /// leave. Ask the index afterwards which of them it has: a pack is in flight until it does.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn list(&self) -> Result<Vec<(PackId, u64)>, StoreError> {
        let mut packs = Vec::new();
        // before the files: what is removed in between is no longer found
        let retired: HashSet<PackId> = self.epochs.retired().into_iter().collect();
        self.each_file(|path| {
            // a file that is gone by now is no longer in the folder; one in another's place is not this store's
            if let Some(pack) = pack_of(path).filter(|pack| self.path(*pack) == path)
                && let Ok(file) = path.metadata()
            {
                packs.push((pack, file.len()));
            }
        })?;
        let in_flight = self.in_flight();
        packs.retain(|(pack, _)| !in_flight.contains(pack) && !retired.contains(pack));
        Ok(packs)
    }

    /// Removes what writers left unfinished. Only while nobody writes: at the start, under the lock.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn sweep_temp(&self) -> Result<usize, StoreError> {
        let mut temp = Vec::new();
        self.each_file(|path| {
            if is_unfinished(path) {
                temp.push(path.to_owned());
            }
        })?;
        for path in &temp {
            fs::remove_file(path).map_err(StoreError::io("removing an unfinished blob"))?;
        }
        Ok(temp.len())
    }

    /// Whether the folder takes a file of a page; nothing of it is left.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`].
    pub(crate) fn probe(&self) -> Result<(), StoreError> {
        let file = tempfile::tempfile_in(self.root.join("blobs")).map_err(StoreError::io("making a file"))?;
        file.write_all_at(&[0; 4096], 0).map_err(StoreError::io("writing a file"))
    }

    fn each_file(&self, mut visit: impl FnMut(&Path)) -> Result<(), StoreError> {
        let failed = || StoreError::io("listing blobs");
        let folders = match fs::read_dir(self.root.join("blobs")) {
            Ok(folders) => folders,
            // a data folder that never held a blob
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed()(e)),
        };
        for folder in folders {
            let folder = folder.map_err(failed())?;
            if folder.file_type().map_err(failed())?.is_dir() {
                for file in fs::read_dir(folder.path()).map_err(failed())? {
                    visit(&file.map_err(failed())?.path());
                }
            }
        }
        Ok(())
    }
}

/// Reads `len` bytes at `offset` of the file of `pack`.
///
/// # Errors
/// [`StoreError::Damaged`] when the file ends before.
pub(crate) fn read_at(file: &File, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => StoreError::damaged(format!("the file of pack {pack} is too short")),
        _ => StoreError::io(format_args!("reading pack {pack}"))(e),
    })?;
    Ok(bytes)
}

/// Whether a path is that of a blob that was being written.
pub(crate) fn is_unfinished(path: &Path) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(TEMP_PREFIX))
}

fn pack_of(path: &Path) -> Option<PackId> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(EXTENSION)?.strip_suffix('.')?.parse().ok()
}

/// Makes the names in a folder durable.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|f| f.sync_all()).map_err(StoreError::io("flushing a folder"))
}

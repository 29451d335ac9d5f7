//! A blob being written: a temporary file that gets its name once all of it is durable.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use tempfile::TempPath;

use super::{InFlight, LocalBlobs, TEMP_PREFIX, sync_folder};
use crate::{
    error::StoreError,
    fault::{Purpose, Step},
};
use residuum_domain::PackId;

/// A file being written.
#[derive(Debug)]
pub(crate) struct TempBlob {
    file: File,
    /// Removes the file when dropped.
    path: TempPath,
    in_flight: InFlight,
    counted: Counted,
    purpose: Purpose,
}

/// Bytes that are counted among those of the blobs, until this is dropped.
#[derive(Debug)]
struct Counted {
    n_bytes: u64,
    blobs: Arc<LocalBlobs>,
}

impl Counted {
    fn add(&mut self, n_bytes: u64) {
        self.n_bytes += n_bytes;
        self.blobs.bytes.fetch_add(n_bytes, Ordering::AcqRel);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.blobs.bytes.fetch_sub(self.n_bytes, Ordering::AcqRel);
    }
}

impl LocalBlobs {
    /// Starts the file of `pack`. It has its name once it is published.
    ///
    /// # Errors
    /// [`StoreError::Closed`] for a read-only store, [`StoreError::Full`] or [`StoreError::Io`].
    pub(crate) fn create(self: &Arc<Self>, pack: PackId, purpose: Purpose) -> Result<TempBlob, StoreError> {
        if self.lock.is_none() {
            return Err(StoreError::Closed);
        }
        let folder = self.folder(pack);
        fs::create_dir_all(&folder).map_err(StoreError::io("making a folder for blobs"))?;
        let path = folder.join(format!("{TEMP_PREFIX}{pack}"));
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(StoreError::io(format_args!("making the file of pack {pack}")))?;
        let in_flight = self.adopt(pack);
        self.note_own(pack);
        let path = TempPath::try_from_path(path).map_err(StoreError::io("making a blob"))?;
        let counted = Counted { n_bytes: 0, blobs: Arc::clone(self) };
        Ok(TempBlob { file, path, in_flight, counted, purpose })
    }
}

impl TempBlob {
    /// Takes room for a file of `n_bytes` before anything is computed that could not be kept.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`].
    pub(crate) fn allocate(&mut self, n_bytes: u64) -> Result<(), StoreError> {
        self.counted.add(n_bytes);
        let pack = self.in_flight.pack;
        if self.counted.blobs.is_tight() {
            // what room there is is for removing things
            return Err(StoreError::Full);
        }
        let take = || fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, n_bytes);
        let taken = match take() {
            // what is kept for readers has to make room
            Err(Errno::NOSPC | Errno::DQUOT) if self.in_flight.blobs.remove_deleted() => take(),
            taken => taken,
        };
        match taken {
            // a file system that cannot; the writes find out
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(e) => Err(StoreError::io(format_args!("taking room for pack {pack}"))(e.into())),
        }
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`].
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        let pack = self.in_flight.pack;
        self.file.write_all_at(bytes, offset).map_err(StoreError::io(format_args!("writing pack {pack}")))
    }

    /// Gives the finished file its name, durably.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`]; the file is removed then, or swept at the next start.
    pub(crate) fn publish(self) -> Result<InFlight, StoreError> {
        let Self { file, path, in_flight, counted, purpose } = self;
        let InFlight { pack, blobs } = &in_flight;
        let reached = |step| blobs.faults.hit(purpose.after(step));
        reached(Step::Written)?;
        file.sync_all().map_err(StoreError::io(format_args!("flushing pack {pack}")))?;
        reached(Step::Synced)?;
        let n_bytes = file.metadata().map_err(StoreError::io("asking for the size of a blob"))?.len();
        path.persist(blobs.path(*pack))
            .map_err(|e| e.error)
            .map_err(StoreError::io(format_args!("naming pack {pack}")))?;
        // from here on it counts by itself, until it is deleted
        blobs.bytes.fetch_add(n_bytes, Ordering::AcqRel);
        drop(counted);
        reached(Step::Named)?;
        sync_folder(&blobs.folder(*pack))?;
        // the folder itself may be new, made by this writer or by one beside it
        sync_folder(&blobs.root.join("blobs"))?;
        reached(Step::Durable)?;
        Ok(in_flight)
    }
}

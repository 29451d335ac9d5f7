//! A reserve of disk space: deleting writes to the index first, and so does a start, so a full disk must leave room
//! for that.

use std::{
    fs::{self, File},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::LocalBlobs;
use crate::error::{StoreError, code_of};

/// Bytes kept free.
const RESERVE: u64 = 4 << 20;
/// Bytes without which SQLite cannot begin to write; it may only say that a file could not be opened.
const LEAST: u64 = 128 << 10;
/// Primary result codes of SQLite: an operation on a file failed, a file cannot be opened.
const SQLITE_OF_FILES: [i32; 2] = [10, 14];

/// The state of the reserve.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// Whether it is there.
    is_there: AtomicBool,
    /// Whether it was given up and could not be made again: until then what space is left is for deleting.
    is_missing: AtomicBool,
}

impl LocalBlobs {
    /// Gives the reserve up; whether there was one.
    pub(crate) fn use_reserve(&self) -> bool {
        self.reserve.is_there.swap(false, Ordering::AcqRel) && self.give_up_reserve()
    }

    /// [`Self::use_reserve`], before it is known whether there is a reserve.
    pub(crate) fn give_up_reserve(&self) -> bool {
        let given = self.lock.is_some() && fs::remove_file(self.root.join("reserve")).is_ok();
        if given {
            self.reserve.is_missing.store(true, Ordering::Release);
        }
        given
    }

    /// Whether the reserve was given up and there is no space for another: what space is left is for deleting.
    pub(crate) fn is_tight(&self) -> bool {
        if self.reserve.is_missing.load(Ordering::Acquire) {
            self.keep_reserve();
        }
        self.reserve.is_missing.load(Ordering::Acquire)
    }

    /// Makes the reserve where it is missing and there is room for it, and for as much again.
    pub(crate) fn keep_reserve(&self) {
        if self.lock.is_none() || self.reserve.is_there.load(Ordering::Acquire) {
            return;
        }
        let there = self.make_reserve();
        self.reserve.is_there.store(there, Ordering::Release);
        if there {
            self.reserve.is_missing.store(false, Ordering::Release);
        } else if self.room().is_some_and(|bytes| bytes < 2 * RESERVE) {
            // an earlier process may have given it up: then this is what it left for deleting
            self.reserve.is_missing.store(true, Ordering::Release);
        }
    }

    /// Bytes that are free on the disk; `None`: it does not say.
    fn room(&self) -> Option<u64> {
        statvfs(&self.root).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn make_reserve(&self) -> bool {
        let path = self.root.join("reserve");
        if path.metadata().is_ok_and(|file| file.len() >= RESERVE) {
            return true;
        }
        let made = File::options().create(true).write(true).truncate(false).open(&path).and_then(|file| {
            fallocate(&file, FallocateFlags::empty(), 0, 2 * RESERVE)?;
            file.set_len(RESERVE)
        });
        if made.is_err() {
            // half a reserve would only take space from others; a folder without one works too
            drop(fs::remove_file(path));
        }
        made.is_ok()
    }

    /// Whether an error is that of a full disk, also where SQLite does not say so.
    pub(crate) fn is_for_want_of_room(&self, error: &StoreError) -> bool {
        let StoreError::Database(error) = error else { return matches!(error, StoreError::Full) };
        let of_files = code_of(error).is_some_and(|code| SQLITE_OF_FILES.contains(&(code & 0xff)));
        of_files && self.room().is_some_and(|bytes| bytes < LEAST)
    }
}

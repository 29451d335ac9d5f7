//! Reading what lies in memory already, never waiting for a disk: for threads that must not block.
//!
//! Where the system cannot say so, nothing is at hand, and a thread that may block reads it.

use std::{fs::File, path::Path};

/// Opens a file to read, where all that its path needs is in memory.
#[cfg(target_os = "linux")]
pub(super) fn open(path: &Path) -> Option<File> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED).ok().map(File::from)
}

/// Fills `buffer` from byte `offset` on, where all of it is in memory; says whether it did.
#[cfg(target_os = "linux")]
pub(super) fn read(file: &File, buffer: &mut [u8], offset: u64) -> bool {
    use rustix::io::{IoSliceMut, ReadWriteFlags, preadv2};
    let len = buffer.len();
    preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) == Ok(len)
}

/// Nothing is at hand.
#[cfg(not(target_os = "linux"))]
pub(super) const fn open(_path: &Path) -> Option<File> {
    None
}

/// Nothing is at hand.
#[cfg(not(target_os = "linux"))]
pub(super) const fn read(_file: &File, _buffer: &mut [u8], _offset: u64) -> bool {
    false
}

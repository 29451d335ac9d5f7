//! Reading what lies in memory already, never waiting for a disk: for threads that must not block.
//!
//! Where the system cannot say so, nothing is at hand, and a thread that may block reads it.

use std::{fs::File, path::Path};

/// Opens a file to read, where all that its path needs is in memory.
#[cfg(target_os = "linux")]
pub(crate) fn open(path: &Path) -> Option<File> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED).ok().map(File::from)
}

/// Fills `buffer` from byte `offset` on, where all of it is in memory; says whether it did.
#[cfg(target_os = "linux")]
pub(crate) fn read(file: &File, buffer: &mut [u8], offset: u64) -> bool {
    use rustix::io::{IoSliceMut, ReadWriteFlags, preadv2};
    let len = buffer.len();
    preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) == Ok(len)
}

/// Bytes between those that are looked at.
#[cfg(target_os = "linux")]
const PROBED: u64 = 64 << 10;

/// Whether `len` bytes from `offset` on are in memory, as far as looking at one in 64 KiB and at the last can tell.
#[cfg(target_os = "linux")]
pub(crate) fn is_present(file: &File, offset: u64, len: usize) -> bool {
    let end = offset + len as u64;
    let step = usize::try_from(PROBED).unwrap_or(usize::MAX);
    (offset..end).step_by(step).chain(end.checked_sub(1)).all(|at| read(file, &mut [0], at))
}

/// Nothing is at hand.
#[cfg(not(target_os = "linux"))]
pub(crate) const fn is_present(_file: &File, _offset: u64, _len: usize) -> bool {
    false
}

/// Nothing is at hand.
#[cfg(not(target_os = "linux"))]
pub(crate) const fn open(_path: &Path) -> Option<File> {
    None
}

/// Nothing is at hand.
#[cfg(not(target_os = "linux"))]
pub(crate) const fn read(_file: &File, _buffer: &mut [u8], _offset: u64) -> bool {
    false
}

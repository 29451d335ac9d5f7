//! Bounds the memory for rendering and encoding texts.
//!
//! A tokenizer takes up to 300 bytes for each byte of a text while it runs; a chat template may create about 320 MB of strings
//! before its fuel runs out. Both run on blocking threads, which wait here until enough memory is free.

use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes of memory that all texts together may take.
const ROOM: u64 = 1 << 30;

/// Largest number of bytes that the tokenizer takes for each byte of a text.
const BYTES_PER_BYTE: u64 = 320;

/// Largest number of bytes that rendering a chat takes, even with a hostile template.
const RENDERING: u64 = 320 << 20;

/// Texts and chats of up to this many bytes need not wait.
pub(super) const SHORT: usize = 16 << 10;

static ALL: Room = Room { left: Mutex::new(ROOM), freed: Condvar::new() };

struct Room {
    left: Mutex<u64>,
    freed: Condvar,
}

/// Memory that was reserved; released on drop.
pub(super) struct Taken(u64);

impl Drop for Taken {
    fn drop(&mut self) {
        if self.0 > 0 {
            *ALL.left.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
            ALL.freed.notify_all();
        }
    }
}

/// Waits for memory to encode a text of this many bytes.
pub(super) fn for_encoding(n_bytes: usize) -> Taken {
    take(if n_bytes <= SHORT { 0 } else { (n_bytes as u64).saturating_mul(BYTES_PER_BYTE) })
}

/// Waits for memory to render a chat.
pub(super) fn for_rendering() -> Taken {
    take(RENDERING)
}

/// Waits for `bytes`, or for all memory if there is not as much in total.
fn take(bytes: u64) -> Taken {
    let bytes = bytes.min(ROOM);
    if bytes > 0 {
        let left = ALL.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = ALL.freed.wait_while(left, |left| *left < bytes).unwrap_or_else(PoisonError::into_inner);
        *left -= bytes;
    }
    Taken(bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let taken = for_rendering();
                    most.fetch_max(now.fetch_add(taken.0, Ordering::SeqCst) + taken.0, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(10));
                    now.fetch_sub(taken.0, Ordering::SeqCst);
                });
            }
        });
        assert!((RENDERING..=ROOM).contains(&most.load(Ordering::SeqCst)));
        assert_eq!(for_encoding(usize::MAX).0, ROOM);
        assert_eq!(for_encoding(SHORT).0, 0);
    }
}

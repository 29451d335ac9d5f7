//! Limiting the rate of a copy, and stopping it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::error::StoreError;

/// Bytes between two looks at the clock.
const STRIDE: u64 = 256 << 10;

/// Limits the rate of copying, and stops it.
pub(crate) struct Throttle {
    bytes_per_second: Option<u64>,
    started: Instant,
    spent: u64,
    unchecked: u64,
    stop: Arc<AtomicBool>,
}

impl Throttle {
    pub(crate) fn new(bytes_per_second: Option<u64>, stop: Arc<AtomicBool>) -> Self {
        Self { bytes_per_second, started: Instant::now(), spent: 0, unchecked: 0, stop }
    }

    /// Counts bytes that were copied, and waits if they came faster than the rate allows.
    ///
    /// # Errors
    /// [`StoreError::Closed`] when it was told to stop.
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.unchecked += bytes as u64;
        if self.unchecked < STRIDE {
            return Ok(());
        }
        self.spent += std::mem::take(&mut self.unchecked);
        if self.stop.load(Ordering::Relaxed) {
            return Err(StoreError::Closed);
        }
        if let Some(pace) = self.bytes_per_second {
            #[expect(clippy::cast_precision_loss, reason = "a time to wait need not be exact")]
            let due = Duration::from_secs_f64(self.spent as f64 / pace.max(1) as f64);
            std::thread::sleep(due.saturating_sub(self.started.elapsed()).min(Duration::from_secs(1)));
        }
        Ok(())
    }
}

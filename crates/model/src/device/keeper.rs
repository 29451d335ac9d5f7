//! Replaces a lost device: one that no longer works is closed, and reopened for the next batch. It knows nothing of what runs on it.

use std::sync::{Mutex, PoisonError};

use crate::ForwardError;

/// A value on a device, which is made again after the device was lost.
pub struct Keeper<T> {
    make: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    /// Whether it still works.
    works: fn(&T) -> bool,
    current: Mutex<Option<T>>,
}

impl<T> std::fmt::Debug for Keeper<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl<T> Keeper<T> {
    /// Makes the value for the first time.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn new(
        make: impl Fn() -> Result<T, String> + Send + Sync + 'static,
        works: fn(&T) -> bool,
    ) -> Result<Self, String> {
        let first = make()?;
        Ok(Self { make: Box::new(make), works, current: Mutex::new(Some(first)) })
    }

    /// Whether the device is lost and has not been reopened yet.
    pub fn is_lost(&self) -> bool {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Calls `work` with the value, which is made first if the device was lost. After an error of the device, checks whether it
    /// still works; if not, drops the value, and the next call makes it again.
    ///
    /// # Errors
    /// Those of `work`, and [`ForwardError::Device`] if the value cannot be made.
    pub fn with(&self, work: impl FnOnce(&T) -> Result<(), ForwardError>) -> Result<(), ForwardError> {
        // A panic in `work` poisons the lock, but leaves the value usable.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let this = match current.take() {
            Some(this) => this,
            None => (self.make)().map_err(candle_core::Error::msg)?,
        };
        let outcome = work(current.insert(this));
        if matches!(outcome, Err(ForwardError::Device(_))) && !current.as_ref().is_some_and(self.works) {
            tracing::error!("the device does not work any more; it is reopened for the next batch");
            *current = None;
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    fn failure() -> ForwardError {
        ForwardError::Device(candle_core::Error::msg("no memory"))
    }

    fn counting(works: fn(&usize) -> bool) -> (Keeper<usize>, Arc<AtomicUsize>) {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&made);
        let make = move || match counter.fetch_add(1, Ordering::Relaxed) {
            1 => Err("still resetting".to_owned()),
            n => Ok(n),
        };
        (Keeper::new(make, works).unwrap(), made)
    }

    /// The value that `with` passes to its closure.
    fn number(keeper: &Keeper<usize>) -> usize {
        let mut number = None;
        let seen = keeper.with(|n| {
            number = Some(*n);
            Ok(())
        });
        seen.unwrap();
        number.unwrap()
    }

    #[test]
    fn a_device_that_works_is_kept_whatever_a_batch_comes_to() {
        let (keeper, made) = counting(|_| true);
        assert_eq!(number(&keeper), 0);
        assert!(keeper.with(|_| Err(failure())).is_err());
        assert!(keeper.with(|_| Err(ForwardError::Cancelled)).is_err());
        assert_eq!(number(&keeper), 0);
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_device_that_is_lost_is_made_again_as_soon_as_that_works() {
        let (keeper, made) = counting(|_| false);
        assert!(keeper.with(|_| Err(ForwardError::Cancelled)).is_err());
        assert_eq!(made.load(Ordering::Relaxed), 1, "what is cancelled is no failure of the device");
        assert!(!keeper.is_lost());
        assert!(keeper.with(|_| Err(failure())).is_err());
        assert!(keeper.is_lost());
        let error = keeper.with(|_| panic!("there is none")).unwrap_err();
        assert!(error.to_string().contains("still resetting"), "{error}");
        assert!(keeper.is_lost());
        assert_eq!(number(&keeper), 2);
        assert!(!keeper.is_lost());
    }
}

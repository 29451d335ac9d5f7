//! Fault injection: points between any two steps that a crash could separate.
//!
//! Only builds with debug assertions have them. `RESIDUUM_FAULT=POINT[:N[:error]]` ends the process the Nth time
//! (default 1) that it reaches the point, as a kill would, or makes that step fail.

use crate::error::StoreError;

/// What a blob is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Holding what was just computed.
    Capture,
    /// Holding what was in other blobs.
    Merge,
}

/// A step of making a blob durable that has been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Its bytes are written, and flushed by nobody.
    Written,
    /// Its bytes are on the disk, under a temporary name.
    Synced,
    /// It has its name, which a power failure could still take away.
    Named,
    /// It is there for good, and the index does not know it.
    Durable,
}

impl Purpose {
    /// The point behind a step of a blob of this purpose.
    pub(crate) fn after(self, step: Step) -> Point {
        match (self, step) {
            (Self::Capture, Step::Written) => "capture.written",
            (Self::Capture, Step::Synced) => "capture.synced",
            (Self::Capture, Step::Named) => "capture.named",
            (Self::Capture, Step::Durable) => "capture.durable",
            (Self::Merge, Step::Written) => "merge.written",
            (Self::Merge, Step::Synced) => "merge.synced",
            (Self::Merge, Step::Named) => "merge.named",
            (Self::Merge, Step::Durable) => "merge.durable",
        }
    }
}

/// The name of a point.
pub(crate) type Point = &'static str;
/// A transaction begins.
pub(crate) const BEGUN: Point = "index.begun";
/// Its changes are applied and not committed.
pub(crate) const APPLIED: Point = "index.applied";
/// It is committed, and the files that it made obsolete are still there.
pub(crate) const COMMITTED: Point = "index.committed";
/// An obsolete file is about to be removed.
pub(crate) const UNLINKING: Point = "index.unlinking";
/// Every such file is gone, and nobody has been answered.
pub(crate) const UNLINKED: Point = "index.unlinked";
/// Extents have been moved to another blob, in a transaction that is not committed.
pub(crate) const MOVED: Point = "merge.moved";
/// A copy of the folder has every blob that was there; its index is still to come.
pub(crate) const COPIED: Point = "backup.copied";
/// A copy of the folder has an index; blobs that are younger are still to come.
pub(crate) const INDEXED: Point = "backup.indexed";

#[cfg(any(test, debug_assertions))]
pub(crate) use armed::Faults;
#[cfg(not(any(test, debug_assertions)))]
pub(crate) use disarmed::Faults;

/// The message of an injected error.
#[cfg(any(test, debug_assertions))]
const INJECTED: &str = "a fault was injected";

#[cfg(any(test, debug_assertions))]
mod armed {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use super::{APPLIED, BEGUN, COMMITTED, INJECTED, MOVED, Point, Purpose, Step, StoreError, UNLINKED, UNLINKING};

    /// What happens at a point.
    pub(crate) enum Action {
        /// The process ends without tidying up.
        Abort,
        /// The step fails.
        Error,
        /// A test looks at what lies on the disk.
        #[cfg(test)]
        Look(Box<dyn FnOnce() + Send>),
    }

    struct Armed {
        point: String,
        /// How often the point is passed before anything happens.
        passes: u32,
        action: Action,
    }

    /// What is to happen at which point.
    #[derive(Default)]
    pub(crate) struct Faults(Mutex<Option<Armed>>);

    impl std::fmt::Debug for Faults {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Faults")
        }
    }

    impl Faults {
        /// Every point there is.
        pub(crate) fn points() -> Vec<Point> {
            let steps = [Step::Written, Step::Synced, Step::Named, Step::Durable];
            let blob = |purpose: Purpose| steps.map(|step| purpose.after(step));
            let index = [BEGUN, APPLIED, COMMITTED, UNLINKING, UNLINKED, MOVED];
            blob(Purpose::Capture).into_iter().chain(blob(Purpose::Merge)).chain(index).collect()
        }

        /// What `RESIDUUM_FAULT` asks for.
        ///
        /// # Errors
        /// [`StoreError::Misuse`] when it names no point.
        pub(crate) fn from_env() -> Result<Self, StoreError> {
            let Ok(text) = std::env::var("RESIDUUM_FAULT") else { return Ok(Self::default()) };
            let wrong = || StoreError::Misuse(format!("RESIDUUM_FAULT={text}: points are {:?}", Self::points()));
            let mut words = text.split(':');
            let point = words.next().filter(|p| Self::points().contains(p)).ok_or_else(wrong)?;
            let count: u32 = words.next().unwrap_or("1").parse().map_err(|_| wrong())?;
            let action = match words.next() {
                None | Some("abort") => Action::Abort,
                Some("error") => Action::Error,
                Some(_) => return Err(wrong()),
            };
            let faults = Self::default();
            faults.arm(point, count.saturating_sub(1), action);
            Ok(faults)
        }

        /// Arms a point, in place of whatever was armed before.
        pub(crate) fn arm(&self, point: &str, passes: u32, action: Action) {
            let armed = Armed { point: point.to_owned(), passes, action };
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(armed);
        }

        /// Whether nothing is armed, for example because it has happened.
        #[cfg(test)]
        pub(crate) fn is_spent(&self) -> bool {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
        }

        /// Whether something is to happen at a point.
        pub(crate) fn await_at(&self, point: Point) -> bool {
            let armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            armed.as_ref().is_some_and(|fault| fault.point == point)
        }

        /// Comes to a point.
        ///
        /// # Errors
        /// The injected one.
        pub(crate) fn hit(&self, point: Point) -> Result<(), StoreError> {
            let action = {
                let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                match armed.as_mut() {
                    Some(fault) if fault.point == point && fault.passes > 0 => {
                        fault.passes -= 1;
                        None
                    }
                    Some(fault) if fault.point == point => armed.take().map(|fault| fault.action),
                    _ => None,
                }
            };
            match action {
                None => Ok(()),
                Some(Action::Abort) => std::process::abort(),
                Some(Action::Error) => Err(StoreError::io(point)(io::Error::other(INJECTED))),
                #[cfg(test)]
                Some(Action::Look(look)) => {
                    look();
                    Ok(())
                }
            }
        }
    }
}

#[cfg(not(any(test, debug_assertions)))]
mod disarmed {
    use super::{Point, StoreError};

    /// Nothing happens anywhere.
    #[derive(Debug, Default)]
    pub(crate) struct Faults {}

    impl Faults {
        #[expect(clippy::unnecessary_wraps, reason = "as the other one")]
        pub(crate) fn from_env() -> Result<Self, StoreError> {
            Ok(Self {})
        }

        #[expect(clippy::unused_self, reason = "as the other one")]
        pub(crate) fn await_at(&self, _point: Point) -> bool {
            false
        }

        #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "as the other one")]
        pub(crate) fn hit(&self, _point: Point) -> Result<(), StoreError> {
            Ok(())
        }
    }
}

#[cfg(test)]
pub(crate) use armed::Action;

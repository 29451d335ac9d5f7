//! Checks of a whole store: verifying, repairing, rebuilding the index from the blobs, and copying.

pub(crate) mod backup;
pub(crate) mod rebuild;
pub(crate) mod repair;
pub(crate) mod verify;

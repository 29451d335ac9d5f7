//! Checks of a whole store: verification, repair, a new index from the blobs, and copies.

pub(crate) mod backup;
pub(crate) mod rebuild;
pub(crate) mod repair;
pub(crate) mod verify;

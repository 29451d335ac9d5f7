//! Settings of a store.

use crate::{
    blobs::{epoch::KeepDeleted, quota::Quota},
    clock::Clock,
};

/// Settings of a store.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// What tells the time.
    pub clock: Clock,
    /// How much it may take; `None`: what the disk holds.
    pub quota: Option<Quota>,
    /// How long files of deleted caches stay for those who are reading them.
    pub keep_deleted: KeepDeleted,
}

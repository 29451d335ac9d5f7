//! Files that a committed transaction made obsolete.

use std::sync::Arc;

use crate::{
    blobs::{LocalBlobs, epoch::KeepDeleted},
    fault,
};
use residuum_domain::PackId;

/// Files that a transaction made obsolete.
#[derive(Default)]
pub(crate) struct Obsolete {
    /// Of packs that the index has forgotten.
    pub(crate) unlink: Vec<PackId>,
    /// Of packs whose rows have moved, with their bytes.
    pub(crate) retire: Vec<(PackId, u64)>,
}

impl Obsolete {
    /// Removes them once their readers have finished; those of deleted packs stay no longer than `keep` allows.
    pub(crate) async fn remove(self, blobs: &Arc<LocalBlobs>, keep: KeepDeleted) {
        if self.unlink.is_empty() && self.retire.is_empty() {
            return;
        }
        let own = Arc::clone(blobs);
        let removed = tokio::task::spawn_blocking(move || {
            let mut packs = self.unlink;
            packs.retain(|pack| match own.faults.hit(fault::UNLINKING) {
                Ok(()) => true,
                Err(error) => {
                    // the next sweep removes it
                    tracing::warn!(%pack, %error, "a blob nobody uses could not be removed");
                    false
                }
            });
            own.forget(&packs, keep);
            own.retire(&self.retire);
            drop(own.faults.hit(fault::UNLINKED));
        });
        // fails only where the runtime is shutting down
        drop(removed.await);
        blobs.watch_deleted();
    }
}

/// Removes the files of deleted packs that are kept for their readers; says whether there were any.
pub(crate) async fn remove_deleted(blobs: &Arc<LocalBlobs>) -> bool {
    let blobs = Arc::clone(blobs);
    // fails only where the runtime is shutting down
    tokio::task::spawn_blocking(move || blobs.remove_deleted()).await.unwrap_or(false)
}

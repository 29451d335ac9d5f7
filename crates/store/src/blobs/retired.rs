//! Removing the files of packs that the index has forgotten, once no reader needs them or their time is over.

use std::{sync::Arc, time::Instant};

use super::{LocalBlobs, epoch::KeepDeleted};
use residuum_domain::PackId;

impl LocalBlobs {
    /// Retires blobs, each with its bytes, whose rows have moved. The files go when their last reader does.
    pub(crate) fn retire(&self, packs: &[(PackId, u64)]) {
        self.remove_retired(self.epochs.retire(packs));
    }

    pub(crate) fn remove_retired(&self, packs: Vec<PackId>) {
        for pack in packs {
            if let Err(error) = self.delete(pack) {
                // the next sweep removes it
                tracing::warn!(%pack, %error, "a blob nobody uses could not be removed");
            }
        }
    }

    /// Removes the files of packs that the index has forgotten. Files that readers may need stay until these have left, or
    /// `keep` is over.
    pub(crate) fn forget(&self, packs: &[PackId], keep: KeepDeleted) {
        let n_bytes = |pack: &PackId| self.path(*pack).metadata().map_or(0, |file| file.len());
        let packs: Vec<(PackId, u64)> = packs.iter().map(|pack| (*pack, n_bytes(pack))).collect();
        self.remove_retired(self.epochs.delete(&packs, keep, Instant::now()));
    }

    /// Removes the files of deleted packs whose readers have had their time.
    pub(crate) fn remove_overdue(&self) {
        self.remove_retired(self.epochs.overdue(Instant::now()));
    }

    /// Removes the files of all deleted packs, whoever is reading them; says whether there were any.
    pub(crate) fn remove_deleted(&self) -> bool {
        let packs = self.epochs.all_deleted();
        let any = !packs.is_empty();
        self.remove_retired(packs);
        any
    }

    /// Starts a task that removes the files of deleted packs when their time is over.
    pub(crate) fn watch_deleted(self: &Arc<Self>) {
        if !self.epochs.watch() {
            return;
        }
        // weak: the waiting task does not keep the lock of the folder
        let blobs = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(due) = blobs.upgrade().and_then(|blobs| blobs.epochs.next_due()) {
                tokio::time::sleep_until(due.into()).await;
                let Some(blobs) = blobs.upgrade() else { return };
                // fails only where the runtime is shutting down
                drop(tokio::task::spawn_blocking(move || blobs.remove_overdue()).await);
            }
        });
    }
}

//! Cancels and deletes runs.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::Engine;
use residuum_domain::{Code, Problem, Run, RunId, TenantId};

/// How long a cancellation waits until what was written is stored.
const STORING: Duration = Duration::from_secs(10);

impl Engine {
    /// Cancels a run: no more of it is started, and a batch whose items are all cancelled stops before its next layer. An
    /// item that is being continued ends, and what was written becomes its cache. Returns the run as it is afterwards. A
    /// run that has ended is unchanged.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn cancel(&self, tenant: TenantId, id: RunId) -> Result<Option<Run>, Problem> {
        let written = self.inner.controls.written(id);
        let mut changes = self.subscribe(id);
        let Some(run) = self.inner.store.cancel_run(tenant, id, &written).await? else { return Ok(None) };
        self.inner.controls.stop(id, &written);
        self.forget(id, &written);
        let deadline = Instant::now() + STORING;
        while self.inner.controls.has_any(id, &written) && timeout_at(deadline, changes.changed()).await.is_ok() {}
        self.inner.followed.close(id, &Problem::new(Code::Conflict, "the run was cancelled"));
        self.inner.progress.changed(id);
        if written.is_empty() { Ok(Some(run)) } else { Ok(self.inner.store.run(tenant, id).await?) }
    }

    /// Deletes a run and its caches, cancelling it first if it has not ended. Returns whether there was such a run.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn delete(&self, tenant: TenantId, id: RunId) -> Result<bool, Problem> {
        let existed = self.inner.store.delete_run(tenant, id).await?;
        if existed {
            self.forget(id, &[]);
            self.inner.followed.close(id, &Problem::new(Code::Conflict, "the run was deleted"));
        }
        Ok(existed)
    }

    /// Drops the items of a run from the queue and from batches, but for those that are to be `kept`.
    pub(super) fn forget(&self, id: RunId, kept: &[u32]) {
        self.inner.recent_items.forget_run(id);
        self.inner.queue().remove(id);
        self.inner.to_continue().remove(id);
        // Items of other runs that waited for it must not go with it.
        let followers = self.inner.dedup().remove(id);
        self.inner.look_up_again(followers);
        for batch in self.inner.in_flight().values_mut() {
            let before = batch.units.len();
            batch.units.retain(|(run, index)| *run != id || kept.contains(index));
            batch.alive.fetch_sub(before - batch.units.len(), Ordering::Relaxed);
        }
        if kept.is_empty() {
            self.inner.followed.close(id, &Problem::new(Code::Conflict, "the run has ended"));
        }
        self.inner.progress.changed(id);
    }
}

//! The methods of the handle for runs and the queue.

use std::sync::Arc;

use super::Store;
use crate::{
    error::StoreError,
    packs::{contents::PackHeader, pack_writer::PackWriter},
    runs::{
        accept::Inserted,
        answered::AnsweredRun,
        complete::Completion,
        import::{Imported, NewImport, Spool},
        listing::RunFilter,
        queue::PendingRun,
        reuse::{Reusable, Wanted},
    },
};
use residuum_domain::{Edits, NewItem, NewRun, Run, RunId, TenantId};

impl Store {
    /// Queues a run, durably. The same idempotency key with the same request gives the run it made before.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`], and [`StoreError::Misuse`] for a run
    /// without inputs.
    pub async fn insert_run(&self, run: NewRun) -> Result<Inserted, StoreError> {
        self.index().insert_run(run).await
    }

    /// One run of a tenant.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn run(&self, tenant: TenantId, id: RunId) -> Result<Option<Run>, StoreError> {
        self.index().run(tenant, id).await
    }

    /// Runs of a tenant, newest first, those older than `before` where it is given.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn runs(
        &self,
        tenant: TenantId,
        filter: RunFilter,
        before: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<Run>, StoreError> {
        self.index().runs(tenant, filter, before, limit).await
    }

    /// Cancels what of a run is still pending; a run that has ended stays as it is. `None`: no such run. The items `kept`
    /// stay pending: they may still be completed, but are not computed again after a restart.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn cancel_run(&self, tenant: TenantId, id: RunId, kept: &[u32]) -> Result<Option<Run>, StoreError> {
        self.index().cancel_run(tenant, id, kept).await
    }

    /// Deletes a run with its caches, and the activations that only they used. Says whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`].
    pub async fn delete_run(&self, tenant: TenantId, id: RunId) -> Result<bool, StoreError> {
        self.index().delete_run(tenant, id).await
    }

    /// The runs that an earlier process left unfinished, oldest first. Items that were claimed at three crashes are failed
    /// first ([`residuum_domain::Code::WorkerFailed`]). Call it once, at the start.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn pending(&self) -> Result<Vec<PendingRun>, StoreError> {
        self.index().pending().await
    }

    /// The inputs of those of `indices` that are still pending, by index.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn items(&self, run: RunId, indices: &[u32]) -> Result<Vec<(u32, NewItem)>, StoreError> {
        self.index().items(run, indices).await
    }

    /// Replaces pending items by what they became when they were continued, durably: from now on they wait to be
    /// captured, and count as never claimed. Items that are no longer pending are passed over.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`].
    pub async fn continued(&self, items: &[(RunId, u32, NewItem)]) -> Result<(), StoreError> {
        self.index().continued(items).await
    }

    /// Claims items for a worker: their attempts are counted, and their runs are running. A claim survives the end of the
    /// process, but maybe not a power failure.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Database`].
    pub async fn claim(&self, units: &[(RunId, u32)]) -> Result<(), StoreError> {
        self.index().claim(units).await
    }

    /// Releases claims: a worker gave these items up for a reason that is not theirs, and they are pending as if never claimed.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`].
    pub async fn release(&self, units: &[(RunId, u32)]) -> Result<(), StoreError> {
        self.index().release(units).await
    }

    /// Makes caches of what was computed or reused, marks what failed, and ends the runs that have nothing pending:
    /// `failed` where an item failed, else `completed`. One transaction, durable on return; gives the runs it ended.
    ///
    /// Items that are no longer pending, because their run was cancelled or deleted meanwhile, are passed over; a pack
    /// of which nothing is used is removed.
    ///
    /// # Errors
    /// Nothing is changed then: [`StoreError::Gone`] if a reused extent was deleted after it was found,
    /// [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`], and [`StoreError::Misuse`] when the pack's
    /// tenant is not that of its runs.
    pub async fn complete(&self, done: Completion) -> Result<Vec<RunId>, StoreError> {
        self.index().complete(done).await
    }

    /// Makes completed runs with the caches of their inputs, in one transaction, durable on return. `None` in the place of
    /// a run of which an extent was deleted since it was found: there is no such run then.
    ///
    /// # Errors
    /// No run is made then: [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`], and
    /// [`StoreError::Misuse`] for a run with an idempotency key, without inputs, or with another number of extents.
    pub async fn insert_answered(&self, runs: Vec<AnsweredRun>) -> Result<Vec<Option<Run>>, StoreError> {
        self.index().insert_answered(runs).await
    }

    /// What a run changes; `None` when it changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn edits(&self, run: RunId) -> Result<Option<Arc<Edits>>, StoreError> {
        self.index().edits(run).await
    }

    /// For each of `wanted` what of the tenant's answers it, with the same forward key: the newest extent of an equal capture,
    /// else the newest with its rows, else the newest rows that hold its own.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn find_reusable(
        &self,
        tenant: TenantId,
        wanted: &[Wanted],
    ) -> Result<Vec<Option<Reusable>>, StoreError> {
        self.index().find_reusable(&self.blobs().enter(), tenant, wanted).await
    }

    /// A place to receive an import into.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Full`], [`StoreError::Io`].
    pub async fn spool(&self) -> Result<Spool, StoreError> {
        self.importer().spool().await
    }

    /// Makes a cache, in a completed run of its own, of what was received; durable on return. It never answers another
    /// input: it has no forward key. The same idempotency key with the same request gives the cache it made before.
    ///
    /// # Errors
    /// Nothing of it stays then: [`StoreError::Misuse`] when the item and its sources contradict each other,
    /// [`StoreError::Full`], [`StoreError::Closed`], [`StoreError::Database`], [`StoreError::Io`].
    pub async fn import(&self, import: NewImport, spool: Spool) -> Result<Imported, StoreError> {
        self.importer().import(import, spool).await
    }

    /// Starts a pack's file. For threads that may block, as everything of [`PackWriter`].
    ///
    /// # Errors
    /// [`StoreError::Misuse`] when header and layout contradict each other; [`StoreError::Full`], [`StoreError::Io`].
    pub fn begin_pack(&self, header: PackHeader) -> Result<PackWriter, StoreError> {
        PackWriter::begin(self.blobs(), self.quota(), header)
    }
}

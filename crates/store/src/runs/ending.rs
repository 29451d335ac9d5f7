//! Cancelling and deleting runs.

use crate::{
    error::StoreError,
    index::{
        SqliteIndex,
        rows::{now, to_json},
        tx::Tx,
        write::Write,
    },
    packs::unused::drop_unused,
};
use residuum_domain::{Run, RunId, TenantId};

impl SqliteIndex {
    /// Cancels what of a run is still pending; a run that has ended stays as it is. `None`: no such run. The items `kept`
    /// stay pending: they may still be completed, but are not computed again.
    pub(crate) async fn cancel_run(
        &self,
        tenant: TenantId,
        id: RunId,
        kept: &[u32],
    ) -> Result<Option<Run>, StoreError> {
        self.write(CancelRun { tenant, id, kept: to_json(kept)? }).await?;
        self.run(tenant, id).await
    }

    /// Deletes a run with its caches, and the activations that only they used. Says whether there was one.
    pub(crate) async fn delete_run(&self, tenant: TenantId, id: RunId) -> Result<bool, StoreError> {
        self.write(DeleteRun { tenant, id }).await
    }
}

struct CancelRun {
    tenant: TenantId,
    id: RunId,
    /// JSON
    kept: String,
}

impl Write for CancelRun {
    type Output = ();
    const FREES: bool = true;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let cancelled = sqlx::query(
            "UPDATE runs SET status = 'cancelled', finished_at = ? \
             WHERE id = ? AND tenant_id = ? AND finished_at IS NULL",
        )
        .bind(now())
        .bind(self.id.as_bytes().as_slice())
        .bind(self.tenant.0)
        .execute(tx.conn().await?)
        .await?;
        if cancelled.rows_affected() > 0 {
            sqlx::query(
                "UPDATE run_items SET status = 'cancelled', payload = NULL, hook_set_id = NULL \
                 WHERE run_id = ? AND status = 'pending' AND item_index NOT IN (SELECT value FROM json_each(?))",
            )
            .bind(self.id.as_bytes().as_slice())
            .bind(&self.kept)
            .execute(tx.conn().await?)
            .await?;
        }
        Ok(())
    }
}

struct DeleteRun {
    tenant: TenantId,
    id: RunId,
}

impl Write for DeleteRun {
    type Output = bool;
    const FREES: bool = true;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let extents: Vec<i64> =
            sqlx::query_scalar("SELECT DISTINCT extent_id FROM caches WHERE run_id = ? AND tenant_id = ?")
                .bind(self.id.as_bytes().as_slice())
                .bind(self.tenant.0)
                .fetch_all(tx.conn().await?)
                .await?;
        // a pack of theirs may be being written; after a kill it would be kept
        tx.later(
            "INSERT OR IGNORE INTO tombstones (id, kind) \
             SELECT id, 'run' FROM runs WHERE id = ? AND tenant_id = ? AND n_done < n_items",
        )
        .bind(self.id.as_bytes().as_slice())
        .bind(self.tenant.0);
        // items, tags and caches go with it
        let deleted = sqlx::query("DELETE FROM runs WHERE id = ? AND tenant_id = ?")
            .bind(self.id.as_bytes().as_slice())
            .bind(self.tenant.0)
            .execute(tx.conn().await?)
            .await?;
        drop_unused(tx, &extents).await?;
        Ok(deleted.rows_affected() > 0)
    }
}

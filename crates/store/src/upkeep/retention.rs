//! Expiry and quota: caches whose time is over are removed, and where the quota says so the oldest make room for new
//! ones.

use std::sync::Arc;

use crate::{
    blobs::{LocalBlobs, obsolete::remove_deleted, quota::Quota},
    error::StoreError,
    index::{SqliteIndex, tx::Tx, write::Write},
    packs::unused::drop_unused,
};

/// Caches removed in one transaction, so that others get their turn.
const CACHES_A_CHANGE: i64 = 500;

/// Removes caches whose time is over, or that have to make room.
#[derive(Clone, Copy)]
pub(crate) struct Retention<'a> {
    pub(crate) index: &'a SqliteIndex,
    pub(crate) blobs: &'a Arc<LocalBlobs>,
    pub(crate) quota: Option<Quota>,
}

impl Retention<'_> {
    /// Makes sure that the quota leaves room for `n_bytes`: what has expired goes first, then, where the quota says so, the
    /// oldest caches that are not pinned. Gives the number of caches that had to go.
    pub(crate) async fn make_room(&self, n_bytes: u64) -> Result<u64, StoreError> {
        let Some(quota) = self.quota else { return Ok(0) };
        if self.blobs.check_room(self.quota, n_bytes).is_ok() {
            return Ok(0);
        }
        let mut n_gone = self.expire().await?;
        // files that were deleted do not wait for their readers then
        remove_deleted(self.blobs).await;
        // removing caches does not make the index smaller
        let possible = self.blobs.index_bytes().saturating_add(n_bytes) <= quota.max_bytes;
        while self.blobs.check_room(self.quota, n_bytes).is_err() {
            let n = if quota.evict_oldest && possible { self.index.write(Remove::Oldest).await? } else { 0 };
            if n == 0 {
                return Err(StoreError::Full);
            }
            n_gone += n;
        }
        Ok(n_gone)
    }

    /// Removes the caches that have expired, in small transactions, and the activations that only they used. Gives their number.
    pub(crate) async fn expire(&self) -> Result<u64, StoreError> {
        let now = self.index.now();
        let mut n_gone = 0;
        while self.index.has_expired(now).await? {
            let n = self.index.write(Remove::Expired(now)).await?;
            if n == 0 {
                // an index that contradicts itself; or others removed them in between, and the next look finds the rest
                break;
            }
            n_gone += n;
        }
        Ok(n_gone)
    }
}

impl SqliteIndex {
    /// Whether a cache has expired and is still there.
    async fn has_expired(&self, now: i64) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM caches WHERE ends_at <= ?)").bind(now);
        Ok(query.fetch_one(&mut *self.reader().await?).await?)
    }
}

/// Removes some caches.
enum Remove {
    /// Those that expired by this time.
    Expired(i64),
    /// The oldest that are not pinned.
    Oldest,
}

impl Write for Remove {
    type Output = u64;
    const FREES: bool = true;

    fn at_once(&self) -> bool {
        matches!(self, Self::Oldest)
    }

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        let query = match self {
            Self::Expired(now) => sqlx::query_scalar(
                "DELETE FROM caches WHERE id IN (SELECT id FROM caches WHERE ends_at <= ? ORDER BY ends_at LIMIT +?) \
                 RETURNING extent_id",
            )
            .bind(*now),
            Self::Oldest => sqlx::query_scalar(
                "DELETE FROM caches WHERE id IN (SELECT id FROM caches INDEXED BY caches_by_time \
                     WHERE created_at > 0 AND pinned = 0 ORDER BY created_at LIMIT +?) RETURNING extent_id",
            ),
        };
        let extents: Vec<i64> = query.bind(CACHES_A_CHANGE).fetch_all(tx.conn().await?).await?;
        drop_unused(tx, &extents).await?;
        Ok(extents.len() as u64)
    }
}

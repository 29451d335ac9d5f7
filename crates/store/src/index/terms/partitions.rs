//! Time partitions, each with about the same number of caches. A search intersects posting lists one partition at a
//! time.

use crate::{error::StoreError, index::tx::Tx};

/// Caches of one stretch of time.
pub(crate) const BLOCK: i64 = if cfg!(test) { 1024 } else { 8192 };

/// The last stretch of time.
pub(crate) struct Blocks {
    pub(crate) first_at: i64,
    /// Time of its last cache.
    pub(crate) last_at: i64,
    /// Caches that were entered in it.
    pub(crate) n: i64,
}

impl Blocks {
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`] of what waits.
    pub(crate) async fn find(tx: &mut Tx<'_>) -> Result<Self, StoreError> {
        let (first_at, last_at, n) =
            sqlx::query_as("SELECT first_at, last_at, n FROM cache_blocks ORDER BY first_at DESC LIMIT 1")
                .fetch_one(tx.conn().await?)
                .await?;
        Ok(Self { first_at, last_at, n })
    }

    /// Where each of the caches stored at these times begins its stretch of time: a new one is begun where the last is full,
    /// behind everything that is there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn enter(mut self, tx: &mut Tx<'_>, times: &[i64]) -> Result<Vec<i64>, StoreError> {
        let mut blocks = Vec::with_capacity(times.len());
        for at in times.iter().copied() {
            if at < self.first_at {
                let older = sqlx::query_scalar(
                    "SELECT first_at FROM cache_blocks WHERE first_at <= ? ORDER BY first_at DESC LIMIT 1",
                );
                blocks.push(older.bind(at).fetch_one(tx.conn().await?).await?);
                continue;
            }
            // one that was edited is entered again, and counts once
            if at > self.last_at {
                if self.n >= BLOCK {
                    self.save(tx);
                    (self.first_at, self.n) = (at, 0);
                }
                (self.last_at, self.n) = (at, self.n + 1);
            }
            blocks.push(self.first_at);
        }
        self.save(tx);
        Ok(blocks)
    }

    fn save(&self, tx: &mut Tx<'_>) {
        tx.later("INSERT OR REPLACE INTO cache_blocks (first_at, last_at, n) VALUES (?, ?, ?)")
            .bind(self.first_at)
            .bind(self.last_at)
            .bind(self.n);
    }
}

//! Time partitions, each with about the same number of caches. A search intersects posting lists one partition at a
//! time.

use crate::{error::StoreError, index::tx::Tx};

/// Caches of one time partition.
pub(crate) const PARTITION_CACHES: i64 = if cfg!(test) { 1024 } else { 8192 };

/// The last time partition.
pub(crate) struct Partitions {
    pub(crate) first_at: i64,
    /// Time of its last cache.
    pub(crate) last_at: i64,
    /// Caches that were entered in it.
    pub(crate) n: i64,
}

impl Partitions {
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`] of what waits.
    pub(crate) async fn find(tx: &mut Tx<'_>) -> Result<Self, StoreError> {
        let (first_at, last_at, n) =
            sqlx::query_as("SELECT first_at, last_at, n FROM cache_blocks ORDER BY first_at DESC LIMIT 1")
                .fetch_one(tx.conn().await?)
                .await?;
        Ok(Self { first_at, last_at, n })
    }

    /// The time partition of each of the caches stored at these times, by its start. A new one is begun when the last is full;
    /// it starts after everything that is there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn enter(mut self, tx: &mut Tx<'_>, times: &[i64]) -> Result<Vec<i64>, StoreError> {
        let mut partitions = Vec::with_capacity(times.len());
        for at in times.iter().copied() {
            if at < self.first_at {
                let older = sqlx::query_scalar(
                    "SELECT first_at FROM cache_blocks WHERE first_at <= ? ORDER BY first_at DESC LIMIT 1",
                );
                partitions.push(older.bind(at).fetch_one(tx.conn().await?).await?);
                continue;
            }
            // a cache that was edited is entered again, but counted once
            if at > self.last_at {
                if self.n >= PARTITION_CACHES {
                    self.save(tx);
                    (self.first_at, self.n) = (at, 0);
                }
                (self.last_at, self.n) = (at, self.n + 1);
            }
            partitions.push(self.first_at);
        }
        self.save(tx);
        Ok(partitions)
    }

    fn save(&self, tx: &mut Tx<'_>) {
        tx.later("INSERT OR REPLACE INTO cache_blocks (first_at, last_at, n) VALUES (?, ?, ?)")
            .bind(self.first_at)
            .bind(self.last_at)
            .bind(self.n);
    }
}

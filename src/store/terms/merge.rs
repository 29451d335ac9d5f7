//! Merging the pieces that commits leave of the index of words: each word of a query is looked for in all of them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sqlx::Row;

use crate::store::{Store, StoreError, tx::Tx, writer::Write};

/// Pages of 4 KiB that one change writes, about: others wait for some milliseconds.
const PAGES_A_CHANGE: i64 = 64;
/// Between two such changes.
const PAUSE: Duration = Duration::from_millis(20);

impl Store {
    /// Merges what commits left of the index of words, until no two pieces of about the same size are left. Others write in
    /// between.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Full`], [`StoreError::Database`]. What was merged before stays merged.
    pub async fn merge_terms(&self) -> Result<(), StoreError> {
        while self.write(MergeTerms).await? {}
        Ok(())
    }

    /// [`Self::merge_terms`] without haste, until `stop`.
    ///
    /// # Errors
    /// As there.
    pub(in crate::store) async fn merge_terms_until(&self, stop: &AtomicBool) -> Result<(), StoreError> {
        while !stop.load(Ordering::Relaxed) && self.write(MergeTerms).await? {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// A piece of the work; whether there was any.
struct MergeTerms;

impl Write for MergeTerms {
    type Output = bool;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        tx.later("SELECT total_changes()");
        tx.later("INSERT INTO cache_terms (cache_terms, rank) VALUES ('merge', ?)").bind(PAGES_A_CHANGE);
        tx.later("SELECT total_changes()");
        let counts = tx.rows().await?.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
        // the statement itself is counted as one
        Ok(matches!(counts.as_slice(), [before, after] if after - before > 1))
    }
}

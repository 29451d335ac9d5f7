//! Merging the FTS5 segments that commits leave: a query looks up each of its tokens in all of them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use sqlx::Row;

use crate::{
    StoreError,
    index::{SqliteIndex, tx::Tx, write::Write},
};

/// Pages of 4 KiB that one change writes, about: others wait for some milliseconds. A posting list is written as a whole,
/// however long it is.
const PAGES_A_CHANGE: i64 = 64;
/// Between two such changes beside serving.
const PAUSE: Duration = Duration::from_millis(20);
/// How long it goes on at most where somebody asked for it. Each commit leaves another segment, so beside many commits there
/// is no end to it.
const MOST: Duration = Duration::from_secs(60);

impl SqliteIndex {
    /// Merges FTS5 segments until no two of about the same size are left or a minute is over. Others write in between.
    pub(crate) async fn merge_terms(&self) -> Result<(), StoreError> {
        self.merge_terms_for(MOST, Duration::ZERO, &AtomicBool::new(false)).await
    }

    /// [`Self::merge_terms`] with pauses, until `stop` and no longer than `most`.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn merge_terms_until(&self, stop: &AtomicBool, most: Duration) -> Result<(), StoreError> {
        self.merge_terms_for(most, PAUSE, stop).await
    }

    async fn merge_terms_for(&self, most: Duration, pause: Duration, stop: &AtomicBool) -> Result<(), StoreError> {
        let started = Instant::now();
        while !stop.load(Ordering::Relaxed) && started.elapsed() < most && self.write(MergeTerms).await? {
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }
}

/// One step of merging; says whether there was anything to merge.
pub(crate) struct MergeTerms;

impl Write for MergeTerms {
    type Output = bool;

    // the same is found before and after it
    const CHANGES: bool = false;
    const DURABLE: bool = false;
    const OPTIONAL: bool = true;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        // tokens that others entered in the same transaction are written out first, or that would be taken for merging
        tx.later("INSERT INTO cache_terms (cache_terms, rank) VALUES ('merge', 0)");
        tx.later("SELECT total_changes()");
        tx.later("INSERT INTO cache_terms (cache_terms, rank) VALUES ('merge', ?)").bind(PAGES_A_CHANGE);
        tx.later("SELECT total_changes()");
        let counts = tx.rows().await?.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
        // the statement itself is counted as one
        Ok(matches!(counts.as_slice(), [before, after] if after - before > 1))
    }
}

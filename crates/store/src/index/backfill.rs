//! Backfill: what rows of an earlier version lack is entered at a start, in transactions of a bounded size.

use super::{SqliteIndex, write::Write};
use crate::error::StoreError;

/// A change that enters some of what is missing.
pub(crate) trait Backfill: Write<Output = ()> + Copy {
    /// How many rows lack it: asked once at a start.
    const N_MISSING: &str;
    /// Rows that one change sees to.
    const ROWS_A_CHANGE: i64;
}

impl SqliteIndex {
    /// Enters all that is missing.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`].
    pub(crate) async fn backfill<B: Backfill>(&self, change: B) -> Result<(), StoreError> {
        let missing: i64 = sqlx::query_scalar(B::N_MISSING).fetch_one(&mut *self.reader().await?).await?;
        // each change does some, or an index that is out of order would keep it busy for ever
        for _ in 0..(missing + B::ROWS_A_CHANGE - 1) / B::ROWS_A_CHANGE {
            self.write(change).await?;
        }
        Ok(())
    }
}

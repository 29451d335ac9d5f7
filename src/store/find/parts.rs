//! Looking at a search part by part, the newest caches first, each part in a bounded time.
//!
//! An intersection of words knows no range of times: it goes on until something is in all of its lists, or one of them ends. So
//! it is made in one stretch of time after the other: in the newest first, and then where none of the words has ended. A word
//! that is rare by then ends the intersection soon enough.

use sqlx::{Row, SqliteConnection};

use super::{RARE, Search, Walk, quoted};
use crate::store::{error::StoreError, terms::Term};

/// The parts of a search.
pub(super) struct Parts<'f> {
    /// What has not been looked at; `None`: nothing.
    rest: Option<Search<'f>>,
    /// How many stretches of time each of the parts after the newest has.
    left: &'static [i64],
    /// Whether the newest were looked at.
    begun: bool,
}

impl<'f> Parts<'f> {
    /// The newest stretches of time and then parts of so many others, where words are intersected.
    pub(super) fn new(search: Search<'f>, stretches: &'static [i64]) -> Self {
        Self { rest: Some(search), left: stretches, begun: false }
    }

    /// What to look at next: all that it finds. `None`: there is nothing more, or no more may be looked at.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(super) async fn next(&mut self, conn: &mut SqliteConnection) -> Result<Option<Search<'f>>, StoreError> {
        let Some(mut rest) = self.rest.take() else { return Ok(None) };
        if rest.walk != Walk::Terms || rest.words.len() < 2 {
            return Ok(Some(rest));
        }
        let first = if self.begun {
            match head(&rest, conn).await? {
                Head::None => return Ok(None),
                Head::Rare => return Ok(Some(rest)),
                Head::At(newest) => rest.to = newest + 1,
            }
            let Some((n, left)) = self.left.split_first() else {
                self.rest = Some(rest);
                return Ok(None);
            };
            self.left = left;
            sqlx::query_scalar("SELECT first_at FROM cache_blocks WHERE first_at < ? ORDER BY first_at DESC LIMIT ?")
                .bind(rest.to)
                .bind(n)
                .fetch_all(conn)
                .await?
        } else {
            self.begun = true;
            std::mem::take(&mut rest.newest)
        };
        let blocks = first.iter().map(|at| quoted(&Term::Block(*at).word(rest.tenant))).collect();
        // before the first stretch there is nothing
        let from = first.last().copied().unwrap_or(0).max(rest.from);
        let part = Search { from, blocks, ..rest.clone() };
        if from > rest.from {
            self.rest = Some(Search { to: from, ..rest });
        }
        Ok(Some(part))
    }

    /// Where the parts so far end: before this time there may be more. `None`: they were all.
    pub(super) fn end(&self) -> Option<i64> {
        self.rest.as_ref().map(|rest| rest.to)
    }
}

/// Where the words of a search begin.
enum Head {
    /// One of them has no more caches.
    None,
    /// One of them has few more, so that an intersection ends soon.
    Rare,
    /// All of them have many more, none before this time.
    At(i64),
}

async fn head(search: &Search<'_>, conn: &mut SqliteConnection) -> Result<Head, StoreError> {
    let rows = search.heads(RARE).build().fetch_all(conn).await?;
    let (mut fewest, mut oldest) = (RARE, i64::MAX);
    for row in &rows {
        let Some(newest) = row.try_get::<Option<i64>, _>(1)? else { return Ok(Head::None) };
        fewest = fewest.min(row.try_get(0)?);
        oldest = oldest.min(newest);
    }
    Ok(if fewest < RARE { Head::Rare } else { Head::At(oldest) })
}

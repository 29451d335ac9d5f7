//! Looking at a search part by part, the newest caches first, each part in a bounded time.
//!
//! An intersection of words knows no range of times: it goes on until something is in all of its lists, or one of them ends. So
//! it is made in one stretch of time after the other, beginning where none of the words has ended. Where something has to be
//! asked about each cache, few are looked at first, and then more and more.

use sqlx::{Row, SqliteConnection};

use super::{RARE, Search, TERM_COST, Walk, quoted};
use crate::store::{error::StoreError, terms::Term};

/// How many times more caches are looked at when those so far were not enough.
const GROWTH: i64 = 4;

/// What is looked at for one answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Stretches of time in which words are intersected.
    pub(super) stretches: u32,
    /// Caches, where something has to be asked about each.
    pub(super) steps: i64,
}

/// The parts of a search.
pub(super) struct Parts<'f> {
    /// What has not been begun; `None`: nothing.
    rest: Option<Search<'f>>,
    /// What is left of what has been begun.
    begun: Option<Search<'f>>,
    /// What may be looked at still.
    left: Bounds,
    /// Caches that the next part looks at.
    steps: i64,
    /// Whether a stretch of time has been begun.
    in_stretches: bool,
    /// Whether it is known that no word is rare. Only what the newest stretch leaves to be looked for is worth the question.
    all_common: bool,
}

impl<'f> Parts<'f> {
    /// Looks at `steps` caches first where something has to be asked about each.
    pub(super) fn new(search: Search<'f>, mut bounds: Bounds, steps: i64) -> Self {
        if search.walk != Walk::Terms && !search.words.is_empty() {
            bounds.steps /= TERM_COST;
        }
        Self { rest: Some(search), begun: None, left: bounds, steps, in_stretches: false, all_common: false }
    }

    /// What to look at next: all that it finds. `None`: there is nothing more, or no more may be looked at.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(super) async fn next(&mut self, conn: &mut SqliteConnection) -> Result<Option<Search<'f>>, StoreError> {
        if self.begun.is_none() {
            self.begun = self.begin(conn).await?;
        }
        let Some(begun) = &mut self.begun else { return Ok(None) };
        if !begun.looks() || begun.walk == Walk::Expiry {
            return Ok(self.begun.take());
        }
        let steps = self.steps.min(self.left.steps);
        if steps <= 0 {
            return Ok(None);
        }
        self.left.steps -= steps;
        self.steps = self.steps.saturating_mul(GROWTH);
        let end: Option<i64> = begun.end(steps).build_query_scalar().fetch_one(conn).await?;
        let Some(end) = end else { return Ok(self.begun.take()) };
        let part = Search { from: end, ..begun.clone() };
        begun.to = end;
        Ok(Some(part))
    }

    /// Where the parts so far end, before this time there may be more. `None`: they were all.
    pub(super) fn end(&self) -> Option<i64> {
        self.begun.as_ref().or(self.rest.as_ref()).map(|search| search.to)
    }

    /// What of the rest can be walked without an end in sight, or the next stretch of time.
    async fn begin(&mut self, conn: &mut SqliteConnection) -> Result<Option<Search<'f>>, StoreError> {
        let Some(rest) = &mut self.rest else { return Ok(None) };
        if rest.walk != Walk::Terms || rest.words.len() < 2 {
            return Ok(self.rest.take());
        }
        if self.left.stretches == 0 {
            return Ok(None);
        }
        if self.in_stretches && !self.all_common {
            if has_rare(rest, conn).await? {
                return Ok(self.rest.take());
            }
            self.all_common = true;
        }
        let Some(first_at) = rest.stretch().build_query_scalar().fetch_optional(conn).await? else {
            self.rest = None;
            return Ok(None);
        };
        self.left.stretches -= 1;
        self.in_stretches = true;
        let block = Some(quoted(&Term::Block(first_at).word(rest.tenant)));
        let stretch = Search { from: first_at.max(rest.from), block, ..rest.clone() };
        if first_at > rest.from {
            rest.to = first_at;
        } else {
            self.rest = None;
        }
        Ok(Some(stretch))
    }
}

/// Whether a word is rare, so that the intersection ends soon wherever it ends.
async fn has_rare(search: &Search<'_>, conn: &mut SqliteConnection) -> Result<bool, StoreError> {
    let row = search.depths(RARE).build().fetch_one(conn).await?;
    for i in 0..search.probes.len() {
        if row.try_get::<Option<i64>, _>(i)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

//! Dividing a search into parts, newest caches first, each of which takes a bounded time.
//!
//! FTS5 cannot restrict an intersection of posting lists to a range of times: it goes on until something is in all of
//! the lists, or one of them ends. So the lists are intersected one time partition at a time: first in the newest,
//! then in those where every list still has entries. If a term is rare by then, the intersection ends soon enough by
//! itself.

use sqlx::SqliteConnection;

use super::{RARE, Search, Walk, quoted};
use crate::{error::StoreError, index::terms::Term};

/// Time partitions that are searched after the newest, which fill most pages.
const PARTITIONS_AHEAD: i64 = 1;

/// The parts of a search.
pub(super) struct Parts<'f> {
    /// What has not been searched; `None`: nothing.
    rest: Option<Search<'f>>,
    /// What is searched next, where posting lists are intersected.
    ahead: Ahead,
    counts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ahead {
    /// The newest time partitions.
    Newest,
    /// Those where no posting list has ended.
    Others,
    /// All the rest, if it is little.
    Rest,
    Nothing,
}

impl<'f> Parts<'f> {
    /// The parts of a page.
    pub(super) fn of_page(search: Search<'f>) -> Self {
        Self { rest: Some(search), ahead: Ahead::Newest, counts: false }
    }

    /// The parts of a count: those of a page, and the rest if it is little, so that the count is exact more often.
    pub(super) fn of_count(search: Search<'f>) -> Self {
        Self { rest: Some(search), ahead: Ahead::Newest, counts: true }
    }

    /// The next part, to be searched completely. `None`: there is nothing more, or no more may be searched.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(super) async fn next(&mut self, conn: &mut SqliteConnection) -> Result<Option<Search<'f>>, StoreError> {
        let Some(mut rest) = self.rest.take() else { return Ok(None) };
        if rest.walk != Walk::Terms || rest.words.len() < 2 {
            return Ok(Some(rest));
        }
        let starts = match self.ahead {
            Ahead::Newest => {
                self.ahead = Ahead::Others;
                std::mem::take(&mut rest.newest)
            }
            Ahead::Others | Ahead::Rest => {
                let starts = match heads(&rest, conn).await? {
                    Heads::None => return Ok(None),
                    Heads::Rare => return Ok(Some(rest)),
                    Heads::At { newest, starts } => {
                        rest.to = newest + 1;
                        starts
                    }
                };
                if self.ahead == Ahead::Rest {
                    self.rest = Some(rest);
                    return Ok(None);
                }
                self.ahead = if self.counts { Ahead::Rest } else { Ahead::Nothing };
                starts
            }
            Ahead::Nothing => {
                self.rest = Some(rest);
                return Ok(None);
            }
        };
        let partitions = starts.iter().map(|at| quoted(&Term::Partition(*at).word(rest.tenant))).collect();
        // before the first partition there is nothing
        let from = starts.last().copied().unwrap_or(0).max(rest.from);
        let part = Search { from, partitions, ..rest.clone() };
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

/// Where the posting lists of a search begin.
enum Heads {
    /// One of them has no more entries.
    None,
    /// One of them has few more, so that an intersection ends soon.
    Rare,
    /// All of them have many more.
    At {
        /// They have nothing in common after this time.
        newest: i64,
        /// The time partitions from there on, newest first, by their starts.
        starts: Vec<i64>,
    },
}

async fn heads(search: &Search<'_>, conn: &mut SqliteConnection) -> Result<Heads, StoreError> {
    let rows = search.heads(RARE, PARTITIONS_AHEAD).build_query_as::<(i64, Option<i64>)>().fetch_all(conn).await?;
    let (heads, starts) = rows.split_at(search.probes.len().min(rows.len()));
    let (mut fewest, mut oldest) = (RARE, i64::MAX);
    for ((n, newest), probe) in heads.iter().zip(&search.probes) {
        fewest = fewest.min(*n);
        match newest {
            Some(newest) => oldest = oldest.min(*newest),
            None if probe.is_sure => return Ok(Heads::None),
            None => {}
        }
    }
    Ok(match oldest {
        oldest if oldest < search.from => Heads::None,
        _ if fewest < RARE => Heads::Rare,
        newest => Heads::At { newest, starts: starts.iter().filter_map(|(_, first_at)| *first_at).collect() },
    })
}

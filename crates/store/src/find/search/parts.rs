//! Dividing a search into parts, in its order, each of which takes a bounded time.
//!
//! FTS5 cannot restrict an intersection of posting lists to a range of times: it goes on until something is in all of
//! the lists, or one of them ends. So the lists are intersected one time partition at a time: first in the first,
//! then in those where every list still has entries. If a term is rare by then, the intersection ends soon enough by
//! itself.

use sqlx::SqliteConnection;

use super::{RARE, Search, Walk, quoted};
use crate::{
    error::StoreError,
    index::terms::{PARTITION_CACHES, Term},
};
use residuum_domain::Order;

/// Time partitions that are searched after the first, which fill most pages.
const PARTITIONS_AHEAD: i64 = 1;

/// Time partitions that are searched first, because together they hold enough caches for a page.
#[derive(Debug, Clone, Default)]
pub(super) struct First {
    /// Their starts, in the order of the search.
    pub(super) starts: Vec<i64>,
    /// The start of the one after them, where the search goes on to newer ones.
    pub(super) end: Option<i64>,
}

/// Whether anything has expired, and the newest time partitions before `to`.
pub(super) async fn newest_partitions(
    conn: &mut SqliteConnection,
    to: i64,
    now: i64,
) -> Result<(bool, First), StoreError> {
    // in one statement: a round trip costs more than the answer
    let known: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT EXISTS (SELECT 1 FROM caches WHERE ends_at <= ?), 0 UNION ALL SELECT * FROM \
             (SELECT first_at, n FROM cache_blocks WHERE first_at < ? ORDER BY first_at DESC LIMIT 2)",
    )
    .bind(now)
    .bind(to)
    .fetch_all(conn)
    .await?;
    let (ended, starts) = match known.as_slice() {
        [(ended, _), (first, n), (second, _)] if *n < PARTITION_CACHES / 2 => (*ended, vec![*first, *second]),
        [(ended, _), (first, _), ..] => (*ended, vec![*first]),
        // before the first partition there is nothing
        _ => (1, Vec::new()),
    };
    Ok((ended != 0, First { starts, end: None }))
}

/// Whether anything has expired, and the time partitions from that of `from` on. Two of them: of the first, little may
/// be left.
pub(super) async fn oldest_partitions(
    conn: &mut SqliteConnection,
    from: i64,
    now: i64,
) -> Result<(bool, First), StoreError> {
    let known: Vec<i64> = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM caches WHERE ends_at <= ?) UNION ALL SELECT * FROM \
             (SELECT first_at FROM cache_blocks WHERE first_at <= ? ORDER BY first_at DESC LIMIT 1) \
         UNION ALL SELECT * FROM (SELECT first_at FROM cache_blocks WHERE first_at > ? ORDER BY first_at LIMIT 2)",
    )
    .bind(now)
    .bind(from)
    .bind(from)
    .fetch_all(conn)
    .await?;
    let (ended, starts) = known.split_first().map_or((1, [].as_slice()), |(ended, starts)| (*ended, starts));
    let first = First { starts: starts.iter().take(2).copied().collect(), end: starts.get(2).copied() };
    Ok((ended != 0, first))
}

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
    /// The first time partitions.
    First,
    /// Those where no posting list has ended.
    Others,
    /// All the rest, if it is little.
    Rest,
    Nothing,
}

impl<'f> Parts<'f> {
    /// The parts of a page.
    pub(super) fn of_page(search: Search<'f>) -> Self {
        Self { rest: Some(search), ahead: Ahead::First, counts: false }
    }

    /// The parts of a count: those of a page, and the rest if it is little, so that the count is exact more often.
    pub(super) fn of_count(search: Search<'f>) -> Self {
        Self { rest: Some(search), ahead: Ahead::First, counts: true }
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
        let within = match self.ahead {
            Ahead::First => {
                self.ahead = Ahead::Others;
                std::mem::take(&mut rest.first)
            }
            Ahead::Others | Ahead::Rest => {
                let within = match heads(&rest, conn).await? {
                    Heads::None => return Ok(None),
                    Heads::Rare => return Ok(Some(rest)),
                    Heads::At { first, within } => {
                        match rest.order {
                            Order::Ascending => rest.from = first,
                            Order::Descending => rest.to = first + 1,
                        }
                        within
                    }
                };
                if self.ahead == Ahead::Rest {
                    self.rest = Some(rest);
                    return Ok(None);
                }
                self.ahead = if self.counts { Ahead::Rest } else { Ahead::Nothing };
                within
            }
            Ahead::Nothing => {
                self.rest = Some(rest);
                return Ok(None);
            }
        };
        let First { starts, end } = within;
        let partitions = starts.iter().map(|at| quoted(&Term::Partition(*at).word(rest.tenant))).collect();
        if rest.order == Order::Ascending {
            // after the last partition there is nothing
            let to = end.unwrap_or(i64::MAX).min(rest.to);
            let part = Search { to, partitions, ..rest.clone() };
            if to < rest.to {
                self.rest = Some(Search { from: to, ..rest });
            }
            return Ok(Some(part));
        }
        // before the first partition there is nothing
        let from = starts.last().copied().unwrap_or(0).max(rest.from);
        let part = Search { from, partitions, ..rest.clone() };
        if from > rest.from {
            self.rest = Some(Search { to: from, ..rest });
        }
        Ok(Some(part))
    }

    /// Where the parts so far end: after this time, in the order of the search, there may be more. `None`: they were all.
    pub(super) fn end(&self) -> Option<i64> {
        self.rest.as_ref().map(|rest| match rest.order {
            Order::Ascending => rest.from - 1,
            Order::Descending => rest.to,
        })
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
        /// They have nothing in common before this time, in the order of the search.
        first: i64,
        /// The time partitions from there on.
        within: First,
    },
}

async fn heads(search: &Search<'_>, conn: &mut SqliteConnection) -> Result<Heads, StoreError> {
    let rows = search.heads(RARE, PARTITIONS_AHEAD).build_query_as::<(i64, Option<i64>)>().fetch_all(conn).await?;
    let (heads, starts) = rows.split_at(search.probes.len().min(rows.len()));
    let ascending = search.order == Order::Ascending;
    let (mut fewest, mut farthest) = (RARE, if ascending { i64::MIN } else { i64::MAX });
    for ((n, first), probe) in heads.iter().zip(&search.probes) {
        fewest = fewest.min(*n);
        match first {
            Some(first) if ascending => farthest = farthest.max(*first),
            Some(first) => farthest = farthest.min(*first),
            None if probe.is_sure => return Ok(Heads::None),
            None => {}
        }
    }
    let mut starts: Vec<i64> = starts.iter().filter_map(|(_, first_at)| *first_at).collect();
    let ahead = usize::try_from(PARTITIONS_AHEAD).unwrap_or(usize::MAX);
    let end = (ascending && starts.len() > ahead).then(|| starts.split_off(ahead)[0]);
    let is_over = if ascending { farthest >= search.to } else { farthest < search.from };
    Ok(match farthest {
        _ if is_over => Heads::None,
        _ if fewest < RARE => Heads::Rare,
        first => Heads::At { first, within: First { starts, end } },
    })
}

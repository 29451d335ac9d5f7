//! Finding caches: from the conditions of a filter to a walk along one index.
//!
//! Nearly every condition is one term of the full-text index ([`crate::index::terms`]), or several, so most filters
//! are one intersection of posting lists. These are sorted by time, which is the order of listings. What is not a term
//! (expiry, pins, what only the row says) is checked for each cache that the walk meets. A page looks at a bounded
//! number of caches, whatever the filter ([`parts`]); if that was too few for a full page, the next one continues from
//! there.

mod parts;
mod statements;

use futures::TryStreamExt as _;
use sqlx::{QueryBuilder, Row, SqliteConnection, sqlite::SqliteRow};

use self::parts::{First, Parts, newest_partitions, oldest_partitions};
use crate::{
    error::StoreError,
    find::described::COLUMNS,
    index::{
        rows::Fields,
        terms::{self, Term},
    },
};
use residuum_domain::{CacheFilter, Count, Hook, Order, TenantId, text};

/// Caches that one page looks at in each part, if each has to be checked.
const MAX_STEPS: i64 = 1000;
/// Caches that are counted before a count is no longer exact.
const MAX_COUNT: i64 = if cfg!(test) { 2000 } else { 5000 };
/// How far other indexes are counted to find the shortest: all of them up to the first number, then up to the second.
const LEVELS: [i64; 2] = [256, 4096];
/// Another index with fewer caches than this is walked instead of the terms: each cache is looked up among the terms.
const FEW: i64 = 64;
/// A hook in more hook sets than this is not searched by terms: caches are checked one by one.
const MAX_HOOK_SETS: usize = 32;
/// A term with fewer caches is rare: all of them are looked up in the other posting lists.
const RARE: i64 = 256;
/// Looking one cache up among the terms costs as much as this many steps along another index.
const TERM_COST: i64 = 32;

/// What can be walked, in the order of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// The caches that have all the terms.
    Terms,
    /// Those whose expiry is in the filter's range, to be sorted.
    Expiry,
    Pinned,
    /// Those that expire at any time: in the order of listings, which the index of [`Self::Expiry`] lacks.
    Expiring,
    /// Those of the tenant.
    Any,
}

/// Which rows of an index are meant.
#[derive(Debug, Clone, Copy)]
enum Rows {
    /// Those within the range of the search.
    Range,
    /// That of the cache `d.at`.
    This,
    /// Those from where the search begins on, in its order, however far away.
    Ahead,
}

/// One posting list of an intersection.
#[derive(Debug, Clone)]
struct Probe {
    /// In FTS5's query language.
    word: String,
    /// Whether FTS5 is sure to take it for one token: then nothing is found if no cache has it.
    is_sure: bool,
}

/// Decoded rows of [`COLUMNS`], in the order of the search.
pub(crate) struct Found<T> {
    pub(crate) items: Vec<T>,
    /// Where the next page begins: after this time, in the order of the search. `None`: there are no more.
    pub(crate) next: Option<i64>,
}

/// A search for caches of a tenant.
#[derive(Clone)]
pub(crate) struct Search<'f> {
    tenant: TenantId,
    filter: &'f CacheFilter,
    /// What must hold, in FTS5's query language.
    words: Vec<String>,
    /// The posting lists that an intersection walks: `words`, with each phrase divided into its tokens.
    probes: Vec<Probe>,
    /// Terms of the time partitions that the search is restricted to; empty: it is not restricted.
    partitions: Vec<String>,
    first: First,
    order: Order,
    /// What is selected of each cache.
    columns: &'static str,
    /// Hooks in too many hook sets.
    looked_at: Vec<Hook>,
    /// Times at or after this, in microseconds.
    from: i64,
    /// Times before this.
    to: i64,
    /// The present time, if anything has expired and must be left out.
    expired: Option<i64>,
    walk: Walk,
}

impl<'f> Search<'f> {
    /// The search for what `filter` selects, newest first, among caches older than `before` where it is given.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn new(
        conn: &mut SqliteConnection,
        tenant: TenantId,
        filter: &'f CacheFilter,
        before: Option<i64>,
        now: i64,
    ) -> Result<Self, StoreError> {
        Self::ordered(conn, tenant, filter, (Order::Descending, before), now).await
    }

    /// The search for what `filter` selects in an order, from behind a time on, where one is given.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn ordered(
        conn: &mut SqliteConnection,
        tenant: TenantId,
        filter: &'f CacheFilter,
        (order, after): (Order, Option<i64>),
        now: i64,
    ) -> Result<Self, StoreError> {
        let mut from = filter.created_from.map_or(0, micros_up);
        let mut to = filter.created_to.map_or(i64::MAX, micros_up);
        match (order, after) {
            (Order::Ascending, Some(after)) => from = from.max(after.saturating_add(1)),
            (Order::Descending, Some(before)) => to = to.min(before),
            (_, None) => {}
        }
        let (ended, first) = match order {
            Order::Ascending => oldest_partitions(conn, from, now).await?,
            Order::Descending => newest_partitions(conn, to, now).await?,
        };
        let mut search = Self {
            tenant,
            filter,
            words: Vec::new(),
            probes: Vec::new(),
            partitions: Vec::new(),
            looked_at: Vec::new(),
            first,
            order,
            columns: COLUMNS,
            from,
            to,
            expired: ended.then_some(now),
            walk: Walk::Any,
        };
        search.add_terms(conn).await?;
        search.walk = search.shortest(conn).await?;
        Ok(search)
    }

    /// The same search, which selects other columns.
    #[must_use]
    pub(crate) fn selecting(self, columns: &'static str) -> Self {
        Self { columns, ..self }
    }

    async fn add_terms(&mut self, conn: &mut SqliteConnection) -> Result<(), StoreError> {
        let f = self.filter;
        let metadata: Vec<terms::Entry> = f.metadata.iter().map(|(key, value)| terms::entry(key, value)).collect();
        let terms = (f.run.map(Term::Run).into_iter())
            .chain(metadata.iter().map(|(key, value)| Term::Metadata(key, value)))
            .chain(f.tags.iter().map(|tag| Term::Tag(tag)))
            .chain(f.label.as_deref().map(Term::Label))
            .chain(f.model.as_deref().map(Term::Model));
        self.words.extend(terms.map(|term| format!("terms : {}", quoted(&term.word(self.tenant)))));
        for hook in &f.hooks {
            match sets_with(conn, *hook).await? {
                Some(sets) => {
                    // a hook without sets: an id that does not exist
                    let sets = if sets.is_empty() { vec![-1] } else { sets };
                    let words: Vec<String> =
                        sets.iter().map(|set| quoted(&Term::HookSet(*set).word(self.tenant))).collect();
                    self.words.push(format!("terms : ({})", words.join(" OR ")));
                }
                None => self.looked_at.push(*hook),
            }
        }
        self.probes = self.words.iter().map(|word| Probe { word: word.clone(), is_sure: true }).collect();
        if let Some(text) = &f.text {
            if self.words.is_empty() {
                // which every other term implies
                self.words.push(format!("terms : {}", quoted(&Term::Any.word(self.tenant))));
            }
            for phrase in text.phrases() {
                let word = |text: &str| format!("{{text completion}} : {}", quoted(text));
                self.words.push(word(phrase));
                let parts = text::words(phrase);
                self.probes.extend(parts.map(|part| Probe { word: word(part), is_sure: part.is_ascii() }));
            }
        }
        Ok(())
    }

    /// The search with the `n`th walk that is possible: for looking at its statements.
    #[cfg(test)]
    pub(crate) fn walking(&self, n: usize) -> Option<Self> {
        let walk = *self.walkable().get(n)?;
        Some(Self { walk, ..self.clone() })
    }

    /// Of each part of a page, whether it ends with its time partitions.
    #[cfg(test)]
    pub(crate) async fn parts_within_partitions(self, conn: &mut SqliteConnection) -> Result<Vec<bool>, StoreError> {
        let (mut parts, mut within) = (Parts::of_page(self), Vec::new());
        while let Some(part) = parts.next(conn).await? {
            within.push(!part.partitions.is_empty());
        }
        Ok(within)
    }

    fn has_expiry(&self) -> bool {
        self.filter.expires_from.is_some() || self.filter.expires_to.is_some()
    }

    fn walkable(&self) -> Vec<Walk> {
        let mut able = Vec::new();
        able.extend((!self.words.is_empty()).then_some(Walk::Terms));
        able.extend(self.has_expiry().then_some(Walk::Expiry));
        able.extend((self.filter.pinned == Some(true)).then_some(Walk::Pinned));
        able.extend(self.has_expiry().then_some(Walk::Expiring));
        if able.is_empty() {
            able.push(Walk::Any);
        }
        able
    }

    /// The walk with the fewest caches.
    async fn shortest(&self, conn: &mut SqliteConnection) -> Result<Walk, StoreError> {
        let able = self.walkable();
        if let [only] = able.as_slice() {
            return Ok(*only);
        }
        let by_terms = able.contains(&Walk::Terms);
        let others: Vec<Walk> = able.into_iter().filter(|walk| *walk != Walk::Terms).collect();
        let levels = if by_terms { [FEW].as_slice() } else { LEVELS.as_slice() };
        for level in levels {
            let row = self.sizes(&others, *level).build().fetch_one(&mut *conn).await?;
            let mut rarest: Option<(i64, Walk)> = None;
            for (i, walk) in others.iter().enumerate() {
                let size: i64 = row.try_get(i)?;
                if size < *level && rarest.is_none_or(|(least, _)| size < least) {
                    rarest = Some((size, *walk));
                }
            }
            if let Some((_, walk)) = rarest {
                return Ok(walk);
            }
        }
        let unsorted = others.iter().find(|walk| **walk != Walk::Expiry).copied().unwrap_or(Walk::Any);
        Ok(if by_terms { Walk::Terms } else { unsorted })
    }

    /// The first page. `make` decodes each row while SQLite looks for the next. `None`: a row could not be decoded.
    ///
    /// # Errors
    /// Those of `make`, [`StoreError::Database`].
    pub(crate) async fn page<T>(
        self,
        conn: &mut SqliteConnection,
        limit: u32,
        mut make: impl FnMut(SqliteRow) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<Found<T>>, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (mut items, mut last) = (Vec::new(), None);
        let mut parts = Parts::of_page(self);
        while let Some(part) = parts.next(conn).await? {
            let left = i64::try_from(limit - items.len()).unwrap_or(i64::MAX);
            // and one more, to see whether there is one
            let mut query = part.in_order(left.saturating_add(1), part.steps(MAX_STEPS));
            let mut rows = query.build().fetch(&mut *conn);
            while let Some(row) = rows.try_next().await? {
                let f = Fields::of("caches", &row);
                if items.len() == limit {
                    return Ok(Some(Found { items, next: last }));
                }
                let at: i64 = f.get("created_at")?;
                if f.get("beyond")? {
                    // it is the first that was not looked at
                    let next = if part.order == Order::Ascending { at - 1 } else { at + 1 };
                    return Ok(Some(Found { items, next: Some(next) }));
                }
                last = Some(at);
                let Some(item) = make(row)? else { return Ok(None) };
                items.push(item);
            }
        }
        Ok(Some(Found { items, next: parts.end() }))
    }

    /// The first caches that are found, however long it takes. `None`: a row could not be decoded.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub(crate) async fn list<T>(
        self,
        conn: &mut SqliteConnection,
        limit: u32,
        mut make: impl FnMut(SqliteRow) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<Found<T>>, StoreError> {
        let mut query = self.in_order(i64::from(limit), None);
        let mut rows = query.build().fetch(conn);
        let mut items = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let Some(item) = make(row)? else { return Ok(None) };
            items.push(item);
        }
        Ok(Some(Found { items, next: None }))
    }

    /// How many there are, counted for a bounded time.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn count(self, conn: &mut SqliteConnection) -> Result<Count, StoreError> {
        let (mut n, mut all) = (0, true);
        let mut parts = Parts::of_count(self);
        while n <= MAX_COUNT
            && all
            && let Some(mut part) = parts.next(conn).await?
        {
            if let Some(steps) = part.steps(MAX_COUNT) {
                let end: Option<i64> = part.end(steps).build_query_scalar().fetch_one(&mut *conn).await?;
                all = end.is_none();
                part.from = end.unwrap_or(part.from);
            }
            n += part.up_to(MAX_COUNT + 1 - n).build_query_scalar::<i64>().fetch_one(&mut *conn).await?;
        }
        let total = u64::try_from(n.min(MAX_COUNT)).unwrap_or(0);
        Ok(Count { total, is_exact: n <= MAX_COUNT && all && parts.end().is_none() })
    }

    /// How many there are, however long it takes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn count_all(self, conn: &mut SqliteConnection) -> Result<u64, StoreError> {
        let mut query = QueryBuilder::new("SELECT count(*)");
        self.push_found(&mut query, "");
        let n: i64 = query.build_query_scalar().fetch_one(conn).await?;
        Ok(u64::try_from(n).unwrap_or(0))
    }
}

/// The sets with a hook, unless they are too many to be walked.
async fn sets_with(conn: &mut SqliteConnection, hook: Hook) -> Result<Option<Vec<i64>>, StoreError> {
    let sets: Vec<i64> = sqlx::query_scalar("SELECT hook_set_id FROM hook_set_hooks WHERE hook = ? LIMIT +?")
        .bind(hook.to_string())
        .bind(i64::try_from(MAX_HOOK_SETS).unwrap_or(i64::MAX) + 1)
        .fetch_all(conn)
        .await?;
    Ok((sets.len() <= MAX_HOOK_SETS).then_some(sets))
}

/// A string of FTS5's query language, in which it is always data.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// The first whole microsecond at or after a time: both `>= t` and `< t` keep their meaning for whole microseconds.
pub(crate) fn micros_up(time: jiff::Timestamp) -> i64 {
    let micros = time.as_microsecond();
    let exact = time.as_nanosecond() <= i128::from(micros) * 1000;
    if exact { micros } else { micros + 1 }
}

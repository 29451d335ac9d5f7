//! Finding caches: from the conditions of a filter to a walk along one index.
//!
//! Nearly every condition is a word of the index of terms ([`crate::index::terms`]), or several, so that most filters are one
//! intersection of sorted lists of times, and time is the order of listings. What is no word (expiry, pins, what only the
//! row says) is asked about each cache that the walk meets. A page looks at a bounded number of caches, whatever the filter
//! ([`parts`]); where that was too few for a full page, the next one goes on from there.

mod parts;

use futures::TryStreamExt as _;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use self::parts::Parts;
use crate::{
    error::StoreError,
    find::described::{COLUMNS, JOINED},
    index::{
        rows::{Fields, push_limit},
        terms::{self, BLOCK, Term},
    },
};
use residuum_domain::{CacheFilter, Count, Hook, TenantId, text};

/// Caches that one page looks at in each part, where something has to be asked about each.
const MAX_STEPS: i64 = 1000;
/// Caches that are counted before a count is no longer exact.
const MAX_COUNT: i64 = if cfg!(test) { 2000 } else { 5000 };
/// How far other indexes are counted to find the shortest: first all of them so far, then further.
const LEVELS: [i64; 2] = [256, 4096];
/// Caches of another index that are rather walked than the words: each of them is looked up among the words.
const FEW: i64 = 64;
/// Hooks with more sets than this are no words: their caches are looked at.
const MAX_HOOK_SETS: usize = 32;
/// A word with fewer caches is rare: all of them are looked for among those of the other words.
const RARE: i64 = 256;
/// Looking one cache up among the words costs as much as this many steps along another index.
const TERM_COST: i64 = 32;

/// What can be walked, the newest caches first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// The caches that have all the words.
    Terms,
    /// Those whose time to go is in the filter's range, to be sorted.
    Expiry,
    Pinned,
    /// Those with a time to go, whenever that is: the order of listings, which the index of [`Self::Expiry`] lacks.
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
    /// Those before the search ends, however old.
    Older,
}

/// What all caches of an intersection have, alone.
#[derive(Debug, Clone)]
struct Probe {
    /// In FTS5's language.
    word: String,
    /// Whether it is sure to be a word to FTS5 too: where no cache has it, nothing is found then.
    is_sure: bool,
}

/// What is made of rows of [`COLUMNS`], newest first.
pub(crate) struct Found<T> {
    pub(crate) items: Vec<T>,
    /// Where the next page begins: before this time. `None`: there are no more.
    pub(crate) next: Option<i64>,
}

/// A search for caches of a tenant.
#[derive(Clone)]
pub(crate) struct Search<'f> {
    tenant: TenantId,
    filter: &'f CacheFilter,
    /// What all must be true, in FTS5's language.
    words: Vec<String>,
    /// What has to be true for `words` to be, and can be walked: `words` with each phrase divided into its words.
    probes: Vec<Probe>,
    /// Words for the stretches of time that the search is narrowed to; empty: it is not.
    blocks: Vec<String>,
    /// The newest stretches of time, by where they begin, which have caches enough for a page.
    newest: Vec<i64>,
    /// Hooks whose sets are too many.
    looked_at: Vec<Hook>,
    /// Times at or after this, in microseconds.
    from: i64,
    /// Times before this.
    to: i64,
    /// What has expired must be left out: the time it is now, where anything has.
    expired: Option<i64>,
    walk: Walk,
}

impl<'f> Search<'f> {
    /// The search for what `filter` selects, among caches older than `before` where it is given.
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
        let from = filter.created_from.map_or(0, micros_up);
        let to = filter.created_to.map_or(i64::MAX, micros_up).min(before.unwrap_or(i64::MAX));
        // in one statement: to ask takes longer than the answer
        let known: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT EXISTS (SELECT 1 FROM caches WHERE ends_at <= ?), 0 UNION ALL SELECT * FROM \
                 (SELECT first_at, n FROM cache_blocks WHERE first_at < ? ORDER BY first_at DESC LIMIT 2)",
        )
        .bind(now)
        .bind(to)
        .fetch_all(&mut *conn)
        .await?;
        let (ended, newest) = match known.as_slice() {
            [(ended, _), (first, n), (second, _)] if *n < BLOCK / 2 => (*ended, vec![*first, *second]),
            [(ended, _), (first, _), ..] => (*ended, vec![*first]),
            // before the first stretch there is nothing
            _ => (1, Vec::new()),
        };
        let mut search = Self {
            tenant,
            filter,
            words: Vec::new(),
            probes: Vec::new(),
            blocks: Vec::new(),
            looked_at: Vec::new(),
            newest,
            from,
            to,
            expired: (ended != 0).then_some(now),
            walk: Walk::Any,
        };
        search.add_terms(conn).await?;
        search.walk = search.shortest(conn).await?;
        Ok(search)
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
                    // no set at all is one that does not exist
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

    /// The search of a listing, which nothing is known about: for looking at its statements.
    #[cfg(test)]
    pub(crate) fn walking(&self, n: usize) -> Option<Self> {
        let walk = *self.walkable().get(n)?;
        Some(Self { walk, ..self.clone() })
    }

    /// Of each part of a page, whether it ends with its stretches of time.
    #[cfg(test)]
    pub(crate) async fn parts_within_stretches(self, conn: &mut SqliteConnection) -> Result<Vec<bool>, StoreError> {
        let (mut parts, mut within) = (Parts::of_page(self), Vec::new());
        while let Some(part) = parts.next(conn).await? {
            within.push(!part.blocks.is_empty());
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

    /// What has the fewest caches to walk.
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

    /// The statement that counts the caches of each of `walks` up to `level`.
    fn sizes(&self, walks: &[Walk], level: i64) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT ");
        for (i, walk) in walks.iter().enumerate() {
            query.push(if i == 0 { "" } else { ", " }).push("(SELECT count(*) FROM (");
            self.push_rows(&mut query, *walk, Rows::Range);
            push_limit(&mut query, level);
            query.push("))");
        }
        query
    }

    /// The page that begins the search, each row made into what is wanted while SQLite looks for the next. `None`: a row could
    /// not be made.
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
            let mut query = part.newest(left.saturating_add(1), part.steps(MAX_STEPS));
            let mut rows = query.build().fetch(&mut *conn);
            while let Some(row) = rows.try_next().await? {
                let f = Fields::of("caches", &row);
                if items.len() == limit {
                    return Ok(Some(Found { items, next: last }));
                }
                let at: i64 = f.get("created_at")?;
                if f.get("beyond")? {
                    // it is the first that was not looked at
                    return Ok(Some(Found { items, next: Some(at + 1) }));
                }
                last = Some(at);
                let Some(item) = make(row)? else { return Ok(None) };
                items.push(item);
            }
        }
        Ok(Some(Found { items, next: parts.end() }))
    }

    /// The newest caches that are found, however long it takes, each row made into what is wanted. `None`: a row could not be.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub(crate) async fn list<T>(
        self,
        conn: &mut SqliteConnection,
        limit: u32,
        mut make: impl FnMut(SqliteRow) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<Found<T>>, StoreError> {
        let mut query = self.newest(i64::from(limit), None);
        let mut rows = query.build().fetch(conn);
        let mut items = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let Some(item) = make(row)? else { return Ok(None) };
            items.push(item);
        }
        Ok(Some(Found { items, next: None }))
    }

    /// How many there are, as far as that can be said in a bounded time.
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

    /// The statement that counts what is found up to `limit`.
    fn up_to(&self, limit: i64) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT count(*) FROM (SELECT 1");
        self.push_found(&mut query, "");
        push_limit(&mut query, limit);
        query.push(")");
        query
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

    /// The statement for how many caches before the end each of the probes has, up to `level`, and the time of the newest of
    /// them; and behind these `stretches` of time, from that of the oldest of the newest.
    fn heads(&self, level: i64, stretches: i64) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("WITH heads (n, at) AS MATERIALIZED (");
        for (i, probe) in self.probes.iter().enumerate() {
            query.push(if i == 0 { "" } else { " UNION ALL " }).push("SELECT count(*), max(at) FROM (");
            self.push_word(&mut query, &probe.word, Rows::Older);
            query.push(" ORDER BY rowid DESC");
            push_limit(&mut query, level);
            query.push(")");
        }
        query.push(") SELECT n, at FROM heads UNION ALL SELECT * FROM (SELECT 0, first_at FROM cache_blocks");
        query.push(" WHERE first_at <= (SELECT min(at) FROM heads) ORDER BY first_at DESC");
        push_limit(&mut query, stretches);
        query.push(")");
        query
    }

    /// The statement for the time of the last of the first `steps` caches of the walk; nothing where there are fewer.
    fn end(&self, steps: i64) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT (SELECT at FROM (");
        self.push_rows(&mut query, self.walk, Rows::Range);
        query.push(") ORDER BY at DESC LIMIT 1 OFFSET +").push_bind(steps - 1).push(")");
        query
    }

    /// How many caches of the walk are looked at where `most` could be looked at along an index; `None`: all that there are.
    fn steps(&self, most: i64) -> Option<i64> {
        let looked_up = self.walk != Walk::Terms && !self.words.is_empty();
        let steps = if looked_up { most / TERM_COST } else { most };
        (self.looks() && self.walk != Walk::Expiry).then_some(steps)
    }

    /// Whether something is asked about each cache that the walk meets.
    fn looks(&self) -> bool {
        let f = self.filter;
        f.fingerprint.is_some()
            || f.bos.is_some()
            || self.expired.is_some()
            || !self.looked_at.is_empty()
            || (f.pinned.is_some() && self.walk != Walk::Pinned)
            || (self.has_expiry() && self.walk != Walk::Expiry)
            || (!self.words.is_empty() && self.walk != Walk::Terms)
    }

    /// The statement for the newest caches that are found, among the first `steps` of the walk if given: then the next one comes
    /// last, which is `beyond` them.
    fn newest(&self, limit: i64, steps: Option<i64>) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT ");
        query.push(COLUMNS);
        let joined = format!(" CROSS JOIN caches c ON c.created_at = d.at{JOINED}");
        match steps {
            None => {
                query.push(", 0 AS beyond");
                self.push_found(&mut query, &joined);
                query.push(" ORDER BY d.at DESC");
            }
            // numbered as the walk meets them, which is the order they come in: to sort them would be to look at all of them
            Some(steps) => {
                query.push(", d.n > ").push_bind(steps).push(" AS beyond");
                query.push(" FROM (SELECT at, row_number() OVER () AS n FROM (");
                self.push_rows(&mut query, self.walk, Rows::Range);
                query.push(" ORDER BY at DESC");
                push_limit(&mut query, steps + 1);
                query.push(")) d").push(joined);
                query.push(" WHERE (d.n > ").push_bind(steps).push(" OR (1");
                self.push_conditions(&mut query);
                query.push("))");
            }
        }
        push_limit(&mut query, limit);
        query
    }

    /// Adds ` FROM … WHERE …` with what is found as `d.at`; `joined` comes behind the FROM.
    pub(crate) fn push_found(&self, query: &mut QueryBuilder<Sqlite>, joined: &str) {
        query.push(" FROM (");
        self.push_rows(query, self.walk, Rows::Range);
        query.push(") d").push(joined).push(" WHERE 1");
        self.push_conditions(query);
    }

    /// Adds what has to be true of `d.at` besides being met by the walk, each behind an AND.
    fn push_conditions(&self, query: &mut QueryBuilder<Sqlite>) {
        if self.walk != Walk::Terms {
            // one by one: their intersection would go on behind the cache
            for word in &self.words {
                query.push(" AND EXISTS (");
                self.push_word(query, word, Rows::This);
                query.push(")");
            }
        }
        if self.has_expiry() && self.walk != Walk::Expiry {
            self.push_condition(query, " AND EXISTS (", Walk::Expiry);
        }
        match self.filter.pinned {
            Some(true) if self.walk != Walk::Pinned => self.push_condition(query, " AND EXISTS (", Walk::Pinned),
            Some(false) => self.push_condition(query, " AND NOT EXISTS (", Walk::Pinned),
            _ => {}
        }
        self.push_looks(query);
        if let Some(now) = self.expired {
            query.push(" AND NOT EXISTS (SELECT 1 FROM caches INDEXED BY caches_by_time WHERE created_at = d.at");
            query.push(" AND ends_at <= ").push_bind(now).push(")");
        }
    }

    fn push_condition(&self, query: &mut QueryBuilder<Sqlite>, opening: &str, condition: Walk) {
        query.push(opening);
        self.push_rows(query, condition, Rows::This);
        query.push(")");
    }

    /// Adds the conditions without an index of their own: each cache is looked at.
    fn push_looks(&self, query: &mut QueryBuilder<Sqlite>) {
        const LOOK: &str = " AND EXISTS (SELECT 1 FROM caches o INDEXED BY caches_by_time";
        for hook in &self.looked_at {
            query.push(LOOK).push(" CROSS JOIN hook_set_hooks h ON h.hook_set_id = o.hook_set_id");
            query.push(" WHERE o.created_at = d.at AND h.hook = ").push_bind(hook.to_string()).push(")");
        }
        if let Some(fingerprint) = &self.filter.fingerprint {
            query.push(LOOK).push(" CROSS JOIN extents x ON x.id = o.extent_id");
            query.push(" CROSS JOIN provenances v ON v.id = x.provenance_id WHERE o.created_at = d.at");
            query.push(" AND v.provenance ->> '$.model_fingerprint' = ").push_bind(fingerprint.as_str()).push(")");
        }
        if let Some(present) = self.filter.bos {
            query
                .push(LOOK)
                .push(" WHERE o.created_at = d.at AND o.bos ->> '$.present' = ")
                .push_bind(present)
                .push(")");
        }
    }

    /// Adds a SELECT of the times of the caches that meet one condition.
    fn push_rows(&self, query: &mut QueryBuilder<Sqlite>, condition: Walk, rows: Rows) {
        const SELECT: &str = "SELECT created_at AS at FROM caches INDEXED BY ";
        let f = self.filter;
        match condition {
            Walk::Terms => {
                query.push("SELECT rowid AS at FROM cache_terms WHERE cache_terms MATCH ");
                let within = (!self.blocks.is_empty()).then(|| format!(" AND terms : ({})", self.blocks.join(" OR ")));
                query.push_bind(self.words.join(" AND ") + within.as_deref().unwrap_or_default());
                return self.push_bounds(query, "rowid", rows);
            }
            Walk::Expiring => {
                query.push(SELECT).push("caches_expiring WHERE expires_at IS NOT NULL AND tenant_id = ");
                query.push_bind(self.tenant.0);
            }
            Walk::Any => {
                query.push(SELECT).push("caches_by_tenant WHERE tenant_id = ").push_bind(self.tenant.0);
            }
            Walk::Pinned => {
                query.push(SELECT).push("caches_pinned WHERE pinned = 1 AND tenant_id = ").push_bind(self.tenant.0);
            }
            Walk::Expiry => {
                let index = match rows {
                    Rows::Range | Rows::Older => "caches_by_expiry",
                    Rows::This => "caches_by_time",
                };
                query.push(SELECT).push(index).push(" WHERE tenant_id = ").push_bind(self.tenant.0);
                query.push(" AND expires_at >= ").push_bind(f.expires_from.map_or(0, micros_up));
                query.push(" AND expires_at < ").push_bind(f.expires_to.map_or(i64::MAX, micros_up));
            }
        }
        self.push_bounds(query, "created_at", rows);
    }

    /// Adds a SELECT of the times of the caches with one word.
    fn push_word(&self, query: &mut QueryBuilder<Sqlite>, word: &str, rows: Rows) {
        query.push("SELECT rowid AS at FROM cache_terms WHERE cache_terms MATCH ").push_bind(word.to_owned());
        self.push_bounds(query, "rowid", rows);
    }

    fn push_bounds(&self, query: &mut QueryBuilder<Sqlite>, column: &str, rows: Rows) {
        query.push(" AND ").push(column);
        match rows {
            Rows::Range => {
                query.push(" >= ").push_bind(self.from).push(" AND ").push(column).push(" < ").push_bind(self.to);
            }
            Rows::This => {
                query.push(" = d.at");
            }
            Rows::Older => {
                query.push(" < ").push_bind(self.to);
            }
        }
    }

    /// Whether what is walked has to be sorted.
    #[cfg(test)]
    pub(crate) fn sorts(&self) -> bool {
        self.walk == Walk::Expiry
    }

    /// Every statement a listing runs, for a test that looks at their plans.
    #[cfg(test)]
    pub(crate) fn statements(&self) -> Vec<QueryBuilder<Sqlite>> {
        let mut all = vec![self.newest(10, None), self.sizes(&self.walkable(), 10), self.end(10), self.up_to(10)];
        all.extend((!self.sorts()).then(|| self.newest(10, Some(10))));
        all.extend((!self.probes.is_empty()).then(|| self.heads(10, 2)));
        all
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

/// A string of FTS5's language, in which it is always data.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// The first whole microsecond at or after a time: both `>= t` and `< t` keep their meaning for whole microseconds.
pub(crate) fn micros_up(time: jiff::Timestamp) -> i64 {
    let micros = time.as_microsecond();
    let exact = time.as_nanosecond() <= i128::from(micros) * 1000;
    if exact { micros } else { micros + 1 }
}

//! Finding caches: from the conditions of a filter to a walk along one index.
//!
//! Every condition has an index that gives its caches in the order of their times, which is the order of listings. A
//! search walks the shortest of them, newest first, and asks the others about each cache it meets. A page looks at a bounded
//! number of caches, whatever the filter; where that was too few for a full page, the next one goes on from there.

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::{error::StoreError, metadata};
use crate::domain::{CacheFilter, Count, Hook, TenantId};

/// Caches that one page looks at, where it has to ask more than one index.
const MAX_STEPS: i64 = 2500;
/// Caches that are counted before a count is no longer exact.
const MAX_COUNT: i64 = 10_000;
/// How far conditions are counted to find the rarest: first all of them so far, then further.
const LEVELS: [i64; 3] = [256, 4096, 16_384];
/// More hook sets than this with one hook are not walked side by side.
const MAX_HOOK_SETS: usize = 32;
/// Caches with a time to go that are sorted to walk them.
const MAX_SORTED: i64 = 4096;
/// Looking a text up for one cache costs as much as this many steps along the index of texts.
const TEXT_COST: i64 = 32;

/// A condition with an index of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Run,
    Metadata(usize),
    Tag(usize),
    Label,
    Text,
    Hook(usize),
    Expiry,
    Pinned,
    Model,
    /// Has a time to go, whenever that is: the order of listings, which the index of [`Self::Expiry`] lacks.
    Expiring,
    /// Belongs to the tenant.
    Any,
}

/// Which rows of an index are meant.
#[derive(Debug, Clone, Copy)]
enum Rows {
    /// Those within the range of the search.
    Range,
    /// That of the cache `d.at`.
    This,
}

/// Caches by their times, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) times: Vec<i64>,
    /// Where the next page begins: before this time. `None`: there are no more.
    pub(super) next: Option<i64>,
}

/// A search for caches of a tenant.
pub(super) struct Search<'f> {
    tenant: TenantId,
    filter: &'f CacheFilter,
    metadata: Vec<metadata::Entry>,
    /// Sets with each of the filter's hooks; `None` where they are too many.
    hook_sets: Vec<Option<Vec<i64>>>,
    text: Option<String>,
    /// Times at or after this, in microseconds.
    from: i64,
    /// Times before this.
    to: i64,
    /// What has expired must be left out: the time it is now, where anything has.
    expired: Option<i64>,
    /// What is walked.
    walk: Condition,
}

impl<'f> Search<'f> {
    /// The search for what `filter` selects, among caches older than `before` where it is given.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(super) async fn new(
        conn: &mut SqliteConnection,
        tenant: TenantId,
        filter: &'f CacheFilter,
        before: Option<i64>,
        now: i64,
    ) -> Result<Self, StoreError> {
        let mut hook_sets = Vec::with_capacity(filter.hooks.len());
        for hook in &filter.hooks {
            hook_sets.push(sets_with(conn, *hook).await?);
        }
        let ended: i64 = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM caches WHERE ends_at <= ?)")
            .bind(now)
            .fetch_one(&mut *conn)
            .await?;
        let mut search = Self {
            tenant,
            filter,
            metadata: filter.metadata.iter().map(|(key, value)| metadata::entry(key, value)).collect(),
            hook_sets,
            text: filter.text.as_ref().map(|text| match_expression(tenant, text)),
            from: filter.created_from.map_or(0, micros_up),
            to: filter.created_to.map_or(i64::MAX, micros_up).min(before.unwrap_or(i64::MAX)),
            expired: (ended != 0).then_some(now),
            walk: Condition::Any,
        };
        search.walk = search.shortest(conn).await?;
        Ok(search)
    }

    /// The search of a listing, which nothing is known about: for looking at its statements.
    #[cfg(test)]
    pub(super) fn walking(&self, n: usize) -> Option<Self> {
        let (metadata, hook_sets, text) = (self.metadata.clone(), self.hook_sets.clone(), self.text.clone());
        let walk = *self.walkable().get(n)?;
        Some(Self { metadata, hook_sets, text, walk, ..*self })
    }

    /// The conditions of the filter, the usually rarest first.
    fn conditions(&self) -> Vec<Condition> {
        let f = self.filter;
        let mut all = Vec::new();
        all.extend(f.run.map(|_| Condition::Run));
        all.extend((0..self.metadata.len()).map(Condition::Metadata));
        all.extend((0..f.tags.len()).map(Condition::Tag));
        all.extend(f.label.as_ref().map(|_| Condition::Label));
        all.extend(self.text.as_ref().map(|_| Condition::Text));
        all.extend((0..f.hooks.len()).map(Condition::Hook));
        all.extend(self.has_expiry().then_some(Condition::Expiry));
        all.extend(f.pinned.map(|_| Condition::Pinned));
        all.extend(f.model.as_ref().map(|_| Condition::Model));
        all
    }

    fn has_expiry(&self) -> bool {
        self.filter.expires_from.is_some() || self.filter.expires_to.is_some()
    }

    /// Whether the condition's own index can be walked.
    fn can_walk(&self, condition: Condition) -> bool {
        match condition {
            Condition::Hook(i) => self.hook_sets[i].is_some(),
            Condition::Pinned => self.filter.pinned == Some(true),
            _ => true,
        }
    }

    fn walkable(&self) -> Vec<Condition> {
        let mut able: Vec<Condition> = self.conditions().into_iter().filter(|c| self.can_walk(*c)).collect();
        if self.has_expiry() {
            able.push(Condition::Expiring);
        } else if able.is_empty() {
            able.push(Condition::Any);
        }
        able
    }

    /// The condition with the fewest caches.
    async fn shortest(&self, conn: &mut SqliteConnection) -> Result<Condition, StoreError> {
        let able = self.walkable();
        if let [only] = able.as_slice() {
            return Ok(*only);
        }
        let ordered = |c: &&Condition| **c != Condition::Expiry;
        let fallback = able.iter().find(|c| **c == Condition::Text).or_else(|| able.iter().find(ordered));
        let fallback = fallback.copied().unwrap_or(Condition::Any);
        for level in LEVELS {
            if level > MAX_SORTED && self.text.is_some() {
                break;
            }
            let row = self.sizes(&able, level).build().persistent(false).fetch_one(&mut *conn).await?;
            let mut rarest: Option<(i64, Condition)> = None;
            for (i, condition) in able.iter().enumerate() {
                let size: i64 = row.try_get(i)?;
                let text = self.text.is_some() && *condition != Condition::Text;
                let cost = if text { size.saturating_mul(TEXT_COST) } else { size };
                let sortable = *condition != Condition::Expiry || level <= MAX_SORTED;
                if size < level && sortable && rarest.is_none_or(|(least, _)| cost < least) {
                    rarest = Some((cost, *condition));
                }
            }
            if let Some((_, condition)) = rarest {
                return Ok(condition);
            }
        }
        Ok(fallback)
    }

    /// The statement that counts each of `conditions` up to `level`.
    fn sizes(&self, conditions: &[Condition], level: i64) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT ");
        for (i, condition) in conditions.iter().enumerate() {
            query.push(if i == 0 { "" } else { ", " }).push("(SELECT count(*) FROM (");
            self.push_rows(&mut query, *condition, Rows::Range);
            query.push(" LIMIT ").push_bind(level).push("))");
        }
        query
    }

    /// The page that begins the search.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(super) async fn page(mut self, conn: &mut SqliteConnection, limit: u32) -> Result<Found, StoreError> {
        let limit = i64::from(limit);
        let end = self.bound(conn, MAX_STEPS).await?;
        let mut times = self.times(conn, limit + 1).await?;
        let full = i64::try_from(times.len()).is_ok_and(|n| n > limit);
        times.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let next = if full { times.last().copied() } else { end };
        Ok(Found { times, next })
    }

    /// How many there are, as far as that can be said in a bounded time.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(super) async fn count(mut self, conn: &mut SqliteConnection) -> Result<Count, StoreError> {
        let end = self.bound(conn, MAX_COUNT).await?;
        let mut query = QueryBuilder::new("SELECT count(*) FROM (SELECT 1");
        self.push_found(&mut query, "");
        query.push(" LIMIT ").push_bind(MAX_COUNT + 1).push(")");
        let n: i64 = query.build_query_scalar().persistent(false).fetch_one(conn).await?;
        let total = u64::try_from(n.min(MAX_COUNT)).unwrap_or(0);
        Ok(Count { total, is_exact: end.is_none() && n <= MAX_COUNT })
    }

    /// How many there are, however long it takes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(super) async fn count_all(self, conn: &mut SqliteConnection) -> Result<u64, StoreError> {
        let mut query = QueryBuilder::new("SELECT count(*)");
        self.push_found(&mut query, "");
        let n: i64 = query.build_query_scalar().persistent(false).fetch_one(conn).await?;
        Ok(u64::try_from(n).unwrap_or(0))
    }

    /// Narrows the search to its first `steps` caches, and says where it ends then. `None`: nothing is left out.
    async fn bound(&mut self, conn: &mut SqliteConnection, steps: i64) -> Result<Option<i64>, StoreError> {
        if self.asks_one_index() || self.walk == Condition::Expiry {
            return Ok(None);
        }
        let steps = if self.text.is_some() && self.walk != Condition::Text { steps / TEXT_COST } else { steps };
        let end: Option<i64> = self.end(steps).build_query_scalar().persistent(false).fetch_optional(conn).await?;
        self.from = end.unwrap_or(self.from);
        Ok(end)
    }

    /// The statement for the time of the last of the first `steps` caches.
    fn end(&self, steps: i64) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT at FROM (");
        self.push_rows(&mut query, self.walk, Rows::Range);
        query.push(") ORDER BY at DESC LIMIT 1 OFFSET ").push_bind(steps - 1);
        query
    }

    fn asks_one_index(&self) -> bool {
        let plain = self.filter.fingerprint.is_none() && self.filter.bos.is_none();
        plain && self.expired.is_none() && self.conditions().into_iter().all(|c| c == self.walk)
    }

    /// The times of the newest caches that are found.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(super) async fn times(&self, conn: &mut SqliteConnection, limit: i64) -> Result<Vec<i64>, StoreError> {
        Ok(self.newest(limit).build_query_scalar().persistent(false).fetch_all(conn).await?)
    }

    fn newest(&self, limit: i64) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT d.at");
        self.push_found(&mut query, "");
        query.push(" ORDER BY d.at DESC LIMIT ").push_bind(limit);
        query
    }

    /// Adds ` FROM … WHERE …` with what is found as `d.at`; `joined` comes behind the FROM.
    pub(super) fn push_found(&self, query: &mut QueryBuilder<Sqlite>, joined: &str) {
        query.push(" FROM (");
        self.push_rows(query, self.walk, Rows::Range);
        query.push(") d").push(joined).push(" WHERE 1");
        for condition in self.conditions().into_iter().filter(|c| *c != self.walk) {
            let not = condition == Condition::Pinned && self.filter.pinned == Some(false);
            query.push(if not { " AND NOT EXISTS (" } else { " AND EXISTS (" });
            self.push_rows(query, condition, Rows::This);
            query.push(")");
        }
        self.push_looks(query);
        if let Some(now) = self.expired {
            query.push(" AND NOT EXISTS (SELECT 1 FROM caches INDEXED BY caches_by_time WHERE created_at = d.at");
            query.push(" AND ends_at <= ").push_bind(now).push(")");
        }
    }

    /// Adds the conditions without an index of their own: each cache is looked at.
    fn push_looks(&self, query: &mut QueryBuilder<Sqlite>) {
        const LOOK: &str = " AND EXISTS (SELECT 1 FROM caches o INDEXED BY caches_by_time";
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
    fn push_rows(&self, query: &mut QueryBuilder<Sqlite>, condition: Condition, rows: Rows) {
        const SELECT: &str = "SELECT created_at AS at FROM caches INDEXED BY ";
        let f = self.filter;
        match condition {
            Condition::Expiring => {
                query.push(SELECT).push("caches_expiring WHERE expires_at IS NOT NULL AND tenant_id = ");
                query.push_bind(self.tenant.0);
            }
            Condition::Any => {
                query.push(SELECT).push("caches_by_tenant WHERE tenant_id = ").push_bind(self.tenant.0);
            }
            Condition::Run => {
                query.push(SELECT).push("caches_by_run WHERE tenant_id = ").push_bind(self.tenant.0);
                query.push(" AND run_id = ").push_bind(f.run.map(|run| run.as_bytes().to_vec()));
            }
            Condition::Model => {
                query.push(SELECT).push("caches_by_model WHERE tenant_id = ").push_bind(self.tenant.0);
                query.push(" AND model = ").push_bind(f.model.as_deref());
            }
            Condition::Label => {
                query.push(SELECT).push("caches_by_label WHERE tenant_id = ").push_bind(self.tenant.0);
                query.push(" AND label = ").push_bind(f.label.as_deref());
            }
            Condition::Pinned => {
                query.push(SELECT).push("caches_pinned WHERE pinned = 1 AND tenant_id = ").push_bind(self.tenant.0);
            }
            Condition::Tag(i) => {
                query.push("SELECT created_at AS at FROM cache_tags WHERE tenant_id = ").push_bind(self.tenant.0);
                query.push(" AND tag = ").push_bind(f.tags[i].as_str());
            }
            Condition::Metadata(i) => {
                let (key, value) = &self.metadata[i];
                query.push("SELECT created_at AS at FROM cache_metadata INDEXED BY cache_metadata_by_value");
                query.push(" WHERE tenant_id = ").push_bind(self.tenant.0).push(" AND key = ").push_bind(key.as_str());
                query.push(" AND value = ").push_bind(value.as_str());
            }
            Condition::Text => {
                query.push("SELECT rowid AS at FROM cache_texts WHERE cache_texts MATCH ");
                query.push_bind(self.text.as_deref());
                return self.push_bounds(query, "rowid", rows);
            }
            Condition::Hook(i) => return self.push_hook(query, i, rows),
            Condition::Expiry => {
                let index = match rows {
                    Rows::Range => "caches_by_expiry",
                    Rows::This => "caches_by_time",
                };
                query.push(SELECT).push(index).push(" WHERE tenant_id = ").push_bind(self.tenant.0);
                query.push(" AND expires_at >= ").push_bind(f.expires_from.map_or(0, micros_up));
                query.push(" AND expires_at < ").push_bind(f.expires_to.map_or(i64::MAX, micros_up));
            }
        }
        self.push_bounds(query, "created_at", rows);
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
        }
    }

    /// Caches with a hook: those of each set that has it, side by side.
    fn push_hook(&self, query: &mut QueryBuilder<Sqlite>, i: usize, rows: Rows) {
        const SELECT: &str = "SELECT created_at AS at FROM caches INDEXED BY caches_by_hook_set WHERE hook_set_id";
        match (rows, &self.hook_sets[i]) {
            (Rows::Range, Some(sets)) => {
                // no set at all is one that does not exist
                let sets = if sets.is_empty() { [-1].as_slice() } else { sets };
                for (n, set) in sets.iter().enumerate() {
                    query.push(if n == 0 { "" } else { " UNION ALL " }).push(SELECT).push(" = ").push_bind(*set);
                    query.push(" AND tenant_id = ").push_bind(self.tenant.0);
                    self.push_bounds(query, "created_at", rows);
                }
            }
            _ => {
                query.push("SELECT 1 FROM caches c INDEXED BY caches_by_time CROSS JOIN hook_set_hooks h");
                query.push(" ON h.hook_set_id = c.hook_set_id WHERE c.created_at = d.at AND h.hook = ");
                query.push_bind(self.filter.hooks[i].to_string());
            }
        }
    }

    /// Whether what is walked has to be sorted.
    #[cfg(test)]
    pub(super) fn sorts(&self) -> bool {
        self.walk == Condition::Expiry
    }

    /// Every statement a listing runs, for a test that looks at their plans.
    #[cfg(test)]
    pub(super) fn statements(&self) -> Vec<QueryBuilder<Sqlite>> {
        let mut count = QueryBuilder::new("SELECT count(*) FROM (SELECT 1");
        self.push_found(&mut count, "");
        count.push(" LIMIT 10)");
        vec![self.newest(10), self.sizes(&self.walkable(), 10), self.end(10), count]
    }
}

/// The sets with a hook, unless they are too many to be walked.
async fn sets_with(conn: &mut SqliteConnection, hook: Hook) -> Result<Option<Vec<i64>>, StoreError> {
    let sets: Vec<i64> = sqlx::query_scalar("SELECT hook_set_id FROM hook_set_hooks WHERE hook = ? LIMIT ?")
        .bind(hook.to_string())
        .bind(i64::try_from(MAX_HOOK_SETS).unwrap_or(i64::MAX) + 1)
        .fetch_all(conn)
        .await?;
    Ok((sets.len() <= MAX_HOOK_SETS).then_some(sets))
}

/// The query in FTS5's language, in which a quoted string is always data.
fn match_expression(tenant: TenantId, text: &crate::domain::TextQuery) -> String {
    let phrases: Vec<String> = text.phrases().iter().map(|p| format!("\"{}\"", p.replace('"', "\"\""))).collect();
    format!("tenant : \"t{}\" AND {{text completion}} : ({})", tenant.0, phrases.join(" AND "))
}

/// The first whole microsecond at or after a time: both `>= t` and `< t` keep their meaning for whole microseconds.
pub(super) fn micros_up(time: jiff::Timestamp) -> i64 {
    let micros = time.as_microsecond();
    let exact = time.as_nanosecond() <= i128::from(micros) * 1000;
    if exact { micros } else { micros + 1 }
}

//! Describing caches: by id, by run, or by a filter.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, sqlite::SqliteRow};

use crate::{
    blobs::epoch::Session,
    error::StoreError,
    find::{
        described::{COLUMNS, JOINED, decode},
        search::{Found, Search},
    },
    index::{
        SqliteIndex,
        rows::{Fields, hex_list, push_limit},
    },
    packs::stored_cache::StoredCache,
};
use residuum_domain::{Cache, CacheFilter, CacheId, Count, RunId, TenantId};

/// A page of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct CachePage {
    /// Caches, newest first. They may be fewer than were asked for, or none, even if there are more.
    pub caches: Vec<Cache>,
    /// The next page has caches older than this; `None`: there is none.
    pub next: Option<Timestamp>,
}

/// How much is wanted of what a filter finds.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// Up to so many, in a bounded time.
    Page(u32),
    /// So many, if there are.
    List(u32),
}

impl SqliteIndex {
    /// One cache of a tenant.
    pub(crate) async fn cache(
        &self,
        session: &Arc<Session>,
        tenant: TenantId,
        id: CacheId,
    ) -> Result<Option<Cache>, StoreError> {
        Ok(self.stored(session, tenant, &[id]).await?.pop().flatten().map(|s| s.cache))
    }

    /// A page of the caches of a tenant that were stored before `before`, where it is given. It takes a bounded time
    /// whatever the filter: a page may be short, and the next one continues after what this one looked at.
    pub(crate) async fn find_caches(
        &self,
        session: &Arc<Session>,
        tenant: TenantId,
        filter: &CacheFilter,
        before: Option<Timestamp>,
        limit: u32,
    ) -> Result<CachePage, StoreError> {
        let (stored, next) = self.find(session, tenant, filter, before, Wanted::Page(limit)).await?;
        if next.zip(before).is_some_and(|(next, before)| next >= before.as_microsecond()) {
            // whoever asks for page after page would never reach the end
            return Err(StoreError::IndexDamaged("its caches are out of order".to_owned()));
        }
        let time = |micros| Timestamp::from_microsecond(micros).map_err(|e| StoreError::damaged(e.to_string()));
        Ok(CachePage { caches: stored.into_iter().map(|s| s.cache).collect(), next: next.map(time).transpose()? })
    }

    /// Counts the caches of a tenant in a bounded time, exactly if there are few.
    pub(crate) async fn count_caches(&self, tenant: TenantId, filter: &CacheFilter) -> Result<Count, StoreError> {
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let count = Search::new(&mut snapshot, tenant, filter, None, self.now()).await?.count(&mut snapshot).await?;
        drop(snapshot);
        reader.done();
        Ok(count)
    }

    /// Caches of a tenant, newest first, those stored before `before` where it is given. However long it takes, the list is
    /// only shorter than `limit` where there are no more.
    pub(crate) async fn caches(
        &self,
        session: &Arc<Session>,
        tenant: TenantId,
        filter: &CacheFilter,
        before: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<Cache>, StoreError> {
        let stored = self.find(session, tenant, filter, before, Wanted::List(limit)).await?.0;
        Ok(stored.into_iter().map(|s| s.cache).collect())
    }

    /// Caches of a tenant that can be read, newest first, among those stored before `before` where it is given.
    pub(crate) async fn choose(
        &self,
        session: &Arc<Session>,
        tenant: TenantId,
        filter: &CacheFilter,
        before: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<StoredCache>, StoreError> {
        Ok(self.find(session, tenant, filter, before, Wanted::List(limit)).await?.0)
    }

    /// What a filter finds, newest first, and where a next page begins.
    async fn find(
        &self,
        session: &Arc<Session>,
        tenant: TenantId,
        filter: &CacheFilter,
        before: Option<Timestamp>,
        wanted: Wanted,
    ) -> Result<(Vec<StoredCache>, Option<i64>), StoreError> {
        let mut reader = self.reader().await?;
        let remembered = |row| self.decode_remembered(&row, session);
        if let Some(found) = self.found(&mut reader, tenant, filter, before, wanted, remembered).await? {
            reader.done();
            return Ok((found.items, found.next));
        }
        // one snapshot, so that what rows refer to is there
        let mut snapshot = reader.snapshot().await?;
        let rows = self.found(&mut snapshot, tenant, filter, before, wanted, |row| Ok(Some(row))).await?;
        let Some(Found { items: rows, next }) = rows else { return Ok((Vec::new(), None)) };
        let stored = self.decode_all(&mut snapshot, &rows, session).await?;
        drop(snapshot);
        reader.done();
        Ok((stored, next))
    }

    async fn found<T>(
        &self,
        conn: &mut SqliteConnection,
        tenant: TenantId,
        filter: &CacheFilter,
        before: Option<Timestamp>,
        wanted: Wanted,
        make: impl FnMut(SqliteRow) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<Found<T>>, StoreError> {
        let before = before.map(Timestamp::as_microsecond);
        let search = Search::new(conn, tenant, filter, before, self.now()).await?;
        match wanted {
            Wanted::Page(limit) => search.page(conn, limit, make).await,
            Wanted::List(limit) => search.list(conn, limit, make).await,
        }
    }

    /// How many caches a filter finds, however long counting takes.
    pub(crate) async fn count_all_caches(&self, tenant: TenantId, filter: &CacheFilter) -> Result<u64, StoreError> {
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        Search::new(&mut snapshot, tenant, filter, None, self.now()).await?.count_all(&mut snapshot).await
    }

    /// Caches of a run in the order of its inputs, from input `from_item` on.
    pub(crate) async fn run_caches(
        &self,
        session: &Arc<Session>,
        tenant: TenantId,
        run: RunId,
        from_item: u32,
        limit: u32,
    ) -> Result<Vec<Cache>, StoreError> {
        let stored = self.run_stored(session, tenant, run, from_item, limit).await?;
        Ok(stored.into_iter().map(|s| s.cache).collect())
    }

    /// [`Self::run_caches`], to be read.
    pub(crate) async fn run_stored(
        &self,
        session: &Arc<Session>,
        tenant: TenantId,
        run: RunId,
        from_item: u32,
        limit: u32,
    ) -> Result<Vec<StoredCache>, StoreError> {
        self.load(session, || of_run(tenant, run, from_item, limit, self.now())).await
    }

    /// Caches with the place of their tensors, in the order asked; `None` for those that the tenant does not have.
    pub(crate) async fn stored(
        &self,
        session: &Arc<Session>,
        tenant: TenantId,
        caches: &[CacheId],
    ) -> Result<Vec<Option<StoredCache>>, StoreError> {
        let stored = self.load(session, || by_ids(tenant, caches, self.now())).await?;
        let by_id: HashMap<CacheId, StoredCache> = stored.into_iter().map(|s| (s.cache.id, s)).collect();
        Ok(caches.iter().map(|id| by_id.get(id).cloned()).collect())
    }

    /// Runs a query for [`COLUMNS`] whose text is always the same.
    async fn load(
        &self,
        session: &Arc<Session>,
        query: impl Fn() -> QueryBuilder<Sqlite>,
    ) -> Result<Vec<StoredCache>, StoreError> {
        let rows = self.rows(query().build()).await?;
        let known: Option<Vec<StoredCache>> =
            rows.iter().map(|row| self.decode_remembered(row, session)).collect::<Result<_, _>>()?;
        if let Some(caches) = known {
            return Ok(caches);
        }
        // one snapshot, so that what rows refer to is there
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let rows = query().build().fetch_all(&mut *snapshot).await?;
        let stored = self.decode_all(&mut snapshot, &rows, session).await?;
        drop(snapshot);
        reader.done();
        Ok(stored)
    }

    /// The cache, where all that its row refers to is remembered.
    fn decode_remembered(&self, row: &SqliteRow, session: &Arc<Session>) -> Result<Option<StoredCache>, StoreError> {
        let f = Fields::of("caches", row);
        let memo = self.memo();
        let known = memo.known(f.get("provenance_id")?, f.get("layout_id")?, f.get("hook_set_id")?);
        known.map(|(origin, layout, hooks)| decode(row, &origin, &layout, hooks, session)).transpose()
    }

    async fn decode_all(
        &self,
        conn: &mut SqliteConnection,
        rows: &[SqliteRow],
        session: &Arc<Session>,
    ) -> Result<Vec<StoredCache>, StoreError> {
        let mut caches = Vec::with_capacity(rows.len());
        for row in rows {
            caches.push(self.decode(conn, row, session).await?);
        }
        Ok(caches)
    }

    pub(crate) async fn decode(
        &self,
        conn: &mut SqliteConnection,
        row: &SqliteRow,
        session: &Arc<Session>,
    ) -> Result<StoredCache, StoreError> {
        let f = Fields::of("caches", row);
        let origin = self.memo().origin(conn, f.get("provenance_id")?).await?;
        let layout = self.memo().layout(conn, f.get("layout_id")?).await?;
        let hooks = self.memo().hooks(conn, f.get("hook_set_id")?).await?;
        decode(row, &origin, &layout, hooks, session)
    }
}

/// The statement for caches by their ids, in no order.
pub(crate) fn by_ids(tenant: TenantId, caches: &[CacheId], now: i64) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT ");
    query.push(COLUMNS).push(" FROM caches c").push(JOINED).push(" WHERE ");
    if let [id] = caches {
        query.push("c.id = ").push_bind(id.as_bytes().as_slice());
    } else {
        query.push("c.id IN (SELECT unhex(j.value) FROM json_each(");
        query.push_bind(hex_list(caches.iter().map(|id| id.as_bytes().as_slice()))).push(") j)");
    }
    query.push(" AND +c.tenant_id = ").push_bind(tenant.0);
    push_living(&mut query, now);
    query
}

/// The statement for the caches of a run, in the order of its inputs.
pub(crate) fn of_run(tenant: TenantId, run: RunId, from_item: u32, limit: u32, now: i64) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT ");
    query.push(COLUMNS).push(" FROM caches c").push(JOINED);
    query.push(" WHERE c.run_id = ").push_bind(run.as_bytes().as_slice());
    query.push(" AND c.item_index >= ").push_bind(from_item);
    // the plus keeps the tenant's index out of it: the run's gives the order
    query.push(" AND +c.tenant_id = ").push_bind(tenant.0);
    push_living(&mut query, now);
    query.push(" ORDER BY c.item_index");
    push_limit(&mut query, i64::from(limit));
    query
}

/// Leaves out what has expired.
fn push_living(query: &mut QueryBuilder<Sqlite>, now: i64) {
    query.push(" AND (c.ends_at IS NULL OR c.ends_at > ").push_bind(now).push(")");
}

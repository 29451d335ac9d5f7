//! Describing caches: by id, by run, or by a filter.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, sqlite::SqliteRow};

use crate::{
    blobs::epoch::Session,
    error::StoreError,
    find::{
        described::{BRIEF_COLUMNS, COLUMNS, JOINED, decode},
        search::{Found, Search},
    },
    index::{
        SqliteIndex,
        rows::{Fields, hex_list, push_limit},
    },
    packs::stored_cache::StoredCache,
};
use residuum_domain::{Cache, CacheFilter, CacheId, Count, Order, RunId, TenantId};

/// A page of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct CachePage {
    /// Caches, in the order asked for. They may be fewer than were asked for, or none, even if there are more.
    pub caches: Vec<Cache>,
    /// The next page begins behind this; `None`: there is none.
    pub next: Option<Timestamp>,
}

/// Which page of a listing is wanted.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// The order of the listing, by the time at which caches were stored.
    pub order: Order,
    /// Behind which time the page begins, in this order; `None`: the first page.
    pub after: Option<Timestamp>,
    /// Most caches of the page.
    pub limit: u32,
    /// Leaves out texts, tokens and completions: they are empty then.
    pub is_brief: bool,
}

impl PageRequest {
    /// A page of whole descriptions, newest first.
    #[must_use]
    pub fn newest(before: Option<Timestamp>, limit: u32) -> Self {
        Self { order: Order::Descending, after: before, limit, is_brief: false }
    }
}

/// How much is wanted of what a filter finds.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// A page, in a bounded time.
    Page(PageRequest),
    /// So many of the newest before a time, if there are.
    List(Option<Timestamp>, u32),
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

    /// A page of the caches of a tenant. It takes a bounded time whatever the filter: a page may be short, and the next
    /// one continues after what this one looked at.
    pub(crate) async fn find_caches(
        &self,
        session: &Arc<Session>,
        tenant: TenantId,
        filter: &CacheFilter,
        page: PageRequest,
    ) -> Result<CachePage, StoreError> {
        let (stored, next) = self.find(session, tenant, filter, Wanted::Page(page)).await?;
        let stands = |(next, after): (i64, Timestamp)| match page.order {
            Order::Ascending => next <= after.as_microsecond(),
            Order::Descending => next >= after.as_microsecond(),
        };
        if next.zip(page.after).is_some_and(stands) {
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
        let stored = self.find(session, tenant, filter, Wanted::List(before, limit)).await?.0;
        Ok(stored.into_iter().map(|s| s.cache).collect())
    }

    /// Caches of a tenant that can be read, newest first. However long it takes, the list is only shorter than `limit`
    /// where there are no more.
    pub(crate) async fn choose(
        &self,
        session: &Arc<Session>,
        tenant: TenantId,
        filter: &CacheFilter,
        limit: u32,
    ) -> Result<Vec<StoredCache>, StoreError> {
        Ok(self.find(session, tenant, filter, Wanted::List(None, limit)).await?.0)
    }

    /// The ids of all caches of a tenant that a filter finds: by run, and within a run in the order of its inputs.
    pub(crate) async fn cache_ids(
        &self,
        tenant: TenantId,
        filter: &CacheFilter,
        order: Order,
    ) -> Result<Vec<CacheId>, StoreError> {
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let search = Search::new(&mut snapshot, tenant, filter, None, self.now()).await?;
        let rows = search.ids(order).build().persistent(false).fetch_all(&mut *snapshot).await?;
        drop(snapshot);
        reader.done();
        rows.iter().map(|row| Fields::of("caches", row).read("id", CacheId::from_slice)).collect()
    }

    /// What a filter finds, and where a next page begins.
    async fn find(
        &self,
        session: &Arc<Session>,
        tenant: TenantId,
        filter: &CacheFilter,
        wanted: Wanted,
    ) -> Result<(Vec<StoredCache>, Option<i64>), StoreError> {
        let mut reader = self.reader().await?;
        let remembered = |row| self.decode_remembered(&row, session);
        if let Some(found) = self.found(&mut reader, tenant, filter, wanted, remembered).await? {
            reader.done();
            return Ok((found.items, found.next));
        }
        // one snapshot, so that what rows refer to is there
        let mut snapshot = reader.snapshot().await?;
        let rows = self.found(&mut snapshot, tenant, filter, wanted, |row| Ok(Some(row))).await?;
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
        wanted: Wanted,
        make: impl FnMut(SqliteRow) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<Found<T>>, StoreError> {
        match wanted {
            Wanted::Page(PageRequest { order, after, limit, is_brief }) => {
                let after = after.map(Timestamp::as_microsecond);
                let search = Search::ordered(conn, tenant, filter, (order, after), self.now()).await?;
                let columns = if is_brief { BRIEF_COLUMNS } else { COLUMNS };
                search.selecting(columns).page(conn, limit, make).await
            }
            Wanted::List(before, limit) => {
                let before = before.map(Timestamp::as_microsecond);
                Search::new(conn, tenant, filter, before, self.now()).await?.list(conn, limit, make).await
            }
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

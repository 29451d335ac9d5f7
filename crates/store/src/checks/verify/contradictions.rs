//! Rows of the index that contradict each other, and caches whose rows cannot be decoded.

use std::collections::HashSet;

use sqlx::{Row, SqliteConnection};

use super::Unreadable;
use crate::{
    StoreError,
    checks::verify::Verifier,
    index::{
        SqliteIndex,
        rows::{Fields, hex_list},
    },
};
use residuum_domain::{Cache, CacheId, TenantId};

/// Caches looked at at a time.
const PAGE: i64 = 512;

/// Contradictions, each with a query that counts them.
const CONTRADICTIONS: [(&str, &str); 18] = [
    (
        "caches belong to another tenant than their runs",
        "SELECT count(*) FROM caches c CROSS JOIN runs r ON r.id = c.run_id WHERE r.tenant_id <> c.tenant_id",
    ),
    (
        "caches belong to another tenant than their activations",
        "SELECT count(*) FROM caches c CROSS JOIN extents e ON e.id = c.extent_id WHERE e.tenant_id <> c.tenant_id",
    ),
    (
        "activations belong to another tenant than their pack",
        "SELECT count(*) FROM extents e CROSS JOIN packs p ON p.id = e.pack_id WHERE e.tenant_id <> p.tenant_id",
    ),
    ("caches were stored at the same time", "SELECT count(*) - count(DISTINCT created_at) FROM caches"),
    (
        "caches are missing from the index of terms, so that nothing finds them",
        "SELECT count(*) FROM caches c WHERE NOT EXISTS (SELECT 1 FROM cache_terms_docsize d WHERE d.id = c.created_at)",
    ),
    (
        "terms are there of caches that are not",
        "SELECT count(*) FROM cache_terms_docsize d WHERE NOT EXISTS (SELECT 1 FROM caches c WHERE c.created_at = d.id)",
    ),
    (
        "activations are missing from the index of forward keys, so that they are never reused",
        "SELECT count(*) FROM extents e WHERE e.forward_key IS NOT NULL AND NOT EXISTS \
             (SELECT 1 FROM forward_keys k WHERE k.prefix = substr(e.forward_key, 1, 6) AND k.extent_id = e.id) \
             AND NOT EXISTS \
             (SELECT 1 FROM forward_keys_new k WHERE k.prefix = substr(e.forward_key, 1, 6) AND k.extent_id = e.id)",
    ),
    (
        "forward keys are there of activations that are not, or have others",
        "SELECT count(*) FROM (SELECT * FROM forward_keys UNION ALL SELECT * FROM forward_keys_new) k WHERE NOT EXISTS \
             (SELECT 1 FROM extents e WHERE e.id = k.extent_id AND substr(e.forward_key, 1, 6) = k.prefix)",
    ),
    (
        "tags belong to another tenant than their runs",
        "SELECT count(*) FROM run_tags t CROSS JOIN runs r ON r.id = t.run_id WHERE t.tenant_id <> r.tenant_id",
    ),
    (
        "runs have ended with inputs still to do",
        "SELECT count(*) FROM runs r WHERE r.finished_at IS NOT NULL AND EXISTS \
             (SELECT 1 FROM run_items i WHERE i.run_id = r.id AND i.status = 'pending')",
    ),
    (
        "runs have not ended though nothing is left to do",
        "SELECT count(*) FROM runs r WHERE r.finished_at IS NULL AND NOT EXISTS \
             (SELECT 1 FROM run_items i WHERE i.run_id = r.id AND i.status = 'pending')",
    ),
    (
        "runs count other failed inputs than they have",
        "SELECT count(*) FROM runs r WHERE r.n_failed <> \
             (SELECT count(*) FROM run_items i WHERE i.run_id = r.id AND i.status = 'failed')",
    ),
    (
        "runs have more caches than inputs that are done",
        "SELECT count(*) FROM runs r WHERE r.n_done < (SELECT count(*) FROM caches c WHERE c.run_id = r.id)",
    ),
    (
        "caches are there for inputs that are not done",
        "SELECT count(*) FROM caches c CROSS JOIN run_items i ON i.run_id = c.run_id AND i.item_index = c.item_index \
             WHERE i.status <> 'done'",
    ),
    (
        "activations lie outside their pack",
        "SELECT count(*) FROM extents e CROSS JOIN packs p ON p.id = e.pack_id \
             WHERE e.row_start + e.n_rows > p.n_rows OR e.map_start + e.n_rows * e.n_tokens > p.n_map",
    ),
    (
        "activations overlap in their pack",
        "SELECT count(*) FROM (SELECT row_start, lag(row_start + n_rows) OVER w AS row_end, map_start, \
             lag(map_start + n_rows * n_tokens) OVER w AS map_end FROM extents \
             WINDOW w AS (PARTITION BY pack_id ORDER BY row_start)) WHERE row_end > row_start OR map_end > map_start",
    ),
    (
        "hook sets are indexed by other hooks than they have",
        "SELECT count(*) FROM hook_sets s WHERE json_array_length(s.hooks) <> \
             (SELECT count(*) FROM hook_set_hooks h WHERE h.hook_set_id = s.id) OR EXISTS \
             (SELECT 1 FROM json_each(s.hooks) j WHERE NOT EXISTS \
                 (SELECT 1 FROM hook_set_hooks h WHERE h.hook_set_id = s.id AND h.hook = j.value))",
    ),
    (
        "directions have vectors of another length than they say",
        "SELECT count(*) FROM direction_vectors v CROSS JOIN directions d ON d.id = v.direction_id \
             WHERE length(v.vector) <> 4 * d.d",
    ),
];

/// What SQLite's own check finds wrong.
///
/// # Errors
/// [`StoreError::Database`], [`StoreError::IndexDamaged`] where it finds nothing at all.
pub(crate) async fn integrity_check(snapshot: &mut SqliteConnection) -> Result<Vec<String>, StoreError> {
    // The check of an FTS5 table uses what the connection has cached of it, however old that is. A query has FTS5 look whether
    // that still holds. If the query fails, the check says why, and whatever else is wrong.
    drop(sqlx::query("SELECT rowid FROM cache_terms WHERE rowid = 0").fetch_all(&mut *snapshot).await);
    let mut lines: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check").fetch_all(snapshot).await?;
    lines.retain(|line| line != "ok");
    Ok(lines)
}

/// Whether a line of SQLite's check is about the tables themselves. The full-text index is checked apart: if it alone is
/// damaged, everything else can be read.
pub(crate) fn is_structural(line: &str) -> bool {
    !line.to_ascii_lowercase().contains("fts5") && !line.starts_with("a row of ")
}

impl SqliteIndex {
    /// What SQLite itself finds wrong, and references to rows that are not there.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::IndexDamaged`] where it finds nothing at all.
    pub(crate) async fn integrity(&self) -> Result<Vec<String>, StoreError> {
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let mut wrong = integrity_check(&mut snapshot).await?;
        if wrong.iter().any(|line| is_structural(line)) {
            return Ok(wrong);
        }
        for row in sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut *snapshot).await? {
            let (table, parent): (String, String) = (row.try_get(0)?, row.try_get(2)?);
            wrong.push(format!("a row of {table} refers to a missing row of {parent}"));
        }
        Ok(wrong)
    }

    /// The contradictions that there are, with their numbers of rows.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(super) async fn contradictions(&self) -> Result<Vec<(&'static str, i64)>, StoreError> {
        // one snapshot: what changes between two queries is no contradiction
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let mut found = Vec::new();
        for (what, query) in CONTRADICTIONS {
            let n: i64 = sqlx::query_scalar(query).fetch_one(&mut *snapshot).await?;
            if n > 0 {
                found.push((what, n));
            }
        }
        Ok(found)
    }

    /// Caches with other tokens or rows than their extents.
    async fn rows_that_differ(
        &self,
        ids: &[(TenantId, CacheId)],
        unreadable: &mut Vec<Unreadable>,
    ) -> Result<(), StoreError> {
        let query = sqlx::query(
            "SELECT c.id, c.positions, length(c.token_ids) / 4 AS n_tokens, e.n_tokens AS extent_tokens, e.n_rows \
             FROM json_each(?) j CROSS JOIN caches c ON c.id = unhex(j.value) CROSS JOIN extents e ON e.id = c.extent_id",
        );
        let rows = self.rows(query.bind(hex_list(ids.iter().map(|(_, id)| id.as_bytes().as_slice())))).await?;
        for row in &rows {
            let f = Fields::of("caches", row);
            let id = f.read("id", CacheId::from_slice)?;
            if unreadable.iter().any(|(known, _)| *known == id) {
                continue;
            }
            let positions: Result<residuum_domain::Positions, _> = f.json("positions");
            let n_tokens: usize = f.uint("n_tokens")?;
            let n_rows = positions.ok().and_then(|p| p.resolve(n_tokens).ok()).map(|rows| rows.len());
            if n_tokens != f.uint::<usize>("extent_tokens")? || n_rows != Some(f.uint("n_rows")?) {
                unreadable.push((id, "it has other tokens or positions than its activations".to_owned()));
            }
        }
        Ok(())
    }
}

impl Verifier<'_> {
    /// Caches whose rows do not make sense; `n_caches` counts all.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::IndexDamaged`] where the rows are out of order.
    pub(crate) async fn unreadable_caches(&self, n_caches: &mut u64) -> Result<Vec<Unreadable>, StoreError> {
        let mut unreadable = Vec::new();
        let mut last: Vec<u8> = Vec::new();
        loop {
            let page = sqlx::query("SELECT id, tenant_id FROM caches WHERE id > ? ORDER BY id LIMIT +?");
            let rows = self.index.rows(page.bind(&last).bind(PAGE)).await?;
            let Some(end) = rows.last() else { return Ok(unreadable) };
            last = advance(last, end.try_get("id")?)?;
            let mut ids = Vec::with_capacity(rows.len());
            for row in &rows {
                let f = Fields::of("caches", row);
                ids.push((TenantId(f.get("tenant_id")?), f.read("id", CacheId::from_slice)?));
            }
            *n_caches += ids.len() as u64;
            self.unreadable_among(&ids, &mut unreadable).await?;
        }
    }

    async fn unreadable_among(
        &self,
        ids: &[(TenantId, CacheId)],
        unreadable: &mut Vec<Unreadable>,
    ) -> Result<(), StoreError> {
        let tenants: HashSet<TenantId> = ids.iter().map(|(tenant, _)| *tenant).collect();
        for tenant in tenants {
            let own: Vec<CacheId> = ids.iter().filter(|(t, _)| *t == tenant).map(|(_, id)| *id).collect();
            match self.index.stored(&self.blobs.enter(), tenant, &own).await {
                Ok(found) => {
                    let found = found.into_iter().flatten();
                    unreadable.extend(found.filter_map(|s| Some((s.cache.id, misfit(&s.cache)?))));
                }
                // one by one, to find out which
                Err(StoreError::Damaged { .. }) => {
                    for id in own {
                        match self.index.stored(&self.blobs.enter(), tenant, &[id]).await {
                            Ok(found) => {
                                let found = found.into_iter().flatten();
                                unreadable.extend(found.filter_map(|s| Some((id, misfit(&s.cache)?))));
                            }
                            Err(StoreError::Damaged { what }) => unreadable.push((id, what)),
                            Err(other) => return Err(other),
                        }
                    }
                }
                Err(other) => return Err(other),
            }
        }
        self.index.rows_that_differ(ids, unreadable).await
    }
}

/// The place where a walk continues. It must be after the one before: in an index that is out of order the walk would not end.
///
/// # Errors
/// [`StoreError::IndexDamaged`].
pub(super) fn advance<T: PartialOrd>(last: T, next: T) -> Result<T, StoreError> {
    if next > last { Ok(next) } else { Err(StoreError::IndexDamaged("its rows are out of order".to_owned())) }
}

/// What does not fit in the description of a cache.
fn misfit(cache: &Cache) -> Option<String> {
    if cache.tokens.len() != cache.token_ids.len() {
        return Some(format!("{} token ids and {} tokens", cache.token_ids.len(), cache.tokens.len()));
    }
    cache.rows().err().map(|problem| problem.detail)
}

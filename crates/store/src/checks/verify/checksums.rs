//! Comparing rows with their checksums, and interned values with the digests by which they are found.

use sqlx::{AssertSqlSafe, Row};

use super::contradictions::advance;
use crate::{
    StoreError,
    index::{
        SqliteIndex,
        checksum::{self, CACHE, Checksum},
    },
};
use residuum_domain::{CacheId, DirectionId};

/// Rows looked at at a time.
const PAGE: i64 = 512;

impl SqliteIndex {
    /// Rows and interned values that have changed since they were written.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::IndexDamaged`] where rows are out of order.
    pub(super) async fn wrong_checksums(&self) -> Result<Vec<String>, StoreError> {
        let mut wrong = self.wrong_digests().await?;
        wrong.extend(self.changed_caches().await?);
        wrong.extend(self.changed_directions().await?);
        Ok(wrong)
    }

    async fn changed_caches(&self) -> Result<Vec<String>, StoreError> {
        let sql =
            format!("SELECT {CACHE}, checksum FROM caches WHERE id > ? AND checksum IS NOT NULL ORDER BY id LIMIT +?");
        let n = checksum::count(CACHE);
        let (mut wrong, mut last) = (Vec::new(), Vec::new());
        loop {
            // only names of columns are put in
            let rows = self.rows(sqlx::query(AssertSqlSafe(sql.as_str())).bind(&last).bind(PAGE)).await?;
            let Some(end) = rows.last() else { return Ok(wrong) };
            last = advance(last, end.try_get("id")?)?;
            for row in &rows {
                let sum = Checksum::default().columns(row, n)?.finish();
                if row.try_get::<&[u8], _>("checksum")? != sum {
                    let id = CacheId::from_slice(row.try_get("id")?);
                    wrong
                        .push(format!("cache {}: its row has changed", id.map_or("?".to_owned(), |id| id.to_string())));
                }
            }
        }
    }

    async fn changed_directions(&self) -> Result<Vec<String>, StoreError> {
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let rows = sqlx::query("SELECT id, checksum FROM directions WHERE checksum IS NOT NULL");
        let rows = rows.fetch_all(&mut *snapshot).await?;
        let mut wrong = Vec::new();
        for row in &rows {
            let id: &[u8] = row.try_get("id")?;
            let sum = checksum::direction(&mut snapshot, id).await?;
            if sum.as_ref().map(<[u8; checksum::BYTES]>::as_slice) != Some(row.try_get("checksum")?) {
                let id = DirectionId::from_slice(id).map_or("?".to_owned(), |id| id.to_string());
                wrong.push(format!("direction {id}: its record or a vector of it has changed"));
            }
        }
        Ok(wrong)
    }

    /// Hook sets, layouts and provenances: few, and shared by many.
    async fn wrong_digests(&self) -> Result<Vec<String>, StoreError> {
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let mut wrong = Vec::new();
        for (what, query) in [
            ("hook set", "SELECT id, digest, hooks AS said FROM hook_sets"),
            ("layout", "SELECT id, digest, hook_set_id || ' ' || row_shapes AS said FROM layouts"),
            (
                "provenance",
                "SELECT id, digest, n_layers || ' ' || d_model || ' ' || provenance AS said FROM provenances",
            ),
        ] {
            for row in sqlx::query(query).fetch_all(&mut *snapshot).await? {
                let said: &str = row.try_get("said")?;
                if row.try_get::<&[u8], _>("digest")? != blake3::hash(said.as_bytes()).as_bytes() {
                    wrong.push(format!("{what} {} has changed", row.try_get::<i64, _>("id")?));
                }
            }
        }
        Ok(wrong)
    }
}

//! Checksums of rows that nothing else would contradict: of a cache and of a direction, as `verify` and clients see
//! them.
//!
//! A checksum is the first 16 bytes of blake3 over the columns of a row, each with its type and length. Whatever
//! changes the row writes it again in the same transaction. Rows of earlier versions have none until they change.

use sqlx::{Row, SqliteConnection, SqliteExecutor, TypeInfo as _, ValueRef as _, sqlite::SqliteRow};

use crate::{
    error::StoreError,
    index::{SqliteIndex, backfill::Backfill, tx::Tx, write::Write},
};
use residuum_domain::DirectionId;

/// Bytes of a checksum.
pub(crate) const BYTES: usize = 16;
/// Columns of a cache that have one, in the order of the sum; the last two can change.
pub(crate) const CACHE: &str = "id, tenant_id, run_id, item_index, extent_id, hook_set_id, positions, model, text, token_ids, \
    tokens, bos, completion, interventions, origin, n_truncated, reused, metadata, tags, label, created_at, expires_at, pinned";
/// Columns of a direction that have one.
const DIRECTION: &str =
    "id, tenant_id, name, method, model, hook, layers, n_components, d, metadata, provenance, created_at";

/// A sum over values, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checksum(blake3::Hasher);

impl Checksum {
    fn add(&mut self, kind: u8, bytes: &[u8]) -> &mut Self {
        self.0.update(&[kind]);
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub(crate) fn int(&mut self, value: impl Into<i64>) -> &mut Self {
        self.add(b'i', &value.into().to_le_bytes())
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.add(b't', value.as_bytes())
    }

    pub(crate) fn blob(&mut self, value: &[u8]) -> &mut Self {
        self.add(b'b', value)
    }

    pub(crate) fn null(&mut self) -> &mut Self {
        self.add(b'n', &[])
    }

    pub(crate) fn opt_text(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    /// Adds the first `n` columns of a row, as SQLite has them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) fn columns(&mut self, row: &SqliteRow, n: usize) -> Result<&mut Self, StoreError> {
        for column in 0..n {
            let value = row.try_get_raw(column)?;
            if value.is_null() {
                self.null();
                continue;
            }
            match value.type_info().name() {
                "INTEGER" => self.int(row.try_get_unchecked::<i64, _>(column)?),
                "TEXT" => self.text(row.try_get_unchecked::<&str, _>(column)?),
                // whatever else there is has bytes
                _ => self.blob(row.try_get_unchecked::<&[u8], _>(column)?),
            };
        }
        Ok(self)
    }

    pub(crate) fn finish(&self) -> [u8; BYTES] {
        let mut sum = [0; BYTES];
        self.0.finalize_xof().fill(&mut sum);
        sum
    }
}

/// How many columns a list of them names.
pub(crate) fn count(columns: &str) -> usize {
    columns.split(',').count()
}

/// Writes the checksum of a cache anew: for whoever has changed its row.
///
/// # Errors
/// [`StoreError::Database`], [`StoreError::Full`].
pub(crate) async fn renew_cache(conn: &mut SqliteConnection, id: &[u8]) -> Result<(), StoreError> {
    let sql = format!("SELECT {CACHE} FROM caches WHERE id = ?");
    // only names of columns are put in
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(&mut *conn).await?;
    let Some(row) = row else { return Ok(()) };
    let sum = Checksum::default().columns(&row, count(CACHE))?.finish();
    let update = sqlx::query("UPDATE caches SET checksum = ? WHERE id = ?");
    update.bind(sum.as_slice()).bind(id).execute(&mut *conn).await?;
    Ok(())
}

/// The checksum of a direction as its rows are; `None`: there is no such direction.
///
/// # Errors
/// [`StoreError::Database`].
pub(crate) async fn direction(conn: &mut SqliteConnection, id: &[u8]) -> Result<Option<[u8; BYTES]>, StoreError> {
    let sql = format!("SELECT {DIRECTION} FROM directions WHERE id = ?");
    let Some(row) = one(&mut *conn, sql, id).await? else { return Ok(None) };
    let mut sum = Checksum::default();
    sum.columns(&row, count(DIRECTION))?;
    let vectors = sqlx::query(
        "SELECT layer, component, vector, metrics FROM direction_vectors WHERE direction_id = ? ORDER BY layer, component",
    );
    for row in vectors.bind(id).fetch_all(&mut *conn).await? {
        sum.columns(&row, 4)?;
    }
    Ok(Some(sum.finish()))
}

async fn one<'c>(conn: impl SqliteExecutor<'c>, sql: String, id: &[u8]) -> Result<Option<SqliteRow>, StoreError> {
    // only names of columns are put in
    Ok(sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(conn).await?)
}

/// Writes the checksum of a direction anew: for whoever has changed its rows.
///
/// # Errors
/// [`StoreError::Database`], [`StoreError::Full`].
pub(crate) async fn renew_direction(tx: &mut Tx<'_>, id: &DirectionId) -> Result<(), StoreError> {
    let conn = tx.conn().await?;
    if let Some(sum) = direction(&mut *conn, id.as_bytes()).await? {
        let update = sqlx::query("UPDATE directions SET checksum = ? WHERE id = ?");
        update.bind(sum.as_slice()).bind(id.as_bytes().as_slice()).execute(conn).await?;
    }
    Ok(())
}

impl SqliteIndex {
    /// Gives directions of an earlier version their checksums.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`].
    pub(crate) async fn enter_missing_checksums(&self) -> Result<(), StoreError> {
        self.backfill(EnterMissingChecksums).await
    }
}

#[derive(Clone, Copy)]
struct EnterMissingChecksums;

impl Backfill for EnterMissingChecksums {
    const N_MISSING: &str = "SELECT count(*) FROM directions WHERE checksum IS NULL";
    const ROWS_A_CHANGE: i64 = 100;
}

impl Write for EnterMissingChecksums {
    type Output = ();
    // no start without it
    const FREES: bool = true;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let ids: Vec<Vec<u8>> = sqlx::query_scalar("SELECT id FROM directions WHERE checksum IS NULL LIMIT +?")
            .bind(Self::ROWS_A_CHANGE)
            .fetch_all(tx.conn().await?)
            .await?;
        for id in ids.iter().filter_map(|id| DirectionId::from_slice(id)) {
            renew_direction(tx, &id).await?;
        }
        Ok(())
    }
}

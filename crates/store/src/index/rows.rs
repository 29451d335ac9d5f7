//! From rows to domain types. A value that cannot be right is [`StoreError::Damaged`], naming its table and column.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Decode, QueryBuilder, Row, Sqlite, Type, sqlite::SqliteRow};

use crate::error::StoreError;
use residuum_domain::PackId;

/// The columns of one row.
pub(crate) struct Fields<'r> {
    row: &'r SqliteRow,
    table: &'static str,
}

impl<'r> Fields<'r> {
    /// `table` is what errors name.
    pub(crate) fn of(table: &'static str, row: &'r SqliteRow) -> Self {
        Self { row, table }
    }

    fn damaged(&self, column: &str, why: impl fmt::Display) -> StoreError {
        StoreError::damaged(format!("table {}, column {column}: {why}", self.table))
    }

    /// The column as SQLite has it.
    pub(crate) fn get<T: Decode<'r, Sqlite> + Type<Sqlite>>(&self, column: &str) -> Result<T, StoreError> {
        self.row.try_get(column).map_err(|e| self.damaged(column, e))
    }

    /// A count, index or size.
    pub(crate) fn uint<T: TryFrom<i64, Error: fmt::Display>>(&self, column: &str) -> Result<T, StoreError> {
        self.get::<i64>(column)?.try_into().map_err(|e| self.damaged(column, e))
    }

    /// An id or a name: whatever `read` makes of the column.
    pub(crate) fn read<R, T>(&self, column: &str, read: impl FnOnce(R) -> Option<T>) -> Result<T, StoreError>
    where
        R: Decode<'r, Sqlite> + Type<Sqlite>,
    {
        read(self.get(column)?).ok_or_else(|| self.damaged(column, "not a value of its kind"))
    }

    /// A JSON column.
    pub(crate) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        serde_json::from_str(self.get(column)?).map_err(|e| self.damaged(column, e))
    }

    /// A JSON column that may be NULL.
    pub(crate) fn opt_json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, StoreError> {
        let text: Option<&str> = self.get(column)?;
        text.map(serde_json::from_str).transpose().map_err(|e| self.damaged(column, e))
    }

    /// A time.
    pub(crate) fn time(&self, column: &str) -> Result<Timestamp, StoreError> {
        Timestamp::from_microsecond(self.get(column)?).map_err(|e| self.damaged(column, e))
    }

    /// A time that may be NULL.
    pub(crate) fn opt_time(&self, column: &str) -> Result<Option<Timestamp>, StoreError> {
        let micros: Option<i64> = self.get(column)?;
        micros.map(Timestamp::from_microsecond).transpose().map_err(|e| self.damaged(column, e))
    }
}

/// Reads the id of a pack.
pub(crate) fn pack_id(fields: &Fields<'_>, column: &str) -> Result<PackId, StoreError> {
    fields.read(column, PackId::from_slice)
}

/// `value` as JSON text.
///
/// # Errors
/// Never for the plain data kept here; the signature spares a panic.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Misuse(format!("a value has no JSON form: {e}")))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        // writing to a String cannot fail
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// A JSON array of hexadecimal strings: a set of ids as one bind, for `SELECT unhex(value) FROM json_each(?)`.
pub(crate) fn hex_list<'a>(ids: impl IntoIterator<Item = &'a [u8]>) -> String {
    let quoted: Vec<String> = ids.into_iter().map(|id| format!("\"{}\"", hex(id))).collect();
    format!("[{}]", quoted.join(","))
}

/// Adds ` LIMIT …`. For a bound value alone, SQLite would plan the statement again whenever it is run; for an expression it
/// does not.
pub(crate) fn push_limit(query: &mut QueryBuilder<Sqlite>, n: i64) {
    query.push(" LIMIT +").push_bind(n);
}

/// A count as SQLite's signed integer.
///
/// # Errors
/// [`StoreError::Misuse`] past 2^63, which nothing countable reaches.
pub(crate) fn int<T: TryInto<i64>>(n: T) -> Result<i64, StoreError> {
    n.try_into().map_err(|_| StoreError::Misuse("a count does not fit the index".to_owned()))
}

/// Now, to the microsecond the index keeps.
pub(crate) fn now() -> i64 {
    Timestamp::now().as_microsecond()
}

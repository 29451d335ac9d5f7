//! The transaction in which changes are applied.
//!
//! SQLite runs on a thread of its own, and a round trip to it costs more than most statements. So statements are
//! batched: one whose rows nobody needs waits in a script, which is sent together with the next one whose rows
//! somebody does need.

use sqlx::{
    Arguments as _, AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type,
    error::BoxDynError,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use crate::{
    error::StoreError,
    fault::Faults,
    index::{ids::Ids, rows::hex_list},
};
use residuum_domain::PackId;

/// Rows that wait in a script; more have statements of their own.
const MAX_WAITING_ROWS: usize = 64;
/// A script with as many statements is sent before more are added: SQLite copies what is left of a script for each of them.
const MAX_STATEMENTS: usize = 64;
/// A script with as many bytes is sent before more are added.
const MAX_BYTES: usize = 32 << 10;

/// A transaction.
pub(crate) struct Tx<'c> {
    conn: &'c mut SqliteConnection,
    waiting: Script,
    /// Whether it has one change only. A script of several is hardly ever the same again, and not worth a prepared statement.
    alone: bool,
    /// Ids of interned values.
    pub(crate) ids: &'c mut Ids,
    /// The time, in microseconds.
    pub(crate) now: i64,
    /// Blobs to remove once the transaction is committed.
    pub(crate) unlink: Vec<PackId>,
    /// Blobs whose rows have moved, with their bytes: to remove once nobody reads them any more.
    pub(crate) retire: Vec<(PackId, u64)>,
    pub(crate) faults: &'c Faults,
}

impl<'c> Tx<'c> {
    /// Begins a transaction with its first statement. It ends by a `COMMIT` or `ROLLBACK` of whoever began it.
    pub(crate) fn begin(
        conn: &'c mut SqliteConnection,
        ids: &'c mut Ids,
        now: i64,
        faults: &'c Faults,
        alone: bool,
    ) -> Self {
        let mut waiting = Script::default();
        waiting.add("BEGIN IMMEDIATE");
        Self { conn, waiting, alone, ids, now, unlink: Vec::new(), retire: Vec::new(), faults }
    }

    /// Adds a statement that gives no rows, whose binds follow, or a query for [`Self::rows`]. Its error comes from
    /// whatever flushes it.
    pub(crate) fn later(&mut self, sql: &str) -> &mut Script {
        self.waiting.add(sql)
    }

    /// Adds a statement that inserts rows, or several of at most `most` rows where they are many. `sql` goes up to the
    /// `VALUES`, and `bind` adds the values of a row.
    ///
    /// # Errors
    /// That of `bind`, [`StoreError::Database`], [`StoreError::Full`].
    pub(crate) async fn insert<'r, T>(
        &mut self,
        sql: &str,
        rows: &'r [T],
        most: usize,
        mut bind: impl FnMut(&mut Script, &'r T) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        if rows.len() <= MAX_WAITING_ROWS {
            return self.waiting.add(sql).values(rows, bind);
        }
        self.flush().await?;
        let mut chunks = rows.chunks(most);
        let mut make = || {
            let script = chunks.next().map(|chunk| {
                let mut script = Script::default();
                script.add(sql).values(chunk, &mut bind)?;
                script.repeats = chunk.len() == most;
                Ok::<_, StoreError>(script)
            });
            script.transpose()
        };
        let mut next = make()?;
        while let Some(script) = next {
            // the next one is made while SQLite is busy with this one
            let query = script.query(true)?;
            let (done, made) = tokio::join!(biased; query.execute(&mut *self.conn), async { make() });
            done?;
            next = made?;
        }
        Ok(())
    }

    /// Runs what waits if that is much: for callers that add statements in a loop.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`].
    pub(crate) async fn flush_if_large(&mut self) -> Result<(), StoreError> {
        if self.waiting.n_statements >= MAX_STATEMENTS || self.waiting.sql.len() >= MAX_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Runs what waits.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`].
    pub(crate) async fn flush(&mut self) -> Result<(), StoreError> {
        if !self.waiting.is_empty() {
            std::mem::take(&mut self.waiting).query(self.alone)?.execute(&mut *self.conn).await?;
        }
        Ok(())
    }

    /// Runs what waits, and gives the rows of it.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`].
    pub(crate) async fn rows(&mut self) -> Result<Vec<SqliteRow>, StoreError> {
        Ok(std::mem::take(&mut self.waiting).query(self.alone)?.fetch_all(&mut *self.conn).await?)
    }

    /// Runs what waits and gives the connection, for a statement of its own.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`].
    pub(crate) async fn conn(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        self.flush().await?;
        Ok(&mut *self.conn)
    }

    /// Enters tombstones for the blobs that are to be removed: if the process ends before they are, the next start knows that
    /// they were deleted.
    pub(crate) fn enter_tombstones(&mut self) {
        let packs: Vec<PackId> = self.unlink.iter().copied().chain(self.retire.iter().map(|(pack, _)| *pack)).collect();
        if !packs.is_empty() {
            self.later(
                "INSERT OR REPLACE INTO tombstones (id, kind) SELECT unhex(value), 'pack' FROM json_each(?) ORDER BY 1",
            )
            .bind(hex_list(packs.iter().map(|pack| pack.as_bytes().as_slice())));
        }
    }

    /// Forgets what waits.
    pub(crate) fn forget_waiting(&mut self) {
        self.waiting = Script::default();
    }
}

/// Statements that wait, with their binds in order.
pub(crate) struct Script {
    sql: String,
    arguments: SqliteArguments,
    /// The first value that could not be bound.
    error: Option<BoxDynError>,
    n_statements: usize,
    /// Whether others are likely to be the same but for their binds.
    repeats: bool,
}

impl Default for Script {
    fn default() -> Self {
        let arguments = SqliteArguments::default();
        Self { sql: String::new(), arguments, error: None, n_statements: 0, repeats: true }
    }
}

impl Script {
    fn is_empty(&self) -> bool {
        self.n_statements == 0
    }

    fn add(&mut self, sql: &str) -> &mut Self {
        if !self.is_empty() {
            self.sql.push_str("; ");
        }
        self.sql.push_str(sql);
        self.n_statements += 1;
        self
    }

    /// Binds the next `?` of the statement that was added last.
    pub(crate) fn bind<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if let Err(error) = self.arguments.add(value) {
            self.error.get_or_insert(error);
        }
        self
    }

    /// Adds rows to the statement that was added last.
    fn values<'r, T>(
        &mut self,
        rows: &'r [T],
        mut bind: impl FnMut(&mut Self, &'r T) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.sql.push_str(" VALUES ");
        for (i, row) in rows.iter().enumerate() {
            let before = self.arguments.len();
            bind(self, row)?;
            self.sql.push_str(if i == 0 { "(" } else { ", (" });
            for column in 0..self.arguments.len() - before {
                self.sql.push_str(if column == 0 { "?" } else { ", ?" });
            }
            self.sql.push(')');
        }
        self.repeats &= rows.len() == 1;
        Ok(())
    }

    fn query(self, remember: bool) -> Result<Query<'static, Sqlite, SqliteArguments>, StoreError> {
        if let Some(error) = self.error {
            return Err(sqlx::Error::Encode(error).into());
        }
        // SQLite would take what is missing for NULL, and a value too many for the next statement's
        debug_assert_eq!(self.sql.matches('?').count(), self.arguments.len(), "{}", self.sql);
        // made of this crate's literals; everything else is bound
        Ok(sqlx::query_with(AssertSqlSafe(self.sql), self.arguments).persistent(remember && self.repeats))
    }
}

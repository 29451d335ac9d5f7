//! Entering caches in the full-text index: new ones, and those whose rows have changed.

use serde_json::{Map, Value};

use super::{Partitions, Term, entries};
use crate::{
    error::StoreError,
    index::{
        SqliteIndex,
        backfill::Backfill,
        rows::{Fields, to_json},
        tx::Tx,
        write::Write,
    },
};
use residuum_domain::{RunId, TenantId, TextCompletion};

/// Rows inserted by one statement, four binds each. FTS5 writes out its pending tokens before every statement.
const ROWS_A_STATEMENT: usize = 8000;

/// What the terms of a cache are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Described<'a> {
    pub(crate) tenant: TenantId,
    /// Its time: what the index calls it.
    pub(crate) at: i64,
    pub(crate) run: RunId,
    pub(crate) model: &'a str,
    pub(crate) hook_set: i64,
    pub(crate) label: Option<&'a str>,
    pub(crate) tags: &'a [String],
    pub(crate) metadata: &'a Map<String, Value>,
    pub(crate) text: Option<&'a str>,
    pub(crate) completion: Option<&'a str>,
}

impl<'a> Described<'a> {
    /// Its row in the full-text index, in the time partition that begins at `partition`.
    pub(crate) fn entered(&self, partition: i64) -> Entered<'a> {
        Entered { at: self.at, terms: self.terms(partition), text: self.text, completion: self.completion }
    }

    /// Its terms, one after the other.
    fn terms(&self, partition: i64) -> String {
        let mut terms: Vec<String> = [
            Term::Any,
            Term::Partition(partition),
            Term::Run(self.run),
            Term::Model(self.model),
            Term::HookSet(self.hook_set),
        ]
        .into_iter()
        .chain(self.label.map(Term::Label))
        .chain(self.tags.iter().map(|tag| Term::Tag(tag)))
        .map(|term| term.word(self.tenant))
        .collect();
        let entries = entries(self.metadata);
        terms.extend(entries.iter().map(|(key, value)| Term::Metadata(key, value).word(self.tenant)));
        terms.join(" ")
    }
}

/// A row of the full-text index.
pub(crate) struct Entered<'a> {
    at: i64,
    terms: String,
    text: Option<&'a str>,
    completion: Option<&'a str>,
}

/// Enters new caches.
///
/// # Errors
/// [`StoreError::Database`].
pub(crate) async fn insert(tx: &mut Tx<'_>, caches: &[Entered<'_>]) -> Result<(), StoreError> {
    let insert = "INSERT INTO cache_terms (rowid, terms, text, completion)";
    tx.insert(insert, caches, ROWS_A_STATEMENT, |script, cache| {
        script.bind(cache.at).bind(cache.terms.as_str()).bind(cache.text).bind(cache.completion);
        Ok(())
    })
    .await
}

/// What the row of a cache says.
struct Recorded {
    tenant: TenantId,
    at: i64,
    run: RunId,
    model: String,
    hook_set: i64,
    label: Option<String>,
    tags: Vec<String>,
    metadata: Map<String, Value>,
    text: Option<String>,
    completion: Option<TextCompletion>,
}

impl Recorded {
    fn described(&self) -> Described<'_> {
        Described {
            tenant: self.tenant,
            at: self.at,
            run: self.run,
            model: &self.model,
            hook_set: self.hook_set,
            label: self.label.as_deref(),
            tags: &self.tags,
            metadata: &self.metadata,
            text: self.text.as_deref(),
            completion: self.completion.as_ref().map(|c| c.text.as_str()),
        }
    }
}

/// Enters caches again, as their rows are now.
///
/// # Errors
/// [`StoreError::Database`], [`StoreError::Damaged`].
pub(crate) async fn replace(tx: &mut Tx<'_>, times: &[i64]) -> Result<(), StoreError> {
    let times = to_json(times)?;
    tx.later("DELETE FROM cache_terms WHERE rowid IN (SELECT value FROM json_each(?))").bind(&times);
    let rows = sqlx::query(
        "SELECT c.tenant_id, c.created_at, c.run_id, c.model, c.hook_set_id, c.label, c.tags, c.metadata, c.text, \
             c.completion FROM json_each(?) j CROSS JOIN caches c ON c.created_at = j.value",
    )
    .bind(&times)
    .fetch_all(tx.conn().await?)
    .await?;
    let mut recorded = Vec::with_capacity(rows.len());
    for row in &rows {
        let f = Fields::of("caches", row);
        recorded.push(Recorded {
            tenant: TenantId(f.get("tenant_id")?),
            at: f.get("created_at")?,
            run: f.read("run_id", RunId::from_slice)?,
            model: f.get("model")?,
            hook_set: f.get("hook_set_id")?,
            label: f.get("label")?,
            tags: f.json("tags")?,
            metadata: f.json("metadata")?,
            text: f.get("text")?,
            completion: f.opt_json("completion")?,
        });
    }
    let times: Vec<i64> = recorded.iter().map(|r| r.at).collect();
    let partitions = Partitions::find(tx).await?.enter(tx, &times).await?;
    let entered: Vec<Entered<'_>> =
        recorded.iter().zip(partitions).map(|(r, partition)| r.described().entered(partition)).collect();
    insert(tx, &entered).await
}

impl SqliteIndex {
    /// Enters what an older index did not have.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`], [`StoreError::Damaged`].
    pub(crate) async fn enter_missing_terms(&self) -> Result<(), StoreError> {
        self.backfill(EnterMissingTerms).await
    }
}

#[derive(Clone, Copy)]
struct EnterMissingTerms;

impl Backfill for EnterMissingTerms {
    const N_MISSING: &str = "SELECT count(*) FROM cache_terms_missing";
    const ROWS_A_CHANGE: i64 = 2000;
}

impl Write for EnterMissingTerms {
    type Output = ();
    // no start without it
    const FREES: bool = true;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let times: Vec<i64> = sqlx::query_scalar(
            "DELETE FROM cache_terms_missing WHERE created_at IN \
                 (SELECT created_at FROM cache_terms_missing ORDER BY created_at LIMIT +?) RETURNING created_at",
        )
        .bind(Self::ROWS_A_CHANGE)
        .fetch_all(tx.conn().await?)
        .await?;
        replace(tx, &times).await
    }
}

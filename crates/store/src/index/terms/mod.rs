//! The terms of a cache: whatever a filter can ask for, each as one word of an index of words.
//!
//! A term is a hash of what it says and whose it is, so a term finds caches of its tenant only. Metadata has a term for every
//! key of every object, and one spelling for equal values.

mod merge;

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

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
#[cfg(test)]
pub(crate) use merge::MergeTerms;
use residuum_domain::{RunId, TenantId, TextCompletion};

/// Rows inserted by one statement, four binds each. The index of words writes out what it has before every statement.
const ROWS_A_STATEMENT: usize = 8000;
/// Caches of one stretch of time.
pub(crate) const BLOCK: i64 = if cfg!(test) { 1024 } else { 8192 };
/// Letters of a term, five bits each: two that mean different things are never the same.
const LETTERS: usize = 20;

/// What a filter can ask a cache for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Term<'a> {
    /// Belongs to the tenant.
    Any,
    /// Was stored in the stretch of time that begins then.
    Block(i64),
    Run(RunId),
    Model(&'a str),
    HookSet(i64),
    Label(&'a str),
    Tag(&'a str),
    /// A key and its value, spelled by [`entry`].
    Metadata(&'a str, &'a str),
}

impl Term<'_> {
    /// The term as a word that no tokeniser divides.
    pub(crate) fn word(self, tenant: TenantId) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&tenant.0.to_le_bytes());
        match self {
            Self::Any => hasher.update(b"any"),
            Self::Block(first_at) => hasher.update(b"block ").update(&first_at.to_le_bytes()),
            Self::Run(run) => hasher.update(b"run ").update(run.as_bytes()),
            Self::Model(model) => hasher.update(b"model ").update(model.as_bytes()),
            Self::HookSet(set) => hasher.update(b"hooks ").update(&set.to_le_bytes()),
            Self::Label(label) => hasher.update(b"label ").update(label.as_bytes()),
            Self::Tag(tag) => hasher.update(b"tag ").update(tag.as_bytes()),
            Self::Metadata(key, value) => {
                let length = u64::try_from(key.len()).unwrap_or(u64::MAX);
                hasher
                    .update(b"metadata ")
                    .update(&length.to_le_bytes())
                    .update(key.as_bytes())
                    .update(value.as_bytes())
            }
        };
        let hash = hasher.finalize();
        hash.as_bytes()[..LETTERS]
            .iter()
            .map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(byte & 31)]))
            .collect()
    }
}

/// A key and its value, in the index's spelling.
pub(crate) type Entry = (String, String);

/// Every key of the objects in `metadata` with its value: `deep.a` is the key `a` of the object `deep`.
pub(crate) fn entries(metadata: &Map<String, Value>) -> Vec<Entry> {
    let mut found = Vec::with_capacity(metadata.len());
    collect("", metadata, &mut found);
    found
}

fn collect(path: &str, object: &Map<String, Value>, found: &mut Vec<Entry>) {
    for (key, value) in object {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        found.push(entry(&path, value));
        if let Value::Object(inner) = value {
            collect(&path, inner, found);
        }
    }
}

/// A key, as [`entries`] spells it, with the value it is to have.
pub(crate) fn entry(key: &str, value: &Value) -> Entry {
    let mut spelled = String::new();
    spell(value, &mut spelled);
    (key.to_owned(), spelled)
}

/// Equal values have one spelling: numbers by their value, objects by their keys in order.
fn spell(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => spell_number(n, out),
        Value::String(text) => out.push_str(&Value::from(text.as_str()).to_string()),
        Value::Array(items) => {
            out.push('[');
            for item in items {
                spell(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(object) => {
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for key in keys {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                spell(&object[key], out);
                out.push(',');
            }
            out.push('}');
        }
    }
}

/// 1 and 1.0 are one number.
fn spell_number(n: &Number, out: &mut String) {
    const EXACT: f64 = (1u64 << 53) as f64;
    let whole = n.as_f64().filter(|x| !n.is_i64() && !n.is_u64() && x.fract() == 0.0 && x.abs() <= EXACT);
    // writing to a String cannot fail
    let _ = match whole {
        Some(x) => write!(out, "{}", if x == 0.0 { 0.0 } else { x }),
        None => write!(out, "{n}"),
    };
}

/// A cache as its terms are made of it.
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
    /// Its row in the index of words, in the stretch of time that begins at `block`.
    pub(crate) fn entered(&self, block: i64) -> Entered<'a> {
        Entered { at: self.at, terms: self.terms(block), text: self.text, completion: self.completion }
    }

    /// Its terms, one after the other.
    fn terms(&self, block: i64) -> String {
        let mut terms: Vec<String> =
            [Term::Any, Term::Block(block), Term::Run(self.run), Term::Model(self.model), Term::HookSet(self.hook_set)]
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

/// A row of the index of words.
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

/// The last stretch of time.
pub(crate) struct Blocks {
    pub(crate) first_at: i64,
    /// Time of its last cache.
    pub(crate) last_at: i64,
    /// Caches that were entered in it.
    pub(crate) n: i64,
}

impl Blocks {
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Full`] of what waits.
    pub(crate) async fn find(tx: &mut Tx<'_>) -> Result<Self, StoreError> {
        let (first_at, last_at, n) =
            sqlx::query_as("SELECT first_at, last_at, n FROM cache_blocks ORDER BY first_at DESC LIMIT 1")
                .fetch_one(tx.conn().await?)
                .await?;
        Ok(Self { first_at, last_at, n })
    }

    /// Where each of the caches stored at these times begins its stretch of time: a new one is begun where the last is full,
    /// behind everything that is there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn enter(mut self, tx: &mut Tx<'_>, times: &[i64]) -> Result<Vec<i64>, StoreError> {
        let mut blocks = Vec::with_capacity(times.len());
        for at in times.iter().copied() {
            if at < self.first_at {
                let older = sqlx::query_scalar(
                    "SELECT first_at FROM cache_blocks WHERE first_at <= ? ORDER BY first_at DESC LIMIT 1",
                );
                blocks.push(older.bind(at).fetch_one(tx.conn().await?).await?);
                continue;
            }
            // one that was edited is entered again, and counts once
            if at > self.last_at {
                if self.n >= BLOCK {
                    self.save(tx);
                    (self.first_at, self.n) = (at, 0);
                }
                (self.last_at, self.n) = (at, self.n + 1);
            }
            blocks.push(self.first_at);
        }
        self.save(tx);
        Ok(blocks)
    }

    fn save(&self, tx: &mut Tx<'_>) {
        tx.later("INSERT OR REPLACE INTO cache_blocks (first_at, last_at, n) VALUES (?, ?, ?)")
            .bind(self.first_at)
            .bind(self.last_at)
            .bind(self.n);
    }
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

/// Enters caches that the index of words has, or may have, as their rows are now.
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
    let blocks = Blocks::find(tx).await?.enter(tx, &times).await?;
    let entered: Vec<Entered<'_>> =
        recorded.iter().zip(blocks).map(|(r, block)| r.described().entered(block)).collect();
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_values_have_one_spelling_and_others_another() {
        let spelled = |value: Value| entry("k", &value).1;
        assert_eq!(spelled(json!(1)), spelled(json!(1.0)));
        assert_eq!(spelled(json!(0)), spelled(json!(-0.0)));
        assert_eq!(spelled(json!({"a": 1, "b": [2.0]})), spelled(json!({"b": [2], "a": 1.0})));
        let long = "x".repeat(300);
        let values = [
            json!(1),
            json!("1"),
            json!(1.5),
            json!(0.1),
            json!(0.30000000000000004),
            json!(0.3),
            json!(true),
            json!("true"),
            json!(null),
            json!("null"),
            json!([]),
            json!({}),
            json!([1]),
            json!([[1]]),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(1e300),
            json!(long),
            json!(format!("{long}y")),
            json!({"a": "b"}),
            json!({"a": "b,"}),
        ];
        let all: std::collections::HashSet<String> = values.iter().map(|v| spelled(v.clone())).collect();
        assert_eq!(all.len(), values.len());
    }

    #[test]
    fn keys_lead_into_objects_and_not_into_lists() {
        let metadata = json!({"a": {"b": {"c": 1}, "d": [{"e": 2}]}, "f": "g"});
        let keys: Vec<String> = entries(metadata.as_object().unwrap()).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a", "a.b", "a.b.c", "a.d", "f"]);
    }

    #[test]
    fn terms_that_mean_something_else_are_another_word() {
        let terms = [
            Term::Any,
            Term::Block(1),
            Term::Model("a"),
            Term::Label("a"),
            Term::Tag("a"),
            Term::Tag("b"),
            Term::Tag(""),
            Term::HookSet(1),
            Term::Metadata("a", "b"),
            Term::Metadata("ab", ""),
            Term::Metadata("", "ab"),
        ];
        let words: std::collections::HashSet<String> =
            [TenantId(1), TenantId(2)].iter().flat_map(|t| terms.map(|term| term.word(*t))).collect();
        assert_eq!(words.len(), 2 * terms.len());
        assert!(words.iter().all(|w| w.len() == LETTERS && w.bytes().all(|b| b.is_ascii_alphanumeric())));
    }
}

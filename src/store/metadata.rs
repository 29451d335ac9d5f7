//! The metadata of caches as an index has it: a row for every key of every object, with one spelling for equal values.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};
use sqlx::{QueryBuilder, Row, Sqlite};

use super::{
    Store,
    error::StoreError,
    rows::Fields,
    writer::{Tx, Write},
};
use crate::domain::TenantId;

/// Longest key or value that is kept as it is; of longer ones the beginning and a hash.
const MAX_BYTES: usize = 256;
/// Rows inserted by one statement: four binds each.
const ROWS_A_STATEMENT: usize = 1000;
/// Caches of an older index that are entered in one transaction.
const CACHES_A_CHANGE: i64 = 2000;

/// A key and its value, in the index's spelling.
pub(super) type Entry = (String, String);

/// Every key of the objects in `metadata` with its value: `deep.a` is the key `a` of the object `deep`.
pub(super) fn entries(metadata: &Map<String, Value>) -> Vec<Entry> {
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
pub(super) fn entry(key: &str, value: &Value) -> Entry {
    let mut spelled = String::new();
    spell(value, &mut spelled);
    (shortened(key.to_owned()), shortened(spelled))
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

fn shortened(text: String) -> String {
    if text.len() <= MAX_BYTES {
        return text;
    }
    let hash = blake3::hash(text.as_bytes()).to_hex();
    let end = (0..=MAX_BYTES - 64).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    // shorter than anything that is kept whole and ends alike only if it is that very text
    format!("{}\u{0}{hash}", &text[..end])
}

/// Enters the metadata of new caches, each with its tenant and its time.
///
/// # Errors
/// [`StoreError::Database`].
pub(super) async fn insert<'a>(
    tx: &mut Tx<'_>,
    caches: impl IntoIterator<Item = (TenantId, i64, &'a Map<String, Value>)>,
) -> Result<(), StoreError> {
    let mut rows: Vec<(TenantId, i64, Entry)> = Vec::new();
    for (tenant, at, metadata) in caches {
        rows.extend(entries(metadata).into_iter().map(|entry| (tenant, at, entry)));
    }
    for chunk in rows.chunks(ROWS_A_STATEMENT) {
        let mut query =
            QueryBuilder::<Sqlite>::new("INSERT OR IGNORE INTO cache_metadata (tenant_id, created_at, key, value) ");
        query.push_values(chunk, |mut row, (tenant, at, (key, value))| {
            row.push_bind(tenant.0).push_bind(*at).push_bind(key.as_str()).push_bind(value.as_str());
        });
        query.build().persistent(chunk.len() == ROWS_A_STATEMENT).execute(&mut *tx.conn).await?;
    }
    Ok(())
}

/// Enters the metadata of a cache anew.
///
/// # Errors
/// [`StoreError::Database`].
pub(super) async fn replace(
    tx: &mut Tx<'_>,
    tenant: TenantId,
    at: i64,
    metadata: &Map<String, Value>,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM cache_metadata WHERE created_at = ?").bind(at).execute(&mut *tx.conn).await?;
    insert(tx, [(tenant, at, metadata)]).await
}

impl Store {
    /// Enters what an older index did not have.
    pub(super) async fn enter_missing_metadata(&self) -> Result<(), StoreError> {
        while self.write(EnterMissing).await? > 0 {}
        Ok(())
    }
}

struct EnterMissing;

impl Write for EnterMissing {
    type Output = usize;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<usize, StoreError> {
        let rows = sqlx::query(
            "DELETE FROM cache_metadata_missing WHERE created_at IN \
                 (SELECT created_at FROM cache_metadata_missing ORDER BY created_at LIMIT ?) RETURNING created_at",
        )
        .bind(CACHES_A_CHANGE)
        .fetch_all(&mut *tx.conn)
        .await?;
        for row in &rows {
            let at: i64 = row.try_get(0)?;
            let cache = sqlx::query("SELECT tenant_id, metadata FROM caches WHERE created_at = ?")
                .bind(at)
                .fetch_optional(&mut *tx.conn)
                .await?;
            if let Some(cache) = cache {
                let f = Fields::of("caches", &cache);
                let metadata: Map<String, Value> = f.json("metadata")?;
                insert(tx, [(TenantId(f.get("tenant_id")?), at, &metadata)]).await?;
            }
        }
        Ok(rows.len())
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
        assert!(all.iter().all(|s| s.len() <= MAX_BYTES + 1));
    }

    #[test]
    fn keys_lead_into_objects_and_not_into_lists() {
        let metadata = json!({"a": {"b": {"c": 1}, "d": [{"e": 2}]}, "f": "g"});
        let keys: Vec<String> = entries(metadata.as_object().unwrap()).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a", "a.b", "a.b.c", "a.d", "f"]);
    }
}

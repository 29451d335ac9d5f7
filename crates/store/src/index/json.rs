//! Values that are stored as JSON: tags, and metadata with its edits.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::{error::StoreError, index::rows::to_json};

/// Tags in the order posted, each once.
pub(crate) fn distinct(tags: &[String]) -> Vec<&str> {
    let mut seen = HashSet::new();
    tags.iter().map(String::as_str).filter(|tag| seen.insert(*tag)).collect()
}

/// Tags as the row of a cache has them.
///
/// # Errors
/// [`StoreError::Misuse`].
pub(crate) fn tags_json(tags: &[String]) -> Result<String, StoreError> {
    to_json(&distinct(tags))
}

/// JSON merge patch (RFC 7396) of an object by an object.
pub(crate) fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.shift_remove(key);
            }
            Value::Object(patch) => {
                let inner = target.entry(key.clone()).or_insert(Value::Null);
                if !inner.is_object() {
                    *inner = Value::Object(Map::new());
                }
                if let Value::Object(inner) = inner {
                    merge(inner, patch);
                }
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
}

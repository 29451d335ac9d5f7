//! Components that nothing refers to. Responses that operations have in common are made for all kinds of operations, of
//! which there may be none; a schema is never without use, which a test checks.

use std::collections::BTreeSet;

use serde_json::Value;

/// Removes shared responses and headers that nothing refers to.
pub fn drop_responses(document: &mut Value) {
    for kind in ["responses", "headers"] {
        let used = references(document);
        if let Some(parts) = document["components"][kind].as_object_mut() {
            parts.retain(|name, _| used.contains(&format!("#/components/{kind}/{name}")));
        }
    }
}

/// Every reference of the document.
pub fn references(part: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(part, &mut found);
    found
}

fn collect(part: &Value, found: &mut BTreeSet<String>) {
    match part {
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| collect(field, found));
        }
        _ => {}
    }
}

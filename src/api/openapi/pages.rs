//! Pages of listings. utoipa calls them `Page_Cache` and writes the schema of the item out; clients need it to be the
//! schema of the item that other operations answer.

use serde_json::{Value, json};

const PREFIX: &str = "Page_";

/// Renames every page to `CachePage`, makes it refer to its item, and gives it the example of the item.
pub fn refer_to_items(document: &mut Value) {
    let Some(schemas) = document["components"]["schemas"].as_object_mut() else { return };
    let renamed = |name: &str| name.strip_prefix(PREFIX).map(|item| format!("{item}Page"));
    let examples: Vec<(String, Value)> =
        schemas.iter().map(|(name, schema)| (name.clone(), schema["example"].clone())).collect();
    *schemas = std::mem::take(schemas)
        .into_iter()
        .map(|(name, mut page)| {
            let Some(item) = name.strip_prefix(PREFIX) else { return (name, page) };
            page["properties"]["items"]["items"] = json!({"$ref": format!("#/components/schemas/{item}")});
            if let Some((_, example)) = examples.iter().find(|(name, _)| name == item) {
                page["example"] = json!({"items": [example], "next_cursor": null});
            }
            (renamed(&name).unwrap_or(name), page)
        })
        .collect();
    rename_references(document, &renamed);
}

fn rename_references(part: &mut Value, renamed: &impl Fn(&str) -> Option<String>) {
    match part {
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(item, renamed)),
        Value::Object(fields) => {
            let name =
                fields.get("$ref").and_then(Value::as_str).and_then(|at| at.strip_prefix("#/components/schemas/"));
            if let Some(name) = name.and_then(renamed) {
                fields["$ref"] = json!(format!("#/components/schemas/{name}"));
            }
            fields.values_mut().for_each(|field| rename_references(field, renamed));
        }
        _ => {}
    }
}

//! Pages of listings. utoipa calls them `Page_Cache` and writes the schema of the item out; clients need it to be the
//! schema of the item that other operations answer.

use serde_json::{Value, json};

const PREFIX: &str = "Page_";

/// Renames every page to `CachePage`, makes it refer to its item, and gives it the example of the item.
pub fn refer_to_items(document: &mut Value) {
    let Some(schemas) = document["components"]["schemas"].as_object_mut() else { return };
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
            (page_of(item), page)
        })
        .collect();
    rename_references(document);
}

/// The name of the pages of these items.
fn page_of(item: &str) -> String {
    format!("{item}Page")
}

fn rename_references(part: &mut Value) {
    match part {
        Value::Array(items) => items.iter_mut().for_each(rename_references),
        Value::Object(fields) => {
            let at = fields.get("$ref").and_then(Value::as_str);
            let item = at.and_then(|at| at.strip_prefix("#/components/schemas/")?.strip_prefix(PREFIX));
            if let Some(page) = item.map(page_of) {
                fields["$ref"] = json!(format!("#/components/schemas/{page}"));
            }
            fields.values_mut().for_each(rename_references);
        }
        _ => {}
    }
}

//! Finds the schemas and operations of a document. A member named `schema` or `type` is one only where the
//! specification of OpenAPI says so: bodies and examples have such names, too.

use serde_json::Value;

/// Members of a schema that are schemas.
const ONE: [&str; 5] = ["items", "additionalProperties", "not", "contentSchema", "propertyNames"];
/// Members of a schema that are lists of schemas.
const LISTS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];

/// Every operation of the document.
pub fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    paths.filter_map(Value::as_object_mut).flat_map(|item| item.values_mut()).filter(|part| part.is_object())
}

/// Calls `change` with every schema of the document, the innermost first.
pub fn each_schema(document: &mut Value, change: &mut impl FnMut(&mut Value)) {
    let Some(document) = document.as_object_mut() else { return };
    if let Some(paths) = document.get_mut("paths") {
        around(paths, change);
    }
    for (kind, parts) in document.get_mut("components").and_then(Value::as_object_mut).into_iter().flatten() {
        let parts = parts.as_object_mut().into_iter().flat_map(|parts| parts.values_mut());
        parts.for_each(|part| if kind == "schemas" { within(part, change) } else { around(part, change) });
    }
}

/// Looks for schemas in a part of the document that is not a schema.
fn around(part: &mut Value, change: &mut impl FnMut(&mut Value)) {
    match part {
        Value::Array(items) => items.iter_mut().for_each(|item| around(item, change)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "schema" => within(field, change),
                    "example" | "examples" => {}
                    _ => around(field, change),
                }
            }
        }
        _ => {}
    }
}

/// Calls `change` with a schema and every schema in it, the innermost first.
pub fn within(schema: &mut Value, change: &mut impl FnMut(&mut Value)) {
    if let Some(fields) = schema.as_object_mut() {
        for name in ONE {
            if let Some(inner) = fields.get_mut(name).filter(|inner| inner.is_object()) {
                within(inner, change);
            }
        }
        let lists = LISTS.map(|name| fields.get(name).is_some().then_some(name));
        for name in lists.into_iter().flatten() {
            fields[name].as_array_mut().into_iter().flatten().for_each(|inner| within(inner, change));
        }
        let properties = fields.get_mut("properties").and_then(Value::as_object_mut);
        properties.into_iter().flat_map(|p| p.values_mut()).for_each(|inner| within(inner, change));
    }
    change(schema);
}

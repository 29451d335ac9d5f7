//! Writes the document for version 3.0 of OpenAPI, whose schemas are an older dialect: null is a property of a type, and
//! there is one example, and no tuple.

use serde_json::{Map, Value, json};

use super::visit::each_schema;

/// The same document for OpenAPI 3.0.
pub fn convert(document: &Value) -> Value {
    let mut document = document.clone();
    document["openapi"] = json!("3.0.3");
    // a licence has no SPDX expression there
    document["info"]["license"] = json!({"name": document["info"]["license"]["name"]});
    each_schema(&mut document, &mut convert_schema);
    document
}

fn convert_schema(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    fields.remove("contentSchema");
    fields.remove("propertyNames");
    if fields.remove("contentMediaType").is_some_and(|media| media == "application/octet-stream") {
        fields.insert("format".to_owned(), json!("binary"));
    }
    if let Some(value) = fields.remove("const") {
        fields.insert("enum".to_owned(), json!([value]));
    }
    if let Some(first) = fields.remove("examples").as_ref().and_then(|all| all.get(0)) {
        fields.insert("example".to_owned(), first.clone());
    }
    if let Some(parts) = fields.remove("prefixItems") {
        fields.insert("items".to_owned(), json!({"anyOf": parts}));
    }
    for (bound, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        if let Some(limit) = fields.get(exclusive).filter(|limit| limit.is_number()).cloned() {
            fields.insert(bound.to_owned(), limit);
            fields.insert(exclusive.to_owned(), json!(true));
        }
    }
    convert_null(fields);
    // a reference has no other members there
    if fields.len() > 1
        && let Some(at) = fields.remove("$ref")
    {
        fields.insert("allOf".to_owned(), json!([{"$ref": at}]));
    }
}

/// Turns null as a type or as an alternative into `nullable`.
fn convert_null(fields: &mut Map<String, Value>) {
    let is_null = |one: &Value| one == "null" || one["type"] == "null";
    let mut nullable = false;
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        let before = types.len();
        types.retain(|one| !is_null(one));
        nullable |= types.len() < before;
        match types.as_slice() {
            [one] => fields["type"] = one.clone(),
            _ => {
                fields.remove("type");
            }
        }
    }
    for name in ["anyOf", "oneOf"] {
        let Some(Value::Array(forms)) = fields.get_mut(name) else { continue };
        let before = forms.len();
        forms.retain(|one| !is_null(one));
        nullable |= forms.len() < before;
        if let [one] = forms.as_slice() {
            let one = one.clone();
            fields.remove(name);
            fields.insert("allOf".to_owned(), json!([one]));
        }
    }
    if nullable {
        fields.insert("nullable".to_owned(), json!(true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_becomes_a_property_and_references_stand_alone() {
        let converted = |mut schema: Value| {
            convert_schema(&mut schema);
            schema
        };
        assert_eq!(converted(json!({"type": ["string", "null"]})), json!({"type": "string", "nullable": true}));
        assert_eq!(
            converted(json!({"anyOf": [{"type": "null"}, {"$ref": "#/a"}], "description": "x"})),
            json!({"description": "x", "allOf": [{"$ref": "#/a"}], "nullable": true})
        );
        assert_eq!(converted(json!({"$ref": "#/a"})), json!({"$ref": "#/a"}));
        assert_eq!(
            converted(json!({"$ref": "#/a", "description": "x"})),
            json!({"description": "x", "allOf": [{"$ref": "#/a"}]})
        );
        assert_eq!(
            converted(json!({"type": "number", "exclusiveMinimum": 0})),
            json!({"type": "number", "minimum": 0, "exclusiveMinimum": true})
        );
    }

    #[test]
    fn nothing_of_version_3_1_is_left() {
        let text = convert(super::super::document()).to_string();
        for newer in
            ["\"type\":[", "\"type\":\"null\"", "\"const\":", "contentSchema", "contentMediaType", "prefixItems"]
        {
            assert!(!text.contains(newer), "{newer}");
        }
    }
}

//! Writes the document for version 3.0 of OpenAPI, whose schemas are an older dialect: null is a property of a type, and
//! there is one example, and no tuple. Its generators (progenitor) know one kind of body and one type of answer for each
//! operation.

use serde_json::{Map, Value, json};

use super::walk::{each_schema, operations};

const JSON: &str = "application/json";

/// The same document for OpenAPI 3.0.
pub fn convert(document: &Value) -> Value {
    let mut document = document.clone();
    document["openapi"] = json!("3.0.3");
    // a licence has no SPDX expression there
    document["info"]["license"] = json!({"name": document["info"]["license"]["name"]});
    each_schema(&mut document, &mut convert_schema);
    for operation in operations(&mut document) {
        if let Some(content) = operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut) {
            keep_one(content);
        }
        if let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
            // optional conditions, whose names are the client's own: progenitor has no such style
            parameters.retain(|parameter| parameter["style"] != "deepObject");
        }
        if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
            unite_answers(responses);
        }
    }
    document
}

/// Keeps one kind of body: JSON, or else plain bytes.
fn keep_one(content: &mut Map<String, Value>) {
    let kept = [JSON, "application/octet-stream"].into_iter().find(|media| content.contains_key(*media));
    if let Some(kept) = kept {
        content.retain(|media, _| media == kept);
    }
}

/// Gives all answers of success one type: that of the first, which may be a union of the others; none, if one of them
/// has no body. A part of a body, 206, is only sent to a client that asks for it with a header of its own.
fn unite_answers(responses: &mut Map<String, Value>) {
    responses.retain(|code, _| code != "206");
    let good = |code: &str| code.starts_with('2');
    let first = responses
        .iter()
        .find(|(code, _)| good(code))
        .map(|(_, answer)| answer["content"][JSON]["schema"].clone())
        .filter(Value::is_object);
    let is_empty = responses.iter().any(|(code, answer)| good(code) && answer.get("content").is_none());
    for (_, answer) in responses.iter_mut().filter(|(code, _)| good(code)) {
        if is_empty && let Some(answer) = answer.as_object_mut() {
            answer.remove("content");
        }
        if let (Some(schema), Some(first)) = (answer.pointer_mut("/content/application~1json/schema"), &first) {
            *schema = first.clone();
        }
    }
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
    fn operations_have_one_type_of_body_and_of_answer() {
        let json = |schema: &str| json!({"content": {JSON: {"schema": {"$ref": schema}}}});
        let mut answers = json!({"200": json("#/either"), "201": json("#/one"), "206": {}, "400": json("#/problem")});
        unite_answers(answers.as_object_mut().unwrap());
        assert_eq!(answers, json!({"200": json("#/either"), "201": json("#/either"), "400": json("#/problem")}));
        let mut answers = json!({"202": json("#/one"), "204": {"description": "gone"}});
        unite_answers(answers.as_object_mut().unwrap());
        assert_eq!(answers, json!({"202": {}, "204": {"description": "gone"}}));
        let mut content = json!({"multipart/form-data": {}, JSON: {}});
        keep_one(content.as_object_mut().unwrap());
        assert_eq!(content, json!({JSON: {}}));
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

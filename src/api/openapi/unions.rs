//! Schemas with alternatives, in the form that validators and generators of clients agree on.

use serde_json::{Map, Value, json};

use super::visit::each_schema;

/// Turns `oneOf` without a discriminator into `anyOf`. Some values fit several alternatives, such as `[]` an array of
/// texts and one of numbers, which `oneOf` forbids.
pub fn allow_overlap(document: &mut Value) {
    each_schema(document, &mut |schema| {
        let Some(fields) = schema.as_object_mut() else { return };
        if !fields.contains_key("discriminator") {
            rename(fields, "oneOf", "anyOf");
        }
    });
}

/// Renames a member, which keeps its place.
fn rename(fields: &mut Map<String, Value>, from: &str, to: &str) {
    if fields.contains_key(from) {
        let renamed = |name: String| if name == from { to.to_owned() } else { name };
        *fields = std::mem::take(fields).into_iter().map(|(name, value)| (renamed(name), value)).collect();
    }
}

/// The forms of a new direction, by their `method`.
const DIRECTION_FORMS: [(&str, &str); 4] = [
    ("DirectionUpload", "upload"),
    ("DirectionOfMeans", "difference_of_means"),
    ("DirectionOfVariance", "pca"),
    ("DirectionOfProbe", "probe"),
];

/// Gives each form of a new direction its `method`, which the server reads before it knows the form.
pub fn tag_directions(schemas: &mut Value) {
    for (name, method) in DIRECTION_FORMS {
        let form = &mut schemas[name];
        form["properties"]["method"] = json!({
            "type": "string", "enum": [method],
            "description": "How the direction is made; decides the form of the body.",
        });
        if let Some(required) = form["required"].as_array_mut() {
            required.insert(0, json!("method"));
        }
    }
    let reference = |name: &str| format!("#/components/schemas/{name}");
    let request = &mut schemas["DirectionRequest"];
    request["oneOf"] = DIRECTION_FORMS.iter().map(|(name, _)| json!({"$ref": reference(name)})).collect();
    let mapping = DIRECTION_FORMS.iter().map(|(name, method)| ((*method).to_owned(), json!(reference(name))));
    request["discriminator"] = json!({"propertyName": "method", "mapping": Value::Object(mapping.collect())});
}

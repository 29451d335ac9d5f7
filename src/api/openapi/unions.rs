//! Schemas with alternatives, and defaults, in the form that validators and generators of clients agree on.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    unused::references,
    walk::{each_schema, within},
};

const SCHEMAS: &str = "#/components/schemas/";

/// Writes unions without unions in them: alternatives that are unions become several, and all words become one list.
/// Generators of clients lose types of unions that are nested, or have references with a description.
pub fn flatten(document: &mut Value) {
    let before = references(document);
    let schemas = document["components"]["schemas"].clone();
    each_schema(document, &mut |schema| {
        let Some(fields) = schema.as_object_mut() else { return };
        if !fields.contains_key("discriminator") {
            flatten_one(fields, &schemas);
        } else if let Some(Value::Array(forms)) = fields.get_mut("oneOf") {
            forms.iter_mut().for_each(|form| *form = bare(form));
        }
    });
    // what was a reference before and is written out now
    let gone: BTreeSet<String> = before.difference(&references(document)).cloned().collect();
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        schemas.retain(|name, _| !gone.contains(&format!("{SCHEMAS}{name}")));
    }
}

fn flatten_one(union: &mut Map<String, Value>, schemas: &Value) {
    let Some(Value::Array(forms)) = union.get("oneOf") else { return };
    let (mut words, mut others) = (Vec::new(), Vec::new());
    if forms.iter().filter(|form| form["type"] != "null").count() > 1 {
        forms.iter().for_each(|form| spread(form, schemas, &mut words, &mut others));
    } else {
        others = forms.iter().map(bare).collect();
    }
    let arrays = others.iter().filter(|form| form["type"] == "array").count();
    if arrays > 1 {
        // an empty array would fit all of them
        others.iter_mut().filter(|form| form["type"] == "array").for_each(|form| form["minItems"] = json!(1));
    }
    // some generators take the first that a value fits, and an object without required members fits every object
    others.sort_by_key(|form| {
        target(form, schemas).is_some_and(|meant| meant["type"] == "object" && meant.get("required").is_none())
    });
    if !words.is_empty() {
        others.insert(0, json!({"type": "string", "enum": words}));
    }
    let described = forms.iter().find_map(|form| form.get("$ref").and(form.get("description")).cloned());
    if let Some(description) = described.filter(|_| others.len() <= 2) {
        union.entry("description").or_insert(description);
    }
    if let [Value::Object(only)] = others.as_slice() {
        union.shift_remove("oneOf");
        union.extend(only.clone());
    } else {
        union["oneOf"] = Value::Array(others);
    }
}

/// Sorts an alternative, or those that it consists of, into words and others.
fn spread(form: &Value, schemas: &Value, words: &mut Vec<Value>, others: &mut Vec<Value>) {
    let meant = target(form, schemas).unwrap_or(form);
    if let Some(listed) = meant["enum"].as_array().filter(|_| meant["type"] == "string") {
        listed.iter().for_each(|word| {
            if !words.contains(word) {
                words.push(word.clone());
            }
        });
    } else if let Some(forms) = meant["oneOf"].as_array().filter(|_| meant.get("discriminator").is_none()) {
        forms.iter().for_each(|form| spread(form, schemas, words, others));
    } else {
        let form = bare(form);
        if !others.contains(&form) {
            others.push(form);
        }
    }
}

/// The schema that an alternative refers to.
fn target<'a>(form: &Value, schemas: &'a Value) -> Option<&'a Value> {
    form["$ref"].as_str().and_then(|at| at.strip_prefix(SCHEMAS)).map(|name| &schemas[name])
}

/// An alternative without the description of its place; a reference has one where it leads.
fn bare(form: &Value) -> Value {
    form.get("$ref").map_or_else(|| form.clone(), |at| json!({"$ref": at}))
}

/// Moves the defaults of bodies into the descriptions. A field with `default` is always there for some generators, so
/// that calls had to give it.
pub fn move_defaults(document: &mut Value) {
    let schemas = document["components"]["schemas"].as_object_mut();
    for schema in schemas.into_iter().flat_map(|schemas| schemas.values_mut()) {
        within(schema, &mut |schema| {
            let Some(default) = schema.as_object_mut().and_then(|fields| fields.shift_remove("default")) else {
                return;
            };
            let before = schema["description"].as_str().unwrap_or_default();
            schema["description"] = json!(format!("{before} Default: `{default}`.").trim());
        });
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

//! Parameters as clients can send them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::walk::operations;

/// Removes null from the types of parameters, because what is left out is not sent, and a query parameter that has the
/// name of one in the path, where the path decides. Moves defaults into the descriptions: some generated clients send
/// every parameter that has one, also where it does not go with the others.
pub fn describe(document: &mut Value) {
    for operation in operations(document) {
        let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) else { continue };
        let in_path: BTreeSet<String> = parameters.iter().filter(|one| one["in"] == "path").map(name).collect();
        parameters.retain(|one| one["in"] == "path" || !in_path.contains(&name(one)));
        for parameter in parameters {
            if let Some(schema) = parameter.get_mut("schema") {
                remove_null(schema);
            }
            move_default(parameter);
        }
    }
}

fn move_default(parameter: &mut Value) {
    let schema = parameter.get_mut("schema").and_then(Value::as_object_mut);
    if let Some(default) = schema.and_then(|schema| schema.shift_remove("default")) {
        let before = parameter["description"].as_str().unwrap_or_default();
        parameter["description"] = json!(format!("{before} Default: `{default}`.").trim());
    }
}

fn name(parameter: &Value) -> String {
    parameter["name"].to_string()
}

fn remove_null(schema: &mut Value) {
    let Some(Value::Array(types)) = schema.get_mut("type") else { return };
    types.retain(|one| one != "null");
    if let [only] = types.as_slice() {
        let only = only.clone();
        schema["type"] = only;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_not_null_have_one_place_and_say_their_default() {
        let mut document = json!({"paths": {"/a/{hook}": {"get": {"parameters": [
            {"name": "hook", "in": "path", "schema": {"type": "string"}},
            {"name": "hook", "in": "query", "schema": {"type": "string"}},
            {"name": "Last-Event-ID", "in": "header", "schema": {"type": ["string", "null"]}},
            {"name": "top_k", "in": "query", "description": "How many.", "schema": {"type": "integer", "default": 10}},
        ]}}}});
        describe(&mut document);
        let parameters = &document["paths"]["/a/{hook}"]["get"]["parameters"];
        assert_eq!(
            parameters,
            &json!([
                {"name": "hook", "in": "path", "schema": {"type": "string"}},
                {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}},
                {"name": "top_k", "in": "query", "description": "How many. Default: `10`.", "schema": {"type": "integer"}},
            ])
        );
    }
}

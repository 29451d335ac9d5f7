//! Optional fields of requests may be null, and then have their defaults. This adds null to their schemas.

use std::collections::BTreeSet;

use serde_json::Value;
use utoipa::openapi::{
    ObjectBuilder, OneOfBuilder, OpenApi, RefOr, Schema,
    schema::{SchemaType, Type},
};

/// Allows null for every optional field of request bodies. Schemas that are also used in responses are not changed.
pub fn allow_nulls(document: &mut OpenApi) {
    let whole = serde_json::to_value(&*document).unwrap_or_default();
    let (mut asked, mut answered) = (BTreeSet::new(), BTreeSet::new());
    for operation in whole["paths"].as_object().into_iter().flat_map(|paths| paths.values()) {
        for operation in operation.as_object().into_iter().flat_map(|methods| methods.values()) {
            reach(&operation["requestBody"], &whole, &mut asked);
            reach(&operation["responses"], &whole, &mut answered);
        }
    }
    let schemas = &mut document.components.get_or_insert_default().schemas;
    for name in asked.difference(&answered) {
        if let Some(RefOr::T(Schema::Object(object))) = schemas.get_mut(name) {
            let required: BTreeSet<String> = object.required.iter().cloned().collect();
            let optional = object.properties.iter_mut().filter(|(field, _)| !required.contains(*field));
            optional.for_each(|(_, schema)| allow_null(schema));
        }
    }
}

/// The names of all schemas that `part` of the specification refers to.
fn reach(part: &Value, whole: &Value, names: &mut BTreeSet<String>) {
    match part {
        Value::Array(items) => items.iter().for_each(|item| reach(item, whole, names)),
        Value::Object(fields) => {
            if let Some(name) = part["$ref"].as_str().and_then(|at| at.strip_prefix("#/components/schemas/"))
                && names.insert(name.to_owned())
            {
                reach(&whole["components"]["schemas"][name], whole, names);
            }
            fields.values().for_each(|field| reach(field, whole, names));
        }
        _ => {}
    }
}

fn allow_null(schema: &mut RefOr<Schema>) {
    let null = || ObjectBuilder::new().schema_type(Type::Null).build();
    match schema {
        RefOr::T(Schema::Object(object)) => {
            allow_type(&mut object.schema_type);
            if let Some(words) = object.enum_values.as_mut().filter(|words| !words.contains(&Value::Null)) {
                words.push(Value::Null);
            }
        }
        RefOr::T(Schema::Array(array)) => allow_type(&mut array.schema_type),
        RefOr::T(Schema::OneOf(forms)) => {
            if !forms.items.iter().any(is_null) {
                forms.items.push(null().into());
            }
        }
        other => {
            let form = std::mem::replace(other, RefOr::T(null().into()));
            *other = RefOr::T(OneOfBuilder::new().item(form).item(null()).build().into());
        }
    }
}

fn allow_type(own: &mut SchemaType) {
    match own {
        SchemaType::Type(one) => *own = SchemaType::Array(vec![one.clone(), Type::Null]),
        SchemaType::Array(several) if !several.contains(&Type::Null) => several.push(Type::Null),
        SchemaType::Array(_) | SchemaType::AnyValue => {}
    }
}

fn is_null(form: &RefOr<Schema>) -> bool {
    matches!(form, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null))
}

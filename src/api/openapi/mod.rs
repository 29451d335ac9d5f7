//! The OpenAPI specification, generated from the route table.
//!
//! utoipa collects it from attributes. What attributes cannot say is added to the JSON of the document, by rules for all
//! operations and schemas: [`bodies`], [`pages`], [`parameters`], [`unions`]. [`oas30`] writes the document for version 3.0.

mod bodies;
mod nulls;
mod oas30;
mod pages;
mod parameters;
mod unions;
mod unused;
mod walk;

use std::sync::OnceLock;

use axum::http::Method;
use serde_json::Value;
use utoipa::openapi::{
    OpenApi, PathItem,
    security::{Http, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

use super::{
    access,
    caches::lens::LensValues,
    dto::{
        direction::IncludeVectors,
        run_body::{Include, IncludeTopTokens},
    },
    hosts, problems, routes,
    tensor::{DtypeParam, Encoding, Format},
};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Residuum",
        description = "An activation server for language models. Post text, tokens or a chat, and name the activations \
            you want. A forward pass captures them, and they are stored as safetensors blobs with an index in SQLite. \
            They can then be fetched, compared and reused without running the model again. Errors are RFC 9457 problem \
            objects with a stable `code`. If the store has API keys, requests need one, `Authorization: Bearer rsd_…`, and \
            see only what belongs to the tenant of the key.",
    ),
    // utoipa collects schemas from bodies only, so types of query parameters are listed here
    components(schemas(Format, Encoding, DtypeParam, Include, IncludeTopTokens, IncludeVectors, LensValues)),
    servers((url = "/", description = "The server that this document comes from"), (url = "http://127.0.0.1:8080", description = "A server on this machine")),
    tags(
        (name = "runs", description = "Queue forward passes and follow them"),
        (name = "caches", description = "The activations of one input: describe, edit, fetch"),
        (name = "export", description = "Download activations of many caches as files for training"),
        (name = "comparisons", description = "Compare stored activations"),
        (name = "directions", description = "Named vectors: posted, or fitted to stored activations"),
        (name = "analysis", description = "Analyse stored activations: lenses, attribution, projections, statistics"),
        (name = "search", description = "Find stored activations similar to a query"),
        (name = "saes", description = "Sparse autoencoders: the features of stored activations"),
        (name = "models", description = "The loaded models and their tokenizers"),
        (name = "openai", description = "The models in the shapes of OpenAI's API; errors have OpenAI's shape too"),
        (name = "system", description = "Health, metrics and this specification"),
    )
)]
struct Base;

/// The specification of all routes.
fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let collected = serde_json::to_value(collect()).expect("the specification is made of strings and numbers");
        finish(collected)
    })
}

/// What the attributes of all routes and types say.
fn collect() -> OpenApi {
    let mut document = <Base as utoipa::OpenApi>::openapi();
    document.merge(routes().into_openapi());
    let components = document.components.get_or_insert_default();
    components.schemas.extend(problems::schemas());
    components.responses.extend(problems::common());
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer()));
    for (path, item) in &mut document.paths.paths {
        guard(path, item);
    }
    nulls::allow_nulls(&mut document);
    document
}

/// Adds what attributes cannot say.
fn finish(mut document: Value) -> Value {
    pages::refer_to_items(&mut document);
    parameters::describe(&mut document);
    bodies::describe(&mut document);
    unions::tag_directions(&mut document["components"]["schemas"]);
    unions::flatten(&mut document);
    unions::move_defaults(&mut document);
    unused::drop_responses(&mut document);
    document
}

/// Name of the security scheme.
const BEARER: &str = "bearer";

fn bearer() -> Http {
    HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "An API key, made by `residuum keys create`. Each operation lists the scope it needs: `read`; `write`, which \
             includes it; `metrics`; `admin`, which includes all. A server whose store never had a key requires none.",
        ))
        .build()
}

/// Adds to every operation the scope it needs, and the responses of middleware.
fn guard(path: &str, item: &mut PathItem) {
    let operations = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::PATCH, &mut item.patch),
        (Method::DELETE, &mut item.delete),
    ];
    for (method, operation) in operations {
        let Some(operation) = operation else { continue };
        let scope = access::required(&method, path);
        let needed = scope.map(|scope| SecurityRequirement::new(BEARER, [scope.name()]));
        operation.security = Some(needed.into_iter().collect());
        let posts = matches!(method, Method::POST | Method::PATCH | Method::PUT);
        let is_probe = hosts::is_probe(path);
        problems::add_common(path, operation, scope.is_some(), is_probe, posts);
    }
}

/// The specification as YAML: the content of `openapi.yaml`.
pub fn yaml() -> &'static str {
    static YAML: OnceLock<String> = OnceLock::new();
    YAML.get_or_init(|| written(document()))
}

/// The specification as JSON.
pub fn json() -> &'static str {
    static JSON: OnceLock<String> = OnceLock::new();
    JSON.get_or_init(|| format!("{:#}", document()))
}

/// The specification as YAML for version 3.0 of OpenAPI, for generators that do not know 3.1.
pub fn yaml_3_0() -> String {
    written(&oas30::convert(document()))
}

fn written(document: &Value) -> String {
    yaml_serde::to_string(document).expect("JSON can be written as YAML")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    /// utoipa keeps the last of two types that have the same name.
    #[test]
    fn one_type_describes_each_component() {
        let mut found: BTreeMap<String, Value> = BTreeMap::new();
        for (schemas, _, _) in super::super::route_table() {
            for (name, schema) in schemas {
                let schema = json!(schema);
                let first = found.entry(name.clone()).or_insert_with(|| schema.clone());
                assert_eq!(*first, schema, "two types have the name {name}");
            }
        }
        assert!(found.len() > 100);
    }

    #[test]
    fn every_schema_is_used_and_every_reference_leads_somewhere() {
        let used = unused::references(document());
        for reference in &used {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document().pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        for name in document()["components"]["schemas"].as_object().unwrap().keys() {
            assert!(used.contains(&format!("#/components/schemas/{name}")), "nothing uses {name}");
        }
    }

    /// Generators of Python name a variable of the type `Lens` `lens`, which hides the field.
    #[test]
    fn no_schema_has_a_property_with_its_own_name() {
        for (name, schema) in document()["components"]["schemas"].as_object().unwrap() {
            let lower = |name: &str| name.replace('_', "").to_lowercase();
            let same = |property: &&String| lower(property) == lower(name);
            let properties = schema["properties"].as_object();
            let clash = properties.and_then(|p| p.keys().find(same));
            assert_eq!(clash, None, "{name}");
        }
    }

    #[test]
    fn binary_bodies_are_bytes_and_streams_are_text() {
        let mut document = document().clone();
        for operation in walk::operations(&mut document) {
            let Some(content) = operation.pointer("/responses/200/content") else { continue };
            for media in ["application/x-npy", "application/vnd.safetensors"] {
                if let Some(body) = content.get(media) {
                    assert_eq!(body["schema"]["format"], "binary", "{}", operation["operationId"]);
                }
            }
            if let Some(events) = content.get("text/event-stream") {
                assert_eq!(events["schema"]["type"], "string");
                assert!(events["schema"]["contentSchema"]["$ref"].is_string(), "{}", operation["operationId"]);
            }
        }
    }
}

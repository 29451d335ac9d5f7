//! The OpenAPI specification, generated from the route table.

mod nulls;

use std::{collections::BTreeMap, sync::OnceLock};

use axum::http::Method;
use serde_json::{Value, json};
use utoipa::openapi::{
    OpenApi, PathItem, RefOr, Schema,
    schema::{ObjectBuilder, Type},
    security::{Http, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

use super::{
    access,
    caches::lens::LensValues,
    dto::{
        direction::IncludeVectors,
        run::{CompletionEvent, RunSnapshot, TokenEvent},
        run_body::{Include, IncludeTopTokens},
    },
    experiments::PatchingProgress,
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
    components(schemas(Format, Encoding, DtypeParam, Include, IncludeTopTokens, IncludeVectors, LensValues, RunSnapshot, TokenEvent, CompletionEvent, PatchingProgress)),
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
pub fn document() -> OpenApi {
    let mut document = <Base as utoipa::OpenApi>::openapi();
    document.merge(routes().into_openapi());
    let components = document.components.get_or_insert_default();
    components.schemas.extend(problems::schemas());
    give_forms_their_method(&mut components.schemas);
    give_pages_examples(&mut components.schemas);
    components.responses.extend(problems::common());
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer()));
    for (path, item) in &mut document.paths.paths {
        guard(path, item);
    }
    nulls::allow_nulls(&mut document);
    document
}

/// Name of the security scheme.
const BEARER: &str = "bearer";

fn bearer() -> Http {
    HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("rsd_…")
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

/// Adds the tag `method` to the forms of a new direction, because their schemas allow no other fields than those they
/// list.
fn give_forms_their_method(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    let forms = [
        ("DirectionUpload", "upload"),
        ("DirectionOfMeans", "difference_of_means"),
        ("DirectionOfVariance", "pca"),
        ("DirectionOfProbe", "probe"),
    ];
    for (name, method) in forms {
        if let Some(RefOr::T(Schema::Object(form))) = schemas.get_mut(name) {
            let property = ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some([method]))
                .description(Some("How the direction is made; decides the form of the body."));
            form.properties.insert("method".to_owned(), property.into());
        }
    }
}

/// Makes the example of every page from the example of its items.
fn give_pages_examples(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    let example = |schema: Option<&RefOr<Schema>>| match schema {
        Some(RefOr::T(Schema::Object(object))) => object.example.clone(),
        _ => None,
    };
    let pages: Vec<(String, Value)> = schemas
        .keys()
        .filter_map(|name| Some((name.clone(), example(schemas.get(name.strip_prefix("Page_")?))?)))
        .collect();
    for (name, item) in pages {
        if let Some(RefOr::T(Schema::Object(page))) = schemas.get_mut(&name) {
            page.example = Some(json!({"items": [item], "next_cursor": null}));
        }
    }
}

/// The specification as YAML: the content of `openapi.yaml`.
pub fn yaml() -> &'static str {
    static YAML: OnceLock<String> = OnceLock::new();
    YAML.get_or_init(|| document().to_yaml().expect("the specification is made of strings and numbers"))
}

/// The specification as JSON.
pub fn json() -> &'static str {
    static JSON: OnceLock<String> = OnceLock::new();
    JSON.get_or_init(|| document().to_pretty_json().expect("the specification is made of strings and numbers"))
}

//! `GET /v1/caches/{id}/safetensors`: a whole cache as one file, which an import takes back.

use axum::{extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

use super::cache_tensors::part;
use crate::api::{
    error::ApiResult,
    extract::{PathId, Query, Tenant},
    problems::CacheFileProblems,
    state::ApiState,
    tensor::{Assembly, Format, HeaderEntry, Part, binary, safetensors_header},
};
use residuum_domain::{Cache, CacheId, Positions, Selection};

/// Query parameters of a cache's file.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FileQuery {
    /// true: `__metadata__` includes tags, label and metadata.
    #[param(default = false)]
    pub annotations: Option<bool>,
}

/// Fetch a whole cache
///
/// One safetensors file. Its keys are hook names, plus `token_ids` (int64) if they are known; the provenance is in
/// `__metadata__`. `POST /v1/caches` imports the file without loss. Tags, label and metadata are included only on
/// request, because they can be edited, which would change the entity tag of the file.
#[utoipa::path(
    get, path = "/v1/caches/{id}/safetensors", operation_id = "getCacheSafetensors", tag = "caches",
    params(("id" = String, Path, description = "Id of the cache"), FileQuery),
    responses((status = 200, description = "The file", content_type = "application/vnd.safetensors", body = Vec<u8>),
        (status = 206, description = "A byte range of the file"), (status = 304, description = "Not modified"), CacheFileProblems)
)]
pub async fn get_safetensors(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<CacheId>,
    Query(query): Query<FileQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let stored = state.questions.stored(tenant, id).await?;
    let cache = &stored.cache;
    let dtype = cache.capture.dtype;
    let token_ids: Vec<u8> = cache.token_ids.iter().flat_map(|id| i64::from(*id).to_le_bytes()).collect();
    // token_ids first: after two-byte elements, its eight-byte elements would be unaligned
    let (mut entries, mut parts) = (Vec::new(), Vec::new());
    if cache.knows_token_ids() {
        entries.push(HeaderEntry {
            name: "token_ids".to_owned(),
            dtype: "I64",
            shape: vec![cache.token_ids.len()],
            n_bytes: token_ids.len() as u64,
        });
        parts.push(Part::Made(token_ids.into()));
    }
    for hook in 0..cache.capture.hooks.len() {
        let selection = Selection::of(cache, hook, None)?;
        let n_bytes = (selection.n_served() * dtype.size()) as u64;
        let name = cache.capture.hooks[hook].to_string();
        entries.push(HeaderEntry { name, dtype: dtype.safetensors_name(), shape: selection.shape.clone(), n_bytes });
        parts.extend(part(&stored, &selection, None, dtype));
    }
    let mut assembly = Assembly::default();
    assembly
        .push(Part::Made(safetensors_header(&entries, &file_metadata(cache, query.annotations == Some(true))).into()));
    parts.into_iter().for_each(|p| assembly.push(p));
    let name = format!("{id}.safetensors");
    let media_type = Format::Safetensors.media_type();
    Ok(binary(assembly, media_type, &name, HeaderMap::new(), &headers, state.engine.store()).await?)
}

/// The provenance of a cache as strings of safetensors metadata: all that an import needs to make the same cache.
/// Without `annotations` nothing in it can be edited, so PATCH changes neither the file nor its entity tag.
fn file_metadata(cache: &Cache, annotations: bool) -> Map<String, Value> {
    let p = &cache.provenance;
    let facts = json!({
        "format": "pt",
        "cache": cache.id.to_string(),
        "run": cache.run.to_string(),
        "model": cache.model,
        "numerics_version": p.numerics_version.to_string(),
        "positions": positions_text(&cache.capture.positions),
        "n_truncated": cache.n_truncated.to_string(),
        "n_layers": cache.n_layers.to_string(),
        "d_model": cache.d_model.to_string(),
        "bos": json!(cache.bos).to_string(),
        "n_nan": cache.stats.n_nan.to_string(),
        "n_inf": cache.stats.n_inf.to_string(),
        "content_hash": cache.content_hash,
        "tokens": Value::from(cache.tokens.clone()).to_string(),
        "created_at": cache.created_at.to_string(),
    });
    let Value::Object(mut facts) = facts else { return Map::new() };
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            facts.insert(key.to_owned(), value.into());
        }
    };
    // an imported cache may lack some of these
    for (key, name) in [
        ("model_fingerprint", &p.model_fingerprint),
        ("architecture", &p.architecture),
        ("weights_dtype", &p.weights_dtype),
        ("compute_dtype", &p.compute_dtype),
        ("device", &p.device),
        ("residuum_version", &p.residuum_version),
    ] {
        add(key, Some(name.clone()).filter(|name| !name.is_empty()));
    }
    add("text", cache.text.clone());
    add("completion", cache.completion.as_ref().map(|c| json!(c).to_string()));
    add("origin", cache.origin.as_ref().map(|o| json!(o).to_string()));
    if annotations {
        add("tags", Some(json!(cache.tags).to_string()));
        add("label", cache.label.clone());
        add("metadata", Some(json!(cache.metadata).to_string()));
    }
    if !cache.interventions.is_empty() {
        facts.insert("interventions".to_owned(), json!(cache.interventions).to_string().into());
    }
    facts
}

/// Positions in the form of a query parameter, or as JSON if that form would mean something else.
fn positions_text(positions: &Positions) -> String {
    let text = positions.to_string();
    if text.parse().as_ref() == Ok(positions) { text } else { json!(positions).to_string() }
}

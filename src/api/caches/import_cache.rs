//! `POST /v1/caches`: imports a safetensors file of activations that were computed elsewhere.

use axum::{
    Json,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;

use super::import_receiver::{Received, Receiver};
use crate::api::{
    dto::{cache::CacheDto, import::ImportQuery},
    error::ApiResult,
    extract::{Query, Tenant, idempotency_key},
    pace::TooSlow,
    problems::ImportProblems,
    state::ApiState,
};
use residuum_domain::{Code, ImportPlan, ImportSpec, Problem, TenantId};
use residuum_engine::questions::blocking;
use residuum_store::{Imported, NewImport, Store};

/// The problem of a body that could not be read.
fn body_error(error: &(dyn std::error::Error + 'static)) -> Problem {
    if TooSlow::caused(error) {
        Problem::new(Code::RequestTimeout, "the body arrived too slowly; send it again")
    } else {
        Problem::new(Code::InvalidBody, "the body could not be read to its end")
    }
}

/// Import a cache
///
/// The body is a safetensors file with activations of one input, from PyTorch, numpy, or this server's `/safetensors`.
/// Each tensor has the name of its hook: `blocks.5.hook_resid_post` is one layer, `[pos, …]` or, for a single position,
/// `[…]`; `resid_post` is a stack of layers, `[layer, pos, …]`; attention maps are `[head, q, k]`. The file may also
/// have `token_ids` (`[tokens]`, int64 or int32). Other facts (model, text, tokens, positions, layers, annotations,
/// what computed the activations) are given as parameters or in the file's `__metadata__`. The file is streamed to disk
/// and checked completely before anything is stored. Runs never reuse an imported cache.
#[utoipa::path(
    post, path = "/v1/caches", operation_id = "importCache", tag = "caches", params(ImportQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "A key that the client chooses. The same key with the same file and parameters gives the cache that was made first; anything else 422", example = "import-2026-11-23-a")),
    request_body(description = "A safetensors file", content((Vec<u8> = "application/vnd.safetensors"), (Vec<u8> = "application/octet-stream"))),
    responses(
        (status = 201, description = "The cache", body = CacheDto, headers(("Location" = String, description = "Path of the cache"))),
        ImportProblems
    )
)]
pub async fn import_cache(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    RawQuery(raw_query): RawQuery,
    Query(query): Query<ImportQuery>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    require_file(&headers)?;
    let key = idempotency_key(&headers)?;
    let store = state.engine.store();
    let mut receiver =
        Receiver::new(store.spool().await?, query.given(), state.config.max_import_bytes, state.memory.for_request());
    if let Some(n_bytes) = content_length(&headers) {
        receiver.expect(n_bytes)?;
    }
    let mut body = body.into_data_stream();
    while let Some(bytes) = body.next().await {
        // if the client disconnects or sends too slowly, dropping the receiver deletes what has arrived
        let bytes = bytes.map_err(|e| body_error(&e))?;
        receiver = receiver.take(bytes).await?;
    }
    let received = receiver.finish().await?;
    // only now: a client that merely announces a large file must not cause eviction
    state.engine.make_room(received.spool.len()).await?;
    let request = request_hash(raw_query.as_deref().unwrap_or(""), &received.origin.file_hash);
    let idempotency = key.map(|key| (key, request));
    // in its own task, so that the cache is stored even if the client disconnects now
    let store = store.clone();
    let imported = tokio::spawn(async move { store_cache(&store, tenant, received, idempotency).await });
    let imported = imported.await.unwrap_or_else(|e| {
        tracing::error!(error = %e, "an import panicked");
        Err(Problem::new(Code::Internal, "the file could not be stored"))
    })?;
    answer(&state, tenant, imported).await
}

async fn answer(state: &ApiState, tenant: TenantId, imported: Imported) -> ApiResult<Response> {
    let gone = || Problem::new(Code::Conflict, "the cache that this import made was deleted");
    let id = match imported {
        Imported::Created(id) | Imported::Replayed(id) => id,
        Imported::Gone => return Err(gone().into()),
        Imported::KeyConflict => {
            let detail = "the key was used before with another request; use a new key for a new request";
            return Err(Problem::at(Code::IdempotencyKeyReused, "Idempotency-Key", detail).into());
        }
    };
    let cache = state.engine.store().cache(tenant, id).await?.ok_or_else(gone)?;
    let location = HeaderValue::from_str(&format!("/v1/caches/{id}"))
        .map_err(|_| Problem::new(Code::Internal, "a header could not be written"))?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(CacheDto::new(cache)?)).into_response())
}

fn require_file(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail: &str| Err(Problem::new(Code::UnsupportedMediaType, detail));
    if headers.get(header::CONTENT_ENCODING).is_some_and(|v| v != "identity") {
        return refuse("the file must be sent without a Content-Encoding");
    }
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match given.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
        "application/vnd.safetensors" | "application/octet-stream" => Ok(()),
        _ => refuse(
            "the body must be a safetensors file, sent with Content-Type: application/vnd.safetensors or \
             application/octet-stream",
        ),
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Hash of an import request, to compare with later ones that have the same idempotency key.
fn request_hash(query: &str, file_hash: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"import\0").update(query.as_bytes()).update(b"\0").update(file_hash.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Stores the file as a cache.
async fn store_cache(
    store: &Store,
    tenant: TenantId,
    received: Received,
    idempotency: Option<(String, [u8; 32])>,
) -> Result<Imported, Problem> {
    let Received { spool, spec, plan, origin } = received;
    let ids = plan.token_ids.as_ref().map(|(data, _)| data.clone());
    let (spool, ids) = blocking(move || {
        let bytes = ids.map(|range| spool.read(range)).transpose()?.unwrap_or_default();
        Ok((spool, bytes))
    })
    .await?;
    let item = plan.item(&spec, &ids, origin)?;
    let ImportPlan { sources, n_layers, d_model, .. } = plan;
    let ImportSpec { model, provenance, .. } = spec;
    let import = NewImport { tenant, model, n_layers, d_model, provenance, item, sources, idempotency };
    Ok(store.import(import, spool).await?)
}

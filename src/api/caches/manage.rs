//! Listing, describing, editing and deleting caches.

use axum::{Json, extract::State, http::StatusCode};

use crate::{
    api::{
        dto::{
            Page,
            cache::{CacheDto, CachePatchDto, CachesQuery},
            cursor, page_limit,
        },
        error::ApiResult,
        extract::{JsonBody, NoQuery, PathId, Query, Tenant, not_found},
        problems::{CacheDeleteProblems, CachePatchProblems, CacheProblems, ListProblems},
        state::ApiState,
    },
    domain::CacheId,
};

/// List caches
///
/// Newest first; every filter that is given must hold.
#[utoipa::path(
    get, path = "/v1/caches", operation_id = "listCaches", tag = "caches", params(CachesQuery),
    responses((status = 200, description = "A page of caches", body = Page<CacheDto>, example = json!({"items": [{
    "id": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "run": "0198c5a0-5b1e-7c3a-9b54-0242ac120002", "item_index": 0,
    "model": "smollm2-135m", "label": null, "tags": ["demo"], "metadata": {}, "text": "The Eiffel Tower",
    "token_ids": [504, 414, 46682, 18669], "tokens": ["The", " E", "iffel", " Tower"], "n_tokens": 4,
    "bos": {"requested": null, "present": false, "added": false, "token_id": 1}, "n_truncated": 0, "n_layers": 30,
    "d_model": 576, "positions": "last",
    "hooks": [{"hook": "blocks.12.hook_resid_post", "shape": [576], "axes": ["d_model"], "dtype": "float32", "hf_hidden_states_index": 13}],
    "provenance": {
        "model_fingerprint": "d18fcfc1a1be850dc2dee03adf277d2a72baf4de46a48a9ede5add0976bdcc9e", "architecture": "llama",
        "weights_dtype": "Q4_1+Q8_0+float32", "compute_dtype": "float32", "device": "cpu", "residuum_version": "0.1.0", "numerics_version": 1
    },
    "reused": false, "n_nan": 0, "n_inf": 0,
    "content_hash": "5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592", "n_bytes": 2304,
    "created_at": "2026-11-23T12:00:00.05Z"
}], "next_cursor": null})), ListProblems)
)]
pub async fn list_caches(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(query): Query<CachesQuery>,
) -> ApiResult<Json<Page<CacheDto>>> {
    let limit = page_limit(query.limit)?;
    let before: Option<CacheId> = cursor(query.cursor.as_deref())?;
    let caches = state.engine.store().caches(tenant, &query.filter()?, before, limit + 1).await?;
    let page = Page::cut(caches, limit, |c| c.id, CacheDto::new);
    let items = page.items.into_iter().collect::<Result<_, _>>()?;
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// Describe a cache
///
/// Model, text, tokens, the hooks it holds with their shapes, and the receipt of what produced it.
#[utoipa::path(
    get, path = "/v1/caches/{id}", operation_id = "getCache", tag = "caches", params(("id" = String, Path, description = "Id of the cache")),
    responses((status = 200, description = "The cache", body = CacheDto), CacheProblems)
)]
pub async fn get_cache(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<CacheId>,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<Json<CacheDto>> {
    let cache = state.engine.store().cache(tenant, id).await?.ok_or_else(|| not_found::<CacheId>(id))?;
    Ok(Json(CacheDto::new(cache)?))
}

/// Edit a cache
///
/// Its tags, label and metadata; tensors, tokens and provenance never change.
#[utoipa::path(
    patch, path = "/v1/caches/{id}", operation_id = "updateCache", tag = "caches", params(("id" = String, Path, description = "Id of the cache")),
    request_body = CachePatchDto,
    responses((status = 200, description = "The cache as it is now", body = CacheDto), CachePatchProblems)
)]
pub async fn update_cache(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<CacheId>,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<CachePatchDto>,
) -> ApiResult<Json<CacheDto>> {
    let patch = body.value.into_patch()?;
    let cache = state.engine.store().patch_cache(tenant, id, patch).await?.ok_or_else(|| not_found::<CacheId>(id))?;
    Ok(Json(CacheDto::new(cache)?))
}

/// Delete a cache
///
/// Its run keeps its counts and no longer lists it.
#[utoipa::path(
    delete, path = "/v1/caches/{id}", operation_id = "deleteCache", tag = "caches", params(("id" = String, Path, description = "Id of the cache")),
    responses((status = 204, description = "It is gone"), CacheDeleteProblems)
)]
pub async fn delete_cache(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<CacheId>,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<StatusCode> {
    if state.engine.store().delete_cache(tenant, id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(not_found::<CacheId>(id).into())
    }
}

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
    responses((status = 200, description = "A page of caches", body = Page<CacheDto>), ListProblems)
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

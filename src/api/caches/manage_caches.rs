//! Routes that list, describe, edit and delete caches.

use axum::{Json, extract::State, http::StatusCode};
use jiff::Timestamp;

use crate::api::{
    dto::{
        Page,
        cache::{CacheDto, CachePatchDto, CachesQuery},
        cursor, cursor_of, page_limit,
    },
    error::ApiResult,
    extract::{JsonBody, NoQuery, PathId, Query, QueryWithMetadata, Tenant, not_found},
    problems::{CacheDeleteProblems, CachePatchProblems, CacheProblems, ListProblems},
    state::ApiState,
};
use residuum_domain::CacheId;

/// List caches
///
/// Newest first; a cache must match all filters. The server examines a bounded number of caches for a page. If each
/// filter alone matches many caches but few match all, a page may have fewer items than `limit`, or none, although
/// `next_cursor` is not null.
#[utoipa::path(
    get, path = "/v1/caches", operation_id = "listCaches", tag = "caches",
    params(CachesQuery, ("metadata.key" = Option<String>, Query, description = "Has this value at this key of its metadata. Write the key instead of `key`; a dot leads to a field of an object (`metadata.source.page=12`). The value is parsed as JSON if it is valid JSON (`12`, `true`, `null`, `\"12\"`), else taken as text. May be given for several keys: all must match", example = "train")),
    responses((status = 200, description = "A page of caches", body = Page<CacheDto>), ListProblems)
)]
pub async fn list_caches(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    QueryWithMetadata(query, metadata): QueryWithMetadata<CachesQuery>,
) -> ApiResult<Json<Page<CacheDto>>> {
    let limit = page_limit(query.limit)?;
    let before: Option<Timestamp> = cursor(query.cursor.as_deref())?;
    let count = query.count == Some(true);
    let filter = query.filter(metadata)?;
    let store = state.engine.store();
    // concurrently, each in its own read transaction
    let counted = async {
        match count {
            true => store.count_caches(tenant, &filter).await.map(Some),
            false => Ok(None),
        }
    };
    let (found, counted) = tokio::try_join!(store.find_caches(tenant, &filter, before, limit), counted)?;
    let items = found.caches.into_iter().map(CacheDto::new).collect::<Result<_, _>>()?;
    let mut page = Page::new(items, found.next.map(cursor_of));
    if let Some(count) = counted {
        (page.total, page.total_is_exact) = (Some(count.total), Some(count.is_exact));
    }
    Ok(Json(page))
}

/// Describe a cache
///
/// Model, text, tokens, captured hooks with their shapes, and the provenance of the numbers.
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
/// Changes its tags, label and metadata, when it expires and whether it is pinned. Tensors, tokens and provenance
/// cannot be changed.
#[utoipa::path(
    patch, path = "/v1/caches/{id}", operation_id = "updateCache", tag = "caches", params(("id" = String, Path, description = "Id of the cache")),
    request_body = CachePatchDto,
    responses((status = 200, description = "The changed cache", body = CacheDto), CachePatchProblems)
)]
pub async fn update_cache(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<CacheId>,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<CachePatchDto>,
) -> ApiResult<Json<CacheDto>> {
    let patch = body.value.into_patch(Timestamp::now())?;
    let cache = state.engine.store().patch_cache(tenant, id, patch).await?.ok_or_else(|| not_found::<CacheId>(id))?;
    Ok(Json(CacheDto::new(cache)?))
}

/// Delete a cache
///
/// Its run no longer lists it, but keeps its counts.
#[utoipa::path(
    delete, path = "/v1/caches/{id}", operation_id = "deleteCache", tag = "caches", params(("id" = String, Path, description = "Id of the cache")),
    responses((status = 204, description = "Deleted"), CacheDeleteProblems)
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

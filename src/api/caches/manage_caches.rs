//! Routes that list, describe, edit and delete caches.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;

use crate::api::{
    dto::{
        Page,
        cache::{CacheDto, CachePatchDto},
        cache_query::{CachesQuery, DeleteCachesQuery, DeletedCachesDto, cursor_behind},
    },
    error::ApiResult,
    extract::{JsonBody, NoQuery, PathId, Query, QueryWithMetadata, Tenant, not_found},
    problems::{CacheDeleteProblems, CachePatchProblems, CacheProblems, CachesDeleteProblems, ListProblems},
    state::ApiState,
};
use residuum_domain::CacheId;

/// List caches
///
/// Newest first, or oldest first with `order=asc`; a cache must match all filters. With `fields`, each item has only
/// the members named there. The server examines a bounded number of caches for a page. If each filter alone matches
/// many caches but few match all, a page may have fewer items than `limit`, or none, although `next_cursor` is not null.
#[utoipa::path(
    get, path = "/v1/caches", operation_id = "listCaches", tag = "caches",
    params(CachesQuery, ("metadata" = Option<HashMap<String, String>>, Query, style = DeepObject, explode, description = "Has these values at these keys of its metadata, `metadata[split]=train`; all must match. A dot, or a further pair of brackets, leads to a field of an object (`metadata[source.page]=12`). A value is parsed as JSON if it is valid JSON (`12`, `true`, `null`, `\"12\"`), else taken as text. `metadata.split=train` means the same", example = json!({"split": "train"}))),
    responses((status = 200, description = "A page of caches", body = Page<CacheDto>), ListProblems)
)]
pub async fn list_caches(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    QueryWithMetadata(query, metadata): QueryWithMetadata<CachesQuery>,
) -> ApiResult<Response> {
    let (request, members) = query.page()?;
    let filter = query.filter(metadata)?;
    let store = state.engine.store();
    // concurrently, each in its own read transaction
    let counted = async {
        match query.count == Some(true) {
            true => store.count_caches(tenant, &filter).await.map(Some),
            false => Ok(None),
        }
    };
    let (found, counted) = tokio::try_join!(store.find_caches(tenant, &filter, request), counted)?;
    let next = found.next.map(|time| cursor_behind(request.order, time));
    Ok(match members {
        None => {
            let items = found.caches.into_iter().map(CacheDto::new).collect::<Result<_, _>>()?;
            Json(Page::counted(items, next, counted)).into_response()
        }
        Some(members) => {
            let items = found.caches.into_iter().map(|cache| members.of(cache)).collect::<Result<_, _>>()?;
            Json(Page::counted(items, next, counted)).into_response()
        }
    })
}

/// Delete caches
///
/// Deletes the caches that meet all conditions, at least one of which must be given, and answers how many. Pinned caches
/// are kept unless the conditions include `pinned=true`. Caches that are stored later are not deleted: a run that has
/// not ended goes on. Runs no longer list what was deleted, but keep their counts. Many caches are deleted in several
/// transactions; if the request ends early, send it again: what is deleted already does not count again.
#[utoipa::path(
    delete, path = "/v1/caches", operation_id = "deleteCaches", tag = "caches",
    params(DeleteCachesQuery, ("metadata" = Option<HashMap<String, String>>, Query, style = DeepObject, explode, description = "Has these values at these keys of its metadata, as in the listing of caches", example = json!({"split": "train"}))),
    responses((status = 200, description = "How many were deleted", body = DeletedCachesDto), CachesDeleteProblems)
)]
pub async fn delete_caches(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    QueryWithMetadata(query, metadata): QueryWithMetadata<DeleteCachesQuery>,
) -> ApiResult<Json<DeletedCachesDto>> {
    let found = state.engine.store().delete_caches(tenant, &query.filter(metadata)?).await?;
    Ok(Json(DeletedCachesDto { deleted: found.n_deleted, kept_pinned: found.n_pinned }))
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

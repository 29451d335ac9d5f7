//! Routes that list, describe, edit and delete directions, and serve their vectors.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use bytes::Bytes;

use crate::api::{
    dto::{
        Page, PageQuery,
        annotations::check_annotations,
        cursor,
        direction::{DirectionDto, DirectionPatchDto, DirectionQuery, VectorQuery},
        page_limit,
    },
    error::ApiResult,
    extract::{JsonBody, NoQuery, PathDirection, Query, Tenant},
    problems::{
        DirectionChangeProblems, DirectionPatchProblems, DirectionProblems, DirectionTensorProblems, ListProblems,
    },
    state::ApiState,
    tensor::{Part, TensorAnswer, TensorDto, TensorSpec, respond},
};
use residuum_domain::{Axis, Code, Direction, DirectionId, Dtype, Problem, Site, TenantId};

/// List directions
///
/// Newest first, without their metrics.
#[utoipa::path(
    get, path = "/v1/directions", operation_id = "listDirections", tag = "directions", params(PageQuery),
    responses((status = 200, description = "A page of directions", body = Page<DirectionDto>), ListProblems)
)]
pub async fn list_directions(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(query): Query<PageQuery>,
) -> ApiResult<Json<Page<DirectionDto>>> {
    let limit = page_limit(query.limit)?;
    let before: Option<DirectionId> = cursor(query.cursor.as_deref())?;
    let directions = state.engine.store().directions(tenant, before, limit + 1).await?;
    Ok(Json(Page::cut(directions, limit, |d| d.id, DirectionDto::of_info)))
}

/// Describe a direction
///
/// How it was made, and the metrics of each of its vectors.
#[utoipa::path(
    get, path = "/v1/directions/{direction}", operation_id = "getDirection", tag = "directions",
    params(("direction" = String, Path, description = "Id or name of the direction"), DirectionQuery),
    responses((status = 200, description = "The direction", body = DirectionDto), DirectionProblems)
)]
pub async fn get_direction(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathDirection(key): PathDirection,
    Query(query): Query<DirectionQuery>,
) -> ApiResult<Json<DirectionDto>> {
    Ok(Json(DirectionDto::new(find(&state, tenant, &key).await?, query.include)))
}

/// Edit a direction
///
/// Changes its metadata. Name, vectors and provenance cannot be changed.
#[utoipa::path(
    patch, path = "/v1/directions/{direction}", operation_id = "updateDirection", tag = "directions",
    params(("direction" = String, Path, description = "Id or name of the direction")), request_body = DirectionPatchDto,
    responses((status = 200, description = "The changed direction", body = DirectionDto), DirectionPatchProblems)
)]
pub async fn update_direction(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathDirection(key): PathDirection,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<DirectionPatchDto>,
) -> ApiResult<Json<DirectionDto>> {
    let metadata = body.value.metadata;
    check_annotations(&[], None, &metadata)?;
    let id = find_id(&state, tenant, &key).await?;
    state.engine.store().patch_direction(tenant, id, metadata).await?;
    Ok(Json(DirectionDto::new(find(&state, tenant, &key).await?, None)))
}

/// Delete a direction
///
/// Afterwards its name can be used again.
#[utoipa::path(
    delete, path = "/v1/directions/{direction}", operation_id = "deleteDirection", tag = "directions",
    params(("direction" = String, Path, description = "Id or name of the direction")),
    responses((status = 204, description = "Deleted"), DirectionChangeProblems)
)]
pub async fn delete_direction(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathDirection(key): PathDirection,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<StatusCode> {
    let id = find_id(&state, tenant, &key).await?;
    if state.engine.store().delete_direction(tenant, id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(not_found(&key).into())
    }
}

/// Fetch a direction's vectors
///
/// In float32: one layer `[d]`, or without `layer` all layers stacked, `[n_layers, d]`; `[d]` for a hook outside the
/// blocks.
#[utoipa::path(
    get, path = "/v1/directions/{direction}/vector", operation_id = "getDirectionVector", tag = "directions",
    params(("direction" = String, Path, description = "Id or name of the direction"), VectorQuery),
    responses(
        (status = 200, description = "The tensor", content(
            (TensorDto = "application/json"),
            (Vec<u8> = "application/x-npy"),
            (Vec<u8> = "application/vnd.safetensors"),
            (Vec<u8> = "application/octet-stream"),
        )),
        (status = 206, description = "A byte range of a binary format"),
        (status = 304, description = "Not modified"),
        DirectionTensorProblems
    )
)]
pub async fn get_direction_vector(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathDirection(key): PathDirection,
    Query(query): Query<VectorQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let direction = find(&state, tenant, &key).await?;
    let answer = answer(&direction, query.layer, query.component.unwrap_or(0))?;
    let encoding = query.encoding.unwrap_or_default();
    let spec = TensorSpec { wanted: None, dtype: None, format: query.format, encoding };
    respond(|_| Ok(answer), &spec, &headers, state.engine.store(), state.config.max_json_elements).await
}

async fn find(state: &ApiState, tenant: TenantId, key: &str) -> Result<Direction, Problem> {
    state.engine.store().direction(tenant, key).await?.ok_or_else(|| not_found(key))
}

async fn find_id(state: &ApiState, tenant: TenantId, key: &str) -> Result<DirectionId, Problem> {
    let info = state.engine.store().direction_info(tenant, key).await?;
    info.map(|d| d.id).ok_or_else(|| not_found(key))
}

fn not_found(key: &str) -> Problem {
    let key: String = key.chars().take(128).collect();
    Problem::new(Code::DirectionNotFound, format!("`{key}` is neither the id nor the name of a direction"))
}

/// The requested vectors as a tensor.
fn answer(direction: &Direction, layer: Option<usize>, component: usize) -> Result<TensorAnswer, Problem> {
    let info = &direction.info;
    let missing = || {
        let detail = format!(
            "{} has {} for layers {:?}, components 0 to {}",
            info.name,
            info.site.name(),
            info.layers,
            info.n_components - 1
        );
        Problem::new(Code::VectorNotInDirection, detail)
    };
    let axis = feature_axis(info.site);
    if layer.is_some() || info.layers.is_empty() {
        let values = direction.vector(layer, component).ok_or_else(missing)?;
        let hook = info.hook(layer).ok_or_else(missing)?;
        return Ok(TensorAnswer::of_hook(hook, vec![info.d], vec![axis], Dtype::Float32, vec![part(values)]));
    }
    let rows = info.layers.iter().map(|l| direction.vector(Some(*l), component).ok_or_else(missing));
    let parts = rows.map(|row| row.map(part)).collect::<Result<_, _>>()?;
    Ok(TensorAnswer {
        hook: info.site.name().to_owned(),
        layer: None,
        layers: Some(info.layers.clone()),
        caches: None,
        offsets: None,
        shape: vec![info.layers.len(), info.d],
        axes: vec![Axis::Layer, axis],
        dtype: Dtype::Float32,
        widened: false,
        parts,
    })
}

fn part(values: &[f32]) -> Part {
    let mut bytes = Vec::with_capacity(values.len() * 4);
    Dtype::Float32.encode(values, &mut bytes);
    Part::Made(Bytes::from(bytes))
}

/// The axis of a row, for hooks whose rows have one axis.
fn feature_axis(site: Site) -> Axis {
    match site.axes() {
        [Axis::Pos, one] => *one,
        _ => Axis::Feature,
    }
}

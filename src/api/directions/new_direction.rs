//! `POST /v1/directions`: makes a direction.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::new_direction_body::{NewDirection, Posted};
use crate::api::{
    dto::direction::{DirectionDto, DirectionQuery},
    error::ApiResult,
    extract::{JsonBody, Query, Tenant},
    problems::CreateDirectionProblems,
    state::ApiState,
};
use residuum_domain::{Code, Problem};

/// Make a direction
///
/// Stores posted values, or fits a direction to vectors of stored caches at one position, for all layers in one call:
/// the difference of the means of two classes, principal components, or a logistic-regression probe. All caches must be
/// of one model. The response has the metrics of each vector; the values are at `/vector`.
#[utoipa::path(
    post, path = "/v1/directions", operation_id = "createDirection", tag = "directions", params(DirectionQuery),
    request_body = NewDirection,
    responses(
        (status = 201, description = "The direction", body = DirectionDto, headers(("Location" = String, description = "Path of the direction"))),
        CreateDirectionProblems
    )
)]
pub async fn create_direction(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(query): Query<DirectionQuery>,
    body: JsonBody<Posted>,
) -> ApiResult<Response> {
    let question = body.value.question()?;
    let direction = state.questions.make_direction(tenant, question).await?;
    let location = HeaderValue::from_str(&format!("/v1/directions/{}", direction.info.id))
        .map_err(|_| Problem::new(Code::Internal, "a header could not be written"))?;
    let dto = DirectionDto::new(direction, query.include);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(dto)).into_response())
}

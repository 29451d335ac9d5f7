//! `GET /v1/saes` and `GET /v1/saes/{id}`: the loaded sparse autoencoders.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};

use super::sae_description::{SaeDto, SaesDto};
use crate::api::{
    error::ApiResult,
    extract::{NoQuery, Query},
    problems::{QueryProblems, SaeProblems},
    state::ApiState,
};

/// List sparse autoencoders
///
/// The sparse autoencoders of the models of this server.
#[utoipa::path(
    get, path = "/v1/saes", operation_id = "listSaes", tag = "saes",
    responses((status = 200, description = "The autoencoders", body = SaesDto), QueryProblems)
)]
pub async fn list_saes(State(state): State<ApiState>, Query(NoQuery {}): Query<NoQuery>) -> Json<SaesDto> {
    let items = state.questions.sae_descriptions().into_iter().map(Into::into).collect();
    Json(SaesDto { items, next_cursor: None })
}

/// Describe a sparse autoencoder
///
/// Its hook, its dimensions, and the settings in its `cfg.json`.
#[utoipa::path(
    get, path = "/v1/saes/{id}", operation_id = "getSae", tag = "saes",
    params(("id" = String, Path, description = "Name of the autoencoder")),
    responses((status = 200, description = "The autoencoder", body = SaeDto), SaeProblems)
)]
pub async fn get_sae(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<Json<SaeDto>> {
    let name = path.map(|Path(id)| id).unwrap_or_default();
    Ok(Json(state.questions.sae_description(&name)?.into()))
}

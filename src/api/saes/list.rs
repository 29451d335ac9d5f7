//! `GET /v1/saes` and `GET /v1/saes/{id}`.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};

use super::dto::{SaeDto, SaesDto};
use crate::api::{
    error::ApiResult,
    extract::{NoQuery, Query},
    problems::{QueryProblems, SaeProblems},
    state::ApiState,
};
use residuum_domain::{Code, Problem};
use residuum_engine::SaeState;

fn describe(id: String, state: &SaeState) -> SaeDto {
    match state {
        SaeState::Loading { model, settings } => SaeDto::loading(id, model.clone(), settings),
        SaeState::Ready(sae) => SaeDto::ready(sae),
    }
}

/// List sparse autoencoders
///
/// Those that stand beside the models of this server.
#[utoipa::path(
    get, path = "/v1/saes", operation_id = "listSaes", tag = "saes",
    responses((status = 200, description = "The autoencoders", body = SaesDto), QueryProblems)
)]
pub async fn list_saes(State(state): State<ApiState>, Query(NoQuery {}): Query<NoQuery>) -> Json<SaesDto> {
    let items = state.questions.saes().all().into_iter().map(|(id, sae)| describe(id, &sae)).collect();
    Json(SaesDto { items, next_cursor: None })
}

/// Describe a sparse autoencoder
///
/// Its hook and sizes, and what its `cfg.json` says.
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
    let wanted = path.map(|Path(id)| id).unwrap_or_default();
    let all = state.questions.saes().all();
    let found = all.iter().find(|(id, _)| *id == wanted).map(|(id, sae)| describe(id.clone(), sae));
    let names = || all.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>().join(", ");
    let none = || Problem::new(Code::SaeNotFound, format!("there is no such autoencoder here; there is: {}", names()));
    Ok(Json(found.ok_or_else(none)?))
}

//! `/openai/v1/models`: the served models in OpenAI's shape.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::{
    error::ApiResult,
    extract::{NoQuery, Query},
    problems::{OpenAiListProblems, OpenAiModelProblems},
    state::ApiState,
};

/// A served model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiModel, example = json!({"id": "smollm2-135m", "object": "model", "created": 1_795_000_000, "owned_by": "residuum"}))]
pub struct OpenAiModel {
    /// The name to use in requests.
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    /// When this server started, in seconds since 1970.
    pub created: i64,
    /// Always `residuum`.
    pub owned_by: &'static str,
}

/// The served models.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiModels, example = json!({"object": "list", "data": [
    {"id": "smollm2-135m", "object": "model", "created": 1_795_000_000, "owned_by": "residuum"}
]}))]
pub struct OpenAiModels {
    /// Always `list`.
    pub object: &'static str,
    /// The models, by name.
    pub data: Vec<OpenAiModel>,
}

fn described(state: &ApiState, id: String) -> OpenAiModel {
    OpenAiModel { id, object: "model", created: state.started.as_second(), owned_by: "residuum" }
}

/// List models as OpenAI does
///
/// The models that are loaded. `GET /v1/models` says more about them.
#[utoipa::path(
    get, path = "/openai/v1/models", operation_id = "openaiListModels", tag = "openai",
    responses((status = 200, description = "The models", body = OpenAiModels), OpenAiListProblems)
)]
pub async fn list_models(State(state): State<ApiState>, Query(NoQuery {}): Query<NoQuery>) -> Json<OpenAiModels> {
    let ready = state.questions.served_models().into_iter().filter(|model| model.serving.status == "ready");
    let data = ready.map(|model| described(&state, model.id)).collect();
    Json(OpenAiModels { object: "list", data })
}

/// Describe a model as OpenAI does
///
/// A model that is still being loaded is answered with 503.
#[utoipa::path(
    get, path = "/openai/v1/models/{id}", operation_id = "openaiGetModel", tag = "openai",
    params(("id" = String, Path, description = "Name of the model")),
    responses((status = 200, description = "The model", body = OpenAiModel), OpenAiModelProblems)
)]
pub async fn get_model(
    State(state): State<ApiState>,
    path: Result<Path<String>, axum::extract::rejection::PathRejection>,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<Json<OpenAiModel>> {
    let wanted = path.map(|Path(id)| id).unwrap_or_default();
    state.engine.models().get(&wanted)?;
    Ok(Json(described(&state, wanted)))
}

//! `POST /v1/models`, `DELETE /v1/models/{id}` and `GET /v1/models/{id}/events`.

use std::convert::Infallible;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    response::{Response, Sse, sse::Event},
};
use futures::Stream;

use super::answer::{begun, follow, going};
use crate::api::{
    dto::{
        model::{ModelDto, ModelEvent},
        serving::{LoadModel, LoadQuery, UnloadModelQuery},
    },
    error::ApiResult,
    extract::{JsonBody, NoQuery, Query},
    problems::{LoadModelProblems, ModelProblems, UnloadModelProblems},
    runs::create_run::wait_of,
    state::ApiState,
};
use residuum_domain::{Code, Problem};
use residuum_engine::serving::NewModel;

/// Load a model
///
/// Answers 202 with the model, whose `status` is `loading`; with `?wait=SECONDS` 201 once the load has ended, well or
/// not: look at `status` and `error`. One load runs at a time. The model is loaded again after a restart. Needs the
/// scope `admin`.
#[utoipa::path(
    post, path = "/v1/models", operation_id = "loadModel", tag = "models", params(LoadQuery), request_body = LoadModel,
    responses(
        (status = 201, description = "The load has ended", body = ModelDto, headers(("Location" = String, description = "Path of the model"))),
        (status = 202, description = "The model is being loaded", body = ModelDto, headers(("Location" = String, description = "Path of the model"))),
        LoadModelProblems
    )
)]
pub async fn load_model(
    State(state): State<ApiState>,
    Query(query): Query<LoadQuery>,
    body: JsonBody<LoadModel>,
) -> ApiResult<Response> {
    let wait = wait_of(query.wait)?;
    let LoadModel { id, source, force } = body.value;
    state.serving.load_model(NewModel { id: id.clone(), source, force: force == Some(true) }).await?;
    state.serving.wait_for_model(&id, wait).await;
    let gone = |_| Problem::new(Code::Conflict, "the model was unloaded before this could be answered");
    let model = state.questions.served_model(&id).map_err(gone)?;
    let ended = query.wait.is_some() && model.serving.is_final;
    Ok(begun(&format!("/v1/models/{id}"), ended, ModelDto::of(model, true))?)
}

/// Unload a model
///
/// The model takes no new requests from now on. Accepted runs are computed first, or cancelled with `cancel_runs`; then
/// its memory is freed. What is stored stays readable. A load under way is cancelled, and a model that could not be
/// loaded is forgotten. Needs the scope `admin`.
#[utoipa::path(
    delete, path = "/v1/models/{id}", operation_id = "unloadModel", tag = "models",
    params(UnloadModelQuery, ("id" = String, Path, description = "Name of the model")),
    responses(
        (status = 202, description = "The model goes when accepted work has ended", body = ModelDto),
        (status = 204, description = "The model is gone"),
        UnloadModelProblems
    )
)]
pub async fn unload_model(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    Query(query): Query<UnloadModelQuery>,
) -> ApiResult<Response> {
    let wait = wait_of(query.wait)?;
    let id = path.map(|Path(id)| id).unwrap_or_default();
    state.serving.unload_model(&id, query.cancel_runs == Some(true)).await?;
    state.serving.wait_for_model(&id, wait).await;
    Ok(going(state.questions.served_model(&id).ok().map(|model| ModelDto::of(model, true))))
}

/// Follow a model
///
/// Server-sent events named `model`, whose data is a `Model` without its hooks: one at once, one after every change,
/// and the last when it is ready or has failed. The stream also ends when the model is gone.
#[utoipa::path(
    get, path = "/v1/models/{id}/events", operation_id = "followModel", tag = "models",
    params(("id" = String, Path, description = "Name of the model")),
    responses((status = 200, description = "Descriptions as `text/event-stream`", content_type = "text/event-stream", body = ModelEvent), ModelProblems)
)]
pub async fn follow_model(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let id = path.map(|Path(id)| id).unwrap_or_default();
    let changes = state.engine.models().changes();
    state.questions.served_model(&id)?;
    let questions = state.questions.clone();
    let describe = move || {
        let model = questions.served_model(&id).ok()?;
        let is_final = model.serving.is_final;
        Some((ModelDto::of(model, false), is_final))
    };
    Ok(follow("model", changes, state.engine.draining(), describe))
}

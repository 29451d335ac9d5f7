//! `POST /v1/saes`, `DELETE /v1/saes/{id}` and `GET /v1/saes/{id}/events`.

use std::convert::Infallible;

use axum::{
    extract::{FromRequest, Path, Request, State, rejection::PathRejection},
    http::header,
    response::{Response, Sse, sse::Event},
};
use futures::Stream;

use super::{
    answer::{begun, follow, going},
    sae_upload,
};
use crate::api::{
    dto::serving::{LoadQuery, LoadSae, UnloadSaeQuery, UploadSae},
    error::ApiResult,
    extract::{JsonBody, NoQuery, Query},
    problems::{LoadSaeProblems, SaeProblems, UnloadSaeProblems},
    runs::create_run::wait_of,
    saes::sae_description::{SaeDto, SaeEvent},
    state::ApiState,
};
use residuum_domain::{Code, Problem};
use residuum_engine::serving::{NewSae, SaePlace};

/// Load a sparse autoencoder
///
/// From a folder in SAELens's format, or from files that are uploaded as a form. Settings are checked before the answer;
/// then it is as for a model: 202 while it loads, or with `?wait=SECONDS` 201 once the load has ended. It is loaded
/// again after a restart. Needs the scope `admin`.
#[utoipa::path(
    post, path = "/v1/saes", operation_id = "loadSae", tag = "saes", params(LoadQuery),
    request_body(description = "Where the autoencoder is, or the autoencoder itself", content((LoadSae = "application/json"), (UploadSae = "multipart/form-data"))),
    responses(
        (status = 201, description = "The load has ended", body = SaeDto, headers(("Location" = String, description = "Path of the autoencoder"))),
        (status = 202, description = "The autoencoder is being loaded", body = SaeDto, headers(("Location" = String, description = "Path of the autoencoder"))),
        LoadSaeProblems
    )
)]
pub async fn load_sae(
    State(state): State<ApiState>,
    Query(query): Query<LoadQuery>,
    request: Request,
) -> ApiResult<Response> {
    let wait = wait_of(query.wait)?;
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let new = if given.trim_start().to_ascii_lowercase().starts_with("multipart/form-data") {
        sae_upload::receive(&state, &given, request.into_body()).await?
    } else {
        let LoadSae { id, model, source, force } = JsonBody::<LoadSae>::from_request(request, &state).await?.value;
        NewSae { id, model, place: SaePlace::Source(source), force: force == Some(true) }
    };
    let id = new.id.clone();
    state.serving.load_sae(new).await?;
    state.serving.wait_for_sae(&id, wait).await;
    let gone = |_| Problem::new(Code::Conflict, "the autoencoder was unloaded before this could be answered");
    let sae = state.questions.sae_description(&id).map_err(gone)?;
    let ended = query.wait.is_some() && sae.serving.is_final;
    Ok(begun(&format!("/v1/saes/{id}"), ended, SaeDto::from(sae))?)
}

/// Unload a sparse autoencoder
///
/// It takes no new requests from now on, and goes when those under way have ended. Files that were uploaded are
/// removed. A load under way is cancelled, and an autoencoder that could not be loaded is forgotten. Needs the scope
/// `admin`.
#[utoipa::path(
    delete, path = "/v1/saes/{id}", operation_id = "unloadSae", tag = "saes",
    params(UnloadSaeQuery, ("id" = String, Path, description = "Name of the autoencoder")),
    responses(
        (status = 202, description = "The autoencoder goes when requests under way have ended", body = SaeDto),
        (status = 204, description = "The autoencoder is gone"),
        UnloadSaeProblems
    )
)]
pub async fn unload_sae(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    Query(query): Query<UnloadSaeQuery>,
) -> ApiResult<Response> {
    let wait = wait_of(query.wait)?;
    let id = path.map(|Path(id)| id).unwrap_or_default();
    state.serving.unload_sae(&id).await?;
    state.serving.wait_for_sae(&id, wait).await;
    Ok(going(state.questions.sae_description(&id).ok().map(SaeDto::from)))
}

/// Follow a sparse autoencoder
///
/// Server-sent events named `sae`, whose data is a `Sae`: one at once, one after every change, and the last when it is
/// ready or has failed. The stream also ends when the autoencoder is gone.
#[utoipa::path(
    get, path = "/v1/saes/{id}/events", operation_id = "followSae", tag = "saes",
    params(("id" = String, Path, description = "Name of the autoencoder")),
    responses((status = 200, description = "Descriptions as `text/event-stream`", content_type = "text/event-stream", body = SaeEvent), SaeProblems)
)]
pub async fn follow_sae(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let id = path.map(|Path(id)| id).unwrap_or_default();
    let changes = state.questions.saes().changes();
    state.questions.sae_description(&id)?;
    let questions = state.questions.clone();
    let describe = move || {
        let sae = questions.sae_description(&id).ok()?;
        let is_final = sae.serving.is_final;
        Some((SaeDto::from(sae), is_final))
    };
    Ok(follow("sae", changes, state.engine.draining(), describe))
}

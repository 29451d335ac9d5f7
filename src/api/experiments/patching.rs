//! `POST /v1/experiments/patching`: runs a patching sweep and answers its result, or events while it runs.

use std::convert::Infallible;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{FutureExt, Stream, future::BoxFuture, stream};
use tokio::sync::watch;

use super::{
    patching_answer::{PatchingDto, PatchingProgress, tensor},
    patching_body::{PatchingQuery, PatchingRequest},
};
use crate::api::{
    dto::run::ServerSentEvent,
    error::{ApiResult, ProblemDto},
    extract::{JsonBody, Query, Tenant},
    problems::PatchingProblems,
    state::ApiState,
    tensor::{Format, respond_to_post},
};
use residuum_domain::Problem;
use residuum_engine::questions::patching::{Patching, PatchingAnswer};

/// Patch activations, cell by cell
///
/// Activation patching (Vig et al., 2020; Meng et al., 2022). The model computes the corrupt input once for each cell,
/// each time with one part of its activations replaced by those of the clean run, and a metric measures how far that
/// restores the clean answer. A sweep has cells for layers and, on request, positions or heads. Only what depends on
/// the replacement is computed again; the numbers are those of whole forward passes, bit for bit. Nothing is stored.
/// With `Accept: text/event-stream` the response is events named `progress` (their data is a `PatchingProgress`), then
/// one named `result` (the JSON answer) or `problem` (a `Problem`). If the client disconnects, the sweep stops.
#[utoipa::path(
    post, path = "/v1/experiments/patching", operation_id = "patchActivations", tag = "analysis", request_body = PatchingRequest,
    params(PatchingQuery),
    responses((status = 200, description = "The metric of every cell", content((PatchingDto = "application/json"),
        (ServerSentEvent = "text/event-stream"), (Vec<u8> = "application/x-npy"), (Vec<u8> = "application/vnd.safetensors"),
        (Vec<u8> = "application/octet-stream"))), PatchingProblems)
)]
pub async fn patch_activations(
    State(state): State<ApiState>,
    Tenant(_tenant): Tenant,
    Query(query): Query<PatchingQuery>,
    headers: HeaderMap,
    body: JsonBody<PatchingRequest>,
) -> ApiResult<Response> {
    let streamed = query.format.is_none() && wants_events(&headers);
    let format = if streamed { Format::Json } else { Format::negotiate(query.format, &headers)? };
    let sweep = state.questions.patching(body.value.into()).await?;
    if streamed {
        return Ok(Sse::new(events(state, sweep)).keep_alive(KeepAlive::default()).into_response());
    }
    let answer = state.questions.patched(sweep, &watch::Sender::new(0)).await?;
    if format == Format::Json {
        return Ok(Json(PatchingDto::from(answer)).into_response());
    }
    respond_to_post(tensor(answer), format, &state).await
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    accepted.flat_map(|v| v.split(',')).any(|one| one.split(';').next().map(str::trim) == Some("text/event-stream"))
}

/// A running sweep, stopped when this is dropped.
struct Running {
    sweep: BoxFuture<'static, Result<PatchingAnswer, Problem>>,
    progress: watch::Receiver<usize>,
    total: usize,
}

/// Events of the progress, then one of the answer.
fn events(state: ApiState, sweep: Patching) -> impl Stream<Item = Result<Event, Infallible>> {
    let (sender, progress) = watch::channel(0);
    let total = sweep.n_cells();
    let sweep = async move { state.questions.patched(sweep, &sender).await }.boxed();
    stream::unfold(Some(Running { sweep, progress, total }), |running| async move {
        let Running { mut sweep, mut progress, total } = running?;
        let changed = async {
            // the sweep drops the sender when it ends; its result is read below
            if progress.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = &mut sweep => Some(outcome),
            () = changed => None,
        };
        let (event, next) = match outcome {
            None => {
                let done = *progress.borrow_and_update();
                let event = Event::default().event("progress").json_data(PatchingProgress { done, total });
                (event, Some(Running { sweep, progress, total }))
            }
            Some(Ok(answer)) => (Event::default().event("result").json_data(PatchingDto::from(answer)), None),
            Some(Err(problem)) => (Event::default().event("problem").json_data(ProblemDto::from(problem)), None),
        };
        Some((Ok(event.ok()?), next))
    })
}

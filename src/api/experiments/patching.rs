//! `POST /v1/experiments/patching`: runs a patching sweep and answers its result, or events while it runs.

use std::convert::Infallible;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, stream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{
    patching_answer::{PatchingDto, PatchingEvent, PatchingProgress, tensor},
    patching_body::{PatchingQuery, PatchingRequest},
};
use crate::api::{
    error::{ApiResult, ProblemDto},
    extract::{JsonBody, Query, Tenant},
    pace::Activity,
    problems::PatchingProblems,
    state::ApiState,
    tensor::{Format, respond_to_post},
};
use residuum_domain::{Code, Problem, TenantId};
use residuum_engine::questions::patching::{ExperimentPlace, Patching, PatchingAnswer, SweepProgress};

/// Patch or ablate activations, cell by cell
///
/// Activation patching (Vig et al., 2020; Meng et al., 2022): the model computes the corrupt input once for each cell,
/// each time with one part of its activations replaced by those of the clean run, and a metric measures how far that
/// restores the clean answer. Ablations (`zero`, `mean_ablate`, `knockout`) change the clean run alone, and the metric
/// measures what is lost. A sweep has cells for layers and, on request, positions, attention edges or heads. Only what
/// depends on the change is computed again; the numbers are those of whole forward passes, bit for bit. Nothing is
/// stored.
///
/// A few experiments run at once; others wait, and clients take turns. Waiting does not count as time for the answer, but
/// takes at most as long. With `Accept: text/event-stream` the response begins at once, and may wait as long as the client
/// does: it is events named `progress` (their data is a `PatchingProgress`), then one named `result` (the JSON answer) or
/// `problem` (a `Problem`). If the client disconnects, the sweep stops, or leaves the queue.
#[utoipa::path(
    post, path = "/v1/experiments/patching", operation_id = "patchActivations", tag = "analysis", request_body = PatchingRequest,
    params(PatchingQuery),
    responses((status = 200, description = "The metric of every cell", content((PatchingDto = "application/json"),
        (PatchingEvent = "text/event-stream"), (Vec<u8> = "application/x-npy"), (Vec<u8> = "application/vnd.safetensors"),
        (Vec<u8> = "application/octet-stream"))), PatchingProblems)
)]
pub async fn patch_activations(
    State(state): State<ApiState>,
    Extension(activity): Extension<Activity>,
    Tenant(tenant): Tenant,
    Query(query): Query<PatchingQuery>,
    headers: HeaderMap,
    body: JsonBody<PatchingRequest>,
) -> ApiResult<Response> {
    let streamed = query.format.is_none() && wants_events(&headers);
    let format = if streamed { Format::Json } else { Format::negotiate(query.format, &headers)? };
    let JsonBody { value, memory, .. } = body;
    let sweep = state.questions.patching(tenant, value.question()?).await?;
    // the rest may wait long and no longer needs the body
    drop(memory);
    if streamed {
        return Ok(Sse::new(events(state, tenant, sweep)).keep_alive(KeepAlive::default()).into_response());
    }
    let place = activity.exempt(turn(&state, tenant)).await?;
    let answer = state.questions.patched(tenant, sweep, place, &watch::Sender::default()).await?;
    if format == Format::Json {
        return Ok(Json(PatchingDto::from(answer)).into_response());
    }
    respond_to_post(tensor(answer), format, &state).await
}

/// Waits for the turn of a sweep, as long as an answer may take.
///
/// # Errors
/// [`Code::TimedOut`] after that time, and those of the queue.
async fn turn(state: &ApiState, tenant: TenantId) -> Result<ExperimentPlace, Problem> {
    let (progress, limit) = (watch::Sender::default(), state.config.request_timeout);
    let place = tokio::time::timeout(limit, state.questions.experiment_turn(tenant, &progress)).await;
    place.unwrap_or_else(|_| {
        let SweepProgress { queue_position, .. } = *progress.borrow();
        let detail = format!(
            "the experiment waited {} s for its turn, and {} others come first; try again later, or accept \
             text/event-stream, which waits as long as you do",
            limit.as_secs(),
            queue_position.unwrap_or(0)
        );
        Err(Problem::new(Code::TimedOut, detail).retry_after(60))
    })
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    accepted.flat_map(|v| v.split(',')).any(|one| one.split(';').next().map(str::trim) == Some("text/event-stream"))
}

/// A sweep that waits or runs, stopped when this is dropped. It is a task of its own, so that a client that does not read
/// its events keeps no place in the queue.
struct Running {
    sweep: AbortOnDropHandle<Result<PatchingAnswer, Problem>>,
    progress: watch::Receiver<SweepProgress>,
    total: usize,
}

/// Events of the progress, then one of the answer.
fn events(state: ApiState, tenant: TenantId, sweep: Patching) -> impl Stream<Item = Result<Event, Infallible>> {
    let (sender, progress) = watch::channel(SweepProgress::default());
    let total = sweep.n_cells();
    let sweep = async move {
        let place = state.questions.experiment_turn(tenant, &sender).await?;
        state.questions.patched(tenant, sweep, place, &sender).await
    };
    let sweep = AbortOnDropHandle::new(tokio::spawn(sweep));
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
            outcome = &mut sweep => Some(outcome.unwrap_or_else(|e| {
                tracing::error!(error = %e, "a sweep panicked");
                Err(Problem::new(Code::Internal, "the sweep could not be carried out"))
            })),
            () = changed => None,
        };
        let (event, next) = match outcome {
            None => {
                let SweepProgress { queue_position, done } = *progress.borrow_and_update();
                let data = PatchingProgress { queue_position, done, total };
                (Event::default().event("progress").json_data(data), Some(Running { sweep, progress, total }))
            }
            Some(Ok(answer)) => (Event::default().event("result").json_data(PatchingDto::from(answer)), None),
            Some(Err(problem)) => (Event::default().event("problem").json_data(ProblemDto::from(problem)), None),
        };
        Some((Ok(event.ok()?), next))
    })
}

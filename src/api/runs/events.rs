//! `GET /v1/runs/{id}/events`: progress of a run as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, stream};

use crate::api::{
    dto::run::{RunDto, RunSnapshot, ServerSentEvent},
    error::ApiResult,
    extract::{NoQuery, PathId, Query, Tenant, not_found},
    problems::RunProblems,
    state::ApiState,
};
use residuum_domain::{Run, RunId};
use residuum_engine::Pace;

/// Time between two keep-alive comments: only sending something shows that a client has disconnected.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Follow a run
///
/// Server-sent events named `run`, whose data is a `RunSnapshot`: one at once, one after every change, and the last
/// with the final status. Every event describes the whole run, so a client that reconnects misses nothing.
#[utoipa::path(
    get, path = "/v1/runs/{id}/events", operation_id = "followRun", tag = "runs", params(("id" = String, Path, description = "Id of the run")),
    responses((status = 200, description = "Snapshots as `text/event-stream`", content_type = "text/event-stream", body = ServerSentEvent), RunProblems)
)]
pub async fn follow_run(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<RunId>,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    // subscribe before the first read, so that a change in between is not missed
    let changes = state.engine.subscribe(id);
    let first = state.engine.store().run(tenant, id).await?.ok_or_else(|| not_found::<RunId>(id))?;
    let draining = state.engine.draining();
    let events = stream::unfold((Some(first), changes, false), move |(next, mut changes, ended)| {
        let (state, draining) = (state.clone(), draining.clone());
        async move {
            if ended {
                return None;
            }
            let run = if let Some(run) = next {
                run
            } else {
                tokio::select! {
                    changed = changes.changed() => changed.ok()?,
                    () = draining.cancelled() => return None,
                }
                // if the run was deleted or cannot be read, the stream ends; reading the run then gives the reason
                state.engine.store().run(tenant, id).await.ok()??
            };
            let ended = run.status.is_final();
            let event = Event::default().event("run").json_data(snapshot(run, state.engine.pace(id))).ok()?;
            Some((Ok(event), (None, changes, ended)))
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)))
}

fn snapshot(run: Run, pace: Pace) -> RunSnapshot {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let eta_seconds = run.started_at.filter(|_| run.n_done > 0 && !run.status.is_final()).map(|started| {
        let elapsed = jiff::Timestamp::now().duration_since(started).as_secs_f64().max(0.0);
        let left = run.n_items.saturating_sub(run.n_done + run.n_failed);
        elapsed * left as f64 / run.n_done as f64
    });
    RunSnapshot { run: RunDto::new(run, pace.queue_position), tokens_per_second: pace.tokens_per_second, eta_seconds }
}

//! `GET /v1/runs/{id}/events`: progress and generated tokens of a run as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, stream};
use serde::Serialize;

use crate::api::{
    dto::run::{CompletionEvent, RunDto, RunEvent, RunSnapshot, TokenEvent},
    error::ApiResult,
    extract::{NoQuery, PathId, Query, Tenant, not_found},
    problems::RunProblems,
    state::ApiState,
};
use residuum_domain::{Run, RunId, TenantId};
use residuum_engine::{Change, GenerationEvent, Pace, TokenFeed};

/// Time between two keep-alive comments: only sending something shows that a client has disconnected.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Follow a run
///
/// Server-sent events. `run`, whose data is a `RunSnapshot`: one at once, one after every change, and the last with the
/// final status. Each of them describes the whole run, so a client that reconnects misses nothing. A run that generates
/// also sends `token` (a `TokenEvent`) for each token as it is chosen, and `completion` (a `CompletionEvent`) when a
/// continuation ends. These have an `id`, and a client that reconnects with it as `Last-Event-ID` gets what it missed as
/// long as the run has not ended; the last 8,192 are kept. After a restart of the server, which begins unfinished
/// continuations anew, it gets all of them: the item and the position say which it has already.
#[utoipa::path(
    get, path = "/v1/runs/{id}/events", operation_id = "followRun", tag = "runs",
    params(
        ("id" = String, Path, description = "Id of the run"),
        ("Last-Event-ID" = Option<String>, Header, description = "`id` of the last `token` or `completion` event that the client has", example = "19ad5c3b2f1-17")
    ),
    responses((status = 200, description = "Events as `text/event-stream`", content_type = "text/event-stream", body = RunEvent), RunProblems)
)]
pub async fn follow_run(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<RunId>,
    Query(NoQuery {}): Query<NoQuery>,
    headers: HeaderMap,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    let after = last.and_then(|id| number_of(&state, id)).unwrap_or(0);
    // subscribe before the first read, so that a change in between is not missed
    let changes = state.engine.subscribe(id);
    let run = state.engine.store().run(tenant, id).await?.ok_or_else(|| not_found::<RunId>(id))?;
    let tokens = run.generates.then(|| state.engine.follow(id, after));
    // read again: if it has ended in between, the tokens have no log that anybody would end
    let run = state.engine.store().run(tenant, id).await?.ok_or_else(|| not_found::<RunId>(id))?;
    if run.status.is_final() && tokens.is_some() {
        state.engine.unfollow(id);
    }
    let following = Following { tenant, id, changes, tokens, next: Some(run), ended: false, state };
    let events = stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok(event), following))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)))
}

/// A client that follows a run.
struct Following {
    state: ApiState,
    tenant: TenantId,
    id: RunId,
    changes: tokio::sync::watch::Receiver<u64>,
    /// The tokens of a run that generates; `None` once there are no more.
    tokens: Option<TokenFeed>,
    /// A snapshot that is to be sent next.
    next: Option<Run>,
    ended: bool,
}

impl Following {
    /// The next event. Tokens come before the final snapshot.
    async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(run) = self.next.take_if(|run| !run.status.is_final() || self.tokens.is_none()) {
                self.ended = run.status.is_final();
                return event("run", &snapshot(run, self.state.engine.pace(self.id)));
            }
            let draining = self.state.engine.draining();
            tokio::select! {
                token = next_token(&mut self.tokens) => match token {
                    Some((number, token)) => {
                        let sample = self.tokens.as_ref().map_or((token.item, 0), |feed| feed.sample_of(token.item));
                        let id = event_id(&self.state, number);
                        return happened(&id, &token, sample);
                    }
                    None => self.tokens = None,
                },
                changed = self.changes.changed(), if self.next.is_none() => {
                    changed.ok()?;
                    // if the run was deleted or cannot be read, the stream ends; reading the run then gives the reason
                    self.next = Some(self.state.engine.store().run(self.tenant, self.id).await.ok()??);
                }
                () = draining.cancelled() => return None,
            }
        }
    }
}

/// The id of an event: when this server started, in milliseconds, and the number of the event. Logs of tokens begin
/// anew with every start, so that a number alone would not tell which event it was.
fn event_id(state: &ApiState, number: u64) -> String {
    format!("{:x}-{number}", state.started.as_millisecond())
}

/// The number of an event of this server.
fn number_of(state: &ApiState, id: &str) -> Option<u64> {
    let (started, number) = id.split_once('-')?;
    (started == format!("{:x}", state.started.as_millisecond())).then(|| number.parse().ok())?
}

/// A token or the end of a continuation.
fn happened(id: &str, happened: &GenerationEvent, (index, sample): (u32, u32)) -> Option<Event> {
    let item = happened.item;
    let named = match &happened.change {
        Change::Written(written) => event(
            "token",
            &TokenEvent {
                item,
                index,
                sample,
                position: written.position,
                token_id: written.score.token_id,
                token: written.token.clone(),
                text: written.text.clone(),
                logprob: written.score.logprob.filter(|p| p.is_finite()),
            },
        ),
        Change::Ended { reason, text } => event(
            "completion",
            &CompletionEvent {
                item,
                index,
                sample,
                finish_reason: reason.as_ref().ok().copied(),
                text: text.clone(),
                error: reason.as_ref().err().map(|problem| problem.clone().into()),
            },
        ),
        // only for clients that asked for scores of the prompt
        Change::Scored(_) => Some(Event::default().comment("scored")),
    };
    named.map(|event| event.id(id))
}

/// The next token; never, if there are none.
async fn next_token(tokens: &mut Option<TokenFeed>) -> Option<(u64, std::sync::Arc<GenerationEvent>)> {
    match tokens {
        Some(tokens) => tokens.next().await,
        None => std::future::pending().await,
    }
}

fn event(name: &str, data: &impl Serialize) -> Option<Event> {
    Event::default().event(name).json_data(data).ok()
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

//! Answers about something that is being loaded or unloaded: its description, and events that follow it.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, stream};
use serde::Serialize;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use residuum_domain::{Code, Problem};

/// Time between two keep-alive comments.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Time between two looks at the progress of a load.
const LOOK: Duration = Duration::from_millis(200);

/// The answer to a load that began: 201 if it has ended within the time that the client waits.
pub fn begun(path: &str, ended: bool, description: impl Serialize) -> Result<Response, Problem> {
    let location =
        HeaderValue::from_str(path).map_err(|_| Problem::new(Code::Internal, "a header could not be written"))?;
    let status = if ended { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    Ok((status, [(header::LOCATION, location)], Json(description)).into_response())
}

/// The answer to a request to unload: 204 if it is gone.
pub fn going(description: Option<impl Serialize>) -> Response {
    match description {
        Some(description) => (StatusCode::ACCEPTED, Json(description)).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// Events with descriptions: one at once, one after every change, the last when `describe` says that it is final. The
/// stream also ends when what it follows is gone.
pub fn follow<T: Serialize + PartialEq + Send + 'static>(
    name: &'static str,
    changes: watch::Receiver<u64>,
    draining: CancellationToken,
    describe: impl Fn() -> Option<(T, bool)> + Clone + Send + 'static,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = stream::unfold((changes, None::<T>, false), move |(mut changes, mut last, ended)| {
        let (describe, draining) = (describe.clone(), draining.clone());
        async move {
            if ended {
                return None;
            }
            loop {
                let (now, is_final) = describe()?;
                if last.as_ref() != Some(&now) {
                    let event = Event::default().event(name).json_data(&now).ok()?;
                    last = Some(now);
                    return Some((Ok(event), (changes, last, is_final)));
                }
                tokio::select! {
                    changed = changes.changed() => changed.ok()?,
                    () = sleep(LOOK) => {}
                    () = draining.cancelled() => return None,
                }
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT))
}

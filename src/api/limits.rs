//! What every request is held to before a handler sees it: its headers, the coding of its body, the pace at which that
//! arrives, and the time until there is an answer.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    error::ApiError,
    pace::{Activity, PacedBody},
    state::ApiState,
};
use residuum_domain::{Code, Problem};

/// Longest time, in seconds, that a request may wait for its run.
pub const MAX_WAIT: f64 = 600.0;
/// Headers of one request. The server reads some more before it hangs up, so that it can say so.
const MAX_HEADERS: usize = 100;
/// Bytes of the path, the query and all headers.
const MAX_HEAD_BYTES: usize = 32 << 10;

/// Refuses what is too large or coded, and gives up on what takes too long.
pub async fn enforce(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if let Err(problem) = check_head(&request) {
        return ApiError(problem).into_response();
    }
    if is_coded(request.headers()) {
        let detail = "the body must be sent as it is, without a Content-Encoding";
        let mut response = ApiError(Problem::new(Code::UnsupportedMediaType, detail)).into_response();
        response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        return response;
    }
    let limit = state.config.request_timeout + wait_of(request.uri().query());
    let activity = Activity::default();
    let request = request.map(|body| Body::new(PacedBody::new(body, state.config.patience, activity.clone())));
    tokio::select! {
        response = next.run(request) => response,
        () = activity.rests_for(limit) => {
            let detail = "the answer took longer than this server allows; ask for less at once";
            ApiError(Problem::new(Code::TimedOut, detail)).into_response()
        }
    }
}

fn check_head(request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let bytes = request.uri().path_and_query().map_or(0, |p| p.as_str().len())
        + headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEAD_BYTES {
        let detail = format!(
            "the request has {} headers, {bytes} bytes with its path; it may have {MAX_HEADERS} and {MAX_HEAD_BYTES} bytes",
            headers.len()
        );
        return Err(Problem::new(Code::HeadersTooLarge, detail));
    }
    Ok(())
}

fn is_coded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The seconds of `?wait=`, which come on top of what an answer may take. One that is not valid is refused by its handler.
fn wait_of(query: Option<&str>) -> Duration {
    let wait = form_urlencoded::parse(query.unwrap_or("").as_bytes()).find(|(key, _)| key == "wait");
    let seconds = wait.and_then(|(_, value)| value.parse().ok()).filter(|s| (0.0..=MAX_WAIT).contains(s));
    Duration::from_secs_f64(seconds.unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_from_the_query() {
        assert_eq!(wait_of(Some("include=values&wait=2.5")), Duration::from_millis(2500));
        for none in
            [None, Some(""), Some("wait=x"), Some("wait=-1"), Some("wait=NaN"), Some("wait=inf"), Some("wait=601")]
        {
            assert_eq!(wait_of(none), Duration::ZERO, "{none:?}");
        }
    }

    #[test]
    fn only_plain_bodies_are_taken() {
        let headers =
            |value: &'static str| HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(value))]);
        assert!(!is_coded(&HeaderMap::new()) && !is_coded(&headers("Identity")));
        assert!(is_coded(&headers("gzip")) && is_coded(&headers("identity, gzip")));
    }
}

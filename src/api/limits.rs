//! Limits that apply to every request: size of headers, encoding of the body, the rate at which the body arrives, and
//! the time until the response starts.

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

/// Maximum of `?wait=`, in seconds.
pub const MAX_WAIT: f64 = 600.0;
/// The same as a duration. Requests that wait for a generation may take as long as with the longest `?wait=`.
pub const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Routes that wait for a generation.
const WAITING: [&str; 2] = ["/openai/v1/chat/completions", "/openai/v1/completions"];
/// Maximum number of headers. It is lower than the limit at which hyper closes the connection, so that clients get a
/// problem.
const MAX_HEADERS: usize = 100;
/// Maximum bytes of path, query and all headers.
const MAX_HEAD_BYTES: usize = 32 << 10;

/// Middleware: refuses requests with too large headers or an encoded body, and cancels those that take too long.
pub async fn enforce(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if let Err(problem) = check_head(&request) {
        return ApiError(problem).into_response();
    }
    if is_encoded(request.headers()) {
        let detail = "the body must be sent without Content-Encoding";
        let mut response = ApiError(Problem::new(Code::UnsupportedMediaType, detail)).into_response();
        response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        return response;
    }
    let waits = WAITING.contains(&request.uri().path());
    let wait = if waits { LONGEST_WAIT } else { wait_of(request.uri().query()) };
    let limit = state.config.request_timeout + wait;
    let activity = Activity::default();
    let mut request = request.map(|body| Body::new(PacedBody::new(body, state.config.body_rate, activity.clone())));
    request.extensions_mut().insert(activity.clone());
    tokio::select! {
        response = next.run(request) => response,
        () = activity.idle_for(limit) => {
            let detail = "the answer took longer than this server allows; request less at once";
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
            "the request has {} headers, {bytes} bytes with its path; at most {MAX_HEADERS} and {MAX_HEAD_BYTES} are allowed",
            headers.len()
        );
        return Err(Problem::new(Code::HeadersTooLarge, detail));
    }
    Ok(())
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The time of `?wait=`, which is added to the time limit of the answer. An invalid value counts as 0; the handler
/// refuses it.
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
    fn encoded_bodies_are_recognised() {
        let headers =
            |value: &'static str| HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(value))]);
        assert!(!is_encoded(&HeaderMap::new()) && !is_encoded(&headers("Identity")));
        assert!(is_encoded(&headers("gzip")) && is_encoded(&headers("identity, gzip")));
    }
}

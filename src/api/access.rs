//! Authorisation: the scope that each route needs, and the middleware that checks every request.
//!
//! A store that has never had a key is open: every request belongs to the default tenant. Once there is a key, every
//! route needs one, except those of [`is_open`]. This stays so when the last key is revoked: the rows of revoked keys
//! are kept, and a server that has required keys requires them until it ends.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{error::ApiError, state::ApiState};
use residuum_domain::{Code, Problem, Scope};

/// `POST` routes that only compute from stored activations and change nothing, so that the scope `read` suffices.
const QUESTIONS: [&str; 10] = [
    "/v1/comparisons",
    "/v1/search",
    "/v1/projections",
    "/v1/statistics",
    "/v1/tokenize",
    "/v1/caches/{id}/lens",
    "/v1/caches/{id}/attribution",
    "/v1/caches/{id}/features",
    "/v1/saes/{id}/tokens",
    "/openai/v1/embeddings",
];

/// Routes that change what the server serves, for all tenants.
const ADMINISTRATION: [(Method, &str); 4] = [
    (Method::POST, "/v1/models"),
    (Method::DELETE, "/v1/models/{id}"),
    (Method::POST, "/v1/saes"),
    (Method::DELETE, "/v1/saes/{id}"),
];

/// Routes that need no key: the index, those for probes and for readers of the documentation, and the files of the
/// dashboard, which asks the other routes with the key of its user.
fn is_open(route: &str) -> bool {
    ["/", "/healthz", "/readyz", "/openapi.json", "/openapi.yaml", "/docs", "/ui"].contains(&route)
        || route.starts_with("/docs/")
        || route.starts_with("/ui/")
}

/// The scope that a request needs; `None` if its route needs no key. By default that is `read` for `GET`, `HEAD` and
/// `OPTIONS`, and `write` for other methods.
pub fn required(method: &Method, route: &str) -> Option<Scope> {
    if is_open(route) {
        return None;
    }
    Some(match *method {
        _ if route == "/metrics" => Scope::Metrics,
        _ if ADMINISTRATION.iter().any(|(of, path)| of == method && *path == route) => Scope::Admin,
        Method::GET | Method::HEAD | Method::OPTIONS => Scope::Read,
        Method::POST if QUESTIONS.contains(&route) => Scope::Read,
        _ => Scope::Write,
    })
}

/// Middleware: finds the [`Caller`](super::key_ring::Caller) of a request and adds it to the extensions, or refuses the
/// request.
pub async fn check(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    // without a route there is nothing to guard: the answer is 404
    let Some(scope) = route.and_then(|route| required(request.method(), &route)) else {
        return next.run(request).await;
    };
    match state.keys.admit(request.headers(), scope).await {
        Ok(caller) => {
            let span = tracing::Span::current();
            span.record("tenant", caller.tenant.0);
            if let Some(key) = caller.key {
                span.record("key", tracing::field::display(key));
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => refusal(problem, scope),
    }
}

/// The problem as a response, with the `WWW-Authenticate` header of RFC 6750.
fn refusal(problem: Problem, scope: Scope) -> Response {
    let challenge = match problem.code {
        Code::ApiKeyRequired => Some("Bearer realm=\"residuum\"".to_owned()),
        Code::ApiKeyInvalid => Some("Bearer realm=\"residuum\", error=\"invalid_token\"".to_owned()),
        Code::ScopeMissing => {
            Some(format!("Bearer realm=\"residuum\", error=\"insufficient_scope\", scope=\"{scope}\""))
        }
        _ => None,
    };
    let mut response = ApiError(problem).into_response();
    if let Some(value) = challenge.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_are_not_listed_need_a_scope() {
        assert_eq!(required(&Method::GET, "/v1/something/new"), Some(Scope::Read));
        assert_eq!(required(&Method::POST, "/v1/something/new"), Some(Scope::Write));
        assert_eq!(required(&Method::PUT, "/something"), Some(Scope::Write));
        assert_eq!(required(&Method::HEAD, "/v1/caches/{id}/layers"), Some(Scope::Read));
        assert_eq!(required(&Method::GET, "/metrics"), Some(Scope::Metrics));
        assert_eq!(required(&Method::GET, "/docsomething"), Some(Scope::Read));
        assert_eq!(required(&Method::GET, "/docs/{*rest}"), None);
        assert_eq!(required(&Method::GET, "/uis"), Some(Scope::Read));
        assert_eq!(required(&Method::GET, "/ui/{*place}"), None);
        assert_eq!(required(&Method::DELETE, "/v1/saes/{id}"), Some(Scope::Admin));
        assert_eq!(required(&Method::GET, "/v1/models/{id}"), Some(Scope::Read));
    }
}

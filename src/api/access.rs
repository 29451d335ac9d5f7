//! Who may call: the scope that each route needs, and the check that every request passes.
//!
//! A store that has never had a key is open: whoever reaches the server is the default tenant. From the first key on, every
//! route but those of [`is_open`] needs one, also once the last is revoked: rows of revoked keys stay, and a server that has
//! asked for keys goes on asking until it ends.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{error::ApiError, state::ApiState};
use residuum_domain::{Code, Problem, Scope};

/// Requests whose body asks a question of what is stored: the only ones with a `POST` that change nothing of the tenant's.
const QUESTIONS: [&str; 9] = [
    "/v1/comparisons",
    "/v1/search",
    "/v1/projections",
    "/v1/statistics",
    "/v1/tokenize",
    "/v1/caches/{id}/lens",
    "/v1/caches/{id}/attribution",
    "/v1/caches/{id}/features",
    "/v1/saes/{id}/tokens",
];

/// Routes that ask for no key: what probes, and readers of the documentation, need.
fn is_open(route: &str) -> bool {
    ["/healthz", "/readyz", "/openapi.json", "/openapi.yaml", "/docs"].contains(&route) || route.starts_with("/docs/")
}

/// The scope that a route needs; `None` for those without a key. A route that is not named here needs `read` to be read and
/// `write` for anything else.
pub fn required(method: &Method, route: &str) -> Option<Scope> {
    if is_open(route) {
        return None;
    }
    Some(match *method {
        _ if route == "/metrics" => Scope::Metrics,
        Method::GET | Method::HEAD | Method::OPTIONS => Scope::Read,
        Method::POST if QUESTIONS.contains(&route) => Scope::Read,
        _ => Scope::Write,
    })
}

/// Lets a request through to its route, knowing whose it is, or refuses it.
pub async fn check(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    // where there is no route there is nothing to guard: the answer is that
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

/// The refusal, with what RFC 6750 has clients read from a header.
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
    fn what_is_not_named_is_guarded() {
        assert_eq!(required(&Method::GET, "/v1/something/new"), Some(Scope::Read));
        assert_eq!(required(&Method::POST, "/v1/something/new"), Some(Scope::Write));
        assert_eq!(required(&Method::PUT, "/something"), Some(Scope::Write));
        assert_eq!(required(&Method::HEAD, "/v1/caches/{id}/layers"), Some(Scope::Read));
        assert_eq!(required(&Method::GET, "/metrics"), Some(Scope::Metrics));
        assert_eq!(required(&Method::GET, "/docsomething"), Some(Scope::Read));
        assert_eq!(required(&Method::GET, "/docs/{*rest}"), None);
    }
}

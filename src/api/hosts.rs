//! Checks `Host` and `Origin`, to keep web pages from using a server without keys.
//!
//! Without keys, the server obeys every request it receives, and a browser on the same machine sends it requests for
//! any web page. An attacker can also make the name of a page resolve to this machine (DNS rebinding). Page and server
//! then have the same origin, and a `GET` of the page carries no `Origin`; but the attacker's name is in `Host`. So
//! while there are no keys, `Host` must be a name or address of this machine or one that the operator allows, and
//! requests from pages of other origins are refused. With keys this is not needed, since a page has no key.

use std::net::IpAddr;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    error::ApiError,
    state::{ApiConfig, ApiState},
};
use residuum_domain::{Code, Problem};

/// Routes that are not checked: probes may put any name into `Host`.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Whether a route is for probes.
pub fn is_probe(route: &str) -> bool {
    PROBES.contains(&route)
}

/// Middleware: refuses a request without a host. While the store has no keys, it also refuses requests to other hosts
/// and from pages of other origins.
pub async fn check(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let probes = request.extensions().get::<MatchedPath>().is_some_and(|route| is_probe(route.as_str()));
    let is_open = match state.keys.requires_keys().await {
        Ok(requires_keys) => !requires_keys && !probes,
        Err(_) if probes => false,
        Err(error) => return ApiError::from(error).into_response(),
    };
    match admit(&request, is_open, &state.config) {
        Ok(()) => next.run(request).await,
        Err(problem) => ApiError(problem).into_response(),
    }
}

fn admit(request: &Request, is_open: bool, config: &ApiConfig) -> Result<(), Problem> {
    let host = host(request)?;
    if !is_open {
        return Ok(());
    }
    check_host(host.as_ref(), config)?;
    check_origin(request.method(), request.headers(), host.as_ref(), config)
}

/// The host that a request is addressed to; `None` only for HTTP/1.0, where it is optional.
///
/// # Errors
/// [`Code::InvalidHeader`] if the host is missing, given several times, or malformed (RFC 9110, section 7.2).
fn host(request: &Request) -> Result<Option<Authority>, Problem> {
    let refused = |detail: &str| Problem::at(Code::InvalidHeader, "Host", detail);
    let mut given = request.headers().get_all(header::HOST).iter();
    let (first, second) = (given.next(), given.next());
    if second.is_some() {
        return Err(refused("the request has more than one Host header"));
    }
    // an absolute URI takes precedence over the header, which is required nevertheless
    if first.is_none() && request.version() >= Version::HTTP_11 {
        return Err(refused("the request has no Host header"));
    }
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.clone()));
    }
    let parse = |value: &HeaderValue| value.to_str().ok()?.parse().ok();
    first.map(|value| parse(value).ok_or_else(|| refused("the Host header is malformed"))).transpose()
}

/// Refuses a host name that a server without keys does not accept.
fn check_host(host: Option<&Authority>, config: &ApiConfig) -> Result<(), Problem> {
    // browsers do not use HTTP/1.0
    let Some(host) = host else { return Ok(()) };
    let name = name_of(host);
    let is_allowed = match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || config.any_address,
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    };
    let is_named =
        |allowed: &String| allowed.eq_ignore_ascii_case(&name) || allowed.eq_ignore_ascii_case(host.as_str());
    if is_allowed || config.allowed_hosts.iter().any(is_named) {
        return Ok(());
    }
    let detail = format!(
        "this server has no API keys and does not accept the name `{}`; allow it with --allowed-hosts, or make a key",
        name.chars().take(80).collect::<String>()
    );
    Err(Problem::at(Code::HostNotAllowed, "Host", detail))
}

/// The name or address of a host, in lower case, without port and brackets.
fn name_of(host: &Authority) -> String {
    let name = host.host().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    name.to_ascii_lowercase()
}

/// Refuses a request from a web page, unless the page is this server's or of an origin that the operator allows.
fn check_origin(
    method: &Method,
    headers: &HeaderMap,
    host: Option<&Authority>,
    config: &ApiConfig,
) -> Result<(), Problem> {
    let refused = |name: &str| {
        let detail = "this server has no API keys and refuses requests from pages of other origins; allow one with \
            --cors-origin, or make a key";
        Err(Problem::at(Code::OriginNotAllowed, name, detail))
    };
    let is_allowed =
        |origin: &HeaderValue| config.cors_origins.iter().any(|allowed| allowed == "*" || allowed == origin);
    let is_own = |origin: &HeaderValue| {
        let authority = origin.to_str().ok().and_then(|text| text.split_once("://")).map(|(_, authority)| authority);
        authority.is_some_and(|authority| host.is_some_and(|host| authority.eq_ignore_ascii_case(host.as_str())))
    };
    let mut origins = headers.get_all(header::ORIGIN).iter().peekable();
    if origins.peek().is_some() {
        return if origins.all(|origin| is_allowed(origin) || is_own(origin)) { Ok(()) } else { refused("Origin") };
    }
    // a browser that leaves out `Origin` still tells that the page is of another site
    let site = headers.get("sec-fetch-site");
    if !method.is_safe() && site.is_some_and(|site| site != "same-origin" && site != "none") {
        return refused("Sec-Fetch-Site");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn config(hosts: &[&str], origins: &[&'static str], any_address: bool) -> ApiConfig {
        let allowed_hosts = hosts.iter().map(|h| (*h).to_owned()).collect();
        let cors_origins = origins.iter().map(|o| HeaderValue::from_static(o)).collect();
        ApiConfig { allowed_hosts, cors_origins, any_address, ..ApiConfig::default() }
    }

    #[test]
    fn only_names_of_this_machine_are_accepted() {
        let default = config(&[], &[], false);
        let allows = |host: &str, config: &ApiConfig| check_host(Some(&host.parse().unwrap()), config).is_ok();
        for own in [
            "localhost",
            "LOCALHOST:8080",
            "app.localhost",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:80",
            "localhost.",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(allows(own, &default), "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "notlocalhost",
            "0.0.0.0",
        ] {
            assert!(!allows(foreign, &default), "{foreign}");
        }
        let named = config(&["gpu.lan", "other:99"], &[], false);
        assert!(allows("GPU.lan:8080", &named) && allows("other:99", &named));
        assert!(!allows("other", &named) && !allows("lan", &named));
        assert!(allows("10.0.0.1", &config(&[], &[], true)) && !allows("evil.example", &config(&[], &[], true)));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let check = |method: Method, header: (&'static str, &'static str), config: &ApiConfig| {
            let headers = HeaderMap::from_iter([(header.0.parse().unwrap(), HeaderValue::from_static(header.1))]);
            check_origin(&method, &headers, Some(&"localhost:8080".parse().unwrap()), config).is_ok()
        };
        let default = config(&[], &[], false);
        assert!(check(Method::GET, ("accept", "*/*"), &default));
        assert!(check(Method::POST, ("origin", "http://localhost:8080"), &default));
        for foreign in
            ["null", "http://evil.example", "http://localhost:3000", "http://localhost", "localhost:8080", ""]
        {
            assert!(!check(Method::GET, ("origin", foreign), &default), "{foreign}");
            assert!(!check(Method::POST, ("origin", foreign), &default), "{foreign}");
        }
        assert!(check(Method::POST, ("origin", "http://app.lan"), &config(&[], &["http://app.lan"], false)));
        assert!(check(Method::POST, ("origin", "null"), &config(&[], &["*"], false)));
        assert!(!check(Method::POST, ("sec-fetch-site", "cross-site"), &default));
        assert!(!check(Method::DELETE, ("sec-fetch-site", "same-site"), &default));
        assert!(check(Method::POST, ("sec-fetch-site", "same-origin"), &default));
        assert!(check(Method::GET, ("sec-fetch-site", "cross-site"), &default));
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        let host = |version: Version, uri: &str, hosts: &[&str]| {
            let builder = hosts.iter().fold(Request::builder().version(version).uri(uri), |b, h| b.header("host", *h));
            host(&builder.body(Body::empty()).unwrap()).map(|host| host.map(|h| h.to_string())).map_err(|p| p.code)
        };
        assert_eq!(host(Version::HTTP_11, "/", &["a:1"]), Ok(Some("a:1".to_owned())));
        assert_eq!(host(Version::HTTP_11, "http://b/", &["a:1"]), Ok(Some("b".to_owned())));
        assert_eq!(host(Version::HTTP_10, "/", &[]), Ok(None));
        for (uri, hosts) in [
            ("/", &[] as &[&str]),
            ("/", &["a", "b"]),
            ("/", &["a", "a"]),
            ("/", &[""]),
            ("/", &["a b"]),
            ("http://b/", &[]),
        ] {
            assert_eq!(host(Version::HTTP_11, uri, hosts), Err(Code::InvalidHeader), "{uri} {hosts:?}");
        }
    }
}

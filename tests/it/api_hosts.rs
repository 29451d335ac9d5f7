//! A server without keys answers requests to names of this machine and from its own pages; a server with keys answers
//! whoever has a key.

use axum::{body::Body, http::Method};
use residuum::{api::ApiConfig, domain::Scope, engine::Limits};
use serde_json::json;

use crate::support::{Answer, TestApp, operations, request, with_model};

const PROBES: [&str; 2] = ["/healthz", "/readyz"];

async fn ask(app: &TestApp, method: &Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let id = "0198c5a0-5b3f-7d51-8a3e-0242ac120002";
    let path = path.replace("{id}", id).replace("{layer}", "1").replace("{direction}", "none").replace("{hook}", "x");
    app.send(request(method.clone(), &path, headers, Body::empty())).await
}

#[tokio::test]
async fn without_keys_every_route_except_probes_refuses_foreign_hosts_and_pages() {
    let app = TestApp::new().await;
    for (method, path, _) in operations() {
        let foreign_host = ask(&app, &method, path, &[("host", "rebound.example:8080")]).await;
        let foreign_page = ask(&app, &method, path, &[("origin", "http://page.example")]).await;
        let no_page = ask(&app, &method, path, &[("origin", "null")]).await;
        if PROBES.contains(&path) {
            assert_eq!((foreign_host.status.as_u16(), foreign_page.status.as_u16()), (200, 200), "{path}");
        } else {
            assert_eq!(foreign_host.refused(421, "host_not_allowed"), ["Host"], "{method} {path}");
            assert_eq!(foreign_page.refused(403, "origin_not_allowed"), ["Origin"], "{method} {path}");
            assert_eq!(no_page.refused(403, "origin_not_allowed"), ["Origin"], "{method} {path}");
        }
    }
    for path in ["/healthz", "/readyz", "/v1/runs", "/docs/", "/ui/"] {
        let (mut parts, body) = request(Method::GET, path, &[], Body::empty()).into_parts();
        parts.headers.remove("host");
        app.send(axum::http::Request::from_parts(parts, body)).await.problem(400, "invalid_header");
    }
    // unknown paths refuse foreign hosts too
    app.get_with("/nothing", &[("host", "rebound.example")]).await.problem(421, "host_not_allowed");
}

#[tokio::test]
async fn pages_of_the_server_and_of_allowed_origins_may_call() {
    let allowed = ApiConfig {
        allowed_hosts: vec!["gpu.lan".to_owned()],
        cors_origins: vec!["http://notebook.lan".parse().unwrap()],
        ..ApiConfig::default()
    };
    let app = TestApp::with(Limits::default(), allowed).await;
    let body = with_model(json!({"text": "the cat"}));
    for headers in [
        [("host", "localhost:8080"), ("origin", "http://localhost:8080")],
        [("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")],
        [("host", "gpu.lan"), ("origin", "http://gpu.lan")],
        [("host", "localhost"), ("origin", "http://notebook.lan")],
    ] {
        assert_eq!(app.post_with("/v1/tokenize", &headers, &body).await.status, 200, "{headers:?}");
    }
    // a page of another port of this machine is of another origin
    let other = [("host", "localhost:8080"), ("origin", "http://localhost:3000")];
    app.post_with("/v1/tokenize", &other, &body).await.problem(403, "origin_not_allowed");
}

#[tokio::test]
async fn with_keys_any_host_name_is_accepted() {
    let app = TestApp::attentive().await;
    let (_, key) = app.key("default", &[Scope::Read]).await;
    let headers = [("host", "residuum.example"), ("origin", "http://page.example"), ("authorization", key.as_str())];
    assert_eq!(app.get_with("/v1/runs", &headers).await.status, 200);
    app.get_with("/v1/runs", &headers[..2]).await.problem(401, "api_key_required");
}

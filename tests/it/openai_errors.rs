//! Every error under `/openai/` has OpenAI's shape, whichever part of the server finds it; and the list of models.

use std::time::Duration;

use axum::{body::Body, http::Method};
use residuum::{api::ApiConfig, domain::Scope, engine::Limits};
use serde_json::{Value, json};

use crate::support::{MODEL, TestApp, request};

const INVALID: &str = "invalid_request_error";
const COMPLETIONS: &str = "/openai/v1/completions";
const CHAT: &str = "/openai/v1/chat/completions";
const EMBEDDINGS: &str = "/openai/v1/embeddings";

#[tokio::test]
async fn bodies_and_paths_are_refused_in_openais_shape() {
    let app = TestApp::new().await;
    let json_header = [("content-type", "application/json")];
    let post = async |headers: &[(&str, &str)], body: &'static str| {
        app.send(request(Method::POST, COMPLETIONS, headers, Body::from(body))).await
    };
    post(&json_header, "{").await.openai_error(400, INVALID, "invalid_json");
    post(&[], "{}").await.openai_error(415, INVALID, "unsupported_media_type");
    let encoded = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let refused = post(&encoded, "{}").await;
    refused.openai_error(415, INVALID, "unsupported_media_type");
    assert_eq!(refused.header("accept-encoding"), "identity", "headers of the answer are kept");
    let param = post(&json_header, "{}").await.openai_error(400, INVALID, "invalid_body");
    assert_eq!(param.as_deref(), Some("model"));
    let prompt = json!({"model": MODEL, "prompt": 7});
    let param = app.post(COMPLETIONS, &prompt).await.openai_error(400, INVALID, "invalid_field");
    assert_eq!(param.as_deref(), Some("prompt"));
    let unknown = json!({"model": MODEL, "prompt": "a", "no_such_field": 1});
    let param = app.post(COMPLETIONS, &unknown).await.openai_error(400, INVALID, "invalid_body");
    assert_eq!(param.as_deref(), Some("no_such_field"));
    let chat = json!({"model": MODEL, "messages": [{"role": "user", "content": 7}]});
    let param = app.post(CHAT, &chat).await.openai_error(400, INVALID, "invalid_field");
    assert_eq!(param.as_deref(), Some("messages[0].content"));
    let query = format!("{EMBEDDINGS}?x=1");
    app.post(&query, &json!({})).await.openai_error(400, INVALID, "invalid_query");
    app.get("/openai/v1/nothing").await.openai_error(404, "not_found_error", "route_not_found");
    app.get("/openai/").await.openai_error(404, "not_found_error", "route_not_found");
    let wrong_method = app.get(CHAT).await;
    wrong_method.openai_error(405, INVALID, "method_not_allowed");
    assert_eq!(wrong_method.header("allow"), "POST");
    // other paths have problems as before
    app.get("/openai").await.problem(404, "route_not_found");
    app.get("/v1/nothing").await.problem(404, "route_not_found");
}

#[tokio::test]
async fn a_model_that_does_not_exist_is_not_found() {
    let app = TestApp::new().await;
    for (uri, body) in [
        (COMPLETIONS, json!({"model": "gpt-4o", "prompt": "a"})),
        (CHAT, json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "a"}]})),
        (EMBEDDINGS, json!({"model": "gpt-4o", "input": "a"})),
    ] {
        let answer = app.post(uri, &body).await;
        let param = answer.openai_error(404, "not_found_error", "model_not_found");
        assert_eq!(param.as_deref(), Some("model"), "{uri}");
    }
    app.get("/openai/v1/models/gpt-4o").await.openai_error(404, "not_found_error", "model_not_found");
}

#[tokio::test]
async fn middleware_refuses_in_openais_shape() {
    let app = TestApp::attentive().await;
    let foreign = app.get_with("/openai/v1/models", &[("host", "evil.example")]).await;
    assert_eq!(foreign.openai_error(421, INVALID, "host_not_allowed").as_deref(), Some("Host"));
    let page = app.get_with("/openai/v1/models", &[("origin", "http://evil.example")]).await;
    page.openai_error(403, "permission_error", "origin_not_allowed");
    let large = "x".repeat(40_000);
    let headers = [("x-large", large.as_str())];
    app.get_with("/openai/v1/models", &headers).await.openai_error(431, INVALID, "headers_too_large");
    // clients always send a key, and a server without keys accepts it
    let foreign_key = [("authorization", "Bearer sk-proj-abcdefghijklmnop")];
    assert_eq!(app.get_with("/openai/v1/models", &foreign_key).await.status, 200);

    let (_, reader) = app.key("default", &[Scope::Read]).await;
    let no_key = app.get("/openai/v1/models").await;
    no_key.openai_error(401, "authentication_error", "api_key_required");
    assert!(no_key.headers.contains_key("www-authenticate"));
    app.get_with("/openai/v1/models", &foreign_key).await.openai_error(401, "authentication_error", "api_key_required");
    let wrong = format!("{}0", &reader[..reader.len() - 1]);
    let wrong = if wrong == reader { format!("{}1", &reader[..reader.len() - 1]) } else { wrong };
    let unknown = app.get_with("/openai/v1/models", &[("authorization", &wrong)]).await;
    unknown.openai_error(401, "authentication_error", "api_key_invalid");
    assert_eq!(app.get_with("/openai/v1/models", &[("authorization", &reader)]).await.status, 200);
    let body = json!({"model": MODEL, "input": "a"});
    assert_eq!(app.send_as(&reader, Method::POST, EMBEDDINGS, &body).await.status, 200);
    let body = json!({"model": MODEL, "prompt": "a"});
    let refused = app.send_as(&reader, Method::POST, COMPLETIONS, &body).await;
    refused.openai_error(403, "permission_error", "scope_missing");
}

#[tokio::test]
async fn limits_are_answered_in_openais_shape() {
    let api = ApiConfig { max_body_bytes: 1000, ..ApiConfig::default() };
    let app = TestApp::with(Limits { max_run_tokens: 20, ..Limits::default() }, api).await;
    let large = json!({"model": MODEL, "input": "x".repeat(2000)});
    app.post(EMBEDDINGS, &large).await.openai_error(413, INVALID, "body_too_large");
    let many = json!({"model": MODEL, "input": vec![vec![1; 8]; 3]});
    let param = app.post(EMBEDDINGS, &many).await.openai_error(413, INVALID, "too_many_run_tokens");
    assert_eq!(param.as_deref(), Some("input[2]"));
    let busy = ApiConfig { max_request_memory: 0, ..ApiConfig::default() };
    let app = TestApp::with(Limits::default(), busy).await;
    let body = json!({"model": MODEL, "input": "x".repeat(5000)});
    let answer = app.post(EMBEDDINGS, &body).await;
    answer.openai_error(503, "server_error", "server_busy");
    assert_eq!(answer.header("retry-after"), "2");
    let slow = ApiConfig { request_timeout: Duration::ZERO, ..ApiConfig::default() };
    let app = TestApp::with(Limits::default(), slow).await;
    let body = json!({"model": MODEL, "input": vec!["the cat"; 50]});
    app.post(EMBEDDINGS, &body).await.openai_error(503, "server_error", "timed_out");
}

#[tokio::test]
async fn the_loaded_models_are_listed() {
    let mut app = TestApp::unloaded(Limits::default(), ApiConfig::default()).await;
    assert_eq!(app.get("/openai/v1/models").await.json(), json!({"object": "list", "data": []}));
    let loading = app.get(&format!("/openai/v1/models/{MODEL}")).await;
    loading.openai_error(503, "server_error", "unavailable");
    assert_eq!(loading.header("retry-after"), "2");
    app.load().await;
    let listed = app.get("/openai/v1/models").await.json();
    let model: &Value = &listed["data"][0];
    assert_eq!((&model["id"], &model["object"]), (&json!(MODEL), &json!("model")));
    assert!(model["created"].as_i64().is_some_and(|at| at > 1_700_000_000) && model["owned_by"].is_string());
    assert_eq!(app.get(&format!("/openai/v1/models/{MODEL}")).await.json(), *model);
}

#[tokio::test]
async fn pages_of_allowed_origins_may_send_the_headers_of_openais_client() {
    let api = ApiConfig { cors_origins: vec!["https://chat.example".parse().unwrap()], ..ApiConfig::default() };
    let app = TestApp::with(Limits::default(), api).await;
    let headers = [
        ("origin", "https://chat.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,x-stainless-lang"),
    ];
    let answer = app.send(request(Method::OPTIONS, CHAT, &headers, Body::empty())).await;
    let allowed = answer.header("access-control-allow-headers").to_owned();
    assert!(["x-stainless-lang", "x-stainless-retry-count", "authorization"].iter().all(|h| allowed.contains(h)));
}

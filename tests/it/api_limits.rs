//! Limits of a request: headers, content encoding, speed, time and tokens; and readiness.

use std::{convert::Infallible, time::Duration};

use axum::{body::Body, http::Method};
use bytes::Bytes;
use futures::{StreamExt, stream};
use residuum::{
    api::{ApiConfig, BodyRate},
    engine::Limits,
};
use serde_json::json;

use crate::support::{TestApp, request, with_model};

#[tokio::test]
async fn too_many_or_too_large_headers_are_refused() {
    let app = TestApp::new().await;
    let names: Vec<String> = (0..101).map(|i| format!("x-header-{i}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(app.get_with("/v1/runs", &many[..90]).await.status, 200);
    app.get_with("/v1/runs", &many).await.problem(431, "headers_too_large");
    let large = "x".repeat(33_000);
    app.get_with("/v1/runs", &[("x-large", &large)]).await.problem(431, "headers_too_large");
    app.get(&format!("/v1/runs?model={large}")).await.problem(431, "headers_too_large");
    assert_eq!(app.get(&format!("/v1/runs?model={}", &large[..20_000])).await.status, 200);
}

#[tokio::test]
async fn encoded_bodies_are_refused() {
    let app = TestApp::new().await;
    let body = with_model(json!({"input": "a"}));
    for coding in ["gzip", "zstd", "identity, gzip", "deflate"] {
        let answer = app.post_with("/v1/runs", &[("content-encoding", coding)], &body).await;
        answer.problem(415, "unsupported_media_type");
        assert_eq!(answer.header("accept-encoding"), "identity");
    }
    assert_eq!(app.post_with("/v1/runs", &[("content-encoding", "identity")], &body).await.status, 202);
}

#[tokio::test]
async fn a_body_that_arrives_too_slowly_times_out() {
    let body_rate = BodyRate { grace: Duration::from_millis(100), bytes_per_second: 1_000_000 };
    let app = TestApp::with(Limits::default(), ApiConfig { body_rate, ..ApiConfig::default() }).await;
    let trickle = stream::repeat(Bytes::from_static(b" ")).then(|byte| async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok::<_, Infallible>(byte)
    });
    let headers = [("content-type", "application/json")];
    let answer = app.send(request(Method::POST, "/v1/runs", &headers, Body::from_stream(trickle))).await;
    answer.problem(408, "request_timeout");
    let whole = app.post("/v1/tokenize", &with_model(json!({"text": "a"}))).await;
    assert_eq!(whole.status, 200);
}

#[tokio::test]
async fn an_answer_that_takes_too_long_times_out() {
    let api = ApiConfig { request_timeout: Duration::ZERO, ..ApiConfig::default() };
    let app = TestApp::with(Limits::default(), api).await;
    // a handler that waits for its body cannot answer, however fast the machine is
    let silent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let headers = [("content-type", "application/json")];
    app.send(request(Method::POST, "/v1/runs", &headers, silent)).await.problem(503, "timed_out");
    // the time that a client asks to wait is added to the limit
    let waited = app.post("/v1/runs?wait=60", &with_model(json!({"input": "a"}))).await;
    assert_eq!(waited.status, 201);
}

#[tokio::test]
async fn the_tokens_of_a_run_are_limited() {
    let limits = Limits { max_run_tokens: 10, ..Limits::default() };
    let app = TestApp::with(limits, ApiConfig::default()).await;
    let post = async |body| app.post("/v1/runs", &with_model(body)).await;
    assert_eq!(post(json!({"input": [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]})).await.status, 202);
    let over = post(json!({"input": [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1]]})).await;
    assert_eq!(over.problem(413, "too_many_run_tokens"), ["/input/2"]);
    let generated = post(json!({"input": [1, 2, 3], "generate": {"max_new_tokens": 8}})).await;
    assert_eq!(generated.problem(413, "too_many_run_tokens").len(), 1);
}

#[tokio::test]
async fn readiness_tells_whether_the_store_can_write() {
    let app = TestApp::attentive().await;
    assert_eq!(app.get("/readyz").await.status, 200);
    let (blobs, away) = (app.data_dir().join("blobs"), app.data_dir().join("away"));
    std::fs::rename(&blobs, &away).unwrap();
    let answer = app.get("/readyz").await;
    answer.problem(503, "unavailable");
    assert!(answer.json()["detail"].as_str().unwrap().contains("store"));
    assert_eq!(app.get("/healthz").await.status, 200, "it is still alive");
    std::fs::rename(&away, &blobs).unwrap();
    assert_eq!(app.get("/readyz").await.status, 200);
    assert_eq!(std::fs::read_dir(&blobs).unwrap().count(), 0, "failed attempts leave no files");
}

#[tokio::test]
async fn a_server_that_stops_is_not_ready() {
    let app = TestApp::attentive().await;
    app.engine().drain().await;
    let answer = app.get("/readyz").await;
    answer.problem(503, "unavailable");
    assert!(answer.json()["detail"].as_str().unwrap().contains("stopping"));
    app.post("/v1/runs", &with_model(json!({"input": "a"}))).await.problem(503, "unavailable");
    assert_eq!(app.get("/v1/runs").await.status, 200, "what is stored can be read to the end");
}

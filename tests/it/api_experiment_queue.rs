//! The queue of experiments over HTTP: many at once, bounds, clients that leave, the time limit, and a server that stops.

use std::time::Duration;

use axum::http::Method;
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use http_body_util::BodyExt;
use residuum::{api::ApiConfig, domain::Scope, engine::Limits};
use serde_json::{Value, json};

use crate::support::{TestApp, request};

/// A sweep with more work than a test waits for: 64 tokens, every edge of three layers and four heads.
fn long() -> Value {
    json!({"model": "tiny", "clean": vec![5; 64], "answer": 42, "sweep": {"op": "knockout", "from": "each", "to": "each", "heads": "each"}})
}

fn short() -> Value {
    json!({"model": "tiny", "clean": [1, 2, 3], "answer": 42, "sweep": {"op": "zero"}})
}

const SWEEPS: &str = "/v1/experiments/patching";

/// Starts streamed sweeps and reads one event of each, so that each runs or waits. Dropping one ends its sweep.
async fn streams(app: &TestApp, n: usize) -> Vec<axum::body::BodyDataStream> {
    let headers = [("content-type", "application/json"), ("accept", "text/event-stream")];
    let begin = || app.router();
    let mut streams = Vec::new();
    for _ in 0..n {
        let post = request(Method::POST, SWEEPS, &headers, long().to_string().into());
        let response = tower::ServiceExt::oneshot(begin(), post).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut stream = response.into_body().into_data_stream();
        stream.next().await.unwrap().unwrap();
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn many_experiments_wait_and_all_are_answered() {
    let app = TestApp::new().await;
    let body = short();
    let answers = join_all((0..40).map(|_| app.post(SWEEPS, &body))).await;
    let first = answers[0].json()["values"].clone();
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.json()["values"]), (200, &first));
    }
    assert_eq!(app.engine().experiments(), [0, 0]);
}

#[tokio::test]
async fn another_client_does_not_wait_for_the_first_ones_sweeps() {
    let app = TestApp::attentive().await;
    let (_, first) = app.key("first", &[Scope::Read, Scope::Write]).await;
    let (_, second) = app.key("second", &[Scope::Read, Scope::Write]).await;
    let body = long();
    let mut busy: FuturesUnordered<_> = (0..6).map(|_| app.send_as(&first, Method::POST, SWEEPS, &body)).collect();
    let quick = short();
    let other = async {
        // so that the others are there first
        while app.engine().experiments() != [2, 4] {
            tokio::task::yield_now().await;
        }
        app.send_as(&second, Method::POST, SWEEPS, &quick).await
    };
    tokio::select! {
        answer = other => assert_eq!(answer.status, 200),
        _ = busy.next() => panic!("a long sweep ended first"),
    }
}

#[tokio::test]
async fn an_experiment_whose_client_leaves_is_gone_and_further_ones_are_refused_while_the_queue_is_full() {
    let app = TestApp::new().await;
    let mut open = streams(&app, 2 + 64).await;
    let refused = app.post(SWEEPS, &short()).await;
    assert_eq!(refused.problem(429, "client_queue_full"), [""; 0]);
    assert_eq!(refused.header("retry-after"), "5");
    until(&app, [2, 64]).await;
    open.drain(2..).for_each(drop);
    until(&app, [2, 0]).await;
    open.clear();
    until(&app, [0, 0]).await;
    assert_eq!(app.post(SWEEPS, &short()).await.status, 200);
}

/// Waits until as many experiments run and wait.
async fn until(app: &TestApp, expected: [usize; 2]) {
    while app.engine().experiments() != expected {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_experiment_that_waits_is_told_its_place_and_how_long_it_may_wait() {
    let api = ApiConfig { request_timeout: Duration::from_secs(1), ..ApiConfig::default() };
    let app = TestApp::with(Limits::default(), api).await;
    let _open = streams(&app, 2).await;
    let headers = [("content-type", "application/json"), ("accept", "text/event-stream")];
    let post = request(Method::POST, SWEEPS, &headers, short().to_string().into());
    let mut waiting = tower::ServiceExt::oneshot(app.router(), post).await.unwrap().into_body();
    let event = waiting.frame().await.unwrap().unwrap().into_data().unwrap();
    let event = String::from_utf8(event.to_vec()).unwrap();
    assert!(event.contains(r#""queue_position":0"#), "{event}");
    let late = app.post(SWEEPS, &short()).await;
    assert_eq!(late.problem(503, "timed_out"), [""; 0]);
    assert!(late.json()["detail"].as_str().unwrap().contains("waited 1 s"), "{}", late.json());
}

#[tokio::test]
async fn a_server_that_stops_ends_waiting_experiments() {
    let mut app = TestApp::new().await;
    let open = streams(&app, 3).await;
    let texts: Vec<_> = open
        .into_iter()
        .map(|stream| {
            tokio::spawn(stream.fold(String::new(), async |text, part| text + &String::from_utf8_lossy(&part.unwrap())))
        })
        .collect();
    app.stop().await;
    for text in texts {
        let text = text.await.unwrap();
        assert!(text.contains("event: problem") && text.contains(r#""code":"unavailable""#), "{text}");
    }
}

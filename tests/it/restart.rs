//! What a server leaves behind when it stops, and how the next one continues. tests/crash.py kills real processes.

use serde_json::json;

use crate::support::{TestApp, with_model};

#[tokio::test]
async fn an_accepted_run_survives_a_restart() {
    let mut app = TestApp::new().await;
    let done = app.capture("the cat", json!({})).await;
    let inputs: Vec<Vec<u32>> = (0..1500).map(|i| vec![i % 250, i % 7, 3]).collect();
    let run = app.post("/v1/runs", &with_model(json!({"input": inputs, "reuse": false}))).await.json();
    let uri = format!("/v1/runs/{}", run["id"].as_str().unwrap());
    app.stop().await;
    app.start_again().await;
    assert_ne!(app.get(&uri).await.json()["status"], "failed");
    app.load().await;
    app.get(&format!("{uri}/events")).await;
    let ended = app.get(&uri).await.json();
    assert_eq!(
        (&ended["status"], &ended["n_done"], &ended["n_failed"]),
        (&json!("completed"), &json!(1500), &json!(0))
    );
    assert_eq!(app.get(&format!("/v1/caches/{done}/layers")).await.status, 200);
}

#[tokio::test]
async fn waiting_requests_are_released_when_the_server_stops() {
    let mut app = TestApp::new().await;
    let inputs: Vec<Vec<u32>> = (0..3000).map(|i| vec![i % 250; 60]).collect();
    let body = with_model(json!({"input": inputs, "reuse": false}));
    let id = app.post("/v1/runs?wait=0.05", &body).await.json()["id"].as_str().unwrap().to_owned();
    app.stop().await;
    app.start_again().await;
    app.load().await;
    let run = app.post(&format!("/v1/runs/{id}/cancel"), &json!({})).await.json();
    assert_eq!(run["status"], "cancelled");
}

#[tokio::test]
async fn generation_gives_the_same_tokens_after_a_restart() {
    let mut app = TestApp::new().await;
    let inputs: Vec<Vec<u32>> = (0..60).map(|i| vec![i, 7, 3]).collect();
    let body = json!({"input": inputs, "generate": {"max_new_tokens": 40, "temperature": 2.0, "seed": 5}});
    let run = app.post("/v1/runs", &with_model(body.clone())).await.json();
    let uri = format!("/v1/runs/{}", run["id"].as_str().unwrap());
    app.stop().await;
    app.start_again().await;
    app.load().await;
    app.get(&format!("{uri}/events")).await;
    let ended = app.get(&uri).await.json();
    assert_eq!((&ended["status"], &ended["n_done"]), (&json!("completed"), &json!(60)));
    let undisturbed = app.run(body).await;
    let texts = |run: &serde_json::Value| -> Vec<serde_json::Value> {
        run["completions"].as_array().unwrap().iter().map(|c| c["token_ids"].clone()).collect()
    };
    assert_eq!(texts(&ended), texts(&undisturbed));
}

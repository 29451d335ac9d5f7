//! The queue, reuse between runs, priorities, bounds, and clients that disconnect.

use std::{future::Future, pin::pin, task::Poll};

use axum::{body::Body, http::Method};
use residuum::{
    api::ApiConfig,
    domain::{Code, RunId, RunStatus, TenantId},
    engine::{Content, InputSpec, Limits, RunRequest},
    store::Store,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{MODEL, TestApp, request, with_model};

/// Every hook of the tiny model, including attention maps.
async fn every_hook(app: &TestApp) -> Vec<Value> {
    let model = app.get("/v1/models/tiny").await.json();
    model["hooks"].as_array().unwrap().iter().map(|h| h["hook"].clone()).collect()
}

/// The bytes of every tensor of a cache.
async fn tensors(app: &TestApp, run: &Value, i: usize, hooks: &[Value]) -> Vec<bytes::Bytes> {
    let cache = run["caches"][i].as_str().unwrap();
    let mut all = Vec::new();
    for hook in hooks {
        let answer = app.get(&format!("/v1/caches/{cache}/tensors/{}?format=raw", hook.as_str().unwrap())).await;
        assert_eq!(answer.status, 200, "{hook}");
        all.push(answer.body);
    }
    all
}

#[tokio::test]
async fn rows_of_a_larger_capture_are_copied_bit_for_bit() {
    let app = TestApp::new().await;
    let hooks = every_hook(&app).await;
    let capture = |positions: &Value, dtype: &str| json!({"hooks": hooks, "positions": positions, "dtype": dtype});
    let ids = [9, 8, 7, 6, 5, 4, 3];
    let first = app.run(json!({"input": ids, "capture": capture(&json!("all"), "float32")})).await;
    assert_eq!(first["n_reused"], 0);
    for (positions, dtype) in [
        (json!("last"), "float32"),
        (json!("mean"), "float32"),
        (json!("mean"), "bfloat16"),
        (json!("all"), "float16"),
        (json!([5, 0, -2, 0]), "float32"),
        (json!({"start": 1, "end": 4}), "bfloat16"),
        (json!({"mean": [6, 1, 2]}), "float16"),
    ] {
        let body = |reuse: bool| json!({"input": ids, "capture": capture(&positions, dtype), "reuse": reuse});
        let copied = app.run(body(true)).await;
        assert_eq!(copied["n_reused"], 1, "{positions} {dtype}");
        let computed = app.run(body(false)).await;
        assert_eq!(computed["n_reused"], 0);
        let (copied, computed) = (tensors(&app, &copied, 0, &hooks).await, tensors(&app, &computed, 0, &hooks).await);
        for ((hook, a), b) in hooks.iter().zip(copied).zip(computed) {
            assert!(a == b, "{hook} at {positions} as {dtype}");
        }
    }
    assert!(app.engine().store().verify().await.unwrap().is_clean());
}

#[tokio::test]
async fn a_mean_is_not_computed_from_rounded_rows() {
    let app = TestApp::new().await;
    let capture = |positions: &str, dtype: &str| json!({"positions": positions, "dtype": dtype});
    let run = |capture: Value| json!({"input": [1, 2, 3, 4], "capture": capture});
    app.run(run(capture("all", "float16"))).await;
    assert_eq!(app.run(run(capture("last", "float16"))).await["n_reused"], 1);
    assert_eq!(app.run(run(capture("mean", "float16"))).await["n_reused"], 0);
    assert_eq!(app.run(run(capture("last", "float32"))).await["n_reused"], 0);
}

#[tokio::test]
async fn the_same_input_is_computed_once_in_a_run() {
    let app = TestApp::new().await;
    let inputs: Vec<Vec<u32>> = (0..90).map(|i| vec![5, 6, i % 3]).collect();
    let run = app.run(json!({"input": inputs, "capture": {"positions": "all"}})).await;
    assert_eq!((&run["n_done"], &run["n_reused"]), (&json!(90), &json!(87)));
    let hook = [json!("blocks.1.hook_resid_post")];
    for i in 3..9 {
        assert_eq!(tensors(&app, &run, i, &hook).await, tensors(&app, &run, i % 3, &hook).await);
    }
    let forced = app.run(json!({"input": inputs, "capture": {"positions": "all"}, "reuse": false})).await;
    assert_eq!((&forced["n_done"], &forced["n_reused"]), (&json!(90), &json!(0)));
}

/// Inputs that keep the worker busy for a while.
fn many(n: u32, first: u32) -> Vec<Vec<u32>> {
    (0..n).map(|i| (0..60).map(|j| (first + i * 7 + j * j) % 250).chain([i % 250, i / 250]).collect()).collect()
}

#[tokio::test]
async fn concurrent_runs_share_their_work() {
    let app = TestApp::new().await;
    let hooks = every_hook(&app).await;
    let body = with_model(json!({"input": many(40, 1), "capture": {"hooks": hooks, "positions": "all"}}));
    let posts = (0..4).map(|_| app.post("/v1/runs?wait=60", &body));
    let runs: Vec<Value> = futures::future::join_all(posts).await.iter().map(|a| a.json()).collect();
    assert!(runs.iter().all(|r| r["status"] == "completed"), "{runs:#?}");
    let reused: u64 = runs.iter().map(|r| r["n_reused"].as_u64().unwrap()).sum();
    assert_eq!(reused, 3 * 40, "each input is computed once");
}

#[tokio::test]
async fn followers_of_a_cancelled_leader_are_computed() {
    let app = TestApp::new().await;
    let hooks = every_hook(&app).await;
    for (round, delete) in [false, true, false].into_iter().enumerate() {
        let inputs = many(60, 100 * round as u32);
        let body = with_model(json!({"input": inputs, "capture": {"hooks": hooks, "positions": "all"}}));
        let leader = app.post("/v1/runs", &body).await.json();
        let uri = format!("/v1/runs/{}", leader["id"].as_str().unwrap());
        while app.get(&uri).await.json()["status"] == "queued" {
            tokio::task::yield_now().await;
        }
        let follower = app.post("/v1/runs", &body).await.json();
        if delete {
            assert_eq!(app.delete(&uri).await.status, 204);
        } else {
            app.post(&format!("{uri}/cancel"), &json!({})).await;
        }
        let id: RunId = follower["id"].as_str().unwrap().parse().unwrap();
        let wait = std::time::Duration::from_secs(60);
        let ended = app.engine().wait(TenantId::DEFAULT, id, wait).await.unwrap().unwrap();
        assert_eq!((ended.status, ended.n_done), (RunStatus::Completed, 60));
    }
}

fn run_of(tenant: i64, inputs: Vec<Vec<u32>>, reuse: bool) -> RunRequest {
    let input = |ids| InputSpec::new(String::new(), Content::TokenIds(ids));
    RunRequest { reuse, ..RunRequest::new(TenantId(tenant), MODEL, inputs.into_iter().map(input).collect()) }
}

async fn submit(app: &TestApp, request: RunRequest) -> RunId {
    app.engine().submit(request).await.unwrap().id()
}

#[tokio::test]
async fn tenants_never_share_activations() {
    let app = TestApp::new().await;
    let mut ids = Vec::new();
    for tenant in [1, 2, 3] {
        ids.push((tenant, submit(&app, run_of(tenant, many(20, 0), true)).await));
    }
    for (tenant, id) in ids {
        let wait = std::time::Duration::from_secs(60);
        let run = app.engine().wait(TenantId(tenant), id, wait).await.unwrap().unwrap();
        assert_eq!((run.status, run.n_done, run.n_reused), (RunStatus::Completed, 20, 0), "tenant {tenant}");
    }
}

#[tokio::test]
async fn numbers_of_another_checkpoint_are_not_reused() {
    let mut app = TestApp::new().await;
    let body = json!({"input": [1, 2, 3], "capture": {"positions": "all"}});
    app.run(body.clone()).await;
    app.stop().await;
    app.start_again().await;
    app.load().await;
    assert_eq!(app.run(body.clone()).await["n_reused"], 1, "the same checkpoint answers after a restart");
    app.stop().await;
    app.start_again_with("llama/rope_llama3").await;
    assert_eq!(app.run(body).await["n_reused"], 0);
}

#[tokio::test]
async fn each_client_has_a_separate_bound() {
    let limits = Limits { max_client_items: 10, max_queued_items: 3010, ..Limits::default() };
    let app = TestApp::with(limits, ApiConfig::default()).await;
    let refused = async |tenant, n| app.engine().submit(run_of(tenant, many(n, 0), false)).await.unwrap_err();
    submit(&app, run_of(1, many(3000, 0), false)).await;
    let own = refused(1, 1).await;
    assert_eq!(own.code, Code::ClientQueueFull, "{own}");
    assert!(own.retry_after.is_some() && own.detail.contains("at most 10 items"), "{own}");
    submit(&app, run_of(2, many(5, 0), false)).await;
    let all = refused(3, 3010).await;
    assert_eq!(all.code, Code::QueueFull, "{all}");
    app.post("/v1/runs", &with_model(json!({"input": "a"}))).await.problem(429, "client_queue_full");
}

#[tokio::test]
async fn stored_runs_are_answered_however_long_the_queue_is() {
    let limits = Limits { max_client_items: 10, ..Limits::default() };
    let app = TestApp::with(limits, ApiConfig::default()).await;
    let known = with_model(json!({"input": ["the cat", "the dog"], "tags": ["again"], "metadata": {"n": 1}}));
    let first = app.run(known.clone()).await;
    submit(&app, run_of(1, many(3000, 0), false)).await;
    app.post("/v1/runs", &with_model(json!({"input": "a"}))).await.problem(429, "client_queue_full");
    let mut key = known.clone();
    key["input"] = json!(["the cat", "a"]);
    app.post("/v1/runs", &key).await.problem(429, "client_queue_full");
    // without ?wait, and completed all the same
    let answer = app.post("/v1/runs", &known).await;
    assert_eq!(answer.status, 202);
    let again = answer.json();
    assert_eq!((&again["status"], &again["n_reused"]), (&json!("completed"), &json!(2)));
    let id = again["id"].as_str().unwrap();
    assert_eq!(answer.headers["location"], format!("/v1/runs/{id}"));
    assert_eq!(app.get(&format!("/v1/runs/{id}")).await.json(), again, "equal to the first answer");
    for (old, new) in first["caches"].as_array().unwrap().iter().zip(again["caches"].as_array().unwrap()) {
        let cache = async |id: &Value| app.get(&format!("/v1/caches/{}", id.as_str().unwrap())).await.json();
        let (old, new) = (cache(old).await, cache(new).await);
        assert_eq!((&new["reused"], &new["run"]), (&json!(true), &again["id"]));
        for same in ["content_hash", "text", "token_ids", "tags", "metadata", "hooks"] {
            assert_eq!(old[same], new[same], "{same}");
        }
    }
}

#[tokio::test]
async fn concurrent_runs_do_not_both_get_the_last_place() {
    let limits = Limits { max_client_items: 100, ..Limits::default() };
    let app = TestApp::with(limits, ApiConfig::default()).await;
    submit(&app, run_of(1, many(99, 0), false)).await;
    let engine = app.engine();
    let posts = (0..20).map(|i| engine.submit(run_of(1, many(60, i), false)));
    let taken = futures::future::join_all(posts).await.iter().filter(|r| r.is_ok()).count();
    // A run is accepted only if at most 100 items wait, so of 20 concurrent runs most are refused, however fast the
    // worker is.
    assert!(taken < 15, "{taken} were accepted");
}

#[tokio::test]
async fn an_urgent_run_overtakes_bulk_runs_and_keeps_its_priority() {
    let mut app = TestApp::new().await;
    let bulk = json!({"input": many(3000, 0), "reuse": false, "priority": "bulk"});
    let bulk = app.post("/v1/runs", &with_model(bulk)).await.json();
    let uri = format!("/v1/runs/{}", bulk["id"].as_str().unwrap());
    let urgent = app.run(json!({"input": "the cat", "priority": "interactive"})).await;
    assert_eq!((&urgent["priority"], &urgent["status"]), (&json!("interactive"), &json!("completed")));
    let behind = app.get(&uri).await.json();
    assert_eq!((&behind["priority"], &behind["finished_at"]), (&json!("bulk"), &Value::Null));
    app.stop().await;
    app.start_again().await;
    assert_eq!(app.get(&uri).await.json()["priority"], "bulk");
    app.load().await;
    assert_eq!(app.run(json!({"input": "a"})).await["priority"], "normal", "by default");
    let wrong = app.post("/v1/runs", &with_model(json!({"input": "a", "priority": "urgent"}))).await;
    assert_eq!(wrong.problem(400, "invalid_field"), ["/priority"]);
    assert_eq!(app.delete(&uri).await.status, 204);
}

/// Polls `future` at most `polls` times, then drops it. Returns whether it completed.
async fn hang_up_after<F: Future>(polls: usize, future: F) -> bool {
    let mut left = polls;
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn a_client_may_hang_up_at_any_moment() {
    let app = TestApp::new().await;
    let mut finished = 0;
    for polls in 0..200 {
        let key = format!("hang-up-{polls}");
        let body = with_model(json!({"input": ["the cat"], "tags": [key], "reuse": false})).to_string();
        let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
        let post = || request(Method::POST, "/v1/runs?wait=60", &headers, Body::from(body.clone()));
        finished += usize::from(hang_up_after(polls, app.router().oneshot(post())).await);
        // Whatever is stored is complete; a request with the same key finds the run or creates it, once.
        let again = app.send(post()).await;
        let run = again.json();
        assert_eq!((again.status.as_u16(), &run["status"]), (201, &json!("completed")), "{polls} polls: {run:#}");
        let listed = app.get(&format!("/v1/runs?tag={key}")).await.json();
        assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{polls} polls");
        assert_eq!(app.get(&format!("/v1/caches?tag={key}")).await.json()["items"].as_array().unwrap().len(), 1);
        if finished == 3 {
            return;
        }
    }
    panic!("the request never came to its end");
}

#[tokio::test]
async fn an_input_that_stops_the_server_three_times_fails() {
    let mut app = TestApp::new().await;
    let body = with_model(json!({"input": many(3000, 0), "reuse": false}));
    let run = app.post("/v1/runs", &body).await.json();
    let id: RunId = run["id"].as_str().unwrap().parse().unwrap();
    app.stop().await;
    let done = {
        let store = Store::open(app.data_dir()).await.unwrap();
        let pending = store.pending().await.unwrap().remove(0);
        let (killer, harmless) = (pending.items[0], pending.items[1]);
        for _ in 0..3 {
            store.claim(&[(id, killer)]).await.unwrap();
        }
        store.claim(&[(id, harmless)]).await.unwrap();
        store.close().await;
        3000 - 1
    };
    app.start_again().await;
    app.load().await;
    let wait = std::time::Duration::from_secs(60);
    let ended = app.engine().wait(TenantId::DEFAULT, id, wait).await.unwrap().unwrap();
    assert_eq!((ended.status, ended.n_done, ended.n_failed), (RunStatus::Failed, done, 1));
    assert_eq!(ended.error.unwrap().code, Code::WorkerFailed);
}

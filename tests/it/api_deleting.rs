//! Deleting caches while others read them, over every route that reads rows: a deleted cache is not found or left out;
//! it is never reported as damaged.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, http::Method};
use http_body_util::BodyExt;
use residuum::{api::ApiConfig, engine::Limits, store::KeepDeleted};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{Answer, TestApp, check_listed, request, sae};

const RESID: &str = "blocks.1.hook_resid_post";
const TEXTS: [&str; 8] =
    ["the cat sat", "a dog", "in the end", "of all the days", "a cat", "the tower", "what it was", "the dog sat"];

/// A server that keeps no files of deleted caches for readers.
async fn app() -> TestApp {
    let keep_deleted = KeepDeleted { time: Duration::ZERO, max_bytes: 0 };
    let limits = Limits { keep_deleted, ..Limits::default() };
    let mut app = TestApp::started_with("llama/gqa_tied", limits, ApiConfig::default(), vec![sae("standard")]).await;
    app.load().await;
    app
}

/// Captures runs of two caches each. Returns their ids.
async fn runs(app: &TestApp) -> Vec<(String, Vec<String>)> {
    let mut made = Vec::new();
    for pair in TEXTS.chunks(2) {
        let hooks = json!(["resid_post", "resid_pre", "resid_mid", "attn_out", "mlp_out", "embed", "final_norm"]);
        let body = json!({
            "input": pair, "reuse": false, "tags": ["some"],
            "capture": {"hooks": hooks, "positions": "all"},
        });
        let run = app.run(body).await;
        let caches = run["caches"].as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_owned()).collect();
        made.push((run["id"].as_str().unwrap().to_owned(), caches));
    }
    made
}

/// All requests that read rows of a run's first cache, of the run, or of what a filter finds.
fn questions(run: &str, cache: &str) -> Vec<(Method, String, Value)> {
    let some = json!({"tags": ["some"]});
    let get = |uri: String| (Method::GET, uri, Value::Null);
    let post = |uri: &str, body: Value| (Method::POST, uri.to_owned(), body);
    let of_cache = |path: &str| format!("/v1/caches/{cache}/{path}");
    vec![
        get(of_cache("layers")),
        get(of_cache("layers/1?format=npy&hook=resid_post")),
        get(of_cache(&format!("tensors/{RESID}?position=mean"))),
        get(of_cache("safetensors")),
        post(&of_cache("lens"), json!({})),
        post(&of_cache("attribution"), json!({"token": 5})),
        post(&of_cache("features"), json!({"sae": "standard"})),
        get(format!("/v1/runs/{run}/tensors/{RESID}")),
        get(format!("/v1/runs/{run}/tensors/{RESID}?format=raw")),
        get(format!("/v1/runs/{run}/export?hook=resid_post&format=npz")),
        get("/v1/export?tag=some&hook=resid_post&layers=1".to_owned()),
        get("/v1/export?tag=some&hook=resid_post&layers=1&format=arrow".to_owned()),
        post("/v1/comparisons", json!({"mode": "matrix", "caches": some, "metrics": ["cosine"]})),
        post("/v1/comparisons", json!({"mode": "pairs", "a": [cache], "b": some, "metrics": ["cosine", "euclidean"]})),
        post("/v1/statistics", json!({"caches": some})),
        post("/v1/statistics", json!({"caches": [cache]})),
        post("/v1/projections", json!({"caches": some, "directions": [{"cache": cache}]})),
        post("/v1/search", json!({"query": {"cache": cache}, "hook": RESID, "over": "positions", "k": 5})),
        post("/v1/search", json!({"query": {"vector": vec![1.0; 32]}, "hook": RESID, "k": 5, "filter": some})),
        post("/v1/saes/standard/tokens", json!({"features": [1, 2], "filter": some})),
        post(
            "/v1/directions",
            json!({"method": "pca", "name": format!("p{cache}"), "caches": some, "hook": "resid_post", "k": 1}),
        ),
        post(
            "/v1/runs",
            json!({"model": "tiny", "input": "a", "interventions": [
                {"op": "mean_ablate", "hook": "resid_post", "layers": 1, "caches": some},
            ]}),
        ),
    ]
}

/// Sends all requests about the runs until told to stop. Counts the statuses of each request, and bodies that broke
/// off.
async fn read(app: &TestApp, runs: &[(String, Vec<String>)], stop: &AtomicBool) -> BTreeMap<(String, u16), usize> {
    let mut seen = BTreeMap::new();
    let mut turn = 0;
    while !stop.load(Ordering::Acquire) {
        let (run, caches) = &runs[turn % runs.len()];
        for (method, uri, body) in questions(run, &caches[0]) {
            let json = [("content-type", "application/json")];
            let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
            let what = format!("{method} {}", uri.replace(run.as_str(), "RUN").replace(caches[0].as_str(), "CACHE"));
            let response = app.router().oneshot(request(method.clone(), &uri, &json, body)).await.unwrap();
            let (parts, body) = response.into_parts();
            // a body breaks off if its caches were deleted after its head was sent
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let answer = Answer { status: parts.status, headers: parts.headers, body };
            let status = answer.status.as_u16();
            assert!(status < 500, "{what} {status}: {}", String::from_utf8_lossy(&answer.body));
            check_listed(&method, uri.split('?').next().unwrap(), &answer);
            *seen.entry((what, status)).or_default() += 1;
        }
        turn += 1;
        tokio::task::yield_now().await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn caches_deleted_while_they_are_read_are_not_reported_as_damaged() {
    let app = Arc::new(app().await);
    let mut seen: BTreeMap<(String, u16), usize> = BTreeMap::new();
    for _ in 0..6 {
        let runs = Arc::new(runs(&app).await);
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..3)
            .map(|i| {
                let (app, mut runs, stop) = (Arc::clone(&app), runs.to_vec(), Arc::clone(&stop));
                runs.rotate_left(i);
                tokio::spawn(async move { read(&app, &runs, &stop).await })
            })
            .collect();
        for (run, caches) in runs.iter() {
            tokio::time::sleep(Duration::from_millis(60)).await;
            app.delete(&format!("/v1/caches/{}", caches[0])).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(app.delete(&format!("/v1/runs/{run}")).await.status.as_u16(), 204);
        }
        stop.store(true, Ordering::Release);
        for reader in readers {
            for (what, n) in reader.await.unwrap() {
                *seen.entry(what).or_default() += n;
            }
        }
    }
    for (what, _) in seen.keys() {
        let served = seen.keys().any(|(other, status)| other == what && *status < 300);
        assert!(served, "{what} was never served: {seen:#?}");
    }
    assert!(app.store().verify().await.unwrap().is_clean());
}

#[tokio::test]
async fn caches_deleted_after_selection_count_as_unknown() {
    let app = app().await;
    let runs = runs(&app).await;
    let (run, caches) = &runs[0];
    // a plan from before the deletion
    let search = json!({"query": {"vector": vec![1.0; 32]}, "hook": RESID, "over": "positions", "k": 100});
    let all = app.post("/v1/search", &search).await.json();
    assert_eq!((&all["scanned"]["deleted"], &all["scanned"]["damaged"]), (&json!(0), &json!(0)));
    app.delete(&format!("/v1/runs/{run}")).await;
    let rest = app.post("/v1/search", &search).await.json();
    assert_eq!(rest["scanned"]["caches"], 6);
    app.get(&format!("/v1/caches/{}/layers", caches[0])).await.problem(404, "cache_not_found");
    app.post("/v1/statistics", &json!({"caches": [caches[0]]})).await.problem(422, "unknown_cache");
}

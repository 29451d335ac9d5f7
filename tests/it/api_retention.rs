//! Caches that expire, that are pinned, and that are evicted.

use residuum::{api::ApiConfig, engine::Limits, store::Quota};
use serde_json::json;

use crate::{
    api_import::{f32s, file, import, ramp},
    support::{TestApp, with_model},
};

#[tokio::test]
async fn a_run_sets_when_its_caches_expire_and_each_can_be_changed() {
    let app = TestApp::new().await;
    let run = app.run(json!({"input": ["the cat", "a dog"], "ttl_seconds": 3600})).await;
    assert_eq!(run["ttl_seconds"], 3600);
    let uri = format!("/v1/caches/{}", run["caches"][0].as_str().unwrap());
    let cache = app.get(&uri).await.json();
    let time = |value: &serde_json::Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let lives = time(&cache["expires_at"]).duration_since(time(&cache["created_at"]));
    assert_eq!((lives.as_secs(), &cache["pinned"]), (3600, &json!(false)));
    let kept = app.run(json!({"input": "the cat"})).await;
    assert_eq!(kept["ttl_seconds"], json!(null));
    assert_eq!(kept["n_reused"], 1);
    let kept = app.get(&format!("/v1/caches/{}", kept["caches"][0].as_str().unwrap())).await.json();
    assert_eq!(kept["expires_at"], json!(null), "its own run decides");

    let far = "2100-01-01T00:00:00Z";
    let changed = app.patch(&uri, &json!({"expires_at": far, "pinned": true})).await.json();
    assert_eq!((&changed["expires_at"], &changed["pinned"]), (&json!(far), &json!(true)));
    let page = app.get("/v1/caches?pinned=true&expires_to=2100-01-01T00:00:01Z").await.json();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["items"][0]["id"]), (1, &cache["id"]));
    let same = app.patch(&uri, &json!({"label": "l"})).await.json();
    assert_eq!((&same["expires_at"], &same["pinned"]), (&json!(far), &json!(true)));
    let never = app.patch(&uri, &json!({"expires_at": null, "pinned": false})).await.json();
    assert_eq!((&never["expires_at"], &never["pinned"]), (&json!(null), &json!(false)));

    let past = app.patch(&uri, &json!({"expires_at": "2020-01-01T00:00:00Z"})).await;
    assert_eq!(past.problem(422, "invalid_value"), ["/expires_at"]);
    app.patch(&uri, &json!({"expires_at": "soon"})).await.problem(400, "invalid_field");
    app.patch(&uri, &json!({"pinned": null})).await.json();
    for ttl in [json!(0), json!(4_000_000_000u64)] {
        let answer = app.post("/v1/runs", &with_model(json!({"input": "x", "ttl_seconds": ttl}))).await;
        assert_eq!(answer.problem(422, "invalid_value"), ["/ttl_seconds"]);
    }
    for ttl in [json!(-1), json!(1.5), json!("1h")] {
        let answer = app.post("/v1/runs", &with_model(json!({"input": "x", "ttl_seconds": ttl}))).await;
        answer.problem(400, "invalid_field");
    }
}

/// Limits with room for the index and for `blobs` more bytes.
fn limits(app: &TestApp, blobs: u64, evict_oldest: bool) -> Limits {
    let index = ["index.sqlite", "index.sqlite-wal"].map(|f| app.data_dir().join(f).metadata().map_or(0, |m| m.len()));
    let max_bytes = index.iter().sum::<u64>() + blobs;
    Limits { quota: Some(Quota { max_bytes, evict_oldest }), ..Limits::default() }
}

/// An input that takes 3 hooks × 60 tokens × 32 values of four bytes; some 40 kB with the header.
fn long(token: u32) -> serde_json::Value {
    with_model(
        json!({"input": vec![token; 60], "capture": {"hooks": ["resid_post", "mlp.post", "attn.q"], "positions": "all"}}),
    )
}

#[tokio::test]
async fn beyond_the_quota_new_runs_are_refused_until_there_is_room() {
    let empty = TestApp::new().await;
    let limits = limits(&empty, 3 << 20, false);
    let app = TestApp::with(limits, ApiConfig::default()).await;
    let first = app.run(long(1)).await;
    let bulk = with_model(json!({
        "input": (0..200).map(|i| vec![i; 60]).collect::<Vec<Vec<u32>>>(), "capture": {"hooks": ["resid_post", "mlp.post"], "positions": "all"}
    }));
    let refused = app.post("/v1/runs", &bulk).await;
    refused.problem(507, "store_full");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("bytes are lacking"), "{detail}");
    assert_eq!(app.get("/v1/runs").await.json()["items"].as_array().unwrap().len(), 1, "the refused run is not stored");
    // an input that fits is accepted, and stored caches are served
    let second = app.run(long(2)).await;
    assert_eq!(app.get(&format!("/v1/caches/{}/layers", first["caches"][0].as_str().unwrap())).await.status, 200);
    let metrics = String::from_utf8(app.get("/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.contains("residuum_store_max_bytes") && metrics.contains("residuum_store_disk_bytes"));
    assert_eq!(app.delete(&format!("/v1/runs/{}", second["id"].as_str().unwrap())).await.status, 204);
}

#[tokio::test]
async fn the_quota_also_applies_to_runs_that_only_reuse() {
    let empty = TestApp::new().await;
    let app = TestApp::with(limits(&empty, 3 << 20, false), ApiConfig::default()).await;
    app.run(long(1)).await;
    let mut taken = 0;
    let refused = loop {
        let answer = app.post("/v1/runs?wait=30", &long(1)).await;
        if answer.status != 201 {
            break answer;
        }
        assert_eq!(answer.json()["n_reused"], 1);
        taken += 1;
        assert!(taken < 5000, "the quota is not applied");
    };
    refused.problem(507, "store_full");
    assert!(taken > 0);
}

#[tokio::test]
async fn with_eviction_the_oldest_caches_make_room() {
    let empty = TestApp::new().await;
    // the write-ahead log of the index grows meanwhile
    let limits = limits(&empty, 12 << 20, true);
    let app = TestApp::with(limits, ApiConfig::default()).await;
    let pinned = app.run(long(250)).await["caches"][0].as_str().unwrap().to_owned();
    app.patch(&format!("/v1/caches/{pinned}"), &json!({"pinned": true})).await;
    let mut caches = Vec::new();
    for i in 0..12u32 {
        let input: Vec<Vec<u32>> = (0..8).map(|j| vec![i * 8 + j; 60]).collect();
        let capture = json!({"hooks": ["resid_post", "mlp.post", "attn.q", "attn.pattern"], "positions": "all"});
        let run = app.run(json!({"input": input, "capture": capture})).await;
        caches.push(run["caches"][0].as_str().unwrap().to_owned());
    }
    let status = async |id: &str| app.get(&format!("/v1/caches/{id}")).await.status.as_u16();
    assert_eq!(status(&caches[0]).await, 404, "the oldest is gone");
    assert_eq!(status(&caches[11]).await, 200, "the newest is there");
    assert_eq!(status(&pinned).await, 200, "and the pinned one");
}

#[tokio::test]
async fn the_quota_also_applies_to_imports() {
    let body = |marker: f32| {
        let mut values = ramp(60 * 32 * 8);
        values[0] = marker;
        file(&[("blocks.0.hook_resid_post", "F32", &[60, 32 * 8], f32s(values))], &json!({"model": "m"}))
    };
    let empty = TestApp::new().await;
    let app = TestApp::with(limits(&empty, 3 << 20, false), ApiConfig::default()).await;
    let n_bytes = body(0.0).len();
    let mut taken = 0;
    let refused = loop {
        let answer = import(&app, "", body(taken as f32)).await;
        if answer.status != 201 {
            break answer;
        }
        taken += 1;
        assert!(taken * n_bytes < 6 << 20, "the quota is not applied");
    };
    refused.problem(507, "store_full");
    assert!(taken > 5, "{taken}");
    let listed = app.get("/v1/caches?count=true&limit=1").await.json();
    assert_eq!(listed["total"], taken, "{listed:#}");
}

//! Models, tokens, health, metrics, the specification, the reference page and CORS.

use axum::{body::Body, http::Method};
use residuum::{
    api::{ApiConfig, openapi},
    domain::Scope,
    engine::Limits,
};
use serde_json::{Value, json};

use crate::support::{D_MODEL, MODEL, N_LAYERS, TestApp, request, with_model};

#[tokio::test]
async fn nothing_is_ready_before_its_model() {
    let mut app = TestApp::unloaded(Limits::default(), ApiConfig::default()).await;
    assert_eq!(app.get("/healthz").await.status, 200);
    app.get("/readyz").await.problem(503, "unavailable");
    let early = app.post("/v1/runs", &with_model(json!({"input": "a"}))).await;
    early.problem(503, "unavailable");
    assert!(early.headers.contains_key("retry-after"));
    let listed = app.get("/v1/models").await.json()["items"].clone();
    assert_eq!((&listed[0]["id"], &listed[0]["status"]), (&json!(MODEL), &json!("loading")));
    assert_eq!(listed[0].get("n_layers"), None);
    app.load().await;
    assert_eq!(app.get("/readyz").await.status, 200);
    app.run(json!({"input": "a"})).await;
}

#[tokio::test]
async fn a_model_describes_itself() {
    let app = TestApp::new().await;
    let listed = app.get("/v1/models").await.json();
    assert_eq!((&listed["items"][0]["status"], &listed["items"][0]["hooks"]), (&json!("ready"), &Value::Null));
    let model = app.get("/v1/models/tiny").await.json();
    assert_eq!(
        (&model["n_layers"], &model["d_model"], &model["architecture"]),
        (&json!(N_LAYERS), &json!(D_MODEL), &json!("llama"))
    );
    assert_eq!(model["fingerprint"].as_str().unwrap().len(), 64);
    let hooks = model["hooks"].as_array().unwrap();
    let resid = hooks.iter().find(|h| h["hook"] == "blocks.1.hook_resid_post").unwrap();
    assert_eq!(
        (&resid["layer"], &resid["shape"], &resid["axes"]),
        (&json!(1), &json!([null, D_MODEL]), &json!(["pos", "d_model"]))
    );
    // All listed hooks can be captured at once.
    let names: Vec<&Value> = hooks.iter().map(|h| &h["hook"]).collect();
    let run = app.run(json!({"input": [1, 2, 3], "capture": {"hooks": names, "positions": "all"}})).await;
    let cache = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
    assert_eq!(cache["hooks"].as_array().unwrap().len(), names.len());
    assert_eq!((&cache["n_nan"], &cache["n_inf"]), (&json!(0), &json!(0)));
    app.get("/v1/models/other").await.problem(404, "model_not_found");
}

#[tokio::test]
async fn tokens_are_those_of_a_run() {
    let app = TestApp::new().await;
    let text = app.post("/v1/tokenize", &with_model(json!({"text": "the cät"}))).await.json();
    let run = app.post("/v1/runs?dry_run=true", &with_model(json!({"input": "the cät"}))).await.json();
    assert_eq!(text["token_ids"], run["items"][0]["token_ids"]);
    assert_eq!(text["special"][0], true);
    assert_eq!(text["offsets"].as_array().unwrap().last().unwrap()[1], 7, "offsets count characters");
    let chat =
        app.post("/v1/tokenize", &with_model(json!({"messages": [{"role": "user", "content": "hi"}]}))).await.json();
    assert_eq!(chat["rendered"], "<s><|user|>hi");
    assert_eq!(chat["bos"]["added"], false, "the template wrote BOS already");
    let ids = app.post("/v1/tokenize", &with_model(json!({"token_ids": [256, 257]}))).await.json();
    assert_eq!(ids["tokens"], json!(["th", "the"]));
    app.post("/v1/tokenize", &with_model(json!({}))).await.problem(400, "invalid_body");
    assert_eq!(
        app.post("/v1/tokenize", &with_model(json!({"token_ids": [1, 999]})))
            .await
            .problem(422, "token_out_of_vocabulary"),
        ["/token_ids/1"]
    );
    app.post("/v1/tokenize", &json!({"model": "x", "text": "a"})).await.problem(422, "unknown_model");
}

#[tokio::test]
async fn inputs_are_tokenised_as_runs_take_them() {
    let app = TestApp::with(Limits { max_run_items: 3, ..Limits::default() }, ApiConfig::default()).await;
    let tokens = async |body: Value| {
        let answer = app.post("/v1/tokenize", &with_model(body)).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.json()
    };
    let cat = tokens(json!({"text": "the cät"})).await;
    let dog = tokens(json!({"text": "a dog"})).await;
    let ids = tokens(json!({"token_ids": [256, 257]})).await;
    assert_eq!(tokens(json!({"input": "the cät"})).await, cat);
    assert_eq!(tokens(json!({"input": [256, 257]})).await, ids);
    assert_eq!(
        tokens(json!({"input": ["the cät", "a dog"], "text": null})).await,
        json!({"model": "tiny", "items": [cat, dog]})
    );
    assert_eq!(tokens(json!({"input": ["the cät"]})).await, json!({"model": "tiny", "items": [cat]}));
    assert_eq!(tokens(json!({"input": [[256, 257]]})).await, json!({"model": "tiny", "items": [ids]}));
    let bare = tokens(json!({"input": ["the cät", "a dog"], "prepend_bos": false})).await;
    assert!(bare["items"].as_array().unwrap().iter().all(|item| item["bos"]["present"] == false));
    let run = app.post("/v1/runs?dry_run=true", &with_model(json!({"input": ["the cät", "a dog"]}))).await.json();
    for (item, of_run) in [&cat, &dog].into_iter().zip(run["items"].as_array().unwrap()) {
        assert_eq!((&item["token_ids"], &item["bos"]), (&of_run["token_ids"], &of_run["bos"]));
    }
    for (body, status, code, pointer) in [
        (json!({"input": []}), 422, "empty_input", "/input"),
        (json!({"input": "a", "text": "a"}), 400, "invalid_body", "/input"),
        (json!({"input": ["a", 1]}), 400, "invalid_field", "/input/1"),
        (json!({"input": {"text": "a"}}), 400, "invalid_field", "/input"),
        (json!({"input": [[1], [2, 999]]}), 422, "token_out_of_vocabulary", "/input/1/1"),
        (json!({"input": ["a", "b", "c", "d"]}), 413, "too_many_items", "/input"),
    ] {
        let answer = app.post("/v1/tokenize", &with_model(body)).await;
        assert_eq!(answer.problem(status, code), [pointer]);
    }
}

#[tokio::test]
async fn the_index_sends_browsers_to_a_page_and_others_on() {
    let app = TestApp::attentive().await;
    // it needs no key
    app.key("ann", &[Scope::Read]).await;
    let has_dashboard = cfg!(feature = "ui");
    let page = if has_dashboard { "/ui/" } else { "/docs/" };
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
    for (accept, is_page) in [
        (None, false),
        (Some("*/*"), false),
        (Some("application/json"), false),
        (Some("application/json, text/plain, */*"), false),
        (Some("application/json;q=0.9, text/html;q=0.8"), false),
        (Some("*/*, text/html;q=0.5"), false),
        (Some("text/html;q=0"), false),
        (Some("image/png"), false),
        (Some("text/html"), true),
        (Some(browser), true),
    ] {
        let headers: Vec<(&str, &str)> = accept.into_iter().map(|accept| ("accept", accept)).collect();
        let answer = app.get_with("/", &headers).await;
        assert_eq!(answer.header("vary").to_lowercase().matches("accept").count(), 1, "{accept:?}");
        if is_page {
            assert_eq!((answer.status.as_u16(), answer.header("location")), (307, page), "{accept:?}");
            assert_eq!(app.get(page).await.status, 200);
            continue;
        }
        assert_eq!(answer.status, 200, "{accept:?}");
        let index = answer.json();
        assert_eq!((&index["name"], &index["version"]), (&json!("residuum"), &json!(env!("CARGO_PKG_VERSION"))));
        assert_eq!(index.get("ui"), has_dashboard.then_some(&json!("/ui/")));
        for path in ["docs", "openapi", "health", "readiness"] {
            assert_eq!(app.get(index[path].as_str().unwrap()).await.status, 200, "{path}");
        }
        app.get(index["models"].as_str().unwrap()).await.problem(401, "api_key_required");
    }
    app.get("/?format=json").await.problem(400, "invalid_query");
    app.post("/", &json!({})).await.refused(405, "method_not_allowed");
}

#[tokio::test]
async fn metrics_count_requests_and_runs() {
    let app = TestApp::new().await;
    app.run(json!({"input": "the cat"})).await;
    app.get("/v1/nothing").await.problem(404, "route_not_found");
    let text = String::from_utf8(app.get("/metrics").await.body.to_vec()).unwrap();
    for name in [
        "residuum_runs_total",
        "residuum_tokens_total",
        "residuum_queue_items{priority=\"bulk\"}",
        "residuum_store_caches",
        "residuum_batch_seconds_bucket",
        "residuum_http_seconds_bucket",
        "residuum_errors_total{code=\"route_not_found\"}",
    ] {
        assert!(text.contains(name), "{name} is missing");
    }
}

#[tokio::test]
async fn the_specification_is_the_committed_file() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.yaml");
    if std::env::var_os("RESIDUUM_WRITE_OPENAPI").is_some() {
        std::fs::write(&file, openapi::yaml()).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap();
    assert!(
        committed == openapi::yaml(),
        "openapi.yaml is not what the code says; write it with RESIDUUM_WRITE_OPENAPI=1 cargo test the_specification"
    );
    let app = TestApp::new().await;
    assert_eq!(app.get("/openapi.yaml").await.body, committed.as_bytes());
    assert_eq!(app.get("/openapi.json").await.json()["openapi"], "3.1.0");
}

#[tokio::test]
async fn the_reference_page_loads_nothing_from_other_hosts() {
    let app = TestApp::new().await;
    let page = app.get("/docs/").await;
    assert_eq!(page.status, 200);
    let html = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(!html.contains("https://") && !html.contains("http://"), "{html}");
    for asset in html.split(['"', '\'']).filter(|s| s.ends_with(".js") || s.ends_with(".css")) {
        assert_eq!(app.get(&format!("/docs/{}", asset.trim_start_matches("./"))).await.status, 200, "{asset}");
    }
}

#[tokio::test]
async fn only_listed_origins_may_call_from_a_page() {
    let api = ApiConfig { cors_origins: vec!["https://lab.example".parse().unwrap()], ..ApiConfig::default() };
    let app = TestApp::with(Limits::default(), api).await;
    let answer = app.get_with("/v1/models", &[("origin", "https://lab.example")]).await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://lab.example");
    let exposed = answer.header("access-control-expose-headers").to_lowercase();
    for name in ["residuum-shape", "residuum-dtype", "etag", "location", "retry-after", "x-request-id"] {
        assert!(exposed.contains(name), "{name} is not exposed");
    }
    let stranger = app.get_with("/v1/models", &[("origin", "https://evil.example")]).await;
    assert!(!stranger.headers.contains_key("access-control-allow-origin"));
    let preflight = [
        ("origin", "https://lab.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,idempotency-key"),
    ];
    let allowed = app.send(request(Method::OPTIONS, "/v1/runs", &preflight, Body::empty())).await;
    assert!(allowed.header("access-control-allow-methods").contains("PATCH"));
    assert!(answer.headers.contains_key("x-request-id"));
    assert_eq!(app.get_with("/v1/models", &[("x-request-id", "mine")]).await.header("x-request-id"), "mine");
}

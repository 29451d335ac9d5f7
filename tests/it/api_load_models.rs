//! Models that are loaded and unloaded while the server runs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::Method;
use http_body_util::BodyExt;
use residuum::{domain::Scope, engine::ModelSource, model::LoadOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, Flags, MODEL, TestApp, golden};

const LLAMA: &str = "llama/gqa_tied";

/// Nothing is served at the start, and the goldens may be loaded.
pub fn empty() -> Flags {
    Flags { models: Some(Vec::new()), models_dir: Some(golden("")), ..Flags::default() }
}

/// The usual model is served, and models of `folder` may be loaded.
fn below(folder: &Path) -> Flags {
    Flags { models_dir: Some(folder.to_owned()), ..Flags::default() }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// A checkpoint whose weights are said to be `bytes` bytes of float16, in a file with a hole.
fn huge(folder: &Path, bytes: u64) {
    copy(&golden(LLAMA), folder);
    let header =
        json!({"model.embed_tokens.weight": {"dtype": "F16", "shape": [bytes / 2], "data_offsets": [0, bytes]}});
    let header = header.to_string();
    let file = fs::File::create(folder.join("model.safetensors")).unwrap();
    std::io::Write::write_all(&mut &file, &(header.len() as u64).to_le_bytes()).unwrap();
    std::io::Write::write_all(&mut &file, header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + bytes).unwrap();
}

async fn load(app: &TestApp, id: &str, source: &str) -> Answer {
    app.post("/v1/models?wait=60", &json!({"id": id, "source": source})).await
}

#[track_caller]
fn is_ready(answer: &Answer) -> Value {
    let model = answer.json();
    assert_eq!((answer.status.as_u16(), &model["status"]), (201, &json!("ready")), "{model:#}");
    model
}

async fn statuses(app: &TestApp) -> Vec<(String, String)> {
    let list = app.get("/v1/models").await.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list["items"].as_array().unwrap().iter().map(|m| (text(&m["id"]), text(&m["status"]))).collect()
}

/// Waits until the model has this status.
async fn until(app: &TestApp, id: &str, status: &str) -> Value {
    for _ in 0..3000 {
        let model = app.get(&format!("/v1/models/{id}")).await.json();
        if model["status"] == status {
            return model;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{id} never became {status}");
}

fn run_body(model: &str, input: &Value) -> Value {
    json!({"model": model, "input": input, "capture": {"hooks": ["resid_post"], "positions": "all"}})
}

fn many_texts(n: usize) -> Value {
    (0..n).map(|i| format!("a small dog came home on day {i}")).collect()
}

#[tokio::test]
async fn a_server_that_starts_with_nothing_loads_a_model_and_unloads_it() {
    let app = TestApp::with_flags(empty()).await;
    assert_eq!(app.get("/readyz").await.status, 200);
    assert_eq!(statuses(&app).await, []);
    let run = run_body("a", &json!("a small dog"));
    let refused = app.post("/v1/runs", &run).await;
    assert_eq!(refused.problem(422, "unknown_model"), ["/model"]);
    assert!(refused.json()["detail"].as_str().unwrap().ends_with("none is loaded"), "{}", refused.json());
    app.get("/v1/models/a").await.problem(404, "model_not_found");

    let loaded = load(&app, "a", LLAMA).await;
    let model = is_ready(&loaded);
    assert_eq!(loaded.header("location"), "/v1/models/a");
    assert_eq!((&model["source"], &model["at_run_time"]), (&json!(LLAMA), &json!(true)));
    assert_eq!((&model["progress"], &model["error"]), (&Value::Null, &Value::Null));
    assert!(model["memory_bytes"].as_u64().unwrap() >= 4 * model["n_params"].as_u64().unwrap());
    assert_eq!(model["fingerprint"], TestApp::new().await.get("/v1/models/tiny").await.json()["fingerprint"]);
    let done = app.post("/v1/runs?wait=60", &run).await.json();
    assert_eq!(done["status"], "completed", "{done:#}");
    let metrics = String::from_utf8(app.get("/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.contains("residuum_models{status=\"ready\"}"), "{metrics}");

    assert_eq!(app.delete("/v1/models/a?wait=60").await.status, 204);
    assert_eq!(statuses(&app).await, []);
    app.delete("/v1/models/a").await.problem(404, "model_not_found");
    app.post("/v1/runs", &run).await.problem(422, "unknown_model");
    let cache = done["caches"][0].as_str().unwrap();
    let values = app.get(&format!("/v1/caches/{cache}/tensors/blocks.1.hook_resid_post")).await;
    assert_eq!(values.status, 200, "what is stored stays readable");
    app.post(&format!("/v1/caches/{cache}/lens"), &json!({"layers": [1]})).await.problem(409, "conflict");
}

#[tokio::test]
async fn loading_is_off_unless_a_flag_allows_it() {
    let app = TestApp::new().await;
    let refused = load(&app, "a", LLAMA).await;
    refused.problem(403, "loading_off");
    assert!(refused.json()["detail"].as_str().unwrap().contains("--models-dir"));
    assert_eq!(statuses(&app).await.len(), 1);
}

#[tokio::test]
async fn what_may_not_be_loaded_is_refused_in_one_way() {
    let temp = TempDir::new().unwrap();
    let (models, outside) = (temp.path().join("models"), temp.path().join("outside"));
    copy(&golden(LLAMA), &models.join("good"));
    copy(&golden(LLAMA), &outside);
    symlink(&outside, models.join("leak")).unwrap();
    copy(&golden(LLAMA), &models.join("mixed"));
    fs::remove_file(models.join("mixed/model.safetensors")).unwrap();
    symlink(outside.join("model.safetensors"), models.join("mixed/model.safetensors")).unwrap();
    let app = TestApp::with_flags(below(&models)).await;
    let absolute = outside.display().to_string();
    let mut answers = Vec::new();
    for source in [
        "leak",
        "mixed",
        "../outside",
        "good/../good",
        &absolute,
        "/etc",
        "no/such",
        "",
        "org/name",
        "good/config.json",
    ] {
        let refused = load(&app, "a", source).await;
        assert_eq!(refused.problem(422, "unknown_source"), ["/source"], "{source}");
        answers.push(refused.json());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    is_ready(&load(&app, "a", "good").await);
    let inside = fs::canonicalize(models.join("good")).unwrap();
    let model = is_ready(&load(&app, "b", inside.to_str().unwrap()).await);
    assert_eq!(model["source"], "good", "clients are shown no absolute path");
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let app = TestApp::with_flags(empty()).await;
    let post = async |body: Value| app.post("/v1/models", &body).await;
    for id in ["", "a b", "a/b", "..", ".a", &"x".repeat(101)] {
        assert_eq!(post(json!({"id": id, "source": LLAMA})).await.problem(422, "invalid_value"), ["/id"]);
    }
    post(json!({"id": "a"})).await.problem(400, "invalid_body");
    post(json!({"id": "a", "source": LLAMA, "path": "x"})).await.problem(400, "invalid_body");
    post(json!({"id": "a", "source": 3})).await.problem(400, "invalid_field");
    app.post("/v1/models?wait=-1", &json!({"id": "a", "source": LLAMA})).await.problem(400, "invalid_query");
    app.delete("/v1/models/a?cancel=true").await.problem(400, "invalid_query");
    assert_eq!(statuses(&app).await, []);
}

#[tokio::test]
async fn a_failed_load_keeps_its_reason_and_leaves_the_rest_as_it_was() {
    let temp = TempDir::new().unwrap();
    let broken = temp.path().join("broken");
    copy(&golden(LLAMA), &broken);
    let weights = fs::read(broken.join("model.safetensors")).unwrap();
    fs::write(broken.join("model.safetensors"), &weights[..weights.len() - 64]).unwrap();
    let app = TestApp::with_flags(below(temp.path())).await;
    let failed = load(&app, "x", "broken").await;
    let model = failed.json();
    assert_eq!((failed.status.as_u16(), &model["status"]), (201, &json!("failed")), "{model:#}");
    let detail = model["error"]["detail"].as_str().unwrap();
    assert_eq!(model["error"]["code"], "load_failed");
    assert!(detail.starts_with("broken/model.safetensors: is truncated"), "{detail}");
    assert!(!model.to_string().contains(temp.path().to_str().unwrap()));
    assert_eq!(app.get("/readyz").await.status, 200);
    app.run(json!({"input": "a small dog"})).await;
    let refused = app.post("/v1/runs", &run_body("x", &json!("a"))).await;
    refused.problem(422, "unknown_model");
    assert!(refused.json()["detail"].as_str().unwrap().contains("could not be loaded"));
    // the name is free again: for another try, and to be forgotten
    fs::write(broken.join("model.safetensors"), &weights).unwrap();
    is_ready(&load(&app, "x", "broken").await);
    fs::write(broken.join("model.safetensors"), "no").unwrap();
    assert_eq!(load(&app, "y", "broken").await.json()["status"], "failed");
    assert_eq!(app.delete("/v1/models/y").await.status, 204);
    assert_eq!(statuses(&app).await.len(), 2);
}

#[tokio::test]
async fn an_id_in_use_is_refused() {
    let app = TestApp::with_flags(Flags { models_dir: Some(golden("")), ..Flags::default() }).await;
    assert_eq!(load(&app, MODEL, LLAMA).await.problem(409, "conflict"), ["/id"]);
    is_ready(&load(&app, "a", LLAMA).await);
    load(&app, "a", "llama/float16").await.problem(409, "conflict");
}

#[tokio::test]
async fn unloading_lets_accepted_runs_end() {
    let app = TestApp::with_flags(empty()).await;
    is_ready(&load(&app, "a", LLAMA).await);
    let run = app.post("/v1/runs", &run_body("a", &many_texts(300))).await.json();
    let going = app.delete("/v1/models/a").await;
    assert_eq!((going.status.as_u16(), &going.json()["status"]), (202, &json!("unloading")));
    let refused = app.post("/v1/runs", &run_body("a", &json!("one more"))).await;
    refused.problem(422, "unknown_model");
    assert!(refused.json()["detail"].as_str().unwrap().contains("being unloaded"));
    load(&app, "a", LLAMA).await.problem(409, "conflict");
    assert_eq!(app.delete("/v1/models/a?wait=60").await.status, 204);
    let run = app.get(&format!("/v1/runs/{}", run["id"].as_str().unwrap())).await.json();
    assert_eq!((&run["status"], &run["n_done"]), (&json!("completed"), &json!(300)), "{run:#}");
}

#[tokio::test]
async fn unloading_ends_runs_if_it_is_asked_to() {
    let app = TestApp::with_flags(empty()).await;
    is_ready(&load(&app, "a", LLAMA).await);
    let run = app.post("/v1/runs", &run_body("a", &many_texts(5000))).await.json();
    assert_eq!(app.delete("/v1/models/a").await.status, 202);
    assert_eq!(app.delete("/v1/models/a?cancel_runs=true&wait=60").await.status, 204);
    let run = app.get(&format!("/v1/runs/{}", run["id"].as_str().unwrap())).await.json();
    assert_eq!(run["status"], "cancelled", "{run:#}");
    assert!(run["n_done"].as_u64().unwrap() < 5000);
}

#[tokio::test]
async fn a_checkpoint_that_is_loaded_again_reuses_what_is_stored() {
    let app = TestApp::with_flags(empty()).await;
    let before = is_ready(&load(&app, "a", LLAMA).await);
    let body = run_body("a", &json!("in the end"));
    let first = app.post("/v1/runs?wait=60", &body).await.json();
    assert_eq!((&first["n_done"], &first["n_reused"]), (&json!(1), &json!(0)));
    assert_eq!(app.delete("/v1/models/a?wait=60").await.status, 204);
    let after = is_ready(&load(&app, "a", LLAMA).await);
    assert_eq!(after["fingerprint"], before["fingerprint"]);
    let again = app.post("/v1/runs?wait=60", &body).await.json();
    assert_eq!((&again["n_done"], &again["n_reused"]), (&json!(1), &json!(1)));
    let values = async |run: &Value| {
        let cache = run["caches"][0].as_str().unwrap();
        app.get(&format!("/v1/caches/{cache}/tensors/blocks.1.hook_resid_post")).await.json()["values"].clone()
    };
    assert_eq!(values(&first).await, values(&again).await);
    // another checkpoint under the same name has its own tokens and activations
    assert_eq!(app.delete("/v1/models/a?wait=60").await.status, 204);
    is_ready(&load(&app, "a", "gpt2/plain").await);
    let other = app.post("/v1/runs?wait=60", &body).await.json();
    assert_eq!((&other["status"], &other["n_reused"]), (&json!("completed"), &json!(0)), "{other:#}");
}

#[tokio::test]
async fn a_restart_loads_again_what_was_loaded() {
    let mut app = TestApp::with_flags(empty()).await;
    is_ready(&load(&app, "b", LLAMA).await);
    is_ready(&load(&app, "a", "llama/float16").await);
    is_ready(&load(&app, "gone", LLAMA).await);
    assert_eq!(app.delete("/v1/models/gone?wait=60").await.status, 204);
    app.restart(empty()).await;
    assert_eq!(app.get("/readyz").await.status, 200, "what requests loaded does not hold up the start");
    for (id, source) in [("a", "llama/float16"), ("b", LLAMA)] {
        let model = until(&app, id, "ready").await;
        assert_eq!((&model["source"], &model["at_run_time"]), (&json!(source), &json!(true)));
    }
    assert_eq!(statuses(&app).await.len(), 2);
    app.restart(Flags { no_restore: true, ..empty() }).await;
    assert_eq!(statuses(&app).await, []);
    // what cannot be loaded keeps its reason, the id of a flag counts more, and the server is ready
    let flag = ModelSource { id: "a".to_owned(), path: golden("llama/biases_wide_heads") };
    let elsewhere = TempDir::new().unwrap();
    app.restart(Flags { models: Some(vec![flag]), ..below(elsewhere.path()) }).await;
    assert_eq!(app.get("/readyz").await.status, 200);
    let failed = until(&app, "b", "failed").await;
    assert_eq!(failed["error"]["code"], "unknown_source");
    assert_eq!(app.get("/v1/models/a").await.json()["at_run_time"], false);
    // it is still tried at the next start
    app.restart(empty()).await;
    until(&app, "b", "ready").await;
    assert_eq!(until(&app, "a", "ready").await["source"], "llama/float16");
}

#[tokio::test]
async fn runs_continue_when_their_model_comes_back() {
    let mut app = TestApp::with_flags(empty()).await;
    is_ready(&load(&app, "a", LLAMA).await);
    let run = app.post("/v1/runs", &run_body("a", &many_texts(2000))).await.json();
    let path = format!("/v1/runs/{}", run["id"].as_str().unwrap());
    app.restart(Flags { no_restore: true, ..empty() }).await;
    let waiting = app.get(&path).await.json();
    assert!(waiting["n_done"].as_u64().unwrap() < 2000 && waiting["finished_at"].is_null(), "{waiting:#}");
    is_ready(&load(&app, "a", LLAMA).await);
    // new runs beside those that waited
    let new = app.post("/v1/runs?wait=60", &run_body("a", &json!("one more"))).await.json();
    assert_eq!(new["status"], "completed", "{new:#}");
    let done = app.get(&format!("{path}?wait=60")).await.json();
    assert_eq!((&done["status"], &done["n_done"]), (&json!("completed"), &json!(2000)), "{done:#}");
    assert!(app.store().verify().await.unwrap().is_clean());
}

#[tokio::test]
async fn memory_is_compared_with_what_is_free_and_a_load_can_be_cancelled() {
    let temp = TempDir::new().unwrap();
    huge(&temp.path().join("huge"), 1 << 42);
    copy(&golden(LLAMA), &temp.path().join("small"));
    let app = TestApp::with_flags(below(temp.path())).await;
    let refused = load(&app, "big", "huge").await;
    refused.problem(503, "not_enough_memory");
    assert!(refused.json()["detail"].as_str().unwrap().contains("about 83886"), "{}", refused.json());
    let body = json!({"id": "big", "source": "huge", "force": true});
    let begun = app.post("/v1/models", &body).await;
    assert_eq!((begun.status.as_u16(), &begun.json()["status"]), (202, &json!("loading")));
    app.post("/v1/runs", &run_body("big", &json!("a"))).await.problem(503, "unavailable");
    // one load at a time, and the one that waits can be cancelled too
    let second = app.post("/v1/models", &json!({"id": "second", "source": "small", "force": true})).await.json();
    assert_eq!(second["progress"]["stage"], "queued", "{second:#}");
    assert_eq!(app.delete("/v1/models/second?wait=60").await.status, 204);
    let third = app.post("/v1/models", &json!({"id": "third", "source": "small", "force": true})).await;
    assert_eq!(third.status, 202);
    assert_eq!(app.get("/readyz").await.status, 200);
    app.run(json!({"input": "a small dog"})).await;
    assert_eq!(app.delete("/v1/models/big?wait=60").await.status, 204);
    until(&app, "third", "ready").await;
    assert_eq!(statuses(&app).await.len(), 2);
}

#[tokio::test]
async fn a_server_stops_while_it_loads() {
    let temp = TempDir::new().unwrap();
    huge(&temp.path().join("huge"), 1 << 42);
    let mut app = TestApp::with_flags(below(temp.path())).await;
    let body = json!({"id": "big", "source": "huge", "force": true});
    assert_eq!(app.post("/v1/models", &body).await.status, 202);
    app.restart(below(temp.path())).await;
    assert_eq!(statuses(&app).await.len(), 1, "a load that did not end is not begun again");
}

#[tokio::test]
async fn events_follow_a_load_to_its_end() {
    let app = TestApp::with_flags(empty()).await;
    app.get("/v1/models/a/events").await.problem(404, "model_not_found");
    assert_eq!(app.post("/v1/models", &json!({"id": "a", "source": LLAMA})).await.status, 202);
    let response = app.open("/v1/models/a/events").await;
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&text).unwrap();
    let events: Vec<Value> = text
        .split("\n\n")
        .filter(|event| event.starts_with("event: model\n"))
        .map(|event| serde_json::from_str(event.lines().nth(1).unwrap().strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    let (last, before) = events.split_last().unwrap();
    assert_eq!(last["status"], "ready", "{last:#}");
    assert!(before.iter().all(|model| model["status"] == "loading" && model["progress"]["stage"].is_string()));
}

#[tokio::test]
async fn only_administrators_load_and_unload() {
    let app = TestApp::with_flags(empty()).await;
    let (_, write) = app.key("lab", &[Scope::Write, Scope::Metrics]).await;
    let (_, admin) = app.key("ops", &[Scope::Admin]).await;
    let model = json!({"id": "a", "source": LLAMA});
    let sae = json!({"id": "s", "model": "a", "source": "x"});
    let requests = [
        (Method::POST, "/v1/models?wait=60", &model),
        (Method::POST, "/v1/saes", &sae),
        (Method::DELETE, "/v1/models/a", &Value::Null),
        (Method::DELETE, "/v1/saes/s", &Value::Null),
    ];
    for (method, uri, body) in &requests {
        app.send_as(&write, method.clone(), uri, body).await.problem(403, "scope_missing");
    }
    is_ready(&app.send_as(&admin, Method::POST, "/v1/models?wait=60", &model).await);
    let models = app.send_as(&write, Method::GET, "/v1/models", &Value::Null).await.json();
    assert_eq!(models["items"][0]["id"], "a", "models are there for all tenants");
    assert_eq!(app.send_as(&admin, Method::DELETE, "/v1/models/a?wait=60", &Value::Null).await.status, 204);
}

#[tokio::test]
async fn hub_names_are_loaded_if_the_hub_is_allowed() {
    let cache = TempDir::new().unwrap();
    let repository = cache.path().join("models--org--tiny");
    copy(&golden(LLAMA), &repository.join("snapshots/abc"));
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "abc").unwrap();
    let options = LoadOptions { offline: true, hub_cache: Some(cache.path().to_owned()), ..LoadOptions::default() };
    let flags = Flags { models: Some(Vec::new()), allow_hub: true, load: options, ..Flags::default() };
    let app = TestApp::with_flags(flags).await;
    let model = is_ready(&load(&app, "a", "org/tiny").await);
    assert_eq!(model["source"], "org/tiny");
    let failed = load(&app, "b", "org/other").await.json();
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("load_failed")));
    assert!(!failed.to_string().contains(cache.path().to_str().unwrap()), "{failed:#}");
    // a folder of the working directory is no hub name
    assert!(PathBuf::from("tests/it").is_dir());
    assert_eq!(load(&app, "c", "tests/it").await.json()["status"], "failed");
    load(&app, "c", "/etc").await.problem(422, "unknown_source");
}

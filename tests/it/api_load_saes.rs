//! Sparse autoencoders that are loaded, uploaded and unloaded while the server runs.

use std::{fs, path::PathBuf};

use axum::{body::Body, http::Method};
use residuum::api::ApiConfig;
use serde_json::{Value, json};

use crate::support::{Answer, Flags, MODEL, TestApp, request, sae_golden};

/// The usual model is served, and what lies below `tests` may be loaded.
fn flags() -> Flags {
    Flags { models_dir: Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests")), ..Flags::default() }
}

const SOURCE: &str = "goldens_analysis/sae/standard";
const BOUNDARY: &str = "between-the-fields";

/// A form with these fields, in this order.
fn form(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let head =
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(value);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

fn files(name: &str) -> [Vec<u8>; 2] {
    ["cfg.json", "sae_weights.safetensors"].map(|file| fs::read(sae_golden(name).join(file)).unwrap())
}

async fn send(app: &TestApp, body: Vec<u8>) -> Answer {
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    app.send(request(Method::POST, "/v1/saes?wait=60", &[("content-type", &kind)], Body::from(body))).await
}

async fn upload(app: &TestApp, id: &str, name: &str) -> Answer {
    let [cfg, weights] = files(name);
    let fields: [(&str, &[u8]); 4] =
        [("id", id.as_bytes()), ("model", MODEL.as_bytes()), ("cfg", &cfg), ("weights", &weights)];
    send(app, form(&fields)).await
}

/// Names in the folder of uploads.
fn uploads(app: &TestApp) -> Vec<String> {
    let entries = fs::read_dir(app.data_dir().join("saes")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[track_caller]
fn is_ready(answer: &Answer) -> Value {
    let sae = answer.json();
    assert_eq!((answer.status.as_u16(), &sae["status"]), (201, &json!("ready")), "{sae:#}");
    sae
}

/// The features of a text by this autoencoder.
async fn features(app: &TestApp, sae: &str) -> Value {
    let cache = app.capture("in the end it was", json!({"hooks": ["resid_post"], "positions": "all"})).await;
    let answer = app.post(&format!("/v1/caches/{cache}/features"), &json!({"sae": sae, "top_k": 3})).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.json()["positions"].clone()
}

async fn until_settled(app: &TestApp, id: &str) -> Value {
    let events = app.get(&format!("/v1/saes/{id}/events")).await;
    assert_eq!(events.status, 200);
    app.get(&format!("/v1/saes/{id}")).await.json()
}

#[tokio::test]
async fn an_autoencoder_is_loaded_from_the_folder_and_unloaded() {
    let mut app = TestApp::with_flags(flags()).await;
    let body = json!({"id": "s", "model": MODEL, "source": SOURCE});
    let loaded = app.post("/v1/saes?wait=60", &body).await;
    let sae = is_ready(&loaded);
    assert_eq!(loaded.header("location"), "/v1/saes/s");
    assert_eq!((&sae["source"], &sae["at_run_time"], &sae["d_sae"]), (&json!(SOURCE), &json!(true), &json!(40)));
    let before = features(&app, "s").await;
    app.post("/v1/saes", &body).await.problem(409, "conflict");
    let used = app.delete(&format!("/v1/models/{MODEL}")).await;
    used.problem(409, "conflict");
    assert!(used.json()["detail"].as_str().unwrap().contains(": s;"), "{}", used.json());

    app.restart(flags()).await;
    assert_eq!(until_settled(&app, "s").await["status"], "ready");
    assert_eq!(features(&app, "s").await, before);
    assert_eq!(app.delete("/v1/saes/s?wait=60").await.status, 204);
    app.delete("/v1/saes/s").await.problem(404, "sae_not_found");
    assert_eq!(app.delete(&format!("/v1/models/{MODEL}?wait=60")).await.status, 204);
    app.post("/v1/saes", &body).await.problem(422, "unknown_model");
    app.restart(flags()).await;
    assert_eq!(app.get("/v1/saes").await.json()["items"], json!([]));
}

#[tokio::test]
async fn an_upload_is_kept_until_it_is_deleted() {
    let mut app = TestApp::with_flags(Flags::default()).await;
    let sae = is_ready(&upload(&app, "up", "standard").await);
    assert_eq!((&sae["source"], &sae["at_run_time"]), (&Value::Null, &json!(true)));
    let before = features(&app, "up").await;
    let reference = TestApp::with_saes("llama/gqa_tied", &["standard"]).await;
    assert_eq!(features(&reference, "standard").await, before);
    assert_eq!(reference.get("/v1/saes/standard").await.json()["fingerprint"], sae["fingerprint"]);
    assert_eq!(uploads(&app), ["up"]);

    app.restart(Flags::default()).await;
    assert_eq!(until_settled(&app, "up").await["status"], "ready");
    assert_eq!(features(&app, "up").await, before);
    assert!(app.store().verify().await.unwrap().is_clean());
    app.store().gc().await.unwrap();
    assert_eq!(uploads(&app), ["up"], "collecting leaves uploads alone");

    // the model it belongs to is gone for a while
    app.restart(Flags { models: Some(Vec::new()), ..Flags::default() }).await;
    let failed = until_settled(&app, "up").await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("unknown_model")));
    assert_eq!(uploads(&app), ["up"]);
    app.restart(Flags::default()).await;
    assert_eq!(until_settled(&app, "up").await["status"], "ready");
    assert_eq!(app.delete("/v1/saes/up?wait=60").await.status, 204);
    assert!(uploads(&app).is_empty());
    app.restart(Flags::default()).await;
    assert_eq!(app.get("/v1/saes").await.json()["items"], json!([]));
}

#[tokio::test]
async fn bad_uploads_leave_nothing() {
    let app =
        TestApp::with_flags_and(Flags::default(), ApiConfig { max_import_bytes: 40_000, ..ApiConfig::default() }).await;
    let [cfg, weights] = files("standard");
    let (id, model): (&[u8], &[u8]) = (b"up", MODEL.as_bytes());
    let whole: [(&str, &[u8]); 4] = [("id", id), ("model", model), ("cfg", &cfg), ("weights", &weights)];
    let with = |name: &str, value: &'static [u8]| {
        form(&whole.map(|(field, given)| (field, if field == name { value } else { given })))
    };
    assert_eq!(send(&app, with("id", b"../x")).await.problem(422, "invalid_value"), ["/id"]);
    assert_eq!(send(&app, with("model", b"other")).await.problem(422, "unknown_model"), ["/model"]);
    assert_eq!(send(&app, with("cfg", b"{}")).await.problem(422, "load_failed"), ["/cfg"]);
    assert_eq!(send(&app, with("weights", b"no")).await.problem(422, "load_failed"), ["/cfg"]);
    for (i, (name, _)) in whole.iter().enumerate() {
        let rest: Vec<_> = whole.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, field)| *field).collect();
        assert_eq!(send(&app, form(&rest)).await.problem(400, "invalid_body"), [format!("/{name}")]);
    }
    let twice = [&whole[..], &[("id", id)]].concat();
    assert_eq!(send(&app, form(&twice)).await.problem(400, "invalid_body"), ["/id"]);
    let unknown = [&whole[..], &[("path", b"/etc/passwd" as &[u8])]].concat();
    assert_eq!(send(&app, form(&unknown)).await.problem(400, "invalid_body"), ["/path"]);
    let forced = [&whole[..], &[("force", b"yes" as &[u8])]].concat();
    assert_eq!(send(&app, form(&forced)).await.problem(400, "invalid_field"), ["/force"]);
    let large = vec![0; 50_000];
    let large: [(&str, &[u8]); 2] = [("cfg", &cfg), ("weights", &large)];
    assert_eq!(send(&app, form(&large)).await.problem(413, "body_too_large"), ["/weights"]);
    let cut = form(&whole);
    send(&app, cut[..cut.len() / 2].to_vec()).await.problem(400, "invalid_body");
    send(&app, b"not a form".to_vec()).await.problem(400, "invalid_body");
    let kind = [("content-type", "multipart/form-data")];
    app.send(request(Method::POST, "/v1/saes", &kind, Body::from("x"))).await.problem(415, "unsupported_media_type");
    let kind = [("content-type", "text/plain")];
    app.send(request(Method::POST, "/v1/saes", &kind, Body::from("{}"))).await.problem(415, "unsupported_media_type");
    assert!(uploads(&app).is_empty(), "{:?}", uploads(&app));
    assert_eq!(app.get("/v1/saes").await.json()["items"], json!([]));
}

#[tokio::test]
async fn an_upload_whose_weights_do_not_fit_fails_and_its_files_go() {
    let app = TestApp::with_flags(Flags::default()).await;
    let ([cfg, _], [_, weights]) = (files("standard"), files("gated"));
    let fields: [(&str, &[u8]); 4] =
        [("weights", &weights), ("cfg", &cfg), ("model", MODEL.as_bytes()), ("id", b"odd")];
    let failed = send(&app, form(&fields)).await.json();
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("load_failed")), "{failed:#}");
    assert!(!failed.to_string().contains("/tmp"), "{failed:#}");
    assert!(uploads(&app).is_empty());
    app.post("/v1/saes/odd/tokens", &json!({"features": [1]})).await.problem(404, "sae_not_found");
    is_ready(&upload(&app, "odd", "standard").await);
    assert_eq!(uploads(&app), ["odd"]);
}

#[tokio::test]
async fn sources_of_autoencoders_are_held_to_the_folder() {
    let app = TestApp::with_flags(flags()).await;
    let post = async |source: &str| app.post("/v1/saes", &json!({"id": "s", "model": MODEL, "source": source})).await;
    let mut answers = Vec::new();
    for source in
        ["..", "/etc", "goldens/llama/gqa_tied", "no/such", "goldens_analysis/../goldens_analysis/sae/standard"]
    {
        let refused = post(source).await;
        assert_eq!(refused.problem(422, "unknown_source"), ["/source"], "{source}");
        answers.push(refused.json());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    let body = json!({"id": "s", "model": "other", "source": SOURCE});
    assert_eq!(app.post("/v1/saes", &body).await.problem(422, "unknown_model"), ["/model"]);
    let off = TestApp::new().await;
    off.post("/v1/saes", &json!({"id": "s", "model": MODEL, "source": SOURCE})).await.problem(403, "loading_off");
}

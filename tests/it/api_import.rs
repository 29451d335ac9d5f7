//! Importing activations that were made elsewhere.

use axum::{
    body::Body,
    http::{Method, Request},
};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::{Answer, D_MODEL, MODEL, N_LAYERS, TestApp, flat, floats, request};

/// A safetensors file of these tensors, given by name, type, shape and bytes.
pub fn file(tensors: &[(&str, &str, &[usize], Vec<u8>)], metadata: &Value) -> Vec<u8> {
    let mut root = serde_json::Map::new();
    if !metadata.is_null() {
        root.insert("__metadata__".to_owned(), metadata.clone());
    }
    let (mut end, mut data) = (0, Vec::<u8>::new());
    for (name, dtype, shape, bytes) in tensors {
        let begin = end;
        end += bytes.len();
        data.extend(bytes);
        root.insert((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}));
    }
    let header = Value::Object(root).to_string();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

pub fn f32s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

pub fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32 * 0.25 - 3.0).collect()
}

pub async fn import(app: &TestApp, query: &str, body: Vec<u8>) -> Answer {
    import_with(app, query, &[], Body::from(body)).await
}

async fn import_with(app: &TestApp, query: &str, headers: &[(&str, &str)], body: Body) -> Answer {
    let headers = [&[("content-type", "application/vnd.safetensors")], headers].concat();
    app.send(request(Method::POST, &format!("/v1/caches{query}"), &headers, body)).await
}

/// Number of blob files, including unfinished ones.
fn blobs(app: &TestApp) -> usize {
    let Ok(folders) = std::fs::read_dir(app.data_dir().join("blobs")) else { return 0 };
    folders.map(|f| f.unwrap().path()).filter(|p| p.is_dir()).map(|p| std::fs::read_dir(p).unwrap().count()).sum()
}

async fn verify(app: &TestApp) {
    let store = residuum::store::Store::open_read_only(app.data_dir()).await.unwrap();
    let report = store.verify().await.unwrap();
    assert!(report.is_clean(), "{report}");
}

#[tokio::test]
async fn a_stack_is_read_back_layer_by_layer() {
    let app = TestApp::new().await;
    let values = ramp(2 * 3 * 4);
    let ids: Vec<u8> = [5i64, 6, 7].iter().flat_map(|i| i.to_le_bytes()).collect();
    let body = file(
        &[("resid_post", "F32", &[2, 3, 4], f32s(values.clone())), ("token_ids", "I64", &[3], ids)],
        &json!({"model": "org/foreign", "text": "a b c", "tokens": "[\"a\",\" b\",\" c\"]", "note": "kept"}),
    );
    let n_bytes = body.len();
    let answer =
        import(&app, "?layers=1,4&n_layers=6&tag=x&tag=y&label=l&metadata=%7B%22split%22%3A%22train%22%7D", body).await;
    let cache = answer.json();
    assert_eq!(answer.status.as_u16(), 201, "{cache:#}");
    let id = cache["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/v1/caches/{id}"));
    assert_eq!(app.get(&format!("/v1/caches/{id}")).await.json(), cache);
    for (key, expected) in [
        ("model", json!("org/foreign")),
        ("text", json!("a b c")),
        ("tokens", json!(["a", " b", " c"])),
        ("token_ids", json!([5, 6, 7])),
        ("tags", json!(["x", "y"])),
        ("label", json!("l")),
        ("metadata", json!({"split": "train"})),
        ("positions", json!("all")),
        ("n_layers", json!(6)),
        ("d_model", json!(4)),
    ] {
        assert_eq!(cache[key], expected, "{key}");
    }
    assert_eq!(cache["provenance"]["model_fingerprint"], Value::Null);
    assert_eq!(cache["imported"]["metadata"], json!({"note": "kept"}));
    assert_eq!(
        (&cache["imported"]["file_bytes"], &cache["imported"]["file_dtypes"]),
        (&json!(n_bytes), &json!(["F32"]))
    );
    let layers = app.get(&format!("/v1/caches/{id}/layers")).await.json();
    assert_eq!((&layers["layers"], &layers["shape"]), (&json!([1, 4]), &json!([2, 3, 4])));
    assert_eq!(flat(&layers["values"]), values);
    let row = app.get(&format!("/v1/caches/{id}/layers/-2?position=1&format=raw")).await;
    assert_eq!(floats(&row.body), values[16..20]);

    let run = app.get(&format!("/v1/runs/{}", cache["run"].as_str().unwrap())).await.json();
    assert_eq!((&run["status"], &run["imported"], &run["caches"]), (&json!("completed"), &json!(true), &json!([id])));
    assert_eq!((&run["n_items"], &run["n_done"]), (&json!(1), &json!(1)));
    verify(&app).await;
    assert_eq!(app.delete(&format!("/v1/runs/{}", run["id"].as_str().unwrap())).await.status.as_u16(), 204);
    app.get(&format!("/v1/caches/{id}")).await.problem(404, "cache_not_found");
    assert_eq!(blobs(&app), 0);
}

/// The parts of a cache's description that must survive an export and an import.
fn essence(cache: &Value) -> Value {
    let mut kept = cache.clone();
    for key in ["id", "run", "item_index", "created_at", "imported", "reused"] {
        kept.as_object_mut().unwrap().remove(key);
    }
    kept
}

#[tokio::test]
async fn exported_files_can_be_imported_without_loss() {
    let app = TestApp::new().await;
    for (body, capture) in [
        (
            json!({"input": "the cat sat"}),
            json!({"hooks": ["resid_post", "attn.pattern", "attn.z"], "positions": "all"}),
        ),
        (
            json!({"input": [3, 4, 5]}),
            json!({"hooks": ["resid_post", "logits"], "positions": "last", "dtype": "bfloat16"}),
        ),
        (json!({"input": ""}), json!({"positions": [0], "dtype": "float16"})),
        (json!({"input": "one two"}), json!({"positions": {"mean": {"start": 1}}})),
        (json!({"input": "one two"}), json!({"hooks": ["attn.attn_scores"], "positions": [-1, 0]})),
        (json!({"input": "go", "generate": {"max_new_tokens": 3}}), json!({"positions": "all"})),
    ] {
        let mut body = body;
        body["capture"] = capture;
        body["tags"] = json!(["t", "u"]);
        body["metadata"] = json!({"k": [1, null]});
        let run = app.run(body.clone()).await;
        let id = run["caches"][0].as_str().unwrap();
        app.patch(&format!("/v1/caches/{id}"), &json!({"label": "l"})).await;
        let cache = app.get(&format!("/v1/caches/{id}")).await.json();
        let out = app.get(&format!("/v1/caches/{id}/safetensors?annotations=true")).await;
        let answer = import(&app, "", out.body.to_vec()).await;
        let again = answer.json();
        assert_eq!(answer.status.as_u16(), 201, "{again:#}");
        assert_eq!(essence(&again), essence(&cache), "{body}");
        let theirs = &again["imported"]["metadata"];
        assert_eq!(
            (&theirs["cache"], &theirs["run"], &theirs["created_at"]),
            (&cache["id"], &cache["run"], &cache["created_at"])
        );
        let copy = again["id"].as_str().unwrap();
        for hook in cache["hooks"].as_array().unwrap() {
            let path = |id: &str| format!("/v1/caches/{id}/tensors/{}?format=raw", hook["hook"].as_str().unwrap());
            assert_eq!(app.get(&path(copy)).await.body, app.get(&path(id)).await.body, "{hook}");
        }
        // and a second time, now with the file of the imported cache
        let out = app.get(&format!("/v1/caches/{copy}/safetensors?annotations=true")).await;
        let third = import(&app, "", out.body.to_vec()).await.json();
        assert_eq!(essence(&third), essence(&cache));
        assert!(third["imported"]["metadata"]["origin"].as_str().unwrap().contains(id));
    }
    verify(&app).await;
}

#[tokio::test]
async fn an_import_never_answers_a_run() {
    let app = TestApp::new().await;
    let id = app.capture("the cat", json!({})).await;
    let out = app.get(&format!("/v1/caches/{id}/safetensors")).await;
    assert_eq!(import(&app, "", out.body.to_vec()).await.status.as_u16(), 201);
    app.delete(&format!("/v1/caches/{id}")).await;
    let run = app.run(json!({"input": "the cat", "capture": {}})).await;
    assert_eq!(run["n_reused"], 0);
}

#[tokio::test]
async fn every_question_works_on_imports() {
    let app = TestApp::new().await;
    let captured = app.capture("the cat sat on", json!({"positions": "all"})).await;
    let out = app.get(&format!("/v1/caches/{captured}/safetensors")).await;
    let copy = import(&app, "?label=pos", out.body.to_vec()).await.json()["id"].as_str().unwrap().to_owned();
    let other =
        file(&[("resid_post", "F32", &[N_LAYERS, 5, D_MODEL], f32s(ramp(N_LAYERS * 5 * D_MODEL)))], &Value::Null);
    let foreign = import(&app, "?model=elsewhere", other).await.json()["id"].as_str().unwrap().to_owned();

    let pairs = json!({"mode": "pairs", "a": [captured], "b": [copy, foreign], "metrics": ["cosine"]});
    let values = app.post("/v1/comparisons", &pairs).await.json();
    for layer in 0..N_LAYERS {
        assert_eq!(values["pairs"][0]["values"]["cosine"][layer], 1.0);
    }
    let search = json!({"query": {"cache": foreign, "position": 1}, "layer": 1, "k": 1, "over": "positions"});
    let found = app.post("/v1/search", &search).await;
    assert_eq!(found.status.as_u16(), 200, "{:?}", found.body);
    let statistics = json!({"caches": [foreign], "hook": "resid_post"});
    let answer = app.post("/v1/statistics", &statistics).await;
    assert_eq!(answer.status.as_u16(), 200, "{:?}", answer.body);
    let direction = json!({"name": "d", "method": "difference_of_means", "hook": "resid_post", "positive": [copy], "negative": [captured]});
    assert_eq!(app.post("/v1/directions", &direction).await.status.as_u16(), 201);
    let mixed = json!({"name": "e", "method": "difference_of_means", "hook": "resid_post", "positive": [foreign], "negative": [captured]});
    app.post("/v1/directions", &mixed).await.problem(422, "invalid_value");

    // the copy names weights that are served; the foreign import names none
    let lens = json!({"layers": [1], "positions": [-1], "top_k": 2});
    let expected = app.post(&format!("/v1/caches/{captured}/lens"), &lens).await.json();
    let answer = app.post(&format!("/v1/caches/{copy}/lens"), &lens).await.json();
    assert_eq!(answer["layers"], expected["layers"]);
    app.post(&format!("/v1/caches/{foreign}/lens"), &lens).await.problem(409, "conflict");
    let fingerprint = app.get(&format!("/v1/models/{MODEL}")).await.json()["fingerprint"].as_str().unwrap().to_owned();
    let lie = file(
        &[("resid_post", "F32", &[N_LAYERS, 5, 7], f32s(ramp(N_LAYERS * 5 * 7)))],
        &json!({"model": MODEL, "model_fingerprint": fingerprint}),
    );
    let lie = import(&app, "", lie).await.json()["id"].as_str().unwrap().to_owned();
    app.post(&format!("/v1/caches/{lie}/lens"), &lens).await.problem(409, "conflict");
    app.post(&format!("/v1/caches/{lie}/attribution"), &json!({"token": 3})).await.problem(409, "conflict");
}

#[tokio::test]
async fn an_input_without_ids_and_a_rounded_double() {
    let app = TestApp::new().await;
    let doubles: Vec<u8> = [1.0 + 1e-12, f64::NAN, f64::INFINITY, 1e300].iter().flat_map(|v| v.to_le_bytes()).collect();
    let body = file(&[("final_norm", "F64", &[4], doubles)], &Value::Null);
    import(&app, "?model=m", body.clone()).await.problem(422, "invalid_value");
    let cache = import(&app, "?model=m&dtype=float32&n_tokens=9", body).await.json();
    assert_eq!((&cache["n_tokens"], &cache["token_ids"], &cache["positions"]), (&json!(9), &json!([]), &json!("last")));
    assert_eq!((&cache["n_nan"], &cache["n_inf"]), (&json!(1), &json!(2)));
    assert_eq!(cache["imported"]["file_dtypes"], json!(["F64"]));
    let id = cache["id"].as_str().unwrap();
    let values = floats(&app.get(&format!("/v1/caches/{id}/tensors/final_norm?format=raw")).await.body);
    assert_eq!(values[0], 1.0);
    let again = app.get(&format!("/v1/caches/{id}/safetensors")).await.body.to_vec();
    assert!(!again.windows(10).any(|w| w == b"\"token_ids"));
    // the file alone does not tell the number of tokens
    let again = import(&app, "", again).await.json();
    assert_eq!(essence(&again), essence(&cache));
}

#[tokio::test]
async fn wrong_files_are_refused_and_leave_nothing() {
    let api = residuum::api::ApiConfig { max_import_bytes: 4096, ..Default::default() };
    let app = TestApp::with(residuum::engine::Limits::default(), api).await;
    let good = file(&[("resid_post", "F32", &[2, 3, 4], f32s(ramp(24)))], &json!({"model": "m"}));
    let mut behind = good.clone();
    behind.push(0);
    let huge = file(&[("resid_post", "F32", &[1, 1, 2000], f32s(ramp(2000)))], &json!({"model": "m"}));
    for (query, body, status, code) in [
        ("", Vec::new(), 400, "invalid_safetensors"),
        ("", good[..5].to_vec(), 400, "invalid_safetensors"),
        ("", good[..20].to_vec(), 400, "invalid_safetensors"),
        ("", good[..good.len() - 1].to_vec(), 400, "invalid_safetensors"),
        ("", behind, 400, "invalid_safetensors"),
        ("", [255; 64].to_vec(), 400, "invalid_safetensors"),
        ("", huge.clone(), 413, "body_too_large"),
        ("?colour=red", good.clone(), 400, "invalid_query"),
        ("?layers=x", good.clone(), 400, "invalid_query"),
        ("?positions=0,1,5&n_tokens=3", good.clone(), 422, "position_out_of_range"),
        ("?n_layers=1", good.clone(), 422, "shape_mismatch"),
        ("?label=", good.clone(), 422, "invalid_value"),
        ("", file(&[("nonsense", "F32", &[1], f32s([1.0]))], &json!({"model": "m"})), 422, "unknown_hook"),
        ("", file(&[("hook_embed", "F32", &[1, 1], f32s([1.0]))], &Value::Null), 400, "invalid_query"),
        ("?model=m", file(&[("token_ids", "I32", &[1], vec![0; 4])], &Value::Null), 422, "empty_input"),
    ] {
        import(&app, query, body).await.problem(status, code);
    }
    // the same without Content-Length: bytes are counted as they arrive
    let pieces = huge.chunks(100).map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c))).collect::<Vec<_>>();
    let body = Body::from_stream(futures::stream::iter(pieces));
    import_with(&app, "", &[], body).await.problem(413, "body_too_large");
    for content_type in ["application/json", "application/x-www-form-urlencoded"] {
        let request = Request::post("/v1/caches")
            .header("host", "localhost")
            .header("content-type", content_type)
            .body(Body::from(good.clone()));
        app.send(request.unwrap()).await.problem(415, "unsupported_media_type");
    }
    import_with(&app, "", &[("content-encoding", "gzip")], good.clone().into())
        .await
        .problem(415, "unsupported_media_type");
    assert_eq!(blobs(&app), 0);
    assert_eq!(app.get("/v1/runs").await.json()["items"], json!([]));
    assert_eq!(import(&app, "", good).await.status.as_u16(), 201);
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_nothing() {
    let app = TestApp::new().await;
    let good = file(&[("resid_post", "F32", &[2, 300, 40], f32s(ramp(24000)))], &json!({"model": "m"}));
    let broken = |n: usize| {
        let pieces: Vec<Result<Bytes, std::io::Error>> =
            vec![Ok(Bytes::copy_from_slice(&good[..n])), Err(std::io::ErrorKind::ConnectionReset.into())];
        Body::from_stream(futures::stream::iter(pieces))
    };
    for n in [0, 4, 30, 20_000, good.len() - 1] {
        import_with(&app, "", &[], broken(n)).await.problem(400, "invalid_body");
    }
    assert_eq!(blobs(&app), 0);
    assert_eq!(app.get("/v1/caches").await.json()["items"], json!([]));
}

#[tokio::test]
async fn an_idempotency_key_makes_one_cache() {
    let app = TestApp::new().await;
    let body = |x: f32| file(&[("hook_embed", "F32", &[1, 2], f32s([x, 2.0]))], &json!({"model": "m"}));
    let key: &[_] = &[("idempotency-key", "k")];
    let first = import_with(&app, "", key, body(1.0).into()).await;
    let again = import_with(&app, "", key, body(1.0).into()).await;
    assert_eq!((again.status.as_u16(), again.json()), (201, first.json()));
    assert_eq!(blobs(&app), 1);
    import_with(&app, "", key, body(3.0).into()).await.problem(422, "idempotency_key_reused");
    import_with(&app, "?label=x", key, body(1.0).into()).await.problem(422, "idempotency_key_reused");
    let run = json!({"model": MODEL, "input": "x"});
    app.post_with("/v1/runs", key, &run).await.problem(422, "idempotency_key_reused");
    assert_eq!(blobs(&app), 1);
    let id = first.json()["id"].as_str().unwrap().to_owned();
    app.delete(&format!("/v1/caches/{id}")).await;
    import_with(&app, "", key, body(1.0).into()).await.problem(409, "conflict");
    assert_eq!(blobs(&app), 0);
    let mut both = Vec::new();
    for _ in 0..2 {
        both.push(import_with(&app, "", &[("idempotency-key", "two")], body(1.0).into()));
    }
    let both = futures::future::join_all(both).await;
    assert_eq!(both[0].json()["id"], both[1].json()["id"]);
    assert_eq!(blobs(&app), 1);
}

#[tokio::test]
async fn an_import_is_there_after_a_restart() {
    let mut app = TestApp::new().await;
    let body = file(
        &[("resid_post", "BF16", &[1, 2, 3], vec![0x80, 0x3f, 1, 0x7f, 0x80, 0xff, 0, 0, 1, 0, 2, 0])],
        &json!({"model": "m"}),
    );
    let before = import(&app, "", body).await.json();
    app.stop().await;
    app.start_again().await;
    let id = before["id"].as_str().unwrap();
    assert_eq!(app.get(&format!("/v1/caches/{id}")).await.json(), before);
    verify(&app).await;
}

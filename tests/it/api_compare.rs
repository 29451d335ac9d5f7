//! `POST /v1/comparisons`. The numbers are checked against numpy and scipy by tests/python/check_interop.py; here against
//! float64 sums of the fetched values.

use serde_json::{Value, json};

use crate::support::{N_LAYERS, TestApp, flat};

async fn vector(app: &TestApp, cache: &str, layer: usize) -> Vec<f64> {
    flat(&app.get(&format!("/v1/caches/{cache}/layers/{layer}")).await.json()["values"])
        .into_iter()
        .map(f64::from)
        .collect()
}

fn expected(metric: &str, a: &[f64], b: &[f64]) -> f64 {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    match metric {
        "dot" => dot(a, b),
        "euclidean" => a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt(),
        _ => dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(),
    }
}

fn close(found: &Value, expected: f64) -> bool {
    (found.as_f64().unwrap() - expected).abs() <= 1e-12 * expected.abs().max(1.0)
}

#[tokio::test]
async fn pairs_and_matrix_agree_with_the_definition() {
    let app = TestApp::new().await;
    let mut caches = Vec::new();
    for text in ["the cat", "a dog", "in the end"] {
        caches.push(app.capture(text, json!({})).await);
    }
    let metrics = json!(["cosine", "dot", "euclidean"]);
    let pairs = app
        .post("/v1/comparisons", &json!({"mode": "pairs", "a": [caches[0]], "b": caches, "metrics": metrics}))
        .await
        .json();
    assert_eq!(
        (&pairs["hook"], &pairs["position"], &pairs["layers"]),
        (&json!("resid_post"), &json!("last"), &json!([0, 1, 2]))
    );
    let matrix =
        app.post("/v1/comparisons", &json!({"mode": "matrix", "caches": caches, "metrics": metrics})).await.json();
    assert_eq!(matrix["caches"], json!(caches));
    for layer in 0..N_LAYERS {
        let mut vectors = Vec::new();
        for cache in &caches {
            vectors.push(vector(&app, cache, layer).await);
        }
        for metric in ["cosine", "dot", "euclidean"] {
            for (i, a) in vectors.iter().enumerate() {
                for (j, b) in vectors.iter().enumerate() {
                    assert!(
                        close(&matrix["values"][metric][layer][i][j], expected(metric, a, b)),
                        "{metric} {layer} {i} {j}"
                    );
                }
            }
            for (j, b) in vectors.iter().enumerate() {
                assert!(close(&pairs["pairs"][j]["values"][metric][layer], expected(metric, &vectors[0], b)));
            }
        }
    }
}

#[tokio::test]
async fn positions_and_layers_can_be_chosen() {
    let app = TestApp::new().await;
    let a = app.capture("the cat", json!({"positions": "all", "hooks": ["resid_post", "attn_out"]})).await;
    let b = app
        .capture("a small dog", json!({"positions": "all", "hooks": ["resid_post", "attn_out"], "dtype": "float16"}))
        .await;
    let compare = async |more: Value| {
        let mut body = json!({"mode": "pairs", "a": [a], "b": [b]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        app.post("/v1/comparisons", &body).await
    };
    let bos = compare(json!({"position": 0, "layers": -1})).await.json();
    assert_eq!(bos["layers"], json!([2]));
    assert!((bos["pairs"][0]["values"]["cosine"][0].as_f64().unwrap() - 1.0).abs() < 1e-5, "both begin with BOS");
    let one = compare(json!({"hook": "blocks.1.hook_attn_out", "position": "mean"})).await.json();
    assert_eq!((&one["hook"], &one["layers"]), (&json!("attn_out"), &json!([1])));
    assert!(one["pairs"][0]["values"]["cosine"][0].as_f64().unwrap().abs() < 1.0);
    compare(json!({"position": 7})).await.problem(422, "position_out_of_range");
    compare(json!({"position": "all"})).await.problem(422, "invalid_value");
    compare(json!({"layers": 3})).await.problem(422, "layer_out_of_range");
    compare(json!({"hook": "mlp_out"})).await.problem(422, "hook_not_stored");
    compare(json!({"hook": "nonsense"})).await.problem(422, "unknown_hook");
    compare(json!({"metrics": ["manhattan"]})).await.problem(400, "invalid_field");
    compare(json!({"metrics": []})).await.problem(422, "invalid_value");
    compare(json!({"caches": [a]})).await.problem(400, "invalid_body");
}

#[tokio::test]
async fn impossible_comparisons_are_refused() {
    let app = TestApp::new().await;
    let all = app.capture("the cat", json!({})).await;
    let logits = app.capture("the cat", json!({"hooks": ["logits"]})).await;
    let last = app.capture("the cat", json!({"layers": [2]})).await;
    let pairs = |a: Value, b: Value| json!({"mode": "pairs", "a": a, "b": b});
    let shared = app.post("/v1/comparisons", &pairs(json!([all]), json!([last]))).await.json();
    assert_eq!(shared["layers"], json!([2]), "all means the layers that both have");
    for (body, status, code, pointer) in [
        (pairs(json!([all]), json!([logits])), 422, "hook_not_stored", "/hook"),
        (pairs(json!([all, all]), json!([all, all, all])), 422, "invalid_value", "/b"),
        (pairs(json!([all]), json!(["nonsense"])), 422, "unknown_cache", "/b/0"),
        (pairs(json!([all]), json!(["0198c5a0-5b1e-7c3a-9b54-0242ac120002"])), 422, "unknown_cache", "/b/0"),
        (pairs(json!([]), json!([all])), 400, "invalid_body", "/a"),
        (json!({"mode": "pairs", "a": [all]}), 400, "invalid_body", "/b"),
        (json!({"mode": "matrix", "a": [all]}), 400, "invalid_body", "/a"),
        (json!({"mode": "sideways", "a": [all]}), 400, "invalid_field", "/mode"),
    ] {
        assert_eq!(app.post("/v1/comparisons", &body).await.problem(status, code), [pointer], "{body}");
    }
}

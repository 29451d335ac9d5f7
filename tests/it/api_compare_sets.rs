//! `POST /v1/comparisons`: layer with layer, sets, options and binary answers. The formulas are tested in
//! analysis_compare; here answers are compared with values that the library computes from fetched rows.

use residuum::analysis::{
    MemoryRows, Preparation, Prepared, SetMetric, VectorMetric, pairwise::self_tables, sets::tables,
};
use serde_json::{Value, json};

use crate::support::{Answer, D_MODEL, N_LAYERS, TestApp, flat};

const TEXTS: [&str; 5] = ["the cat", "a dog ran", "in the end", "one two three four", "what is it"];
const TWINS: [&str; 5] = ["the cats", "a dog runs", "at the end", "one two three five", "what was it"];

async fn capture_all(app: &TestApp, texts: &[&str], tag: &str) -> Vec<String> {
    let run = app.run(json!({"input": texts, "tags": [tag], "capture": {"positions": "all"}})).await;
    run["caches"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// Rows of the residual stream after `layer`: the last position of each cache, or all.
async fn rows(app: &TestApp, caches: &[String], layer: usize, all: bool) -> Prepared<MemoryRows> {
    let mut rows = Vec::new();
    for cache in caches {
        let query = if all { "positions=all" } else { "position=last" };
        let tensor = app.get(&format!("/v1/caches/{cache}/layers/{layer}?{query}")).await.json();
        rows.extend(flat(&tensor["values"]).chunks(D_MODEL).map(<[f32]>::to_vec));
    }
    Prepared::new(MemoryRows::new(&rows), Preparation::default()).unwrap()
}

fn numbers(values: &Value) -> Vec<f64> {
    match values {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().unwrap_or(f64::NAN)],
    }
}

#[track_caller]
fn same(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= 1e-9 * e.abs().max(1.0) || (f.is_nan() && e.is_nan()), "{i}: {f} for {e}");
    }
}

async fn compare(app: &TestApp, body: &Value) -> Value {
    let answer = app.post("/v1/comparisons", body).await;
    let json = answer.json();
    assert_eq!(answer.status, 200, "{json:#}");
    json
}

#[tokio::test]
async fn sets_are_compared_layer_by_layer() {
    let app = TestApp::new().await;
    let (a, b) = (capture_all(&app, &TEXTS, "one").await, capture_all(&app, &TWINS, "two").await);
    let names = ["cka", "cka_debiased", "rsa", "procrustes", "mean_difference", "mean_cosine", "effect_size"];
    let metrics = [
        SetMetric::Cka,
        SetMetric::CkaDebiased,
        SetMetric::Rsa,
        SetMetric::Procrustes,
        SetMetric::MeanDifference,
        SetMetric::MeanCosine,
        SetMetric::EffectSize,
    ];
    // caches found by a filter come in the order of the inputs, as they do by ids
    let body = json!({"mode": "sets", "groups": {"y": {"tags": ["two"]}, "x": a}, "metrics": names});
    let found = compare(&app, &body).await;
    assert_eq!(found["groups"][1], json!({"name": "y", "n_rows": 5, "caches": b}));
    assert_eq!((&found["groups"][0]["name"], &found["layers"]), (&json!("x"), &json!([0, 1, 2])));
    for layer in 0..N_LAYERS {
        let sides = [rows(&app, &a, layer, false).await, rows(&app, &b, layer, false).await];
        let expected = tables(&sides, None, &metrics).unwrap();
        for (name, expected) in names.iter().zip(&expected) {
            same(&numbers(&found["values"][name][layer]), expected);
        }
    }
    assert_eq!(found["values"]["effect_size"][0][0][0], Value::Null);
    let default = compare(&app, &json!({"mode": "sets", "groups": {"x": a, "y": b}})).await;
    assert_eq!(default["values"], json!({"cka": found["values"]["cka"]}));
}

#[tokio::test]
async fn every_position_can_be_a_row() {
    let app = TestApp::new().await;
    let a = capture_all(&app, &TEXTS[..2], "one").await;
    let body = json!({"mode": "sets", "groups": {"x": a}, "rows": "positions", "metrics": ["cka", "effect_size"]});
    let found = compare(&app, &body).await;
    assert!(found.get("position").is_none());
    let expected = rows(&app, &a, 1, true).await;
    assert_eq!(found["groups"][0]["n_rows"], expected.n_rows());
    assert_eq!(found["values"]["cka"][1], json!([[1.0]]));
    let layers =
        compare(&app, &json!({"mode": "layers", "a": a, "rows": "positions", "metrics": ["cka_debiased"]})).await;
    let mut sides = Vec::new();
    for layer in 0..N_LAYERS {
        sides.push(rows(&app, &a, layer, true).await);
    }
    let expected = tables(&sides, None, &[SetMetric::CkaDebiased]).unwrap();
    same(&numbers(&layers["values"]["cka_debiased"]), &expected[0]);
}

#[tokio::test]
async fn layers_are_compared_with_layers() {
    let app = TestApp::new().await;
    let (a, b) = (capture_all(&app, &TEXTS, "one").await, capture_all(&app, &TWINS, "two").await);
    let body =
        json!({"mode": "layers", "a": [a[0]], "b": [b[0]], "layers": [0, 2], "metrics": ["cosine", "mae", "jaccard"]});
    let found = compare(&app, &body).await;
    assert_eq!((&found["layers"], &found["layers_b"], &found["k"]), (&json!([0, 2]), &json!([0, 2]), &json!(10)));
    for (name, metric) in [
        ("cosine", VectorMetric::Plain(residuum::analysis::Metric::Cosine)),
        ("mae", VectorMetric::Plain(residuum::analysis::Metric::Mae)),
        ("jaccard", VectorMetric::Jaccard { k: 10 }),
    ] {
        let mut expected = Vec::new();
        for l in [0, 2] {
            for m in [0, 2] {
                let (x, y) = (rows(&app, &a[..1], l, false).await, rows(&app, &b[..1], m, false).await);
                expected.extend(metric.zip(&[&x.read(0..1).unwrap()], &[&y.read(0..1).unwrap()]));
            }
        }
        same(&numbers(&found["values"][name]), &expected);
    }
    let with_itself = compare(&app, &json!({"mode": "layers", "a": [a[0]]})).await;
    assert_eq!(with_itself["values"]["cosine"][1][1].as_f64().map(|v| (v - 1.0).abs() < 1e-12), Some(true));
    let groups = compare(&app, &json!({"mode": "layers", "a": a, "b": b, "metrics": ["cka"]})).await;
    let sets = compare(&app, &json!({"mode": "sets", "groups": {"a": a, "b": b}})).await;
    for layer in 0..N_LAYERS {
        same(&numbers(&groups["values"]["cka"][layer][layer]), &numbers(&sets["values"]["cka"][layer][0][1]));
    }
}

#[tokio::test]
async fn vectors_are_centred_over_the_request_and_scaled() {
    let app = TestApp::new().await;
    let a = capture_all(&app, &TEXTS, "one").await;
    let caches = [a.clone(), vec![a[0].clone()]].concat();
    let body = json!({"mode": "matrix", "caches": caches, "metrics": ["dot"], "center": "mean", "normalize": true, "layers": 1});
    let found = compare(&app, &body).await;
    assert_eq!((&found["center"], &found["normalize"]), (&json!("mean"), &json!(true)));
    let (mut all, mut values) = (Vec::new(), rows(&app, &a, 1, false).await.read(0..5).unwrap());
    let means: Vec<f64> = (0..D_MODEL).map(|d| (0..5).map(|i| values[i * D_MODEL + d]).sum::<f64>() / 5.0).collect();
    for row in values.chunks_exact_mut(D_MODEL) {
        row.iter_mut().zip(&means).for_each(|(x, m)| *x -= m);
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        all.push(row.iter().map(|x| x / length).collect::<Vec<f64>>());
    }
    all.push(all[0].clone());
    let views: Vec<&[f64]> = all.iter().map(Vec::as_slice).collect();
    let expected = VectorMetric::Plain(residuum::analysis::Metric::Dot).table(&views, &views);
    same(&numbers(&found["values"]["dot"][0]), &expected);
    let pairs = json!({"mode": "pairs", "a": [a[0]], "b": {"tags": ["one"]}, "center": "mean", "layers": 1,
        "normalize": true, "metrics": ["dot"]});
    let found = compare(&app, &pairs).await;
    let found: Vec<f64> =
        found["pairs"].as_array().unwrap().iter().map(|p| p["values"]["dot"][0].as_f64().unwrap()).collect();
    same(&found, &expected[..5]);
}

fn doubles(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

async fn binary(app: &TestApp, query: &str, body: &Value) -> Answer {
    let answer = app.post(&format!("/v1/comparisons{query}"), body).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer
}

#[tokio::test]
async fn large_tables_come_as_arrays() {
    let app = TestApp::new().await;
    let a = capture_all(&app, &TEXTS, "one").await;
    let matrix = json!({"mode": "matrix", "caches": a, "metrics": ["cosine", "pearson"]});
    let expected = compare(&app, &matrix).await;
    let file = binary(&app, "?format=safetensors", &matrix).await;
    let tensors = safetensors::SafeTensors::deserialize(&file.body).unwrap();
    for name in ["cosine", "pearson"] {
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::F64, &[N_LAYERS, 5, 5][..]));
        same(&doubles(tensor.data()), &numbers(&expected["values"][name]));
    }
    let (_, header) = safetensors::SafeTensors::read_metadata(&file.body).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    assert_eq!((metadata["layers"].as_str(), metadata["caches"].as_str()), ("[0,1,2]", &*json!(a).to_string()));
    let one = json!({"mode": "matrix", "caches": a});
    let npy = binary(&app, "?format=npy", &one).await;
    assert!(npy.body.starts_with(b"\x93NUMPY\x01\x00") && npy.body.windows(5).any(|w| w == b"'<f8'"));
    assert_eq!(npy.header("residuum-shape"), "3,5,5");
    same(&doubles(&npy.body[npy.body.len() - 75 * 8..]), &numbers(&expected["values"]["cosine"]));
    let raw = app.post_with("/v1/comparisons", &[("accept", "application/octet-stream")], &one).await;
    assert_eq!((raw.body.len(), raw.header("residuum-axes")), (75 * 8, "layer,i,j"));
    let layers = binary(&app, "?format=raw", &json!({"mode": "layers", "a": [a[0]]})).await;
    assert_eq!((layers.header("residuum-shape"), layers.header("residuum-axes")), ("3,3", "layer_a,layer_b"));
    let pairs = binary(&app, "?format=raw", &json!({"mode": "pairs", "a": [a[0]], "b": a})).await;
    assert_eq!(pairs.header("residuum-shape"), "3,5");
    same(&doubles(&pairs.body)[..5], &numbers(&expected["values"]["cosine"][0][0]));
    app.post("/v1/comparisons?format=npy", &matrix).await.problem(422, "invalid_value");
    app.post_with("/v1/comparisons", &[("accept", "text/html")], &one).await.problem(406, "not_acceptable");
    app.post("/v1/comparisons?shape=round", &one).await.problem(400, "invalid_query");
}

#[tokio::test]
async fn contradictory_fields_are_refused() {
    let app = TestApp::new().await;
    let a = capture_all(&app, &TEXTS, "one").await;
    let sets = |groups: Value, metrics: Value| json!({"mode": "sets", "groups": groups, "metrics": metrics});
    let layers = |a: &[String], metrics: Value| json!({"mode": "layers", "a": a, "metrics": metrics});
    let with = |mut body: Value, more: Value| {
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let two = json!({"x": a, "y": a[..4]});
    for (body, status, code, pointer) in [
        (sets(two.clone(), json!(["cka"])), 422, "shape_mismatch", "/groups/y"),
        (sets(two.clone(), json!(["rsa"])), 422, "shape_mismatch", "/groups/y"),
        (sets(json!({"x": a[..3]}), json!(["cka_debiased"])), 422, "shape_mismatch", "/groups/x"),
        (sets(json!({"x": a[..1]}), json!(["cka"])), 422, "shape_mismatch", "/groups/x"),
        (sets(json!({"a/b": []}), json!(["cka"])), 400, "invalid_body", "/groups/a~1b"),
        (sets(json!({"x": {"tags": ["none"]}}), json!(["cka"])), 422, "empty_input", "/groups/x"),
        (sets(json!({}), json!(["cka"])), 422, "invalid_value", "/groups"),
        (sets(two.clone(), json!(["cosine"])), 422, "invalid_value", "/metrics"),
        (json!({"mode": "sets"}), 400, "invalid_body", "/groups"),
        (json!({"mode": "matrix", "caches": a, "metrics": ["cka"]}), 422, "invalid_value", "/metrics"),
        (json!({"mode": "matrix", "caches": a, "k": 3}), 422, "invalid_value", "/k"),
        (json!({"mode": "matrix", "caches": a, "metrics": ["jaccard"], "k": 0}), 422, "invalid_value", "/k"),
        (json!({"mode": "matrix", "caches": a, "metrics": ["jaccard"], "k": 33}), 422, "invalid_value", "/k"),
        (json!({"mode": "matrix", "caches": a, "rows": "positions"}), 400, "invalid_body", "/rows"),
        (layers(&a, json!(["cosine"])), 422, "invalid_value", "/a"),
        (layers(&a, json!(["cosine", "cka"])), 422, "invalid_value", "/metrics"),
        (layers(&a, json!(["effect_size"])), 422, "invalid_value", "/metrics"),
        (with(layers(&a, json!(["cka"])), json!({"b": a[..4]})), 422, "shape_mismatch", "/b"),
        (with(layers(&a[..1], json!(["cosine"])), json!({"center": "mean"})), 422, "invalid_value", "/center"),
        (with(layers(&a[..1], json!(["cosine"])), json!({"rows": "positions"})), 422, "invalid_value", "/rows"),
        (with(sets(two.clone(), json!(["effect_size"])), json!({"center": "mean"})), 422, "invalid_value", "/center"),
        (
            with(sets(two.clone(), json!(["cka"])), json!({"rows": "positions", "position": 0})),
            422,
            "invalid_value",
            "/position",
        ),
        (
            with(
                sets(json!({"x": a, "y": [a[1], a[0], a[2], a[3], a[4]]}), json!(["cka"])),
                json!({"rows": "positions"}),
            ),
            422,
            "shape_mismatch",
            "/groups/y",
        ),
    ] {
        assert_eq!(app.post("/v1/comparisons", &body).await.problem(status, code), [pointer], "{body}");
    }
    let unequal = compare(&app, &sets(two, json!(["mean_difference"]))).await;
    assert!(
        unequal["values"]["mean_difference"][0][0][1].as_f64().unwrap() > 0.0,
        "means do not need equally many rows"
    );
    let one = compare(&app, &sets(json!({"x": a[..1], "y": a[1..2]}), json!(["effect_size"]))).await;
    assert_eq!(one["values"]["effect_size"][0], json!([[null, null], [null, null]]));
}

#[tokio::test]
async fn a_matrix_is_the_table_of_its_rows() {
    let app = TestApp::new().await;
    let a = capture_all(&app, &TEXTS, "one").await;
    let found =
        compare(&app, &json!({"mode": "matrix", "caches": {"tags": ["one"]}, "metrics": ["jaccard"], "k": 4})).await;
    assert_eq!((&found["caches"], &found["k"]), (&json!(a), &json!(4)));
    let rows = rows(&app, &a, 2, false).await;
    let expected = self_tables(&rows, &[VectorMetric::Jaccard { k: 4 }]).unwrap();
    same(&numbers(&found["values"]["jaccard"][2]), &expected[0]);
}

#[tokio::test]
async fn widths_that_differ_and_tables_that_are_too_large_are_refused() {
    let app = TestApp::new().await;
    let capture = json!({"positions": "all", "hooks": ["attn.pattern", "resid_post"]});
    let (short, long) = (app.capture("the cat", capture.clone()).await, app.capture("a dog ran home", capture).await);
    let body = json!({"mode": "layers", "hook": "attn.pattern", "a": [short], "b": [long]});
    assert_eq!(app.post("/v1/comparisons", &body).await.problem(422, "shape_mismatch"), ["/b"]);
    let groups = json!({"x": [short], "y": [long]});
    let body = json!({"mode": "sets", "hook": "attn.pattern", "groups": groups, "metrics": ["mean_difference"]});
    assert_eq!(app.post("/v1/comparisons", &body).await.problem(422, "shape_mismatch"), ["/groups/y"]);
    let body = json!({"mode": "sets", "hook": "attn.pattern", "groups": groups, "rows": "positions"});
    assert_eq!(app.post("/v1/comparisons", &body).await.problem(422, "invalid_value"), ["/groups/x/0"]);
    let many = json!({"mode": "matrix", "caches": vec![&short; 1200]});
    app.post("/v1/comparisons", &many).await.problem(413, "result_too_large");
    binary(&app, "?format=raw", &many).await;
}

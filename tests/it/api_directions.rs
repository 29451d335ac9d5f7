//! `/v1/directions`: which vectors are fitted, what is stored, and what is refused. analysis_directions.rs tests the
//! arithmetic.

use serde_json::{Value, json};

use crate::support::{D_MODEL, N_LAYERS, TestApp, flat, floats};

const POSITIVE: [&str; 6] = ["a cat", "the cat", "my cat", "one cat", "a big cat", "no cat"];
const NEGATIVE: [&str; 6] = ["a dog ran", "the dog ran", "my dog ran", "one dog ran", "a big dog ran", "no dog ran"];

/// Captures both classes in one run. Returns the ids of their caches.
async fn captured(app: &TestApp) -> (Vec<String>, Vec<String>) {
    let item = |text: &&str, positive: bool| {
        let label = if positive { "cat" } else { "dog" };
        json!({"text": text, "label": label, "tags": [label], "metadata": {"cat": positive, "class": label}})
    };
    let items: Vec<Value> =
        POSITIVE.iter().map(|t| item(t, true)).chain(NEGATIVE.iter().map(|t| item(t, false))).collect();
    let run =
        app.run(json!({"items": items, "capture": {"hooks": ["resid_post", "attn.z"], "positions": "all"}})).await;
    let ids: Vec<String> = run["caches"].as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_owned()).collect();
    (ids[..6].to_vec(), ids[6..].to_vec())
}

async fn vector(app: &TestApp, cache: &str, layer: usize, position: &str) -> Vec<f64> {
    let tensor = app.get(&format!("/v1/caches/{cache}/layers/{layer}?position={position}")).await.json();
    flat(&tensor["values"]).into_iter().map(f64::from).collect()
}

async fn mean(app: &TestApp, caches: &[String], layer: usize, position: &str) -> Vec<f64> {
    let mut sum = vec![0.0; D_MODEL];
    for cache in caches {
        let vector = vector(app, cache, layer, position).await;
        sum.iter_mut().zip(vector).for_each(|(s, v)| *s += v / caches.len() as f64);
    }
    sum
}

async fn made(app: &TestApp, body: Value) -> Value {
    let answer = app.post("/v1/directions", &body).await;
    let direction = answer.json();
    assert_eq!(answer.status, 201, "{direction:#}");
    assert_eq!(answer.header("location"), format!("/v1/directions/{}", direction["id"].as_str().unwrap()));
    direction
}

#[tokio::test]
async fn a_difference_of_means_is_that_of_the_fetched_vectors() {
    let app = TestApp::new().await;
    let (positive, negative) = captured(&app).await;
    for (i, position) in ["last", "mean"].into_iter().enumerate() {
        let name = format!("cats-{i}");
        let body = json!({
            "method": "difference_of_means", "name": name, "positive": positive, "negative": {"label": "dog"}, "position": position
        });
        let direction = made(&app, body).await;
        assert_eq!(
            (&direction["layers"], &direction["width"], &direction["model"], &direction["hook"]),
            (&json!([0, 1, 2]), &json!(D_MODEL), &json!("tiny"), &json!("hook_resid_post"))
        );
        let provenance = &direction["provenance"];
        assert_eq!((&provenance["n_positive"], &provenance["n_negative"]), (&json!(6), &json!(6)));
        assert_eq!(
            (&provenance["position"], &provenance["selection"]["negative"]),
            (&json!(position), &json!({"label": "dog"}))
        );
        assert_eq!(provenance["model_fingerprint"].as_str().unwrap().len(), 64);
        let tensor = app.get(&format!("/v1/directions/{name}/vector")).await.json();
        assert_eq!((&tensor["shape"], &tensor["axes"]), (&json!([N_LAYERS, D_MODEL]), &json!(["layer", "d_model"])));
        for layer in 0..N_LAYERS {
            let (p, n) = (mean(&app, &positive, layer, position).await, mean(&app, &negative, layer, position).await);
            let found = flat(&tensor["values"][layer]);
            for (found, expected) in found.iter().zip(p.iter().zip(&n).map(|(p, n)| p - n)) {
                assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
        let metrics = &direction["vectors"][1]["metrics"];
        assert!(metrics["auroc"].as_f64().unwrap() > 0.9 && metrics["cohens_d"].as_f64().unwrap() > 0.0, "{metrics}");
    }
}

#[tokio::test]
async fn a_probe_separates_the_classes_and_is_reproducible() {
    let app = TestApp::new().await;
    captured(&app).await;
    let body = |name: &str, target: Value| {
        json!({
            "method": "probe", "name": name, "caches": {"model": "tiny"}, "target": target, "folds": 3, "seed": 7, "c": 0.5
        })
    };
    let first = made(&app, body("by-metadata", json!({"metadata": "cat"}))).await;
    let targets = [json!({"tag": "cat"}), json!({"label": "cat"}), json!({"metadata": "class", "value": "cat"})];
    for (i, target) in targets.into_iter().enumerate() {
        let again = made(&app, body(&format!("again-{i}"), target)).await;
        assert_eq!(again["vectors"], first["vectors"], "the same caches, classes and seed");
    }
    assert_eq!(first["vectors"].as_array().unwrap().len(), N_LAYERS);
    let metrics = &first["vectors"][2]["metrics"];
    assert_eq!((&metrics["train_accuracy"], &metrics["train_auroc"]), (&json!(1.0), &json!(1.0)), "{metrics}");
    assert!(metrics["accuracy"].as_f64().unwrap() > 0.6 && metrics["intercept"].is_number(), "{metrics}");
    assert_eq!(metrics["fold_auroc"].as_array().unwrap().len(), 3);
    assert!(metrics["shuffled_accuracy"].as_f64().unwrap() < metrics["accuracy"].as_f64().unwrap(), "{metrics}");
    // vector · x + intercept is positive exactly for the cats
    let fetched = app.get("/v1/directions/by-metadata/vector?layer=2").await.json();
    let weights = flat(&fetched["values"]);
    for cache in app.get("/v1/caches").await.json()["items"].as_array().unwrap() {
        let x = vector(&app, cache["id"].as_str().unwrap(), 2, "last").await;
        let logit: f64 = x.iter().zip(&weights).map(|(x, w)| x * f64::from(*w)).sum::<f64>()
            + metrics["intercept"].as_f64().unwrap();
        assert_eq!(logit > 0.0, cache["label"] == "cat", "{logit}");
    }
}

#[tokio::test]
async fn components_are_orthonormal_and_fetched_one_by_one() {
    let app = TestApp::new().await;
    captured(&app).await;
    let body = json!({"method": "pca", "name": "axes", "hook": "blocks.1.attn.z", "caches": {"tags": ["cat"]}, "k": 3});
    let direction = made(&app, body).await;
    assert_eq!((&direction["n_components"], &direction["layers"]), (&json!(3), &json!([1])));
    let ratios: Vec<f64> =
        (0..3).map(|c| direction["vectors"][c]["metrics"]["explained_variance_ratio"].as_f64().unwrap()).collect();
    assert!(ratios.is_sorted_by(|a, b| a >= b) && ratios.iter().sum::<f64>() <= 1.0 + 1e-9, "{ratios:?}");
    let mut axes = Vec::new();
    for c in 0..3 {
        let answer = app.get(&format!("/v1/directions/axes/vector?layer=1&component={c}&format=raw")).await;
        assert_eq!(
            (answer.header("residuum-axes"), answer.header("residuum-hook")),
            ("feature", "blocks.1.attn.hook_z")
        );
        axes.push(floats(&answer.body));
    }
    for (i, a) in axes.iter().enumerate() {
        for (j, b) in axes.iter().enumerate() {
            let dot: f32 = a.iter().zip(b).map(|(x, y)| x * y).sum();
            assert!((dot - f32::from(u8::from(i == j))).abs() < 1e-5, "{i} {j} {dot}");
        }
    }
    let detail = json!({"method": "pca", "name": "more", "caches": {"tags": ["cat"]}, "k": 6});
    app.post("/v1/directions", &detail).await.problem(422, "invalid_value");
}

#[tokio::test]
async fn an_upload_is_returned_in_every_format_even_after_a_restart() {
    let mut app = TestApp::new().await;
    let body = json!({"method": "upload", "name": "mine", "metadata": {"from": "paper"}, "vectors": [
        {"layer": 5, "values": [0.1, -2.5]}, {"layer": 3, "values": [1.0, 0.0]}]});
    let direction = made(&app, body.clone()).await;
    assert_eq!((&direction["layers"], &direction["model"]), (&json!([3, 5]), &Value::Null));
    assert_eq!(direction["vectors"][0]["metrics"], json!({"norm": 1.0}));
    assert_eq!(direction["vectors"][0].get("values"), None);
    assert_eq!(app.post("/v1/directions", &body).await.problem(409, "conflict"), ["/name"]);
    app.stop().await;
    app.start_again().await;
    let id = direction["id"].as_str().unwrap();
    for key in [id, "mine"] {
        let described = app.get(&format!("/v1/directions/{key}?include=vectors")).await.json();
        assert_eq!(described["vectors"][1]["values"], json!([0.1, -2.5]));
        assert_eq!(
            floats(&app.get(&format!("/v1/directions/{key}/vector?layer=5&format=raw")).await.body),
            [0.1, -2.5]
        );
    }
    let all = app.get("/v1/directions/mine/vector?format=npy").await;
    assert!(all.body.starts_with(b"\x93NUMPY") && all.header("residuum-shape") == "2,2");
    assert_eq!(app.get("/v1/directions/mine/vector?format=safetensors").await.status, 200);
    app.get("/v1/directions/mine/vector?layer=4").await.problem(404, "vector_not_in_direction");
    app.get("/v1/directions/mine/vector?component=1").await.problem(404, "vector_not_in_direction");
    let global =
        json!({"method": "upload", "name": "outside", "hook": "hook_embed", "vectors": [{"values": [1, 2, 3]}]});
    assert_eq!(made(&app, global).await["layers"], json!([]));
    assert_eq!(app.get("/v1/directions/outside/vector").await.json()["values"], json!([1.0, 2.0, 3.0]));
}

#[tokio::test]
async fn directions_are_listed_edited_and_deleted() {
    let app = TestApp::new().await;
    for name in ["a", "b", "c"] {
        made(&app, json!({"method": "upload", "name": name, "hook": "resid_post.1", "vectors": [{"values": [1]}]}))
            .await;
    }
    let names = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = app.get("/v1/directions?limit=2").await.json();
    assert_eq!(names(&first), ["c", "b"]);
    assert_eq!(first["items"][0].get("vectors"), None);
    let next = first["next_cursor"].as_str().unwrap();
    let second = app.get(&format!("/v1/directions?limit=2&cursor={next}")).await.json();
    assert_eq!((names(&second), &second["next_cursor"]), (vec!["a".to_owned()], &Value::Null));
    let patched = app.patch("/v1/directions/b", &json!({"metadata": {"note": "x"}})).await.json();
    assert_eq!(patched["metadata"], json!({"note": "x"}));
    assert_eq!(app.delete("/v1/directions/b").await.status, 204);
    for answer in [
        app.get("/v1/directions/b").await,
        app.delete("/v1/directions/b").await,
        app.patch("/v1/directions/b", &json!({"metadata": {}})).await,
        app.get("/v1/directions/b/vector").await,
    ] {
        answer.problem(404, "direction_not_found");
    }
    assert_eq!(names(&app.get("/v1/directions").await.json()), ["c", "a"]);
}

#[tokio::test]
async fn impossible_directions_are_refused() {
    let app = TestApp::new().await;
    let (positive, negative) = captured(&app).await;
    let upload = |more: Value| {
        let mut body = json!({"method": "upload", "name": "x", "vectors": [{"layer": 0, "values": [1, 2]}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let probe = |more: Value| {
        let mut body = json!({"method": "probe", "name": "x", "positive": positive, "negative": negative});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let two = |a: Value, b: Value| upload(json!({"vectors": [a, b]}));
    let targeted = |target: Value| json!({"method": "difference_of_means", "name": "x", "caches": {"tags": ["cat"]}, "target": target});
    for (body, status, code, pointer) in [
        (json!({"name": "x"}), 400, "invalid_body", "/method"),
        (upload(json!({"method": "ica"})), 400, "invalid_field", "/method"),
        (upload(json!({"extra": 1})), 400, "invalid_body", "/extra"),
        (upload(json!({"name": "a b"})), 422, "invalid_value", "/name"),
        (upload(json!({"name": positive[0]})), 422, "invalid_value", "/name"),
        (upload(json!({"hook": "nonsense"})), 422, "unknown_hook", "/hook"),
        (upload(json!({"vectors": []})), 422, "empty_input", "/vectors"),
        (upload(json!({"vectors": [{"values": [1]}]})), 422, "invalid_value", "/vectors/0/layer"),
        (upload(json!({"vectors": [{"layer": 0, "values": [1, "x"]}]})), 400, "invalid_field", "/vectors/0/values/1"),
        (upload(json!({"vectors": [{"layer": 0, "values": [1e300]}]})), 422, "invalid_value", "/vectors/0/values/0"),
        (upload(json!({"hook": "logits"})), 422, "invalid_value", "/vectors/0/layer"),
        (
            two(json!({"layer": 0, "values": [1, 2]}), json!({"layer": 1, "values": [1]})),
            422,
            "shape_mismatch",
            "/vectors/1/values",
        ),
        (two(json!({"layer": 0, "values": [1]}), json!({"layer": 0, "values": [2]})), 422, "invalid_value", "/vectors"),
        (probe(json!({"c": 0})), 422, "invalid_value", "/c"),
        (probe(json!({"folds": 1})), 422, "invalid_value", "/folds"),
        (probe(json!({"folds": 7})), 422, "invalid_value", "/folds"),
        (probe(json!({"shuffles": 0})), 422, "invalid_value", "/shuffles"),
        (probe(json!({"position": "all"})), 422, "invalid_value", "/position"),
        (probe(json!({"position": 40})), 422, "position_out_of_range", "/positive/0"),
        (probe(json!({"layers": 9})), 422, "layer_out_of_range", "/layers"),
        (probe(json!({"hook": "mlp_out"})), 422, "hook_not_stored", "/hook"),
        (probe(json!({"negative": {"tags": ["nothing"]}})), 422, "empty_input", "/negative"),
        (probe(json!({"negative": [positive[0]]})), 422, "invalid_value", "/negative/0"),
        (probe(json!({"positive": ["nonsense"]})), 422, "unknown_cache", "/positive/0"),
        (targeted(json!({"tag": "cat"})), 422, "invalid_value", "/target"),
        (targeted(json!({"metadata": "class"})), 422, "invalid_value", "/target/metadata"),
        (targeted(json!({"metadata": "none", "value": 1})), 422, "invalid_value", "/target/metadata"),
        (targeted(json!({"tag": "cat", "label": "cat"})), 400, "invalid_body", "/target"),
    ] {
        assert_eq!(app.post("/v1/directions", &body).await.problem(status, code), [pointer], "{body}");
    }
    let neither = json!({"method": "difference_of_means", "name": "x", "positive": positive});
    assert_eq!(app.post("/v1/directions", &neither).await.problem(400, "invalid_body"), Vec::<String>::new());
    assert_eq!(app.get("/v1/directions").await.json()["items"], json!([]), "refused directions are not stored");
}

#[tokio::test]
async fn a_stored_direction_serves_in_projections_and_search() {
    let app = TestApp::new().await;
    let (cats, _) = captured(&app).await;
    let values: Vec<Vec<f32>> =
        (0..3u8).map(|l| (0..D_MODEL).map(|i| ((i * 7 + l as usize * 5) % 11) as f32 - 5.0).collect()).collect();
    let vectors: Vec<Value> = values.iter().enumerate().map(|(l, v)| json!({"layer": l, "values": v})).collect();
    let direction = made(&app, json!({"method": "upload", "name": "mine", "vectors": vectors})).await;

    // Each layer has its own vector; the raw format has one layer per request.
    let body = |layers: Value, direction: Value| json!({"caches": cats, "layers": layers, "directions": [direction]});
    let stored = app.post("/v1/projections", &body(json!("all"), json!({"direction": "mine"}))).await.json();
    let by_id = json!({"name": "mine", "direction": direction["id"]});
    assert_eq!(stored, app.post("/v1/projections", &body(json!("all"), by_id)).await.json());
    let raw = json!({"name": "mine", "vector": values[1]});
    let one = json!({"direction": "mine", "layer": 1});
    let (raw, one) = (body(json!([1]), raw), body(json!([1]), one));
    assert_eq!(app.post("/v1/projections", &one).await.json(), app.post("/v1/projections", &raw).await.json());

    let near = |query: Value| json!({"query": query, "layer": 2, "metric": "dot", "over": "positions", "k": 4});
    let found = app.post("/v1/search", &near(json!({"direction": "mine"}))).await.json();
    let expected = app.post("/v1/search", &near(json!({"vector": values[2]}))).await.json();
    assert_eq!(found, expected);

    let unknown = json!({"direction": "yours"});
    let pointers = app.post("/v1/search", &near(unknown.clone())).await.problem(422, "unknown_direction");
    assert_eq!(pointers, ["/query/direction"]);
    let pointers = app.post("/v1/projections", &body(json!([0]), unknown)).await.problem(422, "unknown_direction");
    assert_eq!(pointers, ["/directions/0/direction"]);
    let lacking = json!({"direction": "mine", "component": 1});
    app.post("/v1/search", &near(lacking)).await.problem(422, "unknown_direction");
    app.post("/v1/search", &near(json!({"vector": values[2], "component": 0}))).await.problem(400, "invalid_body");
}

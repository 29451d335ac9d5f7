//! `POST /v1/search` against brute force in float64 over the fetched values.

use std::fs;

use serde_json::{Value, json};

use crate::support::{D_MODEL, TestApp, flat};

const TEXTS: [&str; 5] = ["the cat sat", "a dog", "in the end it was", "the cat", "of all the days"];
const METRICS: [&str; 3] = ["cosine", "dot", "euclidean"];

fn with(mut body: Value, more: &Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A row that a search may find: cache, position, values.
type Row = (String, u64, Vec<f64>);

/// Every stored row of a hook over the caches.
async fn rows(app: &TestApp, caches: &[String], hook: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for cache in caches {
        let tensor = app.get(&format!("/v1/caches/{cache}/tensors/{hook}")).await.json();
        let values: Vec<f64> = flat(&tensor["values"]).into_iter().map(f64::from).collect();
        let width = tensor["shape"].as_array().unwrap()[1..].iter().map(|n| n.as_u64().unwrap() as usize).product();
        rows.extend((0..).zip(values.chunks(width)).map(|(i, row)| (cache.clone(), i, row.to_vec())));
    }
    rows
}

fn score(metric: &str, a: &[f64], b: &[f64]) -> f64 {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    match metric {
        "dot" => dot(a, b),
        "euclidean" => a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt(),
        _ => dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(),
    }
}

/// Asserts that the hits are the best of `rows`, in order and with the right scores.
#[track_caller]
fn assert_best(result: &Value, metric: &str, query: &[f64], rows: &[Row], k: usize) {
    let hits = result["hits"].as_array().unwrap();
    assert_eq!(hits.len(), k.min(rows.len()));
    let mut best: Vec<f64> = rows.iter().map(|r| score(metric, &r.2, query)).collect();
    best.sort_by(f64::total_cmp);
    if metric != "euclidean" {
        best.reverse();
    }
    let scale = best.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (hit, best) in hits.iter().zip(best) {
        let at = |r: &&Row| hit["cache"] == r.0.as_str() && hit["position"] == r.1;
        let own = score(metric, &rows.iter().find(at).expect("a hit is a row").2, query);
        let found = hit["score"].as_f64().unwrap();
        // tolerance for float32 sums, and for the square root of one if rows coincide
        let close = |x: f64| {
            (found - x).abs() <= 2e-6 * scale || (metric == "euclidean" && x < 1e-3 * scale && found < 1e-3 * scale)
        };
        assert!(close(own) && close(best), "{metric}: {found} for {own}, the best is {best}");
    }
}

async fn all_positions(app: &TestApp, dtype: &str) -> Vec<String> {
    let run = app
        .run(json!({"input": TEXTS, "capture": {"positions": "all", "hooks": ["resid_post", "attn.hook_q"], "dtype": dtype}}))
        .await;
    run["caches"].as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn hits_equal_brute_force() {
    let app = TestApp::new().await;
    for dtype in ["float32", "float16", "bfloat16"] {
        let caches = all_positions(&app, dtype).await;
        let run = app.get(&format!("/v1/caches/{}", caches[0])).await.json()["run"].clone();
        for hook in ["blocks.1.hook_resid_post", "blocks.2.attn.hook_q"] {
            let rows = rows(&app, &caches, hook).await;
            let queries = [rows[2].2.clone(), rows[7].2.iter().map(|v| v * 0.5 + 0.01).collect()];
            for metric in METRICS {
                for k in [1, 6, 1000] {
                    let body = json!({
                        "query": {"vectors": queries}, "hook": hook, "metric": metric, "k": k, "over": "positions",
                        "filter": {"run": run}
                    });
                    let found = app.post("/v1/search", &body).await.json();
                    assert_eq!(found["scanned"]["rows"], rows.len(), "{found:#}");
                    assert_eq!(found["scanned"]["caches"], caches.len());
                    for (query, result) in queries.iter().zip(found["results"].as_array().unwrap()) {
                        assert_best(result, metric, query, &rows, k);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_cache_and_its_text_find_that_cache_first() {
    let app = TestApp::new().await;
    let caches = all_positions(&app, "float32").await;
    let near = |query: Value| json!({"query": query, "layer": -1, "k": 2});
    let own = app.post("/v1/search", &near(json!({"cache": caches[2]}))).await.json();
    assert_eq!(own["hook"], "blocks.2.hook_resid_post");
    let first = &own["results"][0]["hits"][0];
    assert_eq!((&first["cache"], first["score"].as_f64().unwrap() > 1.0 - 1e-6), (&json!(caches[2]), true), "{own:#}");
    assert_eq!(own["scanned"]["rows"], 5, "one row of each cache");

    let text = app.post("/v1/search", &near(json!({"text": TEXTS[2], "model": "tiny"}))).await.json();
    assert_eq!(text["results"], own["results"], "a text finds the same as its cache");
    assert_eq!(
        app.get("/v1/caches").await.json()["items"].as_array().unwrap().len(),
        5,
        "the capture of the text is deleted"
    );
    assert_eq!(app.get("/v1/runs").await.json()["items"].as_array().unwrap().len(), 1);

    let others = app.post("/v1/search", &with(near(json!({"cache": caches[2]})), &json!({"exclude_self": true}))).await;
    let hits = others.json()["results"][0]["hits"].clone();
    assert_eq!(hits.as_array().unwrap().len(), 2);
    assert!(hits.as_array().unwrap().iter().all(|h| h["cache"] != caches[2].as_str()));
}

#[tokio::test]
async fn a_hit_over_positions_shows_its_token() {
    let app = TestApp::new().await;
    let caches = all_positions(&app, "float32").await;
    let cache = app.get(&format!("/v1/caches/{}", caches[2])).await.json();
    let body = json!({
        "query": {"cache": caches[2], "position": 3}, "layer": 1, "k": 1, "over": "positions", "context": 2,
        "metric": "euclidean"
    });
    let found = app.post("/v1/search", &body).await.json();
    let hit = &found["results"][0]["hits"][0];
    assert_eq!((&hit["cache"], &hit["position"], &hit["score"]), (&json!(caches[2]), &json!(3), &json!(0.0)));
    assert_eq!(hit["token"], cache["tokens"][3]);
    let window = cache["tokens"].as_array().unwrap()[1..6].to_vec();
    assert_eq!(hit["context"], json!({"start": 1, "tokens": window, "hit": 2}));
    assert_eq!((&hit["model"], &hit["run"], &hit["tags"]), (&cache["model"], &cache["run"], &json!([])));
}

#[tokio::test]
async fn filters_ties_and_skipped_caches() {
    let app = TestApp::new().await;
    let items: Vec<Value> = (0..4)
        .map(|i| json!({"text": "the cat", "tags": [format!("t{}", i % 2)], "label": "twin", "metadata": {"i": i}}))
        .collect();
    let run = app.run(json!({"items": items})).await;
    let twins: Vec<&str> = run["caches"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    let mean = app.capture("the cat", json!({"positions": "mean"})).await;
    let found = async |more: Value| {
        let body = with(json!({"query": {"cache": twins[0]}, "layer": 0}), &more);
        let found = app.post("/v1/search", &body).await.json();
        let hits = found["results"][0]["hits"].as_array().unwrap_or_else(|| panic!("{found:#}"));
        let ids: Vec<String> = hits.iter().map(|h| h["cache"].as_str().unwrap().to_owned()).collect();
        (ids, found["scanned"].clone())
    };
    let mut sorted = twins.clone();
    sorted.sort_unstable();
    let (ids, scanned) = found(json!({"filter": {"label": "twin"}})).await;
    assert_eq!(ids, sorted, "equal scores go by id");
    assert_eq!((&scanned["caches"], &scanned["skipped"], &scanned["damaged"]), (&json!(4), &json!(0), &json!(0)));
    assert_eq!(found(json!({"filter": {"tags": ["t1"]}})).await.0.len(), 2);
    assert_eq!(found(json!({"filter": {"metadata": {"i": 2}}})).await.0, [twins[2]]);
    assert_eq!(found(json!({"filter": {"model": "another"}})).await.0.len(), 0);
    assert_eq!(found(json!({})).await.0.len(), 5);
    // a mean is not a position, and the other caches have no mean
    let (ids, scanned) = found(json!({"over": "positions"})).await;
    assert_eq!((ids.len(), &scanned["skipped"]), (4, &json!(1)));
    let (ids, scanned) = found(json!({"position": "mean"})).await;
    assert_eq!((ids, &scanned["skipped"]), (vec![mean], &json!(4)));
    // hits change with the stored caches
    app.patch(&format!("/v1/caches/{}", twins[3]), &json!({"label": "odd"})).await;
    assert_eq!(found(json!({"filter": {"label": "twin"}})).await.0.len(), 3);
    app.delete(&format!("/v1/caches/{}", twins[1])).await;
    assert_eq!(found(json!({"filter": {"label": "twin"}})).await.0.len(), 2);
}

#[tokio::test]
async fn a_short_blob_only_affects_its_own_caches() {
    let app = TestApp::new().await;
    let whole = app.capture("the cat", json!({"positions": "all"})).await;
    let blobs = |app: &TestApp| -> Vec<std::path::PathBuf> {
        let folders = fs::read_dir(app.data_dir().join("blobs")).unwrap();
        folders.flat_map(|f| fs::read_dir(f.unwrap().path()).unwrap()).map(|f| f.unwrap().path()).collect()
    };
    let before = blobs(&app);
    let short = app.capture("a dog in the end", json!({"positions": "all"})).await;
    let blob = blobs(&app).into_iter().find(|b| !before.contains(b)).unwrap();
    let found = async || {
        let body = json!({"query": {"cache": whole}, "layer": 2, "over": "positions", "k": 100});
        app.post("/v1/search", &body).await.json()
    };
    let sound = found().await;
    assert_eq!(sound["scanned"]["damaged"], 0);
    let file = fs::File::options().write(true).open(&blob).unwrap();
    file.set_len(file.metadata().unwrap().len() - D_MODEL as u64 * 4).unwrap();
    for cut in [true, false] {
        if !cut {
            fs::remove_file(&blob).unwrap();
        }
        let hurt = found().await;
        assert_eq!(hurt["scanned"]["damaged"], 1);
        let hits = hurt["results"][0]["hits"].as_array().unwrap();
        assert!(!hits.is_empty() && hits.iter().all(|h| h["cache"] == whole.as_str()), "{hurt:#}");
        let lost = sound["results"][0]["hits"].as_array().unwrap().iter().filter(|h| h["cache"] == short.as_str());
        assert_eq!(hits.len() + lost.count(), sound["results"][0]["hits"].as_array().unwrap().len());
    }
}

#[tokio::test]
async fn impossible_searches_are_refused() {
    let app = TestApp::new().await;
    let cache = app.capture("the cat", json!({"hooks": ["resid_post", "attn.pattern"]})).await;
    let vector = json!({"vector": vec![1.0; D_MODEL]});
    let zero = json!({"vector": vec![0.0; D_MODEL]});
    for (query, more, status, code, pointer) in [
        (json!({}), json!({}), 400, "invalid_body", "/query"),
        (json!({"cache": cache, "vector": [1]}), json!({}), 400, "invalid_body", "/query"),
        (json!({"direction": "mine"}), json!({}), 422, "unknown_direction", "/query/direction"),
        (json!({"text": "a"}), json!({}), 400, "invalid_body", "/query/model"),
        (json!({"text": "a", "model": "other"}), json!({}), 422, "unknown_model", "/query/model"),
        (
            json!({"text": "a", "model": "tiny", "position": 70}),
            json!({}),
            422,
            "position_out_of_range",
            "/query/position",
        ),
        (json!({"cache": "nonsense"}), json!({}), 422, "unknown_cache", "/query/cache"),
        (json!({"cache": cache, "position": 0}), json!({}), 422, "position_out_of_range", "/query/cache"),
        (json!({"cache": cache, "position": "all"}), json!({}), 422, "invalid_value", "/query/position"),
        (json!({"cache": cache}), json!({"hook": "mlp_out"}), 422, "hook_not_stored", "/query/cache"),
        (json!({"cache": cache}), json!({"hook": "attn.pattern"}), 422, "invalid_value", "/hook"),
        (json!({"cache": cache}), json!({"hook": "nonsense"}), 422, "unknown_hook", "/hook"),
        (json!({"cache": cache}), json!({"layer": 3}), 422, "layer_out_of_range", "/layer"),
        (json!({"cache": cache}), json!({"layer": null}), 400, "invalid_body", "/layer"),
        (json!({"cache": cache}), json!({"hook": "logits", "layer": 1}), 400, "invalid_body", "/layer"),
        (json!({"cache": cache}), json!({"k": 0}), 422, "invalid_value", "/k"),
        (json!({"cache": cache}), json!({"k": 1001}), 422, "invalid_value", "/k"),
        (json!({"cache": cache}), json!({"context": 65}), 422, "invalid_value", "/context"),
        (json!({"cache": cache}), json!({"position": "all"}), 422, "invalid_value", "/position"),
        (json!({"cache": cache}), json!({"over": "positions", "position": 1}), 400, "invalid_body", "/position"),
        (json!({"cache": cache}), json!({"filter": {"run": "x"}}), 422, "invalid_value", "/filter/run"),
        (json!({"cache": cache}), json!({"metric": "mae"}), 400, "invalid_field", "/metric"),
        (vector.clone(), json!({"layer": -1}), 422, "invalid_value", "/layer"),
        (vector.clone(), json!({"layer": 1_000_000_000_000_u64}), 422, "layer_out_of_range", "/layer"),
        (vector.clone(), json!({"exclude_self": true}), 400, "invalid_body", "/exclude_self"),
        (json!({"vector": [1.0, 2.0]}), json!({}), 422, "shape_mismatch", "/query/vector"),
        (json!({"vector": []}), json!({}), 422, "invalid_value", "/query/vector"),
        (json!({"vectors": [[1.0], [1.0, 2.0]]}), json!({}), 422, "shape_mismatch", "/query/vectors/1"),
        (json!({"vectors": vec![[1.0]; 65]}), json!({}), 422, "invalid_value", "/query/vectors"),
        (json!({"vectors": vec![[1.0]; 64]}), json!({"k": 1000}), 413, "result_too_large", "/k"),
        (zero.clone(), json!({}), 422, "invalid_value", "/query/vector"),
    ] {
        let body = with(json!({"query": query, "layer": 0}), &more);
        assert_eq!(app.post("/v1/search", &body).await.problem(status, code), [pointer], "{body}");
    }
    let beyond = json!({"query": {"vector": [1e39]}, "layer": 0});
    assert_eq!(app.post("/v1/search", &beyond).await.problem(422, "invalid_value"), ["/query/vector"]);
    let body = json!({"query": zero, "layer": 0, "metric": "dot"});
    assert_eq!(app.post("/v1/search", &body).await.json()["results"][0]["hits"][0]["score"], 0.0);
    let last = json!({"query": vector, "layer": -1, "filter": {"model": "tiny"}});
    assert_eq!(app.post("/v1/search", &last).await.json()["hook"], "blocks.2.hook_resid_post");
    app.post("/v1/search?wait=601", &body).await.problem(400, "invalid_query");
    let late = json!({"query": {"text": "not seen before", "model": "tiny"}, "layer": 0});
    let answer = app.post("/v1/search?wait=0", &late).await;
    if answer.status != 200 {
        answer.problem(503, "unavailable");
    }
    assert_eq!(app.get("/v1/runs").await.json()["items"].as_array().unwrap().len(), 1, "no capture of a text is left");
}

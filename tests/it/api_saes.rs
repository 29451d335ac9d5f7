//! `/v1/saes` and `/v1/caches/{id}/features`, against sums in float64 over the fetched rows.

use residuum::{api::ApiConfig, app::App, engine::Limits};
use serde_json::{Value, json};

use crate::{
    sae_goldens::tensor,
    support::{D_MODEL, TestApp, config, flat, floats, sae, sae_golden},
};

const HOOK: &str = "blocks.1.hook_resid_post";
const D_SAE: usize = 40;
const LLAMA: &str = "llama/gqa_tied";

/// Rows of the hook, `[pos][d_model]`.
async fn rows(app: &TestApp, cache: &str) -> Vec<Vec<f64>> {
    let tensor = app.get(&format!("/v1/caches/{cache}/tensors/{HOOK}")).await.json();
    flat(&tensor["values"]).chunks(D_MODEL).map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect()
}

/// The golden autoencoder `standard`, in float64.
struct Standard {
    w_enc: Vec<f64>,
    b_enc: Vec<f64>,
    w_dec: Vec<f64>,
    b_dec: Vec<f64>,
}

impl Standard {
    fn read() -> Self {
        let of = |name: &str| tensor(&sae_golden("standard").join("sae_weights.safetensors"), name);
        Self { w_enc: of("W_enc"), b_enc: of("b_enc"), w_dec: of("W_dec"), b_dec: of("b_dec") }
    }

    fn encode(&self, row: &[f64]) -> Vec<f64> {
        let feature = |f: usize| {
            let terms = row.iter().zip(&self.b_dec).enumerate().map(|(i, (x, b))| (x - b) * self.w_enc[i * D_SAE + f]);
            (terms.sum::<f64>() + self.b_enc[f]).max(0.0)
        };
        (0..D_SAE).map(feature).collect()
    }

    fn decode(&self, activations: &[f64]) -> Vec<f64> {
        let at = |i: usize| {
            let terms = activations.iter().enumerate().map(|(f, a)| a * self.w_dec[f * D_MODEL + i]);
            terms.sum::<f64>() + self.b_dec[i]
        };
        (0..D_MODEL).map(at).collect()
    }
}

fn close(found: &Value, expected: f64) -> bool {
    found.as_f64().is_some_and(|found| (found - expected).abs() <= 1e-5 * expected.abs().max(1.0))
}

fn all() -> Value {
    json!({"hooks": ["resid_post"], "positions": "all"})
}

#[tokio::test]
async fn autoencoders_are_listed_and_described() {
    let app = TestApp::with_saes(LLAMA, &["topk", "scaled", "standard"]).await;
    let list = app.get("/v1/saes").await.json();
    let names: Vec<&str> = list["items"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    assert_eq!((names, &list["next_cursor"]), (vec!["scaled", "standard", "topk"], &Value::Null));
    let one = app.get("/v1/saes/topk").await.json();
    assert_eq!(one, list["items"][2]);
    assert_eq!((&one["model"], &one["hook"], &one["layer"]), (&json!("tiny"), &json!(HOOK), &json!(1)));
    assert_eq!((&one["d_in"], &one["d_sae"], &one["status"]), (&json!(D_MODEL), &json!(D_SAE), &json!("ready")));
    assert_eq!((&one["settings"]["k"], &one["settings"]["rescale_acts_by_decoder_norm"]), (&json!(5), &json!(true)));
    assert_eq!(one["fingerprint"].as_str().unwrap().len(), 64);
    assert_eq!(list["items"][0]["settings"]["scaling_factor"], 0.375);
    app.get("/v1/saes/other").await.problem(404, "sae_not_found");
    assert!(app.get("/v1/saes?limit=1").await.problem(400, "invalid_query").contains(&"limit".to_owned()));
    assert_eq!(TestApp::new().await.get("/v1/saes").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_server_is_ready_when_its_autoencoders_are() {
    let mut app = TestApp::started_with(LLAMA, Limits::default(), ApiConfig::default(), vec![sae("standard")]).await;
    let one = app.get("/v1/saes/standard").await.json();
    assert_eq!((&one["status"], one.get("d_sae")), (&json!("loading"), None));
    app.get("/readyz").await.problem(503, "unavailable");
    app.post("/v1/saes/standard/tokens", &json!({"features": [1]})).await.problem(503, "unavailable");
    app.load().await;
    assert_eq!(app.get("/readyz").await.status, 200);
    let one = app.get("/v1/saes/standard").await.json();
    assert_eq!((&one["status"], &one["d_sae"]), (&json!("ready"), &json!(D_SAE)));
}

#[tokio::test]
async fn settings_that_are_not_understood_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sae");
    std::fs::create_dir(&path).unwrap();
    let text = std::fs::read_to_string(sae_golden("standard").join("cfg.json")).unwrap();
    std::fs::write(path.join("cfg.json"), text.replacen("\"standard\"", "\"temporal\"", 1)).unwrap();
    let source = residuum::engine::SaeSource { id: "new".to_owned(), model: "tiny".to_owned(), path };
    let config = config(LLAMA, &folder, &Limits::default(), &ApiConfig::default(), &[source]);
    let error = App::start(&config).await.err().expect("an unknown setting is refused").to_string();
    let expected = "cfg.json: `architecture` is \"temporal\"; standard, jumprelu, topk and gated are understood";
    assert!(error.ends_with(expected), "{error}");
    assert!(!error.contains('\n'));
}

#[tokio::test]
async fn features_equal_brute_force() {
    let app = TestApp::with_saes(LLAMA, &["standard"]).await;
    let reference = Standard::read();
    for dtype in ["float32", "bfloat16"] {
        let mut capture = all();
        capture["dtype"] = json!(dtype);
        let cache = app.capture("in the end it was a small dog", capture).await;
        let rows = rows(&app, &cache).await;
        let body = json!({"sae": "standard", "top_k": 3, "features": [7, 0]});
        let found = app.post(&format!("/v1/caches/{cache}/features"), &body).await.json();
        assert_eq!((&found["hook"], &found["d_sae"]), (&json!(HOOK), &json!(D_SAE)), "{found:#}");
        assert_eq!((&found["warnings"], &found["features"]), (&json!([]), &json!([7, 0])));
        let described = app.get(&format!("/v1/caches/{cache}")).await.json();
        assert_eq!(found["positions"].as_array().unwrap().len(), rows.len());
        let (mut errors, mut actives, mut cosines) = (Vec::new(), Vec::new(), Vec::new());
        for (p, row) in rows.iter().enumerate() {
            let one = &found["positions"][p];
            assert_eq!((&one["position"], &one["token"]), (&json!(p), &described["tokens"][p]));
            assert_eq!(one["special"], json!(p == 0), "the BOS token");
            let activations = reference.encode(row);
            let active = activations.iter().filter(|a| **a > 0.0).count();
            assert_eq!(one["n_active"], active);
            let mut order: Vec<usize> = (0..D_SAE).collect();
            order.sort_by(|a, b| activations[*b].total_cmp(&activations[*a]));
            for (rank, top) in one["top"].as_array().unwrap().iter().enumerate() {
                assert!(top["feature"] == order[rank] && close(&top["activation"], activations[order[rank]]), "{top}");
            }
            assert_eq!(one["top"].as_array().unwrap().len(), 3.min(active));
            assert!(close(&one["chosen"][0], activations[7]) && close(&one["chosen"][1], activations[0]));
            let out = reference.decode(&activations);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let error: f64 = row.iter().zip(&out).map(|(a, b)| (a - b).powi(2)).sum();
            let cosine = dot(row, &out) / (dot(row, row) * dot(&out, &out)).sqrt();
            assert!(close(&one["norm"], dot(row, row).sqrt()) && close(&one["norm_out"], dot(&out, &out).sqrt()));
            assert!(close(&one["mse"], error / D_MODEL as f64) && close(&one["relative_error"], error / dot(row, row)));
            assert!(close(&one["cosine"], cosine));
            errors.push(error);
            actives.push(active as f64);
            cosines.push(cosine);
        }
        for (name, first) in [("all", 0), ("ordinary", 1)] {
            let (rows, n) = (&rows[first..], (rows.len() - first) as f64);
            let mean = |d: usize| rows.iter().map(|r| r[d]).sum::<f64>() / n;
            let variance: f64 = rows.iter().map(|r| (0..D_MODEL).map(|d| (r[d] - mean(d)).powi(2)).sum::<f64>()).sum();
            let error: f64 = errors[first..].iter().sum();
            let summary = &found["summary"][name];
            assert_eq!((&summary["n"], &summary["n_undefined"]), (&json!(rows.len()), &json!(0)));
            assert!(close(&summary["fvu"], error / variance), "{summary}");
            assert!(close(&summary["explained_variance"], 1.0 - error / variance));
            assert!(close(&summary["mse"], error / n / D_MODEL as f64));
            assert!(close(&summary["n_active"], actives[first..].iter().sum::<f64>() / n));
            assert!(close(&summary["cosine"], cosines[first..].iter().sum::<f64>() / n));
        }
    }
}

#[tokio::test]
async fn features_come_as_tensors_too() {
    let app = TestApp::with_saes(LLAMA, &["standard", "topk"]).await;
    let cache = app.capture("the cat sat", all()).await;
    let (reference, rows) = (Standard::read(), rows(&app, &cache).await);
    let uri = format!("/v1/caches/{cache}/features");
    let whole = app.post(&format!("{uri}?format=raw"), &json!({"sae": "standard"})).await;
    assert_eq!(whole.header("residuum-shape"), format!("{},{D_SAE}", rows.len()));
    assert_eq!((whole.header("residuum-axes"), whole.header("residuum-dtype")), ("pos,feature", "float32"));
    let expected: Vec<f64> = rows.iter().flat_map(|row| reference.encode(row)).collect();
    let found = floats(&whole.body);
    assert!(
        found.iter().zip(&expected).all(|(f, e)| (f64::from(*f) - e).abs() < 1e-5) && found.len() == expected.len()
    );

    let body = json!({"sae": "standard", "features": [9, 4], "positions": [2, 0]});
    let some = app.post_with(&uri, &[("accept", "application/octet-stream")], &body).await;
    assert_eq!(floats(&some.body), [found[2 * D_SAE + 9], found[2 * D_SAE + 4], found[9], found[4]]);
    let npy = app.post(&format!("{uri}?format=npy"), &body).await;
    assert!(npy.body.starts_with(b"\x93NUMPY") && npy.body.ends_with(&some.body));
    let file = app.post(&format!("{uri}?format=safetensors"), &body).await;
    let file = safetensors::SafeTensors::deserialize(&file.body).unwrap();
    assert_eq!(file.tensor("standard.features").unwrap().data(), &some.body[..]);

    // The k largest features, with and without computing all others for them.
    let of = async |more: Value| {
        let mut body = json!({"sae": "topk"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        floats(&app.post(&format!("{uri}?format=raw"), &body).await.body)
    };
    let (whole, some) = (of(json!({})).await, of(json!({"features": [3, 30]})).await);
    assert!(whole.chunks(D_SAE).all(|row| row.iter().filter(|a| **a > 0.0).count() <= 5));
    let expected: Vec<f32> = whole.chunks(D_SAE).flat_map(|row| [row[3], row[30]]).collect();
    assert_eq!(some, expected);
}

#[tokio::test]
async fn a_bos_mismatch_is_refused_or_warned_of() {
    let app = TestApp::with_saes(LLAMA, &["standard", "no_b_dec"]).await;
    let run = app.run(json!({"input": "the cat", "prepend_bos": false, "capture": all()})).await;
    let (without, with) = (run["caches"][0].as_str().unwrap().to_owned(), app.capture("the cat", all()).await);
    for (cache, trained_with, trained_without) in [(&with, 200, 422), (&without, 422, 200)] {
        for (sae, status) in [("standard", trained_with), ("no_b_dec", trained_without)] {
            let uri = format!("/v1/caches/{cache}/features");
            let answer = app.post(&uri, &json!({"sae": sae})).await;
            assert_eq!(answer.status, status, "{sae}");
            if status == 422 {
                assert_eq!(answer.problem(422, "bos_mismatch"), ["/allow_bos_mismatch"]);
                let allowed = app.post(&uri, &json!({"sae": sae, "allow_bos_mismatch": true})).await.json();
                assert_eq!(allowed["warnings"][0]["code"], "sae_bos_mismatch", "{allowed}");
            }
        }
    }
    let scanned = async |sae: &str, allow: bool| {
        let body = json!({"features": [1], "allow_bos_mismatch": allow});
        app.post(&format!("/v1/saes/{sae}/tokens"), &body).await.json()["scanned"].clone()
    };
    let n_rows = async |cache: &str| rows(&app, cache).await.len();
    let (n_without, n_with) = (n_rows(&without).await, n_rows(&with).await);
    assert_eq!(n_with, n_without + 1);
    let (found, allowed) = (scanned("no_b_dec", false).await, scanned("no_b_dec", true).await);
    let counts = |s: &Value| (s["caches"].clone(), s["bos_mismatch"].clone(), s["rows"].clone());
    assert_eq!(counts(&found), (json!(1), json!(1), json!(n_without)), "{found}");
    assert_eq!(counts(&allowed), (json!(2), json!(1), json!(n_with + n_without)), "taken in, and said");
}

#[tokio::test]
async fn tokens_of_features_equal_brute_force() {
    let app = TestApp::with_saes(LLAMA, &["standard", "topk"]).await;
    let texts = ["the cat sat", "a dog", "in the end it was", "of all the days", "a cat"];
    let run = app.run(json!({"input": texts, "capture": all(), "tags": ["corpus"]})).await;
    app.capture("not among them", all()).await;
    app.capture("a mean of them", json!({"positions": "mean"})).await;
    app.capture("another hook", json!({"hooks": ["mlp_out"], "positions": "all"})).await;
    let reference = Standard::read();
    let mut positions: Vec<(String, usize, Vec<f64>)> = Vec::new();
    for cache in run["caches"].as_array().unwrap() {
        let cache = cache.as_str().unwrap();
        let rows = rows(&app, cache).await;
        positions.extend(rows.iter().enumerate().map(|(p, row)| (cache.to_owned(), p, reference.encode(row))));
    }
    for (skip_first, k) in [(0, 4), (1, 100)] {
        let body = json!({"features": [11, 2], "k": k, "filter": {"tags": ["corpus"]}, "context": 1, "skip_first": skip_first});
        let found = app.post("/v1/saes/standard/tokens", &body).await.json();
        let taken: Vec<_> = positions.iter().filter(|(_, p, _)| *p >= skip_first).collect();
        assert_eq!(found["scanned"]["rows"], taken.len(), "{found:#}");
        assert_eq!((&found["scanned"]["caches"], &found["scanned"]["damaged"]), (&json!(5), &json!(0)));
        for (i, feature) in [11, 2].into_iter().enumerate() {
            let mut active: Vec<_> = taken.iter().filter(|(_, _, a)| a[feature] > 0.0).collect();
            active.sort_by(|a, b| b.2[feature].total_cmp(&a.2[feature]));
            let of = &found["features"][i];
            assert_eq!((&of["feature"], &of["n_active"]), (&json!(feature), &json!(active.len())));
            assert!(close(&of["density"], active.len() as f64 / taken.len() as f64));
            let mean = active.iter().map(|(_, _, a)| a[feature]).sum::<f64>() / active.len() as f64;
            assert!(close(&of["mean"], mean), "{of}");
            let hits = of["hits"].as_array().unwrap();
            assert_eq!(hits.len(), active.len().min(k));
            for (hit, (cache, position, activations)) in hits.iter().zip(active) {
                assert!(close(&hit["score"], activations[feature]), "{hit} for {}", activations[feature]);
                let own =
                    positions.iter().find(|(c, p, _)| hit["cache"] == c.as_str() && hit["position"] == *p).unwrap();
                assert!((own.2[feature] - activations[feature]).abs() < 1e-5, "{cache} {position}");
                let tokens = app.get(&format!("/v1/caches/{}", own.0)).await.json()["tokens"].clone();
                assert_eq!(hit["token"], tokens[own.1]);
                assert_eq!(hit["context"]["tokens"][hit["context"]["hit"].as_u64().unwrap() as usize], tokens[own.1]);
            }
        }
    }
    let everything = app.post("/v1/saes/topk/tokens", &json!({"features": [0]})).await.json();
    assert_eq!((&everything["scanned"]["caches"], &everything["scanned"]["without_positions"]), (&json!(6), &json!(1)));
    // A filter's own hooks count beside that of the autoencoder.
    app.capture("two hooks", json!({"hooks": ["resid_post", "mlp_out"], "positions": "all"})).await;
    let both = json!({"features": [0], "filter": {"hooks": ["blocks.0.hook_mlp_out"]}});
    let both = app.post("/v1/saes/topk/tokens", &both).await.json();
    assert_eq!((&both["scanned"]["caches"], &both["scanned"]["without_positions"]), (&json!(1), &json!(0)), "{both}");
    // The features at the found tokens agree with those that each cache reports.
    let mut strongest = 0.0f32;
    for cache in run["caches"].as_array().unwrap() {
        let uri = format!("/v1/caches/{}/features?format=raw", cache.as_str().unwrap());
        let activations = floats(&app.post(&uri, &json!({"sae": "topk", "features": [0]})).await.body);
        strongest = activations.into_iter().fold(strongest, f32::max);
    }
    let body = json!({"features": [0], "k": 1, "filter": {"tags": ["corpus"]}});
    let found = app.post("/v1/saes/topk/tokens", &body).await.json();
    let best = found["features"][0]["hits"][0]["score"].as_f64().map(|v| v as f32);
    assert_eq!(best.unwrap_or(0.0), strongest, "the same bits");
}

#[tokio::test]
async fn activations_of_other_weights_are_never_encoded() {
    let mut app = TestApp::with_saes(LLAMA, &["standard"]).await;
    let old = app.capture("the cat", all()).await;
    app.stop().await;
    // Other weights of the same shapes under the same name: hooks of layer 1 with 32 numbers.
    app.start_again_with("mistral/window").await;
    let new = app.capture("the cat", all()).await;
    let body = json!({"sae": "standard"});
    app.post(&format!("/v1/caches/{old}/features"), &body).await.problem(409, "conflict");
    assert_eq!(app.post(&format!("/v1/caches/{new}/features"), &body).await.status, 200);
    let found = app.post("/v1/saes/standard/tokens", &json!({"features": [1]})).await.json();
    assert_eq!((&found["scanned"]["caches"], &found["scanned"]["other_weights"]), (&json!(1), &json!(1)), "{found}");
}

#[tokio::test]
async fn a_feature_can_be_used_as_a_direction() {
    let app = TestApp::with_saes(LLAMA, &["standard", "one_head"]).await;
    let cache = app.capture("in the end it was", json!({"hooks": ["resid_post", "attn.z"], "positions": "all"})).await;
    let reference = Standard::read();
    let row: Vec<f32> = reference.w_dec[5 * D_MODEL..6 * D_MODEL].iter().map(|v| *v as f32).collect();
    let column: Vec<f32> = (0..D_MODEL).map(|i| reference.w_enc[i * D_SAE + 5] as f32).collect();
    let directions = json!([
        {"sae": "standard", "feature": 5}, {"vector": row}, {"sae": "standard", "feature": 5, "side": "encoder"}, {"vector": column}
    ]);
    let body = json!({"caches": [cache], "directions": directions, "positions": "all"});
    let found = app.post("/v1/projections", &body).await.json();
    assert_eq!((&found["directions"][0]["name"], &found["directions"][1]["name"]), (&json!("standard/5"), &json!("1")));
    for layer in found["values"][0]["dot"].as_array().unwrap() {
        assert!(layer.as_array().unwrap().iter().all(|p| p[0] == p[1] && p[2] == p[3] && p[0] != p[2]), "{layer}");
    }
    let search = async |query: Value| {
        let body = json!({"query": query, "layer": 1, "metric": "dot", "over": "positions"});
        app.post("/v1/search", &body).await.json()["results"].clone()
    };
    assert_eq!(search(json!({"sae": "standard", "feature": 5})).await, search(json!({"vector": row})).await);
    let by_encoder = search(json!({"sae": "standard", "feature": 5, "side": "encoder"})).await;
    assert_eq!(by_encoder, search(json!({"vector": column})).await);

    // An autoencoder of one head: only the numbers of that head count.
    let body = json!({"caches": [cache], "hook": "attn.z", "layers": 1, "measures": ["dot"], "directions": [{"sae": "one_head", "feature": 0}]});
    let z = flat(
        &app.get(&format!("/v1/caches/{cache}/tensors/blocks.1.attn.hook_z?position=last")).await.json()["values"],
    );
    let decoder = tensor(&sae_golden("one_head").join("sae_weights.safetensors"), "W_dec");
    let expected: f64 = (0..8).map(|i| f64::from(z[16 + i]) * decoder[i]).sum();
    assert!(close(&app.post("/v1/projections", &body).await.json()["values"][0]["dot"][0][0], expected));

    for (direction, code, pointer) in [
        (json!({"sae": "other", "feature": 0}), "unknown_sae", "/directions/0/sae"),
        (json!({"sae": "standard", "feature": 40}), "unknown_sae", "/directions/0/feature"),
    ] {
        let body = json!({"caches": [cache], "directions": [direction]});
        assert_eq!(app.post("/v1/projections", &body).await.problem(422, code), [pointer]);
    }
    let wrong = |query: Value| json!({"query": query, "layer": 1});
    for (query, status, code, pointer) in [
        (json!({"sae": "other", "feature": 0}), 422, "unknown_sae", "/query/sae"),
        (json!({"sae": "standard"}), 400, "invalid_body", "/query/feature"),
        (json!({"vector": row, "side": "encoder"}), 400, "invalid_body", "/query/side"),
        (json!({"sae": "standard", "feature": 1, "vector": row}), 400, "invalid_body", "/query"),
    ] {
        assert_eq!(app.post("/v1/search", &wrong(query)).await.problem(status, code), [pointer]);
    }
}

#[tokio::test]
async fn impossible_encodings_are_refused() {
    let app = TestApp::with_saes(LLAMA, &["standard"]).await;
    let cache = app.capture("the cat", all()).await;
    let last = app.capture("the cat", json!({"positions": "last"})).await;
    let mean = app.capture("the cat", json!({"positions": "mean"})).await;
    let other = app.capture("the cat", json!({"hooks": ["mlp_out"], "positions": "all"})).await;
    for (cache, more, status, code, pointer) in [
        (&cache, json!({"sae": "other"}), 422, "unknown_sae", "/sae"),
        (&cache, json!({"features": [D_SAE]}), 422, "unknown_sae", "/features/0"),
        (&cache, json!({"features": []}), 422, "invalid_value", "/features"),
        (&cache, json!({"top_k": 1001}), 422, "invalid_value", "/top_k"),
        (&cache, json!({"positions": 9}), 422, "position_out_of_range", "/positions"),
        (&cache, json!({"positions": "mean"}), 422, "invalid_value", "/positions"),
        (&last, json!({"positions": 0}), 422, "position_out_of_range", "/positions"),
        (&mean, json!({}), 422, "invalid_value", "/positions"),
        (&other, json!({}), 422, "hook_not_stored", "/sae"),
        (&cache, json!({"layer": 1}), 400, "invalid_body", "/layer"),
    ] {
        let mut body = json!({"sae": "standard"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = app.post(&format!("/v1/caches/{cache}/features"), &body).await;
        assert_eq!(answer.problem(status, code), [pointer], "{body}");
    }
    assert_eq!(app.post(&format!("/v1/caches/{last}/features"), &json!({"sae": "standard"})).await.status, 200);
    let npy =
        app.post(&format!("/v1/caches/{cache}/features?format=npy"), &json!({"sae": "standard", "top_k": 3})).await;
    assert_eq!(npy.problem(400, "invalid_body"), ["/top_k"]);
    let html = [("accept", "text/html")];
    app.post_with(&format!("/v1/caches/{cache}/features"), &html, &json!({"sae": "standard"}))
        .await
        .problem(406, "not_acceptable");
    let gone = "0198c5a0-5b3f-7d51-8a3e-0242ac120002";
    app.post(&format!("/v1/caches/{gone}/features"), &json!({"sae": "standard"})).await.problem(404, "cache_not_found");

    for (body, status, code, pointer) in [
        (json!({"features": []}), 422, "invalid_value", "/features"),
        (json!({"features": vec![0; 65]}), 422, "invalid_value", "/features"),
        (json!({"features": [0, D_SAE]}), 422, "unknown_sae", "/features/1"),
        (json!({"features": [0], "k": 0}), 422, "invalid_value", "/k"),
        (json!({"features": vec![0; 11], "k": 1000}), 413, "result_too_large", "/k"),
        (json!({"features": [0], "context": 65}), 422, "invalid_value", "/context"),
        (json!({"features": [0], "filter": {"run": "x"}}), 422, "invalid_value", "/filter/run"),
        (json!({"features": [0], "filter": {"hook": "x"}}), 400, "invalid_body", "/filter/hook"),
    ] {
        assert_eq!(app.post("/v1/saes/standard/tokens", &body).await.problem(status, code), [pointer], "{body}");
    }
    app.post("/v1/saes/other/tokens", &json!({"features": [0]})).await.problem(404, "sae_not_found");
    let none =
        app.post("/v1/saes/standard/tokens", &json!({"features": [0], "filter": {"tags": ["none"]}})).await.json();
    assert_eq!((&none["features"][0]["hits"], &none["features"][0]["density"]), (&json!([]), &Value::Null));
}

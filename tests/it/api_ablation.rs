//! Ablation sweeps: the same numbers as one run with one intervention per cell, although a sweep computes less.

use serde_json::{Value, json};

use crate::support::{TestApp, flat, floats};

const IDS: [u32; 7] = [1, 17, 203, 99, 5, 64, 250];

async fn sweep(app: &TestApp, sweep: Value) -> Value {
    let body = json!({"model": "tiny", "clean": IDS, "answer": 42, "against": 7, "sweep": sweep});
    let answer = app.post("/v1/experiments/patching", &body).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json()
}

/// The difference of two logits at the last position of a run.
async fn difference(app: &TestApp, interventions: Value) -> f64 {
    let body =
        json!({"input": IDS, "interventions": interventions, "capture": {"hooks": ["logits"], "positions": "last"}});
    let run = app.run(body).await;
    let cache = run["caches"][0].as_str().unwrap();
    let logits = flat(&app.get(&format!("/v1/caches/{cache}/tensors/logits")).await.json()["values"]);
    f64::from(logits[42]) - f64::from(logits[7])
}

const CHECKPOINTS: [&str; 5] =
    ["llama/gqa_tied", "gemma2/softcaps", "phi/parallel", "bloom/six_heads", "llama/rope_dynamic"];

#[tokio::test]
async fn every_zeroed_cell_is_a_run_with_that_intervention_bit_for_bit() {
    for checkpoint in CHECKPOINTS {
        let app = TestApp::serving(checkpoint).await;
        let clean = difference(&app, json!([])).await;
        for hook in ["resid_pre", "hook_mlp_out", "attn.v"] {
            let found = sweep(&app, json!({"op": "zero", "hook": hook, "positions": "each"})).await;
            assert_eq!((found["clean"].as_f64(), &found["corrupt"]), (Some(clean), &Value::Null));
            for layer in 0..found["layers"].as_array().unwrap().len() {
                for position in [0, 3, 6] {
                    let zero = json!([{"op": "zero", "hook": hook, "layers": layer, "positions": position}]);
                    let expected = difference(&app, zero).await;
                    let cell = |field: &str| found[field][layer][position].as_f64();
                    assert_eq!(cell("values"), Some(expected), "{checkpoint} {hook} {layer} {position}");
                    assert_eq!(cell("effect"), Some(expected - clean));
                }
            }
        }
    }
}

#[tokio::test]
async fn every_cell_of_a_mean_is_a_run_with_that_intervention_bit_for_bit() {
    let app = TestApp::new().await;
    let capture = json!({"hooks": ["attn.z"], "positions": "all"});
    let run = app.run(json!({"input": [[3, 5, 8], [9, 1]], "capture": capture, "tags": ["mean"]})).await;
    for caches in [json!({"tags": ["mean"]}), run["caches"].clone()] {
        let fields = json!({"op": "mean", "hook": "attn.z", "heads": "each", "positions": [-2, -1], "caches": caches});
        let found = sweep(&app, fields).await;
        assert_eq!((&found["op"], &found["axes"]), (&json!("mean_ablate"), &json!(["layer", "head"])));
        for layer in 0..3 {
            for head in 0..4 {
                let mean = json!([{"op": "mean_ablate", "hook": "attn.z", "layers": layer, "heads": [head], "positions": [-2, -1], "caches": caches}]);
                assert_eq!(found["values"][layer][head].as_f64(), Some(difference(&app, mean).await), "{layer} {head}");
            }
        }
    }
}

#[tokio::test]
async fn every_knockout_is_a_run_with_that_intervention_bit_for_bit() {
    for checkpoint in CHECKPOINTS {
        let app = TestApp::serving(checkpoint).await;
        let found = sweep(&app, json!({"op": "knockout", "from": "each", "to": "last"})).await;
        assert_eq!((&found["hook"], &found["axes"]), (&json!("attn.hook_attn_scores"), &json!(["layer", "k_pos"])));
        assert_eq!((&found["from"], &found["to"]), (&json!([0, 1, 2, 3, 4, 5, 6]), &Value::Null));
        for layer in 0..found["layers"].as_array().unwrap().len() {
            for key in [0, 2, 6] {
                let knockout = json!([{"op": "knockout", "layers": layer, "from": key, "to": "last"}]);
                let expected = difference(&app, knockout).await;
                assert_eq!(found["values"][layer][key].as_f64(), Some(expected), "{checkpoint} {layer} {key}");
            }
        }
        let edges =
            sweep(&app, json!({"op": "knockout", "from": "each", "to": "each", "heads": [1], "layers": [1]})).await;
        assert_eq!(edges["axes"], json!(["layer", "q_pos", "k_pos"]));
        for (query, key) in [(2, 0), (4, 3), (6, 6), (1, 5)] {
            let knockout = json!([{"op": "knockout", "layers": 1, "heads": [1], "from": key, "to": query}]);
            let expected = difference(&app, knockout).await;
            assert_eq!(edges["values"][0][query][key].as_f64(), Some(expected), "{checkpoint} {query} {key}");
        }
        let heads = sweep(&app, json!({"op": "knockout", "heads": "each", "from": [1, 2], "positions": [4, 6]})).await;
        let knockout = json!([{"op": "knockout", "layers": 0, "heads": [1], "from": [1, 2], "to": [4, 6]}]);
        assert_eq!(heads["values"][0][1].as_f64(), Some(difference(&app, knockout).await), "{checkpoint}");
    }
}

#[tokio::test]
async fn tokens_before_a_change_are_unchanged_where_attention_is_causal() {
    let app = TestApp::new().await;
    let capture = json!({"hooks": ["resid_post"], "layers": "all", "positions": [0, 1, 2, 3, 4]});
    let rows = async |interventions: Value| {
        let run = app.run(json!({"input": IDS, "interventions": interventions, "capture": capture})).await;
        let cache = run["caches"][0].as_str().unwrap();
        app.get(&format!("/v1/caches/{cache}/tensors/blocks.2.hook_resid_post?format=raw")).await.body
    };
    let plain = rows(json!([])).await;
    assert_eq!(rows(json!([{"op": "knockout", "from": 0, "to": [5, 6]}])).await, plain, "bit for bit");
    assert_ne!(rows(json!([{"op": "knockout", "from": 0, "to": 4}])).await, plain);
    let encoder = TestApp::serving("bert/masked_lm").await;
    let found = sweep(&encoder, json!({"op": "knockout", "from": [6], "to": [1]})).await;
    let expected = difference(&encoder, json!([{"op": "knockout", "layers": 0, "from": 6, "to": 1}])).await;
    assert_eq!(found["values"][0].as_f64(), Some(expected), "a later key is visible");
}

#[tokio::test]
async fn a_binary_answer_has_the_axes_of_a_knockout() {
    let app = TestApp::new().await;
    let body = json!({"model": "tiny", "clean": IDS, "answer": 42, "sweep": {"op": "knockout", "from": "each", "heads": "each"}});
    let json = app.post("/v1/experiments/patching", &body).await.json();
    let raw = app.post("/v1/experiments/patching?format=raw", &body).await;
    assert_eq!((raw.header("residuum-shape"), raw.header("residuum-axes")), ("3,7,4", "layer,k_pos,head"));
    assert_eq!(floats(&raw.body), flat(&json["values"]));
    assert_eq!(
        (&json["normalized"], &json["direction"], &json["corrupt_tokens"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn impossible_ablations_are_refused() {
    let app = TestApp::new().await;
    let cache = app.capture("abc", json!({"hooks": ["resid_post"]})).await;
    let cases = [
        (json!({"sweep": {"op": "patch"}}), 400, "invalid_body", "/corrupt"),
        (json!({"sweep": {"op": "zero"}, "corrupt": IDS}), 400, "invalid_body", "/corrupt"),
        (json!({"sweep": {"op": "zero"}, "direction": "noise"}), 400, "invalid_body", "/direction"),
        (json!({"sweep": {"op": "explode"}}), 400, "invalid_field", "/sweep/op"),
        (json!({"sweep": {"op": "zero", "from": "each"}}), 400, "invalid_body", "/sweep/from"),
        (json!({"sweep": {"op": "zero", "to": [1]}}), 400, "invalid_body", "/sweep/to"),
        (json!({"sweep": {"op": "zero", "hook": "attn.pattern"}}), 422, "invalid_value", "/sweep/hook"),
        (json!({"sweep": {"op": "zero", "caches": [cache]}}), 400, "invalid_body", "/sweep/caches"),
        (json!({"sweep": {"op": "mean_ablate"}}), 400, "invalid_body", "/sweep/caches"),
        (json!({"sweep": {"op": "mean_ablate", "caches": ["x"]}}), 422, "unknown_cache", "/sweep/caches/0"),
        (json!({"sweep": {"op": "mean_ablate", "caches": [cache]}}), 422, "hook_not_stored", "/sweep/caches/0"),
        (json!({"sweep": {"op": "knockout", "hook": "attn.z"}}), 422, "invalid_value", "/sweep/hook"),
        (json!({"sweep": {"op": "knockout", "to": [1], "positions": [1]}}), 400, "invalid_body", "/sweep/positions"),
        (json!({"sweep": {"op": "knockout", "from": [9]}}), 422, "position_out_of_range", "/sweep/from"),
        (json!({"sweep": {"op": "knockout", "to": "mean"}}), 422, "invalid_value", "/sweep/to"),
        (json!({"sweep": {"op": "knockout", "from": [5], "to": [2]}}), 422, "invalid_value", "/sweep/from"),
        (json!({"sweep": {"op": "knockout", "heads": [4]}}), 422, "invalid_value", "/sweep/heads/0"),
    ];
    for (fields, status, code, pointer) in cases {
        let mut body = json!({"model": "tiny", "clean": IDS, "answer": 42});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = app.post("/v1/experiments/patching", &body).await;
        assert_eq!(answer.problem(status, code), [pointer], "{fields}");
    }
}

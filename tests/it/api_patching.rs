//! Patching sweeps: the same numbers as one run with a patch per cell, although the sweep computes less.

use serde_json::{Value, json};

use crate::support::{TestApp, flat, floats, request};

const CLEAN: [u32; 7] = [1, 17, 203, 99, 5, 64, 250];
const CORRUPT: [u32; 7] = [1, 40, 203, 98, 7, 64, 12];

async fn sweep(app: &TestApp, fields: Value) -> Value {
    let mut body = json!({"model": "tiny", "clean": CLEAN, "corrupt": CORRUPT, "answer": 42, "against": 7});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let answer = app.post("/v1/experiments/patching", &body).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json()
}

/// The difference of two logits at the last position of a run.
async fn difference(app: &TestApp, ids: &[u32], interventions: Value) -> f64 {
    let body = json!({"input": ids, "interventions": interventions, "capture": {"hooks": ["logits"]}});
    let run = app.run(body).await;
    let cache = run["caches"][0].as_str().unwrap();
    let logits = flat(&app.get(&format!("/v1/caches/{cache}/tensors/logits")).await.json()["values"]);
    f64::from(logits[42]) - f64::from(logits[7])
}

async fn source(app: &TestApp, hook: &str) -> String {
    let run = app.run(json!({"input": CLEAN, "capture": {"hooks": [hook], "positions": "all"}})).await;
    run["caches"][0].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_cell_is_a_run_with_that_patch_bit_for_bit() {
    for checkpoint in ["llama/gqa_tied", "gemma2/softcaps", "phi/parallel", "bloom/six_heads", "llama/rope_dynamic"] {
        let app = TestApp::serving(checkpoint).await;
        for hook in ["resid_pre", "hook_mlp_out", "attn.k"] {
            let found = sweep(&app, json!({"sweep": {"hook": hook, "positions": "each"}})).await;
            assert_eq!(found["axes"], json!(["layer", "pos"]));
            let cache = source(&app, hook).await;
            for layer in 0..found["layers"].as_array().unwrap().len() {
                for position in [0, 2, 6] {
                    let patch = json!([{"op": "patch", "hook": hook, "layers": layer, "positions": position, "source": {"cache": cache}}]);
                    let expected = difference(&app, &CORRUPT, patch).await;
                    assert_eq!(
                        found["values"][layer][position].as_f64(),
                        Some(expected),
                        "{checkpoint} {hook} {layer} {position}"
                    );
                }
            }
            assert_eq!(found["clean"].as_f64(), Some(difference(&app, &CLEAN, json!([])).await));
            assert_eq!(found["corrupt"].as_f64(), Some(difference(&app, &CORRUPT, json!([])).await));
        }
    }
}

#[tokio::test]
async fn heads_are_swept_one_by_one_or_together() {
    let app = TestApp::new().await;
    let found = sweep(&app, json!({"sweep": {"hook": "attn.z", "heads": "each", "layers": [0, -1]}})).await;
    assert_eq!(
        (&found["axes"], &found["layers"], &found["heads"]),
        (&json!(["layer", "head"]), &json!([0, 2]), &json!([0, 1, 2, 3]))
    );
    let cache = source(&app, "attn.z").await;
    for (i, layer) in [0, 2].into_iter().enumerate() {
        for head in 0..4 {
            let patch = json!([{"op": "patch", "hook": "attn.z", "layers": layer, "heads": [head], "source": {"cache": cache}}]);
            assert_eq!(found["values"][i][head].as_f64(), Some(difference(&app, &CORRUPT, patch).await));
        }
    }
    let together = sweep(&app, json!({"sweep": {"hook": "attn.z", "heads": [1, 3], "positions": [-1]}})).await;
    assert_eq!(together["axes"], json!(["layer"]));
    let patch = json!([{"op": "patch", "hook": "attn.z", "layers": 1, "heads": [1, 3], "positions": [-1], "source": {"cache": cache}}]);
    assert_eq!(together["values"][1].as_f64(), Some(difference(&app, &CORRUPT, patch).await));
}

#[tokio::test]
async fn normalized_values_are_0_and_1_for_the_two_inputs() {
    let app = TestApp::new().await;
    let found = sweep(&app, json!({"sweep": {"hook": "resid_pre", "layers": [0]}})).await;
    assert_eq!(found["values"][0], found["clean"], "the whole input of the first block is the clean run");
    assert_eq!(found["normalized"][0], 1.0);
    let noise =
        sweep(&app, json!({"direction": "noise", "sweep": {"hook": "resid_pre", "layers": [0], "positions": "each"}}))
            .await;
    assert_eq!(noise["values"][0][0], noise["clean"], "the first tokens are the same");
    assert_eq!(noise["normalized"][0][0], 0.0);
    let last = sweep(&app, json!({"sweep": {"hook": "resid_post", "layers": [-1], "positions": "each"}})).await;
    assert_eq!((&last["values"][0][6], &last["values"][0][5]), (&last["clean"], &last["corrupt"]));
}

#[tokio::test]
async fn metrics_agree_with_each_other() {
    let app = TestApp::new().await;
    let with = |metric: &str| {
        let body = json!({
            "model": "tiny", "clean": CLEAN, "corrupt": CORRUPT, "answer": 42, "metric": metric,
            "sweep": {"hook": "attn_out", "positions": "each"}
        });
        let app = &app;
        async move { app.post("/v1/experiments/patching", &body).await.json() }
    };
    let (p, log_p) = (with("probability").await, with("log_probability").await);
    for (p, log_p) in flat(&p["values"]).into_iter().zip(flat(&log_p["values"])) {
        assert!((p.ln() - log_p).abs() < 1e-5);
    }
    let by_default = json!({"model": "tiny", "clean": CLEAN, "corrupt": CORRUPT, "answer": 42, "sweep": {"hook": "attn_out", "positions": "each"}});
    assert_eq!(app.post("/v1/experiments/patching", &by_default).await.json()["values"], p["values"]);
    // An encoder attends to both sides, so the tokens before the patched one must be computed again.
    let encoder = TestApp::serving("bert/masked_lm").await;
    let body = json!({"model": "tiny", "clean": CLEAN, "corrupt": CORRUPT, "answer": 42, "against": 7, "position": 2,
        "sweep": {"hook": "resid_pre", "positions": "each"}});
    let found = encoder.post("/v1/experiments/patching", &body).await.json();
    let cache = source(&encoder, "resid_pre").await;
    let patch = json!([{"op": "patch", "hook": "resid_pre", "layers": 1, "positions": 5, "source": {"cache": cache}}]);
    let run = encoder
        .run(json!({"input": CORRUPT, "interventions": patch, "capture": {"hooks": ["logits"], "positions": 2}}))
        .await;
    let cache = run["caches"][0].as_str().unwrap();
    let logits = flat(&encoder.get(&format!("/v1/caches/{cache}/tensors/logits")).await.json()["values"]);
    assert_eq!(found["values"][1][5].as_f64(), Some(f64::from(logits[42]) - f64::from(logits[7])));
}

#[tokio::test]
async fn binary_answers_and_events_hold_the_same_numbers() {
    let app = TestApp::new().await;
    let body =
        json!({"model": "tiny", "clean": CLEAN, "corrupt": CORRUPT, "answer": 42, "sweep": {"positions": "each"}});
    let json = app.post("/v1/experiments/patching", &body).await.json();
    let raw = app.post("/v1/experiments/patching?format=raw", &body).await;
    assert_eq!((raw.header("residuum-shape"), raw.header("residuum-axes")), ("3,7", "layer,pos"));
    assert_eq!(floats(&raw.body), flat(&json["values"]));
    let headers = [("content-type", "application/json"), ("accept", "text/event-stream")];
    let streamed = app
        .send(request(axum::http::Method::POST, "/v1/experiments/patching", &headers, body.to_string().into()))
        .await;
    let text = String::from_utf8(streamed.body.to_vec()).unwrap();
    let events: Vec<(&str, Value)> = text
        .split("\n\n")
        .filter_map(|event| {
            let (name, data) = event.strip_prefix("event: ")?.split_once("\ndata: ")?;
            Some((name, serde_json::from_str(data).unwrap()))
        })
        .collect();
    let (last, progress) = events.split_last().unwrap();
    assert_eq!((last.0, &last.1["values"]), ("result", &json["values"]));
    assert!(progress.iter().all(|(name, data)| *name == "progress" && data["total"] == 21), "{events:?}");
}

#[tokio::test]
async fn experiments_wait_for_their_turn() {
    let app = TestApp::new().await;
    let body =
        json!({"model": "tiny", "clean": CLEAN, "corrupt": CORRUPT, "answer": 42, "sweep": {"positions": "each"}});
    let answers = futures::future::join_all((0..12).map(|_| app.post("/v1/experiments/patching", &body))).await;
    let first = answers[0].json()["values"].clone();
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.json()["values"]), (200, &first));
    }
}

#[tokio::test]
async fn impossible_sweeps_are_refused() {
    let app = TestApp::new().await;
    let plain = json!({"model": "tiny", "clean": CLEAN, "corrupt": CORRUPT, "answer": 42, "sweep": {}});
    for (fields, status, code, pointer) in [
        (json!({"corrupt": [1, 2]}), 422, "shape_mismatch", "/corrupt"),
        (json!({"model": "other"}), 422, "unknown_model", "/model"),
        (json!({"clean": []}), 422, "empty_input", "/clean"),
        (json!({"answer": 272}), 422, "token_out_of_vocabulary", "/answer"),
        (json!({"metric": "logit_diff"}), 400, "invalid_body", "/against"),
        (json!({"metric": "logit", "against": 7}), 400, "invalid_body", "/against"),
        (json!({"position": 7}), 422, "position_out_of_range", "/position"),
        (json!({"sweep": {"hook": "nowhere"}}), 422, "unknown_hook", "/sweep/hook"),
        (json!({"sweep": {"hook": "attn.pattern"}}), 422, "invalid_value", "/sweep/hook"),
        (json!({"sweep": {"hook": "logits"}}), 422, "invalid_value", "/sweep/hook"),
        (json!({"sweep": {"layers": [3]}}), 422, "layer_out_of_range", "/sweep/layers"),
        (json!({"sweep": {"heads": "each"}}), 422, "invalid_value", "/sweep/heads"),
        (json!({"sweep": {"hook": "attn.z", "heads": [4]}}), 422, "invalid_value", "/sweep/heads/0"),
        (json!({"sweep": {"positions": "mean"}}), 422, "invalid_value", "/sweep/positions"),
        (json!({"sweep": {"positions": "every"}}), 400, "invalid_field", "/sweep/positions"),
        (json!({"sweep": {"metric": 1}}), 400, "invalid_body", "/sweep/metric"),
    ] {
        let mut body = plain.clone();
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = app.post("/v1/experiments/patching", &body).await;
        assert_eq!(answer.problem(status, code), [pointer], "{fields}");
    }
    let encoder = TestApp::serving("bert/base_model_old_names").await;
    assert_eq!(encoder.post("/v1/experiments/patching", &plain).await.problem(422, "not_readable"), ["/model"]);
}

//! `POST /v1/caches/{id}/lens`: against transformers, and against the model's own logits.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{
    model_invariants::checkpoints,
    model_support::{ids, read_tensors, relative_error},
    support::{D_VOCAB, TestApp, flat, floats},
};

/// Largest difference allowed, in units of the reference's root mean square.
const TOLERANCE: f64 = 1e-4;

pub fn analysis_golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens_analysis").join(name)
}

/// Captures token ids at all positions. Returns the id of the cache.
pub async fn capture_ids(app: &TestApp, ids: &[u32], hooks: &Value) -> String {
    let capture = json!({"hooks": hooks, "positions": "all"});
    let run = app.run(json!({"input": ids, "capture": capture})).await;
    run["caches"][0].as_str().unwrap().to_owned()
}

async fn compare(family: &str, checkpoint: &str) -> f64 {
    let golden = read_tensors(&analysis_golden(&format!("lens_{family}.safetensors")));
    let app = TestApp::of(checkpoint).await;
    let cache = capture_ids(&app, &ids(&golden["ids"]), &json!(["resid_post"])).await;
    let path = format!("/v1/caches/{cache}/lens");
    let mut worst = 0f64;
    for values in ["logits", "log_probs"] {
        let answer = app.post(&format!("{path}?format=raw&values={values}"), &json!({})).await;
        assert_eq!(answer.header("residuum-hook"), format!("lens.{values}"));
        assert_eq!(answer.header("residuum-axes"), "layer,pos,d_vocab");
        worst = worst.max(relative_error(values, &floats(&answer.body), &golden[values]));
    }
    let json = app.post(&path, &json!({"tokens": [42], "top_k": 3})).await.json();
    let cells: Vec<&Value> = json["values"].as_array().unwrap().iter().flat_map(|l| l.as_array().unwrap()).collect();
    for name in ["entropy", "kl"] {
        let found: Vec<f32> = cells.iter().map(|c| c[name].as_f64().unwrap() as f32).collect();
        worst = worst.max(relative_error(name, &found, &golden[name]));
    }
    for (cell, log_probs) in cells.iter().zip(golden["log_probs"].chunks(D_VOCAB)) {
        let mut order: Vec<usize> = (0..D_VOCAB).collect();
        order.sort_by(|a, b| log_probs[*b].total_cmp(&log_probs[*a]));
        for (top, expected) in cell["top"].as_array().unwrap().iter().zip(&order) {
            assert_eq!(top["id"], json!(expected));
            assert!((top["probability"].as_f64().unwrap() - log_probs[*expected].exp()).abs() < 1e-5);
        }
        let followed = &cell["tokens"][0];
        assert_eq!(followed["rank"], json!(order.iter().position(|i| *i == 42).unwrap()));
        assert!((followed["log_probability"].as_f64().unwrap() - log_probs[42]).abs() < 1e-3);
    }
    worst
}

#[tokio::test]
async fn the_lens_agrees_with_transformers() {
    for (family, checkpoint) in [
        ("llama", "llama/gqa_tied"),
        ("gpt2", "gpt2/plain"),
        ("gemma2", "gemma2/softcaps"),
        ("granite", "granite/multipliers"),
    ] {
        let worst = compare(family, checkpoint).await;
        println!("{checkpoint:<24} {worst:.2e}");
        assert!(worst <= TOLERANCE, "{checkpoint}: {worst:e}");
    }
}

#[tokio::test]
async fn at_the_last_layer_the_lens_is_the_models_own_logits_bit_for_bit() {
    let mut n_read = 0;
    for checkpoint in checkpoints() {
        let app = TestApp::of(&checkpoint).await;
        let model = app.get("/v1/models/tiny").await.json();
        let has_logits = model["hooks"].as_array().unwrap().iter().any(|h| h["hook"] == "logits");
        let hooks = if has_logits { json!(["resid_post", "logits"]) } else { json!(["resid_post"]) };
        let cache = capture_ids(&app, &[1, 17, 203, 99, 5], &hooks).await;
        let read = app.post(&format!("/v1/caches/{cache}/lens?format=raw&values=logits"), &json!({"layers": -1})).await;
        let encoder_head =
            ["bert/", "distilbert/", "roberta/", "modernbert/"].iter().any(|f| checkpoint.starts_with(f));
        if !has_logits || encoder_head {
            read.problem(422, "not_readable");
            continue;
        }
        let own = app.get(&format!("/v1/caches/{cache}/tensors/logits?format=raw")).await;
        assert!(read.body == own.body && !own.body.is_empty(), "{checkpoint}");
        n_read += 1;
    }
    assert!(n_read > 45, "{n_read} checkpoints were read");
}

#[tokio::test]
async fn the_answer_describes_what_was_read() {
    let app = TestApp::new().await;
    let cache = app.capture("the cat", json!({"hooks": ["resid_pre", "resid_post"], "positions": [0, -1]})).await;
    let described = app.get(&format!("/v1/caches/{cache}")).await.json();
    let path = format!("/v1/caches/{cache}/lens");
    let lens = app.post(&path, &json!({"layers": [0, -1], "top_k": 2})).await.json();
    let last = described["token_ids"].as_array().unwrap().len() - 1;
    assert_eq!((&lens["layers"], &lens["positions"]), (&json!([0, 2]), &json!([0, last])));
    assert_eq!(lens["position_tokens"], json!([described["tokens"][0], described["tokens"][last]]));
    assert_eq!(lens["final_from"], "blocks.2.hook_resid_post");
    assert_eq!(lens["values"][1][0]["kl"].as_f64(), Some(0.0), "the last layer is the final distribution");
    assert!(lens["values"][0][0]["kl"].as_f64().unwrap() > 0.0);
    let one =
        app.post(&path, &json!({"hook": "blocks.1.hook_resid_pre", "positions": "last", "top_k": 0})).await.json();
    assert_eq!((&one["hook"], &one["layers"], &one["positions"]), (&json!("resid_pre"), &json!([1]), &json!([last])));
    assert_eq!(one["values"][0][0]["top"], json!([]));
    // resid_pre of a layer is resid_post of the one before
    let before = app.post(&path, &json!({"layers": 0, "positions": "last", "top_k": 0})).await.json();
    assert_eq!(one["values"], before["values"]);

    let without_end = app.capture("the cat", json!({"layers": [0]})).await;
    let lens = app.post(&format!("/v1/caches/{without_end}/lens"), &json!({})).await.json();
    assert_eq!((&lens["final_from"], &lens["values"][0][0]["kl"]), (&Value::Null, &Value::Null));
    let with_logits = app.capture("the cat", json!({"layers": [0], "hooks": ["resid_post", "logits"]})).await;
    let lens = app.post(&format!("/v1/caches/{with_logits}/lens"), &json!({})).await.json();
    assert_eq!(lens["final_from"], "logits");
    assert_eq!(lens["values"][0][0]["kl"], before["values"][0][0]["kl"]);
}

#[tokio::test]
async fn a_token_can_be_given_as_text() {
    let app = TestApp::new().await;
    let cache = app.capture("the cat", json!({})).await;
    let path = format!("/v1/caches/{cache}/lens");
    let tokens =
        app.post("/v1/tokenize", &json!({"model": "tiny", "text": "the cat", "prepend_bos": false})).await.json();
    let (id, text) = (&tokens["token_ids"][0], &tokens["tokens"][0]);
    let lens = app.post(&path, &json!({"tokens": [id, text], "layers": -1})).await.json();
    assert_eq!(lens["tokens"], json!([{"id": id, "token": text}, {"id": id, "token": text}]));
    assert_eq!(lens["values"][0][0]["tokens"][0], lens["values"][0][0]["tokens"][1]);
    let long = app.post(&path, &json!({"tokens": ["a".repeat(2000)]})).await;
    assert_eq!(long.problem(422, "invalid_value"), ["/tokens/0"]);
    let several = app.post(&path, &json!({"tokens": [id, "the cat"]})).await;
    assert_eq!(several.problem(422, "invalid_value"), ["/tokens/1"]);
    assert!(several.json()["detail"].as_str().unwrap().contains(&id.to_string()), "it names what it encodes to");
    assert_eq!(
        app.post(&path, &json!({"tokens": [D_VOCAB]})).await.problem(422, "token_out_of_vocabulary"),
        ["/tokens/0"]
    );
    assert_eq!(app.post(&path, &json!({"tokens": [""]})).await.problem(422, "empty_input"), ["/tokens/0"]);
    assert_eq!(app.post(&path, &json!({"tokens": [-1]})).await.problem(400, "invalid_field"), ["/tokens/0"]);
}

#[tokio::test]
async fn formats_hold_the_same_numbers() {
    let app = TestApp::new().await;
    let cache = app.capture("the cat", json!({"positions": "all"})).await;
    let path = format!("/v1/caches/{cache}/lens");
    let raw = app.post(&format!("{path}?format=raw"), &json!({"positions": [0, 1]})).await;
    assert_eq!((raw.header("residuum-shape"), raw.header("residuum-dtype")), ("3,2,272", "float32"));
    let npy = app.post_with(&path, &[("accept", "application/x-npy")], &json!({"positions": [0, 1]})).await;
    assert!(npy.body.ends_with(&raw.body) && npy.body.starts_with(b"\x93NUMPY"));
    let file = app.post(&format!("{path}?format=safetensors"), &json!({"positions": [0, 1]})).await;
    let tensors = safetensors::SafeTensors::deserialize(&file.body).unwrap();
    assert_eq!(tensors.tensor("lens.log_probs").unwrap().data(), &raw.body[..]);
    for row in floats(&raw.body).chunks(D_VOCAB) {
        let sum: f64 = row.iter().map(|l| f64::from(*l).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    }
    // ranges are for GET only
    let whole =
        app.post_with(&format!("{path}?format=raw"), &[("range", "bytes=0-3")], &json!({"positions": [0, 1]})).await;
    assert_eq!((whole.status.as_u16(), whole.body.len()), (200, raw.body.len()));
}

#[tokio::test]
async fn questions_that_a_lens_cannot_answer_are_refused() {
    let app = TestApp::new().await;
    let cache = app.capture("the cat", json!({"hooks": ["resid_post", "attn_out"], "positions": [0]})).await;
    let path = format!("/v1/caches/{cache}/lens");
    for (body, status, code, pointer) in [
        (json!({"hook": "attn_out"}), 422, "invalid_value", "/hook"),
        (json!({"hook": "logits"}), 422, "hook_not_stored", "/hook"),
        (json!({"hook": "resid_mid"}), 422, "hook_not_stored", "/hook"),
        (json!({"hook": "nonsense"}), 422, "unknown_hook", "/hook"),
        (json!({"layers": 3}), 422, "layer_out_of_range", "/layers"),
        (json!({"positions": "last"}), 422, "position_out_of_range", "/positions"),
        (json!({"positions": "mean"}), 422, "invalid_value", "/positions"),
        (json!({"positions": 99}), 422, "position_out_of_range", "/positions"),
        (json!({"top_k": 101}), 422, "invalid_value", "/top_k"),
        (json!({"tokens": vec![1; 101]}), 422, "invalid_value", "/tokens"),
        (json!({"topk": 1}), 400, "invalid_body", "/topk"),
    ] {
        assert_eq!(app.post(&path, &body).await.problem(status, code), [pointer], "{body}");
    }
    assert_eq!(app.post(&format!("{path}?values=logits"), &json!({})).await.problem(400, "invalid_query"), ["values"]);
    assert_eq!(
        app.post(&format!("{path}?format=npy"), &json!({"top_k": 1})).await.problem(400, "invalid_body"),
        ["/top_k"]
    );
    app.post_with(&path, &[("accept", "text/html")], &json!({})).await.problem(406, "not_acceptable");
    let mean = app.capture("the cat", json!({"positions": "mean"})).await;
    app.post(&format!("/v1/caches/{mean}/lens"), &json!({})).await.problem(422, "invalid_value");
    app.post("/v1/caches/0198c5a0-5b1e-7c3a-9b54-0242ac120002/lens", &json!({})).await.problem(404, "cache_not_found");
}

#[tokio::test]
async fn a_lens_needs_the_weights_that_made_the_cache() {
    let mut app = TestApp::new().await;
    let cache = app.capture("the cat", json!({})).await;
    app.stop().await;
    app.start_again_with("gpt2/plain").await;
    let refused = app.post(&format!("/v1/caches/{cache}/lens"), &json!({})).await;
    refused.problem(409, "conflict");
    assert!(refused.json()["detail"].as_str().unwrap().contains("fingerprint"));
    app.post(&format!("/v1/caches/{cache}/attribution"), &json!({"token": 3})).await.problem(409, "conflict");
}

#[tokio::test]
async fn half_precision_types_are_read_as_stored() {
    let app = TestApp::new().await;
    let read = async |dtype: &str| {
        let cache = app.capture("the cat", json!({"dtype": dtype})).await;
        flat(
            &app.post(&format!("/v1/caches/{cache}/lens"), &json!({"tokens": [9], "top_k": 0})).await.json()["values"]
                [2][0]["tokens"][0]["logit"],
        )
    };
    let (wide, narrow) = (read("float32").await[0], read("float16").await[0]);
    assert!(wide.to_bits() != narrow.to_bits() && (wide - narrow).abs() < 1e-2, "{wide} and {narrow}");
}

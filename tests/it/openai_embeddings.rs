//! Embeddings: the bits that a run captures, in OpenAI's shape.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use residuum::{
    api::ApiConfig,
    engine::{Limits, ModelSource},
    model::LoadOptions,
};
use serde_json::{Value, json};

use crate::{
    model_support::{goldens, minilm_path, read_tensors, relative_error},
    support::{D_MODEL, MODEL, N_CTX, TestApp, flat, floats},
};

const EMBEDDINGS: &str = "/openai/v1/embeddings";

async fn embed(app: &TestApp, fields: Value) -> Value {
    let mut body = json!({"model": MODEL});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let answer = app.post(EMBEDDINGS, &body).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json()
}

fn vector(answer: &Value, i: usize) -> Vec<f32> {
    flat(&answer["data"][i]["embedding"])
}

/// What a run captures at a hook, as the bits it stores.
async fn captured(app: &TestApp, input: Value, hook: &str, positions: &str) -> Vec<f32> {
    let capture = json!({"hooks": [hook], "positions": positions});
    let run = app.run(json!({"input": input, "capture": capture, "reuse": false})).await;
    let cache = run["caches"][0].as_str().unwrap();
    floats(&app.get(&format!("/v1/caches/{cache}/tensors/{hook}?format=raw")).await.body)
}

fn length(vector: &[f32]) -> f64 {
    vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

#[tokio::test]
async fn a_decoder_gives_its_last_token_after_the_final_norm() {
    let app = TestApp::new().await;
    let answer = embed(&app, json!({"input": ["the cat", "a dog ran"], "normalize": false})).await;
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!(MODEL)));
    assert_eq!(answer["residuum"], json!({"pooling": "last", "hook": "final_norm", "normalized": false}));
    let tokens: Value = app.post("/v1/tokenize", &json!({"model": MODEL, "text": "the cat"})).await.json();
    let others: Value = app.post("/v1/tokenize", &json!({"model": MODEL, "text": "a dog ran"})).await.json();
    let n = tokens["token_ids"].as_array().unwrap().len() + others["token_ids"].as_array().unwrap().len();
    assert_eq!(answer["usage"], json!({"prompt_tokens": n, "total_tokens": n}));
    for (i, text) in ["the cat", "a dog ran"].into_iter().enumerate() {
        assert_eq!((&answer["data"][i]["object"], &answer["data"][i]["index"]), (&json!("embedding"), &json!(i)));
        assert_eq!(vector(&answer, i), captured(&app, json!(text), "final_norm", "last").await, "{text}");
    }
    let mean = embed(&app, json!({"input": "the cat", "normalize": false, "pooling": "mean"})).await;
    assert_eq!(mean["residuum"]["pooling"], "mean");
    assert_eq!(vector(&mean, 0), captured(&app, json!("the cat"), "final_norm", "mean").await);
    // scaled to length one by default, in the same direction
    let unit = vector(&embed(&app, json!({"input": "the cat"})).await, 0);
    assert!((length(&unit) - 1.0).abs() < 1e-6);
    let whole = vector(&answer, 0);
    let factor = length(&whole);
    assert!(unit.iter().zip(&whole).all(|(u, w)| (f64::from(*u) * factor - f64::from(*w)).abs() < 1e-5));
    // nothing was stored for them
    let runs = app.get("/v1/runs").await.json();
    assert_eq!(runs["items"].as_array().unwrap().len(), 3, "only the runs of this test");
}

#[tokio::test]
async fn all_forms_of_input_and_both_encodings_give_the_same_numbers() {
    let app = TestApp::new().await;
    let ids = json!([4, 5, 6]);
    let one = embed(&app, json!({"input": ids})).await;
    let several = embed(&app, json!({"input": [ids, [7]], "encoding_format": "float"})).await;
    assert_eq!(vector(&one, 0), vector(&several, 0), "alone and in a batch");
    assert_eq!(one["usage"]["prompt_tokens"], 3, "ids are used as they are");
    let text = embed(&app, json!({"input": "the cat"})).await;
    let texts =
        embed(&app, json!({"input": ["the cat"], "dimensions": D_MODEL, "user": "me", "prepend_bos": null})).await;
    assert_eq!(vector(&text, 0), vector(&texts, 0));
    assert_eq!(vector(&text, 0).len(), D_MODEL);
    let packed = embed(&app, json!({"input": ids, "encoding_format": "base64"})).await;
    let bytes = STANDARD.decode(packed["data"][0]["embedding"].as_str().unwrap()).unwrap();
    assert_eq!(floats(&bytes), vector(&one, 0));
    // more inputs than fit one batch
    let many: Vec<Value> = (0..120).map(|i| json!(vec![i; 20])).collect();
    let batches = embed(&app, json!({"input": many})).await;
    for i in [0, 50, 119] {
        assert_eq!(vector(&batches, i), vector(&embed(&app, json!({"input": many[i]})).await, 0), "input {i}");
    }
}

#[tokio::test]
async fn an_encoder_gives_the_mean_of_its_last_layer() {
    let app = TestApp::serving("bert/masked_lm").await;
    let answer = embed(&app, json!({"input": "the running tower", "normalize": false})).await;
    let hook = answer["residuum"]["hook"].as_str().unwrap().to_owned();
    assert!(hook.starts_with("blocks.") && hook.ends_with(".hook_resid_post"), "{hook}");
    assert_eq!(answer["residuum"]["pooling"], "mean");
    assert_eq!(vector(&answer, 0), captured(&app, json!("the running tower"), &hook, "mean").await);
    // an encoder cannot continue a text
    let refused = app.post("/openai/v1/completions", &json!({"model": MODEL, "prompt": "the"})).await;
    refused.openai_error(400, "invalid_request_error", "cannot_generate");
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused() {
    let app = TestApp::new().await;
    let long = vec![1; N_CTX + 1];
    for (fields, status, code, param) in [
        (json!({"input": []}), 400, "invalid_value", "input"),
        (json!({"input": ["a", ""], "prepend_bos": false}), 400, "empty_input", "input[1]"),
        (json!({"input": vec!["a"; 2049]}), 400, "invalid_value", "input"),
        (json!({"input": [[1], [100_000]]}), 400, "token_out_of_vocabulary", "input[1]"),
        (json!({"input": long}), 400, "context_length_exceeded", "input"),
        (json!({"input": "a", "dimensions": D_MODEL - 1}), 400, "invalid_value", "dimensions"),
        (json!({"input": "a", "encoding_format": "int8"}), 400, "invalid_field", "encoding_format"),
        (json!({"input": "a", "pooling": "max"}), 400, "invalid_field", "pooling"),
    ] {
        let mut body = json!({"model": MODEL});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let found = app.post(EMBEDDINGS, &body).await.openai_error(status, "invalid_request_error", code);
        assert_eq!(found.as_deref().map(|f| f.starts_with(param)), Some(true), "{code}: {found:?}");
    }
    let cut = embed(&app, json!({"input": long, "truncate": "left"})).await;
    assert_eq!(cut["usage"]["prompt_tokens"], N_CTX);
}

#[tokio::test]
async fn the_demo_encoder_agrees_with_transformers() {
    let app = TestApp::unloaded(Limits::default(), ApiConfig::default()).await;
    let source = ModelSource { id: MODEL.to_owned(), path: minilm_path() };
    app.engine().load(vec![source], LoadOptions::default()).await.unwrap();
    let bytes = std::fs::read(goldens().join("minilm.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let sentences: Vec<String> = serde_json::from_str(&header.metadata().as_ref().unwrap()["sentences"]).unwrap();
    let golden = read_tensors(&goldens().join("minilm.safetensors"));
    let answer = embed(&app, json!({"input": sentences})).await;
    assert_eq!(answer["residuum"], json!({"pooling": "mean", "hook": "blocks.5.hook_resid_post", "normalized": true}));
    for i in 0..sentences.len() {
        let last = golden[&format!("{i}/means")].chunks(384).last().unwrap();
        let norm = last.iter().map(|x| x * x).sum::<f64>().sqrt();
        let expected: Vec<f64> = last.iter().map(|x| x / norm).collect();
        assert!(relative_error(&format!("sentence {i}"), &vector(&answer, i), &expected) <= 1e-4);
    }
}

//! Interventions over HTTP against the same changes in PyTorch.

use residuum::model::Placement;
use serde_json::{Value, json};

use crate::{
    model_support::{accelerator, read_tensors, relative_error},
    support::{TestApp, flat, golden},
};

/// Largest error against float64 PyTorch, in units of each tensor's root mean square. At these depths float32 rounding
/// is a few 1e-6; strong steering adds numbers that nearly cancel.
const TOLERANCE: f64 = 1e-5;

fn about(family: &str) -> (Value, std::path::PathBuf) {
    let path = golden("../goldens_analysis").join(format!("interventions_{family}.safetensors"));
    let bytes = std::fs::read(&path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let about = metadata.metadata().as_ref().unwrap()["about"].clone();
    (serde_json::from_str(&about).unwrap(), path)
}

/// Captures every hook at every position. Returns the id of the cache.
pub async fn whole(app: &TestApp, ids: &Value) -> String {
    let hooks: Vec<Value> = app.get("/v1/models/tiny").await.json()["hooks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| h["hook"].clone())
        .collect();
    let run = app.run(json!({"input": ids, "capture": {"hooks": hooks, "positions": "all"}})).await;
    run["caches"][0].as_str().unwrap().to_owned()
}

pub async fn tensor(app: &TestApp, cache: &str, hook: &str) -> Vec<f32> {
    let answer = app.get(&format!("/v1/caches/{cache}/tensors/{hook}")).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    flat(&answer.json()["values"])
}

/// Compares the cases on the CPU, and with the code that drives accelerators.
async fn golden_cases(family: &str, checkpoint: &'static str) {
    golden_cases_on(family, checkpoint, Placement::Cpu).await;
    golden_cases_on(family, checkpoint, accelerator()).await;
}

async fn golden_cases_on(family: &str, checkpoint: &'static str, placement: Placement) {
    let (about, path) = about(family);
    assert_eq!(about["checkpoint"], checkpoint);
    let reference = read_tensors(&path);
    let app = TestApp::serving_on(checkpoint, placement).await;
    let source = whole(&app, &about["source"]).await;
    let other = whole(&app, &about["other"]).await;
    let mut worst = (0.0, String::new());
    for case in about["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let interventions = case["interventions"].to_string().replace("$SOURCE", &source).replace("$OTHER", &other);
        let mut body = json!({
            "input": about["ids"], "interventions": serde_json::from_str::<Value>(&interventions).unwrap(),
            "capture": {"hooks": case["hooks"], "positions": "all"}
        });
        if let Some(new) = case["generated"].as_array() {
            body["generate"] = json!({"max_new_tokens": new.len()});
        }
        let run = app.run(body).await;
        let cache = run["caches"][0].as_str().unwrap();
        if let Some(new) = case["generated"].as_array() {
            let found = app.get(&format!("/v1/caches/{cache}")).await.json();
            let found = found["token_ids"].as_array().unwrap()[about["ids"].as_array().unwrap().len()..].to_vec();
            assert_eq!(&found, new, "{family} {name}: tokens chosen");
        }
        for hook in case["hooks"].as_array().unwrap() {
            let hook = hook.as_str().unwrap();
            // JSON has null where a score is masked.
            let values: Vec<f32> = tensor(&app, cache, hook).await;
            let expected = &reference[&format!("{name}/{hook}")];
            let values: Vec<f32> = values
                .into_iter()
                .zip(expected)
                .map(|(v, e)| if v.is_nan() && e.is_infinite() { f32::NEG_INFINITY } else { v })
                .collect();
            let error = relative_error(&format!("{family} {name} {hook}"), &values, expected);
            if error > worst.0 {
                worst = (error, format!("{name} {hook}"));
            }
            assert!(error < TOLERANCE, "{family} {name} {hook} on {placement}: {error:.1e}");
        }
    }
    println!("interventions {family} on {placement}: worst {:.1e} at {}", worst.0, worst.1);
}

#[tokio::test]
async fn interventions_equal_those_in_pytorch_on_llama() {
    golden_cases("llama", "llama/gqa_tied").await;
}

#[tokio::test]
async fn interventions_equal_those_in_pytorch_on_gemma2() {
    golden_cases("gemma2", "gemma2/softcaps").await;
}

#[tokio::test]
async fn interventions_equal_those_in_pytorch_on_gpt2() {
    golden_cases("gpt2", "gpt2/plain").await;
}

#[tokio::test]
async fn interventions_equal_those_in_pytorch_on_phi() {
    golden_cases("phi", "phi/parallel").await;
}

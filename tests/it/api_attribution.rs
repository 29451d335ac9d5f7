//! `POST /v1/caches/{id}/attribution`: against transformers, and the sum of the parts against the logit.

use serde_json::{Value, json};

use crate::{
    api_lens::{analysis_golden, capture_ids},
    model_invariants::checkpoints,
    support::{TestApp, flat},
};

/// Largest error of a sum, in units of the root mean square of the position's logits.
const TOLERANCE: f64 = 1e-4;

/// Captures every hook that a decomposition of the model's logits needs.
async fn decomposition(app: &TestApp) -> Value {
    let model = app.get("/v1/models/tiny").await.json();
    let wanted = [
        "embed",
        "pos_embed",
        "type_embed",
        "embed_ln.out",
        "attn.z",
        "attn.result",
        "attn_out",
        "mlp_out",
        "resid_post",
    ];
    let full = |short: &str| match short.rsplit_once('.') {
        Some((place, hook)) => format!("{place}.hook_{hook}"),
        None => format!("hook_{short}"),
    };
    let names: Vec<&str> = model["hooks"].as_array().unwrap().iter().map(|h| h["hook"].as_str().unwrap()).collect();
    let has = |short: &&&str| names.iter().any(|n| *n == full(short) || n.ends_with(&format!(".{}", full(short))));
    let mut hooks: Vec<&str> = wanted.iter().filter(has).copied().collect();
    if names.contains(&"logits") {
        hooks.push("logits");
    }
    json!(hooks)
}

fn rms(values: &[f32]) -> f64 {
    (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

#[tokio::test]
async fn the_parts_sum_to_the_logit_in_every_decoder() {
    let (mut n_summed, mut worst) = (0, 0f64);
    for checkpoint in checkpoints() {
        let app = TestApp::of(&checkpoint).await;
        let hooks = decomposition(&app).await;
        let cache = capture_ids(&app, &[1, 17, 203, 99, 5], &hooks).await;
        let path = format!("/v1/caches/{cache}/attribution");
        let post_norm = checkpoint == "opt/post_norm";
        let encoder = ["bert/", "distilbert/", "roberta/", "modernbert/"].iter().any(|f| checkpoint.starts_with(f));
        if post_norm || encoder || !hooks.as_array().unwrap().contains(&json!("logits")) {
            app.post(&path, &json!({"token": 42})).await.problem(422, "not_readable");
            continue;
        }
        for (position, components) in [(-1, "sublayers"), (2, "heads"), (0, "heads")] {
            let body = json!({"token": 42, "position": position, "components": components});
            let answer = app.post(&path, &body).await.json();
            assert_eq!(answer["components"], components, "{answer:#}");
            let logits = flat(
                &app.get(&format!("/v1/caches/{cache}/tensors/logits?position={position}")).await.json()["values"],
            );
            let total: f64 = answer["parts"].as_array().unwrap().iter().map(|p| p["value"].as_f64().unwrap()).sum();
            let number = |name: &str| answer[name].as_f64().unwrap();
            assert!((total - number("sum")).abs() < 1e-9);
            assert!((number("sum") - number("logit") - number("error")).abs() < 1e-12);
            let own = if answer["softcap"].is_null() { number("logit") } else { number("logit_after_softcap") };
            assert_eq!((own as f32).to_bits(), logits[42].to_bits(), "{checkpoint}: the logit is the model's own");
            let error = number("error").abs() / rms(&logits);
            assert!(error <= TOLERANCE, "{checkpoint}, {components} at {position}: {error:e}");
            worst = worst.max(error);
        }
        n_summed += 1;
    }
    println!("{n_summed} checkpoints, worst error {worst:.2e} of the logits' root mean square");
    assert!(n_summed > 40, "{n_summed} checkpoints were summed");
}

/// The part of an answer with the name that a golden uses.
fn part<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let is = |p: &&Value| {
        let layer = p["layer"].as_u64().map(|l| l.to_string()).unwrap_or_default();
        let own = match p["kind"].as_str().unwrap() {
            "embedding" => "embed".to_owned(),
            "head" => format!("{layer}.head.{}", p["head"]),
            "attention" => format!("{layer}.attn"),
            "attention_bias" => format!("{layer}.attn_bias"),
            "mlp" => format!("{layer}.mlp"),
            _ => p["name"].as_str().unwrap().to_owned(),
        };
        own == name
    };
    let mut found = answer["parts"].as_array().unwrap().iter().filter(is);
    let part = found.next().unwrap_or_else(|| panic!("no part {name} in {answer:#}"));
    assert!(found.next().is_none(), "{name} occurs twice");
    part
}

#[tokio::test]
async fn each_part_agrees_with_transformers() {
    let golden: Value = serde_json::from_slice(&std::fs::read(analysis_golden("attribution.json")).unwrap()).unwrap();
    let ids: Vec<u32> = serde_json::from_value(golden["ids"].clone()).unwrap();
    for (checkpoint, case) in golden["cases"].as_object().unwrap() {
        let app = TestApp::of(checkpoint).await;
        let parts = case["parts"].as_object().unwrap();
        let scale = (parts.values().map(|v| v.as_f64().unwrap().powi(2)).sum::<f64>() / parts.len() as f64).sqrt();
        for (attention, components) in [("attn.z", "heads"), ("attn.result", "heads"), ("attn_out", "sublayers")] {
            // the stream before the first block is the sum of the embeddings
            let cache = capture_ids(&app, &ids, &json!(["resid_pre", attention, "mlp_out", "resid_post"])).await;
            let body = json!({"token": golden["token"], "against": golden["against"]});
            let answer = app.post(&format!("/v1/caches/{cache}/attribution"), &body).await.json();
            assert_eq!(answer["components"], components, "as fine as the stored hooks allow: {answer:#}");
            assert_eq!(answer["position"], json!(ids.len() - 1));
            let other = |name: &str| match components {
                "heads" => name.ends_with(".attn"),
                _ => name.contains(".head.") || name.ends_with(".attn_bias"),
            };
            let expected: Vec<(&String, f64)> =
                parts.iter().filter(|(name, _)| !other(name)).map(|(n, v)| (n, v.as_f64().unwrap())).collect();
            let mut compared = 0;
            for (name, expected) in expected {
                // a norm without a bias does not have this part
                if name == "ln_final.b" && expected == 0.0 {
                    continue;
                }
                let found = part(&answer, name)["value"].as_f64().unwrap();
                assert!((found - expected).abs() <= TOLERANCE * scale, "{checkpoint}, {name}: {found}, not {expected}");
                compared += 1;
            }
            assert_eq!(compared, answer["parts"].as_array().unwrap().len(), "{checkpoint}: {answer:#}");
            let logit = case["logit"].as_f64().unwrap();
            assert!((answer["logit"].as_f64().unwrap() - logit).abs() <= TOLERANCE * scale, "{checkpoint}");
        }
    }
}

#[tokio::test]
async fn a_difference_equals_the_difference_of_both_logits() {
    let app = TestApp::of("gpt2/plain").await;
    let hooks = decomposition(&app).await;
    let cache = capture_ids(&app, &[1, 17, 203], &hooks).await;
    let of = async |body: Value| {
        let answer = app.post(&format!("/v1/caches/{cache}/attribution"), &body).await.json();
        let values = answer["parts"].as_array().unwrap().iter().map(|p| p["value"].as_f64().unwrap());
        values.chain([answer["logit"].as_f64().unwrap()]).collect::<Vec<f64>>()
    };
    let (a, b) = (of(json!({"token": 42})).await, of(json!({"token": 7})).await);
    let difference = of(json!({"token": 42, "against": 7})).await;
    for ((a, b), d) in a.iter().zip(&b).zip(&difference) {
        assert!((a - b - d).abs() < 1e-6, "{a} - {b} is not {d}");
    }
}

#[tokio::test]
async fn missing_hooks_are_listed() {
    let app = TestApp::new().await;
    let cache = app.capture("the cat", json!({"hooks": ["resid_post", "attn_out", "mlp_out"]})).await;
    let path = format!("/v1/caches/{cache}/attribution");
    let refused = app.post(&path, &json!({"token": 3})).await;
    assert_eq!(refused.problem(422, "hook_not_stored"), ["/components"]);
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("lacks 1 of the 8 hooks this needs (hook_embed)"), "{detail}");
    assert!(detail.contains(r#""hooks": ["embed", "attn_out", "mlp_out", "resid_post"]"#), "{detail}");
    let whole = app.capture("the cat", json!({"hooks": ["embed", "resid_post", "attn_out", "mlp_out"]})).await;
    let path = format!("/v1/caches/{whole}/attribution");
    assert_eq!(app.post(&path, &json!({"token": 3})).await.json()["components"], "sublayers");
    for (body, status, code, pointer) in [
        (json!({"token": 3, "components": "heads"}), 422, "hook_not_stored", "/components"),
        (json!({"token": 3, "position": 0}), 422, "position_out_of_range", "/position"),
        (json!({"token": 3, "position": "all"}), 422, "invalid_value", "/position"),
        (json!({"token": 3, "position": [-1]}), 422, "invalid_value", "/position"),
        (json!({"token": 3, "position": "mean"}), 422, "invalid_value", "/position"),
        (json!({"token": 999}), 422, "token_out_of_vocabulary", "/token"),
        (json!({"token": 3, "against": "the cat"}), 422, "invalid_value", "/against"),
        (json!({"token": 3, "components": "neurons"}), 400, "invalid_field", "/components"),
    ] {
        assert_eq!(app.post(&path, &body).await.problem(status, code), [pointer], "{body}");
    }
    app.post(&path, &json!({})).await.problem(400, "invalid_body");
}

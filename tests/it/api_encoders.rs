//! A server of encoders: what differs from decoders over HTTP.

use serde_json::{Value, json};

use crate::support::{D_MODEL, D_VOCAB, N_CTX, TestApp, flat, with_model};

const BASE_MODEL: &str = "bert/base_model_old_names";

#[tokio::test]
async fn positions_default_to_the_mean() {
    let app = TestApp::serving(BASE_MODEL).await;
    assert_eq!(app.get("/v1/models/tiny").await.json()["bidirectional"], true);
    let capture = |positions: Value| json!({"hooks": ["resid_post.1"], "positions": positions});
    let run = app.run(json!({"input": "the tower", "capture": {"hooks": ["resid_post.1"]}})).await;
    let cache = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
    assert_eq!((&cache["positions"], &cache["hooks"][0]["shape"]), (&json!("mean"), &json!([D_MODEL])));
    assert_eq!(cache["tokens"], json!(["[CLS]", "the", "tower", "[SEP]"]));
    assert_eq!(cache["bos"], json!({"requested": null, "present": true, "added": true, "token_id": 2}));
    let values = async |id: &str| flat(&app.get(&format!("/v1/caches/{id}/layers/1")).await.json()["values"]);
    let mean = values(cache["id"].as_str().unwrap()).await;
    let all = values(&app.capture("the tower", capture(json!("all"))).await).await;
    for (i, value) in mean.iter().enumerate() {
        let expected = all.iter().skip(i).step_by(D_MODEL).sum::<f32>() / 4.0;
        assert!((value - expected).abs() < 1e-5, "{value} and {expected}");
    }
}

#[tokio::test]
async fn hooks_that_an_encoder_lacks_are_refused_with_a_list_of_its_hooks() {
    let app = TestApp::serving(BASE_MODEL).await;
    for hook in ["logits", "final_norm", "ln_final.hook_scale", "mlp.pre_linear"] {
        let answer = app.post("/v1/runs", &with_model(json!({"input": "a", "capture": {"hooks": [hook]}}))).await;
        assert_eq!(answer.problem(422, "unknown_hook"), ["/capture/hooks/0"], "{hook}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        for there_is in ["hook_type_embed", "embed_ln.hook_out", "blocks.{l}.hook_resid_mid"] {
            assert!(detail.contains(there_is), "{detail}");
        }
    }
}

#[tokio::test]
async fn a_head_for_masked_tokens_gives_logits_of_every_position() {
    let app = TestApp::serving("bert/masked_lm").await;
    let capture = json!({"hooks": ["logits", "ln1.hook_scale", "hook_type_embed"], "positions": "all"});
    let run = app.run(json!({"input": "the [MASK] runs", "capture": capture})).await;
    let cache = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
    let shapes: Vec<&Value> = cache["hooks"].as_array().unwrap().iter().map(|h| &h["shape"]).collect();
    let n = cache["n_tokens"].as_u64().unwrap();
    assert_eq!(shapes, [&json!([n, D_MODEL]), &json!([n, 1]), &json!([n, 1]), &json!([n, D_VOCAB])]);
    assert_eq!(cache["tokens"][2], "[MASK]");
}

#[tokio::test]
async fn a_truncated_text_keeps_both_ends() {
    let app = TestApp::serving(BASE_MODEL).await;
    let long = "the tower ".repeat(N_CTX);
    for (side, first) in [("right", "the"), ("left", "tower")] {
        // An odd number of tokens is removed, so the first remaining token tells from which side.
        let text = format!("{long}the");
        let run = app.run(json!({"input": text, "truncate": side})).await;
        let cache = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
        let tokens = cache["tokens"].as_array().unwrap();
        assert_eq!((tokens.len(), &tokens[0], &tokens[N_CTX - 1]), (N_CTX, &json!("[CLS]"), &json!("[SEP]")), "{side}");
        assert_eq!((&tokens[1], &cache["n_truncated"]), (&json!(first), &json!(2 * N_CTX + 3 - N_CTX)), "{side}");
    }
}

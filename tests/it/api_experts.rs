//! A model with mixtures of experts, as a client sees it.

use serde_json::{Value, json};

use crate::support::{MODEL, TestApp, flat, with_model};

/// Block 0 has six experts, of which each token uses three; block 1 is dense.
const MIXED: &str = "qwen3_moe/mixed";

#[tokio::test]
async fn the_catalogue_tells_sparse_blocks_from_dense_ones() {
    let app = TestApp::of(MIXED).await;
    let model = app.get(&format!("/v1/models/{MODEL}")).await.json();
    let hooks = model["hooks"].as_array().unwrap();
    let hook = |name: &str| hooks.iter().find(|h| h["hook"] == name);
    for (name, shape, axes) in [
        ("blocks.0.mlp.hook_router_logits", json!([null, 6]), json!(["pos", "expert"])),
        ("blocks.0.mlp.hook_expert_weights", json!([null, 3]), json!(["pos", "top_k"])),
        ("blocks.0.mlp.hook_expert_indices", json!([null, 3]), json!(["pos", "top_k"])),
        ("blocks.1.mlp.hook_post", json!([null, 48]), json!(["pos", "d_mlp"])),
    ] {
        let hook = hook(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!((&hook["shape"], &hook["axes"]), (&shape, &axes), "{name}");
    }
    for name in ["mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_post"] {
        assert!(hook(&format!("blocks.0.{name}")).is_none() && hook(&format!("blocks.1.{name}")).is_some(), "{name}");
    }
    assert!(hook("blocks.1.mlp.hook_expert_indices").is_none());
    let dense = json!({"input": "a", "capture": {"hooks": ["blocks.0.mlp.hook_post"]}});
    assert_eq!(app.post("/v1/runs", &with_model(dense)).await.problem(422, "unknown_hook"), ["/capture/hooks/0"]);
}

#[tokio::test]
async fn routing_is_captured_in_sparse_blocks() {
    let app = TestApp::of(MIXED).await;
    let cache = app.capture("routes", json!({"hooks": ["mlp.expert_indices"], "positions": "all"})).await;
    let uri = format!("/v1/caches/{cache}/tensors/blocks.0.mlp.hook_expert_indices");
    let tensor: Value = app.get(&uri).await.json();
    let indices = flat(&tensor["values"]);
    assert_eq!(tensor["shape"][1], 3);
    for chosen in indices.chunks(3) {
        assert!(chosen.iter().all(|e| (0.0..6.0).contains(e) && e.fract() == 0.0), "{chosen:?}");
        assert!(chosen[0] != chosen[1] && chosen[1] != chosen[2] && chosen[0] != chosen[2], "{chosen:?}");
    }
    app.get(&format!("{uri}?position=0")).await.json();
    app.get(&format!("{uri}?position=mean")).await.problem(422, "invalid_value");
}

#[tokio::test]
async fn indices_of_experts_are_not_averaged() {
    let app = TestApp::of(MIXED).await;
    let hooks = json!(["resid_post", "mlp.expert_indices"]);
    for (body, pointer) in [
        (json!({"input": "a", "capture": {"hooks": hooks, "positions": "mean"}}), "/capture/positions"),
        (
            json!({"items": [{"text": "a", "positions": "mean"}], "capture": {"hooks": hooks, "positions": "all"}}),
            "/items/0/positions",
        ),
    ] {
        assert_eq!(app.post("/v1/runs", &with_model(body)).await.problem(422, "invalid_value"), [pointer]);
    }
    app.run(json!({"input": "a", "capture": {"hooks": ["mlp.expert_weights"], "positions": "mean"}})).await;
}

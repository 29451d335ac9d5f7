//! Interventions over HTTP: identities that hold for any weights, and what is refused.

use serde_json::{Value, json};

use crate::{
    intervention_goldens::{tensor, whole},
    model_support::relative_error,
    support::TestApp,
};

const IDS: [u32; 8] = [1, 17, 203, 99, 5, 64, 250, 17];

async fn logits(app: &TestApp, interventions: Value) -> Vec<f32> {
    let body =
        json!({"input": IDS, "interventions": interventions, "capture": {"hooks": ["logits"], "positions": "all"}});
    let run = app.run(body).await;
    tensor(app, run["caches"][0].as_str().unwrap(), "logits").await
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f64) {
    let expected: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
    let error = relative_error("logits", found, &expected);
    assert!(error < tolerance, "{error:.1e}");
}

#[tokio::test]
async fn patching_a_cache_into_itself_changes_nothing() {
    for checkpoint in ["llama/gqa_tied", "gemma2/softcaps", "phi/parallel", "mixtral/window", "bert/masked_lm"] {
        let app = TestApp::serving(checkpoint).await;
        let own = whole(&app, &json!(IDS)).await;
        let model = app.get("/v1/models/tiny").await.json();
        let plain = tensor(&app, &own, "logits").await;
        for hook in model["hooks"].as_array().unwrap() {
            let name = hook["hook"].as_str().unwrap();
            if name.ends_with("expert_indices") {
                continue;
            }
            let patched = logits(&app, json!([{"op": "patch", "hook": name, "source": {"cache": own}}])).await;
            if name.ends_with("hook_pattern") || name.ends_with("hook_attn_scores") {
                // Patching an attention map sums in another order.
                assert_close(&patched, &plain, 1e-5);
            } else {
                assert_eq!(patched, plain, "{checkpoint} {name}: bit for bit");
            }
        }
    }
}

#[tokio::test]
async fn adding_and_subtracting_a_vector_changes_nothing() {
    let app = TestApp::new().await;
    let plain = logits(&app, json!([])).await;
    let vector: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
    let add = |strength: f64| json!({"op": "add", "layers": [1], "vector": vector, "strength": strength});
    let there_and_back = logits(&app, json!([add(4.0), add(-4.0)])).await;
    assert_close(&there_and_back, &plain, 1e-5);
    let there = logits(&app, json!([add(4.0)])).await;
    let far = there.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far > 0.01, "the addition alone has an effect: {far}");
}

#[tokio::test]
async fn without_heads_attention_is_its_bias_and_changed_results_change_their_sum() {
    let app = TestApp::serving("gpt2/plain").await;
    let body = |interventions: Value| {
        json!({"input": IDS, "interventions": interventions,
            "capture": {"hooks": ["attn.hook_out", "attn.hook_result"], "layers": [1], "positions": "all"}})
    };
    let zeroed = app.run(body(json!([{"op": "zero", "hook": "attn.z", "layers": 1}]))).await;
    let cache = zeroed["caches"][0].as_str().unwrap();
    let out = tensor(&app, cache, "blocks.1.attn.hook_out").await;
    let d = out.len() / IDS.len();
    for row in out.chunks_exact(d) {
        assert_eq!(row, &out[..d], "the same bias at every position");
    }
    assert!(out[..d].iter().any(|x| *x != 0.0), "GPT-2 has an output bias");
    let no_result = app.run(body(json!([{"op": "zero", "hook": "attn.hook_result", "layers": 1}]))).await;
    let through_results = tensor(&app, no_result["caches"][0].as_str().unwrap(), "blocks.1.attn.hook_out").await;
    assert_close(&through_results, &out, 1e-5);
}

#[tokio::test]
async fn a_knockout_is_a_mask() {
    let app = TestApp::new().await;
    // The last query only sees itself, so its z is its own value.
    let body = json!({
        "input": IDS,
        "interventions": [{"op": "knockout", "layers": [0], "from": {"start": 0, "end": -1}, "to": "last"}],
        "capture": {"hooks": ["attn.pattern", "attn.z", "attn.v"], "layers": [0], "positions": "all"}
    });
    let run = app.run(body).await;
    let cache = run["caches"][0].as_str().unwrap();
    let pattern = tensor(&app, cache, "blocks.0.attn.hook_pattern").await;
    let n = IDS.len();
    for head in 0..4 {
        let row = &pattern[(head * n + n - 1) * n..][..n];
        assert_eq!(row[n - 1], 1.0);
        assert!(row[..n - 1].iter().all(|p| *p == 0.0));
    }
    let (z, v) = (tensor(&app, cache, "blocks.0.attn.hook_z").await, tensor(&app, cache, "blocks.0.attn.hook_v").await);
    for head in 0..4 {
        let (z, v) = (&z[((n - 1) * 4 + head) * 8..][..8], &v[((n - 1) * 2 + head / 2) * 8..][..8]);
        assert_eq!(z, v);
    }
}

#[tokio::test]
async fn a_change_affects_later_hooks_and_not_earlier_ones() {
    let app = TestApp::new().await;
    let capture = json!({"hooks": ["resid_pre", "resid_post"], "positions": "all"});
    let vector = vec![1.0; 32];
    let cache = |run: Value| run["caches"][0].as_str().unwrap().to_owned();
    let plain = cache(app.run(json!({"input": IDS, "capture": capture})).await);
    let at_post = json!([{"op": "add", "hook": "resid_post", "layers": [0], "vector": vector}]);
    let changed = cache(app.run(json!({"input": IDS, "interventions": at_post, "capture": capture})).await);
    let (post, pre) = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_pre");
    assert_ne!(tensor(&app, &changed, post).await, tensor(&app, &plain, post).await);
    assert_eq!(tensor(&app, &changed, post).await, tensor(&app, &changed, pre).await);
    let at_pre = json!([{"op": "add", "hook": "resid_pre", "layers": [1], "vector": vector}]);
    let changed = cache(app.run(json!({"input": IDS, "interventions": at_pre, "capture": capture})).await);
    assert_eq!(tensor(&app, &changed, post).await, tensor(&app, &plain, post).await);
    assert_ne!(tensor(&app, &changed, pre).await, tensor(&app, &plain, pre).await);
}

#[tokio::test]
async fn the_batch_changes_nothing_and_every_input_has_its_own_positions() {
    let app = TestApp::new().await;
    let plain = logits(&app, json!([])).await;
    let steer = json!([{"op": "knockout", "layers": [1], "to": "last", "from": [0]},
        {"op": "add", "layers": [0], "vector": vec![0.5; 32], "positions": "last"}]);
    let alone = logits(&app, steer.clone()).await;
    assert_ne!(alone, plain);
    let both = json!([[1, 5, 9], IDS]);
    let run = app
        .run(json!({"input": both, "interventions": steer, "reuse": false, "capture": {"hooks": ["logits"], "positions": "all"}}))
        .await;
    assert_eq!(tensor(&app, run["caches"][1].as_str().unwrap(), "logits").await, alone);
    let described = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
    assert_eq!(described["provenance"]["interventions"][0]["to"], json!([2]));
    assert_eq!(described["provenance"]["interventions"][1]["positions"], json!([2]));
    assert_eq!(described["provenance"]["interventions"][1]["hooks"], json!(["blocks.0.hook_resid_post"]));
}

#[tokio::test]
async fn equal_interventions_are_reused_and_others_are_not() {
    let app = TestApp::new().await;
    let run = |strength: f64, positions: Value| {
        let vector = vec![1.0; 32];
        let add = json!([{"op": "add", "layers": [1], "vector": vector, "strength": strength, "positions": positions}]);
        app.run(json!({"input": IDS, "interventions": add}))
    };
    let reused = |run: Value| run["n_reused"].as_u64().unwrap();
    app.run(json!({"input": IDS})).await;
    assert_eq!(reused(run(1.0, json!("all")).await), 0, "the pass without interventions does not answer");
    assert_eq!(reused(run(1.0, json!("all")).await), 1);
    assert_eq!(reused(run(2.0, json!("all")).await), 0);
    assert_eq!(reused(run(1.0, json!("last")).await), 0);
    assert_eq!(reused(run(1.0, json!(-1)).await), 1, "the same position, counted from the end");
    assert_eq!(reused(app.run(json!({"input": IDS})).await), 1, "the pass without interventions is unchanged");
}

#[tokio::test]
async fn stored_directions_can_be_added_and_the_receipt_names_them() {
    let app = TestApp::new().await;
    let values: Vec<f32> = (0..32).map(|i| (i as f32).cos()).collect();
    let made = app
        .post("/v1/directions", &json!({"method": "upload", "name": "up", "hook": "resid_post", "vectors": [{"layer": 1, "values": values}]}))
        .await;
    let made = if made.status == 201 {
        made.json()
    } else {
        panic!("{:?}", made.body);
    };
    let by_name = json!([{"op": "add", "layers": [1], "direction": {"direction": "up"}, "strength": 2.0}]);
    let by_vector = json!([{"op": "add", "layers": [1], "vector": values, "strength": 2.0}]);
    assert_eq!(logits(&app, by_name.clone()).await, logits(&app, by_vector).await);
    let run = app.run(json!({"input": IDS, "interventions": by_name, "reuse": false})).await;
    let cache = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
    let told = &cache["provenance"]["interventions"][0];
    assert_eq!((told["op"].as_str(), told["strength"].as_f64()), (Some("add"), Some(2.0)));
    assert_eq!(told["direction"]["direction"], "up");
    assert_eq!(told["numbers_blake3"].as_str().map(str::len), Some(64));
    drop(made);
}

#[tokio::test]
async fn an_accepted_run_keeps_its_direction_after_deletion_and_restart() {
    let mut app = TestApp::new().await;
    let values = vec![0.25; 32];
    let upload =
        json!({"method": "upload", "name": "up", "hook": "resid_post", "vectors": [{"layer": 0, "values": values}]});
    assert_eq!(app.post("/v1/directions", &upload).await.status, 201);
    let expected = logits(&app, json!([{"op": "add", "layers": [0], "vector": values}])).await;
    app.stop().await;
    app.start_again().await;
    // Fifty inputs, so that the run is not finished when the server stops.
    app.load().await;
    let body = json!({
        "model": "tiny", "input": vec![IDS; 50], "reuse": false,
        "interventions": [{"op": "add", "layers": [0], "direction": {"direction": "up"}}],
        "capture": {"hooks": ["logits"], "positions": "all"}
    });
    let run = app.post("/v1/runs", &body).await.json();
    assert_eq!(app.delete("/v1/directions/up").await.status, 204);
    app.stop().await;
    app.start_again().await;
    app.load().await;
    let id = run["id"].as_str().unwrap();
    let run = loop {
        let run = app.get(&format!("/v1/runs/{id}")).await.json();
        if run["finished_at"].is_string() {
            break run;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((run["status"].as_str(), run["n_done"].as_u64()), (Some("completed"), Some(50)));
    for cache in [0, 49] {
        assert_eq!(tensor(&app, run["caches"][cache].as_str().unwrap(), "logits").await, expected);
    }
}

#[tokio::test]
async fn a_router_can_be_changed() {
    let app = TestApp::serving("mixtral/window").await;
    let model = app.get("/v1/models/tiny").await.json();
    let hooks = model["hooks"].as_array().unwrap();
    let router = hooks.iter().find(|h| h["hook"] == "blocks.1.mlp.hook_router_logits").unwrap();
    let mut push = vec![0.0; usize::try_from(router["shape"][1].as_u64().unwrap()).unwrap()];
    push[2] = 100.0;
    let body = json!({
        "input": IDS,
        "interventions": [{"op": "add", "hook": "mlp.hook_router_logits", "layers": [1], "vector": push}],
        "capture": {"hooks": ["mlp.hook_expert_indices"], "layers": [1], "positions": "all"}
    });
    let run = app.run(body).await;
    let chosen = tensor(&app, run["caches"][0].as_str().unwrap(), "blocks.1.mlp.hook_expert_indices").await;
    let top_k = chosen.len() / IDS.len();
    assert!(chosen.chunks_exact(top_k).all(|c| c[0] == 2.0), "{chosen:?}");
}

#[tokio::test]
async fn a_dry_run_reports_what_would_be_changed() {
    let app = TestApp::new().await;
    let body = json!({
        "model": "tiny", "input": IDS, "interventions": [{"op": "zero", "hook": "attn.z", "layers": [-1], "heads": [1], "positions": [0, -1]}]
    });
    let dry = app.post("/v1/runs?dry_run=true", &body).await;
    assert_eq!(dry.status, 200);
    let told = &dry.json()["items"][0]["interventions"][0];
    assert_eq!(told, &json!({"op": "zero", "hooks": ["blocks.2.attn.hook_z"], "heads": [1], "positions": [0, 7]}));
}

#[tokio::test]
async fn impossible_interventions_are_refused_before_anything_runs() {
    let app = TestApp::new().await;
    let last_only = app.capture("abc", json!({"hooks": ["resid_post"]})).await;
    let maps = app.run(json!({"input": [1, 2, 3], "capture": {"hooks": ["attn.pattern"], "positions": "all"}})).await;
    let maps = maps["caches"][0].as_str().unwrap().to_owned();
    let v32 = vec![1.0; 32];
    let cases = [
        (json!({"op": "explode"}), 400, "invalid_field", "/interventions/0/op"),
        (json!({"op": "zero", "hok": "resid_post"}), 400, "invalid_body", "/interventions/0/hok"),
        (json!({"op": "zero", "factor": 2.0}), 400, "invalid_body", "/interventions/0/factor"),
        (json!({"op": "scale"}), 400, "invalid_body", "/interventions/0/factor"),
        (json!({"op": "scale", "factor": 1e300}), 422, "invalid_value", "/interventions/0/factor"),
        (json!({"op": "add"}), 400, "invalid_body", "/interventions/0/direction"),
        (
            json!({"op": "add", "vector": v32, "direction": {"vector": v32}}),
            400,
            "invalid_body",
            "/interventions/0/direction",
        ),
        (json!({"op": "add", "vector": [1.0]}), 422, "shape_mismatch", "/interventions/0/vector"),
        (json!({"op": "add", "direction": {"vector": [1.0]}}), 422, "shape_mismatch", "/interventions/0/direction"),
        (
            json!({"op": "add", "direction": {"direction": "nobody"}}),
            422,
            "unknown_direction",
            "/interventions/0/direction/direction",
        ),
        (json!({"op": "project_out", "vector": vec![0.0; 32]}), 422, "invalid_value", "/interventions/0/direction"),
        (json!({"op": "zero", "hook": "nowhere"}), 422, "unknown_hook", "/interventions/0/hook"),
        (json!({"op": "zero", "layers": [3]}), 422, "layer_out_of_range", "/interventions/0/layers"),
        (
            json!({"op": "zero", "hook": "blocks.1.hook_resid_post", "layers": [1]}),
            400,
            "invalid_body",
            "/interventions/0/layers",
        ),
        (json!({"op": "zero", "positions": [8]}), 422, "position_out_of_range", "/interventions/0/positions"),
        (json!({"op": "zero", "positions": "mean"}), 400, "invalid_field", "/interventions/0/positions"),
        (json!({"op": "zero", "positions": "generated"}), 422, "invalid_value", "/interventions/0/positions"),
        (json!({"op": "zero", "heads": [0]}), 422, "invalid_value", "/interventions/0/heads"),
        (json!({"op": "zero", "hook": "attn.z", "heads": [4]}), 422, "invalid_value", "/interventions/0/heads/0"),
        (
            json!({"op": "zero", "hook": "mlp.post", "neurons": [48]}),
            422,
            "invalid_value",
            "/interventions/0/neurons/0",
        ),
        (json!({"op": "zero", "from": [0]}), 400, "invalid_body", "/interventions/0/from"),
        (json!({"op": "knockout", "hook": "attn.z"}), 422, "invalid_value", "/interventions/0/hook"),
        (json!({"op": "knockout", "to": [0], "positions": [0]}), 400, "invalid_body", "/interventions/0/positions"),
        (json!({"op": "add", "hook": "attn.pattern", "vector": [1.0]}), 422, "invalid_value", "/interventions/0/hook"),
        (json!({"op": "mean_ablate"}), 400, "invalid_body", "/interventions/0/caches"),
        (json!({"op": "mean_ablate", "caches": ["x"]}), 422, "unknown_cache", "/interventions/0/caches/0"),
        (
            json!({"op": "mean_ablate", "hook": "attn.z", "caches": [last_only]}),
            422,
            "hook_not_stored",
            "/interventions/0/caches/0",
        ),
        (json!({"op": "patch"}), 400, "invalid_body", "/interventions/0/source"),
        (
            json!({"op": "patch", "source": {"cache": last_only}}),
            422,
            "position_out_of_range",
            "/interventions/0/source/positions",
        ),
        (
            json!({"op": "patch", "positions": [1, 2], "source": {"cache": last_only, "positions": [-1, -1, -1]}}),
            422,
            "shape_mismatch",
            "/interventions/0/positions",
        ),
        (
            json!({"op": "patch", "hook": "attn.z", "source": {"cache": last_only}}),
            422,
            "hook_not_stored",
            "/interventions/0/source/cache",
        ),
        (
            json!({"op": "patch", "hook": "attn.z", "source": {"cache": last_only, "hook": "resid_post"}}),
            422,
            "position_out_of_range",
            "/interventions/0/source/positions",
        ),
        (
            json!({"op": "patch", "hook": "attn.pattern", "source": {"cache": maps}}),
            422,
            "shape_mismatch",
            "/interventions/0/positions",
        ),
        (
            json!({"op": "patch", "hook": "attn.pattern", "source": {"cache": last_only, "hook": "resid_post"}}),
            422,
            "shape_mismatch",
            "/interventions/0/source/hook",
        ),
        (
            json!({"op": "patch", "positions": {"special": true}, "source": {"cache": last_only}}),
            400,
            "invalid_body",
            "/interventions/0/source/positions",
        ),
        (json!({"op": "set", "value": "high"}), 400, "invalid_field", "/interventions/0/value"),
    ];
    for (intervention, status, code, pointer) in cases {
        let body = json!({"model": "tiny", "input": IDS, "interventions": [intervention]});
        let answer = app.post("/v1/runs", &body).await;
        assert_eq!(answer.problem(status, code), [pointer], "{intervention}");
    }
    let many = vec![json!({"op": "zero"}); 257];
    let answer = app.post("/v1/runs", &json!({"model": "tiny", "input": IDS, "interventions": many})).await;
    assert_eq!(answer.problem(422, "invalid_value"), ["/interventions"]);
}

//! Runs that continue their inputs.

use serde_json::{Value, json};

use crate::support::{N_CTX, TestApp, with_model};

async fn cache(app: &TestApp, run: &Value, i: usize) -> Value {
    app.get(&format!("/v1/caches/{}", run["caches"][i].as_str().unwrap())).await.json()
}

async fn raw(app: &TestApp, run: &Value, hook: &str) -> bytes::Bytes {
    let cache = run["caches"][0].as_str().unwrap();
    app.get(&format!("/v1/caches/{cache}/tensors/{hook}?format=raw")).await.body
}

#[tokio::test]
async fn a_continued_input_is_captured_whole() {
    let app = TestApp::new().await;
    let capture = json!({"hooks": ["resid_post", "attn.pattern", "logits"], "positions": "all"});
    let body = json!({"input": [[4, 5, 6], [7]], "generate": {"max_new_tokens": 5, "temperature": 0.9, "seed": 3}, "capture": capture});
    let run = app.run(body.clone()).await;
    assert_eq!((&run["n_items"], &run["n_done"], &run["n_reused"]), (&json!(2), &json!(2), &json!(0)));
    for (i, n_prompt) in [3, 1].into_iter().enumerate() {
        let cache = cache(&app, &run, i).await;
        let completion = &cache["completion"];
        let ids: Vec<Value> = cache["token_ids"].as_array().unwrap().clone();
        assert_eq!(completion["first_position"], n_prompt);
        assert_eq!(completion["token_ids"].as_array().unwrap()[..], ids[n_prompt..]);
        assert_eq!((&completion["seed"], &completion["temperature"]), (&json!(3), &json!(0.9)));
        assert_eq!(cache["n_tokens"], ids.len());
        assert_eq!(cache["tokens"].as_array().unwrap().len(), ids.len());
        assert_eq!(cache["hooks"][0]["shape"], json!([4, ids.len(), ids.len()]), "the pattern covers new tokens too");
        let told = &run["completions"][i];
        assert_eq!((&told["cache"], &told["text"]), (&run["caches"][i], &completion["text"]));
    }
    // The file says where the new tokens begin.
    let file = app.get(&format!("/v1/caches/{}/safetensors", run["caches"][0].as_str().unwrap())).await.body;
    let (_, header) = safetensors::SafeTensors::read_metadata(&file).unwrap();
    let told: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["completion"]).unwrap();
    assert_eq!((&told["first"], &told["finish_reason"]), (&json!(3), &run["completions"][0]["finish_reason"]));
    // The numbers equal those of the whole text posted as it is, and those of the same request again.
    let first = cache(&app, &run, 0).await;
    let whole = json!({"input": first["token_ids"], "capture": capture, "reuse": false});
    let posted = app.run(whole.clone()).await;
    for hook in ["blocks.2.hook_resid_post", "blocks.0.attn.hook_pattern", "logits"] {
        assert_eq!(raw(&app, &run, hook).await, raw(&app, &posted, hook).await, "{hook}");
    }
    assert_eq!(posted["completions"], Value::Null);
    let again = app.run(body).await;
    assert_eq!(again["completions"][1]["token_ids"], run["completions"][1]["token_ids"]);
    assert_eq!(again["n_reused"], 2, "the same tokens were generated and already stored");
}

#[tokio::test]
async fn prompt_and_generated_rows_can_be_fetched_by_themselves() {
    let app = TestApp::new().await;
    let body =
        json!({"input": [[4, 5, 6], [7, 8]], "generate": {"max_new_tokens": 3}, "capture": {"positions": "all"}});
    let run = app.run(body).await;
    for (i, n_prompt) in [3, 2].into_iter().enumerate() {
        let id = run["caches"][i].as_str().unwrap();
        let n = cache(&app, &run, i).await["n_tokens"].as_u64().unwrap();
        let fetch = async |query: String| app.get(&format!("/v1/caches/{id}/{query}&format=raw")).await.body;
        for path in ["layers?", "layers/1?", "tensors/blocks.1.hook_resid_post?"] {
            let prompt = fetch(format!("{path}positions=prompt")).await;
            assert_eq!(prompt, fetch(format!("{path}positions=0:{n_prompt}")).await);
            let generated = fetch(format!("{path}positions=generated")).await;
            assert_eq!(generated, fetch(format!("{path}positions={n_prompt}:{n}")).await);
        }
        app.get(&format!("/v1/caches/{id}/layers/1?position=prompt")).await.problem(400, "invalid_query");
    }
    // each cache has its own prompt
    let uri = format!("/v1/runs/{}/tensors/blocks.1.hook_resid_post", run["id"].as_str().unwrap());
    let prompts = app.get(&format!("{uri}?positions=prompt")).await.json();
    assert_eq!((&prompts["shape"][0], &prompts["offsets"]), (&json!(5), &json!([0, 3, 5])));
    // without a continuation all of it is the prompt
    let plain = app.capture("the cat", json!({"positions": "all"})).await;
    let fetch = async |positions: &str| app.get(&format!("/v1/caches/{plain}/layers/1?positions={positions}")).await;
    assert_eq!(fetch("prompt").await.json()["values"], fetch("all").await.json()["values"]);
    fetch("generated").await.problem(422, "position_out_of_range");
    app.get("/v1/export?positions=prompt").await.problem(400, "invalid_query");
}

#[tokio::test]
async fn positions_count_over_prompt_and_new_tokens() {
    let app = TestApp::new().await;
    let body = |positions: Value| json!({"input": [4, 5, 6], "generate": {"max_new_tokens": 4}, "capture": {"hooks": ["resid_post.1"], "positions": positions}});
    let all = app.run(body(json!("all"))).await;
    let n = cache(&app, &all, 0).await["n_tokens"].as_u64().unwrap() as usize;
    let rows = raw(&app, &all, "blocks.1.hook_resid_post").await;
    let width = rows.len() / n;
    for (positions, row) in [(json!("last"), n - 1), (json!(-2), n - 2), (json!(3), 3)] {
        let run = app.run(body(positions)).await;
        let got = raw(&app, &run, "blocks.1.hook_resid_post").await;
        assert_eq!(got, rows[row * width..(row + 1) * width]);
    }
    // The position is possible if the continuation is long enough. It is not, so the item fails with the problem that a
    // request would get.
    let run = json!({"input": [4, 5, 6], "generate": {"max_new_tokens": 30, "stop": run_text(&app).await}, "capture": {"positions": 25}});
    let failed = app.post("/v1/runs?wait=60", &with_model(run)).await.json();
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("position_out_of_range")));
}

/// A text that the continuation of `[4, 5, 6]` begins with.
async fn run_text(app: &TestApp) -> Value {
    let run = app.run(json!({"input": [4, 5, 6], "generate": {"max_new_tokens": 8}})).await;
    let text = run["completions"][0]["text"].as_str().unwrap().to_owned();
    let (end, _) = text.char_indices().nth(1).unwrap_or((text.len(), ' '));
    assert!(end > 0, "the continuation has a text");
    json!([text[..end]])
}

#[tokio::test]
async fn kinds_of_tokens_are_distinguished_among_new_tokens_too() {
    let app = TestApp::new().await;
    let generate = json!({"max_new_tokens": 6, "temperature": 3.0, "seed": 11});
    let run = app.run(json!({"input": "the cat", "generate": generate, "capture": {"positions": "all"}})).await;
    let whole = cache(&app, &run, 0).await["token_ids"].clone();
    for positions in [json!({"special": false}), json!({"mean": {"special": false}}), json!({"text": "cat"})] {
        let body =
            json!({"input": "the cat", "generate": generate, "capture": {"positions": positions}, "reuse": false});
        let continued = cache(&app, &app.run(body).await, 0).await;
        assert_eq!(continued["token_ids"], whole);
        // The same tokens posted as they are, with the same positions.
        let posted = app.run(json!({"input": whole, "capture": {"positions": positions}, "reuse": false})).await;
        let posted = cache(&app, &posted, 0).await;
        assert_eq!(continued["content_hash"], posted["content_hash"], "{positions}");
        assert_eq!(continued["positions"], posted["positions"]);
    }
}

#[tokio::test]
async fn the_seed_is_reported_and_reproduces_the_continuation() {
    let app = TestApp::new().await;
    let body =
        |seed: Value| json!({"input": "the cat", "generate": {"max_new_tokens": 12, "temperature": 1.0, "seed": seed}});
    let first = app.run(body(Value::Null)).await;
    let told = first["completions"][0]["seed"].clone();
    assert!(told.as_u64().is_some());
    let again = app.run(body(told)).await;
    assert_eq!(first["completions"][0]["token_ids"], again["completions"][0]["token_ids"]);
}

#[tokio::test]
async fn a_dry_run_reports_the_largest_possible_size() {
    let app = TestApp::new().await;
    let body = with_model(
        json!({"input": [1, 2, 3], "generate": {"max_new_tokens": 7}, "capture": {"hooks": ["resid_post.0"], "positions": "all"}}),
    );
    let dry = app.post("/v1/runs?dry_run=true", &body).await.json();
    assert_eq!(dry["items"][0]["hooks"][0]["shape"], json!([10, 32]));
    assert_eq!(dry["n_bytes"], 10 * 32 * 4);
}

#[tokio::test]
async fn impossible_generations_are_refused() {
    let app = TestApp::new().await;
    let refused = async |generate: Value, status: u16, code: &str, pointer: &str| {
        let body = with_model(json!({"input": [1, 2, 3], "generate": generate}));
        let pointers = app.post("/v1/runs", &body).await.problem(status, code);
        assert_eq!(pointers, [pointer], "{generate}");
    };
    refused(json!({"max_new_tokens": 0}), 422, "invalid_value", "/generate/max_new_tokens").await;
    refused(json!({"max_new_tokens": N_CTX}), 422, "too_many_tokens", "/generate/max_new_tokens").await;
    refused(json!({"max_new_tokens": N_CTX - 2}), 422, "too_many_tokens", "/input").await;
    refused(json!({"max_new_tokens": 1, "temperature": -1}), 422, "invalid_value", "/generate/temperature").await;
    refused(json!({"max_new_tokens": 1, "top_k": 0}), 422, "invalid_value", "/generate/top_k").await;
    refused(json!({"max_new_tokens": 1, "top_p": 1.5}), 422, "invalid_value", "/generate/top_p").await;
    refused(json!({"max_new_tokens": 1, "seed": 1u64 << 60}), 422, "invalid_value", "/generate/seed").await;
    refused(json!({"max_new_tokens": 1, "stop": ["a", ""]}), 422, "invalid_value", "/generate/stop/1").await;
    refused(json!({"max_new_tokens": 1, "stop": 3}), 400, "invalid_field", "/generate/stop").await;
    refused(json!({"max_new_tokens": 1, "best_of": 3}), 400, "invalid_body", "/generate/best_of").await;
    refused(json!({"temperature": 1}), 400, "invalid_body", "/generate/max_new_tokens").await;
    // An input that is too long together with its continuation is truncated if requested.
    let ids: Vec<u32> = (0..N_CTX as u32).collect();
    let run = app.run(json!({"input": ids, "truncate": "left", "generate": {"max_new_tokens": 4}})).await;
    let cache = cache(&app, &run, 0).await;
    assert_eq!((&cache["n_truncated"], &cache["completion"]["first_position"]), (&json!(4), &json!(N_CTX - 4)));
}

#[tokio::test]
async fn a_cancelled_continuation_stops() {
    let app = TestApp::new().await;
    let many: Vec<Vec<u32>> = (0..40).map(|i| vec![i]).collect();
    let body =
        with_model(json!({"input": many, "generate": {"max_new_tokens": 60, "temperature": 5.0}, "reuse": false}));
    let run = app.post("/v1/runs", &body).await.json();
    let id = run["id"].as_str().unwrap();
    let cancelled = app.post(&format!("/v1/runs/{id}/cancel"), &Value::Null).await.json();
    assert_eq!(cancelled["status"], "cancelled");
    // The server continues with other runs.
    app.run(json!({"input": "the cat", "generate": {"max_new_tokens": 2}})).await;
    assert_eq!(app.get(&format!("/v1/runs/{id}")).await.json()["status"], "cancelled");
}

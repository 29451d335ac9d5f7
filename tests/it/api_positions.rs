//! Positions that depend on the tokens, chats with their spans, and what a cache of such positions describes and
//! serves.

use serde_json::{Value, json};

use crate::support::{D_MODEL, N_CTX, TestApp, flat, with_model};

/// A text of the tiny tokenizer: `<s>`, `th`, `e`… It merges "the", " the", "in" and " a"; everything else is bytes.
const TEXT: &str = "in the den the é";

/// What a dry run reports about the positions of the first input.
async fn resolved(app: &TestApp, body: Value) -> Value {
    let answer = app.post("/v1/runs?dry_run=true", &with_model(body.clone())).await;
    assert_eq!(answer.status, 200, "{body}: {:#}", answer.json());
    answer.json()["items"][0]["positions"].clone()
}

async fn values(app: &TestApp, cache: &Value, query: &str) -> Vec<f32> {
    let uri = format!("/v1/caches/{}/tensors/blocks.1.hook_resid_post{query}", cache.as_str().unwrap());
    let answer = app.get(&uri).await;
    assert_eq!(answer.status, 200, "{uri}: {:#}", answer.json());
    flat(&answer.json()["values"])
}

#[tokio::test]
async fn positions_are_found_by_text_kind_and_message() {
    let app = TestApp::new().await;
    let tokens = app.post("/v1/tokenize", &with_model(json!({"text": TEXT}))).await.json();
    let chat_field = with_model(json!({"text": TEXT, "add_generation_prompt": false}));
    app.post("/v1/tokenize", &chat_field).await.problem(400, "invalid_body");
    assert_eq!(tokens["tokens"], json!(["<s>", "in", " the", " ", "d", "e", "n", " the", " ", "\u{fffd}", "\u{fffd}"]));
    assert_eq!(tokens["offsets"][0], Value::Null, "BOS stands for nothing in the text");
    assert_eq!(
        json!([tokens["offsets"][2], tokens["offsets"][9], tokens["offsets"][10]]),
        json!([[2, 6], [15, 16], [15, 16]])
    );
    for (positions, found) in [
        (json!({"text": "the"}), json!(2)),
        (json!({"text": "the", "occurrence": -1}), json!(7)),
        (json!({"text": "den", "which": "first"}), json!(4)),
        (json!({"text": "den", "which": "all"}), json!({"start": 4, "end": 7})),
        (json!({"text": "é"}), json!(10)),
        (json!({"text": "é", "which": "all"}), json!({"start": 9, "end": 11})),
        (json!({"special": true}), json!([0])),
        (json!({"special": false}), json!({"start": 1, "end": 11})),
        (json!({"mean": {"special": false}}), json!({"mean": {"start": 1, "end": 11}})),
        (json!({"mean": "all"}), json!("mean")),
        (json!({"mean": [-1, 0]}), json!({"mean": [-1, 0]})),
        (json!("last"), json!("last")),
    ] {
        let body = json!({"input": TEXT, "capture": {"positions": positions}});
        assert_eq!(resolved(&app, body).await, found, "{positions}");
        let body = json!({"items": [{"text": TEXT, "positions": positions}], "capture": {"positions": "all"}});
        assert_eq!(resolved(&app, body).await, found, "{positions} of an item");
        // Token ids spell the same text; if they include BOS, BOS has a text too.
        let body = json!({"input": tokens["token_ids"], "capture": {"positions": positions}});
        assert_eq!(resolved(&app, body).await, found, "{positions} of token ids");
    }
    let chat = json!([{"role": "user", "content": "the den"}, {"role": "user", "content": "in"}]);
    for (positions, found) in [
        (json!({"message": 0, "which": "all"}), json!({"start": 2, "end": 7})),
        (json!({"message": -1}), json!(8)),
        (json!({"mean": {"message": 0, "which": "all"}}), json!({"mean": {"start": 2, "end": 7}})),
        (json!({"special": true}), json!([0, 1, 7])),
        (json!({"text": "<|user|>", "occurrence": 1}), json!(7)),
    ] {
        let body = json!({"messages": chat, "capture": {"positions": positions}});
        assert_eq!(resolved(&app, body).await, found, "{positions}");
    }
}

#[tokio::test]
async fn a_cache_holds_the_rows_its_description_names() {
    let app = TestApp::new().await;
    let capture =
        |positions: Value| json!({"input": TEXT, "capture": {"hooks": ["resid_post"], "positions": positions}});
    let all = app.run(capture(json!("all"))).await["caches"][0].clone();
    for (positions, named, query, shape) in [
        (json!({"text": "the", "occurrence": 1}), json!(7), "?position=7", json!([D_MODEL])),
        (json!({"text": "den", "which": "all"}), json!({"start": 4, "end": 7}), "?positions=4:7", json!([3, D_MODEL])),
        (json!({"special": false}), json!({"start": 1, "end": 11}), "?positions=1:", json!([10, D_MODEL])),
    ] {
        let run = app.run(capture(positions.clone())).await;
        let cache = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
        assert_eq!((&cache["positions"], &cache["hooks"][0]["shape"]), (&named, &shape), "{positions}");
        assert_eq!(values(&app, &cache["id"], "").await, values(&app, &all, query).await, "{positions}");
    }
}

#[tokio::test]
async fn means_leave_out_the_requested_kinds_of_tokens() {
    let app = TestApp::new().await;
    let capture = |positions: Value| json!({"input": TEXT, "capture": {"hooks": ["resid_post", "attn.pattern"], "positions": positions}});
    let run = app.run(capture(json!({"mean": {"special": false}}))).await;
    let mean = run["caches"][0].clone();
    let cache = app.get(&format!("/v1/caches/{}", mean.as_str().unwrap())).await.json();
    assert_eq!(cache["positions"], json!({"mean": {"start": 1, "end": 11}}));
    let of = |hook: &str| cache["hooks"].as_array().unwrap().iter().find(|h| h["hook"] == hook).unwrap().clone();
    assert_eq!(of("blocks.1.hook_resid_post")["shape"], json!([D_MODEL]));
    assert_eq!(of("blocks.1.attn.hook_pattern")["axes"], json!(["head", "k_pos"]));
    let all = app.run(capture(json!("all"))).await["caches"][0].clone();
    let rows = values(&app, &all, "?positions=1:").await;
    let expected: Vec<f32> = (0..D_MODEL)
        .map(|c| (rows.iter().skip(c).step_by(D_MODEL).map(|v| f64::from(*v)).sum::<f64>() / 10.0) as f32)
        .collect();
    assert_eq!(values(&app, &mean, "").await, expected);
    assert_ne!(values(&app, &all, "?position=mean").await, expected, "BOS counts in the plain mean");
    // The cache holds neither the mean over all tokens nor a single position.
    for query in ["?position=mean", "?position=1", "?positions=all"] {
        let uri = format!("/v1/caches/{}/tensors/blocks.1.hook_resid_post{query}", mean.as_str().unwrap());
        app.get(&uri).await.problem(422, "position_out_of_range");
    }
    // Other requests for the same rows are not computed again, nor are means of stored rows.
    for (positions, n_reused) in
        [(json!({"mean": {"start": 1}}), 1), (json!({"mean": {"start": 2}}), 1), (json!("mean"), 1)]
    {
        assert_eq!(app.run(capture(positions.clone())).await["n_reused"], n_reused, "{positions}");
    }
    // The library finds the same row.
    let (folder, id) = (app.data_dir().to_owned(), mean.as_str().unwrap().parse().unwrap());
    let read = move || {
        let archive = residuum::Archive::open(folder).unwrap();
        let tensor = archive.tensor(id, "blocks.1.hook_resid_post".parse().unwrap()).unwrap();
        tensor.to_vec1::<f32>().unwrap()
    };
    assert_eq!(tokio::task::spawn_blocking(read).await.unwrap(), expected);
}

#[tokio::test]
async fn comparisons_take_the_row_that_each_cache_holds() {
    let app = TestApp::new().await;
    let items = json!([{"text": "in the den"}, {"text": "a den in the é"}, {"text": "the"}]);
    let run = app.run(json!({"items": items, "capture": {"positions": {"text": "the"}}})).await;
    let ids = run["caches"].clone();
    let body = json!({"mode": "matrix", "caches": ids, "position": "stored"});
    let answer = app.post("/v1/comparisons", &body).await;
    assert_eq!(answer.status, 200, "{:#}", answer.json());
    let cosines = flat(&answer.json()["values"]["cosine"][0]);
    assert!((cosines[0] - 1.0).abs() < 1e-6 && cosines[1] < 0.999_999, "{cosines:?}");
    app.post("/v1/comparisons", &json!({"mode": "matrix", "caches": ids})).await.problem(422, "position_out_of_range");
    let all = app.capture("the", json!({"positions": "all"})).await;
    let body = json!({"mode": "pairs", "a": [all], "b": [ids[0]], "position": "stored"});
    assert_eq!(app.post("/v1/comparisons", &body).await.problem(422, "position_out_of_range"), ["/a/0"]);
}

#[tokio::test]
async fn positions_that_the_input_lacks_are_refused() {
    let app = TestApp::new().await;
    let chat = json!([{"role": "user", "content": "the"}]);
    for (body, code, pointer, says) in [
        (
            json!({"input": TEXT, "capture": {"positions": {"text": "cat"}}}),
            "text_not_found",
            "/input",
            "does not occur",
        ),
        (
            json!({"input": ["the", TEXT], "capture": {"positions": {"text": "the", "occurrence": 1}}}),
            "text_not_found",
            "/input/0",
            "occurs once",
        ),
        (
            json!({"items": [{"text": TEXT, "positions": {"text": "the", "occurrence": 2}}]}),
            "text_not_found",
            "/items/0/positions",
            "occurs 2 times",
        ),
        (
            json!({"input": "", "capture": {"positions": {"special": false}}}),
            "position_out_of_range",
            "/input",
            "only special",
        ),
        (
            json!({"input": [5], "capture": {"positions": {"special": true}}}),
            "position_out_of_range",
            "/input",
            "no special",
        ),
        (json!({"input": TEXT, "capture": {"positions": {"message": 0}}}), "invalid_value", "/input", "need a chat"),
        (
            json!({"messages": chat, "capture": {"positions": {"message": 1}}}),
            "position_out_of_range",
            "/messages",
            "messages number 1",
        ),
        (
            json!({"items": [{"messages": chat, "positions": {"message": -2}}]}),
            "position_out_of_range",
            "/items/0/positions",
            "does not exist",
        ),
        (
            json!({"messages": chat, "add_generation_prompt": true, "continue_final_message": true}),
            "invalid_value",
            "/continue_final_message",
            "cannot both be true",
        ),
        (
            json!({"messages": [{"role": "user"}], "continue_final_message": true}),
            "invalid_value",
            "/continue_final_message",
            "no text",
        ),
        (
            json!({"messages": chat, "template_kwargs": {"messages": 1}}),
            "invalid_value",
            "/template_kwargs/messages",
            "field of its own",
        ),
    ] {
        let answer = app.post("/v1/runs", &with_model(body.clone())).await;
        assert_eq!(answer.problem(422, code), [pointer], "{body}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(says), "{body}: {:#}", answer.json());
    }
    for (positions, says) in [
        (json!({"text": ""}), "empty"),
        (json!({"text": "a", "occurence": 0}), "occurrence"),
        (json!({"text": "a", "which": "both"}), "\"first\", \"last\" or \"all\""),
        (json!({"mean": {"mean": "all"}}), "mean of a mean"),
        (json!({"special": "yes"}), "true or false"),
        (json!({"mean": "mean"}), "mean of a mean"),
    ] {
        let answer =
            app.post("/v1/runs", &with_model(json!({"input": "a", "capture": {"positions": positions}}))).await;
        let pointers = answer.problem(400, if says == "occurrence" { "invalid_body" } else { "invalid_field" });
        assert!(pointers[0].starts_with("/capture/positions"), "{positions}: {pointers:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(says), "{positions}: {:#}", answer.json());
    }
    let body = with_model(json!({"input": "a", "continue_final_message": true}));
    app.post("/v1/runs", &body).await.problem(400, "invalid_body");
    let cache = app.capture("the", json!({"positions": "all"})).await;
    for query in ["positions=special:false", "position=special", "position=mean:1:3"] {
        app.get(&format!("/v1/caches/{cache}/layers/0?{query}")).await.problem(400, "invalid_query");
    }
}

#[tokio::test]
async fn positions_of_a_truncated_input_count_the_remaining_tokens() {
    let app = TestApp::new().await;
    // One token per letter, and BOS: two letters too many.
    let text = format!("x{}xyx", "-".repeat(N_CTX - 3));
    for (side, positions, found) in [
        ("right", json!({"text": "x", "occurrence": -1}), json!(N_CTX - 1)),
        ("left", json!({"text": "x"}), json!(N_CTX - 3)),
        ("left", json!({"special": false}), json!({"start": 1, "end": N_CTX})),
    ] {
        let body = json!({"input": text, "truncate": side, "capture": {"positions": positions}});
        assert_eq!(resolved(&app, body).await, found, "{side} {positions}");
    }
    let body = json!({"input": text, "truncate": "right", "capture": {"positions": {"text": "y"}}});
    let refused = app.post("/v1/runs", &with_model(body)).await;
    refused.problem(422, "text_not_found");
    assert!(refused.json()["detail"].as_str().unwrap().contains("in what truncation left"));
}

#[tokio::test]
async fn a_chat_reports_where_its_messages_are() {
    let app = TestApp::new().await;
    let messages = json!([{"role": "user", "content": " the\n"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "in"}]);
    let tokens = app.post("/v1/tokenize", &with_model(json!({"messages": messages}))).await.json();
    assert_eq!(tokens["rendered"], "<s><|user|> the\n<|user|><|user|>in");
    assert_eq!(tokens["tokens"], json!(["<s>", "<|user|>", " the", "\n", "<|user|>", "<|user|>", "in"]));
    assert_eq!(
        tokens["messages"],
        json!([
            {"role": "user", "start": 2, "end": 3},
            {"role": "assistant", "start": null, "end": null},
            {"role": "user", "start": 6, "end": 7}
        ])
    );
    assert_eq!(app.post("/v1/tokenize", &with_model(json!({"text": "in"}))).await.json()["messages"], Value::Null);
    let both = json!({"messages": messages, "add_generation_prompt": true, "continue_final_message": true});
    let refused = app.post("/v1/tokenize", &with_model(both)).await;
    assert_eq!(refused.problem(422, "invalid_value"), ["/continue_final_message"]);
    let open = json!({"messages": messages, "continue_final_message": true});
    assert_eq!(app.post("/v1/tokenize", &with_model(open)).await.json()["tokens"], tokens["tokens"]);
}

#[tokio::test]
async fn attention_maps_have_the_axes_head_query_and_key_of_their_input() {
    let app = TestApp::new().await;
    let capture = json!({"hooks": ["attn.pattern", "attn.attn_scores"], "layers": 0, "positions": "all"});
    let run = app.run(json!({"input": [[1, 2, 3, 4, 5, 6, 7], [8, 9]], "capture": capture})).await;
    for (cache, n) in run["caches"].as_array().unwrap().iter().zip([7, 2]) {
        for hook in ["pattern", "attn_scores"] {
            let uri = format!("/v1/caches/{}/tensors/blocks.0.attn.hook_{hook}", cache.as_str().unwrap());
            let tensor = app.get(&uri).await.json();
            assert_eq!(tensor["axes"], json!(["head", "q_pos", "k_pos"]));
            assert_eq!((&tensor["shape"][1], &tensor["shape"][2]), (&json!(n), &json!(n)), "{hook}");
            if hook == "pattern" {
                let rows = flat(&tensor["values"]);
                assert!(rows.chunks(n).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
            }
        }
    }
}

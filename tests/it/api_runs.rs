//! Posting runs: every form of input and capture, waiting, cancelling, and everything that is refused.

use axum::{body::Body, http::Method};
use residuum::{api::ApiConfig, engine::Limits};
use serde_json::{Value, json};

use crate::support::{D_MODEL, D_VOCAB, N_CTX, N_LAYERS, TestApp, flat, request, with_model};

#[tokio::test]
async fn every_form_of_input_becomes_caches_in_order() {
    let app = TestApp::new().await;
    for (body, n_items) in [
        (json!({"input": "the cat"}), 1),
        (json!({"input": ["the cat", "a dog", "th"]}), 3),
        (json!({"input": [5, 6, 7]}), 1),
        (json!({"input": [[5, 6, 7], [8]]}), 2),
        (json!({"messages": [{"role": "user", "content": "the cat"}]}), 1),
        (
            json!({"items": [{"text": "one", "label": "x"}, {"token_ids": [1, 2]}, {"messages": [{"role": "user", "content": "hi"}]}]}),
            3,
        ),
    ] {
        let run = app.run(body.clone()).await;
        assert_eq!((run["n_items"].as_u64(), run["n_done"].as_u64()), (Some(n_items), Some(n_items)), "{body}");
        let listed = app.get(&format!("/v1/runs/{}/caches", run["id"].as_str().unwrap())).await.json();
        let ids: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|c| &c["id"]).collect();
        assert_eq!(ids, run["caches"].as_array().unwrap().iter().collect::<Vec<_>>());
        let order: Vec<u64> =
            listed["items"].as_array().unwrap().iter().map(|c| c["item_index"].as_u64().unwrap()).collect();
        assert_eq!(order, (0..n_items).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_cache_describes_what_the_model_read() {
    let app = TestApp::new().await;
    let run = app.run(json!({"input": "the cat", "tags": ["demo"], "metadata": {"split": "train"}})).await;
    let cache = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
    assert_eq!(cache["text"], "the cat");
    assert_eq!(cache["tokens"][0], "<s>");
    assert_eq!(cache["bos"], json!({"requested": null, "present": true, "added": true, "token_id": 261}));
    assert_eq!(
        cache["tokens"].as_array().unwrap()[1..].iter().map(|t| t.as_str().unwrap()).collect::<String>(),
        "the cat"
    );
    assert_eq!((&cache["n_layers"], &cache["d_model"]), (&json!(N_LAYERS), &json!(D_MODEL)));
    assert_eq!(cache["hooks"].as_array().unwrap().len(), N_LAYERS);
    assert_eq!(cache["hooks"][0]["hook"], "blocks.0.hook_resid_post");
    assert_eq!(cache["hooks"][0]["hf_hidden_states_index"], 1);
    assert_eq!(cache["hooks"][N_LAYERS - 1]["hf_hidden_states_index"], Value::Null);
    assert_eq!((&cache["tags"], &cache["metadata"]), (&json!(["demo"]), &json!({"split": "train"})));
    assert_eq!(cache["provenance"]["compute_dtype"], "float32");
}

#[tokio::test]
async fn captures_have_the_documented_shapes() {
    let app = TestApp::new().await;
    let hooks = ["hook_embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "final_norm", "logits"];
    for (positions, rows) in [
        (json!("last"), None),
        (json!("mean"), None),
        (json!(-2), None),
        (json!("all"), Some(4)),
        (json!([0, -1, 0]), Some(3)),
        (json!({"start": 1, "end": 3}), Some(2)),
    ] {
        let body = json!({"input": [9, 8, 7, 6], "capture": {"hooks": hooks, "positions": positions}});
        let answer = app.post("/v1/runs?dry_run=true", &with_model(body.clone())).await;
        assert_eq!(answer.status, 200);
        let promised = answer.json();
        let run = app.run(body).await;
        let cache = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
        assert_eq!(cache["n_bytes"], promised["n_bytes"]);
        for (hook, dry) in
            cache["hooks"].as_array().unwrap().iter().zip(promised["items"][0]["hooks"].as_array().unwrap())
        {
            assert_eq!((&hook["hook"], &hook["shape"]), (&dry["hook"], &dry["shape"]));
            let width = if hook["hook"] == "logits" { D_VOCAB } else { D_MODEL };
            let shape = rows.map_or(json!([width]), |n| json!([n, width]));
            assert_eq!(hook["shape"], shape, "{}", hook["hook"]);
        }
        assert_eq!(cache["hooks"].as_array().unwrap().len(), 3 + 5 * N_LAYERS);
    }
}

#[tokio::test]
async fn values_can_come_with_the_run() {
    let app = TestApp::new().await;
    let body = with_model(json!({"input": [[1, 2], [3]], "capture": {"hooks": ["resid_post.1"], "positions": "all"}}));
    let run = app.post("/v1/runs?wait=60&include=values", &body).await.json();
    let tensor = &run["values"][0]["tensors"][0];
    assert_eq!(
        (&tensor["hook"], &tensor["layer"], &tensor["shape"]),
        (&json!("blocks.1.hook_resid_post"), &json!(1), &json!([2, D_MODEL]))
    );
    let fetched = app.get(&format!("/v1/caches/{}/layers/1", run["caches"][0].as_str().unwrap())).await.json();
    assert_eq!(fetched["values"], tensor["values"]);
    assert_eq!(run["values"][1]["cache"], run["caches"][1]);
}

#[tokio::test]
async fn numbers_do_not_depend_on_the_other_inputs_of_the_batch() {
    let app = TestApp::new().await;
    let capture = json!({"hooks": ["resid_post", "attn_out", "logits"], "positions": "all"});
    let alone = |ids: Vec<u32>| json!({"input": [ids], "capture": capture, "reuse": false});
    let inputs = [vec![1], vec![4, 5, 6, 7, 8, 9, 10], vec![200, 100], vec![3; 20]];
    let together = app.run(json!({"input": inputs, "capture": capture, "reuse": false})).await;
    for (i, ids) in inputs.iter().enumerate() {
        let single = app.run(alone(ids.clone())).await;
        for hook in ["blocks.0.hook_resid_post", "blocks.2.hook_attn_out", "logits"] {
            let of = |run: &Value, i: usize| {
                format!("/v1/caches/{}/tensors/{hook}?format=raw", run["caches"][i].as_str().unwrap())
            };
            let (a, b) = (app.get(&of(&together, i)).await, app.get(&of(&single, 0)).await);
            assert_eq!(a.body, b.body, "{hook} of input {i} depends on the batch");
        }
    }
}

#[tokio::test]
async fn what_is_stored_is_not_computed_again() {
    let app = TestApp::new().await;
    let all = json!({"hooks": ["resid_post", "resid_mid"]});
    let first = app.run(json!({"input": "the cat", "capture": all})).await;
    assert_eq!(first["n_reused"], 0);
    let again = app.run(json!({"input": "the cat", "capture": {"hooks": ["resid_mid.1"]}})).await;
    assert_eq!(again["n_reused"], 1, "a part of the stored rows answers");
    let cache = app.get(&format!("/v1/caches/{}", again["caches"][0].as_str().unwrap())).await.json();
    assert_eq!((&cache["reused"], cache["hooks"].as_array().unwrap().len()), (&json!(true), 1));
    let fetch = |run: &Value| {
        format!("/v1/caches/{}/tensors/blocks.1.hook_resid_mid?format=raw", run["caches"][0].as_str().unwrap())
    };
    assert_eq!(app.get(&fetch(&first)).await.body, app.get(&fetch(&again)).await.body);
    for other in [
        json!({"input": "the cat", "capture": all, "reuse": false}),
        json!({"input": "the cat", "capture": {"hooks": ["resid_mid", "attn_out"]}}),
        json!({"input": "the cat", "capture": {"hooks": ["resid_mid"], "positions": 0}}),
        json!({"input": "the cats", "capture": all}),
    ] {
        assert_eq!(app.run(other.clone()).await["n_reused"], 0, "{other}");
    }
}

#[tokio::test]
async fn an_idempotency_key_replays_its_run() {
    let app = TestApp::new().await;
    let body = with_model(json!({"input": "the cat"}));
    let key = [("idempotency-key", "k1")];
    let first = app.post_with("/v1/runs?wait=60", &key, &body).await;
    let again = app.post_with("/v1/runs?wait=60", &key, &body).await;
    assert_eq!(
        (first.status.as_u16(), first.json()["id"].clone()),
        (again.status.as_u16(), again.json()["id"].clone())
    );
    assert_eq!(first.header("location"), format!("/v1/runs/{}", first.json()["id"].as_str().unwrap()));
    let other = with_model(json!({"input": "the dog"}));
    app.post_with("/v1/runs", &key, &other).await.problem(422, "idempotency_key_reused");
    app.post_with("/v1/runs", &[("idempotency-key", "")], &body).await.problem(400, "invalid_header");
    assert_eq!(app.get("/v1/runs").await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn truncation_cuts_the_named_side_and_keeps_bos() {
    let app = TestApp::new().await;
    let long = "ab".repeat(N_CTX);
    app.post("/v1/runs", &with_model(json!({"input": long}))).await.problem(422, "too_many_tokens");
    for (side, second) in [("right", "a"), ("left", "b")] {
        let run = app.run(json!({"input": long, "truncate": side})).await;
        let cache = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
        assert_eq!((&cache["n_tokens"], &cache["n_truncated"]), (&json!(N_CTX), &json!(2 * N_CTX + 1 - N_CTX)));
        assert_eq!((&cache["tokens"][0], &cache["tokens"][1]), (&json!("<s>"), &json!(second)), "{side}");
    }
}

#[tokio::test]
async fn bos_is_decided_reported_and_never_doubled() {
    let app = TestApp::new().await;
    let cases = [
        (json!({"input": "th"}), true, true, 2),
        (json!({"input": "th", "prepend_bos": false}), false, false, 1),
        (json!({"input": "<s>th"}), true, false, 2),
        (json!({"input": [4]}), false, false, 1),
        (json!({"input": [4], "prepend_bos": true}), true, true, 2),
        (json!({"input": [261, 4], "prepend_bos": true}), true, false, 2),
    ];
    // The second time the tokens come from the token cache.
    for (body, present, added, n) in cases.iter().chain(&cases) {
        let answer = app.post("/v1/runs?dry_run=true", &with_model(body.clone())).await.json();
        let item = &answer["items"][0];
        assert_eq!(
            (&item["bos"]["present"], &item["bos"]["added"]),
            (&json!(present), &json!(added)),
            "{body}: {item}"
        );
        assert_eq!(item["token_ids"].as_array().unwrap().len(), *n, "{body}");
    }
}

#[tokio::test]
async fn bad_input_is_refused_with_its_pointer() {
    let app = TestApp::new().await;
    let many: Vec<String> = (0..10_001).map(|_| "a".to_owned()).collect();
    for (body, status, code, pointer) in [
        (json!({"input": "a", "modle": "x"}), 400, "invalid_body", "/modle"),
        (json!({"input": 5}), 400, "invalid_field", "/input"),
        (json!({}), 400, "invalid_body", "/input"),
        (json!({"input": "a", "messages": []}), 400, "invalid_body", "/input"),
        (json!({"input": ["a", 5]}), 400, "invalid_field", "/input/1"),
        (json!({"input": ["a", [5]]}), 400, "invalid_field", "/input/1"),
        (json!({"input": [5, "a"]}), 400, "invalid_field", "/input/1"),
        (json!({"input": "a", "capture": {"layers": "some"}}), 400, "invalid_field", "/capture/layers"),
        (json!({"input": "a", "capture": {"positions": "first"}}), 400, "invalid_field", "/capture/positions"),
        (json!({"input": "a", "capture": {"dtype": "float64"}}), 400, "invalid_field", "/capture/dtype"),
        (json!({"input": "a", "capture": [["resid_post"]]}), 400, "invalid_field", "/capture"),
        (json!({"items": [["a"]]}), 400, "invalid_field", "/items/0"),
        (json!({"input": "a", "truncate": "middle"}), 400, "invalid_field", "/truncate"),
        (json!({"items": [{"text": "a"}, {"text": "a", "token_ids": [1]}]}), 400, "invalid_body", "/items/1"),
        (json!({"input": "a", "model": "gpt-9"}), 422, "unknown_model", "/model"),
        (
            json!({"input": "a", "capture": {"hooks": ["resid_post", "resid_pots"]}}),
            422,
            "unknown_hook",
            "/capture/hooks/1",
        ),
        (
            json!({"input": "a", "capture": {"hooks": ["blocks.3.hook_resid_post"]}}),
            422,
            "layer_out_of_range",
            "/capture/hooks/0",
        ),
        (json!({"input": "a", "capture": {"hooks": ["hook_pos_embed"]}}), 422, "unknown_hook", "/capture/hooks/0"),
        (json!({"input": "a", "capture": {"hooks": []}}), 422, "invalid_value", "/capture/hooks"),
        (json!({"input": "a", "capture": {"layers": [0, 3]}}), 422, "layer_out_of_range", "/capture/layers"),
        (json!({"input": "a", "capture": {"layers": []}}), 422, "invalid_value", "/capture/layers"),
        (json!({"input": ["aaa", "a"], "capture": {"positions": 2}}), 422, "position_out_of_range", "/input/1"),
        (json!({"items": [{"text": "a", "positions": [9]}]}), 422, "position_out_of_range", "/items/0/positions"),
        (json!({"input": ""  , "prepend_bos": false}), 422, "empty_input", "/input"),
        (json!({"input": []}), 422, "empty_input", "/input"),
        (json!({"input": [[1], []]}), 422, "empty_input", "/input/1"),
        (json!({"input": [1, 272]}), 422, "token_out_of_vocabulary", "/input/1"),
        (json!({"input": [[1], [5_000_000_000u64]]}), 422, "token_out_of_vocabulary", "/input/1/0"),
        (json!({"input": [1, -1]}), 400, "invalid_field", "/input/1"),
        (json!({"input": vec![1; N_CTX + 1]}), 422, "too_many_tokens", "/input"),
        (json!({"input": "a", "tags": [""]}), 422, "invalid_value", "/tags/0"),
        (json!({"input": many}), 413, "too_many_items", ""),
    ] {
        let text: String = body.to_string().chars().take(100).collect();
        let pointers = app.post("/v1/runs", &with_model(body)).await.problem(status, code);
        if !pointer.is_empty() {
            assert_eq!(pointers, [pointer], "{text}");
        }
    }
    assert_eq!(app.get("/v1/runs").await.json()["items"], json!([]), "nothing refused was queued");
}

#[tokio::test]
async fn bad_requests_are_refused_in_the_documented_form() {
    let app = TestApp::with(Limits::default(), ApiConfig { max_body_bytes: 1 << 20, ..ApiConfig::default() }).await;
    let json_type = [("content-type", "application/json")];
    let post = |headers: &'static [(&'static str, &'static str)], body: Vec<u8>| {
        request(Method::POST, "/v1/runs", headers, Body::from(body))
    };
    app.send(request(Method::POST, "/v1/runs", &json_type, Body::from("{\"model\": ")))
        .await
        .problem(400, "invalid_json");
    app.send(request(Method::POST, "/v1/runs", &json_type, Body::from("{} x"))).await.problem(400, "invalid_json");
    app.send(request(Method::POST, "/v1/runs", &json_type, Body::from(vec![0xff, 0xfe])))
        .await
        .problem(400, "invalid_json");
    app.send(request(Method::POST, "/v1/runs", &json_type, Body::from("[".repeat(100_000))))
        .await
        .problem(400, "invalid_json");
    let deep = format!("{{\"metadata\":{}", "{\"a\":".repeat(100_000));
    app.send(request(Method::POST, "/v1/runs", &json_type, Body::from(deep))).await.problem(400, "invalid_json");
    app.send(post(&[], b"{}".to_vec())).await.problem(415, "unsupported_media_type");
    app.send(post(&[("content-type", "text/plain")], b"{}".to_vec())).await.problem(415, "unsupported_media_type");
    app.send(post(&[("content-type", "application/json")], vec![b' '; 2 << 20])).await.problem(413, "body_too_large");
    let ok = with_model(json!({"input": "a"}));
    for query in ["wait=-1", "wait=x", "wait=601", "include=tensors", "dry_run=maybe", "wiat=3"] {
        app.post(&format!("/v1/runs?{query}"), &ok).await.problem(400, "invalid_query");
    }
    app.get("/v1/nothing").await.problem(404, "route_not_found");
    let refused = app.send(request(Method::PUT, "/v1/runs", &[], Body::empty())).await;
    refused.problem(405, "method_not_allowed");
    assert!(refused.header("allow").contains("POST"));
    let unknown = "0198c5a0-5b1e-7c3a-9b54-0242ac120002";
    for id in [unknown, "nonsense", "%2e%2e%2fetc"] {
        app.get(&format!("/v1/runs/{id}")).await.problem(404, "run_not_found");
        app.delete(&format!("/v1/runs/{id}")).await.problem(404, "run_not_found");
        app.post(&format!("/v1/runs/{id}/cancel"), &json!({})).await.problem(404, "run_not_found");
        app.get(&format!("/v1/runs/{id}/events")).await.problem(404, "run_not_found");
        app.get(&format!("/v1/runs/{id}/caches")).await.problem(404, "run_not_found");
        app.get(&format!("/v1/runs/{id}/tensors/logits")).await.problem(404, "run_not_found");
    }
    for query in ["limit=0", "limit=201", "limit=x", "status=done", "colour=red"] {
        app.get(&format!("/v1/runs?{query}")).await.problem(400, "invalid_query");
    }
    app.get("/v1/runs?cursor=abc").await.problem(400, "invalid_cursor");
}

#[tokio::test]
async fn listing_pages_through_runs_newest_first() {
    let app = TestApp::new().await;
    let mut posted = Vec::new();
    for i in 0..5 {
        posted.push(
            app.run(json!({"input": [i + 1], "tags": [if i % 2 == 0 { "even" } else { "odd" }]})).await["id"].clone(),
        );
    }
    posted.reverse();
    let mut seen = Vec::new();
    let mut uri = "/v1/runs?limit=2".to_owned();
    loop {
        let page = app.get(&uri).await.json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|r| r["id"].clone()));
        match page["next_cursor"].as_str() {
            Some(cursor) => uri = format!("/v1/runs?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, posted);
    assert_eq!(app.get("/v1/runs?tag=even").await.json()["items"].as_array().unwrap().len(), 3);
    assert_eq!(app.get("/v1/runs?status=completed&model=tiny").await.json()["items"].as_array().unwrap().len(), 5);
    assert_eq!(app.get("/v1/runs?status=failed").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_cancelled_run_ends_and_keeps_its_finished_caches() {
    let app = TestApp::new().await;
    let inputs: Vec<Vec<u32>> = (0..3000).map(|i| vec![i % 250; 60]).collect();
    let answer = app.post("/v1/runs", &with_model(json!({"input": inputs, "reuse": false}))).await;
    assert_eq!(answer.status, 202);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let cancelled = app.post(&format!("/v1/runs/{id}/cancel"), &json!({})).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.json()["status"]), (200, &json!("cancelled")));
    // The worker is free again: another run is completed, and the cancelled one does not change any more.
    app.run(json!({"input": "the cat"})).await;
    let later = app.get(&format!("/v1/runs/{id}")).await.json();
    assert_eq!(later["status"], "cancelled");
    assert!(later["n_done"].as_u64().unwrap() < 3000);
    assert_eq!(app.post(&format!("/v1/runs/{id}/cancel"), &json!({})).await.json()["n_done"], later["n_done"]);
    let caches = app.get(&format!("/v1/runs/{id}/caches?limit=200")).await.json();
    assert_eq!(caches["items"].as_array().unwrap().len() as u64, later["n_done"].as_u64().unwrap().min(200));
    assert_eq!(app.delete(&format!("/v1/runs/{id}")).await.status, 204);
    app.get(&format!("/v1/runs/{id}")).await.problem(404, "run_not_found");
}

#[tokio::test]
async fn events_report_a_run_from_start_to_end() {
    let app = TestApp::new().await;
    let run = app.run(json!({"input": ["a", "b"]})).await;
    let events = app.get(&format!("/v1/runs/{}/events", run["id"].as_str().unwrap())).await;
    assert_eq!(events.header("content-type"), "text/event-stream");
    let text = String::from_utf8(events.body.to_vec()).unwrap();
    let data = text.lines().filter_map(|l| l.strip_prefix("data: ")).next_back().unwrap();
    let last: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&last["status"], &last["n_done"]), (&json!("completed"), &json!(2)));
    assert!(last["tokens_per_second"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn waiting_for_a_run_returns_it_with_its_object_type() {
    let app = TestApp::new().await;
    let posted = app.post("/v1/runs", &with_model(json!({"input": ["a", "b"], "reuse": false}))).await.json();
    assert_eq!(posted["object"], "run");
    let path = format!("/v1/runs/{}", posted["id"].as_str().unwrap());
    let ended = app.get(&format!("{path}?wait=60")).await.json();
    assert_eq!((&ended["object"], &ended["status"]), (&json!("run"), &json!("completed")));
    app.get(&format!("{path}?wait=601")).await.problem(400, "invalid_query");
    let problem = app.get("/v1/runs/0198c5a0-5b1e-7c3a-9b54-0242ac120002?wait=1").await;
    problem.problem(404, "run_not_found");
    assert_eq!(problem.json()["object"], Value::Null);
}

#[tokio::test]
async fn a_full_queue_says_when_to_try_again() {
    let limits = Limits { max_queued_items: 4, ..Limits::default() };
    let app = TestApp::with(limits, ApiConfig::default()).await;
    let bulk: Vec<Vec<u32>> = (0..2000).map(|i| vec![i % 250; 60]).collect();
    assert_eq!(app.post("/v1/runs", &with_model(json!({"input": bulk, "reuse": false}))).await.status, 202);
    let refused = app.post("/v1/runs", &with_model(json!({"input": "a"}))).await;
    refused.problem(429, "queue_full");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
}

#[tokio::test]
async fn a_run_that_can_never_fit_is_refused() {
    let app = TestApp::with(Limits { max_run_bytes: 10_000, ..Limits::default() }, ApiConfig::default()).await;
    let body = with_model(json!({"input": vec![1; 60], "capture": {"positions": "all"}}));
    app.post("/v1/runs", &body).await.problem(413, "result_too_large");
    app.run(json!({"input": vec![1; 60]})).await;
}

#[tokio::test]
async fn an_item_may_set_positions_tags_metadata_and_label() {
    let app = TestApp::new().await;
    let run = app.run(json!({
        "items": [{"token_ids": [1, 2, 3], "positions": 0, "label": "x", "tags": ["own"], "metadata": {"a": 2}}, {"token_ids": [1, 2, 3]}],
        "tags": ["all"], "metadata": {"a": 1, "b": 1},
        "capture": {"hooks": ["hook_embed"]}
    })).await;
    let of = |i: usize| format!("/v1/caches/{}", run["caches"][i].as_str().unwrap());
    let own = app.get(&of(0)).await.json();
    assert_eq!(
        (&own["tags"], &own["metadata"], &own["label"]),
        (&json!(["all", "own"]), &json!({"a": 2, "b": 1}), &json!("x"))
    );
    assert_eq!(app.get(&of(1)).await.json()["label"], Value::Null);
    let first = flat(&app.get(&format!("{}/tensors/hook_embed", of(0))).await.json()["values"]);
    let embed = app.run(json!({"input": [1], "capture": {"hooks": ["hook_embed"]}})).await;
    let one = flat(
        &app.get(&format!("/v1/caches/{}/tensors/hook_embed", embed["caches"][0].as_str().unwrap())).await.json()["values"],
    );
    assert_eq!(first, one, "position 0 is the embedding of token 1");
}

//! `include=top_tokens`: the most probable next tokens, against the fetched logits.

use axum::http::Method;
use residuum::domain::Scope;
use serde_json::{Value, json};

use crate::{
    api_import::{f32s, file, import},
    support::{D_VOCAB, TestApp, flat, with_model},
};

/// Ids of the tokens with the `k` largest logits, with their probabilities and logits.
fn expected(logits: &[f32], k: usize) -> Vec<(u64, f64, f32)> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| (f64::from(*l) - f64::from(max)).exp()).sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    let one = |i: usize| (i as u64, (f64::from(logits[i]) - f64::from(max)).exp() / sum, logits[i]);
    order.into_iter().take(k).map(one).collect()
}

/// Checks the tokens of one cache against its logits at the position that the answer names.
async fn check(app: &TestApp, found: &Value, cache: &Value, position: u64, k: usize) {
    assert_eq!((&found["cache"], &found["position"], &found["missing"]), (cache, &json!(position), &Value::Null));
    let uri = format!("/v1/caches/{}/tensors/logits?position={position}", cache.as_str().unwrap());
    let logits = flat(&app.get(&uri).await.json()["values"]);
    assert_eq!(logits.len(), D_VOCAB);
    let tokens = found["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), k);
    for (token, (id, probability, logit)) in tokens.iter().zip(expected(&logits, k)) {
        assert_eq!((token["id"].as_u64().unwrap(), token["logit"].as_f64().unwrap() as f32), (id, logit));
        assert!((token["probability"].as_f64().unwrap() - probability).abs() < 1e-12, "{token}");
        let text = app.post("/v1/tokenize", &with_model(json!({"token_ids": [id]}))).await.json();
        assert_eq!(token["token"], text["tokens"][0]);
    }
}

#[tokio::test]
async fn the_most_probable_tokens_are_those_of_the_fetched_logits() {
    let app = TestApp::new().await;
    for (positions, last) in
        [(json!("last"), [3, 2]), (json!("all"), [3, 2]), (json!([1, 0]), [1, 1]), (json!(0), [0, 0])]
    {
        for dtype in ["float32", "bfloat16"] {
            let capture = json!({"hooks": ["logits", "resid_post"], "positions": positions, "dtype": dtype});
            let body = with_model(json!({"input": [[5, 6, 7, 8], [9, 10, 11]], "capture": capture}));
            let run = app.post("/v1/runs?wait=60&include=top_tokens", &body).await.json();
            assert_eq!(run["status"], "completed");
            assert!(run.get("values").is_none());
            for (i, position) in last.into_iter().enumerate() {
                check(&app, &run["top_tokens"][i], &run["caches"][i], position, 10).await;
            }
            // the same when the run is read, with other things included too
            let uri = format!("/v1/runs/{}", run["id"].as_str().unwrap());
            let read = app.get(&format!("{uri}?include=top_tokens")).await.json();
            assert_eq!(read["top_tokens"], run["top_tokens"]);
            for query in ["include=values,top_tokens&top_k=3", "include=top_tokens&include=values&top_k=3"] {
                let both = app.get(&format!("{uri}?{query}")).await.json();
                check(&app, &both["top_tokens"][1], &run["caches"][1], last[1], 3).await;
                assert_eq!(both["values"].as_array().unwrap().len(), 2);
                let first = &both["values"][0]["tensors"][0];
                assert!(first["shape"].is_array());
            }
            assert!(app.get(&uri).await.json().get("top_tokens").is_none());
        }
    }
}

#[tokio::test]
async fn greedy_generation_chooses_the_most_probable_token() {
    let app = TestApp::new().await;
    let body = json!({"input": [5, 6, 7], "capture": {"hooks": ["logits"], "positions": "prompt"}, "generate": {"max_new_tokens": 1}});
    let run = app.post("/v1/runs?wait=60&include=top_tokens&top_k=1", &with_model(body)).await.json();
    let cache = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
    check(&app, &run["top_tokens"][0], &run["caches"][0], 2, 1).await;
    assert_eq!(run["top_tokens"][0]["tokens"][0]["id"], cache["token_ids"][3]);
}

#[tokio::test]
async fn what_has_no_next_tokens_says_why() {
    let app = TestApp::new().await;
    let missing = async |run: &Value| {
        let uri = format!("/v1/runs/{}?include=top_tokens", run["id"].as_str().unwrap());
        let answer = app.get(&uri).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let found = answer.json()["top_tokens"][0].clone();
        assert_eq!(found["tokens"], json!([]));
        found["missing"].clone()
    };
    let plain = app.run(json!({"input": "the cat"})).await;
    assert_eq!(missing(&plain).await, "logits_not_captured");
    let mean = app.run(json!({"input": "the cat", "capture": {"hooks": ["logits"], "positions": "mean"}})).await;
    assert_eq!(missing(&mean).await, "mean_of_positions");
    let values = (0..D_VOCAB).map(|i| if i == 3 { f32::NAN } else { i as f32 });
    let tensor = [("logits", "F32", &[1, D_VOCAB][..], f32s(values))];
    let imported = import(&app, "?n_layers=2&d_model=16", file(&tensor, &json!({"model": "other"}))).await.json();
    assert_eq!(missing(&json!({"id": imported["run"]})).await, "not_finite");
    // logits of a model that is not served: everything but the texts
    let tensor = [("logits", "F32", &[1, D_VOCAB][..], f32s((0..D_VOCAB).map(|i| i as f32)))];
    let imported = import(&app, "?n_layers=2&d_model=16", file(&tensor, &json!({"model": "other"}))).await.json();
    let uri = format!("/v1/runs/{}?include=top_tokens&top_k=2", imported["run"].as_str().unwrap());
    let tokens = app.get(&uri).await.json()["top_tokens"][0]["tokens"].clone();
    let ids: Vec<&Value> = tokens.as_array().unwrap().iter().map(|t| &t["id"]).collect();
    assert_eq!((ids, &tokens[0]["token"]), (vec![&json!(D_VOCAB - 1), &json!(D_VOCAB - 2)], &json!("")));

    let uri = format!("/v1/runs/{}", plain["id"].as_str().unwrap());
    for (query, pointer) in [
        ("include=tokens", "include"),
        ("include=", "include"),
        ("include=values,,top_tokens", "include"),
        ("top_k=3", "top_k"),
        ("include=values&top_k=3", "top_k"),
        ("include=top_tokens&top_k=0", "top_k"),
        ("include=top_tokens&top_k=101", "top_k"),
        ("include=top_tokens&top_k=x", "top_k"),
    ] {
        assert_eq!(app.get(&format!("{uri}?{query}")).await.problem(400, "invalid_query"), [pointer], "{query}");
        let posted = app.post(&format!("/v1/runs?{query}"), &with_model(json!({"input": "a"}))).await;
        assert_eq!(posted.problem(400, "invalid_query"), [pointer], "{query}");
    }
}

#[tokio::test]
async fn a_run_that_has_not_ended_has_no_tokens_yet_and_another_tenant_sees_none() {
    let app = TestApp::attentive().await;
    let (_, ann) = app.key("ann", &[Scope::Write]).await;
    let (_, bob) = app.key("bob", &[Scope::Read]).await;
    let body = with_model(json!({"input": "the cat", "capture": {"hooks": ["logits"]}}));
    let posted = app.send_as(&ann, Method::POST, "/v1/runs?include=top_tokens", &body).await.json();
    if posted["status"] != "completed" {
        assert!(posted.get("top_tokens").is_none(), "{posted:#}");
    }
    let uri = format!("/v1/runs/{}?wait=60&include=top_tokens", posted["id"].as_str().unwrap());
    let ended = app.send_as(&ann, Method::GET, &uri, &Value::Null).await.json();
    assert_eq!(ended["top_tokens"][0]["tokens"].as_array().unwrap().len(), 10);
    app.send_as(&bob, Method::GET, &uri, &Value::Null).await.problem(404, "run_not_found");
}

#[tokio::test]
async fn every_cache_of_a_run_can_be_listed_with_its_tokens() {
    let app = TestApp::new().await;
    let inputs: Vec<Vec<u32>> = (1..6).map(|i| vec![i, 7]).collect();
    let run = app.run(json!({"input": inputs, "capture": {"hooks": ["logits"]}})).await;
    let uri = format!("/v1/runs/{}/caches", run["id"].as_str().unwrap());
    let (mut seen, mut next) = (0, format!("{uri}?limit=2&include=top_tokens&top_k=4"));
    loop {
        let page = app.get(&next).await.json();
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item["id"], run["caches"][seen]);
            check(&app, &item["top_tokens"], &item["id"], 1, 4).await;
            seen += 1;
        }
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        next = format!("{uri}?limit=2&include=top_tokens&top_k=4&cursor={cursor}");
    }
    assert_eq!(seen, 5);
    assert!(app.get(&uri).await.json()["items"][0].get("top_tokens").is_none());
    let plain = app.run(json!({"input": "the cat"})).await;
    let plain = format!("/v1/runs/{}/caches?include=top_tokens", plain["id"].as_str().unwrap());
    assert_eq!(app.get(&plain).await.json()["items"][0]["top_tokens"]["missing"], "logits_not_captured");
    for query in ["include=values", "include=top_tokens,values", "top_k=3", "include=top_tokens&top_k=0"] {
        app.get(&format!("{uri}?{query}")).await.problem(400, "invalid_query");
    }
}

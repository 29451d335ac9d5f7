//! The object `residuum`: what it stores, and that nothing is stored without it.

use serde_json::{Value, json};

use crate::support::{MODEL, TestApp};

const CHAT: &str = "/openai/v1/chat/completions";
const COMPLETIONS: &str = "/openai/v1/completions";

async fn complete(app: &TestApp, fields: Value) -> Value {
    let mut body = json!({"model": MODEL, "prompt": [[5, 6], [7]], "max_tokens": 4, "temperature": 0});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let answer = app.post(COMPLETIONS, &body).await;
    assert_eq!(answer.status, 200, "{fields}: {:?}", answer.body);
    answer.json()
}

#[tokio::test]
async fn a_generation_is_stored_as_a_run() {
    let app = TestApp::new().await;
    let residuum = json!({
        "capture": {"hooks": ["resid_post"], "layers": [1], "positions": "all"}, "tags": ["kept"], "metadata": {"task": "x"},
        "label": "a", "ttl_seconds": 3600, "priority": "bulk"
    });
    let answer = complete(&app, json!({"n": 2, "temperature": 1, "seed": 5, "residuum": residuum})).await;
    let recorded = &answer["residuum"];
    assert_eq!((&recorded["status"], &recorded["error"]), (&json!("completed"), &Value::Null));
    let run = app.get(&format!("/v1/runs/{}", recorded["run"].as_str().unwrap())).await.json();
    assert_eq!(answer["id"], format!("cmpl-{}", recorded["run"].as_str().unwrap()));
    assert_eq!((&run["n_items"], &run["tags"], &run["metadata"]), (&json!(4), &json!(["kept"]), &json!({"task": "x"})));
    assert_eq!(run["caches"], recorded["caches"]);
    for (i, id) in recorded["caches"].as_array().unwrap().iter().enumerate() {
        let cache = app.get(&format!("/v1/caches/{}", id.as_str().unwrap())).await.json();
        assert_eq!(cache["completion"]["text"], answer["choices"][i]["text"], "cache {i} is that of choice {i}");
        assert_eq!(cache["completion"]["sample"], i % 2);
        assert_eq!((&cache["label"], &cache["tags"]), (&json!("a"), &json!(["kept"])));
        assert_eq!(cache["hooks"][0]["hook"], "blocks.1.hook_resid_post");
        assert!(cache["expires_at"].is_string());
        let prompt = [2, 1][i / 2];
        assert_eq!(cache["n_tokens"], prompt + cache["completion"]["token_ids"].as_array().unwrap().len());
    }
}

#[tokio::test]
async fn an_empty_object_stores_with_the_defaults() {
    let app = TestApp::new().await;
    let plain = complete(&app, json!({})).await;
    let stored = complete(&app, json!({"residuum": {}})).await;
    assert!(plain.get("residuum").is_none());
    assert_eq!(stored["choices"], plain["choices"]);
    assert_eq!(stored["residuum"]["caches"].as_array().unwrap().len(), 2);
    let chat = json!({"model": MODEL, "messages": [{"role": "user", "content": "a"}], "max_tokens": 2, "residuum": {}});
    let answer = app.post(CHAT, &chat).await.json();
    assert_eq!(answer["residuum"]["caches"].as_array().unwrap().len(), 1, "{answer:#}");
    let runs = app.get("/v1/runs").await.json();
    assert_eq!(runs["items"].as_array().unwrap().len(), 2, "one for each request with the object");
}

#[tokio::test]
async fn the_last_chunk_of_a_stream_says_where_it_is_stored() {
    let app = TestApp::new().await;
    let messages = json!([{"role": "user", "content": "a"}]);
    for options in [Value::Null, json!({"include_usage": true})] {
        let body = json!({
            "model": MODEL, "messages": messages, "max_tokens": 3, "stream": true, "stream_options": options, "residuum": {}
        });
        let answer = app.post(CHAT, &body).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let events: Vec<&str> = text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
        assert_eq!(events.last(), Some(&"[DONE]"));
        let last: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["usage"].is_object(), options.is_object());
        let run = app.get(&format!("/v1/runs/{}", last["residuum"]["run"].as_str().unwrap())).await.json();
        assert_eq!((&run["status"], &run["caches"]), (&json!("completed"), &last["residuum"]["caches"]));
    }
}

#[tokio::test]
async fn interventions_change_what_is_generated() {
    let app = TestApp::new().await;
    let zero = json!([{"op": "zero", "hook": "resid_post", "layers": [2]}]);
    let plain = complete(&app, json!({"logprobs": 0})).await;
    let changed = complete(&app, json!({"logprobs": 0, "residuum": {"interventions": zero}})).await;
    let first = |answer: &Value| answer["choices"][0]["logprobs"]["token_logprobs"][0].as_f64().unwrap();
    assert!((first(&plain) - first(&changed)).abs() > 1e-3);
    let cache = changed["residuum"]["caches"][0].as_str().unwrap();
    let cache = app.get(&format!("/v1/caches/{cache}")).await.json();
    assert_eq!(cache["provenance"]["interventions"][0]["op"], "zero", "{cache:#}");
}

#[tokio::test]
async fn its_fields_are_refused_where_they_are_wrong() {
    let app = TestApp::new().await;
    for (residuum, code, param) in [
        (json!({"x": 1}), "invalid_body", "residuum.x"),
        (json!({"capture": {"hooks": ["nothing"]}}), "unknown_hook", "residuum.capture.hooks[0]"),
        (json!({"capture": {"layers": [9]}}), "layer_out_of_range", "residuum.capture.layers"),
        (json!({"tags": [""]}), "invalid_value", "residuum.tags[0]"),
        (json!({"label": ""}), "invalid_value", "residuum.label"),
        (json!({"ttl_seconds": 0}), "invalid_value", "residuum.ttl_seconds"),
        (json!({"priority": "now"}), "invalid_field", "residuum.priority"),
        (json!({"interventions": [{"op": "scale"}]}), "invalid_body", "residuum.interventions[0].factor"),
        (
            json!({"interventions": [{"op": "zero", "hook": "nothing"}]}),
            "unknown_hook",
            "residuum.interventions[0].hook",
        ),
    ] {
        let body = json!({"model": MODEL, "prompt": [5], "max_tokens": 2, "residuum": residuum});
        let refused = app.post(COMPLETIONS, &body).await;
        let found = refused.openai_error(400, "invalid_request_error", code);
        assert_eq!(found.as_deref(), Some(param), "{residuum}");
    }
    assert_eq!(app.get("/v1/runs").await.json()["items"], json!([]));
}

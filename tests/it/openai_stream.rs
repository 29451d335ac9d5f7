//! Answers in chunks: together they are the whole answer.

use axum::{body::Body, http::Method};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{Answer, MODEL, TestApp, request};

const CHAT: &str = "/openai/v1/chat/completions";
const COMPLETIONS: &str = "/openai/v1/completions";

/// The chunks of a stream, which must end with `[DONE]`.
fn chunks(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let text = std::str::from_utf8(&answer.body).unwrap();
    let mut events: Vec<&str> =
        text.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':')).collect();
    assert_eq!(events.pop(), Some("data: [DONE]"), "{text}");
    events.iter().map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

fn with(mut body: Value, fields: &Value) -> Value {
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn chat(fields: &Value) -> Value {
    let messages = json!([{"role": "user", "content": "a cat"}]);
    with(json!({"model": MODEL, "messages": messages, "max_tokens": 9, "temperature": 0}), fields)
}

fn prompt(fields: &Value) -> Value {
    with(json!({"model": MODEL, "prompt": [[5, 6], [7]], "max_tokens": 9, "temperature": 0}), fields)
}

#[tokio::test]
async fn the_chunks_of_a_chat_are_the_whole_answer() {
    let app = TestApp::new().await;
    let fields = json!({"n": 2, "temperature": 1, "seed": 3, "logprobs": true, "top_logprobs": 1});
    let whole = app.post(CHAT, &chat(&fields)).await.json();
    let streamed = with(fields, &json!({"stream": true, "stream_options": {"include_usage": true}}));
    let chunks = chunks(&app.post(CHAT, &chat(&streamed)).await);
    let (last, rest) = chunks.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!((&chunk["id"], &chunk["model"]), (&chunks[0]["id"], &json!(MODEL)));
        assert_eq!(chunk["system_fingerprint"], whole["system_fingerprint"]);
    }
    for index in 0..2 {
        let own: Vec<&Value> =
            rest.iter().flat_map(|c| c["choices"].as_array().unwrap()).filter(|c| c["index"] == index).collect();
        assert_eq!(own[0]["delta"], json!({"role": "assistant", "content": ""}));
        let text: String = own.iter().filter_map(|c| c["delta"]["content"].as_str()).collect();
        let choice = &whole["choices"][index];
        assert_eq!(choice["message"]["content"], text);
        let tokens: Vec<Value> =
            own.iter().filter_map(|c| c["logprobs"]["content"].as_array()).flatten().cloned().collect();
        assert_eq!(choice["logprobs"]["content"], json!(tokens));
        let (end, before) = own.split_last().unwrap();
        assert_eq!(end["finish_reason"], choice["finish_reason"]);
        assert!(before.iter().all(|c| c["finish_reason"].is_null() && c["delta"].get("content").is_some()));
    }
    assert!(rest.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
}

#[tokio::test]
async fn the_chunks_of_completions_are_the_whole_answer() {
    let app = TestApp::new().await;
    for fields in [
        json!({}),
        json!({"logprobs": 2, "echo": true}),
        json!({"echo": true, "n": 2}),
        json!({"logprobs": 1, "stop": ["a", "e"]}),
        json!({"logprobs": 0, "echo": true, "max_tokens": 0}),
    ] {
        let whole = app.post(COMPLETIONS, &prompt(&fields)).await.json();
        let streamed = with(fields.clone(), &json!({"stream": true}));
        let chunks = chunks(&app.post(COMPLETIONS, &prompt(&streamed)).await);
        assert!(chunks.iter().all(|c| c.get("usage").is_none() && c["object"] == "text_completion"));
        for choice in whole["choices"].as_array().unwrap() {
            let own = || {
                chunks.iter().flat_map(|c| c["choices"].as_array().unwrap()).filter(|c| c["index"] == choice["index"])
            };
            let text: String = own().filter_map(|c| c["text"].as_str()).collect();
            assert_eq!(choice["text"], text, "{fields}");
            assert_eq!(own().next_back().unwrap()["finish_reason"], choice["finish_reason"]);
            for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
                let joined: Vec<Value> =
                    own().filter_map(|c| c["logprobs"][list].as_array()).flatten().cloned().collect();
                let whole = choice["logprobs"][list].as_array().cloned().unwrap_or_default();
                assert_eq!(joined, whole, "{fields} {list}");
            }
            // a chunk says something
            assert!(own().all(|c| c["text"] != "" || !c["logprobs"].is_null() || !c["finish_reason"].is_null()));
        }
    }
}

#[tokio::test]
async fn what_is_wrong_before_the_first_chunk_is_an_error() {
    let app = TestApp::new().await;
    let refused = app.post(COMPLETIONS, &prompt(&json!({"stream": true, "prompt": [100_000]}))).await;
    refused.openai_error(400, "invalid_request_error", "token_out_of_vocabulary");
}

#[tokio::test]
async fn a_generation_that_fails_midway_ends_the_stream_with_an_error() {
    let mut app = TestApp::new().await;
    // a stopping server ends what it generates
    let body = prompt(&json!({"prompt": [5], "max_tokens": 60, "n": 64, "stream": true, "temperature": 1}));
    let headers = [("content-type", "application/json")];
    let sent = request(Method::POST, COMPLETIONS, &headers, Body::from(body.to_string()));
    let response = app.router().oneshot(sent).await.unwrap();
    assert_eq!(response.status(), 200);
    let reading = tokio::spawn(response.into_body().collect());
    app.stop().await;
    let bytes = reading.await.unwrap().unwrap().to_bytes();
    let text = std::str::from_utf8(&bytes).unwrap();
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    if last != "data: [DONE]" {
        let error: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((&error["error"]["code"], &error["error"]["type"]), (&json!("unavailable"), &json!("server_error")));
    }
}

#[tokio::test]
async fn a_client_that_disconnects_ends_a_stored_run() {
    let app = TestApp::new().await;
    let body =
        prompt(&json!({"prompt": [5], "max_tokens": 60, "n": 100, "stream": true, "temperature": 1, "residuum": {}}));
    let headers = [("content-type", "application/json")];
    let sent = request(Method::POST, COMPLETIONS, &headers, Body::from(body.to_string()));
    let response = app.router().oneshot(sent).await.unwrap();
    drop(response);
    let run = app.get("/v1/runs").await.json()["items"][0].clone();
    let id = run["id"].as_str().unwrap();
    let ended = app.get(&format!("/v1/runs/{id}?wait=60")).await.json();
    assert!(["cancelled", "completed"].contains(&ended["status"].as_str().unwrap()), "{ended:#}");
}

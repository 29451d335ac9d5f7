//! Answers to chats: the template, tools, and the fields that are acted on or refused.

use serde_json::{Value, json};

use crate::support::{MODEL, N_CTX, TestApp};

const CHAT: &str = "/openai/v1/chat/completions";
const INVALID: &str = "invalid_request_error";

fn body(fields: &Value) -> Value {
    let mut body = json!({"model": MODEL, "temperature": 0, "messages": [{"role": "user", "content": "a cat"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

async fn answer(app: &TestApp, fields: Value) -> Value {
    let answer = app.post(CHAT, &body(&fields)).await;
    assert_eq!(answer.status, 200, "{fields}: {:?}", answer.body);
    answer.json()
}

/// What the model writes after a text that has its special tokens spelled out.
async fn after(app: &TestApp, rendered: &str, n: usize) -> Value {
    let fields = json!({
        "model": MODEL, "prompt": rendered, "max_tokens": n, "temperature": 0, "prepend_bos": false, "logprobs": 2
    });
    let answer = app.post("/openai/v1/completions", &fields).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json()
}

#[tokio::test]
async fn a_chat_is_rendered_and_continued() {
    let app = TestApp::new().await;
    let whole = answer(&app, json!({"max_completion_tokens": 5})).await;
    let expected = after(&app, "<s><|user|>a cat", 5).await;
    assert_eq!(whole["object"], "chat.completion");
    assert!(whole["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(whole["model"], MODEL);
    let message = json!({"role": "assistant", "content": expected["choices"][0]["text"], "refusal": null});
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "length"});
    assert_eq!(whole["choices"], json!([choice]));
    assert_eq!(whole["usage"], expected["usage"]);
    assert_eq!(app.get("/v1/runs").await.json()["items"], json!([]), "nothing is stored");
    // the older name of the field, parts of a text, several samples
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "cat"}]}]);
    let same = answer(&app, json!({"max_tokens": 5, "messages": parts, "n": 2})).await;
    assert_eq!(same["choices"][1]["message"], message);
    assert_eq!(same["usage"]["completion_tokens"], 10);
    assert_eq!(same["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"], "a prompt counts once");
}

#[tokio::test]
async fn without_a_limit_an_answer_takes_what_is_left_of_the_context() {
    let app = TestApp::new().await;
    let whole = answer(&app, json!({})).await;
    let choice = &whole["choices"][0];
    assert!(choice["finish_reason"] == "length" && whole["usage"]["total_tokens"] == N_CTX, "{whole:#}");
    let long = "a ".repeat(N_CTX);
    let messages = json!([{"role": "user", "content": long}]);
    let refused = app.post(CHAT, &body(&json!({"messages": messages}))).await;
    refused.openai_error(400, INVALID, "context_length_exceeded");
    let cut = answer(&app, json!({"messages": messages, "truncate": "left"})).await;
    assert_eq!(cut["usage"]["completion_tokens"], 1);
}

#[tokio::test]
async fn log_probabilities_are_those_of_completions() {
    let app = TestApp::new().await;
    let whole = answer(&app, json!({"max_tokens": 5, "logprobs": true, "top_logprobs": 2})).await;
    let expected = after(&app, "<s><|user|>a cat", 5).await["choices"][0]["logprobs"].clone();
    let logprobs = &whole["choices"][0]["logprobs"];
    assert!(logprobs["refusal"].is_null());
    let tokens = logprobs["content"].as_array().unwrap();
    assert_eq!(tokens.len(), 5);
    for (i, token) in tokens.iter().enumerate() {
        assert_eq!((&token["token"], &token["logprob"]), (&expected["tokens"][i], &expected["token_logprobs"][i]));
        let bytes: Vec<u8> = serde_json::from_value(token["bytes"].clone()).unwrap();
        if let Ok(text) = String::from_utf8(bytes) {
            assert_eq!(token["token"], text);
        }
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 2);
        assert!(top[0]["logprob"].as_f64() >= top[1]["logprob"].as_f64());
        assert_eq!((&top[0]["token"], &top[0]["logprob"]), (&token["token"], &token["logprob"]), "greedy");
        assert_eq!(top[0]["bytes"], token["bytes"]);
    }
    let bare = answer(&app, json!({"max_tokens": 1, "logprobs": true})).await;
    assert_eq!(bare["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[tokio::test]
async fn tools_and_variables_reach_the_template() {
    let app = TestApp::new().await;
    let template = "{% if tools %}{{ tools[0].function.name }}{% endif %}{{ shout }}\
        {% for m in messages %}{{ m.role }}{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments.x }}{% endif %}{% endfor %}";
    let tools = json!([{"type": "function", "function": {"name": "look", "parameters": {}}}]);
    let count = async |fields: Value| {
        let mut fields = fields;
        fields["chat_template"] = json!(template);
        fields["max_tokens"] = json!(3);
        answer(&app, fields).await
    };
    let text = async |rendered: &str| after(&app, rendered, 3).await["choices"][0]["text"].clone();
    let with = count(json!({"tools": tools, "tool_choice": "auto", "parallel_tool_calls": false})).await;
    assert_eq!(with["choices"][0]["message"]["content"], text("lookusera cat").await);
    let none = count(json!({"tools": tools, "tool_choice": "none"})).await;
    assert_eq!(none["choices"][0]["message"]["content"], text("usera cat").await);
    let kwargs = count(json!({"chat_template_kwargs": {"shout": "!"}})).await;
    assert_eq!(kwargs["choices"][0]["message"]["content"], text("!usera cat").await);
    let call = json!({"id": "1", "type": "function", "function": {"name": "look", "arguments": "{\"x\": 42}"}});
    let messages = json!([
        {"role": "developer", "content": "d"}, {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "t"}
    ]);
    let calls = count(json!({"messages": messages})).await;
    assert_eq!(calls["choices"][0]["message"]["content"], text("developerdassistant42toolt").await);
    let open = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "continue_final_message": true});
    let open = count(open).await;
    assert_eq!(open["choices"][0]["message"]["content"], text("useraassistantb").await);
}

#[tokio::test]
async fn neutral_values_are_accepted_and_others_refused_by_name() {
    let app = TestApp::new().await;
    let neutral = json!({
        "max_tokens": 2, "max_completion_tokens": 2, "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": null, "user": "me",
        "safety_identifier": "me", "prompt_cache_key": "k", "store": false, "metadata": {}, "service_tier": "auto",
        "reasoning_effort": "none", "verbosity": "medium", "modalities": ["text"], "audio": null, "prediction": null,
        "web_search_options": null, "response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "logprobs": false,
        "top_logprobs": null, "n": 1, "stop": [], "stream": false
    });
    let plain = answer(&app, json!({"max_tokens": 2})).await;
    assert_eq!(answer(&app, neutral).await["choices"], plain["choices"]);
    for (fields, param) in [
        (json!({"presence_penalty": 1}), "presence_penalty"),
        (json!({"logit_bias": {"5": 1}}), "logit_bias"),
        (json!({"store": true}), "store"),
        (json!({"metadata": {"a": "b"}}), "metadata"),
        (json!({"service_tier": "flex"}), "service_tier"),
        (json!({"reasoning_effort": "high"}), "reasoning_effort"),
        (json!({"verbosity": "low"}), "verbosity"),
        (json!({"modalities": ["text", "audio"]}), "modalities"),
        (json!({"audio": {"voice": "x"}}), "audio"),
        (json!({"prediction": {"type": "content"}}), "prediction"),
        (json!({"web_search_options": {}}), "web_search_options"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}), "tool_choice"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"max_completion_tokens": 0}), "max_completion_tokens"),
        (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "messages[0].content[0].type"),
    ] {
        let refused = app.post(CHAT, &body(&fields)).await;
        assert_eq!(refused.openai_error(400, INVALID, "invalid_value").as_deref(), Some(param), "{fields}");
    }
    let two = app.post(CHAT, &body(&json!({"max_tokens": 2, "max_completion_tokens": 3}))).await;
    assert_eq!(two.openai_error(400, INVALID, "invalid_body").as_deref(), Some("max_tokens"));
    let room = app.post(CHAT, &body(&json!({"max_completion_tokens": N_CTX}))).await;
    assert_eq!(room.openai_error(400, INVALID, "context_length_exceeded").as_deref(), Some("max_completion_tokens"));
    let twice = json!({"tools": [{"type": "function"}], "chat_template_kwargs": {"tools": []}});
    let twice = app.post(CHAT, &body(&twice)).await;
    assert_eq!(twice.openai_error(400, INVALID, "invalid_body").as_deref(), Some("tools"));
}

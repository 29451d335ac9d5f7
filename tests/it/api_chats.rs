//! Chats with a template from the request, and replies as messages of the conversation.

use serde_json::{Value, json};

use crate::support::{TestApp, with_model};

fn chat() -> Value {
    json!([{"role": "user", "content": "the den"}, {"role": "user", "content": "in"}])
}

async fn tokens(app: &TestApp, body: Value) -> Value {
    app.post("/v1/tokenize", &with_model(body)).await.json()
}

/// The description of a cache, and which of its tokens are special.
async fn cache(app: &TestApp, body: Value) -> (Value, Vec<bool>) {
    let run = app.run(body).await;
    let cache = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
    let told = tokens(app, json!({"token_ids": cache["token_ids"]})).await;
    (cache, serde_json::from_value(told["special"].clone()).unwrap())
}

#[tokio::test]
async fn a_request_may_bring_its_template() {
    let app = TestApp::new().await;
    let template = "{% for m in messages %}[{{ '%s' % m.content }}]{% endfor %}{{ extra }}";
    let body = json!({"messages": chat(), "chat_template": template, "template_kwargs": {"extra": "!"}});
    let told = tokens(&app, body.clone()).await;
    assert_eq!(told["rendered"], "[the den][in]!");
    assert!(told["messages"][1]["start"].is_u64(), "{told:#}");
    // Runs render the same chat, however the messages are posted.
    for inputs in [json!({"messages": chat()}), json!({"items": [{"messages": chat()}, {"messages": chat()}]})] {
        let mut run = body.clone();
        run.as_object_mut().unwrap().remove("messages");
        run.as_object_mut().unwrap().extend(inputs.as_object().unwrap().clone());
        run["capture"] = json!({"positions": {"message": 1}});
        let run = app.run(run).await;
        let cache = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
        assert_eq!((&cache["text"], &cache["token_ids"]), (&told["rendered"], &told["token_ids"]));
        assert_eq!(cache["positions"], told["messages"][1]["end"].as_u64().unwrap() - 1);
    }
}

#[tokio::test]
async fn a_bad_template_is_refused_with_its_pointer() {
    let app = TestApp::new().await;
    for (template, says) in
        [("{% if %}", "unexpected"), ("{{ raise_exception('never') }}", "never"), ("{{ 'a'.zfill(10 ** 9) }}", "large")]
    {
        for body in [json!({"messages": chat()}), json!({"items": [{"text": "a"}, {"messages": chat()}]})] {
            let mut body = with_model(body);
            body["chat_template"] = template.into();
            let answer = app.post("/v1/runs", &body).await;
            assert_eq!(answer.problem(422, "chat_template_failed"), ["/chat_template"], "{template}");
            assert!(answer.json()["detail"].as_str().unwrap().contains(says), "{:#}", answer.json());
        }
        let body = with_model(json!({"messages": chat(), "chat_template": template}));
        let answer = app.post("/v1/tokenize", &body).await;
        assert_eq!(answer.problem(422, "chat_template_failed"), ["/chat_template"], "{template}");
    }
    let body = with_model(json!({"input": "a", "chat_template": "x"}));
    app.post("/v1/runs", &body).await.problem(400, "invalid_body");
}

#[tokio::test]
async fn the_reply_is_the_last_message() {
    let app = TestApp::new().await;
    let body = |positions: Value| json!({"messages": chat(), "generate": {"max_new_tokens": 5}, "capture": {"positions": positions}});
    let (whole, special) = cache(&app, body(json!("all"))).await;
    let first = whole["completion"]["first_position"].as_u64().unwrap() as usize;
    let end = special.iter().rposition(|special| !special).unwrap() + 1;
    assert!(first < end, "the reply says something: {whole:#}");
    for (positions, found) in [
        (json!({"message": -1, "which": "all"}), json!({"start": first, "end": end})),
        (json!({"message": 2, "which": "first"}), json!(first)),
        (json!({"message": -1}), json!(end - 1)),
        (json!({"mean": {"message": -1, "which": "all"}}), json!({"mean": {"start": first, "end": end}})),
        (json!({"message": -2}), json!(8)),
        (json!({"message": 1}), json!(8)),
        (json!({"message": -3, "which": "all"}), json!({"start": 2, "end": 7})),
    ] {
        let (cache, _) = cache(&app, body(positions.clone())).await;
        assert_eq!(cache["positions"], found, "{positions}");
    }
    let one_too_far = with_model(body(json!({"message": -4})));
    app.post("/v1/runs", &one_too_far).await.problem(422, "position_out_of_range");
    let dry = app.post("/v1/runs?dry_run=true", &with_model(body(json!({"message": -1})))).await.json();
    assert_eq!(dry["items"][0]["hooks"][0]["shape"].as_array().unwrap().len(), 1, "one token: {dry:#}");
}

#[tokio::test]
async fn a_continued_message_includes_the_reply() {
    let app = TestApp::new().await;
    let body = |positions: Value| json!({"messages": chat(), "continue_final_message": true, "generate": {"max_new_tokens": 5}, "capture": {"positions": positions}});
    let (whole, special) = cache(&app, body(json!("all"))).await;
    let first = whole["completion"]["first_position"].as_u64().unwrap();
    let end = special.iter().rposition(|special| !special).unwrap() as u64 + 1;
    let begins = cache(&app, body(json!({"message": 1, "which": "first"}))).await.0["positions"].as_u64().unwrap();
    assert!(begins < first);
    for (positions, found) in [
        (json!({"message": -1, "which": "all"}), json!({"start": begins, "end": end})),
        (json!({"message": -1}), json!(end - 1)),
        (json!({"message": 1}), json!(first - 1)),
        (json!({"message": -2, "which": "all"}), json!({"start": 2, "end": 7})),
    ] {
        let (cache, _) = cache(&app, body(positions.clone())).await;
        assert_eq!(cache["positions"], found, "{positions}");
    }
    app.post("/v1/runs", &with_model(body(json!({"message": 2})))).await.problem(422, "position_out_of_range");
}

#[tokio::test]
async fn interventions_change_the_reply() {
    let app = TestApp::new().await;
    let body = |positions: Value| {
        let zero = json!({"op": "zero", "hook": "mlp_out", "layers": 1, "positions": positions});
        json!({"messages": chat(), "generate": {"max_new_tokens": 5}, "interventions": [zero], "reuse": false})
    };
    let (reply, _) = cache(&app, body(json!({"message": -1, "which": "all"}))).await;
    let (generated, _) = cache(&app, body(json!("generated"))).await;
    assert_eq!(reply["token_ids"], generated["token_ids"]);
    assert_eq!(reply["provenance"]["interventions"][0]["positions"], "generated", "{reply:#}");
    let (posted, _) = cache(&app, body(json!({"message": -2}))).await;
    assert_eq!(posted["provenance"]["interventions"][0]["positions"], json!([8]), "{posted:#}");
    let answer = app.post("/v1/runs", &with_model(body(json!({"message": -1})))).await;
    assert_eq!(answer.problem(422, "invalid_value"), ["/interventions/0/positions"]);
    assert!(answer.json()["detail"].as_str().unwrap().contains("which"), "{:#}", answer.json());
}

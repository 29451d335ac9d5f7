//! Completions of prompts: texts, log-probabilities, and the fields that are acted on or refused.

use serde_json::{Value, json};

use crate::support::{D_VOCAB, MODEL, N_CTX, TestApp, floats};

const COMPLETIONS: &str = "/openai/v1/completions";
const INVALID: &str = "invalid_request_error";

fn body(fields: &Value) -> Value {
    let mut body = json!({"model": MODEL, "temperature": 0});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

async fn complete(app: &TestApp, fields: Value) -> Value {
    let answer = app.post(COMPLETIONS, &body(&fields)).await;
    assert_eq!(answer.status, 200, "{fields}: {:?}", answer.body);
    answer.json()
}

/// What `POST /v1/runs` generates: the text, and all tokens.
async fn generated(app: &TestApp, input: Value, n: usize) -> (Value, Vec<u32>) {
    let run = app.run(json!({"input": input, "generate": {"max_new_tokens": n}})).await;
    let cache = app.get(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await.json();
    (run["completions"][0]["text"].clone(), serde_json::from_value(cache["token_ids"].clone()).unwrap())
}

/// The log-probability of each token but the first, from the logits that a run captures.
async fn scores(app: &TestApp, ids: &[u32]) -> Vec<f64> {
    let run = app.run(json!({"input": ids, "capture": {"hooks": ["logits"], "positions": "all"}})).await;
    let cache = run["caches"][0].as_str().unwrap();
    let logits = floats(&app.get(&format!("/v1/caches/{cache}/tensors/logits?format=raw")).await.body);
    let rows = logits.chunks(D_VOCAB).zip(&ids[1..]);
    rows.map(|(row, next)| {
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        f64::from(row[*next as usize]) - sum.ln()
    })
    .collect()
}

fn close(answered: &Value, expected: f64) -> bool {
    (answered.as_f64().unwrap() - expected).abs() < 1e-5
}

#[tokio::test]
async fn a_greedy_completion_is_that_of_a_run_and_is_not_stored() {
    let app = TestApp::new().await;
    let answer = complete(&app, json!({"prompt": "the cat", "max_tokens": 6})).await;
    let default = complete(&app, json!({"prompt": "the cat"})).await;
    for uri in ["/v1/runs", "/v1/caches"] {
        assert_eq!(app.get(uri).await.json()["items"], json!([]), "nothing is stored");
    }
    let (text, ids) = generated(&app, json!("the cat"), 6).await;
    assert_eq!(answer["object"], "text_completion");
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!(answer["model"], MODEL);
    assert!(answer["created"].as_i64().unwrap() > 1_700_000_000);
    let model = app.get(&format!("/v1/models/{MODEL}")).await.json();
    let digits = answer["system_fingerprint"].as_str().unwrap().strip_prefix("fp_").unwrap().to_owned();
    assert!(digits.len() >= 8 && model["fingerprint"].as_str().unwrap().starts_with(&digits));
    let choice = json!({"index": 0, "text": text, "logprobs": null, "finish_reason": "length"});
    assert_eq!(answer["choices"], json!([choice]));
    let n = ids.len() - 6;
    assert_eq!(answer["usage"], json!({"prompt_tokens": n, "completion_tokens": 6, "total_tokens": n + 6}));
    assert!(answer.get("residuum").is_none());
    assert_eq!(default["usage"]["completion_tokens"], 16, "OpenAI's default");
    let (text, _) = generated(&app, json!("the cat"), 16).await;
    assert_eq!(default["choices"][0]["text"], text);
}

#[tokio::test]
async fn a_prompt_has_four_forms_and_an_index_for_each_sample() {
    let app = TestApp::new().await;
    let texts = complete(&app, json!({"prompt": ["the cat", "a dog"], "max_tokens": 4})).await;
    let one = complete(&app, json!({"prompt": "the cat", "max_tokens": 4})).await;
    assert_eq!(texts["choices"][0], one["choices"][0]);
    // ids are not tokenised again: no BOS token is added
    let ids = complete(&app, json!({"prompt": [116, 104, 101], "max_tokens": 4})).await;
    assert_eq!(ids["usage"]["prompt_tokens"], 3);
    let lists = complete(&app, json!({"prompt": [[7], [116, 104, 101]], "max_tokens": 4, "n": 2})).await;
    let choices = lists["choices"].as_array().unwrap();
    let indices: Vec<&Value> = choices.iter().map(|choice| &choice["index"]).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    assert_eq!((&choices[2]["text"], &choices[3]["text"]), (&ids["choices"][0]["text"], &ids["choices"][0]["text"]));
    assert_eq!(lists["usage"], json!({"prompt_tokens": 4, "completion_tokens": 16, "total_tokens": 20}));
    let (text, _) = generated(&app, json!([7]), 4).await;
    assert_eq!(choices[0]["text"], text);
}

#[tokio::test]
async fn an_echo_scores_the_prompt_and_the_generated_token() {
    let app = TestApp::new().await;
    let prompt = [116u32, 104, 260, 99, 97, 116];
    let asked = json!({"prompt": [prompt, [7, 8]], "max_tokens": 1, "echo": true, "logprobs": 3});
    let answer = complete(&app, asked).await;
    for (choice, prompt) in answer["choices"].as_array().unwrap().iter().zip([&prompt[..], &[7, 8]]) {
        let (text, ids) = generated(&app, json!(prompt), 1).await;
        let logprobs = &choice["logprobs"];
        let own = logprobs["token_logprobs"].as_array().unwrap();
        assert_eq!(own.len(), ids.len(), "the prompt and the generated token");
        assert!(own[0].is_null() && logprobs["top_logprobs"][0].is_null());
        for (i, expected) in scores(&app, &ids).await.into_iter().enumerate() {
            assert!(close(&own[i + 1], expected), "token {}: {} {expected}", i + 1, own[i + 1]);
            let token = logprobs["tokens"][i + 1].as_str().unwrap();
            let top = logprobs["top_logprobs"][i + 1].as_object().unwrap();
            assert_eq!(top[token], own[i + 1], "the same number, not a near one");
            assert!((3..=4).contains(&top.len()), "{top:?}");
            let best = top.values().map(|p| p.as_f64().unwrap()).fold(f64::MIN, f64::max);
            assert!(own[i + 1].as_f64().unwrap() <= best);
        }
        assert!(choice["text"].as_str().unwrap().ends_with(text.as_str().unwrap()));
        let offsets: Vec<usize> = serde_json::from_value(logprobs["text_offset"].clone()).unwrap();
        assert_eq!(offsets.len(), ids.len());
        assert!(offsets.is_sorted() && offsets[0] == 0);
    }
    let top = answer["choices"][0]["logprobs"]["top_logprobs"].as_array().unwrap();
    assert!(top[6].as_object().unwrap().len() == 3, "a greedy token is one of the most probable");
}

#[tokio::test]
async fn a_prompt_alone_is_scored_without_generating() {
    let app = TestApp::new().await;
    let asked = json!({"prompt": "the cat", "max_tokens": 0, "echo": true, "logprobs": 0});
    let answer = complete(&app, asked).await;
    let choice = &answer["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("the cat"), &json!("length")));
    let tokens = app.post("/v1/tokenize", &json!({"model": MODEL, "text": "the cat"})).await.json();
    let ids: Vec<u32> = serde_json::from_value(tokens["token_ids"].clone()).unwrap();
    assert_eq!(choice["logprobs"]["tokens"].as_array().unwrap().len(), ids.len());
    assert_eq!(choice["logprobs"]["tokens"][0], "<s>", "the tokenizer's own rule adds a BOS token to text");
    for (own, expected) in
        choice["logprobs"]["token_logprobs"].as_array().unwrap()[1..].iter().zip(scores(&app, &ids).await)
    {
        assert!(close(own, expected));
    }
    let listed = choice["logprobs"]["top_logprobs"][1].as_object().unwrap();
    assert_eq!(listed.len(), 1, "with 0, only the token itself is listed");
    assert_eq!(answer["usage"], json!({"prompt_tokens": ids.len(), "completion_tokens": 0, "total_tokens": ids.len()}));
    let plain = complete(&app, json!({"prompt": "the cat", "max_tokens": 2, "echo": true})).await;
    let text = plain["choices"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("the cat") && plain["choices"][0]["logprobs"].is_null());
}

#[tokio::test]
async fn offsets_are_code_points_of_the_text() {
    let app = TestApp::new().await;
    let asked = json!({"prompt": "é 北 a", "max_tokens": 3, "echo": true, "logprobs": 0});
    let choice = complete(&app, asked).await["choices"][0].clone();
    let offsets: Vec<usize> = serde_json::from_value(choice["logprobs"]["text_offset"].clone()).unwrap();
    // BOS, é in two bytes, a space, 北 in three bytes, " a" in one token
    assert_eq!(offsets[..8], [0, 0, 0, 1, 2, 2, 2, 3]);
    assert_eq!(offsets[8], 5, "the first generated token begins after the prompt");
    assert_eq!(choice["logprobs"]["tokens"][1], "bytes:\\xc3");
    let bare = json!({"prompt": "é 北 a", "max_tokens": 3, "logprobs": 0});
    let choice = complete(&app, bare).await["choices"][0].clone();
    assert_eq!(choice["logprobs"]["text_offset"][0], 0, "offsets are those of the answered text");
}

#[tokio::test]
async fn the_token_that_ends_a_text_is_counted_and_scored() {
    let app = TestApp::new().await;
    for seed in 0..400 {
        let fields = json!({"prompt": [5], "max_tokens": 40, "temperature": 3, "seed": seed, "logprobs": 1});
        let answer = complete(&app, fields).await;
        let (choice, n) = (&answer["choices"][0], answer["usage"]["completion_tokens"].as_u64().unwrap() as usize);
        assert_eq!(choice["logprobs"]["token_logprobs"].as_array().unwrap().len(), n);
        if choice["finish_reason"] == "stop" {
            // the checkpoint names this token as the end of a text, though its tokenizer does not mark it as special
            assert_eq!(choice["logprobs"]["tokens"][n - 1], "#");
            assert!(choice["logprobs"]["token_logprobs"][n - 1].as_f64().unwrap() < 0.0);
            return;
        }
    }
    panic!("no text ended");
}

#[tokio::test]
async fn stops_end_a_text_and_are_not_part_of_it() {
    let app = TestApp::new().await;
    let whole = complete(&app, json!({"prompt": [5, 6], "max_tokens": 12})).await["choices"][0]["text"].clone();
    let whole = whole.as_str().unwrap();
    let characters: Vec<char> = whole.chars().collect();
    let stop: String = characters[3..5].iter().collect();
    let answer = complete(&app, json!({"prompt": [5, 6], "max_tokens": 12, "stop": [stop], "logprobs": 0})).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"].as_str().unwrap(), whole.split(stop.as_str()).next().unwrap());
    assert_eq!(choice["finish_reason"], "stop");
    let n = choice["logprobs"]["tokens"].as_array().unwrap().len();
    assert_eq!(answer["usage"]["completion_tokens"], n, "tokens whose text was held back are not lost");
}

#[tokio::test]
async fn a_seed_repeats_and_no_seed_does_not() {
    let app = TestApp::new().await;
    let sampled = async |seed: Value| {
        let fields = json!({"prompt": [5], "max_tokens": 24, "temperature": null, "top_p": 1, "seed": seed, "n": 2});
        complete(&app, fields).await["choices"].clone()
    };
    let first = sampled(json!(7)).await;
    assert_eq!(first, sampled(json!(7)).await);
    assert_ne!(first[0]["text"], first[1]["text"], "samples differ");
    assert_ne!(first, sampled(json!(8)).await);
    assert_ne!(sampled(Value::Null).await, sampled(Value::Null).await);
}

#[tokio::test]
async fn neutral_values_are_accepted_and_others_refused_by_name() {
    let app = TestApp::new().await;
    let neutral = json!({
        "prompt": [5], "max_tokens": 2, "best_of": 1, "suffix": null, "presence_penalty": 0, "frequency_penalty": 0.0,
        "logit_bias": {}, "user": "someone", "stream": false, "stream_options": null, "echo": false, "logprobs": null,
        "top_p": 1, "n": 1, "stop": null, "seed": null, "residuum": null
    });
    let plain = complete(&app, json!({"prompt": [5], "max_tokens": 2})).await;
    assert_eq!(complete(&app, neutral).await["choices"], plain["choices"]);
    for (fields, param) in [
        (json!({"best_of": 2}), "best_of"),
        (json!({"suffix": "end"}), "suffix"),
        (json!({"presence_penalty": 0.5}), "presence_penalty"),
        (json!({"frequency_penalty": -1}), "frequency_penalty"),
        (json!({"logit_bias": {"5": 10}}), "logit_bias"),
        (json!({"n": 0}), "n"),
        (json!({"n": 129}), "n"),
        (json!({"logprobs": 21}), "logprobs"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"seed": 9_007_199_254_740_992_u64}), "seed"),
        (json!({"stop": ["a", ""]}), "stop[1]"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (
            json!({"stream": true, "stream_options": {"include_obfuscation": true}}),
            "stream_options.include_obfuscation",
        ),
        (json!({"max_tokens": 0, "residuum": {}}), "max_tokens"),
    ] {
        let mut fields = fields;
        fields["prompt"] = json!([5]);
        let refused = app.post(COMPLETIONS, &body(&fields)).await;
        assert_eq!(refused.openai_error(400, INVALID, "invalid_value").as_deref(), Some(param), "{fields}");
    }
    let long = json!({"prompt": vec![1; N_CTX + 1]});
    let refused = app.post(COMPLETIONS, &body(&long)).await;
    assert_eq!(refused.openai_error(400, INVALID, "context_length_exceeded").as_deref(), Some("prompt"));
    let room = json!({"prompt": [1], "max_tokens": N_CTX});
    let refused = app.post(COMPLETIONS, &body(&room)).await;
    assert_eq!(refused.openai_error(400, INVALID, "context_length_exceeded").as_deref(), Some("max_tokens"));
    let empty = app.post(COMPLETIONS, &body(&json!({"prompt": []}))).await;
    assert_eq!(empty.openai_error(400, INVALID, "empty_input").as_deref(), Some("prompt"));
    let second = app.post(COMPLETIONS, &body(&json!({"prompt": [[1], [100_000]]}))).await;
    assert_eq!(second.openai_error(400, INVALID, "token_out_of_vocabulary").as_deref(), Some("prompt[1][0]"));
}

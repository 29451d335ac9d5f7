//! Tokens of a run as they are chosen: events, samples, cancelled runs, captures.

use serde_json::{Value, json};

use crate::support::{TestApp, with_model};

/// The events of a run until it ends, in order.
async fn events(app: &TestApp, run: &Value) -> Vec<(String, Option<u64>, Value)> {
    events_after(app, run, None).await
}

async fn events_after(app: &TestApp, run: &Value, after: Option<&str>) -> Vec<(String, Option<u64>, Value)> {
    let uri = format!("/v1/runs/{}/events", run["id"].as_str().unwrap());
    let headers: Vec<(&str, &str)> = after.map(|id| ("last-event-id", id)).into_iter().collect();
    let answer = app.get_with(&uri, &headers).await;
    let text = String::from_utf8(answer.body.to_vec()).expect("events are UTF-8");
    let event = |block: &str| {
        let field = |name: &str| block.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
        let data = serde_json::from_str(&field("data:")?).unwrap();
        Some((field("event:")?, field("id:").map(|id| id.split_once('-').unwrap().1.parse().unwrap()), data))
    };
    text.split("\n\n").filter_map(event).collect()
}

fn of_kind<'e>(events: &'e [(String, Option<u64>, Value)], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|(name, ..)| name == kind).map(|(.., data)| data).collect()
}

async fn cache(app: &TestApp, run: &Value, i: usize) -> Value {
    app.get(&format!("/v1/caches/{}", run["caches"][i].as_str().unwrap())).await.json()
}

#[tokio::test]
async fn every_token_of_every_sample_is_an_event() {
    let app = TestApp::new().await;
    let generate = json!({"max_new_tokens": 9, "temperature": 1.3, "seed": 5, "n": 3});
    let body = with_model(json!({"input": [[4, 5, 6], [7]], "generate": generate, "reuse": false}));
    let posted = app.post("/v1/runs", &body).await.json();
    assert_eq!(posted["n_items"], 6);
    let events = events(&app, &posted).await;
    let run = app.get(&format!("/v1/runs/{}?wait=30", posted["id"].as_str().unwrap())).await.json();
    assert_eq!((&run["status"], &run["n_done"]), (&json!("completed"), &json!(6)));
    // numbered without gaps, and before the final snapshot
    let numbers: Vec<u64> = events.iter().filter_map(|(_, id, _)| *id).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let (last, ..) = events.last().unwrap();
    assert_eq!(last, "run");
    let (tokens, ends) = (of_kind(&events, "token"), of_kind(&events, "completion"));
    assert_eq!(ends.len(), 6);
    for item in 0..6u64 {
        let own: Vec<&&Value> = tokens.iter().filter(|t| t["item"] == item).collect();
        let completion = &run["completions"][item as usize];
        let ids: Vec<&Value> = own.iter().map(|t| &t["token_id"]).collect();
        assert_eq!(ids, completion["token_ids"].as_array().unwrap().iter().collect::<Vec<_>>());
        let text: String = own.iter().map(|t| t["text"].as_str().unwrap()).collect();
        assert_eq!(text, completion["text"].as_str().unwrap());
        let logprobs: Vec<&Value> = own.iter().map(|t| &t["logprob"]).collect();
        assert_eq!(logprobs, completion["logprobs"].as_array().unwrap().iter().collect::<Vec<_>>());
        assert!(own.iter().all(|t| t["index"] == item / 3 && t["sample"] == item % 3));
        assert_eq!((&completion["sample"], &completion["n"]), (&json!(item % 3), &json!(3)));
        let end = ends.iter().find(|e| e["item"] == item).unwrap();
        assert_eq!(end["finish_reason"], completion["finish_reason"]);
    }
    let of = |i: usize| &run["completions"][i]["token_ids"];
    assert!(of(0) != of(1) && of(1) != of(2), "each sample has random numbers of its own");
}

#[tokio::test]
async fn log_probabilities_are_those_of_the_logits_before_temperature() {
    let app = TestApp::new().await;
    let generate = json!({"max_new_tokens": 6, "temperature": 2.5, "seed": 5});
    let capture = json!({"hooks": ["logits"], "positions": "all"});
    let run = app.run(json!({"input": [[4, 5, 6]], "generate": generate, "capture": capture})).await;
    let id = run["caches"][0].as_str().unwrap();
    let logits = app.get(&format!("/v1/caches/{id}/tensors/logits")).await.json();
    let completion = &run["completions"][0];
    for (i, (logprob, token)) in
        completion["logprobs"].as_array().unwrap().iter().zip(completion["token_ids"].as_array().unwrap()).enumerate()
    {
        let row: Vec<f64> = logits["values"][2 + i].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let sum: f64 = row.iter().map(|l| l.exp()).sum();
        let expected = (row[token.as_u64().unwrap() as usize].exp() / sum).ln();
        assert!((logprob.as_f64().unwrap() - expected).abs() < 1e-5);
    }
}

/// What the ids of events of this server begin with.
async fn started(app: &TestApp) -> String {
    let body = with_model(json!({"input": [[4, 5, 6]], "generate": {"max_new_tokens": 50, "n": 20}, "reuse": false}));
    let run = app.post("/v1/runs", &body).await.json();
    let answer = app.get(&format!("/v1/runs/{}/events", run["id"].as_str().unwrap())).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let id = text.lines().find_map(|line| line.strip_prefix("id:")).unwrap();
    id.trim().split_once('-').unwrap().0.to_owned()
}

#[tokio::test]
async fn a_client_that_reconnects_gets_what_it_missed() {
    let app = TestApp::new().await;
    let start = started(&app).await;
    let generate = json!({"max_new_tokens": 50, "temperature": 5.0, "seed": 2, "n": 20});
    let body = with_model(json!({"input": [[4, 5, 6]], "generate": generate, "reuse": false}));
    let posted = app.post("/v1/runs", &body).await.json();
    let (known, foreign) = (format!("{start}-40"), "0-40");
    let (all, later, again) = tokio::join!(
        events(&app, &posted),
        events_after(&app, &posted, Some(&known)),
        events_after(&app, &posted, Some(foreign))
    );
    let written = |events: &[(String, Option<u64>, Value)]| events.iter().filter(|(_, id, _)| id.is_some()).count();
    assert_eq!(written(&again), written(&all), "an id of another start of the server");
    let rest: Vec<_> = all.iter().filter(|(_, id, _)| id.is_some_and(|id| id > 40)).collect();
    let later: Vec<_> = later.iter().filter(|(_, id, _)| id.is_some()).collect();
    assert!(rest.len() > 100);
    assert_eq!(later, rest);
    // a run that has ended has no tokens to follow; its snapshot is the only event
    let ended = events(&app, &posted).await;
    assert_eq!(ended.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["run"]);
}

#[tokio::test]
async fn what_a_cancelled_run_has_written_stays() {
    let app = TestApp::new().await;
    let mut n_kept = 0;
    for attempt in 0..20 {
        let capture = json!({"hooks": ["resid_post.1", "attn.pattern.0"], "positions": "all"});
        let generate = json!({"max_new_tokens": 60, "temperature": 4.0, "seed": attempt, "n": 30});
        let capture = if attempt % 2 == 0 { capture } else { json!({"hooks": ["resid_post.1"]}) };
        let body = with_model(json!({"input": [[4, 5]], "generate": generate, "capture": capture, "reuse": false}));
        let run = app.post("/v1/runs", &body).await.json();
        let id = run["id"].as_str().unwrap();
        while app.get(&format!("/v1/runs/{id}")).await.json()["status"] == "queued" {
            tokio::task::yield_now().await;
        }
        let run = app.post(&format!("/v1/runs/{id}/cancel"), &Value::Null).await.json();
        if run["status"] != "cancelled" {
            continue;
        }
        for (i, _) in run["caches"].as_array().unwrap().iter().enumerate() {
            let cache = cache(&app, &run, i).await;
            let completion = &cache["completion"];
            if completion["finish_reason"] == "cancelled" {
                n_kept += 1;
                let n = cache["n_tokens"].as_u64().unwrap() as usize;
                assert!(n > 2 && n < 62);
                assert_eq!(completion["token_ids"].as_array().unwrap().len(), n - 2);
                assert_eq!(completion["logprobs"].as_array().unwrap().len(), n - 2);
                // captured as if the text had been posted
                let again = json!({"input": cache["token_ids"], "capture": capture, "reuse": false});
                let posted = app.run(again).await;
                let posted = app.get(&format!("/v1/caches/{}", posted["caches"][0].as_str().unwrap())).await.json();
                assert_eq!(cache["content_hash"], posted["content_hash"]);
            }
        }
        if n_kept > 3 {
            break;
        }
    }
    assert!(n_kept > 0, "some runs were cancelled while they wrote");
}

#[tokio::test]
async fn a_continuation_without_hooks_stores_its_text_alone() {
    let app = TestApp::new().await;
    let body = json!({"input": [[4, 5, 6], [7]], "generate": {"max_new_tokens": 5}, "capture": {"hooks": []}, "tags": ["text"]});
    let run = app.run(body).await;
    let cache = cache(&app, &run, 1).await;
    assert_eq!(cache["hooks"], json!([]));
    assert_eq!(cache["completion"]["text"], run["completions"][1]["text"]);
    assert_eq!(cache["n_tokens"], 1 + cache["completion"]["token_ids"].as_array().unwrap().len());
    let id = cache["id"].as_str().unwrap();
    app.get(&format!("/v1/caches/{id}/layers")).await.problem(404, "layer_not_in_cache");
    let file = app.get(&format!("/v1/caches/{id}/safetensors")).await;
    let tensors = safetensors::SafeTensors::deserialize(&file.body).unwrap();
    assert_eq!(tensors.names(), ["token_ids"]);
    let found = app.get("/v1/caches?tag=text").await.json();
    assert_eq!(found["items"].as_array().unwrap().len(), 2);
    app.delete(&format!("/v1/caches/{id}")).await;
    // a run that generates nothing has to capture something
    let nothing = with_model(json!({"input": [[4]], "capture": {"hooks": []}}));
    app.post("/v1/runs", &nothing).await.problem(422, "invalid_value");
}

#[tokio::test]
async fn rows_recorded_while_decoding_are_those_of_the_posted_text() {
    let app = TestApp::new().await;
    let long = vec![9; 20];
    let hooks = json!(["resid_post", "mlp.post", "attn.rot_k", "logits", "ln_final.scale"]);
    for positions in [
        json!("all"),
        json!("last"),
        json!("mean"),
        json!([0, -1, 2]),
        json!({"start": -2}),
        json!(1),
        json!("prompt"),
        json!("generated"),
    ] {
        let capture = json!({"hooks": hooks, "positions": positions, "dtype": "float16"});
        let generate = json!({"max_new_tokens": 11, "temperature": 1.5, "seed": 3});
        let body = json!({"input": [[4, 5, 6], long], "generate": generate, "capture": capture, "reuse": false});
        let run = app.run(body).await;
        for i in 0..2 {
            let cache = cache(&app, &run, i).await;
            // the positions of the parts by number
            let n_prompt = cache["completion"]["first_position"].clone();
            let positions = match positions.as_str() {
                Some("prompt") => json!({"start": 0, "end": n_prompt}),
                Some("generated") => json!({"start": n_prompt}),
                _ => positions.clone(),
            };
            let capture = json!({"hooks": hooks, "positions": positions, "dtype": "float16"});
            let whole = json!({"input": cache["token_ids"], "capture": capture, "reuse": false});
            let posted = app.run(whole).await;
            let posted = app.get(&format!("/v1/caches/{}", posted["caches"][0].as_str().unwrap())).await.json();
            assert_eq!(cache["content_hash"], posted["content_hash"], "{positions}");
            assert_eq!(cache["hooks"], posted["hooks"]);
        }
    }
}

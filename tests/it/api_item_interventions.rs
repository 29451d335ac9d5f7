//! Interventions of single items, and lists of strengths that make one item each: the numbers of runs that have them alone.

use serde_json::{Value, json};

use crate::support::{TestApp, with_model};

const IDS: [u32; 6] = [1, 17, 203, 99, 5, 64];

fn vector(seed: usize) -> Vec<f32> {
    (0..32).map(|i| ((i * 7 + seed * 13) % 11) as f32 / 10.0 - 0.5).collect()
}

fn add(seed: usize, strength: Value) -> Value {
    json!({"op": "add", "layers": [1], "vector": vector(seed), "strength": strength})
}

fn zero() -> Value {
    json!({"op": "zero", "hook": "attn.z", "layers": [0], "heads": [2], "positions": [-1]})
}

async fn logits(app: &TestApp, run: &Value, i: usize) -> bytes::Bytes {
    let cache = run["caches"][i].as_str().unwrap();
    app.get(&format!("/v1/caches/{cache}/tensors/logits?format=raw")).await.body
}

/// What one cache says was changed.
async fn told(app: &TestApp, run: &Value, i: usize) -> Vec<Value> {
    let cache = app.get(&format!("/v1/caches/{}", run["caches"][i].as_str().unwrap())).await.json();
    cache["provenance"]["interventions"].as_array().unwrap().clone()
}

/// A run of items whose own and common interventions are given.
fn items(own: &[Value], run: &Value) -> Value {
    let items: Vec<Value> = own.iter().map(|own| json!({"token_ids": IDS, "interventions": own})).collect();
    json!({"items": items, "interventions": run, "capture": {"hooks": ["logits"], "positions": "all"}, "reuse": false})
}

/// The logits of a run of one input with these interventions, computed alone.
async fn alone(app: &TestApp, interventions: Value) -> bytes::Bytes {
    let capture = json!({"hooks": ["logits"], "positions": "all"});
    let run = app.run(json!({"input": IDS, "interventions": interventions, "capture": capture, "reuse": false})).await;
    logits(app, &run, 0).await
}

#[tokio::test]
async fn each_item_has_its_own_interventions_after_those_of_the_run() {
    let app = TestApp::new().await;
    let own = [json!([]), json!([add(1, json!(2))]), json!([zero()]), json!([add(2, json!(-1)), zero()])];
    let set = json!({"op": "set", "layers": [1], "positions": [2], "vector": vector(9)});
    for common in [json!([]), json!([set])] {
        let run = app.run(items(&own, &common)).await;
        for (i, own) in own.iter().enumerate() {
            let all = [common.as_array().unwrap().clone(), own.as_array().unwrap().clone()].concat();
            assert_eq!(logits(&app, &run, i).await, alone(&app, json!(all)).await, "{i}: bit for bit");
            assert_eq!(told(&app, &run, i).await.len(), all.len());
        }
    }
    // the order counts: what the item adds is added to what the run sets
    let run = app.run(items(&[json!([add(1, json!(2))])], &json!([set]))).await;
    assert_eq!(told(&app, &run, 0).await.iter().map(|t| t["op"].clone()).collect::<Vec<_>>(), ["set", "add"]);
    assert_ne!(logits(&app, &run, 0).await, alone(&app, json!([add(1, json!(2)), set])).await);
}

#[tokio::test]
async fn items_are_reused_like_runs_with_the_same_interventions() {
    let app = TestApp::new().await;
    let capture = json!({"hooks": ["logits"], "positions": "all"});
    let plain = app.run(json!({"input": IDS, "capture": capture})).await;
    let steered = app.run(json!({"input": IDS, "interventions": [add(1, json!(2))], "capture": capture})).await;
    let mut body = items(&[json!([]), json!([zero()]), json!([add(1, json!(2))])], &json!([]));
    body["reuse"] = json!(true);
    let run = app.run(body.clone()).await;
    assert_eq!(run["n_reused"], 2, "the plain one and the steered one");
    assert_eq!(logits(&app, &run, 0).await, logits(&app, &plain, 0).await);
    assert_eq!(logits(&app, &run, 2).await, logits(&app, &steered, 0).await);
    assert_ne!(logits(&app, &run, 1).await, logits(&app, &plain, 0).await);
    assert_eq!(app.run(body).await["n_reused"], 3);
}

#[tokio::test]
async fn a_list_of_strengths_makes_one_item_each() {
    let app = TestApp::new().await;
    let strengths = [0.0, 0.1, 1.0, -3.0];
    let other = [5, 6, 7];
    let capture = json!({"hooks": ["logits"], "positions": "all"});
    let body = json!({"input": [IDS.to_vec(), other.to_vec()], "interventions": [zero(), add(3, json!(strengths))], "capture": capture});
    let dry = app.post("/v1/runs?dry_run=true", &with_model(body.clone())).await.json();
    assert_eq!(dry["n_items"], 8);
    let run = app.run(body).await;
    assert_eq!(run["n_items"], 8);
    for (i, input) in [IDS.to_vec(), other.to_vec()].into_iter().enumerate() {
        for (j, strength) in strengths.into_iter().enumerate() {
            let item = i * strengths.len() + j;
            let told = told(&app, &run, item).await;
            assert_eq!(told[1]["strength"], strength, "as posted, inputs first");
            assert_eq!(dry["items"][item]["interventions"], json!(told));
            let single = app
                .run(json!({"input": input, "interventions": [zero(), add(3, json!(strength))], "capture": capture, "reuse": false}))
                .await;
            assert_eq!(logits(&app, &run, item).await, logits(&app, &single, 0).await, "{i} {strength}");
        }
    }
}

#[tokio::test]
async fn lists_of_one_input_are_taken_together() {
    let app = TestApp::new().await;
    let own = [json!([add(1, json!([1, 2, 3]))]), json!([]), json!([add(2, json!(5))])];
    let run = app.run(items(&own, &json!([add(4, json!(1))]))).await;
    assert_eq!(run["n_items"], 5, "three for the first, and one for each of the others");
    for (item, expected) in [json!([1.0, 1.0]), json!([1.0, 2.0]), json!([1.0, 3.0]), json!([1.0]), json!([1.0, 5.0])]
        .into_iter()
        .enumerate()
    {
        let told = told(&app, &run, item).await;
        assert_eq!(told.iter().map(|t| t["strength"].clone()).collect::<Value>(), expected);
    }
    let run = app.run(items(&[json!([add(1, json!([1, 2]))])], &json!([add(4, json!([3, 4]))]))).await;
    assert_eq!(run["n_items"], 2, "no product");
    assert_eq!(logits(&app, &run, 1).await, alone(&app, json!([add(4, json!(4)), add(1, json!(2))])).await);
}

#[tokio::test]
async fn a_run_with_interventions_of_items_survives_a_restart() {
    let mut app = TestApp::new().await;
    let own: Vec<Value> = (0..40).map(|i| json!([add(i, json!([1, -1]))])).collect();
    let run = app.post("/v1/runs", &with_model(items(&own, &json!([zero()])))).await.json();
    app.stop().await;
    app.start_again().await;
    app.load().await;
    let id = run["id"].as_str().unwrap();
    let run = loop {
        let run = app.get(&format!("/v1/runs/{id}")).await.json();
        if run["finished_at"].is_string() {
            break run;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((&run["status"], &run["n_done"]), (&json!("completed"), &json!(80)));
    for item in [0, 41, 79] {
        let strength = if item % 2 == 0 { 1 } else { -1 };
        let expected = alone(&app, json!([zero(), add(item / 2, json!(strength))])).await;
        assert_eq!(logits(&app, &run, item).await, expected, "{item}");
    }
}

#[tokio::test]
async fn generation_is_steered_for_each_item() {
    let app = TestApp::new().await;
    let body = |interventions: Value| {
        json!({"input": IDS, "interventions": interventions, "generate": {"max_new_tokens": 6},
            "capture": {"hooks": ["resid_post"], "layers": [2], "positions": "all"}})
    };
    let run = app.run(body(json!([add(1, json!([0, 30, -30]))]))).await;
    for (i, strength) in [0, 30, -30].into_iter().enumerate() {
        let single = app.run(body(json!([add(1, json!(strength))]))).await;
        assert_eq!(run["completions"][i]["token_ids"], single["completions"][0]["token_ids"], "{strength}");
    }
}

#[tokio::test]
async fn impossible_interventions_of_items_are_refused() {
    let app = TestApp::new().await;
    let cases = [
        (json!([{"op": "scale"}]), 400, "invalid_body", "/items/1/interventions/0/factor"),
        (
            json!([{"op": "zero"}, {"op": "zero", "layers": [3]}]),
            422,
            "layer_out_of_range",
            "/items/1/interventions/1/layers",
        ),
        (json!([{"op": "zero", "positions": [6]}]), 422, "position_out_of_range", "/items/1/interventions/0/positions"),
        (json!([{"op": "zero", "hok": 1}]), 400, "invalid_body", "/items/1/interventions/0/hok"),
        (json!([add(1, json!([]))]), 422, "invalid_value", "/items/1/interventions/0/strength"),
        (json!([add(1, json!([1, 1e300]))]), 422, "invalid_value", "/items/1/interventions/0/strength/1"),
        (json!([add(1, json!("high"))]), 400, "invalid_field", "/items/1/interventions/0/strength"),
        (json!([{"op": "zero", "strength": [1, 2]}]), 400, "invalid_body", "/items/1/interventions/0/strength"),
        (json!([add(1, json!([1, 2]))]), 422, "invalid_value", "/items/1/interventions/0/strength"),
        (json!(vec![zero(); 256]), 422, "invalid_value", "/items/1/interventions"),
    ];
    for (own, status, code, pointer) in cases {
        let body = items(&[json!([]), own.clone()], &json!([add(4, json!([1, 2, 3]))]));
        let answer = app.post("/v1/runs", &with_model(body)).await;
        assert_eq!(answer.problem(status, code), [pointer], "{own}");
    }
    let strengths: Vec<usize> = (0..5001).collect();
    let body = json!({"input": [IDS, IDS], "interventions": [add(1, json!(strengths))]});
    app.post("/v1/runs", &with_model(body)).await.problem(413, "too_many_items");
}

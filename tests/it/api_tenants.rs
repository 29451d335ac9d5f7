//! Tenants: nothing of one tenant exists for another, on any route, in any listing, by any name.

use std::collections::BTreeSet;

use axum::http::Method;
use residuum::domain::Scope;
use serde_json::{Value, json};

use crate::support::{Answer, D_MODEL, TestApp, operations, with_model};

/// A server with two tenants, Alice and Bob, and ids of what Alice has.
struct Neighbours {
    app: TestApp,
    alice: String,
    bob: String,
    run: String,
    caches: Vec<String>,
    /// Id and name of a direction.
    direction: [String; 2],
}

impl Neighbours {
    async fn new() -> Self {
        let app = TestApp::attentive().await;
        let alice = app.key("alice", &[Scope::Write]).await.1;
        let bob = app.key("bob", &[Scope::Write]).await.1;
        let body = with_model(json!({
            "input": ["the cat sat", "a dog"], "tags": ["hers"], "capture": {"positions": "all", "hooks": ["resid_post", "logits"]},
        }));
        let run = app.send_as(&alice, Method::POST, "/v1/runs?wait=60", &body).await.json();
        assert_eq!(run["status"], "completed", "{run:#}");
        let caches = run["caches"].as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_owned()).collect();
        let made = app.send_as(&alice, Method::POST, "/v1/directions", &upload("hers", 0.5)).await.json();
        let id = made["id"].as_str().unwrap_or_else(|| panic!("{made:#}")).to_owned();
        let run = run["id"].as_str().unwrap().to_owned();
        Self { app, alice, bob, run, caches, direction: [id, "hers".to_owned()] }
    }

    async fn ask(&self, key: &str, method: Method, uri: &str, body: &Value) -> Answer {
        self.app.send_as(key, method, uri, body).await
    }

    /// The path with Alice's ids as parameters; `None` for a path without ids of a tenant.
    fn path(&self, template: &str, direction: &str) -> Option<String> {
        let id = if template.starts_with("/v1/runs/") { &self.run } else { &self.caches[0] };
        let ours = ["/v1/runs/{id}", "/v1/caches/{id}", "/v1/directions/{direction}"];
        if !ours.iter().any(|prefix| template.starts_with(prefix)) {
            return None;
        }
        let path = template.replace("{id}", id).replace("{layer}", "1").replace("{direction}", direction);
        let path = path.replace("{hook}", "blocks.1.hook_resid_post");
        assert!(!path.contains('{'), "this test needs values for the parameters of {template}");
        Some(path)
    }
}

fn upload(name: &str, value: f32) -> Value {
    json!({"method": "upload", "name": name, "model": "tiny", "vectors": [{"layer": 1, "values": vec![value; D_MODEL]}]})
}

/// A body that the operation accepts; null for operations without a body.
fn body_of(id: &str) -> Value {
    match id {
        "updateCache" | "updateDirection" => json!({"metadata": {"seen": true}}),
        "attributeLogit" => json!({"token": 5}),
        "readLens" => json!({}),
        "encodeFeatures" => json!({"sae": "none"}),
        _ => Value::Null,
    }
}

#[tokio::test]
async fn ids_of_another_tenant_are_not_found_on_any_route() {
    let n = Neighbours::new().await;
    let mut walked = BTreeSet::new();
    // Alice's requests succeed, so Bob's are not refused because they are malformed
    for (method, template, operation) in operations().filter(|(method, ..)| *method == Method::GET) {
        let id = operation["operationId"].as_str().unwrap();
        for direction in &n.direction {
            let Some(path) = n.path(template, direction) else { continue };
            let answer = n.ask(&n.alice, method.clone(), &path, &body_of(id)).await;
            assert!(answer.status.is_success(), "{id}: {:?}", answer.body);
        }
    }
    for (method, template, operation) in operations() {
        let id = operation["operationId"].as_str().unwrap();
        for direction in &n.direction {
            let Some(path) = n.path(template, direction) else { continue };
            walked.insert(id);
            let mut methods = vec![method.clone()];
            methods.extend((method == Method::GET).then_some(Method::HEAD));
            for method in methods {
                let answer = n.ask(&n.bob, method.clone(), &path, &body_of(id)).await;
                assert_eq!(answer.status, 404, "{method} {path}: {:?}", answer.body);
                if method != Method::HEAD {
                    let code = answer.json()["code"].as_str().unwrap().to_owned();
                    assert!(code.ends_with("_not_found"), "{id} answers {code}");
                }
            }
            // Bob gets the same answer for ids that do not exist
            let nothing = "0198c7a0-0000-7000-8000-000000000000";
            let stranger =
                path.replace(&n.run, nothing).replace(&n.caches[0], nothing).replace(direction, "nothing-at-all");
            let other = n.ask(&n.bob, method.clone(), &stranger, &body_of(id)).await;
            assert_eq!(other.status, 404, "{method} {stranger}");
        }
    }
    assert!(walked.len() >= 16 && walked.contains("followRun") && walked.contains("getDirectionVector"), "{walked:?}");
    // none of Bob's requests changed anything
    for uri in [format!("/v1/runs/{}", n.run), format!("/v1/caches/{}", n.caches[0]), "/v1/directions/hers".to_owned()]
    {
        let mine = n.ask(&n.alice, Method::GET, &uri, &Value::Null).await.json();
        assert!(mine["metadata"].get("seen").is_none(), "{mine:#}");
    }
}

/// Requests with ids in their bodies: the operation, the body, the code of the refusal.
fn questions(n: &Neighbours) -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let (caches, one) = (&n.caches, &n.caches[0]);
    let vector = vec![1.0; D_MODEL];
    let means = json!({"method": "difference_of_means", "name": "m", "positive": [one], "negative": [caches[1]]});
    let changed = |intervention: Value| with_model(json!({"input": "a cat", "interventions": [intervention]}));
    let probe = json!({"method": "probe", "name": "p", "caches": caches, "target": {"tag": "hers"}, "folds": 2});
    let patched = json!({"max_tokens": 1, "residuum": {"interventions": [{"op": "patch", "source": {"cache": one}}]}});
    let (mut completed, mut answered) = (with_model(patched.clone()), with_model(patched));
    completed["prompt"] = json!("a cat");
    answered["messages"] = json!([{"role": "user", "content": "a cat"}]);
    vec![
        ("openaiCreateCompletion", "/openai/v1/completions", completed, "unknown_cache"),
        ("openaiCreateChatCompletion", "/openai/v1/chat/completions", answered, "unknown_cache"),
        ("compareCaches", "/v1/comparisons", json!({"mode": "pairs", "a": [one], "b": [caches[1]]}), "unknown_cache"),
        ("compareCaches", "/v1/comparisons", json!({"mode": "matrix", "caches": caches}), "unknown_cache"),
        ("compareCaches", "/v1/comparisons", json!({"mode": "matrix", "caches": {"run": n.run}}), "empty_input"),
        ("compareCaches", "/v1/comparisons", json!({"mode": "matrix", "caches": {"tags": ["hers"]}}), "empty_input"),
        ("describeActivations", "/v1/statistics", json!({"caches": caches}), "unknown_cache"),
        ("describeActivations", "/v1/statistics", json!({"caches": {"run": n.run}}), "empty_input"),
        (
            "projectCaches",
            "/v1/projections",
            json!({"caches": caches, "directions": [{"vector": vector}]}),
            "unknown_cache",
        ),
        ("search", "/v1/search", json!({"query": {"cache": one}, "layer": 1}), "unknown_cache"),
        ("search", "/v1/search", json!({"query": {"direction": "hers"}, "layer": 1}), "unknown_direction"),
        ("search", "/v1/search", json!({"query": {"direction": n.direction[0]}, "layer": 1}), "unknown_direction"),
        ("createDirection", "/v1/directions", means, "unknown_cache"),
        ("createDirection", "/v1/directions", json!({"method": "pca", "name": "c", "caches": caches}), "unknown_cache"),
        ("createDirection", "/v1/directions", probe, "unknown_cache"),
        ("createRun", "/v1/runs", changed(json!({"op": "patch", "source": {"cache": one}})), "unknown_cache"),
        ("createRun", "/v1/runs", changed(json!({"op": "mean_ablate", "caches": [one]})), "unknown_cache"),
        ("createRun", "/v1/runs", changed(json!({"op": "mean_ablate", "caches": {"run": n.run}})), "empty_input"),
        (
            "createRun",
            "/v1/runs",
            changed(json!({"op": "add", "layers": [1], "direction": {"direction": "hers"}})),
            "unknown_direction",
        ),
        ("createRun", "/v1/runs", changed(json!({"op": "add", "direction": {"cache": one}})), "unknown_cache"),
    ]
}

/// Operations whose bodies have no ids of a tenant. Models and autoencoders are there for all tenants.
const NAMELESS: [&str; 6] =
    ["importCache", "loadModel", "loadSae", "openaiCreateEmbedding", "patchActivations", "tokenize"];

#[tokio::test]
async fn bodies_cannot_name_what_belongs_to_another_tenant() {
    let n = Neighbours::new().await;
    let questions = questions(&n);
    let asked: BTreeSet<&str> = questions.iter().map(|(id, ..)| *id).collect();
    for (method, template, operation) in operations().filter(|(method, ..)| *method == Method::POST) {
        let id = operation["operationId"].as_str().unwrap();
        // no autoencoder is served here; a search covers the lookup among the tenant's caches
        let nothing_here = template.starts_with("/v1/saes/");
        let covered =
            asked.contains(id) || NAMELESS.contains(&id) || n.path(template, "hers").is_some() || nothing_here;
        assert!(covered, "this test must say how {method} {template} refuses ids of another tenant");
    }
    for (id, uri, body, code) in &questions {
        let answer = n.ask(&n.bob, Method::POST, uri, body).await;
        let status = if uri.starts_with("/openai/") { 400 } else { 422 };
        answer.refused(status, code);
        let hers = n.ask(&n.alice, Method::POST, uri, body).await;
        assert_ne!(hers.refusal().code, *code, "{id} {body}: Alice has them");
    }
    let bobs = json!({"input": "a dog", "capture": {"positions": "all"}});
    let run = n.ask(&n.bob, Method::POST, "/v1/runs?wait=60", &with_model(bobs)).await.json();
    let own = run["caches"][0].as_str().unwrap();
    let mixed = json!({"mode": "pairs", "a": [own], "b": [n.caches[0]]});
    n.ask(&n.bob, Method::POST, "/v1/comparisons", &mixed).await.problem(422, "unknown_cache");
    let along = json!({"caches": [own], "directions": [{"direction": "hers"}]});
    n.ask(&n.bob, Method::POST, "/v1/projections", &along).await.problem(422, "unknown_direction");
    let along = json!({"caches": [own], "directions": [{"cache": n.caches[0]}]});
    n.ask(&n.bob, Method::POST, "/v1/projections", &along).await.problem(422, "unknown_cache");
}

#[tokio::test]
async fn listings_and_searches_find_only_what_the_tenant_has() {
    let n = Neighbours::new().await;
    let body = with_model(json!({"input": "his own", "tags": ["hers"], "capture": {"positions": "all"}}));
    let run = n.ask(&n.bob, Method::POST, "/v1/runs?wait=60", &body).await.json();
    let own = run["caches"][0].as_str().unwrap();
    let ids = async |key: &str, uri: &str| -> Vec<String> {
        let page = n.ask(key, Method::GET, uri, &Value::Null).await.json();
        page["items"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect()
    };
    for uri in ["/v1/caches", "/v1/caches?tag=hers", "/v1/caches?model=tiny"] {
        assert_eq!(ids(&n.bob, uri).await, [own], "{uri}");
        assert_eq!(ids(&n.alice, uri).await.len(), 2, "{uri}");
    }
    assert_eq!(ids(&n.bob, "/v1/runs").await, [run["id"].as_str().unwrap()]);
    assert_eq!(ids(&n.alice, "/v1/runs").await, [n.run.as_str()]);
    assert_eq!(ids(&n.bob, &format!("/v1/caches?run={}", n.run)).await, [""; 0]);
    assert_eq!(ids(&n.bob, "/v1/directions").await, [""; 0]);
    // a cursor of Alice's does not lead Bob to her caches
    let page = n.ask(&n.alice, Method::GET, "/v1/caches?limit=1", &Value::Null).await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(ids(&n.bob, &format!("/v1/caches?cursor={cursor}")).await, [""; 0]);
    // the plan of a search is kept: Alice searches first, then Bob asks the same question
    let question = json!({"query": {"vectors": [vec![1.0; D_MODEL]]}, "layer": 1, "k": 100, "over": "positions"});
    for (key, caches) in [(&n.alice, 2), (&n.bob, 1), (&n.alice, 2)] {
        let found = n.ask(key, Method::POST, "/v1/search", &question).await.json();
        assert_eq!(found["scanned"]["caches"], caches, "{found:#}");
    }
}

#[tokio::test]
async fn nothing_is_reused_across_tenants() {
    let n = Neighbours::new().await;
    let body = with_model(json!({
        "input": ["the cat sat", "a dog"], "capture": {"positions": "all", "hooks": ["resid_post", "logits"]}
    }));
    let reused = async |key: &str| {
        let run = n.ask(key, Method::POST, "/v1/runs?wait=60", &body).await.json();
        (run["n_reused"].as_u64().unwrap(), run["caches"][0].as_str().unwrap().to_owned())
    };
    let (count, his) = reused(&n.bob).await;
    assert_eq!(count, 0, "Bob's first run is computed although Alice has the same");
    assert_eq!(reused(&n.bob).await.0, 2);
    assert_eq!(reused(&n.alice).await.0, 2);
    // the numbers are the same
    let values = async |key: &str, cache: &str| {
        n.ask(key, Method::GET, &format!("/v1/caches/{cache}/layers/1?format=raw"), &Value::Null).await.body
    };
    assert_eq!(values(&n.bob, &his).await, values(&n.alice, &n.caches[0]).await);
    // deleting Alice's caches leaves Bob's
    let gone = n.ask(&n.alice, Method::DELETE, &format!("/v1/caches/{}", n.caches[0]), &Value::Null).await;
    assert_eq!(gone.status, 204);
    assert_eq!(n.ask(&n.bob, Method::GET, &format!("/v1/caches/{his}/layers/1"), &Value::Null).await.status, 200);
}

#[tokio::test]
async fn names_and_idempotency_keys_are_free_for_each_tenant() {
    let n = Neighbours::new().await;
    let post = async |key: &str, text: &str| {
        let headers = [("authorization", key), ("idempotency-key", "once")];
        n.app.post_with("/v1/runs?wait=60", &headers, &with_model(json!({"input": text}))).await
    };
    let hers = post(&n.alice, "one").await.json();
    let his = post(&n.bob, "two").await;
    assert_eq!(his.status, 201, "Alice's idempotency key is not Bob's");
    assert_ne!(his.json()["id"], hers["id"]);
    assert_eq!(post(&n.alice, "one").await.json()["id"], hers["id"]);
    post(&n.bob, "one").await.problem(422, "idempotency_key_reused");

    let made = n.ask(&n.bob, Method::POST, "/v1/directions", &upload("hers", 0.25)).await;
    assert_eq!(made.status, 201, "{:?}", made.body);
    let mine = n.ask(&n.alice, Method::GET, "/v1/directions/hers", &Value::Null).await.json();
    assert_eq!(mine["id"], n.direction[0].as_str());
    assert_ne!(made.json()["id"], mine["id"]);
}

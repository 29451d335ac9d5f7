//! API keys and scopes: which key may use which route, and how others are refused.

use std::{collections::BTreeSet, future::ready, time::Duration};

use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use residuum::{
    api::ApiConfig,
    app::{self, AppError},
    domain::{ApiKey, NewKey, Scope},
    engine::Limits,
    store::KeyStore,
};
use serde_json::{Value, json};

use crate::support::{Answer, TestApp, config, operations, request, with_model};

/// The one scope that an operation requires; `None` if it needs no key.
fn scope_of(operation: &Value) -> Option<Scope> {
    let security = operation["security"].as_array().expect("every operation says what it needs");
    let needed = security.first()?;
    Some(needed["bearer"][0].as_str().unwrap().parse().unwrap())
}

/// The path with ids of things that do not exist.
fn nowhere(path: &str) -> String {
    let path = path.replace("{id}", "0198c7a0-0000-7000-8000-000000000000").replace("{layer}", "0");
    path.replace("{hook}", "logits").replace("{direction}", "nothing")
}

async fn request_nothing(app: &TestApp, method: &Method, path: &str, key: Option<&str>) -> Answer {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(key.map(|key| ("authorization", key)));
    app.send(request(method.clone(), &nowhere(path), &headers, Body::from("{}"))).await
}

#[tokio::test]
async fn every_route_asks_for_the_scope_it_documents() {
    let app = TestApp::attentive().await;
    let mut keys = Vec::new();
    for scope in Scope::ALL {
        keys.push((scope, app.key("default", &[scope]).await.1));
    }
    let mut open = BTreeSet::new();
    for (method, path, operation) in operations() {
        let id = operation["operationId"].as_str().unwrap();
        let Some(needed) = scope_of(operation) else {
            open.insert(id);
            assert!(request_nothing(&app, &method, path, None).await.status.is_success(), "{id}");
            continue;
        };
        let refused = request_nothing(&app, &method, path, None).await;
        refused.refused(401, "api_key_required");
        assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"residuum\"", "{id}");
        for (scope, key) in &keys {
            let answer = request_nothing(&app, &method, path, Some(key)).await;
            if scope.includes(needed) {
                assert!(![401, 403].contains(&answer.status.as_u16()), "{id} refused {scope}");
            } else {
                answer.refused(403, "scope_missing");
                assert!(answer.refusal().detail.contains(&format!("`{needed}`")), "{id}");
                let challenge = format!("error=\"insufficient_scope\", scope=\"{needed}\"");
                assert!(answer.header("www-authenticate").ends_with(&challenge), "{id}");
            }
        }
    }
    assert_eq!(open, BTreeSet::from(["getIndex", "getHealth", "getReadiness", "getOpenapiJson", "getOpenapiYaml"]));
    assert_eq!(app.get("/docs/").await.status, 200);
    app.get("/v1/nothing").await.problem(404, "route_not_found");
}

#[test]
fn reading_scopes_cannot_change_anything() {
    let questions: BTreeSet<&str> = operations()
        .filter(|(method, _, operation)| *method != Method::GET && scope_of(operation) == Some(Scope::Read))
        .map(|(_, _, operation)| operation["operationId"].as_str().unwrap())
        .collect();
    let known = [
        "attributeLogit",
        "compareCaches",
        "describeActivations",
        "encodeFeatures",
        "findFeatureTokens",
        "openaiCreateEmbedding",
        "projectCaches",
        "readLens",
        "search",
        "tokenize",
    ];
    assert_eq!(questions, BTreeSet::from(known), "a new one must not change anything of the tenant");
    for (method, path, operation) in operations() {
        if path == "/metrics" {
            assert_eq!(scope_of(operation), Some(Scope::Metrics));
        } else if method == Method::GET && (path.starts_with("/v1/") || path.starts_with("/openai/")) {
            assert_eq!(scope_of(operation), Some(Scope::Read), "{path}");
        }
    }
}

#[tokio::test]
async fn only_the_whole_key_is_accepted() {
    let app = TestApp::attentive().await;
    let (record, good) = app.key("default", &[Scope::Read]).await;
    let get = async |key: &str| app.get_with("/v1/runs", &[("authorization", key)]).await;
    assert_eq!(get(&good).await.status, 200);
    assert_eq!(get(&good.replace("Bearer", "bearer")).await.status, 200);
    let stranger = ApiKey::generate().unwrap().reveal();
    let last = if good.ends_with('0') { "1" } else { "0" };
    let wrong = [
        format!("Bearer {stranger}"),
        // the id of one key with the secret of another
        format!("Bearer rsd_{}{}", record.id, &stranger[16..]),
        format!("{}{last}", &good[..good.len() - 1]),
        good[..good.len() - 1].to_owned(),
        format!("{good}0"),
    ];
    for key in &wrong {
        let answer = get(key).await;
        answer.problem(401, "api_key_invalid");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"residuum\", error=\"invalid_token\"");
    }
    for other in ["", "Bearer", "Basic dXNlcjpwYXNz", "Bearer eyJhbGciOi", &good["Bearer ".len()..]] {
        get(other).await.problem(401, "api_key_required");
    }
    let twice = [("authorization", good.as_str()), ("authorization", good.as_str())];
    app.get_with("/v1/runs", &twice).await.problem(401, "api_key_invalid");
}

#[tokio::test]
async fn keys_expire_and_can_be_revoked() {
    let app = TestApp::attentive().await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600);
    let over = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(1);
    let (_, lasting) = app.key_until("default", &[Scope::Read], Some(soon)).await;
    let (_, expired) = app.key_until("default", &[Scope::Read], Some(over)).await;
    let (record, revoked) = app.key("default", &[Scope::Read]).await;
    assert_eq!(app.get_with("/v1/runs", &[("authorization", &revoked)]).await.status, 200);
    app.keys().await.revoke(record.id).await.unwrap().unwrap();
    assert_eq!(app.get_with("/v1/runs", &[("authorization", &lasting)]).await.status, 200);
    for (key, why) in [(expired, "expired"), (revoked, "revoked")] {
        let answer = app.get_with("/v1/runs", &[("authorization", &key)]).await;
        answer.problem(401, "api_key_invalid");
        assert!(answer.json()["detail"].as_str().unwrap().contains(why));
    }
}

#[tokio::test]
async fn a_key_that_is_made_or_revoked_is_noticed_within_a_second() {
    // the server's default interval, not the shorter one of the other tests
    let app = TestApp::new().await;
    let status = async |key: &str| app.get_with("/v1/runs", &[("authorization", key)]).await.status;
    assert_eq!(status("").await, 200);
    let (record, key) = app.key("default", &[Scope::Read]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((status("").await, status(&key).await), (StatusCode::UNAUTHORIZED, StatusCode::OK));
    app.keys().await.revoke(record.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(status(&key).await, 401);
}

#[tokio::test]
async fn a_store_that_had_keys_always_requires_one() {
    let mut app = TestApp::attentive().await;
    let early = app.capture("before any key", json!({})).await;
    let uri = format!("/v1/caches/{early}");
    // an unknown key is refused even if no key is required, so that its holder does not believe it was checked
    let stray = format!("Bearer {}", ApiKey::generate().unwrap().reveal());
    app.get_with(&uri, &[("authorization", &stray)]).await.problem(401, "api_key_invalid");
    assert_eq!(app.get_with(&uri, &[("authorization", "Basic cHJveHk6")]).await.status, 200);

    let (record, key) = app.key("default", &[Scope::Read]).await;
    app.get(&uri).await.problem(401, "api_key_required");
    assert_eq!(app.get_with(&uri, &[("authorization", &key)]).await.status, 200, "the default tenant's own");

    app.keys().await.revoke(record.id).await.unwrap();
    app.get(&uri).await.problem(401, "api_key_required");
    app.stop().await;
    app.start_again().await;
    app.get(&uri).await.problem(401, "api_key_required");
    app.get_with(&uri, &[("authorization", &key)]).await.problem(401, "api_key_invalid");

    assert_eq!(app.keys().await.forget_all().await.unwrap(), []);
    app.get(&uri).await.problem(401, "api_key_required");
    app.stop().await;
    app.start_again().await;
    assert_eq!(app.get(&uri).await.status, 200, "asked for, and restarted");
}

#[tokio::test]
async fn listening_beyond_loopback_requires_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("llama/gqa_tied", &folder, &Limits::default(), &ApiConfig::default(), &[]);
    config.listen = "0.0.0.0:0".parse().unwrap();
    let refused = app::serve(config.clone(), ready(())).await.unwrap_err();
    assert!(matches!(refused, AppError::Open { .. }), "{refused}");
    let text = refused.to_string();
    for word in ["0.0.0.0", "residuum keys create --data-dir", "--allow-unauthenticated"] {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
    config.allow_unauthenticated = true;
    app::serve(config.clone(), ready(())).await.unwrap();
    config.allow_unauthenticated = false;
    config.listen = "127.0.0.1:0".parse().unwrap();
    app::serve(config.clone(), ready(())).await.unwrap();

    let mut keys = KeyStore::open(folder.path()).await.unwrap();
    let (name, tenant) = ("first".to_owned(), "default".to_owned());
    let key = ApiKey::generate().unwrap();
    keys.create(&NewKey { key, name, tenant, scopes: vec![Scope::Read], expires_at: None }).await.unwrap();
    keys.close().await.unwrap();
    config.listen = "0.0.0.0:0".parse().unwrap();
    app::serve(config, ready(())).await.unwrap();
}

#[tokio::test]
async fn the_last_use_of_a_key_is_recorded() {
    let app = TestApp::attentive().await;
    let (record, key) = app.key("default", &[Scope::Read]).await;
    assert_eq!(record.last_used_at, None);
    assert_eq!(app.get_with("/v1/runs", &[("authorization", &key)]).await.status, 200);
    let mut keys = app.keys().await;
    for _ in 0..500 {
        if keys.list().await.unwrap()[0].last_used_at.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the key looks unused");
}

#[tokio::test]
async fn pages_of_other_origins_may_send_a_key_and_read_the_answer() {
    let cors_origins = vec!["https://lab.example".parse().unwrap()];
    let api = ApiConfig { cors_origins, freshness: Duration::ZERO, ..ApiConfig::default() };
    let app = TestApp::with(Limits::default(), api).await;
    let (_, key) = app.key("default", &[Scope::Read]).await;
    let origin = ("origin", "https://lab.example");
    let preflight = [
        origin,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let allowed = app.send(request(Method::OPTIONS, "/v1/runs", &preflight, Body::empty())).await;
    assert_eq!(allowed.status, 200, "a browser sends no key with this");
    assert!(allowed.header("access-control-allow-headers").to_lowercase().contains("authorization"));
    let body = Body::from(with_model(json!({"input": "a"})).to_string());
    let with_key = [origin, ("authorization", &key), ("content-type", "application/json")];
    let large = "x".repeat(40_000);
    let cases = [
        (app.get_with("/v1/runs", &[origin]).await, 401),
        (app.send(request(Method::POST, "/v1/runs", &with_key, body)).await, 403),
        (app.get_with("/v1/nothing", &[origin]).await, 404),
        (app.send(request(Method::PUT, "/v1/runs", &[origin, ("authorization", &key)], Body::empty())).await, 403),
        (app.get_with("/v1/runs", &[origin, ("authorization", &key), ("x-large", &large)]).await, 431),
    ];
    for (answer, status) in cases {
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), "https://lab.example");
        assert!(answer.header("access-control-expose-headers").to_lowercase().contains("www-authenticate"));
        assert!(answer.headers.contains_key("x-request-id"));
    }
}

//! Hostile text in every place of a request: it finds nothing, breaks nothing, and is answered with a documented error.

use axum::{body::Body, http::Method};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::{Answer, TestApp, operations, request, with_model};

/// A server with a run of two caches.
struct Target {
    runtime: Runtime,
    app: TestApp,
    cache: String,
    run: String,
    /// The raw bytes of one layer.
    layer: Vec<u8>,
}

impl Target {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let (app, run, cache, layer) = runtime.block_on(async {
            let app = TestApp::new().await;
            let run =
                app.run(json!({"input": ["the cat", "a dog"], "capture": {"positions": "all"}, "tags": ["t"]})).await;
            let cache = run["caches"][0].as_str().unwrap().to_owned();
            let layer = app.get(&format!("/v1/caches/{cache}/layers/1?format=raw")).await.body.to_vec();
            (app, run["id"].as_str().unwrap().to_owned(), cache, layer)
        });
        Self { runtime, app, cache, run, layer }
    }

    fn ask(&self, method: Method, uri: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.runtime.block_on(self.app.send(request(method, uri, &headers, body)))
    }

    fn get(&self, uri: &str) -> Answer {
        self.ask(Method::GET, uri, &[], &Value::Null)
    }
}

/// The text with every character percent-encoded that could have a meaning.
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Text with a meaning in paths, SQL, templates or headers; and any other text.
fn hostile() -> impl Strategy<Value = String> {
    let known = [
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "C:\\windows",
        "'; DROP TABLE caches; --",
        "\" OR 1=1 --",
        "x' UNION SELECT secret_hash FROM api_keys --",
        "%",
        "_",
        "*",
        "a%00b",
        "\0",
        "\r\nX-Injected: 1",
        "{{ 7 * 7 }}",
        "{% for x in range(10**9) %}{% endfor %}",
        "${7*7}",
        "<script>alert(1)</script>",
        "0198c7a0-0000-7000-8000-000000000000",
        "c_0198c7a0-0000-7000-8000-000000000000",
        "9223372036854775808",
        "-1",
        "1e999",
        "NaN",
        "\u{202e}\u{feff}\u{fdd0}",
        "",
    ];
    prop_oneof![3 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned), 2 => "\\PC{0,40}", 1 => any::<String>()]
}

fn run<S: Strategy>(strategy: &S, cases: u32, check: impl Fn(S::Value)) {
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(strategy, |value| {
        check(value);
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
}

/// Checks that an answer is a success or a refusal without internal details.
fn check(answer: &Answer, what: &str) {
    assert!(answer.status.as_u16() < 500, "{what}: {:?}", answer.body);
    assert!(!answer.headers.contains_key("x-injected"), "{what}");
    if answer.status.is_client_error() && !answer.body.is_empty() {
        let refusal = answer.refusal();
        assert!(!refusal.code.is_empty(), "{what}: {refusal:?}");
        for leak in ["SELECT", "sqlite", "src/", "/tmp", "panicked", "root:"] {
            let shown = refusal.detail.replace(what, "");
            assert!(!shown.contains(leak) || what.contains(leak), "{what}: {shown}");
        }
    }
}

#[test]
fn paths_take_any_text() {
    let target = Target::new();
    let routes: Vec<(Method, &str)> =
        operations().filter(|(_, path, _)| path.contains('{')).map(|(method, path, _)| (method, path)).collect();
    run(&(hostile(), proptest::sample::select(routes)), 600, |(text, (method, path))| {
        let own = if path.starts_with("/v1/runs/") { &target.run } else { &target.cache };
        let body = if method == Method::GET { Value::Null } else { json!({}) };
        // one hostile parameter at a time; a route that deletes a run or cache never gets a valid id
        for parameter in ["{id}", "{layer}", "{hook}", "{direction}"] {
            if !path.contains(parameter) || (method != Method::GET && parameter != "{id}" && parameter != "{direction}")
            {
                continue;
            }
            let with = path.replace(parameter, &encoded(&text)).replace("{id}", own).replace("{layer}", "1");
            let uri = with.replace("{hook}", "blocks.1.hook_resid_post").replace("{direction}", "none");
            let answer = target.ask(method.clone(), &uri, &[], &body);
            check(&answer, &text);
            if matches!(parameter, "{id}" | "{direction}") {
                assert!(!answer.status.is_success(), "{method} {uri} found something");
            }
        }
    });
}

#[test]
fn queries_take_any_text() {
    let target = Target::new();
    let parameters = [
        ("/v1/runs", "cursor"),
        ("/v1/runs", "limit"),
        ("/v1/runs", "status"),
        ("/v1/runs", "model"),
        ("/v1/runs", "tag"),
        ("/v1/caches", "cursor"),
        ("/v1/caches", "run"),
        ("/v1/caches", "tag"),
        ("/v1/caches", "label"),
        ("/v1/caches", "hook"),
        ("/v1/caches", "text"),
        ("/v1/caches", "created_from"),
        ("/v1/directions", "cursor"),
        ("CACHE/layers", "position"),
        ("CACHE/layers", "positions"),
        ("CACHE/layers", "dtype"),
        ("CACHE/layers", "format"),
        ("CACHE/layers", "hook"),
        ("RUN/caches", "cursor"),
        ("RUN", "x"),
    ];
    run(&(hostile(), proptest::sample::select(parameters.to_vec())), 600, |(text, (path, parameter))| {
        let path = path.replace("CACHE", &format!("/v1/caches/{}", target.cache));
        let path = path.replace("RUN", &format!("/v1/runs/{}", target.run));
        let answer = target.get(&format!("{path}?{parameter}={}", encoded(&text)));
        check(&answer, &text);
        // filters find only what they name, and neither SQL nor patterns widen them
        let filters = ["model", "tag", "label", "hook", "run"];
        if answer.status == 200 && filters.contains(&parameter) && answer.json()["items"].is_array() {
            assert_eq!(answer.json()["items"], json!([]), "{parameter}={text:?}");
        }
        if answer.status == 200 && parameter == "text" {
            let shown = answer.json()["items"].as_array().unwrap().len();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
            let known = words.map(str::to_ascii_lowercase).all(|w| ["the", "cat", "a", "dog"].contains(&w.as_str()));
            assert!(shown == 0 || known, "{text:?} is not in a text");
        }
        if parameter == "cursor" && answer.status != 200 {
            answer.problem(400, "invalid_cursor");
        }
    });
    let percent = target.get("/v1/caches?text=%25");
    assert!(percent.status.is_client_error(), "% is neither a word nor a pattern: {:?}", percent.body);
}

#[test]
fn ranges_and_tags_take_any_text() {
    let target = Target::new();
    let value = prop_oneof![
        2 => "bytes=[0-9]{0,22}-[0-9]{0,22}",
        1 => "(bytes|items)? ?=? ?[-0-9, ]{0,20}",
        1 => "[ -~]{0,30}",
    ];
    let name = proptest::sample::select(vec!["if-range", "if-none-match"]);
    run(&(value, "[ -~]{0,30}", name), 400, |(range, tag, name)| {
        let uri = format!("/v1/caches/{}/layers/1?format=raw", target.cache);
        let answer = target.ask(Method::GET, &uri, &[("range", &range), (name, &tag)], &Value::Null);
        let whole = &target.layer;
        match answer.status.as_u16() {
            200 => assert_eq!(&answer.body[..], &whole[..], "{range}"),
            206 => {
                let shown = answer.header("content-range").strip_prefix("bytes ").unwrap().to_owned();
                let (bytes, total) = shown.split_once('/').unwrap();
                let (first, last) = bytes.split_once('-').unwrap();
                let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                assert_eq!(total, whole.len().to_string());
                assert_eq!(&answer.body[..], &whole[first..=last], "{range}");
            }
            304 => assert!(tag.contains('*'), "{tag}"),
            416 => assert_eq!(answer.header("content-range"), format!("bytes */{}", whole.len())),
            other => panic!("{other} for {range}"),
        }
    });
}

#[test]
fn names_in_bodies_take_any_text() {
    let target = Target::new();
    run(&hostile(), 250, |text| {
        let questions = [
            ("/v1/runs", json!({"model": text, "input": "a"})),
            ("/v1/runs", with_model(json!({"input": "a", "capture": {"hooks": [text]}}))),
            ("/v1/runs", with_model(json!({"input": "a", "capture": {"positions": {"text": text}}}))),
            ("/v1/tokenize", with_model(json!({"messages": [{"role": text, "content": text}]}))),
            (
                "/v1/tokenize",
                with_model(
                    json!({"messages": [{"role": "user", "content": "a"}], "template_kwargs": {text.clone(): text}}),
                ),
            ),
            ("/v1/comparisons", json!({"mode": "pairs", "a": [text], "b": [text]})),
            (
                "/v1/comparisons",
                json!({"mode": "matrix", "caches": {"tags": [text], "label": text, "metadata": {text.clone(): text}}}),
            ),
            ("/v1/search", json!({"query": {"direction": text}, "layer": 1})),
            ("/v1/directions", json!({"method": "pca", "name": text, "caches": [text]})),
        ];
        for (uri, body) in questions {
            check(&target.ask(Method::POST, uri, &[], &body), &text);
        }
        // stored text is returned unchanged, and can be searched for
        let kept = with_model(json!({"input": "a", "tags": [text], "metadata": {"m": text}}));
        let answer = target.ask(Method::POST, "/v1/runs?wait=60", &[], &kept);
        check(&answer, &text);
        if answer.status == 201 {
            assert_eq!(answer.json()["tags"], json!([text]));
            assert_eq!(answer.json()["metadata"]["m"], json!(text));
            let found = target.get(&format!("/v1/runs?tag={}", encoded(&text)));
            let own = answer.json()["id"].clone();
            assert!(found.json()["items"].as_array().unwrap().iter().any(|r| r["id"] == own), "{text:?}");
        }
    });
}

#[test]
fn keys_in_headers_take_any_text() {
    let target = Target::new();
    run(&"[ -~]{0,60}", 200, |text| {
        let answer = target.ask(Method::GET, "/v1/runs", &[("authorization", &text)], &Value::Null);
        // a server without keys only refuses texts that look like a key
        assert!(answer.status == 200 || (answer.status == 401 && text.contains("rsd_")), "{text}");
        let headers = [("idempotency-key", text.as_str())];
        check(&target.ask(Method::POST, "/v1/runs", &headers, &with_model(json!({"input": "a"}))), &text);
    });
}

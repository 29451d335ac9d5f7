//! The dashboard: how its files are sent, to whom, and what they may load.

use std::io::Read;

use axum::{body::Body, http::Method};
use flate2::read::GzDecoder;
use residuum::domain::Scope;
use serde_json::json;

use crate::support::{Answer, TestApp, request};

/// The files of the page, with their media types and their bytes as committed.
const FILES: [(&str, &str, &[u8]); 3] = [
    ("/ui/", "text/html; charset=utf-8", include_bytes!("../../ui/dist/index.html")),
    ("/ui/app.js", "text/javascript; charset=utf-8", include_bytes!("../../ui/dist/app.js")),
    ("/ui/app.css", "text/css; charset=utf-8", include_bytes!("../../ui/dist/app.css")),
];

/// Most bytes of the three files together, compressed.
const BUDGET: usize = 120_000;

const GZIP: (&str, &str) = ("accept-encoding", "gzip, deflate, br");

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

fn unpacked(answer: &Answer) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(&answer.body[..]).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Checks the headers that every answer with a file has.
#[track_caller]
fn is_guarded(answer: &Answer) {
    for (name, value) in [
        ("cache-control", "no-cache"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
             manifest-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'",
        ),
    ] {
        assert_eq!(answer.header(name), value);
    }
    let off = answer.header("permissions-policy");
    for feature in ["camera=()", "microphone=()", "geolocation=()", "usb=()"] {
        assert!(off.split(", ").any(|part| part == feature), "{off}");
    }
    let vary = answer.headers.get_all("vary").iter().map(|value| value.to_str().unwrap().to_lowercase());
    assert_eq!(vary.filter(|value| value == "accept-encoding").count(), 1);
    let tag = answer.header("etag");
    assert!(tag.len() > 20 && tag.starts_with('"') && tag.ends_with('"'), "{tag}: a strong tag");
    assert!(answer.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn the_files_are_sent_plain_or_compressed() {
    let app = TestApp::new().await;
    let mut tags = Vec::new();
    for (path, media_type, bytes) in FILES {
        let plain = app.get(path).await;
        let gzip = app.get_with(path, &[GZIP]).await;
        for answer in [&plain, &gzip] {
            is_guarded(answer);
            assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, media_type), "{path}");
            assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{path}");
            tags.push(answer.header("etag").to_owned());
        }
        assert!(!plain.headers.contains_key("content-encoding"));
        assert_eq!(plain.body, bytes, "{path}");
        assert_eq!(gzip.header("content-encoding"), "gzip");
        assert_eq!(unpacked(&gzip), bytes, "{path}");
        for (accept, is_gzip) in [("gzip;q=0", false), ("identity, gzip;q=0.5", false), ("br, *;q=0.1", true)] {
            let answer = app.get_with(path, &[("accept-encoding", accept)]).await;
            assert_eq!(answer.headers.contains_key("content-encoding"), is_gzip, "{path} {accept}");
        }
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 2 * FILES.len(), "each form of each file has its own tag");
}

#[tokio::test]
async fn what_the_browser_has_is_not_sent_again() {
    let app = TestApp::new().await;
    for (path, _, _) in FILES {
        for accept in ["gzip", "identity"] {
            let accept = ("accept-encoding", accept);
            let tag = app.get_with(path, &[accept]).await.header("etag").to_owned();
            for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
                let answer = app.get_with(path, &[accept, ("if-none-match", &known)]).await;
                assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0), "{path} {known}");
                assert_eq!(answer.header("etag"), tag);
                is_guarded(&answer);
            }
            let changed = app.get_with(path, &[accept, ("if-none-match", "\"other\"")]).await;
            assert_eq!(changed.status, 200, "{path}");
            // the bytes of one encoding are not those of the other
            let other = ("accept-encoding", if accept.1 == "gzip" { "identity" } else { "gzip" });
            assert_eq!(app.get_with(path, &[other, ("if-none-match", &tag)]).await.status, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn places_in_the_page_are_the_page_and_missing_files_are_missing() {
    let app = TestApp::new().await;
    let (_, _, page) = FILES[0];
    for place in [
        "/ui/caches",
        "/ui/caches/0198c5a0-5b3f-7d51-8a3e-0242ac120002",
        "/ui/runs/0198c5a0-5b3f-7d51-8a3e-0242ac120002/",
        "/ui/models/Qwen3-0.6B",
        "/ui/models/odd%2Ejs",
        "/ui/a%FFb/%00",
        "/ui/?q=%22city+of%22&tag=a&tag=b&wait=5",
        "/ui/caches?unknown=1",
        "/ui/index.html",
    ] {
        let answer = app.get(place).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, page), "{place}");
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        is_guarded(&answer);
    }
    assert_eq!(app.get("/ui/app.js?v=1").await.body, FILES[1].2);
    for missing in ["/ui/other.js", "/ui/app.js.map", "/ui/favicon.ico", "/ui/caches/logo.PNG", "/ui/assets/app.css"] {
        let answer = app.get(missing).await;
        answer.problem(404, "route_not_found");
    }
    for (path, slash) in [("/ui", "/ui/"), ("/ui?model=tiny&q=a%20b", "/ui/?model=tiny&q=a%20b")] {
        let answer = app.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (308, slash));
    }
    app.get("/uis").await.problem(404, "route_not_found");
}

#[tokio::test]
async fn the_page_can_be_read_and_not_written() {
    let app = TestApp::new().await;
    for (path, media_type, bytes) in FILES {
        for headers in [&[][..], &[GZIP]] {
            let get = app.get_with(path, headers).await;
            let head = app.send(request(Method::HEAD, path, headers, Body::empty())).await;
            assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
            assert_eq!(head.header("content-type"), media_type);
            for name in ["content-length", "etag"] {
                assert_eq!(head.header(name), get.header(name), "{path}");
            }
            is_guarded(&head);
        }
        let plain = app.send(request(Method::HEAD, path, &[], Body::empty())).await;
        assert_eq!(plain.header("content-length"), bytes.len().to_string());
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let answer = app.send(request(method, path, &[], Body::empty())).await;
            answer.problem(405, "method_not_allowed");
            let mut allowed: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
            allowed.sort_unstable();
            assert_eq!(allowed, ["GET", "HEAD"]);
        }
    }
    app.post("/ui/caches", &json!({})).await.problem(405, "method_not_allowed");
}

#[tokio::test]
async fn the_page_loads_without_a_key_and_shows_nothing_of_the_store() {
    let app = TestApp::attentive().await;
    let (_, key) = app.key("ann", &[Scope::Read]).await;
    let places = ["/ui/", "/ui/app.js", "/ui/app.css", "/ui/caches/0198c5a0-5b3f-7d51-8a3e-0242ac120002"];
    for path in places {
        let answer = app.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        // with a key, even a wrong one, the answer is the same
        for key in [key.as_str(), "Bearer rsd_wrong"] {
            let with_key = app.get_with(path, &[("authorization", key)]).await;
            assert_eq!((with_key.status.as_u16(), &with_key.body), (200, &answer.body), "{path}");
        }
    }
    assert_eq!(app.get("/ui").await.status, 308);
    app.get("/v1/models").await.problem(401, "api_key_required");
    assert_eq!(app.get_with("/v1/models", &[("authorization", &key)]).await.status, 200);
}

#[tokio::test]
async fn without_keys_the_page_is_for_this_machine() {
    let app = TestApp::new().await;
    for path in ["/ui", "/ui/", "/ui/app.js", "/ui/caches"] {
        app.get_with(path, &[("host", "rebound.example")]).await.problem(421, "host_not_allowed");
        app.get_with(path, &[("origin", "http://page.example")]).await.problem(403, "origin_not_allowed");
    }
    let own = [("host", "localhost:8080"), ("origin", "http://localhost:8080")];
    assert_eq!(app.get_with("/ui/app.js", &own).await.status, 200);
}

#[tokio::test]
async fn metrics_name_the_routes_and_not_the_places() {
    let app = TestApp::new().await;
    app.get("/ui/caches/one-of-many").await;
    let metrics = app.get("/metrics").await;
    assert!(text(&metrics).contains("route=\"/ui/{*place}\""));
    assert!(!text(&metrics).contains("one-of-many"));
}

#[tokio::test]
async fn the_page_is_small() {
    let app = TestApp::new().await;
    let mut sizes = Vec::new();
    for (path, _, _) in FILES {
        sizes.push((path, app.get_with(path, &[GZIP]).await.body.len()));
    }
    let total: usize = sizes.iter().map(|(_, size)| size).sum();
    assert!(total <= BUDGET, "{total} bytes compressed, and at most {BUDGET} are allowed: {sizes:?}");
}

#[test]
fn the_page_loads_only_its_own_files() {
    let [html, js, css] = FILES.map(|(_, _, bytes)| std::str::from_utf8(bytes).unwrap());
    assert!(html.contains("Residuum"));
    // the name of a namespace looks like an address, and nothing is loaded from it
    let lower = html.to_lowercase().replace("http://www.w3.org/2000/svg", "");
    // every element that loads something, and no code or style in the page itself
    for tag in lower.split('<').skip(1) {
        let (tag, content) = tag.split_once('>').unwrap();
        let name = tag.split_whitespace().next().unwrap();
        assert!(!["style", "iframe", "object", "embed", "base", "form"].contains(&name), "<{tag}>");
        if name == "script" {
            assert!(tag.contains(" src=\"/ui/app.js\"") && content.trim().is_empty(), "<{tag}>");
        }
        for attribute in tag.split_whitespace().skip(1) {
            let (attribute, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            assert!(attribute != "style" && !attribute.starts_with("on"), "<{tag}>");
            if ["src", "href", "srcset", "action", "data"].contains(&attribute) {
                let value = value.trim_matches(['"', '\'']);
                let is_own = value.starts_with('/') && !value.starts_with("//");
                assert!(is_own || value.starts_with("data:"), "<{tag}>");
            }
        }
    }
    assert!(!lower.contains("http:") && !lower.contains("https:"), "{html}");
    for (name, file) in [("app.js", js), ("app.css", css)] {
        for used in file.split("url(").skip(1) {
            let target = used.trim_start_matches(['"', '\'', '`', ' ']);
            let start: String = target.chars().take(60).collect();
            assert!(!target.starts_with("http") && !target.starts_with("//"), "{name} loads url({start}");
            assert!(name == "app.js" || target.starts_with("data:") || target.starts_with('#'), "{name}: url({start}");
        }
    }
    assert!(!css.contains("@import"), "a style sheet is loaded");
    assert!(!js.trim_start().starts_with("import"), "app.js is one file");
    for loads in ["importScripts(", "sourceMappingURL"] {
        assert!(!js.contains(loads), "app.js has {loads}");
    }
    let packed: String = js.chars().filter(|c| !c.is_whitespace()).collect();
    for (keyword, quote) in ["from", "import", "import("].iter().flat_map(|word| ['"', '\'', '`'].map(|q| (word, q))) {
        for foreign in ["http:", "https:", "//"] {
            let loads = format!("{keyword}{quote}{foreign}");
            assert!(!packed.contains(&loads), "app.js has {loads}");
        }
    }
}

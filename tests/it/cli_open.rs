//! `residuum open`: which address it shows and opens.

use residuum::domain::Scope;

use crate::{
    cli_support::{Scripted, Served, answer, residuum},
    support::TestApp,
};

const NOWHERE: &str = "0198c5a0-5b3f-7d51-8a3e-0242ac120002";

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_a_cache_and_a_run_have_addresses() {
    let served = Served::new().await;
    let url = served.url.clone();
    let shown = |arguments: &[&str]| {
        let ran = served.run(&[&["open", "--print"], arguments].concat()).ok();
        ran.out().trim_end().strip_prefix(&url).unwrap_or_else(|| panic!("{ran:?}")).to_owned()
    };
    assert_eq!(shown(&[]), "/ui/");
    assert_eq!(shown(&["--docs"]), "/docs/");
    assert!(served.run(&["open", "--print", "@last"]).failed(3).contains("there is no cache yet"));

    let cache = served.one(&["the cat"]);
    let run = served.answer(&format!("/v1/caches/{cache}")).await["run"].as_str().unwrap().to_owned();
    for name in [&cache, "@last", &format!("{run}/0"), "@last/0"] {
        let place = shown(&[name]);
        assert_eq!(place, format!("/ui/caches/{cache}"), "{name}");
        assert_eq!(served.app.get(&place).await.status, 200);
    }
    assert_eq!(shown(&[&run]), format!("/ui/runs/{run}"));
    for nothing in [NOWHERE, "nonsense", "..", "%2e"] {
        let ran = served.run(&["open", "--print", nothing]);
        assert!(ran.failed(3).contains("there is no cache and no run"), "{ran:?}");
        assert!(ran.bytes.is_empty(), "{ran:?}");
    }
    served.run(&["open", "--docs", &cache]).failed(2);
    served.run(&["open", &cache, &run]).failed(2);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_needs_no_key_and_a_cache_does() {
    let app = TestApp::attentive().await;
    let cache = app.capture("the cat", serde_json::json!({})).await;
    let (_, header) = app.key("default", &[Scope::Read]).await;
    let key = header.trim_start_matches("Bearer ").to_owned();
    let served = Served::of(app).await;
    served.run(&["open", "--print"]).ok();
    assert!(served.run(&["open", "--print", &cache]).failed(4).contains("code api_key_required"));
    let variables = [("RESIDUUM_URL", served.url.as_str()), ("RESIDUUM_API_KEY", &key)];
    let ran = residuum(&["open", "--print", &cache], &variables, b"").ok();
    assert_eq!(ran.out(), format!("{}/ui/caches/{cache}\n", served.url), "no key in the address");
    served.stop().await;
}

#[test]
fn without_a_dashboard_the_reference_is_opened() {
    let missing = answer(
        "404 Not Found\r\ncontent-type: application/problem+json",
        br#"{"title": "t", "detail": "there is nothing at this path", "code": "route_not_found"}"#,
    );
    let server = Scripted::new(vec![missing]);
    assert_eq!(server.run(&["open", "--print"]).ok().out(), format!("{}/docs/\n", server.url));
    assert!(server.run(&["open", "--print", NOWHERE]).failed(3).contains("without the dashboard"));
}

#[test]
fn a_browser_that_cannot_be_started_is_said() {
    let server = Scripted::new(vec![answer("200 OK", b"")]);
    let variables = [("RESIDUUM_URL", server.url.as_str()), ("BROWSER", "/nowhere/browser")];
    let ran = residuum(&["open"], &variables, b"");
    assert!(ran.failed(1).contains("/nowhere/browser could not be started"));
    assert_eq!(ran.out(), format!("{}/ui/\n", server.url), "the address is shown anyway");
}

//! Special tokens and autoencoders: what `/v1/saes/{id}/tokens` and `/v1/caches/{id}/features` leave out, and who
//! decided so.

use residuum::{
    api::ApiConfig,
    domain::WarningCode,
    engine::{Limits, SaeSource},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    api_import::{f32s, file, import, ramp},
    support::{D_MODEL, MODEL, N_LAYERS, TestApp, floats, sae_golden},
};

const LLAMA: &str = "llama/gqa_tied";
const D_SAE: usize = 40;
/// `<s>`, `a`, `<s>`, `b`, `</s>`, `c` and so on: special tokens at 0, 2 and 4.
const TEXT: &str = "a<s>b</s>cd";
const BOS: u32 = 261;
const EOS: u32 = 262;

/// The golden autoencoder `standard` with other settings.
fn changed(folder: &TempDir, name: &str, settings: &Value) -> SaeSource {
    let path = folder.path().join(name);
    std::fs::create_dir(&path).unwrap();
    std::fs::copy(sae_golden("standard").join("sae_weights.safetensors"), path.join("sae_weights.safetensors"))
        .unwrap();
    let text = std::fs::read(sae_golden("standard").join("cfg.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    std::fs::write(path.join("cfg.json"), config.to_string()).unwrap();
    SaeSource { id: name.to_owned(), model: MODEL.to_owned(), path }
}

/// A server with three autoencoders of the same weights: trained on all tokens, not on special ones, not on EOS.
async fn app() -> TestApp {
    let folder = tempfile::tempdir().unwrap();
    let saes = vec![
        changed(&folder, "all", &json!({"exclude_special_tokens": false})),
        changed(&folder, "ordinary", &json!({"exclude_special_tokens": true})),
        changed(&folder, "no_eos", &json!({"exclude_special_tokens": [EOS], "my_note": 1})),
    ];
    let mut app = TestApp::started_with(LLAMA, Limits::default(), ApiConfig::default(), saes).await;
    app.load().await;
    app
}

fn everything() -> Value {
    json!({"hooks": ["resid_post"], "positions": "all"})
}

/// All hits of all features, and the answer.
async fn hits(app: &TestApp, sae: &str, more: Value) -> (Vec<Value>, Value) {
    let mut body = json!({"features": (0..D_SAE).collect::<Vec<_>>(), "k": 100});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = app.post(&format!("/v1/saes/{sae}/tokens"), &body).await;
    assert_eq!(answer.status, 200, "{body}: {:#}", answer.json());
    let answer = answer.json();
    let hits = answer["features"].as_array().unwrap().iter().flat_map(|f| f["hits"].as_array().unwrap().clone());
    (hits.collect(), answer)
}

fn positions(hits: &[Value]) -> Vec<u64> {
    let mut positions: Vec<u64> = hits.iter().map(|hit| hit["position"].as_u64().unwrap()).collect();
    positions.sort_unstable();
    positions.dedup();
    positions
}

#[tokio::test]
async fn a_hit_says_whether_its_token_is_special_and_special_tokens_are_left_out_anywhere() {
    let app = app().await;
    let cache = app.capture(TEXT, everything()).await;
    let ids = app.get(&format!("/v1/caches/{cache}")).await.json()["token_ids"].clone();
    assert_eq!((&ids[0], &ids[2], &ids[4]), (&json!(BOS), &json!(BOS), &json!(EOS)), "{ids}");
    let n = ids.as_array().unwrap().len() as u64;
    let (all, special): (Vec<u64>, [u64; 3]) = ((0..n).collect(), [0, 2, 4]);
    let ordinary: Vec<u64> = all.iter().copied().filter(|p| !special.contains(p)).collect();
    let no_eos: Vec<u64> = all.iter().copied().filter(|p| *p != 4).collect();
    let of = |tokens: &str, n_ids: Value, said_by: &str, rows: u64| json!({"tokens": tokens, "n_ids": n_ids, "said_by": said_by, "rows": rows});
    for (sae, asked, expected, left_out) in [
        ("all", json!({}), &all, of("none", json!(null), "default", 0)),
        ("all", json!({"special": null}), &all, of("none", json!(null), "default", 0)),
        ("all", json!({"special": true}), &all, of("none", json!(null), "request", 0)),
        ("all", json!({"special": false}), &ordinary, of("special", json!(null), "request", 3)),
        ("ordinary", json!({}), &ordinary, of("special", json!(null), "autoencoder", 3)),
        ("ordinary", json!({"special": true}), &all, of("none", json!(null), "request", 0)),
        ("no_eos", json!({}), &no_eos, of("listed", json!(1), "autoencoder", 1)),
        ("no_eos", json!({"special": false}), &ordinary, of("special", json!(null), "request", 3)),
        ("ordinary", json!({"skip_first": 1}), &ordinary, of("special", json!(null), "autoencoder", 2)),
    ] {
        let (hits, answer) = hits(&app, sae, asked.clone()).await;
        assert_eq!(positions(&hits), *expected, "{sae} {asked}");
        assert_eq!(answer["left_out"], left_out, "{sae} {asked}");
        let scanned = &answer["scanned"];
        assert_eq!(
            (&scanned["rows"], &scanned["without_token_ids"]),
            (&json!(expected.len()), &json!(0)),
            "{sae} {asked}"
        );
        for hit in &hits {
            assert_eq!(hit["special"], json!(special.contains(&hit["position"].as_u64().unwrap())), "{hit}");
        }
    }
    let search = json!({"query": {"cache": cache}, "layer": 1, "k": 100, "over": "positions"});
    for hit in app.post("/v1/search", &search).await.json()["results"][0]["hits"].as_array().unwrap() {
        assert_eq!(hit["special"], json!(special.contains(&hit["position"].as_u64().unwrap())), "{hit}");
    }
    let wrong = json!({"features": [1], "special": "no"});
    assert_eq!(app.post("/v1/saes/all/tokens", &wrong).await.problem(400, "invalid_field"), ["/special"]);
}

#[tokio::test]
async fn features_leave_out_special_tokens_if_the_request_or_the_autoencoder_says_so() {
    let app = app().await;
    let cache = app.capture(TEXT, everything()).await;
    let n = app.get(&format!("/v1/caches/{cache}")).await.json()["n_tokens"].as_u64().unwrap();
    let some = app.capture(TEXT, json!({"hooks": ["resid_post"], "positions": [5, 4, 1, 0]})).await;
    let all: Vec<u64> = (0..n).collect();
    let ordinary: Vec<u64> = all.iter().copied().filter(|p| ![0, 2, 4].contains(p)).collect();
    for (sae, cache, asked, expected, tokens, said_by, rows) in [
        ("all", &cache, json!(null), all.clone(), "none", "default", 0),
        ("all", &cache, json!({"special": false}), ordinary.clone(), "special", "request", 3),
        ("all", &cache, json!({"special": true}), vec![0, 2, 4], "none", "request", 0),
        ("ordinary", &cache, json!(null), ordinary.clone(), "special", "autoencoder", 3),
        ("ordinary", &cache, json!("all"), all.clone(), "none", "request", 0),
        ("ordinary", &cache, json!([2]), vec![2], "none", "request", 0),
        ("ordinary", &cache, json!({"text": "d"}), vec![n - 1], "none", "request", 0),
        ("no_eos", &cache, json!(null), all.iter().copied().filter(|p| *p != 4).collect(), "listed", "autoencoder", 1),
        ("all", &some, json!({"special": false}), vec![5, 1], "special", "request", 2),
        ("ordinary", &some, json!(null), vec![5, 1], "special", "autoencoder", 2),
    ] {
        let body = json!({"sae": sae, "positions": asked});
        let answer = app.post(&format!("/v1/caches/{cache}/features"), &body).await;
        assert_eq!(answer.status, 200, "{body}: {:#}", answer.json());
        let answer = answer.json();
        let found = answer["positions"].as_array().unwrap();
        assert_eq!(found.iter().map(|p| p["position"].as_u64().unwrap()).collect::<Vec<_>>(), expected, "{body}");
        for position in found {
            assert_eq!(position["special"], json!([0, 2, 4].contains(&position["position"].as_u64().unwrap())));
        }
        let left_out = &answer["left_out"];
        assert_eq!(
            (&left_out["tokens"], &left_out["said_by"], &left_out["rows"]),
            (&json!(tokens), &json!(said_by), &json!(rows)),
            "{body}"
        );
        let warned = sae == "ordinary" && expected.contains(&2);
        let codes: Vec<&Value> = answer["warnings"].as_array().unwrap().iter().map(|w| &w["code"]).collect();
        assert_eq!(codes, if warned { vec!["sae_excluded_tokens"] } else { vec![] }, "{body}");
    }
}

#[tokio::test]
async fn binary_formats_name_positions_that_the_request_did_not_number() {
    let app = app().await;
    let cache = app.capture(TEXT, everything()).await;
    let n = app.get(&format!("/v1/caches/{cache}")).await.json()["n_tokens"].as_u64().unwrap();
    let uri = format!("/v1/caches/{cache}/features?format=raw");
    let raw = app.post(&uri, &json!({"sae": "ordinary", "features": [3]})).await;
    assert_eq!(raw.header("residuum-positions"), format!("1,3,5:{n}"));
    assert_eq!(floats(&raw.body).len(), n as usize - 3);
    let raw = app.post(&uri, &json!({"sae": "ordinary", "features": [3], "positions": [0, 1]})).await;
    assert!(!raw.headers.contains_key("residuum-positions"), "the request has numbered them");
}

#[tokio::test]
async fn positions_that_cannot_be_encoded_are_refused() {
    let app = app().await;
    let cache = app.capture(TEXT, everything()).await;
    let some = app.capture(TEXT, json!({"hooks": ["resid_post"], "positions": [5, 4, 1, 0]})).await;
    let last = app.capture("a</s>", json!({"hooks": ["resid_post"], "positions": "last"})).await;
    let mean = app.capture(TEXT, json!({"hooks": ["resid_post"], "positions": "mean"})).await;
    for (cache, positions, code) in [
        (&last, json!(null), "position_out_of_range"),
        (&last, json!({"special": false}), "position_out_of_range"),
        (&some, json!({"text": "b"}), "position_out_of_range"),
        (&cache, json!({"text": "zebra"}), "text_not_found"),
        (&cache, json!({"mean": {"special": false}}), "invalid_value"),
        (&cache, json!({"message": 0}), "invalid_value"),
        (&mean, json!({"special": false}), "invalid_value"),
        (&mean, json!(null), "invalid_value"),
    ] {
        let body = json!({"sae": "ordinary", "positions": positions});
        let answer = app.post(&format!("/v1/caches/{cache}/features"), &body).await;
        assert_eq!(answer.problem(422, code), ["/positions"], "{body}");
    }
}

#[tokio::test]
async fn nothing_is_left_out_of_imports_without_token_ids() {
    let app = app().await;
    let fingerprint = app.get(&format!("/v1/models/{MODEL}")).await.json()["fingerprint"].clone();
    let tensors = f32s(ramp(N_LAYERS * 5 * D_MODEL));
    let metadata = json!({"model": MODEL, "model_fingerprint": fingerprint});
    let body = file(&[("resid_post", "F32", &[N_LAYERS, 5, D_MODEL], tensors)], &metadata);
    let cache = import(&app, "", body).await.json()["id"].as_str().unwrap().to_owned();
    let (hits, answer) = hits(&app, "ordinary", json!({"allow_bos_mismatch": true})).await;
    assert_eq!((&answer["scanned"]["rows"], &answer["scanned"]["without_token_ids"]), (&json!(5), &json!(1)));
    assert_eq!(answer["left_out"]["rows"], 0);
    assert!(!hits.is_empty() && hits.iter().all(|hit| hit["special"].is_null()), "{hits:?}");
    let uri = format!("/v1/caches/{cache}/features");
    let found = app.post(&uri, &json!({"sae": "ordinary", "allow_bos_mismatch": true})).await.json();
    assert!(found["positions"].as_array().unwrap().iter().all(|p| p["special"].is_null()), "{found:#}");
    let codes: Vec<&Value> = found["warnings"].as_array().unwrap().iter().map(|w| &w["code"]).collect();
    assert_eq!(codes, ["sae_bos_mismatch", "sae_tokens_not_known"]);
    let asked = json!({"sae": "ordinary", "allow_bos_mismatch": true, "positions": {"special": false}});
    assert_eq!(app.post(&uri, &asked).await.problem(422, "invalid_value"), ["/positions"]);
}

#[tokio::test]
async fn warnings_of_an_autoencoder_are_shown_and_counted() {
    let app = app().await;
    let list = app.get("/v1/saes").await.json();
    let of = |name: &str| list["items"].as_array().unwrap().iter().find(|sae| sae["id"] == name).unwrap().clone();
    assert_eq!((of("all")["warnings"].clone(), of("ordinary")["warnings"].clone()), (json!([]), json!([])));
    let warning = &of("no_eos")["warnings"][0];
    assert_eq!(warning["code"], "unknown_sae_key");
    assert!(warning["detail"].as_str().unwrap().contains("`my_note`"), "{warning}");
    for (name, expected) in [("all", json!(null)), ("ordinary", json!(true)), ("no_eos", json!([EOS]))] {
        assert_eq!(of(name)["settings"]["exclude_special_tokens"], expected, "{name}");
    }
    let metrics = String::from_utf8(app.get("/metrics").await.body.to_vec()).unwrap();
    let line = metrics.lines().find(|line| {
        line.starts_with("residuum_warnings_total{") && line.contains("\"sae\"") && line.contains("\"unknown_sae_key\"")
    });
    assert!(line.is_some_and(|line| !line.ends_with(" 0")), "{line:?}");
}

#[test]
fn every_warning_of_autoencoders_is_in_the_docs() {
    let text = include_str!("../../docs/ANALYSIS.md");
    for code in WarningCode::ALL.iter().map(|code| code.name()).filter(|name| name.contains("sae_")) {
        assert!(text.contains(&format!("| `{code}` |")), "{code}");
    }
}

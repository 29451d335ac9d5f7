//! `residuum run`: captures, files of inputs, refusals and generation, with the real program.

use std::{io::Read, process::Stdio};

use serde_json::{Value, json};

use crate::cli_support::Served;

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_become_caches() {
    let served = Served::new().await;
    let ran = served.run(&["run", "one two", "three", "--layers", "1,-1", "--tag", "a", "--metadata", "n=3"]).ok();
    let words = ran.words();
    assert_eq!((words[0][0], &words[0][2..5]), ("run", &["completed", "2", "inputs,"][..]));
    let caches = served.answer(&format!("/v1/runs/{}/caches", words[0][1])).await;
    let ids: Vec<&str> = caches["items"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap()).collect();
    assert_eq!([words[2][1], words[3][1]], ids[..]);
    assert_eq!((words[2][0], &words[2][3..]), ("0", &["one", "two"][..]));
    assert!(ran.out().contains("captured resid_post 1,2, positions last"), "{}", ran.out());
    assert_eq!((&caches["items"][0]["metadata"], &caches["items"][0]["tags"]), (&json!({"n": 3}), &json!(["a"])));
    assert!(ran.err.is_empty(), "there is no progress where nobody watches: {}", ran.err);

    let again = served.run(&["run", "three", "--layers", "1,-1"]).ok();
    assert!(again.out().contains("1 input, 1 reused"), "{}", again.out());
    let forced = served.run(&["run", "three", "--layers", "1,-1", "--no-reuse", "--label", "again", "--json"]).ok();
    let run = forced.json();
    assert_eq!((&run["n_reused"], &run["status"]), (&json!(0), &json!("completed")));
    let cache = served.answer(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await;
    assert_eq!(cache["label"], "again");
    let ids = served.run(&["run", "four", "five", "-q"]).ok();
    assert_eq!(ids.out().lines().count(), 2);
    assert!(ids.out().lines().all(|id| id.len() == 36));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_becomes_runs_in_order() {
    let served = Served::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("inputs.jsonl");
    let lines = [
        json!({"text": "a", "label": "first", "positions": "all"}).to_string(),
        String::new(),
        json!("b").to_string(),
        json!([1, 2, 3]).to_string(),
        json!({"text": "d", "tags": ["mine"]}).to_string(),
        json!({"text": "e"}).to_string(),
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    let path = file.to_str().unwrap();
    let ran = served.run(&["run", "-f", path, "--batch", "2", "--label", "other", "--tag", "t", "--json"]).ok();
    let runs = ran.json_lines();
    let sizes: Vec<u64> = runs.iter().map(|run| run["n_items"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [2, 2, 1]);
    assert!(runs.iter().all(|run| run["status"] == "completed" && run["priority"] == "bulk"));
    let mut caches = Vec::new();
    for id in runs.iter().flat_map(|run| strings(&run["caches"])) {
        caches.push(served.answer(&format!("/v1/caches/{id}")).await);
    }
    let texts: Vec<&Value> = caches.iter().map(|c| &c["text"]).collect();
    assert_eq!(texts, [&json!("a"), &json!("b"), &Value::Null, &json!("d"), &json!("e")]);
    assert_eq!(caches[2]["token_ids"], json!([1, 2, 3]));
    assert_eq!((&caches[0]["label"], &caches[0]["positions"]), (&json!("first"), &json!("all")));
    assert_eq!((&caches[1]["label"], &caches[3]["tags"]), (&json!("other"), &json!(["t", "mine"])));

    let summary = served.run(&["run", "-f", path, "--batch", "2", "--tag", "t"]).ok();
    assert!(summary.out().ends_with("5 of 5 inputs in 3 runs have caches, 5 reused\n"), "{}", summary.out());
    let piped = served.run_with(&["run", "-f", "-", "-q", "--layers", "0"], b"one\n\ntwo\r\n").ok();
    assert_eq!(piped.out().lines().count(), 2);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_hundred_caches_are_all_named() {
    let served = Served::new().await;
    let lines: String = (0..130).map(|i| format!("text {i}\n")).collect();
    let ran = served.run_with(&["run", "-f", "-", "--json", "--layers", "0"], lines.as_bytes()).ok();
    let ids = strings(&ran.json()["caches"]);
    let run = ran.json()["id"].as_str().unwrap().to_owned();
    let caches = served.answer(&format!("/v1/runs/{run}/caches?limit=200")).await;
    let listed: Vec<&Value> = caches["items"].as_array().unwrap().iter().map(|cache| &cache["id"]).collect();
    assert_eq!((ids.len(), json!(ids)), (130, json!(listed)));
    // batches of a run may be stored in another order than that of its inputs
    let all = served.run(&["caches", "ls", "--run", "@last", "--all", "-q"]).ok();
    let all: std::collections::BTreeSet<&str> = all.out().lines().collect();
    assert_eq!(all, ids.iter().map(String::as_str).collect());
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_would_be_right() {
    let served = Served::new().await;
    let err = served.run(&["run", "x", "--layers", "30"]).failed(4).to_owned();
    assert!(err.starts_with("residuum: layer 30 does not exist"), "{err}");
    assert!(err.contains("\n  at /capture/layers") && err.contains("\n  code layer_out_of_range"), "{err}");
    assert!(served.run(&["run", "x", "-m", "other"]).failed(3).contains("code unknown_model"));
    assert!(served.run(&["run", "x", "--hooks", "nope"]).failed(4).contains("code unknown_hook"));
    for usage in [
        &["run"][..],
        &["run", "x", "--layers", "1.5"],
        &["run", "x", "--positions", "first"],
        &["run", "x", "-f", "-"],
        &["run", "x", "--temperature", "1"],
        &["run", "x", "--intervene", "{"],
        &["run", "-f", "/nowhere/at/all"],
    ] {
        let ran = served.run(usage);
        assert!(matches!(ran.code, Some(1 | 2)) && !ran.err.is_empty(), "{usage:?}: {ran:?}");
    }
    assert!(served.run_with(&["run", "-f", "-"], b"\n \n").failed(2).contains("no input"));

    // an input that the server refuses is named by its line, and what came before it is not lost
    let input =
        b"{\"text\": \"good\"}\n\n{\"text\": \"good too\"}\n{\"text\": \"x\", \"colour\": 1}\n{\"text\": \"y\"}\n";
    let ran = served.run_with(&["run", "-f", "-", "--batch", "2"], input);
    let err = ran.failed(4);
    assert!(err.contains("input 4 was refused"), "{err}");
    assert!(ran.out().contains("completed  2 inputs"), "{}", ran.out());
    let ran = served.run_with(&["run", "-f", "-", "--format", "jsonl"], b"\"a\"\nnot json\n");
    assert!(ran.failed(2).contains("standard input, line 2: not valid JSON"), "{ran:?}");
    assert!(ran.out().contains("completed  1 input"), "{}", ran.out());
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_the_server_finds_too_large_is_posted_in_halves() {
    let limits = residuum::engine::Limits { max_run_items: 3, ..residuum::engine::Limits::default() };
    let app = crate::support::TestApp::with(limits, residuum::api::ApiConfig::default()).await;
    let served = Served::of(app).await;
    let ran = served.run_with(&["run", "-f", "-", "--json"], b"a\nb\nc\nd\ne\nf\ng\n").ok();
    let sizes: Vec<u64> = ran.json_lines().iter().map(|run| run["n_items"].as_u64().unwrap()).collect();
    assert_eq!((sizes.iter().sum::<u64>(), sizes.iter().all(|n| *n <= 3)), (7, true), "{sizes:?}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_stores_nothing() {
    let served = Served::new().await;
    let ran = served.run(&["run", "ab", "--dry-run", "--hooks", "resid_post,logits", "--positions", "all"]).ok();
    assert!(ran.out().starts_with("1 input, "), "{}", ran.out());
    assert!(ran.out().contains("resid_post  0-2"), "{}", ran.out());
    let dry = served.run(&["run", "ab", "--dry-run", "--json"]).ok().json();
    assert_eq!(dry["n_items"], 1);
    assert_eq!(served.answer("/v1/runs").await["items"], json!([]));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_text_is_that_of_the_cache() {
    let served = Served::new().await;
    let arguments = ["run", "ab", "--generate", "6", "--temperature", "1", "--seed", "7", "--samples", "2"];
    let run = served.run(&[&arguments[..], &["--json"]].concat()).ok().json();
    assert_eq!(run["n_items"], 2);
    let ran = served.run(&arguments).ok();
    assert!(ran.out().contains("continuation"), "{}", ran.out());
    let cache = served.answer(&format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())).await;
    assert_eq!(cache["completion"]["seed"], 7);
    assert_eq!(cache["completion"]["token_ids"].as_array().unwrap().len(), 6);
    // text that a model writes does not reach a terminal as it is
    assert!(!ran.out().chars().any(|c| c.is_control() && c != '\n'), "{:?}", ran.out());
    let stopped = served.run(&["run", "ab", "--generate", "4", "--hooks", "none", "--json"]).ok().json();
    let cache = served.answer(&format!("/v1/caches/{}", stopped["caches"][0].as_str().unwrap())).await;
    assert_eq!(cache["hooks"], json!([]));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interventions_reach_the_forward_pass() {
    let served = Served::new().await;
    let plain = served.capture(&["abc"]);
    let zero = r#"{"op": "scale", "hook": "resid_post", "layers": 0, "factor": 0.5}"#;
    let changed = served.run(&["run", "abc", "--intervene", zero, "--json"]);
    let (path, folder) = ("changes.json", tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join(path), format!("[{zero}]")).unwrap();
    let from_file = format!("@{}", folder.path().join(path).display());
    let again = served.run(&["run", "abc", "--intervene", &from_file, "--json"]);
    assert_eq!(changed.code, again.code, "{changed:?} {again:?}");
    let id = changed.ok().json()["caches"][0].as_str().unwrap().to_owned();
    let compared = served.run(&["compare", &plain[0], &id, "--metric", "euclidean", "--json"]).ok().json();
    assert!(compared["pairs"][0]["values"]["euclidean"][0].as_f64().unwrap() > 0.0, "{compared}");
    let shown = served.run(&["caches", "show", &id]).ok();
    assert!(shown.out().contains("changed"), "{}", shown.out());
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_may_be_left_to_the_server() {
    let served = Served::new().await;
    let posted = served.run(&["run", "left alone", "--no-wait", "-q"]).ok();
    let id = posted.out().trim();
    let waited = served.run(&["runs", "wait", id, "--json"]).ok().json();
    assert_eq!((waited["id"].as_str(), waited["status"].as_str()), (Some(id), Some("completed")));
    let shown = served.run(&["runs", "show", "@last"]).ok();
    assert!(shown.out().contains(id) && shown.out().contains("completed"), "{}", shown.out());
    assert_eq!(served.run(&["ps"]).ok().out(), "no run is under way\n");
    assert!(served.run(&["ps", "-a"]).ok().out().contains(id));
    assert_eq!(served.run(&["runs", "cancel", id, "--json"]).ok().json()["status"], "completed");
    let gone = served.run(&["runs", "rm", "@last", "-q"]).ok();
    assert_eq!(gone.out().trim(), id);
    assert!(served.run(&["runs", "show", id]).failed(3).contains("code run_not_found"));
    assert_eq!(served.run(&["runs", "ls", "--json"]).ok().out(), "");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_ends_the_program_quietly() {
    let served = Served::new().await;
    let lines: String = (0..60).map(|i| format!("text {i}\n")).collect();
    served.run_with(&["run", "-f", "-", "-q", "--layers", "0"], lines.as_bytes()).ok();
    let mut child = served.command(&["caches", "ls", "--all", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    // one byte, then nobody reads: more comes than a pipe holds
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
    served.stop().await;
}

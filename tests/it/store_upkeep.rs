//! What clients notice of merging, damage, repair, rebuilding and backup: as little as possible.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use residuum::store::{Compaction, Store};
use serde_json::{Value, json};

use crate::support::{TestApp, with_model};

fn blobs(data_dir: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(data_dir.join("blobs")).unwrap();
    folders.flat_map(|f| fs::read_dir(f.unwrap().path()).unwrap()).map(|f| f.unwrap().path()).collect()
}

/// Every cache's description and file, and the entity tag of the file.
async fn everything(app: &TestApp) -> BTreeMap<String, (Value, Bytes, String)> {
    let mut all = BTreeMap::new();
    let listed = app.get("/v1/caches?limit=100").await.json();
    assert_eq!(listed["next_cursor"], Value::Null);
    for cache in listed["items"].as_array().unwrap() {
        let id = cache["id"].as_str().unwrap();
        let described = app.get(&format!("/v1/caches/{id}")).await.json();
        let file = app.get(&format!("/v1/caches/{id}/safetensors")).await;
        assert_eq!(file.status, 200, "{described:#}");
        all.insert(id.to_owned(), (described, file.body.clone(), file.header("etag").to_owned()));
    }
    all
}

/// Runs of all kinds, each twice, so that there is something to merge.
async fn captures(app: &TestApp) {
    let hooks = json!(["resid_post", "attn.pattern", "attn.attn_scores", "attn.q", "attn.k", "mlp.post", "logits"]);
    for _ in 0..2 {
        for body in [
            json!({"input": ["the cat", "a dog in the end", "x"], "capture": {"hooks": hooks, "positions": "all"}}),
            json!({"input": "the cat", "capture": {"positions": "mean", "dtype": "bfloat16"}, "tags": ["mean"]}),
            json!({"input": "the cat sat", "capture": {"positions": [0, -1, 0], "dtype": "float16"}, "metadata": {"a": [1]}}),
            json!({"input": [3, 4], "generate": {"max_new_tokens": 5, "temperature": 1.0, "seed": 3},
                   "capture": {"positions": "all"}}),
            json!({"input": "alone", "capture": {"hooks": ["logits"]}}),
        ] {
            let mut body = body;
            body["reuse"] = json!(false);
            app.run(body).await;
        }
    }
    let reused =
        app.run(json!({"input": "the cat", "capture": {"layers": 1, "positions": "mean", "dtype": "bfloat16"}})).await;
    assert_eq!(reused["n_reused"], 1);
}

#[tokio::test]
async fn nothing_that_a_client_sees_is_changed_by_a_merge_or_a_new_index() {
    let mut app = TestApp::new().await;
    captures(&app).await;
    let id = app.get("/v1/caches?tag=mean&limit=1").await.json()["items"][0]["id"].as_str().unwrap().to_owned();
    app.patch(&format!("/v1/caches/{id}"), &json!({"label": "edited", "tags": ["mean", "new"]})).await;
    let before = everything(&app).await;
    assert_eq!(before.len(), 15);
    let report = app.store().gc().await.unwrap().rewritten;
    assert!(report.n_old >= 10 && report.n_new == 5, "{report}");
    assert_eq!(everything(&app).await, before, "merged");
    app.stop().await;
    let report = Store::rebuild_index(app.data_dir()).await.unwrap();
    assert_eq!((report.n_caches, report.n_damaged), (15, 0), "{report}");
    app.start_again().await;
    app.load().await;
    assert_eq!(everything(&app).await, before, "rebuilt");
    let reused =
        app.run(json!({"input": "the cat sat", "capture": {"layers": 0, "positions": [0, 2], "dtype": "float16"}}));
    assert_eq!(reused.await["n_reused"], 0, "other rows");
    let reused = app.run(json!({"input": "alone", "capture": {"hooks": ["logits"]}})).await;
    assert_eq!(reused["n_reused"], 1);
    assert!(app.store().verify().await.unwrap().is_clean());
}

/// Two runs of 64 inputs whose logits take several chunks of a body. Returns the address of the first run's logits.
async fn large(app: &TestApp) -> String {
    let inputs: Vec<Vec<u32>> = (0..64).map(|i| (0..60).map(|j| (i * 7 + j) % 250).collect()).collect();
    let mut uris = Vec::new();
    for _ in 0..2 {
        let run = app
            .run(json!({"input": inputs, "reuse": false, "capture": {"hooks": ["logits"], "positions": "all"}}))
            .await;
        uris.push(format!("/v1/runs/{}/tensors/logits?format=raw", run["id"].as_str().unwrap()));
    }
    uris.remove(0)
}

#[tokio::test]
async fn a_download_continues_while_its_rows_move() {
    let app = TestApp::new().await;
    let uri = large(&app).await;
    let whole = app.get(&uri).await;
    assert!(whole.body.len() > 3 << 20, "several chunks");
    let mut body = app.open(&uri).await.into_body();
    let mut read = body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    let old = blobs(app.data_dir());
    let merged = app.store().merge(&Compaction { target_bytes: 1 << 30, ..Compaction::thorough() }).await.unwrap();
    assert_eq!((merged.n_old, merged.n_new), (old.len() as u64, 1));
    assert_eq!(blobs(app.data_dir()).len(), old.len() + 1, "the old files are still being read");
    while let Some(frame) = body.frame().await {
        read.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    assert!(read == whole.body);
    drop(body);
    assert_eq!(blobs(app.data_dir()).len(), 1);
    // the entity tag is unchanged, so an interrupted download can be resumed
    let again = app.get_with(&uri, &[("range", "bytes=1000-"), ("if-range", whole.header("etag"))]).await;
    assert_eq!(again.status, 206);
    assert!(again.body == whole.body.slice(1000..));
}

#[tokio::test]
async fn a_download_of_a_blob_that_is_cut_off_ends_short_with_an_error() {
    let app = TestApp::new().await;
    let uri = large(&app).await;
    let whole = app.get(&uri).await;
    let response = app.open(&uri).await;
    let promised: usize = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
    assert_eq!(promised, whole.body.len());
    let mut body = response.into_body();
    let mut read = body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    for blob in blobs(app.data_dir()) {
        fs::File::options().write(true).open(blob).unwrap().set_len(4096).unwrap();
    }
    let mut failed = false;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => read.extend_from_slice(&frame.into_data().unwrap()),
            Err(_) => failed = true,
        }
    }
    assert!(failed && read.len() < promised, "{} of {promised}", read.len());
    assert!(whole.body[..read.len()] == read, "the bytes that arrived are right");
    // the server keeps running
    app.get(&uri).await.problem(500, "blob_damaged");
    let other = app.capture("a dog", json!({})).await;
    assert_eq!(app.get(&format!("/v1/caches/{other}/layers/0")).await.status, 200);
}

#[tokio::test]
async fn bytes_that_have_changed_are_not_served() {
    let mut app = TestApp::new().await;
    let victim = app.capture("the cat", json!({})).await;
    let blob = blobs(app.data_dir()).remove(0);
    let other = app.capture("a dog", json!({})).await;
    assert_eq!(app.get(&format!("/v1/caches/{victim}/layers/0")).await.status, 200);
    let mut bytes = fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&blob, bytes).unwrap();
    // a process checks a blob once
    app.stop().await;
    app.start_again().await;
    app.load().await;
    for path in ["/layers", "/layers/0?format=raw", "/safetensors", "/tensors/blocks.0.hook_resid_post"] {
        app.get(&format!("/v1/caches/{victim}{path}")).await.problem(500, "blob_damaged");
        if !path.contains("block") {
            assert_eq!(app.get(&format!("/v1/caches/{other}{path}")).await.status, 200);
        }
    }
    assert_eq!(app.get(&format!("/v1/caches/{victim}")).await.status, 200, "its description comes from the index");
    assert_eq!(app.store().verify().await.unwrap().issues.len(), 1);
}

async fn residuum(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_residuum"));
    command.args(arguments).env_remove("RESIDUUM_FAULT");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[track_caller]
fn outcome(output: &Output) -> (bool, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_know_whether_a_server_has_the_folder() {
    let mut app = TestApp::new().await;
    let cache = app.capture("the cat", json!({})).await;
    app.post("/v1/runs?wait=10", &with_model(json!({"input": "a dog"}))).await;
    let before = everything(&app).await;
    let dir = app.data_dir().to_str().unwrap().to_owned();
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("copy").to_str().unwrap().to_owned();

    for command in [&["gc"][..], &["verify", "--repair"], &["verify", "--rebuild-index"]] {
        let (ok, text) = outcome(&residuum(&[command, &["--data-dir", &dir]].concat()).await);
        assert!(!ok && text.contains("in use"), "{text}");
    }
    let (ok, text) = outcome(&residuum(&["verify", "--data-dir", &dir]).await);
    assert!(ok && text.ends_with("0 issues\n"), "{text}");
    let (ok, text) = outcome(&residuum(&["backup", "--data-dir", &dir, &copy]).await);
    assert!(ok && text.contains("copied 2 blobs"), "{text}");
    let (ok, text) = outcome(&residuum(&["backup", "--data-dir", &dir, "--copy", &copy]).await);
    assert!(!ok && text.contains("not empty"), "{text}");

    app.stop().await;
    let (ok, text) = outcome(&residuum(&["gc", "--data-dir", &dir]).await);
    assert!(ok && text.contains("rewrote 2 packs as 1"), "{text}");
    let blob = blobs(app.data_dir()).remove(0);
    let good = fs::read(&blob).unwrap();
    let mut bytes = good.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&blob, bytes).unwrap();
    let (ok, text) = outcome(&residuum(&["verify", "--data-dir", &dir]).await);
    assert!(!ok && text.contains("have changed") && text.contains("1 issues"), "{text}");
    let (ok, text) = outcome(&residuum(&["verify", "--repair", "--data-dir", &dir]).await);
    assert!(ok && text.contains("dropped 1 caches") && text.contains("0 issues"), "{text}");
    let (ok, text) = outcome(&residuum(&["verify", "--rebuild-index", "--data-dir", &dir]).await);
    assert!(ok && text.contains("rebuilt the index: 1 runs, 1 caches"), "{text}");

    // the copy has what was stored when it was made
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(&copy, &dir).unwrap();
    app.start_again().await;
    app.load().await;
    assert_eq!(everything(&app).await, before);
    assert_eq!(app.get(&format!("/v1/caches/{cache}/layers/0")).await.status, 200);
}

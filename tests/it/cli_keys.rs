//! `residuum keys`: the real program, also while a server uses the data folder.

use std::{path::Path, process::Command};

use residuum::store::Store;
use serde_json::{Value, json};

use crate::support::TestApp;

/// Runs the program. Returns whether it succeeded, its standard output and its standard error.
fn keys(data_dir: &Path, arguments: &[&str]) -> (bool, String, String) {
    let (command, rest) = arguments.split_first().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_residuum"))
        .args(["keys", command, "--data-dir"])
        .arg(data_dir)
        .args(rest)
        .env_clear()
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn listed(data_dir: &Path) -> Vec<Value> {
    let (ok, out, err) = keys(data_dir, &["list", "--json"]);
    assert!(ok, "{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_listed_and_revoked_while_the_server_runs() {
    let app = TestApp::attentive().await;
    let dir = app.data_dir();
    let (ok, key, err) =
        keys(dir, &["create", "--name", "Ann's laptop", "--scope", "write,metrics", "--expires", "90d"]);
    assert!(ok, "{err}");
    assert!(err.contains("tenant default, scope write+metrics, expires 2") && !err.contains(key.trim()), "{err}");
    let authorization = format!("Bearer {}", key.trim());
    assert_eq!(app.get_with("/v1/runs", &[("authorization", &authorization)]).await.status, 200);
    app.get("/v1/runs").await.problem(401, "api_key_required");

    let other = keys(dir, &["create", "--name", "b", "--scope", "read", "--tenant", "lab-2"]).1;
    let all = listed(dir);
    assert_eq!(all.len(), 2);
    assert_eq!((&all[0]["name"], &all[0]["scopes"]), (&json!("Ann's laptop"), &json!(["write", "metrics"])));
    assert_eq!(
        (&all[1]["tenant"], &all[1]["expires_at"], &all[1]["state"]),
        (&json!("lab-2"), &Value::Null, &json!("active"))
    );
    let secret = |key: &str| key.trim().rsplit('_').next().unwrap().to_owned();
    let (_, text, _) = keys(dir, &["list"]);
    assert!(
        text.contains("Ann's laptop") && !text.contains(&secret(&key)) && !text.contains(&secret(&other)),
        "{text}"
    );
    // the index does not contain the secret either
    for file in ["index.sqlite", "index.sqlite-wal"] {
        let bytes = std::fs::read(dir.join(file)).unwrap();
        let hex = secret(&key);
        let raw: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        let has = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
        assert!(!has(hex.as_bytes()) && !has(&raw), "{file} holds a secret");
    }

    let id = all[0]["id"].as_str().unwrap();
    let (ok, out, _) = keys(dir, &["revoke", id]);
    assert!(ok && out.contains("within a second") && !out.contains("No key is active"), "{out}");
    app.get_with("/v1/runs", &[("authorization", &authorization)]).await.problem(401, "api_key_invalid");
    assert!(keys(dir, &["revoke", id]).1.contains("already"));
    assert!(!keys(dir, &["revoke", "000000000000"]).0);
    let (ok, _, err) = keys(dir, &["reopen"]);
    assert!(!ok && err.contains("revoke them first"), "{err}");
    let (ok, out, _) = keys(dir, &["revoke", all[1]["id"].as_str().unwrap()]);
    assert!(ok && out.contains("No key is active"), "{out}");
    assert!(keys(dir, &["reopen"]).0);
    assert_eq!(listed(dir), [Value::Null; 0]);
    app.get("/v1/runs").await.problem(401, "api_key_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_key_can_be_made_before_the_first_start() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new");
    for command in [&["list"][..], &["revoke", "000000000000"], &["reopen"]] {
        assert!(!keys(&dir, command).0, "{command:?}");
        assert!(!dir.exists(), "only `create` makes a data folder");
    }
    let (ok, key, err) = keys(&dir, &["create", "--name", "first", "--scope", "admin"]);
    assert!(ok && key.starts_with("rsd_"), "{err}");
    let store = Store::open(&dir).await.unwrap();
    assert_eq!(store.keys().await.unwrap()[0].name, "first");
    store.close().await;
    for bad in [
        ["--name", "", "--scope", "read"],
        ["--name", "a\nb", "--scope", "read"],
        ["--name", "a", "--scope", "root"],
        ["--name", "a", "--tenant", "../up"],
    ] {
        assert!(!keys(&dir, &[&["create"][..], &bad].concat()).0, "{bad:?}");
    }
    assert_eq!(listed(&dir).len(), 1);
}

//! `residuum caches`, `get`, `export` and `import`: what comes out is what the server stores.

use serde_json::{Value, json};

use crate::cli_support::Served;

#[tokio::test(flavor = "multi_thread")]
async fn caches_are_listed_shown_and_annotated() {
    let served = Served::new().await;
    let ids = [served.one(&["first text", "--tag", "a"]), served.one(&["second text", "--tag", "a"])];
    served.one(&["other"]);
    let listed = served.run(&["caches", "ls", "--tag", "a"]).ok();
    let words = listed.words();
    assert_eq!((words.len(), words[1][0], words[2][0]), (3, ids[1].as_str(), ids[0].as_str()));
    assert!(listed.out().contains("second text") && !listed.out().contains("other"));
    let json = served.run(&["caches", "ls", "--tag", "a", "--json"]).ok().json_lines();
    assert_eq!(Value::from(json), served.answer("/v1/caches?tag=a").await["items"]);
    assert_eq!(served.run(&["caches", "ls", "-n", "2", "-q"]).ok().out().lines().count(), 2);
    assert_eq!(served.run(&["caches", "ls", "--tag", "none"]).ok().out(), "no cache matches\n");

    let tag = ["caches", "tag", &ids[0], "-t", "b", "-t", "b", "--remove", "a", "--label", "x", "--metadata", "n=1"];
    let tagged = served.run(&[&tag[..], &["--json"]].concat()).ok().json();
    assert_eq!(
        (&tagged["tags"], &tagged["label"], &tagged["metadata"]),
        (&json!(["b"]), &json!("x"), &json!({"n": 1}))
    );
    assert_eq!(served.run(&["caches", "ls", "--metadata", "n=1", "-q"]).ok().out().trim(), ids[0]);
    assert_eq!(served.run(&["caches", "tag", &ids[0], "--label", "", "--json"]).ok().json()["label"], Value::Null);
    assert_eq!(served.run(&["caches", "pin", &ids[0], &ids[1]]).ok().out().matches("pinned").count(), 2);
    assert_eq!(served.run(&["caches", "ls", "--pinned", "-q"]).ok().out().lines().count(), 2);
    served.run(&["caches", "pin", &ids[1], "--off"]).ok();
    assert_eq!(served.run(&["caches", "ls", "--pinned=false", "-q"]).ok().out().lines().count(), 2);

    let shown = served.run(&["caches", "show", "@3"]).ok();
    assert!(shown.out().contains(&ids[0]) && shown.out().contains("resid_post  0-2"), "{}", shown.out());
    let path = format!("/v1/caches/{}", ids[0]);
    assert_eq!(served.run(&["caches", "show", &ids[0], "--json"]).ok().json(), served.answer(&path).await);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_have_short_names() {
    let served = Served::new().await;
    let first = served.one(&["first"]);
    let ids = served.capture(&["a", "b"]);
    let last = served.one(&["c"]);
    let named = |name: &str| served.run(&["caches", "show", name, "-q"]);
    assert_eq!((named("@last").ok().out().trim(), named("@1").ok().out().trim()), (last.as_str(), last.as_str()));
    assert_eq!(named("@4").ok().out().trim(), first);
    assert_eq!((named("@2/0").ok().out().trim(), named("@2/1").ok().out().trim()), (ids[0].as_str(), ids[1].as_str()));
    assert_eq!(named("@last/0").ok().out().trim(), last);
    assert!(named("@5").failed(3).contains("there are only 4 caches"));
    assert!(named("@2/2").failed(3).contains("2 inputs, counted from 0"));
    named("@x").failed(2);
    named("@last/x").failed(2);
    assert!(named("not-an-id").failed(3).contains("code cache_not_found"));
    assert!(named("../runs").failed(2).contains("the index of an input"));
    assert!(named("..").failed(3).contains("code"));
    // a run that has lost a cache still knows which input each of the others was
    served.run(&["caches", "rm", "@2/0"]).ok();
    assert_eq!(named("@2/1").ok().out().trim(), ids[1]);
    named("@2/0").failed(3);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_are_deleted_by_name_or_by_condition() {
    let served = Served::new().await;
    let ids = ["a", "b", "c", "d"].map(|text| served.one(&[text, "--tag", "gone"]));
    served.capture(&["stays"]);
    // names count from the newest: all are looked up first
    let removed = served.run(&["caches", "rm", "@2", "@3", "-q"]).ok();
    assert_eq!(removed.out().lines().collect::<Vec<_>>(), [&ids[3], &ids[2]]);
    assert!(served.run(&["caches", "rm", "--tag", "gone"]).failed(2).contains("--yes"));
    assert!(served.run(&["caches", "rm"]).failed(2).contains("name caches"));
    served.run(&["caches", "rm", &ids[0], "--tag", "gone", "--yes"]).failed(2);
    assert_eq!(served.run(&["caches", "rm", "--tag", "gone", "--yes"]).ok().out().lines().count(), 2);
    served.run(&["caches", "rm", "--tag", "gone", "--yes"]).failed(3);
    assert_eq!(served.answer("/v1/caches").await["items"].as_array().unwrap().len(), 1);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_have_the_bytes_of_the_server() {
    let served = Served::new().await;
    let hooks = "resid_post,attn.pattern,logits";
    let id = served.capture(&["a text", "--hooks", hooks, "--positions", "all"]).remove(0);
    let folder = tempfile::tempdir().unwrap();
    let base = format!("/v1/caches/{id}");
    for (i, (subject, options, file, path)) in [
        ("", &[][..], "a.npy", "layers?format=npy"),
        ("", &[], "a.safetensors", "safetensors"),
        ("", &["--annotations"], "a.safetensors", "safetensors?annotations=true"),
        ("", &["--layer", "1"], "a.npy", "layers/1?format=npy"),
        ("", &["-l", "-1", "--position", "-1"], "a.bin", "layers/2?format=raw&position=-1"),
        ("", &["--layer", "1"], "a.safetensors", "layers/1?format=safetensors"),
        (
            ":logits",
            &["--positions", "0,1", "--dtype", "float16"],
            "a.npy",
            "tensors/logits?format=npy&positions=0,1&dtype=float16",
        ),
        (":blocks.0.attn.hook_pattern", &[], "a.npy", "tensors/blocks.0.attn.hook_pattern?format=npy"),
        (":attn.pattern", &["--layer", "2"], "a.json", "layers/2?hook=attn.pattern&format=json"),
        (":resid_post", &["--format", "npy"], "a.data", "layers?hook=resid_post&format=npy"),
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.path().join(format!("{i}{file}"));
        let subject = format!("{id}{subject}");
        let ran = served.run(&[&["get", &subject, "-o", file.to_str().unwrap()], options].concat()).ok();
        assert!(ran.out().is_empty() && ran.err.starts_with("wrote "), "{ran:?}");
        let expected = served.app.get(&format!("{base}/{path}")).await;
        assert_eq!(expected.status, 200, "{path}");
        assert!(std::fs::read(&file).unwrap() == expected.body, "{subject} {options:?}");
    }
    let piped = served.run(&["get", &id, "-o", "-"]).ok();
    assert!(piped.bytes.starts_with(b"\x93NUMPY") && piped.err.is_empty());
    let json = served.run(&["get", &format!("{id}:logits"), "--json", "--position", "last"]).ok().json();
    assert_eq!(json, served.answer(&format!("{base}/tensors/logits?format=json&position=last")).await);

    // nothing is left of a file that could not be fetched
    let before = std::fs::read_dir(folder.path()).unwrap().count();
    let missing = folder.path().join("missing.npy");
    let err = served.run(&["get", &id, "--layer", "30", "-o", missing.to_str().unwrap()]).failed(3).to_owned();
    assert!(err.contains("code layer_not_in_cache"), "{err}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before);
    served.run(&["get", &id, "-o", "x.txt"]).failed(2);
    served.run(&["get", &id, "--layer", "-9"]).failed(2);
    served.run(&["get", &id, "-o", "/nowhere/at/all.npy"]).failed(1);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_has_the_statistics_of_the_values() {
    let served = Served::new().await;
    let id = served.capture(&["a text", "--dtype", "bfloat16"]).remove(0);
    let ran = served.run(&["get", &id]).ok();
    assert!(ran.out().contains("[3, 32]") && ran.out().contains("bfloat16"), "{}", ran.out());
    let values = served.answer(&format!("/v1/caches/{id}/layers")).await;
    for (layer, row) in ran.words()[2..5].iter().enumerate() {
        let values: Vec<f64> =
            values["values"][layer].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let (mean, norm) = (values.iter().sum::<f64>() / 32.0, values.iter().map(|v| v * v).sum::<f64>().sqrt());
        let shown: Vec<f64> = row.iter().map(|word| word.parse().unwrap()).collect();
        assert_eq!(shown[0] as usize, layer);
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-3 * b.abs() + 6e-5;
        assert!(near(shown[1], mean) && near(shown[2], norm), "{row:?}: {mean} {norm}");
        assert!(near(shown[3], values.iter().copied().fold(f64::INFINITY, f64::min)));
        assert!(near(shown[5], values[0]));
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_and_imports_are_those_of_the_server() {
    let served = Served::new().await;
    let ids = served.capture(&["a", "b", "--tag", "out"]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    served.run(&["export", "--tag", "out", "--layers", "1", "-o", &path("x.npz")]).ok();
    let expected = served.app.get("/v1/export?tag=out&layers=1&format=npz&hook=resid_post").await;
    assert_eq!(expected.status, 200);
    assert!(std::fs::read(path("x.npz")).unwrap() == expected.body);
    let arrow = served.run(&["export", "--run", "@last", "--format", "arrow", "-o", "-"]).ok();
    assert!(!arrow.bytes.is_empty());
    served.run(&["export", "-o", &path("y.npz")]).failed(2);
    served.run(&["export", "--tag", "nothing", "-o", &path("y.npz")]);
    assert!(!folder.path().join("y.npz").exists() && !folder.path().join("y.npz.part").exists());

    served.run(&["get", &ids[0], "-o", &path("c.safetensors")]).ok();
    let again = ["import", &path("c.safetensors"), "--label", "again", "--tag", "in", "--metadata", "a=1"];
    let cache = served.run(&[&again[..], &["--json"]].concat()).ok().json();
    assert_eq!(
        (&cache["label"], &cache["tags"], &cache["metadata"]["a"]),
        (&json!("again"), &json!(["in"]), &json!(1))
    );
    let original = served.answer(&format!("/v1/caches/{}", ids[0])).await;
    assert_eq!((&cache["content_hash"], &cache["token_ids"]), (&original["content_hash"], &original["token_ids"]));
    let ran = served.run(&again).ok();
    assert!(ran.out().contains("resid_post 0-2"), "{}", ran.out());
    std::fs::write(path("bad.safetensors"), b"nonsense").unwrap();
    assert!(served.run(&["import", &path("bad.safetensors")]).failed(4).contains("code invalid_safetensors"));
    served.run(&["import", &path("absent.safetensors")]).failed(1);
    served.run(&["import", folder.path().to_str().unwrap()]).failed(2);
    served.stop().await;
}

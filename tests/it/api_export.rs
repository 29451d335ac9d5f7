//! Exports: their content against the tensors of the same caches.

use std::collections::BTreeMap;

use axum::{body::Body, http::Method};
use serde_json::{Value, json};

use crate::{
    api_import::{f32s, file, import, ramp},
    support::{D_MODEL, N_LAYERS, TestApp, floats, request},
};

/// Tensors by name: type, shape, bytes.
type Tensors = BTreeMap<String, (String, Value, Vec<u8>)>;

/// The tensors of a safetensors file, and its metadata.
fn open(bytes: &[u8]) -> (Tensors, Value) {
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
    let parsed = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let tensor = |(name, t): (String, safetensors::tensor::TensorView<'_>)| {
        let dtype = header[&name]["dtype"].as_str().unwrap().to_owned();
        (name, (dtype, json!(t.shape()), t.data().to_vec()))
    };
    (parsed.tensors().into_iter().map(tensor).collect(), header["__metadata__"].clone())
}

fn int64s(bytes: &[u8]) -> Vec<i64> {
    bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The files of a tar.
fn untar(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    while bytes[0] != 0 {
        let name = std::str::from_utf8(&bytes[..100]).unwrap().trim_end_matches('\0').to_owned();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[124..135]).unwrap(), 8).unwrap();
        files.push((name, bytes[512..512 + size].to_vec()));
        bytes = &bytes[512 + size.next_multiple_of(512)..];
    }
    assert_eq!(bytes.len(), 1024);
    files
}

async fn raw(app: &TestApp, cache: &str, hook: &str, query: &str) -> Vec<u8> {
    app.get(&format!("/v1/caches/{cache}/tensors/{hook}?format=raw{query}")).await.body.to_vec()
}

fn caches(run: &Value) -> Vec<String> {
    run["caches"].as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_owned()).collect()
}

async fn three(app: &TestApp, capture: Value) -> Value {
    app.run(json!({"capture": capture, "items": [
        {"text": "the cat", "label": "animal", "tags": ["a", "b"], "metadata": {"k": 1}},
        {"text": "a dog in the sun", "label": "animal"}, {"text": "stone"}
    ]}))
    .await
}

#[tokio::test]
async fn a_run_is_one_safetensors_file_with_its_manifest() {
    let app = TestApp::new().await;
    let run = three(&app, json!({"positions": "all", "dtype": "float16"})).await;
    let uri = format!("/v1/runs/{}/export", run["id"].as_str().unwrap());
    let answer = app.get(&uri).await;
    assert_eq!(
        (answer.header("content-type"), answer.header("residuum-dtype")),
        ("application/vnd.safetensors", "float16")
    );
    let (tensors, metadata) = open(&answer.body);
    let manifest: Value = serde_json::from_str(metadata["manifest"].as_str().unwrap()).unwrap();
    let ids = caches(&run);
    for layer in 0..N_LAYERS {
        let mut expected = Vec::new();
        for id in &ids {
            expected.extend(raw(&app, id, &format!("blocks.{layer}.hook_resid_post"), "").await);
        }
        let (dtype, shape, bytes) = &tensors[&format!("X.{layer}")];
        assert_eq!((dtype.as_str(), shape), ("F16", &json!([manifest["n_rows"], D_MODEL])));
        assert_eq!(*bytes, expected);
    }
    let (mut row, mut tokens, mut positions, mut places) = (0, Vec::new(), Vec::new(), Vec::new());
    for (i, id) in ids.iter().enumerate() {
        let cache = app.get(&format!("/v1/caches/{id}")).await.json();
        let entry = &manifest["caches"][i];
        for key in ["label", "tags", "metadata", "text", "model", "run", "item_index", "n_tokens"] {
            assert_eq!(entry[key], cache[key], "{key}");
        }
        assert_eq!((&entry["cache"], &entry["row_start"]), (&cache["id"], &json!(row)));
        let these: Vec<i64> = cache["token_ids"].as_array().unwrap().iter().map(|t| t.as_i64().unwrap()).collect();
        row += these.len();
        positions.extend(0..these.len() as i64);
        places.extend(vec![i as i64; these.len()]);
        tokens.extend(these);
    }
    assert_eq!(int64s(&tensors["row_token_id"].2), tokens);
    assert_eq!(int64s(&tensors["row_position"].2), positions);
    assert_eq!(int64s(&tensors["row_cache"].2), places);
    assert_eq!(
        manifest["arrays"][1],
        json!({"name": "X.1", "hook": "blocks.1.hook_resid_post", "layer": 1, "row_shape": [D_MODEL]})
    );

    let head = app.send(request(Method::HEAD, &uri, &[], Body::empty())).await;
    assert_eq!(head.header("content-length"), answer.body.len().to_string());
    let part = app.get_with(&uri, &[("range", "bytes=8-20")]).await;
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &answer.body[8..21]));
    assert_eq!(app.get_with(&uri, &[("if-none-match", answer.header("etag"))]).await.status.as_u16(), 304);
}

#[tokio::test]
async fn rows_types_and_layers_can_be_chosen() {
    let app = TestApp::new().await;
    let run = three(&app, json!({"hooks": ["resid_post", "attn.z"], "positions": "all"})).await;
    let (uri, ids) = (format!("/v1/runs/{}/export", run["id"].as_str().unwrap()), caches(&run));
    for (query, hook, rows, row_positions) in [
        ("layers=-1&position=last", "blocks.2.hook_resid_post", "&position=last", None),
        (
            "hook=blocks.0.attn.hook_z&positions=1,0",
            "blocks.0.attn.hook_z",
            "&positions=1,0",
            Some(vec![1, 0, 1, 0, 1, 0]),
        ),
        (
            "layers=1&position=mean&dtype=bfloat16",
            "blocks.1.hook_resid_post",
            "&position=mean&dtype=bfloat16",
            Some(vec![-1; 3]),
        ),
        (
            "layers=1&position=0&dtype=float16",
            "blocks.1.hook_resid_post",
            "&position=0&dtype=float16",
            Some(vec![0; 3]),
        ),
    ] {
        let (tensors, _) = open(&app.get(&format!("{uri}?{query}")).await.body);
        let mut expected = Vec::new();
        for id in &ids {
            expected.extend(raw(&app, id, hook, rows).await);
        }
        assert_eq!(tensors["X"].2, expected, "{query}");
        if let Some(positions) = row_positions {
            assert_eq!(int64s(&tensors["row_position"].2), positions, "{query}");
        }
        if query.contains("mean") {
            assert_eq!(int64s(&tensors["row_token_id"].2), [-1; 3]);
        }
    }
    for (query, status, code) in [
        ("?hook=attn.pattern", 422, "hook_not_stored"),
        ("?hook=nonsense", 400, "invalid_query"),
        ("?layers=3", 422, "layer_out_of_range"),
        ("?hook=blocks.0.attn.hook_z&layers=0", 400, "invalid_query"),
        ("?layers=x", 400, "invalid_query"),
        ("?position=9", 422, "position_out_of_range"),
        ("?position=0&positions=1", 400, "invalid_query"),
        ("?format=arrow&shard_bytes=65536", 400, "invalid_query"),
        ("?shard_bytes=1", 400, "invalid_query"),
        ("?format=parquet", 400, "invalid_query"),
        ("?label=x", 400, "invalid_query"),
    ] {
        app.get(&format!("{uri}{query}")).await.problem(status, code);
    }
    app.get("/v1/runs/00000000-0000-7000-8000-000000000000/export").await.problem(404, "run_not_found");
    let maps = app.run(json!({"input": "x", "capture": {"hooks": ["attn.pattern"], "positions": "all"}})).await;
    let uri = format!("/v1/runs/{}/export?hook=attn.pattern", maps["id"].as_str().unwrap());
    app.get(&uri).await.problem(422, "shape_mismatch");
}

#[tokio::test]
async fn a_filter_exports_oldest_first_and_leaves_out_what_lacks_the_hook() {
    let app = TestApp::new().await;
    app.get("/v1/export").await.problem(422, "empty_input");
    let first = app.capture("one", json!({})).await;
    app.run(json!({"input": "x", "capture": {"hooks": ["logits"]}})).await;
    let second = app.run(json!({"items": [{"text": "two", "label": "l", "tags": ["t"]}]})).await["caches"][0].clone();
    let (tensors, metadata) = open(&app.get("/v1/export?layers=1").await.body);
    let manifest: Value = serde_json::from_str(metadata["manifest"].as_str().unwrap()).unwrap();
    assert_eq!((&manifest["caches"][0]["cache"], &manifest["caches"][1]["cache"]), (&json!(first), &second));
    assert_eq!(
        (&manifest["order"], &manifest["shuffle"], &manifest["n_left_out"]),
        (&json!("asc"), &Value::Null, &json!(1))
    );
    assert_eq!(tensors["X"].1, json!([2, D_MODEL]));
    for (query, n) in
        [("label=l", 1), ("tag=t", 1), ("text=one", 1), ("model=tiny", 2), ("created_from=2020-01-01T00:00:00Z", 2)]
    {
        assert_eq!(
            open(&app.get(&format!("/v1/export?layers=1&{query}")).await.body).0["X"].1,
            json!([n, D_MODEL]),
            "{query}"
        );
    }
    app.get("/v1/export?label=none").await.problem(422, "empty_input");
    app.get("/v1/export?run=x").await.problem(400, "invalid_query");

    // caches of other types, and an import; then one of another width
    let other = file(&[("resid_post", "F16", &[1, D_MODEL], vec![0; 2 * D_MODEL])], &json!({"model": "other"}));
    import(&app, "?layers=1", other).await;
    let (tensors, _) = open(&app.get("/v1/export?layers=1").await.body);
    assert_eq!((tensors["X"].0.as_str(), &tensors["X"].1), ("F32", &json!([3, D_MODEL])));
    assert_eq!(int64s(&tensors["row_token_id"].2)[2], -1, "the import comes last");
    app.get("/v1/export?layers=0").await.problem(422, "hook_not_stored");
    import(&app, "", file(&[("resid_post", "F32", &[3, 5], f32s(ramp(15)))], &json!({"model": "wide"}))).await;
    app.get("/v1/export?layers=1").await.problem(422, "shape_mismatch");
    app.get("/v1/export?layers=1&model=tiny").await;
}

#[tokio::test]
async fn an_export_larger_than_a_shard_is_a_tar_of_whole_files() {
    let app = TestApp::new().await;
    let rows = 200;
    let n = 5;
    for i in 0..n {
        let values = f32s((0..rows * D_MODEL).map(|e| (e + i) as f32));
        import(
            &app,
            "?tag=t",
            file(&[("blocks.0.hook_resid_post", "F32", &[rows, D_MODEL], values)], &json!({"model": "m"})),
        )
        .await;
    }
    // a cache has 25,600 bytes: two fit into a shard
    for (format, ending) in [("safetensors", "safetensors"), ("npz", "npz")] {
        let uri = format!("/v1/export?tag=t&shard_bytes=65536&format={format}");
        let answer = app.get(&uri).await;
        assert_eq!(answer.header("content-type"), "application/x-tar");
        let files = untar(&answer.body);
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        let shard = |i: usize| format!("shard-{i:05}.{ending}");
        assert_eq!(names, [shard(0).as_str(), &shard(1), &shard(2), "manifest.json"]);
        let manifest: Value = serde_json::from_slice(&files[3].1).unwrap();
        assert_eq!((&manifest["n_rows"], &manifest["n_caches"]), (&json!(rows * n), &json!(n)));
        for (i, (_, bytes)) in files[..3].iter().enumerate() {
            assert_eq!(manifest["shards"][i]["n_bytes"], bytes.len());
        }
        if format == "safetensors" {
            let all: Vec<f32> = files[..3].iter().flat_map(|(_, bytes)| floats(&open(bytes).0["X"].2)).collect();
            let expected: Vec<f32> = (0..n).flat_map(|i| (0..rows * D_MODEL).map(move |e| (e + i) as f32)).collect();
            assert_eq!(all, expected);
        }
    }
    assert_eq!(app.get("/v1/export?tag=t").await.header("content-type"), "application/vnd.safetensors");
}

#[tokio::test]
async fn npz_has_the_announced_length_and_arrow_describes_itself() {
    let app = TestApp::new().await;
    let run = three(&app, json!({"layers": [0], "dtype": "bfloat16"})).await;
    let uri = format!("/v1/runs/{}/export", run["id"].as_str().unwrap());
    let npz = app.get(&format!("{uri}?format=npz")).await;
    assert_eq!(npz.header("content-length"), npz.body.len().to_string());
    assert_eq!((npz.header("residuum-dtype"), npz.header("residuum-converted-from")), ("float32", "bfloat16"));
    assert_eq!(&npz.body[..4], b"PK\x03\x04");
    let again = app.get(&format!("{uri}?format=npz")).await;
    assert_eq!(npz.body, again.body);
    let arrow = app.get(&format!("{uri}?format=arrow")).await;
    assert_eq!(arrow.header("content-type"), "application/vnd.apache.arrow.stream");
    assert_eq!(&arrow.body[arrow.body.len() - 8..], [255, 255, 255, 255, 0, 0, 0, 0]);
}

/// The ids of the exported caches, in order, checked against their rows.
async fn exported(app: &TestApp, uri: &str) -> (Vec<String>, Value) {
    let answer = app.get(uri).await;
    assert_eq!(answer.status, 200, "{uri}: {:?}", answer.body);
    let (tensors, metadata) = open(&answer.body);
    let manifest: Value = serde_json::from_str(metadata["manifest"].as_str().unwrap()).unwrap();
    let listed = manifest["caches"].as_array().unwrap();
    let ids: Vec<String> = listed.iter().map(|c| c["cache"].as_str().unwrap().to_owned()).collect();
    let mut expected = Vec::new();
    for id in &ids {
        expected.extend(raw(app, id, "blocks.1.hook_resid_post", "").await);
    }
    assert_eq!(tensors["X"].2, expected, "{uri}: rows follow their caches");
    (ids, manifest)
}

#[tokio::test]
async fn exports_are_by_run_and_input_or_shuffled_with_a_seed() {
    let app = TestApp::new().await;
    let inputs: Vec<Vec<u32>> = (1..20).map(|i| vec![i, 7]).collect();
    let first = app.run(json!({"input": inputs, "capture": {"positions": "all"}})).await;
    let second = app.run(json!({"input": [[40], [41]], "capture": {"positions": "all"}})).await;
    let all: Vec<String> = caches(&first).into_iter().chain(caches(&second)).collect();
    let reversed: Vec<String> = all.iter().rev().cloned().collect();
    let mut of_first = caches(&first);
    let run = format!("/v1/runs/{}/export?layers=1", first["id"].as_str().unwrap());
    assert_eq!(exported(&app, "/v1/export?layers=1").await.0, all);
    assert_eq!(exported(&app, "/v1/export?layers=1&order=asc").await.0, all);
    assert_eq!(exported(&app, "/v1/export?layers=1&order=desc").await.0, reversed);
    assert_eq!(exported(&app, &run).await.0, of_first);
    of_first.reverse();
    let (found, manifest) = exported(&app, &format!("{run}&order=desc")).await;
    assert_eq!((found, &manifest["order"]), (of_first, &json!("desc")));

    // SplitMix64 and Fisher-Yates, as documented
    let shuffled = |seed: u64, mut ids: Vec<String>| {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        for i in (1..ids.len()).rev() {
            ids.swap(i, (next() % (i as u64 + 1)) as usize);
        }
        ids
    };
    for seed in [0, 1, u64::MAX] {
        let uri = format!("/v1/export?layers=1&shuffle={seed}");
        let (found, manifest) = exported(&app, &uri).await;
        assert_eq!(found, shuffled(seed, all.clone()), "{seed}");
        assert_ne!(found, all);
        assert_eq!((&manifest["order"], &manifest["shuffle"]), (&Value::Null, &json!(seed)));
        // the same bytes and entity tag again, so that ranges of it fit together
        let (whole, again) = (app.get(&uri).await, app.get(&uri).await);
        assert_eq!((&whole.body, whole.header("etag")), (&again.body, again.header("etag")));
        let tag = whole.header("etag");
        let part = app.get_with(&uri, &[("range", "bytes=100-999"), ("if-range", tag)]).await;
        assert_eq!((part.status.as_u16(), &part.body[..]), (206, &whole.body[100..1000]));
        let other = app.get_with("/v1/export?layers=1", &[("range", "bytes=100-999"), ("if-range", tag)]).await;
        assert_eq!(other.status, 200, "another order is another representation");
    }
    let mut of_run = exported(&app, &format!("{run}&shuffle=3")).await.0;
    assert_eq!(of_run, shuffled(3, caches(&first)));
    of_run.sort_unstable();
    assert_eq!(of_run.len(), 19);
    // what is deleted is left out
    app.delete(&format!("/v1/caches/{}", all[4])).await;
    let left: Vec<String> = all.iter().filter(|id| **id != all[4]).cloned().collect();
    assert_eq!(exported(&app, "/v1/export?layers=1&shuffle=5").await.0, shuffled(5, left));

    for query in ["shuffle=1&order=asc", "shuffle=-1", "shuffle=x", "order=up", "order="] {
        app.get(&format!("/v1/export?layers=1&{query}")).await.problem(400, "invalid_query");
        app.get(&format!("{run}&{query}")).await.problem(400, "invalid_query");
    }
}

#[tokio::test]
async fn a_shuffled_export_has_the_same_order_in_every_format_and_in_shards() {
    let app = TestApp::new().await;
    for i in 0..5 {
        let values = f32s((0..200 * D_MODEL).map(|e| (e + i * 100_000) as f32));
        let tensor = [("blocks.0.hook_resid_post", "F32", &[200, D_MODEL][..], values)];
        import(&app, "?tag=t", file(&tensor, &json!({"model": "m"}))).await;
    }
    let begins = |rows: &[f32]| rows.chunks(200 * D_MODEL).map(|c| c[0] as usize / 100_000).collect::<Vec<_>>();
    let (tensors, _) = open(&app.get("/v1/export?tag=t&shuffle=2").await.body);
    let order = begins(&floats(&tensors["X"].2));
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 1, 2, 3, 4]);
    assert_ne!(order, sorted);
    let files = untar(&app.get("/v1/export?tag=t&shuffle=2&shard_bytes=65536").await.body);
    let sharded: Vec<f32> = files[..3].iter().flat_map(|(_, bytes)| floats(&open(bytes).0["X"].2)).collect();
    assert_eq!(begins(&sharded), order);
}

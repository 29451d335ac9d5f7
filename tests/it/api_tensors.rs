//! Fetching tensors: formats, positions, entity tags, ranges, and what is refused.

use axum::{body::Body, http::Method};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::json;

use crate::support::{Answer, D_MODEL, N_LAYERS, TestApp, flat, floats, request};

const IDS: [u32; 5] = [9, 8, 7, 6, 5];

async fn all_positions(app: &TestApp, dtype: &str) -> String {
    let run = app
        .run(json!({"input": IDS, "capture": {"hooks": ["resid_post", "logits"], "positions": "all", "dtype": dtype}}))
        .await;
    format!("/v1/caches/{}", run["caches"][0].as_str().unwrap())
}

/// The data of a NumPy file, and the dict of its header.
fn npy(answer: &Answer) -> (String, Vec<u8>) {
    let body = &answer.body;
    assert_eq!(&body[..8], b"\x93NUMPY\x01\x00");
    let len = usize::from(u16::from_le_bytes([body[8], body[9]]));
    assert_eq!((10 + len) % 64, 0);
    (String::from_utf8(body[10..10 + len].to_vec()).unwrap(), body[10 + len..].to_vec())
}

#[tokio::test]
async fn all_formats_hold_the_same_numbers() {
    let app = TestApp::new().await;
    let cache = all_positions(&app, "float32").await;
    for path in [
        "/layers/1",
        "/layers",
        "/tensors/logits",
        "/layers/-1?position=2",
        "/layers?positions=1:3",
        "/layers?position=mean",
    ] {
        let join = if path.contains('?') { '&' } else { '?' };
        let uri = format!("{cache}{path}");
        let json = app.get(&uri).await.json();
        let expected = flat(&json["values"]);
        let shape: Vec<usize> =
            json["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        assert_eq!(shape.iter().product::<usize>(), expected.len());

        let raw = app.get(&format!("{uri}{join}format=raw")).await;
        assert_eq!(floats(&raw.body), expected, "{path} raw");
        assert_eq!(raw.header("residuum-dtype"), "float32");
        assert_eq!(raw.header("residuum-shape"), shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        assert_eq!(raw.header("residuum-hook"), json["hook"].as_str().unwrap());
        assert_eq!(raw.header("content-length"), raw.body.len().to_string());

        let by_accept = app.get_with(&uri, &[("accept", "application/x-npy")]).await;
        let (dict, data) = npy(&by_accept);
        assert!(dict.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': ("), "{dict}");
        assert_eq!(floats(&data), expected, "{path} npy");

        let file = app.get(&format!("{uri}{join}format=safetensors")).await;
        let tensors = SafeTensors::deserialize(&file.body).unwrap();
        let tensor = tensors.tensor(json["hook"].as_str().unwrap()).unwrap();
        assert_eq!((tensor.shape(), floats(tensor.data())), (&shape[..], expected.clone()), "{path} safetensors");

        let base64 = app.get(&format!("{uri}{join}encoding=base64")).await.json();
        assert_eq!((&base64["encoding"], &base64["shape"]), (&json!("base64"), &json["shape"]));
        use base64::{Engine, prelude::BASE64_STANDARD};
        assert_eq!(
            floats(&BASE64_STANDARD.decode(base64["values"].as_str().unwrap()).unwrap()),
            expected,
            "{path} base64"
        );
    }
}

#[tokio::test]
async fn positions_select_stored_rows() {
    let app = TestApp::new().await;
    let cache = all_positions(&app, "float32").await;
    let whole = app.get(&format!("{cache}/layers/2")).await.json();
    assert_eq!((&whole["shape"], &whole["axes"]), (&json!([5, D_MODEL]), &json!(["pos", "d_model"])));
    let rows: Vec<Vec<f32>> = flat(&whole["values"]).chunks(D_MODEL).map(<[f32]>::to_vec).collect();
    let fetch = async |query: &str| app.get(&format!("{cache}/layers/2?{query}")).await.json();
    let last = fetch("position=last").await;
    assert_eq!(
        (flat(&last["values"]), &last["shape"], &last["axes"]),
        (rows[4].clone(), &json!([D_MODEL]), &json!(["d_model"]))
    );
    assert_eq!(flat(&fetch("position=-2").await["values"]), rows[3]);
    let kept = fetch("positions=1").await;
    assert_eq!((flat(&kept["values"]), &kept["shape"]), (rows[1].clone(), &json!([1, D_MODEL])));
    assert_eq!(flat(&fetch("positions=3,0").await["values"]), [rows[3].clone(), rows[0].clone()].concat());
    assert_eq!(flat(&fetch("positions=-2:").await["values"]), rows[3..].concat());
    let mean = flat(&fetch("position=mean").await["values"]);
    let captured = app.run(json!({"input": IDS, "capture": {"positions": "mean"}})).await;
    let stored = app.get(&format!("/v1/caches/{}/layers/2", captured["caches"][0].as_str().unwrap())).await.json();
    assert_eq!(mean, flat(&stored["values"]), "a mean computed when fetching equals a mean computed when capturing");
    let stack = app.get(&format!("{cache}/layers?position=last")).await.json();
    assert_eq!(
        (&stack["shape"], &stack["layers"], &stack["axes"]),
        (&json!([N_LAYERS, D_MODEL]), &json!([0, 1, 2]), &json!(["layer", "d_model"]))
    );
    assert_eq!(flat(&stack["values"])[2 * D_MODEL..], rows[4]);
}

#[tokio::test]
async fn half_precision_types_are_the_rounded_float32_values() {
    let app = TestApp::new().await;
    let wide = flat(&app.get(&format!("{}/layers/1", all_positions(&app, "float32").await)).await.json()["values"]);
    let half: Vec<f32> = wide.iter().map(|v| f16::from_f32(*v).to_f32()).collect();
    let brain: Vec<f32> = wide.iter().map(|v| bf16::from_f32(*v).to_f32()).collect();
    for (dtype, rounded, short) in [("float16", &half, "<f2"), ("bfloat16", &brain, "<f4")] {
        let cache = all_positions(&app, dtype).await;
        let json = app.get(&format!("{cache}/layers/1")).await.json();
        assert_eq!((&flat(&json["values"]), &json["dtype"]), (rounded, &json!(dtype)));
        let widened = app.get(&format!("{cache}/layers/1?dtype=float32&format=raw")).await;
        assert_eq!(&floats(&widened.body), rounded);
        let (dict, data) = npy(&app.get(&format!("{cache}/layers/1?format=npy")).await);
        assert!(dict.contains(short), "{dict}");
        let asked =
            app.get(&format!("{}/layers/1?format=npy&dtype={dtype}", all_positions(&app, "float32").await)).await;
        assert_eq!(npy(&asked).1, data, "fetching as {dtype} rounds like storing as {dtype}");
        if dtype == "bfloat16" {
            let npy = app.get(&format!("{cache}/layers/1?format=npy")).await;
            assert_eq!((npy.header("residuum-dtype"), npy.header("residuum-converted-from")), ("float32", "bfloat16"));
            assert_eq!(&floats(&data), rounded);
        }
    }
}

#[tokio::test]
async fn the_whole_cache_is_one_safetensors_file() {
    let app = TestApp::new().await;
    let cache = all_positions(&app, "bfloat16").await;
    let file = app.get(&format!("{cache}/safetensors")).await;
    let tensors = SafeTensors::deserialize(&file.body).unwrap();
    let mut names: Vec<&str> = tensors.names().into_iter().collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post", "logits", "token_ids"]
    );
    let ids = tensors.tensor("token_ids").unwrap();
    assert_eq!((ids.dtype(), ids.shape()), (Dtype::I64, &[5][..]));
    assert_eq!(ids.data().chunks(8).map(|b| b[0]).collect::<Vec<_>>(), [9, 8, 7, 6, 5]);
    let layer = tensors.tensor("blocks.1.hook_resid_post").unwrap();
    assert_eq!((layer.dtype(), layer.shape()), (Dtype::BF16, &[5, D_MODEL][..]));
    assert_eq!(layer.data(), &app.get(&format!("{cache}/layers/1?format=raw")).await.body[..]);
    let (_, metadata) = SafeTensors::read_metadata(&file.body).unwrap();
    let metadata = metadata.metadata().as_ref().unwrap();
    assert_eq!(metadata["compute_dtype"], "float32");
    assert_eq!(metadata["model_fingerprint"].len(), 64);
}

#[tokio::test]
async fn entity_tags_are_strong_and_survive_edits() {
    let app = TestApp::new().await;
    let cache = all_positions(&app, "float32").await;
    let mut tags = std::collections::HashSet::new();
    let paths = [
        "/layers/1?format=raw",
        "/layers/1?format=npy",
        "/layers/1?format=safetensors",
        "/layers/1",
        "/layers/2?format=raw",
        "/layers/1?format=raw&position=0",
        "/layers/1?format=raw&dtype=float16",
        "/layers/1?encoding=base64",
        "/safetensors",
    ];
    for path in paths {
        let uri = format!("{cache}{path}");
        let tag = app.get(&uri).await.header("etag").to_owned();
        assert!(tag.starts_with('"'), "{tag} is not strong");
        assert!(tags.insert(tag.clone()), "{path} shares its tag");
        let unchanged = app.get_with(&uri, &[("if-none-match", &tag)]).await;
        assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0));
        assert_eq!(app.patch(&cache, &json!({"label": path})).await.status, 200);
        assert_eq!(app.get(&uri).await.header("etag"), tag, "{path} changed with an edit");
    }
    let head = app.send(request(Method::HEAD, &format!("{cache}/layers/1?format=raw"), &[], Body::empty())).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), (5 * D_MODEL * 4).to_string());
    assert_eq!(head.header("accept-ranges"), "bytes");
}

#[tokio::test]
async fn ranges_are_parts_of_the_whole() {
    let app = TestApp::new().await;
    let cache = all_positions(&app, "bfloat16").await;
    for path in ["/safetensors", "/layers?format=npy", "/layers/0?format=raw&dtype=float32"] {
        let uri = format!("{cache}{path}");
        let whole = app.get(&uri).await;
        let n = whole.body.len();
        for (range, from, to) in [
            ("bytes=0-9".to_owned(), 0, 10),
            (format!("bytes={}-", n - 7), n - 7, n),
            ("bytes=-3".to_owned(), n - 3, n),
            ("bytes=101-333".to_owned(), 101, 334),
            ("bytes=5-999999999".to_owned(), 5, n),
        ] {
            let part = app.get_with(&uri, &[("range", &range)]).await;
            assert_eq!((part.status.as_u16(), &part.body[..]), (206, &whole.body[from..to]), "{path} {range}");
            assert_eq!(part.header("content-range"), format!("bytes {from}-{}/{n}", to - 1));
        }
        for bad in [format!("bytes={n}-"), "bytes=9-2".to_owned(), "bytes=x".to_owned()] {
            app.get_with(&uri, &[("range", &bad)]).await.problem(416, "range_not_satisfiable");
        }
        assert_eq!(app.get_with(&uri, &[("range", "BYTES=0-9")]).await.status, 206);
        assert_eq!(app.get_with(&uri, &[("range", "lines=1-2")]).await.status, 200);
        let tag = whole.header("etag");
        assert_eq!(app.get_with(&uri, &[("if-match", tag)]).await.status, 200);
        assert_eq!(app.get_with(&uri, &[("if-match", "*")]).await.status, 200);
        for other in ["\"other\"", &format!("W/{tag}")] {
            app.get_with(&uri, &[("if-match", other)]).await.problem(412, "precondition_failed");
        }
        assert_eq!(app.get_with(&uri, &[("range", "bytes=0-9"), ("if-range", tag)]).await.status, 206);
        assert_eq!(app.get_with(&uri, &[("range", "bytes=0-9"), ("if-range", "\"old\"")]).await.status, 200);
        assert_eq!(app.get_with(&uri, &[("range", "bytes=0-1,4-5")]).await.body, whole.body);
    }
}

#[tokio::test]
async fn a_run_is_one_tensor() {
    let app = TestApp::new().await;
    let run = app.run(json!({"input": [[1, 2, 3], [4, 5, 6]], "capture": {"hooks": ["resid_post.2"]}})).await;
    let uri = format!("/v1/runs/{}/tensors/blocks.2.hook_resid_post", run["id"].as_str().unwrap());
    let stacked = app.get(&uri).await.json();
    assert_eq!(
        (&stacked["shape"], &stacked["axes"], &stacked["caches"]),
        (&json!([2, D_MODEL]), &json!(["item", "d_model"]), &run["caches"])
    );
    let second = app.get(&format!("/v1/caches/{}/layers/2", run["caches"][1].as_str().unwrap())).await.json();
    assert_eq!(flat(&stacked["values"])[D_MODEL..], flat(&second["values"]));

    let ragged =
        app.run(json!({"input": [[1, 2, 3], [4]], "capture": {"hooks": ["resid_post.2"], "positions": "all"}})).await;
    let uri = format!("/v1/runs/{}/tensors/blocks.2.hook_resid_post", ragged["id"].as_str().unwrap());
    let rows = app.get(&uri).await.json();
    assert_eq!(
        (&rows["shape"], &rows["axes"], &rows["offsets"]),
        (&json!([4, D_MODEL]), &json!(["row", "d_model"]), &json!([0, 3, 4]))
    );
    let file = app.get(&format!("{uri}?format=safetensors")).await;
    let tensors = SafeTensors::deserialize(&file.body).unwrap();
    assert_eq!(floats(tensors.tensor("blocks.2.hook_resid_post").unwrap().data()), flat(&rows["values"]));
    assert_eq!(tensors.tensor("offsets").unwrap().shape(), [3]);
    let last = app.get(&format!("{uri}?position=last")).await.json();
    assert_eq!((&last["shape"], &last["offsets"]), (&json!([2, D_MODEL]), &json!(null)));
    app.get(&format!("/v1/runs/{}/tensors/blocks.1.hook_resid_post", ragged["id"].as_str().unwrap()))
        .await
        .problem(404, "hook_not_in_cache");
}

#[tokio::test]
async fn missing_hooks_are_not_found_and_stored_ones_listed() {
    let app = TestApp::new().await;
    let cache = format!("/v1/caches/{}", app.capture("the cat", json!({"layers": [0, 2]})).await);
    for path in ["/layers/1", "/layers/3", "/layers/-2", "/layers/x", "/layers/0?hook=attn_out", "/layers?hook=mlp_out"]
    {
        let answer = app.get(&format!("{cache}{path}")).await;
        answer.problem(404, "layer_not_in_cache");
    }
    let lacking = app.get(&format!("{cache}/tensors/logits")).await;
    lacking.problem(404, "hook_not_in_cache");
    assert!(lacking.json()["detail"].as_str().unwrap().contains("blocks.2.hook_resid_post"));
    app.get(&format!("{cache}/tensors/nonsense")).await.problem(404, "hook_not_in_cache");
    app.get(&format!("{cache}/layers/0?position=0")).await.problem(422, "position_out_of_range");
    app.get(&format!("{cache}/layers/0?position=99")).await.problem(422, "position_out_of_range");
    for query in [
        "position=first",
        "positions=mean",
        "position=0&positions=1",
        "format=csv",
        "dtype=float64",
        "hook=logits",
        "layer=1",
    ] {
        app.get(&format!("{cache}/layers?{query}")).await.problem(400, "invalid_query");
    }
    app.get_with(&format!("{cache}/layers"), &[("accept", "text/html")]).await.problem(406, "not_acceptable");
    let unknown = "/v1/caches/0198c5a0-5b1e-7c3a-9b54-0242ac120002";
    for path in ["", "/layers", "/layers/0", "/tensors/logits", "/safetensors"] {
        app.get(&format!("{unknown}{path}")).await.problem(404, "cache_not_found");
    }
}

#[tokio::test]
async fn json_answers_that_are_too_large_are_refused_in_favour_of_npy() {
    let api = residuum::api::ApiConfig { max_json_elements: 100, ..Default::default() };
    let app = TestApp::with(Default::default(), api).await;
    let cache = format!("/v1/caches/{}", app.capture("the cat sat", json!({"positions": "all"})).await);
    let refused = app.get(&format!("{cache}/layers/0")).await;
    refused.problem(413, "result_too_large");
    assert!(refused.json()["detail"].as_str().unwrap().contains("npy"));
    assert_eq!(app.get(&format!("{cache}/layers/0?format=npy")).await.status, 200);
}

#[tokio::test]
async fn a_damaged_blob_only_affects_its_own_caches() {
    let app = TestApp::new().await;
    let victim = format!("/v1/caches/{}/layers/0", app.capture("the cat", json!({})).await);
    let damaged = std::fs::read_dir(app.data_dir().join("blobs"))
        .unwrap()
        .flat_map(|d| std::fs::read_dir(d.unwrap().path()).unwrap());
    let damaged: Vec<_> = damaged.map(|f| f.unwrap().path()).collect();
    std::fs::OpenOptions::new().write(true).open(&damaged[0]).unwrap().set_len(100).unwrap();
    let other = format!("/v1/caches/{}/layers/0", app.capture("a dog", json!({})).await);
    app.get(&victim).await.problem(500, "blob_damaged");
    app.get(&format!("{victim}?format=raw")).await.problem(500, "blob_damaged");
    assert_eq!(app.get(&other).await.status, 200);
}

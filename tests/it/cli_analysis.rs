//! `residuum tokens`, `lens`, `compare`, `search` and `patch`: the numbers that are shown are those of the server.

use serde_json::{Value, json};

use crate::cli_support::Served;

async fn asked(served: &Served, path: &str, body: Value) -> Value {
    let answer = served.app.post(path, &body).await;
    assert!(answer.status.is_success(), "{path}: {:?}", answer.body);
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_shown_with_visible_spaces() {
    let served = Served::new().await;
    let expected = asked(&served, "/v1/tokenize", json!({"model": "tiny", "text": "a b\n"})).await;
    assert_eq!(served.run(&["tokens", "a b\n", "--json"]).ok().json(), expected);
    let n = expected["n_tokens"].as_u64().unwrap() as usize;
    let strip = served.run(&["tokens", "a b\n"]).ok();
    assert!(strip.out().lines().next().unwrap().contains('·') && strip.out().contains('↵'), "{}", strip.out());
    let table = served.run(&["tokens", "a b\n", "--table"]).ok();
    assert_eq!(table.out().lines().count(), n + 2);
    let ids = served.run(&["tokens", "a b\n", "-q"]).ok();
    let ids: Vec<&str> = ids.out().lines().collect();
    assert_eq!(json!(ids.iter().map(|id| id.parse::<u32>().unwrap()).collect::<Vec<_>>()), expected["token_ids"]);
    let back = served.run(&["tokens", "--ids", &ids.join(","), "--json"]).ok().json();
    assert_eq!(back["tokens"], expected["tokens"]);
    let cache = served.capture(&["a b"]).remove(0);
    assert!(served.run(&["tokens", "--cache", &cache]).ok().out().contains('·'));
    assert_eq!(served.run_with(&["tokens", "-", "--json"], b"a b\n").ok().json(), expected);
    served.run(&["tokens"]).failed(2);
    served.run(&["tokens", "a", "--ids", "1"]).failed(2);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lens_shows_a_row_for_each_layer() {
    let served = Served::new().await;
    let id = served.capture(&["ab", "--positions", "all"]).remove(0);
    let path = format!("/v1/caches/{id}/lens");
    let body = json!({"hook": "resid_post", "positions": "last", "top_k": 2, "tokens": [5]});
    let expected = asked(&served, &path, body).await;
    let arguments = ["lens", "@last", "-k", "2", "--token", "id:5"];
    assert_eq!(served.run(&[&arguments[..], &["--json"]].concat()).ok().json(), expected);
    let ran = served.run(&arguments).ok();
    let lines: Vec<&str> = ran.out().lines().collect();
    assert_eq!(lines.len(), 6, "{}", ran.out());
    for layer in 0..3 {
        let distribution = &expected["values"][layer][0];
        let (rank, entropy) =
            (distribution["tokens"][0]["rank"].as_u64().unwrap(), distribution["entropy"].as_f64().unwrap());
        let line = lines[2 + layer];
        assert!(
            line.contains(&format!("#{rank}")) && line.contains(&format!("{entropy:.2}")),
            "{line}: {distribution}"
        );
    }
    let all = served.run(&["lens", &id, "--positions", "all", "--layers", "0"]).ok();
    let n_tokens = served.answer(&format!("/v1/caches/{id}")).await["n_tokens"].as_u64().unwrap() as usize;
    assert_eq!(all.out().matches("(position ").count(), n_tokens);
    let file = tempfile::tempdir().unwrap().keep().join("lens.npy");
    served.run(&["lens", &id, "-o", file.to_str().unwrap()]).ok();
    assert!(std::fs::read(&file).unwrap().starts_with(b"\x93NUMPY"));
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
    assert!(served.run(&["lens", &id, "--layers", "30"]).failed(4).contains("code layer_out_of_range"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn comparisons_have_the_numbers_of_the_server() {
    let served = Served::new().await;
    let ids = served.capture(&["ab", "cd", "ef"]);
    let body = json!({"mode": "pairs", "a": [ids[0]], "b": [ids[1]], "hook": "resid_post", "metrics": ["cosine", "euclidean"]});
    let expected = asked(&served, "/v1/comparisons", body).await;
    let arguments = ["compare", "@last/0", "@last/1", "--metric", "cosine,euclidean"];
    assert_eq!(served.run(&[&arguments[..], &["--json"]].concat()).ok().json(), expected);
    let ran = served.run(&arguments).ok();
    for layer in 0..3 {
        let row = &ran.words()[3 + layer];
        for (column, metric) in [(1, "cosine"), (2, "euclidean")] {
            let value = expected["pairs"][0]["values"][metric][layer].as_f64().unwrap();
            let shown: f64 = row[column].parse().unwrap();
            assert!((shown - value).abs() < 1e-3 * value.abs() + 1e-4, "{row:?}: {value}");
        }
    }
    let matrix = served.run(&["compare", &ids[0], &ids[1], &ids[2]]).ok();
    assert!(matrix.out().contains("cosine, layer 2") && matrix.out().contains("1.0000"), "{}", matrix.out());
    assert!(
        served.run(&["compare", &ids[0], "0198c5a0-5b3f-7d51-8a3e-0242ac120002"]).failed(3).contains("unknown_cache")
    );
    served.run(&["compare", &ids[0]]).failed(2);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_the_same_text_first() {
    let served = Served::new().await;
    let ids = served.capture(&["ab", "cd", "ef", "--tag", "s"]);
    let found = served.run(&["search", "cd", "--layer", "1", "-k", "2", "--tag", "s"]).ok();
    assert_eq!(found.words()[1][..2], ["1.0000", &ids[1]]);
    assert_eq!(served.run(&["search", "cd", "-q", "-k", "1"]).ok().out().trim(), ids[1]);
    // a cache is not its own neighbour
    let near = served.run(&["search", "--cache", &ids[0], "-q"]).ok();
    assert_eq!((near.out().lines().count(), near.out().contains(&ids[0])), (2, false));
    assert_eq!(served.run(&["search", "cd", "--json"]).ok().json()["metric"], "cosine");
    served.run(&["search"]).failed(2);
    assert!(served.run(&["search", "--direction", "none"]).failed(3).contains("unknown_direction"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_has_a_number_for_each_cell() {
    let served = Served::new().await;
    let (clean, corrupt) = ("abc", "adc");
    let sweep = json!({"op": "patch", "positions": "each"});
    let body = json!({"model": "tiny", "clean": clean, "corrupt": corrupt, "answer": 7, "against": 9, "sweep": sweep});
    let expected = asked(&served, "/v1/experiments/patching", body).await;
    let arguments = ["patch", clean, corrupt, "--answer", "id:7", "--against", "id:9"];
    assert_eq!(served.run(&[&arguments[..], &["--json"]].concat()).ok().json(), expected);
    let ran = served.run(&arguments).ok();
    let words = ran.words();
    let n = expected["positions"].as_array().unwrap().len();
    for layer in 0..3 {
        let row = &words[2 + layer];
        assert_eq!((row[0], row.len()), (layer.to_string().as_str(), n + 1), "{}", ran.out());
        for position in 0..n {
            let value = expected["normalized"][layer][position].as_f64().unwrap();
            let shown: f64 = row[1 + position].parse().unwrap();
            assert!((shown - value).abs() <= 0.0051 || value.abs() > 9.9, "{row:?}: {value}");
        }
    }
    let zero = served.run(&["patch", clean, "--answer", "id:7", "--hook", "attn.z", "--heads", "each"]).ok();
    assert!(zero.out().contains("effect on the metric"), "{}", zero.out());
    let layers = served.run(&["patch", clean, "--answer", "id:7", "--positions", "last", "--hook", "mlp_out"]).ok();
    assert_eq!(layers.words()[1][0], "0");
    let both =
        served.run(&["patch", clean, "--op", "knockout", "--answer", "id:7", "--from", "each", "--to", "each"]).ok();
    assert!(both.out().contains("greatest effects") && both.out().contains("key"), "{}", both.out());
    let knockout = served.run(&["patch", clean, "--op", "knockout", "--answer", "id:7"]).ok();
    assert!(knockout.out().contains("keys "), "{}", knockout.out());
    let file = served.run(&["patch", clean, corrupt, "--answer", "id:7", "-o", "-"]).ok();
    assert!(file.bytes.starts_with(b"\x93NUMPY"));
    assert!(served.run(&["patch", clean, "abcd", "--answer", "id:7"]).failed(4).contains("code"));
    served.stop().await;
}

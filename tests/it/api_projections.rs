//! `POST /v1/projections` and `POST /v1/statistics`: the functions against numpy, the routes against float64 sums over
//! the fetched values.

use residuum::analysis::{
    Projection, Projector, Summary,
    summary::{largest, outliers},
};
use serde_json::{Value, json};

use crate::{
    api_lens::analysis_golden,
    support::{D_MODEL, N_LAYERS, TestApp, flat},
};

fn doubles(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-12 * expected.abs().max(1.0)
}

#[test]
fn projections_and_statistics_agree_with_numpy() {
    let golden: Value = serde_json::from_slice(&std::fs::read(analysis_golden("projection.json")).unwrap()).unwrap();
    let rows: Vec<Vec<f32>> = golden["rows"].as_array().unwrap().iter().map(flat).collect();
    let directions: Vec<Vec<f32>> = golden["directions"].as_array().unwrap().iter().map(flat).collect();
    for (r, row) in rows.iter().enumerate() {
        for (d, direction) in directions.iter().enumerate() {
            for measure in Projection::ALL {
                let (found, expected) =
                    (Projector::onto(direction).of(measure, row), golden[measure.name()][r][d].as_f64());
                let agree = found.zip(expected).map_or(found.is_none() && expected.is_none(), |(f, e)| close(f, e));
                assert!(agree, "{measure:?} of row {r} along {d}: {found:?}, not {expected:?}");
            }
        }
    }
    let mut summary = Summary::new(rows[0].len());
    rows.iter().for_each(|row| summary.add(row));
    let variance = summary.variance();
    for (found, name) in [(summary.mean(), "mean"), (&variance, "variance")] {
        assert!(found.iter().zip(doubles(&golden[name])).all(|(f, e)| close(*f, e)), "{name}");
    }
    let norm = summary.norm();
    let found = [norm.mean, norm.std(), norm.min, norm.max];
    assert!(found.iter().zip(doubles(&golden["norm"])).all(|(f, e)| close(*f, e)), "{found:?}");
    assert!(close(summary.zeros(), golden["zeros"].as_f64().unwrap()));
    let sigma = golden["sigma"].as_f64().unwrap();
    let (std, size): (Vec<f64>, Vec<f64>) =
        variance.iter().zip(summary.mean()).map(|(v, m)| (v.sqrt(), m.abs())).unzip();
    assert_eq!(json!(outliers(summary.mean(), sigma)), golden["outliers_by_mean"]);
    assert_eq!(json!(outliers(&std, sigma)), golden["outliers_by_std"]);
    assert_eq!(json!(largest(&size, 5)), golden["top_mean"]);
    assert_eq!(json!(largest(&variance, 5)), golden["top_variance"]);
}

/// A layer of a cache at all its positions, `[pos][d_model]`.
async fn rows(app: &TestApp, cache: &str, layer: usize) -> Vec<Vec<f64>> {
    let answer = app.get(&format!("/v1/caches/{cache}/layers/{layer}")).await.json();
    flat(&answer["values"]).chunks(D_MODEL).map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[tokio::test]
async fn caches_are_projected_layer_by_layer() {
    let app = TestApp::new().await;
    let all = json!({"positions": "all"});
    let (a, b) = (app.capture("the cat", all.clone()).await, app.capture("a small dog", all).await);
    let vector: Vec<f32> = (0..D_MODEL).map(|i| (i as f32).cos()).collect();
    let wide: Vec<f64> = vector.iter().map(|v| f64::from(*v)).collect();
    let directions = json!([{"name": "mine", "vector": vector}, {"cache": b}, {"name": "first", "cache": b, "layer": 0, "position": 1}]);
    let body = json!({"caches": [a, b], "directions": directions});
    let last = app.post("/v1/projections", &body).await.json();
    let names: Vec<&str> = last["directions"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap()).collect();
    assert_eq!((names, &last["layers"]), (vec!["mine", "1", "first"], &json!([0, 1, 2])));
    assert_eq!(
        (&last["caches"], &last["hook"], &last["positions"]),
        (&json!([a, b]), &json!("resid_post"), &json!("last"))
    );
    let every = app
        .post("/v1/projections", &json!({"caches": [a, b], "positions": "all", "directions": directions}))
        .await
        .json();
    let first = rows(&app, &b, 0).await[1].clone();
    for (c, cache) in [&a, &b].into_iter().enumerate() {
        for l in 0..N_LAYERS {
            let own = rows(&app, cache, l).await;
            let along = [wide.clone(), rows(&app, &b, l).await.pop().unwrap(), first.clone()];
            for (d, direction) in along.iter().enumerate() {
                let length = dot(direction, direction).sqrt();
                assert!(close(last["directions"][d]["norms"][l].as_f64().unwrap(), length));
                let expected = |x: &[f64]| {
                    let along = dot(x, direction);
                    [along, along / dot(x, x).sqrt() / length, along / length]
                };
                for (measure, i) in [("dot", 0), ("cosine", 1), ("scalar", 2)] {
                    let found = last["values"][c][measure][l][d].as_f64().unwrap();
                    assert!(close(found, expected(own.last().unwrap())[i]), "{measure} {c} {l} {d}");
                    assert_eq!(every["values"][c][measure][l].as_array().unwrap().len(), own.len());
                    for (p, x) in own.iter().enumerate() {
                        assert!(close(every["values"][c][measure][l][p][d].as_f64().unwrap(), expected(x)[i]));
                    }
                }
            }
        }
    }
    let itself = last["values"][1]["cosine"][2][1].as_f64().unwrap();
    assert!((itself - 1.0).abs() < 1e-12, "a cache along its own vector");
    let mean = app
        .post(
            "/v1/projections",
            &json!({"caches": [a], "positions": "mean", "measures": ["dot"], "directions": [{"vector": vector}]}),
        )
        .await
        .json();
    let dots: Vec<f64> =
        every["values"][0]["dot"][1].as_array().unwrap().iter().map(|p| p[0].as_f64().unwrap()).collect();
    let expected = dots.iter().sum::<f64>() / dots.len() as f64;
    assert!((mean["values"][0]["dot"][1][0].as_f64().unwrap() - expected).abs() < 1e-5);
    assert_eq!(mean["values"][0].as_object().unwrap().len(), 1, "only the requested measures");
}

#[tokio::test]
async fn heads_and_filtered_caches_are_projected_too() {
    let app = TestApp::new().await;
    let run = app
        .run(json!({"input": ["the cat", "a dog"], "tags": ["pets"], "capture": {"hooks": ["attn.z", "final_norm"]}}))
        .await;
    let caches = json!({"tags": ["pets"]});
    let zeros = vec![0.0; D_MODEL];
    let body = json!({"caches": caches, "hook": "attn.z", "layers": [1], "directions": [{"vector": zeros}]});
    let heads = app.post("/v1/projections", &body).await.json();
    assert_eq!(heads["caches"].as_array().unwrap().len(), 2);
    assert_eq!(heads["values"][0], json!({"dot": [[0.0]], "cosine": [[null]], "scalar": [[null]]}), "along nothing");
    let body = json!({"caches": caches, "hook": "final_norm", "directions": [{"cache": run["caches"][0]}]});
    let end = app.post("/v1/projections", &body).await.json();
    assert_eq!((&end["layers"], &end["hook"]), (&json!([]), &json!("final_norm")));
    assert_eq!(end["values"][0]["cosine"][0].as_array().unwrap().len(), 1);
}

/// Little-endian float64 values.
fn wide(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

#[tokio::test]
async fn projections_come_as_arrays_too() {
    let app = TestApp::new().await;
    let all = json!({"positions": "all"});
    let caches = [app.capture("the cat", all.clone()).await, app.capture("in the end it was", all).await];
    let directions = json!([{"name": "ones", "vector": vec![1.0; D_MODEL]}, {"vector": vec![0.0; D_MODEL]}]);
    let body = |more: Value| {
        let mut body = json!({"caches": caches, "layers": [0, 2], "directions": directions});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    // One position of each cache; then all positions, whose number differs between caches.
    let last = app.post("/v1/projections", &body(json!({}))).await.json();
    let every = app.post("/v1/projections", &body(json!({"positions": "all"}))).await.json();
    for measure in ["dot", "cosine", "scalar"] {
        let one = body(json!({"measures": [measure]}));
        let raw = app.post("/v1/projections?format=raw", &one).await;
        assert_eq!((raw.header("residuum-shape"), raw.header("residuum-axes")), ("2,2,2", "cache,layer,direction"));
        assert_eq!(raw.header("residuum-dtype"), "float64");
        let expected: Vec<Value> = (0..2)
            .flat_map(|c| (0..2).flat_map(move |l| (0..2).map(move |d| (c, l, d))))
            .map(|(c, l, d)| last["values"][c][measure][l][d].clone())
            .collect();
        let same = |found: &[f64], expected: &[Value]| {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(f, e)| e.as_f64().map_or(f.is_nan(), |e| *f == e))
        };
        assert!(same(&wide(&raw.body), &expected), "{measure}: {expected:?}");
        let npy = app.post_with("/v1/projections", &[("accept", "application/x-npy")], &one).await;
        assert!(npy.body.starts_with(b"\x93NUMPY") && npy.body.ends_with(&raw.body));
        assert!(npy.body.windows(29).any(|w| w == b"'descr': '<f8', 'fortran_orde"), "float64");

        let file = app.post("/v1/projections?format=safetensors", &body(json!({"positions": "all"}))).await;
        let (_, header) = safetensors::SafeTensors::read_metadata(&file.body).unwrap();
        let metadata = header.metadata().clone().unwrap();
        assert_eq!((metadata["axes"].as_str(), metadata["hook"].as_str()), ("row,layer,direction", "resid_post"));
        assert_eq!(metadata["caches"], json!(caches).to_string());
        assert_eq!(metadata["directions"], r#"["ones","1"]"#);
        let file = safetensors::SafeTensors::deserialize(&file.body).unwrap();
        let lengths: Vec<usize> = (0..2).map(|c| every["values"][c][measure][0].as_array().unwrap().len()).collect();
        let offsets: Vec<u64> = file
            .tensor("offsets")
            .unwrap()
            .data()
            .chunks(8)
            .map(|b| u64::from_le_bytes(b.try_into().unwrap()))
            .collect();
        assert_eq!(offsets, [0, lengths[0] as u64, (lengths[0] + lengths[1]) as u64]);
        assert_ne!(lengths[0], lengths[1]);
        let expected: Vec<Value> = (0..2)
            .flat_map(|c| (0..lengths[c]).map(move |p| (c, p)))
            .flat_map(|(c, p)| (0..2).flat_map(move |l| (0..2).map(move |d| (c, p, l, d))))
            .map(|(c, p, l, d)| every["values"][c][measure][l][p][d].clone())
            .collect();
        let tensor = file.tensor(measure).unwrap();
        assert_eq!(tensor.shape(), [lengths[0] + lengths[1], 2, 2]);
        assert!(same(&wide(tensor.data()), &expected), "{measure}");
    }
    let two = body(json!({"measures": ["dot", "cosine"]}));
    assert_eq!(app.post("/v1/projections?format=npy", &two).await.problem(422, "invalid_value"), ["/measures"]);
    let html = [("accept", "text/html")];
    app.post_with("/v1/projections", &html, &body(json!({}))).await.problem(406, "not_acceptable");
    assert_eq!(app.post("/v1/projections?format=pickle", &two).await.problem(400, "invalid_query"), ["format"]);
}

#[tokio::test]
async fn statistics_are_those_of_all_rows() {
    let app = TestApp::new().await;
    let all = json!({"positions": "all"});
    let caches = [app.capture("the cat", all.clone()).await, app.capture("a small dog", all).await];
    let answer = app.post("/v1/statistics", &json!({"caches": caches, "top_k": 4, "sigma": 1.5})).await.json();
    assert_eq!((&answer["hook"], &answer["n_caches"]), (&json!("resid_post"), &json!(2)));
    for l in 0..N_LAYERS {
        let of = &answer["layers"][l];
        let mut vectors = rows(&app, &caches[0], l).await;
        vectors.extend(rows(&app, &caches[1], l).await);
        let n = vectors.len() as f64;
        assert_eq!(
            (&of["layer"], &of["n"], &of["width"], &of["zeros"]),
            (&json!(l), &json!(vectors.len()), &json!(D_MODEL), &json!(0.0))
        );
        let column = |d: usize| vectors.iter().map(move |v| v[d]);
        let mean: Vec<f64> = (0..D_MODEL).map(|d| column(d).sum::<f64>() / n).collect();
        let variance: Vec<f64> =
            (0..D_MODEL).map(|d| column(d).map(|x| (x - mean[d]).powi(2)).sum::<f64>() / n).collect();
        assert!(close(of["mean_norm"].as_f64().unwrap(), dot(&mean, &mean).sqrt()));
        assert!(close(of["total_variance"].as_f64().unwrap(), variance.iter().sum()));
        let norms: Vec<f64> = vectors.iter().map(|v| dot(v, v).sqrt()).collect();
        assert!(close(of["norm"]["mean"].as_f64().unwrap(), norms.iter().sum::<f64>() / n));
        assert!(close(of["norm"]["max"].as_f64().unwrap(), norms.iter().copied().fold(0.0, f64::max)));
        let top = of["top_variance"].as_array().unwrap();
        let strongest = (0..D_MODEL).max_by(|a, b| variance[*a].total_cmp(&variance[*b])).unwrap();
        assert_eq!((top.len(), &top[0]["dimension"]), (4, &json!(strongest)));
        assert!(close(top[0]["std"].as_f64().unwrap(), variance[strongest].sqrt()));
        let found: Vec<usize> =
            of["outliers"].as_array().unwrap().iter().map(|o| o["dimension"].as_u64().unwrap() as usize).collect();
        let std: Vec<f64> = variance.iter().map(|v| v.sqrt()).collect();
        let mut expected = [outliers(&mean, 1.5), outliers(&std, 1.5)].concat();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(found, expected);
    }
    let last = app.post("/v1/statistics", &json!({"caches": caches, "positions": "last", "layers": 1})).await.json();
    assert_eq!((&last["layers"][0]["n"], last["layers"].as_array().unwrap().len()), (&json!(2), 1));
}

#[tokio::test]
async fn impossible_projections_and_statistics_are_refused() {
    let app = TestApp::new().await;
    let cache = app.capture("the cat", json!({"hooks": ["resid_post", "attn.pattern"]})).await;
    let vector = json!({"vector": vec![1.0; D_MODEL]});
    let project = |more: Value| {
        let mut body = json!({"caches": [cache], "directions": [vector]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (body, status, code, pointer) in [
        (project(json!({"directions": [vector, {"vector": [1.0]}]})), 422, "shape_mismatch", "/directions/1"),
        (project(json!({"directions": []})), 422, "invalid_value", "/directions"),
        (project(json!({"directions": [{"name": "x"}]})), 400, "invalid_field", "/directions/0"),
        (project(json!({"directions": [{"vector": [1.0], "layer": 1}]})), 400, "invalid_field", "/directions/0"),
        (project(json!({"directions": [{"cache": "nonsense"}]})), 422, "unknown_cache", "/directions/0/cache"),
        (project(json!({"directions": [{"cache": cache, "layer": 9}]})), 422, "layer_out_of_range", "/directions/0"),
        (
            project(json!({"directions": [{"cache": cache, "hook": "mlp_out"}]})),
            422,
            "hook_not_stored",
            "/directions/0",
        ),
        (
            project(json!({"directions": [{"cache": cache, "position": "all"}]})),
            422,
            "invalid_value",
            "/directions/0/position",
        ),
        (
            project(json!({"directions": [{"cache": cache, "position": 0}]})),
            422,
            "position_out_of_range",
            "/directions/0",
        ),
        (project(json!({"hook": "attn.pattern"})), 422, "shape_mismatch", "/hook"),
        (project(json!({"hook": "mlp_out"})), 422, "hook_not_stored", "/hook"),
        (project(json!({"positions": "all"})), 422, "position_out_of_range", "/caches/0"),
        (project(json!({"measures": []})), 422, "invalid_value", "/measures"),
        (project(json!({"measures": ["angle"]})), 400, "invalid_field", "/measures/0"),
        (project(json!({"caches": []})), 422, "empty_input", "/caches"),
        (project(json!({"caches": {"tags": ["nobody"]}})), 422, "empty_input", "/caches"),
    ] {
        assert_eq!(app.post("/v1/projections", &body).await.problem(status, code), [pointer], "{body}");
    }
    for (more, status, code, pointer) in [
        (json!({"top_k": 1001}), 422, "invalid_value", "/top_k"),
        (json!({"sigma": 0}), 422, "invalid_value", "/sigma"),
        (json!({"hook": "attn.pattern"}), 422, "shape_mismatch", "/hook"),
        (json!({"positions": 0}), 422, "position_out_of_range", "/caches/0"),
        (json!({"bins": 3}), 400, "invalid_body", "/bins"),
    ] {
        let mut body = json!({"caches": [cache]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(app.post("/v1/statistics", &body).await.problem(status, code), [pointer], "{body}");
    }
}

//! The code that drives accelerators, on candle's CPU device, against the CPU kernels: packed batches of every
//! checkpoint. `model_goldens` compares it with transformers, `api_interventions` with interventions in PyTorch.

use residuum::{
    domain::{Hook, Rows, Site},
    model::{ComputeDtype, LoadOptions, Model, Placement, Placements},
};
use serde_json::json;

use crate::{
    model_invariants::{checkpoints, inputs},
    model_support::{
        Collected, accelerator, all_rows, capture, every_hook, goldens, load_golden, load_golden_on, relative_error,
    },
    support::{TestApp, flat, floats},
};

/// Largest difference between the two, in units of the root mean square. Both compute in float32, in different orders.
const TOLERANCE: f64 = 5e-5;

/// The largest difference over some hooks and all items.
fn difference(hooks: &[Hook], n_items: usize, expected: &Collected, got: &Collected) -> (f64, String) {
    let mut worst = (0.0, String::new());
    for hook in hooks {
        for item in 0..n_items {
            let expected: Vec<f64> = expected.item(*hook, item).iter().map(|v| f64::from(*v)).collect();
            let error = relative_error(&hook.to_string(), got.item(*hook, item), &expected);
            if error > worst.0 {
                worst = (error, format!("{hook} of item {item}"));
            }
        }
    }
    worst
}

/// Rows of different kinds for the inputs of one batch.
fn mixed_rows(inputs: &[Vec<u32>]) -> Vec<(&[u32], Rows)> {
    let rows = |i: usize, n: u32| match i % 4 {
        0 => Rows::List(vec![n - 1]),
        1 => Rows::Mean((0..n).collect()),
        2 => Rows::List(vec![n - 1, 0]),
        _ => Rows::List((0..n).collect()),
    };
    inputs.iter().enumerate().map(|(i, ids)| (ids.as_slice(), rows(i, u32::try_from(ids.len()).unwrap()))).collect()
}

#[test]
fn packed_batches_of_every_checkpoint_agree_with_the_cpu() {
    let mut worst = (0.0, String::new());
    for name in &checkpoints() {
        let folder = goldens().join(name);
        let (cpu, device) = (load_golden(&folder), load_golden_on(&folder, accelerator()));
        let (hooks, inputs) = (every_hook(&cpu), inputs());
        let every: Vec<(&[u32], Rows)> = inputs.iter().map(|ids| (ids.as_slice(), all_rows(ids.len()))).collect();
        for rows in [every, mixed_rows(&inputs)] {
            let (expected, got) = (capture(&cpu, &hooks, &rows).unwrap(), capture(&device, &hooks, &rows).unwrap());
            let (error, place) = difference(&hooks, inputs.len(), &expected, &got);
            assert!(error < TOLERANCE, "{name}: {error:.1e} at {place}");
            if error > worst.0 {
                worst = (error, format!("{name}, {place}"));
            }
        }
    }
    println!("worst {:.1e} at {}", worst.0, worst.1);
}

/// If only one hook is captured, the pass stops there, and the last block only computes the requested rows.
#[test]
fn each_hook_alone_equals_that_hook_among_all() {
    for name in ["llama/gqa_tied", "phi/parallel", "bert/masked_lm", "olmoe/clipped", "bloom/six_heads"] {
        let folder = goldens().join(name);
        let (cpu, device) = (load_golden(&folder), load_golden_on(&folder, accelerator()));
        let inputs = inputs();
        for hook in every_hook(&cpu) {
            let rows = mixed_rows(&inputs);
            let (expected, got) = (capture(&cpu, &[hook], &rows).unwrap(), capture(&device, &[hook], &rows).unwrap());
            let (error, place) = difference(&[hook], inputs.len(), &expected, &got);
            assert!(error < TOLERANCE, "{name}: {error:.1e} at {place}");
        }
    }
}

#[test]
fn products_in_half_precision_stay_near_single_precision() {
    let folder = goldens().join("llama/gqa_tied");
    let cpu = load_golden(&folder);
    let inputs = inputs();
    let hooks: Vec<Hook> = (0..cpu.info().n_layers).map(|l| Hook::block(Site::ResidPost, l)).collect();
    let rows = mixed_rows(&inputs);
    let expected = capture(&cpu, &hooks, &rows).unwrap();
    for (dtype, least, most) in [(ComputeDtype::Bfloat16, 1e-4, 0.1), (ComputeDtype::Float16, 1e-5, 0.01)] {
        let options = LoadOptions {
            offline: true,
            placements: accelerator().into(),
            compute_dtype: Some(dtype),
            ..LoadOptions::default()
        };
        let device = Model::load("tiny", folder.to_str().unwrap(), &options).unwrap();
        assert_eq!(device.info().compute_dtype, dtype.to_string());
        let (error, place) = difference(&hooks, inputs.len(), &expected, &capture(&device, &hooks, &rows).unwrap());
        println!("{dtype}: {error:.1e} at {place}");
        assert!((least..most).contains(&error), "{dtype}: {error:.1e} at {place}");
    }
}

#[test]
fn unsupported_placements_are_refused_when_the_model_is_loaded() {
    let folder = goldens().join("llama/gqa_tied");
    let load = |placement: Placement, compute_dtype| {
        let options =
            LoadOptions { offline: true, placements: placement.into(), compute_dtype, ..LoadOptions::default() };
        Model::load("tiny", folder.to_str().unwrap(), &options).map(|m| m.info().device.clone())
    };
    let refusal = load(Placement::Cpu, Some(ComputeDtype::Bfloat16)).unwrap_err();
    assert_eq!(refusal.reason(), "the CPU computes in float32, not in bfloat16");
    assert_eq!(load(Placement::Cpu, Some(ComputeDtype::Float32)).unwrap(), "cpu");
    assert_eq!(load(Placement::CandleCpu, None).unwrap(), "candle-cpu");
    for (placement, built) in
        [(Placement::Cuda(99), cfg!(feature = "cuda")), (Placement::Metal(99), cfg!(feature = "metal"))]
    {
        let refusal = load(placement, None).unwrap_err();
        assert!(built || refusal.reason().contains("build it with --features"), "{refusal}");
    }
}

/// The rows that an intervention changes need not be among those that the last block computes.
#[tokio::test]
async fn interventions_on_rows_that_are_not_captured_agree_with_the_cpu() {
    let sites = [
        "attn.hook_in",
        "attn.hook_z",
        "attn.hook_result",
        "attn.hook_pattern",
        "attn.hook_out",
        "hook_attn_out",
        "ln2.hook_scale",
        "mlp.hook_post",
        "hook_mlp_out",
        "hook_resid_pre",
        "hook_resid_post",
    ];
    let hooks = sites.iter().map(|site| format!("blocks.2.{site}")).chain(["hook_embed".to_owned()]);
    for hook in hooks {
        let change = json!({"op": "scale", "hook": hook, "factor": 3.0, "positions": [0]});
        let body = json!({
            "input": [[1, 5, 9, 44], [1, 7]], "interventions": [change],
            "capture": {"hooks": ["resid_post", "logits"], "positions": "last"}
        });
        let mut both = Vec::new();
        for placement in [Placement::Cpu, accelerator()] {
            let app = TestApp::serving_on("llama/gqa_tied", placement).await;
            let run = app.run(body.clone()).await;
            let mut logits = Vec::new();
            for cache in run["caches"].as_array().unwrap() {
                let answer = app.get(&format!("/v1/caches/{}/tensors/logits", cache.as_str().unwrap())).await;
                logits.extend(flat(&answer.json()["values"]));
            }
            both.push(logits);
        }
        let expected: Vec<f64> = both[0].iter().map(|v| f64::from(*v)).collect();
        let error = relative_error(&hook, &both[1], &expected);
        assert!(error < TOLERANCE, "{hook}: {error:.1e}");
    }
}

/// The receipt states the device, and numbers of one device class are never reused for another.
#[tokio::test]
async fn receipts_state_the_device() {
    let app = TestApp::serving_on("llama/gqa_tied", accelerator()).await;
    let model = app.get("/v1/models/tiny").await.json();
    assert_eq!((&model["device"], &model["compute_dtype"]), (&json!(accelerator().to_string()), &json!("float32")));
    let run = app.run(json!({"input": [[1, 5, 9], [1, 7]], "capture": {"hooks": ["resid_post"]}})).await;
    let cache = app.get(&format!("/v1/caches/{}", run["caches"][1].as_str().unwrap())).await.json();
    assert_eq!(cache["provenance"]["device"], accelerator().to_string(), "{cache:#}");
    let again = app.run(json!({"input": [[1, 7]], "capture": {"hooks": ["resid_post"]}})).await;
    assert_eq!(again["n_reused"], 1, "{again:#}");
}

/// Each device has a worker; all compute the same numbers, at the same time.
#[tokio::test]
async fn several_devices_share_the_batches() {
    let inputs: Vec<Vec<u32>> = (0..900u32).map(|i| (0..40).map(|j| 1 + (i * 7 + j * 13) % 250).collect()).collect();
    let body = json!({"input": inputs, "capture": {"hooks": ["resid_post"], "positions": "last"}});
    let one = TestApp::serving_on("llama/gqa_tied", Placement::CandleCpu).await;
    let two: Placements = "candle-cpu,candle-cpu".parse().unwrap();
    let two = TestApp::serving_on("llama/gqa_tied", two).await;
    assert_eq!(two.get("/v1/models/tiny").await.json()["device"], "candle-cpu,candle-cpu");
    let mut rows = Vec::new();
    for app in [&one, &two] {
        let run = app.run(body.clone()).await;
        assert_eq!(run["n_done"], 900, "{run:#}");
        let answer = app
            .get(&format!("/v1/runs/{}/tensors/blocks.1.hook_resid_post?format=raw", run["id"].as_str().unwrap()))
            .await;
        rows.push(floats(&answer.body));
    }
    let expected: Vec<f64> = rows[0].iter().map(|v| f64::from(*v)).collect();
    let error = relative_error("resid_post", &rows[1], &expected);
    assert!(error < TOLERANCE, "{error:.1e}");
    // devices of one kind: what one computed answers for the other, and for a server that has only one
    let cache = two.get("/v1/caches?limit=1").await.json()["items"][0].clone();
    assert_eq!(cache["provenance"]["device"], "candle-cpu");
    let again = two.run(json!({"input": [inputs[5]], "capture": {"hooks": ["resid_post"], "positions": "last"}})).await;
    assert_eq!(again["n_reused"], 1);
}

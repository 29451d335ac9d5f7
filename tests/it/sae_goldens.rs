//! Sparse autoencoders against plain PyTorch formulas in float64, which `scripts/make_sae_goldens.py` compared with
//! SAELens.

use std::{fs, path::Path};

use residuum::model::{
    LoadOptions, LoadProgress, Model,
    sae::{Sae, Settings, Side},
};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::support::{golden, sae_golden};

/// Tolerance of all cases, in units of the largest reference value: float32 sums of 32 terms against float64.
const TOLERANCE: f64 = 2e-6;

const CASES: [&str; 19] = [
    "standard",
    "no_b_dec",
    "jumprelu",
    "topk",
    "topk_old",
    "gated",
    "layer_norm",
    "constant_norm",
    "scaled",
    "finetuned",
    "bfloat16",
    "all_heads",
    "one_head",
    "centred",
    "saelens_2",
    "saelens_2_finetuned",
    "saelens_3_0",
    "saelens_4_gated",
    "saelens_5_checkpoint",
];

fn model(case: &str) -> Model {
    let checkpoint = if case == "centred" { "gpt2/plain" } else { "llama/gqa_tied" };
    Model::load("tiny", &golden(checkpoint).to_string_lossy(), &LoadOptions::default()).unwrap()
}

fn load(folder: &Path, model: &Model) -> Result<Sae, String> {
    let settings = Settings::read(folder).map_err(|e| e.to_string())?;
    Sae::load("case", settings, folder, model, &LoadProgress::default()).map_err(|e| e.to_string())
}

/// A tensor of a safetensors file, in float64.
pub fn tensor(file: &Path, name: &str) -> Vec<f64> {
    let bytes = fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    match tensor.dtype() {
        Dtype::F64 => tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        Dtype::F32 => tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
        other => panic!("{other:?}"),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "they were float32")]
fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

#[track_caller]
fn assert_close(case: &str, what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{case}: {what}");
    let scale = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let far = (f64::from(*found) - expected).abs() / scale;
        assert!(far <= TOLERANCE, "{case}: {what} {i} is {found}, not {expected}: {far:.1e} of the largest");
        assert!(
            what != "activations" || (*found == 0.0) == (*expected == 0.0),
            "{case}: feature {i} is active in one and not in the other"
        );
    }
}

#[test]
fn features_and_reconstructions_agree_with_pytorch() {
    for case in CASES {
        let folder = sae_golden(case);
        let reference = |name: &str| tensor(&folder.join("reference.safetensors"), name);
        let sae = load(&folder, &model(case)).unwrap();
        let rows = narrow(&reference("rows"));
        let targets = sae.targets(&rows);
        assert_close(case, "targets", &targets, &reference("targets"));
        let activations = sae.encode(&targets);
        assert_close(case, "activations", &activations, &reference("activations"));
        let out = sae.decode(&targets, &activations);
        assert_close(case, "reconstruction", &out, &reference("reconstruction"));

        // Chosen features have the same numbers as among all.
        let features = [3, 0, 39, 17, 3];
        let chosen = sae.choose(&features).encode_rows(&rows);
        for (all, some) in activations.chunks(sae.d_sae()).zip(chosen.chunks(features.len())) {
            let expected: Vec<u32> = features.iter().map(|f| all[*f].to_bits()).collect();
            assert_eq!(some.iter().map(|a| a.to_bits()).collect::<Vec<_>>(), expected, "{case}");
        }
    }
}

/// Adding one to a feature moves the reconstruction by its decoder direction; adding its encoder direction to the input
/// raises the feature.
#[test]
fn directions_are_the_decoder_and_encoder_vectors_of_a_feature() {
    for case in ["standard", "topk", "scaled", "finetuned", "one_head", "all_heads"] {
        let folder = sae_golden(case);
        let sae = load(&folder, &model(case)).unwrap();
        let rows = narrow(&tensor(&folder.join("reference.safetensors"), "rows"));
        let targets = sae.targets(&rows[..sae.row_width()]);
        let mut activations = vec![0.0; sae.d_sae()];
        let before = sae.decode(&targets, &activations);
        activations[7] = 1.0;
        let after = sae.decode(&targets, &activations);
        let direction = sae.direction(7, Side::Decoder);
        assert_eq!(direction.len(), sae.row_width());
        let place = if case == "one_head" { 16 } else { 0 };
        for i in 0..sae.d_in() {
            assert!((after[i] - before[i] - direction[place + i]).abs() < 1e-5, "{case}");
        }
        let outside = direction.len() - sae.d_in();
        assert_eq!(direction.iter().filter(|v| **v == 0.0).count(), outside, "{case}: zero exactly outside the head");

        let encoder = sae.direction(7, Side::Encoder);
        let w_enc = tensor(&folder.join("sae_weights.safetensors"), "W_enc");
        let factor = if case == "scaled" { 0.375 } else { 1.0 };
        for i in 0..sae.d_in() {
            assert!((f64::from(encoder[place + i]) - factor * w_enc[i * sae.d_sae() + 7]).abs() < 1e-6, "{case}");
        }
    }
}

#[test]
fn a_row_that_is_not_finite_has_no_features() {
    let sae = load(&sae_golden("constant_norm"), &model("constant_norm")).unwrap();
    let mut rows = vec![0.5; 3 * 32];
    rows[..32].fill(0.0);
    rows[32 + 5] = f32::INFINITY;
    let activations = sae.encode(&sae.targets(&rows));
    assert!(activations[..80].iter().all(|a| a.is_nan()), "a zero row cannot be divided by its norm");
    assert!(activations[80..].iter().all(|a| a.is_finite()));
    let chosen = sae.choose(&[4]).encode_rows(&rows);
    assert!(chosen[0].is_nan() && chosen[1].is_nan() && chosen[2].is_finite());
}

/// A copy of a golden folder with other settings or weights.
fn changed(case: &str, settings: &Value, weights: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(sae_golden(case)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.path().join("cfg.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    fs::write(&path, config.to_string()).unwrap();
    weights(folder.path());
    folder
}

#[test]
fn settings_that_do_not_match_the_model_are_refused_by_name() {
    let kwargs = |k: Value| json!({"model_from_pretrained_kwargs": k});
    for (case, more, name) in [
        ("standard", json!({"hook_name": "blocks.3.hook_resid_post", "hook_layer": 3}), "hook_name"),
        ("standard", json!({"hook_name": "blocks.1.attn.hook_pattern"}), "hook_name"),
        ("standard", json!({"hook_name": "blocks.1.mlp.hook_post"}), "d_in"),
        ("standard", json!({"d_in": 31}), "d_in"),
        ("standard", json!({"hook_head_index": 0}), "hook_head_index"),
        ("one_head", json!({"hook_head_index": 4}), "hook_head_index"),
        ("one_head", json!({"hook_head_index": null}), "d_in"),
        ("standard", json!({"hook_name": "blocks.1.ln2.hook_normalized"}), "model_from_pretrained_kwargs.fold_ln"),
        ("all_heads", kwargs(json!({"fold_value_biases": true})), "model_from_pretrained_kwargs.fold_value_biases"),
        ("standard", json!({"finetuning_scaling_factor": true}), "finetuning_scaling_factor"),
        ("finetuned", json!({"finetuning_scaling_factor": false}), "finetuning_scaling_factor"),
        ("scaled", json!({"normalize_activations": "none"}), "normalize_activations"),
    ] {
        let folder = changed(case, &more, |_| {});
        let refused = load(folder.path(), &model(case)).unwrap_err();
        assert!(
            refused.contains(&format!(": `{name}` ")) || refused.contains(&format!(" `{name}` ")),
            "{more}: {refused}"
        );
        assert!(!refused.contains('\n'));
    }
    let result = json!({
        "metadata": {"hook_name": "blocks.1.attn.hook_result", "model_from_pretrained_kwargs": {"center_writing_weights": true}},
        "d_in": 128
    });
    let refused = load(changed("centred", &result, |_| {}).path(), &model("centred")).unwrap_err();
    assert!(refused.contains("center_writing_weights"), "{refused}");
}

fn codes(sae: &Sae) -> Vec<&'static str> {
    sae.warnings().iter().map(|warning| warning.code.name()).collect()
}

/// Every key of a file by an older version is understood, or only describes the training; none causes a warning.
#[test]
fn files_of_older_versions_load_without_a_warning() {
    for case in CASES.into_iter().filter(|case| case.starts_with("saelens_")) {
        let sae = load(&sae_golden(case), &model(case)).unwrap();
        let expected: &[&str] = if case == "saelens_3_0" { &["sae_processing_not_said"] } else { &[] };
        assert_eq!(codes(&sae), expected, "{case}: {:?}", sae.warnings());
        assert_eq!(
            (sae.hook().to_string().as_str(), sae.settings().prepend_bos),
            ("blocks.1.hook_resid_post", Some(true))
        );
    }
}

/// SAELens before 3.19.2 trained on processed weights; for models with layer norms, on centred ones.
#[test]
fn unstated_weight_processing_is_warned_of() {
    let gpt2 = model("centred");
    let of = |more: Value| {
        let sae = load(changed("saelens_2", &more, |_| {}).path(), &gpt2).unwrap();
        (codes(&sae), sae.centres())
    };
    assert_eq!(of(json!({})), (vec!["sae_trained_processed"], false));
    let centred = json!({"model_from_pretrained_kwargs": {"center_writing_weights": true}});
    assert_eq!(of(centred), (vec![], true));
    let later = json!({"sae_lens_training_version": "4.0.0", "sae_lens_version": null});
    assert_eq!(of(later), (vec![], false));
}

#[test]
fn processing_without_effect_is_accepted() {
    let normalised = json!({
        "hook_name": "blocks.1.ln2.hook_normalized", "model_from_pretrained_kwargs": {"fold_ln": true, "center_writing_weights": true}
    });
    let sae = load(changed("standard", &normalised, |_| {}).path(), &model("standard")).unwrap();
    assert!(!sae.centres(), "TransformerLens does not centre models with RMS norms");
    assert_eq!(codes(&sae), ["sae_centring_without_effect"]);
    assert!(load(&sae_golden("centred"), &model("centred")).unwrap().centres());
}

#[test]
fn weights_that_do_not_match_the_settings_are_refused() {
    for (case, more, name) in [
        ("standard", json!({"architecture": "jumprelu"}), "threshold"),
        ("jumprelu", json!({"architecture": "standard"}), "threshold"),
        ("standard", json!({"architecture": "gated"}), "r_mag"),
        ("standard", json!({"d_sae": 41}), "W_dec"),
    ] {
        let refused = load(changed(case, &more, |_| {}).path(), &model(case)).unwrap_err();
        assert!(refused.contains(&format!("`{name}`")), "{more}: {refused}");
    }
    let cut = |folder: &Path| {
        let file = fs::File::options().write(true).open(folder.join("sae_weights.safetensors")).unwrap();
        file.set_len(4000).unwrap();
    };
    let refused = load(changed("standard", &json!({}), cut).path(), &model("standard")).unwrap_err();
    assert!(refused.contains("sae_weights.safetensors: is truncated"), "{refused}");
    let gone = |folder: &Path| fs::remove_file(folder.join("cfg.json")).unwrap();
    assert!(load(changed("standard", &json!({}), gone).path(), &model("standard")).unwrap_err().contains("cfg.json"));
}

#[test]
fn a_fingerprint_depends_on_weights_and_settings() {
    let tiny = model("standard");
    let of = |folder: &Path| load(folder, &tiny).unwrap().fingerprint().to_owned();
    let first = of(&sae_golden("standard"));
    assert_eq!(
        (first.len(), &first),
        (
            64,
            &of(changed("standard", &json!({}), |folder| {
                fs::copy(sae_golden("standard").join("cfg.json"), folder.join("cfg.json")).unwrap();
            })
            .path())
        )
    );
    assert_ne!(first, of(changed("standard", &json!({"prepend_bos": false}), |_| {}).path()));
}

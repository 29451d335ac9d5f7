//! Settings of both forms, and what is refused.

use serde_json::json;

use super::{super::training_keys::TRAINING, *};

fn read(config: Value, scale: Option<f32>) -> Result<Settings, String> {
    let Value::Object(config) = config else { panic!("an object is meant") };
    Settings::of(config, scale).map_err(|refused| refused.to_string())
}

fn with(mut base: Value, more: &Value) -> Value {
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

/// What SAELens 3 writes for a residual stream.
fn old() -> Value {
    json!({
        "architecture": "standard", "d_in": 32, "d_sae": 128, "activation_fn_str": "relu", "activation_fn_kwargs": {},
        "apply_b_dec_to_input": true, "finetuning_scaling_factor": false, "context_size": 64, "model_name": "tiny",
        "hook_name": "blocks.1.hook_resid_post", "hook_layer": 1, "hook_head_index": null, "prepend_bos": true,
        "dtype": "torch.float32", "device": "cpu", "normalize_activations": "none", "sae_lens_training_version": "3.18.2",
        "dataset_path": "x/y", "dataset_trust_remote_code": true, "neuronpedia_id": null, "model_from_pretrained_kwargs": {}
    })
}

/// What SAELens 6 writes.
fn new() -> Value {
    json!({
        "architecture": "topk", "d_in": 32, "d_sae": 128, "k": 4, "rescale_acts_by_decoder_norm": true, "dtype": "float32",
        "device": "cpu", "apply_b_dec_to_input": false, "normalize_activations": "layer_norm", "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.5.0", "sae_lens_training_version": "6.5.0", "hook_name": "blocks.1.hook_mlp_out",
            "prepend_bos": false, "model_name": "tiny", "context_size": 128, "seqpos_slice": [null], "training_architecture": "topk",
            "model_from_pretrained_kwargs": {"center_writing_weights": false, "n_devices": 1}
        }
    })
}

#[test]
fn the_training_keys_are_sorted() {
    assert!(TRAINING.is_sorted());
}

#[test]
fn files_of_both_forms_are_read() {
    let settings = read(old(), None).unwrap();
    assert_eq!((settings.kind, settings.d_in, settings.d_sae), (Kind::Standard, 32, 128));
    assert_eq!((settings.hook.to_string().as_str(), settings.prepend_bos), ("blocks.1.hook_resid_post", Some(true)));
    assert_eq!(settings.processing, Some(Processing::default()));
    let settings = read(new(), None).unwrap();
    assert_eq!((settings.kind, settings.normalization), (Kind::TopK { k: 4, rescale: true }, Normalization::LayerNorm));
    assert_eq!((settings.prepend_bos, settings.apply_b_dec_to_input), (Some(false), false));
    assert_eq!((settings.seqpos_slice, settings.sae_lens_version.as_deref()), (None, Some("6.5.0")));
    assert_eq!(settings.processing.unwrap().center_writing_weights, Some(false));
}

#[test]
fn what_an_old_file_leaves_out_is_what_it_meant() {
    let least = json!({
        "d_in": 32, "d_sae": 64, "hook_point": "blocks.{layer}.hook_resid_pre", "hook_point_layer": 2, "lr": 0.1,
        "normalize_activations": false, "expansion_factor": 2
    });
    let settings = read(least.clone(), None).unwrap();
    assert_eq!((settings.kind, settings.hook.to_string().as_str()), (Kind::Standard, "blocks.2.hook_resid_pre"));
    assert_eq!((settings.prepend_bos, settings.apply_b_dec_to_input, settings.processing), (Some(true), true, None));
    let by_rank = with(least, &json!({"activation_fn": "topk", "activation_fn_kwargs": {"k": 7}}));
    assert_eq!(read(by_rank, None).unwrap().kind, Kind::TopK { k: 7, rescale: false });
    let mut silent = new();
    silent["metadata"].as_object_mut().unwrap().remove("prepend_bos");
    assert_eq!(read(silent, None).unwrap().prepend_bos, None, "a new file that does not say means nothing");
}

#[test]
fn a_key_that_saelens_does_not_read_is_warned_of() {
    let unknown = |config: Value| {
        let warnings = read(config, None).unwrap().warnings;
        warnings.iter().map(|w| (w.code.name(), w.detail.split('`').nth(1).unwrap().to_owned())).collect::<Vec<_>>()
    };
    assert_eq!((unknown(old()), unknown(new())), (vec![], vec![]));
    let expected = [("unknown_sae_key", "my_note".to_owned())];
    assert_eq!(unknown(with(old(), &json!({"my_note": "x", "lr": 1, "other": null}))), expected);
    let mut config = new();
    config["metadata"]["my_note"] = json!("x".repeat(1000));
    assert_eq!(unknown(config.clone()), expected);
    assert!(read(config, None).unwrap().warnings[0].detail.len() < 250);
}

#[test]
fn tokens_that_it_was_not_trained_on_are_read() {
    let of = |value: Value| read(with(old(), &json!({"exclude_special_tokens": value})), None).unwrap();
    for (value, expected) in [
        (json!(null), ExcludedTokens::Nothing),
        (json!(false), ExcludedTokens::Nothing),
        (json!([]), ExcludedTokens::Nothing),
        (json!(true), ExcludedTokens::Special),
        (json!([7, 0, 7]), ExcludedTokens::Listed([0, 7].into())),
    ] {
        assert_eq!(of(value.clone()).exclude_special_tokens, expected, "{value}");
    }
    assert_eq!(of(json!([7, 0, 7])).exclude_special_tokens.to_json(), Some(json!([0, 7])));
}

#[test]
fn what_a_version_did_unless_told_otherwise_goes_by_its_number() {
    let version = |trained: Value, written: Value| {
        let named = json!({"sae_lens_training_version": trained, "sae_lens_version": written});
        read(with(old(), &named), None).unwrap().trained_processed
    };
    for (trained, written, processed) in [
        (json!("3.19.1"), json!(null), true),
        (json!("3.19.2"), json!(null), false),
        (json!(null), json!("2.1.3"), true),
        (json!("3.0.0"), json!("6.0.0"), true),
        (json!(null), json!(null), false),
        (json!("unknown"), json!(null), false),
    ] {
        assert_eq!(version(trained.clone(), written.clone()), processed, "{trained} {written}");
    }
    let finetuned = |more: Value| read(with(old(), &more), None).unwrap().finetuned;
    assert!(finetuned(json!({"finetuning_scaling_factor": null, "finetuning_method": "scale"})));
    assert!(!finetuned(json!({"finetuning_scaling_factor": false, "finetuning_method": "scale"})));
    assert!(!finetuned(json!({"finetuning_scaling_factor": null})));
}

#[test]
fn a_scale_that_was_not_folded_comes_from_the_file_beside() {
    let scaled = with(old(), &json!({"normalize_activations": "expected_average_only_in"}));
    assert_eq!(read(scaled.clone(), Some(0.5)).unwrap().normalization, Normalization::Scale(0.5));
    assert!(read(scaled, None).unwrap_err().starts_with("`normalize_activations` is \"expected_average_only_in\""));
    assert!(read(old(), Some(0.5)).unwrap_err().starts_with("`normalize_activations` is \"none\", and"));
    let scaler = |v: Value| scaling_factor(v.as_object().unwrap()).map_err(|refused| refused.to_string());
    assert_eq!(scaler(json!({"scaling_factor": 0.25, "has_whitening": false})), Ok(Some(0.25)));
    assert_eq!(scaler(json!({"scaling_factor": null})), Ok(None));
    assert!(scaler(json!({"scaling_factor": 0})).is_err() && scaler(json!({"has_whitening": true})).is_err());
}

#[test]
fn what_changes_the_input_and_is_not_understood_is_refused_by_name() {
    for (more, name) in [
        (json!({"sae_lens_version": "7.0.0", "prepend_bos": true, "a_new_option": 1}), "a_new_option"),
        (json!({"architecture": "temporal"}), "architecture"),
        (json!({"activation_fn_str": "tanh-relu"}), "activation_fn_str"),
        (json!({"activation_fn_kwargs": {"tau": 1}}), "activation_fn_kwargs"),
        (json!({"activation_fn_str": "topk"}), "k"),
        (json!({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 129}}), "k"),
        (json!({"architecture": "gated", "activation_fn_str": "topk", "k": 3}), "activation_fn"),
        (json!({"k": 3}), "k"),
        (json!({"rescale_acts_by_decoder_norm": true}), "rescale_acts_by_decoder_norm"),
        (json!({"normalize_activations": "constant_scalar_rescale"}), "normalize_activations"),
        (json!({"normalize_activations": "covariance_whitening"}), "normalize_activations"),
        (json!({"normalize_activations": true}), "normalize_activations"),
        (json!({"reshape_activations": "hook_z"}), "reshape_activations"),
        (json!({"reshape_activations": "mean"}), "reshape_activations"),
        (json!({"model_kwargs": {"attention_mask": 1}}), "model_kwargs"),
        (
            json!({"model_from_pretrained_kwargs": {"checkpoint_index": 3}}),
            "model_from_pretrained_kwargs.checkpoint_index",
        ),
        (json!({"model_from_pretrained_kwargs": {"revision": "step1000"}}), "model_from_pretrained_kwargs.revision"),
        (
            json!({"model_from_pretrained_kwargs": {"refactor_factored_attn_matrices": true}}),
            "model_from_pretrained_kwargs.refactor_factored_attn_matrices",
        ),
        (
            json!({"model_from_pretrained_kwargs": {"center_writing_weights": 1}}),
            "model_from_pretrained_kwargs.center_writing_weights",
        ),
        (json!({"model_class_name": "HookedMamba"}), "model_class_name"),
        (json!({"hook_name_out": "blocks.1.hook_mlp_out"}), "hook_name_out"),
        (json!({"hook_name": "model.layers.3"}), "hook_name"),
        (json!({"hook_name": "hook_resid_post"}), "hook_name"),
        (json!({"hook_layer": 2}), "hook_layer"),
        (json!({"hook_point": "blocks.0.hook_resid_post"}), "hook_point"),
        (json!({"hook_head_index": -1}), "hook_head_index"),
        (json!({"dtype": "int8"}), "dtype"),
        (json!({"d_sae": 0}), "d_sae"),
        (json!({"d_in": null}), "d_in"),
        (json!({"prepend_bos": "yes"}), "prepend_bos"),
        (json!({"metadata": {"prepend_bos": false}}), "prepend_bos"),
        (json!({"metadata": {"sae_lens_version": "6.55.0", "a_new_option": 1}}), "a_new_option"),
        (json!({"exclude_special_tokens": "yes"}), "exclude_special_tokens"),
        (json!({"exclude_special_tokens": [1, -1]}), "exclude_special_tokens"),
        (json!({"exclude_special_tokens": [1.5]}), "exclude_special_tokens"),
        (json!({"sae_lens_version": "next"}), "sae_lens_version"),
    ] {
        let refused = read(with(old(), &more), None).unwrap_err();
        assert!(refused.starts_with(&format!("`{name}` ")), "{more}: {refused}");
    }
}

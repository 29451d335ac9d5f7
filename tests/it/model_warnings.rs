//! Unusual properties of a checkpoint that do not stop it from loading, and the warning of each; and related refusals.

use std::{fs, path::Path};

use residuum::domain::{Hook, Site};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::model_support::{all_rows, capture, change_config, copy, goldens, load_golden, refusal};

/// The warnings of a checkpoint, as `code: detail`.
fn warnings(path: &Path) -> Vec<String> {
    load_golden(path).warnings().iter().map(ToString::to_string).collect()
}

#[test]
fn keys_that_the_reference_does_not_read_are_warned_of() {
    assert_eq!(warnings(&goldens().join("llama/gqa_tied")), Vec::<String>::new());
    let cases: &[(&str, &str, Value, &str)] = &[
        ("llama/gqa_tied", "new_option", json!(3), "unknown_config_key: `new_option` is 3; transformers 5."),
        ("llama/gqa_tied", "partial_rotary_factor", json!(0.5), "unknown_config_key: `partial_rotary_factor` is 0.5"),
        ("llama/gqa_tied", "internal", json!({"a": [1]}), "unknown_config_key: `internal` is {\"a\":[1]}"),
        ("mixtral/window", "norm_topk_prob", json!(true), "unknown_config_key: `norm_topk_prob` is true"),
        ("llama/gqa_tied", "rope_ratio", json!(0.5), "unknown_config_key: `rope_ratio` is 0.5"),
        ("bert/masked_lm", "position_embedding_type", json!("relative_key"), "unknown_config_key: `position_embedding"),
        ("falcon/multi_query", "ff_factor", json!(4), "unknown_config_key: `ff_factor` is 4"),
        ("opt/plain", "scale_embeddings", json!(true), "unknown_config_key: `scale_embeddings` is true"),
        (
            "gemma3_text/two_ropes",
            "attn_logit_softcapping",
            json!(2),
            "unknown_config_key: `attn_logit_softcapping` is 2",
        ),
        ("gpt_neox/parallel", "rope_theta", json!(7), "unknown_config_key: `rope_theta` is 7"),
        ("gemma3/text_part", "text_config.new_option", json!(1), "unknown_config_key: `text_config.new_option` is 1"),
        ("llama/gqa_tied", "rope_parameters.mrope_section", json!([1]), "unknown_rope_key: `rope_parameters.mrope_sec"),
        ("llama/rope_yarn", "rope_parameters.finetuned", json!(true), "unknown_rope_key: `rope_parameters.finetuned`"),
    ];
    for (golden, key, value, expected) in cases {
        let dir = copy(golden);
        change_config(dir.path(), |c| {
            // Descends along the dotted key.
            *key.split('.').fold(c, |part, name| &mut part[name]) = value.clone();
        });
        let said = warnings(dir.path());
        let said: Vec<String> =
            said.into_iter().filter(|w| !w.contains("vision_tower") && !w.starts_with("tokenizer_")).collect();
        assert!(matches!(said.as_slice(), [one] if one.starts_with(expected)), "{golden} {key}: {said:?}");
    }
}

#[test]
fn json_is_read_in_pythons_dialect() {
    let dir = copy("llama/gqa_tied");
    let path = dir.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen('{', "{\"unread\": [NaN, -Infinity],", 1)).unwrap();
    assert_eq!(warnings(dir.path()).len(), 1, "a key that nothing reads may have any value");
    fs::write(&path, text.replacen('{', "{\"rms_norm_eps\": NaN,", 1).replace("\"rms_norm_eps\": 1e-06,", "")).unwrap();
    assert!(refusal(dir.path()).contains("`rms_norm_eps` is NaN, not a number"));
    fs::write(&path, format!("\u{feff}{text}")).unwrap();
    assert!(refusal(dir.path()).contains("config.json: begins with a byte order mark"));
    fs::write(&path, &text).unwrap();
    for (ids, expected) in [
        ("[1, 2]", None),
        ("-1", None),
        ("\"2\"", Some("`eos_token_id` is neither a token id nor a list of them")),
        ("2.5", Some("`eos_token_id` is neither")),
        ("[[2]]", Some("`eos_token_id` is neither")),
        ("NaN", Some("`eos_token_id` is neither")),
    ] {
        fs::write(dir.path().join("generation_config.json"), format!("{{\"eos_token_id\": {ids}}}")).unwrap();
        match expected {
            None => drop(load_golden(dir.path())),
            Some(expected) => {
                let error = refusal(dir.path());
                assert!(error.contains("generation_config.json: ") && error.contains(expected), "{ids}: {error}");
            }
        }
    }
}

/// Adds tensors to the weights of a checkpoint, given by name, type, shape and bytes.
fn add_tensors(dir: &Path, added: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) {
    let path = dir.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let replaced = |name: &String| added.iter().any(|(new, ..)| new == name);
    let old = file.tensors().into_iter().filter(|(name, _)| !replaced(name));
    let new = added
        .iter()
        .map(|(name, dtype, shape, data)| ((*name).to_owned(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
    let whole = safetensors::serialize(old.chain(new), None).unwrap();
    fs::write(&path, whole).unwrap();
}

fn floats(n: usize, value: f32) -> Vec<u8> {
    (0..n).flat_map(|_| value.to_le_bytes()).collect()
}

#[test]
fn unused_tensors_and_unsupported_types_are_named() {
    let dir = copy("llama/gqa_tied");
    let gain = vec![8];
    add_tensors(
        dir.path(),
        &[
            ("model.layers.0.self_attn.q_norm.weight", Dtype::F32, gain.clone(), floats(8, 1.0)),
            ("model.layers.0.self_attn.q_proj.weight_scale", Dtype::I8, gain.clone(), vec![1; 8]),
            ("model.layers.0.self_attn.rotary_emb.inv_freq", Dtype::F32, vec![4], floats(4, 1.0)),
            ("model.layers.0.attn.bias", Dtype::BOOL, gain, vec![1; 8]),
        ],
    );
    let said = warnings(dir.path());
    let [unused] = said.as_slice() else { panic!("{said:?}") };
    assert!(unused.starts_with("unused_tensors: the checkpoint has tensors") && unused.contains(" (2): "), "{unused}");
    assert!(
        unused.contains("`model.layers.0.self_attn.q_norm.weight`") && unused.contains("weight_scale`"),
        "{unused}"
    );
    // The same weight under a second name.
    let dir = copy("llama/gqa_tied");
    add_tensors(dir.path(), &[("norm.weight", Dtype::F32, vec![32], floats(32, 1.0))]);
    assert!(refusal(dir.path()).contains("tensor `norm.weight` is there as `model.norm.weight` too"));
    for (dtype, width, name) in [(Dtype::F8_E4M3, 1, "float8_e4m3fn"), (Dtype::I8, 1, "int8"), (Dtype::I32, 4, "int32")]
    {
        let dir = copy("llama/gqa_tied");
        let weight = "model.layers.1.mlp.up_proj.weight";
        add_tensors(dir.path(), &[(weight, dtype, vec![48, 32], vec![0; 48 * 32 * width])]);
        let error = refusal(dir.path());
        assert!(error.contains(&format!("tensor `{weight}` is {name}; float32, float16,")), "{error}");
    }
}

#[test]
fn a_stored_head_beside_a_tied_embedding_is_used_as_by_transformers() {
    let logits = |dir: &Path| {
        let hook = Hook::global(Site::Logits);
        let model = load_golden(dir);
        (capture(&model, &[hook], &[(&[1, 2, 3], all_rows(3))]).unwrap().item(hook, 0).to_vec(), warnings(dir))
    };
    let original = goldens().join("llama/gqa_tied");
    let bytes = fs::read(original.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let embedding = file.tensor("model.embed_tokens.weight").unwrap();
    let (shape, data) = (embedding.shape().to_vec(), embedding.data().to_vec());
    let (tied, _) = logits(&original);
    // A head that equals the embedding changes nothing.
    let dir = copy("llama/gqa_tied");
    add_tensors(dir.path(), &[("lm_head.weight", Dtype::F32, shape.clone(), data.clone())]);
    assert_eq!(logits(dir.path()), (tied.clone(), Vec::new()));
    // A different head is used: with doubled weights, the logits double.
    let twice: Vec<u8> =
        data.chunks_exact(4).flat_map(|b| (2.0 * f32::from_le_bytes(b.try_into().unwrap())).to_le_bytes()).collect();
    let dir = copy("llama/gqa_tied");
    add_tensors(dir.path(), &[("lm_head.weight", Dtype::F32, shape, twice)]);
    let (untied, said) = logits(dir.path());
    assert_eq!(untied, tied.iter().map(|x| 2.0 * x).collect::<Vec<f32>>());
    assert!(matches!(said.as_slice(), [one] if one.starts_with("untied_head: ")), "{said:?}");
    // If only the head is stored, it is also the embedding.
    let dir = copy("llama/gqa_tied");
    let path = dir.path().join("model.safetensors");
    let mut renamed = bytes.clone();
    let name = b"model.embed_tokens.weight";
    let at = renamed.windows(name.len()).position(|w| w == name).unwrap();
    // The name in the file becomes shorter; spaces after its closing quote keep the length.
    renamed[at..=at + name.len()].copy_from_slice(b"lm_head.weight\"           ");
    fs::write(&path, renamed).unwrap();
    assert_eq!(logits(dir.path()), (tied, Vec::new()));
}

//! Broken and unsupported checkpoints are refused, naming the file and the reason; none of them panics.

use std::{fs, path::Path};

use residuum::{
    domain::{Hook, Site},
    model::{LoadOptions, Model},
};
use serde_json::{Value, json};

use crate::model_support::{all_rows, capture, change_config, copy, goldens, load_golden, refusal, smollm2_path};

#[test]
fn options_that_are_not_understood_are_named() {
    let cases: &[(&str, Value, &str)] = &[
        ("is_causal", json!(false), "`is_causal` is not understood, and transformers' code around the"),
        ("attention_chunk_size", json!(3), "`attention_chunk_size` is not understood"),
        ("sliding_window", json!(4), "`sliding_window` is not understood"),
        ("hidden_act", json!("swoosh"), "`hidden_act` \"swoosh\" is not understood"),
        ("model_type", json!("mamba"), "`model_type` \"mamba\" is not supported; supported are "),
        ("rope_parameters", json!({"rope_type": "foo"}), "`rope_parameters.rope_type` \"foo\" is not understood"),
        ("rope_parameters", json!({"rope_type": "linear"}), "`rope_parameters.factor` is missing"),
        ("num_key_value_heads", json!(3), "`num_key_value_heads` is 3, which does not divide 4"),
        ("quantization_config", json!({"quant_method": "gptq"}), "`quantization_config`"),
        ("num_hidden_layers", json!(0), "`num_hidden_layers` is 0, not a positive integer"),
        (
            "num_hidden_layers",
            json!(i32::MAX),
            "`num_hidden_layers` is 2147483647; at most 10000 layers are understood",
        ),
        ("hidden_size", Value::Null, "`hidden_size` is missing"),
    ];
    for (key, value, expected) in cases {
        let dir = copy("llama/gqa_tied");
        change_config(dir.path(), |c| c[*key] = value.clone());
        let error = refusal(dir.path());
        assert!(error.contains("config.json: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn keys_that_gemma2_leaves_out_have_the_values_of_all_its_sizes() {
    let logits = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let dir = copy("gemma2/softcaps");
        change_config(dir.path(), |c| change(c.as_object_mut().unwrap()));
        let hook = Hook::global(Site::Logits);
        capture(&load_golden(dir.path()), &[hook], &[(&[1, 2, 3, 4, 5, 6], all_rows(6))])
            .unwrap()
            .item(hook, 0)
            .to_vec()
    };
    for (key, default) in [("attn_logit_softcapping", 50), ("final_logit_softcapping", 30), ("sliding_window", 4096)] {
        let with = |value: Value| logits(&|c| drop(c.insert(key.to_owned(), value.clone())));
        let left_out = logits(&|c| drop(c.shift_remove(key)));
        assert_eq!(left_out, with(json!(default)), "{key}");
        assert_ne!(left_out, with(json!(3)), "{key}");
        if key != "sliding_window" {
            assert_ne!(left_out, with(Value::Null), "{key}: null turns it off");
        }
    }
}

#[test]
fn mixtures_that_are_not_understood_are_named() {
    let cases: &[(&str, &str, Value, &str)] = &[
        ("mixtral/window", "num_experts_per_tok", json!(6), "`num_experts_per_tok` is 6; there are 5 experts"),
        ("mixtral/window", "num_local_experts", Value::Null, "`num_experts` is missing, and so is `num_local_experts`"),
        // More experts than the tensors have: the shape of the router is checked before anything is allocated for that
        // number.
        (
            "mixtral/window",
            "num_local_experts",
            json!(i32::MAX),
            "tensor `model.layers.0.block_sparse_moe.gate.weight` has shape [5, 32], expected [2147483647, 32]",
        ),
        (
            "mixtral/fused",
            "intermediate_size",
            json!(24),
            "tensor `model.layers.0.mlp.experts.gate_up_proj` has shape [6, 40, 32], expected [6, 48, 32]",
        ),
        ("olmoe/clipped", "num_local_experts", json!(4), "`num_local_experts` is 4, but `num_experts` is 5"),
        ("olmoe/clipped", "clip_qkv", json!(-1.0), "`clip_qkv` is -1, not a positive number"),
        ("qwen2_moe/shared_expert", "moe_intermediate_size", Value::Null, "`moe_intermediate_size` is missing"),
        (
            "qwen2_moe/shared_expert",
            "shared_expert_intermediate_size",
            json!(30),
            "tensor `model.layers.0.mlp.shared_expert.gate_proj.weight` has shape [28, 32], expected [30, 32]",
        ),
        ("qwen3_moe/mixed", "mlp_only_layers", json!("1"), "`mlp_only_layers` is \"1\", not a list of numbers"),
        ("qwen3_moe/mixed", "mlp_only_layers", json!([]), "tensor `model.layers.1.mlp.gate.weight` is missing"),
        ("qwen3_moe/mixed", "decoder_sparse_step", json!(0), "`decoder_sparse_step` is 0, not a positive integer"),
    ];
    for (name, key, value, expected) in cases {
        let dir = copy(name);
        change_config(dir.path(), |c| c[*key] = value.clone());
        let error = refusal(dir.path());
        assert!(error.contains(expected), "{name}: {error}");
    }
    let dir = copy("olmoe/clipped");
    let path = dir.path().join("model.safetensors");
    let mut whole = fs::read(&path).unwrap();
    let name = b"layers.1.mlp.experts.4.up_proj";
    let at = whole.windows(name.len()).position(|w| w == name).unwrap();
    whole[at + name.len() - 1] = b'k';
    fs::write(&path, whole).unwrap();
    assert!(refusal(dir.path()).contains("tensor `model.layers.1.mlp.experts.4.up_proj.weight` is missing"));
}

#[test]
fn the_number_of_experts_has_two_keys() {
    let dir = copy("qwen3_moe/mixed");
    change_config(dir.path(), |c| c["num_experts"] = c["num_local_experts"].take());
    let model = load_golden(dir.path());
    let info = model.info();
    assert_eq!((info.n_experts, info.top_k, info.d_mlp), (6, 3, 48));
    // No block of this model has a dense MLP.
    let sparse = load_golden(&goldens().join("qwen2_moe/shared_expert"));
    assert_eq!(sparse.info().d_mlp, 20);
    assert!(sparse.info().layers_with(residuum::domain::Site::MlpPost).is_none());
}

#[test]
fn encoders_with_unsupported_options_are_refused() {
    let cases: &[(&str, &str, Value, &str)] = &[
        ("bert/masked_lm", "is_decoder", json!(true), "`is_decoder` is true; only false is understood"),
        ("bert/masked_lm", "add_cross_attention", json!(true), "`add_cross_attention` is true"),
        ("bert/masked_lm", "num_attention_heads", json!(5), "`num_attention_heads` is 5, which does not divide 32"),
        ("roberta/masked_lm", "is_decoder", json!(true), "`is_decoder` is true"),
        ("roberta/masked_lm", "pad_token_id", json!(63), "`max_position_embeddings` is 64, no more than"),
        ("distilbert/masked_lm", "n_heads", json!(5), "`n_heads` is 5, which does not divide 32"),
        ("distilbert/masked_lm", "dim", Value::Null, "`dim` is missing"),
        ("modernbert/masked_lm", "layer_types", json!(["full_attention"]), "`layer_types` has 1 entries for 3 layers"),
        ("modernbert/masked_lm", "head_dim", json!(4), "`head_dim` is not understood"),
    ];
    for (checkpoint, key, value, expected) in cases {
        let dir = copy(checkpoint);
        change_config(dir.path(), |c| c[*key] = value.clone());
        let error = refusal(dir.path());
        assert!(error.contains("config.json: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_head_that_the_configuration_names_must_exist() {
    let dir = copy("bert/base_model_old_names");
    assert!(load_golden(dir.path()).info().layers_with(Site::Logits).is_none());
    change_config(dir.path(), |c| c["architectures"] = json!(["BertForMaskedLM"]));
    assert!(refusal(dir.path()).contains("tensor `cls.predictions.bias` is missing"));
}

#[test]
fn a_vocabulary_file_is_read_as_berts_or_refused() {
    let write = |dir: &Path, file: &str, text: &str| fs::write(dir.join(file), text).unwrap();
    for (file, text, expected) in [
        ("tokenizer_config.json", r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#, "`tokenizer_class` is \"BertJap"),
        ("tokenizer_config.json", r#"{"do_lower_case": "yes"}"#, "`do_lower_case` is \"yes\", not true or false"),
        ("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[MASK]\na\n", "vocab.txt: lacks the sep_token \"[SEP]\""),
        ("vocab.txt", "[PAD]\n[SEP]\n[CLS]\n[MASK]\na\n", "vocab.txt: lacks the unk_token \"[UNK]\""),
    ] {
        let dir = copy("bert/base_model_old_names");
        write(dir.path(), file, text);
        let error = refusal(dir.path());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn options_of_a_family_that_it_does_not_understand_are_named() {
    let cases: &[(&str, &str, Value, &str)] = &[
        ("bloom/six_heads", "apply_residual_connection_post_layernorm", json!(true), "is true; only false"),
        ("bloom/six_heads", "n_head", json!(5), "`n_head` is 5, which does not divide 24"),
        ("bloom/six_heads", "n_embed", json!(48), "`n_embed` is 48, but `hidden_size` is 24"),
        ("falcon/multi_query", "num_ln_in_parallel_attn", json!(2), "is 2; only 1"),
        ("falcon/grouped", "num_ln_in_parallel_attn", json!(3), "is 3, not 1 or 2"),
        ("falcon/grouped", "num_kv_heads", json!(3), "`num_kv_heads` is 3, which does not divide 4"),
        ("falcon/grouped", "parallel_attn", json!(false), "is false; only true"),
        ("falcon/alibi", "num_kv_heads", json!(2), "is not 16, the number of heads"),
        ("gemma3/text_part", "text_config", Value::Null, "`text_config` is missing"),
        ("gemma3/text_part", "text_config.is_causal", json!(false), "`text_config.is_causal` is not understood"),
        ("mistral/window", "layer_types", json!(["full_attention", "full_attention"]), "ministral"),
        ("falcon/grouped", "attention_chunk_size", json!(3), "`attention_chunk_size` is not understood"),
        ("gpt_neo/local", "attention_types", json!("global"), "is not a list of pairs"),
        ("gpt_neo/local", "attention_types", json!([["global", 3]]), "is not a list of pairs"),
        ("gpt_neo/local", "attention_types", json!([[["global"], 2]]), "does not describe 3 layers"),
        ("gpt_neo/local", "attention_types", json!([[["global"], u64::MAX]]), "does not describe 3 layers"),
        ("gpt_neo/local", "attention_types", json!([[["global"], 3]]), "`attention_layers` does not say the same"),
        ("gpt_neo/local", "num_hidden_layers", json!(4), "`num_hidden_layers` is 4, but `num_layers` is 3"),
        ("gptj/shared_norm", "rotary_dim", json!(5), "`rotary_dim` is 5, not an even number up to 8"),
        ("gptj/shared_norm", "rotary_dim", json!(10), "`rotary_dim` is 10, not an even number up to 8"),
    ];
    for (golden, key, value, expected) in cases {
        let dir = copy(golden);
        change_config(dir.path(), |c| *key.split('.').fold(c, |c, part| &mut c[part]) = value.clone());
        let error = refusal(dir.path());
        assert!(error.contains("config.json: ") && error.contains(expected), "{golden} {key}: {error}");
    }
}

#[test]
fn weights_of_the_wrong_shape_are_named() {
    let dir = copy("llama/gqa_tied");
    change_config(dir.path(), |c| c["num_hidden_layers"] = json!(4));
    assert!(refusal(dir.path()).contains("tensor `model.layers.3.input_layernorm.weight` is missing"));
    change_config(dir.path(), |c| {
        c["num_hidden_layers"] = json!(3);
        c["intermediate_size"] = json!(64);
    });
    let error = refusal(dir.path());
    assert!(
        error.contains("tensor `model.layers.0.mlp.gate_proj.weight` has shape [48, 32], expected [64, 32]"),
        "{error}"
    );
}

#[test]
fn missing_files_are_named() {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let dir = copy("llama/gqa_tied");
        fs::remove_file(dir.path().join(file)).unwrap();
        assert!(refusal(dir.path()).contains(file));
    }
    let dir = copy("llama/bfloat16_sharded");
    fs::remove_file(dir.path().join("model-00003-of-00005.safetensors")).unwrap();
    assert!(refusal(dir.path()).contains("model-00003-of-00005.safetensors"));
    assert!(refusal(Path::new("/nowhere/at/all")).contains("does not exist"));
    let offline = LoadOptions { offline: true, hub_cache: Some(dir.path().to_owned()), ..LoadOptions::default() };
    let error = Model::load("x", "no-such-org/no-such-model", &offline).unwrap_err().to_string();
    assert!(error.starts_with("no-such-org/no-such-model: is not in the hub cache"), "{error}");
}

#[test]
fn a_safetensors_file_cut_anywhere_is_refused() {
    let whole = fs::read(goldens().join("llama/gqa_tied/model.safetensors")).unwrap();
    let dir = copy("llama/gqa_tied");
    let path = dir.path().join("model.safetensors");
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for length in [0, 4, 8, 100, header - 1, header, header + 1000, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(refusal(dir.path()).contains("model.safetensors"));
    }
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, huge).unwrap();
    assert!(refusal(dir.path()).contains("header does not fit"));
}

#[test]
fn a_damaged_gguf_file_is_refused() {
    let whole = fs::read(smollm2_path()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    for length in [0, 3, 4, 20, 1000, 100_000, 2_000_000, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(refusal(&path).contains("model.gguf"), "{length}");
    }
    // An alignment of zero, and a pre-tokeniser of another name.
    for (from, to, expected) in [
        (&b"tokenizer.ggml.pre"[..], &b"tokenizer.ggml.prx"[..], "`tokenizer.ggml.pre`"),
        (b"\x06\0\0\0\0\0\0\0smollm", b"\x06\0\0\0\0\0\0\0smollx", "`tokenizer.ggml.pre` \"smollx\""),
        (b"blk.7.attn_q.weight", b"blk.7.attn_Q.weight", "tensor `blk.7.attn_q.weight` is missing"),
        (b"llama.rope.freq_base", b"llama.rope.freq_bass", "`llama.rope.freq_bass` is not understood"),
    ] {
        let at = whole.windows(from.len()).position(|w| w == from).unwrap();
        let mut damaged = whole.clone();
        damaged[at..at + to.len()].copy_from_slice(to);
        fs::write(&path, damaged).unwrap();
        let error = refusal(&path);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_gguf_header_with_alignment_zero_is_refused() {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(0u64.to_le_bytes());
    file.extend(1u64.to_le_bytes());
    let key = b"general.alignment";
    file.extend((key.len() as u64).to_le_bytes());
    file.extend(key);
    file.extend(4u32.to_le_bytes());
    file.extend(0u32.to_le_bytes());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zero.gguf");
    fs::write(&path, file).unwrap();
    assert!(refusal(&path).contains("zero.gguf"));
}

#[test]
fn the_fingerprint_depends_on_every_file_and_not_on_the_folder() {
    let print = |dir: &Path| load_golden(dir).info().fingerprint.clone();
    let original = print(&goldens().join("llama/gqa_tied"));
    assert_eq!(original.len(), 64);
    let dir = copy("llama/gqa_tied");
    assert_eq!(print(dir.path()), original);
    for file in ["config.json", "tokenizer_config.json"] {
        let dir = copy("llama/gqa_tied");
        let text = fs::read_to_string(dir.path().join(file)).unwrap();
        fs::write(dir.path().join(file), text + "\n").unwrap();
        assert_ne!(print(dir.path()), original, "{file}");
    }
    let dir = copy("llama/gqa_tied");
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_ne!(print(dir.path()), original);
}

#[test]
fn a_model_is_described_by_its_checkpoint() {
    let model = load_golden(&goldens().join("llama/bfloat16_sharded"));
    let info = model.info();
    assert_eq!((info.architecture.as_str(), info.weights_dtype.as_str()), ("llama", "bfloat16"));
    assert_eq!((info.n_layers, info.d_model, info.n_heads, info.n_kv_heads, info.d_head), (3, 32, 4, 2, 8));
    // Embedding and unembedding; per block four attention and three MLP projections and two norms; the final norm.
    assert_eq!(info.n_params, 2 * 272 * 32 + 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32) + 32);
    let base = load_golden(&goldens().join("llama/base_model"));
    assert!(base.info().layers_with(Site::Logits).is_none());
}
